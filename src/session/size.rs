//! How long our datagrams are: as long as every link in use is known to carry.
//!
//! ```text
//!  link 0: validated 1472 ┐
//!  link 1: validated 1464 ├─ the least of those that may carry data ─► symbol size of the next group
//!  link 2: down           ┘
//! ```
//!
//! One size for all, because a group's repair symbols have one length and any link may take them; what a link beyond
//! the shortest could carry more is a few bytes in a hundred. It starts at what every path must carry and grows when
//! the first probes arrive, so that no path that carries less than its device says ever stops the data.
//!
//! The size grows between two groups. It shrinks at once: the open groups end without repair symbols, which would be
//! too long, and symbols that have to be sent again are cut anew.
//!
//! Only our sending direction: the peer takes datagrams of any length up to the agreed one.

use super::egress::Class;
use super::symbols::{SymbolKey, SymbolKind};
use super::{Event, Session, overhead};
use crate::base::{Instant, LinkId};
use crate::link::gso::Shape;
use crate::session::config::WIRE_OVERHEAD_BYTES;
use crate::stream::cut::fragments;
use crate::wire::message::SYMBOL_LENGTH_BYTES;
use crate::wire::piece::{self, FRAGMENT_HEADER_BYTES, Piece, pieces};
use crate::wire::virtio::VIRTIO_BYTES;

/// The size in use, and what the driver was told of it.
#[derive(Debug)]
pub struct Size {
    /// Longest datagram with a symbol.
    pub(super) datagram_bytes: usize,
    /// Longest body of a source symbol in it.
    pub(super) body_bytes: usize,
    /// By link: the last [`Event::SegmentChanged`].
    told: Vec<usize>,
    /// By link: its path was found to take less, and nobody was told yet.
    shrunk: Vec<bool>,
}

impl Size {
    pub(super) fn new(link_count: u8) -> Self {
        let links = usize::from(link_count);
        Self {
            datagram_bytes: overhead::DATAGRAM_BYTES_MIN,
            body_bytes: overhead::body_bytes_max(overhead::DATAGRAM_BYTES_MIN),
            told: vec![0; links],
            shrunk: vec![false; links],
        }
    }
}

impl Session {
    /// Our own host refuses datagrams of a link that are longer than `bytes`.
    pub fn limit_datagrams(&mut self, id: LinkId, bytes: usize, now: Instant) {
        let wire = overhead::wire_bytes(u32::try_from(bytes).unwrap_or(u32::MAX));
        if let Some(link) = self.links.get_mut(id.index())
            && link.sender.limit_size(wire, now)
        {
            self.size.shrunk[id.index()] = true;
            self.refresh_size(now);
        }
    }

    /// Follows what is known of the links' paths.
    pub(super) fn refresh_size(&mut self, now: Instant) {
        for index in 0..self.links.len() {
            if self.links[index].sender.take_black_hole() {
                // What waits there would vanish as well.
                self.size.shrunk[index] = true;
                self.move_off(index);
            }
        }
        let wanted = self.datagram_bytes_of_links(now);
        if wanted < self.size.datagram_bytes {
            self.set_size(wanted);
            // What the groups still send must not go to the link that was just left.
            self.refresh_candidates(now);
            for slot in 0..self.egress.open.len() {
                if !self.egress.open[slot].is_empty() {
                    self.close_group(slot, now);
                }
            }
        } else if wanted > self.size.datagram_bytes
            && self.egress.open[Class::Bulk as usize].is_empty()
        {
            self.set_size(wanted);
        }
    }

    fn set_size(&mut self, datagram_bytes: usize) {
        self.size.datagram_bytes = datagram_bytes;
        self.size.body_bytes = overhead::body_bytes_max(datagram_bytes);
        self.egress.limit_fragments(self.size.body_bytes);
    }

    /// What all links carry that may carry data; without such a link the size stays.
    fn datagram_bytes_of_links(&self, now: Instant) -> usize {
        let tier = self.usable_tier();
        let usable = (0..self.links.len())
            .filter(|&index| self.is_usable(index, tier, now) || self.is_pinned_to(index));
        usable
            .map(|index| validated(self.links[index].sender.size()))
            .min()
            .unwrap_or(self.size.datagram_bytes)
    }

