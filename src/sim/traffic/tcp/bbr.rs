//! BBR, version 1 as Linux has it: a model of the path (largest delivery rate, smallest round trip) and a cycle of pacing gains
//! around it. Source: Cardwell et al., "BBR: Congestion-Based Congestion Control", ACM Queue 14(5), and
//! draft-cardwell-iccrg-bbr-congestion-control-00.
//!
//! Never does: long-term sampling against policers, restart after idleness (the flows here are never idle).

use std::collections::VecDeque;
use std::time::Duration;

use crate::base::Instant;

/// Gain that doubles the rate each round: 2 / ln 2.
const STARTUP_GAIN: f64 = 2.885;
/// Window as part of the path's product of rate and round trip.
const WINDOW_GAIN: f64 = 2.0;
/// Pacing gains of the eight phases of a cycle, each about one round trip.
const CYCLE: [f64; 8] = [1.25, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0];
/// Pacing stays this little below the model, so that queues drain.
const PACING_MARGIN: f64 = 0.99;
/// Rounds over which the largest delivery rate counts.
const RATE_ROUNDS: u64 = 10;
/// Time over which the smallest round trip counts.
const RTT_WINDOW: Duration = Duration::from_secs(10);
/// Smallest window, and the one of a probe for the round trip.
const WINDOW_MIN: f64 = 4.0;
/// How long such a probe lasts at least.
const RTT_PROBE: Duration = Duration::from_millis(200);
/// Growth of the rate below which a round of the startup is flat, and flat rounds that end it.
const FULL_GROWTH: f64 = 1.25;
const FULL_ROUNDS: u32 = 3;
/// First window.
const WINDOW_INITIAL: f64 = 10.0;
/// Bounds of the window's supplement for acknowledgements that come in lumps: rounds of one of its two halves, longest
/// time it may be worth.
const LUMP_ROUNDS: u32 = 5;
const LUMP_MAX: Duration = Duration::from_millis(100);
/// Segments of one frame at a time: so much of the pacing rate.
const FRAME_TIME: Duration = Duration::from_millis(1);

/// What an acknowledgement told.
#[derive(Clone, Copy, Debug)]
pub(super) struct AckSample {
    /// Segments newly acknowledged, and newly taken for lost.
    pub(super) acked: u64,
    pub(super) lost: u64,
    /// Segments delivered so far, this acknowledgement included.
    pub(super) delivered: u64,
    /// The same when the newest of its segments was sent; `None` when it acknowledged nothing.
    pub(super) prior_delivered: Option<u64>,
    /// Time in which the difference was delivered.
    pub(super) interval: Duration,
    /// Its round trip.
    pub(super) rtt: Duration,
    /// In flight before and after.
    pub(super) pipe_before: u64,
    pub(super) pipe: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Startup,
    Drain,
    Cycle,
    RttProbe,
}

/// The model and what follows from it, in segments and seconds.
#[derive(Debug)]
pub(super) struct Bbr {
    pub(super) window: f64,
    mode: Mode,
    pacing_gain: f64,
    window_gain: f64,
    /// Pacing rate, segments per second, and whether a round trip has given it a base.
    pace: f64,
    paced: bool,
    /// Largest first: round and delivery rate.
    rates: VecDeque<(u64, f64)>,
    round: u64,
    round_end: u64,
    rtt_min: Duration,
    rtt_min_at: Instant,
    full_rate: f64,
    flat_rounds: u32,
    phase: usize,
    phase_at: Instant,
    /// End of the probe for the round trip, once the window is small, and the round that must pass.
    probe_end: Option<Instant>,
    probe_round: u64,
    window_before: f64,
    /// In the first round of a recovery only what was delivered is sent.
    conserving: bool,
    conserve_until: u64,
    lumps: Lumps,
}

/// How many segments came acknowledged beyond what the rate explains.
#[derive(Debug, Default)]
struct Lumps {
    since: Instant,
    acked: f64,
    largest: [f64; 2],
    at: usize,
    rounds: u32,
}

impl Bbr {
    pub(super) const fn new() -> Self {
        Self {
            window: WINDOW_INITIAL,
            mode: Mode::Startup,
            pacing_gain: STARTUP_GAIN,
            window_gain: STARTUP_GAIN,
            // Until a round trip is known: the first window within a millisecond.
            pace: STARTUP_GAIN * WINDOW_INITIAL * 1e3,
            paced: false,
            rates: VecDeque::new(),
            round: 0,
            round_end: 0,
            rtt_min: Duration::MAX,
            rtt_min_at: Instant::ZERO,
            full_rate: 0.0,
            flat_rounds: 0,
            phase: 0,
            phase_at: Instant::ZERO,
            probe_end: None,
            probe_round: 0,
            window_before: 0.0,
            conserving: false,
            conserve_until: 0,
            lumps: Lumps {
                since: Instant::ZERO,
                acked: 0.0,
                largest: [0.0; 2],
                at: 0,
                rounds: 0,
            },
        }
    }

