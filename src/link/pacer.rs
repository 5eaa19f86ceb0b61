//! When the next bytes of a WAN may leave: a virtual clock, at the rate that [`super::RateControl`] allows.
//!
//! Never does: sleeping, or holding packets. One quantum may leave at once, so that a run of datagrams is one
//! send; what is not used is not saved up beyond a late wake-up.

use std::time::Duration;

use crate::base::{Instant, Rate};

/// Most that leaves at once. At 1 ms a 50 Mbit/s WAN sends 4 datagrams a burst, which no access queue notices,
/// and the driver wakes at most 1000 times a second for it.
pub const QUANTUM: Duration = Duration::from_millis(1);
/// A wake-up this much late is made up for; longer pauses are lost, or they would come as a burst.
const CATCH_UP: Duration = Duration::from_millis(2);
/// How far what nobody asked about pushes data away.
const UNASKED_MAX: Duration = Duration::from_millis(10);
/// One datagram may always leave when the clock has come, whatever the quantum is worth at a low rate.
const DATAGRAM_BYTES: u64 = 1_500;

/// Pacer of one WAN.
#[derive(Clone, Debug)]
pub struct Pacer {
    rate: Rate,
    /// When everything sent so far has passed at `rate`.
    free_at: Instant,
}

impl Pacer {
    /// A pacer that may send at once.
    pub const fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, free_at: now }
    }

    /// Changes the rate. What was sent ahead of time is re-valued, so that a fall does not add a stall.
    pub fn set_rate(&mut self, rate: Rate, now: Instant) {
        if rate == self.rate {
            return;
        }
        if self.free_at > now {
            let owed = self.rate.bytes_in(self.free_at.since(now));
            self.free_at = now + rate.time_for(owed);
        }
        self.rate = rate;
    }

    /// The present rate.
    pub const fn rate(&self) -> Rate {
        self.rate
    }

    /// When the WAN is free again (not before `now`). At that time [`Pacer::allowance`] is not zero.
    pub fn next_send_at(&self, now: Instant) -> Instant {
        self.free_at.max(now)
    }

    /// Bytes that may leave now: up to one quantum ahead, and at least one datagram when the WAN is free.
    pub fn allowance(&self, now: Instant) -> u64 {
        let free_at = self.free_at.max(now - CATCH_UP);
        let horizon = now + QUANTUM;
        let bytes = self.rate.bytes_in(horizon.since(free_at));
        if self.free_at <= now {
            bytes.max(DATAGRAM_BYTES)
        } else {
            bytes
        }
    }

    /// Books `bytes` that leave now whether they are allowed or not (reports, heartbeats). They come before data, but
    /// only so far: where the rate is low they would push it away for ever.
    pub fn on_transmit_unasked(&mut self, bytes: u64, now: Instant) {
        let before = self.free_at;
        self.on_transmit(bytes, now);
        self.free_at = self.free_at.min(before.max(now + UNASKED_MAX));
    }

    /// Books `bytes` that leave now. More than the allowance is booked all the same.
    pub fn on_transmit(&mut self, bytes: u64, now: Instant) {
        self.free_at = self.free_at.max(now - CATCH_UP) + self.rate.time_for(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Wakes at `next_send_at` plus `late`, sends what is allowed in datagrams of 1400 bytes, for a second.
    fn bytes_in_a_second(mbps: u64, late: Duration) -> u64 {
        let mut pacer = Pacer::new(Rate::from_mbps(mbps), Instant::ZERO);
        let (mut now, mut sent) = (Instant::ZERO, 0);
        while now < Instant::from_millis(1_000) {
            let mut allowance = pacer.allowance(now);
            assert!(allowance >= 1_400);
            while allowance >= 1_400 {
                pacer.on_transmit(1_400, now);
                sent += 1_400;
                allowance = allowance.min(pacer.allowance(now));
            }
            now = pacer.next_send_at(now) + late;
        }
        sent
    }

    #[test]
    fn keeps_the_rate_also_when_woken_late() {
        for mbps in [1, 5, 50, 1_000] {
            for late_us in [0, 300, 900] {
                let sent = bytes_in_a_second(mbps, Duration::from_micros(late_us));
                let want = mbps * 125_000;
                assert!(sent >= want * 99 / 100, "{mbps} {late_us} {sent}");
                assert!(sent <= want * 101 / 100 + 4_500, "{mbps} {late_us} {sent}");
            }
        }
    }

    #[test]
    fn what_is_not_asked_about_does_not_push_data_away_for_ever() {
        let mut pacer = Pacer::new(Rate::from_bits_per_s(100_000), Instant::ZERO);
        for ms in 0..1_000 {
            // More than the rate.
            pacer.on_transmit_unasked(100, Instant::from_millis(ms));
        }
        let now = Instant::from_millis(1_000);
        assert!(pacer.next_send_at(now) <= now + UNASKED_MAX);
        let mut pacer = Pacer::new(Rate::from_mbps(10), Instant::ZERO);
        pacer.on_transmit_unasked(1_250, Instant::ZERO);
        assert_eq!(pacer.next_send_at(Instant::ZERO), Instant::from_millis(1));
    }

    #[test]
    fn a_pause_is_not_saved_up() {
        let mut pacer = Pacer::new(Rate::from_mbps(100), Instant::ZERO);
        pacer.on_transmit(1_400, Instant::ZERO);
        let allowance = pacer.allowance(Instant::from_millis(1_000));
        assert!(
            allowance <= Rate::from_mbps(100).bytes_in(CATCH_UP + QUANTUM),
            "{allowance}"
        );
    }

    #[test]
    fn a_change_of_rate_keeps_the_debt_in_bytes() {
        let mut pacer = Pacer::new(Rate::from_mbps(10), Instant::ZERO);
        pacer.on_transmit(12_500, Instant::ZERO);
        assert_eq!(pacer.next_send_at(Instant::ZERO), Instant::from_millis(10));
        pacer.set_rate(Rate::from_mbps(100), Instant::ZERO);
        assert_eq!(pacer.next_send_at(Instant::ZERO), Instant::from_millis(1));
    }
}
