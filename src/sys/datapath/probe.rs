//! Which tier works here: found by doing each operation once, never by the kernel's version.
//!
//! The trial runs on a small ring of its own with a pair of unix datagram sockets and a pipe, so it needs no
//! privilege and no network.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use io_uring::opcode;
use io_uring::types::Fixed;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use super::buf_ring::BufRing;
use super::epoll::EpollPath;
use super::ring::{Completion, Ring, SQ_ENTRIES};
use super::token::Token;
use super::uring::{UringPath, read_multi};
use super::{DatapathError, Path, Shared, Stats, Tier};
use crate::sys::arena::Arena;

/// What the kernel's io_uring can do beyond single reads and writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Abilities {
    /// Multishot receive into provided buffers (Linux 6.0), or why not.
    pub(super) receive: Result<(), String>,
    /// Multishot read into provided buffers (Linux 6.7), or why not.
    pub(super) read: Result<(), String>,
}

/// Opens the forced tier or the best one; returns it with a description for people.
pub(super) fn open_path(
    forced: Option<Tier>,
    shared: &mut Shared,
) -> Result<(Path, Tier, String), DatapathError> {
    let why_not = match forced {
        Some(Tier::Epoll) => "forced".to_owned(),
        _ => match open_uring(forced, shared) {
            Ok(opened) => return Ok(opened),
            Err(reason) => match forced {
                Some(tier) => return Err(DatapathError::Tier { tier, reason }),
                None => reason,
            },
        },
    };
    let path = EpollPath::open(shared)?;
    Ok((
        Path::Epoll(Box::new(path)),
        Tier::Epoll,
        format!("epoll ({why_not})"),
    ))
}

fn open_uring(forced: Option<Tier>, shared: &mut Shared) -> Result<(Path, Tier, String), String> {
    let Abilities { receive, read } = probe()?;
    let (receive, read) = match forced {
        Some(Tier::OneShot) => (false, false),
        Some(Tier::Multishot) => {
            receive.map_err(|e| format!("multishot receive: {e}"))?;
            read.map_err(|e| format!("multishot read: {e}"))?;
            (true, true)
        }
        Some(Tier::Epoll) | None => (receive.is_ok(), read.is_ok()),
    };
    // A ring counts against the limit of locked memory; a small one may still fit.
    let ring = Ring::open(SQ_ENTRIES, true)
        .or_else(|_| Ring::open(SQ_ENTRIES / 8, true))
        .map_err(|e| format!("io_uring_setup: {e}"))?;
    let path = UringPath::open(ring, receive, read, shared).map_err(|e| chain(&e))?;
    let tier = if receive {
        Tier::Multishot
    } else {
        Tier::OneShot
    };
    let description = path.description(shared.slots.count());
    Ok((Path::Uring(Box::new(path)), tier, description))
}

/// An error with its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

/// The smallest ring that the trial needs.
const TRIAL_ENTRIES: u32 = 8;
/// The files of the trial in the ring's table.
const SENDER: u16 = 0;
const RECEIVER: u16 = 1;
const PIPE: u16 = 2;
const FILES: u32 = 3;
/// The message of the trial; static, so that the kernel may read it at any time.
static MESSAGE: [u8; 3] = *b"try";
/// Everything happens at once on one machine; a second is a machine in trouble.
const PATIENCE: Duration = Duration::from_secs(1);

/// Tries single and multishot operations. `Err` says why io_uring is no use at all.
fn probe() -> Result<Abilities, String> {
    let mut ring = Ring::open(TRIAL_ENTRIES, false).map_err(|e| format!("io_uring_setup: {e}"))?;
    let fail = |what: &'static str| move |e: io::Error| format!("{what}: {e}");
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let (sender, receiver) = socketpair(AddressFamily::Unix, SockType::Datagram, None, flags)
        .map_err(|e| format!("socketpair: {e}"))?;
    let (pipe_out, pipe_in) = io::pipe().map_err(fail("pipe"))?;
    let (pipe_out, pipe_in) = (OwnedFd::from(pipe_out), OwnedFd::from(pipe_in));
    ring.submitter()
        .register_files_sparse(FILES)
        .map_err(fail("registering files"))?;
    for (index, fd) in [(SENDER, &sender), (RECEIVER, &receiver), (PIPE, &pipe_out)] {
        ring.set_file(index, fd.as_raw_fd())
            .map_err(fail("registering a file"))?;
    }
    try_single(&mut ring)?;
    let receive = try_receive_multi(&mut ring);
    let read = try_read_multi(&mut ring, &pipe_in);
    Ok(Abilities { receive, read })
}

