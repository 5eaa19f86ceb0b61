//! The reading half of the io_uring path: arming, and what a completed read or poll means.

use std::os::fd::AsFd;

use io_uring::types::Fixed;
use io_uring::{opcode, squeue};

use super::super::ports::{Kind, Port};
use super::super::ring::Completion;
use super::super::token::Token;
use super::super::{DatapathError, Handler, Shared, Stats, read_error};
use super::{DATAGRAMS_GROUP, FRAME_GROUP, UringPath};
use crate::sys::wake;

impl UringPath {
    /// Arms every read that has ended.
    pub(super) fn arm_reads(&mut self, shared: &mut Shared) {
        let mut due = std::mem::take(&mut self.reads_due);
        for token in due.drain(..) {
            self.arm(shared, token);
        }
        self.reads_due = due;
    }

    /// Arms every poll that has ended.
    pub(super) fn arm_polls(&mut self, shared: &mut Shared) {
        let mut due = std::mem::take(&mut self.polls_due);
        for token in due.drain(..) {
            self.arm(shared, token);
        }
        self.polls_due = due;
    }

    fn arm(&mut self, shared: &mut Shared, token: Token) {
        let (Token::Read {
            port: index,
            generation,
            ..
        }
        | Token::Poll {
            port: index,
            generation,
        }) = token
        else {
            return;
        };
        let Some(port) = shared.ports.live(index, generation) else {
            return;
        };
        let entry = match token {
            Token::Read { part, .. } => read_entry(port, index, part, &mut shared.stats),
            _ => opcode::PollAdd::new(Fixed(u32::from(index)), POLL_IN).build(),
        };
        shared.ports.port_mut(index).in_flight += 1;
        self.in_flight += 1;
        // SAFETY: multishot reads write to the groups' buffers, one-shot reads to this port's own buffers,
        // polls nowhere. The groups live longer than the ring; the port is kept while reads are in flight.
        unsafe { self.ring.push(entry, token, &mut shared.stats) };
    }

    /// Hands what was read to the handler and gives a provided buffer back.
    pub(super) fn on_read(
        &mut self,
        shared: &mut Shared,
        completion: Completion,
        index: u16,
        part: u8,
        handler: &mut impl Handler,
    ) -> Result<(), DatapathError> {
        let port = shared.ports.port(index);
        let group = if port.kind == Kind::Tun {
            &mut self.frames
        } else {
            &mut self.datagrams
        };
        let mut outcome = Ok(());
        match usize::try_from(completion.result) {
            // A datagram without content says nothing and ends a multishot read.
            Ok(0) => {}
            Ok(_) if port.closing => {}
            Ok(count) => {
                let bytes = match (completion.buffer(), &*group, &port.buffers) {
                    (Some(id), Some(group), _) => {
                        // SAFETY: this completion names the buffer, and it is recycled below only.
                        Some(unsafe { group.filled(id, count) })
                    }
                    (None, _, Some(own)) => {
                        let start = usize::from(part) * own.buffer_bytes;
                        // SAFETY: the one read that uses this part has completed and is not armed yet.
                        Some(unsafe { own.arena.bytes_mut(start, count) })
                    }
                    _ => None,
                };
                if let Some(bytes) = bytes {
                    deliver(port, bytes, &mut shared.stats, handler);
                }
            }
            Err(_) => outcome = read_error(port.kind, -completion.result, &mut shared.stats),
        }
        if let (Some(id), Some(group)) = (completion.buffer(), group) {
            group.recycle(id);
        }
        outcome
    }
}

/// The poll event "readable".
#[allow(clippy::cast_sign_loss)] // POLLIN is 1
const POLL_IN: u32 = libc::POLLIN as u32;

/// The operation that reads a port.
fn read_entry(port: &Port, index: u16, part: u8, stats: &mut Stats) -> squeue::Entry {
    let file = Fixed(u32::from(index));
    let Some(own) = &port.buffers else {
        return match port.kind {
            Kind::Tun => read_multi(file, FRAME_GROUP),
            Kind::Socket | Kind::Readable | Kind::Wake => {
                opcode::RecvMulti::new(file, DATAGRAMS_GROUP).build()
            }
        };
    };
    let address = own.arena.address(usize::from(part) * own.buffer_bytes);
    let bytes = u32::try_from(own.buffer_bytes).unwrap_or(u32::MAX);
    if own.fixed {
        stats.fixed_ops += 1;
        opcode::ReadFixed::new(file, address, bytes, index + 1).build()
    } else {
        opcode::Read::new(file, address, bytes).build()
    }
}

/// A multishot read of a registered file. io-uring 0.7.15 overwrites the entry's flags in `build`, which
/// would make it a read of the *descriptor* of that number, so the flag is set once more.
pub(in super::super) fn read_multi(file: Fixed, group: u16) -> squeue::Entry {
    opcode::ReadMulti::new(file, 0, group)
        .build()
        .flags(squeue::Flags::FIXED_FILE)
}

/// Hands bytes to the handler and counts them.
pub(in super::super) fn deliver(
    port: &Port,
    bytes: &mut [u8],
    stats: &mut Stats,
    handler: &mut impl Handler,
) {
    if port.kind == Kind::Tun {
        stats.tun_reads += 1;
        stats.tun_read_bytes += bytes.len() as u64;
        handler.on_frame(bytes);
    } else {
        stats.receives += 1;
        stats.receive_bytes += bytes.len() as u64;
        handler.on_datagrams(port.key, bytes);
    }
}

/// A descriptor became readable.
pub(super) fn on_poll(
    shared: &Shared,
    completion: Completion,
    index: u16,
    handler: &mut impl Handler,
) {
    let port = shared.ports.port(index);
    if port.closing || completion.result <= 0 {
        return;
    }
    if port.kind == Kind::Wake {
        if wake::take(port.fd.as_fd()) {
            handler.on_wake();
        }
    } else {
        handler.on_readable(port.key);
    }
}
