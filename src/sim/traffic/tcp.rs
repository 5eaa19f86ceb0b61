//! A TCP that always has something to send, close enough to Linux' to judge a tunnel by: CUBIC with HyStart, or BBR with pacing;
//! SACK, RACK loss detection with its reordering window, tail loss probe, PRR, undo of spurious recoveries, delayed
//! acknowledgements, ECN, segmentation offload.
//!
//! Never does: connection set-up and end, a receive window that limits, or payload. Segments are all [`MSS`] long and
//! counted, not bytes.

#[cfg(test)]
mod alone;
mod bbr;
mod control;
mod cubic;
mod receiver;
mod sender;

use std::time::Duration;

use crate::base::{Instant, Rate};
use crate::sim::packet::{FlowAddress, MSS, Segment, Side, write_tcp};
use receiver::Receiver;
use sender::Sender;

pub use control::CongestionControl;
pub use sender::TcpCounters;

/// How the TCP is set up.
#[derive(Clone, Copy, Debug)]
pub struct TcpConfig {
    /// How it finds its rate.
    pub control: CongestionControl,
    /// Negotiates ECN, as Linux does only when asked.
    pub ecn: bool,
    /// Most segments in one frame; 1 = no offload.
    pub superframe_segments: usize,
    /// When it begins.
    pub start: Instant,
    /// Segments to send in all.
    pub segments_max: u64,
}

impl Default for TcpConfig {
    fn default() -> Self {
        Self {
            control: CongestionControl::default(),
            ecn: false,
            superframe_segments: 1,
            start: Instant::ZERO,
            segments_max: u64::MAX,
        }
    }
}

/// Both ends of one connection.
#[derive(Debug)]
pub struct Tcp {
    address: FlowAddress,
    from: Side,
    start: Instant,
    sender: Sender,
    receiver: Receiver,
}

impl Tcp {
    /// A connection that sends from `from`.
    pub fn new(address: FlowAddress, from: Side, config: TcpConfig) -> Self {
        Self {
            address,
            from,
            start: config.start,
            sender: Sender::new(config),
            receiver: Receiver::default(),
        }
    }

    pub(super) fn handle_segment(&mut self, side: Side, segment: &Segment, now: Instant) {
        if side == self.from {
            self.sender.handle_ack(segment, now);
        } else {
            self.receiver.handle_data(segment, now);
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if now >= self.start {
            self.sender.handle_timeout(now);
            self.receiver.handle_timeout(now);
        }
    }

    pub(super) fn poll_timeout(&self) -> Instant {
        self.sender
            .poll_timeout()
            .min(self.receiver.poll_timeout())
            .max(self.start)
    }

    pub(super) fn poll_frame(&mut self, side: Side, now: Instant, out: &mut Vec<u8>) -> bool {
        if now < self.start {
            return false;
        }
        let segment = if side == self.from {
            self.sender.poll_segment(now)
        } else {
            self.receiver.poll_ack()
        };
        if let Some(segment) = segment {
            write_tcp(out, self.address, side, &segment);
        }
        segment.is_some()
    }

    pub(super) const fn stop(&mut self) {
        self.sender.stop();
    }

    /// Goodput in order at the receiver in a span.
    pub fn goodput(&self, from: Instant, to: Instant) -> Rate {
        Rate::from_bytes_over(self.receiver.bytes_in(from, to), to.since(from))
    }

    /// The longest time without any data at the receiver in a span.
    pub fn longest_gap(&self, from: Instant, to: Instant) -> Duration {
        super::longest_gap(self.receiver.arrivals(), from, to)
    }

    /// The longest time in a span in which a reader gets nothing: what is behind a hole waits with it, also behind one that
    /// CoDel made.
    pub fn longest_wait(&self, from: Instant, to: Instant) -> Duration {
        super::longest_gap(self.receiver.reads(), from, to)
    }

    /// What the sender did.
    pub const fn counters(&self) -> TcpCounters {
        *self.sender.counters()
    }

    /// The round trip that a part `quantile` of the acknowledgements of a span did not exceed.
    pub fn rtt_quantile(&self, quantile: f64, from: Instant, to: Instant) -> Option<Duration> {
        super::quantile_in(self.sender.rtts(), quantile, from, to)
    }

    /// Congestion window in segments, smoothed RTT.
    pub fn window(&self) -> (f64, Duration) {
        self.sender.window()
    }
}

/// The 32-bit sequence of a segment.
#[allow(clippy::cast_possible_truncation)] // sequences wrap
const fn seq_of(index: u64) -> u32 {
    (index.wrapping_mul(MSS as u64)) as u32
}

/// The segment of a 32-bit sequence, nearest to `near`.
#[allow(clippy::cast_possible_wrap, clippy::cast_possible_truncation)] // sequences wrap
fn index_of(seq: u32, near: u64) -> u64 {
    let distance = i64::from(seq.wrapping_sub(seq_of(near)) as i32);
    let segments = distance.div_euclid(MSS as i64);
    near.saturating_add_signed(segments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_wrap_and_come_back() {
        for index in [0, 5, 3_186_177, 3_186_178, 9_999_999] {
            for near in [index, index + 3_000] {
                assert_eq!(index_of(seq_of(index), near), index);
            }
        }
    }
}
