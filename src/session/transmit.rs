//! From committed symbols and due messages to sealed datagrams.
//!
//! Order in one call: challenges to unproven addresses, control messages, probes of a path, symbols of sparse flows,
//! then a paced run of one link. A run is contiguous in the caller's buffer: full datagrams of one size and at most one
//! shorter at the end, so that one UDP_SEGMENT send carries it.

use std::net::SocketAddr;
use std::time::Duration;

use super::config::WIRE_OVERHEAD_BYTES;
use super::link::{self, Link};
use super::path::Origin;
use super::symbols::SymbolKey;
use super::wan::LOSS_UNIT;
use super::{Session, overhead};
use crate::base::{DropReason, Instant, LinkId};
use crate::link::gso::Shape;
use crate::link::receiver::low_micros;
use crate::wire::header::{DATA_HEADER_BYTES, DATA_OVERHEAD_BYTES, TAG_BYTES};
use crate::wire::message::{LinkOpen, Message, Writer};

/// Datagrams in one run: the kernel's limit of segments.
pub const RUN_DATAGRAMS_MAX: usize = 64;
/// Bytes in one run: below the kernel's 65 507 for the whole send.
pub const RUN_BYTES_MAX: usize = 65_000;

/// What a datagram holds, as far as its fate matters.
#[derive(Clone, Copy, Debug)]
enum Carried {
    /// This symbol: sent again if it is lost.
    Symbol(SymbolKey),
    /// Something the peer reports about soon.
    Control,
    /// Reports alone, which nobody reports about by themselves.
    Reports,
    /// Nothing, in length: whether it arrives tells how long datagrams may be.
    Probe,
}

/// One send: datagrams in the caller's buffer, contiguous.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// The link that carries it.
    pub link: LinkId,
    /// Where to; `None` = the link's connected socket.
    pub to: Option<Origin>,
    /// Bytes in the buffer.
    pub bytes: usize,
    /// Size of each datagram but the last; equal to `bytes` when there is one.
    pub segment: u16,
}

/// A link that carries the peer's reports is quiet when two of them failed to come and this much time passed.
const QUIET_EXTRA: Duration = Duration::from_millis(5);

impl Transmit {
    /// The address to use when the link has no connected socket.
    pub fn address(&self) -> Option<SocketAddr> {
        self.to.map(|origin| origin.address)
    }
}

impl Session {
    /// Writes the next datagrams to `out` (at least [`RUN_BYTES_MAX`] long). `None` = nothing may be sent now.
    pub fn poll_transmit(&mut self, now: Instant, out: &mut [u8]) -> Option<Transmit> {
        self.epochs.current()?;
        if let Some(transmit) = self.poll_challenge(now, out) {
            return Some(transmit);
        }
        if let Some(transmit) = self.poll_control(now, out) {
            return Some(transmit);
        }
        if let Some(transmit) = self.poll_probe(now, out) {
            return Some(transmit);
        }
        self.commit(now);
        self.poll_urgent(now, out)
            .or_else(|| self.poll_run(now, out))
    }

    fn poll_challenge(&mut self, now: Instant, out: &mut [u8]) -> Option<Transmit> {
        for index in 0..self.links.len() {
            if !self.may_seal(self.links[index].id, now) {
                continue;
            }
            let link = &mut self.links[index];
            let Some((origin, token)) = link.path.poll_challenge(now) else {
                continue;
            };
            let id = link.id;
            let acknowledge = std::mem::take(&mut link.pending.ack);
            let mut writer = plaintext(out, now);
            if acknowledge {
                writer.push(&Message::LinkAck(id));
            }
            writer.push(&Message::PathChallenge(token));
            let length = writer.len();
            let bytes = self.seal(id, length, out, Carried::Control, now)?;
            return Some(single(id, Some(origin), bytes));
        }
        None
    }

    /// One control datagram: what the link has to say, and the reports that go over it.
    fn poll_control(&mut self, now: Instant, out: &mut [u8]) -> Option<Transmit> {
        let reporting = self.collect_reports(now);
        self.align_beats(reporting, now);
        for index in 0..self.links.len() {
            let id = self.links[index].id;
            if !self.may_seal(id, now) || !self.links[index].is_reachable() {
                continue;
            }
            let mut writer = plaintext(out, now);
            let carried = self.write_control(id, &mut writer, now);
            if writer.is_empty() {
                continue;
            }
            let length = writer.len();
            let to = self.links[index].path.origin();
            let bytes = self.seal(id, length, out, carried, now)?;
            return Some(single(id, to, bytes));
        }
        None
    }

