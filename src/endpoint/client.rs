//! The client: dials its server, keeps the session's keys fresh, dials again when the server forgot it.
//!
//! ```text
//!          WELCOME                      keys old, or nothing heard
//!  dialing ───────► established ──────────────────────────────────► established + dialing
//!     ▲ │ ATTEMPT over: a new HELLO          ▲                              │ WELCOME
//!     └─┘                                    └──────────────────────────────┘
//! ```
//!
//! One HELLO goes out on every link, the first link first; identical bytes are safe in Noise. Whichever WELCOME
//! comes first wins. A running session goes on while a new handshake is under way.

mod dial;
mod others;

use std::collections::HashMap;
use std::time::Duration;

use super::epoch::{FEATURE_FRESH, draw_indexes, epoch_keys};
use super::mail::{Handover, Mail, Workers};
use super::stats::{EndpointStats, PeerStats};
use super::{Endpoint, Event, PeerId, SessionId, Transmit};
use crate::base::id::LINKS_MAX;
use crate::base::{DropCounters, DropReason, Instant, LinkId, Rng, WanId};
use crate::crypto::Cipher;
use crate::crypto::handshake::Initiator;
use crate::crypto::key_schedule::Role;
use crate::crypto::keys::{PresharedKey, PrivateKey, PublicKey};
use crate::crypto::mac::SecretNumbers;
use crate::session::config::{SessionConfig, WanConfig};
use crate::session::path::Origin;
use crate::session::{self, Session, SessionParameters};
use crate::wire::handshake::{HELLO_BYTES, HelloPayload, WelcomePayload};
use crate::wire::header::{self, DataHeader, Kind};
use dial::{ATTEMPT, Dial};

/// Attempts are longer by up to this at random, so that many clients do not come at once.
const ATTEMPT_JITTER: Duration = Duration::from_millis(333);
/// Nothing heard for this long, and for three heartbeats, which the server answers: it may have forgotten us.
const SILENCE: Duration = Duration::from_millis(1500);
/// Rotation happens within this part of the interval around it, so that many clients do not come at once.
const ROTATION_JITTER: f64 = 0.1;

/// What a client needs to know.
pub struct ClientConfig {
    /// Our key.
    pub private_key: PrivateKey,
    /// The server's.
    pub server_key: PublicKey,
    /// Mixed into the handshake when there is one.
    pub preshared_key: Option<PresharedKey>,
    /// Ciphers we are willing to use.
    pub cipher_bits: u8,
    /// Our WANs.
    pub wans: Vec<WanConfig>,
    /// WAN of each link.
    pub wan_of_link: Vec<WanId>,
    /// Largest datagram all links carry.
    pub datagram_bytes_max: u16,
    /// Time between two handshakes.
    pub rekey_interval: Duration,
    /// Behaviour of the session.
    pub session: SessionConfig,
    /// Random number of this start of the program.
    pub boot_id: [u8; 8],
    /// Wall clock at [`Instant::ZERO`], since 1970: only ordering between our own HELLOs matters.
    pub unix_time_at_zero: Duration,
    /// Seed from the system's random source.
    pub seed: u64,
    /// Which of the client's workers this is: the number of its session.
    pub workers: Workers,
}

impl std::fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientConfig")
            .field("datagram_bytes_max", &self.datagram_bytes_max)
            .finish_non_exhaustive() // no keys
    }
}

/// The client endpoint.
pub struct Client {
    config: ClientConfig,
    session: Option<Session>,
    server_boot_id: [u8; 8],
    dial: Option<Dial>,
    dial_at: Instant,
    rotate_at: Instant,
    /// Receiver index -> epoch and link.
    indexes: HashMap<u32, (u32, LinkId)>,
    epoch_count: u32,
    cipher: Option<Cipher>,
    events: std::collections::VecDeque<Event>,
    drops: DropCounters,
    handshakes: u64,
    /// Receiver indexes travel in clear: none must tell anything about another.
    numbers: SecretNumbers,
    /// Jitter.
    rng: Rng,
    /// The program ends: no more dialing.
    closed: bool,
    /// Sessions of all workers, by bit: those that there are, and those that frames have a way through.
    joined: u16,
    usable: u16,
    outbox: std::collections::VecDeque<(u8, Mail)>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("session", &self.session.is_some())
            .finish_non_exhaustive()
    }
}