    /// Length of the datagrams of a link that share a run. A socket refuses everything while its segment size is
    /// beyond what its device carries, so no link is told more than its own path takes.
    pub(super) fn segment_of(&self, index: usize) -> usize {
        let own = validated(self.links[index].sender.size());
        overhead::segment_bytes(own.min(self.size.datagram_bytes))
    }

    /// What the link's socket is to cut runs into; 0: nothing.
    fn segment_told(&self, index: usize) -> usize {
        match self.links[index].sender.run_shape() {
            Shape::On | Shape::Uneven => self.segment_of(index),
            Shape::Off => 0,
        }
    }

    pub(super) fn poll_segment(&mut self) -> Option<Event> {
        let index =
            (0..self.links.len()).find(|&at| self.size.told[at] != self.segment_told(at))?;
        let bytes = self.segment_told(index);
        self.size.told[index] = bytes;
        Some(Event::SegmentChanged {
            link: self.links[index].id,
            bytes,
            shrunk: std::mem::take(&mut self.size.shrunk[index]),
        })
    }

    /// Whether a symbol is longer than our datagrams have room for.
    pub(super) const fn is_too_long(&self, symbol_bytes: usize) -> bool {
        symbol_bytes > overhead::symbol_bytes_max(self.size.datagram_bytes)
    }

    /// Replaces a symbol that has become too long by shorter ones.
    pub(super) fn replace(&mut self, key: SymbolKey, now: Instant) {
        let Some((kind, _, symbol)) = self.egress.store.get(key) else {
            return;
        };
        if kind == SymbolKind::Repair {
            // A part of it is of no use: the group does without.
            if let Some(late) = self.egress.store.on_lost(key) {
                self.egress.late.push(late);
                self.mend_groups(None, now);
            }
            return;
        }
        let body = &symbol[SYMBOL_LENGTH_BYTES..];
        let route = self.egress.store.route_of(key);
        let bytes = body.len();
        self.recovered_body[..bytes].copy_from_slice(body);
        let late = self.egress.store.withdraw(key);
        let body = std::mem::take(&mut self.recovered_body);
        for piece in pieces(&body[..bytes]).flatten() {
            self.cut_piece(route, &piece, now);
        }
        self.recovered_body = body;
        if let Some(late) = late {
            self.egress.late.push(late);
            self.mend_groups(None, now);
        }
    }

    /// Commits a piece of an old body in bodies of the size in use.
    fn cut_piece(&mut self, route: usize, piece: &Piece<'_>, now: Instant) {
        let max = self.size.body_bytes;
        match *piece {
            Piece::Whole {
                lane,
                seq,
                virtio,
                packet,
            } if piece::whole_bytes(&virtio, packet, false) <= max => {
                let out = self.egress.store.body_room();
                let bytes = piece::emit_whole(out, lane, seq, &virtio, packet, false);
                self.commit_body(route, bytes, false, now);
            }
            Piece::Whole {
                lane,
                seq,
                virtio,
                packet,
            } => {
                let frame_bytes = VIRTIO_BYTES + packet.len();
                virtio.emit(&mut self.scratch);
                self.scratch[VIRTIO_BYTES..frame_bytes].copy_from_slice(packet);
                for cut in fragments(frame_bytes, max) {
                    let frame = &self.scratch[..frame_bytes];
                    let bytes = cut.emit(self.egress.store.body_room(), lane, seq, frame);
                    self.commit_body(route, bytes, false, now);
                }
            }
            Piece::Fragment {
                lane,
                seq,
                frame_bytes,
                mut offset,
                bytes,
            } => {
                for part in bytes.chunks(max - FRAGMENT_HEADER_BYTES) {
                    let out = self.egress.store.body_room();
                    let written =
                        piece::emit_fragment(out, lane, seq, frame_bytes, offset, part, false);
                    offset += part.len();
                    self.commit_body(route, written, false, now);
                }
            }
        }
    }
}

/// Datagram bytes of a size on the wire.
fn validated(wire_bytes: u32) -> usize {
    usize::try_from(wire_bytes.saturating_sub(WIRE_OVERHEAD_BYTES)).unwrap_or(usize::MAX)
}
