//! What a session tells about itself.

use std::time::Duration;

use super::Session;
use super::config::{WIRE_OVERHEAD_BYTES, WanRole};
use super::egress::SymbolCounts;
use super::policy::Standing;
use crate::base::{DropCounters, Instant, LinkId, Rate};
use crate::fec::decoder::DecoderCounters;
use crate::link::{Cause, Percentiles, State};
use crate::reorder;

/// Snapshot of a session.
#[derive(Clone, Debug)]
pub struct SessionStats {
    /// Age of the keys in use.
    pub key_age: Duration,
    /// By link.
    pub links: Vec<LinkStats>,
    /// Symbols sent.
    pub symbols: SymbolCounts,
    /// Groups and symbols received.
    pub decoder: DecoderCounters,
    /// Items in the reorder buffer.
    pub reorder_depth: u64,
    /// Repair symbols that a full group gets at present.
    pub repair_count: usize,
    /// Reorder buffer.
    pub reorder: reorder::Counters,
    /// How long a hole is waited for.
    pub hold: Duration,
    /// How long frames waited for their turn lately: from the read of the socket that completed them to the write
    /// of the TUN.
    pub waits: Percentiles,
    /// How long frames were with us lately on their way out: from the read of the TUN to the seal of the datagram.
    pub residence: Percentiles,
    /// Frames and bytes taken from the TUN.
    pub accepted: (u64, u64),
    /// Frames and bytes handed to the TUN.
    pub delivered: (u64, u64),
    /// Frames saved from broken superframes.
    pub rescued_frames: u64,
    /// Bytes waiting in the flow queue.
    pub queued_bytes: u64,
    /// Memory in use.
    pub held: Held,
    /// Longest datagram with a symbol that we send at present.
    pub datagram_bytes: usize,
    /// Part of the summed capacity in use.
    pub load: f64,
    /// Striping mode.
    pub mode: &'static str,
    /// Discards by reason.
    pub drops: DropCounters,
}

/// What a session keeps at a moment, as numbers of slots in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Frames from the TUN that are not sent yet.
    pub frames_out: usize,
    /// Frames for the TUN, whole or in parts.
    pub frames_in: usize,
    /// Symbols that are not acknowledged.
    pub symbols_out: usize,
    /// Symbols kept to recover others from.
    pub symbols_in: usize,
    /// Places taken in the reorder buffer.
    pub reorder: usize,
}

/// Snapshot of one link.
#[derive(Clone, Debug)]
pub struct LinkStats {
    /// Number.
    pub id: LinkId,
    /// Its WAN.
    pub wan_id: crate::base::WanId,
    /// Name of its WAN.
    pub wan: String,
    /// Peer's address, where known.
    pub remote: Option<std::net::SocketAddr>,
    /// What its WAN is used for.
    pub role: WanRole,
    /// Both ends know the link.
    pub open: bool,
    /// Whether it may carry data when it is up, and why not.
    pub standing: Standing,
    /// State of our sending direction.
    pub state: State,
    /// Why.
    pub cause: Cause,
    /// For how long.
    pub state_age: Duration,
    /// Believed capacity of the WAN, our sending direction.
    pub capacity: Rate,
    /// What the rate control is doing.
    pub phase: &'static str,
    /// Bytes and datagrams sent, headers included.
    pub sent: (u64, u64),
    /// Bytes and datagrams received.
    pub received: (u64, u64),
    /// The link's own round trip.
    pub rtt: Percentiles,
    /// One-way delay of our sending direction above its base.
    pub delay_out: Percentiles,
    /// One-way delay of our receiving direction above its base.
    pub delay_in: Percentiles,
    /// Least queueing delay of our sending direction in the last 50 ms.
    pub queue: Duration,
    /// Loss ratio of our sending direction.
    pub loss_out: f64,
    /// Numbers missing of our receiving direction, and received ones.
    pub missing_in: (u64, u64),
    /// Symbols this link lost.
    pub lost_symbols: u64,
    /// Striping weight as part of all.
    pub share: f64,
    /// Times it was suspected.
    pub suspicions: u64,
    /// Longest datagram that is known to arrive, our sending direction; 0 = not even the least size does, and the
    /// link carries no data.
    pub datagram_bytes: u32,
    /// Which runs leave as one segmented send.
    pub gso: &'static str,
    /// Times that long datagrams began to vanish.
    pub black_holes: u64,
}

