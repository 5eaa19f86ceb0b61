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
use super::egress::{Class, Egress, GROUP_CLASSES, REPAIR_MAX, RESEND_MAX, SMALL_BODY_BYTES};
use super::link::Queued;
use super::symbols::{LossVerdict, SymbolKey, SymbolKind};
use super::{Session, overhead};
use crate::base::{DropReason, GroupId, Instant};
use crate::fec::encoder::GroupParams;
use crate::fec::protection::Mode as FecMode;
use crate::wire::message::{SYMBOL_LENGTH_BYTES, SymbolHeader};

impl Session {
    /// Makes a source symbol of the first `bytes` of the body buffer and commits it to links of its route.
    pub(super) fn commit_body(&mut self, route: usize, bytes: usize, sparse: bool, now: Instant) {
        let twice = self.egress.routes[route].is_twice();
        if sparse || twice {
            self.commit_alone(route, bytes, sparse, twice, now);
            return;
        }
        let class = if bytes <= SMALL_BODY_BYTES {
            Class::Small
        } else {
            Class::Bulk
        };
        let slot = route * GROUP_CLASSES + class as usize;
        if self.egress.open[slot].is_empty() {
            let id = self.egress.store.open_group(now);
            self.egress.store.set_route(id, route);
            self.egress.counts.groups += 1;
            self.egress.open[slot].start(id);
            self.egress.planned[slot] = self.planned_repairs(route);
        }
        let planned = self.egress.planned[slot];
        let open = &self.egress.open[slot];
        let (group, index) = (open.id(), u8::try_from(open.count()).unwrap_or(u8::MAX));
        let Some(key) = self.add_source(group, index, planned, bytes) else {
            self.drops.count(DropReason::NoBuffer);
            return;
        };
        self.egress.open[slot].push(key, bytes, now);
        if let Some(at) = self.pick_on(route, bytes, now) {
            self.commit_to(at, key, false, now);
            if self.config.mode == Mode::Redundant
                && route == 0
                && let Some(second) = self.pick_other(at, bytes, now)
            {
                self.commit_to(second, key, false, now);
                self.egress.counts.duplicate += 1;
            }
        } else {
            self.push_resend(key);
        }
        let limits = self.group_limits(route);
        if self.egress.open[slot].count() >= limits.source_count_max {
            self.close_group(slot, now);
        }
    }

    /// A symbol that is a group of its own, with a copy on a second link: a sparse flow's, ahead of the queues, and
    /// everything that goes out twice.
    fn commit_alone(
        &mut self,
        route: usize,
        bytes: usize,
        sparse: bool,
        twice: bool,
        now: Instant,
    ) {
        let group = self.egress.store.open_group(now);
        self.egress.store.set_route(group, route);
        let copied = twice || self.wants_copies();
        let key = self.add_source(group, 0, 0, bytes);
        self.egress.store.close_group(group);
        let Some(key) = key else {
            self.drops.count(DropReason::NoBuffer);
            return;
        };
        let (first, second) = if sparse {
            self.pick_two_on(route, bytes, now)
        } else {
            let first = self.pick(bytes, now);
            (first, first.and_then(|at| self.pick_other(at, bytes, now)))
        };
        match first {
            Some(first) => self.commit_to(first, key, sparse, now),
            None => self.push_resend(key),
        }
        if copied && let Some(second) = second {
            self.commit_to(second, key, sparse, now);
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
        let link = self.candidate(at).link;
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
        let candidate = self.candidate_mut(at);
        if !urgent {
            candidate.commit(overhead::wire_bytes(datagram_bytes), now);
        }
    }

    pub(super) fn push_resend(&mut self, key: SymbolKey) {
        let route = self.egress.store.route_of(key);
        let resend = &mut self.egress.routes[route].resend;
        if resend.len() < RESEND_MAX {
            resend.push_back(key);
        } else {
            self.drops.count(DropReason::Expired);
        }
    }

    /// Symbols to send again go first, oldest first, under the same rules as new ones.
    pub(super) fn commit_resends(&mut self, now: Instant) {
        for route in 0..self.egress.routes.len() {
            self.commit_resends_of(route, now);
        }
    }

    fn commit_resends_of(&mut self, route: usize, now: Instant) {
        while let Some(&key) = self.egress.routes[route].resend.front() {
            if self.egress.store.is_wanted(key) {
                let Some((_, _, symbol)) = self.egress.store.get(key) else {
                    continue;
                };
                let bytes = symbol.len();
                if self.is_too_long(bytes) {
                    if !self.has_room_on(route, now) {
                        return;
                    }
                    self.egress.routes[route].resend.pop_front();
                    self.egress.counts.resent += 1;
                    self.replace(key, now);
                    continue;
                }
                let Some(at) = self.pick_on(route, bytes, now) else {
                    return;
                };
                self.commit_to(at, key, false, now);
                self.egress.counts.resent += 1;
            }
            self.egress.routes[route].resend.pop_front();
        }
    }

    /// Closes groups whose fill time is over.
    pub(super) fn close_due_groups(&mut self, now: Instant) {
        for slot in 0..self.egress.open.len() {
            if self.egress.open[slot].is_empty() {
                continue;
            }
            let fill_time_max = self.group_limits(slot / GROUP_CLASSES).fill_time_max;
            let open = &self.egress.open[slot];
            if open.opened_at().is_some_and(|at| now >= at + fill_time_max) {
                self.refresh_candidates(now);
                self.close_group(slot, now);
            }
        }
    }

    /// Ends an open group: its repair symbols are made and committed.
    pub(super) fn close_group(&mut self, slot: usize, now: Instant) {
        let GroupParams {
            id: group,
            source_count,
            symbol_bytes,
        } = self.egress.open[slot].params();
        let planned = self.egress.planned[slot];
        let (acked, _) = self.egress.store.acked_sources(group);
        let arrived = matches!(self.config.fec, FecMode::Adaptive { .. })
            && usize::from(acked) == source_count;
        let repair_count = if planned == 0 || arrived || self.is_too_long(symbol_bytes) {
            0
        } else {
            self.repairs_for(slot / GROUP_CLASSES, source_count)
                .min(REPAIR_MAX)
        };
        if repair_count > 0 {
            self.encode_group(slot, repair_count, symbol_bytes);
        }
        drop(self.egress.open[slot].take());
        for index in 0..repair_count {
            self.commit_repair(group, index, source_count, repair_count, symbol_bytes, now);
        }
        self.egress.store.close_group(group);
        if let LossVerdict::Resend(missing) = self.egress.store.deficit(group, 0) {
            self.resend_lost(group, missing);
        }
        self.refresh_size(now);
    }

    fn encode_group(&mut self, slot: usize, repair_count: usize, symbol_bytes: usize) {
        let Egress {
            codec,
            store,
            open,
            repairs,
            ..
        } = &mut self.egress;
        let sources = open[slot]
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
        let route = self.egress.store.route_of(key);
        if let Some(at) = self.pick_for_repair_on(route, symbol_bytes, now) {
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
