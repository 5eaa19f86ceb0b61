//! The path without io_uring: epoll, read and write, one system call for each run.
//!
//! Invariants:
//! * What a port could not take at once is parked, and everything later for that port stands behind it.
//! * A turn reads a bounded number of times from each descriptor; epoll is level-triggered, so the rest is
//!   found in the next turn.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use super::ports::{Kind, Port};
use super::slots::{Job, cut_by_message, refuses_segments, stride};
use super::uring::deliver;
use super::{DatapathError, Handler, SLOT_BYTES, Shared, Stats, read_error};
use crate::sys::arena::Arena;
use crate::sys::option::check;
use crate::sys::{udp, wake};

/// Reads from one descriptor in one turn, so that a flood on one socket does not starve the others.
const READS_MAX: usize = 32;
/// Events taken in one turn; more are found in the next.
const EVENTS_MAX: usize = 64;

/// The path's own state.
#[derive(Debug)]
pub(super) struct EpollPath {
    epoll: OwnedFd,
    events: Vec<libc::epoll_event>,
    /// Slots to write at the start of the next turn.
    queued: VecDeque<Pending>,
    /// Slots whose port was full, in order.
    parked: VecDeque<Pending>,
    scratch: Arena,
}

/// A slot with what is left of it.
#[derive(Clone, Copy, Debug)]
struct Pending {
    slot: u16,
    offset: usize,
}

/// How far a write got.
enum Progress {
    Finished,
    Full,
}

impl EpollPath {
    /// Opens an epoll instance.
    pub(super) fn open(shared: &Shared) -> Result<Self, DatapathError> {
        // SAFETY: epoll_create1 takes no pointers.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        check(fd).map_err(|e| DatapathError::Epoll("opening", e))?;
        Ok(Self {
            // SAFETY: `fd` was just opened by us and nobody else owns it.
            epoll: unsafe { OwnedFd::from_raw_fd(fd) },
            events: Vec::with_capacity(EVENTS_MAX),
            queued: VecDeque::with_capacity(shared.slots.count()),
            parked: VecDeque::with_capacity(shared.slots.count()),
            scratch: Arena::new(SLOT_BYTES).map_err(DatapathError::Memory)?,
        })
    }

    pub(super) fn add(&mut self, shared: &mut Shared, index: u16) -> Result<(), DatapathError> {
        self.control(libc::EPOLL_CTL_ADD, shared, index, libc::EPOLLIN)
            .map_err(|e| DatapathError::Epoll("adding a descriptor", e))
    }

    pub(super) fn remove(&mut self, shared: &mut Shared, key: u32) {
        let Some(index) = shared.ports.close(key) else {
            return;
        };
        // Leaves with the slots that were queued before, as the other tiers do.
        self.write_queued(shared, &mut Nobody);
        self.drop_parked(shared, index);
        let _ = self.control(libc::EPOLL_CTL_DEL, shared, index, 0);
        shared.ports.forget(index);
    }

    pub(super) fn queue(&mut self, shared: &mut Shared, slot: u16) {
        shared.slots.pend(slot);
        self.queued.push_back(Pending { slot, offset: 0 });
    }

    /// See [`super::Datapath::turn`].
    pub(super) fn turn(
        &mut self,
        shared: &mut Shared,
        timeout: Option<Duration>,
        handler: &mut impl Handler,
    ) -> Result<(), DatapathError> {
        self.write_queued(shared, handler);
        self.wait(timeout, &mut shared.stats)?;
        let mut outcome = Ok(());
        for at in 0..self.events.len() {
            let event = self.events[at];
            let (index, generation) = unpack(event.u64);
            if shared.ports.live(index, generation).is_none() {
                continue;
            }
            if event.events & bits(libc::EPOLLOUT) != 0 {
                self.write_parked(shared, index, handler);
            }
            if event.events & !bits(libc::EPOLLOUT) != 0
                && let Err(error) = self.read(shared, index, handler)
            {
                outcome = Err(error);
            }
        }
        outcome
    }

