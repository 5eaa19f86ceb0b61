//! Where one lane of the reorder buffer stands.

use super::slab::List;

/// What is due in a lane, and what it holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct LaneState {
    /// The sequence that is due.
    pub(super) next: u32,
    /// What is below leaves without further waiting. Equal to `next` when nothing is forced.
    pub(super) floor: u32,
    /// Held with a sequence of `next` or later, in order of arrival.
    pub(super) ahead: List,
    /// Held with an earlier sequence because not ready, in order of arrival.
    pub(super) aside: List,
}

impl LaneState {
    /// A lane that expects 0 first.
    pub(super) const EMPTY: Self = Self {
        next: 0,
        floor: 0,
        ahead: List::EMPTY,
        aside: List::EMPTY,
    };
}
