//! Symbols we sent or are about to send, by group. What becomes of them is in `fate`.
//!
//! A symbol lives as long as its group: until any `k` of the group's symbols were acknowledged (the receiver can
//! recover the rest), or until the group is too old to be worth repairing. Keys carry a generation, so a key that
//! outlives its symbol (in a link's queue, in a log of sent datagrams) finds nothing, never another symbol.
//!
//! A symbol lies in the store as the plaintext of the datagram that carries it, all but the send time, so that it is
//! written once and sealed from where it lies. The next source is written before it has a place in a group: into the
//! draft, a slot that no key names.
//!
//! Invariants: a key with a matching generation has a slot; `GroupRecord::first` starts a list of all symbols of
//! the group.

mod entry;
mod fate;
mod record;

use entry::{Entry, NONE};
pub use entry::{SymbolKey, SymbolKind};
use record::GroupRecord;
pub use record::Need;

use crate::base::{GroupId, Instant, Pool, Slot};
use crate::wire::message::{SYMBOL_LENGTH_BYTES, SYMBOL_START, SymbolHeader, emit_send_time};

/// Groups that may wait for acknowledgement. At 10 symbols a group and 100 000 symbols/s this is 400 ms.
pub const GROUPS: usize = 4096;
const _: () = assert!(GROUPS.is_power_of_two()); // records are indexed by masking

/// The store: symbols of bounded size, `GROUPS` groups.
#[derive(Debug)]
pub struct SymbolStore {
    pool: Pool,
    /// Where the next source is written.
    draft: Slot,
    /// Parallel to the pool's slots, as far as any was ever used: an idle tunnel keeps none of this in memory.
    entries: Vec<Entry>,
    /// By number, as far as any place was ever used.
    groups: Vec<GroupRecord>,
    /// Oldest group that may be live; sweeping starts here.
    oldest: GroupId,
    /// The group after the newest.
    next: GroupId,
    /// Sources of groups that had to make room for a newer one, as far as nobody was told.
    displaced: u64,
}

impl SymbolStore {
    /// Room for `symbols` symbols of at most `symbol_bytes`.
    ///
    /// # Panics
    /// Never: there is a slot for the draft.
    pub fn new(symbol_bytes: usize, symbols: u32) -> Self {
        let mut pool = Pool::new(SYMBOL_START + symbol_bytes, symbols + 1);
        Self {
            draft: pool.take().expect("a fresh pool has a slot"),
            pool,
            entries: Vec::with_capacity(symbols as usize + 1),
            groups: Vec::with_capacity(GROUPS),
            oldest: GroupId(0),
            next: GroupId(0),
            displaced: 0,
        }
    }

    /// Opens the next group, which will get `planned` repair symbols (0: the receiver does not keep its sources); the
    /// group that is in its place, if any is left, is given up.
    pub fn open_group(&mut self, planned: u8, now: Instant) -> GroupId {
        let id = self.next;
        self.next = id.plus(1);
        let before = *self.record(id);
        if before.live {
            self.displaced += before.open_sources();
            self.release_group(before.id);
        }
        while self.groups.len() <= record_index(id) {
            self.groups.push(GroupRecord::ABSENT);
        }
        self.groups[record_index(id)] = GroupRecord::new(id, true, planned, now);
        id
    }

    /// Says which route the symbols of a live group take; it is 0 unless said.
    pub fn set_route(&mut self, group: GroupId, route: usize) {
        if let Some(record) = self.record_mut(group) {
            record.route = u8::try_from(route).unwrap_or(0);
        }
    }

    /// Says that a live group is one symbol of a sparse flow.
    pub fn set_sparse(&mut self, group: GroupId) {
        if let Some(record) = self.record_mut(group) {
            record.sparse = true;
        }
    }

    /// Whether a group may not have arrived: it was neither acknowledged nor given up.
    pub fn is_live(&self, group: GroupId) -> bool {
        let record = self.record(group);
        record.live && record.id == group
    }

