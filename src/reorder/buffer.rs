//! The reorder buffer: frames of one lane leave in the order they were sent, or in time.
//!
//! Holds items of type `T` for the caller and never drops one: an item is refused at the door or released, once.
//! Knows neither links nor clocks; how long to hold is told ([`super::hold`]).
//!
//! One lane, with `next` the sequence that is due and W the window:
//!
//! ```text
//!   next - 2W            next                    next + W            next + 2W
//!      |  x x . x s x x x  |  . r . u r r . . r r  |  only until next poll  |
//!         already passed      ahead                   pushes `next` forward
//!
//!   x released   . never seen   r ready, waits for a hole   u not ready yet   s late or unordered, not ready yet
//! ```
//!
//! Rules, in order:
//! 1. `next` is there and ready: release it.
//! 2. `next` is there and not ready: release it as it is when its own hold time has passed.
//! 3. `next` is missing: skip the hole when the first item that arrived behind it has waited for the hold time,
//!    or when the lane spans more than the window, or when the caller gives up.
//! 4. An item whose place was skipped is late and released at once: to the inner TCP a late packet is far better
//!    than none. One whose place was released is a duplicate and refused.
//! 5. [`Lane::UNORDERED`] has no order: items leave when they are ready; only duplicates are found.
//!
//! Invariants: a slot of the ring names the entry of its sequence, or says "released", or is empty, for the
//! sequences in [next - 2W, next + 2W) and no others; entries ahead and aside are listed in order of arrival, so
//! that a lane's deadline is that of a list's head; the agenda is right after every public call. Each operation is O(1), counting one step for each sequence number passed.

use std::time::Duration;

use super::agenda::Agenda;
use super::hold::HOLD_MIN;
use super::lane::LaneState;
use super::released::{Counters, Released};
use super::ring::{RELEASED, Rings, Slot, distance, signed};
use super::slab::{Entry, List, NIL, Slab};
use crate::base::id::LANES;
use crate::base::{DropReason, Instant, Lane};

/// The buffer: 64 lanes and what they hold.
#[derive(Debug)]
pub struct Buffer<T> {
    lanes: [LaneState; LANES],
    rings: Rings,
    slab: Slab<T>,
    /// Released by a rule, not polled yet.
    out: List,
    window: u32,
    hold: Duration,
    agenda: Agenda,
    counters: Counters,
}

impl<T> Buffer<T> {
    /// An empty buffer whose lanes span `window` sequence numbers ([`WINDOW`] in production) and expect 0 first.
    ///
    /// # Panics
    /// If `window` is not a power of two up to 2^20.
    pub fn new(window: u32) -> Self {
        assert!(
            window.is_power_of_two() && window <= 1 << 20,
            "rings are indexed by masking"
        );
        Self {
            lanes: [LaneState::EMPTY; LANES],
            rings: Rings::new(4 * window),
            slab: Slab::new(ITEMS_MAX),
            out: List::EMPTY,
            window,
            hold: HOLD_MIN,
            agenda: Agenda::new(),
            counters: Counters::default(),
        }
    }

    /// Puts an item in; `ready` is false while parts are missing. Its hold time counts from `since`: when it would have
    /// come by the fastest way, because what it waits for left before it did. Poll afterwards.
    ///
    /// # Errors
    /// The item comes back with [`DropReason::DuplicateFrame`] when it is held, was released, or is so old that nobody
    /// knows, with [`DropReason::ReorderFull`] without room, with [`DropReason::BadFrame`] when there is no such lane.
    pub fn insert_since(
        &mut self,
        lane: Lane,
        seq: u32,
        item: T,
        ready: bool,
        since: Instant,
        now: Instant,
    ) -> Result<(), (DropReason, T)> {
        if let Err(reason) = self.make_place(lane, seq, ready) {
            return Err((reason, item));
        }
        if ready && lane != Lane::UNORDERED && seq == self.lanes[lane.index()].next {
            return self.pass_through(lane, seq, item, now);
        }
        let passed = distance(seq, self.lanes[lane.index()].next) < 0;
        let state = &mut self.lanes[lane.index()];
        let list = match (passed, ready) {
            (false, _) => &mut state.ahead,
            (true, false) => &mut state.aside,
            (true, true) => &mut self.out,
        };
        let index = match self.slab.push(list, lane, seq, item, now) {
            Ok(index) => index,
            Err(item) => {
                self.counters.refused += 1;
                return Err((DropReason::ReorderFull, item));
            }
        };
        let late = passed && lane != Lane::UNORDERED;
        let entry = self.slab.get_mut(index);
        (entry.ready, entry.late, entry.since) = (ready, late, since.min(now));
        let slot = if passed && ready {
            Slot::Released
        } else {
            Slot::Held(index)
        };
        self.rings.set(lane, seq, slot);
        self.counters.late += u64::from(late);
        self.counters.depth_max = self.counters.depth_max.max(self.slab.used());
        if !passed && distance(seq, state_next(&self.lanes, lane)) >= signed(self.window) {
            self.raise_floor(lane, seq.wrapping_sub(self.window - 1));
        }
        self.refresh(lane);
        if self.slab.used() > ITEMS_HIGH {
            self.give_up_oldest();
        }
        Ok(())
    }

