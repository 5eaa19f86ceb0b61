//! stub: replaced below
use std::time::Duration;

use crate::base::{Instant, Rate, Rng};

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
    /// Least queueing delay of the last 50 ms.
    pub queue_min: Duration,
    /// Median queueing delay of the last 50 ms.
    pub queue_p50: Duration,
    /// Delay variation (p95 - p50) of the last two seconds.
    pub jitter: Duration,
    /// Smoothed RTT.
    pub rtt: Duration,
}

/// Parameters of a [`RateControl`].
#[derive(Clone, Copy, Debug)]
pub struct RateConfig {
    /// Never more than this; `None` = unlimited.
    pub ceiling: Option<Rate>,
    /// First guess.
    pub start: Rate,
}

/// What the control is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Doubling.
    Startup,
    /// Emptying the queue.
    Drain,
    /// Just below capacity.
    Cruise,
    /// Trying more.
    Probe,
    /// Frozen while a link is suspect.
    Frozen,
}

impl Phase {
    /// Name in status.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Drain => "drain",
            Self::Cruise => "cruise",
            Self::Probe => "probe",
            Self::Frozen => "frozen",
        }
    }
}

/// Rate control of one WAN in our sending direction.
#[derive(Debug)]
pub struct RateControl {
    config: RateConfig,
    _rng: Rng,
}

impl RateControl {
    /// New.
    pub fn new(config: RateConfig, rng: Rng, _now: Instant) -> Self {
        Self { config, _rng: rng }
    }
    /// `slot`: which of the WAN's links, from 0.
    pub fn on_delivery(&mut self, _slot: usize, _sample: &Delivery, _now: Instant) {}
    /// Whether data waits for this WAN's pacer.
    pub fn set_backlogged(&mut self, _backlogged: bool, _now: Instant) {}
    /// All links of the WAN have gone silent.
    pub fn on_suspect(&mut self, _now: Instant) {}
    /// One of them is back.
    pub fn on_return(&mut self, _now: Instant) {}
    /// Time.
    pub fn handle_timeout(&mut self, _now: Instant) {}
    /// When.
    pub fn poll_timeout(&self) -> Instant {
        Instant::FAR
    }
    /// Believed capacity.
    pub fn capacity(&self) -> Rate {
        self.config.start
    }
    /// For the pacer.
    pub fn pacing_rate(&self) -> Rate {
        self.config.start
    }
    /// Phase.
    pub fn phase(&self) -> Phase {
        Phase::Startup
    }
    /// Whether this WAN would like to probe.
    pub fn probe_wanted(&self, _now: Instant) -> bool {
        false
    }
    /// Lets it probe; ask [`RateControl::holds_probe`] before granting another WAN of the session.
    pub fn probe_grant(&mut self, _now: Instant) {}
    /// Whether it is probing.
    pub fn holds_probe(&self) -> bool {
        false
    }
}
