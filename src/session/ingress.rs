//! From an authenticated datagram to frames for the TUN.
//!
//! ```text
//! handle_datagram ─► open (replay, AEAD) ─► path, one-way delay ─► messages
//!    SYMBOL/REPAIR ─► decoder ─► new or recovered bodies ─► pieces ─► whole frame ──────────► reorder ─► poll_frame
//!                                                            └► fragment ─► assembler ─(whole)─┘  │
//!                                     a hole's time is over: what is whole of a broken superframe ─┘
//! ```
//!
//! Order of checks: index and epoch (endpoint), window, AEAD, window again, address, messages, FEC and reorder,
//! inner source address (endpoint).

use std::collections::VecDeque;
use std::time::Duration;

use super::epochs::NUMBER_GAP;
use super::link::{Link, Opening};
use super::path::Origin;
use super::{Session, sender_config};
use crate::base::id::LANES;
use crate::base::{DropReason, FRAME_BYTES_MAX, Frame, FrameStore, GroupId, Instant, Lane, LinkId};
use crate::fec::decoder::{Decoder, GROUP_WINDOW};
use crate::link::owd::base_difference;
use crate::link::receiver::low_micros;
use crate::link::{History, Sender};
use crate::reorder::{self, hold};
use crate::stream::assembler::{Assembler, PartialId, Progress};
use crate::stream::segment;
use crate::wire::header::DataHeader;
use crate::wire::message::{self, LinkOpen, Message};
use crate::wire::piece::{Piece, pieces};
use crate::wire::virtio::{VIRTIO_BYTES, VirtioHeader};

/// Symbols the decoder may keep: 16 MiB at 1 KiB each, 80 ms at 2 Gbit/s.
const DECODER_SYMBOLS: u32 = 16_384;
/// Frames rescued from one broken superframe that may wait: at most one for each of its segments.
const RESCUED_MAX: usize = 64;

/// Numbers may jump ahead by this without limit: losses do that.
const STEPS_FREE: u64 = 256;

/// What the reorder buffer holds.
#[derive(Debug)]
pub enum Item {
    /// A whole frame.
    Whole(Frame),
    /// Fragments; the assembler has them.
    Partial(PartialId),
}

/// State of the receiving direction.
#[derive(Debug)]
pub struct Ingress {
    pub(super) frames: FrameStore,
    pub(super) decoder: Decoder,
    assembler: Assembler,
    pub(super) reorder: reorder::Buffer<Item>,
    rescued: VecDeque<Frame>,
    /// Furthest group and sequences that came.
    newest_group: GroupId,
    newest_seq: [u32; LANES],
    /// Frames and bytes handed out.
    pub(super) delivered: (u64, u64),
    /// When the hold time is computed next.
    hold_at: Instant,
    /// How long frames waited for their turn.
    pub(super) waits: History,
}

impl Ingress {
    pub(super) fn new(body_bytes_max: usize, now: Instant) -> Self {
        Self {
            frames: FrameStore::default(),
            decoder: Decoder::new(body_bytes_max, DECODER_SYMBOLS),
            assembler: Assembler::new(),
            reorder: reorder::Buffer::new(reorder::WINDOW),
            rescued: VecDeque::with_capacity(RESCUED_MAX),
            newest_group: GroupId(0),
            newest_seq: [0; LANES],
            delivered: (0, 0),
            hold_at: now,
            waits: History::new(now),
        }
    }
}

