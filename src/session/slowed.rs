//! A flow that becomes slow stays behind what it sent while it was fast.
//!
//! ```text
//! fast ──────► its lane, in order: group 7, 8, 9 ─┐ (9 is noted)
//! slow ──────► 9 has not arrived: still its lane  │ under way, or kept by a link that died
//! slow ──────► 9 has arrived: ahead of everything ┘
//! ```
//!
//! Frames of sparse flows wait for no other. Those of a flow that was fast and is silent for a while, such as a TCP that
//! waits for an acknowledgement, would overtake what is still being repaired.
//!
//! Flows are told apart by a few bits of their hash: two that share a place wait for each other's data for a round trip.

use super::symbols::SymbolStore;
use crate::base::GroupId;

/// Places for flows: as many as a flow queue has.
const PLACES: usize = 1_024;
const _: () = assert!(PLACES.is_power_of_two()); // flows are indexed by masking
/// Most flows noted of one body: a body of 1400 bytes holds no more frames of 20 bytes and their headers.
const BODY_FLOWS_MAX: usize = 64;

/// The groups that the last frames of fast flows went into.
#[derive(Debug)]
pub(super) struct Slowed {
    last: Vec<Option<GroupId>>,
    /// Flows of the body that is being filled.
    body: Vec<usize>,
}

impl Slowed {
    pub(super) fn new() -> Self {
        Self {
            last: vec![None; PLACES],
            body: Vec::with_capacity(BODY_FLOWS_MAX),
        }
    }

    /// A fast flow has a frame in the body that is being filled.
    pub(super) fn note(&mut self, hash: u64) {
        if self.body.len() < BODY_FLOWS_MAX {
            self.body.push(place(hash));
        }
    }

    /// The body went into this group; `None` when there was no room for it.
    pub(super) fn on_committed(&mut self, group: Option<GroupId>) {
        for place in self.body.drain(..) {
            self.last[place] = group.or(self.last[place]);
        }
    }

    /// Whether something that the flow sent while it was fast may not have arrived.
    pub(super) fn is_behind(&self, hash: u64, store: &SymbolStore) -> bool {
        self.last[place(hash)].is_some_and(|group| store.is_live(group))
    }
}

#[expect(clippy::cast_possible_truncation, reason = "masked to fewer bits")]
const fn place(hash: u64) -> usize {
    hash as usize & (PLACES - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Instant;
    use crate::wire::message::SymbolHeader;

    #[test]
    fn a_flow_is_behind_until_its_last_group_has_arrived() {
        let mut store = SymbolStore::new(16, 8);
        let mut slowed = Slowed::new();
        let mut keys = Vec::new();
        for _ in 0..2 {
            let group = store.open_group(0, Instant::ZERO);
            let header = SymbolHeader {
                group,
                index: 0,
                source_count: 0,
                repair_count: 0,
            };
            slowed.note(7);
            let key = store.add_source(header, 4).unwrap();
            slowed.on_committed(Some(group));
            store.on_committed(key, 0);
            store.close_group(group, 0);
            keys.push(key);
        }
        assert!(slowed.is_behind(7, &store) && !slowed.is_behind(8, &store));
        store.on_acked(keys[0]);
        assert!(slowed.is_behind(7, &store), "the second is under way");
        store.on_acked(keys[1]);
        assert!(!slowed.is_behind(7, &store));
    }

    #[test]
    fn a_body_without_room_is_forgotten() {
        let store = SymbolStore::new(16, 8);
        let mut slowed = Slowed::new();
        slowed.note(7);
        slowed.on_committed(None);
        assert!(!slowed.is_behind(7, &store) && slowed.body.is_empty());
    }
}
