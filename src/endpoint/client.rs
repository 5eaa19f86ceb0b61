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

mod config;
mod contract;
mod dial;
mod handshake;
mod others;

use std::collections::{HashMap, VecDeque};

use super::mail::Mail;
use super::{Event, PeerId, SessionId};
use crate::base::id::LINKS_MAX;
use crate::base::{DropCounters, DropReason, Instant, LinkId, Rng};
use crate::crypto::Cipher;
use crate::crypto::mac::SecretNumbers;
use crate::session::config::{SessionConfig, WanConfig};
use crate::session::{self, Session};
use crate::wire::header::{DataHeader, Kind};
use dial::Dial;

pub use config::ClientConfig;

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
    events: VecDeque<Event>,
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
    outbox: VecDeque<(u8, Mail)>,
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
            events: VecDeque::with_capacity(64),
            drops: DropCounters::default(),
            handshakes: 0,
            closed: false,
            joined: 0,
            usable: 0,
            outbox: VecDeque::new(),
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

    fn forget_epoch(&mut self, epoch: u32) {
        self.indexes.retain(|_, (known, _)| *known != epoch);
    }
}
