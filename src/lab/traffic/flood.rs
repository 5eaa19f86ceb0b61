//! Small UDP packets, as many as asked for: how many of them a path delivers.
//!
//! Every datagram is a packet of its own to the kernel (no segmentation offload), handed over in batches so that the
//! generator is cheap beside what it measures. Each carries the number of the trial it belongs to, so a trial counts
//! exactly its own packets, whenever they come.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd;

use super::MARKER;
use crate::base::Instant;
use crate::lab::{LabError, Netns, pause, wait_until};
use crate::sys::Clock;
use crate::sys::batch::{BATCH_DATAGRAMS, START_BYTES, receive_starts, send_copies};
use crate::sys::udp::{UdpConfig, UdpSocket};

/// What flows where.
#[derive(Clone, Debug)]
pub struct FloodConfig {
    /// Where the sender is.
    pub from: Netns,
    /// Where the receiver is.
    pub to: Netns,
    /// Where the receiver listens; port 0 picks one.
    pub target: SocketAddr,
    /// Bytes of each payload, at least [`PAYLOAD_BYTES_MIN`].
    pub bytes: usize,
    /// Flows: source ports that take turns, a batch each.
    pub flows: usize,
}

/// What a trial counted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FloodTrial {
    /// Datagrams that the sender handed to the kernel.
    pub sent: u64,
    /// Those that came.
    pub received: u64,
    /// How long it sent.
    pub time: Duration,
}

/// Room for the number of the trial.
pub const PAYLOAD_BYTES_MIN: usize = START_BYTES;
/// Rate of a trial that sends as fast as the system takes it.
pub const UNLIMITED: u64 = u64::MAX;

/// The sender's pause between batches; at 200 000 packets/s one batch of 50.
const PACE: Duration = Duration::from_micros(250);
/// What the sender makes up for after it was not scheduled. More would be a burst that no queue of 500 packets takes,
/// and would measure the scheduler.
const ARREARS_MAX: Duration = Duration::from_millis(3);
/// Sockets' buffers: 100 ms of 200 000 packets/s, each of which the kernel books with about 1 KiB.
const BUFFER_BYTES: usize = 16 << 20;
/// How long the last packets of a trial may take.
const DRAIN_LIMIT: Duration = Duration::from_millis(300);
/// How often a waiting thread looks whether it shall stop.
const LOOK_EVERY_MS: u16 = 20;

/// A generator that waits for trials.
#[derive(Debug)]
pub struct Flood {
    shared: Arc<Shared>,
    threads: Option<(JoinHandle<()>, JoinHandle<()>)>,
    trials: u64,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    /// Datagrams for each second; 0 rests.
    rate: AtomicU64,
    /// Number of the trial that counts; 0: none.
    trial: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
}

impl FloodTrial {
    /// Part of the datagrams that never came, 0 to 1.
    #[allow(clippy::cast_precision_loss)] // counts stay far below 2^53
    pub fn loss(&self) -> f64 {
        if self.sent == 0 {
            return 0.0;
        }
        self.sent.saturating_sub(self.received) as f64 / self.sent as f64
    }

