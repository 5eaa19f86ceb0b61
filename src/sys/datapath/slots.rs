//! Send slots: memory for runs and frames on their way into the kernel.
//!
//! ```text
//!   free ──take──► with the caller ──begin──► with the kernel (pending writes > 0) ──done──► free
//! ```
//!
//! Invariant: a slot's memory is written by the caller only before `begin`, and by nobody after it.

use std::io;

use super::ports::Ports;
use super::token::SPAN_MAX;
use crate::sys::arena::Arena;
use crate::sys::udp::{RUN_BYTES_MAX, SEGMENTS_MAX};

/// Name of a slot. Not `Clone`: whoever holds it owns the slot and must send or release it.
#[derive(Debug, PartialEq, Eq)]
pub struct SendSlot(u16);

/// Where a slot's bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Job {
    /// One datagram (`segment` 0) or datagrams of `segment` bytes and a shorter last one.
    Datagrams { port: u16, segment: u16 },
    /// One frame.
    Frame { port: u16 },
}

impl Job {
    /// The port's index.
    pub(super) const fn port(self) -> u16 {
        match self {
            Self::Datagrams { port, .. } | Self::Frame { port } => port,
        }
    }
}

/// What is known about a slot that is with the kernel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sending {
    pub(super) job: Job,
    /// The port's generation when it was queued.
    pub(super) generation: u16,
    /// Length of the whole run or frame.
    pub(super) bytes: u32,
    /// Writes that have not completed.
    pending: u16,
}

/// All slots.
#[derive(Debug)]
pub(super) struct Slots {
    arena: Arena,
    slot_bytes: usize,
    /// Lowest on top at the start and last in first out: the registered and the cached ones are used first.
    free: Vec<u16>,
    sending: Vec<Sending>,
}

impl Slots {
    /// Maps `count` slots of `slot_bytes`.
    pub(super) fn new(count: u16, slot_bytes: usize) -> io::Result<Self> {
        let count = count.max(1);
        let slot_bytes = slot_bytes.min(SPAN_MAX);
        let nothing = Sending {
            job: Job::Frame { port: 0 },
            generation: 0,
            bytes: 0,
            pending: 0,
        };
        Ok(Self {
            arena: Arena::new(slot_bytes * usize::from(count))?,
            slot_bytes,
            free: (0..count).rev().collect(),
            sending: vec![nothing; usize::from(count)],
        })
    }

    pub(super) const fn arena(&self) -> &Arena {
        &self.arena
    }

    pub(super) const fn slot_bytes(&self) -> usize {
        self.slot_bytes
    }

    pub(super) fn count(&self) -> usize {
        self.sending.len()
    }

    pub(super) fn free(&self) -> usize {
        self.free.len()
    }

    pub(super) fn take(&mut self) -> Option<SendSlot> {
        self.free.pop().map(SendSlot)
    }

    pub(super) fn give(&mut self, slot: SendSlot) {
        self.free.push(slot.0);
    }

    pub(super) fn bytes_mut(&mut self, slot: &SendSlot) -> &mut [u8] {
        let start = usize::from(slot.0) * self.slot_bytes;
        // SAFETY: a `SendSlot` exists only while the slot is neither free nor with the kernel, slots do not
        // overlap, and `&mut self` keeps the slice the only one.
        unsafe { self.arena.bytes_mut(start, self.slot_bytes) }
    }

    /// Two slots at once.
    pub(super) fn two_mut(&mut self, a: &SendSlot, b: &SendSlot) -> (&mut [u8], &mut [u8]) {
        assert_ne!(a.0, b.0, "a slot has one owner");
        let start = |slot: &SendSlot| usize::from(slot.0) * self.slot_bytes;
        // SAFETY: as in `bytes_mut`; the two slots are different and so do not overlap.
        let first = unsafe { self.arena.bytes_mut(start(a), self.slot_bytes) };
        // SAFETY: as above.
        let second = unsafe { self.arena.bytes_mut(start(b), self.slot_bytes) };
        (first, second)
    }

    /// Hands a slot over to the path; [`Slots::pend`] and [`Slots::done`] count its writes.
    pub(super) fn begin(&mut self, slot: SendSlot, bytes: usize, job: Job, ports: &Ports) -> u16 {
        let generation = ports.port(job.port()).generation;
        let bytes = u32::try_from(bytes).expect("a slot is shorter than SPAN_MAX");
        self.sending[usize::from(slot.0)] = Sending {
            job,
            generation,
            bytes,
            pending: 0,
        };
        slot.0
    }

