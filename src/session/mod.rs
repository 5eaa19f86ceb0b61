//! Floor 3: the composer. Frames from the TUN become datagrams on links, and back.
//!
//! ```text
//!            handle_frame(frame, now)                      poll_transmit(now, out) -> Transmit
//!  TUN ────► handle_datagram(epoch, link, bytes, now)      poll_frame(now, out)    -> length
//!  links ──► handle_timeout(now)               SESSION     poll_event()            -> Event
//!  clock ──► install_epoch(keys, now)                      poll_timeout()          -> (Instant, Timer)
//! ```
//!
//! After any `handle_*`, drain all `poll_*`, then arm one timer at `poll_timeout()`. `now` never goes backwards.
//! No clock, no socket, no randomness but the seed; nothing on the packet path allocates, locks, logs or blocks.
#![forbid(unsafe_code)]

pub mod budget;
pub mod config;
mod deliver;
pub mod egress;
pub mod epochs;
mod equal;
mod groups;
mod idle;
pub mod ingress;
mod judgement;
pub mod limits;
pub mod link;
mod modes;
mod overdue;
pub mod overhead;
pub mod path;
mod patience;
pub mod policy;
mod repair;
pub mod reports;
mod routes;
pub mod schedule;
mod signal;
mod size;
mod slowed;
pub mod stats;
pub mod symbols;
pub mod timers;
pub mod transmit;
pub mod wan;

use patience::Patience;
use std::collections::VecDeque;
use std::time::Duration;

use crate::base::id::{LINK_COUNT_MAX, LINKS_MAX};
use crate::base::{DropCounters, FRAME_BYTES_MAX, Instant, LinkId, Rng, WanId};
use crate::crypto::mac::SecretNumbers;
use crate::link::{Outcome, SenderConfig, State};
use crate::stripe::{Candidate, Scheduler};
use config::{SessionConfig, WanConfig};
use egress::Egress;
use epochs::{EpochKeys, Epochs};
use ingress::Ingress;
use limits::Bucket;
use link::{Link, Opening};
use path::{Origin, Path};
use reports::Reports;
use schedule::Load;
use symbols::SymbolKey;
use wan::Wan;

pub use timers::Timer;
pub use transmit::{RUN_BYTES_MAX, Transmit};

/// Most outcomes of one report: all that the log of a link remembers. Memory is touched only when used.
const OUTCOMES: usize = 16_384;
/// Most symbols that leave a dead link: those in its log and in its queues.
const MOVED: usize = OUTCOMES + 2 * link::QUEUE_MAX;

/// Who opened the session and what the handshake agreed on.
#[derive(Clone, Debug)]
pub struct SessionParameters {
    /// The client; it knows its WANs and opens the links.
    pub initiator: bool,
    /// Number of links.
    pub link_count: u8,
    /// The client's WANs; on the server what LINK_OPEN will tell.
    pub wans: Vec<WanConfig>,
    /// WAN of each link (client only).
    pub wan_of_link: Vec<WanId>,
    /// Largest datagram both ends accept.
    pub datagram_bytes_max: usize,
    /// Seed of this session's randomness; the peer must not know it.
    pub seed: u64,
}

/// Something the owner of the session should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The link's validated address changed.
    PathChanged {
        /// Which link.
        link: LinkId,
        /// Its address.
        origin: Origin,
    },
    /// The link changed its state.
    LinkState {
        /// Which link.
        link: LinkId,
        /// The state it is in.
        state: State,
    },
    /// Runs of a link have datagrams of another length from now on.
    SegmentChanged {
        /// Which link.
        link: LinkId,
        /// The UDP_SEGMENT size for its socket.
        bytes: usize,
        /// Its path was found to take less than before.
        shrunk: bool,
    },
    /// An epoch's receiver indexes are free.
    EpochDropped(u32),
    /// The peer ended the session.
    Closed,
}

