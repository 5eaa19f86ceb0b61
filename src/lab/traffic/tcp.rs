//! One bulk flow of the kernel's TCP: as fast as it can from one namespace to another, its progress sampled at the
//! receiver every 10 ms.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};
use std::os::fd::AsRawFd;

use super::{MARKER, marker_stream};
use crate::base::{Instant, Rate};
use crate::lab::{LabError, Netns};
use crate::sys::Clock;
use crate::sys::tcp::{TcpInfo, info};

/// What flows where.
#[derive(Clone, Debug)]
pub struct BulkConfig {
    /// Where the sender is.
    pub from: Netns,
    /// Where the receiver is.
    pub to: Netns,
    /// Where the receiver listens; port 0 picks one.
    pub target: SocketAddr,
    /// The sender's congestion control: `cubic`, `bbr`, `reno`.
    pub congestion: &'static str,
    /// Compare every byte with what was sent; otherwise the kernel throws them away uncopied, which is cheaper.
    pub verify: bool,
}

/// Length of one sample.
pub const SAMPLE: Duration = Duration::from_millis(10);
/// How long a connection may take to come up.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How long the receiver waits for the rest after the sender has ended.
const DRAIN_LIMIT: Duration = Duration::from_secs(3);
/// How often a waiting thread looks whether it shall stop.
const LOOK_EVERY_MS: u16 = 50;
/// Bytes of one write or read: many segments, few system calls.
const CHUNK: usize = 256 << 10;

/// A running flow.
#[derive(Debug)]
pub struct BulkFlow {
    shared: Arc<Shared>,
    clock: Clock,
    sender: JoinHandle<Result<TcpInfo, io::Error>>,
    receiver: JoinHandle<Received>,
    connect_time: Duration,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    delivered: AtomicU64,
}

/// What a flow did.
#[derive(Clone, Debug, Default)]
pub struct BulkReport {
    /// Bytes that the receiver got.
    pub bytes: u64,
    /// Bytes in each 10 ms since the connection stood.
    pub samples: Vec<u64>,
    /// Longest time without a byte, from the first one until the flow was ended.
    pub stall: Duration,
    /// When it began.
    pub stall_at: Duration,
    /// What the kernel said about the sender at its end.
    pub info: TcpInfo,
    /// How long the connection took to come up.
    pub connect_time: Duration,
    /// The connection was reset or gave up.
    pub reset: bool,
    /// Why it ended early, if so.
    pub error: Option<String>,
    /// A byte was not what was sent.
    pub corrupted: bool,
}

impl BulkReport {
    /// Goodput between two instants of the flow.
    pub fn goodput(&self, from: Duration, to: Duration) -> Rate {
        let index =
            |at: Duration| usize::try_from(at.as_nanos() / SAMPLE.as_nanos()).unwrap_or(usize::MAX);
        let (first, end) = (index(from).min(self.samples.len()), index(to));
        let bytes: u64 = self.samples[first..end.clamp(first, self.samples.len())]
            .iter()
            .sum();
        Rate::from_bytes_over(bytes, to.saturating_sub(from))
    }
}

impl BulkFlow {
    /// Connects and begins to send.
    ///
    /// # Errors
    /// When the connection does not come up, or the kernel lacks the congestion control.
    pub fn start(config: &BulkConfig) -> Result<Self, LabError> {
        let listener = config.to.run(|| TcpListener::bind(config.target))?;
        let listener = listener.map_err(LabError::io(format!("listen on {}", config.target)))?;
        let target = listener
            .local_addr()
            .map_err(LabError::io("local address"))?;
        let clock = Clock::start();
        let stream = config
            .from
            .run(|| TcpStream::connect_timeout(&target, CONNECT_LIMIT))?;
        let stream = stream.map_err(LabError::io(format!("connect to {target}")))?;
        let connect_time = clock.now().since(Instant::ZERO);
        let congestion = sockopt::TcpCongestion;
        setsockopt(&stream, congestion, &config.congestion.into()).map_err(|errno| {
            LabError::io(format!("congestion control {}", config.congestion))(errno.into())
        })?;
        let (accepted, _) = listener.accept().map_err(LabError::io("accept"))?;
        for end in [&stream, &accepted] {
            end.set_nonblocking(true)
                .map_err(LabError::io("non-blocking"))?;
        }
        let shared = Arc::new(Shared::default());
        let clock = Clock::start();
        let (for_sender, for_receiver, verify) = (shared.clone(), shared.clone(), config.verify);
        let sender = std::thread::spawn(move || send_until_stopped(stream, &for_sender));
        let receiver =
            std::thread::spawn(move || receive_until_end(&accepted, &for_receiver, clock, verify));
        Ok(Self {
            shared,
            clock,
            sender,
            receiver,
            connect_time,
        })
    }

