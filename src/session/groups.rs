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
use super::egress::{Class, Egress, REPAIR_MAX, RESEND_MAX, SMALL_BODY_BYTES};
use super::link::Queued;
use super::symbols::{SymbolKey, SymbolKind};
use super::{Session, overhead};
use crate::base::id::LINKS_MAX;
use crate::base::{DropReason, GroupId, Instant};
use crate::fec::GROUP_SYMBOLS_MAX;
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
            let planned = self.planned_repairs();
            let id = self.egress.store.open_group(small(planned), now);
            self.egress.counts.groups += 1;
            self.egress.open[class as usize].start(id);
            self.egress.planned[class as usize] = planned;
            self.egress.spread[class as usize] = [0; LINKS_MAX];
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
            let wan = self.links[self.candidates[at].link.index()].wan;
            let share = &mut self.egress.spread[class as usize][wan.index()];
            *share = share.saturating_add(1);
            if self.config.mode == Mode::Redundant
                && let Some(second) = self.pick_other(at, bytes, now)
            {
                self.commit_to(second, key, false, now);
                self.egress.counts.duplicate += 1;
            }
        } else {
            self.push_resend(key);
        }
        let source_count_max = self.group_limits().source_count_max;
        if self.egress.open[class as usize].count() >= source_count_max {
            self.close_group(class, now);
        }
    }

    /// A sparse flow's symbol is a group of its own, ahead of the queues, with a copy on a second link.
    fn commit_sparse(&mut self, bytes: usize, now: Instant) {
        let group = self.egress.store.open_group(0, now);
        let copied = self.wants_copies();
        let key = self.add_source(group, 0, 0, bytes);
        self.egress.store.close_group(group, 0);
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
        let header = SymbolHeader {
            group,
            index,
            source_count: 0,
            repair_count: small(planned),
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
        let link = self.candidates[at].link;
        if !self.links[link.index()].push(
            Queued {
                key,
                datagram_bytes,
            },
            urgent,
        ) {
            self.requeue(key);
            return;
        }
        let candidate = &mut self.candidates[at];
        if !urgent {
            candidate.commit(overhead::wire_bytes(datagram_bytes), now);
        }
    }

    fn push_resend(&mut self, key: SymbolKey) {
        self.egress.store.on_committed(key, 0);
        self.requeue(key);
    }

    /// A copy waits for room on any link.
    pub(super) fn requeue(&mut self, key: SymbolKey) {
        if self.egress.resend.len() < RESEND_MAX {
            self.egress.resend.push_back(key);
        } else {
            self.egress.store.on_moved(key);
            self.drops.count(DropReason::Expired);
        }
    }

    /// Symbols that found no link go first, oldest first, under the same rules as new ones.
    pub(super) fn commit_resends(&mut self, now: Instant) {
        while let Some(&key) = self.egress.resend.front() {
            if self.egress.store.is_wanted(key)
                && let Some((_, _, symbol)) = self.egress.store.get(key)
            {
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
                self.place(at, key, false, now);
                self.egress.counts.resent += 1;
            }
            self.egress.resend.pop_front();
        }
    }

    /// Closes groups whose fill time is over.
    pub(super) fn close_due_groups(&mut self, now: Instant) {
        for class in [Class::Bulk, Class::Small] {
            let fill_time_max = self.fill_time_max(class);
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
            self.repairs_for(class, source_count).min(REPAIR_MAX)
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
            self.encode_open(class, repair_count, &shape);
        }
        drop(self.egress.open[class as usize].take());
        self.tell_shares(class);
        for index in 0..repair_count {
            if let Some(key) = self.add_repair(&shape, index, index) {
                self.egress.counts.repair += 1;
                self.commit_repair(key, index, symbol_bytes, now);
            }
        }
        self.egress.store.close_group(group, small(code_rows));
        if let Some(late) = self.egress.store.note_late(group) {
            self.egress.late.push(late);
            self.mend_groups(None, now);
        }
        self.refresh_size(now);
    }

    /// Tells the candidates what they carry of the group of a class.
    fn tell_shares(&mut self, class: Class) {
        for candidate in &mut self.candidates {
            let wan = self.links[candidate.link.index()].wan;
            candidate.share_of_group = self.egress.spread[class as usize][wan.index()];
        }
    }

    /// Computes the first repair symbols of an open group into `repairs`.
    fn encode_open(&mut self, class: Class, repair_count: usize, shape: &GroupShape) {
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
        let bytes = shape.symbol_bytes;
        let encoded = codec.encode_rows(
            sources,
            shape.code_rows,
            0..repair_count,
            bytes,
            |index, symbol| repairs[index * bytes..][..bytes].copy_from_slice(symbol),
        );
        debug_assert_eq!(encoded, Ok(()), "the shape of a group is ours");
    }

    /// Stores the repair symbol `index` of a group, which lies at place `at` in `repairs`.
    pub(super) fn add_repair(
        &mut self,
        shape: &GroupShape,
        index: usize,
        at: usize,
    ) -> Option<SymbolKey> {
        let header = SymbolHeader {
            group: shape.group,
            index: small(index),
            source_count: small(shape.source_count),
            repair_count: small(shape.code_rows),
        };
        let (bytes, Egress { store, repairs, .. }) = (shape.symbol_bytes, &mut self.egress);
        store.add(SymbolKind::Repair, header, |slot| {
            slot[..bytes].copy_from_slice(&repairs[at * bytes..][..bytes]);
            bytes
        })
    }

    /// Every other repair symbol keeps off the WAN that has most of the group; those between go where they arrive
    /// first, which is what repairs a single loss soonest.
    fn commit_repair(&mut self, key: SymbolKey, index: usize, symbol_bytes: usize, now: Instant) {
        let soonest = (index % 2 == 1).then(|| self.pick(symbol_bytes, now));
        let at = soonest
            .flatten()
            .or_else(|| self.pick_for_repair(symbol_bytes, now));
        if let Some(at) = at {
            self.commit_to(at, key, false, now);
            let share = &mut self.candidates[at].share_of_group;
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
