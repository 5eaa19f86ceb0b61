//! Tables of values -> the typed, complete `Config`. Checks values alone and against each other.
//!
//! Every step returns something even from a faulty file (the default, or a stand-in), so that the next
//! step finds its own faults. A `Config` leaves this module only when there are none.

mod classes;
mod general;
mod links;
mod peers;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::context::{Context, Placed};
use super::file::{File, Table};
use super::keyfile::KeyFiles;
use super::values::{
    Backend, CipherChoice, Config, Equalise, FecMode, Gso, LogLevel, Logging, Mode, Performance,
    Role, Routing, Security, Threads, ZeroCopy,
};
use crate::base::id::SESSIONS_MAX;

/// The configuration of this file, or `None` when `context` holds faults.
pub(super) fn resolve<'a>(
    context: &mut Context<'a>,
    file: &File<'a>,
    key_files: &dyn KeyFiles,
) -> Option<Config> {
    let tunnel = general::tunnel(context, file.table("general"));
    let server_ip = general::server_ip(context, file.table("general"));
    let links = links::links(context, file, &tunnel, server_ip);
    let performance = performance(context, file.table("performance"));
    let classes = classes::classes(context, file, &links);
    let security = security(context, file.table("security"));
    let (peers, keys) = peers::peers_and_keys(context, file, &tunnel, &security, key_files);
    let routing = routing(context, file.table("routing"), links.wans.len());
    let control_socket = control_socket(context, file.table("status"));
    let state_folder = state_folder(context, file.table("general"));
    let logging = logging(context, file.table("logging"));
    if !context.faults.is_empty() {
        return None;
    }
    let (role, server_ip, keys) = (context.role, server_ip?, keys?);
    Some(Config {
        role,
        server_ip,
        tunnel,
        links,
        performance,
        classes,
        security,
        peers,
        keys,
        routing,
        control_socket,
        state_folder,
        logging,
    })
}

/// Most source and repair symbols of one group together: the Galois field of the code has 256 elements,
/// and an index of 8 bits with one value to spare goes over the wire.
const GROUP_SYMBOLS_MAX: i64 = 255;

fn performance<'a>(context: &mut Context<'a>, table: &Table<'a>) -> Performance {
    let source = context.integer(table, "fec_group_size", 1..=128);
    let repair = context.integer(table, "fec_repair_packets", 0..=127);
    if repair.value > source.value {
        let at = if repair.span.is_some() {
            &repair
        } else {
            &source
        };
        context.fault(
            at,
            format!(
                "{} repair for {} source symbols",
                repair.value, source.value
            ),
        );
    } else if source.value + repair.value > GROUP_SYMBOLS_MAX {
        context.fault(
            &repair,
            format!("makes more than {GROUP_SYMBOLS_MAX} symbols with the group"),
        );
    }
    let rtt_weight = context.number(table, "rtt_weight", 0.0..=10.0);
    let loss_weight = context.number(table, "loss_weight", 0.0..=10.0);
    let threads = context.auto_or(table, "threads", 1..=THREADS_MAX);
    let cpu_affinity = cpu_affinity(context, table);
    let reorder_max = context.auto_or(table, "reorder_max_ms", 0..=1000);
    let heartbeat = context.integer(table, "heartbeat_interval_ms", 10..=5000);
    Performance {
        fec_source_count: narrow(&source),
        fec_repair_count: narrow(&repair),
        fec_mode: context.named::<FecMode>(table, "fec_mode"),
        heartbeat_interval: Duration::from_millis(narrow(&heartbeat)),
        rtt_weight: rtt_weight.value,
        loss_weight: loss_weight.value,
        mode: context.named::<Mode>(table, "mode"),
        equalise: context.named::<Equalise>(table, "equalise"),
        reorder_max: reorder_max.map(|found| Duration::from_millis(narrow(&found))),
        backend: context.named::<Backend>(table, "backend"),
        threads: threads.map_or(Threads::Auto, |found| Threads::Exactly(narrow(&found))),
        cpu_affinity,
        offload: flag(context, table, "offload"),
        gso: context.named::<Gso>(table, "gso"),
        zero_copy: context.named::<ZeroCopy>(table, "zero_copy"),
    }
}

/// A session for each worker, and no more than a peer may have.
#[allow(clippy::cast_possible_wrap)] // 16
const THREADS_MAX: i64 = SESSIONS_MAX as i64;

/// Highest number of a processor that is believed: the largest kernels are built for 8192.
const CPU_MAX: i64 = 8191;