    /// The item at a place, while it is held.
    pub fn get_mut(&mut self, lane: Lane, seq: u32) -> Option<&mut T> {
        let index = self.find(lane, seq)?;
        self.slab.get_mut(index).item.as_mut()
    }

    /// Says that the item is complete and may leave in its turn. False when it is not held (any more).
    pub fn mark_ready(&mut self, lane: Lane, seq: u32) -> bool {
        let Some(index) = self.find(lane, seq) else {
            return false;
        };
        self.slab.get_mut(index).ready = true;
        if distance(seq, self.lanes[lane.index()].next) < 0 {
            self.send_aside_out(lane, index);
        }
        self.refresh(lane);
        true
    }

    /// The next item that leaves at `now`. Call until `None` after each insert, mark and timeout.
    pub fn poll(&mut self, now: Instant) -> Option<Released<T>> {
        loop {
            if !self.out.is_empty() {
                let index = self.out.head;
                self.slab.unlink(&mut self.out, index);
                return self.leave(index, now);
            }
            if let Some(lane) = self.agenda.releasable() {
                return self.release_next(lane, now);
            }
            let lane = self.agenda.due(now)?;
            self.expire(lane, now);
        }
    }

    /// When to poll again without an insert; [`Instant::ZERO`] when something can leave at once and
    /// [`Instant::FAR`] when nothing waits.
    pub fn poll_timeout(&self) -> Instant {
        if self.agenda.releasable().is_some() || !self.out.is_empty() {
            return Instant::ZERO;
        }
        self.agenda
            .earliest()
            .map_or(Instant::FAR, |(deadline, _)| deadline)
    }

    /// Proof of loss: what the lane misses before `seq` will not come; the next poll skips it, and releases what is
    /// there before `seq`, ready or not.
    pub fn give_up(&mut self, lane: Lane, seq: u32) {
        if lane != Lane::UNORDERED && lane.index() < LANES {
            self.raise_floor(lane, seq);
            self.refresh(lane);
        }
    }

    /// Gives up the hole or the unready item that would be the next to expire, to make room. False when nothing
    /// waits. Poll afterwards.
    pub fn give_up_oldest(&mut self) -> bool {
        let oldest = self.agenda.earliest();
        if let Some((deadline, lane)) = oldest {
            self.expire(lane, deadline);
        }
        oldest.is_some()
    }

    /// Changes the hold time, also for what waits already.
    pub fn set_hold(&mut self, hold: Duration) {
        if hold == self.hold {
            return;
        }
        self.hold = hold;
        for lane in self.agenda.waiting() {
            self.refresh(lane);
        }
    }

    /// The hold time.
    pub const fn hold(&self) -> Duration {
        self.hold
    }

