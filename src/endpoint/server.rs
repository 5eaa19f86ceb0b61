//! The server: admits known clients, and knows which client owns which inner address.
//!
//! ```text
//!  HELLO ─► admission (mac1, limits, cookies) ─► key known? stamp newer? ─► WELCOME, keys wait
//!  DATA  ─► receiver index ─► session, or the waiting one: its first datagram confirms the keys and replaces
//! ```
//!
//! A client has one session for each of its workers. A server of several workers has one of these for each: every
//! session belongs to one of them (`peer::owner`), and what comes to another is handed over (`others`).
//!
//! Nothing is kept for anyone who is not authenticated. A replayed HELLO at most makes keys that nobody can use. A
//! session without keys that are young enough is wiped.

mod config;
mod contract;
mod handshake;
mod others;
mod peer;
mod sessions;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use super::admission::Admission;
use super::mail::{Handover, IndexOwner, Mail};
use super::peer_table::PeerTable;
use super::{Event, PeerId, SessionId};
use crate::base::id::{LINK_COUNT_MAX, LINKS_MAX};
use crate::base::{DropCounters, DropReason, Instant, LinkId};
use crate::crypto::keys::PublicKey;
use crate::crypto::mac::SecretNumbers;
use crate::flow;
use crate::session::config::SessionConfig;
use crate::session::path::Origin;
use crate::session::{self, Session};
use crate::wire::handshake::{COOKIE_BYTES, MAC_BYTES, WELCOME_BYTES};
use crate::wire::header::Kind;
use crate::wire::inner_ip;
use crate::wire::virtio::VIRTIO_BYTES;
use config::route_table;
use peer::{Part, Peer};

pub use config::{AllowedAddresses, PeerConfig, ServerConfig};

/// Answers to handshakes waiting to be sent; more are dropped, the client asks again.
const ANSWERS_MAX: usize = 64;
/// How long copies of a HELLO are answered: longer than a client repeats it, and the slowest link on top.
const COPIES_TIME: Duration = Duration::from_secs(10);
/// Copies that are answered: a client's, ten times by each of its links.
const COPIES_MAX: u16 = 10 * LINK_COUNT_MAX as u16;
/// Keys that nothing arrives under for this long are forgotten: longer than any round trip.
const WAITING_TIME: Duration = Duration::from_secs(15);

/// An answer to a handshake.
enum Answer {
    Welcome(Box<[u8; WELCOME_BYTES]>),
    Cookie([u8; COOKIE_BYTES]),
}

/// Whom a receiver index belongs to.
#[derive(Clone, Copy, Debug)]
struct IndexEntry {
    session: SessionId,
    epoch: u32,
    link: LinkId,
    waiting: bool,
}

/// The server endpoint.
pub struct Server {
    config: ServerConfig,
    peers: Vec<Peer>,
    keys: BTreeMap<PublicKey, PeerId>,
    routes: PeerTable,
    indexes: HashMap<u32, IndexEntry>,
    /// Receiver indexes of other workers.
    index_owner: IndexOwner,
    /// Sessions of this worker that there are, in order.
    running: Vec<SessionId>,
    /// mac1 of each session's last HELLO.
    copies: HashMap<[u8; MAC_BYTES], SessionId>,
    admission: Admission,
    answers: VecDeque<(Origin, Answer)>,
    events: VecDeque<Event>,
    epoch_count: u32,
    drops: DropCounters,
    handshakes: u64,
    /// Receiver indexes travel in clear: none must tell anything about another.
    numbers: SecretNumbers,
    /// Seed of the hash that keeps a flow on one of several sessions.
    flow_seed: u64,
    outbox: VecDeque<(u8, Mail)>,
    /// Where in `running` the next turn begins.
    next_sender: usize,
    next_frame: usize,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("peers", &self.peers.len())
            .finish_non_exhaustive()
    }
}

impl Server {
    /// A server that waits.
    pub fn new(mut config: ServerConfig, _now: Instant) -> Self {
        let mut keys = BTreeMap::new();
        let configs = std::mem::take(&mut config.peers);
        for (number, peer) in (0_u16..).zip(&configs) {
            keys.insert(peer.public_key, PeerId(number));
        }
        let routes = route_table(configs.iter().map(|peer| &peer.addresses));
        let peers = (0_u16..).map(PeerId).zip(configs);
        let peers = peers.map(|(id, peer)| Peer::new(peer, id, &config.workers));
        let peers = peers.collect();
        let mut numbers = SecretNumbers::from_number(config.seed, b"server");
        let flow_seed = numbers.next_u64();
        Self {
            admission: Admission::new(
                config.private_key.public(),
                &config.cookie_secret,
                config.workers.own,
                config.handshakes_per_s,
            ),
            numbers,
            flow_seed,
            index_owner: IndexOwner::new(&config.workers),
            running: Vec::new(),
            config,
            peers,
            keys,
            routes,
            indexes: HashMap::with_capacity(4 * LINKS_MAX),
            copies: HashMap::with_capacity(16),
            answers: VecDeque::with_capacity(ANSWERS_MAX),
            events: VecDeque::with_capacity(64),
            epoch_count: 0,
            drops: DropCounters::default(),
            handshakes: 0,
            outbox: VecDeque::new(),
            next_sender: 0,
            next_frame: 0,
        }
    }