fn cpu_affinity<'a>(context: &mut Context<'a>, table: &Table<'a>) -> Vec<u16> {
    let mut cpus = Vec::new();
    for cpu in context.list_of::<i64>(table, "cpu_affinity") {
        if !(0..=CPU_MAX).contains(&cpu.value) {
            context.fault(&cpu, "is no processor");
        } else if cpus.contains(&narrow(&cpu)) {
            context.fault(&cpu, "is there twice");
        } else {
            cpus.push(narrow(&cpu));
        }
    }
    cpus
}

fn security<'a>(context: &mut Context<'a>, table: &Table<'a>) -> Security {
    let private_key_file = context
        .text(table, "private_key_file")
        .map(|found| found.value);
    // An empty string means the default place, as if the key were not set.
    let fallback = || {
        context
            .default::<String>("security.private_key_file")
            .map(|found| found.value)
    };
    let private_key_file = private_key_file.or_else(fallback).unwrap_or_default();
    let rekey = context.integer(table, "rekey_interval_s", 5..=150);
    Security {
        private_key_file: beside(&context.file, &private_key_file),
        cipher: context.named::<CipherChoice>(table, "cipher"),
        rekey_interval: Duration::from_secs(narrow(&rekey)),
    }
}

/// Tables 253 to 255 are `default`, `main` and `local` (rtnetlink(7)); writing them cuts the host off.
const RESERVED_TABLES: std::ops::RangeInclusive<i64> = 253..=255;

fn routing<'a>(context: &mut Context<'a>, table: &Table<'a>, wan_count: usize) -> Routing {
    let first = context.integer(table, "table", 1..=4_000_000_000);
    let last = first.value + i64::try_from(wan_count.max(1)).expect("at most 32 WANs") - 1;
    if first.value <= *RESERVED_TABLES.end() && last >= *RESERVED_TABLES.start() {
        context.fault(
            &first,
            format!("tables {} to {last} hold the system's own", first.value),
        );
    }
    let priority = context.integer(table, "rule_priority", 1..=32000);
    Routing {
        manage: flag(context, table, "manage"),
        table: narrow(&first),
        rule_priority: narrow(&priority),
    }
}

/// Longest path of a Unix socket: `sun_path` has 108 bytes with the final zero (unix(7)).
const SOCKET_PATH_BYTES_MAX: usize = 107;

fn control_socket<'a>(context: &mut Context<'a>, table: &Table<'a>) -> PathBuf {
    let found = context
        .value::<String>(table, "control_socket")
        .expect("the key has a default");
    let path = PathBuf::from(&found.value);
    if !path.is_absolute() {
        context.fault(&found, "is not an absolute path");
    } else if found.value.len() > SOCKET_PATH_BYTES_MAX {
        context.fault(&found, format!("has {} bytes", found.value.len()));
    }
    path
}

fn state_folder<'a>(context: &mut Context<'a>, table: &Table<'a>) -> PathBuf {
    let found = context
        .value::<String>(table, "state_folder")
        .expect("the key has a default");
    let path = PathBuf::from(&found.value);
    if !path.is_absolute() {
        context.fault(&found, "is not an absolute path");
    }
    path
}

fn logging<'a>(context: &mut Context<'a>, table: &Table<'a>) -> Logging {
    let interval = context.integer(table, "stats_interval_s", 0..=3600);
    Logging {
        level: context.named::<LogLevel>(table, "level"),
        stats_interval: (interval.value > 0).then(|| Duration::from_secs(narrow(&interval))),
    }
}

/// A checked integer in the type that holds its range.
fn narrow<T: TryFrom<i64>>(checked: &Placed<i64>) -> T {
    T::try_from(checked.value)
        .unwrap_or_else(|_| panic!("the range of {} fits its type", checked.key))
}

fn flag<'a>(context: &mut Context<'a>, table: &Table<'a>, name: &str) -> bool {
    context
        .value::<bool>(table, name)
        .expect("flags have a default")
        .value
}

/// A path of the file: relative ones start at the file's folder, not at the working directory.
fn beside(file: &Path, path: &str) -> PathBuf {
    file.parent().unwrap_or(Path::new("")).join(path)
}

/// Longest name of a WAN or a peer: it must fit a column of the status screen.
const NAME_CHARS_MAX: usize = 24;

/// Whether a name can stand in a table of status and in a log line.
fn is_plain_name(name: &str, chars_max: usize) -> bool {
    (1..=chars_max).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        && name != "."
        && name != ".."
}

/// Whether two addresses are of the same family, so that packets can go from one to the other.
const fn same_family(a: IpAddr, b: IpAddr) -> bool {
    a.is_ipv4() == b.is_ipv4()
}

/// Whether this side reads the WANs of the file.
fn has_wans(context: &Context<'_>) -> bool {
    context.role == Role::Client
}
