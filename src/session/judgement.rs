//! What the links' figures come to, computed when they change: several times in each turn of a busy loop somebody asks
//! for the assessments, which take two powers for each link, and with every symbol for the limits of a group.

use std::cell::Cell;
use std::mem;
use std::time::Duration;

use crate::base::Rate;
use crate::base::id::LINKS_MAX;
use crate::fec::protection::{GroupLimits, group_limits};
use crate::stripe::{Assessment, Exponents, Figures, assess};

/// The last figures and what followed from them.
#[derive(Debug)]
pub(super) struct Judgement {
    /// Figures, exponents and load that `assessments` are of.
    figures: Vec<Figures>,
    exponents: Exponents,
    load: f64,
    assessments: Vec<Assessment>,
    /// Room for the next figures.
    room: Vec<Figures>,
}

impl Judgement {
    pub(super) fn new() -> Self {
        Self {
            figures: Vec::with_capacity(LINKS_MAX),
            exponents: Exponents::default(),
            load: 0.0,
            assessments: vec![Assessment::default(); LINKS_MAX],
            room: Vec::with_capacity(LINKS_MAX),
        }
    }

    /// Lends room for figures, empty; [`Judgement::of`] takes it back.
    pub(super) fn room(&mut self) -> Vec<Figures> {
        let mut room = mem::take(&mut self.room);
        room.clear();
        room
    }

    /// The assessments of figures, in their order.
    pub(super) fn of(
        &mut self,
        figures: Vec<Figures>,
        exponents: Exponents,
        load: f64,
    ) -> &[Assessment] {
        #[allow(clippy::float_cmp)]
        // the same input gives the same output, and any other is another
        let same = self.figures == figures && self.exponents == exponents && self.load == load;
        if !same {
            assess(&figures, exponents, load, &mut self.assessments);
            (self.exponents, self.load) = (exponents, load);
        }
        self.room = mem::replace(&mut self.figures, figures);
        &self.assessments[..self.figures.len()]
    }
}

/// The limits of groups that were asked for last.
#[derive(Debug, Default)]
pub(super) struct Limits(Cell<Option<(Flow, GroupLimits)>>);

/// What the limits of a group follow from: rate, length of symbols, hold time of the receiver.
type Flow = (Rate, usize, Duration);

impl Limits {
    /// The limits of groups of symbols that flow at `rate`, for a receiver that waits `hold` for a hole.
    pub(super) fn of(&self, rate: Rate, symbol_bytes: usize, hold: Duration) -> GroupLimits {
        let flow = (rate, symbol_bytes, hold);
        match self.0.get() {
            Some((known, limits)) if known == flow => limits,
            _ => {
                let limits = group_limits(rate, symbol_bytes, hold);
                self.0.set(Some((flow, limits)));
                limits
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Rng;

    #[test]
    fn limits_follow_what_they_depend_on() {
        let limits = Limits::default();
        for mbps in [10, 10, 100, 10] {
            for (bytes, ms) in [(1408, 50), (1408, 150), (1168, 150), (1168, 150)] {
                let (rate, hold) = (Rate::from_mbps(mbps), Duration::from_millis(ms));
                let expected = group_limits(rate, bytes, hold);
                assert_eq!(limits.of(rate, bytes, hold), expected);
            }
        }
    }

    #[test]
    fn what_is_remembered_is_what_would_be_computed() {
        let (mut judgement, mut rng) = (Judgement::new(), Rng::new(5));
        for _ in 0..2_000 {
            let mut figures = judgement.room();
            for _ in 0..rng.below(3) {
                figures.push(Figures {
                    capacity: Rate::from_mbps(10 + rng.below(2)),
                    delay_p50: Duration::from_millis(rng.below(2)),
                    ..Figures::NONE
                });
            }
            let exponents = Exponents::default();
            let load = if rng.chance(0.5) { 0.5 } else { 0.25 };
            let mut expected = vec![Assessment::default(); figures.len()];
            assess(&figures, exponents, load, &mut expected);
            let weights = |all: &[Assessment]| all.iter().map(|a| a.weight).collect::<Vec<_>>();
            let got = judgement.of(figures, exponents, load);
            assert_eq!(weights(got), weights(&expected));
        }
    }
}
