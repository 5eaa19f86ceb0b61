//! Delays made more equal for bulk flows: what a quick link carries of one leaves later than it could.
//!
//! A sender like BBR keeps twice the path's product of rate and *least* round trip in flight. Without load a frame goes
//! over the quickest link alone; under load it waits for room there for as long as the slower links are slower, or the
//! flow would never use them. Where that makes the round trip too many times the least one, such a flow never fills the
//! slow links. So a part of the wait is made to be there always, as much as brings the ratio down to 1.25. At full load
//! nothing changes, because the frames wait anyway.
//!
//! ```text
//! symbol of an equalised lane, committed to link i at t:  leaves at t + min(level - D_i, B_i - 2 ms)
//! level  = (rtt + D_slow) / 1.25 - rtt, smoothed          rtt: of the quickest link
//! D_slow = D of the slowest link that the load has needed lately                (on: of all)
//! lane   : equalised after 2 s above 5 Mbit/s, until 4 s below                   (on: every ordered lane)
//! at most: round trip with the level <= 1.8 rtt; from there 1.8 times more every 11 s           (on: no bound)
//! ```
//!
//! The last rule is for flows that know the shorter round trip already and believe in it for ten seconds: within 1.8
//! times of it their window still fills the path. More at once takes most of their rate for those ten seconds.
//!
//! Never does: hold frames back at the receiver. There the delay would be added to the wait for room at the sender,
//! twice the links' difference in all.

use std::time::Duration;

use super::Session;
use super::config::Equalise;
use crate::base::id::{LANES, LINKS_MAX};
use crate::base::{Frame, Instant, Lane, Rate};
use crate::stripe::weight::BACKLOG_EXTRA;
use crate::stripe::{Candidate, Strategy};
use crate::wire::inner_ip;
use crate::wire::virtio::VIRTIO_BYTES;

/// A lane above this rate is bulk: more than calls and all but the best films need.
const BULK_RATE: Rate = Rate::from_mbps(5);
/// How often the lanes' rates are looked at: some round trips.
const RATE_INTERVAL: Duration = Duration::from_millis(250);
/// Bulk for so long is no short flow.
const BULK_AFTER: Duration = Duration::from_secs(2);
/// How long a lane stays bulk without the rate: longer than a probe for the round trip (0.2 s) and most recoveries.
const BULK_LINGER: Duration = Duration::from_secs(4);
/// Time between two steps of the smoothed level, and the part of the difference that each takes.
const LEVEL_INTERVAL: Duration = Duration::from_millis(20);
const LEVEL_PART: u32 = 8;
/// After a pause there is no flow that a jump could disturb.
const LEVEL_PAUSE: Duration = Duration::from_millis(500);
/// How long a slow link counts as needed after it was: half of this at least. Longer than the time between two
/// probes for the round trip, which find the links idle.
const NEED_BUCKET: Duration = Duration::from_secs(12);
/// Part of the quicker links' rate from which on the next slower one is needed.
const FULL: f64 = 0.85;
/// Round trip at full load over the one that an equalised flow sees without load. A BBR flow probes for more with 1.25
/// times its rate for one least round trip: what waits then on the quick links must reach up to the slow ones. Measured over
/// 100 + 50 Mbit/s at 5 and 30 ms: with 1.6 or 1.4 it did not fill them, with 1.3 it did. With 1 it filled queues (links of
/// 100/50/20 Mbit/s: a round trip of 76 ms instead of 63, and 2.6 % sent again instead of 0.8 %).
const RATIO: f64 = 1.25;
/// A link whose delays spread by more has no delay to be equal to: radio links in motion wander by more than others
/// differ by, and what is added to the others would only be a longer queue.
const STEADY: Duration = Duration::from_millis(25);
/// Growth of the round trip that a window of twice its least product survives, with room for what is in the way of an
/// acknowledgement, and after how long it is the least one: ten seconds and a probe.
const GROWTH: f64 = 1.8;
const GROWTH_INTERVAL: Duration = Duration::from_secs(11);
/// Steps of growth that are told apart: beyond, a millisecond has become ten seconds.
const GROWTH_STEPS_MAX: u32 = 16;

/// Which lanes are equalised, and to what delay.
#[derive(Debug)]
pub(super) struct Equaliser {
    lanes: [LaneUse; LANES],
    rates_at: Instant,
    /// Relative one-way delay that bulk lanes get.
    level: Duration,
    level_at: Instant,
    /// Most links, quickest first, that the load needed in this and in the last bucket of time.
    needed: [usize; 2],
    needed_at: Instant,
}

#[derive(Clone, Copy, Debug, Default)]
struct LaneUse {
    /// Bytes since the rates were looked at.
    bytes: u64,
    /// Since when and until when it was bulk.
    since: Option<Instant>,
    last: Instant,
}

