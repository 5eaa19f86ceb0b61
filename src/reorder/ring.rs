//! What is known of each sequence near the one that is due: one ring of slots for each lane.

use crate::base::Lane;
use crate::base::id::LANES;

/// What is known of one sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    /// Never seen.
    Empty,
    /// It left; to come again is to be a duplicate.
    Released,
    /// Held in this entry.
    Held(u16),
}

/// The rings of all lanes. A slot serves every sequence that is equal modulo the ring's size; which of them is
/// meant is up to the caller, who clears slots as the lane moves on.
#[derive(Debug)]
pub(super) struct Rings {
    slots: Vec<u16>,
    size: u32,
}

impl Rings {
    /// # Panics
    /// If `size` is not a power of two.
    pub(super) fn new(size: u32) -> Self {
        assert!(size.is_power_of_two(), "rings are indexed by masking");
        // Zeroed memory comes from untouched pages: a lane that is not used costs nothing.
        Self {
            slots: vec![EMPTY; LANES * size as usize],
            size,
        }
    }

    pub(super) const fn size(&self) -> u32 {
        self.size
    }

    pub(super) fn get(&self, lane: Lane, seq: u32) -> Slot {
        match self.slots[self.place(lane, seq)] {
            EMPTY => Slot::Empty,
            RELEASED => Slot::Released,
            index => Slot::Held(index - 1),
        }
    }

    pub(super) fn held(&self, lane: Lane, seq: u32) -> Option<u16> {
        if let Slot::Held(index) = self.get(lane, seq) {
            Some(index)
        } else {
            None
        }
    }

    pub(super) fn set(&mut self, lane: Lane, seq: u32, slot: Slot) {
        let place = self.place(lane, seq);
        self.slots[place] = match slot {
            Slot::Empty => EMPTY,
            Slot::Released => RELEASED,
            Slot::Held(index) => index + 1,
        };
    }

    const fn place(&self, lane: Lane, seq: u32) -> usize {
        lane.index() * self.size as usize + (seq & (self.size - 1)) as usize
    }
}

/// Zero, so that fresh memory is empty.
const EMPTY: u16 = 0;
/// Above every entry's index plus one.
pub(super) const RELEASED: u16 = u16::MAX;

/// Signed distance on the wrapping circle of sequences.
#[expect(clippy::cast_possible_wrap, reason = "the wrap is the point")]
pub(super) const fn distance(a: u32, b: u32) -> i32 {
    a.wrapping_sub(b) as i32
}

#[expect(clippy::cast_possible_wrap, reason = "windows are at most 2^20")]
pub(super) const fn signed(count: u32) -> i32 {
    count as i32
}
