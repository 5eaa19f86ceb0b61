//! The event loop of one worker: TUN frames and UDP runs in both directions over one ring, or over epoll.
//!
//! ```text
//!            add_tun, add_socket, add_listener, add_wake
//!                              │
//!   send_slot ─► slot_bytes ─► send / write_tun            (queued; nothing blocks)
//!                              │
//!                      turn(timeout, handler)
//!          submit what is queued ─► wait ─► dispatch what is complete
//!                              │
//!        on_frame, on_datagrams, on_readable, on_wake, on_send_error, on_tun_error
//! ```
//!
//! Three tiers do the same work ([`Tier`]); the best that works is found by using it, and any can be forced.
//! Never decides about a packet, never looks into one; never allocates after a port was added.
//!
//! Invariants:
//! * A send slot belongs to the kernel from `send` until each of its writes has completed.
//! * A received buffer belongs to the handler during its call and to the kernel at all other times.
//! * What completes for a removed port is thrown away; its number is reused only when nothing is in flight.
//! * The value is used by the thread that opened it (the type is neither `Send` nor `Sync`).

mod buf_ring;
mod coalesce;
mod epoll;
mod ports;
mod probe;
mod ring;
mod slots;
mod stats;
#[cfg(test)]
mod tests;
mod tier;
mod token;
mod uring;
mod zero_copy;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

pub use ports::KEYS_MAX;
pub use slots::SendSlot;
pub use stats::Stats;
pub use tier::{Config, SLOT_BYTES, Tier};
pub use zero_copy::ZeroCopy;

use super::udp::UdpSocket;
use super::wake::Wake;
use epoll::EpollPath;
use ports::{Kind, Ports};
use slots::{Job, Slots};
use uring::UringPath;

/// Receives what a [`Datapath::turn`] finds. Queues work; what it wants to send is sent after the turn.
pub trait Handler {
    /// One frame from the TUN: 10 bytes of virtio header and an IP packet. May be changed in place.
    fn on_frame(&mut self, frame: &mut [u8]);

    /// What one socket received: one datagram, or with GRO several of one size and a shorter last one.
    fn on_datagrams(&mut self, key: u32, bytes: &mut [u8]);

    /// A listener, or a descriptor given to [`Datapath::add_readable`], has something to read. Called again
    /// in the next turn when it was not read empty.
    fn on_readable(&mut self, key: u32);

    /// The kernel refused `bytes` bytes of a run (or one datagram of it) with `errno`. EMSGSIZE: the datagrams
    /// are too long for the device. ECONNREFUSED and its like: an ICMP error came back earlier.
    fn on_send_error(&mut self, key: u32, errno: i32, bytes: usize);

    /// The kernel refused a frame written to the TUN.
    fn on_tun_error(&mut self, errno: i32, frame: &[u8]);

    /// Somebody signalled a [`Wake`].
    fn on_wake(&mut self);
}