    /// Pacing rate, segments per second.
    pub(super) const fn pace(&self) -> f64 {
        self.pace
    }

    /// Segments that one frame should have at most.
    pub(super) fn frame_segments(&self) -> f64 {
        (self.pace * FRAME_TIME.as_secs_f64()).max(2.0)
    }

    /// Largest delivery rate, segments per second.
    fn rate(&self) -> f64 {
        self.rates.front().map_or(0.0, |(_, rate)| *rate)
    }

    const fn is_full(&self) -> bool {
        self.flat_rounds >= FULL_ROUNDS
    }

    /// Segments in flight that a part `gain` of the path's product of rate and round trip needs.
    fn inflight(&self, gain: f64) -> f64 {
        if self.rtt_min == Duration::MAX {
            return WINDOW_INITIAL;
        }
        let product = self.rate() * self.rtt_min.as_secs_f64() * gain;
        // Three frames may wait in the host; delayed acknowledgements ask for an even number.
        let mut segments = (product.ceil() + 3.0 * self.frame_segments().floor() + 1.0) / 2.0;
        segments = segments.floor() * 2.0;
        if self.mode == Mode::Cycle && self.phase == 0 {
            segments += 2.0;
        }
        segments
    }

    pub(super) fn on_ack(&mut self, ack: &AckSample, now: Instant) {
        let begins = self.update_round(ack);
        self.update_rate(ack);
        self.update_lumps(ack, begins, now);
        self.update_cycle(ack, now);
        if begins {
            self.check_full();
        }
        self.check_drain(ack, now);
        self.update_rtt(ack, now);
        self.set_pace();
        self.set_window(ack);
    }

    /// Whether a round begins: everything in flight at the last beginning has been delivered.
    fn update_round(&mut self, ack: &AckSample) -> bool {
        let begins = ack
            .prior_delivered
            .is_some_and(|prior| prior >= self.round_end);
        if begins {
            self.round_end = ack.delivered;
            self.round += 1;
            self.conserving &= self.round < self.conserve_until;
        }
        begins
    }

    fn update_rate(&mut self, ack: &AckSample) {
        let Some(prior) = ack.prior_delivered else {
            return;
        };
        // An interval shorter than a round trip is an artefact of acknowledgements in lumps.
        if ack.interval.is_zero() || ack.interval < self.rtt_min.min(ack.rtt) {
            return;
        }
        let rate = segments(ack.delivered - prior) / ack.interval.as_secs_f64();
        while self.rates.back().is_some_and(|(_, known)| *known <= rate) {
            self.rates.pop_back();
        }
        self.rates.push_back((self.round, rate));
        while self
            .rates
            .front()
            .is_some_and(|(round, _)| round + RATE_ROUNDS <= self.round)
        {
            self.rates.pop_front();
        }
    }

    fn update_lumps(&mut self, ack: &AckSample, begins: bool, now: Instant) {
        let rate = self.rate();
        let lumps = &mut self.lumps;
        if begins {
            lumps.rounds += 1;
            if lumps.rounds >= LUMP_ROUNDS {
                lumps.rounds = 0;
                lumps.at ^= 1;
                lumps.largest[lumps.at] = 0.0;
            }
        }
        let mut expected = rate * now.since(lumps.since).as_secs_f64();
        if lumps.acked <= expected {
            (lumps.acked, lumps.since, expected) = (0.0, now, 0.0);
        }
        lumps.acked += segments(ack.acked);
        let extra = (lumps.acked - expected).min(self.window);
        lumps.largest[lumps.at] = lumps.largest[lumps.at].max(extra);
    }

    fn update_cycle(&mut self, ack: &AckSample, now: Instant) {
        if self.mode != Mode::Cycle {
            return;
        }
        let full_length = now.since(self.phase_at) > self.rtt_min;
        let inflight = segments(ack.pipe_before);
        let next = if self.pacing_gain > 1.0 {
            full_length && (ack.lost > 0 || inflight >= self.inflight(self.pacing_gain))
        } else if self.pacing_gain < 1.0 {
            full_length || inflight <= self.inflight(1.0)
        } else {
            full_length
        };
        if next {
            self.enter_phase((self.phase + 1) % CYCLE.len(), now);
        }
    }

    fn enter_phase(&mut self, phase: usize, now: Instant) {
        self.mode = Mode::Cycle;
        self.phase = phase;
        self.phase_at = now;
        self.pacing_gain = CYCLE[phase];
        self.window_gain = WINDOW_GAIN;
    }

