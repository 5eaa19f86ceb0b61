//! The sending end of a TCP: what is in flight, and its timers. What acknowledgements tell is in `acks`, what is lost in
//! `recovery`, what leaves in `sending`.
//!
//! Never does: keep payload. Segments are numbers.

mod acks;
mod recovery;
mod sending;

use std::collections::VecDeque;
use std::time::Duration;

use super::TcpConfig;
use super::control::{Control, Deliveries, Stamp};
use crate::base::Instant;

/// Floor of the retransmission timeout over the smoothed RTT, as Linux has it.
const RTO_MIN: Duration = Duration::from_millis(200);
/// Before the first RTT sample.
const RTO_INITIAL: Duration = Duration::from_secs(1);

/// What a sender did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpCounters {
    /// Segments sent again.
    pub retransmitted: u64,
    /// Recoveries begun by loss detection.
    pub recoveries: u64,
    /// Recoveries that turned out to be none.
    pub undone: u64,
    /// Retransmission timeouts.
    pub timeouts: u64,
    /// Window reductions asked for by ECN.
    pub marks: u64,
}

#[derive(Clone, Copy, Debug)]
struct InFlight {
    sent_at: Instant,
    sacked: bool,
    lost: bool,
    retransmitted: bool,
    stamp: Stamp,
}

#[derive(Debug)]
pub(super) struct Sender {
    config: TcpConfig,
    /// First segment not acknowledged; `window[i]` is segment `acked + i`.
    acked: u64,
    window: VecDeque<InFlight>,
    /// In flight: sent, and neither acknowledged nor taken for lost.
    pipe: u64,
    sacked: u64,
    lost: u64,
    /// Send time of each frame by number.
    sent_times: Vec<Instant>,
    control: Control,
    deliveries: Deliveries,
    /// When the pacer lets the next segment go.
    next_send_at: Instant,
    /// Segments taken for lost so far.
    losses: u64,
    srtt: Option<Duration>,
    rttvar: Duration,
    rtt_min: Duration,
    rtt_last: Duration,
    /// Time and length of each round trip.
    rtts: Vec<(Instant, Duration)>,
    /// Send time and segment of the newest delivery.
    newest: (Instant, u64),
    highest_sacked: u64,
    reordering_seen: bool,
    reorder_steps: u32,
    reorder_kept: u32,
    recovery_end: Option<u64>,
    prr_delivered: u64,
    prr_out: u64,
    window_before: f64,
    /// Retransmissions of this recovery not yet shown to be needless; `None` when it cannot be undone.
    undo_left: Option<u64>,
    ecn_end: u64,
    send_cwr: bool,
    window_limited: bool,
    loss_at: Option<Instant>,
    rto_at: Option<Instant>,
    probe_at: Option<Instant>,
    backoff: u32,
    counters: TcpCounters,
}

impl Sender {
    pub(super) fn new(config: TcpConfig) -> Self {
        Self {
            control: Control::new(config.control),
            deliveries: Deliveries::default(),
            next_send_at: Instant::ZERO,
            losses: 0,
            config,
            acked: 0,
            window: VecDeque::new(),
            pipe: 0,
            sacked: 0,
            lost: 0,
            sent_times: Vec::new(),
            srtt: None,
            rttvar: Duration::ZERO,
            rtt_min: Duration::MAX,
            rtt_last: Duration::ZERO,
            rtts: Vec::new(),
            newest: (Instant::ZERO, 0),
            highest_sacked: 0,
            reordering_seen: false,
            reorder_steps: 1,
            reorder_kept: 0,
            recovery_end: None,
            prr_delivered: 0,
            prr_out: 0,
            window_before: 0.0,
            undo_left: None,
            ecn_end: 0,
            send_cwr: false,
            window_limited: false,
            loss_at: None,
            rto_at: None,
            probe_at: None,
            backoff: 0,
            counters: TcpCounters::default(),
        }
    }

    pub(super) const fn counters(&self) -> &TcpCounters {
        &self.counters
    }

    pub(super) fn window(&self) -> (f64, Duration) {
        (self.control.window(), self.srtt.unwrap_or_default())
    }

    pub(super) fn rtts(&self) -> &[(Instant, Duration)] {
        &self.rtts
    }

    pub(super) const fn stop(&mut self) {
        self.config.segments_max = 0;
    }

    fn next(&self) -> u64 {
        self.acked + self.window.len() as u64
    }

    fn arm(&mut self, now: Instant) {
        if self.window.is_empty() {
            (self.rto_at, self.probe_at) = (None, None);
            return;
        }
        let rto = self
            .srtt
            .map_or(RTO_INITIAL, |srtt| srtt + (self.rttvar * 4).max(RTO_MIN));
        self.rto_at = Some(now + rto * 2_u32.pow(self.backoff.min(8)));
        self.probe_at = match self.srtt {
            Some(srtt) if self.recovery_end.is_none() && self.lost == 0 => {
                Some(now + srtt * 2 + Duration::from_millis(2))
            }
            _ => None,
        };
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.loss_at.is_some_and(|at| now >= at) {
            self.detect_losses(now);
        }
        if self.probe_at.take_if(|at| now >= *at).is_some() {
            // Tail loss probe: the last segment again.
            if let Some(last) = self
                .window
                .back_mut()
                .filter(|last| !last.sacked && !last.lost)
            {
                last.lost = true;
                self.lost += 1;
                self.pipe -= 1;
                self.control.widen((self.pipe + 1) as f64);
            }
        }
        if self.rto_at.is_some_and(|at| now >= at) {
            self.counters.timeouts += 1;
            self.backoff += 1;
            for entry in self
                .window
                .iter_mut()
                .filter(|entry| !entry.sacked && !entry.lost)
            {
                entry.lost = true;
                self.lost += 1;
                self.pipe -= 1;
            }
            if self.recovery_end.is_none() {
                self.enter_recovery();
            }
            self.recovery_end = None;
            self.control.on_timeout();
            self.arm(now);
        }
    }

    pub(super) fn poll_timeout(&self) -> Instant {
        let sending = if self.may_send() {
            self.next_send_at
        } else {
            Instant::FAR
        };
        [self.loss_at, self.rto_at, self.probe_at]
            .into_iter()
            .flatten()
            .fold(sending, Instant::min)
    }
}
