//! `[[peers]]` and the keys of `[security]`: who may be on the other side.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::base::Prefix;
use crate::crypto::keys::{PresharedKey, PrivateKey, PublicKey};

use super::super::context::{Context, Placed};
use super::super::error::FaultKind;
use super::super::file::{File, Table};
use super::super::keyfile::{KeyFileError, KeyFiles, digest};
use super::super::values::{Keys, Peer, Role, Security, Tunnel};
use super::{NAME_CHARS_MAX, beside, is_plain_name};

/// Most clients of one server: the tables of the endpoint are sized once, at start.
const PEERS_MAX: usize = 256;

/// The other side and the secrets; `None` for the secrets after a fault.
pub(super) fn peers_and_keys<'a>(
    context: &mut Context<'a>,
    file: &File<'a>,
    tunnel: &Tunnel,
    security: &Security,
    key_files: &dyn KeyFiles,
) -> (Vec<Peer>, Option<Keys>) {
    let table = file.table("security");
    let private = private_key(context, table, &security.private_key_file, key_files);
    let peers = match context.role {
        Role::Client => {
            if let Some(first) = file.peers.first() {
                context.warn(
                    "[[peers]]",
                    first.span.clone(),
                    "is for the server; the client reads peer_public_key",
                );
            }
            the_only_peer(context, table, tunnel)
        }
        Role::Server if file.peers.is_empty() => the_only_peer(context, table, tunnel),
        Role::Server => listed_peers(context, file, tunnel),
    };
    let mut keys = private.map(|private| Keys {
        private,
        preshared: Vec::new(),
        preshared_digests: Vec::new(),
    });
    for Found {
        peer,
        key_at,
        preshared_at,
    } in &peers
    {
        let path = peer.preshared_key_file.as_deref();
        let preshared = path.and_then(|path| preshared_key(context, preshared_at, path, key_files));
        let Some(keys) = &mut keys else { continue };
        let (key, digest) = preshared.map_or((None, 0), |(key, digest)| (Some(key), digest));
        keys.preshared.push(key);
        keys.preshared_digests.push(digest);
        if keys.private.public() == peer.public_key {
            context.fault(
                key_at,
                "is this side's own public key; put the other side's",
            );
        }
    }
    (peers.into_iter().map(|found| found.peer).collect(), keys)
}

/// A peer and the places for faults about its keys.
struct Found {
    peer: Peer,
    key_at: Placed<()>,
    preshared_at: Placed<()>,
}

/// The peer of `security.peer_public_key`, with the place for faults about it.
fn the_only_peer<'a>(context: &mut Context<'a>, table: &Table<'a>, tunnel: &Tunnel) -> Vec<Found> {
    let Some(found) = context.text(table, "peer_public_key") else {
        if !table.sets("peer_public_key") {
            let at = Context::unset("security.peer_public_key");
            context.fault_of_kind(FaultKind::KeyMissing, &at, "is not set");
        }
        return Vec::new();
    };
    let Some(public_key) = public_key(context, &found) else {
        return Vec::new();
    };
    let tun_ip = tunnel.remote.into();
    // The only peer may be a router with any network, or the whole internet, behind it.
    let mut allowed_ips = vec![Prefix::host(tun_ip)];
    allowed_ips.extend(tunnel.v6.map(|(_, remote)| Prefix::host(remote.into())));
    allowed_ips.extend([Prefix::ALL_V4, Prefix::ALL_V6]);
    let name = match context.role {
        Role::Client => "server",
        Role::Server => "client",
    };
    let (preshared_key_file, preshared_at) = preshared_path(context, table);
    let peer = Peer {
        name: name.to_owned(),
        public_key,
        preshared_key_file,
        tun_ip,
        allowed_ips,
    };
    vec![Found {
        peer,
        key_at: found.with(()),
        preshared_at,
    }]
}

fn listed_peers<'a>(context: &mut Context<'a>, file: &File<'a>, tunnel: &Tunnel) -> Vec<Found> {
    let security = file.table("security");
    for name in ["peer_public_key", "preshared_key_file"] {
        if security.sets(name)
            && let Some(found) = context.text(security, name)
        {
            context.fault(
                &found,
                "is set beside [[peers]]; put it into a [[peers]] table",
            );
        }
    }
    if file.peers.len() > PEERS_MAX {
        let at = file.peers[PEERS_MAX].placed();
        context.fault(
            &at,
            format!("is one more than the {PEERS_MAX} clients that a server can have"),
        );
    }
    let mut peers: Vec<Found> = Vec::new();
    for (index, table) in file.peers.iter().enumerate() {
        let default_ip = (file.peers.len() == 1).then_some(IpAddr::V4(tunnel.remote));
        peers.extend(listed_peer(
            context, table, index, default_ip, &peers, tunnel,
        ));
    }
    peers
}

