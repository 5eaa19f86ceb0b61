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
//! level  = round - rtt                                    rtt: of the quickest link
//! round  = (rtt + D_slow) / 1.25, smoothed; falls only when all of the last 3 s asked for less
//! D_slow = D of the slowest link that the load has needed lately                (on: of all)
//! for a lane whose flow found a shorter round trip:  1.06 (rtt + D_slow) - found / 4, because it probes no further
//! lane   : equalised after 2 s above 5 Mbit/s, until 4 s below                   (on: every ordered lane)
//! at most: round trip with the level <= 1.8 rtt; from there 1.8 times more every 11 s           (on: no bound)
//! probe  : the lane pauses for half an rtt, then trickles for 200 ms: the bound's next step begins there
//! ```
//!
//! The bound is for flows that know the shorter round trip already and believe in it for ten seconds: within 1.8
//! times of it their window still fills the path. More at once takes most of their rate for those ten seconds, also when it
//! comes with the probe: what returns at its beginning was sent before, and is the least that it finds. A round trip that is
//! short for one moment is believed as long. So it never shrinks for a moment, neither when a link's delay is uncertain for
//! a second nor when a quicker link comes back.
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
/// How long the round trip stays when less would do. A burst stays for two seconds in what is known of a link's delay, and
/// one that is shorter for a moment costs a BBR flow its window for ten seconds.
const KEEP: Duration = Duration::from_secs(3);
/// A flow probes for the round trip when it pauses for this part of it, which is how long its window takes to drain, and
/// then sends no more than this in each: four packets, or two frames of them.
const PROBE_PAUSE: u32 = 2;
const PROBE_BYTES: u64 = 8 * 1_500;
/// Least and greatest length of such a probe: 200 ms or a round trip.
const PROBE_MIN: Duration = Duration::from_millis(150);
const PROBE_MAX: Duration = Duration::from_millis(600);
/// No flow probes sooner after its first round trips or after its last probe than after ten seconds; with room for how
/// late the first was noticed.
const PROBE_AFTER: Duration = Duration::from_secs(7);
/// A flow that has probed will do so again within this time: ten seconds and what the probe takes, with room.
const PROBE_AGAIN: Duration = Duration::from_secs(15);
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
/// What waits on the quick links must reach a little beyond the slow ones' delay, because a link that is worse has to be
/// earlier by some milliseconds to be used. Measured over links of ten times the delay, twenty seconds after the flow's
/// beginning: with 1 the slow link stayed unused (E 0.65 of 100 + 50 Mbit/s), with 1.06 it did not (0.945).
const REACH: f64 = 1.06;
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
    /// Round trip of the quickest link, and the one that bulk lanes get without load.
    rtt: Duration,
    round: Duration,
    level_at: Instant,
    /// When the round trip was last asked to be as long as it is.
    reached_at: Instant,
    /// Whether a lane has probed for it lately.
    probed: bool,
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
    /// The round trip that its flow found last, if that is not the quickest link's, and when: the level grows from there.
    found: Duration,
    found_at: Instant,
    /// It was found by a probe that was seen.
    probed: bool,
    /// When its last frame was committed.
    frame_at: Instant,
    probe: Option<Probe>,
}

/// What looks like a probe for the round trip.
#[derive(Clone, Copy, Debug)]
struct Probe {
    at: Instant,
    bytes: u64,
}

