//! `[links]` and `[[links.wan]]`: which WANs there are, and which ports.

use std::net::IpAddr;
use std::time::Duration;

use crate::base::id::LINKS_MAX;
use crate::base::{Prefix, Rate, WanId};

use super::super::context::{Context, Placed};
use super::super::file::{File, Table};
use super::super::values::{Direction, Links, Quota, Tunnel, Wan, WanRole};
use super::general::DEVICE_NAME_BYTES_MAX;
use super::{NAME_CHARS_MAX, has_wans, is_plain_name, narrow, same_family};

/// WANs, links and ports. The server has no WANs of its own: its links follow the clients'.
pub(super) fn links<'a>(
    context: &mut Context<'a>,
    file: &File<'a>,
    tunnel: &Tunnel,
    server_ip: Option<IpAddr>,
) -> Links {
    let table = file.table("links");
    let start_port = context.integer(table, "start_port", 1..=65535);
    let ports = context.integer(table, "ports", 1..=64);
    if start_port.value + ports.value > 65536 {
        let at = if start_port.span.is_some() {
            &start_port
        } else {
            &ports
        };
        context.fault(
            at,
            format!(
                "{} ports from {} go beyond 65535",
                ports.value, start_port.value
            ),
        );
    }
    let links_per_wan = context.integer(table, "links_per_wan", 1..=8);
    let mut wans = Vec::new();
    if has_wans(context) {
        wans = read_wans(context, file, tunnel, server_ip);
        check_link_count(context, &links_per_wan, wans.len());
    }
    let start_port = narrow(&start_port);
    Links {
        wans,
        start_port,
        links_per_wan: narrow(&links_per_wan),
        ports: narrow(&ports),
    }
}

fn check_link_count(context: &mut Context<'_>, links_per_wan: &Placed<i64>, wan_count: usize) {
    let links = usize::try_from(links_per_wan.value)
        .unwrap_or(usize::MAX)
        .saturating_mul(wan_count);
    if links > LINKS_MAX {
        let what = format!("{wan_count} WANs make {links} links, more than {LINKS_MAX}");
        context.fault(links_per_wan, what);
    }
}

/// The addresses of `source_ips` in their order, each with its detail table if there is one; then the
/// tables that name another address or a device.
fn read_wans<'a>(
    context: &mut Context<'a>,
    file: &File<'a>,
    tunnel: &Tunnel,
    server_ip: Option<IpAddr>,
) -> Vec<Wan> {
    let mut sources: Vec<Placed<IpAddr>> = Vec::new();
    for text in context.list(file.table("links"), "source_ips") {
        let Ok(address) = text.value.parse() else {
            context.fault(&text, super::super::context::not_an_address(&text.value));
            continue;
        };
        add_source(context, &mut sources, text.with(address));
    }
    let mut details: Vec<Option<&Table<'a>>> = vec![None; sources.len()];
    let mut by_device = Vec::new();
    for table in &file.wans {
        let source = context.address::<IpAddr>(table, "source_ip");
        match source {
            Some(source) => match sources.iter().position(|known| known.value == source.value) {
                Some(index) if details[index].is_none() => details[index] = Some(table),
                Some(_) => context.fault(&source, "has two [[links.wan]] tables"),
                None => {
                    add_source(context, &mut sources, source);
                    details.resize(sources.len(), Some(table));
                }
            },
            None if table.sets("device") => by_device.push(table),
            None if table.sets("source_ip") => {} // reported above
            None => context.fault(&table.placed(), "has neither source_ip nor device"),
        }
    }
    for source in &sources {
        check_source(context, source, tunnel, server_ip);
    }
    let mut wans = Vec::new();
    let with_source = sources.iter().map(|source| Some(source.value)).zip(details);
    for (source, table) in with_source.chain(by_device.into_iter().map(|table| (None, Some(table))))
    {
        let wan = wan(context, &wans, source, table);
        wans.push(wan);
    }
    if wans.is_empty() && context.faults.is_empty() {
        context.warn(
            "links.source_ips",
            None,
            "no WAN is named: one WAN, by the routing table",
        );
    }
    if wans.is_empty() {
        let wan = wan(context, &wans, None, None);
        wans.push(wan);
    }
    check_usable(context, file, &wans);
    wans
}

fn add_source(
    context: &mut Context<'_>,
    sources: &mut Vec<Placed<IpAddr>>,
    source: Placed<IpAddr>,
) {
    if sources.iter().any(|known| known.value == source.value) {
        context.fault(
            &source,
            "is there twice; links_per_wan makes several links over one WAN",
        );
    } else {
        sources.push(source);
    }
}

