//! Two sessions with real keys, joined by memory: what benches and tests run the core on.
//!
//! Never does: losses, delays or time of its own; `now` is the caller's, and datagrams are where the caller puts them.

use std::net::SocketAddr;

use crate::base::{Instant, LinkId, WanId};
use crate::crypto::Cipher;
use crate::crypto::handshake::{Established, Initiator, Responder};
use crate::crypto::key_schedule::Role;
use crate::crypto::keys::PrivateKey;
use crate::fec::protection::{Mode as FecMode, RESIDUAL};
use crate::session::config::WanConfig;
use crate::session::epochs::{EpochKeys, LinkKeys};
use crate::session::path::Origin;
use crate::session::{Session, SessionParameters};
pub use crate::sim::plan::session_config as config;
use crate::wire::handshake::{HELLO_BYTES, HelloPayload, WELCOME_BYTES, WelcomePayload};

/// Longest datagram of both ends.
pub const DATAGRAM_BYTES: u16 = 1472;
/// FEC by what the links lose, as configured unless told otherwise.
pub const ADAPTIVE: FecMode = FecMode::Adaptive {
    ceiling: 0.25,
    residual: RESIDUAL,
};

/// Receiver index of a link, the same for both ends.
pub const fn index_of(link: u8) -> u32 {
    1000 + link as u32
}

/// Both ends of a handshake between two new keys: initiator's, responder's.
///
/// # Panics
/// When the system gives no random numbers; the rest is ours and right.
pub fn handshake() -> (Established, Established) {
    let key = || PrivateKey::generate().expect("the system has random numbers");
    let (client, server) = (key(), key());
    let hello_payload = HelloPayload {
        stamp: [1; 12],
        boot_id: [1; 8],
        cipher_bits: Cipher::local_bits(),
        psk_kind: 0,
        features: 0,
        session_number: 0,
        link_count: 1,
        datagram_bytes_max: DATAGRAM_BYTES,
        indexes: [0; 32],
    };
    let welcome_payload = WelcomePayload {
        cipher: Cipher::choose(Cipher::local_bits(), Cipher::local_bits()).code(),
        features: 0,
        boot_id: [2; 8],
        link_count: 1,
        datagram_bytes_max: DATAGRAM_BYTES,
        hold_time_max_ms: 150,
        indexes: [0; 32],
    };
    let (mut hello, mut welcome) = ([0; HELLO_BYTES], [0; WELCOME_BYTES]);
    let peer = server.public();
    let mut initiator = Initiator::start(&client, peer, None, 7, &hello_payload, &mut hello)
        .expect("the payload fits");
    let responder = Responder::read(&server, &hello).expect("the hello is right");
    let far = responder.finish(None, 8, &welcome_payload, &mut welcome);
    let near = initiator.finish(&welcome).expect("the welcome is right");
    (near, far.expect("the payload fits"))
}

/// Keys of one end for its links.
pub fn keys(established: &Established, role: Role, links: u8, now: Instant) -> EpochKeys {
    let links = (0..links).map(|link| {
        let (seal, open) = established
            .secret
            .link_keys(role, LinkId(link), established.cipher);
        LinkKeys {
            seal,
            open,
            receiver_index: index_of(link),
            sent_base: 0,
            received_base: None,
        }
    });
    EpochKeys {
        id: 1,
        tag: 1,
        links: links.collect(),
        established_at: now,
    }
}

/// A session without keys, with a WAN for each link.
pub fn session(initiator: bool, links: u8, now: Instant) -> Session {
    let wans = (0..links).map(|number| WanConfig::plain(WanId(number), format!("wan{number}")));
    let parameters = SessionParameters {
        initiator,
        link_count: links,
        wans: wans.collect(),
        wan_of_link: (0..links).map(WanId).collect(),
        datagram_bytes_max: usize::from(DATAGRAM_BYTES),
        seed: 3,
    };
    Session::new(&parameters, config(), now)
}

/// Client and server with keys that fit.
pub fn sessions(links: u8, now: Instant) -> (Session, Session) {
    let (near, far) = handshake();
    let (mut client, mut server) = (session(true, links, now), session(false, links, now));
    client.install_epoch(keys(&near, Role::Initiator, links, now), now);
    server.install_epoch(keys(&far, Role::Responder, links, now), now);
    (client, server)
}

/// Where a link's datagrams come from, at the server.
pub fn origin(link: u8) -> Origin {
    Origin {
        port: u16::from(link),
        address: SocketAddr::from(([192, 0, 2, link], 4000)),
        local: None,
    }
}
