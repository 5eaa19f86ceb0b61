//! How long bulk data may stand in the flow queue before CoDel tells its sender to slow down.
//!
//! Four things ask for more than CoDel's usual 5 ms. A single loss-based flow keeps the links full through its own
//! reductions only if some of its window waits here; and a window that fitted all links must not be cut to what is left
//! of them when one goes away for a moment, because it takes a CUBIC sender ten seconds to grow it back. And a flow that probes for
//! the round trip, as BBR does, has twice of what it found in flight whatever is dropped: dropping makes nothing shorter there,
//! and costs the flow a round trip for what it has to send again. And where links lose in bursts, what no repair symbol was there for
//! comes a round trip later: acknowledgements pause for that long and then come at once, and only a window that lasts through
//! the pause keeps the links full.
//!
//! ```text
//! target = RTT / 4, within 5-20 ms                                 usually
//!        = window before / rate left - RTT, and as much again      for some seconds after a WAN went away; at most 150 ms
//!        = window before / rate left - RTT                         while WANs stall, or go over and over; at most 100 ms
//!        >= the round trip that was found, at most 100 ms          while such a flow is there
//!        >= 3/4 RTT, at most 40 ms                                 while links lose in bursts
//! ```
//!
//! The window before is what was under way and what stood here. Forgetting the latter would be a signal half a second into
//! every outage: a hole of a round trip for whoever reads, and less of a window when the WAN returns.
//!
//! Sparse flows have queues of their own and do not notice.

use std::time::Duration;

use super::Session;
use crate::base::{Instant, Rate};

/// Part of the RTT that may stand. A CUBIC sender gives up 30 % of its window at a signal; a queue of a quarter of
/// the RTT, and what the signal takes to arrive, make up for nearly all of it.
const RTT_PART: u32 = 4;
/// CoDel's own target (RFC 8289 section 4.4).
const TARGET_MIN: Duration = Duration::from_millis(5);
/// Long ways must not make the inner round trip much longer than it is.
const TARGET_MAX: Duration = Duration::from_millis(20);
/// How long a window is kept for a WAN that went away. Most outages of radio links are over by then.
const KEEP: Duration = Duration::from_secs(15);
/// Most that a kept window may stand: below the least retransmission timeout of TCP, 200 ms beyond the smooth round trip.
const KEPT_MAX: Duration = Duration::from_millis(150);
/// ... for a WAN that stalls, and where WANs go away over and over: there what waits longer for one is late each time.
const KEPT_MAX_STALL: Duration = Duration::from_millis(100);
/// What goes wrong with the links within this time of the first one's leaving is one event.
const ONE_EVENT: Duration = Duration::from_secs(1);
/// Most that the window of a flow which probes may stand, for the same reason.
const PROBED_MAX: Duration = Duration::from_millis(100);

/// Part of the RTT that may stand while links lose in bursts, and the most of it: what a repair of the second round takes, less what is detected
/// early. With half of it, CUBIC over links that lose 2 % in bursts of 8 has 0.82 of their sum; with all of it, 0.88.
const RTT_PART_BURSTS: f64 = 0.75;
const BURSTS_MAX: Duration = Duration::from_millis(40);

/// Why a window is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Cause {
    /// A WAN stalls, as radio links do over and over: what waits longer for it meanwhile is late for all.
    #[default]
    Stall,
    /// A WAN is gone.
    Outage,
}

/// The inner flows' window as it was before a WAN went away: the largest of the last [`KEEP`] or somewhat less, because a
/// window of long ago is none of links that go over and over.
#[derive(Clone, Copy, Debug, Default)]
pub struct Patience {
    /// Of this half of [`KEEP`] and of the last.
    kept: [Kept; 2],
    /// When this half began.
    since: Instant,
    /// Why it is kept.
    cause: Cause,
    /// When a WAN went away last, and whether one did before within [`KEEP`].
    left_at: Option<Instant>,
    restless: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Kept {
    /// Bytes that fitted the links.
    window: u64,
    /// Until when they are kept.
    until: Instant,
}

impl Patience {
    /// A WAN goes away: what flowed over all of them was `rate` for `rtt`, and stood here for up to the target.
    pub(super) fn on_leave(&mut self, rate: Rate, rtt: Duration, cause: Cause, now: Instant) {
        let pause = self.left_at.map_or(KEEP, |left| now.since(left));
        self.left_at = Some(now);
        self.restless = pause < KEEP && (self.restless || pause > ONE_EVENT);
        if pause >= KEEP || cause == Cause::Outage {
            self.cause = cause;
        }
        if now.since(self.since) >= KEEP / 2 {
            self.kept = [Kept::default(), self.kept[0]];
            self.since = now;
        }
        // Of several WANs that go one after another the first one tells the window, as of one that stalls and then is gone.
        let window = rate.bytes_in(rtt + usual_target(rtt));
        self.kept[0] = Kept {
            window: self.kept[0].window.max(window),
            until: now + KEEP,
        };
    }

