//! The group that is being filled by a sender.
//!
//! Source symbols leave the moment they exist; the open group only remembers which they were, so that repair
//! symbols can be computed when it closes. It never decides when that is: count, age or the end of a burst are
//! the caller's rules (`protection`).
//!
//! Invariants: at most 255 sources, indexes count up from 0, ids count up by one for each group taken.

use super::{GROUP_SYMBOLS_MAX, symbol_bytes};
use crate::base::{GroupId, Instant};

/// The sources of one group, as handles `T` to wherever their bytes are.
#[derive(Debug)]
pub struct OpenGroup<T> {
    id: GroupId,
    sources: Vec<T>,
    /// Bytes of the longest body so far.
    longest: usize,
    opened_at: Instant,
}

/// What the repair symbols of a group must say and the codec must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupParams {
    /// The group's number.
    pub id: GroupId,
    /// Number of its sources; 0 when nothing was pushed.
    pub source_count: usize,
    /// Size of each of its symbols.
    pub symbol_bytes: usize,
}

impl<T> OpenGroup<T> {
    /// An empty group with id 0, the first of a session.
    pub fn new() -> Self {
        Self {
            id: GroupId(0),
            sources: Vec::with_capacity(GROUP_SYMBOLS_MAX),
            longest: 0,
            opened_at: Instant::ZERO,
        }
    }

    /// Gives the empty group an id, where one sequence of ids numbers several open groups.
    ///
    /// # Panics
    /// If the group has sources already.
    pub fn start(&mut self, id: GroupId) {
        assert!(self.sources.is_empty(), "a group with sources keeps its id");
        self.id = id;
    }

    /// Adds a source whose body has `body_bytes` and returns where it stands.
    ///
    /// # Panics
    /// If the group already has 255 sources; the caller closes groups long before.
    pub fn push(&mut self, source: T, body_bytes: usize, now: Instant) -> (GroupId, u8) {
        assert!(
            self.sources.len() < GROUP_SYMBOLS_MAX,
            "a group is closed before it is full"
        );
        if self.sources.is_empty() {
            self.opened_at = now;
        }
        let index = u8::try_from(self.sources.len()).expect("below 255, asserted");
        self.sources.push(source);
        self.longest = self.longest.max(body_bytes);
        (self.id, index)
    }

    /// Whether it has no source yet.
    pub const fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// Number of sources.
    pub const fn count(&self) -> usize {
        self.sources.len()
    }

    /// Bytes of the longest body.
    pub const fn longest(&self) -> usize {
        self.longest
    }

    /// When the first source came; `None` while empty.
    pub const fn opened_at(&self) -> Option<Instant> {
        if self.sources.is_empty() {
            None
        } else {
            Some(self.opened_at)
        }
    }

    /// The id its next source gets.
    pub const fn id(&self) -> GroupId {
        self.id
    }

    /// The sources' handles in order, to encode from before the group is taken.
    pub fn sources(&self) -> &[T] {
        &self.sources
    }

    /// What the group is at this moment.
    pub const fn params(&self) -> GroupParams {
        GroupParams {
            id: self.id,
            source_count: self.sources.len(),
            symbol_bytes: symbol_bytes(self.longest),
        }
    }

    /// Closes the group, opens the next one and gives the sources' handles back in order. An empty group keeps
    /// its id. What is not taken out of the iterator is dropped with it.
    pub fn take(&mut self) -> (GroupParams, impl ExactSizeIterator<Item = T> + '_) {
        let params = self.params();
        if params.source_count > 0 {
            self.id = params.id.plus(1);
        }
        self.longest = 0;
        (params, self.sources.drain(..))
    }
}

impl<T> Default for OpenGroup<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_sources_and_groups() {
        let mut group = OpenGroup::new();
        assert!(group.is_empty() && group.opened_at().is_none());
        let at = Instant::from_millis(5);
        assert_eq!(group.push('a', 100, at), (GroupId(0), 0));
        assert_eq!(group.push('b', 7, Instant::from_millis(9)), (GroupId(0), 1));
        assert_eq!(
            (group.count(), group.longest(), group.opened_at()),
            (2, 100, Some(at))
        );
        assert_eq!(group.sources(), ['a', 'b']);
        let expected = GroupParams {
            id: GroupId(0),
            source_count: 2,
            symbol_bytes: 102,
        };
        let (params, sources) = group.take();
        assert_eq!(
            (params, sources.collect::<Vec<_>>()),
            (expected, vec!['a', 'b'])
        );
        assert_eq!(group.push('c', 3, at), (GroupId(1), 0));
        assert_eq!(group.take().0.symbol_bytes, 6);
    }

    #[test]
    fn an_empty_group_keeps_its_id() {
        let mut group = OpenGroup::<u8>::new();
        assert_eq!(group.take().0.source_count, 0);
        assert_eq!(group.id(), GroupId(0));
    }
}
