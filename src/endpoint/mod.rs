//! Floor 4: the roles. A client dials one server; a server admits many clients. Both are sans-IO and own their
//! sessions; the driver sees one interface.
//!
//! ```text
//!            handle_frame(frame)                              poll_transmit(out) -> Transmit
//!  TUN ────► handle_datagrams(origin, bytes)      ENDPOINT    poll_frame(out)    -> length
//!  links ──► handle_timeout()                                 poll_event()       -> Event
//!  clock ──►                                                  poll_timeout()     -> Instant
//! ```
#![forbid(unsafe_code)]

pub mod admission;
pub mod client;
mod epoch;
pub mod mail;
pub mod peer_table;
pub mod server;
pub mod stats;

use crate::base::{DropReason, Instant, LinkId};
use crate::link::State;
use crate::session::path::Origin;

pub use client::{Client, ClientConfig};
pub use mail::{Handover, Mail, NoOthers, Workers};
pub use server::{AllowedAddresses, PeerConfig, Server, ServerConfig};
pub use stats::EndpointStats;

/// Number of a peer in the server's configuration; a client's only peer is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u16);

impl PeerId {
    /// As an index into per-peer tables.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// One of the sessions with a peer: a client has one for each of its workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId {
    /// The peer.
    pub peer: PeerId,
    /// The session's number in its HELLO, from 0.
    pub number: u8,
}

/// One send of the endpoint; the bytes are in the caller's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// The link whose socket carries it, if it belongs to one.
    pub link: Option<(SessionId, LinkId)>,
    /// Where to when the link has no connected socket; `None` on the client.
    pub origin: Option<Origin>,
    /// Bytes in the buffer.
    pub bytes: usize,
    /// Size of each datagram but the last.
    pub segment: u16,
}

/// Something the driver acts on or tells the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Keys were agreed on.
    Established {
        /// With whom.
        session: SessionId,
        /// All tunnel state is new (first contact, or one side restarted).
        fresh: bool,
    },
    /// The session ended; its sockets can go.
    Lost {
        /// Whose.
        session: SessionId,
    },
    /// A link's validated address is new: its socket must be connected there.
    PathChanged {
        /// Whose link.
        session: SessionId,
        /// Which.
        link: LinkId,
        /// Our port and the peer's address.
        origin: Origin,
    },
    /// Runs of a link have datagrams of another length from now on.
    SegmentChanged {
        /// Whose link.
        session: SessionId,
        /// Which.
        link: LinkId,
        /// The UDP_SEGMENT size for its socket.
        bytes: usize,
        /// Its path was found to take less than before.
        shrunk: bool,
    },
    /// A link changed its state.
    LinkState {
        /// Whose link.
        session: SessionId,
        /// Which.
        link: LinkId,
        /// The state it is in.
        state: State,
    },
}

/// What the driver needs of either role.
pub trait Endpoint {
    /// A frame from the TUN; another worker gets it by `over` when the session for it is there. Drops are counted inside.
    fn handle_frame(&mut self, frame: &[u8], now: Instant, over: &mut dyn Handover);
    /// A frame that another worker read.
    fn handle_handed_frame(&mut self, session: SessionId, frame: &[u8], now: Instant);
    /// A receive buffer of one or more datagrams. `origin` is where they came from; `None` on the client.
    fn handle_datagrams(
        &mut self,
        origin: Option<Origin>,
        buffer: &mut [u8],
        now: Instant,
        over: &mut dyn Handover,
    );
    /// A datagram that another worker received.
    fn handle_handed_datagram(
        &mut self,
        origin: Origin,
        datagram: &mut [u8],
        now: Instant,
        over: &mut dyn Handover,
    );
    /// A word from another worker.
    fn handle_mail(&mut self, mail: Mail, now: Instant);
    /// The next word to another worker, and its number. Poll it before [`Endpoint::poll_timeout`]: sessions of one
    /// worker tell each other something in here as well.
    fn poll_mail(&mut self, now: Instant) -> Option<(u8, Mail)>;
    /// Does what is due.
    fn handle_timeout(&mut self, now: Instant);
    /// The kernel refused a datagram of a link.
    fn on_send_error(&mut self, session: SessionId, link: LinkId, now: Instant);
    /// The kernel refuses datagrams of a link that are longer than `bytes`.
    fn on_path_limit(&mut self, session: SessionId, link: LinkId, bytes: usize, now: Instant);
    /// A discard outside of the endpoint (socket, TUN).
    fn count_drop(&mut self, reason: DropReason, count: u64);
    /// The next datagrams to send, written to `out` (at least [`crate::session::RUN_BYTES_MAX`] long).
    fn poll_transmit(&mut self, now: Instant, out: &mut [u8]) -> Option<Transmit>;
    /// The next frame for the TUN, written to `out` (at least [`crate::base::FRAME_BYTES_MAX`] long).
    fn poll_frame(&mut self, now: Instant, out: &mut [u8]) -> Option<usize>;
    /// The next event.
    fn poll_event(&mut self) -> Option<Event>;
    /// When to call [`Endpoint::handle_timeout`] and the polls again.
    fn poll_timeout(&self, now: Instant) -> Instant;
    /// Whether nothing but heartbeats and reports has moved for a while.
    fn is_idle(&self, now: Instant) -> bool;
    /// Everything worth knowing, for status and logs.
    fn stats(&mut self, now: Instant) -> EndpointStats;
    /// Ends all sessions; poll for the farewells afterwards.
    fn close(&mut self, now: Instant);
}
