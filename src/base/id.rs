//! Names of things as types, so that a link number is never taken for a WAN number.

use std::fmt;

/// Most links one session may have: one receiver index each fits the HELLO payload (docs/protocol.md).
pub const LINKS_MAX: usize = 32;

/// The same as a count on the wire.
pub const LINK_COUNT_MAX: u8 = 32;
const _: () = assert!(LINK_COUNT_MAX as usize == LINKS_MAX);

/// Most parallel sessions of one client: one for each of its workers. A set of them is a `u16`.
pub const SESSIONS_MAX: usize = 16;

/// One UDP lane between the peers over one WAN; unit of striping, packet numbers and delay.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u8);

impl LinkId {
    /// As an index into per-link tables.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// One uplink of the client; owns capacity. Several links may run over one WAN.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WanId(pub u8);

impl WanId {
    /// As an index into per-WAN tables.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A period under one set of keys; counts up from 0 in a session.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(pub u32);

/// Number of an FEC group in a session and direction; counts up from 0 and wraps.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct GroupId(pub u32);

impl GroupId {
    /// The group `count` later.
    #[must_use]
    pub const fn plus(self, count: u32) -> Self {
        Self(self.0.wrapping_add(count))
    }

    /// Signed distance from `other` to `self` on the wrapping circle.
    #[allow(clippy::cast_possible_wrap)] // the wrap is the point
    pub const fn distance_from(self, other: Self) -> i32 {
        self.0.wrapping_sub(other.0) as i32
    }
}

/// Order lane: frames of one flow share a lane and its sequence. Lane 0 is not ordered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane(pub u8);

/// Number of order lanes, including lane 0. Two bulk flows in one lane only share the wait for a hole.
pub const LANES: usize = 64;

impl Lane {
    /// Frames of this lane are released as they come.
    pub const UNORDERED: Self = Self(0);

    /// The lane of a flow hash; never [`Lane::UNORDERED`].
    #[allow(clippy::cast_possible_truncation)] // the remainder is below LANES
    pub const fn of_flow(hash: u64) -> Self {
        Self(1 + (hash % (LANES as u64 - 1)) as u8)
    }

    /// As an index into per-lane tables.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

macro_rules! debug_as_number {
    ($($name:ident $prefix:literal),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    )*};
}
debug_as_number!(LinkId "link ", WanId "wan ", Epoch "epoch ", GroupId "group ", Lane "lane ");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_distance_wraps() {
        assert_eq!(GroupId(2).distance_from(GroupId(u32::MAX)), 3);
        assert_eq!(GroupId(u32::MAX).distance_from(GroupId(2)), -3);
    }

    #[test]
    fn no_flow_falls_into_the_unordered_lane() {
        for hash in 0..1000 {
            let lane = Lane::of_flow(hash);
            assert!(lane != Lane::UNORDERED && lane.index() < LANES);
        }
    }
}
