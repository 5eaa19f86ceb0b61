//! What arrived of each group, and what can be computed of the rest.
//!
//! ```text
//!             on_source ──► new? deliver it ──┐
//!                                             ├─► k symbols of the group are here ──► poll_recovered
//!             on_repair ──► the group's shape ┘
//!
//! ring of 4096 groups by id:   | left, forgotten |  oldest held ... open ... complete ... newest |  next |
//! ```
//!
//! Source symbols are delivered by the caller as they come; a copy is kept only to compute from. The shape of a
//! group (source count, repair count, symbol size) is known from its first repair symbol on. When the symbols'
//! room is used up the oldest open group is given up. All input is authenticated, but its author may be
//! hostile: it can spoil its own groups and nothing else.
//!
//! Invariants: a complete or given-up group holds no symbols; no group before `oldest_held` holds any; no
//! (group, index) is delivered twice, whether it arrived or was recovered.

use super::codec::Codec;
use super::group::{Group, Phase, Shape};
use super::held::{HeldSymbols, Recoveries};
use super::{GROUP_SYMBOLS_MAX, symbol_bytes};
use crate::base::{DropReason, GroupId, Instant};

/// Groups remembered. At 1 Gbit/s and groups of 48 it reaches back 2.3 s, much longer than any link differs
/// from another; a power of two, so that ids fall into the ring by their low bits.
pub const GROUP_WINDOW: usize = 4096;
const _: () = assert!(GROUP_WINDOW.is_power_of_two());

/// Group shape that the codec's memory is prepared for; larger ones allocate once.
const PREPARED: (usize, usize) = (96, 32);

/// Names in a group's list from here on are repair symbols.
const REPAIR_NAMES: u16 = 256;

/// The receiving half of FEC, for one session and direction.
#[derive(Debug)]
pub struct Decoder {
    codec: Codec,
    held: HeldSymbols,
    body_bytes_max: usize,
    /// Ring by the low bits of the id, as far as any id has come: an idle tunnel keeps little of it in memory.
    groups: Vec<Group>,
    /// Highest id seen, not wrapped.
    newest: u64,
    /// No group before this id holds a symbol.
    oldest_held: u64,
    /// No group from `oldest_held` to before this one is open: expiry does not look at them each time.
    first_open: u64,
    recovered: Recoveries,
    /// The group of what waits in `recovered`.
    recovered_of: GroupId,
    counters: DecoderCounters,
}

/// What the decoder did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DecoderCounters {
    /// Groups of which anything arrived.
    pub groups: u64,
    /// Source symbols computed from others.
    pub recovered_symbols: u64,
    /// Source symbols still missing when their group was given up or left the window.
    pub unrecoverable_symbols: u64,
    /// Groups dropped because their symbols contradict each other.
    pub inconsistent_groups: u64,
}

/// A source symbol that did not arrive and was computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovered<'a> {
    /// Its group.
    pub group: GroupId,
    /// Its index in the group.
    pub index: u8,
    /// What [`Decoder::on_source`] would have been given.
    pub body: &'a [u8],
}

impl Decoder {
    /// A decoder for bodies up to `body_bytes_max` that keeps at most `symbols_max` symbols.
    ///
    /// # Panics
    /// If a symbol's length does not fit 16 bits; sizes are ours.
    pub fn new(body_bytes_max: usize, symbols_max: u32) -> Self {
        let symbol_bytes = symbol_bytes(body_bytes_max);
        let mut codec = Codec::new();
        codec
            .expect(PREPARED.0, PREPARED.1, symbol_bytes)
            .expect("the prepared shape is valid");
        Self {
            codec,
            held: HeldSymbols::new(symbol_bytes, symbols_max),
            body_bytes_max,
            groups: {
                let mut groups = Vec::with_capacity(GROUP_WINDOW);
                groups.push(Group::UNSEEN);
                groups
            },
            newest: 0,
            oldest_held: 0,
            first_open: 0,
            recovered: Recoveries::new(symbol_bytes),
            recovered_of: GroupId(0),
            counters: DecoderCounters::default(),
        }
    }

