//! The writing half of the io_uring path: runs and frames become writes, refused runs become single datagrams.

use std::os::fd::AsFd;

use io_uring::opcode;
use io_uring::types::Fixed;

use super::super::ring::Completion;
use super::super::slots::{Job, cut_by_message, refuses_segments, stride};
use super::super::token::Token;
use super::super::{Handler, Shared};
use super::{SEND_BUFFER, UringPath};
use crate::sys::udp;

/// `IORING_SEND_ZC_REPORT_USAGE`: notifications say whether the kernel has copied.
const SEND_ZC_REPORT_USAGE: u16 = 1 << 3;
/// `IORING_NOTIF_USAGE_ZC_COPIED`: it has.
const NOTIF_USAGE_ZC_COPIED: u32 = 1 << 31;

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
                if cut_by_message(whole, segment, set) {
                    self.push_message(shared, (port, segment), slot, whole);
                    return;
                }
                self.push_run(shared, (port, segment), slot, (0, whole), stride);
            }
        }
    }

    /// Pushes a run of another size than the socket's in one send.
    fn push_message(
        &mut self,
        shared: &mut Shared,
        (port, segment): (u16, u16),
        slot: u16,
        bytes: usize,
    ) {
        let address = shared.slots.address(slot, 0);
        let header = self.messages.fill(slot, address, bytes, segment);
        let entry = opcode::SendMsg::new(Fixed(u32::from(port)), header).build();
        shared.stats.sends += 1;
        shared.stats.gso_sends += 1;
        shared.stats.send_bytes += bytes as u64;
        shared.slots.pend(slot);
        self.in_flight += 1;
        self.ring.note_write();
        let token = Token::Write {
            slot,
            offset: 0,
            bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
            several: true,
        };
        // SAFETY: the header and the slot stay as they are until the send has completed; the slot's arena and the
        // headers are dropped only after the path has drained.
        unsafe { self.ring.push(entry, token, &mut shared.stats) };
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
        // With half of the slots on loan to a slow device the rest must not wait for it as well.
        let lendable = shared.slots.free() * 2 >= shared.slots.count();
        let wanted = several && shared.ports.port(port).zero_copy.wants(bytes);
        if wanted && lendable && slot < self.fixed_slots {
            let token = Token::ZeroCopy {
                slot,
                offset,
                bytes: length,
            };
            let entry = opcode::SendZc::new(file, address, length)
                .buf_index(Some(SEND_BUFFER))
                .zc_flags(SEND_ZC_REPORT_USAGE)
                .build();
            shared.stats.fixed_ops += 1;
            shared.stats.zero_copy_sends += 1;
            shared.slots.pend(slot);
            self.in_flight += 1;
            self.ring.note_write();
            // SAFETY: as below; the last completion is the notification that the kernel is done with the memory.
            unsafe { self.ring.push(entry, token, &mut shared.stats) };
            return;
        }
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
            let for_good = matches!(errno, libc::EIO | libc::EINVAL) && segment <= set;
            if set == segment || for_good {
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

    /// A send without a copy has completed, or the kernel is done with its memory.
    pub(super) fn on_zero_copy(
        &mut self,
        shared: &mut Shared,
        completion: Completion,
        slot: u16,
        part: (usize, usize),
        handler: &mut impl Handler,
    ) {
        let sending = shared.slots.sending(slot);
        let port = sending.job.port();
        let live = shared.ports.live(port, sending.generation).is_some();
        if completion.notification() {
            let copied = completion.result.cast_unsigned() & NOTIF_USAGE_ZC_COPIED != 0;
            shared.stats.zero_copy_copied += u64::from(copied);
            if live
                && shared
                    .ports
                    .port_mut(port)
                    .zero_copy
                    .on_notification(copied)
            {
                shared.stats.zero_copy_ended += 1;
            }
        } else if live && matches!(-completion.result, libc::EOPNOTSUPP | libc::ENOMEM) {
            // No such thing on this socket, or too many pages pinned: the run leaves as any other does.
            shared.ports.port_mut(port).zero_copy.refuse();
            shared.stats.zero_copy_ended += 1;
            self.push_write(shared, port, slot, part, true);
        } else {
            self.on_write(shared, completion.result, slot, part, true, handler);
        }
        if !completion.more() {
            self.in_flight -= 1;
            shared.slots.done(slot);
        }
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
