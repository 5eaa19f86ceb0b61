//! Every key has an effect: another value gives another configuration, and its default written out gives the same.

use chainlightning::config::keys::{self, Key, Reload};
use chainlightning::config::{Role, diff};

use super::{ROLES, key_text, least, parse};

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
