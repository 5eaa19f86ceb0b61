//! `chainlightning status`: asks a running daemon and lays its answer out for people or for scripts.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::table::{Align, cut, render};
use super::{EXIT_FAILED, EXIT_UNAVAILABLE, Failure};
use crate::config::{EXIT_PERMISSION, Role};
use crate::status::{LinkStatus, PeerStatus, REPLY_BYTES_MAX, Reply, Request, Status, to_line};

/// A daemon answers within a turn of its control thread; a minute-long wait would look like a hang.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(3);

/// Sockets that are tried when none is named: the defaults of both roles.
pub fn default_sockets() -> Vec<PathBuf> {
    let key = crate::config::keys::find("status.control_socket");
    let text = |role| {
        key.and_then(|key| key.default.text(role))
            .unwrap_or_default()
    };
    [Role::Client, Role::Server]
        .map(|role| PathBuf::from(text(role).trim_matches('"')))
        .into()
}

/// The daemon's state as text; `json` gives its line as it came.
///
/// # Errors
/// No daemon answers on any of the sockets, or it refuses.
pub fn status(sockets: &[PathBuf], json: bool) -> Result<String, Failure> {
    let mut failures = Vec::new();
    for socket in sockets {
        match ask(socket) {
            Ok(line) => return lay_out(socket, &line, json),
            Err(error) => failures.push((socket, error)),
        }
    }
    let mut message = String::new();
    for (socket, error) in &failures {
        let _ = writeln!(message, "{}: {}", socket.display(), reason(error));
    }
    let refused = failures
        .iter()
        .any(|(_, error)| error.kind() == ErrorKind::PermissionDenied);
    let (exit_code, advice) = if refused {
        (
            EXIT_PERMISSION,
            "Run this as the user of the daemon, or as root.",
        )
    } else {
        let advice = "No daemon answers. Start `client` or `server`, or name the socket of its \
                      configuration ([status] control_socket) with --socket.";
        (EXIT_UNAVAILABLE, advice)
    };
    message.push_str(advice);
    Err(Failure::new(exit_code, message))
}

/// Asks the daemon behind `socket` for its state: one line each way.
///
/// # Errors
/// Nobody answers, or not in time.
pub fn ask(socket: &Path) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(ANSWER_TIME_MAX))?;
    stream.set_write_timeout(Some(ANSWER_TIME_MAX))?;
    stream.write_all(to_line(&Request::STATUS).as_bytes())?;
    let mut line = String::new();
    BufReader::new(stream.take(REPLY_BYTES_MAX)).read_line(&mut line)?;
    if line.is_empty() {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(line)
}

fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "there is no such socket".into(),
        ErrorKind::ConnectionRefused => {
            "nobody listens (left over from a daemon that is gone)".into()
        }
        ErrorKind::PermissionDenied => "this user may not use it".into(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            format!("no answer within {} s", ANSWER_TIME_MAX.as_secs())
        }
        ErrorKind::UnexpectedEof => "closed without an answer".into(),
        _ => error.to_string(),
    }
}

fn lay_out(socket: &Path, line: &str, json: bool) -> Result<String, Failure> {
    let socket = socket.display();
    match serde_json::from_str(line) {
        Ok(Reply::Refusal(refusal)) => Err(Failure::new(
            EXIT_FAILED,
            format!("{socket}: the daemon says: {}", refusal.error),
        )),
        Ok(Reply::Status(_)) if json => Ok(line.to_owned()),
        Ok(Reply::Status(status)) => Ok(screen(&status)),
        Err(error) => Err(Failure::new(
            EXIT_FAILED,
            format!("{socket}: not a status: {error}"),
        )),
    }
}

