//! ICMP echo at a steady pace: what a person's `ping` does, with every round-trip time kept.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, recv, sendto,
    socket,
};
use nix::sys::time::TimeSpec;

use super::{marker_stream, quantile};
use crate::base::Instant;
use crate::lab::{LabError, Netns};
use crate::sys::Clock;

/// What is sent where.
#[derive(Clone, Debug)]
pub struct PingConfig {
    /// From here.
    pub namespace: Netns,
    /// To here.
    pub target: IpAddr,
    /// With this source address; without one, the route decides.
    pub source: Option<IpAddr>,
    /// From one request to the next.
    pub interval: Duration,
    /// Bytes of the echo's data (the IP packet is 28 or 48 bytes longer); each request takes the next size of the
    /// range, over and over.
    pub data_bytes: RangeInclusive<usize>,
    /// Requests; `None`: until finished.
    pub count: Option<usize>,
    /// How long the last answers may take.
    pub linger: Duration,
}

/// ICMP header: type, code, checksum, identifier, sequence.
const HEADER_BYTES: usize = 8;
/// Identifiers tell the answers of pingers apart: the kernel gives every answer to all of a namespace's raw sockets.
/// See [`own_identifier`].
static PINGERS: AtomicU16 = AtomicU16::new(0);

/// A running pinger.
#[derive(Debug)]
pub struct Pinger {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<PingReport>,
}

/// What came back.
#[derive(Clone, Debug, Default)]
pub struct PingReport {
    /// Requests sent.
    pub sent: usize,
    /// Requests answered.
    pub received: usize,
    /// Answers to an answered request.
    pub duplicates: usize,
    /// Answers that did not carry what was sent.
    pub corrupted: usize,
    /// The system refused to send (no route, too long).
    pub send_errors: usize,
    /// Round-trip times, sorted.
    pub rtts: Vec<Duration>,
}

impl PingConfig {
    /// As many requests as `count` says, 10 ms apart and of the usual size.
    pub fn new(namespace: &Netns, target: impl Into<IpAddr>, count: Option<usize>) -> Self {
        Self {
            namespace: namespace.clone(),
            target: target.into(),
            source: None,
            interval: Duration::from_millis(10),
            data_bytes: 56..=56,
            count,
            linger: Duration::from_secs(1),
        }
    }

    /// Data of request `index`.
    fn data_of(&self, index: usize) -> Vec<u8> {
        let sizes = self.data_bytes.end() - self.data_bytes.start() + 1;
        marker_stream(index, self.data_bytes.start() + index % sizes)
    }
}

impl PingReport {
    /// Requests without an answer.
    pub fn lost(&self) -> usize {
        self.sent - self.received
    }

    /// The round-trip time that a share `share` (0 to 1) did not exceed.
    pub fn quantile(&self, share: f64) -> Duration {
        quantile(&self.rtts, share)
    }
}

impl Pinger {
    /// Starts to send.
    ///
    /// # Errors
    /// Without CAP_NET_RAW in the namespace, or when the source address is not there.
    pub fn start(config: PingConfig) -> Result<Self, LabError> {
        let socket = config
            .namespace
            .run(|| open(config.target, config.source))?;
        let socket = socket.map_err(LabError::io("ICMP socket"))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || Worker::new(&config, &socket).run(&stopped));
        Ok(Self { stop, thread })
    }

    /// Lets a pinger without a number of requests send no more; its last answers may still come.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Waits for the last request (or ends at once when there is no number of them) and its answer.
    pub fn finish(self) -> PingReport {
        self.stop();
        self.thread.join().unwrap_or_default()
    }
}

/// Sends `count` requests and waits for the answers.
///
/// # Errors
/// As [`Pinger::start`].
pub fn ping(config: PingConfig) -> Result<PingReport, LabError> {
    Ok(Pinger::start(config)?.finish())
}

fn open(target: IpAddr, source: Option<IpAddr>) -> io::Result<OwnedFd> {
    let (family, protocol) = match target {
        IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp),
        IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6),
    };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(family, SockType::Raw, flags, protocol)?;
    if let Some(source) = source {
        bind(
            socket.as_raw_fd(),
            &SockaddrStorage::from(SocketAddr::new(source, 0)),
        )?;
    }
    Ok(socket)
}

/// An identifier that no other pinger of this process has, nor, in all likelihood, one of another program in the same
/// namespace: they start at their process' number.
fn own_identifier() -> u16 {
    let [.., high, low] = std::process::id().to_be_bytes();
    let first = u16::from_be_bytes([high, low]);
    first.wrapping_add(PINGERS.fetch_add(1, Ordering::Relaxed))
}

struct Worker<'a> {
    config: &'a PingConfig,
    socket: &'a OwnedFd,
    identifier: u16,
    clock: Clock,
    sent_at: Vec<Instant>,
    answered: Vec<bool>,
    report: PingReport,
}

impl<'a> Worker<'a> {
    fn new(config: &'a PingConfig, socket: &'a OwnedFd) -> Self {
        let (sent_at, answered) = (Vec::new(), Vec::new());
        Self {
            config,
            socket,
            identifier: own_identifier(),
            clock: Clock::start(),
            sent_at,
            answered,
            report: PingReport::default(),
        }
    }

