//! The server: admits known clients, one session each, and knows which client owns which inner address.
//!
//! ```text
//!  HELLO ─► admission (mac1, limits, cookies) ─► key known? stamp newer? ─► WELCOME, keys wait
//!  DATA  ─► receiver index ─► session, or the waiting one: its first datagram confirms the keys and replaces
//! ```
//!
//! Nothing is kept for anyone who is not authenticated. A replayed HELLO at most makes keys that nobody can use.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use super::admission::{Admission, Verdict};
use super::epoch::{FEATURE_FRESH, draw_indexes, epoch_keys};
use super::prefix::{PeerTable, Prefix};
use super::stats::{EndpointStats, PeerStats};
use super::{Endpoint, Event, PeerId, Transmit};
use crate::base::id::LINKS_MAX;
use crate::base::{DropCounters, DropReason, Instant, LinkId, Rng, WanId};
use crate::crypto::Cipher;
use crate::crypto::handshake::Responder;
use crate::crypto::key_schedule::Role;
use crate::crypto::keys::{PresharedKey, PrivateKey, PublicKey};
use crate::session::config::{SessionConfig, WanConfig};
use crate::session::path::Origin;
use crate::session::{self, Session, SessionParameters};
use crate::wire::handshake::{Hello, WELCOME_BYTES, WelcomePayload};
use crate::wire::header::{self, DataHeader, Kind};
use crate::wire::inner_ip;
use crate::wire::virtio::VIRTIO_BYTES;

/// A session from which nothing came for this long is wiped: three times the life of a key.
const IDLE_MAX: Duration = Duration::from_secs(540);
/// A peer's own HELLOs are answered at most this often.
const HELLO_INTERVAL: Duration = Duration::from_millis(20);
/// Answers to handshakes waiting to be sent; more are dropped, the client asks again.
const ANSWERS_MAX: usize = 64;

/// One client that may connect.
pub struct PeerConfig {
    /// Name for status and logs.
    pub name: String,
    /// Its key.
    pub public_key: PublicKey,
    /// Mixed into the handshake when there is one.
    pub preshared_key: Option<PresharedKey>,
    /// Inner addresses that are routed to it and accepted from it.
    pub addresses: AllowedAddresses,
}

/// Inner addresses of one peer.
#[derive(Clone, Debug, Default)]
pub struct AllowedAddresses {
    /// Prefixes, wide or not.
    pub allowed: Vec<Prefix>,
    /// Those of them that are single addresses.
    pub hosts: Vec<IpAddr>,
}

impl std::fmt::Debug for PeerConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PeerConfig")
            .field("name", &self.name)
            .finish_non_exhaustive() // no keys
    }
}

/// What a server needs to know.
pub struct ServerConfig {
    /// Our key.
    pub private_key: PrivateKey,
    /// Who may connect.
    pub peers: Vec<PeerConfig>,
    /// Ciphers we are willing to use.
    pub cipher_bits: u8,
    /// Largest datagram we take.
    pub datagram_bytes_max: u16,
    /// Handshakes a second before cookies are demanded.
    pub handshakes_per_s: u32,
    /// Behaviour of the sessions.
    pub session: SessionConfig,
    /// Random number of this start of the program.
    pub boot_id: [u8; 8],
    /// Secret of the cookies.
    pub cookie_secret: [u8; 32],
    /// Seed from the system's random source.
    pub seed: u64,
}

impl std::fmt::Debug for ServerConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerConfig")
            .field("datagram_bytes_max", &self.datagram_bytes_max)
            .finish_non_exhaustive() // no keys
    }
}

/// An answer to a handshake.
enum Answer {
    Welcome(Box<[u8; WELCOME_BYTES]>),
    Cookie([u8; crate::wire::handshake::COOKIE_BYTES]),
}

