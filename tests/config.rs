//! The configuration as operators meet it: the example file, the documents, the key table, the messages.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use chainlightning::config::keyfile::{KeyFileError, KeyFiles};
use chainlightning::config::keys::{self, Key, Reload};
use chainlightning::config::{Config, ConfigErrors, FaultKind, Loaded, Role, diff};
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
            "links.wan" => format!("{base}[[links.wan]]\nsource_ip = \"192.168.1.20\"\n{line}[[links.wan]]\ndevice = \"eth7\"\n"),
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
        "general.tun_name" | "links.wan.name" | "links.wan.device" | "peers.name" => {
            words("a1", "b.2")
        }
        "general.tun_local_ip" | "general.tun_remote_ip" => words("10.99.0.3", "10.99.0.4"),
        "general.tun_netmask" => words("255.255.255.0", "255.255.0.0"),
        "general.tun_local_ip6" | "general.tun_remote_ip6" => words("fd99::1", "fd99::2"),
        "general.tun_mtu" => pair("1400", "9000"),
        "links.source_ips" => pair("[\"192.168.1.20\"]", "[\"192.168.1.21\", \"192.168.2.1\"]"),
        "links.start_port" => pair("9001", "50001"),
        "links.links_per_wan" | "links.ports" => pair("1", "2"),
        "links.wan.source_ip" => words("192.168.7.1", "192.168.7.2"),
        "links.wan.role" => words("active", "backup"),
        "links.wan.down_mbps" | "links.wan.up_mbps" => pair("0", "62.5"),
        "performance.fec_group_size" => pair("10", "20"),
        "performance.fec_repair_packets" => pair("3", "0"),
        "performance.fec_mode" => words("adaptive", "fixed"),
        "performance.heartbeat_interval_ms" => pair("100", "20"),
        "performance.rtt_weight" | "performance.loss_weight" => pair("0.5", "1"),
        "performance.mode" => words("balanced", "redundant"),
        "performance.reorder_max_ms" => pair("\"auto\"", "30"),
        "performance.backend" => words("auto", "epoll"),
        "performance.threads" => pair("\"auto\"", "1"),
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