/// A write and a read of a registered file.
fn try_single(ring: &mut Ring) -> Result<(), String> {
    let mut stats = Stats::default();
    let mut memory = Arena::new(MESSAGE.len()).map_err(|e| format!("mmap: {e}"))?;
    let bytes = 3; // MESSAGE.len()
    write_message(ring);
    let entry = opcode::Read::new(Fixed(RECEIVER.into()), memory.address(0), bytes).build();
    // SAFETY: `memory` outlives the read: it is leaked below should the read not complete.
    unsafe { ring.push(entry, TRIAL, &mut stats) };
    let Some(read) = wait_for_trial(ring) else {
        memory.leak();
        return Err("a read of a registered file does not complete".to_owned());
    };
    if read.result == 3 {
        Ok(())
    } else {
        Err(format!("a read returned {}", read.result))
    }
}

/// RecvMulti from a buffer ring.
fn try_receive_multi(ring: &mut Ring) -> Result<(), String> {
    let buffers = trial_buffers(ring)?;
    write_message(ring);
    let entry = opcode::RecvMulti::new(Fixed(RECEIVER.into()), buffers.group()).build();
    arm_and_cancel(ring, entry, buffers)
}

/// ReadMulti from a buffer ring.
fn try_read_multi(ring: &mut Ring, pipe_in: &OwnedFd) -> Result<(), String> {
    let buffers = trial_buffers(ring)?;
    nix::unistd::write(pipe_in, &MESSAGE).map_err(|e| format!("write to a pipe: {e}"))?;
    let entry = read_multi(Fixed(PIPE.into()), buffers.group());
    arm_and_cancel(ring, entry, buffers)
}

fn trial_buffers(ring: &Ring) -> Result<BufRing, String> {
    BufRing::register(ring, 0, 2, 4_096).map_err(|e| format!("registering a buffer ring: {e}"))
}

const TRIAL: Token = Token::Read {
    port: 0,
    generation: 0,
    part: 0,
};
const WRITTEN: Token = Token::Poll {
    port: 0,
    generation: 0,
};

fn write_message(ring: &mut Ring) {
    let entry = opcode::Write::new(Fixed(SENDER.into()), MESSAGE.as_ptr(), 3).build();
    // SAFETY: the message is static and only read.
    unsafe { ring.push(entry, WRITTEN, &mut Stats::default()) };
}

/// A multishot operation must read the message, go on, and end when cancelled.
fn arm_and_cancel(
    ring: &mut Ring,
    entry: io_uring::squeue::Entry,
    mut buffers: BufRing,
) -> Result<(), String> {
    // SAFETY: the operation writes to `buffers`, which is leaked below should it not end.
    unsafe { ring.push(entry, TRIAL, &mut Stats::default()) };
    let first = wait_for_trial(ring);
    let works = first.is_some_and(|c| c.result == 3 && c.buffer().is_some() && c.more());
    let mut ended = first.is_some_and(|c| !c.more());
    if !ended {
        ring.push_cancel(TRIAL, &mut Stats::default());
        ended = wait_for_trial(ring).is_some_and(|c| !c.more());
    }
    // Unregistered, or the kernel would keep the address of memory that is about to go.
    let unregistered = ring
        .submitter()
        .unregister_buf_ring(buffers.group())
        .is_ok();
    if !(ended && unregistered) {
        buffers.leak();
    }
    match first {
        Some(_) if works && ended => Ok(()),
        Some(c) if c.result < 0 => Err(io::Error::from_raw_os_error(-c.result).to_string()),
        _ => Err("does not complete as it should".to_owned()),
    }
}

/// The next completion of the trial's read; others are passed over. `None` when patience ends.
fn wait_for_trial(ring: &mut Ring) -> Option<Completion> {
    // Write, read and cancellation: never more than a few completions to look at.
    for _ in 0..TRIAL_ENTRIES {
        if ring.ready() == 0 {
            ring.enter(1, Some(PATIENCE), &mut Stats::default()).ok()?;
        }
        if ring.reap(1) == 0 {
            return None;
        }
        let completion = ring.completion(0);
        if Token::unpack(completion.token) == Some(TRIAL) {
            return Some(completion);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trial_agrees_with_the_opcodes_that_the_kernel_lists() {
        let abilities = match probe() {
            Ok(abilities) => abilities,
            Err(reason) => {
                eprintln!("SKIPPED: io_uring: {reason}");
                return;
            }
        };
        let ring = Ring::open(TRIAL_ENTRIES, false).unwrap();
        let mut listed = io_uring::Probe::new();
        ring.submitter().register_probe(&mut listed).unwrap();
        let listed = listed.is_supported(opcode::ReadMulti::CODE);
        assert_eq!(abilities.read.is_ok(), listed, "{abilities:?}");
        assert!(abilities.receive.is_ok() || !listed, "{abilities:?}");
    }
}