/// The whole state on one screen of 80 columns.
pub fn screen(status: &Status) -> String {
    let mut out = String::new();
    let tunnel = &status.tunnel;
    let addresses = format!("{} <-> {}", tunnel.local.join(" "), tunnel.remote.join(" "));
    let up = uptime(status.uptime_s);
    line(
        &mut out,
        "tunnel",
        &format!(
            "{}  {}  up {up}  mtu {}",
            tunnel.name, status.role, tunnel.mtu
        ),
    );
    line(&mut out, "", &addresses);
    let engine = &status.engine;
    let offloads = if engine.offloads.is_empty() {
        "none".to_owned()
    } else {
        engine.offloads.join(" ")
    };
    line(
        &mut out,
        "engine",
        &format!(
            "{} ({}), kernel {}",
            engine.tier, engine.reason, engine.kernel
        ),
    );
    line(
        &mut out,
        "",
        &format!(
            "threads {}, {:.1} operations per submit",
            engine.threads, engine.operations_per_submit
        ),
    );
    line(&mut out, "", &format!("offloads {offloads}"));
    for worker in engine.workers.iter().filter(|_| engine.workers.len() > 1) {
        let figures = format!(
            "{}  sessions {}  frames in {} out {}  sends {}  handed over {}",
            worker.number,
            worker.sessions,
            worker.tun_reads,
            worker.tun_writes,
            worker.udp_sends,
            worker.handed_over
        );
        line(&mut out, "worker", &figures);
    }
    for peer in &status.peers {
        out.push('\n');
        peer_screen(&mut out, peer);
    }
    if let Some(drops) = drops(&status.drops) {
        out.push('\n');
        line(&mut out, "drops", &drops);
    }
    out
}

fn peer_screen(out: &mut String, peer: &PeerStatus) {
    line(
        out,
        "peer",
        &format!(
            "{}  key {}  {}  {}  epoch {}, {:.0} s old",
            peer.name, peer.key, peer.state, peer.cipher, peer.epoch, peer.key_age_s
        ),
    );
    line(
        out,
        "traffic",
        &format!(
            "tx {:.1} Mbit/s  rx {:.1} Mbit/s  tx {}  rx {}",
            peer.tx_mbps,
            peer.rx_mbps,
            bytes(peer.tx_bytes),
            bytes(peer.rx_bytes)
        ),
    );
    let fec = &peer.fec;
    line(
        out,
        "fec",
        &format!(
            "{}+{} {}  recovered {}  sent again {}  lost {}",
            fec.source_count,
            fec.repair_count,
            fec.mode,
            fec.recovered,
            fec.retransmitted,
            fec.unrecoverable
        ),
    );
    let (before, after) = (
        percent(fec.loss_ratio_before),
        percent(fec.loss_ratio_after),
    );
    line(out, "", &format!("loss {before} before, {after} after"));
    let reorder = &peer.reorder;
    line(
        out,
        "reorder",
        &format!(
            "hold {:.1} ms  waiting {}  wait p99 {:.1} ms  skipped {}  late {}",
            reorder.hold_ms, reorder.depth, reorder.wait_ms.p99, reorder.skipped, reorder.late
        ),
    );
    let (way_out, way_in) = (&peer.residence.out_ms, &peer.residence.in_ms);
    line(
        out,
        "inside",
        &format!(
            "out p50 {:.2} p99 {:.2} ms  in p50 {:.2} p99 {:.2} ms",
            way_out.p50, way_out.p99, way_in.p50, way_in.p99
        ),
    );
    if let Some(drops) = drops(&peer.drops) {
        line(out, "drops", &drops);
    }
    if !peer.links.is_empty() {
        out.push('\n');
        out.push_str(&links_table(&peer.links));
    }
    out.push_str(&footnotes(&peer.links));
}

