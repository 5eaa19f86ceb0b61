//! How long to wait for a missing frame.
//!
//! ```text
//! hold = spread + guard                              links only differ in delay
//!      + max(FEC fill time, round) + 2 rounds        a repair of the hole may be under way, and be lost itself, twice
//!      or 180 ms                                     while a link that carried traffic is silent
//! round = RTT + report interval + 5 ms
//! ```
//!
//! Longer than the real spread costs delay only where something is lost; shorter costs retransmissions of the
//! inner TCP: a fixed 10 ms hold over links with 30 ms of spread was measured worse than no buffer at all.

use std::time::Duration;

/// What the hold time follows from. All of it is the receiver's view of the incoming direction.
#[derive(Clone, Copy, Debug, Default)]
pub struct HoldInputs {
    /// Largest 99.5th percentile over the live links of the one-way delay above the base of the fastest link.
    pub delay_spread: Duration,
    /// Longest time the peer leaves an FEC group open; `None` without FEC.
    pub fill_time_max: Option<Duration>,
    /// Smallest RTT of any live link and the peer's wait for our report; `None` when lost symbols are not sent
    /// again.
    pub retransmit: Option<Retransmit>,
    /// A link that carried traffic is silent: the hole may sit on it. The peer has to suspect it first and then send a
    /// whole window again over what is left, and nobody here knows how long that takes.
    pub silent_link: bool,
}

/// The way of a retransmission.
#[derive(Clone, Copy, Debug)]
pub struct Retransmit {
    /// Smallest RTT over the live links.
    pub rtt_min: Duration,
    /// Longest time between two reports.
    pub report_interval: Duration,
}

/// The hold time for the reorder buffer, in [[`HOLD_MIN`], [`HOLD_MAX`]], or [`HOLD_SILENT`].
pub fn hold_time(inputs: &HoldInputs) -> Duration {
    if inputs.silent_link {
        return HOLD_SILENT;
    }
    let retransmit = inputs
        .retransmit
        .map(|r| r.rtt_min + r.report_interval + RETRANSMIT_GUARD);
    // Repair symbols and the first round start at the same moment, and the slower one must still come in time when the
    // other one fails. Further rounds are rare but for bursts, and to wait for them is cheaper than what the inner TCP
    // does about a loss.
    let repair = inputs.fill_time_max.max(retransmit).unwrap_or_default()
        + retransmit.unwrap_or_default() * 2;
    (inputs.delay_spread + HOLD_MIN + repair).clamp(HOLD_MIN, HOLD_MAX)
}

/// Guard above the measured spread, and so the shortest hold: percentiles are up to 100 ms old.
pub const HOLD_MIN: Duration = Duration::from_millis(5);
/// Longest hold: stays below the 200 ms floor of Linux' retransmission timeout, so that a hole never becomes one.
pub const HOLD_MAX: Duration = Duration::from_millis(150);

/// Hold while a link is silent: Linux' retransmission timeout is this floor of 200 ms and the smooth RTT.
pub const HOLD_SILENT: Duration = Duration::from_millis(180);

/// Scheduling at both ends and the pacing of the repeated symbol.
const RETRANSMIT_GUARD: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn equal_links_hold_for_the_guard_only() {
        assert_eq!(hold_time(&HoldInputs::default()), HOLD_MIN);
    }

    #[test]
    fn spread_and_the_slower_repair_add_up() {
        let mut inputs = HoldInputs {
            delay_spread: ms(22),
            ..HoldInputs::default()
        };
        assert_eq!(hold_time(&inputs), ms(27));
        inputs.fill_time_max = Some(ms(9));
        assert_eq!(hold_time(&inputs), ms(36));
        inputs.retransmit = Some(Retransmit {
            rtt_min: ms(20),
            report_interval: ms(5),
        });
        assert_eq!(hold_time(&inputs), ms(117));
    }

    #[test]
    fn a_silent_link_is_waited_for_as_long_as_an_inner_tcp_allows() {
        let mut inputs = HoldInputs {
            delay_spread: Duration::from_secs(3),
            ..HoldInputs::default()
        };
        assert_eq!(hold_time(&inputs), HOLD_MAX);
        inputs.silent_link = true;
        assert_eq!(hold_time(&inputs), HOLD_SILENT);
    }
}
