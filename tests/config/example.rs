//! The example file: it says the defaults, names every key, and works once it is filled in.

use std::collections::BTreeMap;

use chainlightning::config::{Role, keys};

use super::{EXAMPLE, Files, ROLES, key_text, least, parse, parse_with, uncommented};

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