impl Session {
    /// Takes a DATA datagram of the epoch `epoch` for `link`.
    ///
    /// # Errors
    /// Why all or a part of it was dropped; the caller counts it.
    pub fn handle_datagram(
        &mut self,
        epoch: u32,
        id: LinkId,
        datagram: &mut [u8],
        origin: Option<Origin>,
        now: Instant,
    ) -> Result<(), DropReason> {
        let header = DataHeader::parse(datagram)?;
        let bytes = datagram.len();
        let link = self
            .links
            .get_mut(id.index())
            .ok_or(DropReason::UnknownIndex)?;
        let (number, plaintext) =
            self.epochs
                .open(epoch, id, &header, datagram, link.largest_received, now)?;
        link.path
            .on_datagram(origin, number, bytes, now, || self.tokens.next_bytes());
        let (sent_us, messages) = message::parse(plaintext)?;
        let gap = number.saturating_sub(link.largest_received);
        if gap >= NUMBER_GAP && link.received.1 > 0 {
            // The first one of a new epoch: what is untold of the last one must be told before it.
            link.receiver.on_jump(gap - 1);
            self.push_last_report(id, now);
        }
        let link = &mut self.links[id.index()];
        let wire = super::overhead::wire_bytes(u32::try_from(bytes).unwrap_or(u32::MAX));
        let reports = |m: Result<Message<'_>, _>| matches!(m, Ok(Message::Report(_)));
        if messages.clone().all(reports) {
            link.receiver.on_quiet_datagram(number, wire, sent_us, now);
        } else {
            link.receiver.on_datagram(number, wire, sent_us, now);
        }
        link.largest_received = link.largest_received.max(number);
        link.received.0 += u64::from(wire);
        link.received.1 += 1;
        self.last_received_at = now;
        self.confirm_epoch(epoch, now);
        // All of it or nothing.
        for message in messages.clone() {
            message?;
        }
        // The report behind a heartbeat is its own link's; others come with those of all links that have news.
        let (mut alone, mut told) = (false, false);
        for message in messages {
            let message = message?;
            alone |= matches!(message, Message::Heartbeat);
            told |= !alone && matches!(message, Message::Report(_));
            self.handle_message(id, &message, sent_us, now)?;
        }
        if told {
            self.told_at = self.told_at.max(now - self.lateness(sent_us, now));
        }
        Ok(())
    }

    fn confirm_epoch(&mut self, epoch: u32, now: Instant) {
        let links = &self.links;
        self.epochs.confirm(epoch, now, |id| {
            links.get(id.index()).map_or(0, |link| link.sent_next)
        });
    }

    fn handle_message(
        &mut self,
        id: LinkId,
        message: &Message<'_>,
        sent_us: u32,
        now: Instant,
    ) -> Result<(), DropReason> {
        let is_symbol = matches!(message, Message::Symbol(..) | Message::Repair(..));
        if is_symbol {
            self.links[id.index()].symbol_at = Some(now);
        }
        if !is_symbol && !self.control_limit.take(1, now) {
            return Err(DropReason::ControlLimited);
        }
        match message {
            Message::Symbol(header, body) => {
                self.check_group(header.group, now)?;
                let keep = header.repair_count > 0;
                self.ingress
                    .decoder
                    .on_source(header.group, header.index, body, keep, now)?;
                // As if it had come by the fastest link: what waits behind a hole waits from when it was sent.
                let since = now - self.lateness(sent_us, now);
                let delivered = self.deliver_body(body, since, now);
                self.deliver_recovered(now);
                delivered
            }
            Message::Repair(header, symbol) => {
                self.check_group(header.group, now)?;
                let (k, r) = (header.source_count, header.repair_count);
                self.ingress
                    .decoder
                    .on_repair(header.group, k, r, header.index, symbol, now)?;
                self.deliver_recovered(now);
                Ok(())
            }
            Message::Report(report) => {
                self.on_report(report, id, now);
                Ok(())
            }
            Message::LinkOpen(open) => self.on_link_open(id, open, now),
            Message::LinkAck(link) if *link == id && self.initiator => {
                self.links[id.index()].on_open_acknowledged();
                Ok(())
            }
            Message::LinkAck(_) => Err(DropReason::BadFrame),
            Message::PathChallenge(token) => {
                self.links[id.index()].pending.response = Some(*token);
                Ok(())
            }
            Message::PathResponse(token) => {
                self.on_path_response(id, *token, now);
                Ok(())
            }
            Message::Close(_) => {
                self.closed_by_peer = true;
                Ok(())
            }
            Message::Heartbeat | Message::Padding(_) => Ok(()),
        }
    }

    /// Refuses groups that jump ahead too often: each makes the decoder forget what it jumps over.
    fn check_group(&mut self, group: GroupId, now: Instant) -> Result<(), DropReason> {
        let ahead = group.distance_from(self.ingress.newest_group);
        let Ok(ahead @ 1..) = u64::try_from(ahead) else {
            return Ok(());
        };
        let steps = if ahead <= STEPS_FREE {
            0
        } else {
            ahead.min(GROUP_WINDOW as u64)
        };
        if !self.steps_limit.take(steps, now) {
            return Err(DropReason::ControlLimited);
        }
        self.ingress.newest_group = group;
        Ok(())
    }