/// One authenticated association with a peer over all links.
#[derive(Debug)]
pub struct Session {
    initiator: bool,
    config: SessionConfig,
    epochs: Epochs,
    links: Vec<Link>,
    wans: Vec<Wan>,
    egress: Egress,
    ingress: Ingress,
    reports: Reports,
    idle: idle::Idle,
    load: Load,
    budget: budget::Budget,
    equaliser: equal::Equaliser,
    candidates: Vec<Candidate>,
    /// Links that ordinary packets do not use now: first `held_back` that latency mode does not need, then those that
    /// only pinned classes use.
    apart: Vec<Candidate>,
    judgement: judgement::Judgement,
    limits: judgement::Limits,
    held_back: usize,
    /// How many links latency mode needs.
    quick_links: usize,
    /// When the links' figures were looked at last.
    judged_at: Instant,
    outcomes: Vec<Outcome<SymbolKey>>,
    /// Link states as last told by events.
    told_states: Vec<State>,
    changed_paths: VecDeque<LinkId>,
    control_limit: Bucket,
    steps_limit: Bucket,
    closed_by_peer: bool,
    close_told: bool,
    /// Farewells still to be sent.
    closing: u8,
    last_received_at: Instant,
    /// When the peer last told of all links it had news of, as if by the fastest link.
    told_at: Instant,
    /// How often the peer reports at present.
    peer_interval: Duration,
    drops: DropCounters,
    rescued_frames: u64,
    /// Frames and bytes taken from the TUN, without virtio headers.
    accepted: (u64, u64),
    /// Duplicates and sources at the start of the window that bounds the share of copies.
    copies_before: (u64, u64),
    hold: Duration,
    /// What we believe the peer's hold time is: its links mirror ours.
    peer_hold: Duration,
    /// WANs take turns at sending and at probing.
    next_wan: usize,
    next_probe: usize,
    patience: Patience,
    /// Scratch for symbols that leave a dead link.
    moved: Vec<SymbolKey>,
    /// Agreed in the handshake: what buffers hold and probes go up to.
    datagram_bytes_max: usize,
    size: size::Size,
    flow_seed: u64,
    tokens: SecretNumbers,
    scratch: Vec<u8>,
    rescue_buffer: Vec<u8>,
    recovered_body: Vec<u8>,
}

impl Session {
    /// A session without keys; [`Session::install_epoch`] gives it some.
    pub fn new(parameters: &SessionParameters, config: SessionConfig, now: Instant) -> Self {
        // Challenges are seen by the peer, which must not learn from one what the next will be.
        let mut tokens = SecretNumbers::from_number(parameters.seed, b"session");
        let mut rng = Rng::new(tokens.next_u64());
        let datagram_bytes_max = parameters
            .datagram_bytes_max
            .max(overhead::DATAGRAM_BYTES_MIN);
        let body_bytes_max = overhead::body_bytes_max(datagram_bytes_max);
        let links = links_of(parameters, sender_config(&config, datagram_bytes_max), now);
        let wans = parameters
            .wans
            .iter()
            .map(|wan| Wan::new(wan.clone(), links.len(), &mut rng, now))
            .collect();
        let mut session = Self {
            initiator: parameters.initiator,
            epochs: Epochs::default(),
            told_states: vec![State::Probing; links.len()],
            links,
            wans,
            egress: Egress::new(
                Scheduler::new(config.mode.strategy()),
                config.fec,
                body_bytes_max,
            ),
            ingress: Ingress::new(body_bytes_max, now),
            reports: Reports::new(now),
            idle: idle::Idle::new(now),
            load: Load::new(now),
            budget: budget::Budget::new(now),
            equaliser: equal::Equaliser::new(now),
            candidates: Vec::with_capacity(LINKS_MAX),
            apart: Vec::with_capacity(LINKS_MAX),
            judgement: judgement::Judgement::new(),
            limits: judgement::Limits::default(),
            held_back: 0,
            quick_links: 0,
            judged_at: now,
            outcomes: Vec::with_capacity(OUTCOMES),
            changed_paths: VecDeque::with_capacity(LINKS_MAX),
            control_limit: Bucket::for_control(usize::from(parameters.link_count), now),
            steps_limit: Bucket::for_steps(now),
            closed_by_peer: false,
            close_told: false,
            closing: 0,
            last_received_at: now,
            told_at: now,
            peer_interval: reports::INTERVAL_MAX,
            drops: DropCounters::default(),
            rescued_frames: 0,
            accepted: (0, 0),
            copies_before: (0, 0),
            hold: crate::reorder::hold::HOLD_MAX,
            peer_hold: Duration::from_millis(50),
            next_wan: 0,
            next_probe: 0,
            patience: Patience::default(),
            moved: Vec::with_capacity(MOVED),
            datagram_bytes_max,
            size: size::Size::new(parameters.link_count),
            flow_seed: rng.next_u64(),
            tokens,
            scratch: vec![0; FRAME_BYTES_MAX],
            rescue_buffer: vec![0; FRAME_BYTES_MAX],
            recovered_body: vec![0; body_bytes_max],
            config,
        };
        session.apply_classes();
        session
    }

    /// Gives the session the keys of a new epoch.
    pub fn install_epoch(&mut self, keys: EpochKeys, now: Instant) {
        let links = &self.links;
        let initiator = self.initiator;
        self.epochs.install(keys, initiator, now, |id| {
            links.get(id.index()).map_or(0, |link| link.sent_next)
        });
        // The peer is alive: links given up may be as well, and the keys want to be confirmed.
        for link in &mut self.links {
            link.sender.probe_soon();
        }
    }

