//! Which congestion control a sender has, and what each is told.

use std::time::Duration;

use super::bbr::{AckSample, Bbr};
use super::cubic::Cubic;
use crate::base::Instant;

/// How a TCP finds its rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CongestionControl {
    /// By losses and marks.
    #[default]
    Cubic,
    /// By delivery rate and round trip.
    Bbr,
}

/// The state of either.
#[derive(Debug)]
pub(super) enum Control {
    Cubic(Box<Cubic>),
    Bbr(Box<Bbr>),
}

impl Control {
    pub(super) fn new(kind: CongestionControl) -> Self {
        match kind {
            CongestionControl::Cubic => Self::Cubic(Box::new(Cubic::new())),
            CongestionControl::Bbr => Self::Bbr(Box::new(Bbr::new())),
        }
    }

    /// Congestion window in segments.
    pub(super) const fn window(&self) -> f64 {
        match self {
            Self::Cubic(cubic) => cubic.window,
            Self::Bbr(bbr) => bbr.window,
        }
    }

    /// Room for one more segment than are in flight, for a tail loss probe.
    pub(super) fn widen(&mut self, segments: f64) {
        let window = match self {
            Self::Cubic(cubic) => &mut cubic.window,
            Self::Bbr(bbr) => &mut bbr.window,
        };
        *window = window.max(segments);
    }

    /// An RTT sample.
    pub(super) fn on_rtt(&mut self, rtt: Duration, rtt_min: Duration, acked: u64, next: u64) {
        if let Self::Cubic(cubic) = self {
            cubic.on_rtt(rtt, rtt_min, acked, next);
        }
    }

    /// A recovery is over because all that was in flight when it began has arrived.
    pub(super) fn on_recovered(&mut self) {
        match self {
            Self::Cubic(cubic) => cubic.window = cubic.window.min(cubic.threshold).max(2.0),
            Self::Bbr(bbr) => bbr.on_recovered(),
        }
    }

    /// A recovery turned out to be none.
    pub(super) fn undo(&mut self) {
        match self {
            Self::Cubic(cubic) => cubic.undo(),
            Self::Bbr(bbr) => bbr.on_recovered(),
        }
    }

    /// Loss detection found something.
    pub(super) fn on_recovery(&mut self, pipe: u64) {
        match self {
            Self::Cubic(cubic) => cubic.on_congestion(),
            Self::Bbr(bbr) => bbr.on_recovery(pipe),
        }
    }

    /// A retransmission timeout; a recovery was told of before.
    pub(super) fn on_timeout(&mut self) {
        match self {
            Self::Cubic(cubic) => cubic.window = 1.0,
            Self::Bbr(bbr) => bbr.on_timeout(),
        }
    }
}

/// What had been delivered when a segment was sent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stamp {
    delivered: u64,
    delivered_at: Instant,
    first_sent_at: Instant,
}

/// Delivery rate samples (draft-cheng-iccrg-delivery-rate-estimation): segments over the longer of the time in which
/// they were sent and the time in which they were acknowledged.
#[derive(Debug, Default)]
pub(super) struct Deliveries {
    so_far: Stamp,
    /// Stamp and send time of the segment sent last of those that this acknowledgement delivered.
    newest: Option<(Instant, Stamp)>,
}

impl Deliveries {
    /// A segment leaves; nothing else may be in flight.
    pub(super) const fn on_sent(&mut self, now: Instant, idle: bool) -> Stamp {
        if idle {
            self.so_far.first_sent_at = now;
            self.so_far.delivered_at = now;
        }
        self.so_far
    }

    /// A segment arrived.
    pub(super) fn on_delivered(&mut self, sent_at: Instant, stamp: Stamp) {
        self.so_far.delivered += 1;
        if self.newest.is_none_or(|(newest, _)| sent_at >= newest) {
            self.newest = Some((sent_at, stamp));
        }
    }

    /// The sample of an acknowledgement of which all segments were told.
    pub(super) fn take(&mut self, now: Instant) -> AckSample {
        let mut sample = AckSample {
            acked: 0,
            lost: 0,
            delivered: self.so_far.delivered,
            prior_delivered: None,
            interval: Duration::ZERO,
            rtt: Duration::MAX,
            pipe_before: 0,
            pipe: 0,
        };
        if let Some((sent_at, stamp)) = self.newest.take() {
            let sending = sent_at.since(stamp.first_sent_at);
            let acknowledging = now.since(stamp.delivered_at);
            sample.prior_delivered = Some(stamp.delivered);
            sample.interval = sending.max(acknowledging);
            self.so_far.first_sent_at = sent_at;
            self.so_far.delivered_at = now;
        }
        sample
    }
}
