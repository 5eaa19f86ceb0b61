//! From a symbol's body to a group on the links: sources, repair symbols and copies.
//!
//! ```text
//! body ─► open group ─► pick a link ─► its queue
//!              │ closes: count, age
//!              └──────► repair symbols ─► pick ─► queue            no link, link left ─► resend ─► pick ─► queue
//! ```
//!
//! Never does: read frames, or send. A symbol that finds no link waits in `resend`. What happens to groups that lost
//! more than their repair symbols is in `repair`.

use super::config::Mode;
use super::egress::{Class, Egress, GROUP_CLASSES, REPAIR_MAX, RESEND_MAX, SMALL_BODY_BYTES};
use super::link::Queued;
use super::repair::URGENT_MAX;
use super::symbols::SymbolKey;
use super::{Session, overhead};
use crate::base::id::LINKS_MAX;
use crate::base::{DropReason, GroupId, Instant};
use crate::fec::GROUP_SYMBOLS_MAX;
use crate::fec::encoder::GroupParams;
use crate::fec::protection::Mode as FecMode;
use crate::wire::message::SymbolHeader;

impl Session {
    /// Makes a source symbol of the first `bytes` in the store's room for a body, and commits it to links of its route.
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
            let planned = self.planned_repairs(slot);
            let id = self.egress.store.open_group(small(planned), now);
            self.egress.store.set_route(id, route);
            self.egress.counts.groups += 1;
            self.egress.open[slot].start(id);
            self.egress.planned[slot] = planned;
            self.egress.spread[slot] = [0; LINKS_MAX];
        }
        let planned = self.egress.planned[slot];
        let open = &self.egress.open[slot];
        let (group, index) = (open.id(), u8::try_from(open.count()).unwrap_or(u8::MAX));
        let Some(key) = self.add_source(group, index, planned, bytes) else {
            self.drops.count(DropReason::NoBuffer);
            if index == 0 {
                // Nothing will ever close a group without a source, and no later one would expire before it.
                self.egress.store.close_group(group, 0);
            }
            return;
        };
        self.egress.open[slot].push(key, bytes, now);
        if let Some(at) = self.pick_on(route, bytes, now) {
            self.commit_to(at, key, false, now);
            let wan = self.links[self.candidate(at).link.index()].wan;
            let share = &mut self.egress.spread[slot][wan.index()];
            *share = share.saturating_add(1);
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
        let source_count_max = self.group_limits(route).source_count_max;
        if self.egress.open[slot].count() >= source_count_max {
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
        let group = self.egress.store.open_group(0, now);
        self.egress.store.set_route(group, route);
        if sparse {
            self.egress.store.set_sparse(group);
        }
        let copied = twice || self.wants_copies();
        let key = self.add_source(group, 0, 0, bytes);
        self.egress.store.close_group(group, 0);
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
        let header = SymbolHeader {
            group,
            index,
            source_count: 0,
            repair_count: small(planned),
        };
        self.egress.counts.source += 1;
        let since = self.egress.since;
        let key = self.egress.store.add_source(header, bytes);
        self.egress.slowed.on_committed(key.map(|_| group));
        let key = key?;
        self.egress.store.set_since(key, since);
        Some(key)
    }

    /// Puts a copy of a symbol on the link of a candidate.
    pub(super) fn commit_to(&mut self, at: usize, key: SymbolKey, urgent: bool, now: Instant) {
        self.egress.store.on_committed(key, 0);
        self.place(at, key, urgent, now);
    }

    /// The same for a copy that is counted already.
    pub(super) fn place(&mut self, at: usize, key: SymbolKey, urgent: bool, now: Instant) {
        let Some((_, _, symbol)) = self.egress.store.get(key) else {
            return;
        };
        let datagram_bytes = overhead::datagram_bytes(symbol.len());
        let link = self.candidate(at).link;
        let not_before = self.not_before(at, self.egress.level, now);
        if !self.links[link.index()].push(
            Queued {
                key,
                datagram_bytes,
                not_before,
            },
            urgent,
        ) {
            self.requeue(key);
            return;
        }
        let candidate = self.candidate_mut(at);
        if !urgent {
            candidate.commit(overhead::wire_bytes(datagram_bytes), now);
        }
    }

    fn push_resend(&mut self, key: SymbolKey) {
        self.egress.store.on_committed(key, 0);
        self.requeue(key);
    }

    /// A copy waits for room on any link of its route.
    pub(super) fn requeue(&mut self, key: SymbolKey) {
        let route = self.egress.store.route_of(key);
        let resend = &mut self.egress.routes[route].resend;
        if resend.len() < RESEND_MAX {
            resend.push_back(key);
        } else {
            self.egress.store.on_moved(key);
            self.drops.count(DropReason::Expired);
        }
    }

    /// Symbols that found no link go first, oldest first, under the same rules as new ones.
    pub(super) fn commit_resends(&mut self, now: Instant) {
        for route in 0..self.egress.routes.len() {
            self.commit_resends_of(route, now);
        }
    }

    fn commit_resends_of(&mut self, route: usize, now: Instant) {
        let mut urgent_left = URGENT_MAX;
        // What a full queue gives back is tried again in the next turn.
        for _ in 0..self.egress.routes[route].resend.len() {
            let Some(&key) = self.egress.routes[route].resend.front() else {
                return;
            };
            if self.egress.store.is_wanted(key)
                && let Some((_, _, symbol)) = self.egress.store.get(key)
            {
                let bytes = symbol.len();
                if self.is_too_long(bytes) {
                    if !self.has_room_on(route, now) {
                        return;
                    }
                    self.egress.routes[route].resend.pop_front();
                    self.count_resent(key);
                    self.replace(key, now);
                    continue;
                }
                // Symbols of sparse flows keep their place ahead of everything, or fresh ones would overtake them.
                let urgent = urgent_left > 0 && self.egress.store.is_sparse(key);
                let at = if urgent {
                    urgent_left -= 1;
                    self.pick_two_on(route, bytes, now).0
                } else {
                    self.pick_on(route, bytes, now)
                };
                let Some(at) = at else {
                    return;
                };
                self.place(at, key, urgent, now);
                self.count_resent(key);
            }
            self.egress.routes[route].resend.pop_front();
        }
    }

    /// Counts a symbol that goes out again.
    pub(super) fn count_resent(&mut self, key: SymbolKey) {
        self.egress.counts.resent += 1;
        self.egress.counts.resent_sparse += u64::from(self.egress.store.is_sparse(key));
    }

    /// Closes groups whose fill time is over.
    pub(super) fn close_due_groups(&mut self, now: Instant) {
        for slot in 0..self.egress.open.len() {
            if self.egress.open[slot].is_empty() {
                continue;
            }
            let fill_time_max = self.fill_time_max(slot);
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
            self.repairs_for(slot, source_count).min(REPAIR_MAX)
        };
        let code_rows = if planned > 0 {
            code_rows(source_count, repair_count)
        } else {
            0
        };
        let shape = GroupShape {
            group,
            source_count,
            code_rows,
            symbol_bytes,
        };
        if repair_count > 0 {
            self.encode_open(slot, repair_count, &shape);
        }
        drop(self.egress.open[slot].take());
        self.tell_shares(slot);
        for index in 0..self.egress.repairs.len() {
            let key = self.egress.repairs[index];
            self.egress.counts.repair += 1;
            self.commit_repair(key, index, symbol_bytes, now);
        }
        self.egress.repairs.clear();
        self.egress.store.close_group(group, small(code_rows));
        if let Some(late) = self.egress.store.note_late(group) {
            self.egress.late.push(late);
            self.mend_groups(None, now);
        }
        self.refresh_size(now);
    }

    /// Tells the candidates what they carry of the group of a slot.
    fn tell_shares(&mut self, slot: usize) {
        for candidate in &mut self.candidates {
            let wan = self.links[candidate.link.index()].wan;
            candidate.share_of_group = self.egress.spread[slot][wan.index()];
        }
    }

    /// Makes the first repair symbols of an open group.
    fn encode_open(&mut self, slot: usize, repair_count: usize, shape: &GroupShape) {
        let Egress {
            codec, store, open, ..
        } = &mut self.egress;
        let sources = open[slot].sources().iter();
        let sources = sources.map(|&key| store.get(key).map_or(&[][..], |(_, _, b)| b));
        let loaded = codec.load(
            sources,
            shape.code_rows,
            0..repair_count,
            shape.symbol_bytes,
        );
        debug_assert_eq!(loaded, Ok(()), "the shape of a group is ours");
        if loaded.is_ok() {
            self.add_repairs(shape);
        }
    }

    /// Takes the repair symbols that the codec has into the store, and puts their keys into `repairs`.
    pub(super) fn add_repairs(&mut self, shape: &GroupShape) {
        let Egress {
            codec,
            store,
            repairs,
            ..
        } = &mut self.egress;
        let computed = codec.emit_rows(|index, symbol| {
            let header = SymbolHeader {
                group: shape.group,
                index: small(index),
                source_count: small(shape.source_count),
                repair_count: small(shape.code_rows),
            };
            repairs.extend(store.add_repair(header, symbol));
        });
        debug_assert_eq!(computed, Ok(()), "the codec has all sources");
    }

    /// Every other repair symbol keeps off the WAN that has most of the group; those between go where they arrive
    /// first, which is what repairs a single loss soonest.
    fn commit_repair(&mut self, key: SymbolKey, index: usize, symbol_bytes: usize, now: Instant) {
        let route = self.egress.store.route_of(key);
        let soonest = (index % 2 == 1).then(|| self.pick_on(route, symbol_bytes, now));
        let at = soonest
            .flatten()
            .or_else(|| self.pick_for_repair_on(route, symbol_bytes, now));
        if let Some(at) = at {
            self.commit_to(at, key, false, now);
            let share = &mut self.candidate_mut(at).share_of_group;
            *share = share.saturating_add(1);
        }
    }
}

