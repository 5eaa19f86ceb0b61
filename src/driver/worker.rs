//! A data thread: one datapath, one endpoint, at its own pace.
//!
//! ```text
//! loop: commands ─► parcels ─► timers ─► events (sockets) ─► mail ─► frames to the TUN ─► datagrams to links
//!    ▲    (few and small: these first, and nothing else unless it is due)                         │
//!    └── endpoint.handle_frame / handle_datagrams ◄── completions ◄── turn (wait) ◄─────────────┘
//! ```
//!
//! Each worker of a daemon is one of these, with its own TUN queue, sockets and sessions; parcels and mail are what
//! workers give to each other ([`super::mailbox`]).
//!
//! Never blocks but in the turn; never allocates per packet. Commands come from the control thread and are few.

use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::landing::{Landing, LandingStats};
use super::log_limit::LogLimit;
use super::mailbox::{Mailbox, Parcel};
use super::sockets::{Ends, Sockets};
use crate::base::{DropReason, Instant};
use crate::endpoint::{
    AllowedAddresses, Client, Endpoint, EndpointStats, Event, Server, SessionId,
};
use crate::session::RUN_BYTES_MAX;
use crate::session::config::{SessionConfig, WanConfig};
use crate::session::path::Origin;
use crate::sys::datapath::Stats;
use crate::sys::{Clock, Datapath, DatapathError, Handler};

/// Longest wait in one turn: bounds what a missed wake-up could cost.
const TURN_MAX: Duration = Duration::from_millis(500);
/// Farewells are given this long to leave when the daemon stops.
const FAREWELL: Duration = Duration::from_millis(100);
/// Datagrams taken from one listener in one go; the rest waits for the next turn.
const LISTENER_BATCH: usize = 64;
/// Reads of one turn, and their bytes, that are single packets: they are on their way before anything else is done.
/// Beyond, doing it twice in a turn costs more than what it saves is worth.
const SINGLE_READS: u64 = 2;
const SINGLE_BYTES: u64 = 2 * 1_514;
/// Parcels of other workers taken in one go, for the same reason.
const PARCEL_BATCH: usize = 256;
/// Send slots left for the other direction, so that neither can starve the other.
const SLOTS_RESERVED: usize = 8;
/// Slots that frames may take before the other direction has its turn: as many as there are trains.
const FRAMES_ROUND: usize = 16;

/// What a reload may change.
#[derive(Clone, Debug)]
pub struct Behaviour {
    /// Of the sessions.
    pub session: SessionConfig,
    /// The client's WANs in use.
    pub wans: Vec<WanConfig>,
    /// The server's peers: inner addresses, in configuration order.
    pub allowed: Vec<AllowedAddresses>,
}

/// What the control thread asks of the data thread.
pub enum Command {
    /// Say farewell and end.
    Stop,
    /// Use this behaviour from now on.
    Reconfigure(Box<Behaviour>),
    /// Tell everything.
    Snapshot(oneshot::Sender<Snapshot>),
}

/// Everything the data thread knows about itself.
pub struct Snapshot {
    /// The endpoint.
    pub endpoint: EndpointStats,
    /// The datapath's counters.
    pub datapath: Stats,
    /// Tier in use.
    pub tier: &'static str,
    /// Why this tier.
    pub description: String,
    /// When it was taken.
    pub at: Instant,
    /// Frames merged and taken apart on their way to the TUN.
    pub landing: LandingStats,
    /// Both ends of the links, by session and link.
    pub ends: Vec<((SessionId, crate::base::LinkId), Ends)>,
    /// Frames and datagrams handed over to other workers.
    pub handed_over: u64,
}

/// Either role; the driver's only branch.
#[derive(Debug)]
pub enum Role {
    /// A client.
    Client(Box<Client>),
    /// A server.
    Server(Box<Server>),
}

impl Role {
    fn endpoint(&mut self) -> &mut dyn Endpoint {
        match self {
            Self::Client(client) => client.as_mut(),
            Self::Server(server) => server.as_mut(),
        }
    }

    fn endpoint_ref(&self) -> &dyn Endpoint {
        match self {
            Self::Client(client) => client.as_ref(),
            Self::Server(server) => server.as_ref(),
        }
    }

    fn peer_name(&self, session: SessionId) -> &str {
        match self {
            Self::Client(_) => "server",
            Self::Server(server) => server.peer_name(session.peer),
        }
    }