    /// What a slot with the kernel is about.
    pub(super) fn sending(&self, slot: u16) -> Sending {
        self.sending[usize::from(slot)]
    }

    /// One more write of this slot is on its way.
    pub(super) fn pend(&mut self, slot: u16) {
        self.sending[usize::from(slot)].pending += 1;
    }

    /// One write is complete; the last one frees the slot.
    pub(super) fn done(&mut self, slot: u16) {
        let sending = &mut self.sending[usize::from(slot)];
        sending.pending -= 1;
        if sending.pending == 0 {
            self.free.push(slot);
        }
    }

    /// Address of a part of a slot, for the kernel to read.
    pub(super) fn address(&self, slot: u16, offset: usize) -> *const u8 {
        self.arena
            .address(usize::from(slot) * self.slot_bytes + offset)
    }

    /// See [`Arena::leak`].
    pub(super) const fn leak(&mut self) {
        self.arena.leak();
    }

    /// A part of a slot that is with the path but in no pending operation.
    pub(super) fn part(&self, slot: u16, offset: usize, bytes: usize) -> &[u8] {
        let start = usize::from(slot) * self.slot_bytes + offset;
        // SAFETY: the slot is between `begin` and its last `done`, so no caller holds a slice of it, and the
        // kernel only ever reads send slots.
        unsafe { self.arena.bytes_mut(start, bytes) }
    }
}

/// How many bytes of a run go into one write, given the segment that is set on the socket.
pub(super) fn stride(bytes: usize, segment: u16, socket_segment: u16) -> usize {
    if segment == 0 {
        return bytes;
    }
    let datagram = usize::from(segment);
    if segment != socket_segment {
        return datagram;
    }
    datagram * (RUN_BYTES_MAX / datagram).clamp(1, SEGMENTS_MAX)
}

/// Whether a run is cut by a control message: the kernel segments for this socket, but to another size.
pub(super) const fn cut_by_message(bytes: usize, segment: u16, socket_segment: u16) -> bool {
    let datagram = segment as usize;
    segment != 0
        && segment < socket_segment
        && bytes > datagram
        && bytes <= RUN_BYTES_MAX
        && bytes <= datagram * SEGMENTS_MAX
}

/// Whether this error of a segmented write means "not in one piece": EIO (no checksum offload on the way out),
/// EINVAL (the kernel or the device refuses), or a piece that was queued before the socket lost its segment
/// and so went out uncut.
pub(super) const fn refuses_segments(errno: i32, segment: u16, socket_segment: u16) -> bool {
    match errno {
        libc::EIO | libc::EINVAL => true,
        libc::EMSGSIZE => segment != socket_segment,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_free_again_after_its_last_write() {
        let mut slots = Slots::new(1, 10_000).unwrap();
        let mut ports = Ports::new(2, super::super::ZeroCopy::Auto);
        let fd = std::fs::File::open("/dev/null").unwrap().into();
        let port = ports.insert(super::super::ports::Kind::Tun, 0, fd).unwrap();
        let slot = slots.take().unwrap();
        slots.bytes_mut(&slot)[..3].copy_from_slice(b"abc");
        assert!(slots.take().is_none());
        let index = slots.begin(slot, 3, Job::Frame { port }, &ports);
        slots.pend(index);
        slots.pend(index);
        assert_eq!(slots.part(index, 1, 2), b"bc");
        slots.done(index);
        assert!(slots.take().is_none());
        slots.done(index);
        assert!(slots.take().is_some());
    }

    #[test]
    fn one_write_carries_a_run_only_when_the_socket_cuts_it_alike() {
        assert_eq!(stride(900, 0, 1_400), 900);
        assert_eq!(stride(14_077, 1_400, 1_400), 1_400 * 46);
        assert_eq!(stride(14_077, 1_400, 1_200), 1_400);
        assert_eq!(stride(14_077, 1_400, 0), 1_400);
        assert_eq!(stride(14_077, 100, 100), 6_400);
        // A segment beyond the limit still moves one datagram at a time.
        assert_eq!(stride(65_200, 65_100, 65_100), 65_100);
    }
}