    /// A source symbol arrived. `Ok`: it is new and the caller delivers it. With `keep` its body is copied to
    /// recover others from (senders say whether repair symbols will follow); without, only its arrival is
    /// remembered. Drain [`Self::poll_recovered`] afterwards.
    ///
    /// # Errors
    /// [`DropReason::DuplicateSymbol`], [`DropReason::StaleGroup`] (older than the window),
    /// [`DropReason::InconsistentGroup`].
    pub fn on_source(
        &mut self,
        group: GroupId,
        index: u8,
        body: &[u8],
        keep: bool,
        now: Instant,
    ) -> Result<(), DropReason> {
        self.recovered.clear();
        if body.len() > self.body_bytes_max || usize::from(index) >= GROUP_SYMBOLS_MAX {
            return Err(DropReason::InconsistentGroup);
        }
        let id = self.enter(group, now)?;
        let state = &mut self.groups[ring_index(id)];
        if state.sources.has(index) {
            return Err(DropReason::DuplicateSymbol);
        }
        let longest = state.longest.max(symbol_bytes(body.len()));
        if state
            .shape
            .is_some_and(|s| index >= s.source_count || longest > s.symbol_bytes)
        {
            return Err(self.abandon(id));
        }
        state.longest = longest;
        state.sources.set(index);
        if state.phase != Phase::Open {
            return Ok(());
        }
        if keep && self.make_room(id) {
            let length = u16::try_from(body.len()).expect("symbols are below 64 KiB");
            let list = &mut self.groups[ring_index(id)].held;
            self.held
                .push(list, u16::from(index), &length.to_le_bytes(), body);
        }
        self.advance(id);
        Ok(())
    }

    /// A repair symbol arrived: number `index` of `repair_count`, of a group of `source_count`. Drain
    /// [`Self::poll_recovered`] afterwards.
    ///
    /// # Errors
    /// [`DropReason::RepairUnused`] (nothing is missing), [`DropReason::DuplicateSymbol`],
    /// [`DropReason::StaleGroup`], [`DropReason::InconsistentGroup`], [`DropReason::NoBuffer`].
    pub fn on_repair(
        &mut self,
        group: GroupId,
        source_count: u8,
        repair_count: u8,
        index: u8,
        symbol: &[u8],
        now: Instant,
    ) -> Result<(), DropReason> {
        self.recovered.clear();
        let shape = Shape {
            source_count,
            repair_count,
            symbol_bytes: symbol.len(),
        };
        if !shape.is_possible(self.held.symbol_bytes()) || index >= repair_count {
            return Err(DropReason::InconsistentGroup);
        }
        let id = self.enter(group, now)?;
        let state = &mut self.groups[ring_index(id)];
        match state.phase {
            Phase::Complete => return Err(DropReason::RepairUnused),
            Phase::GivenUp => return Err(DropReason::StaleGroup),
            Phase::Inconsistent => return Err(DropReason::InconsistentGroup),
            Phase::Unseen | Phase::Open => {}
        }
        let agrees = match state.shape {
            Some(known) => known == shape,
            None => {
                state.longest <= shape.symbol_bytes && state.sources.end() <= source_count.into()
            }
        };
        if !agrees {
            return Err(self.abandon(id));
        }
        state.shape = Some(shape);
        if state.repairs.has(index) {
            return Err(DropReason::DuplicateSymbol);
        }
        state.repairs.set(index);
        if self.advance(id) {
            return Err(DropReason::RepairUnused);
        }
        if !self.make_room(id) {
            return Err(DropReason::NoBuffer);
        }
        let list = &mut self.groups[ring_index(id)].held;
        self.held
            .push(list, REPAIR_NAMES + u16::from(index), &[], symbol);
        self.advance(id);
        Ok(())
    }

