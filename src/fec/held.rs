//! Symbols that wait for their group: one pool, and a list for each group through it. And bodies that were
//! recovered and wait to be polled.
//!
//! Invariant: a slot is in exactly one list or free; nothing is allocated after construction.

use super::{GROUP_SYMBOLS_MAX, LENGTH_BYTES};
use crate::base::{Pool, Slot};

/// The symbols of one group. Must be given back with [`HeldSymbols::free`].
#[derive(Debug)]
pub(super) struct List {
    head: u32,
    len: u16,
}

impl List {
    pub(super) const EMPTY: Self = Self { head: END, len: 0 };

    /// Symbols in the list.
    pub(super) const fn len(&self) -> usize {
        self.len as usize
    }
}

/// Storage for the symbols of all groups.
#[derive(Debug)]
pub(super) struct HeldSymbols {
    pool: Pool,
    /// Parallel to the pool's slots, as far as any was ever used.
    nodes: Vec<Node>,
}

#[derive(Debug)]
struct Node {
    /// `None` while the slot is free.
    slot: Option<Slot>,
    next: u32,
    name: u16,
    len: u16,
}

/// End of a list.
const END: u32 = u32::MAX;

impl HeldSymbols {
    /// Room for `count` symbols of up to `symbol_bytes`, which must fit 16 bits.
    pub(super) fn new(symbol_bytes: usize, count: u32) -> Self {
        assert!(
            symbol_bytes <= usize::from(u16::MAX),
            "symbol lengths travel in 16 bits"
        );
        Self {
            pool: Pool::new(symbol_bytes, count),
            nodes: Vec::with_capacity(count as usize),
        }
    }

    /// Longest symbol.
    pub(super) const fn symbol_bytes(&self) -> usize {
        self.pool.slot_bytes()
    }

    /// Symbols in all lists.
    pub(super) fn used(&self) -> usize {
        self.pool.used()
    }

    /// Whether another symbol finds room.
    pub(super) fn has_room(&self) -> bool {
        self.pool.used() < self.pool.capacity()
    }

    /// Puts `head` and `body`, one behind the other, into the list under a name of the caller's. `false` when
    /// there is no room.
    ///
    /// # Panics
    /// If both together are longer than [`Self::symbol_bytes`].
    pub(super) fn push(&mut self, list: &mut List, name: u16, head: &[u8], body: &[u8]) -> bool {
        let Some(slot) = self.pool.take() else {
            return false;
        };
        let bytes = self.pool.bytes_mut(&slot);
        bytes[..head.len()].copy_from_slice(head);
        bytes[head.len()..head.len() + body.len()].copy_from_slice(body);
        let place = slot.index();
        let index = u32::try_from(slot.index()).expect("the pool's count is a u32");
        let len = u16::try_from(head.len() + body.len()).expect("at most symbol_bytes, checked");
        let node = Node {
            slot: Some(slot),
            next: list.head,
            name,
            len,
        };
        // A pool gives out its slots one after another before it gives any out again.
        if place == self.nodes.len() {
            self.nodes.push(node);
        } else {
            self.nodes[place] = node;
        }
        *list = List {
            head: index,
            len: list.len + 1,
        };
        true
    }

    /// The symbols of a list with their names, last one first.
    pub(super) fn iter(&self, list: &List) -> impl Iterator<Item = (u16, &[u8])> + Clone + '_ {
        let mut at = list.head;
        std::iter::from_fn(move || {
            let node = self.nodes.get(at as usize)?;
            at = node.next;
            let slot = node.slot.as_ref().expect("a listed node owns its slot");
            Some((node.name, &self.pool.bytes(slot)[..usize::from(node.len)]))
        })
    }

    /// Frees all symbols of a list.
    pub(super) fn free(&mut self, list: &mut List) {
        let mut at = std::mem::replace(list, List::EMPTY).head;
        while let Some(node) = self.nodes.get_mut(at as usize) {
            at = node.next;
            if let Some(slot) = node.slot.take() {
                self.pool.give(slot);
            }
        }
    }
}

/// Recovered bodies between their computation and the caller's poll.
#[derive(Debug)]
pub(super) struct Recoveries {
    stride: usize,
    bytes: Vec<u8>,
    /// Index and length of the body in each stride of `bytes`.
    ends: Vec<(u8, usize)>,
    polled: usize,
}

impl Recoveries {
    pub(super) fn new(stride: usize) -> Self {
        Self {
            stride,
            bytes: vec![0; stride * GROUP_SYMBOLS_MAX],
            ends: Vec::with_capacity(GROUP_SYMBOLS_MAX),
            polled: 0,
        }
    }

    /// Bodies, polled or not.
    pub(super) const fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn clear(&mut self) {
        self.ends.clear();
        self.polled = 0;
    }

    /// Copies the body out of a padded symbol; `false` when its length cannot be.
    pub(super) fn push(&mut self, index: u8, symbol: &[u8], body_bytes_max: usize) -> bool {
        let Some((length, padded)) = symbol.split_first_chunk::<LENGTH_BYTES>() else {
            return false;
        };
        let length = usize::from(u16::from_le_bytes(*length));
        if length > padded.len() || length > body_bytes_max {
            return false;
        }
        let at = self.ends.len() * self.stride;
        self.bytes[at..at + length].copy_from_slice(&padded[..length]);
        self.ends.push((index, length));
        true
    }

    pub(super) fn poll(&mut self) -> Option<(u8, &[u8])> {
        let &(index, length) = self.ends.get(self.polled)?;
        let at = self.polled * self.stride;
        self.polled += 1;
        Some((index, &self.bytes[at..at + length]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_share_the_pool_and_give_everything_back() {
        let mut held = HeldSymbols::new(8, 3);
        let (mut a, mut b) = (List::EMPTY, List::EMPTY);
        assert!(held.push(&mut a, 1, &[1], &[2, 3]));
        assert!(held.push(&mut b, 2, &[4], &[]));
        assert!(held.push(&mut a, 3, &[], &[5; 8]));
        assert!(!held.has_room() && !held.push(&mut b, 4, &[], &[6]));
        assert_eq!(
            held.iter(&a).collect::<Vec<_>>(),
            [(3, &[5; 8][..]), (1, &[1, 2, 3][..])]
        );
        assert_eq!((a.len(), b.len(), held.used()), (2, 1, 3));
        held.free(&mut a);
        assert_eq!((a.len(), held.used()), (0, 1));
        held.free(&mut a);
        held.free(&mut b);
        assert_eq!(held.used(), 0);
    }
}