    fn reconfigure(&mut self, new: Behaviour, now: Instant) {
        match self {
            Self::Client(client) => client.reconfigure(new.session, &new.wans, now),
            Self::Server(server) => server.reconfigure(&new.session, new.allowed),
        }
    }
}

/// The data thread's state.
pub struct Worker {
    pub(super) role: Role,
    pub(super) datapath: Datapath,
    pub(super) sockets: Sockets,
    pub(super) clock: Clock,
    pub(super) commands: Receiver<Command>,
    landing: Landing,
    mailbox: Mailbox,
    lines: Lines,
    /// The last turn brought single packets.
    hurried: bool,
}

/// Limits of the log lines that others can cause.
#[derive(Debug)]
struct Lines {
    keys: LogLimit,
    ended: LogLimit,
    address: LogLimit,
    socket: LogLimit,
    state: LogLimit,
    size: LogLimit,
}

impl Worker {
    /// Puts the parts together; must run in the data thread.
    pub fn new(
        role: Role,
        datapath: Datapath,
        sockets: Sockets,
        landing: Landing,
        clock: Clock,
        commands: Receiver<Command>,
        mailbox: Mailbox,
    ) -> Self {
        Self {
            role,
            datapath,
            sockets,
            clock,
            commands,
            landing,
            mailbox,
            lines: Lines {
                keys: LogLimit::new(),
                ended: LogLimit::new(),
                address: LogLimit::new(),
                socket: LogLimit::new(),
                state: LogLimit::new(),
                size: LogLimit::new(),
            },
            hurried: false,
        }
    }

    /// Runs until told to stop.
    ///
    /// # Errors
    /// The datapath failed as a whole.
    pub fn run(mut self) -> Result<(), DatapathError> {
        loop {
            let done = std::mem::take(&mut self.hurried) && self.hurry()?;
            if !self.handle_commands() {
                return self.say_farewell();
            }
            self.take_parcels();
            let now = self.clock.now();
            if !done {
                self.role.endpoint().handle_timeout(now);
            }
            self.handle_events(now);
            self.send_mail(now);
            if !done {
                self.move_out();
            }
            self.mailbox.ring();
            self.turn(TURN_MAX)?;
        }
    }

    /// Waits until something comes or is due.
    fn turn(&mut self, longest: Duration) -> Result<(), DatapathError> {
        let now = self.clock.now();
        let due = self.role.endpoint_ref().poll_timeout(now).since(now);
        let idle = self.role.endpoint_ref().is_idle(now);
        self.datapath.set_idle(idle);
        let stats = self.datapath.stats();
        let before = (stats.reads(), stats.read_bytes());
        let wait = if self.mailbox.lie_down() {
            due.min(longest)
        } else {
            Duration::ZERO
        };
        let mut intake = Intake {
            endpoint: self.role.endpoint(),
            sockets: &mut self.sockets,
            landing: &mut self.landing,
            clock: &self.clock,
            mailbox: &mut self.mailbox,
        };
        let turned = self.datapath.turn(Some(wait), &mut intake);
        self.mailbox.get_up();
        let stats = self.datapath.stats();
        let (reads, bytes) = (stats.reads() - before.0, stats.read_bytes() - before.1);
        self.hurried = !idle && (1..=SINGLE_READS).contains(&reads) && bytes <= SINGLE_BYTES;
        turned
    }

    /// Lets single packets leave before anything else is done, the first of them before the others are looked for. Tells
    /// whether that was all: nothing else has come, and nothing is due.
    fn hurry(&mut self) -> Result<bool, DatapathError> {
        let before = self.datapath.stats().reads();
        let now = self.clock.now();
        if self.write_frames(now) || self.transmit(now) {
            self.landing.finish(&mut self.datapath);
            self.settle()?;
        }
        self.move_out();
        self.settle()?;
        let now = self.clock.now();
        let nothing_came = self.datapath.stats().reads() == before;
        Ok(nothing_came && self.role.endpoint_ref().poll_timeout(now) > now)
    }

    /// Hands over what is to be sent, and takes what the kernel has done or brought meanwhile.
    fn settle(&mut self) -> Result<(), DatapathError> {
        let mut intake = Intake {
            endpoint: self.role.endpoint(),
            sockets: &mut self.sockets,
            landing: &mut self.landing,
            clock: &self.clock,
            mailbox: &mut self.mailbox,
        };
        self.datapath.settle(&mut intake)
    }

