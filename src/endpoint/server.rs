//! The server: admits known clients, one session each, and knows which client owns which inner address.
//!
//! ```text
//!  HELLO ─► admission (mac1, limits, cookies) ─► key known? stamp newer? ─► WELCOME, keys wait
//!  DATA  ─► receiver index ─► session, or the waiting one: its first datagram confirms the keys and replaces
//! ```
//!
//! Nothing is kept for anyone who is not authenticated. A replayed HELLO at most makes keys that nobody can use. A
//! session without keys that are young enough is wiped.

mod config;
mod handshake;
mod peer;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use super::admission::Admission;
use super::peer_table::PeerTable;
use super::stats::{EndpointStats, PeerStats};
use super::{Endpoint, Event, PeerId, Transmit};
use crate::base::id::{LINK_COUNT_MAX, LINKS_MAX};
use crate::base::{DropCounters, DropReason, Instant, LinkId};
use crate::crypto::Cipher;
use crate::crypto::keys::PublicKey;
use crate::crypto::mac::SecretNumbers;
use crate::session::config::SessionConfig;
use crate::session::path::Origin;
use crate::session::{self, Session};
use crate::wire::handshake::{COOKIE_BYTES, MAC_BYTES, WELCOME_BYTES};
use crate::wire::header::{self, DataHeader, Kind};
use crate::wire::inner_ip;
use crate::wire::virtio::VIRTIO_BYTES;
use config::route_table;
use peer::Peer;

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
    peer: PeerId,
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
    /// mac1 of each peer's last HELLO.
    copies: HashMap<[u8; MAC_BYTES], PeerId>,
    admission: Admission,
    answers: VecDeque<(Origin, Answer)>,
    events: VecDeque<Event>,
    epoch_count: u32,
    drops: DropCounters,
    handshakes: u64,
    /// Receiver indexes travel in clear: none must tell anything about another.
    numbers: SecretNumbers,
    next_peer: usize,
    next_frame_peer: usize,
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
        let peers = configs.into_iter().map(Peer::new).collect();
        Self {
            admission: Admission::new(
                config.private_key.public(),
                &config.cookie_secret,
                config.handshakes_per_s,
            ),
            numbers: SecretNumbers::from_number(config.seed, b"server"),
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
            next_peer: 0,
            next_frame_peer: 0,
        }
    }

    /// Applies a reloaded configuration to running and later sessions.
    pub fn reconfigure(&mut self, session: &SessionConfig, allowed: Vec<AllowedAddresses>) {
        for (peer, addresses) in self.peers.iter_mut().zip(allowed) {
            peer.config.addresses = addresses;
        }
        self.routes = route_table(self.peers.iter().map(|peer| &peer.config.addresses));
        self.config.session = session.clone();
        for peer in &mut self.peers {
            if let Some(running) = &mut peer.session {
                running.set_config(session.clone());
            }
        }
    }

    /// Name of a peer, for logs.
    pub fn peer_name(&self, peer: PeerId) -> &str {
        self.peers
            .get(peer.index())
            .map_or("", |peer| &peer.config.name)
    }

    /// When the first of the sessions wants to be woken and why, to name the culprit of a busy loop.
    pub fn next_timer(&self, now: Instant) -> Option<(Instant, session::Timer)> {
        let sessions = self.peers.iter().filter_map(|peer| peer.session.as_ref());
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

    fn on_data(
        &mut self,
        origin: Origin,
        datagram: &mut [u8],
        now: Instant,
    ) -> Result<(), DropReason> {
        let index = DataHeader::parse(datagram)?.receiver_index;
        let &entry = self.indexes.get(&index).ok_or(DropReason::UnknownIndex)?;
        let peer = &mut self.peers[entry.peer.index()];
        if !entry.waiting {
            let session = peer.session.as_mut().ok_or(DropReason::NoSession)?;
            return session.handle_datagram(entry.epoch, entry.link, datagram, Some(origin), now);
        }
        let waiting = peer.waiting.as_mut().ok_or(DropReason::NoSession)?;
        let session = waiting.session(&self.config.session, now);
        let result = session.handle_datagram(entry.epoch, entry.link, datagram, Some(origin), now);
        if session.received_datagrams() > 0 {
            self.promote(entry.peer, now);
        }
        result
    }

    /// The waiting session's keys were confirmed: it replaces the old one.
    fn promote(&mut self, id: PeerId, now: Instant) {
        let peer = &mut self.peers[id.index()];
        let Some(waiting) = peer.waiting.take() else {
            return;
        };
        (peer.boot_id, peer.superseded) = (waiting.boot_id, false);
        let Some(mut session) = waiting.into_session() else {
            return;
        };
        session.handle_timeout(now);
        if peer.session.replace(session).is_some() {
            self.events.push_back(Event::Lost { peer: id });
        }
        self.forget_indexes(|entry| entry.peer == id && !entry.waiting);
        for entry in self.indexes.values_mut() {
            entry.waiting &= entry.peer != id;
        }
        self.events.push_back(Event::Established {
            peer: id,
            fresh: true,
        });
    }

    /// Wipes a session.
    fn lose(&mut self, id: PeerId) {
        self.peers[id.index()].session = None;
        self.forget_indexes(|entry| entry.peer == id && !entry.waiting);
        self.events.push_back(Event::Lost { peer: id });
    }

    fn handle_datagram(
        &mut self,
        kind: Kind,
        origin: Origin,
        datagram: &mut [u8],
        now: Instant,
    ) -> Result<(), DropReason> {
        match kind {
            Kind::Data => self.on_data(origin, datagram, now),
            Kind::Hello => self.on_hello(origin, datagram, now),
            Kind::Welcome | Kind::Cookie => Err(DropReason::HandshakeRefused),
        }
    }

    fn route(&self, frame: &[u8]) -> Result<PeerId, DropReason> {
        let ip = inner_ip::parse(frame.get(VIRTIO_BYTES..).ok_or(DropReason::NotIp)?)?;
        self.routes.get(ip.dst).ok_or(DropReason::NoPeer)
    }
}