impl Client {
    /// A client that dials at once.
    pub fn new(config: ClientConfig, now: Instant) -> Self {
        Self {
            rng: Rng::new(config.seed),
            numbers: SecretNumbers::from_number(config.seed, b"client"),
            config,
            session: None,
            server_boot_id: [0; 8],
            dial: None,
            dial_at: now,
            rotate_at: Instant::FAR,
            indexes: HashMap::with_capacity(4 * LINKS_MAX),
            epoch_count: 0,
            cipher: None,
            events: std::collections::VecDeque::with_capacity(64),
            drops: DropCounters::default(),
            handshakes: 0,
            closed: false,
            joined: 0,
            usable: 0,
            outbox: std::collections::VecDeque::new(),
        }
    }

    /// Applies a reloaded configuration: behaviour and what is known of the WANs.
    pub fn reconfigure(&mut self, session: SessionConfig, wans: &[WanConfig], now: Instant) {
        let _ = now;
        self.config.session = session.clone();
        self.config.wans = wans.to_vec();
        if let Some(running) = &mut self.session {
            running.set_config(session);
            for wan in wans {
                running.set_wan(wan, now);
            }
        }
    }

    /// When the session wants to be woken and why, to name the culprit of a busy loop.
    pub fn next_timer(&self, now: Instant) -> Option<(Instant, session::Timer)> {
        Some(self.session.as_ref()?.poll_timeout(now))
    }

    const fn id(&self) -> SessionId {
        SessionId {
            peer: PeerId(0),
            number: self.config.workers.own,
        }
    }

    fn link_count(&self) -> u8 {
        u8::try_from(self.config.wan_of_link.len().min(LINKS_MAX)).unwrap_or(u8::MAX)
    }

    fn start_dial(&mut self, now: Instant) {
        self.dial_at = now + ATTEMPT + ATTEMPT_JITTER.mul_f64(self.rng.unit());
        let Self {
            numbers,
            indexes: used,
            ..
        } = self;
        let indexes = draw_indexes(
            u8::try_from(self.config.wan_of_link.len().min(LINKS_MAX)).unwrap_or(u8::MAX),
            numbers,
            |index| used.contains_key(&index),
        );
        self.epoch_count = self.epoch_count.wrapping_add(1);
        #[allow(clippy::cast_possible_truncation)] // the low byte names the epoch
        let tag = self.epoch_count as u8;
        let sender_index = self.numbers.next_u32() << 8 | u32::from(tag);
        let payload = HelloPayload {
            stamp: self.stamp(now),
            boot_id: self.config.boot_id,
            cipher_bits: self.config.cipher_bits,
            psk_kind: 0,
            features: if self.session.is_some() {
                0
            } else {
                FEATURE_FRESH
            },
            session_number: self.config.workers.own,
            link_count: self.link_count(),
            datagram_bytes_max: self.config.datagram_bytes_max,
            indexes,
        };
        let mut hello = Box::new([0; HELLO_BYTES]);
        let config = &self.config;
        let psk = config.preshared_key.as_ref();
        match Initiator::start(
            &config.private_key,
            config.server_key,
            psk,
            sender_index,
            &payload,
            &mut hello,
        ) {
            Ok(initiator) => {
                self.handshakes += 1;
                self.dial = Some(Dial::new(initiator, hello, indexes, tag, now));
            }
            Err(_) => self.drops.count(DropReason::HandshakeRefused),
        }
    }

    /// Seconds and nanoseconds since 1970, big-endian so that they compare as bytes.
    fn stamp(&self, now: Instant) -> [u8; 12] {
        let time = self.config.unix_time_at_zero + Duration::from_nanos(now.as_nanos());
        let mut stamp = [0; 12];
        stamp[..8].copy_from_slice(&time.as_secs().to_be_bytes());
        stamp[8..].copy_from_slice(&time.subsec_nanos().to_be_bytes());
        stamp
    }

    fn on_welcome(&mut self, datagram: &[u8], now: Instant) -> Result<(), DropReason> {
        let dial = self.dial.as_mut().ok_or(DropReason::UnknownIndex)?;
        let established = dial.finish(datagram)?;
        let Some(dial) = self.dial.take() else {
            return Ok(());
        };
        let welcome = established.payload;
        let links = self.link_count().min(welcome.link_count);
        let id = self.epoch_count;
        let keys = epoch_keys(
            &established,
            Role::Initiator,
            id,
            dial.tag,
            links,
            &welcome.indexes,
            now,
        );
        let fresh = self.session.is_none()
            || welcome.features & FEATURE_FRESH != 0
            || welcome.boot_id != self.server_boot_id;
        self.server_boot_id = welcome.boot_id;
        self.cipher = Some(established.cipher);
        if fresh {
            self.indexes.clear();
            self.session = Some(self.new_session(&welcome, links, now));
        }
        for link in (0..links).map(LinkId) {
            self.indexes.insert(dial.indexes[link.index()], (id, link));
        }
        let id_of = self.id();
        if let Some(session) = &mut self.session {
            session.install_epoch(keys, now);
            self.events.push_back(Event::Established {
                session: id_of,
                fresh,
            });
        }
        self.refresh_presence(now);
        self.dial_at = Instant::FAR;
        let jitter = 1.0 - ROTATION_JITTER + 2.0 * ROTATION_JITTER * self.rng.unit();
        self.rotate_at = now + self.config.rekey_interval.mul_f64(jitter);
        Ok(())
    }