    fn wait(&mut self, timeout: Option<Duration>, stats: &mut Stats) -> Result<(), DatapathError> {
        stats.submits += 1;
        stats.waits += u64::from(timeout != Some(Duration::ZERO));
        self.events.clear();
        let count = match wait(&self.epoll, &mut self.events, timeout) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(DatapathError::Epoll("waiting", error)),
        };
        stats.cqes += count as u64;
        stats.batch_max = stats.batch_max.max(count as u64);
        Ok(())
    }

    fn read(
        &mut self,
        shared: &mut Shared,
        index: u16,
        handler: &mut impl Handler,
    ) -> Result<(), DatapathError> {
        let port = shared.ports.port(index);
        match port.kind {
            Kind::Wake => {
                if wake::take(port.fd.as_fd()) {
                    handler.on_wake();
                }
                return Ok(());
            }
            Kind::Readable => {
                handler.on_readable(port.key);
                return Ok(());
            }
            Kind::Tun | Kind::Socket => {}
        }
        // SAFETY: no other slice of the scratch memory exists; `&mut self` is held during the loop, and no
        // system call outlives its call.
        let scratch = unsafe { self.scratch.bytes_mut(0, SLOT_BYTES) };
        for _ in 0..READS_MAX {
            shared.stats.submits += 1;
            match nix::unistd::read(&port.fd, scratch) {
                Ok(0) => {}
                Ok(count) => deliver(port, &mut scratch[..count], &mut shared.stats, handler),
                Err(nix::Error::EAGAIN) => break,
                Err(errno) => read_error(port.kind, errno as i32, &mut shared.stats)?,
            }
        }
        Ok(())
    }

    fn write_queued(&mut self, shared: &mut Shared, handler: &mut impl Handler) {
        while let Some(pending) = self.queued.pop_front() {
            self.write_or_park(shared, pending, handler);
        }
    }

    /// Writes a slot unless others of its port are waiting already.
    fn write_or_park(
        &mut self,
        shared: &mut Shared,
        mut pending: Pending,
        handler: &mut impl Handler,
    ) {
        let index = shared.slots.sending(pending.slot).job.port();
        let behind = self.parked_for(shared, index);
        if !behind && let Progress::Finished = write(shared, &mut pending, handler) {
            shared.slots.done(pending.slot);
            return;
        }
        if !behind {
            let both = libc::EPOLLIN | libc::EPOLLOUT;
            let _ = self.control(libc::EPOLL_CTL_MOD, shared, index, both);
        }
        self.parked.push_back(pending);
    }

    fn parked_for(&self, shared: &Shared, index: u16) -> bool {
        self.parked
            .iter()
            .any(|p| shared.slots.sending(p.slot).job.port() == index)
    }

    /// The port has room again.
    fn write_parked(&mut self, shared: &mut Shared, index: u16, handler: &mut impl Handler) {
        let _ = self.control(libc::EPOLL_CTL_MOD, shared, index, libc::EPOLLIN);
        for _ in 0..self.parked.len() {
            let Some(pending) = self.parked.pop_front() else {
                return;
            };
            if shared.slots.sending(pending.slot).job.port() == index {
                self.queued.push_back(pending);
            } else {
                self.parked.push_back(pending);
            }
        }
        self.write_queued(shared, handler);
    }

    fn drop_parked(&mut self, shared: &mut Shared, index: u16) {
        self.parked.retain(|pending| {
            let other = shared.slots.sending(pending.slot).job.port() != index;
            if !other {
                shared.slots.done(pending.slot);
            }
            other
        });
    }

    fn control(&self, operation: i32, shared: &Shared, index: u16, events: i32) -> io::Result<()> {
        let port = shared.ports.port(index);
        let mut event = libc::epoll_event {
            events: bits(events),
            u64: pack(index, port.generation),
        };
        // SAFETY: the event is live and writable; the kernel copies it during the call.
        check(unsafe {
            libc::epoll_ctl(
                self.epoll.as_raw_fd(),
                operation,
                port.fd.as_raw_fd(),
                &raw mut event,
            )
        })
    }
}