impl Session {
    /// A snapshot. Not for the packet path.
    pub fn stats(&mut self, now: Instant) -> SessionStats {
        self.refresh_candidates(now);
        let weights: f64 = self
            .candidates
            .iter()
            .map(|candidate| candidate.weight)
            .sum();
        let links = (0..self.links.len())
            .map(|at| self.link_stats(at, weights, now))
            .collect();
        SessionStats {
            key_age: self
                .established_at()
                .map_or(Duration::ZERO, |at| now.since(at)),
            links,
            symbols: self.egress.counts,
            decoder: self.ingress.decoder.counters(),
            reorder_depth: self.ingress.reorder.len() as u64,
            repair_count: self.planned_repairs(0),
            reorder: *self.ingress.reorder.counters(),
            hold: self.hold,
            waits: *self.ingress.waits.refresh(now),
            residence: *self.egress.residence.refresh(now),
            accepted: self.accepted,
            delivered: self.ingress.delivered,
            rescued_frames: self.rescued_frames,
            queued_bytes: self.egress.queued_bytes(),
            held: Held {
                frames_out: self.egress.frames.used(),
                frames_in: self.ingress.frames.used(),
                symbols_out: self.egress.store.usage().0,
                symbols_in: self.ingress.decoder.symbols_held(),
                reorder: self.ingress.reorder.len(),
            },
            datagram_bytes: self.size.datagram_bytes,
            load: self.load.value(),
            mode: self.config.mode.name(),
            drops: self.drops.clone(),
        }
    }

    fn link_stats(&mut self, at: usize, weights: f64, now: Instant) -> LinkStats {
        let standing = self.standing(&self.links[at]);
        let link = &mut self.links[at];
        let wan = &self.wans[link.wan.index()];
        let weight = self
            .candidates
            .iter()
            .find(|c| c.link == link.id)
            .map_or(0.0, |c| c.weight);
        let delay_in = *link.receiver.delay(now);
        LinkStats {
            id: link.id,
            wan_id: link.wan,
            wan: wan.config.name.clone(),
            remote: link.path.origin().map(|origin| origin.address),
            role: wan.config.role,
            open: link.is_open(),
            standing,
            state: link.sender.state(),
            cause: link.sender.cause(),
            state_age: now.since(link.sender.since()),
            capacity: wan.whole_capacity(),
            phase: wan.phase().name(),
            sent: link.sent,
            received: link.received,
            rtt: *link.sender.rtt(),
            delay_out: *link.sender.delay_history().snapshot(),
            delay_in,
            queue: link.sender.queue_min(),
            loss_out: link.sender.loss().ratio,
            missing_in: (link.receiver.missing(), link.received.1),
            lost_symbols: link.lost_symbols,
            share: if weights > 0.0 { weight / weights } else { 0.0 },
            suspicions: link.sender.counters().suspicions,
            gso: link.sender.run_shape().name(),
            datagram_bytes: if link.sender.is_narrow() {
                0
            } else {
                link.sender.size().saturating_sub(WIRE_OVERHEAD_BYTES)
            },
            black_holes: link.sender.black_holes(),
        }
    }

    /// Authenticated datagrams so far.
    pub fn received_datagrams(&self) -> u64 {
        self.links.iter().map(|link| link.received.1).sum()
    }

    /// Ends the session: the next datagram says so.
    pub fn close(&mut self) {
        self.closing = 2; // on two links, should one of them be dead
    }
}
