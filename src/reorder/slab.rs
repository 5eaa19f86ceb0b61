//! Held items in one fixed array, linked into lists by index.
//!
//! Every entry is on exactly one list: ahead or aside of its lane, the way out, or the free entries.

use crate::base::{Instant, Lane};

/// No entry.
pub(super) const NIL: u16 = u16::MAX;

/// One held item.
#[derive(Debug)]
pub(super) struct Entry<T> {
    /// `None` in free entries.
    pub(super) item: Option<T>,
    pub(super) arrived: Instant,
    /// From when the hold time counts.
    pub(super) since: Instant,
    pub(super) seq: u32,
    pub(super) lane: Lane,
    pub(super) ready: bool,
    pub(super) late: bool,
    previous: u16,
    next: u16,
}

/// First-in first-out list from which any entry can be taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct List {
    pub(super) head: u16,
    tail: u16,
}

impl List {
    pub(super) const EMPTY: Self = Self {
        head: NIL,
        tail: NIL,
    };

    pub(super) const fn is_empty(&self) -> bool {
        self.head == NIL
    }
}

/// The entries. Memory is reserved once and touched only as far as it was ever used.
#[derive(Debug)]
pub(super) struct Slab<T> {
    entries: Vec<Entry<T>>,
    free: u16,
    used: u32,
    count_max: u16,
}

impl<T> Slab<T> {
    pub(super) fn new(count_max: u16) -> Self {
        let entries = Vec::with_capacity(usize::from(count_max));
        Self {
            entries,
            free: NIL,
            used: 0,
            count_max,
        }
    }

    pub(super) const fn used(&self) -> u32 {
        self.used
    }

    /// Takes an entry and appends it to `list`; gives the item back when none is free.
    pub(super) fn push(
        &mut self,
        list: &mut List,
        lane: Lane,
        seq: u32,
        item: T,
        arrived: Instant,
    ) -> Result<u16, T> {
        let fresh = u16::try_from(self.entries.len()).unwrap_or(NIL);
        let item = Some(item);
        let (ready, late, previous, next) = (false, false, NIL, NIL);
        let entry = Entry {
            item,
            arrived,
            since: arrived,
            seq,
            lane,
            ready,
            late,
            previous,
            next,
        };
        let index = if self.free != NIL {
            let index = self.free;
            self.free = self.entries[usize::from(index)].next;
            self.entries[usize::from(index)] = entry;
            index
        } else if fresh < self.count_max {
            self.entries.push(entry);
            fresh
        } else {
            return entry
                .item
                .map_or_else(|| unreachable!("it was just put in"), Err);
        };
        self.used += 1;
        self.append(list, index);
        Ok(index)
    }

    /// Takes the item out of an entry that is on no list any more.
    pub(super) fn free(&mut self, index: u16) -> Option<T> {
        let entry = &mut self.entries[usize::from(index)];
        entry.next = self.free;
        self.free = index;
        self.used -= 1;
        entry.item.take()
    }

    pub(super) fn append(&mut self, list: &mut List, index: u16) {
        let entry = &mut self.entries[usize::from(index)];
        (entry.previous, entry.next) = (list.tail, NIL);
        if list.tail == NIL {
            list.head = index;
        } else {
            self.entries[usize::from(list.tail)].next = index;
        }
        list.tail = index;
    }

    pub(super) fn unlink(&mut self, list: &mut List, index: u16) {
        let (previous, next) = {
            let entry = &self.entries[usize::from(index)];
            (entry.previous, entry.next)
        };
        if previous == NIL {
            list.head = next;
        } else {
            self.entries[usize::from(previous)].next = next;
        }
        if next == NIL {
            list.tail = previous;
        } else {
            self.entries[usize::from(next)].previous = previous;
        }
    }

    pub(super) fn get(&self, index: u16) -> &Entry<T> {
        &self.entries[usize::from(index)]
    }

    pub(super) fn get_mut(&mut self, index: u16) -> &mut Entry<T> {
        &mut self.entries[usize::from(index)]
    }
}
