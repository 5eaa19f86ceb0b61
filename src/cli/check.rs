//! `chainlightning check`: everything about a configuration that can be known without starting it.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::Failure;
use crate::config::{self, Config, Role};

/// Reads the configuration and its key files; what they come to, or all their faults.
///
/// # Errors
/// The configuration cannot be used.
pub fn check(explicit: Option<PathBuf>, role: Role) -> Result<String, Failure> {
    let path = config::find(explicit)?;
    let loaded = Config::load(&path, role)?;
    let mut out = String::new();
    for warning in &loaded.warnings {
        let _ = writeln!(out, "warning: {warning}");
    }
    let _ = writeln!(out, "{}: good for a {role}", path.display());
    out.push_str(&summary(&loaded.config));
    Ok(out)
}

/// What an operator compares with what was meant: addresses, WANs, ports, peers, own public key.
fn summary(config: &Config) -> String {
    let mut out = String::new();
    let tunnel = &config.tunnel;
    let mut line = |name: &str, text: String| {
        let _ = writeln!(out, "  {name:<11}{text}");
    };
    line("public key", config.keys.private.public().to_string());
    line(
        "tunnel",
        format!(
            "{} {}/{} <-> {} mtu {}",
            tunnel.name, tunnel.local, tunnel.prefix_len, tunnel.remote, tunnel.mtu
        ),
    );
    if let Some((local, remote)) = tunnel.v6 {
        line(
            "",
            format!("{local}/{} <-> {remote}", config::TUNNEL6_PREFIX_LEN),
        );
    }
    let links = &config.links;
    match config.role {
        Role::Client => line(
            "server",
            format!("{} udp {}", config.server_ip, ports(config)),
        ),
        Role::Server => line(
            "listen",
            format!("{} udp {}", config.server_ip, ports(config)),
        ),
    }
    for wan in &links.wans {
        let source = wan
            .source
            .map_or_else(|| "any address".to_owned(), |source| source.to_string());
        let device = wan
            .device
            .as_ref()
            .map(|device| format!(" on {device}"))
            .unwrap_or_default();
        line(
            "wan",
            format!(
                "{} {source}{device}, {}, {} links",
                wan.name, wan.role, links.links_per_wan
            ),
        );
    }
    for peer in &config.peers {
        line("peer", format!("{} {}", peer.name, peer.public_key));
    }
    out
}

/// The server's ports that this side uses.
fn ports(config: &Config) -> String {
    let (first, count) = (config.links.start_port, config.links.ports);
    if count == 1 {
        first.to_string()
    } else {
        format!("{first}-{}", first + (count - 1))
    }
}
