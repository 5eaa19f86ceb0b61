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
mod handshake;
mod others;
mod peer;
mod sessions;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use super::admission::Admission;
use super::mail::{Handover, IndexOwner, Mail};
use super::peer_table::PeerTable;
use super::stats::{EndpointStats, PeerStats};
use super::{Endpoint, Event, PeerId, SessionId, Transmit};
use crate::base::id::{LINK_COUNT_MAX, LINKS_MAX};
use crate::base::{DropCounters, DropReason, Instant, LinkId};
use crate::crypto::Cipher;
use crate::crypto::keys::PublicKey;
use crate::crypto::mac::SecretNumbers;
use crate::flow;
use crate::session::config::SessionConfig;
use crate::session::path::Origin;
use crate::session::{self, Session};
use crate::wire::handshake::{COOKIE_BYTES, MAC_BYTES, WELCOME_BYTES};
use crate::wire::header::{self, Kind};
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

impl Endpoint for Server {
    fn handle_frame(&mut self, frame: &[u8], now: Instant, over: &mut dyn Handover) {
        if let Err(reason) = self.take_frame(frame, now, over) {
            self.drops.count(reason);
        }
    }

    fn handle_handed_frame(&mut self, session: SessionId, frame: &[u8], now: Instant) {
        let result = match self.session_mut(session) {
            Some(session) => session.handle_frame(frame, now),
            None => Err(DropReason::NoSession),
        };
        if let Err(reason) = result {
            self.drops.count(reason);
        }
    }

    fn handle_datagrams(
        &mut self,
        origin: Option<Origin>,
        buffer: &mut [u8],
        now: Instant,
        over: &mut dyn Handover,
    ) {
        let Some(origin) = origin else { return };
        for part in header::datagrams(buffer) {
            let taken = match part {
                Ok((kind, datagram)) => {
                    self.handle_datagram(kind, origin, datagram, now, Some(over))
                }
                Err(reason) => Err(reason),
            };
            if let Err(reason) = taken {
                self.drops.count(reason);
            }
        }
    }

    fn handle_handed_datagram(
        &mut self,
        origin: Origin,
        datagram: &mut [u8],
        now: Instant,
        over: &mut dyn Handover,
    ) {
        // The worker that admits gets HELLOs from the others' sockets; nothing else is passed on a second time.
        let admits = self.config.workers.own == 0;
        for part in header::datagrams(datagram) {
            let taken = match part {
                Ok((Kind::Hello, hello)) if admits => self.on_hello(origin, hello, now, Some(over)),
                Ok((kind, datagram)) => self.handle_datagram(kind, origin, datagram, now, None),
                Err(reason) => Err(reason),
            };
            if let Err(reason) = taken {
                self.drops.count(reason);
            }
        }
    }

    fn handle_mail(&mut self, mail: Mail, now: Instant) {
        self.take_mail(mail, now);
    }

    fn poll_mail(&mut self, now: Instant) -> Option<(u8, Mail)> {
        self.next_mail(now)
    }

    fn handle_timeout(&mut self, now: Instant) {
        for (at, id) in (0..self.peers.len()).zip((0..).map(PeerId)) {
            let mut over = 0_u16;
            for (number, part) in &mut self.peers[at].parts {
                let is_over = part.waiting.take_if(|w| now >= w.until).is_some();
                over |= u16::from(is_over) << number;
            }
            if over != 0 {
                self.forget_indexes(|entry| {
                    entry.waiting
                        && entry.session.peer == id
                        && over >> entry.session.number & 1 == 1
                });
            }
        }
        let mut ended = false;
        for at in 0..self.running.len() {
            if let Some(session) = self.session_mut(self.running[at]) {
                session.handle_timeout(now);
                ended |= !session.has_keys();
            }
        }
        while ended {
            let without_keys = |id: &&SessionId| self.session(**id).is_some_and(|s| !s.has_keys());
            match self.running.iter().find(without_keys) {
                Some(&id) => self.lose(id),
                None => ended = false,
            }
        }
        self.refresh_presence(now);
    }

    fn on_send_error(&mut self, session: SessionId, link: LinkId, now: Instant) {
        if let Some(session) = self.session_mut(session) {
            session.on_send_error(link, now);
        }
    }

    fn on_path_limit(&mut self, session: SessionId, link: LinkId, bytes: usize, now: Instant) {
        if let Some(session) = self.session_mut(session) {
            session.limit_datagrams(link, bytes, now);
        }
    }

