//! Symbols we sent or are about to send, and what became of their groups.
//!
//! A symbol lives as long as its group: until any `k` of the group's symbols were acknowledged (the receiver can
//! recover the rest), or until the group is too old to be worth repairing. Keys carry a generation, so a key that
//! outlives its symbol (in a link's queue, in a log of sent datagrams) finds nothing, never another symbol.
//!
//! Invariants: a key with a matching generation has a slot; `GroupRecord::first` starts a list of all symbols of
//! the group; `lost` counts symbols marked lost and not queued again.

use std::time::Duration;

use crate::base::{GroupId, Instant, Pool, Slot};
use crate::wire::message::SymbolHeader;

/// Groups that may wait for acknowledgement. At 10 symbols a group and 100 000 symbols/s this is 400 ms.
const GROUPS: usize = 4096;
const _: () = assert!(GROUPS.is_power_of_two()); // records are indexed by masking

/// Ends a list of symbols.
const NONE: u32 = u32::MAX;

/// Names one symbol; stale keys find nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SymbolKey {
    index: u32,
    generation: u32,
}

#[cfg(test)]
impl SymbolKey {
    /// A key of no symbol.
    pub const NONE: Self = Self {
        index: NONE,
        generation: 0,
    };
}

/// What a symbol is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SymbolKind {
    /// Carries frames.
    Source,
    /// Carries the code over its group.
    Repair,
}

#[derive(Debug)]
struct Entry {
    slot: Option<Slot>,
    generation: u32,
    kind: SymbolKind,
    header: SymbolHeader,
    bytes: u16,
    acked: bool,
    lost: bool,
    /// Next symbol of the group.
    next: u32,
}

#[derive(Clone, Copy, Debug)]
struct GroupRecord {
    id: GroupId,
    live: bool,
    closed: bool,
    /// Which links its symbols may use.
    route: u8,
    first: u32,
    source_count: u8,
    repair_count: u8,
    /// Distinct symbols acknowledged.
    acked: u8,
    acked_sources: u8,
    /// Distinct symbols lost and not queued again.
    lost: u8,
    /// Sources whose content goes by other symbols.
    withdrawn: u8,
    opened_at: Instant,
}

/// What a lost symbol asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossVerdict {
    /// Repair symbols cover it, or nobody needs it.
    Covered,
    /// The group cannot be recovered without this many more symbols.
    Resend(u8),
}

/// The store. `S` symbols of bounded size, `GROUPS` groups.
#[derive(Debug)]
pub struct SymbolStore {
    pool: Pool,
    entries: Vec<Entry>,
    groups: Vec<GroupRecord>,
    /// Oldest group that may be live; sweeping starts here.
    oldest: GroupId,
    /// The group after the newest.
    next: GroupId,
}

impl SymbolStore {
    /// Room for `symbols` symbols of at most `symbol_bytes`.
    pub fn new(symbol_bytes: usize, symbols: u32) -> Self {
        let empty = GroupRecord {
            id: GroupId(0),
            live: false,
            closed: false,
            route: 0,
            first: NONE,
            source_count: 0,
            repair_count: 0,
            acked: 0,
            acked_sources: 0,
            lost: 0,
            withdrawn: 0,
            opened_at: Instant::ZERO,
        };
        Self {
            pool: Pool::new(symbol_bytes, symbols),
            entries: (0..symbols).map(|_| Entry::empty()).collect(),
            groups: vec![empty; GROUPS],
            oldest: GroupId(0),
            next: GroupId(0),
        }
    }

    /// Opens the next group; the group that is in its place, if any is left, is given up.
    pub fn open_group(&mut self, now: Instant) -> GroupId {
        let id = self.next;
        self.next = id.plus(1);
        if self.groups[record_index(id)].live {
            self.release_group(self.groups[record_index(id)].id);
        }
        self.groups[record_index(id)] = GroupRecord {
            id,
            live: true,
            closed: false,
            route: 0,
            first: NONE,
            source_count: 0,
            repair_count: 0,
            acked: 0,
            acked_sources: 0,
            lost: 0,
            withdrawn: 0,
            opened_at: now,
        };
        id
    }

