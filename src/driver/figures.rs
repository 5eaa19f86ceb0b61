//! From figures of links and sessions to words and sums of status. A client's sessions are shown as one: sums where
//! figures add up, the worst where they do not.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::base::DropCounters;
use crate::link::{self, Cause, State};
use crate::session::policy::Standing;
use crate::session::stats::{LinkStats, SessionStats};
use crate::status::{FecStatus, Percentiles, ReorderStatus, ResidenceStatus};

pub(super) fn percentiles(of: &link::Percentiles) -> Percentiles {
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    Percentiles {
        p50: ms(of.p50),
        p95: ms(of.p95),
        p99: ms(of.p99),
    }
}

pub(super) fn drops(counters: &DropCounters) -> BTreeMap<String, u64> {
    counters
        .iter()
        .filter(|(_, n)| *n > 0)
        .map(|(reason, n)| (reason.name().to_owned(), n))
        .collect()
}

pub(super) const fn state(link: &LinkStats) -> &'static str {
    match (link.open, link.standing, link.state) {
        (false, ..) => "probing",
        (true, Standing::Off, _) => "off",
        (true, Standing::Backup, State::Up) => "backup",
        (true, Standing::Spent, State::Up) => "spent",
        (true, Standing::Parked(_), State::Up) => "parked",
        (true, Standing::OtherWay, State::Up) => "rx_only",
        (true, _, state) => state.name(),
    }
}

pub(super) fn cause(link: &LinkStats) -> String {
    if !link.open {
        return "waiting for the peer to open the link".to_owned();
    }
    let why = link.standing.cause();
    if !why.is_empty() && (link.state == State::Up || link.standing == Standing::Off) {
        return format!("{why}; rate control: {}", link.phase);
    }
    let words = match link.cause {
        _ if link.datagram_bytes == 0 => "takes short packets only, no data",
        Cause::Replied => "answers",
        other => other.name(),
    };
    format!(
        "{words}, for {:.0} s; rate control: {}",
        link.state_age.as_secs_f64(),
        link.phase
    )
}

/// Adds up what the sessions of a peer repaired.
pub(super) fn fill_fec(fec: &mut FecStatus, sessions: &[&SessionStats]) {
    let sum = |of: fn(&SessionStats) -> u64| sessions.iter().map(|session| of(session)).sum();
    fec.repair_sent = sum(|s| s.symbols.repair);
    fec.groups_sent = sum(|s| s.symbols.groups);
    fec.groups_received = sum(|s| s.decoder.groups);
    fec.recovered = sum(|s| s.decoder.recovered_symbols);
    fec.unrecoverable = sum(|s| s.decoder.unrecoverable_symbols);
    fec.retransmitted = sum(|s| s.symbols.resent);
    let planned = sessions.iter().map(|session| session.repair_count).max();
    fec.repair_count = u32::try_from(planned.unwrap_or_default()).unwrap_or(u32::MAX);
    let links = sessions.iter().flat_map(|session| &session.links);
    let (missing, received) = links.fold((0, 0), |sum, link| {
        (sum.0 + link.missing_in.0, sum.1 + link.missing_in.1)
    });
    let (skipped, delivered) = (
        sum(|s| s.reorder.holes_skipped),
        sum(|s| s.delivered.0).max(1),
    );
    #[allow(clippy::cast_precision_loss)] // ratios
    {
        fec.loss_ratio_before = missing as f64 / (missing + received).max(1) as f64;
        fec.loss_ratio_after = skipped as f64 / delivered as f64;
    }
}

/// The order of what the sessions of a peer received.
pub(super) fn reorder(sessions: &[&SessionStats]) -> ReorderStatus {
    let mut sum = ReorderStatus::default();
    for session in sessions {
        sum.hold_ms = sum.hold_ms.max(session.hold.as_secs_f64() * 1e3);
        sum.depth += session.reorder_depth;
        sum.depth_max = sum.depth_max.max(u64::from(session.reorder.depth_max));
        sum.skipped += session.reorder.holes_skipped;
        sum.late += session.reorder.late;
        sum.wait_ms = worse(sum.wait_ms, percentiles(&session.waits));
    }
    sum
}

/// How long packets stay inside, of the session where it is longest.
pub(super) fn residence(sessions: &[&SessionStats]) -> ResidenceStatus {
    let mut worst = ResidenceStatus::default();
    for session in sessions {
        worst.out_ms = worse(worst.out_ms, percentiles(&session.residence));
        worst.in_ms = worse(worst.in_ms, percentiles(&session.waits));
    }
    worst
}

const fn worse(a: Percentiles, b: Percentiles) -> Percentiles {
    if b.p99 >= a.p99 { b } else { a }
}
