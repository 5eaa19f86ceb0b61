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

mod events;

use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use super::command::{Command, Snapshot};
use super::intake::Intake;
use super::landing::Landing;
use super::mailbox::{Mailbox, Parcel};
use super::role::Role;
use super::sockets::Sockets;
use crate::base::{DropReason, Instant};
use crate::session::RUN_BYTES_MAX;
use crate::sys::{Clock, Datapath, DatapathError};
use events::Lines;

/// Longest wait in one turn: bounds what a missed wake-up could cost.
const TURN_MAX: Duration = Duration::from_millis(500);
/// Farewells are given this long to leave when the daemon stops.
const FAREWELL: Duration = Duration::from_millis(100);
/// Reads of one turn, and their bytes, that are single packets: they are on their way before anything else is done.
/// Beyond, doing it twice in a turn costs more than what it saves is worth.
const SINGLE_READS: u64 = 2;
const SINGLE_BYTES: u64 = 2 * 1_514;
/// Parcels of other workers taken in one go; the rest waits for the next turn.
const PARCEL_BATCH: usize = 256;
/// Send slots left for the other direction, so that neither can starve the other.
const SLOTS_RESERVED: usize = 8;
/// Slots that frames may take before the other direction has its turn: as many as there are trains.
const FRAMES_ROUND: usize = 16;

/// The data thread's state.
pub struct Worker {
    role: Role,
    datapath: Datapath,
    sockets: Sockets,
    clock: Clock,
    commands: Receiver<Command>,
    landing: Landing,
    mailbox: Mailbox,
    lines: Lines,
    /// The last turn brought single packets.
    hurried: bool,
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
            lines: Lines::new(),
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
