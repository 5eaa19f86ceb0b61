//! The last step before the TUN: packets of a flow that follow each other become one superframe, and superframes
//! that the kernel refuses become packets again.
//!
//! ```text
//!   poll_frame ─► slot ─► follows a train? ─► appended, the slot is used again
//!                           │ no: it may start one (small packets) ─► waits until the round of frames is over
//!                           └────────────────────────────────────────► written
//!   refused (EINVAL) ─► taken apart ─► its packets are written in the next round
//! ```
//!
//! Never holds anything over a turn, never changes the order of a flow, never allocates after the start.

use crate::stream::merge::{Flow, Train};
use crate::stream::segment;
use crate::sys::datapath::SendSlot;
use crate::sys::{Datapath, Offloads};
use crate::wire::virtio::{GSO_UDP_L4, VirtioHeader};

/// Flows that may have a train at one time; each takes a send slot.
const TRAINS_MAX: usize = 16;
/// Frames longer than an ordinary packet are superframes already, or jumbo packets, which are few.
const PACKET_BYTES_MAX: usize = 2_048;
/// Room to take a frame apart: one frame, and what its packets need for headers of their own.
const PARTS_BYTES: usize = 3 * 65_536;
/// Packets that are kept of refused frames; more are lost, as all of them were without this.
const PARTS_MAX: usize = 512;

/// A train that waits for the end of the round.
#[derive(Debug)]
struct Waiting {
    flow: Flow,
    train: Train,
    slot: SendSlot,
}

/// What was done to frames, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LandingStats {
    /// Packets that were appended to another one.
    pub merged: u64,
    /// Packets made of superframes that the kernel refused.
    pub split: u64,
}

/// Frames on their way to the TUN.
#[derive(Debug)]
pub struct Landing {
    /// Oldest first.
    trains: Vec<Waiting>,
    tcp: bool,
    udp: bool,
    parts: Vec<u8>,
    /// Lengths of the packets in `parts`.
    lengths: Vec<usize>,
    scratch: Vec<u8>,
    stats: LandingStats,
}

impl Landing {
    /// For a device with these offloads: what it hands out as superframes it also takes.
    pub fn new(offloads: Offloads) -> Self {
        Self {
            trains: Vec::with_capacity(TRAINS_MAX),
            tcp: offloads.tcp_segmentation(),
            udp: offloads.udp_segmentation(),
            parts: Vec::with_capacity(PARTS_BYTES),
            lengths: Vec::with_capacity(PARTS_MAX),
            scratch: vec![0; crate::sys::datapath::SLOT_BYTES],
            stats: LandingStats::default(),
        }
    }

    /// What was done so far.
    pub const fn stats(&self) -> LandingStats {
        self.stats
    }

    /// Takes a frame of `bytes` bytes; gives its slot back when that is free again.
    pub fn take(
        &mut self,
        slot: SendSlot,
        bytes: usize,
        datapath: &mut Datapath,
    ) -> Option<SendSlot> {
        let frame = &datapath.slot_bytes(&slot)[..bytes];
        let Some(flow) = Flow::of(frame) else {
            // It might be part of anything that waits, a fragment for example.
            self.finish(datapath);
            datapath.write_tun(slot, bytes);
            return None;
        };
        if let Some(at) = self.trains.iter().position(|w| w.flow == flow) {
            let waiting = &mut self.trains[at];
            let (held, next) = datapath.two_slots(&waiting.slot, &slot);
            if waiting.train.append(held, &next[..bytes]) {
                self.stats.merged += 1;
                if waiting.train.is_closed() {
                    let waiting = self.trains.remove(at);
                    write(waiting, datapath);
                }
                return Some(slot);
            }
            let waiting = self.trains.remove(at);
            write(waiting, datapath);
        }
        let frame = &datapath.slot_bytes(&slot)[..bytes];
        match Train::start(frame) {
            Some(train)
                if bytes <= PACKET_BYTES_MAX
                    && !train.is_closed()
                    && (if train.is_udp() { self.udp } else { self.tcp }) =>
            {
                if self.trains.len() == TRAINS_MAX {
                    let oldest = self.trains.remove(0);
                    write(oldest, datapath);
                }
                self.trains.push(Waiting { flow, train, slot });
            }
            _ => datapath.write_tun(slot, bytes),
        }
        None
    }

    /// Writes all that waits.
    pub fn finish(&mut self, datapath: &mut Datapath) {
        for waiting in self.trains.drain(..) {
            write(waiting, datapath);
        }
    }

    /// The kernel refused a frame with EINVAL. A superframe is taken apart, and no more of its kind are made.
    /// Returns whether its packets will be written.
    pub fn refused(&mut self, frame: &[u8]) -> bool {
        let Ok((virtio, _)) = VirtioHeader::split(frame) else {
            return false;
        };
        if !virtio.is_superframe() {
            return false;
        }
        if virtio.gso_kind() == GSO_UDP_L4 {
            self.udp = false;
        } else {
            self.tcp = false;
        }
        let Self {
            parts,
            lengths,
            scratch,
            ..
        } = self;
        let before = lengths.len();
        segment::split(frame, scratch, |part| {
            if lengths.len() < PARTS_MAX && parts.len() + part.len() <= PARTS_BYTES {
                parts.extend_from_slice(part);
                lengths.push(part.len());
            }
        });
        let kept = self.lengths.len() - before;
        self.stats.split += kept as u64;
        kept > 0
    }

    /// Writes packets of refused frames as long as there are slots.
    pub fn write_parts(&mut self, datapath: &mut Datapath) {
        let (mut count, mut start) = (0, 0);
        for &bytes in &self.lengths {
            let Some(slot) = datapath.send_slot() else {
                break;
            };
            datapath.slot_bytes(&slot)[..bytes].copy_from_slice(&self.parts[start..start + bytes]);
            datapath.write_tun(slot, bytes);
            count += 1;
            start += bytes;
        }
        self.lengths.drain(..count);
        self.parts.drain(..start);
    }
}

fn write(waiting: Waiting, datapath: &mut Datapath) {
    let Waiting { train, slot, .. } = waiting;
    let bytes = train.finish(datapath.slot_bytes(&slot));
    datapath.write_tun(slot, bytes);
}

#[cfg(test)]
#[path = "landing_tests.rs"]
mod tests;