/// Writes what is left of a slot; errors are told and passed over.
fn write(shared: &mut Shared, pending: &mut Pending, handler: &mut impl Handler) -> Progress {
    let sending = shared.slots.sending(pending.slot);
    let whole = sending.bytes as usize;
    let index = sending.job.port();
    match sending.job {
        Job::Frame { .. } => {
            shared.stats.tun_writes += 1;
            shared.stats.submits += 1;
            let bytes = shared.slots.part(pending.slot, 0, whole);
            if let Err(errno) = nix::unistd::write(&shared.ports.port(index).fd, bytes) {
                shared.stats.tun_errors += 1;
                handler.on_tun_error(errno as i32, bytes);
            }
        }
        Job::Datagrams { segment, .. } => {
            while pending.offset < whole {
                let port = shared.ports.port(index);
                let set = port.segment;
                let by_message = pending.offset == 0 && cut_by_message(whole, segment, set);
                let count = if by_message {
                    whole
                } else {
                    stride(whole, segment, set).min(whole - pending.offset)
                };
                let bytes = shared.slots.part(pending.slot, pending.offset, count);
                let several = segment != 0 && count > usize::from(segment);
                shared.stats.submits += 1;
                let written = if by_message {
                    udp::send_segments(port.fd.as_fd(), bytes, segment)
                } else {
                    write_datagrams(port, bytes, several)
                };
                match written {
                    Ok(()) => count_send(&mut shared.stats, count, several),
                    Err(libc::EAGAIN) => return Progress::Full,
                    Err(errno) if several && refuses_segments(errno, segment, set) => {
                        shared.stats.demotions += 1;
                        shared.ports.port_mut(index).set_segment(0);
                        continue; // the same bytes once more, datagram by datagram
                    }
                    Err(errno) => {
                        shared.stats.send_errors += 1;
                        if !port.closing {
                            handler.on_send_error(port.key, errno, count);
                        }
                    }
                }
                pending.offset += count;
            }
        }
    }
    Progress::Finished
}

/// One write; a single datagram that the socket would cut goes by a control message instead.
fn write_datagrams(port: &Port, bytes: &[u8], several: bool) -> Result<(), i32> {
    if !several && port.segment != 0 && bytes.len() > usize::from(port.segment) {
        return udp::send_whole(port.fd.as_fd(), bytes);
    }
    nix::unistd::write(&port.fd, bytes)
        .map(drop)
        .map_err(|errno| errno as i32)
}

fn count_send(stats: &mut Stats, bytes: usize, several: bool) {
    stats.sends += 1;
    stats.gso_sends += u64::from(several);
    stats.send_bytes += bytes as u64;
}

/// Waits with the precision of the timeout (epoll_pwait2, Linux 5.11) or of a millisecond, rounded up.
fn wait(
    epoll: &OwnedFd,
    events: &mut Vec<libc::epoll_event>,
    timeout: Option<Duration>,
) -> io::Result<usize> {
    let most = i32::try_from(EVENTS_MAX).unwrap_or(1);
    let time = timeout.map(|t| libc::timespec {
        tv_sec: libc::time_t::try_from(t.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: t.subsec_nanos().into(),
    });
    let pointer = time.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: `events` has room for `most` entries, the timespec lives during the call, no signal mask.
    let mut count = unsafe {
        libc::epoll_pwait2(
            epoll.as_raw_fd(),
            events.as_mut_ptr(),
            most,
            pointer,
            std::ptr::null(),
        )
    };
    if count < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::ENOSYS) {
        let millis = timeout.map_or(-1, |t| {
            i32::try_from(t.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
        });
        // SAFETY: as above.
        count = unsafe { libc::epoll_wait(epoll.as_raw_fd(), events.as_mut_ptr(), most, millis) };
    }
    check(count)?;
    let count = usize::try_from(count).unwrap_or(0);
    // SAFETY: the kernel has written the first `count` entries, at most the capacity.
    unsafe { events.set_len(count) };
    Ok(count)
}

#[allow(clippy::cast_sign_loss)] // event bits
const fn bits(events: i32) -> u32 {
    events as u32
}

fn pack(index: u16, generation: u16) -> u64 {
    u64::from(index) | u64::from(generation) << 16
}

#[allow(clippy::cast_possible_truncation)] // the two halves are cut on purpose
const fn unpack(data: u64) -> (u16, u16) {
    (data as u16, (data >> 16) as u16)
}

/// Hears nothing: for the last writes of a port that is being removed.
struct Nobody;

impl Handler for Nobody {
    fn on_frame(&mut self, _: &mut [u8]) {}
    fn on_datagrams(&mut self, _: u32, _: &mut [u8]) {}
    fn on_readable(&mut self, _: u32) {}
    fn on_send_error(&mut self, _: u32, _: i32, _: usize) {}
    fn on_tun_error(&mut self, _: i32, _: &[u8]) {}
    fn on_wake(&mut self) {}
}
