//! Rates from reports: what was sent in a span of our clock, how much of it came, and whether the delay grew.
//!
//! ```text
//!   delivered = bytes / span sent             what came, per second of sending
//!   slope     = d(delay) / d(send time)       least squares over the least delay of each report
//!   received  = delivered / (1 + slope)       what came, per second of receiving
//! ```
//!
//! The receiving span is taken from the slope and not from two receipt times: jitter of 10 ms would move a span of
//! 100 ms by a tenth, and it moves the slope of twenty reports by a hundredth. A slope above zero says that more
//! was sent than the WAN carries, whatever the rate: then `received` is the capacity.
//!
//! Never does: decide. Reports must come in the order of their largest number.

use std::time::Duration;

use super::Delivery;
use crate::base::id::{LINKS_MAX, SESSIONS_MAX};
use crate::base::{Instant, Rate};

/// Points kept per link, at least [`POINT_SPACING`] apart: half a second.
const POINTS: usize = 128;
/// Reports closer together than this are one point.
const POINT_SPACING: Duration = Duration::from_millis(4);
/// A receiving span this long, and this many times as long as the sending span, is a silence of the link.
const GAP_MICROS: i64 = 40_000;
const GAP_RATIO: i64 = 4;
/// No stretch is believed beyond this.
const STRETCH_MAX: f64 = 100.0;
/// Links of all sessions that may share a WAN.
const TRACKS_MAX: usize = LINKS_MAX * SESSIONS_MAX;
/// Fewest packets and points of a measurement.
const PACKETS_MIN: u64 = 8;
const POINTS_MIN: u32 = 3;

/// What a span of sending brought.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Measured {
    /// Bytes received per second of sending, in bits/s.
    delivered: f64,
    /// Growth of the delay: 0.1 = the last packet of a 100 ms span was 10 ms later than the first.
    pub(super) slope: f64,
    /// Standard error of the slope: jitter makes it large, many reports and a long span make it small.
    pub(super) error: f64,
    /// Lost / sent.
    pub(super) loss: f64,
    /// Time between the first and the last packet's sending.
    pub(super) span: Duration,
}

impl Measured {
    /// What was sent, lost packets included, in bits/s.
    pub(super) fn sent(&self) -> f64 {
        self.delivered / (1.0 - self.loss).max(0.1)
    }

    /// What was received per second of receiving, in bits/s. A slope below -0.5 is a bunch, not a rate.
    pub(super) fn received(&self) -> f64 {
        self.delivered / (1.0 + self.slope.max(-0.5))
    }

    /// How long sending and receiving took, whichever is longer: a short burst into a slow WAN arrives stretched.
    pub(super) fn stretch(&self) -> Duration {
        self.span.mul_f64(1.0 + self.slope.clamp(0.0, STRETCH_MAX))
    }

    /// As [`Measured::received`], with the benefit of the doubt about the slope.
    pub(super) fn received_at_most(&self) -> f64 {
        self.delivered / (1.0 + (self.slope - self.error).max(0.0))
    }

    /// Whether the delay surely grew faster than `slope`.
    pub(super) fn grows(&self, slope: f64) -> bool {
        self.slope - self.error > slope
    }