    fn count_drop(&mut self, reason: DropReason, count: u64) {
        self.drops.count_many(reason, count);
    }

    fn poll_transmit(&mut self, now: Instant, out: &mut [u8]) -> Option<Transmit> {
        if let Some((origin, answer)) = self.answers.pop_front() {
            let bytes: &[u8] = match &answer {
                Answer::Welcome(welcome) => &welcome[..],
                Answer::Cookie(cookie) => cookie,
            };
            out[..bytes.len()].copy_from_slice(bytes);
            let segment = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
            return Some(Transmit {
                link: None,
                origin: Some(origin),
                bytes: bytes.len(),
                segment,
            });
        }
        let count = self.running.len();
        for turn in 0..count {
            let at = (self.next_sender + turn) % count;
            let id = self.running[at];
            let Some(session) = self.session_mut(id) else {
                continue;
            };
            if let Some(transmit) = session.poll_transmit(now, out) {
                self.next_sender = at + 1;
                return Some(Transmit {
                    link: Some((id, transmit.link)),
                    origin: transmit.to,
                    bytes: transmit.bytes,
                    segment: transmit.segment,
                });
            }
        }
        None
    }

    fn poll_frame(&mut self, now: Instant, out: &mut [u8]) -> Option<usize> {
        let count = self.running.len();
        for turn in 0..count {
            let at = (self.next_frame + turn) % count;
            let id = self.running[at];
            while let Some(bytes) = self.session_mut(id)?.poll_frame(now, out) {
                if self.routes.owner_of_source(&out[..bytes]) == Some(id.peer.index()) {
                    self.next_frame = at + 1;
                    return Some(bytes);
                }
                self.drops.count(DropReason::InnerSource);
            }
        }
        None
    }

    fn poll_event(&mut self) -> Option<Event> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        let mut at = 0;
        while let Some(&id) = self.running.get(at) {
            let Some(event) = self.session_mut(id).and_then(Session::poll_event) else {
                at += 1;
                continue;
            };
            match event {
                session::Event::PathChanged { link, origin } => {
                    return Some(Event::PathChanged {
                        session: id,
                        link,
                        origin,
                    });
                }
                session::Event::LinkState { link, state } => {
                    return Some(Event::LinkState {
                        session: id,
                        link,
                        state,
                    });
                }
                session::Event::SegmentChanged {
                    link,
                    bytes,
                    shrunk,
                } => {
                    return Some(Event::SegmentChanged {
                        session: id,
                        link,
                        bytes,
                        shrunk,
                    });
                }
                session::Event::EpochDropped(epoch) => {
                    self.forget_indexes(|entry| entry.session == id && entry.epoch == epoch);
                }
                session::Event::Closed => {
                    self.lose(id);
                    return self.events.pop_front();
                }
            }
        }
        None
    }

    fn poll_timeout(&self, now: Instant) -> Instant {
        if !self.answers.is_empty() {
            return now;
        }
        let parts = self.peers.iter().flat_map(|peer| peer.parts.values());
        parts
            .map(|part| {
                let waiting = part.waiting.as_ref().map_or(Instant::FAR, |w| w.until);
                let session = part.session.as_ref();
                session.map_or(waiting, |s| s.poll_timeout(now).0.min(waiting))
            })
            .min()
            .unwrap_or(Instant::FAR)
    }

    fn is_idle(&self, now: Instant) -> bool {
        let mut sessions = self.running.iter().filter_map(|id| self.session(*id));
        sessions.all(|session| session.is_idle(now))
    }

    fn stats(&mut self, now: Instant) -> EndpointStats {
        let mut peers = Vec::new();
        for (peer, id) in self.peers.iter_mut().zip((0..).map(PeerId)) {
            for (number, part) in &mut peer.parts {
                peers.push(PeerStats {
                    id: SessionId {
                        peer: id,
                        number: *number,
                    },
                    name: peer.config.name.clone(),
                    public_key: peer.config.public_key.to_string(),
                    cipher: part.cipher.map(Cipher::name),
                    epoch: part.epoch,
                    session: part.session.as_mut().map(|session| session.stats(now)),
                    dialing: false,
                });
            }
        }
        EndpointStats {
            peers,
            drops: self.drops.clone(),
            handshakes: self.handshakes,
        }
    }

    fn close(&mut self, now: Instant) {
        let _ = now;
        for at in 0..self.running.len() {
            if let Some(session) = self.session_mut(self.running[at]) {
                session.close();
            }
        }
    }
}