    /// Datagrams that came in each second.
    #[allow(clippy::cast_precision_loss)] // counts stay far below 2^53
    pub fn delivered_rate(&self) -> f64 {
        self.received as f64 / self.time.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

impl Flood {
    /// Opens the sockets and starts the threads; nothing is sent before the first trial.
    ///
    /// # Errors
    /// When a socket cannot be made.
    pub fn start(config: &FloodConfig) -> Result<Self, LabError> {
        assert!(config.bytes >= PAYLOAD_BYTES_MIN && config.flows > 0);
        let open = |source: SocketAddr| {
            UdpSocket::bind(UdpConfig {
                source,
                device: None,
                reuse_port: false,
                buffer_bytes: BUFFER_BYTES,
            })
            .map_err(|error| LabError::io(error.to_string())(io::ErrorKind::Other.into()))
        };
        let receiver = config.to.run(|| open(config.target))??;
        let local = receiver.local_addr();
        let target = local.map_err(LabError::io("local address"))?;
        let connect = || -> Result<Vec<UdpSocket>, LabError> {
            let any: SocketAddr = if target.is_ipv4() {
                ([0; 4], 0).into()
            } else {
                ([0; 16], 0).into()
            };
            let sockets = (0..config.flows).map(|_| {
                let socket = open(any)?;
                socket
                    .connect(target)
                    .map_err(|error| LabError::Program(error.to_string()))?;
                Ok(socket)
            });
            sockets.collect()
        };
        let senders = config.from.run(connect)??;
        let shared = Arc::new(Shared::default());
        let (for_sender, for_receiver) = (shared.clone(), shared.clone());
        let bytes = config.bytes;
        let sender = std::thread::spawn(move || send(&senders, bytes, &for_sender));
        let receiver = std::thread::spawn(move || receive(&receiver, &for_receiver));
        Ok(Self {
            shared,
            threads: Some((sender, receiver)),
            trials: 0,
        })
    }

    /// Sends `rate` datagrams a second ([`UNLIMITED`]: all that the system takes): for `settle` without counting, then
    /// for `time`, in the middle of which `during` is called once at its beginning and once at its end.
    pub fn trial(
        &mut self,
        rate: u64,
        settle: Duration,
        time: Duration,
        mut during: impl FnMut(),
    ) -> FloodTrial {
        self.trials += 1;
        let shared = &self.shared;
        shared.rate.store(rate, Ordering::Relaxed);
        pause(settle);
        shared.sent.store(0, Ordering::Relaxed);
        shared.received.store(0, Ordering::Relaxed);
        let clock = Clock::start();
        shared.trial.store(self.trials, Ordering::Release);
        during();
        let elapsed = || clock.now().since(Instant::ZERO);
        while elapsed() < time {
            // A signal may end a pause early.
            pause(time.saturating_sub(elapsed()));
        }
        let time = elapsed();
        shared.rate.store(0, Ordering::Relaxed);
        during();
        let counts = || {
            let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
            (of(&shared.sent), of(&shared.received))
        };
        wait_until(DRAIN_LIMIT, || {
            let (sent, received) = counts();
            received >= sent
        });
        let (sent, received) = counts();
        shared.trial.store(0, Ordering::Release);
        FloodTrial {
            sent,
            received,
            time,
        }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some((sender, receiver)) = self.threads.take() {
            let _ = sender.join();
            let _ = receiver.join();
        }
    }
}

fn send(sockets: &[UdpSocket], bytes: usize, shared: &Shared) {
    let mut payload: Vec<u8> = MARKER.iter().copied().cycle().take(bytes).collect();
    let clock = Clock::start();
    let mut last = clock.now();
    // Billionths of datagrams that are due.
    let mut due = 0_u128;
    let mut turn = 0;
    while !shared.stop.load(Ordering::Relaxed) {
        let rate = shared.rate.load(Ordering::Relaxed);
        let now = clock.now();
        due += now.since(last).min(ARREARS_MAX).as_nanos() * u128::from(rate.min(1 << 40));
        last = now;
        let whole = due / 1_000_000_000;
        if rate == 0 || whole == 0 {
            pause(PACE);
            continue;
        }
        let count = if rate == UNLIMITED {
            due = 0;
            BATCH_DATAGRAMS
        } else {
            usize::try_from(whole).unwrap_or(BATCH_DATAGRAMS)
        };
        let count = count.min(BATCH_DATAGRAMS);
        due = due.saturating_sub(count as u128 * 1_000_000_000);
        let trial = shared.trial.load(Ordering::Acquire);
        payload[..8].copy_from_slice(&trial.to_le_bytes());
        let socket = &sockets[turn % sockets.len()];
        turn += 1;
        // Counted first: whoever looks must never see one that came and was not sent.
        if trial != 0 {
            shared.sent.fetch_add(count as u64, Ordering::Relaxed);
        }
        // What the kernel refuses was not sent, and is not made up for.
        let sent = send_copies(socket, &payload, count).unwrap_or(0);
        if trial != 0 {
            let refused = count - sent;
            shared.sent.fetch_sub(refused as u64, Ordering::Relaxed);
        }
        if rate != UNLIMITED && due < 1_000_000_000 {
            pause(PACE);
        }
    }
}

fn receive(socket: &UdpSocket, shared: &Shared) {
    let mut starts = [[0; START_BYTES]; BATCH_DATAGRAMS];
    while !shared.stop.load(Ordering::Relaxed) {
        let Ok(count) = receive_starts(socket, &mut starts) else {
            let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut fds, PollTimeout::from(LOOK_EVERY_MS));
            continue;
        };
        let trial = shared.trial.load(Ordering::Acquire);
        let ours = |start: &&[u8; START_BYTES]| {
            let stamp = start.first_chunk().map(|stamp| u64::from_le_bytes(*stamp));
            trial != 0 && stamp == Some(trial)
        };
        let counted = starts[..count].iter().filter(ours).count();
        shared.received.fetch_add(counted as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_counts_its_own_packets_and_keeps_its_rate() {
        let Ok(namespace) = Netns::create("here") else {
            eprintln!("SKIPPED: cannot make a network namespace");
            return;
        };
        let config = FloodConfig {
            from: namespace.clone(),
            to: namespace,
            target: ([127, 0, 0, 1], 0).into(),
            bytes: 200,
            flows: 3,
        };
        let mut flood = Flood::start(&config).unwrap();
        let ms = Duration::from_millis;
        let mut calls = 0;
        let trial = flood.trial(2_000, ms(20), ms(200), || calls += 1);
        assert_eq!(calls, 2);
        assert_eq!((trial.sent, trial.loss()), (trial.received, 0.0));
        // Of the 400 that are due, a machine with much else to do sends fewer, and never more.
        assert!((1..=410).contains(&trial.sent), "{trial:?}");
        let more = flood.trial(UNLIMITED, ms(0), ms(100), || {});
        assert!(more.sent > trial.sent, "{more:?}");
        assert!(more.delivered_rate() > trial.delivered_rate());
    }

    #[test]
    fn loss_is_what_never_came() {
        let trial = |sent, received| FloodTrial {
            sent,
            received,
            time: Duration::from_secs(2),
        };
        assert!((trial(1000, 990).loss() - 0.01).abs() < 1e-9);
        assert!((trial(1000, 990).delivered_rate() - 495.0).abs() < 1e-9);
        assert!(trial(0, 0).loss() < 1e-9);
    }
}