/// The last handshake of a peer, kept for the copies of its HELLO that come by other links.
struct Answered {
    ephemeral: [u8; 32],
    welcome: Box<[u8; WELCOME_BYTES]>,
}

struct Peer {
    config: PeerConfig,
    session: Option<Session>,
    /// A session whose keys are not confirmed: the client restarted, or is new.
    waiting: Option<Session>,
    boot_id: [u8; 8],
    waiting_boot_id: [u8; 8],
    stamp: [u8; 12],
    answered: Option<Answered>,
    answered_at: Instant,
    epoch: u32,
    cipher: Option<Cipher>,
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
    admission: Admission,
    answers: VecDeque<(Origin, Answer)>,
    events: VecDeque<Event>,
    epoch_count: u32,
    drops: DropCounters,
    handshakes: u64,
    rng: Rng,
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
    pub fn new(mut config: ServerConfig, now: Instant) -> Self {
        let mut keys = BTreeMap::new();
        let configs = std::mem::take(&mut config.peers);
        for (number, peer) in (0_u16..).zip(&configs) {
            keys.insert(peer.public_key, PeerId(number));
        }
        let routes = route_table(configs.iter().map(|peer| &peer.addresses));
        let peers = configs
            .into_iter()
            .map(|config| Peer::new(config, now))
            .collect();
        Self {
            admission: Admission::new(
                config.private_key.public(),
                &config.cookie_secret,
                config.handshakes_per_s,
            ),
            rng: Rng::new(config.seed),
            config,
            peers,
            keys,
            routes,
            indexes: HashMap::with_capacity(4 * LINKS_MAX),
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

    fn on_hello(
        &mut self,
        origin: Origin,
        datagram: &[u8],
        now: Instant,
    ) -> Result<(), DropReason> {
        let hello = Hello::parse(datagram)?;
        let ephemeral = *hello.ephemeral();
        // Copies of one HELLO on several links get the one answer.
        if let Some(answered) = self
            .peers
            .iter()
            .filter_map(|p| p.answered.as_ref())
            .find(|a| a.ephemeral == ephemeral)
        {
            let welcome = answered.welcome.clone();
            return self.answer(origin, Answer::Welcome(welcome));
        }
        match self.admission.check(datagram, origin.address, now) {
            Verdict::Pass => {}
            Verdict::Drop(reason) => return Err(reason),
            Verdict::Cookie(cookie) => return self.answer(origin, Answer::Cookie(cookie)),
        }
        let responder = Responder::read(&self.config.private_key, datagram)?;
        let &id = self
            .keys
            .get(&responder.peer())
            .ok_or(DropReason::HandshakeRefused)?;
        let peer = &mut self.peers[id.index()];
        if responder.payload().stamp <= peer.stamp {
            return Err(DropReason::HandshakeReplay);
        }
        if peer.answered.is_some() && now.since(peer.answered_at) < HELLO_INTERVAL {
            return Err(DropReason::HandshakeLimited);
        }
        let welcome = self.welcome(id, responder, ephemeral, now)?;
        self.answer(origin, Answer::Welcome(welcome))
    }

    /// Makes keys for a peer whose HELLO was opened.
    fn welcome(
        &mut self,
        id: PeerId,
        responder: Responder,
        ephemeral: [u8; 32],
        now: Instant,
    ) -> Result<Box<[u8; WELCOME_BYTES]>, DropReason> {
        let hello = *responder.payload();
        let sender_index = responder.sender_index();
        let Self {
            indexes: used, rng, ..
        } = self;
        let indexes = draw_indexes(hello.link_count, rng, |index| used.contains_key(&index));
        let peer = &mut self.peers[id.index()];
        let fresh = peer.session.is_none()
            || hello.boot_id != peer.boot_id
            || hello.features & FEATURE_FRESH != 0;
        let cipher = Cipher::choose(self.config.cipher_bits, hello.cipher_bits);
        let payload = WelcomePayload {
            cipher: cipher.code(),
            features: if fresh { FEATURE_FRESH } else { 0 },
            boot_id: self.config.boot_id,
            link_count: hello.link_count,
            datagram_bytes_max: self.config.datagram_bytes_max,
            hold_time_max_ms: u16::try_from(crate::reorder::hold::HOLD_MAX.as_millis())
                .unwrap_or(u16::MAX),
            indexes,
        };
        let mut welcome = Box::new([0; WELCOME_BYTES]);
        #[allow(clippy::cast_possible_truncation)] // 32 random bits are what is wanted
        let own_index = self.rng.next_u64() as u32;
        let established = responder
            .finish(
                peer.config.preshared_key.as_ref(),
                own_index,
                &payload,
                &mut welcome,
            )
            .map_err(|_| DropReason::HandshakeRefused)?;
        self.handshakes += 1;
        self.epoch_count = self.epoch_count.wrapping_add(1);
        let epoch = self.epoch_count;
        #[allow(clippy::cast_possible_truncation)] // the low byte names the epoch
        let tag = sender_index as u8;
        let keys = epoch_keys(
            &established,
            Role::Responder,
            epoch,
            tag,
            hello.link_count,
            &hello.indexes,
            now,
        );
        peer.stamp = hello.stamp;
        peer.answered = Some(Answered {
            ephemeral,
            welcome: welcome.clone(),
        });
        peer.answered_at = now;
        peer.epoch = epoch;
        peer.cipher = Some(cipher);
        if fresh {
            self.indexes
                .retain(|_, entry| !(entry.peer == id && entry.waiting));
            let datagram_bytes_max = hello.datagram_bytes_max.min(self.config.datagram_bytes_max);
            let parameters =
                session_parameters(hello.link_count, datagram_bytes_max, self.rng.next_u64());
            let mut session = Session::new(&parameters, self.config.session.clone(), now);
            session.install_epoch(keys, now);
            peer.waiting = Some(session);
            peer.waiting_boot_id = hello.boot_id;
        } else if let Some(session) = &mut peer.session {
            session.install_epoch(keys, now);
        }
        for link in (0..hello.link_count).map(LinkId) {
            self.indexes.insert(
                indexes[link.index()],
                IndexEntry {
                    peer: id,
                    epoch,
                    link,
                    waiting: fresh,
                },
            );
        }
        Ok(welcome)
    }

    fn answer(&mut self, origin: Origin, answer: Answer) -> Result<(), DropReason> {
        if self.answers.len() >= ANSWERS_MAX {
            return Err(DropReason::HandshakeLimited);
        }
        self.answers.push_back((origin, answer));
        Ok(())
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
        let session = if entry.waiting {
            &mut peer.waiting
        } else {
            &mut peer.session
        };
        let session = session.as_mut().ok_or(DropReason::NoSession)?;
        let before = session.received_datagrams();
        let result = session.handle_datagram(entry.epoch, entry.link, datagram, Some(origin), now);
        if entry.waiting && session.received_datagrams() > before {
            self.promote(entry.peer, now);
        }
        result
    }

    /// The waiting session's keys were confirmed: it replaces the old one.
    fn promote(&mut self, id: PeerId, now: Instant) {
        let peer = &mut self.peers[id.index()];
        let Some(mut session) = peer.waiting.take() else {
            return;
        };
        session.handle_timeout(now);
        let segment_bytes = session.segment_bytes();
        if peer.session.replace(session).is_some() {
            self.events.push_back(Event::Lost { peer: id });
        }
        peer.boot_id = peer.waiting_boot_id;
        self.indexes
            .retain(|_, entry| entry.peer != id || entry.waiting);
        for entry in self.indexes.values_mut() {
            entry.waiting &= entry.peer != id;
        }
        self.events.push_back(Event::Established {
            peer: id,
            fresh: true,
            segment_bytes,
        });
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

/// Who owns which inner address, in the order of the peers.
fn route_table<'a>(peers: impl Iterator<Item = &'a AllowedAddresses>) -> PeerTable {
    let mut routes = PeerTable::default();
    for (number, addresses) in (0_u16..).zip(peers) {
        for &host in &addresses.hosts {
            routes.insert(Prefix::host(host), Some(host), PeerId(number));
        }
        for &prefix in &addresses.allowed {
            routes.insert(prefix, None, PeerId(number));
        }
    }
    routes
}

impl Peer {
    fn new(config: PeerConfig, now: Instant) -> Self {
        Self {
            config,
            session: None,
            waiting: None,
            boot_id: [0; 8],
            waiting_boot_id: [0; 8],
            stamp: [0; 12],
            answered: None,
            answered_at: now,
            epoch: 0,
            cipher: None,
        }
    }

    /// Whether the inner source address is the peer's.
    fn owns_source(&self, frame: &[u8]) -> bool {
        frame
            .get(VIRTIO_BYTES..)
            .and_then(|packet| inner_ip::parse(packet).ok())
            .is_some_and(|ip| {
                self.config
                    .addresses
                    .allowed
                    .iter()
                    .any(|prefix| prefix.contains(ip.src))
            })
    }
}

/// A session whose links and WANs the client will describe. There are at most as many WANs as links.
fn session_parameters(link_count: u8, datagram_bytes_max: u16, seed: u64) -> SessionParameters {
    let wans = (0..link_count)
        .map(|number| WanConfig {
            id: WanId(number),
            name: format!("wan{number}"),
            backup: false,
            rate_to_peer: None,
            rate_to_us: None,
        })
        .collect();
    SessionParameters {
        initiator: false,
        link_count,
        wans,
        wan_of_link: (0..link_count).map(WanId).collect(),
        datagram_bytes_max: usize::from(datagram_bytes_max),
        seed,
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
        let mut rest = buffer;
        while !rest.is_empty() {
            match header::split_first(rest) {
                Ok((kind, datagram, tail)) => {
                    if let Err(reason) = self.handle_datagram(kind, origin, datagram, now) {
                        self.drops.count(reason);
                    }
                    rest = tail;
                }
                Err(reason) => {
                    self.drops.count(reason);
                    return;
                }
            }
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        for at in 0..self.peers.len() {
            let peer = &mut self.peers[at];
            let Some(session) = &mut peer.session else {
                continue;
            };
            session.handle_timeout(now);
            if now.since(session.last_received_at()) > IDLE_MAX {
                peer.session = None;
                let id = PeerId(u16::try_from(at).unwrap_or(u16::MAX));
                self.indexes.retain(|_, entry| entry.peer != id);
                self.events.push_back(Event::Lost { peer: id });
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
            let Some(mut session) = self.peers[at].session.take() else {
                continue;
            };
            let mut found = None;
            while let Some(bytes) = session.poll_frame(now, out) {
                if self.peers[at].owns_source(&out[..bytes]) {
                    found = Some(bytes);
                    break;
                }
                self.drops.count(DropReason::InnerSource);
            }
            self.peers[at].session = Some(session);
            if found.is_some() {
                self.next_frame_peer = at + 1;
                return found;
            }
        }
        None
    }

    fn poll_event(&mut self) -> Option<Event> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        for at in 0..self.peers.len() {
            let id = PeerId(u16::try_from(at).unwrap_or(u16::MAX));
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
                    session::Event::EpochDropped(epoch) => {
                        self.indexes
                            .retain(|_, entry| entry.peer != id || entry.epoch != epoch);
                    }
                    session::Event::Closed => {
                        self.peers[at].session = None;
                        self.indexes
                            .retain(|_, entry| entry.peer != id || entry.waiting);
                        return Some(Event::Lost { peer: id });
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
            .filter_map(|peer| peer.session.as_ref())
            .map(|session| session.poll_timeout(now).0)
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
