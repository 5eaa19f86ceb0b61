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
use nix::sys::socket::{MsgFlags, recv};
use std::os::fd::AsRawFd;

use super::connection::{Connection, Dial, End, Protocol, paths};
use super::{MARKER, marker_stream};
use crate::base::{Instant, Rate};
use crate::lab::{LabError, Netns};
use crate::sys::Clock;
use crate::sys::mptcp::Subflow;
use crate::sys::tcp::TcpInfo;

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
    sender: JoinHandle<io::Result<Vec<Subflow>>>,
    receiver: JoinHandle<Received>,
    /// A second handle on the sender's socket, to look at it.
    socket: TcpStream,
    protocol: Protocol,
    /// Stays open for further subflows.
    _listener: TcpListener,
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
    /// What the kernel said about the sender at its end; of several paths the first, with the sums of what was sent.
    pub info: TcpInfo,
    /// What it said about each path.
    pub paths: Vec<Subflow>,
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

    /// The longest run of samples without a byte between two instants of the flow: when it began, and its length.
    /// Samples that are missing at the end count as empty; what was before the first byte does not.
    pub fn longest_gap(&self, from: Duration, to: Duration) -> (Duration, Duration) {
        longest_gap(&self.samples, from, to)
    }
}

/// See [`BulkReport::longest_gap`].
fn longest_gap(samples: &[u64], from: Duration, to: Duration) -> (Duration, Duration) {
    let index = |at: Duration| usize::try_from(at.as_nanos() / SAMPLE.as_nanos()).unwrap_or(0);
    let begun = samples
        .iter()
        .position(|&bytes| bytes > 0)
        .unwrap_or(samples.len());
    let first = index(from).max(begun);
    let (mut start, mut longest) = (first, (0, 0));
    for at in first..index(to) {
        if samples.get(at).is_some_and(|&bytes| bytes > 0) {
            start = at + 1;
        } else if at + 1 - start > longest.1 {
            longest = (start, at + 1 - start);
        }
    }
    let time = |count: usize| SAMPLE * u32::try_from(count).unwrap_or(u32::MAX);
    (time(longest.0), time(longest.1))
}

impl BulkFlow {
    /// Connects and begins to send.
    ///
    /// # Errors
    /// When the connection does not come up, or the kernel lacks the congestion control.
    pub fn start(config: &BulkConfig) -> Result<Self, LabError> {
        let dial = Dial {
            from: config.from.clone(),
            to: config.to.clone(),
            target: config.target,
            protocol: Protocol::Tcp,
        };
        Self::over(
            dial.connect()?,
            End::Dialler,
            config.congestion,
            config.verify,
        )
    }

    /// Begins to send over a connection that stands, from one of its ends to the other.
    ///
    /// # Errors
    /// The kernel lacks the congestion control.
    pub fn over(
        connection: Connection,
        sender: End,
        congestion: &str,
        verify: bool,
    ) -> Result<Self, LabError> {
        connection.set_congestion(sender, congestion)?;
        let Connection {
            dialled,
            accepted,
            protocol,
            time,
            listener,
        } = connection;
        let (from, to) = match sender {
            End::Dialler => (dialled, accepted),
            End::Listener => (accepted, dialled),
        };
        let socket = from.try_clone().map_err(LabError::io("second handle"))?;
        let shared = Arc::new(Shared::default());
        let clock = Clock::start();
        let (for_sender, for_receiver) = (shared.clone(), shared.clone());
        let sender = std::thread::spawn(move || send_until_stopped(from, protocol, &for_sender));
        let receiver =
            std::thread::spawn(move || receive_until_end(&to, &for_receiver, clock, verify));
        Ok(Self {
            shared,
            clock,
            sender,
            receiver,
            socket,
            protocol,
            _listener: listener,
            connect_time: time,
        })
    }

    /// What the kernel says about each path of the sender at this moment; empty when the connection is gone.
    pub fn paths(&self) -> Vec<Subflow> {
        paths(&self.socket, self.protocol).unwrap_or_default()
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
        let paths = sent.unwrap_or_else(|failure| {
            error = Some(failure);
            Vec::new()
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
            info: sum_of(&paths),
            paths,
            connect_time: self.connect_time,
            reset,
            error: error.map(|error| error.to_string()),
            corrupted: received.corrupted,
        }
    }
}

/// The first path's state, with what all of them sent.
fn sum_of(paths: &[Subflow]) -> TcpInfo {
    let first = paths.first().map(|path| path.info).unwrap_or_default();
    TcpInfo {
        retransmits: paths.iter().map(|path| path.info.retransmits).sum(),
        bytes_sent: paths.iter().map(|path| path.info.bytes_sent).sum(),
        ..first
    }
}

fn send_until_stopped(
    mut stream: TcpStream,
    protocol: Protocol,
    shared: &Shared,
) -> io::Result<Vec<Subflow>> {
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
    let paths = paths(&stream, protocol)?;
    stream.shutdown(std::net::Shutdown::Write)?;
    // A closed socket with unread data would send a reset; nothing is ever sent to us, so none is unread.
    Ok(paths)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_run_of_empty_samples_is_the_gap() {
        let ms = Duration::from_millis;
        let gap = |samples: &[u64], from, to| longest_gap(samples, ms(from), ms(to));
        assert_eq!(
            gap(&[0, 0, 0, 5, 0, 0, 7, 0, 8, 9], 0, 100),
            (ms(40), ms(20))
        );
        // A connection that stops for good pauses until the end, and a gap outside of the window does not count.
        assert_eq!(gap(&[5, 0, 0, 7], 0, 100), (ms(40), ms(60)));
        assert_eq!(gap(&[5, 0, 0, 7], 0, 40), (ms(10), ms(20)));
        assert_eq!(gap(&[5, 5, 0, 0], 0, 20), (ms(0), ms(0)));
    }

    #[test]
    fn a_connection_that_never_delivers_pauses_all_the_time() {
        let ms = Duration::from_millis;
        assert_eq!(longest_gap(&[], ms(0), ms(50)).1, ms(50));
    }
}
