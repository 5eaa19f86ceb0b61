//! What the workers of one program tell each other: the sessions of a peer may belong to several of them.
//!
//! ```text
//!  frame of a peer whose sessions are elsewhere ─► Handover::frame ────► Endpoint::handle_handed_frame
//!  datagram for a session that is elsewhere ─────► Handover::datagram ─► Endpoint::handle_handed_datagram
//!  which sessions there are, WAN budget, HELLOs ─► Endpoint::poll_mail ► Endpoint::handle_mail
//! ```
//!
//! Bytes are given away while they are at hand, mail is rare and small. Both may be refused or lost: the owner of the
//! workers bounds what is under way between them.

use super::{PeerId, SessionId};
use crate::crypto::handshake::Responder;
use crate::crypto::mac::KeyedHash;
use crate::session::budget::Share;
use crate::session::path::Origin;
use crate::wire::handshake::HELLO_BYTES;

/// A worker's place among those of its program.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Workers {
    /// Its number, from 0. Number 0 of a server hears what comes to the listeners and admits.
    pub own: u8,
    /// How many there are, at least 1.
    pub count: u8,
    /// Random number of this start of the program, the same for all of them.
    pub secret: [u8; 32],
}

impl Workers {
    /// The only worker.
    pub const ALONE: Self = Self {
        own: 0,
        count: 1,
        secret: [0; 32],
    };
}

impl std::fmt::Debug for Workers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "worker {} of {}", self.own, self.count)
    }
}

/// Whose a receiver index is, without a table that workers would have to share: an index is drawn until it falls to
/// who draws it. Nobody else can tell which indexes have one owner.
pub(super) struct IndexOwner {
    hash: KeyedHash,
    count: u8,
}

impl IndexOwner {
    pub(super) fn new(workers: &Workers) -> Self {
        Self {
            hash: KeyedHash::new(&workers.secret, b"owner of an index"),
            count: workers.count.max(1),
        }
    }

    pub(super) fn of(&self, index: u32) -> u8 {
        if self.count == 1 {
            return 0;
        }
        let number = u32::from_le_bytes(self.hash.hash(&index.to_le_bytes()));
        u8::try_from(number % u32::from(self.count)).unwrap_or(0)
    }
}

/// Whether frames have a way through a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// There is no session.
    Gone,
    /// There is one, and no link of it is up.
    Joined,
    /// At least one link is up.
    Usable,
}

/// A HELLO that was opened by the worker that admits, for the one that owns the session.
pub struct Opened {
    /// Where it came from.
    pub(super) origin: Origin,
    /// The datagram.
    pub(super) hello: [u8; HELLO_BYTES],
    /// What was read of it.
    pub(super) responder: Responder,
    /// Its sender proved its address.
    pub(super) proven: bool,
    /// Whose session it is about.
    pub(super) session: SessionId,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HELLO of {:?}", self.session) // no keys
    }
}

/// One word from one worker to another.
pub enum Mail {
    /// A session came, changed or went.
    Presence {
        /// Which.
        session: SessionId,
        /// What it is.
        presence: Presence,
    },
    /// A session was confirmed (server): those of the client's earlier starts are over.
    Started {
        /// The client.
        peer: PeerId,
        /// Its start.
        boot_id: [u8; 8],
    },
    /// About the WANs that sessions share.
    Share {
        /// To this session.
        to: SessionId,
        /// From that number of the same peer.
        from: u8,
        /// The word.
        share: Share,
    },
    /// A handshake to be answered (server).
    Hello(Box<Opened>),
}

impl Mail {
    /// Whether the next word of its kind makes up for its loss.
    pub const fn is_repeated(&self) -> bool {
        matches!(self, Self::Share { .. })
    }
}

impl std::fmt::Debug for Mail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Presence { session, presence } => write!(f, "{session:?} {presence:?}"),
            Self::Started { peer, .. } => write!(f, "{peer:?} started"),
            Self::Share { to, from, share } => write!(f, "{from} to {to:?}: {share:?}"),
            Self::Hello(opened) => opened.fmt(f),
        }
    }
}

/// Takes bytes to another worker. `false` = there is no room, and they are lost.
pub trait Handover {
    /// A frame for a session of that worker.
    fn frame(&mut self, worker: u8, session: SessionId, frame: &[u8]) -> bool;
    /// A datagram for that worker.
    fn datagram(&mut self, worker: u8, origin: Origin, datagram: &[u8]) -> bool;
}

/// The way to other workers where there are none.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoOthers;

impl Handover for NoOthers {
    fn frame(&mut self, _worker: u8, _session: SessionId, _frame: &[u8]) -> bool {
        false
    }

    fn datagram(&mut self, _worker: u8, _origin: Origin, _datagram: &[u8]) -> bool {
        false
    }
}

/// The bit of `set` that a flow keeps as long as the set does; `None` for an empty set.
pub(super) fn pick(set: u16, flow: u64) -> Option<u8> {
    let count = u64::from(set.count_ones());
    let turn = flow.checked_rem(count)?;
    (0..16)
        .filter(|bit| set >> bit & 1 == 1)
        .nth(usize::try_from(turn).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_session_of_a_set_is_picked_and_no_other() {
        assert_eq!(pick(0, 7), None);
        let set = 0b1001_0000_0000_0010;
        let mut seen = [0_u32; 16];
        for flow in 0..300 {
            seen[usize::from(pick(set, flow).unwrap())] += 1;
        }
        assert_eq!((seen[1], seen[12], seen[15]), (100, 100, 100));
    }

    #[test]
    fn indexes_fall_to_all_workers_alike_and_to_the_same_for_all_of_them() {
        let workers = |own, secret| Workers {
            own,
            count: 3,
            secret: [secret; 32],
        };
        let (a, b) = (
            IndexOwner::new(&workers(0, 1)),
            IndexOwner::new(&workers(2, 1)),
        );
        let other = IndexOwner::new(&workers(0, 2));
        let mut counts = [0; 3];
        let mut differ = 0;
        for index in 0..3_000 {
            assert_eq!(a.of(index), b.of(index));
            counts[usize::from(a.of(index))] += 1;
            differ += u32::from(a.of(index) != other.of(index));
        }
        assert!(
            counts.iter().all(|count| (900..1_100).contains(count)),
            "{counts:?}"
        );
        assert!(
            differ > 1_800,
            "the owner follows from the secret: {differ}"
        );
    }
}