/// A source address must be able to send to the server from outside of the tunnel.
fn check_source(
    context: &mut Context<'_>,
    source: &Placed<IpAddr>,
    tunnel: &Tunnel,
    server_ip: Option<IpAddr>,
) {
    if context.refuse_placeholder(source) {
        return;
    }
    let address = source.value;
    let inner = Prefix::new(tunnel.local.into(), tunnel.prefix_len);
    if address.is_unspecified() || address.is_multicast() {
        context.fault(source, "is not an address of this host");
    } else if inner.is_some_and(|net| net.contains(address)) {
        context.fault(
            source,
            "is inside the tunnel's own network; the tunnel would carry itself",
        );
    } else if server_ip.is_some_and(|server| !same_family(server, address)) {
        context.fault(
            source,
            "cannot reach general.server_ip: one is IPv4, the other IPv6",
        );
    } else if server_ip == Some(address) {
        context.fault(source, "is general.server_ip; put this host's own address");
    }
}

/// At least one WAN must be allowed to carry traffic.
fn check_usable<'a>(context: &mut Context<'a>, file: &File<'a>, wans: &[Wan]) {
    if wans.iter().all(|wan| wan.role == WanRole::Off)
        && let Some(table) = file.wans.first()
    {
        context.fault(&table.placed(), "every WAN is off");
        return;
    }
    for (way, word) in [(Direction::Up, "up"), (Direction::Down, "down")] {
        let carries =
            |wan: &Wan| wan.role != WanRole::Off && [Direction::Both, way].contains(&wan.direction);
        if !wans.iter().any(carries)
            && let Some(table) = file.wans.first()
        {
            context.fault(&table.placed(), format!("no WAN carries data {word}"));
        }
    }
}

/// One WAN, from its address and its detail table.
fn wan<'a>(
    context: &mut Context<'a>,
    before: &[Wan],
    source: Option<IpAddr>,
    table: Option<&Table<'a>>,
) -> Wan {
    let empty = Table::empty("links.wan");
    let table = table.unwrap_or(&empty);
    // A 33rd WAN is a fault of the link count; its number only has to exist until that is reported.
    let id = WanId(u8::try_from(before.len()).unwrap_or(u8::MAX));
    let mut name = format!("wan{id}");
    if let Some(found) = context.text(table, "name") {
        if !is_plain_name(&found.value, NAME_CHARS_MAX) {
            context.fault(&found, "cannot be the name of a WAN");
        } else if before.iter().any(|other| other.name == found.value) {
            context.fault(&found, "is the name of another WAN");
        }
        name = found.value;
    }
    let device = context.text(table, "device");
    if let Some(found) = &device
        && !is_plain_name(&found.value, DEVICE_NAME_BYTES_MAX)
    {
        context.fault(found, "cannot be the name of a device");
    }
    Wan {
        id,
        name,
        source,
        device: device.map(|found| found.value),
        role: context.named::<WanRole>(table, "role"),
        direction: context.named::<Direction>(table, "direction"),
        rtt_max: rtt_max(context, table),
        loss_max: loss_max(context, table),
        quota: quota(context, table),
        down: ceiling(context, table, "down_mbps"),
        up: ceiling(context, table, "up_mbps"),
    }
}

/// Round trip above which a WAN is parked; zero means none.
fn rtt_max<'a>(context: &mut Context<'a>, table: &Table<'a>) -> Option<Duration> {
    let found = context.integer(table, "max_rtt_ms", 0..=60_000);
    (found.value > 0).then(|| Duration::from_millis(narrow(&found)))
}

/// Loss ratio above which a WAN is parked; zero means none.
fn loss_max<'a>(context: &mut Context<'a>, table: &Table<'a>) -> Option<f64> {
    let percent = context.number(table, "max_loss_percent", 0.0..=100.0).value;
    (percent > 0.0).then_some(percent / 100.0)
}

/// What a WAN may carry in a month; zero means anything.
fn quota<'a>(context: &mut Context<'a>, table: &Table<'a>) -> Option<Quota> {
    let gigabytes = context.number(table, "quota_gb", 0.0..=1_000_000.0).value;
    let reset_day = context.integer(table, "quota_reset_day", 1..=28);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "0 to 10^15"
    )]
    let bytes = (gigabytes * 1e9) as u64;
    (bytes > 0).then(|| Quota {
        bytes,
        reset_day: narrow(&reset_day),
    })
}

/// A configured capacity; zero means none.
fn ceiling<'a>(context: &mut Context<'a>, table: &Table<'a>, name: &str) -> Option<Rate> {
    let mbps = context.number(table, name, 0.0..=400_000.0).value;
    (mbps > 0.0).then(|| Rate::from_mbps(1).mul_f64(mbps))
}
