//! The io_uring path: arms reads, pushes writes, dispatches completions.
//!
//! Each descriptor is read by one multishot operation where the kernel can, else by [`READS`] one-shot reads
//! into buffers of its own. Sends are the same in both tiers: WriteFixed from the registered slots.
//!
//! Invariants:
//! * Every completion without "more" ends its operation; reads are then armed again at the start of the next
//!   turn, after their buffers were given back.
//! * `in_flight` operations may touch memory of `groups`, the ports' buffers and the send slots; dropping the
//!   path cancels and awaits them before any of that is unmapped.

mod memory;
mod message;
mod read;
mod write;

pub(super) use read::{deliver, read_multi};

use std::os::fd::AsRawFd;
use std::time::Duration;

use super::buf_ring::BufRing;
use super::coalesce::{Coalesce, Patience};
use super::ports::{Kind, ReadBuffers};
use super::ring::{Completion, Ring};
use super::token::Token;
use super::{DatapathError, Handler, Shared, Stats};
use crate::sys::arena::Arena;
use crate::sys::clock::Clock;
use memory::{locked_bytes_max, register, register_slots, unregister};
use message::Messages;

/// One-shot reads outstanding for each descriptor. One costs a round trip for every read; from eight on the
/// kernel wakes them all for each packet and the cost grows (docs/measurements.md).
const READS: u8 = 4;
/// How often one turn arms used-up reads again: 32 reads of a descriptor, as many as one multishot wake-up.
const ROUNDS_MAX: usize = 8;
/// Room for one GRO read: the kernel merges at most one IP packet's worth.
const DATAGRAMS_BYTES: usize = 65_536;
/// Room for one frame of 10 + 65 535 bytes, in whole pages.
const FRAME_BYTES: usize = super::SLOT_BYTES;
/// Provided buffers: two turns of 32 reads, which is what one multishot wake-up takes at most
/// (MULTISHOT_MAX_RETRY).
const DATAGRAMS_BUFFERS: u16 = 64;
const FRAME_BUFFERS: u16 = 32;
const DATAGRAMS_GROUP: u16 = 0;
const FRAME_GROUP: u16 = 1;
/// Registered buffer of the send slots; port `i` has buffer `i + 1`.
const SEND_BUFFER: u16 = 0;
/// A datapath without room for this many descriptors is of no use.
const PORTS_MIN: u32 = 4;
/// How long dropping waits for cancelled operations, in turns of 20 ms.
const DRAIN_TURNS: u32 = 50;

/// The path's own state.
#[derive(Debug)]
pub(super) struct UringPath {
    // Dropped first; see the invariants.
    ring: Ring,
    datagrams: Option<BufRing>,
    frames: Option<BufRing>,
    /// Send slots below this are registered.
    fixed_slots: u16,
    /// Memory that may still be registered; 0 when buffers cannot be.
    lockable: usize,
    /// Whether the ring is fenced in, see [`Ring::enable`].
    restricted: bool,
    /// Reads and polls to arm at the start of the next turn (reads of a flood: the next round).
    reads_due: Vec<Token>,
    polls_due: Vec<Token>,
    /// Slots with a datagram longer than its socket's segment: sent by a plain system call.
    oversize: Vec<u16>,
    /// Headers of runs whose size is not their socket's segment, by slot.
    messages: Messages,
    /// Operations without their last completion.
    in_flight: usize,
    /// How long waits collect.
    coalesce: Coalesce,
    clock: Clock,
}

