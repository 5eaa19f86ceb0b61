//! Flows through the tunnel: each is both of its ends, in virtual time.
//!
//! ```text
//!            handle_packet(side, arrival)        poll_frame(side, out)
//!  tunnel ──────────────────────────────► FLOW ────────────────────────► tunnel
//!  clock  ──── handle_timeout ──────────►      ──── poll_timeout
//! ```

mod tcp;

use std::collections::VecDeque;
use std::time::Duration;

use super::packet::{Arrival, Body, FlowAddress, Side, write_udp};
use crate::base::{Instant, Rate};

pub use tcp::{CongestionControl, Tcp, TcpConfig, TcpCounters};

/// Any flow.
#[derive(Debug)]
pub enum Flow {
    /// Requests and their echoes.
    Ping(Ping),
    /// Datagrams at a constant rate, one way.
    Cbr(Cbr),
    /// A TCP that sends as much as it can, one way.
    Tcp(Box<Tcp>),
}

impl Flow {
    /// A frame of this flow came out of the tunnel at `side`.
    pub fn handle_packet(&mut self, side: Side, arrival: &Arrival, now: Instant) {
        match (self, &arrival.body) {
            (Self::Ping(ping), Body::Udp { number, sent_at }) => {
                ping.handle_packet(side, *number, *sent_at, now);
            }
            (Self::Cbr(cbr), Body::Udp { sent_at, .. }) => cbr.handle_packet(*sent_at, now),
            (Self::Tcp(tcp), Body::Tcp(segment)) => tcp.handle_segment(side, segment, now),
            (flow, body) => panic!("{flow:?} got {body:?}"),
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self {
            Self::Ping(ping) => ping.pace.handle_timeout(now),
            Self::Cbr(cbr) => cbr.pace.handle_timeout(now),
            Self::Tcp(tcp) => tcp.handle_timeout(now),
        }
    }

    /// When something is due.
    pub fn poll_timeout(&self) -> Instant {
        match self {
            Self::Ping(ping) => ping.pace.next_at(),
            Self::Cbr(cbr) => cbr.pace.next_at(),
            Self::Tcp(tcp) => tcp.poll_timeout(),
        }
    }

    /// Writes the next frame that `side` sends.
    pub fn poll_frame(&mut self, side: Side, now: Instant, out: &mut Vec<u8>) -> bool {
        match self {
            Self::Ping(ping) => ping.poll_frame(side, now, out),
            Self::Cbr(cbr) => cbr.poll_frame(side, now, out),
            Self::Tcp(tcp) => tcp.poll_frame(side, now, out),
        }
    }

    /// Sends nothing new from here on.
    pub fn stop(&mut self) {
        match self {
            Self::Ping(ping) => ping.pace.stop(),
            Self::Cbr(cbr) => cbr.pace.stop(),
            Self::Tcp(tcp) => tcp.stop(),
        }
    }
}

/// Something that is due again and again.
#[derive(Clone, Copy, Debug)]
struct Pace {
    interval: Duration,
    next_at: Instant,
    /// How often it is still wanted.
    left: u64,
    /// How often it became due and was not taken.
    due: u64,
}

impl Pace {
    const fn new(interval: Duration, from: Instant, count: u64) -> Self {
        Self {
            interval,
            next_at: from,
            left: count,
            due: 0,
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        while self.left > 0 && now >= self.next_at {
            self.next_at += self.interval;
            self.left -= 1;
            self.due += 1;
        }
    }

    const fn next_at(&self) -> Instant {
        if self.left > 0 {
            self.next_at
        } else {
            Instant::FAR
        }
    }

    const fn take(&mut self) -> bool {
        let taken = self.due > 0;
        self.due = self.due.saturating_sub(1);
        taken
    }

    const fn stop(&mut self) {
        self.left = 0;
    }
}

/// Requests from one side, echoed by the other.
#[derive(Debug)]
pub struct Ping {
    address: FlowAddress,
    from: Side,
    bytes: usize,
    pace: Pace,
    next: u64,
    /// Requests waiting for their echo: their send times.
    echoes: VecDeque<Instant>,
    next_echo: u64,
    rtts: Vec<(Instant, Duration)>,
}

impl Ping {
    /// `count` requests of 84 bytes, the first at `start`.
    pub fn new(
        address: FlowAddress,
        from: Side,
        interval: Duration,
        count: u64,
        start: Instant,
    ) -> Self {
        Self {
            address,
            from,
            bytes: 84,
            pace: Pace::new(interval, start, count),
            next: 0,
            echoes: VecDeque::new(),
            next_echo: 0,
            rtts: Vec::new(),
        }
    }

    fn handle_packet(&mut self, side: Side, _number: u64, sent_at: Instant, now: Instant) {
        if side == self.from {
            self.rtts.push((sent_at, now.since(sent_at)));
        } else {
            self.echoes.push_back(sent_at);
        }
    }

