//! The writing half of the io_uring path: runs and frames become writes, refused runs become single datagrams.

use std::os::fd::AsFd;

use io_uring::opcode;
use io_uring::types::Fixed;

use super::super::slots::{Job, refuses_segments, stride};
use super::super::token::Token;
use super::super::{Handler, Shared};
use super::{SEND_BUFFER, UringPath};
use crate::sys::udp;

impl UringPath {
    /// Turns a slot's job into writes.
    pub(in super::super) fn queue(&mut self, shared: &mut Shared, slot: u16) {
        let sending = shared.slots.sending(slot);
        let whole = sending.bytes as usize;
        match sending.job {
            Job::Frame { port } => {
                shared.stats.tun_writes += 1;
                self.push_write(shared, port, slot, (0, whole), false);
            }
            Job::Datagrams { port, segment } => {
                let set = shared.ports.port(port).segment;
                let stride = stride(whole, segment, set);
                if set != 0 && set != segment && stride.min(whole) > usize::from(set) {
                    // The socket would cut it; only a control message can say "not this one".
                    shared.slots.pend(slot);
                    self.oversize.push(slot);
                    return;
                }
                self.push_run(shared, (port, segment), slot, (0, whole), stride);
            }
        }
    }

    /// Pushes a part of a run in writes of `stride` bytes.
    fn push_run(
        &mut self,
        shared: &mut Shared,
        (port, segment): (u16, u16),
        slot: u16,
        (mut offset, mut left): (usize, usize),
        stride: usize,
    ) {
        while left > 0 {
            let bytes = stride.min(left);
            let several = segment != 0 && bytes > usize::from(segment);
            shared.stats.sends += 1;
            shared.stats.gso_sends += u64::from(several);
            shared.stats.send_bytes += bytes as u64;
            self.push_write(shared, port, slot, (offset, bytes), several);
            offset += bytes;
            left -= bytes;
        }
    }

    fn push_write(
        &mut self,
        shared: &mut Shared,
        port: u16,
        slot: u16,
        (offset, bytes): (usize, usize),
        several: bool,
    ) {
        let address = shared.slots.address(slot, offset);
        let file = Fixed(u32::from(port));
        // Both are below SPAN_MAX, as the slot is.
        let offset = u32::try_from(offset).unwrap_or(u32::MAX);
        let length = u32::try_from(bytes).unwrap_or(u32::MAX);
        let entry = if slot < self.fixed_slots {
            shared.stats.fixed_ops += 1;
            opcode::WriteFixed::new(file, address, length, SEND_BUFFER).build()
        } else {
            opcode::Write::new(file, address, length).build()
        };
        shared.slots.pend(slot);
        self.in_flight += 1;
        self.ring.note_write();
        let token = Token::Write {
            slot,
            offset,
            bytes: length,
            several,
        };
        // SAFETY: the slot stays with the kernel, unwritten, until its last pending write has completed, and
        // the slots' arena is unmapped only after the path has drained.
        unsafe { self.ring.push(entry, token, &mut shared.stats) };
    }

    /// A write has completed; a refused run is pushed again, datagram by datagram.
    pub(super) fn on_write(
        &mut self,
        shared: &mut Shared,
        result: i32,
        slot: u16,
        (offset, bytes): (usize, usize),
        several: bool,
        handler: &mut impl Handler,
    ) {
        if result >= 0 {
            return;
        }
        let errno = -result;
        let sending = shared.slots.sending(slot);
        let Job::Datagrams {
            port: index,
            segment,
        } = sending.job
        else {
            shared.stats.tun_errors += 1;
            handler.on_tun_error(errno, shared.slots.part(slot, offset, bytes));
            return;
        };
        let Some(port) = shared.ports.live(index, sending.generation) else {
            shared.stats.send_errors += 1;
            return;
        };
        let (key, set) = (port.key, port.segment);
        if several && refuses_segments(errno, segment, set) {
            if set == segment {
                shared.stats.demotions += 1;
                shared.ports.port_mut(index).set_segment(0);
            }
            let each = usize::from(segment);
            self.push_run(shared, (index, segment), slot, (offset, bytes), each);
            return;
        }
        shared.stats.send_errors += 1;
        handler.on_send_error(key, errno, bytes);
    }

    /// Sends by a system call what the ring cannot: datagrams longer than their socket's segment.
    pub(super) fn send_oversize(&mut self, shared: &mut Shared, handler: &mut impl Handler) {
        while let Some(slot) = self.oversize.pop() {
            let sending = shared.slots.sending(slot);
            if let Job::Datagrams { port, segment } = sending.job
                && let Some(port) = shared.ports.live(port, sending.generation)
            {
                let whole = shared.slots.part(slot, 0, sending.bytes as usize);
                let each = if segment == 0 {
                    whole.len()
                } else {
                    usize::from(segment)
                };
                for datagram in whole.chunks(each) {
                    shared.stats.sends += 1;
                    shared.stats.send_bytes += datagram.len() as u64;
                    if let Err(errno) = udp::send_whole(port.fd.as_fd(), datagram) {
                        shared.stats.send_errors += 1;
                        handler.on_send_error(port.key, errno, datagram.len());
                    }
                }
            }
            shared.slots.done(slot);
        }
    }
}
