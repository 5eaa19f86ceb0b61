//! How fast a WAN may be sent to: capacity learned from what arrives, delay as the guard, loss ignored.
//!
//! ```text
//!  Startup ──saturated──► Drain ──queue gone──► Cruise ──turn granted──► Probe ──► Drain ─┐
//!  x2 a round             0.5-0.92              0.97      ▲   1.06-2.0        all came?    │
//!                           ▲                    │        └── next, larger ◄── yes         │
//!                           └── queue stands ────┘◄─────────────────────────── no ─────────┘
//! ```
//!
//! Principles. The capacity is what is *received* per second while the delay grows or the queue stands; at other
//! times what is received only says how much was sent. So it is raised by probes and by nothing else, and lowered
//! only with evidence that we sent more than the WAN carries: never because the application sends little, never
//! for losses, never across a silence. A queue that does not shrink when less is sent is not ours, and becomes the
//! new zero. One measurement moves the estimate by a quarter at most.
//!
//! Never does: choosing links, or sending. Several links of one WAN share one control; probes of several WANs are
//! kept apart by whoever grants the turns, because WANs may share a bottleneck.
//!
//! References: BBR (Cardwell 2016) for the shape, GCC (Carlucci 2016) for the slope.

#[cfg(test)]
mod bottleneck;
mod guard;
mod meter;
mod phase;
mod probe;
mod sight;
mod startup;
mod surge;

use std::time::Duration;

use crate::base::{Instant, Rate, Rng};
use guard::DrainTest;
use meter::{Meter, bits};
use probe::PendingProbe;
use sight::Sight;

pub use meter::rate;
pub use phase::Phase;

/// What one report says about a WAN: cumulative figures of one of its links.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delivery {
    /// When the datagram with the largest number received was sent.
    pub sent_at: Instant,
    /// When it came: low 32 bits of the receiver's clock in microseconds.
    pub received_us: u32,
    /// Its packet number.
    pub number: u64,
    /// Datagrams received since the session began.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Least one-way delay since the previous report, wrapping microseconds.
    pub owd_min_us: i32,
    /// Greatest one-way delay since the previous report, wrapping microseconds.
    pub owd_max_us: i32,
    /// Least queueing delay since the previous report.
    pub queue_last: Duration,
    /// Least queueing delay of the last 50 ms.
    pub queue_min: Duration,
    /// Median queueing delay of the last 50 ms.
    pub queue_p50: Duration,
    /// Smoothed RTT.
    pub rtt: Duration,
    /// Bytes of the link in flight.
    pub in_flight: u64,
}

/// Parameters of a [`RateControl`].
#[derive(Clone, Copy, Debug)]
pub struct RateConfig {
    /// Never more than this; `None` = unlimited.
    pub ceiling: Option<Rate>,
    /// First guess.
    pub start: Rate,
    /// Links that share the WAN.
    pub links: usize,
}

impl Default for RateConfig {
    /// 10 Mbit/s: less than most WANs carry, and seven doublings below a gigabit.
    fn default() -> Self {
        Self {
            ceiling: None,
            start: Rate::from_mbps(10),
            links: 1,
        }
    }
}

/// Cruising this much below capacity empties what queue there is.
const CRUISE_GAIN: f64 = 0.97;
/// Never less than this: reports and heartbeats alone may take a third of it.
const CAPACITY_MIN: f64 = 300_000.0;
/// A slope within this is level.
const LEVEL: f64 = 0.03;
/// A queue (seconds) above this is high: no probe, and no excuse.
const QUEUE_HIGH: f64 = 0.020;
/// The application counts as limiting when less than this share of the pacing rate was sent.
const APP_LIMITED: f64 = 0.8;
/// The least queue of 50 ms is seen this much after the queue was gone.
const QUEUE_LAG: Duration = Duration::from_millis(60);
/// A full packet.
const PACKET_BITS: f64 = 12_000.0;
/// After startup, a silence or a change of capacity probes come quickly for this long.
const QUICK: Duration = Duration::from_secs(2);
/// A silence longer than this makes the old capacity doubtful: start again at half of it.
const LONG_SILENCE: Duration = Duration::from_secs(1);
/// After a silence the link is trusted with this much of its capacity for a round.
const RETURN_GAIN: f64 = 0.9;