    fn write_control(&mut self, id: LinkId, writer: &mut Writer<'_>, now: Instant) -> Carried {
        // Control messages must pass whatever the path takes.
        let (room, link) = (
            overhead::DATAGRAM_BYTES_MIN - DATA_OVERHEAD_BYTES,
            &mut self.links[id.index()],
        );
        if link.poll_open(now) {
            let wan = &self.wans[link.wan.index()].config;
            let kbit = |rate: Option<crate::base::Rate>| {
                rate.map_or(0, |rate| {
                    u32::try_from(rate.bits_per_s() / 1000).unwrap_or(u32::MAX)
                })
            };
            writer.push(&Message::LinkOpen(LinkOpen {
                link: id,
                wan: link.wan,
                role: wan.role,
                direction: wan.direction,
                rate_to_peer_kbit: kbit(wan.rate_to_peer),
                rate_to_sender_kbit: kbit(wan.rate_to_us),
                rtt_max_ms: wan
                    .limits
                    .rtt_max
                    .map_or(0, |rtt| u16::try_from(rtt.as_millis()).unwrap_or(u16::MAX)),
                loss_max_bp: wan.limits.loss_max.map_or(0, loss_on_wire),
                name: &wan.name,
            }));
        }
        if std::mem::take(&mut link.pending.ack) {
            writer.push(&Message::LinkAck(id));
        }
        if self.closing > 0 && link.is_open() {
            self.closing -= 1;
            writer.push(&Message::Close(0));
        }
        if let Some(token) = link.pending.response.take() {
            writer.push(&Message::PathResponse(token));
        }
        let mut carried = if writer.is_empty() {
            Carried::Reports
        } else {
            Carried::Control
        };
        let mut written = 0;
        for report in self.reports.waiting_for(id) {
            if writer.len() + crate::wire::report::REPORT_BYTES_MAX > room
                || !writer.push(&Message::Report(*report))
            {
                break;
            }
            written += 1;
        }
        self.reports.on_written(id, written);
        let link = &mut self.links[id.index()];
        if std::mem::take(&mut link.beat) || link.sender.wants_heartbeat(now) {
            writer.push(&Message::Heartbeat);
            carried = Carried::Control;
            if let Some(report) = self.own_report_again(id, now)
                && writer.len() + crate::wire::report::REPORT_BYTES_MAX <= room
            {
                writer.push(&Message::Report(report));
            }
        }
        carried
    }

    /// A probe of a link's path, paced like data.
    fn poll_probe(&mut self, now: Instant, out: &mut [u8]) -> Option<Transmit> {
        for index in 0..self.links.len() {
            let link = &self.links[index];
            let (id, to) = (link.id, link.path.origin());
            let Some(wire) = link.probe_wanted() else {
                continue;
            };
            if !self.may_seal(id, now) || self.wans[link.wan.index()].pacer.allowance(now) == 0 {
                continue;
            }
            let bytes = wire.saturating_sub(WIRE_OVERHEAD_BYTES) as usize;
            let mut writer = plaintext(out, now);
            writer.push(&Message::Heartbeat);
            let used = DATA_OVERHEAD_BYTES + writer.len() + 1;
            let fits = writer.push(&Message::Padding(bytes.saturating_sub(used)));
            debug_assert!(fits, "the buffer holds a run");
            let length = writer.len();
            let bytes = self.seal(id, length, out, Carried::Probe, now)?;
            return Some(single(id, to, bytes));
        }
        None
    }

    /// Symbols of sparse flows leave at once; the pacer is told, not asked.
    fn poll_urgent(&mut self, now: Instant, out: &mut [u8]) -> Option<Transmit> {
        for index in 0..self.links.len() {
            while let Some(queued) = link::pop(&mut self.links[index].urgent) {
                let id = self.links[index].id;
                if let Some(bytes) = self.seal_symbol(id, queued.key, out, now) {
                    return Some(single(id, self.links[index].path.origin(), bytes));
                }
            }
        }
        None
    }

