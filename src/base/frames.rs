//! Storage for frames: what one TUN read returns, 10 bytes of virtio header and an IP packet of up to 64 KiB.
//!
//! Three pools of different slot size, so that a queue of small packets does not cost 64 KiB each. Memory is
//! touched only when used.

use super::pool::{Pool, Slot};

/// Largest frame: virtio header and the largest IP packet.
pub const FRAME_BYTES_MAX: usize = 10 + 65_535;

/// Slot size and count of each class. 2 KiB holds an ordinary packet, 16 KiB a typical TSO burst of a home
/// link (1 ms at 100 Mbit/s), 64 KiB the largest superframe. The counts bound a queue of 85 ms at 1 Gbit/s.
const CLASSES: [(usize, u32); 3] = [(2_048, 4_096), (16_384, 512), (FRAME_BYTES_MAX + 7, 160)];

/// One frame in a [`FrameStore`]. Must be given back.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    class: u8,
    slot: Slot,
    bytes: u32,
}

impl Frame {
    /// Length in bytes, virtio header included.
    pub const fn len(&self) -> usize {
        self.bytes as usize
    }

    /// The same frame with only its first `bytes` in use.
    ///
    /// # Panics
    /// If it is not that long.
    #[must_use]
    pub fn shortened(mut self, bytes: usize) -> Self {
        assert!(bytes <= self.len(), "a frame only gets shorter");
        self.bytes = u32::try_from(bytes).unwrap_or(self.bytes);
        self
    }

    /// Whether the frame is empty.
    pub const fn is_empty(&self) -> bool {
        self.bytes == 0
    }
}

/// Fixed storage for frames of mixed size.
#[derive(Debug)]
pub struct FrameStore {
    pools: [Pool; CLASSES.len()],
}

impl Default for FrameStore {
    fn default() -> Self {
        Self {
            pools: CLASSES.map(|(bytes, count)| Pool::new(bytes, count)),
        }
    }
}

impl FrameStore {
    /// Takes room for a frame of `bytes`; `None` when it is longer than any frame or nothing is free.
    /// A full class borrows from the next larger one. The content is whatever the last owner left.
    pub fn take(&mut self, bytes: usize) -> Option<Frame> {
        let length = u32::try_from(bytes).ok()?;
        for (class, pool) in (0_u8..).zip(&mut self.pools) {
            if pool.slot_bytes() >= bytes
                && let Some(slot) = pool.take()
            {
                return Some(Frame {
                    class,
                    slot,
                    bytes: length,
                });
            }
        }
        None
    }

    /// Takes room and copies `bytes` in.
    pub fn store(&mut self, bytes: &[u8]) -> Option<Frame> {
        let frame = self.take(bytes.len())?;
        self.bytes_mut(&frame).copy_from_slice(bytes);
        Some(frame)
    }

    /// Gives a frame back.
    pub fn give(&mut self, frame: Frame) {
        self.pools[usize::from(frame.class)].give(frame.slot);
    }

    /// The frame's bytes.
    pub fn bytes(&self, frame: &Frame) -> &[u8] {
        &self.pools[usize::from(frame.class)].bytes(&frame.slot)[..frame.len()]
    }

    /// The frame's bytes, to write.
    pub fn bytes_mut(&mut self, frame: &Frame) -> &mut [u8] {
        &mut self.pools[usize::from(frame.class)].bytes_mut(&frame.slot)[..frame.len()]
    }

    /// Frames in use.
    pub fn used(&self) -> usize {
        self.pools.iter().map(Pool::used).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_smallest_class_that_fits_and_borrows_upwards() {
        let mut store = FrameStore::default();
        assert!(store.take(FRAME_BYTES_MAX + 8).is_none());
        let mut held = Vec::new();
        for _ in 0..CLASSES[0].1 {
            held.push(store.take(100).unwrap());
        }
        assert!(held.iter().all(|f| f.class == 0));
        let borrowed = store.store(&[7; 100]).unwrap();
        assert_eq!(borrowed.class, 1);
        assert_eq!(store.bytes(&borrowed), &[7; 100]);
        for frame in held {
            store.give(frame);
        }
        store.give(borrowed);
        assert_eq!(store.used(), 0);
    }
}