impl Endpoint for Server {
    fn handle_frame(&mut self, frame: &[u8], now: Instant) {
        let result = self
            .route(frame)
            .and_then(|id| match &mut self.peers[id.index()].session {
                Some(session) => session.handle_frame(frame, now),
                None => Err(DropReason::NoSession),
            });
        if let Err(reason) = result {
            self.drops.count(reason);
        }
    }

    fn handle_datagrams(&mut self, origin: Option<Origin>, buffer: &mut [u8], now: Instant) {
        let Some(origin) = origin else { return };
        for part in header::datagrams(buffer) {
            let taken =
                part.and_then(|(kind, datagram)| self.handle_datagram(kind, origin, datagram, now));
            if let Err(reason) = taken {
                self.drops.count(reason);
            }
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        for (at, id) in (0..self.peers.len()).zip((0..).map(PeerId)) {
            let peer = &mut self.peers[at];
            if peer.waiting.take_if(|w| now >= w.until).is_some() {
                self.forget_indexes(|entry| entry.peer == id && entry.waiting);
            }
            let Some(session) = &mut self.peers[at].session else {
                continue;
            };
            session.handle_timeout(now);
            if !session.has_keys() {
                self.lose(id);
            }
        }
    }

    fn on_send_error(&mut self, peer: PeerId, link: LinkId, now: Instant) {
        if let Some(session) = self
            .peers
            .get_mut(peer.index())
            .and_then(|peer| peer.session.as_mut())
        {
            session.on_send_error(link, now);
        }
    }

    fn on_path_limit(&mut self, peer: PeerId, link: LinkId, bytes: usize, now: Instant) {
        let known = self.peers.get_mut(peer.index());
        if let Some(session) = known.and_then(|peer| peer.session.as_mut()) {
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
        let count = self.peers.len();
        for turn in 0..count {
            let at = (self.next_peer + turn) % count;
            let Some(session) = &mut self.peers[at].session else {
                continue;
            };
            if let Some(transmit) = session.poll_transmit(now, out) {
                self.next_peer = at + 1;
                return Some(Transmit {
                    link: Some((PeerId(u16::try_from(at).unwrap_or(u16::MAX)), transmit.link)),
                    origin: transmit.to,
                    bytes: transmit.bytes,
                    segment: transmit.segment,
                });
            }
        }
        None
    }

    fn poll_frame(&mut self, now: Instant, out: &mut [u8]) -> Option<usize> {
        let count = self.peers.len();
        for turn in 0..count {
            let at = (self.next_frame_peer + turn) % count;
            let Some(session) = &mut self.peers[at].session else {
                continue;
            };
            while let Some(bytes) = session.poll_frame(now, out) {
                if self.routes.owner_of_source(&out[..bytes]) == Some(at) {
                    self.next_frame_peer = at + 1;
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
        for (at, id) in (0..self.peers.len()).zip((0..).map(PeerId)) {
            while let Some(event) = self.peers[at]
                .session
                .as_mut()
                .and_then(Session::poll_event)
            {
                match event {
                    session::Event::PathChanged { link, origin } => {
                        return Some(Event::PathChanged {
                            peer: id,
                            link,
                            origin,
                        });
                    }
                    session::Event::LinkState { link, state } => {
                        return Some(Event::LinkState {
                            peer: id,
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
                            peer: id,
                            link,
                            bytes,
                            shrunk,
                        });
                    }
                    session::Event::EpochDropped(epoch) => {
                        self.forget_indexes(|entry| entry.peer == id && entry.epoch == epoch);
                    }
                    session::Event::Closed => {
                        self.lose(id);
                        return self.events.pop_front();
                    }
                }
            }
        }
        None
    }

    fn poll_timeout(&self, now: Instant) -> Instant {
        if !self.answers.is_empty() {
            return now;
        }
        self.peers
            .iter()
            .map(|peer| {
                let waiting = peer.waiting.as_ref().map_or(Instant::FAR, |w| w.until);
                let session = peer.session.as_ref();
                session.map_or(waiting, |s| s.poll_timeout(now).0.min(waiting))
            })
            .min()
            .unwrap_or(Instant::FAR)
    }

    fn stats(&mut self, now: Instant) -> EndpointStats {
        let peers = self
            .peers
            .iter_mut()
            .map(|peer| PeerStats {
                name: peer.config.name.clone(),
                public_key: peer.config.public_key.to_string(),
                cipher: peer.cipher.map(Cipher::name),
                epoch: peer.epoch,
                session: peer.session.as_mut().map(|session| session.stats(now)),
                dialing: false,
            })
            .collect();
        EndpointStats {
            peers,
            drops: self.drops.clone(),
            handshakes: self.handshakes,
        }
    }

    fn close(&mut self, now: Instant) {
        let _ = now;
        for peer in &mut self.peers {
            if let Some(session) = &mut peer.session {
                session.close();
            }
        }
    }
}