/// Rate control of one WAN in our sending direction.
#[derive(Debug)]
pub struct RateControl {
    ceiling: f64,
    rng: Rng,
    meter: Meter,
    phase: Phase,
    /// Believed capacity, bits/s.
    capacity: f64,
    /// Pacing rate over capacity.
    gain: f64,
    /// Packets sent from here on were sent in the present phase (round, probe, drain).
    phase_at: Instant,
    /// When a timed phase ends.
    phase_ends: Instant,
    /// A finished probe whose reports are still to come: its span, gain and the capacity it started from.
    pending: Option<PendingProbe>,
    /// Step in the row of accepted probes.
    probe_step: usize,
    next_probe_at: Instant,
    quick_until: Instant,
    /// Until when its capacity counts as one that moves.
    moves_until: Instant,
    backlogged: bool,
    /// What is seen at present.
    sight: Sight,
    /// The drain under way or just over: what it should show.
    drain: Option<DrainTest>,
    /// Usual loss, which is not congestion.
    usual_loss: f64,
    loss_at: Instant,
    /// Last calibration against a standing queue.
    calibrated_at: Instant,
    /// Last steep fall.
    surged_at: Instant,
    /// Since when on_suspect stands.
    suspect_at: Instant,
    /// Most that startup saw arrive; the first guess is above it and no evidence.
    shown: f64,
    /// Rounds of startup in a row that saw a queue.
    queued_rounds: u32,
    /// It came before the capacity was found.
    was_startup: bool,
    /// The last round of startup lost so much that the WAN may be full.
    doubt: bool,
}

impl RateControl {
    /// A WAN of unknown capacity. This is the only place that allocates.
    pub fn new(config: RateConfig, rng: Rng, now: Instant) -> Self {
        let ceiling = config.ceiling.map_or(f64::INFINITY, bits).max(CAPACITY_MIN);
        Self {
            ceiling,
            rng,
            meter: Meter::new(config.links),
            phase: Phase::Startup,
            capacity: bits(config.start).clamp(CAPACITY_MIN, ceiling),
            gain: 1.0,
            phase_at: now,
            phase_ends: Instant::FAR,
            pending: None,
            probe_step: 0,
            next_probe_at: now,
            quick_until: now,
            moves_until: now,
            backlogged: false,
            sight: Sight::default(),
            drain: None,
            usual_loss: 0.0,
            loss_at: now,
            calibrated_at: now,
            surged_at: now,
            suspect_at: now,
            shown: 0.0,
            queued_rounds: 0,
            was_startup: false,
            doubt: false,
        }
    }

    /// Takes what a link's report says. `slot`: which of the WAN's links, from 0.
    pub fn on_delivery(&mut self, slot: usize, sample: &Delivery, now: Instant) {
        let gap = self.meter.on_delivery(slot, sample);
        let calm = self.phase == Phase::Cruise && self.pending.is_none();
        self.sight.update(sample, calm);
        if gap {
            self.on_gap(now);
        }
        self.judge_probe(now);
        if self.may_surge() && self.surge(now) {
            return;
        }
        match self.phase {
            Phase::Startup => self.startup(now),
            Phase::Drain => self.watch_drain(now),
            Phase::Cruise => self.guard(now),
            Phase::Probe => self.watch_probe(now),
            Phase::Frozen => {}
        }
    }

    /// Changes the ceiling of a running control.
    pub fn set_ceiling(&mut self, ceiling: Option<Rate>) {
        self.ceiling = ceiling.map_or(f64::INFINITY, bits).max(CAPACITY_MIN);
        self.set_capacity(self.capacity);
    }