impl Equaliser {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            lanes: [LaneUse::default(); LANES],
            rates_at: now,
            level: Duration::ZERO,
            level_at: now,
            needed: [1; 2],
            needed_at: now,
        }
    }

    /// A frame of a lane is committed.
    fn on_frame(&mut self, lane: Lane, bytes: usize) {
        self.lanes[lane.index() % LANES].bytes += bytes as u64;
    }

    /// Whether [`Equaliser::refresh`] would look at anything while there are links.
    fn is_due(&self, now: Instant) -> bool {
        now.since(self.rates_at) >= RATE_INTERVAL || now.since(self.level_at) >= LEVEL_INTERVAL
    }

    /// Looks at the lanes' rates and at the links, quickest first, of which `used` is the rate in use.
    fn refresh(
        &mut self,
        links: &mut [(Duration, Rate)],
        rtt: Duration,
        used: Rate,
        all: bool,
        now: Instant,
    ) {
        let span = now.since(self.rates_at);
        if span >= RATE_INTERVAL {
            self.judge_lanes(span, now);
        }
        let pause = now.since(self.level_at);
        if links.is_empty() {
            self.level = Duration::ZERO;
        }
        if pause < LEVEL_INTERVAL || links.is_empty() {
            return;
        }
        self.level_at = now;
        links.sort_unstable();
        let mut sum = Rate::ZERO;
        let enough = links.iter().position(|(_, rate)| {
            sum = sum.saturating_add(*rate);
            used <= sum.mul_f64(FULL)
        });
        let needed = enough.map_or(links.len(), |at| at + 1);
        if now.since(self.needed_at) >= NEED_BUCKET {
            (self.needed, self.needed_at) = ([1, self.needed[0]], now);
        }
        self.needed[0] = self.needed[0].max(needed);
        let count = if all {
            links.len()
        } else {
            self.needed[0].max(self.needed[1]).min(links.len())
        };
        let target = (rtt + links[count - 1].0)
            .div_f64(RATIO)
            .saturating_sub(rtt);
        self.level = if pause > LEVEL_PAUSE {
            target
        } else if target > self.level {
            self.level + (target - self.level) / LEVEL_PART
        } else {
            self.level - (self.level - target) / LEVEL_PART
        };
    }

    fn judge_lanes(&mut self, span: Duration, now: Instant) {
        let bulk = BULK_RATE.bytes_in(span);
        for lane in &mut self.lanes {
            if std::mem::take(&mut lane.bytes) >= bulk {
                lane.since = lane.since.or(Some(now - span));
                lane.last = now;
            } else if now.since(lane.last) > BULK_LINGER {
                lane.since = None;
            }
        }
        self.rates_at = now;
    }

    /// The relative delay that a lane's frames get now; `rtt` is the round trip of the quickest link.
    fn level_of(&self, lane: Lane, rtt: Duration, now: Instant) -> Duration {
        let Some(since) = self.lanes[lane.index() % LANES].since else {
            return Duration::ZERO;
        };
        let age = now.since(since);
        if age < BULK_AFTER {
            return Duration::ZERO;
        }
        let steps = 1 + (age - BULK_AFTER).as_secs() / GROWTH_INTERVAL.as_secs();
        let steps = u32::try_from(steps).unwrap_or(GROWTH_STEPS_MAX);
        let grown = rtt.as_secs_f64() * GROWTH.powf(f64::from(steps.min(GROWTH_STEPS_MAX)));
        let most = Duration::from_secs_f64(grown).saturating_sub(rtt);
        self.level.min(most)
    }
}

impl Session {
    /// Follows the links' delays; after the candidates are known.
    pub(super) fn refresh_equaliser(&mut self, now: Instant) {
        let steady = |candidate: &Candidate| {
            let delay = self.links[candidate.link.index()].sender.delay();
            delay.p95.saturating_sub(delay.p50) <= STEADY
        };
        if !self.equaliser.is_due(now) && self.candidates.iter().any(steady) {
            return;
        }
        let mut links = [(Duration::ZERO, Rate::ZERO); LINKS_MAX];
        let mut count = 0;
        for candidate in &self.candidates {
            if steady(candidate) {
                links[count] = (candidate.delay, candidate.rate);
                count += 1;
            }
        }
        let used = self.rate_sum().mul_f64(self.load.value());
        let all = self.config.equalise == Equalise::On;
        let rtt = self.rtt_min_of_links();
        self.equaliser
            .refresh(&mut links[..count], rtt, used, all, now);
    }

    /// Books a frame of an ordered lane.
    pub(super) fn note_bulk(&mut self, lane: Lane, bytes: usize) {
        self.equaliser.on_frame(lane, bytes);
    }