    /// Into the cycle at any phase but the one that drains; which one is drawn from the count of rounds.
    fn enter_cycle(&mut self, now: Instant) {
        let others = CYCLE.len() - 1;
        let drawn = usize::try_from(self.round).unwrap_or(0) % others;
        self.enter_phase((CYCLE.len() - drawn) % CYCLE.len(), now);
    }

    fn check_full(&mut self) {
        if self.is_full() {
            return;
        }
        if self.rate() >= self.full_rate * FULL_GROWTH {
            self.full_rate = self.rate();
            self.flat_rounds = 0;
        } else {
            self.flat_rounds += 1;
        }
    }

    fn check_drain(&mut self, ack: &AckSample, now: Instant) {
        if self.mode == Mode::Startup && self.is_full() {
            self.mode = Mode::Drain;
            self.pacing_gain = 1.0 / STARTUP_GAIN;
            self.window_gain = STARTUP_GAIN;
        }
        if self.mode == Mode::Drain && segments(ack.pipe) <= self.inflight(1.0) {
            self.enter_cycle(now);
        }
    }

    /// The smallest round trip, and the probe for it when none as small was seen for long.
    fn update_rtt(&mut self, ack: &AckSample, now: Instant) {
        let expired = now > self.rtt_min_at + RTT_WINDOW;
        if ack.rtt < self.rtt_min || expired {
            (self.rtt_min, self.rtt_min_at) = (ack.rtt, now);
        }
        if expired && self.mode != Mode::RttProbe {
            self.mode = Mode::RttProbe;
            (self.pacing_gain, self.window_gain) = (1.0, 1.0);
            self.window_before = self.window_before.max(self.window);
            self.probe_end = None;
        }
        if self.mode != Mode::RttProbe {
            return;
        }
        match self.probe_end {
            None if segments(ack.pipe) <= WINDOW_MIN => {
                self.probe_end = Some(now + RTT_PROBE);
                self.probe_round = self.round;
                self.round_end = ack.delivered;
            }
            Some(end) if now > end && self.round > self.probe_round => {
                self.rtt_min_at = now;
                self.window = self.window.max(std::mem::take(&mut self.window_before));
                if self.is_full() {
                    self.enter_cycle(now);
                } else {
                    self.mode = Mode::Startup;
                    (self.pacing_gain, self.window_gain) = (STARTUP_GAIN, STARTUP_GAIN);
                }
            }
            _ => {}
        }
    }

    fn set_pace(&mut self) {
        if !self.paced && self.rtt_min < Duration::MAX {
            self.paced = true;
            self.pace = STARTUP_GAIN * self.window / self.rtt_min.as_secs_f64().max(1e-3);
        }
        let pace = self.rate() * self.pacing_gain * PACING_MARGIN;
        // In the startup it never falls: the first samples are too small.
        if pace > 0.0 && (self.is_full() || pace > self.pace) {
            self.pace = pace;
        }
    }

    fn set_window(&mut self, ack: &AckSample) {
        let acked = segments(ack.acked);
        self.window = (self.window - segments(ack.lost)).max(1.0);
        if self.conserving {
            self.window = self.window.max(segments(ack.pipe) + acked);
        } else if acked > 0.0 {
            let mut target = self.inflight(self.window_gain);
            if self.is_full() {
                let lumps = self.lumps.largest[0].max(self.lumps.largest[1]);
                target += lumps.min(self.rate() * LUMP_MAX.as_secs_f64());
                self.window = (self.window + acked).min(target);
            } else if self.window < target || segments(ack.delivered) < WINDOW_INITIAL {
                self.window += acked;
            }
            self.window = self.window.max(WINDOW_MIN);
        }
        if self.mode == Mode::RttProbe {
            self.window = self.window.min(WINDOW_MIN);
        }
    }

    /// A recovery begins.
    pub(super) fn on_recovery(&mut self, pipe: u64) {
        self.save_window();
        self.window = segments(pipe + 1);
        self.conserving = true;
        self.conserve_until = self.round + 2;
    }

    /// It is over, or was none.
    pub(super) fn on_recovered(&mut self) {
        self.conserving = false;
        self.window = self.window.max(std::mem::take(&mut self.window_before));
        if self.mode == Mode::RttProbe {
            self.window = self.window.min(WINDOW_MIN);
        }
    }

    /// A retransmission timeout.
    pub(super) fn on_timeout(&mut self) {
        self.save_window();
        self.window = 1.0;
        self.full_rate = 0.0;
        self.conserving = false;
    }

    /// The window to come back to.
    fn save_window(&mut self) {
        self.window_before = if self.mode == Mode::RttProbe || self.conserving {
            self.window_before.max(self.window)
        } else {
            self.window
        };
    }
}

#[allow(clippy::cast_precision_loss)] // segments of one flow
const fn segments(count: u64) -> f64 {
    count as f64
}