    /// Whether a symbol is one of a sparse flow; false when it is gone.
    pub fn is_sparse(&self, key: SymbolKey) -> bool {
        self.get(key)
            .is_some_and(|(_, header, _)| self.record(header.group).sparse)
    }

    /// The route of a group; 0 when it is gone.
    pub fn route_of_group(&self, group: GroupId) -> usize {
        if self.is_live(group) {
            usize::from(self.record(group).route)
        } else {
            0
        }
    }

    /// The route of a symbol; 0 when it is gone.
    pub fn route_of(&self, key: SymbolKey) -> usize {
        let Some((_, header, _)) = self.get(key) else {
            return 0;
        };
        usize::from(self.record(header.group).route)
    }

    /// Where the body of the next source is written; it counts from [`SymbolStore::add_source`] on.
    pub fn body_room(&mut self) -> &mut [u8] {
        &mut self.pool.bytes_mut(&self.draft)[SYMBOL_START + SYMBOL_LENGTH_BYTES..]
    }

    /// Adds the source whose body has the first `body_bytes` of [`SymbolStore::body_room`] to a live group. `None` when
    /// no slot is free or the group is gone.
    pub fn add_source(&mut self, header: SymbolHeader, body_bytes: usize) -> Option<SymbolKey> {
        self.record_mut(header.group)?;
        let next = self.pool.take()?;
        let slot = std::mem::replace(&mut self.draft, next);
        let length = u16::try_from(body_bytes).unwrap_or(u16::MAX).to_le_bytes();
        self.pool.bytes_mut(&slot)[SYMBOL_START..][..SYMBOL_LENGTH_BYTES].copy_from_slice(&length);
        let bytes = SYMBOL_LENGTH_BYTES + body_bytes;
        self.enter(slot, SymbolKind::Source, header, bytes)
    }

    /// Adds a repair symbol to a live group. `None` as for sources.
    pub fn add_repair(&mut self, header: SymbolHeader, symbol: &[u8]) -> Option<SymbolKey> {
        self.record_mut(header.group)?;
        let slot = self.pool.take()?;
        self.pool.bytes_mut(&slot)[SYMBOL_START..][..symbol.len()].copy_from_slice(symbol);
        self.enter(slot, SymbolKind::Repair, header, symbol.len())
    }

    /// Gives the symbol in a slot its key and its place in its group.
    fn enter(
        &mut self,
        slot: Slot,
        kind: SymbolKind,
        header: SymbolHeader,
        bytes: usize,
    ) -> Option<SymbolKey> {
        header.emit_start(kind == SymbolKind::Repair, self.pool.bytes_mut(&slot));
        let record = &mut self.groups[record_index(header.group)];
        #[allow(clippy::cast_possible_truncation)] // as many as `symbols`, a u32
        let index = slot.index() as u32;
        // Fresh slots come in order, but for the one that is the draft.
        while self.entries.len() <= slot.index() {
            self.entries.push(Entry::empty());
        }
        let entry = &mut self.entries[slot.index()];
        entry.generation = entry.generation.wrapping_add(1);
        entry.slot = Some(slot);
        entry.kind = kind;
        entry.header = header;
        entry.bytes = u16::try_from(bytes).unwrap_or(u16::MAX);
        entry.acked = false;
        entry.lost = false;
        (entry.copies, entry.round) = (0, 0);
        entry.since = Instant::FAR;
        entry.next = record.first;
        record.first = index;
        match kind {
            SymbolKind::Source => record.source_count += 1,
            SymbolKind::Repair => record.repair_count += 1,
        }
        Some(SymbolKey {
            index,
            generation: entry.generation,
        })
    }

    /// Notes when the frame came that a symbol begins with.
    pub fn set_since(&mut self, key: SymbolKey, since: Instant) {
        if self.live(key).is_some() {
            self.entries[key.index as usize].since = since;
        }
    }