    /// Whether data waits for this WAN's pacer.
    pub const fn set_backlogged(&mut self, backlogged: bool, _now: Instant) {
        self.backlogged = backlogged;
    }

    /// Takes over from a control of the same WAN elsewhere that believed in `capacity`.
    pub fn resume(&mut self, capacity: Rate, now: Instant) {
        self.meter.forget(0..usize::MAX);
        self.sight.forget_queue();
        (self.pending, self.drain) = (None, None);
        self.set_capacity(bits(capacity));
        self.enter(Phase::Cruise, CRUISE_GAIN, Instant::FAR, now);
        self.quick_until = now + QUICK;
        self.schedule_probe(now);
    }

    /// These links of the WAN are no more.
    pub fn forget_links(&mut self, slots: std::ops::Range<usize>) {
        self.meter.forget(slots);
    }

    /// All links of the WAN have become suspect: what they deliver says nothing about capacity.
    pub fn on_suspect(&mut self, now: Instant) {
        if self.phase == Phase::Frozen {
            return;
        }
        self.suspect_at = now;
        self.was_startup = self.phase == Phase::Startup;
        self.pending = None;
        self.drain = None;
        self.meter.reset();
        self.sight.forget_queue();
        self.enter(Phase::Frozen, RETURN_GAIN, Instant::FAR, now);
    }

    /// A link of the WAN is up again.
    pub fn on_return(&mut self, now: Instant) {
        if self.phase != Phase::Frozen {
            return;
        }
        self.meter.reset();
        self.quick_until = now + QUICK;
        self.next_probe_at = now + self.sight.rtt;
        if now.since(self.suspect_at) > LONG_SILENCE {
            self.set_capacity(self.capacity * 0.5);
            self.shown = 0.0;
            self.queued_rounds = 0;
            self.enter(Phase::Startup, 1.0, Instant::FAR, now);
        } else if self.was_startup {
            self.enter(Phase::Startup, RETURN_GAIN, Instant::FAR, now);
        } else {
            let ends = now + self.sight.rtt + QUEUE_LAG;
            self.enter(Phase::Drain, RETURN_GAIN, ends, now);
        }
    }

    /// Ends what has lasted its time.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.judge_probe(now);
        if now < self.phase_ends {
            return;
        }
        match self.phase {
            Phase::Probe => self.end_probe(now),
            Phase::Drain => self.end_drain(now),
            Phase::Startup | Phase::Cruise | Phase::Frozen => self.phase_ends = Instant::FAR,
        }
    }

    /// When [`RateControl::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Instant {
        let judged = self.pending.map_or(Instant::FAR, |probe| probe.until);
        self.phase_ends.min(judged)
    }

    /// Believed capacity.
    pub fn capacity(&self) -> Rate {
        rate(self.capacity)
    }

    /// What the pacer should allow.
    pub fn pacing_rate(&self) -> Rate {
        rate(self.pacing().clamp(CAPACITY_MIN, self.ceiling))
    }

    /// What the control is doing.
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    fn pacing(&self) -> f64 {
        self.gain * self.capacity
    }

    fn set_capacity(&mut self, bits_per_s: f64) {
        if bits_per_s.is_finite() {
            self.capacity = bits_per_s.clamp(CAPACITY_MIN, self.ceiling);
        }
    }

    fn enter(&mut self, phase: Phase, gain: f64, ends: Instant, now: Instant) {
        self.phase = phase;
        self.gain = gain;
        self.phase_at = now;
        self.phase_ends = ends;
    }

    /// The link was silent: what was measured before and after does not belong together.
    fn on_gap(&mut self, now: Instant) {
        self.pending = None;
        match self.phase {
            Phase::Startup => self.phase_at = now,
            Phase::Probe => {
                self.schedule_probe(now);
                self.enter(Phase::Cruise, CRUISE_GAIN, Instant::FAR, now);
            }
            Phase::Drain | Phase::Cruise | Phase::Frozen => {}
        }
    }
}
