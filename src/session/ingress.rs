//! From an authenticated datagram to messages, and what they do.
//!
//! ```text
//! handle_datagram ─► open (replay, AEAD) ─► path, one-way delay ─► messages
//!    SYMBOL/REPAIR ─► decoder ─► new or recovered bodies ─► `deliver`
//!    REPORT ─► `reports`
//! ```
//!
//! Order of checks: index and epoch (endpoint), window, AEAD, window again, address, messages, FEC and reorder,
//! inner source address (endpoint).

use std::collections::VecDeque;
use std::time::Duration;

use super::deliver::Item;
use super::epochs::NUMBER_GAP;
use super::link::{Link, Opening};
use super::overdue::{OVERDUE_MAX, RESCUED_MAX};
use super::path::Origin;
use super::{Session, sender_config};
use crate::base::id::LANES;
use crate::base::{DropReason, Frame, FrameStore, GroupId, Instant, LinkId};
use crate::fec::decoder::{Decoder, GROUP_WINDOW};
use crate::link::owd::base_difference;
use crate::link::receiver::low_micros;
use crate::link::{History, Sender};
use crate::reorder::{self, hold};
use crate::stream::assembler::{Assembler, PartialId};
use crate::wire::header::DataHeader;
use crate::wire::message::{self, LinkOpen, Message};

/// Symbols the decoder may keep: 16 MiB at 1 KiB each, 80 ms at 2 Gbit/s.
const DECODER_SYMBOLS: u32 = 16_384;
/// Numbers may jump ahead by this without limit: losses do that.
pub(super) const STEPS_FREE: u64 = 256;

/// State of the receiving direction.
#[derive(Debug)]
pub struct Ingress {
    pub(super) frames: FrameStore,
    pub(super) decoder: Decoder,
    pub(super) assembler: Assembler,
    pub(super) reorder: reorder::Buffer<Item>,
    pub(super) rescued: VecDeque<Frame>,
    /// Frames whose time was over, until when their missing parts may still come.
    pub(super) overdue: VecDeque<(PartialId, Instant)>,
    /// Furthest group and sequences that came.
    newest_group: GroupId,
    pub(super) newest_seq: [u32; LANES],
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
            overdue: VecDeque::with_capacity(OVERDUE_MAX),
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
        let first = messages.clone().next();
        if let Some(Ok(symbol @ (Message::Symbol(..) | Message::Repair(..)))) = first {
            // It is the last message, and here the first: nothing else is in the datagram.
            self.note_datagram(epoch, id, (number, bytes), sent_us, false, now);
            return self.handle_message(id, &symbol, sent_us, now);
        }
        let is_report = |m: Result<Message<'_>, _>| matches!(m, Ok(Message::Report(_)));
        let quiet = messages.clone().all(is_report);
        self.note_datagram(epoch, id, (number, bytes), sent_us, quiet, now);
        // All of it or nothing.
        for message in messages.clone() {
            message?;
        }
        // The report behind a heartbeat is its own link's; others come with those of all links that have news.
        let (mut alone, mut told, mut reported) = (false, false, false);
        for message in messages {
            let message = message?;
            alone |= matches!(message, Message::Heartbeat);
            reported |= matches!(message, Message::Report(_));
            told |= !alone && reported;
            self.handle_message(id, &message, sent_us, now)?;
        }
        if reported {
            self.refresh_size(now);
        }
        if told {
            self.told_at = self.told_at.max(now - self.lateness(sent_us, now));
        }
        Ok(())
    }

    /// Books an authenticated datagram of a continuous number; `quiet`: it holds reports alone.
    fn note_datagram(
        &mut self,
        epoch: u32,
        id: LinkId,
        (number, bytes): (u64, usize),
        sent_us: u32,
        quiet: bool,
        now: Instant,
    ) {
        let link = &mut self.links[id.index()];
        let gap = number.saturating_sub(link.largest_received);
        if gap >= NUMBER_GAP && link.received.1 > 0 {
            // The first one of a new epoch: what is untold of the last one must be told before it.
            link.receiver.on_jump(gap - 1);
            self.push_last_report(id, now);
        }
        let link = &mut self.links[id.index()];
        let wire = super::overhead::wire_bytes(u32::try_from(bytes).unwrap_or(u32::MAX));
        if quiet {
            link.receiver.on_quiet_datagram(number, wire, sent_us, now);
        } else {
            link.receiver.on_datagram(number, wire, sent_us, now);
        }
        link.largest_received = link.largest_received.max(number);
        link.received.0 += u64::from(wire);
        link.received.1 += 1;
        self.last_received_at = now;
        self.confirm_epoch(epoch, now);
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
            self.idle.on_symbol(now);
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