    /// What other workers gave us.
    fn take_parcels(&mut self) {
        for _ in 0..PARCEL_BATCH {
            let Some(parcel) = self.mailbox.take() else {
                return;
            };
            let (now, endpoint) = (self.clock.now(), self.role.endpoint());
            match parcel {
                Parcel::Mail(mail) => endpoint.handle_mail(mail, now),
                Parcel::Frame(session, mut buffer) => {
                    endpoint.handle_handed_frame(session, buffer.bytes_mut(), now);
                    self.mailbox.give_back(buffer);
                }
                Parcel::Datagram(origin, mut buffer) => {
                    let bytes = buffer.bytes_mut();
                    endpoint.handle_handed_datagram(origin, bytes, now, &mut self.mailbox);
                    self.mailbox.give_back(buffer);
                }
                Parcel::Back(buffer) => self.mailbox.give_back(buffer),
            }
        }
    }

    fn send_mail(&mut self, now: Instant) {
        self.mailbox.send_late();
        while let Some((worker, mail)) = self.role.endpoint().poll_mail(now) {
            self.mailbox.send_mail(worker, mail);
        }
    }

    /// Frames to the TUN and datagrams to the links, as long as there are slots.
    fn move_out(&mut self) {
        self.landing.write_parts(&mut self.datapath);
        loop {
            let now = self.clock.now();
            let (frames, transmit) = (self.write_frames(now), self.transmit(now));
            if !frames && !transmit {
                break;
            }
        }
        self.landing.finish(&mut self.datapath);
    }

    /// A round of frames to the TUN.
    fn write_frames(&mut self, now: Instant) -> bool {
        let mut spare = None;
        let mut taken = 0;
        while taken < FRAMES_ROUND
            && let Some(slot) = spare.take().or_else(|| self.datapath.send_slot())
        {
            let room = self.datapath.slot_bytes(&slot);
            let Some(bytes) = self.role.endpoint().poll_frame(now, room) else {
                self.datapath.release(slot);
                return taken > 0;
            };
            spare = self.landing.take(slot, bytes, &mut self.datapath);
            taken += usize::from(spare.is_none());
        }
        taken > 0
    }

    fn transmit(&mut self, now: Instant) -> bool {
        if self.datapath.slots_free() <= SLOTS_RESERVED {
            return false;
        }
        let Some(slot) = self.datapath.send_slot() else {
            return false;
        };
        let room = &mut self.datapath.slot_bytes(&slot)[..RUN_BYTES_MAX + 1024];
        let Some(transmit) = self.role.endpoint().poll_transmit(now, room) else {
            self.datapath.release(slot);
            return false;
        };
        match self.sockets.key_for(&transmit) {
            Some(key) => {
                let single = usize::from(transmit.segment) >= transmit.bytes;
                let segment = if single { 0 } else { transmit.segment };
                self.datapath.send(key, slot, transmit.bytes, segment);
            }
            None => {
                let lost = self.sockets.send_unconnected(
                    &transmit,
                    &self.datapath.slot_bytes(&slot)[..transmit.bytes],
                );
                self.datapath.release(slot);
                self.role
                    .endpoint()
                    .count_drop(DropReason::SendFailed, lost);
            }
        }
        true
    }

    fn handle_commands(&mut self) -> bool {
        loop {
            match self.commands.try_recv() {
                Ok(Command::Stop) | Err(TryRecvError::Disconnected) => return false,
                Ok(Command::Reconfigure(new)) => {
                    self.role.reconfigure(*new, self.clock.now());
                }
                Ok(Command::Snapshot(reply)) => {
                    let snapshot = self.snapshot();
                    // A control thread that no longer waits has lost interest.
                    let _ = reply.send(snapshot);
                }
                Err(TryRecvError::Empty) => return true,
            }
        }
    }

    fn snapshot(&mut self) -> Snapshot {
        let at = self.clock.now();
        Snapshot {
            endpoint: self.role.endpoint().stats(at),
            datapath: *self.datapath.stats(),
            tier: self.datapath.tier().name(),
            description: self.datapath.description().to_owned(),
            landing: self.landing.stats(),
            at,
            ends: self.sockets.ends(),
            handed_over: self.mailbox.handed(),
        }
    }

    fn handle_events(&mut self, now: Instant) {
        while let Some(event) = self.role.endpoint().poll_event() {
            self.handle_event(event, now);
        }
    }