    fn poll_frame(&mut self, side: Side, now: Instant, out: &mut Vec<u8>) -> bool {
        if side == self.from {
            if !self.pace.take() {
                return false;
            }
            write_udp(out, self.address, side, self.next, self.bytes, now);
            self.next += 1;
            return true;
        }
        let Some(sent_at) = self.echoes.pop_front() else {
            return false;
        };
        write_udp(out, self.address, side, self.next_echo, self.bytes, sent_at);
        self.next_echo += 1;
        true
    }

    /// Requests sent.
    pub const fn sent(&self) -> u64 {
        self.next
    }

    /// Send time and round trip of each request that was answered, in order of arrival.
    pub fn rtts(&self) -> &[(Instant, Duration)] {
        &self.rtts
    }

    /// The round trip that a part `quantile` of the answered requests sent in a span did not exceed.
    pub fn quantile(&self, quantile: f64, from: Instant, to: Instant) -> Option<Duration> {
        quantile_in(&self.rtts, quantile, from, to)
    }
}

/// Datagrams at a constant rate.
#[derive(Debug)]
pub struct Cbr {
    address: FlowAddress,
    from: Side,
    bytes: usize,
    pace: Pace,
    start: Instant,
    next: u64,
    /// Arrival time and one-way delay of each.
    arrivals: Vec<(Instant, Duration)>,
}

impl Cbr {
    /// `count` packets of `bytes`, together `rate`, the first at `start`.
    pub fn new(
        address: FlowAddress,
        from: Side,
        rate: Rate,
        bytes: usize,
        count: u64,
        start: Instant,
    ) -> Self {
        Self {
            address,
            from,
            bytes,
            pace: Pace::new(rate.time_for(bytes as u64), start, count),
            start,
            next: 0,
            arrivals: Vec::new(),
        }
    }

    fn handle_packet(&mut self, sent_at: Instant, now: Instant) {
        self.arrivals.push((now, now.since(sent_at)));
    }

    fn poll_frame(&mut self, side: Side, now: Instant, out: &mut Vec<u8>) -> bool {
        if side != self.from || !self.pace.take() {
            return false;
        }
        write_udp(out, self.address, side, self.next, self.bytes, now);
        self.next += 1;
        true
    }

    /// Packets sent.
    pub const fn sent(&self) -> u64 {
        self.next
    }

    /// Packets sent in a span.
    pub fn sent_in(&self, from: Instant, to: Instant) -> u64 {
        let interval = self.pace.interval.as_nanos().max(1);
        let before = |time: Instant| {
            let count = time.since(self.start).as_nanos().div_ceil(interval);
            u64::try_from(count).unwrap_or(u64::MAX).min(self.next)
        };
        before(to).saturating_sub(before(from))
    }

    /// Arrival time and one-way delay of each packet that came.
    pub fn arrivals(&self) -> &[(Instant, Duration)] {
        &self.arrivals
    }
}

/// What a part `quantile` of the samples of a span did not exceed; `None` when there are none.
pub fn quantile_in(
    samples: &[(Instant, Duration)],
    quantile: f64,
    from: Instant,
    to: Instant,
) -> Option<Duration> {
    let in_span = samples.iter().filter(|(at, _)| *at >= from && *at < to);
    let mut values: Vec<Duration> = in_span.map(|(_, value)| *value).collect();
    let last = values.len().checked_sub(1)?;
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss
    )] // a position in a list
    let at = (last as f64 * quantile).ceil() as usize;
    let (_, value, _) = values.select_nth_unstable(at.min(last));
    Some(*value)
}

/// The longest time between two neighbours of `times` in a span, which counts from `from` and up to `to`.
pub fn longest_gap(times: impl Iterator<Item = Instant>, from: Instant, to: Instant) -> Duration {
    let (mut last, mut gap) = (from, Duration::ZERO);
    for time in times.filter(|time| *time >= from && *time < to) {
        gap = gap.max(time.since(last));
        last = time;
    }
    gap.max(to.since(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_rate_knows_what_it_sent_in_a_span() {
        let address = FlowAddress { client: 0, flow: 0 };
        let (rate, start) = (Rate::from_mbps(8), Instant::from_millis(100));
        // One packet of 1000 bytes each millisecond, fifty of them.
        let mut cbr = Cbr::new(address, Side::Client, rate, 1_000, 50, start);
        let mut frame = Vec::new();
        for millis in 0..200 {
            let now = Instant::from_millis(millis);
            cbr.pace.handle_timeout(now);
            while cbr.poll_frame(Side::Client, now, &mut frame) {}
        }
        let sent = |from, to| cbr.sent_in(Instant::from_millis(from), Instant::from_millis(to));
        assert_eq!(sent(0, 100), 0);
        assert_eq!(sent(0, 101), 1);
        assert_eq!(sent(110, 120), 10);
        assert_eq!(sent(140, 1_000), 10);
        assert_eq!(sent(150, 1_000), 0);
    }
}
