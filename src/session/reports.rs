//! When we report what arrived, and by which link.
//!
//! Reports of all links with news leave together on the fastest link; while a link is in trouble a second link
//! carries a copy. Each heartbeat also carries the report of its own link: those give the link's own RTT.

use std::time::Duration;

use super::{Session, overhead};
use crate::base::id::LINKS_MAX;
use crate::base::{Instant, LinkId};
use crate::link::Report;
use crate::wire::report::{BITMAP_BYTES_MAX, REPORT_BYTES_MAX, ReportMessage};

/// Shortest time between two reports: fast enough to notice a dead link in tens of milliseconds.
const INTERVAL_MIN: Duration = Duration::from_millis(5);
/// Longest: the sender's estimates need several reports per round trip.
pub const INTERVAL_MAX: Duration = Duration::from_millis(25);
/// The same while a link brings more than a report tells of: 512 datagrams in this time are 6 Gbit/s.
const INTERVAL_FULL: Duration = Duration::from_millis(1);
/// Part of our sending rate that reports may take.
const SHARE: f64 = 0.01;

/// Reports waiting to leave.
#[derive(Debug)]
pub struct Reports {
    /// Built and not yet sent on all of `links`.
    pub messages: Vec<ReportMessage>,
    /// The last ones of epochs that ended, to leave before any other.
    last: Vec<ReportMessage>,
    /// Which links still carry a copy, and how many of the messages left on each.
    links: [Option<(LinkId, usize)>; 2],
    /// When the last were built.
    built_at: Instant,
    /// When the next may be built.
    pub next_at: Instant,
    /// Time between two.
    pub interval: Duration,
}

impl Reports {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            messages: Vec::with_capacity(2 * LINKS_MAX),
            last: Vec::with_capacity(LINKS_MAX),
            links: [None; 2],
            built_at: now,
            next_at: now,
            interval: INTERVAL_MIN,
        }
    }

    /// The waiting reports that this link carries and has not carried yet.
    pub fn waiting_for(&self, link: LinkId) -> &[ReportMessage] {
        let slot = self.links.iter().flatten().find(|(id, _)| *id == link);
        let left = slot.and_then(|(_, at)| self.messages.get(*at..));
        left.unwrap_or_default()
    }

    /// `count` of them were written to the link's datagram; the rest goes into its next one.
    pub fn on_written(&mut self, link: LinkId, count: usize) {
        for slot in &mut self.links {
            if let Some((id, at)) = slot
                && *id == link
            {
                *at += count;
                if *at >= self.messages.len() {
                    *slot = None;
                }
            }
        }
    }
}

impl Session {
    /// Builds the reports that are due; whether there are any.
    pub(super) fn collect_reports(&mut self, now: Instant) -> bool {
        // On fast links a report tells all it can long before the usual time is over, and what it cannot tell is lost.
        let earliest = if self.links.iter().any(|link| link.receiver.is_full()) {
            self.reports.built_at + INTERVAL_FULL
        } else {
            self.reports.next_at
        };
        if now < earliest {
            return false;
        }
        let due = self.links.iter().any(|l| l.receiver.report_due(now));
        if !due && !self.is_round_complete(now) {
            return false;
        }
        let links = self.report_links(now);
        if links[0].is_none() {
            return false;
        }
        self.reports.messages.clear();
        let Reports { messages, last, .. } = &mut self.reports;
        messages.append(last);
        for index in 0..self.links.len() {
            let id = self.links[index].id;
            if self.links[index].receiver.report_at().is_some()
                && let Some(report) = self.own_report(id, now)
            {
                self.reports.messages.push(report);
            }
        }
        self.reports.links = links.map(|link| link.map(|link| (link, 0)));
        let bytes = overhead::wire_bytes(60) as usize
            + self.reports.messages.len() * (REPORT_BYTES_MAX - 40);
        let budget = self.rate_sum().mul_f64(SHARE);
        self.reports.interval = budget
            .time_for(bytes as u64)
            .clamp(INTERVAL_MIN, INTERVAL_MAX);
        self.reports.next_at = now + self.reports.interval;
        self.reports.built_at = now;
        true
    }