/// What went wrong with the datapath as a whole. A socket's error is an event of that socket instead.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// The forced tier does not work here.
    #[error("datapath tier {tier} does not work on this host: {reason}")]
    Tier {
        /// The tier asked for.
        tier: Tier,
        /// Which step failed.
        reason: String,
    },
    /// No memory for slots or buffers.
    #[error("cannot map memory for the datapath")]
    Memory(#[source] io::Error),
    /// An io_uring operation of the datapath itself.
    #[error("io_uring: {0} failed")]
    Ring(&'static str, #[source] io::Error),
    /// An epoll operation of the datapath itself.
    #[error("epoll: {0} failed")]
    Epoll(&'static str, #[source] io::Error),
    /// The key is in use or not below [`KEYS_MAX`].
    #[error("datapath key {0} is in use or too large")]
    Key(u32),
    /// All of [`Config::ports_max`] are in use.
    #[error("the datapath has no room for another descriptor")]
    PortsFull,
    /// A descriptor cannot be duplicated.
    #[error("cannot duplicate a descriptor")]
    Duplicate(#[source] io::Error),
    /// The TUN device was deleted under us.
    #[error("the TUN device is gone")]
    TunGone(#[source] io::Error),
}

/// Both directions of one worker.
#[derive(Debug)]
pub struct Datapath {
    // Dropped first: it takes back from the kernel what `shared` owns.
    path: Path,
    shared: Shared,
    tier: Tier,
    description: String,
}

/// How much later than asked the kernel may end this thread's waits.
const TIMER_SLACK_NANOS: libc::c_ulong = 1_000;

/// What both kinds of path work on.
#[derive(Debug)]
struct Shared {
    ports: Ports,
    slots: Slots,
    stats: Stats,
}

#[derive(Debug)]
enum Path {
    Uring(Box<UringPath>),
    Epoll(Box<EpollPath>),
}

impl Datapath {
    /// Opens the best tier that works here, or exactly the one asked for. Must be called by the thread that
    /// takes the turns.
    ///
    /// # Errors
    /// The forced tier does not work, or there is not even memory and epoll.
    pub fn open(config: Config) -> Result<Self, DatapathError> {
        // Waits shall end when they should: the default slack of 50 us is as long as a short pacing gap.
        // SAFETY: this option of prctl takes a number and no pointer.
        let _ = unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, TIMER_SLACK_NANOS) };
        let slots = Slots::new(config.send_slots, config.slot_bytes.max(SLOT_BYTES))
            .map_err(DatapathError::Memory)?;
        let ports = Ports::new(config.ports_max, config.zero_copy);
        let mut shared = Shared {
            ports,
            slots,
            stats: Stats::default(),
        };
        let (path, tier, description) = probe::open_path(config.tier, &mut shared)?;
        Ok(Self {
            path,
            shared,
            tier,
            description,
        })
    }

    /// The tier in use.
    pub const fn tier(&self) -> Tier {
        self.tier
    }

    /// The tier in use and its details, or why a better one is not; for status and logs.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Reads frames from one TUN queue and lets [`Datapath::write_tun`] write to it.
    ///
    /// # Errors
    /// There is a TUN already ([`DatapathError::Key`]), or no room.
    pub fn add_tun(&mut self, queue: BorrowedFd<'_>) -> Result<(), DatapathError> {
        self.add(Kind::Tun, 0, queue)
    }

    /// Receives from a connected socket as `key` and lets [`Datapath::send`] send to it. The segment size set
    /// on the socket is the one that runs may have. With `gro` UDP_GRO is switched on if the kernel has it.
    ///
    /// # Errors
    /// The key is in use or there is no room.
    pub fn add_socket(
        &mut self,
        key: u32,
        socket: &UdpSocket,
        gro: bool,
    ) -> Result<(), DatapathError> {
        if gro {
            // Without GRO each read gives one datagram; nothing else changes.
            let _ = socket.set_gro();
        }
        self.add(Kind::Socket, key, socket.as_fd())
    }

    /// Tells when an unconnected socket has something to read; the handler reads it.
    ///
    /// # Errors
    /// The key is in use or there is no room.
    pub fn add_listener(&mut self, key: u32, socket: &UdpSocket) -> Result<(), DatapathError> {
        self.add(Kind::Readable, key, socket.as_fd())
    }

    /// Tells when any descriptor that can be polled has something to read; the handler reads it.
    ///
    /// # Errors
    /// The key is in use or there is no room.
    pub fn add_readable(&mut self, key: u32, fd: BorrowedFd<'_>) -> Result<(), DatapathError> {
        self.add(Kind::Readable, key, fd)
    }

    /// Ends a wait when `wake` is signalled.
    ///
    /// # Errors
    /// No room.
    pub fn add_wake(&mut self, wake: &Wake) -> Result<(), DatapathError> {
        self.add(Kind::Wake, 0, wake.as_fd())
    }

    /// Takes a socket, listener or readable descriptor out. Datagrams queued before are sent, nothing is
    /// reported about it any more, and the kernel's socket closes with the caller's own descriptor within the
    /// next turns. An unknown key is ignored.
    pub fn remove_socket(&mut self, key: u32) {
        match &mut self.path {
            Path::Uring(path) => path.remove(&mut self.shared, key),
            Path::Epoll(path) => path.remove(&mut self.shared, key),
        }
    }

    /// Changes the size that runs of this socket have; 0 sends each datagram by itself. `false` when the key
    /// is unknown or the kernel refuses, and then each datagram is sent by itself.
    pub fn set_segment(&mut self, key: u32, bytes: u16) -> bool {
        self.shared.ports.set_segment(key, bytes)
    }

    /// The size of runs that leave in one write; 0 when each datagram leaves by itself, be it because the
    /// kernel has refused a segmented send before.
    pub fn segment(&self, key: u32) -> u16 {
        self.shared
            .ports
            .by_key(key)
            .map_or(0, |index| self.shared.ports.port(index).segment)
    }

    /// Takes room for one run or frame; `None` when all slots are with the kernel (take a turn then).
    pub fn send_slot(&mut self) -> Option<SendSlot> {
        self.shared.slots.take()
    }

    /// The slot's memory; the content is whatever the last owner left.
    pub fn slot_bytes(&mut self, slot: &SendSlot) -> &mut [u8] {
        self.shared.slots.bytes_mut(slot)
    }

    /// The memory of two slots, to move bytes from one to the other.
    pub fn two_slots(&mut self, a: &SendSlot, b: &SendSlot) -> (&mut [u8], &mut [u8]) {
        self.shared.slots.two_mut(a, b)
    }

    /// Free slots.
    pub fn slots_free(&self) -> usize {
        self.shared.slots.free()
    }

    /// Gives a slot back unsent.
    pub fn release(&mut self, slot: SendSlot) {
        self.shared.slots.give(slot);
    }

    /// Queues the first `len` bytes of the slot for the socket: one datagram when `segment` is 0, else
    /// datagrams of `segment` bytes, the last of which may be shorter. They leave in one write when the
    /// socket's segment is exactly `segment`, else one by one. A socket that is gone is counted and ignored.
    ///
    /// # Panics
    /// When `len` is 0 or does not fit the slot.
    pub fn send(&mut self, key: u32, slot: SendSlot, len: usize, segment: u16) {
        let Some(port) = self.shared.ports.by_key(key) else {
            self.shared.stats.unknown_keys += 1;
            self.shared.slots.give(slot);
            return;
        };
        let job = Job::Datagrams { port, segment };
        self.queue(slot, len, job);
    }

    /// Queues the first `len` bytes of the slot as one frame for the TUN. Without a TUN it is counted and
    /// ignored.
    ///
    /// # Panics
    /// When `len` is 0 or does not fit the slot.
    pub fn write_tun(&mut self, slot: SendSlot, len: usize) {
        let Some(port) = self.shared.ports.tun() else {
            self.shared.stats.unknown_keys += 1;
            self.shared.slots.give(slot);
            return;
        };
        self.queue(slot, len, Job::Frame { port });
    }

    /// Submits what is queued, waits until something happens or `timeout` is over (`None`: for ever; zero: not
    /// at all), and tells the handler all that is complete. Returns early when a signal comes.
    ///
    /// # Errors
    /// The TUN device is gone, or the ring itself fails. The rest of the batch is dispatched before.
    pub fn turn(
        &mut self,
        timeout: Option<Duration>,
        handler: &mut impl Handler,
    ) -> Result<(), DatapathError> {
        self.shared.stats.turns += 1;
        match &mut self.path {
            Path::Uring(path) => path.turn(&mut self.shared, timeout, handler),
            Path::Epoll(path) => path.turn(&mut self.shared, timeout, handler),
        }
    }

    /// Hands over what is queued without waiting, where waiting for the next turn would make a single packet late. May
    /// call the handler as a turn does.
    ///
    /// # Errors
    /// As [`Datapath::turn`].
    pub fn settle(&mut self, handler: &mut impl Handler) -> Result<(), DatapathError> {
        match &mut self.path {
            Path::Uring(path) => path.settle(&mut self.shared, handler),
            Path::Epoll(_) => Ok(()), // writes are done when they are queued
        }
    }

    /// Says whether what is read at present is heartbeats: those that come together are then taken together.
    pub const fn set_idle(&mut self, idle: bool) {
        if let Path::Uring(path) = &mut self.path {
            path.set_idle(idle);
        }
    }

    /// Counters since the start.
    pub const fn stats(&self) -> &Stats {
        &self.shared.stats
    }

    fn add(&mut self, kind: Kind, key: u32, fd: BorrowedFd<'_>) -> Result<(), DatapathError> {
        let fd = fd.try_clone_to_owned().map_err(DatapathError::Duplicate)?;
        let index = self.shared.ports.insert(kind, key, fd)?;
        let added = match &mut self.path {
            Path::Uring(path) => path.add(&mut self.shared, index),
            Path::Epoll(path) => path.add(&mut self.shared, index),
        };
        if added.is_err() {
            self.shared.ports.forget(index);
        }
        added
    }

    fn queue(&mut self, slot: SendSlot, len: usize, job: Job) {
        assert!(
            len > 0 && len <= self.shared.slots.slot_bytes(),
            "{len} bytes are nothing or more than a slot holds"
        );
        let index = self.shared.slots.begin(slot, len, job, &self.shared.ports);
        match &mut self.path {
            Path::Uring(path) => path.queue(&mut self.shared, index),
            Path::Epoll(path) => path.queue(&mut self.shared, index),
        }
    }
}

impl Drop for Datapath {
    fn drop(&mut self) {
        let Path::Uring(path) = &mut self.path else {
            return;
        };
        path.drain(&mut self.shared);
        if !path.is_idle() {
            // What the kernel does not give back must stay mapped. Not seen in practice.
            path.leak();
            self.shared.slots.leak();
            self.shared.ports.leak();
        }
    }
}

/// Counts the error of a read or, for a TUN that was deleted, makes it the datapath's own.
fn read_error(kind: Kind, errno: i32, stats: &mut Stats) -> Result<(), DatapathError> {
    match errno {
        // Cancelled, or nothing there after all: the read is armed again where that is wanted.
        libc::ECANCELED | libc::EAGAIN | libc::EINTR => {}
        libc::ENOBUFS => stats.no_buffers += 1,
        libc::EBADFD | libc::EFAULT | libc::EBADF if kind == Kind::Tun => {
            return Err(DatapathError::TunGone(io::Error::from_raw_os_error(errno)));
        }
        // An ICMP error of a connected socket comes here (ECONNREFUSED, EHOSTUNREACH, ...).
        _ => stats.receive_errors += 1,
    }
    Ok(())
}