    /// The full sequence of a truncated one (low 24 bits), nearest to what the lane expects.
    #[expect(
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss,
        reason = "sign extension"
    )]
    pub fn expand(&self, lane: Lane, truncated: u32) -> u32 {
        let next = self.lanes[lane.index() % LANES].next;
        let ahead = truncated.wrapping_sub(next) << 8;
        next.wrapping_add((ahead as i32 >> 8) as u32)
    }

    /// What happened so far.
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Items held.
    pub const fn len(&self) -> usize {
        self.slab.used() as usize
    }

    /// Whether nothing is held.
    pub const fn is_empty(&self) -> bool {
        self.slab.used() == 0
    }

    /// Hands everything out, in no particular order; the sequences stay as they are.
    pub fn drain(&mut self, mut on_item: impl FnMut(T)) {
        self.set_hold(Duration::ZERO);
        while let Some(released) = self.poll(Instant::FAR - Duration::from_nanos(1)) {
            on_item(released.item);
        }
    }

    /// Takes the item that its lane waits for: straight to the way out. This is what nearly all items do.
    fn pass_through(
        &mut self,
        lane: Lane,
        seq: u32,
        item: T,
        now: Instant,
    ) -> Result<(), (DropReason, T)> {
        let index = match self.slab.push(&mut self.out, lane, seq, item, now) {
            Ok(index) => index,
            Err(item) => {
                self.counters.refused += 1;
                return Err((DropReason::ReorderFull, item));
            }
        };
        self.slab.get_mut(index).ready = true;
        self.counters.depth_max = self.counters.depth_max.max(self.slab.used());
        self.rings.set(lane, seq, Slot::Released);
        // Asked before the lane advances, which may put out the last one aside.
        let state = &self.lanes[lane.index()];
        let holds_nothing = state.ahead.is_empty() && state.aside.is_empty();
        self.advance(lane);
        if holds_nothing {
            // The agenda has no entry of this lane to change.
            let state = &mut self.lanes[lane.index()];
            state.floor = state.next;
        } else {
            self.refresh(lane);
        }
        Ok(())
    }

    /// Checks that a new item has a place, after moving the lane forward as far as the item needs.
    fn make_place(&mut self, lane: Lane, seq: u32, ready: bool) -> Result<(), DropReason> {
        if lane.index() >= LANES {
            self.counters.refused += 1;
            return Err(DropReason::BadFrame);
        }
        let span = signed(2 * self.window);
        let ahead = distance(seq, state_next(&self.lanes, lane));
        if lane == Lane::UNORDERED && ahead >= 0 {
            // Nothing waits for its turn here: the newest sequence only says which ones are old.
            self.skip_to(lane, seq.wrapping_add(1));
        } else if ahead >= span {
            let oldest = seq.wrapping_sub(self.window - 1);
            self.raise_floor(lane, oldest);
            self.refresh(lane);
            if !self.lanes[lane.index()].ahead.is_empty() {
                // The next poll lets go of all that is held here.
                self.counters.refused += 1;
                return Err(DropReason::ReorderFull);
            }
        }
        if ahead < -span || self.rings.get(lane, seq) != Slot::Empty {
            self.counters.duplicates += 1;
            return Err(DropReason::DuplicateFrame);
        }
        let overtaken = lane == Lane::UNORDERED && (ahead < 0 || !ready);
        self.counters.overtaken += u64::from(overtaken);
        Ok(())
    }

    fn find(&self, lane: Lane, seq: u32) -> Option<u16> {
        if lane.index() >= LANES {
            return None;
        }
        self.rings
            .held(lane, seq)
            .filter(|&index| self.slab.get(index).seq == seq)
    }

    fn raise_floor(&mut self, lane: Lane, floor: u32) {
        let state = &mut self.lanes[lane.index()];
        if distance(floor, state.floor) > 0 {
            state.floor = floor;
        }
    }

    /// Counts the sequences before `target` as lost, with nothing held ahead.
    fn skip_to(&mut self, lane: Lane, target: u32) {
        let state = &self.lanes[lane.index()];
        debug_assert!(state.ahead.is_empty(), "held items are not skipped");
        let next = self.lanes[lane.index()].next;
        let count = target.wrapping_sub(next);
        if lane != Lane::UNORDERED {
            self.counters.holes_skipped += u64::from(count);
        }
        for i in 0..count.min(self.rings.size()) {
            self.clear_for(lane, next.wrapping_add(i).wrapping_add(2 * self.window));
        }
        self.lanes[lane.index()].next = target;
    }

    fn advance(&mut self, lane: Lane) {
        let next = self.lanes[lane.index()].next;
        self.clear_for(lane, next.wrapping_add(2 * self.window));
        self.lanes[lane.index()].next = next.wrapping_add(1);
    }

    fn skip_one(&mut self, lane: Lane) {
        self.counters.holes_skipped += 1;
        self.advance(lane);
    }

    /// Empties the slot that `seq` gets; what is still held there is four windows older and leaves unready.
    fn clear_for(&mut self, lane: Lane, seq: u32) {
        if let Some(index) = self.rings.held(lane, seq) {
            self.send_aside_out(lane, index);
        }
        self.rings.set(lane, seq, Slot::Empty);
    }

    /// Moves an entry that waits aside of the order to the way out.
    fn send_aside_out(&mut self, lane: Lane, index: u16) {
        self.rings
            .set(lane, self.slab.get(index).seq, Slot::Released);
        self.slab.unlink(&mut self.lanes[lane.index()].aside, index);
        self.slab.append(&mut self.out, index);
    }

    /// Skips what is below the floor, then works out whether the lane can release and when it must.
    fn refresh(&mut self, lane: Lane) {
        while self.is_forced(lane)
            && self
                .rings
                .held(lane, self.lanes[lane.index()].next)
                .is_none()
        {
            if self.lanes[lane.index()].ahead.is_empty() {
                self.skip_to(lane, self.lanes[lane.index()].floor);
            } else {
                self.skip_one(lane);
            }
        }
        let forced = self.is_forced(lane);
        let state = &mut self.lanes[lane.index()];
        if !forced {
            state.floor = state.next;
        }
        let state = *state;
        let head = self
            .rings
            .held(lane, state.next)
            .map(|index| self.slab.get(index));
        let releasable = head.is_some_and(|entry| entry.ready || forced);
        let due = |entry: &Entry<T>| entry.since + self.hold;
        let first = |list: List| (list.head != NIL).then(|| due(self.slab.get(list.head)));
        let in_order = if releasable {
            None
        } else {
            head.map(due).or_else(|| first(state.ahead))
        };
        let deadline = [in_order, first(state.aside)].into_iter().flatten().min();
        self.agenda.set(lane, releasable, deadline);
    }

    fn is_forced(&self, lane: Lane) -> bool {
        let state = &self.lanes[lane.index()];
        distance(state.floor, state.next) > 0
    }

    /// Releases the item that is next in a releasable lane.
    fn release_next(&mut self, lane: Lane, now: Instant) -> Option<Released<T>> {
        let next = self.lanes[lane.index()].next;
        let index = self.rings.held(lane, next)?;
        self.slab.unlink(&mut self.lanes[lane.index()].ahead, index);
        self.rings.set(lane, next, Slot::Released);
        self.advance(lane);
        self.refresh(lane);
        self.leave(index, now)
    }

    fn leave(&mut self, index: u16, now: Instant) -> Option<Released<T>> {
        let entry = self.slab.get(index);
        let (lane, seq, ready, late) = (entry.lane, entry.seq, entry.ready, entry.late);
        let held = now.since(entry.arrived);
        self.counters.unready += u64::from(!ready);
        let item = self.slab.free(index)?;
        Some(Released {
            lane,
            seq,
            item,
            ready,
            late,
            held,
        })
    }

    /// Lets go of what is due in one lane: unready items aside, one hole, or the unready item that is next.
    fn expire(&mut self, lane: Lane, now: Instant) {
        let is_due =
            |slab: &Slab<T>, index: u16, hold: Duration| slab.get(index).since + hold <= now;
        loop {
            let first = self.lanes[lane.index()].aside.head;
            if first == NIL || !is_due(&self.slab, first, self.hold) {
                break;
            }
            self.send_aside_out(lane, first);
        }
        let LaneState { next, ahead, .. } = self.lanes[lane.index()];
        if let Some(index) = self.rings.held(lane, next) {
            if is_due(&self.slab, index, self.hold) {
                self.raise_floor(lane, next.wrapping_add(1));
            }
        } else if !ahead.is_empty() && is_due(&self.slab, ahead.head, self.hold) {
            while self
                .rings
                .held(lane, self.lanes[lane.index()].next)
                .is_none()
            {
                self.skip_one(lane);
            }
        }
        self.refresh(lane);
    }
}

/// Sequence numbers one lane may span before its oldest hole is skipped. At 1 Gbit/s of 1400-byte packets (89 k/s)
/// this is 46 ms; superframes span more.
pub const WINDOW: u32 = 4096;

/// Most items held in all lanes: more than the frame store has frames, so that the store is what runs out.
const ITEMS_MAX: u16 = 8192;
/// Above this many items the oldest hole is skipped with each insert.
const ITEMS_HIGH: u32 = ITEMS_MAX as u32 / 8 * 7;
const _: () = assert!(ITEMS_MAX < RELEASED - 1); // slots hold entry + 1

const fn state_next(lanes: &[LaneState; LANES], lane: Lane) -> u32 {
    lanes[lane.index()].next
}

#[cfg(test)]
#[path = "model_tests.rs"]
mod model_tests;
#[cfg(test)]
#[path = "buffer_tests.rs"]
mod tests;