    fn handle_event(&mut self, event: Event, now: Instant) {
        let Self {
            role,
            sockets,
            datapath,
            lines,
            ..
        } = self;
        match event {
            Event::Established { session, fresh } => {
                if let Some(suppressed) = lines.keys.allow(now) {
                    tracing::info!(
                        peer = role.peer_name(session),
                        session = session.number,
                        fresh,
                        suppressed,
                        "keys agreed on"
                    );
                }
            }
            Event::SegmentChanged {
                session,
                link,
                bytes,
                shrunk,
            } => {
                let name = role.peer_name(session);
                tracing::debug!(peer = name, %link, bytes, "length of datagrams");
                if shrunk && let Some(suppressed) = lines.size.allow(now) {
                    tracing::warn!(peer = name, %link, bytes, suppressed, "the path takes shorter datagrams only");
                }
                sockets.set_segment(session, link, bytes, datapath);
            }
            Event::Lost { session } => {
                if let Some(suppressed) = lines.ended.allow(now) {
                    let (peer, number) = (role.peer_name(session), session.number);
                    tracing::info!(peer, session = number, suppressed, "session ended");
                }
                sockets.forget(session, datapath);
            }
            Event::PathChanged {
                session,
                link,
                origin,
            } => {
                let address = origin.address;
                if let Some(suppressed) = lines.address.allow(now) {
                    tracing::info!(peer = role.peer_name(session), session = session.number, %link, %address, suppressed, "link has an address");
                }
                if let Err(error) = sockets.connect(session, link, origin, datapath)
                    && let Some(suppressed) = lines.socket.allow(now)
                {
                    tracing::warn!(%link, %error, suppressed, "link keeps the shared socket");
                }
            }
            Event::LinkState {
                session,
                link,
                state,
            } => {
                if let Some(suppressed) = lines.state.allow(now) {
                    let (state, at_ms) = (state.name(), now.as_micros() / 1000);
                    tracing::info!(peer = role.peer_name(session), session = session.number, %link, state, at_ms, suppressed, "link state");
                }
            }
        }
    }

    fn say_farewell(&mut self) -> Result<(), DatapathError> {
        let until = self.clock.now() + FAREWELL;
        self.role.endpoint().close(self.clock.now());
        while self.clock.now() < until {
            self.move_out();
            self.turn(Duration::from_millis(10))?;
        }
        Ok(())
    }
}

/// Hands what the kernel delivers to the endpoint.
struct Intake<'a> {
    endpoint: &'a mut dyn Endpoint,
    sockets: &'a mut Sockets,
    landing: &'a mut Landing,
    clock: &'a Clock,
    mailbox: &'a mut Mailbox,
}

impl Handler for Intake<'_> {
    fn on_frame(&mut self, frame: &mut [u8]) {
        let now = self.clock.now();
        self.endpoint.handle_frame(frame, now, self.mailbox);
    }

    fn on_datagrams(&mut self, key: u32, bytes: &mut [u8]) {
        let origin = self.sockets.origin_of(key);
        self.endpoint
            .handle_datagrams(origin, bytes, self.clock.now(), self.mailbox);
    }

    fn on_readable(&mut self, key: u32) {
        for _ in 0..LISTENER_BATCH {
            let Some((bytes, origin)): Option<(&mut [u8], Origin)> = self.sockets.receive(key)
            else {
                return;
            };
            let now = self.clock.now();
            self.endpoint
                .handle_datagrams(Some(origin), bytes, now, self.mailbox);
        }
    }

    fn on_send_error(&mut self, key: u32, errno: i32, bytes: usize) {
        tracing::debug!(key, errno, bytes, "send refused");
        let Some((session, link)) = self.sockets.link_of(key) else {
            return self.endpoint.count_drop(DropReason::SendFailed, 1);
        };
        if Sockets::is_link_down(errno) {
            // The session counts it.
            return self.endpoint.on_send_error(session, link, self.clock.now());
        }
        self.endpoint.count_drop(DropReason::SendFailed, 1);
        if Sockets::is_too_long(errno)
            && let Some(bytes) = self.sockets.path_limit(session, link)
        {
            self.endpoint
                .on_path_limit(session, link, bytes, self.clock.now());
        }
    }

    fn on_tun_error(&mut self, errno: i32, frame: &[u8]) {
        tracing::debug!(errno, "frame refused by the TUN");
        if errno == libc::EINVAL && self.landing.refused(frame) {
            return;
        }
        self.endpoint.count_drop(DropReason::TunWriteFailed, 1);
    }

    fn on_wake(&mut self) {}
}