/// What there is to say about links beyond their row: quotas, and why one is not up.
fn footnotes(links: &[LinkStatus]) -> String {
    let mut out = String::new();
    let mut told = Vec::new();
    for link in links.iter().filter(|link| link.quota_bytes > 0) {
        if !told.contains(&&link.name) {
            let (used, quota) = (bytes(link.quota_used_bytes), bytes(link.quota_bytes));
            line(
                &mut out,
                "quota",
                &format!("{} {used} of {quota}", link.name),
            );
            told.push(&link.name);
        }
    }
    let not_on = |link: &&LinkStatus| !matches!(link.gso.as_str(), "" | "on");
    for link in links.iter().filter(not_on) {
        let (name, gso) = (link_name(link, links), &link.gso);
        out.push_str(&cut(&format!("! link {name}: segmented sends {gso}")));
        out.push('\n');
    }
    // A link that is up says why only to programs; people want to know about the others.
    let to_explain = |link: &&LinkStatus| link.state != "up" && !link.cause.is_empty();
    for link in links.iter().filter(to_explain) {
        out.push_str(&cut(&format!(
            "! link {} {}: {}",
            link_name(link, links),
            link.state,
            link.cause
        )));
        out.push('\n');
    }
    out
}

/// A link's number, after that of its session where there are several.
fn link_name(link: &LinkStatus, all: &[LinkStatus]) -> String {
    if all.iter().any(|other| other.session != link.session) {
        format!("{}.{}", link.session, link.id)
    } else {
        link.id.to_string()
    }
}

/// One row for each link: what it carries and how it does.
fn links_table(links: &[LinkStatus]) -> String {
    use Align::{Left, Right};
    let columns = [
        ("link", Right),
        ("wan", Left),
        ("state", Left),
        ("share", Right),
        ("tx", Right),
        ("rx", Right),
        ("cap", Right),
        ("rtt", Right),
        ("queue", Right),
        ("loss", Right),
    ];
    let rows: Vec<Vec<String>> = links
        .iter()
        .map(|link| {
            vec![
                link_name(link, links),
                link.name.chars().take(WAN_NAME_COLUMNS).collect(),
                link.state.clone(),
                format!("{:.0}%", link.share * 100.0),
                rate(link.tx_mbps),
                rate(link.rx_mbps),
                rate(link.capacity_mbps),
                format!("{}/{}", short(link.rtt_ms.p50), short(link.rtt_ms.p99)),
                short(link.delay_ms.p50),
                format!(
                    "{}/{}",
                    short(link.loss_ratio_tx * 100.0),
                    short(link.loss_ratio_rx * 100.0)
                ),
            ]
        })
        .collect();
    let units = "  tx, rx, cap in Mbit/s; rtt p50/p99 and queueing delay in ms; loss tx/rx in %\n";
    render(&columns, &rows) + units
}

/// A WAN's name may be longer than a row has room for.
const WAN_NAME_COLUMNS: usize = 10;

fn line(out: &mut String, name: &str, text: &str) {
    out.push_str(&cut(&format!("{name:<9}{text}")));
    out.push('\n');
}

/// Three or four digits of a number, whatever its size.
fn short(value: f64) -> String {
    if value >= 99.95 {
        format!("{value:.0}")
    } else {
        format!("{value:.1}")
    }
}

/// A rate in Mbit/s; from 10 Gbit/s on in Gbit/s, with its letter.
fn rate(mbps: f64) -> String {
    if mbps >= 9999.5 {
        format!("{}G", short(mbps / 1000.0))
    } else {
        short(mbps)
    }
}

fn percent(ratio: f64) -> String {
    format!("{:.2} %", ratio * 100.0)
}

fn uptime(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match days {
        0 => format!("{hours:02}:{minutes:02}:{:02}", seconds % 60),
        _ => format!("{days} d {hours:02}:{minutes:02}"),
    }
}

fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{count} B")
    } else {
        format!("{} {}", short(value), UNITS[unit])
    }
}

/// The reasons by count, the largest first.
fn drops(drops: &std::collections::BTreeMap<String, u64>) -> Option<String> {
    let mut counted: Vec<_> = drops.iter().filter(|(_, count)| **count > 0).collect();
    counted.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let words: Vec<_> = counted
        .iter()
        .map(|(reason, count)| format!("{reason} {count}"))
        .collect();
    (!words.is_empty()).then(|| words.join(", "))
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
