//! Numbered UDP datagrams at a steady rate: what is lost, doubled, late or damaged on the way.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::marker_stream;
use crate::base::{Instant, Rate};
use crate::lab::{LabError, Netns, pause};
use crate::sys::Clock;

/// What flows where.
#[derive(Clone, Debug)]
pub struct UdpConfig {
    /// Where the sender is.
    pub from: Netns,
    /// Where the receiver is.
    pub to: Netns,
    /// Where the receiver listens; port 0 picks one.
    pub target: SocketAddr,
    /// Rate of the UDP payload.
    pub rate: Rate,
    /// Bytes of each payload, at least 8.
    pub bytes: usize,
}

/// Largest pause of the sender: its bursts are what the rate carries in this time.
const PACE: Duration = Duration::from_millis(1);
/// How long the receiver waits for the rest after the sender has ended.
const DRAIN_LIMIT: Duration = Duration::from_millis(500);
/// How often the receiver looks whether it shall stop.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A running flow.
#[derive(Debug)]
pub struct UdpFlow {
    stop: Arc<AtomicBool>,
    received: Arc<AtomicU64>,
    sender: JoinHandle<u64>,
    receiver: JoinHandle<UdpReport>,
}

/// What a flow did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UdpReport {
    /// Datagrams sent.
    pub sent: u64,
    /// Different datagrams received.
    pub received: u64,
    /// Received again.
    pub duplicates: u64,
    /// Received after one with a higher number.
    pub reordered: u64,
    /// Received with another content than was sent.
    pub corrupted: u64,
}

impl UdpReport {
    /// Datagrams that never came.
    pub fn lost(&self) -> u64 {
        self.sent - self.received
    }
}

impl UdpFlow {
    /// Starts to send.
    ///
    /// # Errors
    /// When a socket cannot be made.
    pub fn start(config: UdpConfig) -> Result<Self, LabError> {
        assert!(config.bytes >= 8, "a datagram must hold its number");
        let listen = || -> io::Result<UdpSocket> {
            let socket = UdpSocket::bind(config.target)?;
            socket.set_read_timeout(Some(LOOK_EVERY))?;
            Ok(socket)
        };
        let receiver = config
            .to
            .run(listen)?
            .map_err(LabError::io(format!("bind {}", config.target)))?;
        let target = receiver
            .local_addr()
            .map_err(LabError::io("local address"))?;
        let connect = || -> io::Result<UdpSocket> {
            let any: SocketAddr = if target.is_ipv4() {
                ([0; 4], 0).into()
            } else {
                ([0; 16], 0).into()
            };
            let socket = UdpSocket::bind(any)?;
            socket.connect(target)?;
            Ok(socket)
        };
        let sender = config
            .from
            .run(connect)?
            .map_err(LabError::io(format!("connect {target}")))?;
        let stop = Arc::new(AtomicBool::new(false));
        let (for_sender, for_receiver) = (stop.clone(), stop.clone());
        let received = Arc::new(AtomicU64::new(0));
        let counter = received.clone();
        let (rate, bytes) = (config.rate, config.bytes);
        let sender = std::thread::spawn(move || send(&sender, rate, bytes, &for_sender));
        let receiver =
            std::thread::spawn(move || receive(&receiver, bytes, &for_receiver, &counter));
        Ok(Self {
            stop,
            received,
            sender,
            receiver,
        })
    }

    /// Different datagrams received so far.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Ends the flow and waits for its last datagrams.
    pub fn finish(self) -> UdpReport {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.sender.join().unwrap_or_default();
        UdpReport {
            sent,
            ..self.receiver.join().unwrap_or_default()
        }
    }
}

fn send(socket: &UdpSocket, rate: Rate, bytes: usize, stop: &AtomicBool) -> u64 {
    let clock = Clock::start();
    let mut number = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        let due = rate.bytes_in(clock.now().since(Instant::ZERO)) / bytes as u64;
        while number < due {
            // A refused datagram counts as sent: for whoever measures, it is lost.
            let _ = socket.send(&payload(number, bytes));
            number += 1;
        }
        pause(PACE);
    }
    number
}

fn receive(socket: &UdpSocket, bytes: usize, stop: &AtomicBool, received: &AtomicU64) -> UdpReport {
    let mut report = UdpReport::default();
    let mut seen: Vec<bool> = Vec::new();
    let clock = Clock::start();
    let mut end = Instant::FAR;
    let mut buffer = vec![0; 65_536];
    loop {
        if end == Instant::FAR && stop.load(Ordering::Relaxed) {
            end = clock.now() + DRAIN_LIMIT;
        }
        if clock.now() > end {
            return report;
        }
        let Ok(count) = socket.recv(&mut buffer) else {
            continue;
        };
        let datagram = &buffer[..count];
        let number = datagram
            .first_chunk()
            .map(|number| u64::from_le_bytes(*number));
        let Some(number) = number.filter(|&number| datagram == payload(number, bytes)) else {
            report.corrupted += 1;
            continue;
        };
        let index = usize::try_from(number).unwrap_or(0);
        report.reordered += u64::from(index < seen.len());
        if index >= seen.len() {
            seen.resize(index + 1, false);
        }
        if std::mem::replace(&mut seen[index], true) {
            report.duplicates += 1;
        } else {
            report.received += 1;
            received.store(report.received, Ordering::Relaxed);
        }
    }
}

/// Datagram `number`: the number and a piece of the marker's stream.
fn payload(number: u64, bytes: usize) -> Vec<u8> {
    let mut payload = number.to_le_bytes().to_vec();
    payload.extend_from_slice(&marker_stream(
        usize::try_from(number % 1_000).unwrap_or(0),
        bytes - 8,
    ));
    payload
}