    /// Says which route the symbols of a live group take; it is 0 unless said.
    pub fn set_route(&mut self, group: GroupId, route: usize) {
        if let Some(record) = self.record_mut(group) {
            record.route = u8::try_from(route).unwrap_or(0);
        }
    }

    /// The route of a symbol; 0 when it is gone.
    pub fn route_of(&self, key: SymbolKey) -> usize {
        let Some((_, header, _)) = self.get(key) else {
            return 0;
        };
        usize::from(self.groups[record_index(header.group)].route)
    }

    /// Adds a symbol to a live group and lets `write` fill its bytes (it returns how many).
    /// `None` when no slot is free or the group is gone.
    pub fn add(
        &mut self,
        kind: SymbolKind,
        header: SymbolHeader,
        write: impl FnOnce(&mut [u8]) -> usize,
    ) -> Option<SymbolKey> {
        let record = &mut self.groups[record_index(header.group)];
        if !record.live || record.id != header.group {
            return None;
        }
        let slot = self.pool.take()?;
        let bytes = write(self.pool.bytes_mut(&slot));
        #[allow(clippy::cast_possible_truncation)] // as many as `symbols`, a u32
        let index = slot.index() as u32;
        let entry = &mut self.entries[slot.index()];
        entry.generation = entry.generation.wrapping_add(1);
        entry.slot = Some(slot);
        entry.kind = kind;
        entry.header = header;
        entry.bytes = u16::try_from(bytes).unwrap_or(u16::MAX);
        entry.acked = false;
        entry.lost = false;
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

    /// The symbol's kind, header and bytes; `None` when it is gone.
    pub fn get(&self, key: SymbolKey) -> Option<(SymbolKind, SymbolHeader, &[u8])> {
        let entry = self.live(key)?;
        let bytes = self.pool.bytes(entry.slot.as_ref()?);
        Some((
            entry.kind,
            entry.header,
            bytes.get(..usize::from(entry.bytes))?,
        ))
    }

    /// Whether sending another copy can still help.
    pub fn is_wanted(&self, key: SymbolKey) -> bool {
        self.live(key).is_some_and(|entry| !entry.acked)
    }

    /// Tells the header of the group's last source symbol how many there are.
    pub fn set_counts(&mut self, key: SymbolKey, source_count: u8, repair_count: u8) {
        if self.live(key).is_some() {
            let header = &mut self.entries[key.index as usize].header;
            header.source_count = source_count;
            header.repair_count = repair_count;
        }
    }

    /// The group gets no more sources. Frees it when all of them were acknowledged.
    pub fn close_group(&mut self, group: GroupId) {
        if let Some(record) = self.record_mut(group) {
            record.closed = true;
        }
        self.release_if_resolved(group);
    }

    /// Sources of the group that were acknowledged, and how many there are.
    pub fn acked_sources(&self, group: GroupId) -> (u8, u8) {
        let record = &self.groups[record_index(group)];
        if record.live && record.id == group {
            (record.acked_sources, record.source_count)
        } else {
            (0, 0)
        }
    }

    /// A copy arrived.
    pub fn on_acked(&mut self, key: SymbolKey) {
        let Some(entry) = self.live_mut(key) else {
            return;
        };
        if entry.acked {
            return;
        }
        entry.acked = true;
        let was_lost = std::mem::take(&mut entry.lost);
        let (group, kind) = (entry.header.group, entry.kind);
        if let Some(record) = self.record_mut(group) {
            record.acked += 1;
            record.acked_sources += u8::from(kind == SymbolKind::Source);
            record.lost -= u8::from(was_lost);
        }
        self.release_if_resolved(group);
    }

    /// A copy was lost.
    pub fn on_lost(&mut self, key: SymbolKey) -> LossVerdict {
        let Some(entry) = self.live_mut(key) else {
            return LossVerdict::Covered;
        };
        if entry.acked || entry.lost {
            return LossVerdict::Covered;
        }
        entry.lost = true;
        let group = entry.header.group;
        if let Some(record) = self.record_mut(group) {
            record.lost += 1;
        }
        self.deficit(group, 0)
    }

    /// A source's content goes by other symbols: it is not sent again, and its group is done without it.
    pub fn withdraw(&mut self, key: SymbolKey) {
        let Some(entry) = self.live_mut(key) else {
            return;
        };
        if std::mem::replace(&mut entry.acked, true) {
            return;
        }
        let was_lost = std::mem::take(&mut entry.lost);
        let group = entry.header.group;
        if let Some(record) = self.record_mut(group) {
            record.withdrawn += 1;
            record.lost -= u8::from(was_lost);
        }
        self.release_if_resolved(group);
    }

    /// How many symbols the group lacks, given `planned` repair symbols that are still to come.
    pub fn deficit(&self, group: GroupId, planned: u8) -> LossVerdict {
        let record = &self.groups[record_index(group)];
        if !record.live || record.id != group {
            return LossVerdict::Covered;
        }
        // What was withdrawn is missing there as well: repair symbols recover it or another one, not both.
        let missing = record
            .lost
            .saturating_add(record.withdrawn)
            .saturating_sub(record.repair_count.max(planned))
            .min(record.lost);
        if missing > 0 {
            LossVerdict::Resend(missing)
        } else {
            LossVerdict::Covered
        }
    }

    /// Takes one lost source symbol of the group to be sent again; it no longer counts as lost.
    pub fn take_lost_source(&mut self, group: GroupId) -> Option<SymbolKey> {
        let record = self.record_mut(group)?;
        let mut index = record.first;
        while index != NONE {
            let entry = &mut self.entries[index as usize];
            if entry.lost && entry.kind == SymbolKind::Source {
                entry.lost = false;
                let key = SymbolKey {
                    index,
                    generation: entry.generation,
                };
                if let Some(record) = self.record_mut(group) {
                    record.lost -= 1;
                }
                return Some(key);
            }
            index = entry.next;
        }
        None
    }

    /// Gives up groups opened before `now - age_max`; returns how many sources were not acknowledged.
    pub fn expire(&mut self, now: Instant, age_max: Duration) -> u64 {
        let mut unacknowledged = 0;
        while self.oldest != self.next {
            let record = self.groups[record_index(self.oldest)];
            if record.live && record.id == self.oldest {
                if now.since(record.opened_at) < age_max || !record.closed {
                    break;
                }
                let done = record.acked_sources + record.withdrawn;
                unacknowledged += u64::from(record.source_count.saturating_sub(done));
                self.release_group(self.oldest);
            }
            self.oldest = self.oldest.plus(1);
        }
        unacknowledged
    }

    /// Symbols in use and room for them.
    pub fn usage(&self) -> (usize, usize) {
        (self.pool.used(), self.pool.capacity())
    }

    fn live(&self, key: SymbolKey) -> Option<&Entry> {
        let entry = self.entries.get(key.index as usize)?;
        (entry.generation == key.generation && entry.slot.is_some()).then_some(entry)
    }

    fn live_mut(&mut self, key: SymbolKey) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(key.index as usize)?;
        (entry.generation == key.generation && entry.slot.is_some()).then_some(entry)
    }