    /// Changes the behaviour of a running session.
    pub fn set_config(&mut self, config: SessionConfig) {
        if config.mode != self.config.mode {
            self.egress.scheduler = Scheduler::new(config.mode.strategy());
        }
        self.egress.protection.set_mode(config.protection());
        for link in &mut self.links {
            link.sender.set_heartbeat(config.heartbeat);
        }
        let classes = self.config.classes != config.classes;
        self.config = config;
        if classes {
            self.apply_classes();
        }
    }

    /// Changes what is known of a WAN (client, on reload).
    pub fn set_wan(&mut self, wan: &WanConfig, now: Instant) {
        if let Some(known) = self.wans.get_mut(wan.id.index())
            && known.config != *wan
        {
            known.rate.set_ceiling(wan.rate_to_peer);
            known.config = wan.clone();
            self.name_routes();
            for link in self.links.iter_mut().filter(|link| link.wan == wan.id) {
                link.announce(now);
            }
        }
    }

    /// The kernel refused a datagram of a link (no route, interface down, ...).
    pub fn on_send_error(&mut self, link: LinkId, now: Instant) {
        self.drops.count(crate::base::DropReason::SendFailed);
        if let Some(known) = self.links.get_mut(link.index()) {
            let before = known.sender.condition();
            known.sender.on_send_error(now);
            self.on_link_state(link.index(), before, now);
        }
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        if let Some(id) = self.changed_paths.pop_front() {
            let origin = self.links[id.index()].path.origin()?;
            return Some(Event::PathChanged { link: id, origin });
        }
        if let Some(event) = self.poll_segment() {
            return Some(event);
        }
        if let Some(epoch) = self.epochs.poll_dropped() {
            return Some(Event::EpochDropped(epoch));
        }
        for (told, link) in self.told_states.iter_mut().zip(&self.links) {
            let state = link.sender.state();
            if *told != state && link.is_open() {
                *told = state;
                return Some(Event::LinkState {
                    link: link.id,
                    state,
                });
            }
        }
        (self.closed_by_peer && !std::mem::replace(&mut self.close_told, true))
            .then_some(Event::Closed)
    }

    /// When anything authenticated came last.
    pub const fn last_received_at(&self) -> Instant {
        self.last_received_at
    }

    /// Whether keys are there.
    pub const fn is_established(&self) -> bool {
        self.epochs.current().is_some()
    }

    /// When the epoch in use was agreed on.
    pub fn established_at(&self) -> Option<Instant> {
        self.epochs.current().map(|keys| keys.established_at)
    }

    /// Whether a key of the current epoch is near its limit of packets.
    pub fn wants_rotation(&self) -> bool {
        self.epochs.current().is_some_and(EpochKeys::wants_rotation)
    }

    /// Whether there are keys in use or waiting to be confirmed. Without, the session is over.
    pub const fn has_keys(&self) -> bool {
        !self.epochs.is_empty()
    }

    /// Whether frames given to it have a way.
    pub fn has_way(&self) -> bool {
        self.links.iter().any(Link::is_up)
    }

    /// Number of links.
    pub fn link_count(&self) -> u8 {
        u8::try_from(self.links.len()).unwrap_or(u8::MAX)
    }

    const fn role_is_initiator(&self) -> bool {
        self.initiator
    }
}

/// The links of a new session.
fn links_of(parameters: &SessionParameters, sender: SenderConfig, now: Instant) -> Vec<Link> {
    (0..parameters.link_count.min(LINK_COUNT_MAX))
        .take(LINKS_MAX)
        .map(|number| {
            let wan = parameters
                .wan_of_link
                .get(usize::from(number))
                .copied()
                .unwrap_or(WanId(number));
            let (opening, path) = if parameters.initiator {
                (Opening::Asking(now), Path::fixed())
            } else {
                (Opening::Waiting, Path::learned())
            };
            Link::new(LinkId(number), wan, opening, path, sender, now)
        })
        .collect()
}

/// What the links' senders take from the configuration.
fn sender_config(config: &SessionConfig, datagram_bytes_max: usize) -> SenderConfig {
    let wire = |bytes: usize| overhead::wire_bytes(u32::try_from(bytes).unwrap_or(u32::MAX));
    SenderConfig {
        heartbeat_interval: config.heartbeat,
        size_base: wire(overhead::DATAGRAM_BYTES_MIN),
        size_max: wire(datagram_bytes_max),
        gso: config.gso,
        ..SenderConfig::default()
    }
}