impl UringPath {
    /// Opens ring, file table and buffers.
    pub(super) fn open(
        ring: Ring,
        receive_multi: bool,
        read_multi: bool,
        shared: &mut Shared,
    ) -> Result<Self, DatapathError> {
        let fail = |what| move |error| DatapathError::Ring(what, error);
        // The table may not be larger than the limit of open files.
        let mut ports = u32::try_from(shared.ports.capacity()).unwrap_or(u32::MAX);
        while let Err(error) = ring.submitter().register_files_sparse(ports) {
            ports /= 2;
            if ports < PORTS_MIN {
                return Err(DatapathError::Ring("registering files", error));
            }
        }
        shared.ports.limit(ports as usize);
        // Fails before Linux 5.19 and when locked memory is limited to nothing: plain reads and writes then.
        let sparse = ring.submitter().register_buffers_sparse(ports + 1).is_ok();
        let mut lockable = if sparse { locked_bytes_max() } else { 0 };
        let fixed_slots = register_slots(&ring, shared, &mut lockable);
        let group = |wanted: bool, group, count, bytes| -> Result<Option<BufRing>, DatapathError> {
            if !wanted {
                return Ok(None);
            }
            let buffers = BufRing::register(&ring, group, count, bytes);
            buffers.map(Some).map_err(fail("registering a buffer ring"))
        };
        let datagrams = group(
            receive_multi,
            DATAGRAMS_GROUP,
            DATAGRAMS_BUFFERS,
            DATAGRAMS_BYTES,
        )?;
        let frames = group(read_multi, FRAME_GROUP, FRAME_BUFFERS, FRAME_BYTES)?;
        let send_zc = ring.knows_zero_copy();
        if !send_zc {
            shared.ports.without_zero_copy();
        }
        let restricted = ring.enable(read_multi, send_zc).map_err(fail("enabling"))?;
        Ok(Self {
            ring,
            datagrams,
            frames,
            fixed_slots,
            lockable,
            restricted,
            reads_due: Vec::with_capacity(shared.ports.capacity() * usize::from(READS)),
            polls_due: Vec::with_capacity(shared.ports.capacity()),
            oversize: Vec::with_capacity(shared.slots.count()),
            messages: Messages::new(shared.slots.count()),
            in_flight: 0,
            coalesce: Coalesce::new(),
            clock: Clock::start(),
        })
    }

    /// How it works, for people.
    pub(super) fn description(&self, slots: usize) -> String {
        let how = |multi| if multi { "multishot" } else { "one-shot" };
        format!(
            "UDP {}, TUN {}, {} of {slots} send slots registered, {}, {}, {}",
            how(self.datagrams.is_some()),
            how(self.frames.is_some()),
            self.fixed_slots,
            self.ring.mode(),
            match (self.ring.is_registered(), self.ring.can_collect()) {
                (true, true) => "registered ring, collecting waits",
                (true, false) => "registered ring",
                (false, true) => "collecting waits",
                (false, false) => "waits for single completions",
            },
            if self.restricted {
                "restricted"
            } else {
                "unrestricted"
            },
        )
    }

    /// Registers a new port's descriptor and gets its reads ready.
    pub(super) fn add(&mut self, shared: &mut Shared, index: u16) -> Result<(), DatapathError> {
        let port = shared.ports.port_mut(index);
        self.ring
            .set_file(index, port.fd.as_raw_fd())
            .map_err(|error| DatapathError::Ring("registering a file", error))?;
        let generation = port.generation;
        let multi = match port.kind {
            Kind::Readable | Kind::Wake => {
                self.polls_due.push(Token::Poll {
                    port: index,
                    generation,
                });
                return Ok(());
            }
            Kind::Tun => self.frames.is_some(),
            Kind::Socket => self.datagrams.is_some(),
        };
        if multi {
            self.reads_due.push(Token::Read {
                port: index,
                generation,
                part: 0,
            });
            return Ok(());
        }
        let bytes = if port.kind == Kind::Tun {
            FRAME_BYTES
        } else {
            DATAGRAMS_BYTES
        };
        let arena = Arena::new(bytes * usize::from(READS)).map_err(DatapathError::Memory)?;
        let fixed =
            arena.len() <= self.lockable && register(&self.ring, index + 1, &arena, arena.len());
        if fixed {
            self.lockable -= arena.len();
        }
        port.buffers = Some(ReadBuffers {
            arena,
            buffer_bytes: bytes,
            fixed,
        });
        for part in 0..READS {
            self.reads_due.push(Token::Read {
                port: index,
                generation,
                part,
            });
        }
        Ok(())
    }

    /// Cancels a port's reads; it is forgotten when the last has completed.
    pub(super) fn remove(&mut self, shared: &mut Shared, key: u32) {
        let Some(index) = shared.ports.close(key) else {
            return;
        };
        let port = shared.ports.port(index);
        let generation = port.generation;
        match port.kind {
            Kind::Readable | Kind::Wake => {
                self.ring.push_cancel(
                    Token::Poll {
                        port: index,
                        generation,
                    },
                    &mut shared.stats,
                );
            }
            Kind::Tun | Kind::Socket => {
                for part in 0..READS {
                    let token = Token::Read {
                        port: index,
                        generation,
                        part,
                    };
                    self.ring.push_cancel(token, &mut shared.stats);
                }
            }
        }
        // Submitted now, so that sends queued before still find the descriptor in the table.
        let _ = self.ring.flush(&mut shared.stats);
        let _ = self.ring.set_file(index, -1);
        self.forget_if_idle(shared, index);
    }