    /// CoDel's target while the links carry `rate` and the slowest way there and back takes `rtt`.
    fn target(&self, rate: Rate, rtt: Duration, now: Instant) -> Duration {
        let usual = usual_target(rtt);
        let live = self.kept.iter().filter(|kept| now < kept.until);
        let window = live.map(|kept| kept.window).max().unwrap_or(0);
        if window == 0 || rate == Rate::ZERO {
            return usual;
        }
        let kept = rate.time_for(window).saturating_sub(rtt);
        if self.restless || self.cause == Cause::Stall {
            kept.clamp(usual, KEPT_MAX_STALL)
        } else {
            // The window is an estimate, goes on growing, and must not be cut for either.
            (usual + kept.saturating_sub(usual) * 2).min(KEPT_MAX)
        }
    }
}

/// CoDel's target while nothing is missing.
fn usual_target(rtt: Duration) -> Duration {
    (rtt / RTT_PART).clamp(TARGET_MIN, TARGET_MAX)
}

impl Session {
    /// Sets CoDel's target by the links in use.
    pub(super) fn refresh_queue_target(&mut self, now: Instant) {
        let target = self.patience.target(self.rate_sum(), self.way_max(), now);
        let least = self.config.mode.queue_target_min();
        let standing = self.probed_round().min(PROBED_MAX);
        let target = target.max(standing).max(least).max(self.burst_pause());
        self.egress
            .set_queue_target(target, self.way_max() + target);
    }

    /// How long acknowledgements pause when a burst of losses is repaired; zero when no link in use loses in bursts.
    fn burst_pause(&self) -> Duration {
        let bursts = self.candidates.iter().any(|candidate| {
            let loss = self.links[candidate.link.index()].sender.loss();
            loss.in_bursts()
        });
        if bursts {
            self.way_max().mul_f64(RTT_PART_BURSTS).min(BURSTS_MAX)
        } else {
            Duration::ZERO
        }
    }

    /// Remembers the window that fits the links while a WAN that is about to be left still counts.
    pub(super) fn keep_window(&mut self, cause: Cause, now: Instant) {
        let (rate, rtt) = (self.rate_sum(), self.way_max());
        self.patience.on_leave(rate, rtt, cause, now);
    }

    /// The round trip that an ordered flow sees: out by the slowest link in use, back by the fastest.
    fn way_max(&self) -> Duration {
        self.candidates
            .iter()
            .map(|c| self.links[c.link.index()].sender.path_rtt())
            .max()
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(40);
    const ALL: Rate = Rate::from_mbps(170);
    const HALF: Rate = Rate::from_mbps(85);

    #[test]
    fn a_part_of_the_round_trip_may_stand_within_bounds() {
        let none = Patience::default();
        let target = |ms| none.target(ALL, Duration::from_millis(ms), Instant::from_millis(1));
        assert_eq!(target(2), TARGET_MIN);
        assert_eq!(target(40), Duration::from_millis(10));
        assert_eq!(target(600), TARGET_MAX);
    }

    #[test]
    fn the_window_is_kept_for_a_wan_that_may_return() {
        let mut patience = Patience::default();
        let left = Instant::from_millis(1_000);
        patience.on_leave(ALL, RTT, Cause::Outage, left);
        // 170 Mbit/s for 40 ms and a queue of 10 take 100 ms at 85 Mbit/s, 40 of which are under way.
        let kept = patience.target(HALF, RTT, left);
        assert!(kept.as_millis().abs_diff(10 + 50 * 2) <= 1, "{kept:?}");
        // A second one stalls and then goes: the window stays, the bound holds.
        patience.on_leave(HALF, RTT, Cause::Stall, left);
        patience.on_leave(HALF, RTT, Cause::Outage, left);
        assert_eq!(patience.target(Rate::from_mbps(10), RTT, left), KEPT_MAX);
        // It is back, or it is gone for long.
        assert_eq!(patience.target(ALL, RTT, left), RTT / RTT_PART);
        assert_eq!(patience.target(HALF, RTT, left + KEEP), RTT / RTT_PART);
    }

    #[test]
    fn windows_of_wans_that_go_over_and_over_are_forgotten_one_by_one() {
        let mut patience = Patience::default();
        let at = |secs: u64| Instant::from_millis(5_000 + secs * 1_000);
        patience.on_leave(ALL, RTT, Cause::Outage, at(0));
        let target = |patience: &Patience, secs| patience.target(HALF, RTT, at(secs));
        assert!(target(&patience, 0) > KEPT_MAX_STALL);
        // It goes again: less patience, with the largest window.
        patience.on_leave(HALF, RTT, Cause::Outage, at(4));
        let kept = target(&patience, 4);
        assert!(kept.as_millis().abs_diff(10 + 50) <= 1, "{kept:?}");
        for secs in (8..40).step_by(4) {
            patience.on_leave(HALF, RTT, Cause::Outage, at(secs));
        }
        assert_eq!(
            target(&patience, 36),
            RTT / RTT_PART,
            "the first is forgotten"
        );
        // After a calm time the next one is an event of its own.
        patience.on_leave(ALL, RTT, Cause::Outage, at(60));
        assert!(target(&patience, 60) > KEPT_MAX_STALL);
    }
}
