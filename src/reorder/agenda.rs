//! Which lanes may release, and when the others must: a bit for each lane, and deadlines that are only looked at
//! when one of them may be due.

use crate::base::id::LANES;
use crate::base::{Instant, Lane};

/// State of all lanes.
#[derive(Debug)]
pub(super) struct Agenda {
    /// Bit i: lane i's next item may leave.
    releasable: u64,
    /// Bit i: lane i has a deadline.
    waiting: u64,
    deadlines: [Instant; LANES],
    /// Not later than any deadline; saves looking at them while it is in the future.
    soonest: Instant,
}

const _: () = assert!(LANES == 64); // one bit of a u64 each

impl Agenda {
    pub(super) const fn new() -> Self {
        let (deadlines, soonest) = ([Instant::FAR; LANES], Instant::FAR);
        Self {
            releasable: 0,
            waiting: 0,
            deadlines,
            soonest,
        }
    }

    /// Notes whether the lane can release and its deadline, if it waits.
    pub(super) fn set(&mut self, lane: Lane, releasable: bool, deadline: Option<Instant>) {
        set_bit(&mut self.releasable, lane, releasable);
        set_bit(&mut self.waiting, lane, deadline.is_some());
        if let Some(deadline) = deadline {
            self.deadlines[lane.index()] = deadline;
            self.soonest = self.soonest.min(deadline);
        }
    }

    /// A lane that can release.
    pub(super) fn releasable(&self) -> Option<Lane> {
        lanes_in(self.releasable).next()
    }

    /// The lanes that have a deadline.
    pub(super) fn waiting(&self) -> impl Iterator<Item = Lane> + use<> {
        lanes_in(self.waiting)
    }

    /// A lane whose deadline has come. O(1) while the soonest one is in the future.
    pub(super) fn due(&mut self, now: Instant) -> Option<Lane> {
        if now < self.soonest {
            return None;
        }
        let (soonest, lane) = self.earliest()?;
        self.soonest = soonest;
        (soonest <= now).then_some(lane)
    }

    /// The earliest deadline and its lane.
    pub(super) fn earliest(&self) -> Option<(Instant, Lane)> {
        self.waiting()
            .map(|lane| (self.deadlines[lane.index()], lane))
            .min()
    }
}

const fn set_bit(bits: &mut u64, lane: Lane, on: bool) {
    let bit = 1 << lane.0;
    *bits = if on { *bits | bit } else { *bits & !bit };
}

/// The lanes of a bit set, lowest first.
fn lanes_in(mut bits: u64) -> impl Iterator<Item = Lane> {
    std::iter::from_fn(move || {
        let lane = u8::try_from(bits.trailing_zeros())
            .ok()
            .filter(|&bit| bit < 64)?;
        bits &= bits - 1;
        Some(Lane(lane))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_deadline_is_found_among_many_and_forgotten_when_cleared() {
        let mut agenda = Agenda::new();
        for lane in [63, 1, 30] {
            agenda.set(
                Lane(lane),
                false,
                Some(Instant::from_millis(u64::from(lane))),
            );
        }
        assert_eq!(agenda.due(Instant::ZERO), None);
        assert_eq!(agenda.due(Instant::from_millis(40)), Some(Lane(1)));
        agenda.set(Lane(1), true, None);
        assert_eq!(agenda.releasable(), Some(Lane(1)));
        assert_eq!(agenda.due(Instant::from_millis(40)), Some(Lane(30)));
        agenda.set(Lane(30), false, None);
        assert_eq!(agenda.due(Instant::from_millis(40)), None);
        assert_eq!(
            agenda.earliest(),
            Some((Instant::from_millis(63), Lane(63)))
        );
    }
}