    fn run(mut self, stop: &AtomicBool) -> PingReport {
        let mut next = Instant::ZERO;
        let mut last_sent = Instant::ZERO;
        loop {
            let now = self.clock.now();
            let ended = match self.config.count {
                Some(count) => self.report.sent >= count,
                None => stop.load(Ordering::Relaxed),
            };
            let all_back = self.report.received == self.report.sent;
            if ended && (all_back || now > last_sent + self.config.linger) {
                self.report.rtts.sort_unstable();
                return self.report;
            }
            if !ended && now >= next {
                self.send(now);
                last_sent = now;
                // Late by scheduling: keep the pace, but do not send a burst.
                next = (next + self.config.interval).max(now);
                continue;
            }
            let until = if ended {
                last_sent + self.config.linger + Duration::from_millis(1)
            } else {
                next
            };
            self.wait(until.since(now).min(Duration::from_millis(50)));
            self.receive();
        }
    }

    fn send(&mut self, now: Instant) {
        let sequence = self.report.sent;
        let packet = request(
            self.config.target,
            self.identifier,
            sequence,
            &self.config.data_of(sequence),
        );
        let fd = self.socket.as_raw_fd();
        let target = SockaddrStorage::from(SocketAddr::new(self.config.target, 0));
        let result = sendto(fd, &packet, &target, MsgFlags::empty());
        self.report.send_errors += usize::from(result.is_err());
        self.report.sent += 1;
        self.sent_at.push(now);
        self.answered.push(false);
    }

    fn wait(&self, time: Duration) {
        let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        let _ = ppoll(&mut fds, Some(TimeSpec::from_duration(time)), None);
    }

    fn receive(&mut self) {
        let mut buffer = [0_u8; 65_536];
        loop {
            let packet = match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(count) => &buffer[..count],
                Err(Errno::EINTR) => continue,
                Err(_) => return,
            };
            let now = self.clock.now();
            let Some((sequence, data)) = answer(self.config.target, self.identifier, packet) else {
                continue;
            };
            // The sequence on the wire has 16 bits: it belongs to the newest request with those bits.
            let newest = self.report.sent.wrapping_sub(1);
            let age = newest.wrapping_sub(usize::from(sequence)) & 0xFFFF;
            let Some(index) = newest
                .checked_sub(age)
                .filter(|&index| index < self.sent_at.len())
            else {
                continue;
            };
            let intact = data == self.config.data_of(index);
            self.report.corrupted += usize::from(!intact);
            if std::mem::replace(&mut self.answered[index], true) {
                self.report.duplicates += 1;
            } else {
                self.report.received += 1;
                self.report.rtts.push(now.since(self.sent_at[index]));
            }
        }
    }
}

/// An echo request; for IPv6 the kernel fills in the checksum.
fn request(target: IpAddr, identifier: u16, sequence: usize, data: &[u8]) -> Vec<u8> {
    let kind = if target.is_ipv4() { 8 } else { 128 };
    let mut packet = vec![kind, 0, 0, 0];
    packet.extend_from_slice(&identifier.to_be_bytes());
    #[allow(clippy::cast_possible_truncation)] // the wire has 16 bits; `receive` knows
    packet.extend_from_slice(&(sequence as u16).to_be_bytes());
    packet.extend_from_slice(data);
    if target.is_ipv4() {
        let sum = checksum(&packet);
        packet[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}

/// The sequence and data of an answer to one of our requests.
fn answer(target: IpAddr, identifier: u16, packet: &[u8]) -> Option<(u16, &[u8])> {
    let (icmp, kind) = match target {
        IpAddr::V4(_) => (packet.get(usize::from(packet.first()? & 0x0F) * 4..)?, 0),
        IpAddr::V6(_) => (packet, 129),
    };
    let header = icmp.get(..HEADER_BYTES)?;
    let ours = header[0] == kind && header[4..6] == identifier.to_be_bytes();
    ours.then(|| {
        (
            u16::from_be_bytes([header[6], header[7]]),
            &icmp[HEADER_BYTES..],
        )
    })
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    #[allow(clippy::cast_possible_truncation)] // folded to 16 bits
    let folded = sum as u16;
    !folded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_a_right_checksum_and_its_answer_is_understood() {
        let target: IpAddr = "10.0.0.1".parse().unwrap();
        let mut packet = request(target, 5, 70_000, &marker_stream(7, 33));
        assert_eq!(checksum(&packet), 0);
        packet[0] = 0;
        let mut ip = vec![0x45; 20];
        ip.extend_from_slice(&packet);
        let (sequence, data) = answer(target, 5, &ip).unwrap();
        assert_eq!(usize::from(sequence), 70_000 & 0xFFFF);
        assert_eq!(data, marker_stream(7, 33));
        assert_eq!(answer(target, 5, &ip[..20]), None);
        assert_eq!(answer(target, 6, &ip), None, "another pinger's");
    }

    #[test]
    fn two_pingers_at_once_get_their_own_answers_only() {
        let Ok(namespace) = Netns::create("here") else {
            eprintln!("SKIPPED: cannot make a network namespace");
            return;
        };
        // Both hear the answers to both. What each takes for its own is told by the sizes of the data.
        let start = |bytes| {
            Pinger::start(PingConfig {
                interval: Duration::from_millis(1),
                data_bytes: bytes..=bytes,
                ..PingConfig::new(&namespace, [127, 0, 0, 1], Some(50))
            })
        };
        let (Ok(first), Ok(second)) = (start(40), start(80)) else {
            eprintln!("SKIPPED: no raw sockets");
            return;
        };
        for report in [first.finish(), second.finish()] {
            assert_eq!((report.sent, report.received), (50, 50), "{report:?}");
            assert_eq!((report.duplicates, report.corrupted), (0, 0), "{report:?}");
        }
        assert_ne!(own_identifier(), own_identifier());
    }
}
