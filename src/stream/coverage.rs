//! Which bytes of a frame have arrived.
//!
//! Invariants: stretches are sorted, do not overlap and never touch.

use std::ops::Range;

use crate::base::DropReason;

/// Separate stretches of one frame. Losing every second of 45 fragments makes 23; more only come from hostile
/// or absurdly small fragments, which are dropped then.
pub const STRETCHES_MAX: usize = 64;

/// Which bytes of a frame have arrived: sorted stretches.
#[derive(Clone, Debug)]
pub struct Coverage {
    stretches: [(u32, u32); STRETCHES_MAX],
    count: usize,
    bytes: usize,
}

impl Default for Coverage {
    fn default() -> Self {
        Self {
            stretches: [(0, 0); STRETCHES_MAX],
            count: 0,
            bytes: 0,
        }
    }
}

impl Coverage {
    /// Adds a stretch that must not overlap what is there.
    ///
    /// # Errors
    /// [`DropReason::DuplicateFrame`] when all of it is there, [`DropReason::BadFrame`] when a part is,
    /// [`DropReason::NoBuffer`] when there are too many stretches.
    pub fn insert(&mut self, range: Range<usize>) -> Result<(), DropReason> {
        let (Ok(start), Ok(end)) = (u32::try_from(range.start), u32::try_from(range.end)) else {
            return Err(DropReason::BadFrame);
        };
        // The first stretch that does not end before the new one begins.
        let held = &self.stretches[..self.count];
        let at = held.partition_point(|s| s.1 < start);
        let mut next = at;
        if held.get(at).is_some_and(|s| s.1 == start) {
            next += 1;
        }
        for &(from, to) in held[at..].iter().take(2) {
            if from < end && start < to {
                let inside = from <= start && end <= to;
                return Err(if inside {
                    DropReason::DuplicateFrame
                } else {
                    DropReason::BadFrame
                });
            }
        }
        let joins_before = next > at;
        let joins_after = held.get(next).is_some_and(|s| s.0 == end);
        match (joins_before, joins_after) {
            (true, true) => {
                self.stretches[at].1 = self.stretches[next].1;
                self.stretches.copy_within(next + 1..self.count, next);
                self.count -= 1;
            }
            (true, false) => self.stretches[at].1 = end,
            (false, true) => self.stretches[next].0 = start,
            (false, false) if self.count == STRETCHES_MAX => return Err(DropReason::NoBuffer),
            (false, false) => {
                self.stretches.copy_within(at..self.count, at + 1);
                self.stretches[at] = (start, end);
                self.count += 1;
            }
        }
        self.bytes += range.len();
        Ok(())
    }

    /// Bytes covered.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The stretches, in order; neighbours do not touch.
    pub fn stretches(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.stretches[..self.count]
            .iter()
            .map(|s| s.0 as usize..s.1 as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn too_many_stretches_are_refused() {
        let mut coverage = Coverage::default();
        (0..STRETCHES_MAX).for_each(|i| coverage.insert(i * 10..i * 10 + 5).unwrap());
        assert_eq!(coverage.insert(2_000..2_001), Err(DropReason::NoBuffer));
        assert_eq!(coverage.insert(5..10), Ok(()));
        assert_eq!(coverage.insert(2_000..2_001), Ok(()));
    }

    proptest! {
        #[test]
        fn coverage_equals_a_set_of_bytes(ranges in proptest::collection::vec((0..100_usize, 1..9_usize), 0..60)) {
            let mut coverage = Coverage::default();
            let mut model = [false; 110];
            for (start, len) in ranges {
                let there = model[start..start + len].iter().filter(|b| **b).count();
                let outcome = coverage.insert(start..start + len);
                match there {
                    0 => { prop_assert_eq!(outcome, Ok(())); model[start..start + len].fill(true); }
                    n if n == len => prop_assert_eq!(outcome, Err(DropReason::DuplicateFrame)),
                    _ => prop_assert_eq!(outcome, Err(DropReason::BadFrame)),
                }
                let mut got = [false; 110];
                let mut last = None;
                for stretch in coverage.stretches() {
                    prop_assert!(last.is_none_or(|l| l < stretch.start));
                    last = Some(stretch.end);
                    got[stretch].fill(true);
                }
                prop_assert_eq!(got, model);
                prop_assert_eq!(coverage.bytes(), model.iter().filter(|b| **b).count());
            }
        }
    }
}