    fn new_session(&mut self, welcome: &WelcomePayload, link_count: u8, now: Instant) -> Session {
        let parameters = SessionParameters {
            initiator: true,
            link_count,
            wans: self.config.wans.clone(),
            wan_of_link: self.config.wan_of_link.clone(),
            datagram_bytes_max: usize::from(
                self.config
                    .datagram_bytes_max
                    .min(welcome.datagram_bytes_max),
            ),
            seed: self.numbers.next_u64(),
        };
        let mut session = Session::new(&parameters, self.config.session.clone(), now);
        session.set_siblings(self.config.workers.own, self.joined, now);
        session
    }

    fn handle_datagram(
        &mut self,
        kind: Kind,
        datagram: &mut [u8],
        now: Instant,
    ) -> Result<(), DropReason> {
        match kind {
            Kind::Data => {
                let index = DataHeader::parse(datagram)?.receiver_index;
                let &(epoch, link) = self.indexes.get(&index).ok_or(DropReason::UnknownIndex)?;
                let session = self.session.as_mut().ok_or(DropReason::NoSession)?;
                session.handle_datagram(epoch, link, datagram, None, now)
            }
            Kind::Welcome => self.on_welcome(datagram, now),
            Kind::Cookie => {
                let dial = self.dial.as_mut().ok_or(DropReason::UnknownIndex)?;
                dial.on_cookie(datagram)
            }
            Kind::Hello => Err(DropReason::HandshakeRefused),
        }
    }

    fn poll_hello(&mut self, now: Instant, out: &mut [u8]) -> Option<Transmit> {
        let link_count = self.link_count();
        let id = self.id();
        let dial = self.dial.as_mut()?;
        let link = dial.poll(link_count, now)?;
        out[..HELLO_BYTES].copy_from_slice(&dial.hello[..]);
        Some(Transmit {
            link: Some((id, link)),
            origin: None,
            bytes: HELLO_BYTES,
            segment: u16::try_from(HELLO_BYTES).unwrap_or(u16::MAX),
        })
    }

    fn forget_epoch(&mut self, epoch: u32) {
        self.indexes.retain(|_, (known, _)| *known != epoch);
    }
}

/// When the server's silence means that it may have forgotten us. New keys are news of it as well: without them the
/// next handshake would begin before the first datagram under them is back, and so on for ever.
fn silent_at(session: &Session, heartbeat: Duration) -> Instant {
    let agreed = session.established_at().unwrap_or(Instant::ZERO);
    session.last_received_at().max(agreed) + SILENCE.max(heartbeat * 3)
}

impl Endpoint for Client {
    fn handle_frame(&mut self, frame: &[u8], now: Instant, over: &mut dyn Handover) {
        match self.others_way() {
            Some(session) if over.frame(session.number, session, frame) => {}
            Some(_) => self.drops.count(DropReason::HandoverFull),
            None => self.handle_handed_frame(self.id(), frame, now),
        }
    }

    fn handle_handed_frame(&mut self, _session: SessionId, frame: &[u8], now: Instant) {
        let result = match &mut self.session {
            Some(session) => session.handle_frame(frame, now),
            None => Err(DropReason::NoSession),
        };
        if let Err(reason) = result {
            self.drops.count(reason);
        }
    }

    fn handle_handed_datagram(
        &mut self,
        _origin: Origin,
        _datagram: &mut [u8],
        _now: Instant,
        _over: &mut dyn Handover,
    ) {
        // A client's sockets are connected: each belongs to the session of its worker.
        self.drops.count(DropReason::UnknownIndex);
    }

    fn handle_mail(&mut self, mail: Mail, now: Instant) {
        self.take_mail(mail, now);
    }

    fn poll_mail(&mut self, _now: Instant) -> Option<(u8, Mail)> {
        self.next_mail()
    }