    /// The same for sequences of a lane, whose ring has four windows.
    fn check_sequence(&mut self, lane: Lane, seq: u32, now: Instant) -> bool {
        let newest = &mut self.ingress.newest_seq[lane.index() % LANES];
        let ahead = seq.wrapping_sub(*newest);
        if ahead > u32::MAX / 2 {
            return true; // behind
        }
        let ring = u64::from(4 * reorder::WINDOW);
        let steps = if u64::from(ahead) <= STEPS_FREE {
            0
        } else {
            u64::from(ahead).min(ring)
        };
        let may = self.steps_limit.take(steps, now);
        if may {
            *newest = seq;
        }
        may
    }

    fn on_path_response(&mut self, id: LinkId, token: [u8; 8], now: Instant) {
        let link = &mut self.links[id.index()];
        let first = !link.path.is_validated();
        if !link.path.on_response(token, now) {
            return;
        }
        if first {
            // Its time of trial begins here: until now only challenges could be sent.
            let config = sender_config(&self.config, self.datagram_bytes_max);
            link.sender = Sender::new(config, now);
        } else {
            link.sender.restart_size();
        }
        self.changed_paths.push_back(id);
    }

    fn on_link_open(
        &mut self,
        id: LinkId,
        open: &LinkOpen<'_>,
        now: Instant,
    ) -> Result<(), DropReason> {
        if open.link != id || self.role_is_initiator() || open.wan.index() >= self.wans.len() {
            return Err(DropReason::BadFrame);
        }
        let link = &mut self.links[id.index()];
        link.pending.ack = true;
        if link.opening != Opening::Open {
            link.opening = Opening::Open;
            link.wan = open.wan;
        }
        // A client that was reloaded tells its ceilings and roles again; a link never changes its WAN.
        let wan = link.wan;
        self.wans[wan.index()].describe(open, now);
        self.name_routes();
        Ok(())
    }

    fn deliver_recovered(&mut self, now: Instant) {
        while let Some(recovered) = self.ingress.decoder.poll_recovered() {
            let bytes = recovered.body.len();
            self.recovered_body[..bytes].copy_from_slice(recovered.body);
            let body = std::mem::take(&mut self.recovered_body);
            if let Err(reason) = self.deliver_body(&body[..bytes], now, now) {
                self.drops.count(reason);
            }
            self.recovered_body = body;
        }
    }

    /// Takes a body apart; `since`: when its frames begin to wait for those before them.
    fn deliver_body(
        &mut self,
        body: &[u8],
        since: Instant,
        now: Instant,
    ) -> Result<(), DropReason> {
        for piece in pieces(body) {
            match piece? {
                Piece::Whole {
                    lane,
                    seq,
                    virtio,
                    packet,
                } => {
                    let frame = self
                        .ingress
                        .frames
                        .take(VIRTIO_BYTES + packet.len())
                        .ok_or(DropReason::NoBuffer)?;
                    let out = self.ingress.frames.bytes_mut(&frame);
                    virtio.emit(out);
                    out[VIRTIO_BYTES..].copy_from_slice(packet);
                    // Refused headers still take their place in the lane, or their hole would be waited for.
                    self.insert((lane, seq), Item::Whole(frame), since, now);
                }
                Piece::Fragment {
                    lane,
                    seq,
                    frame_bytes,
                    offset,
                    bytes,
                } => {
                    let place = (lane, seq);
                    let (whole, part) = (frame_bytes, (offset, bytes));
                    self.insert_fragment(place, whole, part, since, now)?;
                }
            }
        }
        Ok(())
    }

    fn insert_fragment(
        &mut self,
        (lane, seq): (Lane, u32),
        frame_bytes: usize,
        (offset, bytes): (usize, &[u8]),
        since: Instant,
        now: Instant,
    ) -> Result<(), DropReason> {
        if frame_bytes > FRAME_BYTES_MAX {
            return Err(DropReason::BadFrame);
        }
        let Ingress {
            assembler,
            frames,
            reorder,
            ..
        } = &mut self.ingress;
        match assembler.insert(frames, lane, seq, frame_bytes, offset, bytes)? {
            Progress::Started(id) => self.insert((lane, seq), Item::Partial(id), since, now),
            Progress::More(_) => {}
            Progress::Complete(frame) => {
                let seq = reorder.expand(lane, seq);
                if let Some(item) = reorder.get_mut(lane, seq) {
                    *item = Item::Whole(frame);
                    let _ = reorder.mark_ready(lane, seq);
                } else {
                    // The lane gave its partial form up, or the frame has one fragment only.
                    self.insert((lane, seq), Item::Whole(frame), since, now);
                }
            }
        }
        Ok(())
    }