    /// What of the sent rate did not come in time or at all, beyond the usual loss: 0 = all came.
    pub(super) fn shortfall(&self, usual_loss: f64) -> f64 {
        1.0 - self.received() / (self.sent() * (1.0 - usual_loss)).max(1.0)
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Point {
    sent_at: Instant,
    received_us: u32,
    number: u64,
    packets: u64,
    bytes: u64,
    owd_min_us: i32,
}

/// Recent points of one link.
#[derive(Clone, Debug)]
struct Track {
    ring: [Point; POINTS],
    next: usize,
    count: usize,
    /// Bytes in flight when the newest report came.
    in_flight: u64,
}

impl Track {
    const fn new() -> Self {
        let empty = Point {
            sent_at: Instant::ZERO,
            received_us: 0,
            number: 0,
            packets: 0,
            bytes: 0,
            owd_min_us: 0,
        };
        Self {
            ring: [empty; POINTS],
            next: 0,
            count: 0,
            in_flight: 0,
        }
    }

    /// The point `back` before the newest.
    fn back(&self, back: usize) -> Option<&Point> {
        (back < self.count).then(|| &self.ring[(self.next + 2 * POINTS - 1 - back) % POINTS])
    }

    /// Appends, or merges with the newest; true when the link was silent in between.
    fn push(&mut self, mut point: Point) -> bool {
        let gap = self.back(0).is_some_and(|last| {
            let received = i64::from(
                point
                    .received_us
                    .wrapping_sub(last.received_us)
                    .cast_signed(),
            );
            let sent = i64::try_from(point.sent_at.since(last.sent_at).as_micros()).unwrap_or(0);
            received > GAP_MICROS && received > GAP_RATIO * sent
        });
        if gap {
            self.count = 0;
        }
        // A short burst that arrives stretched is worth its points: it shows the capacity.
        let merge = self.back(1).is_some_and(|l| {
            let received = point.received_us.wrapping_sub(l.received_us);
            point.sent_at.since(l.sent_at) < POINT_SPACING
                && u128::from(received) < POINT_SPACING.as_micros()
        });
        if merge {
            self.next = (self.next + POINTS - 1) % POINTS;
            let last = self.ring[self.next].owd_min_us;
            if last.wrapping_sub(point.owd_min_us) < 0 {
                point.owd_min_us = last;
            }
        } else {
            self.count = (self.count + 1).min(POINTS);
        }
        self.ring[self.next] = point;
        self.next = (self.next + 1) % POINTS;
        gap
    }

    /// Bytes, packets received, numbers sent, seconds and slope between two send times.
    #[allow(clippy::cast_precision_loss)] // figures of half a second
    fn measure(&self, from: Instant, to: Instant) -> Option<(Measured, u64)> {
        let newest = (0..self.count).find(|&b| self.back(b).is_some_and(|p| p.sent_at <= to))?;
        let (last, mut first) = (*self.back(newest)?, *self.back(newest)?);
        let (mut n, mut sum_t, mut sum_d) = (0_u32, 0.0, 0.0);
        let (mut sum_tt, mut sum_td, mut sum_dd) = (0.0, 0.0, 0.0);
        for back in newest..self.count {
            let Some(point) = self.back(back) else { break };
            if point.sent_at < from {
                break;
            }
            first = *point;
            // Relative to the last point, in seconds.
            let t = -last.sent_at.since(point.sent_at).as_secs_f64();
            let d = f64::from(point.owd_min_us.wrapping_sub(last.owd_min_us)) * 1e-6;
            n += 1;
            sum_t += t;
            sum_d += d;
            sum_tt += t * t;
            sum_td += t * d;
            sum_dd += d * d;
        }
        let span = last.sent_at.since(first.sent_at);
        let packets = last.packets - first.packets.min(last.packets);
        if n < POINTS_MIN || packets < PACKETS_MIN || span.is_zero() {
            return None;
        }
        let count = f64::from(n);
        let (tt, td, dd) = (
            sum_tt - sum_t * sum_t / count,
            sum_td - sum_t * sum_d / count,
            sum_dd - sum_d * sum_d / count,
        );
        let slope = td / tt;
        // Few points make the residual itself uncertain: roughly Student's t at one sigma.
        let doubt = 1.0 + 2.0 / (count - 2.0);
        let error = doubt * ((dd - slope * td).max(0.0) / (count - 2.0) / tt).sqrt();
        let sent = (last.number - first.number.min(last.number)).max(1);
        let delivered =
            (last.bytes - first.bytes.min(last.bytes)) as f64 * 8.0 / span.as_secs_f64();
        let loss = (1.0 - packets as f64 / sent as f64).clamp(0.0, 1.0);
        Some((
            Measured {
                delivered,
                slope,
                error,
                loss,
                span,
            },
            packets,
        ))
    }
}

/// Points of all links of one WAN.
#[derive(Debug)]
pub(super) struct Meter {
    tracks: Vec<Track>,
}

impl Meter {
    /// A meter for `links` links.
    pub(super) fn new(links: usize) -> Self {
        Self {
            tracks: vec![Track::new(); links.clamp(1, LINKS_MAX)],
        }
    }

    /// Takes a report of a link; true when the link was silent before it, and what came before is forgotten.
    pub(super) fn on_delivery(&mut self, slot: usize, sample: &Delivery) -> bool {
        if slot >= self.tracks.len() {
            // The first word of a session that shares the WAN; its links come together.
            self.tracks.resize((slot + 1).min(TRACKS_MAX), Track::new());
        }
        let Some(track) = self.tracks.get_mut(slot) else {
            return false;
        };
        track.in_flight = sample.in_flight;
        track.push(Point {
            sent_at: sample.sent_at,
            received_us: sample.received_us,
            number: sample.number,
            packets: sample.packets,
            bytes: sample.bytes,
            owd_min_us: sample.owd_min_us,
        })
    }

    /// Forgets all points.
    pub(super) fn reset(&mut self) {
        for track in &mut self.tracks {
            track.count = 0;
        }
    }

    /// Forgets links that are no more, with what they had in flight.
    pub(super) fn forget(&mut self, slots: std::ops::Range<usize>) {
        for track in self.tracks.iter_mut().take(slots.end).skip(slots.start) {
            *track = Track::new();
        }
    }

    /// Bits in flight on all links, each as of its newest report.
    #[allow(clippy::cast_precision_loss)] // gigabytes fit
    pub(super) fn in_flight_bits(&self) -> f64 {
        self.tracks.iter().map(|track| track.in_flight).sum::<u64>() as f64 * 8.0
    }

    /// What was sent from `from` to `to` brought, over all links; `None` with too few reports.
    #[allow(clippy::cast_precision_loss)] // packets of half a second
    pub(super) fn measure(&self, from: Instant, to: Instant) -> Option<Measured> {
        let mut sum = Measured {
            delivered: 0.0,
            slope: 0.0,
            error: 0.0,
            loss: 0.0,
            span: Duration::ZERO,
        };
        let mut weight = 0.0;
        for track in &self.tracks {
            let Some((part, packets)) = track.measure(from, to) else {
                continue;
            };
            let share = packets as f64;
            sum.delivered += part.delivered;
            sum.slope += part.slope * share;
            sum.error += part.error * share;
            sum.loss += part.loss * share;
            sum.span = sum.span.max(part.span);
            weight += share;
        }
        if weight == 0.0 {
            return None;
        }
        sum.slope /= weight;
        sum.error /= weight;
        sum.loss /= weight;
        Some(sum)
    }
}

/// A rate as the control computes with it.
#[allow(clippy::cast_precision_loss)] // 53 bits are 9 Pbit/s
pub(super) fn bits(rate: Rate) -> f64 {
    rate.bits_per_s() as f64
}

/// Back to a [`Rate`].
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // float-to-int casts saturate
pub fn rate(bits_per_s: f64) -> Rate {
    Rate::from_bits_per_s(bits_per_s as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Rng;

    /// Reports each 5 ms of a link that is sent 1000-byte packets each 1 ms; the delay grows by `slope`.
    fn feed(meter: &mut Meter, slope: f64, jitter_us: u64, lost_in_ten: u64) {
        let mut rng = Rng::new(2);
        let mut packets = 0;
        for number in 1..=200_u64 {
            packets += u64::from(number % 10 >= lost_in_ten);
            if number % 5 != 0 {
                continue;
            }
            #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)] // 200 ms
            let grown = (number as f64 * 1e3 * slope) as i32;
            let delay = grown + i32::try_from(rng.below(jitter_us + 1)).unwrap();
            let sent_us = u32::try_from(number * 1_000).unwrap();
            let sample = Delivery {
                sent_at: Instant::from_millis(number),
                received_us: sent_us.wrapping_add_signed(delay),
                number,
                packets,
                bytes: packets * 1_000,
                // Around the wrap of the clocks' offset.
                owd_min_us: (i32::MAX - 5_000).wrapping_add(delay),
                ..Delivery::default()
            };
            assert!(!meter.on_delivery(0, &sample));
        }
    }

    #[test]
    fn received_is_the_sent_rate_over_the_stretch_of_time() {
        for slope in [-0.2, 0.0, 0.1, 1.5] {
            let mut meter = Meter::new(1);
            feed(&mut meter, slope, 0, 0);
            let seen = meter
                .measure(Instant::from_millis(100), Instant::FAR)
                .unwrap();
            assert!((seen.sent() / 8e6 - 1.0).abs() < 1e-3);
            assert!(
                (seen.received() / (8e6 / (1.0 + slope)) - 1.0).abs() < 1e-2,
                "{seen:?}"
            );
            assert!(seen.error < 0.01 && seen.grows(0.03) == (slope > 0.03));
        }
    }

    #[test]
    fn jitter_is_owned_to_by_the_error() {
        let mut meter = Meter::new(1);
        feed(&mut meter, 0.0, 10_000, 0);
        let long = meter.measure(Instant::ZERO, Instant::FAR).unwrap();
        let short = meter
            .measure(Instant::from_millis(150), Instant::FAR)
            .unwrap();
        assert!(short.error > 3.0 * long.error && long.error > 0.003);
        assert!(long.slope.abs() < 3.0 * long.error && !long.grows(0.03));
    }

    #[test]
    fn loss_is_counted_by_numbers_and_usual_loss_is_no_shortfall() {
        let mut meter = Meter::new(1);
        feed(&mut meter, 0.0, 0, 2);
        let seen = meter.measure(Instant::ZERO, Instant::FAR).unwrap();
        assert!((seen.loss - 0.2).abs() < 0.02);
        assert!((seen.sent() / 8e6 - 1.0).abs() < 0.02);
        assert!(seen.shortfall(0.2) < 0.02 && seen.shortfall(0.0) > 0.18);
    }

    #[test]
    fn a_silence_forgets_what_came_before() {
        let mut meter = Meter::new(1);
        feed(&mut meter, 0.0, 0, 0);
        let after = Delivery {
            sent_at: Instant::from_millis(205),
            received_us: 335_000,
            number: 205,
            packets: 205,
            bytes: 205_000,
            ..Delivery::default()
        };
        assert!(meter.on_delivery(0, &after));
        assert!(meter.measure(Instant::ZERO, Instant::FAR).is_none());
    }

    #[test]
    fn links_of_other_sessions_find_room_and_leave_nothing_behind() {
        let mut meter = Meter::new(1);
        let sample = Delivery {
            in_flight: 1_000,
            ..Delivery::default()
        };
        meter.on_delivery(LINKS_MAX + 3, &sample);
        assert!((meter.in_flight_bits() - 8_000.0).abs() < 1e-9);
        assert!(!meter.on_delivery(TRACKS_MAX, &sample), "out of bounds");
        assert_eq!(meter.tracks.len(), TRACKS_MAX);
        meter.forget(LINKS_MAX..2 * LINKS_MAX);
        assert!(meter.in_flight_bits() < 1e-9);
    }

    #[test]
    fn links_of_a_wan_add_up() {
        let mut meter = Meter::new(2);
        feed(&mut meter, 0.1, 0, 0);
        meter.tracks[1] = meter.tracks[0].clone();
        let seen = meter.measure(Instant::ZERO, Instant::FAR).unwrap();
        assert!((seen.sent() / 16e6 - 1.0).abs() < 1e-3 && (seen.slope - 0.1).abs() < 1e-3);
    }
}