impl Equaliser {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            lanes: [LaneUse::default(); LANES],
            rates_at: now,
            rtt: Duration::ZERO,
            round: Duration::ZERO,
            level_at: now,
            reached_at: now,
            probed: false,
            needed: [1; 2],
            needed_at: now,
        }
    }

    /// A frame of a lane is committed.
    fn on_frame(&mut self, lane: Lane, bytes: usize, now: Instant) {
        let at = lane.index() % LANES;
        let lane = &mut self.lanes[at];
        lane.bytes += bytes as u64;
        let paused = now.since(lane.frame_at) >= self.rtt / PROBE_PAUSE;
        lane.frame_at = now;
        if lane.probe.is_none() && paused && lane.may_probe(now) {
            lane.probe = Some(Probe { at: now, bytes: 0 });
        }
        let Some(mut probe) = lane.probe else { return };
        probe.bytes += bytes as u64;
        let lasted = now.since(probe.at);
        let rounds = 1 + lasted.as_nanos() / self.rtt.as_nanos().max(1);
        let few = u128::from(probe.bytes) <= u128::from(PROBE_BYTES) * rounds;
        if few {
            // A flow that has little to send for longer is none that probes, also not with the end of that time.
            lane.probe = Some(probe);
            return;
        }
        lane.probe = None;
        if (PROBE_MIN..=PROBE_MAX).contains(&lasted) {
            let found = self.round_of(at, probe.at);
            let lane = &mut self.lanes[at];
            (lane.found, lane.found_at, lane.probed) = (found, now, true);
        }
    }

    /// What is added to the quickest link's delay.
    fn level(&self) -> Duration {
        self.round.saturating_sub(self.rtt)
    }

    /// Whether [`Equaliser::refresh`] would look at anything while there are links.
    fn is_due(&self, now: Instant) -> bool {
        now.since(self.rates_at) >= RATE_INTERVAL || now.since(self.level_at) >= LEVEL_INTERVAL
    }

    /// Looks at the lanes' rates and at the links, quickest first, of which `used` is the rate in use.
    fn refresh(&mut self, links: &mut [(Duration, Rate)], used: Rate, all: bool, now: Instant) {
        let span = now.since(self.rates_at);
        if span >= RATE_INTERVAL {
            self.judge_lanes(span, now);
        }
        let pause = now.since(self.level_at);
        if pause < LEVEL_INTERVAL {
            return;
        }
        self.level_at = now;
        let target = self.target(links, used, all, now);
        self.round = self.round.max(self.rtt);
        if pause > LEVEL_PAUSE {
            (self.round, self.reached_at) = (target, now);
        } else if target >= self.round {
            self.round += (target - self.round) / LEVEL_PART;
            self.reached_at = now;
        } else if now.since(self.reached_at) > KEEP {
            self.round -= (self.round - target) / LEVEL_PART;
        }
    }

    /// The round trip that these links ask for.
    fn target(
        &mut self,
        links: &mut [(Duration, Rate)],
        used: Rate,
        all: bool,
        now: Instant,
    ) -> Duration {
        if links.is_empty() {
            return self.rtt;
        }
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
        let slowest = self.rtt + links[count - 1].0;
        slowest.div_f64(RATIO).max(self.rtt)
    }

    fn judge_lanes(&mut self, span: Duration, now: Instant) {
        let bulk = BULK_RATE.bytes_in(span);
        self.probed = false;
        for lane in &mut self.lanes {
            if std::mem::take(&mut lane.bytes) >= bulk {
                if lane.since.is_none() {
                    lane.since = Some(now - span);
                    lane.found = Duration::ZERO;
                    lane.found_at = now - span + BULK_AFTER;
                    lane.probed = false;
                }
                lane.last = now;
            } else if now.since(lane.last) > BULK_LINGER {
                (lane.since, lane.probe) = (None, None);
            }
            self.probed |= lane.has_probed(now);
        }
        self.rates_at = now;
    }

    /// The relative delay that a lane's frames get now.
    fn level_of(&self, lane: Lane, now: Instant) -> Duration {
        let at = lane.index() % LANES;
        if self.lanes[at].since.is_none() || now < self.lanes[at].found_at {
            return Duration::ZERO;
        }
        self.round_of(at, now).saturating_sub(self.rtt)
    }

    /// The round trip that an equalised lane sees without load.
    fn round_of(&self, at: usize, now: Instant) -> Duration {
        if self.round <= self.rtt.mul_f64(1.001) {
            return self.rtt;
        }
        let lane = &self.lanes[at];
        let steps = 1 + now.since(lane.found_at).as_secs() / GROWTH_INTERVAL.as_secs();
        let steps = u32::try_from(steps).unwrap_or(GROWTH_STEPS_MAX);
        let growth = GROWTH.powf(f64::from(steps.min(GROWTH_STEPS_MAX)));
        let found = lane.found.max(self.rtt);
        let slowest = self.round.mul_f64(RATIO * REACH);
        let wanted = slowest.saturating_sub(found.mul_f64(RATIO - 1.0));
        self.round.max(wanted).min(found.mul_f64(growth))
    }
}

impl LaneUse {
    /// Whether its flow may look for the round trip: a bulk flow after ten seconds.
    fn may_probe(&self, now: Instant) -> bool {
        self.since.is_some() && now.since(self.found_at) >= PROBE_AFTER
    }

    /// Whether its flow has looked for it, and will again.
    fn has_probed(&self, now: Instant) -> bool {
        self.since.is_some() && self.probed && now.since(self.found_at) < PROBE_AGAIN
    }
}

impl Session {
    /// Follows the links' delays; after the candidates are known. `rtt`: of the quickest link.
    pub(super) fn refresh_equaliser(&mut self, rtt: Duration, now: Instant) {
        self.equaliser.rtt = rtt;
        if !self.equaliser.is_due(now) {
            return;
        }
        let steady = |candidate: &Candidate| {
            let delay = self.links[candidate.link.index()].sender.delay();
            delay.p95.saturating_sub(delay.p50) <= STEADY
        };
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
        self.equaliser.refresh(&mut links[..count], used, all, now);
    }

    /// Books a frame of an ordered lane.
    pub(super) fn note_bulk(&mut self, lane: Lane, bytes: usize, now: Instant) {
        self.equaliser.on_frame(lane, bytes, now);
    }

    /// Whether a frame keeps to its lane however little its flow sends, because all of TCP has one delay: what a flow
    /// hears first is what it believes longest.
    pub(super) fn equalises_all(&self, frame: &Frame) -> bool {
        self.config.equalise == Equalise::On
            && inner_ip::parse(&self.egress.frames.bytes(frame)[VIRTIO_BYTES..])
                .is_ok_and(|ip| ip.proto == inner_ip::proto::TCP)
    }

    /// Only where the earliest delivery is looked for: the other ways to choose do not wait for quick links to be full.
    fn equalises(&self) -> bool {
        self.config.mode.strategy() == Strategy::EarliestDelivery
            && self.config.equalise != Equalise::Off
    }

    /// How long the window of a flow that probes for the round trip may stand in the flow queue: it has twice what it was
    /// shown in flight, of which somewhat more than half is on its way.
    pub(super) fn probed_round(&self) -> Duration {
        if self.equalises() && self.equaliser.probed {
            self.equaliser.round
        } else {
            Duration::ZERO
        }
    }

    /// The relative delay for what is committed of a lane now.
    pub(super) fn level_of(&self, lane: Lane, now: Instant) -> Duration {
        if !self.equalises() {
            return Duration::ZERO;
        }
        match self.config.equalise {
            Equalise::Off => Duration::ZERO,
            Equalise::On => self.equaliser.level(),
            Equalise::Auto if self.equaliser.level().is_zero() => Duration::ZERO,
            Equalise::Auto => self.equaliser.level_of(lane, now),
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
#[path = "equal_tests.rs"]
mod tests;
