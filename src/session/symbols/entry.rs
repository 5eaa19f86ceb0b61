//! One symbol in the store: what names it, what it is, and what is known of its copies.
//!
//! Never does: hold the symbol's bytes, which lie in the store's pool, or decide about its group (`record`).

use crate::base::{GroupId, Instant, Slot};
use crate::wire::message::SymbolHeader;

/// Ends a list of symbols.
pub(super) const NONE: u32 = u32::MAX;

/// Names one symbol; stale keys find nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SymbolKey {
    pub(super) index: u32,
    pub(super) generation: u32,
}

#[cfg(test)]
impl SymbolKey {
    /// A key of no symbol.
    pub const NONE: Self = Self {
        index: NONE,
        generation: 0,
    };
}

/// What a symbol is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SymbolKind {
    /// Carries frames.
    Source,
    /// Carries the code over its group.
    Repair,
}

/// What the store knows of a symbol in a slot.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) slot: Option<Slot>,
    pub(super) generation: u32,
    pub(super) kind: SymbolKind,
    pub(super) header: SymbolHeader,
    pub(super) bytes: u16,
    pub(super) acked: bool,
    pub(super) lost: bool,
    /// Copies committed to links whose fate is open.
    pub(super) copies: u8,
    /// Of the repair that sent it last; 0 = it was not sent again.
    pub(super) round: u8,
    /// When the frame that it begins with came; [`Instant::FAR`] when it is none's or has left already.
    pub(super) since: Instant,
    /// Next symbol of the group.
    pub(super) next: u32,
}

impl Entry {
    pub(super) const fn empty() -> Self {
        Self {
            slot: None,
            generation: 0,
            kind: SymbolKind::Source,
            header: SymbolHeader {
                group: GroupId(0),
                index: 0,
                source_count: 0,
                repair_count: 0,
            },
            bytes: 0,
            acked: false,
            lost: false,
            copies: 0,
            round: 0,
            since: Instant::FAR,
            next: NONE,
        }
    }
}