    /// Whether a frame keeps to its lane however little its flow sends, because all of TCP has one delay: what a flow
    /// hears first is what it believes longest.
    pub(super) fn equalises_all(&self, frame: &Frame) -> bool {
        self.config.equalise == Equalise::On
            && inner_ip::parse(&self.egress.frames.bytes(frame)[VIRTIO_BYTES..])
                .is_ok_and(|ip| ip.proto == inner_ip::proto::TCP)
    }

    /// The relative delay for what is committed of a lane now. Only where the earliest delivery is looked for: the other
    /// ways to choose do not wait for quick links to be full.
    pub(super) fn level_of(&self, lane: Lane, now: Instant) -> Duration {
        if self.config.mode.strategy() != Strategy::EarliestDelivery {
            return Duration::ZERO;
        }
        match self.config.equalise {
            Equalise::Off => Duration::ZERO,
            Equalise::On => self.equaliser.level,
            Equalise::Auto if self.equaliser.level.is_zero() => Duration::ZERO,
            Equalise::Auto => self.equaliser.level_of(lane, self.rtt_min_of_links(), now),
        }
    }

    /// When a symbol that gets this delay may leave on the link of a candidate; [`Instant::ZERO`]: when it can. Not
    /// later than the scheduler would let a symbol wait there for its turn.
    pub(super) fn not_before(&self, at: usize, level: Duration, now: Instant) -> Instant {
        let candidate = self.candidate(at);
        let wait = level
            .saturating_sub(candidate.delay)
            .min(candidate.backlog_max.saturating_sub(BACKLOG_EXTRA));
        if wait.is_zero() {
            Instant::ZERO
        } else {
            now + wait
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(20);
    const LANE: Lane = Lane(3);

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Runs for some seconds with a lane at a rate and the links' rate in use, and tells the lane's level at the end.
    fn run(
        equaliser: &mut Equaliser,
        now: &mut Instant,
        seconds: u64,
        lane: u64,
        used: u64,
    ) -> u64 {
        for _ in 0..seconds * 100 {
            *now += ms(10);
            let bytes = Rate::from_mbps(lane).bytes_in(ms(10));
            equaliser.on_frame(LANE, usize::try_from(bytes).unwrap());
            let mut links =
                [(60, 50), (0, 100)].map(|(delay, rate)| (ms(delay), Rate::from_mbps(rate)));
            equaliser.refresh(&mut links, RTT, Rate::from_mbps(used), false, *now);
        }
        let level = equaliser.level_of(LANE, RTT, *now);
        u64::try_from(level.as_millis()).unwrap()
    }

    #[test]
    fn bulk_is_delayed_after_two_seconds_and_more_after_a_probe_for_the_round_trip() {
        let mut now = Instant::ZERO;
        let mut equaliser = Equaliser::new(now);
        assert_eq!(run(&mut equaliser, &mut now, 1, 90, 90), 0, "short");
        assert_eq!(run(&mut equaliser, &mut now, 2, 90, 90), 16, "0.8 of 20 ms");
        assert_eq!(run(&mut equaliser, &mut now, 8, 90, 90), 16);
        // (20 + 60) / 1.25 - 20 = 44, which the second step allows (44.8).
        assert!((42..=44).contains(&run(&mut equaliser, &mut now, 4, 90, 90)));
    }

    #[test]
    fn a_pause_of_a_probe_changes_nothing_and_a_long_one_ends_it() {
        let mut now = Instant::ZERO;
        let mut equaliser = Equaliser::new(now);
        let before = run(&mut equaliser, &mut now, 16, 90, 90);
        assert!(before > 30);
        assert_eq!(run(&mut equaliser, &mut now, 1, 1, 1), before);
        assert_eq!(run(&mut equaliser, &mut now, 1, 90, 90), before);
        assert_eq!(run(&mut equaliser, &mut now, 5, 1, 1), 0);
    }

    #[test]
    fn small_flows_and_loads_that_the_quick_links_carry_are_left_alone() {
        let mut now = Instant::ZERO;
        let mut equaliser = Equaliser::new(now);
        assert_eq!(run(&mut equaliser, &mut now, 20, 4, 140), 0);
        let mut equaliser = Equaliser::new(now);
        assert_eq!(run(&mut equaliser, &mut now, 20, 60, 60), 0);
        let other = equaliser.level_of(Lane(4), RTT, now);
        assert!(other.is_zero());
    }

    #[test]
    fn asked_for_all_it_follows_the_slowest_link_without_load() {
        let mut equaliser = Equaliser::new(Instant::ZERO);
        for at in 0..100 {
            let mut links = [(ms(60), Rate::from_mbps(50)), (ms(0), Rate::from_mbps(100))];
            let now = Instant::from_millis(at * 20);
            equaliser.refresh(&mut links, RTT, Rate::ZERO, true, now);
        }
        assert!(equaliser.level > ms(42) && equaliser.level <= ms(44));
    }
}