    fn insert(&mut self, (lane, seq): (Lane, u32), item: Item, since: Instant, now: Instant) {
        let ready = matches!(item, Item::Whole(_));
        let seq = self.ingress.reorder.expand(lane, seq);
        if !self.check_sequence(lane, seq, now) {
            self.drops.count(DropReason::ControlLimited);
            return self.discard(item);
        }
        let Ingress { reorder, .. } = &mut self.ingress;
        if let Err((reason, item)) = reorder.insert_since(lane, seq, item, ready, since, now) {
            self.drops.count(reason);
            self.discard(item);
        }
    }

    fn discard(&mut self, item: Item) {
        match item {
            Item::Whole(frame) => self.ingress.frames.give(frame),
            Item::Partial(id) => {
                let _ = self.ingress.assembler.discard(&mut self.ingress.frames, id);
            }
        }
    }

    /// Copies the next frame for the TUN to `out` and returns its length. `None` = nothing is ready.
    pub fn poll_frame(&mut self, now: Instant, out: &mut [u8]) -> Option<usize> {
        loop {
            let frame = match self.ingress.rescued.pop_front() {
                Some(frame) => frame,
                None => {
                    let released = self.ingress.reorder.poll(now)?;
                    self.ingress.waits.record(released.held, now);
                    match released.item {
                        Item::Whole(frame) => frame,
                        Item::Partial(id) => {
                            self.rescue(id);
                            continue;
                        }
                    }
                }
            };
            if let Some(bytes) = self.hand_out(frame, out) {
                return Some(bytes);
            }
        }
    }

    /// Copies a frame out; `None` when its virtio header would deceive the kernel.
    fn hand_out(&mut self, frame: Frame, out: &mut [u8]) -> Option<usize> {
        let bytes = frame.len();
        out[..bytes].copy_from_slice(self.ingress.frames.bytes(&frame));
        self.ingress.frames.give(frame);
        let valid =
            VirtioHeader::split(&out[..bytes]).and_then(|(virtio, packet)| virtio.validate(packet));
        if let Err(reason) = valid {
            self.drops.count(reason);
            return None;
        }
        self.ingress.delivered.0 += 1;
        self.ingress.delivered.1 += bytes as u64 - VIRTIO_BYTES as u64;
        Some(bytes)
    }

    /// Saves the complete segments of a superframe that will not become whole.
    fn rescue(&mut self, id: PartialId) {
        let Ingress {
            assembler,
            frames,
            rescued,
            ..
        } = &mut self.ingress;
        let Some(partial) = assembler.take(id) else {
            return;
        };
        let bytes = partial.frame.len();
        self.scratch[..bytes].copy_from_slice(frames.bytes(&partial.frame));
        frames.give(partial.frame);
        let mut saved = 0_u32;
        segment::rescue(
            &self.scratch[..bytes],
            &partial.coverage,
            &mut self.rescue_buffer,
            |segments| {
                if rescued.len() < RESCUED_MAX
                    && let Some(frame) = frames.store(segments)
                {
                    rescued.push_back(frame);
                    saved += 1;
                }
            },
        );
        self.drops.count(DropReason::IncompleteFrame);
        self.rescued_frames += u64::from(saved);
    }

    /// How much later a datagram came than it would have by the fastest link: what it tells is as much older.
    fn lateness(&self, sent_us: u32, now: Instant) -> Duration {
        let owd = low_micros(now).wrapping_sub(sent_us).cast_signed();
        let above = |link: &Link| base_difference(i64::from(owd), link.receiver.base_us());
        let live = self.links.iter().filter(|link| link.received.1 > 0);
        let most = live.map(above).max().unwrap_or(0);
        Duration::from_micros(u64::try_from(most).unwrap_or(0))
    }

    /// Recomputes the hold time from the delays measured lately.
    pub(super) fn refresh_hold(&mut self, now: Instant) {
        const INTERVAL_MS: u64 = 20;
        if now < self.ingress.hold_at {
            return;
        }
        self.ingress.hold_at = now + Duration::from_millis(INTERVAL_MS);
        let inputs = self.hold_inputs(now);
        let mut hold = hold::hold_time(&inputs);
        self.peer_hold = hold;
        if let Some(max) = self.config.reorder_max {
            hold = hold.min(max);
        }
        self.hold = hold;
        self.ingress.reorder.set_hold(hold);
    }

    /// When [`Session::refresh_hold`] is due; it matters only while something is held.
    pub(super) fn hold_timeout(&self) -> Instant {
        self.ingress.reorder.poll_timeout()
    }
}
