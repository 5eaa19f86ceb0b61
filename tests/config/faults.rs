//! What is wrong with a file: found all at once, each with its place, and said in words that help.

use chainlightning::config::keyfile::KeyFileError;
use chainlightning::config::{FaultKind, Role};

use super::{files, key_text, least, parse, parse_with};

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
threads = 17
[security]
peer_public_key = \"short\"
";
    let expected = [
        "config.toml:2:13: general.server_ip = \"YOUR_SERVER_IP\": is a placeholder; put the real address; allowed: an IPv4 or IPv6 address",
        "config.toml:3:11: general.tun_mtu = \"large\": is of type string, not an integer; allowed: 576 to 9000; 1280 at least with IPv6",
        "config.toml:5:31: links.source_ips[1] = \"192.168.1.20\": is there twice; links_per_wan makes several links over one WAN; allowed: a list of addresses of this host, one for each WAN, each once",
        "config.toml:5:47: links.source_ips[2] = 7: is of type integer, not a string; allowed: a list of addresses of this host, one for each WAN, each once",
        "config.toml:6:17: links.links_per_wan = 0: is out of range; allowed: 1 to 8; at most 32 links in all",
        "config.toml:8:8: performance.mode = \"balance\": is not known (did you mean \"balanced\"?); allowed: balanced, throughput, latency, redundant, weighted, single_best, round_robin",
        "config.toml:9:11: performance.threads = 17: is out of range; allowed: \"auto\" or 1 to 16",
        "config.toml:11:19: security.peer_public_key = \"short\": is not a public key; `chainlightning pubkey < private.key` prints one; allowed: a public key: 44 characters of base64",
    ];
    assert_eq!(messages(text, Role::Client), expected);
}

