//! What a decoder remembers of one group.

use super::held::List;
use super::{GROUP_SYMBOLS_MAX, LENGTH_BYTES};
use crate::base::Instant;

/// What is known of a group.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) phase: Phase,
    /// Source symbols that arrived or were recovered.
    pub(super) sources: Bits,
    pub(super) repairs: Bits,
    /// From the first repair symbol.
    pub(super) shape: Option<Shape>,
    /// Size of the longest source symbol so far.
    pub(super) longest: usize,
    pub(super) held: List,
    pub(super) opened_at: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing arrived.
    Unseen,
    /// Something arrived; more may.
    Open,
    /// All sources are here.
    Complete,
    /// Its symbols were dropped to make room or because of age.
    GivenUp,
    /// Its symbols contradict each other.
    Inconsistent,
}

impl Group {
    pub(super) const UNSEEN: Self = Self {
        phase: Phase::Unseen,
        sources: Bits::NONE,
        repairs: Bits::NONE,
        shape: None,
        longest: 0,
        held: List::EMPTY,
        opened_at: Instant::ZERO,
    };

    /// Sources known to be missing; without a shape only the holes before the last one count.
    pub(super) fn missing(&self) -> u64 {
        let expected = self
            .shape
            .map_or(self.sources.end(), |s| s.source_count.into());
        expected.saturating_sub(self.sources.count()) as u64
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) source_count: u8,
    pub(super) repair_count: u8,
    pub(super) symbol_bytes: usize,
}

impl Shape {
    pub(super) fn is_possible(self, symbol_bytes_max: usize) -> bool {
        let (k, r) = (
            usize::from(self.source_count),
            usize::from(self.repair_count),
        );
        k > 0
            && r > 0
            && k + r <= GROUP_SYMBOLS_MAX
            && self.symbol_bytes >= LENGTH_BYTES
            && self.symbol_bytes <= symbol_bytes_max
            && self.symbol_bytes.is_multiple_of(2)
    }
}

/// A set of symbol indexes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bits([u64; 4]);

impl Bits {
    pub(super) const NONE: Self = Self([0; 4]);

    pub(super) const fn has(&self, index: u8) -> bool {
        self.0[index as usize / 64] >> (index % 64) & 1 != 0
    }

    pub(super) const fn set(&mut self, index: u8) {
        self.0[index as usize / 64] |= 1 << (index % 64);
    }

    pub(super) fn count(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// One more than the highest index.
    pub(super) fn end(&self) -> usize {
        let words = self.0.iter().enumerate().rev();
        let mut ends = words
            .filter(|(_, w)| **w != 0)
            .map(|(i, w)| i * 64 + w.ilog2() as usize + 1);
        ends.next().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_count_and_end_at_the_highest() {
        let mut bits = Bits::NONE;
        assert_eq!((bits.count(), bits.end()), (0, 0));
        for index in [0, 63, 64, 254] {
            assert!(!bits.has(index));
            bits.set(index);
            assert!(bits.has(index));
            assert_eq!(bits.end(), usize::from(index) + 1);
        }
        assert_eq!(bits.count(), 4);
    }

    #[test]
    fn a_shape_is_within_the_code() {
        let shape = |k, r, bytes| Shape {
            source_count: k,
            repair_count: r,
            symbol_bytes: bytes,
        };
        for possible in [shape(1, 1, 2), shape(254, 1, 100), shape(1, 254, 100)] {
            assert!(possible.is_possible(100));
        }
        for not in [
            shape(0, 1, 2),
            shape(1, 0, 2),
            shape(254, 2, 2),
            shape(1, 1, 0),
            shape(1, 1, 3),
            shape(1, 1, 102),
        ] {
            assert!(!not.is_possible(100), "{not:?}");
        }
    }
}