    /// The next symbol that the last `on_source` or `on_repair` made computable. What is not taken before the
    /// next of them is lost.
    pub fn poll_recovered(&mut self) -> Option<Recovered<'_>> {
        let (index, body) = self.recovered.poll()?;
        Some(Recovered {
            group: self.recovered_of,
            index,
            body,
        })
    }

    /// Gives up the open groups that began before `before`, so that a quiet tunnel does not keep them.
    pub fn expire(&mut self, before: Instant) {
        loop {
            while self.oldest_held <= self.newest && self.is_over(self.oldest_held) {
                self.oldest_held += 1;
            }
            // What is unseen may still be on its way: the cursor passes it only together with a later group that is
            // too old.
            self.first_open = self.first_open.max(self.oldest_held);
            while self.first_open <= self.newest && !self.is_open(self.first_open) {
                self.first_open += 1;
            }
            let id = self.first_open;
            if id > self.newest || self.groups[ring_index(id)].opened_at >= before {
                return;
            }
            self.give_up(id);
            self.oldest_held = id + 1;
        }
    }

    fn is_open(&self, id: u64) -> bool {
        self.groups[ring_index(id)].phase == Phase::Open
    }

    /// Whether a group that something came of holds nothing any more.
    fn is_over(&self, id: u64) -> bool {
        !matches!(
            self.groups[ring_index(id)].phase,
            Phase::Open | Phase::Unseen
        )
    }

    /// What was done so far.
    pub const fn counters(&self) -> DecoderCounters {
        self.counters
    }

    /// Symbols kept at this moment.
    pub fn symbols_held(&self) -> usize {
        self.held.used()
    }

    /// Finds the group's place, moving the window when the group is the newest. The id without wrap.
    fn enter(&mut self, group: GroupId, now: Instant) -> Result<u64, DropReason> {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the wire carries the low 32 bits"
        )]
        let distance = group.distance_from(GroupId(self.newest as u32));
        let id = self
            .newest
            .checked_add_signed(distance.into())
            .ok_or(DropReason::StaleGroup)?;
        if id + GROUP_WINDOW as u64 <= self.newest {
            return Err(DropReason::StaleGroup);
        }
        // At most one turn of the ring, however far the jump.
        let first = (self.newest + 1).max((id + 1).saturating_sub(GROUP_WINDOW as u64));
        for entering in first..=id {
            self.forget(entering);
        }
        self.newest = self.newest.max(id);
        self.oldest_held = self
            .oldest_held
            .max((id + 1).saturating_sub(GROUP_WINDOW as u64));
        let state = &mut self.groups[ring_index(id)];
        if state.phase == Phase::Unseen {
            state.phase = Phase::Open;
            self.first_open = self.first_open.min(id);
            state.opened_at = now;
            self.counters.groups += 1;
        }
        Ok(id)
    }

    /// Clears the place of `id` in the ring from the group that was there before.
    fn forget(&mut self, id: u64) {
        let index = ring_index(id);
        if index >= self.groups.len() {
            // Places behind a jump stay unseen. The memory is reserved.
            self.groups.resize_with(index + 1, || Group::UNSEEN);
            return;
        }
        let state = &mut self.groups[index];
        if state.phase == Phase::Open {
            self.counters.unrecoverable_symbols += state.missing();
        }
        self.held.free(&mut state.held);
        *state = Group::UNSEEN;
    }

    fn give_up(&mut self, id: u64) {
        let state = &mut self.groups[ring_index(id)];
        self.counters.unrecoverable_symbols += state.missing();
        state.phase = Phase::GivenUp;
        self.held.free(&mut state.held);
    }

    /// The group contradicts itself: nothing can be computed from it. Its sources are still delivered.
    fn abandon(&mut self, id: u64) -> DropReason {
        let state = &mut self.groups[ring_index(id)];
        if state.phase == Phase::Open {
            self.counters.inconsistent_groups += 1;
            state.phase = Phase::Inconsistent;
            self.held.free(&mut state.held);
        }
        DropReason::InconsistentGroup
    }

    /// Makes room for one more symbol of group `id` at the cost of older groups. `false`: there is none.
    fn make_room(&mut self, id: u64) -> bool {
        while !self.held.has_room() && self.oldest_held < id {
            let oldest = self.oldest_held;
            if self.groups[ring_index(oldest)].held.len() > 0 {
                self.give_up(oldest);
            }
            self.oldest_held += 1;
        }
        self.held.has_room() && id >= self.oldest_held
    }

    /// Completes the group if that is possible by now; says whether it is complete.
    fn advance(&mut self, id: u64) -> bool {
        let state = &mut self.groups[ring_index(id)];
        let Some(shape) = state.shape else {
            return false;
        };
        let source_count = usize::from(shape.source_count);
        if state.sources.count() < source_count {
            if state.held.len() < source_count {
                return false;
            }
            if !self.recover(id, shape) {
                self.abandon(id);
                return false;
            }
        }
        let state = &mut self.groups[ring_index(id)];
        state.phase = Phase::Complete;
        self.held.free(&mut state.held);
        true
    }

    /// Computes the missing sources. `false`: the result is no set of symbols anyone can have protected.
    fn recover(&mut self, id: u64, shape: Shape) -> bool {
        let state = &mut self.groups[ring_index(id)];
        let symbols = || self.held.iter(&state.held);
        let sources = symbols().filter(|(name, _)| *name < REPAIR_NAMES);
        let repairs = symbols().filter(|(name, _)| *name >= REPAIR_NAMES);
        let (seen, recovered) = (state.sources, &mut self.recovered);
        let mut sound = true;
        let outcome = self.codec.recover(
            shape.source_count.into(),
            shape.repair_count.into(),
            shape.symbol_bytes,
            sources.map(|(name, symbol)| (name.into(), symbol)),
            repairs.map(|(name, symbol)| ((name - REPAIR_NAMES).into(), symbol)),
            |index, symbol| {
                let index = u8::try_from(index).expect("below the source count");
                // A source that arrived but was not kept is computed too, and was delivered before.
                if !seen.has(index) {
                    sound &= recovered.push(index, symbol, self.body_bytes_max);
                }
            },
        );
        if !sound || outcome.is_err() {
            self.recovered.clear();
            return false;
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the wire carries the low 32 bits"
        )]
        let group = GroupId(id as u32);
        self.recovered_of = group;
        (0..shape.source_count).for_each(|index| state.sources.set(index));
        self.counters.recovered_symbols += self.recovered.len() as u64;
        true
    }
}

#[allow(clippy::cast_possible_truncation)] // the remainder is below GROUP_WINDOW
const fn ring_index(id: u64) -> usize {
    (id % GROUP_WINDOW as u64) as usize
}

#[cfg(test)]
mod tests;