    /// Applies a reloaded configuration to running and later sessions.
    pub fn reconfigure(&mut self, session: &SessionConfig, allowed: Vec<AllowedAddresses>) {
        for (peer, addresses) in self.peers.iter_mut().zip(allowed) {
            peer.config.addresses = addresses;
        }
        self.routes = route_table(self.peers.iter().map(|peer| &peer.config.addresses));
        self.config.session = session.clone();
        for at in 0..self.running.len() {
            if let Some(running) = self.session_mut(self.running[at]) {
                running.set_config(session.clone());
            }
        }
    }

    fn session_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        self.peers.get_mut(id.peer.index())?.session(id.number)
    }

    fn session(&self, id: SessionId) -> Option<&Session> {
        let part = self.peers.get(id.peer.index())?.parts.get(&id.number)?;
        part.session.as_ref()
    }

    /// What there is of a session; made when it is asked for first.
    fn part_mut(&mut self, id: SessionId) -> &mut Part {
        self.peers[id.peer.index()]
            .parts
            .entry(id.number)
            .or_default()
    }

    /// Name of a peer, for logs.
    pub fn peer_name(&self, peer: PeerId) -> &str {
        self.peers
            .get(peer.index())
            .map_or("", |peer| &peer.config.name)
    }

    /// When the first of the sessions wants to be woken and why, to name the culprit of a busy loop.
    pub fn next_timer(&self, now: Instant) -> Option<(Instant, session::Timer)> {
        let sessions = self.running.iter().filter_map(|id| self.session(*id));
        sessions
            .map(|session| session.poll_timeout(now))
            .min_by_key(|(at, _)| *at)
    }

    fn check_room_for_answer(&self) -> Result<(), DropReason> {
        if self.answers.len() < ANSWERS_MAX {
            Ok(())
        } else {
            Err(DropReason::HandshakeLimited)
        }
    }

    fn answer(&mut self, origin: Origin, answer: Answer) -> Result<(), DropReason> {
        self.check_room_for_answer()?;
        self.answers.push_back((origin, answer));
        Ok(())
    }

    fn forget_indexes(&mut self, whose: impl Fn(&IndexEntry) -> bool) {
        self.indexes.retain(|_, entry| !whose(entry));
    }

    fn handle_datagram(
        &mut self,
        kind: Kind,
        origin: Origin,
        datagram: &mut [u8],
        now: Instant,
        over: Option<&mut dyn Handover>,
    ) -> Result<(), DropReason> {
        match kind {
            Kind::Data => self.on_data(origin, datagram, now, over),
            Kind::Hello => self.on_hello(origin, datagram, now, over),
            Kind::Welcome | Kind::Cookie => Err(DropReason::HandshakeRefused),
        }
    }

    /// The session for a frame.
    fn route(&self, frame: &[u8]) -> Result<SessionId, DropReason> {
        let ip = inner_ip::parse(frame.get(VIRTIO_BYTES..).ok_or(DropReason::NotIp)?)?;
        let peer = self.routes.get(ip.dst).ok_or(DropReason::NoPeer)?;
        let sessions = &self.peers[peer.index()];
        // Most clients have one session, and then no hash is needed.
        let flow = if sessions.joined.count_ones() > 1 {
            flow::hash::hash(&ip, self.flow_seed)
        } else {
            0
        };
        let number = sessions.pick(flow).ok_or(DropReason::NoSession)?;
        Ok(SessionId { peer, number })
    }

    fn take_frame(
        &mut self,
        frame: &[u8],
        now: Instant,
        over: &mut dyn Handover,
    ) -> Result<(), DropReason> {
        let id = self.route(frame)?;
        if let Some(session) = self.session_mut(id) {
            return session.handle_frame(frame, now);
        }
        let worker = peer::owner(id, &self.config.workers);
        if worker == self.config.workers.own {
            Err(DropReason::NoSession)
        } else if over.frame(worker, id, frame) {
            Ok(())
        } else {
            Err(DropReason::HandoverFull)
        }
    }
}
