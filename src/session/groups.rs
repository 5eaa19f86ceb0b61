//! From a symbol's body to a group on the links: sources, repair symbols, copies, and symbols sent again.
//!
//! ```text
//! body ─► open group ─► pick a link ─► its queue
//!              │ closes: count, age
//!              └──────► repair symbols ─► pick ─► queue            lost, link left ─► resend ─► pick ─► queue
//! ```
//!
//! Never does: read frames, or send. A symbol that finds no link waits in `resend`.

use super::config::Mode;
use super::egress::{Class, Egress, REPAIR_MAX, RESEND_MAX, SMALL_BODY_BYTES};
use super::link::Queued;
use super::symbols::{LossVerdict, SymbolKey, SymbolKind};
use super::{Session, overhead};
use crate::base::{DropReason, GroupId, Instant};
use crate::fec::encoder::GroupParams;
use crate::fec::protection::Mode as FecMode;
use crate::wire::message::{SYMBOL_LENGTH_BYTES, SymbolHeader};

impl Session {
    /// Makes a source symbol of the first `bytes` of the body buffer and commits it.
    pub(super) fn commit_body(&mut self, bytes: usize, sparse: bool, now: Instant) {
        if sparse {
            self.commit_sparse(bytes, now);
            return;
        }
        let class = if bytes <= SMALL_BODY_BYTES {
            Class::Small
        } else {
            Class::Bulk
        };
        if self.egress.open[class as usize].is_empty() {
            let id = self.egress.store.open_group(now);
            self.egress.counts.groups += 1;
            self.egress.open[class as usize].start(id);
            self.egress.planned[class as usize] = self.planned_repairs();
        }
        let planned = self.egress.planned[class as usize];
        let open = &self.egress.open[class as usize];
        let (group, index) = (open.id(), u8::try_from(open.count()).unwrap_or(u8::MAX));
        let Some(key) = self.add_source(group, index, planned, bytes) else {
            self.drops.count(DropReason::NoBuffer);
            return;
        };
        self.egress.open[class as usize].push(key, bytes, now);
        if let Some(at) = self.pick(bytes, now) {
            self.commit_to(at, key, false, now);
            if self.config.mode == Mode::Redundant
                && let Some(second) = self.pick_other(at, bytes, now)
            {
                self.commit_to(second, key, false, now);
                self.egress.counts.duplicate += 1;
            }
        } else {
            self.push_resend(key);
        }
        let limits = self.group_limits();
        if self.egress.open[class as usize].count() >= limits.source_count_max {
            self.close_group(class, now);
        }
    }

    /// A sparse flow's symbol is a group of its own, ahead of the queues, with a copy on a second link.
    fn commit_sparse(&mut self, bytes: usize, now: Instant) {
        let group = self.egress.store.open_group(now);
        let copied = self.wants_copies();
        let key = self.add_source(group, 0, 0, bytes);
        self.egress.store.close_group(group);
        let Some(key) = key else {
            self.drops.count(DropReason::NoBuffer);
            return;
        };
        let (first, second) = self.pick_two_quick(bytes, now);
        match first {
            Some(first) => self.commit_to(first, key, true, now),
            None => self.push_resend(key),
        }
        if copied && let Some(second) = second {
            self.commit_to(second, key, true, now);
            self.egress.counts.duplicate += 1;
        }
    }