    /// Keeps what is untold of a link's epoch that is about to end.
    pub(super) fn push_last_report(&mut self, id: LinkId, now: Instant) {
        let untold = self.links[id.index()].receiver.report_at().is_some();
        if untold
            && self.reports.last.len() < LINKS_MAX
            && let Some(report) = self.own_report(id, now)
        {
            self.reports.last.push(report);
        }
    }

    /// The report on one link; `None` before anything arrived on it.
    pub(super) fn own_report(&mut self, id: LinkId, now: Instant) -> Option<ReportMessage> {
        let report = self.links[id.index()].receiver.build_report(now)?;
        self.message_of(id, &report)
    }

    /// The same for a heartbeat, whose way may be dead: what it tells is told again with the other links' news.
    pub(super) fn own_report_again(&self, id: LinkId, now: Instant) -> Option<ReportMessage> {
        let report = self.links[id.index()].receiver.peek_report(now)?;
        self.message_of(id, &report)
    }

    fn message_of(&self, id: LinkId, report: &Report) -> Option<ReportMessage> {
        let (tag, largest) = self.epochs.received_position(id, report.largest)?;
        let (bitmap, bitmap_bytes) = bitmap_of(report, largest);
        Some(ReportMessage {
            link: id,
            epoch_tag: tag,
            largest,
            largest_sent_us: report.largest_sent_us,
            hold_us: report.hold_us,
            packets: report.packets,
            bytes: report.bytes,
            received_us: report.received_us,
            owd_min_us: report.owd_min_us,
            owd_last_us: report.owd_last_us,
            owd_max_us: report.owd_max_us,
            interval_ms: u8::try_from(self.reports.interval.as_millis() + 1).unwrap_or(u8::MAX),
            bitmap_bytes,
            bitmap,
        })
    }

    /// A report of the peer about what we sent.
    pub(super) fn on_report(&mut self, message: &ReportMessage, arrived_on: LinkId, now: Instant) {
        let Some(base) = self.epochs.sent_base(message.epoch_tag, message.link) else {
            return;
        };
        let Some(link) = self.links.get_mut(message.link.index()) else {
            return;
        };
        let mut seen = [0_u64; 8];
        for (index, byte) in message
            .bitmap
            .iter()
            .take(usize::from(message.bitmap_bytes))
            .enumerate()
        {
            seen[index / 8] |= u64::from(*byte) << (index % 8 * 8);
        }
        let report = Report {
            largest: base + message.largest,
            largest_sent_us: message.largest_sent_us,
            hold_us: message.hold_us,
            // A peer cannot have received more than was sent; its figures become our rate.
            packets: message.packets.min(link.sent.1),
            bytes: message.bytes.min(link.sent.0),
            received_us: message.received_us,
            owd_min_us: message.owd_min_us,
            owd_last_us: message.owd_last_us,
            owd_max_us: message.owd_max_us,
            seen,
            same_link: arrived_on == message.link,
        };
        // A peer cannot acknowledge what was never sent.
        if report.largest >= link.sent_next {
            return;
        }
        self.peer_interval = Duration::from_millis(u64::from(message.interval_ms));
        link.sender.set_report_interval(self.peer_interval);
        self.outcomes.clear();
        let before = link.sender.condition();
        let outcomes = &mut self.outcomes;
        let delivery = link
            .sender
            .on_report(&report, now, &mut |outcome| outcomes.push(outcome));
        let wan = link.wan;
        self.apply_outcomes(message.link, now);
        self.on_link_state(message.link.index(), before, now);
        if let Some(delivery) = delivery {
            self.on_delivery(wan, message.link, &delivery, now);
        }
    }
}

/// The bitmap as bytes, without the zeros at its end and without numbers before the epoch's first.
fn bitmap_of(report: &Report, largest: u64) -> ([u8; BITMAP_BYTES_MAX], u8) {
    let mut bytes = [0_u8; BITMAP_BYTES_MAX];
    for (chunk, word) in bytes.chunks_exact_mut(8).zip(report.seen) {
        chunk.copy_from_slice(&word.to_le_bytes());
    }
    let reach = usize::try_from(largest / 8 + 1)
        .unwrap_or(usize::MAX)
        .min(BITMAP_BYTES_MAX);
    let used = bytes[..reach]
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1);
    (bytes, u8::try_from(used).unwrap_or(u8::MAX))
}