/// One `[[peers]]` table; `None` when it cannot even be named.
fn listed_peer<'a>(
    context: &mut Context<'a>,
    table: &Table<'a>,
    index: usize,
    default_ip: Option<IpAddr>,
    before: &[Found],
    tunnel: &Tunnel,
) -> Option<Found> {
    let mut name = format!("peer{index}");
    if let Some(found) = context.text(table, "name") {
        if !is_plain_name(&found.value, NAME_CHARS_MAX) {
            context.fault(&found, "cannot be the name of a peer");
        } else if before.iter().any(|other| other.peer.name == found.value) {
            context.fault(&found, "is the name of another peer");
        }
        name = found.value;
    }
    let tun_ip = tun_ip(context, table, default_ip, before, tunnel);
    let allowed_ips = allowed_ips(context, table, tun_ip, before);
    let (preshared_key_file, preshared_at) = preshared_path(context, table);
    let Some(found) = context.text(table, "public_key") else {
        if !table.sets("public_key") {
            context.fault_of_kind(FaultKind::KeyMissing, &table.placed(), "has no public_key");
        }
        return None;
    };
    let public_key = public_key(context, &found)?;
    if before
        .iter()
        .any(|other| other.peer.public_key == public_key)
    {
        context.fault(&found, "is the key of another peer");
    }
    let peer = Peer {
        name,
        public_key,
        preshared_key_file,
        tun_ip: tun_ip?,
        allowed_ips,
    };
    Some(Found {
        peer,
        key_at: found.with(()),
        preshared_at,
    })
}

fn tun_ip<'a>(
    context: &mut Context<'a>,
    table: &Table<'a>,
    default: Option<IpAddr>,
    before: &[Found],
    tunnel: &Tunnel,
) -> Option<IpAddr> {
    let Some(found) = context.address::<IpAddr>(table, "tun_ip") else {
        if default.is_none() && !table.sets("tun_ip") {
            context.fault(&table.placed(), "has no tun_ip, which several peers need");
        }
        return default;
    };
    let own = [
        Some(IpAddr::V4(tunnel.local)),
        tunnel.v6.map(|(local, _)| local.into()),
    ];
    let taken = before.iter().find(|other| other.peer.tun_ip == found.value);
    if own.contains(&Some(found.value)) {
        context.fault(&found, "is this server's own address inside the tunnel");
    } else if let Some(other) = taken {
        context.fault(
            &found,
            format!("is the address of peer {}", other.peer.name),
        );
    }
    Some(found.value)
}

fn allowed_ips<'a>(
    context: &mut Context<'a>,
    table: &Table<'a>,
    tun_ip: Option<IpAddr>,
    before: &[Found],
) -> Vec<Prefix> {
    if !table.values.contains_key("allowed_ips") {
        return tun_ip.map(Prefix::host).into_iter().collect();
    }
    let mut out: Vec<Prefix> = Vec::new();
    for text in context.list(table, "allowed_ips") {
        let prefix = match text.value.parse::<Prefix>() {
            Ok(prefix) => prefix,
            Err(error) => {
                context.fault(&text, error);
                continue;
            }
        };
        let owner = before
            .iter()
            .find(|other| other.peer.allowed_ips.contains(&prefix));
        if let Some(other) = owner {
            context.fault(
                &text,
                format!("belongs to peer {} already", other.peer.name),
            );
        } else if out.contains(&prefix) {
            context.fault(&text, "is there twice");
        }
        out.push(prefix);
    }
    out
}

fn public_key(context: &mut Context<'_>, found: &Placed<String>) -> Option<PublicKey> {
    let key = PublicKey::from_base64(&found.value).ok();
    if key.is_none() {
        context.fault(
            found,
            "is not a public key; `chainlightning pubkey < private.key` prints one",
        );
    }
    key
}

/// The preshared key's file and the place of its key.
fn preshared_path<'a>(
    context: &mut Context<'a>,
    table: &Table<'a>,
) -> (Option<PathBuf>, Placed<()>) {
    match context.text(table, "preshared_key_file") {
        Some(found) => (Some(beside(&context.file, &found.value)), found.with(())),
        None => (None, Context::unset("security.preshared_key_file")),
    }
}

fn private_key<'a>(
    context: &mut Context<'a>,
    table: &Table<'a>,
    path: &Path,
    key_files: &dyn KeyFiles,
) -> Option<PrivateKey> {
    let found = context.text(table, "private_key_file");
    let at = found.map_or_else(
        || Context::unset("security.private_key_file"),
        |found| found.with(()),
    );
    let text = key_files
        .read(path)
        .map_err(|error| report(context, &at, path, &error))
        .ok()?;
    let key = PrivateKey::from_base64(&text).ok();
    if key.is_none() {
        report(context, &at, path, &KeyFileError::NotAKey);
    }
    key
}

fn preshared_key(
    context: &mut Context<'_>,
    at: &Placed<()>,
    path: &Path,
    key_files: &dyn KeyFiles,
) -> Option<(PresharedKey, u64)> {
    let text = key_files
        .read(path)
        .map_err(|error| report(context, at, path, &error))
        .ok()?;
    let key = PresharedKey::from_base64(&text).ok();
    if key.is_none() {
        report(context, at, path, &KeyFileError::NotAKey);
    }
    key.map(|key| (key, digest(&text)))
}

fn report(context: &mut Context<'_>, at: &Placed<()>, path: &Path, error: &KeyFileError) {
    let kind = match error {
        KeyFileError::Absent => FaultKind::KeyMissing,
        KeyFileError::Refused => FaultKind::Permission,
        _ => FaultKind::KeyFile,
    };
    context.fault_of_kind(
        kind,
        at,
        format!("{} {}", path.display(), error.advice(path)),
    );
}