/// What the code of a group is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct GroupShape {
    pub(super) group: GroupId,
    pub(super) source_count: usize,
    /// Repair symbols it can have.
    pub(super) code_rows: usize,
    pub(super) symbol_bytes: usize,
}

/// Repair symbols a group can have beyond those it gets when it is closed. They cost next to nothing while they are
/// not computed: the code rounds their number up to a power of two in any case.
const SPARE_ROWS: usize = 8;

/// Repair symbols that a group can have when it gets `repair_count` at once. A single source is its own repair.
fn code_rows(source_count: usize, repair_count: usize) -> usize {
    let wanted = if source_count == 1 {
        repair_count.max(1)
    } else {
        (repair_count + SPARE_ROWS).next_power_of_two()
    };
    wanted.min(GROUP_SYMBOLS_MAX.saturating_sub(source_count))
}

/// Counts of a group fit a byte.
pub(super) fn small(count: usize) -> u8 {
    u8::try_from(count).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_has_room_for_its_repair_and_for_more_where_there_can_be_more() {
        for k in 1..=254 {
            for r in 0..=REPAIR_MAX.min(GROUP_SYMBOLS_MAX - k) {
                let rows = code_rows(k, r);
                assert!(rows >= r && k + rows <= GROUP_SYMBOLS_MAX, "{k}+{r}");
                assert!(rows >= r + SPARE_ROWS || k == 1 || k + rows == GROUP_SYMBOLS_MAX);
            }
        }
        assert_eq!(
            (code_rows(10, 3), code_rows(96, 6), code_rows(1, 2)),
            (16, 16, 2)
        );
    }
}
