//! What a report says about the way: round trip, one-way delay, and what came of what was sent.
//!
//! Never does: decide. The rate control takes the [`Delivery`], the histories take the delays.

use std::time::Duration;

use super::Sender;
use crate::base::Instant;
use crate::link::rate_control::Delivery;
use crate::link::receiver::low_micros;
use crate::link::report::Report;
use crate::link::rtt::RTT_INITIAL;

impl<T: Copy> Sender<T> {
    /// The link's own round trip is measured also by what another link told before.
    pub(super) fn sample_rtt(&mut self, report: &Report, newest: bool, now: Instant) {
        let Some(entry) = self.log.get(report.largest) else {
            return;
        };
        let hold = Duration::from_micros(u64::from(report.hold_us));
        let sample = now.since(entry.sent_at).saturating_sub(hold);
        if newest {
            self.path_rtt.on_sample(sample, now);
        }
        if report.same_link {
            self.rtt.on_sample(sample, now);
            self.rtt_history.record(sample, now);
            self.rtt_history.refresh(now);
        }
    }

    pub(super) fn sample_owd(&mut self, report: &Report, now: Instant) {
        let last = self.owd.expand(report.owd_last_us);
        let least = last - i64::from(report.owd_last_us.wrapping_sub(report.owd_min_us));
        let most = last + i64::from(report.owd_max_us.wrapping_sub(report.owd_last_us));
        self.owd.on_sample(least, last, now);
        for value in [least, last, most] {
            self.delay_history.record(self.owd.above_base(value), now);
        }
        self.delay_history.refresh(now);
    }

    /// When the largest number of a report was sent. The log knows best; the peer's echo serves when the queues
    /// on the way are so long that the entry is gone.
    fn sent_at(&self, report: &Report, now: Instant) -> Instant {
        let echoed = low_micros(now).wrapping_sub(report.largest_sent_us);
        self.log
            .get(report.largest)
            .map_or(now - Duration::from_micros(u64::from(echoed)), |entry| {
                entry.sent_at
            })
    }

    /// The number without what was left out before it: a jump is no loss.
    fn sent_up_to(&self, number: u64) -> u64 {
        let skipped = match self.jump {
            Some(jump) if number < jump.to => jump.skipped_before,
            _ => self.skipped,
        };
        number.saturating_sub(skipped)
    }

    pub(super) fn delivery(&self, report: &Report, now: Instant) -> Delivery {
        let (queue_min, queue_p50) = self.owd.queue();
        Delivery {
            sent_at: self.sent_at(report, now),
            received_us: report.received_us,
            number: self.sent_up_to(report.largest),
            packets: report.packets,
            bytes: report.bytes,
            owd_min_us: report.owd_min_us,
            owd_max_us: report.owd_max_us,
            queue_last: self.owd.queue_last(),
            queue_min,
            queue_p50,
            // How long the loop takes: reports come back by the fastest link, whatever this one's way back is.
            rtt: self.path_rtt.smoothed().unwrap_or(RTT_INITIAL),
            in_flight: self.in_flight + self.taken,
        }
    }
}
