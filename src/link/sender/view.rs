//! What a [`Sender`] tells about its link. Nothing here changes anything.

use std::time::Duration;

use super::{SPREAD_MIN, SUSPECT_TIMEOUT_MAX, SUSPECT_TIMEOUT_MIN, Sender, SenderCounters};
use crate::base::Instant;
use crate::link::history::{History, Percentiles};
use crate::link::loss::LossPicture;
use crate::link::owd::Delay;
use crate::link::rtt::RTT_INITIAL;
use crate::link::state::{Cause, State};

/// No peer reports more often than this.
pub(super) const REPORT_INTERVAL_MIN: Duration = Duration::from_millis(5);

impl<T: Copy> Sender<T> {
    /// The peer told how long it waits between two reports.
    pub fn set_report_interval(&mut self, interval: Duration) {
        self.config.report_interval = interval.max(REPORT_INTERVAL_MIN);
    }

    /// Changes the heartbeat of the idle link.
    pub const fn set_heartbeat(&mut self, interval: Duration) {
        self.config.heartbeat_interval = interval;
    }

    /// Whether a heartbeat should leave now.
    pub fn wants_heartbeat(&self, now: Instant) -> bool {
        now >= self.heartbeat_at(now)
    }

    /// When the next heartbeat is due if nothing else leaves before.
    pub fn heartbeat_at(&self, now: Instant) -> Instant {
        self.transmitted_at + self.heartbeat_interval(now)
    }

    /// Whether the link may carry data.
    pub const fn state(&self) -> State {
        self.liveness.state()
    }

    /// Why it is in that state.
    pub const fn cause(&self) -> Cause {
        self.liveness.cause()
    }

    /// Since when.
    pub const fn since(&self) -> Instant {
        self.liveness.since()
    }

    /// When a datagram of this link was last acknowledged for the first time.
    pub const fn acked_at(&self) -> Instant {
        self.liveness.acked_at()
    }

    /// Smoothed RTT: of this link if it was ever measured on it alone, else of this link out and any link back.
    pub fn srtt(&self) -> Duration {
        self.rtt
            .smoothed()
            .or(self.path_rtt.smoothed())
            .unwrap_or(RTT_INITIAL)
    }

    /// Smoothed RTT of this link out and whatever link brings the report back.
    pub fn path_rtt(&self) -> Duration {
        self.path_rtt.smoothed().unwrap_or(RTT_INITIAL)
    }

    /// Least RTT of the last 5 to 10 s, as for [`Sender::srtt`].
    pub fn rtt_min(&self) -> Duration {
        self.rtt
            .least()
            .or(self.path_rtt.least())
            .unwrap_or(RTT_INITIAL)
    }

    /// RTT percentiles of this link alone, at most 100 ms old.
    pub const fn rtt(&self) -> &Percentiles {
        self.rtt_history.snapshot()
    }

    /// How long datagrams of this link waited for their acknowledgement, the peer's report interval included:
    /// percentiles at most 100 ms old.
    pub const fn ack_delay(&self) -> &Percentiles {
        self.ack_history.snapshot()
    }

    /// One-way delay above the base: percentiles at most 100 ms old.
    pub fn delay(&self) -> Delay {
        let Percentiles { p50, p95, p99, .. } = *self.delay_history.snapshot();
        Delay {
            p50,
            p95,
            p99,
            base_us: self.owd.base_us(),
        }
    }

    /// Least one-way delay of the last 10 s, as in [`Sender::delay`].
    pub fn base_us(&self) -> i64 {
        self.owd.base_us()
    }

    /// The one-way delays' histories, for export.
    pub const fn delay_history(&self) -> &History {
        &self.delay_history
    }

    /// The RTT's history, for export.
    pub const fn rtt_history(&self) -> &History {
        &self.rtt_history
    }

    /// Least queueing delay of the last 50 ms.
    pub fn queue_min(&self) -> Duration {
        self.owd.queue_min()
    }

    /// Median queueing delay of the last 50 ms.
    pub fn queue_p50(&self) -> Duration {
        self.owd.queue().1
    }

    /// Loss of this link.
    pub const fn loss(&self) -> LossPicture {
        self.loss.estimate()
    }

    /// Bytes in flight.
    pub const fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Counters since the link was made.
    pub const fn counters(&self) -> &SenderCounters {
        &self.counters
    }

    /// How long a datagram may be in flight before its silence is suspicious.
    pub fn suspect_timeout(&self) -> Duration {
        // What a datagram waits for is its acknowledgement. A smooth RTT says nothing of how often the peer reports,
        // which follows the peer's own rate.
        let ack = self.ack_history.snapshot();
        let spread = ack.p99.saturating_sub(ack.p50).max(SPREAD_MIN);
        let slowest = if ack.count == 0 {
            RTT_INITIAL
        } else {
            ack.p999
        };
        (slowest + spread).clamp(SUSPECT_TIMEOUT_MIN, SUSPECT_TIMEOUT_MAX)
    }
}
