//! The configuration as operators meet it: the example file, the documents, the key table, the messages.
#![allow(clippy::unwrap_used)]

#[path = "config/faults.rs"]
mod faults;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use chainlightning::config::keyfile::{KeyFileError, KeyFiles};
use chainlightning::config::keys::{self, Key, Reload};
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

#[test]
fn the_example_as_it_stands_only_lacks_what_the_operator_must_fill_in() {
    for role in ROLES {
        let errors = parse_with(EXAMPLE, role, &Files(BTreeMap::new())).unwrap_err();
        assert!(errors.keys_missing());
        assert_eq!(errors.exit_code(), 78);
        let keys: Vec<_> = errors
            .faults()
            .iter()
            .map(|fault| fault.key.as_str())
            .collect();
        let mut expected = vec!["security.private_key_file", "security.peer_public_key"];
        if role == Role::Client {
            expected.insert(1, "general.server_ip");
        }
        let (mut keys, mut expected) = (keys, expected);
        keys.sort_unstable();
        expected.sort_unstable();
        assert_eq!(keys, expected, "{errors}");
        assert!(errors.to_string().contains("umask 077"));
        assert!(errors.to_string().contains("chainlightning pubkey < "));
    }
}

#[test]
fn the_example_states_the_defaults() {
    for role in ROLES {
        let with_example = parse(EXAMPLE, role);
        assert!(with_example.is_err(), "it lacks the peer's key");
        let peer = format!("[security]\npeer_public_key = \"{}\"", key_text(3));
        let mut text = EXAMPLE.replacen("[security]", &peer, 1);
        if role == Role::Client {
            let addresses = "server_ip = \"9.9.9.9\"";
            text = text.replacen("[general]", &format!("[general]\n{addresses}"), 1);
            text = text.replacen("[links]", "[links]\nsource_ips = [\"192.168.1.20\"]", 1);
        }
        let loaded = parse(&text, role).unwrap();
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
        let bare = parse(&least(role), role).unwrap();
        assert_eq!(format!("{:?}", loaded.config), format!("{:?}", bare.config));
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

#[test]
fn the_examples_placeholder_addresses_are_refused_and_real_ones_make_it_whole() {
    let errors = parse(&uncommented(), Role::Client).unwrap_err();
    let placeholders = errors
        .faults()
        .iter()
        .filter(|fault| fault.what.contains("placeholder"));
    assert_eq!(placeholders.count(), 3, "{errors}");
    let text = uncommented()
        .replace("203.0.113.7", "9.9.9.9")
        .replace("192.0.2.20", "192.168.1.20")
        .replace("198.51.100.20", "192.168.2.20")
        .replace("/etc/chainlightning/preshared.key", "/keys/a.psk");
    let config = parse(&text, Role::Client).unwrap().config;
    assert_eq!(config.links.wans.len(), 2);
    assert_eq!(config.links.wans[0].name, "fiber");
    assert_eq!(config.links.lanes().count(), 4);
    let server = text
        .replace("peer_public_key = ", "#")
        .replace("preshared_key_file = \"/", "#")
        .replace(
            "tun_local_ip = \"10.99.0.2\"",
            "tun_local_ip = \"10.99.0.1\"",
        )
        .replace(
            "tun_remote_ip = \"10.99.0.1\"",
            "tun_remote_ip = \"10.99.0.2\"",
        );
    let config = parse(&server, Role::Server).unwrap().config;
    assert_eq!(config.peers[0].name, "home");
    assert_eq!(config.peers[0].allowed_ips.len(), 2);
}

#[test]
fn every_key_stands_in_the_example_under_its_table() {
    let mut seen = Vec::new();
    let mut table = String::new();
    for line in uncommented().lines() {
        if let Some(name) = line.strip_prefix('[') {
            table = name.trim_matches(['[', ']']).to_owned();
        } else if let Some((name, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            seen.push(format!("{table}.{name}"));
        }
    }
    for key in keys::ALL {
        assert!(
            seen.iter().any(|name| name == key.name),
            "{} is not in config.toml",
            key.name
        );
    }
    assert_eq!(
        seen.len(),
        keys::ALL.len(),
        "config.toml has a key that the key table lacks"
    );
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

/// Two valid values for each key, as whole files of `role`. The second must change what is resolved.
fn two_files(key: &Key, role: Role) -> (String, String) {
    let (table, name) = key.name.rsplit_once('.').unwrap();
    let (first, second) = two_values(key.name);
    let mut files = [first, second].map(|value| {
        let line = format!("{name} = {value}\n");
        let base = least(role);
        match table {
            "links.wan" if name == "source_ip" => format!("{base}[[links.wan]]\n{line}"),
            "links.wan" if name == "device" => format!("{base}[[links.wan]]\n{line}"),
            "links.wan" if name == "quota_reset_day" => {
                format!("{base}[[links.wan]]\nsource_ip = \"192.168.1.20\"\nquota_gb = 5\n{line}")
            }
            "links.wan" => format!("{base}[[links.wan]]\nsource_ip = \"192.168.1.20\"\n{line}[[links.wan]]\ndevice = \"eth7\"\n"),
            "classes" => {
                let which = if name == "dscp" { "protocol = 6" } else { "dscp = [1]" };
                let more = match name {
                    "wan" => "policy = \"pin\"\n",
                    _ => "",
                };
                let wan = "[[links.wan]]\ndevice = \"eth7\"\n";
                format!("{base}{wan}[[classes]]\n{which}\n{more}{line}")
            }
            "peers" if name == "public_key" => format!("[[peers]]\n{line}"),
            "peers" => format!("[[peers]]\npublic_key = \"{}\"\n{line}", key_text(3)),
            _ => {
                let others = base.lines().filter(|line| !line.starts_with(&format!("{} =", key.name)));
                format!("{}\n{}.{line}", others.collect::<Vec<_>>().join("\n"), table)
            }
        }
    });
    if name == "tun_local_ip6" {
        files = files.map(|file| format!("{file}general.tun_remote_ip6 = \"fd99::9\"\n"));
    } else if name == "tun_remote_ip6" {
        files = files.map(|file| format!("{file}general.tun_local_ip6 = \"fd99::9\"\n"));
    }
    let [first, second] = files;
    (first, second)
}

/// Two valid values that differ.
fn two_values(key: &str) -> (String, String) {
    let quoted = |text: &str| format!("\"{text}\"");
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    let words = |a: &str, b: &str| (quoted(a), quoted(b));
    match key {
        "general.server_ip" => words("9.9.9.9", "9.9.9.10"),
        "general.state_folder" => words("/var/lib/a", "/var/lib/b"),
        "general.tun_name" | "links.wan.name" | "links.wan.device" | "classes.name"
        | "peers.name" => words("a1", "b.2"),
        "general.tun_local_ip" | "general.tun_remote_ip" => words("10.99.0.3", "10.99.0.4"),
        "general.tun_netmask" => words("255.255.255.0", "255.255.0.0"),
        "general.tun_local_ip6" | "general.tun_remote_ip6" => words("fd99::1", "fd99::2"),
        "general.tun_mtu" => pair("1400", "9000"),
        "general.mss_clamp" => pair("\"auto\"", "1200"),
        "links.source_ips" => pair("[\"192.168.1.20\"]", "[\"192.168.1.21\", \"192.168.2.1\"]"),
        "links.start_port" => pair("9001", "50001"),
        "links.links_per_wan" | "links.ports" => pair("1", "2"),
        "links.wan.source_ip" => words("192.168.7.1", "192.168.7.2"),
        "links.wan.role" => words("active", "backup"),
        "links.wan.direction" => words("both", "up"),
        "links.wan.max_rtt_ms" => pair("0", "500"),
        "links.wan.max_loss_percent" | "links.wan.quota_gb" => pair("0", "2.5"),
        "links.wan.quota_reset_day" => pair("1", "28"),
        "links.wan.down_mbps" | "links.wan.up_mbps" => pair("0", "62.5"),
        "performance.fec_group_size" => pair("10", "20"),
        "performance.fec_repair_packets" => pair("3", "0"),
        "performance.fec_mode" => words("adaptive", "fixed"),
        "performance.heartbeat_interval_ms" => pair("100", "20"),
        "performance.rtt_weight" | "performance.loss_weight" => pair("0.5", "1"),
        "performance.mode" => words("balanced", "redundant"),
        "classes.dscp" => pair("[46]", "[46, 34]"),
        "classes.protocol" => pair("\"icmp\"", "47"),
        "classes.ports" => pair("[53]", "[53, \"5000-5100\"]"),
        "classes.prefixes" => pair("[\"10.0.0.0/8\"]", "[\"10.0.0.0/8\", \"::/0\"]"),
        "classes.policy" => words("duplicate", "best"),
        "classes.wan" => words("wan0", "wan1"),
        "classes.fallback" => pair("true", "false"),
        "performance.equalise" => words("auto", "on"),
        "performance.reorder_max_ms" => pair("\"auto\"", "30"),
        "performance.backend" => words("auto", "epoll"),
        "performance.gso" => words("auto", "uneven"),
        "performance.zero_copy" => words("auto", "off"),
        "performance.threads" => pair("\"auto\"", "16"),
        "performance.cpu_affinity" => pair("[]", "[1, 3]"),
        "performance.offload" | "routing.manage" => pair("true", "false"),
        "security.private_key_file" => words("/etc/chainlightning/private.key", "/keys/other.key"),
        "security.peer_public_key" | "peers.public_key" => {
            (quoted(&key_text(5)), quoted(&key_text(6)))
        }
        "security.preshared_key_file" | "peers.preshared_key_file" => {
            words("/keys/a.psk", "/keys/b.psk")
        }
        "security.cipher" => words("auto", "aes-256-gcm"),
        "security.rekey_interval_s" => pair("120", "60"),
        "peers.tun_ip" => words("10.99.0.7", "10.99.0.8"),
        "peers.allowed_ips" => pair("[\"10.99.0.7\"]", "[\"10.99.0.7\", \"192.168.0.0/16\"]"),
        "routing.table" => pair("51830", "100"),
        "routing.rule_priority" => pair("15000", "100"),
        "status.control_socket" => words("/run/a.sock", "/run/b.sock"),
        "logging.level" => words("info", "debug"),
        "logging.stats_interval_s" => pair("10", "0"),
        other => panic!("{other} has no pair of values in this test"),
    }
}

#[test]
fn every_key_changes_the_resolved_configuration_and_reload_sees_it() {
    for key in keys::ALL {
        for role in ROLES.into_iter().filter(|role| key.side.includes(*role)) {
            let (first, second) = two_files(key, role);
            let load = |text: &str| match parse(text, role) {
                Ok(loaded) => loaded.config,
                Err(errors) => panic!("{} as {role}:\n{text}\n{errors}", key.name),
            };
            let (old, new) = (load(&first), load(&second));
            assert_ne!(
                format!("{old:?}"),
                format!("{new:?}"),
                "{} changes nothing",
                key.name
            );
            assert_ne!(
                (key.show)(&old),
                (key.show)(&new),
                "{} does not show",
                key.name
            );
            let diff = diff(&old, &new);
            let change = diff
                .changes
                .iter()
                .find(|change| change.key == key.name)
                .unwrap();
            assert_eq!(change.reload, key.reload);
            assert_eq!(
                diff.restart().next().is_some(),
                key.reload == Reload::Restart,
                "{}",
                key.name
            );
            assert!(chainlightning::config::diff(&old, &old).is_empty());
        }
    }
}

#[test]
fn a_default_written_out_is_the_same_as_none() {
    for key in keys::ALL {
        for role in ROLES.into_iter().filter(|role| key.side.includes(*role)) {
            let (table, name) = key.name.rsplit_once('.').unwrap();
            let Some(default) = key.default.text(role) else {
                continue;
            };
            if least(role).contains(key.name) {
                continue; // has a value of its own in the least file
            }
            let base = least(role);
            let (without, with) = match table {
                "links.wan" => {
                    let base = format!("{base}[[links.wan]]\nsource_ip = \"192.168.1.20\"\n");
                    if name == "source_ip" {
                        continue;
                    }
                    (base.clone(), format!("{base}{name} = {default}\n"))
                }
                "classes" => {
                    let which = if name == "dscp" {
                        "protocol = 6"
                    } else {
                        "dscp = [1]"
                    };
                    let base = format!("{base}[[classes]]\n{which}\n");
                    (base.clone(), format!("{base}{name} = {default}\n"))
                }
                "peers" => {
                    let base = format!("[[peers]]\npublic_key = \"{}\"\n", key_text(3));
                    (base.clone(), format!("{base}{name} = {default}\n"))
                }
                _ => (base.clone(), format!("{base}{} = {default}\n", key.name)),
            };
            let [without, with] =
                [without, with].map(|text| format!("{:?}", parse(&text, role).unwrap().config));
            assert_eq!(without, with, "{}", key.name);
        }
    }
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
