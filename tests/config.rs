//! The configuration as operators meet it: the example file, the documents, the key table, the messages.
#![allow(clippy::unwrap_used)]

#[path = "config/effects.rs"]
mod effects;
#[path = "config/example.rs"]
mod example;
#[path = "config/faults.rs"]
mod faults;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use chainlightning::config::keyfile::{KeyFileError, KeyFiles};
use chainlightning::config::keys;
use chainlightning::config::{Config, ConfigErrors, Loaded, Role, diff};
use zeroize::Zeroizing;

const EXAMPLE: &str = include_str!("../config.toml");
const OPERATIONS: &str = include_str!("../docs/operations.md");
const ROLES: [Role; 2] = [Role::Client, Role::Server];

/// Base64 of 32 bytes of this value. Byte patterns are keys like any other.
fn key_text(byte: u8) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode([byte; 32])
}

/// Key files that exist in a test only.
struct Files(BTreeMap<PathBuf, Result<String, KeyFileError>>);

impl KeyFiles for Files {
    fn read(&self, path: &Path) -> Result<Zeroizing<String>, KeyFileError> {
        let found = self
            .0
            .get(path)
            .cloned()
            .unwrap_or(Err(KeyFileError::Absent));
        found.map(Zeroizing::new)
    }
}

/// The default private key, and a few others to name.
fn files() -> Files {
    let file = |path: &str, byte| (PathBuf::from(path), Ok(key_text(byte)));
    Files(BTreeMap::from([
        file("/etc/chainlightning/private.key", 64),
        file("/keys/other.key", 72),
        file("/keys/a.psk", 80),
        file("/keys/b.psk", 88),
    ]))
}

fn parse(text: &str, role: Role) -> Result<Loaded, ConfigErrors> {
    Config::parse(text, Path::new("config.toml"), role, &files())
}

fn parse_with(text: &str, role: Role, files: &Files) -> Result<Loaded, ConfigErrors> {
    Config::parse(text, Path::new("config.toml"), role, files)
}

/// The least that each side runs with.
fn least(role: Role) -> String {
    let peer = key_text(3);
    match role {
        Role::Client => format!(
            "general.server_ip = \"9.9.9.9\"\nlinks.source_ips = [\"192.168.1.20\"]\nsecurity.peer_public_key = \"{peer}\"\n"
        ),
        Role::Server => format!("security.peer_public_key = \"{peer}\"\n"),
    }
}

/// The example with every commented key in force.
fn uncommented() -> String {
    let is_key = |line: &str| {
        line.starts_with("#[") || (line.starts_with('#') && !line.starts_with("# ") && line != "#")
    };
    let lines = EXAMPLE
        .lines()
        .map(|line| if is_key(line) { &line[1..] } else { line });
    lines.collect::<Vec<_>>().join("\n")
}

/// Set this to write the key table into the document.
const UPDATE: &str = "UPDATE_DOCS";

#[test]
fn the_documents_key_table_is_the_programs() {
    let (begin, end) = ("<!-- keys: begin -->\n", "<!-- keys: end -->");
    let start = OPERATIONS.find(begin).unwrap() + begin.len();
    let stop = OPERATIONS.find(end).unwrap();
    if std::env::var_os(UPDATE).is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md");
        let text = format!(
            "{}{}{}",
            &OPERATIONS[..start],
            keys::markdown(),
            &OPERATIONS[stop..]
        );
        std::fs::write(path, text).unwrap();
        return;
    }
    let same = OPERATIONS[start..stop] == keys::markdown();
    assert!(
        same,
        "docs/operations.md differs; run: {UPDATE}=1 cargo test --test config"
    );
}

#[test]
fn a_changed_key_file_behind_the_same_path_needs_a_restart() {
    let text = format!(
        "{}security.preshared_key_file = \"/keys/a.psk\"\n",
        least(Role::Server)
    );
    let old = parse(&text, Role::Server).unwrap().config;
    for path in ["/keys/a.psk", "/etc/chainlightning/private.key"] {
        let mut files = files();
        files.0.insert(path.into(), Ok(key_text(99)));
        let new = parse_with(&text, Role::Server, &files).unwrap().config;
        let diff = diff(&old, &new);
        assert_eq!(diff.restart().count(), 1, "{path}: {diff:?}");
        assert!(!format!("{diff:?}").contains(&key_text(99)));
    }
}