    /// The next run of a WAN whose pacer allows it. WANs take turns.
    fn poll_run(&mut self, now: Instant, out: &mut [u8]) -> Option<Transmit> {
        for turn in 0..self.wans.len() {
            let wan = (self.next_wan + turn) % self.wans.len();
            let allowance = self.wans[wan].pacer.allowance(now);
            if allowance == 0 {
                continue;
            }
            for step in 0..self.links.len() {
                let index = (self.wans[wan].next_link + step) % self.links.len();
                if self.links[index].wan.index() != wan || !self.links[index].is_due(now) {
                    continue;
                }
                if let Some(transmit) = self.build_run(index, allowance, now, out) {
                    self.wans[wan].next_link = index + 1;
                    self.next_wan = wan + 1;
                    return Some(transmit);
                }
            }
        }
        None
    }

    fn build_run(
        &mut self,
        index: usize,
        allowance: u64,
        now: Instant,
        out: &mut [u8],
    ) -> Option<Transmit> {
        let (id, to) = (self.links[index].id, self.links[index].path.origin());
        let full = self.segment_of(index);
        let shape = self.links[index].sender.run_shape();
        // Where the last may not be as long as the others, there is room for one more, which is short.
        let reserve = usize::from(shape == Shape::Uneven);
        let bytes_max = RUN_BYTES_MAX.min(out.len()) - reserve * full;
        let (mut used, mut first, mut last, mut count) = (0, 0, 0, 0);
        while let Some(queued) = self.links[index].queue.front().copied() {
            let bytes = queued.datagram_bytes as usize;
            let fits = count == 0
                || (used + bytes <= bytes_max
                    && count < RUN_DATAGRAMS_MAX - reserve
                    && bytes <= first
                    && (used as u64) < allowance);
            if !fits || queued.not_before > now {
                break;
            }
            let link = &mut self.links[index];
            link::pop(&mut link.queue);
            link.queued_bytes = link
                .queued_bytes
                .saturating_sub(u64::from(queued.datagram_bytes));
            let Some(bytes) = self.seal_symbol(id, queued.key, &mut out[used..], now) else {
                continue;
            };
            first = if count == 0 { bytes } else { first };
            last = bytes;
            used += bytes;
            count += 1;
            // Only what is as long as the first may be followed by another, and what is longer than the socket's
            // segment goes by itself.
            if bytes != first || bytes > full {
                break;
            }
        }
        if shape == Shape::Uneven && count > 1 && last == first {
            let bytes = self.seal_trailer(id, &mut out[used..], now).unwrap_or(0);
            (used, last, count) = (used + bytes, bytes, count + usize::from(bytes > 0));
        }
        if shape != Shape::Off && count > 1 {
            let sender = &mut self.links[index].sender;
            sender.on_run(count as u64, last == first);
        }
        let segment = u16::try_from(first).unwrap_or(u16::MAX);
        (count > 0).then_some(Transmit {
            link: id,
            to,
            bytes: used,
            segment,
        })
    }

    /// Seals a short datagram that ends a run of equal ones.
    fn seal_trailer(&mut self, id: LinkId, out: &mut [u8], now: Instant) -> Option<usize> {
        let mut writer = plaintext(out, now);
        writer.push(&Message::Heartbeat);
        let length = writer.len();
        self.seal(id, length, out, Carried::Control, now)
    }

    /// Seals the symbol behind a key, from where it lies, to the start of `out`; `None` when nobody needs it.
    fn seal_symbol(
        &mut self,
        id: LinkId,
        key: SymbolKey,
        out: &mut [u8],
        now: Instant,
    ) -> Option<usize> {
        let plaintext = self.egress.store.plaintext(key, low_micros(now))?;
        let bytes = plaintext.len() + DATA_OVERHEAD_BYTES;
        let keys = self.epochs.current_mut()?.links.get_mut(id.index())?;
        let index = keys.receiver_index;
        let Ok(number) = keys.seal.seal_from(index, plaintext, &mut out[..bytes]) else {
            self.drops.count(DropReason::EpochExpired);
            return None;
        };
        let number = keys.sent_base + number;
        self.book(id, number, bytes, Carried::Symbol(key), now);
        if let Some(since) = self.egress.store.take_since(key) {
            self.egress.residence.record(now.since(since), now);
        }
        Some(bytes)
    }

    /// Whether the keys in use still seal for a link. They end for one link alone when it has sealed all it may.
    pub(super) fn may_seal(&self, id: LinkId, now: Instant) -> bool {
        let keys = self.epochs.current();
        keys.is_some_and(|keys| keys.can_seal(id, now))
    }