/// Side, what is added to a good file (`;` ends a line; PEER starts a `[[peers]]` table), what the message says.
const MISTAKES: &str = r#"
client | general.server_ip = "203.0.113.9" | placeholder
client | general.server_ip = "vpn.host.net" | is a name
client | general.server_ip = "0.0.0.0" | can reach
client | general.server_ip = 9 | of type integer
client | general.server_ip = "192.168.1.20" | this host's own
client | general.server_ip = "2a00::1" | one is IPv4, the other IPv6
client | general.tun_name = "a/b" | name of a device
client | general.tun_name = "sixteen-letters-" | name of a device
client | general.tun_name = "" | name of a device
client | general.tun_local_ip = "10.99.0.1" | the same
client | general.tun_local_ip = "10.9.0.1" | outside of 10.9.0.0/24
client | general.tun_remote_ip = "127.0.0.1" | address of a tunnel
client | general.tun_netmask = "255.0.255.0" | not a netmask
client | general.tun_netmask = "24" | not an address
client | general.tun_local_ip6 = "fd99::2" | without tun_remote_ip6
client | general.tun_remote_ip6 = "fd99::2" | without tun_local_ip6
client | general.tun_mtu = 575 | out of range
client | general.tun_mtu = "auto" | of type string
client | links.source_ips = "192.168.1.20" | not a list
client | links.source_ips = ["10.99.0.77"] | carry itself
client | links.source_ips = ["0.0.0.0"] | not an address of this host
client | links.source_ips = ["198.51.100.3"] | placeholder
client | links.start_port = 65530 | beyond 65535
client | links.ports = 0 | out of range
client | links.wan = 3 | not a list of tables
client | [[links.wan]]; name = "x" | neither source_ip nor device
client | [[links.wan]]; source_ip = "x" | right kind
client | [[links.wan]]; device = "a b" | name of a device
client | [[links.wan]]; device = "eth0"; role = "of" | did you mean "off"
client | [[links.wan]]; device = "eth0"; name = "wan0" | name of another WAN
client | [[links.wan]]; device = "eth0"; up_mbps = -1 | out of range
client | [[links.wan]]; source_ip = "192.168.1.20"; role = "off" | every WAN is off
client | [[links.wan]]; device = "eth0"; direction = "u" | is not known
client | [[links.wan]]; source_ip = "192.168.1.20"; direction = "up" | no WAN carries data down
client | [[links.wan]]; device = "eth0"; max_rtt_ms = 60001 | out of range
client | [[links.wan]]; device = "eth0"; max_rtt_ms = 1.5 | not an integer
client | [[links.wan]]; device = "eth0"; max_loss_percent = 101 | out of range
client | [[links.wan]]; device = "eth0"; quota_gb = -1 | out of range
client | [[links.wan]]; device = "eth0"; quota_gb = "50" | not a number
client | [[links.wan]]; device = "eth0"; quota_reset_day = 31 | out of range
client | general.state_folder = "state" | not an absolute path
client | classes = 3 | not a list of tables
client | [[classes]]; policy = "best" | says nothing about its packets
client | [[classes]]; dscp = [] | says nothing about its packets
client | [[classes]]; dscp = [64] | out of range
client | [[classes]]; dscp = ["ef"] | not an integer
client | [[classes]]; dscp = 46 | not a list
client | [[classes]]; protocol = "quic" | is not known
client | [[classes]]; protocol = 256 | out of range
client | [[classes]]; protocol = [6] | not a string or an integer
client | [[classes]]; ports = ["70000"] | neither a port nor a range
client | [[classes]]; ports = ["9-5"] | neither a port nor a range
client | [[classes]]; ports = [-1] | neither a port nor a range
client | [[classes]]; prefixes = ["10.0.0.1/8"] | the network is 10.0.0.0/8
client | [[classes]]; dscp = [1]; policy = "pinned" | is not known (did you mean "pin"?)
client | [[classes]]; dscp = [1]; policy = "pin" | names no wan
client | [[classes]]; dscp = [1]; policy = "pin"; wan = "lte" | is not the name of a WAN
client | [[classes]]; dscp = [1]; policy = "best"; wan = "wan0" | is of no use
client | [[classes]]; dscp = [1]; fallback = "no" | not true or false
client | [[classes]]; dscp = [1]; name = "a b" | name of a class
client | [[classes]]; dscp = [1]; name = "x"; [[classes]]; dscp = [2]; name = "x" | name of another class
client | performance.fec_group_size = 2 | 3 repair for 2 source
client | performance.fec_group_size = 200 | out of range
client | performance.fec_repair_packets = 11 | 11 repair for 10 source
client | performance.rtt_weight = nan | out of range
client | performance.rtt_weight = true | not a number
client | general.mss_clamp = "on" | "auto", "off" or an integer
client | general.mss_clamp = 535 | out of range
client | general.mss_clamp = 70000 | out of range
client | performance.equalise = "yes" | is not known
client | performance.reorder_max_ms = "long" | "auto" or an integer
client | performance.heartbeat_interval_ms = 5 | out of range
client | performance.offload = 1 | not true or false
client | performance.threads = 0 | out of range
client | performance.threads = "many" | "auto" or an integer
server | performance.cpu_affinity = [0, 0] | there twice
server | performance.cpu_affinity = [-1] | no processor
server | performance.cpu_affinity = 1 | not a list
client | security.cipher = "aes" | is not known
client | security.rekey_interval_s = 151 | out of range
client | routing.table = 254 | the system's own
client | routing.rule_priority = 40000 | out of range
client | status.control_socket = "client.sock" | absolute
client | status.control_socket = "{107}" | has 108 bytes
client | logging.level = "warning" | did you mean "warn"
client | general = 3 | write [general]
server | peers = 3 | not a list of tables
server | PEER; name = "a b" | name of a peer
server | PEER; allowed_ips = ["10.0.0.1/8"] | the network is 10.0.0.0/8
server | PEER; allowed_ips = ["::/0", "::/0"] | twice
server | PEER; tun_ip = "10.99.0.1" | server's own address
server | PEER; tun_ip = "10.99.0.2"; PEER; tun_ip = "10.99.0.3" | key of another peer
server | PEER; tun_ip = "10.99.0.2"; [[peers]]; public_key = "KEY7" | has no tun_ip
server | PEER; tun_ip = "10.99.0.2"; PEER; tun_ip = "10.99.0.2" | is the address of peer peer0
server | [[peers]]; name = "x" | has no public_key
server | PEER; [security]; peer_public_key = "KEY9" | beside [[peers]]
"#;

#[test]
fn each_of_these_mistakes_is_found_on_its_line_and_named() {
    let peer = format!("[[peers]]\npublic_key = \"{}\"", key_text(9));
    for row in MISTAKES.lines().filter(|row| !row.is_empty()) {
        let [side, mistake, expected] = row.split(" | ").collect::<Vec<_>>().try_into().unwrap();
        let role = if side == "client" {
            Role::Client
        } else {
            Role::Server
        };
        let text = mistake
            .replace("; ", "\n")
            .replace("PEER", &peer)
            .replace("KEY7", &key_text(7))
            .replace("KEY9", &key_text(9))
            .replace("{107}", &format!("/{}", "x".repeat(107)));
        let table_or_key = text.split(' ').next().unwrap();
        let with_peers = text.contains("peers");
        let base = least(role);
        let kept = base.lines().filter(|line| {
            let is_replaced = line.starts_with(table_or_key);
            !(is_replaced || with_peers && line.contains("public_key"))
        });
        let file = format!("{}\n{text}\n", kept.collect::<Vec<_>>().join("\n"));
        let found = messages(&file, role);
        assert!(
            found.iter().any(|message| message.contains(expected)),
            "{row} -> {found:#?}"
        );
        for message in &found {
            let after = message.strip_prefix("config.toml:").unwrap();
            let has_place = after.starts_with(|c: char| c.is_ascii_digit());
            assert!(
                has_place || message.contains("not set"),
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