#[test]
fn no_secret_is_in_the_debug_text() {
    let text = format!(
        "{}security.preshared_key_file = \"/keys/a.psk\"\n",
        least(Role::Server)
    );
    let debug = format!("{:?}", parse(&text, Role::Server).unwrap());
    assert!(!debug.contains(&key_text(64)) && !debug.contains(&key_text(80)));
    assert!(!debug.contains("64, 64, 64") && !debug.contains("80, 80, 80"));
}

#[test]
fn the_old_programs_sample_is_accepted_once_its_addresses_are_real() {
    let old = "\
[general]
server_ip = \"9.9.9.9\"
tun_name = \"tun-bond\"
tun_local_ip = \"10.99.0.2\"
tun_remote_ip = \"10.99.0.1\"
tun_netmask = \"255.255.255.0\"
[links]
source_ips = [\"192.168.1.20\", \"192.168.2.20\", \"192.168.3.20\"]
start_port = 9001
links_per_wan = 2
[performance]
fec_group_size = 10
fec_repair_packets = 3
heartbeat_interval_ms = 100
rtt_weight = 0.7
loss_weight = 0.3
";
    let errors = parse(old, Role::Client).unwrap_err();
    assert_eq!(errors.faults().len(), 1, "only the key is new: {errors}");
    let text = format!("{old}[security]\npeer_public_key = \"{}\"\n", key_text(3));
    let loaded = parse(&text, Role::Client).unwrap();
    assert!(loaded.warnings.is_empty());
    let ports: Vec<_> = loaded
        .config
        .links
        .lanes()
        .map(|link| link.server_port)
        .collect();
    assert_eq!(ports, [9001, 9002, 9003, 9004, 9005, 9006]);
    let server = parse(&text, Role::Server).unwrap().config;
    assert_eq!(
        server.tunnel.local.to_string(),
        "10.99.0.2",
        "what the operator writes counts"
    );
}

#[test]
fn defaults_of_the_two_sides_face_each_other() {
    let client = parse(&least(Role::Client), Role::Client).unwrap().config;
    let server = parse(&least(Role::Server), Role::Server).unwrap().config;
    assert_eq!(client.tunnel.local, server.tunnel.remote);
    assert_eq!(client.tunnel.remote, server.tunnel.local);
    assert_ne!(client.control_socket, server.control_socket);
    assert_eq!(server.server_ip.to_string(), "0.0.0.0");
    assert!(server.links.wans.is_empty());
}

#[test]
fn workers_follow_the_processors_and_a_clients_follow_its_rates() {
    let count = |role, more: &str, processors| {
        let text = format!("{}{more}", least(role));
        parse(&text, role).unwrap().config.worker_count(processors)
    };
    for (processors, expected) in [(1, 1), (2, 1), (3, 1), (4, 2), (16, 8), (128, 8)] {
        assert_eq!(count(Role::Server, "", processors), expected);
        assert_eq!(count(Role::Client, "", processors), 1);
    }
    let wan = |mbps| {
        format!("[[links.wan]]\nsource_ip = \"192.168.1.20\"\ndown_mbps = {mbps}\nup_mbps = 100\n")
    };
    for (mbps, processors, expected) in
        [(2_000, 8, 1), (2_001, 8, 2), (10_000, 8, 4), (10_000, 2, 1)]
    {
        assert_eq!(
            count(Role::Client, &wan(mbps), processors),
            expected,
            "{mbps}"
        );
    }
    for role in ROLES {
        assert_eq!(count(role, "performance.threads = 5\n", 2), 5);
    }
}

#[test]
fn any_text_gives_a_configuration_or_faults_and_never_panics() {
    let mut rng = chainlightning::base::Rng::new(11);
    let whole = format!("{}\n{}", least(Role::Client), uncommented());
    let pieces: Vec<&str> = whole.split_inclusive([' ', '\n', '"', '=']).collect();
    for _ in 0..3000 {
        let mut text = String::new();
        let first = usize::try_from(rng.below(pieces.len() as u64)).unwrap();
        for piece in pieces.iter().skip(first).take(60) {
            match rng.below(40) {
                0 => {}
                1 => text.push_str("[]"),
                2 => text.push_str("-9223372036854775809"),
                3 => text.push('\u{ffff}'),
                4 => text.push_str("1e999"),
                _ => text.push_str(piece),
            }
        }
        for role in ROLES {
            if let Err(errors) = parse(&text, role) {
                assert!(!errors.faults().is_empty() && !errors.to_string().is_empty());
            }
        }
    }
}