    fn record_mut(&mut self, group: GroupId) -> Option<&mut GroupRecord> {
        let record = &mut self.groups[record_index(group)];
        (record.live && record.id == group).then_some(record)
    }

    fn release_if_resolved(&mut self, group: GroupId) {
        let record = &self.groups[record_index(group)];
        let done = record.acked >= record.source_count
            || record.acked_sources + record.withdrawn >= record.source_count;
        if record.live && record.id == group && record.closed && done {
            self.release_group(group);
        }
    }

    fn release_group(&mut self, group: GroupId) {
        let Some(record) = self.record_mut(group) else {
            return;
        };
        record.live = false;
        let mut index = std::mem::replace(&mut record.first, NONE);
        while index != NONE {
            let entry = &mut self.entries[index as usize];
            index = entry.next;
            if let Some(slot) = entry.slot.take() {
                self.pool.give(slot);
            }
        }
    }
}

impl Entry {
    const fn empty() -> Self {
        Self {
            slot: None,
            generation: 0,
            kind: SymbolKind::Source,
            header: SymbolHeader {
                group: GroupId(0),
                index: 0,
                source_count: 0,
                repair_count: 0,
            },
            bytes: 0,
            acked: false,
            lost: false,
            next: NONE,
        }
    }
}

const fn record_index(group: GroupId) -> usize {
    group.0 as usize & (GROUPS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(store: &mut SymbolStore, group: GroupId, index: u8) -> SymbolKey {
        let header = SymbolHeader {
            group,
            index,
            source_count: 0,
            repair_count: 0,
        };
        store
            .add(SymbolKind::Source, header, |b| {
                b[0] = index;
                1
            })
            .unwrap()
    }

    fn repair(store: &mut SymbolStore, group: GroupId, index: u8) -> SymbolKey {
        let header = SymbolHeader {
            group,
            index,
            source_count: 2,
            repair_count: 1,
        };
        store.add(SymbolKind::Repair, header, |_| 1).unwrap()
    }

    #[test]
    fn a_group_is_freed_when_any_k_symbols_are_acknowledged() {
        let mut store = SymbolStore::new(16, 8);
        let group = store.open_group(Instant::ZERO);
        let (a, b) = (source(&mut store, group, 0), source(&mut store, group, 1));
        let r = repair(&mut store, group, 0);
        store.close_group(group);
        store.on_acked(a);
        assert!(store.is_wanted(b) && !store.is_wanted(a));
        store.on_acked(r);
        assert_eq!(store.usage().0, 0);
        assert!(store.get(b).is_none());
    }

    #[test]
    fn losses_within_the_repair_are_covered_and_beyond_it_sent_again() {
        let mut store = SymbolStore::new(16, 8);
        let group = store.open_group(Instant::ZERO);
        let (a, b) = (source(&mut store, group, 0), source(&mut store, group, 1));
        let _ = repair(&mut store, group, 0);
        store.close_group(group);
        assert_eq!(store.on_lost(a), LossVerdict::Covered);
        assert_eq!(
            store.on_lost(a),
            LossVerdict::Covered,
            "the same loss counts once"
        );
        assert_eq!(store.on_lost(b), LossVerdict::Resend(1));
        let again = store.take_lost_source(group).unwrap();
        assert!(again == a || again == b);
        assert_eq!(store.deficit(group, 0), LossVerdict::Covered);
    }

    #[test]
    fn a_withdrawn_source_is_done_with_but_repair_symbols_do_not_cover_two() {
        let mut store = SymbolStore::new(16, 8);
        let group = store.open_group(Instant::ZERO);
        let [a, b, c] = [0, 1, 2].map(|index| source(&mut store, group, index));
        let _ = repair(&mut store, group, 0);
        store.close_group(group);
        store.withdraw(a);
        assert!(!store.is_wanted(a));
        assert_eq!(store.on_lost(b), LossVerdict::Resend(1));
        assert_eq!(store.take_lost_source(group), Some(b));
        store.on_acked(b);
        store.on_acked(a); // late: counted already
        assert!(store.is_wanted(c));
        store.on_acked(c);
        assert_eq!(store.usage().0, 0);
    }

    #[test]
    fn old_groups_expire_in_order_and_stale_keys_find_nothing() {
        let mut store = SymbolStore::new(16, 8);
        let first = store.open_group(Instant::ZERO);
        let a = source(&mut store, first, 0);
        store.close_group(first);
        let second = store.open_group(Instant::from_millis(50));
        let b = source(&mut store, second, 0);
        store.close_group(second);
        assert_eq!(
            store.expire(Instant::from_millis(100), Duration::from_millis(80)),
            1
        );
        assert!(store.get(a).is_none() && store.get(b).is_some());
        let third = store.open_group(Instant::from_millis(100));
        let c = source(&mut store, third, 0);
        assert!(store.get(a).is_none() && store.get(c).is_some());
    }

    #[test]
    fn a_full_ring_of_groups_gives_up_the_oldest() {
        let mut store = SymbolStore::new(16, 8);
        let first = store.open_group(Instant::ZERO);
        let a = source(&mut store, first, 0);
        for _ in 0..GROUPS {
            store.open_group(Instant::ZERO);
        }
        assert!(store.get(a).is_none());
        assert_eq!(store.usage().0, 0);
    }
}
