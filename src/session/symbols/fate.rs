//! What becomes of symbols that leave: copies are under way, arrive, are lost or move elsewhere, and groups are done,
//! late, or too old.
//!
//! A group is late when more of its symbols are lost than it has repair symbols: what is under way does not
//! suffice.
//!
//! Never does: send anything. It says what a late group needs; how that is mended is `repair`'s affair.
//!
//! Invariant: `lost` of a group counts its symbols of which every copy that left was lost and none was committed since.

use std::time::Duration;

use super::entry::NONE;
use super::{Need, SymbolKey, SymbolKind, SymbolStore};
use crate::base::{GroupId, Instant};

impl SymbolStore {
    /// A copy was committed to a link; `round` of repair, 0 for what is not sent again.
    pub fn on_committed(&mut self, key: SymbolKey, round: u8) {
        let Some(entry) = self.live_mut(key) else {
            return;
        };
        entry.copies = entry.copies.saturating_add(1);
        entry.round = entry.round.max(round);
        let (was_lost, group) = (std::mem::take(&mut entry.lost), entry.header.group);
        if was_lost && let Some(record) = self.record_mut(group) {
            record.lost -= 1;
        }
    }

    /// The group gets no more sources, and at most `code_rows` repair symbols in all. Frees it when all of its
    /// sources were acknowledged.
    pub fn close_group(&mut self, group: GroupId, code_rows: u8) {
        if let Some(record) = self.record_mut(group) {
            record.closed = true;
            record.code_rows = code_rows;
        }
        self.release_if_resolved(group);
    }

    /// Sources of the group that were acknowledged, and how many there are.
    pub fn acked_sources(&self, group: GroupId) -> (u8, u8) {
        let record = self.record(group);
        if record.live && record.id == group {
            (record.acked_sources, record.source_count)
        } else {
            (0, 0)
        }
    }

    /// A copy arrived.
    pub fn on_acked(&mut self, key: SymbolKey) {
        let Some(entry) = self.live_mut(key) else {
            return;
        };
        if entry.acked {
            return;
        }
        entry.acked = true;
        entry.copies = 0;
        let was_lost = std::mem::take(&mut entry.lost);
        let (group, kind) = (entry.header.group, entry.kind);
        if let Some(record) = self.record_mut(group) {
            record.acked += 1;
            record.acked_sources += u8::from(kind == SymbolKind::Source);
            record.lost -= u8::from(was_lost);
        }
        self.release_if_resolved(group);
    }

    /// A copy was lost. The group when that makes it late and the caller has not been told yet.
    pub fn on_lost(&mut self, key: SymbolKey) -> Option<GroupId> {
        let entry = self.live_mut(key)?;
        entry.copies = entry.copies.saturating_sub(1);
        if entry.acked || entry.lost || entry.copies > 0 {
            return None;
        }
        entry.lost = true;
        let (group, round) = (entry.header.group, entry.round);
        let record = self.record_mut(group)?;
        record.lost += 1;
        record.rounds = record.rounds.max(round);
        self.note_late(group)
    }

    /// A source's content goes by other symbols: it is not sent again, and its group is done without it. The group when
    /// that makes it late, like [`SymbolStore::on_lost`]: its repair symbols may be too few for the others then.
    pub fn withdraw(&mut self, key: SymbolKey) -> Option<GroupId> {
        let entry = self.live_mut(key)?;
        if std::mem::replace(&mut entry.acked, true) {
            return None;
        }
        let was_lost = std::mem::take(&mut entry.lost);
        let group = entry.header.group;
        let record = self.record_mut(group)?;
        record.withdrawn += 1;
        record.lost -= u8::from(was_lost);
        self.release_if_resolved(group);
        self.note_late(group)
    }

    /// A copy is not under way any more and will be committed again.
    pub fn on_moved(&mut self, key: SymbolKey) {
        if let Some(entry) = self.live_mut(key) {
            entry.copies = entry.copies.saturating_sub(1);
        }
    }

    /// The group if it is late and was not named since it was mended last.
    pub fn note_late(&mut self, group: GroupId) -> Option<GroupId> {
        let record = self.record_mut(group)?;
        if record.deficit() == 0 || record.late {
            return None;
        }
        record.late = true;
        Some(group)
    }

    /// What a group lacks, if it does; it may be named as late again from here on.
    pub fn need(&mut self, group: GroupId) -> Option<Need> {
        let record = self.record_mut(group)?;
        record.late = false;
        let deficit = record.deficit();
        (deficit > 0).then_some(Need {
            deficit,
            round: record.rounds.saturating_add(1),
            opened_at: record.opened_at,
            source_count: (record.closed && record.planned > 0).then_some(record.source_count),
            rows: (record.repair_count, record.code_rows),
        })
    }

    /// A lost source of the group, the newest first. It counts as lost until it is committed again.
    pub fn lost_source(&self, group: GroupId) -> Option<SymbolKey> {
        self.symbols_of(group)
            .find(|(entry, _)| entry.lost && entry.kind == SymbolKind::Source)
            .map(|(_, key)| key)
    }

    fn release_if_resolved(&mut self, group: GroupId) {
        let record = self.record(group);
        let done = record.acked >= record.source_count
            || record.acked_sources + record.withdrawn >= record.source_count;
        if record.live && record.id == group && record.closed && done {
            self.release_group(group);
        }
    }

    /// Gives up groups opened before `now - age_max`; returns how many sources were not acknowledged, those of groups
    /// that were given up for a newer one included.
    pub fn expire(&mut self, now: Instant, age_max: Duration) -> u64 {
        let mut unacknowledged = std::mem::take(&mut self.displaced);
        while self.oldest != self.next {
            let record = *self.record(self.oldest);
            if record.live && record.id == self.oldest {
                if now.since(record.opened_at) < age_max || !record.closed {
                    break;
                }
                unacknowledged += record.open_sources();
                self.release_group(self.oldest);
            }
            self.oldest = self.oldest.plus(1);
        }
        unacknowledged
    }

    pub(super) fn release_group(&mut self, group: GroupId) {
        let Some(record) = self.record_mut(group) else {
            return;
        };
        record.live = false;
        let mut index = std::mem::replace(&mut record.first, NONE);
        while index != NONE {
            let entry = &mut self.entries[index as usize];
            index = entry.next;
            if let Some(slot) = entry.slot.take() {
                self.pool.give(slot);
            }
        }
    }
}