    /// Bytes that the receiver has got so far.
    pub fn delivered(&self) -> u64 {
        self.shared.delivered.load(Ordering::Relaxed)
    }

    /// Time since the connection stood: the time base of the report.
    pub fn elapsed(&self) -> Duration {
        self.clock.now().since(Instant::ZERO)
    }

    /// Ends the flow and waits for its last bytes.
    pub fn finish(self) -> BulkReport {
        self.shared.stop.store(true, Ordering::Relaxed);
        let sent = self
            .sender
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the sender panicked")));
        let received = self.receiver.join().unwrap_or_default();
        let mut error = received.error;
        let info = sent.unwrap_or_else(|failure| {
            error = Some(failure);
            TcpInfo::default()
        });
        let reset = error.as_ref().is_some_and(|error| {
            use io::ErrorKind as Kind;
            matches!(
                error.kind(),
                Kind::ConnectionReset | Kind::BrokenPipe | Kind::TimedOut | Kind::ConnectionAborted
            )
        });
        BulkReport {
            bytes: received.samples.iter().sum(),
            samples: received.samples,
            stall: received.stall,
            stall_at: received.stall_at,
            info,
            connect_time: self.connect_time,
            reset,
            error: error.map(|error| error.to_string()),
            corrupted: received.corrupted,
        }
    }
}

fn send_until_stopped(mut stream: TcpStream, shared: &Shared) -> io::Result<TcpInfo> {
    let bytes = marker_stream(0, CHUNK + MARKER.len());
    let mut sent = 0_usize;
    while !shared.stop.load(Ordering::Relaxed) {
        let start = sent % MARKER.len();
        match stream.write(&bytes[start..start + CHUNK]) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                wait(&stream, PollFlags::POLLOUT)
            }
            Err(error) => return Err(error),
        }
    }
    let info = info(&stream)?;
    stream.shutdown(std::net::Shutdown::Write)?;
    // A closed socket with unread data would send a reset; nothing is ever sent to us, so none is unread.
    Ok(info)
}

/// What the receiver saw.
#[derive(Debug, Default)]
struct Received {
    samples: Vec<u64>,
    stall: Duration,
    stall_at: Duration,
    corrupted: bool,
    error: Option<io::Error>,
}

fn receive_until_end(stream: &TcpStream, shared: &Shared, clock: Clock, verify: bool) -> Received {
    let mut received = Received::default();
    let expected = marker_stream(0, CHUNK + MARKER.len());
    let mut buffer = vec![0_u8; CHUNK];
    let flags = if verify {
        MsgFlags::MSG_DONTWAIT
    } else {
        MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC
    };
    let mut total = 0_usize;
    let mut last = Instant::FAR;
    let mut drain_until = Instant::FAR;
    loop {
        let result = recv(stream.as_raw_fd(), &mut buffer, flags);
        let now = clock.now();
        if drain_until == Instant::FAR && shared.stop.load(Ordering::Relaxed) {
            drain_until = now + DRAIN_LIMIT;
            // A flow that has come to rest for good is a stall, too.
            received.note_gap(now, last);
        }
        match result {
            Ok(0) => return received,
            Ok(count) => {
                let start = total % MARKER.len();
                received.corrupted |= verify && buffer[..count] != expected[start..start + count];
                total += count;
                received.add(count as u64, now, last);
                last = now;
                shared.delivered.store(total as u64, Ordering::Relaxed);
            }
            Err(nix::errno::Errno::EAGAIN) if now > drain_until => return received,
            Err(nix::errno::Errno::EAGAIN) => wait(stream, PollFlags::POLLIN),
            Err(errno) => {
                received.error = Some(errno.into());
                return received;
            }
        }
    }
}

impl Received {
    fn add(&mut self, bytes: u64, now: Instant, last: Instant) {
        let since = now.since(Instant::ZERO);
        let index = usize::try_from(since.as_nanos() / SAMPLE.as_nanos()).unwrap_or(0);
        if index >= self.samples.len() {
            self.samples.resize(index + 1, 0);
        }
        self.samples[index] += bytes;
        self.note_gap(now, last);
    }

    /// Remembers the longest time without a byte; `last` is [`Instant::FAR`] before the first.
    fn note_gap(&mut self, now: Instant, last: Instant) {
        if last != Instant::FAR && now.since(last) > self.stall {
            self.stall = now.since(last);
            self.stall_at = last.since(Instant::ZERO);
        }
    }
}

/// Waits for an event, but not so long that a stop would go unnoticed.
fn wait(stream: &TcpStream, events: PollFlags) {
    let mut fds = [PollFd::new(stream.as_fd(), events)];
    let _ = poll(&mut fds, PollTimeout::from(LOOK_EVERY_MS));
}