/// A fault's message for a file that is good but for `text`.
fn messages(text: &str, role: Role) -> Vec<String> {
    match parse(text, role) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.faults().iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn every_fault_is_reported_at_once_with_place_value_cause_and_what_is_allowed() {
    let text = "\
[general]
server_ip = \"YOUR_SERVER_IP\"
tun_mtu = \"large\"
[links]
source_ips = [\"192.168.1.20\", \"192.168.1.20\", 7]
links_per_wan = 0
[performance]
mode = \"balance\"
threads = 4
[security]
peer_public_key = \"short\"
";
    let expected = [
        "config.toml:2:13: general.server_ip = \"YOUR_SERVER_IP\": is a placeholder; put the real address; allowed: an IPv4 or IPv6 address",
        "config.toml:3:11: general.tun_mtu = \"large\": is of type string, not an integer; allowed: 576 to 9000; 1280 at least with IPv6",
        "config.toml:5:31: links.source_ips[1] = \"192.168.1.20\": is there twice; links_per_wan makes several links over one WAN; allowed: a list of addresses of this host, one for each WAN, each once",
        "config.toml:5:47: links.source_ips[2] = 7: is of type integer, not a string; allowed: a list of addresses of this host, one for each WAN, each once",
        "config.toml:6:17: links.links_per_wan = 0: is out of range; allowed: 1 to 8; at most 32 links in all",
        "config.toml:8:8: performance.mode = \"balance\": is not known (did you mean \"balanced\"?); allowed: balanced, redundant, weighted, single_best, round_robin",
        "config.toml:9:11: performance.threads = 4: is out of range; allowed: \"auto\" or 1 (the data path has one worker in each process)",
        "config.toml:11:19: security.peer_public_key = \"short\": is not a public key; `chainlightning pubkey < private.key` prints one; allowed: a public key: 44 characters of base64",
    ];
    assert_eq!(messages(text, Role::Client), expected);
}

#[test]
fn each_of_these_mistakes_is_found_on_its_line_and_named() {
    use Role::{Client, Server};
    let third_key = key_text(9);
    let peer = |more: &str| format!("[[peers]]\npublic_key = \"{third_key}\"\n{more}");
    let cases: Vec<(Role, String, &str)> = vec![
        (
            Client,
            "general.server_ip = \"203.0.113.9\"".into(),
            "placeholder",
        ),
        (
            Client,
            "general.server_ip = \"vpn.host.net\"".into(),
            "is a name",
        ),
        (
            Client,
            "general.server_ip = \"0.0.0.0\"".into(),
            "can reach",
        ),
        (Client, "general.server_ip = 9".into(), "of type integer"),
        (
            Client,
            "general.server_ip = \"192.168.1.20\"".into(),
            "this host's own",
        ),
        (
            Client,
            "general.server_ip = \"2a00::1\"".into(),
            "one is IPv4, the other IPv6",
        ),
        (
            Client,
            "general.tun_name = \"a/b\"".into(),
            "name of a device",
        ),
        (
            Client,
            "general.tun_name = \"sixteen-letters-\"".into(),
            "name of a device",
        ),
        (Client, "general.tun_name = \"\"".into(), "name of a device"),
        (
            Client,
            "general.tun_local_ip = \"10.99.0.1\"".into(),
            "the same",
        ),
        (
            Client,
            "general.tun_local_ip = \"10.9.0.1\"".into(),
            "outside of 10.9.0.0/24",
        ),
        (
            Client,
            "general.tun_remote_ip = \"127.0.0.1\"".into(),
            "address of a tunnel",
        ),
        (
            Client,
            "general.tun_netmask = \"255.0.255.0\"".into(),
            "not a netmask",
        ),
        (
            Client,
            "general.tun_netmask = \"24\"".into(),
            "not an address",
        ),
        (
            Client,
            "general.tun_local_ip6 = \"fd99::2\"".into(),
            "without tun_remote_ip6",
        ),
        (
            Client,
            "general.tun_remote_ip6 = \"fd99::2\"".into(),
            "without tun_local_ip6",
        ),
        (Client, "general.tun_mtu = 575".into(), "out of range"),
        (
            Client,
            "general.tun_mtu = \"auto\"".into(),
            "of type string",
        ),
        (
            Client,
            "links.source_ips = \"192.168.1.20\"".into(),
            "not a list",
        ),
        (
            Client,
            "links.source_ips = [\"10.99.0.77\"]".into(),
            "carry itself",
        ),
        (
            Client,
            "links.source_ips = [\"0.0.0.0\"]".into(),
            "not an address of this host",
        ),
        (
            Client,
            "links.source_ips = [\"198.51.100.3\"]".into(),
            "placeholder",
        ),
        (Client, "links.start_port = 65530".into(), "beyond 65535"),
        (Client, "links.ports = 0".into(), "out of range"),
        (Client, "links.wan = 3".into(), "not a list of tables"),
        (
            Client,
            "[[links.wan]]\nname = \"x\"".into(),
            "neither source_ip nor device",
        ),
        (
            Client,
            "[[links.wan]]\nsource_ip = \"x\"".into(),
            "right kind",
        ),
        (
            Client,
            "[[links.wan]]\ndevice = \"a b\"".into(),
            "name of a device",
        ),
        (
            Client,
            "[[links.wan]]\ndevice = \"eth0\"\nrole = \"of\"".into(),
            "did you mean \"off\"",
        ),
        (
            Client,
            "[[links.wan]]\ndevice = \"eth0\"\nname = \"wan0\"".into(),
            "name of another WAN",
        ),
        (
            Client,
            "[[links.wan]]\ndevice = \"eth0\"\nup_mbps = -1".into(),
            "out of range",
        ),
        (
            Client,
            "[[links.wan]]\nsource_ip = \"192.168.1.20\"\nrole = \"off\"".into(),
            "every WAN is off",
        ),
        (
            Client,
            "performance.fec_group_size = 2".into(),
            "3 repair for 2 source",
        ),
        (
            Client,
            "performance.fec_group_size = 200".into(),
            "out of range",
        ),
        (
            Client,
            "performance.fec_repair_packets = 11".into(),
            "11 repair for 10 source",
        ),
        (
            Client,
            "performance.rtt_weight = nan".into(),
            "out of range",
        ),
        (
            Client,
            "performance.rtt_weight = true".into(),
            "not a number",
        ),
        (
            Client,
            "performance.reorder_max_ms = \"long\"".into(),
            "\"auto\" or an integer",
        ),
        (
            Client,
            "performance.heartbeat_interval_ms = 5".into(),
            "out of range",
        ),
        (
            Client,
            "performance.offload = 1".into(),
            "not true or false",
        ),
        (Client, "security.cipher = \"aes\"".into(), "is not known"),
        (
            Client,
            "security.rekey_interval_s = 151".into(),
            "out of range",
        ),
        (Client, "routing.table = 254".into(), "the system's own"),
        (
            Client,
            "routing.rule_priority = 40000".into(),
            "out of range",
        ),
        (
            Client,
            "status.control_socket = \"client.sock\"".into(),
            "absolute",
        ),
        (
            Client,
            format!("status.control_socket = \"/{}\"", "x".repeat(107)),
            "has 108 bytes",
        ),
        (
            Client,
            "logging.level = \"warning\"".into(),
            "did you mean \"warn\"",
        ),
        (Client, "general = 3".into(), "write [general]"),
        (Server, "peers = 3".into(), "not a list of tables"),
        (Server, peer("name = \"a b\""), "name of a peer"),
        (
            Server,
            peer("allowed_ips = [\"10.0.0.1/8\"]"),
            "the network is 10.0.0.0/8",
        ),
        (Server, peer("allowed_ips = [\"::/0\", \"::/0\"]"), "twice"),
        (
            Server,
            peer("tun_ip = \"10.99.0.1\""),
            "server's own address",
        ),
        (
            Server,
            format!(
                "{}{}",
                peer("tun_ip = \"10.99.0.2\"\n"),
                peer("tun_ip = \"10.99.0.3\"")
            ),
            "key of another peer",
        ),
        (
            Server,
            format!(
                "{}[[peers]]\npublic_key = \"{}\"\n",
                peer("tun_ip = \"10.99.0.2\"\n"),
                key_text(7)
            ),
            "has no tun_ip",
        ),
        (
            Server,
            format!(
                "{}{}",
                peer("tun_ip = \"10.99.0.2\"\n"),
                peer("tun_ip = \"10.99.0.2\"")
            ),
            "is the address of peer peer0",
        ),
        (
            Server,
            "[[peers]]\nname = \"x\"".into(),
            "has no public_key",
        ),
        (
            Server,
            format!("{}[security]\npeer_public_key = \"{third_key}\"", peer("")),
            "beside [[peers]]",
        ),
    ];
    for (role, text, expected) in cases {
        let with_peers = text.contains("peers");
        let key = text.split(' ').next().unwrap();
        let lines: Vec<String> = least(role)
            .lines()
            .filter(|line| !line.starts_with(key) && !(with_peers && line.contains("public_key")))
            .filter(|line| text != "general = 3" || !line.starts_with("general"))
            .map(str::to_owned)
            .collect();
        let file = format!("{}\n{text}\n", lines.join("\n"));
        let found = messages(&file, role);
        assert!(
            found.iter().any(|message| message.contains(expected)),
            "{text:?} -> {found:#?}"
        );
        for message in &found {
            let after = message.strip_prefix("config.toml:").unwrap();
            let unset = message.contains("not set");
            assert!(
                unset || after.starts_with(|c: char| c.is_ascii_digit()),
                "no place: {message}"
            );
        }
    }
}

#[test]
fn text_that_is_not_toml_says_where() {
    let errors = parse("[general]\nserver_ip = 9.9.9.9\nx y\n", Role::Client).unwrap_err();
    assert!(
        errors
            .faults()
            .iter()
            .all(|fault| fault.kind == FaultKind::Syntax)
    );
    assert!(errors.to_string().starts_with("config.toml:2:"), "{errors}");
    assert!(errors.to_string().contains("config.toml:3:"), "{errors}");
}

#[test]
fn unknown_keys_warn_with_the_nearest_known_one_and_stop_nothing() {
    let text = format!(
        "strategy = 1\n{}performance.heartbeat_intervall_ms = 7\nlinks.tun_mtu = 3\n[[links.wan]]\ndevice = \"eth0\"\nrole_ = 1\n[optimizer]\nenabled = true\n",
        least(Role::Client)
    );
    let loaded = parse(&text, Role::Client).unwrap();
    let mut warnings: Vec<_> = loaded.warnings.iter().map(ToString::to_string).collect();
    warnings.sort();
    assert_eq!(
        warnings,
        [
            "config.toml:10:2: optimizer: unknown key, ignored",
            "config.toml:1:1: strategy: unknown key, ignored",
            "config.toml:5:13: performance.heartbeat_intervall_ms: unknown key, ignored; did you mean performance.heartbeat_interval_ms?",
            "config.toml:6:7: links.tun_mtu: unknown key, ignored; did you mean general.tun_mtu?",
            "config.toml:9:1: links.wan.role_: unknown key, ignored; did you mean links.wan.role?",
        ]
    );
}

#[test]
fn key_files_that_cannot_be_used_are_told_apart() {
    let cases = [
        (
            KeyFileError::Absent,
            FaultKind::KeyMissing,
            78,
            "does not exist",
        ),
        (
            KeyFileError::Refused,
            FaultKind::Permission,
            77,
            "may not be read",
        ),
        (
            KeyFileError::Exposed { mode: 0o644 },
            FaultKind::KeyFile,
            78,
            "chmod 600 /etc/chainlightning/private.key",
        ),
        (
            KeyFileError::NotAKey,
            FaultKind::KeyFile,
            78,
            "exactly one line",
        ),
        (
            KeyFileError::NotAFile,
            FaultKind::KeyFile,
            78,
            "regular file",
        ),
    ];
    for (error, kind, exit, expected) in cases {
        let mut files = files();
        files
            .0
            .insert("/etc/chainlightning/private.key".into(), Err(error));
        let errors = parse_with(&least(Role::Client), Role::Client, &files).unwrap_err();
        assert_eq!(errors.faults().len(), 1);
        assert_eq!(errors.faults()[0].kind, kind);
        assert_eq!(errors.exit_code(), exit);
        assert!(errors.to_string().contains(expected), "{errors}");
    }
}

#[test]
fn the_peers_key_must_not_be_our_own() {
    let own = parse(&least(Role::Client), Role::Client)
        .unwrap()
        .config
        .keys
        .private
        .public();
    let text = least(Role::Client).replace(&key_text(3), &own.to_string());
    assert!(messages(&text, Role::Client)[0].contains("own public key"));
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