    /// When that frame came, told once: to who sends the symbol first.
    pub fn take_since(&mut self, key: SymbolKey) -> Option<Instant> {
        self.live(key)?;
        let since = &mut self.entries[key.index as usize].since;
        let told = (*since != Instant::FAR).then_some(*since);
        *since = Instant::FAR;
        told
    }

    /// The symbol's kind, header and bytes; `None` when it is gone.
    pub fn get(&self, key: SymbolKey) -> Option<(SymbolKind, SymbolHeader, &[u8])> {
        let entry = self.live(key)?;
        let bytes = &self.pool.bytes(entry.slot.as_ref()?)[SYMBOL_START..];
        Some((
            entry.kind,
            entry.header,
            bytes.get(..usize::from(entry.bytes))?,
        ))
    }

    /// The plaintext of a datagram that leaves at `send_time_us` and carries the symbol; `None` when sending it cannot
    /// help.
    pub fn plaintext(&mut self, key: SymbolKey, send_time_us: u32) -> Option<&[u8]> {
        let entry = self.live(key).filter(|entry| !entry.acked)?;
        let length = SYMBOL_START + usize::from(entry.bytes);
        let slot = self.entries[key.index as usize].slot.as_ref()?;
        let plaintext = self.pool.bytes_mut(slot).get_mut(..length)?;
        emit_send_time(plaintext, send_time_us);
        Some(plaintext)
    }

    /// Whether sending another copy can still help.
    pub fn is_wanted(&self, key: SymbolKey) -> bool {
        self.live(key).is_some_and(|entry| !entry.acked)
    }

    /// Puts the keys of the group's sources in their order into `out`, and returns the size of its longest symbol.
    pub fn sources(&self, group: GroupId, out: &mut Vec<SymbolKey>) -> usize {
        out.clear();
        let mut longest = 0;
        let sources = || {
            self.symbols_of(group)
                .filter(|(entry, _)| entry.kind == SymbolKind::Source)
        };
        for (entry, key) in sources() {
            out.push(key);
            longest = longest.max(usize::from(entry.bytes));
        }
        // Symbols are listed from the last to the first, and sources are added in order.
        out.reverse();
        longest
    }

    /// Symbols in use and room for them.
    pub fn usage(&self) -> (usize, usize) {
        (self.pool.used() - 1, self.pool.capacity() - 1)
    }

    /// The symbols of a live group with their keys, the last one first.
    fn symbols_of(&self, group: GroupId) -> impl Iterator<Item = (&Entry, SymbolKey)> {
        let record = self.record(group);
        let known = record.live && record.id == group;
        let mut at = if known { record.first } else { NONE };
        std::iter::from_fn(move || {
            let entry = self.entries.get(at as usize)?;
            let (index, generation) = (at, entry.generation);
            at = entry.next;
            Some((entry, SymbolKey { index, generation }))
        })
    }

    fn live(&self, key: SymbolKey) -> Option<&Entry> {
        let entry = self.entries.get(key.index as usize)?;
        (entry.generation == key.generation && entry.slot.is_some()).then_some(entry)
    }

    fn live_mut(&mut self, key: SymbolKey) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(key.index as usize)?;
        (entry.generation == key.generation && entry.slot.is_some()).then_some(entry)
    }

    /// What is in a group's place: the group, another one, or nothing yet.
    fn record(&self, group: GroupId) -> &GroupRecord {
        let record = self.groups.get(record_index(group));
        record.unwrap_or(&GroupRecord::ABSENT)
    }

    fn record_mut(&mut self, group: GroupId) -> Option<&mut GroupRecord> {
        let record = self.groups.get_mut(record_index(group))?;
        (record.live && record.id == group).then_some(record)
    }
}

const fn record_index(group: GroupId) -> usize {
    group.0 as usize & (GROUPS - 1)
}

#[cfg(test)]
mod tests;