    /// Seals a plaintext that lies behind the header's room; `None` when the keys are used up.
    fn seal(
        &mut self,
        id: LinkId,
        plaintext_bytes: usize,
        out: &mut [u8],
        carried: Carried,
        now: Instant,
    ) -> Option<usize> {
        let bytes = DATA_HEADER_BYTES + plaintext_bytes + TAG_BYTES;
        let keys = self.epochs.current_mut()?.links.get_mut(id.index())?;
        let index = keys.receiver_index;
        let Ok(packet_number) = keys.seal.seal(index, &mut out[..bytes]) else {
            self.drops.count(DropReason::EpochExpired);
            return None;
        };
        let number = keys.sent_base + packet_number;
        self.book(id, number, bytes, carried, now);
        Some(bytes)
    }

    /// Books a sealed datagram with everyone who counts what leaves.
    fn book(&mut self, id: LinkId, number: u64, bytes: usize, carried: Carried, now: Instant) {
        let wire = overhead::wire_bytes(u32::try_from(bytes).unwrap_or(u32::MAX));
        let link = &mut self.links[id.index()];
        link.sent_next = number + 1;
        link.sent.0 += u64::from(wire);
        link.sent.1 += 1;
        self.outcomes.clear();
        let outcomes = &mut self.outcomes;
        let on = &mut |outcome| outcomes.push(outcome);
        match carried {
            Carried::Symbol(key) => link.sender.on_transmit(number, wire, now, Some(key), on),
            Carried::Control => link.sender.on_transmit(number, wire, now, None, on),
            Carried::Reports => link.sender.on_transmit_quiet(number, wire, now, on),
            Carried::Probe => link.sender.on_transmit_probe(number, wire, now, on),
        }
        let wan = link.wan;
        self.apply_outcomes(id, now);
        self.load.on_transmit(u64::from(wire));
        let pacer = &mut self.wans[wan.index()].pacer;
        match carried {
            Carried::Symbol(_) | Carried::Probe => {
                pacer.on_transmit(u64::from(wire), now);
                self.on_data_sent(wan, u64::from(wire), now);
                self.idle.on_symbol(now);
            }
            Carried::Control | Carried::Reports => {
                pacer.on_transmit_unasked(u64::from(wire), now);
            }
        }
    }

    /// Links that may carry reports: the fastest up link whose WAN is not to be spared, or the one of its WAN that was heard
    /// last, and one of another WAN while any link is in trouble. Nothing says that our reports are lost, but where the peer's own no longer come
    /// from ours probably do not arrive.
    pub(super) fn report_links(&self, now: Instant) -> [Option<LinkId>; 2] {
        let key = |link: &&Link| {
            let sparing = self.sparing(link);
            (!link.sender.flows(), sparing, self.delay_of(link))
        };
        let open = || self.links.iter().filter(|link| link.is_open());
        // The peer may prefer another link of the WAN, and then this one is silent without being dead.
        let fastest = open().min_by_key(key);
        let siblings = |link: &&Link| {
            fastest.is_some_and(|f| f.wan == link.wan && f.sender.flows() == link.sender.flows())
        };
        let first = open()
            .filter(siblings)
            .max_by_key(|link| link.receiver.last_at());
        // What happens to a link mostly happens to its whole WAN.
        let other = |link: &&Link| first.is_some_and(|first| first.wan != link.wan);
        let quiet = self.peer_interval * 2 + QUIET_EXTRA;
        let troubled = first.is_some_and(|link| now.since(link.receiver.last_at()) > quiet)
            || open().any(|link| !link.sender.flows());
        // A burst of losses outlasts what a report can tell of, and what no report told of is never repaired. It is no
        // reason to spend what a backup costs.
        let in_bursts = first.is_some_and(|link| link.sender.loss().in_bursts());
        let tier = self.usable_tier();
        let wanted =
            |link: &&Link| troubled || in_bursts && self.tier_of(link).is_some_and(|of| of == tier);
        let second = open().filter(other).filter(wanted).min_by_key(key);
        [first, second].map(|link| link.map(|link| link.id))
    }
}

/// A loss limit in hundredths of a percent.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // saturates, >= 0
fn loss_on_wire(ratio: f64) -> u16 {
    (ratio * LOSS_UNIT).round() as u16
}

fn plaintext(out: &mut [u8], now: Instant) -> Writer<'_> {
    let end = out.len() - TAG_BYTES;
    Writer::new(&mut out[DATA_HEADER_BYTES..end], low_micros(now))
}

fn single(link: LinkId, to: Option<Origin>, bytes: usize) -> Transmit {
    Transmit {
        link,
        to,
        bytes,
        segment: u16::try_from(bytes).unwrap_or(u16::MAX),
    }
}
