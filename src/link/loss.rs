//! Loss of one link: ratio and mean burst length, fed in packet-number order.
//!
//! Never does: control of the rate. Losses while the queue stands high are congestion and are kept apart, so
//! that they do not call for more repair symbols (which would add load to a full link).

use std::time::Duration;

use crate::base::Instant;

/// Packets the ratio remembers.
const PACKETS: f64 = 1_000.0;
/// Time the ratio remembers on a link too slow to fill [`PACKETS`] in it.
const SPAN: Duration = Duration::from_secs(10);
/// Weight of one run of losses in the mean burst length.
const BURST_GAIN: f64 = 1.0 / 16.0;
/// Share of a link's packets, lost together with their neighbours, from which on it loses in bursts.
const BURSTS: f64 = 0.01;

/// What FEC and striping need to know about loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossPicture {
    /// Lost / sent, 0 to 1, without losses under congestion.
    pub ratio: f64,
    /// Mean length of a run of losses in packets, at least 1.
    pub burst: f64,
    /// Lost / sent while the queue stood high.
    pub congestion_ratio: f64,
}

impl LossPicture {
    /// Whether the link loses in bursts: what goes one after the other is lost together, repair and report as well.
    pub fn in_bursts(&self) -> bool {
        self.ratio * (self.burst - 1.0) > BURSTS
    }
}

/// Estimator of [`LossPicture`].
#[derive(Clone, Debug)]
pub struct Loss {
    ratio: f64,
    congestion_ratio: f64,
    burst: f64,
    run: u32,
    updated: Instant,
    lost: u64,
    resolved: u64,
}

impl Loss {
    /// Nothing lost yet.
    pub const fn new(now: Instant) -> Self {
        Self {
            ratio: 0.0,
            congestion_ratio: 0.0,
            burst: 1.0,
            run: 0,
            updated: now,
            lost: 0,
            resolved: 0,
        }
    }

    /// Takes the fate of the next packet number. `congested`: the queue stood high when it was lost.
    pub fn on_packet(&mut self, lost: bool, congested: bool, now: Instant) {
        let share = now.since(self.updated).as_secs_f64() / SPAN.as_secs_f64();
        let gain = share.clamp(1.0 / PACKETS, 1.0);
        self.updated = now;
        self.resolved += 1;
        let (random, congestion) = if congested { (0.0, 1.0) } else { (1.0, 0.0) };
        let lost_as_number = if lost { 1.0 } else { 0.0 };
        self.ratio += gain * (lost_as_number * random - self.ratio);
        self.congestion_ratio += gain * (lost_as_number * congestion - self.congestion_ratio);
        if lost {
            self.lost += 1;
            self.run += 1;
        } else if self.run > 0 {
            self.burst += BURST_GAIN * (f64::from(self.run) - self.burst);
            self.run = 0;
        }
    }

    /// Takes back `count` losses that turned out to be late arrivals.
    pub fn on_spurious(&mut self, count: u64) {
        self.lost = self.lost.saturating_sub(count);
        #[allow(clippy::cast_precision_loss)] // a handful of packets
        let share = count as f64 / PACKETS;
        self.ratio = (self.ratio - share).max(0.0);
    }

    /// The present picture.
    pub const fn estimate(&self) -> LossPicture {
        LossPicture {
            ratio: self.ratio,
            burst: self.burst.max(1.0),
            congestion_ratio: self.congestion_ratio,
        }
    }

    /// Packets lost, congestion included.
    pub const fn lost(&self) -> u64 {
        self.lost
    }

    /// Packets whose fate is known.
    pub const fn resolved(&self) -> u64 {
        self.resolved
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Rng;

    #[test]
    fn finds_ratio_and_burst_length_of_a_gilbert_channel() {
        let mut rng = Rng::new(3);
        let mut loss = Loss::new(Instant::ZERO);
        // Mean burst 4 at 2 %: leave the bad state with 1/4, enter it with 0.02 / (0.98 * 4).
        let mut bad = false;
        let (mut ratio, mut burst) = (0.0, 0.0);
        for n in 0..200_000_u64 {
            bad = if bad {
                !rng.chance(0.25)
            } else {
                rng.chance(0.02 / (0.98 * 4.0))
            };
            loss.on_packet(bad, false, Instant::from_nanos(n * 200_000));
            if n % 2_000 == 0 && n >= 20_000 {
                ratio += loss.estimate().ratio / 90.0;
                burst += loss.estimate().burst / 90.0;
            }
        }
        assert!((ratio - 0.02).abs() < 0.006, "{ratio}");
        assert!((burst - 4.0).abs() < 1.0, "{burst}");
    }

    #[test]
    fn congestion_is_kept_apart() {
        let mut loss = Loss::new(Instant::ZERO);
        for n in 0..5_000_u64 {
            loss.on_packet(n % 10 == 0, true, Instant::from_nanos(n * 200_000));
        }
        assert!(loss.estimate().ratio < 1e-9);
        assert!((loss.estimate().congestion_ratio - 0.1).abs() < 0.02);
    }
}
