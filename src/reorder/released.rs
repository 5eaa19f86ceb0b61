//! What comes out of the reorder buffer, and what is counted on the way.

use std::time::Duration;

use crate::base::Lane;

/// One item that leaves.
#[derive(Debug, PartialEq, Eq)]
pub struct Released<T> {
    /// Its lane.
    pub lane: Lane,
    /// Its lane sequence.
    pub seq: u32,
    /// The item.
    pub item: T,
    /// False when the item never became ready: what there is of it may be rescued.
    pub ready: bool,
    /// It came after its place had been skipped.
    pub late: bool,
    /// How long it was held.
    pub held: Duration,
}

/// What happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Sequence numbers given up.
    pub holes_skipped: u64,
    /// Items that came after their place had been skipped.
    pub late: u64,
    /// Items of the lane without an order that newer ones of it have overtaken or still may.
    pub overtaken: u64,
    /// Items that were there already, or too old to tell.
    pub duplicates: u64,
    /// Items refused for lack of room.
    pub refused: u64,
    /// Items released before they were ready.
    pub unready: u64,
    /// Most items held at once.
    pub depth_max: u32,
}