    fn handle_datagrams(
        &mut self,
        _origin: Option<Origin>,
        buffer: &mut [u8],
        now: Instant,
        _over: &mut dyn Handover,
    ) {
        for part in header::datagrams(buffer) {
            let taken = part.and_then(|(kind, datagram)| self.handle_datagram(kind, datagram, now));
            if let Err(reason) = taken {
                self.drops.count(reason);
            }
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if let Some(session) = &mut self.session {
            session.handle_timeout(now);
            let silent = now >= silent_at(session, self.config.session.heartbeat);
            let rotate = now >= self.rotate_at || session.wants_rotation();
            if self.dial.is_none() && (silent || rotate) && self.dial_at == Instant::FAR {
                self.dial_at = now;
            }
            if !session.has_keys() {
                // What is dialed now promised the server that the session goes on: dial anew.
                (self.session, self.dial, self.dial_at) = (None, None, now);
                self.indexes.clear();
                self.events.push_back(Event::Lost { session: self.id() });
            }
        }
        self.refresh_presence(now);
        if self.closed {
            self.dial_at = Instant::FAR;
        }
        if now >= self.dial_at {
            self.start_dial(now);
        }
    }

    fn on_send_error(&mut self, _session: SessionId, link: LinkId, now: Instant) {
        if let Some(session) = &mut self.session {
            session.on_send_error(link, now);
        }
    }

    fn on_path_limit(&mut self, _session: SessionId, link: LinkId, bytes: usize, now: Instant) {
        if let Some(session) = &mut self.session {
            session.limit_datagrams(link, bytes, now);
        }
    }

    fn count_drop(&mut self, reason: DropReason, count: u64) {
        self.drops.count_many(reason, count);
    }

    fn poll_transmit(&mut self, now: Instant, out: &mut [u8]) -> Option<Transmit> {
        if let Some(hello) = self.poll_hello(now, out) {
            return Some(hello);
        }
        let transmit = self.session.as_mut()?.poll_transmit(now, out)?;
        Some(Transmit {
            link: Some((self.id(), transmit.link)),
            origin: transmit.to,
            bytes: transmit.bytes,
            segment: transmit.segment,
        })
    }

    fn poll_frame(&mut self, now: Instant, out: &mut [u8]) -> Option<usize> {
        self.session.as_mut()?.poll_frame(now, out)
    }

    fn poll_event(&mut self) -> Option<Event> {
        let id = self.id();
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        loop {
            match self.session.as_mut()?.poll_event()? {
                session::Event::PathChanged { .. } => {}
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
                session::Event::LinkState { link, state } => {
                    return Some(Event::LinkState {
                        session: id,
                        link,
                        state,
                    });
                }
                session::Event::EpochDropped(epoch) => self.forget_epoch(epoch),
                // The server goes away: try to find it again.
                session::Event::Closed if !self.closed => self.dial_at = Instant::ZERO,
                session::Event::Closed => {}
            }
        }
    }

    fn poll_timeout(&self, now: Instant) -> Instant {
        let mut soonest = self.dial_at;
        if let Some(dial) = &self.dial {
            soonest = soonest.min(dial.due_at());
        }
        if let Some(session) = &self.session {
            soonest = soonest.min(session.poll_timeout(now).0);
            // Silence and old keys make us dial, which has its own time once it is decided on.
            if self.dial_at == Instant::FAR && !self.closed {
                let silent_at = silent_at(session, self.config.session.heartbeat);
                soonest = soonest.min(silent_at).min(self.rotate_at);
            }
        }
        soonest
    }

    fn is_idle(&self, now: Instant) -> bool {
        let session = self.session.as_ref();
        session.is_none_or(|session| session.is_idle(now))
    }

    fn stats(&mut self, now: Instant) -> EndpointStats {
        let peer = PeerStats {
            id: self.id(),
            name: "server".to_owned(),
            public_key: self.config.server_key.to_string(),
            cipher: self.cipher.map(Cipher::name),
            epoch: self.epoch_count,
            session: self.session.as_mut().map(|session| session.stats(now)),
            dialing: self.dial.is_some(),
        };
        EndpointStats {
            peers: vec![peer],
            drops: self.drops.clone(),
            handshakes: self.handshakes,
        }
    }

    fn close(&mut self, now: Instant) {
        let _ = now;
        if let Some(session) = &mut self.session {
            session.close();
        }
        self.dial = None;
        self.dial_at = Instant::FAR;
        self.closed = true;
    }
}