    /// See [`super::Datapath::turn`].
    pub(super) fn turn(
        &mut self,
        shared: &mut Shared,
        timeout: Option<Duration>,
        handler: &mut impl Handler,
    ) -> Result<(), DatapathError> {
        self.send_oversize(shared, handler);
        self.arm_polls(shared);
        self.arm_reads(shared);
        if self.ring.is_backed_up() {
            self.ring.flush(&mut shared.stats).map_err(waiting_failed)?;
        }
        let mut wait = timeout != Some(Duration::ZERO) && self.ring.ready() == 0;
        let mut outcome = Ok(());
        if wait && self.ring.writes() > 0 && !self.coalesce.is_loaded() {
            let found;
            (found, outcome) = self.settle_writes(shared, handler)?;
            wait = !found && outcome.is_ok();
        }
        let patience = self.patience(wait);
        self.ring
            .enter_collecting(patience, timeout.filter(|_| wait), &mut shared.stats)
            .map_err(waiting_failed)?;
        let before = (shared.stats.reads(), shared.stats.read_bytes());
        outcome = outcome.and(self.dispatch_ready(shared, handler));
        // A flood uses up one-shot reads at once: read on instead of once a turn.
        for _ in 1..ROUNDS_MAX {
            if self.reads_due.len() < usize::from(READS) {
                break;
            }
            self.arm_reads(shared);
            self.ring
                .enter(0, None, &mut shared.stats)
                .map_err(waiting_failed)?;
            outcome = outcome.and(self.dispatch_ready(shared, handler));
        }
        let stats = &shared.stats;
        let (reads, bytes) = (stats.reads() - before.0, stats.read_bytes() - before.1);
        self.coalesce.note(reads, bytes, self.clock.now());
        outcome
    }

    /// See [`super::Datapath::settle`].
    pub(super) fn settle(
        &mut self,
        shared: &mut Shared,
        handler: &mut impl Handler,
    ) -> Result<(), DatapathError> {
        if self.ring.writes() == 0 || self.ring.is_backed_up() {
            return Ok(());
        }
        self.settle_writes(shared, handler)?.1
    }

    /// Hands over what is queued and dispatches what completes at once, as writes do, so that they do not end the wait
    /// that follows. Tells whether there was anything else, or an error, after which nobody should wait.
    fn settle_writes(
        &mut self,
        shared: &mut Shared,
        handler: &mut impl Handler,
    ) -> Result<(bool, Result<(), DatapathError>), DatapathError> {
        let told =
            |stats: &Stats| stats.cqes - stats.writes_done + stats.send_errors + stats.tun_errors;
        let before = told(&shared.stats);
        let (reads, bytes) = (shared.stats.reads(), shared.stats.read_bytes());
        self.ring
            .enter(0, None, &mut shared.stats)
            .map_err(waiting_failed)?;
        self.ring.forget_writes();
        let outcome = self.dispatch_ready(shared, handler);
        let stats = &shared.stats;
        let (reads, bytes) = (stats.reads() - reads, stats.read_bytes() - bytes);
        self.coalesce.note(reads, bytes, self.clock.now());
        Ok((told(stats) != before, outcome))
    }

    /// See [`super::Datapath::set_idle`].
    pub(super) const fn set_idle(&mut self, idle: bool) {
        self.coalesce.set_idle(idle);
    }

    /// What ends the next wait.
    fn patience(&self, wait: bool) -> Patience {
        if wait && self.ring.can_collect() {
            return self.coalesce.patience(self.ring.writes());
        }
        Patience {
            want: u32::from(wait),
            min_wait: Duration::ZERO,
        }
    }

