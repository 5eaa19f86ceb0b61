//! A fixed number of equal byte slots, taken and given back without allocation.
//!
//! The memory is reserved once and touched only when used: slots are reused last-in first-out, so the resident
//! set follows the load and not the bound.

/// Name of a slot in one [`Pool`]. Not `Clone`: whoever holds it owns the slot and must give it back.
#[derive(Debug, PartialEq, Eq)]
pub struct Slot(u32);

impl Slot {
    /// As an index into tables that run parallel to the pool.
    pub const fn index(&self) -> usize {
        self.0 as usize
    }
}

/// Fixed arena of `count` slots of `slot_bytes` each.
#[derive(Debug)]
pub struct Pool {
    slot_bytes: usize,
    memory: Vec<u8>,
    /// Given back, last on top.
    free: Vec<u32>,
    /// Slots never handed out yet start here.
    fresh: u32,
    count: u32,
}

impl Pool {
    /// Reserves `count` slots of `slot_bytes` bytes.
    pub fn new(slot_bytes: usize, count: u32) -> Self {
        Self {
            slot_bytes,
            // Zeroed memory comes from untouched pages.
            memory: vec![0; slot_bytes * count as usize],
            free: Vec::with_capacity(count as usize),
            fresh: 0,
            count,
        }
    }

    /// Takes a slot; `None` when all are in use. The bytes are whatever the last owner left.
    pub fn take(&mut self) -> Option<Slot> {
        if let Some(index) = self.free.pop() {
            return Some(Slot(index));
        }
        if self.fresh == self.count {
            return None;
        }
        self.fresh += 1;
        Some(Slot(self.fresh - 1))
    }

    /// Gives a slot back.
    pub fn give(&mut self, slot: Slot) {
        debug_assert!(
            !self.free.contains(&slot.0) || cfg!(not(test)),
            "slot given back twice"
        );
        self.free.push(slot.0);
    }

    /// The slot's bytes.
    pub fn bytes(&self, slot: &Slot) -> &[u8] {
        let start = slot.index() * self.slot_bytes;
        &self.memory[start..start + self.slot_bytes]
    }

    /// The slot's bytes, to write.
    pub fn bytes_mut(&mut self, slot: &Slot) -> &mut [u8] {
        let start = slot.index() * self.slot_bytes;
        &mut self.memory[start..start + self.slot_bytes]
    }

    /// Bytes in one slot.
    pub const fn slot_bytes(&self) -> usize {
        self.slot_bytes
    }

    /// Slots in use.
    pub fn used(&self) -> usize {
        self.fresh as usize - self.free.len()
    }

    /// All slots, used or not.
    pub const fn capacity(&self) -> usize {
        self.count as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hands_out_each_slot_once_and_counts() {
        let mut pool = Pool::new(16, 2);
        let (a, b) = (pool.take().unwrap(), pool.take().unwrap());
        assert!(a != b && pool.take().is_none());
        pool.bytes_mut(&a).fill(1);
        pool.bytes_mut(&b).fill(2);
        assert_eq!(pool.bytes(&a), &[1; 16]);
        pool.give(a);
        assert_eq!(pool.used(), 1);
        assert!(pool.take().is_some());
        assert_eq!(pool.used(), 2);
        let _ = b;
    }
}
