//! What is known of a group of symbols that were sent, and what it lacks.
//!
//! Never does: hold symbols, or keep a list of groups (`symbols`).

use super::NONE;
use crate::base::{GroupId, Instant};

/// One group.
#[derive(Clone, Copy, Debug)]
pub(super) struct GroupRecord {
    pub(super) id: GroupId,
    pub(super) live: bool,
    pub(super) closed: bool,
    /// Which links its symbols may use.
    pub(super) route: u8,
    pub(super) first: u32,
    pub(super) source_count: u8,
    /// Repair symbols so far: the index of the next one.
    pub(super) repair_count: u8,
    /// Repair symbols that an open group will get.
    pub(super) planned: u8,
    /// Repair symbols the group's code can have.
    pub(super) code_rows: u8,
    /// Distinct symbols acknowledged.
    pub(super) acked: u8,
    pub(super) acked_sources: u8,
    /// Distinct symbols lost and not committed again.
    pub(super) lost: u8,
    /// Sources whose content goes by other symbols.
    pub(super) withdrawn: u8,
    /// It is one symbol of a sparse flow.
    pub(super) sparse: bool,
    /// Most rounds of repair that any lost symbol of the group was sent in.
    pub(super) rounds: u8,
    /// Named in the caller's list of late groups.
    pub(super) late: bool,
    pub(super) opened_at: Instant,
}

impl GroupRecord {
    /// No group.
    pub(super) const ABSENT: Self = Self::new(GroupId(0), false, 0, Instant::ZERO);

    pub(super) const fn new(id: GroupId, live: bool, planned: u8, opened_at: Instant) -> Self {
        Self {
            id,
            live,
            closed: false,
            route: 0,
            first: NONE,
            source_count: 0,
            repair_count: 0,
            planned,
            code_rows: 0,
            acked: 0,
            acked_sources: 0,
            lost: 0,
            withdrawn: 0,
            sparse: false,
            rounds: 0,
            late: false,
            opened_at,
        }
    }

    /// Symbols that the group lacks even if all that is under way arrives.
    pub(super) fn deficit(&self) -> u8 {
        let repair = if self.closed {
            self.repair_count
        } else {
            self.repair_count.max(self.planned)
        };
        // What was withdrawn is missing there as well: repair symbols recover it or another one, not both.
        self.lost
            .saturating_add(self.withdrawn)
            .saturating_sub(repair)
            .min(self.lost)
    }

    /// Sources that neither arrived nor go by other symbols.
    pub(super) fn open_sources(&self) -> u64 {
        let done = self.acked_sources.saturating_add(self.withdrawn);
        u64::from(self.source_count.saturating_sub(done))
    }
}

/// What a late group needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// Symbols it lacks.
    pub deficit: u8,
    /// Which attempt to mend it this is, from 1.
    pub round: u8,
    /// When its first source came.
    pub opened_at: Instant,
    /// Its sources, when it is closed and the receiver keeps them, so that repair symbols are of use to it.
    pub source_count: Option<u8>,
    /// Repair symbols it has, and most it can have.
    pub rows: (u8, u8),
}
