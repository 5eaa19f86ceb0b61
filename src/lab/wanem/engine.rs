//! The emulator's one thread: read what came, send what is due, sleep until the next instant that matters.
//!
//! Two ways to wait. When little happens, it waits for a frame or a deadline, whichever is first, and is exact to
//! the timer. Under load it sleeps one tick and then handles all frames at once: a tick's worth of lateness buys
//! few context switches, much as the interrupt moderation of a network card does.

use std::io::{self, BufReader, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use serde_json::{Value, json};

use super::command::{Command, WanConfig};
use super::frame::Frame;
use super::read_line;
use crate::base::Instant;
use crate::sim::impairment::{Counters, Impairment, SpecError};
use crate::sim::nat::Nat;
use crate::sys::packet::BATCH_FRAMES;
use crate::sys::{Clock, PacketError, PacketSocket, ReceiveBatch, priority};

/// Socket buffers: 20 ms of a 1 Gbit/s link, in case the thread is not scheduled for that long. The kernel counts
/// about double for its own records.
const SOCKET_BYTES: i32 = 8 << 20;
/// Real-time priority, where permitted: above ordinary programs, below whatever an administrator made urgent.
const PRIORITY: i32 = 10;
/// Longest sleep when nothing is due.
const SLEEP_MAX: Duration = Duration::from_secs(10);
/// Buffers kept for the next frames.
const SPARE_FRAMES: usize = 4096;
/// Turns without rest after which commands are looked at anyway.
const BATCHES_PER_SOCKET: usize = 4;

/// Why the emulator ended.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A socket could not be opened.
    #[error(transparent)]
    Packet(#[from] PacketError),
    /// Receiving or waiting failed.
    #[error("{operation}: {source}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The emulator of all WANs of one process.
#[derive(Debug)]
pub struct Engine {
    clock: Clock,
    tick: Duration,
    wans: Vec<Wan>,
    batch: ReceiveBatch,
    spare: Vec<Vec<u8>>,
    /// Load is high until then: sleep by ticks.
    busy_until: Instant,
    last_moved: Instant,
    turns: u64,
}

/// How standard input stands.
enum Input {
    Open,
    Ended,
    Quit,
}

/// One WAN.
#[derive(Debug)]
struct Wan {
    inside: PacketSocket,
    outside: PacketSocket,
    up: Impairment<Frame>,
    down: Impairment<Frame>,
    nat: Option<Nat>,
    /// Came from outside to a port that the NAT does not know.
    nat_drops: u64,
    /// Due, but the interface refused it.
    send_drops: u64,
}

impl Engine {
    /// Opens the sockets of all WANs in the network namespace of the calling thread.
    ///
    /// # Errors
    /// An interface is missing, or packet sockets are not permitted.
    pub fn new(wans: Vec<WanConfig>, seed: u64, tick: Duration) -> Result<Self, EngineError> {
        let open = |(index, config): (usize, WanConfig)| {
            let seed = seed.wrapping_add(2 * index as u64);
            Ok(Wan {
                inside: PacketSocket::open(&config.inside, SOCKET_BYTES)?,
                outside: PacketSocket::open(&config.outside, SOCKET_BYTES)?,
                up: Impairment::new(config.up, seed),
                down: Impairment::new(config.down, seed.wrapping_add(1)),
                nat: config.nat.then(Nat::default),
                nat_drops: 0,
                send_drops: 0,
            })
        };
        Ok(Self {
            clock: Clock::start(),
            tick,
            wans: wans
                .into_iter()
                .enumerate()
                .map(open)
                .collect::<Result<_, PacketError>>()?,
            batch: ReceiveBatch::new(),
            spare: Vec::with_capacity(SPARE_FRAMES),
            busy_until: Instant::ZERO,
            last_moved: Instant::ZERO,
            turns: 0,
        })
    }

    /// Emulates until `quit` comes on standard input (or its end, if `quit_on_eof`).
    ///
    /// # Errors
    /// When a socket or the wait fails.
    pub fn run(&mut self, quit_on_eof: bool) -> Result<(), EngineError> {
        // Neither is required: without them wake-ups are later by the default slack of 50 us and by other load.
        let _ = nix::sys::prctl::set_timerslack(1);
        let _ = priority::set_realtime(PRIORITY);
        let mut input = BufReader::new(io::stdin());
        let mut ended = false;
        say("ready")?;
        loop {
            let next = self.turn()?;
            if !self.wait(next, !ended)? {
                continue;
            }
            match self.handle_commands(&mut input)? {
                Input::Open => {}
                Input::Ended if !quit_on_eof => ended = true,
                Input::Ended | Input::Quit => return Ok(()),
            }
        }
    }

    /// Answers the lines that wait.
    fn handle_commands(&mut self, input: &mut BufReader<io::Stdin>) -> Result<Input, EngineError> {
        loop {
            let line = read_line(input).map_err(|source| EngineError::Io {
                operation: "read stdin",
                source,
            })?;
            let Some(line) = line else {
                return Ok(Input::Ended);
            };
            say(&self.answer(&line))?;
            if line == "quit" {
                return Ok(Input::Quit);
            }
            if input.buffer().is_empty() {
                return Ok(Input::Open);
            }
        }
    }

    /// One round over all WANs. Returns when the next frame is due.
    fn turn(&mut self) -> Result<Instant, EngineError> {
        self.turns += 1;
        let mut moved = 0;
        let mut next = Instant::FAR;
        for wan in &mut self.wans {
            moved += wan.receive(&mut self.batch, &mut self.spare, self.clock)?;
            let now = self.clock.now();
            moved += wan.deliver(&mut self.spare, now);
            next = next.min(wan.up.poll_timeout()).min(wan.down.poll_timeout());
        }
        let now = self.clock.now();
        if moved > 2 || (moved > 0 && now < self.last_moved + self.tick * 2) {
            self.busy_until = now + self.tick * 4;
        }
        if moved > 0 {
            self.last_moved = now;
        }
        Ok(next)
    }

    /// Sleeps until a deadline, a frame or a command. True when commands wait.
    fn wait(&self, next: Instant, commands: bool) -> Result<bool, EngineError> {
        let now = self.clock.now();
        let busy = now < self.busy_until;
        let sleep = if busy {
            self.tick
        } else {
            next.since(now).min(SLEEP_MAX)
        };
        let stdin = io::stdin();
        let mut fds = Vec::with_capacity(1 + 2 * self.wans.len());
        if commands {
            fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
        }
        if !busy {
            for wan in &self.wans {
                fds.push(PollFd::new(wan.inside.as_fd(), PollFlags::POLLIN));
                fds.push(PollFd::new(wan.outside.as_fd(), PollFlags::POLLIN));
            }
        }
        match ppoll(&mut fds, Some(TimeSpec::from_duration(sleep)), None) {
            Ok(_) => Ok(commands && fds[0].revents().is_some_and(|events| !events.is_empty())),
            Err(nix::errno::Errno::EINTR) => Ok(false),
            Err(errno) => Err(EngineError::Io {
                operation: "ppoll",
                source: errno.into(),
            }),
        }
    }

    /// Carries out one command and returns the answer's line.
    fn answer(&mut self, line: &str) -> String {
        match line.parse() {
            Ok(Command::Stats) => self.stats().to_string(),
            Ok(Command::Quit) => "ok".into(),
            Ok(Command::Rebind { wan }) => self.each(wan, |wan, _| {
                wan.nat.get_or_insert_default().rebind();
                Ok(())
            }),
            Ok(Command::Change { wan, side, words }) => self.each(wan, |wan, now| {
                let (mut up, mut down) = (wan.up.spec().clone(), wan.down.spec().clone());
                side.apply(&mut up, &mut down, &words)?;
                wan.up.set_spec(up, now);
                wan.down.set_spec(down, now);
                Ok(())
            }),
            Err(error) => format!("error: {error}"),
        }
    }

    fn each(
        &mut self,
        wan: Option<usize>,
        change: impl Fn(&mut Wan, Instant) -> Result<(), SpecError>,
    ) -> String {
        let count = self.wans.len();
        let now = self.clock.now();
        let chosen = match wan {
            Some(index) if index >= count => return format!("error: there are {count} WANs"),
            Some(index) => &mut self.wans[index..=index],
            None => &mut self.wans[..],
        };
        for wan in chosen {
            if let Err(error) = change(wan, now) {
                return format!("error: {error}");
            }
        }
        "ok".into()
    }

    fn stats(&self) -> Value {
        let wan = |wan: &Wan| {
            json!({
                "up": counters(&wan.up), "down": counters(&wan.down),
                "nat_drops": wan.nat_drops, "send_drops": wan.send_drops,
            })
        };
        json!({
            "time_ms": self.clock.now().as_micros() / 1000,
            "turns": self.turns,
            "oversize": self.batch.oversize(),
            "wans": self.wans.iter().map(wan).collect::<Vec<_>>(),
        })
    }
}

impl Wan {
    /// Gives everything that waits at the sockets to the model, with the instant at which the kernel saw it.
    fn receive(
        &mut self,
        batch: &mut ReceiveBatch,
        spare: &mut Vec<Vec<u8>>,
        clock: Clock,
    ) -> Result<usize, EngineError> {
        let mut total = 0;
        let sides = [
            (&self.inside, &mut self.up, true),
            (&self.outside, &mut self.down, false),
        ];
        for (socket, model, out) in sides {
            for _ in 0..BATCHES_PER_SOCKET {
                let (now, unix) = (clock.now(), clock.unix_time());
                let result = socket.receive(batch, |bytes, stamp| {
                    let age = stamp.map_or(Duration::ZERO, |stamp| unix.saturating_sub(stamp));
                    let mut frame = Frame(spare.pop().unwrap_or_default());
                    frame.0.clear();
                    frame.0.extend_from_slice(bytes);
                    if let Some(nat) = self.nat.as_mut().filter(|_| out) {
                        nat.translate_out(frame.ip_mut());
                    }
                    model.handle_packet(frame, now - age);
                });
                let count = result.map_err(|source| EngineError::Io {
                    operation: "receive",
                    source,
                })?;
                total += count;
                if count < BATCH_FRAMES {
                    break;
                }
            }
        }
        Ok(total)
    }

    /// Sends everything that is due.
    fn deliver(&mut self, spare: &mut Vec<Vec<u8>>, now: Instant) -> usize {
        let mut total = 0;
        let mut batch: Vec<Frame> = Vec::with_capacity(BATCH_FRAMES);
        let sides = [
            (&mut self.up, &self.outside, false),
            (&mut self.down, &self.inside, true),
        ];
        for (model, socket, into) in sides {
            loop {
                while let Some(mut frame) = model.poll(now) {
                    let nat = self.nat.as_mut().filter(|_| into);
                    if nat.is_none_or(|nat| nat.translate_in(frame.ip_mut())) {
                        batch.push(frame);
                    } else {
                        self.nat_drops += 1;
                    }
                    if batch.len() == BATCH_FRAMES {
                        break;
                    }
                }
                let full = batch.len() == BATCH_FRAMES;
                total += batch.len();
                self.send_drops += send(socket, &batch);
                spare.extend(
                    batch
                        .drain(..)
                        .map(|frame| frame.0)
                        .take(SPARE_FRAMES - spare.len()),
                );
                if !full {
                    break;
                }
            }
        }
        total
    }
}

/// Sends a batch; returns how many frames the interface refused.
fn send(socket: &PacketSocket, batch: &[Frame]) -> u64 {
    let mut refs: [&[u8]; BATCH_FRAMES] = [&[]; BATCH_FRAMES];
    for (slot, frame) in refs.iter_mut().zip(batch) {
        *slot = &frame.0;
    }
    let mut rest = &refs[..batch.len()];
    let mut dropped = 0;
    while !rest.is_empty() {
        // A refused frame stands first in `rest`; those behind it may still pass.
        let sent = socket.send(rest).unwrap_or(0);
        if sent == 0 {
            dropped += 1;
        }
        rest = &rest[sent.max(1)..];
    }
    dropped
}

fn counters(model: &Impairment<Frame>) -> Value {
    let Counters {
        handled,
        handled_bytes,
        delivered,
        delivered_bytes,
        queue_drops,
        outage_drops,
        size_drops,
        lost,
        duplicated,
        reordered,
        corrupted,
        queue_bytes_max,
    } = model.counters();
    json!({
        "spec": model.spec().to_string(), "held": model.held(), "queue_bytes": model.queue_bytes(),
        "handled": handled, "handled_bytes": handled_bytes, "delivered": delivered,
        "delivered_bytes": delivered_bytes, "queue_drops": queue_drops, "outage_drops": outage_drops,
        "size_drops": size_drops, "lost": lost, "duplicated": duplicated, "reordered": reordered, "corrupted": corrupted,
        "queue_bytes_max": queue_bytes_max,
    })
}

/// Writes one line to standard output at once.
fn say(line: &str) -> Result<(), EngineError> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .map_err(|source| EngineError::Io {
            operation: "write stdout",
            source,
        })
}