    /// Dispatches what is ready now; what comes meanwhile is left for later.
    fn dispatch_ready(
        &mut self,
        shared: &mut Shared,
        handler: &mut impl Handler,
    ) -> Result<(), DatapathError> {
        let mut left = self.ring.ready();
        shared.stats.cqes += left as u64;
        shared.stats.batch_max = shared.stats.batch_max.max(left as u64);
        let mut outcome = Ok(());
        while left > 0 {
            let taken = self.ring.reap(left);
            if taken == 0 {
                break;
            }
            left -= taken;
            for index in 0..taken {
                let completion = self.ring.completion(index);
                if let Err(error) = self.dispatch(shared, completion, handler) {
                    outcome = Err(error);
                }
            }
        }
        outcome
    }

    fn dispatch(
        &mut self,
        shared: &mut Shared,
        completion: Completion,
        handler: &mut impl Handler,
    ) -> Result<(), DatapathError> {
        match Token::unpack(completion.token) {
            Some(Token::Read {
                port,
                generation,
                part,
            }) => {
                let result = self.on_read(shared, completion, port, part, handler);
                self.ended(
                    shared,
                    completion,
                    port,
                    Token::Read {
                        port,
                        generation,
                        part,
                    },
                );
                result
            }
            Some(Token::Poll { port, generation }) => {
                read::on_poll(shared, completion, port, handler);
                self.ended(shared, completion, port, Token::Poll { port, generation });
                Ok(())
            }
            Some(Token::Write {
                slot,
                offset,
                bytes,
                several,
            }) => {
                self.in_flight -= 1;
                shared.stats.writes_done += 1;
                let part = (offset as usize, bytes as usize);
                self.on_write(shared, completion.result, slot, part, several, handler);
                shared.slots.done(slot);
                Ok(())
            }
            Some(Token::ZeroCopy {
                slot,
                offset,
                bytes,
            }) => {
                let part = (offset as usize, bytes as usize);
                self.on_zero_copy(shared, completion, slot, part, handler);
                Ok(())
            }
            Some(Token::Cancel) | None => Ok(()),
        }
    }

    /// An operation of a port has completed; unless it goes on, it is armed again or was the port's last.
    fn ended(&mut self, shared: &mut Shared, completion: Completion, index: u16, token: Token) {
        if completion.more() {
            return;
        }
        self.in_flight -= 1;
        let port = shared.ports.port_mut(index);
        port.in_flight -= 1;
        if port.closing {
            self.forget_if_idle(shared, index);
        } else {
            shared.stats.rearms += 1;
            match token {
                Token::Poll { .. } => self.polls_due.push(token),
                _ => self.reads_due.push(token),
            }
        }
    }

    /// Forgets a closing port that the kernel has finished with.
    fn forget_if_idle(&mut self, shared: &mut Shared, index: u16) {
        let port = shared.ports.port(index);
        if !port.closing || port.in_flight > 0 {
            return;
        }
        if let Some(buffers) = port.buffers.as_ref().filter(|buffers| buffers.fixed) {
            self.lockable += buffers.arena.len();
            unregister(&self.ring, index + 1);
        }
        shared.ports.forget(index);
    }

    /// Takes back from the kernel what it still holds: cancels everything and waits for the completions.
    pub(super) fn drain(&mut self, shared: &mut Shared) {
        self.ring.push_cancel_all(&mut shared.stats);
        for _ in 0..DRAIN_TURNS {
            if self.in_flight == 0 {
                return;
            }
            let timeout = Some(Duration::from_millis(20));
            if self.ring.enter(1, timeout, &mut shared.stats).is_err() {
                break;
            }
            let count = self.ring.ready();
            for _ in 0..count {
                if self.ring.reap(1) == 0 {
                    break;
                }
                let completion = self.ring.completion(0);
                let ours = !matches!(Token::unpack(completion.token), Some(Token::Cancel) | None);
                if ours && !completion.more() {
                    self.in_flight -= 1;
                }
            }
        }
    }

    /// Keeps buffer groups and headers mapped for ever.
    pub(super) fn leak(&mut self) {
        for group in [&mut self.datagrams, &mut self.frames]
            .into_iter()
            .flatten()
        {
            group.leak();
        }
        self.messages.leak();
    }

    /// Whether the kernel is done with our memory.
    pub(super) const fn is_idle(&self) -> bool {
        self.in_flight == 0
    }
}

fn waiting_failed(error: std::io::Error) -> DatapathError {
    DatapathError::Ring("waiting", error)
}
