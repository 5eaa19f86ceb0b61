//! One link of a session: its path, what we believe about it, and the symbols committed to it.

use std::collections::VecDeque;
use std::time::Duration;

use super::path::Path;
use super::policy::Parking;
use super::symbols::SymbolKey;
use crate::base::{Instant, LinkId, WanId};
use crate::link::{Receiver, ReceiverConfig, Sender, SenderConfig, State};

/// Symbols that may wait on one link. The scheduler commits milliseconds; this is 50 ms at 1 Gbit/s.
pub const QUEUE_MAX: usize = 4096;

/// A symbol that waits this much longer than it must shows that its WAN limits us: two quanta of the pacer.
const OVERDUE: Duration = Duration::from_millis(1);

/// Time between two LINK_OPENs that were not answered.
const OPEN_INTERVAL: Duration = Duration::from_millis(200);

/// How far a link has been opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// The client has not heard LINK_ACK; LINK_OPEN is due at the time.
    Asking(Instant),
    /// The server waits for LINK_OPEN.
    Waiting,
    /// Both ends know the link.
    Open,
}

/// Small messages waiting for the next control datagram of the link.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pending {
    /// LINK_ACK.
    pub ack: bool,
    /// PATH_RESPONSE with these bytes.
    pub response: Option<[u8; 8]>,
}

/// One symbol waiting on a link.
#[derive(Clone, Copy, Debug)]
pub struct Queued {
    /// Which.
    pub key: SymbolKey,
    /// Bytes of its datagram.
    pub datagram_bytes: u32,
    /// It does not leave the queue before; [`Instant::ZERO`] when it may at once.
    pub not_before: Instant,
}

/// One link.
#[derive(Debug)]
pub struct Link {
    /// Its number.
    pub id: LinkId,
    /// The WAN that owns its capacity; the server learns it from LINK_OPEN.
    pub wan: WanId,
    /// How far it has been opened.
    pub opening: Opening,
    /// When an open link says again what its WAN is, because that changed; until the peer acknowledges.
    announce_at: Instant,
    /// Where its datagrams go.
    pub path: Path,
    /// Our sending direction.
    pub sender: Sender<SymbolKey>,
    /// Our receiving direction.
    pub receiver: Receiver,
    /// Whether its figures keep it from carrying data.
    pub parking: Parking,
    /// When it brought a symbol last.
    pub symbol_at: Option<Instant>,
    /// Committed symbols, paced.
    pub queue: VecDeque<Queued>,
    /// Symbols of sparse flows: sent before the queue and without waiting for the pacer.
    pub urgent: VecDeque<Queued>,
    /// Bytes of datagrams in `queue`.
    pub queued_bytes: u64,
    /// Small messages to send.
    pub pending: Pending,
    /// Its heartbeat leaves with those of others.
    pub beat: bool,
    /// Next continuous number we would send with, for a new epoch.
    pub sent_next: u64,
    /// Largest continuous number received.
    pub largest_received: u64,
    /// Bytes and datagrams sent.
    pub sent: (u64, u64),
    /// Bytes and datagrams received.
    pub received: (u64, u64),
    /// Symbols that this link lost and that were repaired or sent again.
    pub lost_symbols: u64,
}

impl Link {
    /// A link nobody has opened yet.
    pub fn new(
        id: LinkId,
        wan: WanId,
        opening: Opening,
        path: Path,
        sender: SenderConfig,
        now: Instant,
    ) -> Self {
        Self {
            id,
            wan,
            opening,
            announce_at: Instant::FAR,
            path,
            sender: Sender::new(sender, now),
            receiver: Receiver::new(ReceiverConfig::default(), now),
            parking: Parking::default(),
            symbol_at: None,
            queue: VecDeque::with_capacity(QUEUE_MAX),
            urgent: VecDeque::with_capacity(QUEUE_MAX),
            queued_bytes: 0,
            pending: Pending::default(),
            beat: false,
            sent_next: 0,
            largest_received: 0,
            sent: (0, 0),
            received: (0, 0),
            lost_symbols: 0,
        }
    }

    /// Whether control datagrams can be sent at all.
    pub const fn is_reachable(&self) -> bool {
        self.path.is_validated()
    }

    /// Whether tunnel data may be sent.
    pub fn is_open(&self) -> bool {
        self.opening == Opening::Open && self.path.is_validated()
    }

    /// Whether tunnel data should be sent.
    pub fn is_up(&self) -> bool {
        self.is_open() && self.sender.flows() && !self.sender.is_narrow()
    }

    /// Whether its WAN counts as there: a link that is stalled for the moment doubts nothing.
    pub fn is_present(&self) -> bool {
        self.is_open() && self.sender.state() == State::Up && !self.sender.is_narrow()
    }

    /// Length on the wire of the probe to send.
    pub fn probe_wanted(&self) -> Option<u32> {
        self.sender.probe_wanted().filter(|_| self.is_open())
    }

    /// The peer must hear anew what the WAN is. The link stays in use meanwhile.
    pub const fn announce(&mut self, now: Instant) {
        self.announce_at = now;
    }

    /// The peer acknowledged LINK_OPEN.
    pub const fn on_open_acknowledged(&mut self) {
        self.opening = Opening::Open;
        self.announce_at = Instant::FAR;
    }

    /// Whether LINK_OPEN is due; arms the next one.
    pub fn poll_open(&mut self, now: Instant) -> bool {
        if now < self.open_at() {
            return false;
        }
        match &mut self.opening {
            Opening::Asking(at) => *at = now + OPEN_INTERVAL,
            Opening::Waiting | Opening::Open => self.announce_at = now + OPEN_INTERVAL,
        }
        true
    }

    /// When [`Link::poll_open`] is due.
    pub const fn open_at(&self) -> Instant {
        match self.opening {
            Opening::Asking(at) => at,
            Opening::Waiting | Opening::Open => self.announce_at,
        }
    }

    /// When the queue's first symbol may leave; `None` without one.
    pub fn first_not_before(&self) -> Option<Instant> {
        self.queue.front().map(|queued| queued.not_before)
    }

    /// Whether the queue's first symbol may leave.
    pub fn is_due(&self, now: Instant) -> bool {
        self.first_not_before().is_some_and(|at| at <= now)
    }

    /// Whether the pacer keeps the queue's first symbol, and not the time at which it may leave.
    pub fn is_overdue(&self, now: Instant) -> bool {
        self.first_not_before()
            .is_some_and(|at| at + OVERDUE <= now)
    }

    /// Commits a symbol; `false` when the queue is full.
    pub fn push(&mut self, queued: Queued, urgent: bool) -> bool {
        let queue = if urgent {
            &mut self.urgent
        } else {
            &mut self.queue
        };
        if queue.len() >= QUEUE_MAX {
            return false;
        }
        queue.push_back(queued);
        if !urgent {
            self.queued_bytes += u64::from(queued.datagram_bytes);
        }
        true
    }
}
/// Takes the first one. A queue that is empty begins anew at the start of its memory; going round and round, it would
/// in time have touched all of it, although a few places at a time are in use.
pub(super) fn pop(queue: &mut VecDeque<Queued>) -> Option<Queued> {
    let first = queue.pop_front();
    if queue.is_empty() {
        queue.clear();
    }
    first
}