    fn add_source(
        &mut self,
        group: GroupId,
        index: u8,
        planned: usize,
        bytes: usize,
    ) -> Option<SymbolKey> {
        let repair_count = u8::try_from(planned).unwrap_or(u8::MAX);
        let header = SymbolHeader {
            group,
            index,
            source_count: 0,
            repair_count,
        };
        let Egress {
            store,
            body,
            counts,
            ..
        } = &mut self.egress;
        counts.source += 1;
        store.add(SymbolKind::Source, header, |slot| {
            let length = u16::try_from(bytes).unwrap_or(u16::MAX);
            slot[..SYMBOL_LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
            slot[SYMBOL_LENGTH_BYTES..SYMBOL_LENGTH_BYTES + bytes].copy_from_slice(&body[..bytes]);
            SYMBOL_LENGTH_BYTES + bytes
        })
    }

    /// Puts a symbol on the link of a candidate.
    fn commit_to(&mut self, at: usize, key: SymbolKey, urgent: bool, now: Instant) {
        let Some((_, _, symbol)) = self.egress.store.get(key) else {
            return;
        };
        let datagram_bytes = overhead::datagram_bytes(symbol.len());
        let link = self.candidates[at].link;
        if !self.links[link.index()].push(
            Queued {
                key,
                datagram_bytes,
            },
            urgent,
        ) {
            self.push_resend(key);
            return;
        }
        let candidate = &mut self.candidates[at];
        if !urgent {
            candidate.commit(overhead::wire_bytes(datagram_bytes), now);
        }
    }

    pub(super) fn push_resend(&mut self, key: SymbolKey) {
        if self.egress.resend.len() < RESEND_MAX {
            self.egress.resend.push_back(key);
        } else {
            self.drops.count(DropReason::Expired);
        }
    }

    /// Symbols to send again go first, oldest first, under the same rules as new ones.
    pub(super) fn commit_resends(&mut self, now: Instant) {
        while let Some(&key) = self.egress.resend.front() {
            if self.egress.store.is_wanted(key) {
                let Some((_, _, symbol)) = self.egress.store.get(key) else {
                    continue;
                };
                let bytes = symbol.len();
                if self.is_too_long(bytes) {
                    if !self.has_room(now) {
                        return;
                    }
                    self.egress.resend.pop_front();
                    self.egress.counts.resent += 1;
                    self.replace(key, now);
                    continue;
                }
                let Some(at) = self.pick(bytes, now) else {
                    return;
                };
                self.commit_to(at, key, false, now);
                self.egress.counts.resent += 1;
            }
            self.egress.resend.pop_front();
        }
    }

    /// Closes groups whose fill time is over.
    pub(super) fn close_due_groups(&mut self, now: Instant) {
        let fill_time_max = self.group_limits().fill_time_max;
        for class in [Class::Bulk, Class::Small] {
            let open = &self.egress.open[class as usize];
            if open.opened_at().is_some_and(|at| now >= at + fill_time_max) {
                self.refresh_candidates(now);
                self.close_group(class, now);
            }
        }
    }

    /// Ends the open group of a class: its repair symbols are made and committed.
    pub(super) fn close_group(&mut self, class: Class, now: Instant) {
        let GroupParams {
            id: group,
            source_count,
            symbol_bytes,
        } = self.egress.open[class as usize].params();
        let planned = self.egress.planned[class as usize];
        let (acked, _) = self.egress.store.acked_sources(group);
        let arrived = matches!(self.config.fec, FecMode::Adaptive { .. })
            && usize::from(acked) == source_count;
        let repair_count = if planned == 0 || arrived || self.is_too_long(symbol_bytes) {
            0
        } else {
            self.repairs_for(source_count).min(REPAIR_MAX)
        };
        if repair_count > 0 {
            self.encode_group(class, repair_count, symbol_bytes);
        }
        drop(self.egress.open[class as usize].take());
        for index in 0..repair_count {
            self.commit_repair(group, index, source_count, repair_count, symbol_bytes, now);
        }
        self.egress.store.close_group(group);
        if let LossVerdict::Resend(missing) = self.egress.store.deficit(group, 0) {
            self.resend_lost(group, missing);
        }
        self.refresh_size(now);
    }

    fn encode_group(&mut self, class: Class, repair_count: usize, symbol_bytes: usize) {
        let Egress {
            codec,
            store,
            open,
            repairs,
            ..
        } = &mut self.egress;
        let sources = open[class as usize]
            .sources()
            .iter()
            .map(|&key| store.get(key).map_or(&[][..], |(_, _, b)| b));
        let encoded = codec.encode(sources, repair_count, symbol_bytes, |index, symbol| {
            repairs[index * symbol_bytes..][..symbol_bytes].copy_from_slice(symbol);
        });
        debug_assert_eq!(encoded, Ok(()), "the shape of a group is ours");
    }

    fn commit_repair(
        &mut self,
        group: GroupId,
        index: usize,
        source_count: usize,
        repair_count: usize,
        symbol_bytes: usize,
        now: Instant,
    ) {
        let small = |n: usize| u8::try_from(n).unwrap_or(u8::MAX);
        let header = SymbolHeader {
            group,
            index: small(index),
            source_count: small(source_count),
            repair_count: small(repair_count),
        };
        let Egress { store, repairs, .. } = &mut self.egress;
        let key = store.add(SymbolKind::Repair, header, |slot| {
            slot[..symbol_bytes].copy_from_slice(&repairs[index * symbol_bytes..][..symbol_bytes]);
            symbol_bytes
        });
        let Some(key) = key else { return };
        self.egress.counts.repair += 1;
        if let Some(at) = self.pick_for_repair(symbol_bytes, now) {
            self.commit_to(at, key, false, now);
        }
    }

    /// Sends lost source symbols of a group again.
    pub(super) fn resend_lost(&mut self, group: GroupId, missing: u8) {
        for _ in 0..missing {
            match self.egress.store.take_lost_source(group) {
                Some(key) => self.push_resend(key),
                None => return,
            }
        }
    }
}
