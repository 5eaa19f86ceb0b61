//! Reorder buffer: signatures first, body follows.

use std::time::Duration;

use crate::base::{DropReason, Instant, Lane};

/// Sequence numbers one lane may span before its oldest hole is skipped. At 1 Gbit/s of 1400-byte packets (89 k/s)
/// this is 46 ms; superframes span more.
pub const WINDOW: u32 = 4096;

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
    /// Came after its place had been skipped.
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
    /// Items that were there already.
    pub duplicates: u64,
    /// Items refused for lack of room.
    pub refused: u64,
    /// Items released before they were ready.
    pub unready: u64,
    /// Most items held at once.
    pub depth_max: u32,
}

/// The buffer: 64 lanes.
#[derive(Debug)]
pub struct Buffer<T> {
    _items: Vec<T>,
}

impl<T> Buffer<T> {
    /// An empty buffer whose lanes span `window` sequence numbers.
    pub fn new(_window: u32) -> Self {
        unimplemented!()
    }
    /// Puts an item in. Poll afterwards.
    pub fn insert(
        &mut self,
        _lane: Lane,
        _seq: u32,
        _item: T,
        _ready: bool,
        _now: Instant,
    ) -> Result<(), (DropReason, T)> {
        unimplemented!()
    }
    /// The item at a place, while it is held.
    pub fn get_mut(&mut self, _lane: Lane, _seq: u32) -> Option<&mut T> {
        unimplemented!()
    }
    /// The item may be released. False when it is not held (any more).
    pub fn mark_ready(&mut self, _lane: Lane, _seq: u32) -> bool {
        unimplemented!()
    }
    /// The next item to release at `now`; call until `None` after each insert, mark and timeout.
    pub fn poll(&mut self, _now: Instant) -> Option<Released<T>> {
        unimplemented!()
    }
    /// When to poll again without an insert; `Instant::FAR` when nothing waits.
    pub fn poll_timeout(&self) -> Instant {
        unimplemented!()
    }
    /// Proof of loss: holes of the lane before `seq` are given up at the next poll.
    pub fn give_up(&mut self, _lane: Lane, _seq: u32) {
        unimplemented!()
    }
    /// Gives up the hole (or unready head) that has been waiting longest; false when nothing waits.
    pub fn give_up_oldest(&mut self) -> bool {
        unimplemented!()
    }
    /// Changes the hold time, also for what waits already.
    pub fn set_hold(&mut self, _hold: Duration) {
        unimplemented!()
    }
    /// The full sequence of a truncated one (24 bits), nearest to what the lane expects.
    pub fn expand(&self, _lane: Lane, _truncated: u32) -> u32 {
        unimplemented!()
    }
    /// What happened so far.
    pub const fn counters(&self) -> &Counters {
        unimplemented!()
    }
    /// Items held.
    pub const fn len(&self) -> usize {
        unimplemented!()
    }
    /// Whether nothing is held.
    pub const fn is_empty(&self) -> bool {
        unimplemented!()
    }
    /// Hands everything out, in no particular order, and forgets all sequences.
    pub fn drain(&mut self, _on_item: impl FnMut(T)) {
        unimplemented!()
    }
}
