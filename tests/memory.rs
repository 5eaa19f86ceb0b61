//! What a session keeps in memory: a server has one for each client, and most clients are idle.
#![allow(clippy::unwrap_used)]

mod pair;

use std::time::Duration;

use chainlightning::base::Instant;
use pair::Pair;

/// Memory of this process that is no page of a file, in bytes; `None` where the kernel does not tell.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes << 10)
}

/// Most of it for an idle session over two links, which take 500 KB; what it may use under load is reserved and untouched.
/// Two fifths of it are the histograms of its links (`link/history.rs`).
const IDLE_BYTES_MAX: u64 = 650_000;
/// Pairs of sessions: enough that the allocator's own steps do not show.
const PAIRS: u64 = 4;

/// A pair that has been connected for ten seconds.
fn idle_pair() -> Pair {
    let start = Instant::from_millis(1);
    let mut pair = Pair::new(2, start);
    for step in 0..2_000 {
        pair.turn(start + Duration::from_millis(5) * step);
    }
    assert!(pair.carried > 100, "they were not connected");
    pair
}

#[test]
fn an_idle_session_leaves_what_it_reserves_untouched() {
    // The first pair also makes what all sessions share, such as the tables of the code.
    let first = idle_pair();
    let Some(before) = resident() else {
        eprintln!("SKIPPED: the kernel does not tell");
        return;
    };
    let pairs: Vec<_> = (0..PAIRS).map(|_| idle_pair()).collect();
    let each = (resident().unwrap() - before) / (2 * PAIRS);
    eprintln!("{each} bytes for each idle session");
    drop((first, pairs));
    assert!(each < IDLE_BYTES_MAX, "{each} bytes");
}
