//! Everything that arrives at some interfaces, given to a closure frame by frame.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::MARKER;
use crate::lab::{LabError, Netns, pause};
use crate::sim::nat::udp_offset;
use crate::sys::packet::BATCH_FRAMES;
use crate::sys::{PacketSocket, ReceiveBatch};

/// Socket buffer: 100 ms of 300 Mbit/s with the kernel's own records.
const SOCKET_BYTES: i32 = 8 << 20;
/// Frames are read in bunches this far apart, to cost little.
const REST: Duration = Duration::from_millis(5);
/// How often a waiting capture looks whether it shall stop.
const LOOK_EVERY_MS: u16 = 50;

/// A running capture that folds frames into an `R`.
#[derive(Debug)]
pub struct Capture<R> {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<R>,
}

impl<R: Send + 'static> Capture<R> {
    /// Hears what arrives at `devices` in `namespace`. `on` gets the index of the device and the frame.
    ///
    /// # Errors
    /// When an interface is missing or packet sockets are not permitted.
    pub fn start(
        namespace: &Netns,
        devices: &[String],
        mut result: R,
        mut on: impl FnMut(&mut R, usize, &[u8]) + Send + 'static,
    ) -> Result<Self, LabError> {
        let open = || {
            devices
                .iter()
                .map(|device| PacketSocket::open(device, SOCKET_BYTES))
                .collect()
        };
        let sockets: Result<Vec<_>, _> = namespace.run(open)?;
        let sockets = sockets.map_err(|error| LabError::Program(error.to_string()))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut batch = ReceiveBatch::new();
            loop {
                let last_round = stopped.load(Ordering::Relaxed);
                for (index, socket) in sockets.iter().enumerate() {
                    while socket
                        .receive(&mut batch, |frame, _| on(&mut result, index, frame))
                        .unwrap_or(0)
                        == BATCH_FRAMES
                    {}
                }
                if last_round {
                    return result;
                }
                wait(&sockets);
                pause(REST);
            }
        });
        Ok(Self { stop, thread })
    }

    /// Ends the capture after what has already arrived.
    ///
    /// # Errors
    /// When the closure panicked.
    pub fn finish(self) -> Result<R, LabError> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .map_err(|_| LabError::Program("a capture panicked".into()))
    }
}

fn wait(sockets: &[PacketSocket]) {
    let mut fds: Vec<_> = sockets
        .iter()
        .map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN))
        .collect();
    let _ = poll(&mut fds, PollTimeout::from(LOOK_EVERY_MS));
}

/// Counts frames and how many of them contain some bytes.
#[derive(Clone, Debug, Default)]
pub struct PlaintextSearch {
    /// Frames looked at.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Frames in which a piece of the marker stands.
    pub found: u64,
}

/// A piece of the marker this long is proof enough, and is found wherever a packet was cut.
const PIECE: usize = 16;

impl PlaintextSearch {
    /// Looks at one frame.
    pub fn look(&mut self, frame: &[u8]) {
        self.frames += 1;
        self.bytes += frame.len() as u64;
        self.found += u64::from(contains_marker(frame));
    }
}

/// Whether any 16 bytes of the repeated marker stand in `bytes`, wherever the marker was cut.
///
/// A run of 16 covers exactly one position that is a multiple of 16, so only those are looked at; where a byte of the
/// marker stands, the run around it is measured.
pub fn contains_marker(bytes: &[u8]) -> bool {
    let run_around = |at: usize, start: usize| {
        let len = MARKER.len();
        let after = (0..PIECE)
            .take_while(|&i| bytes.get(at + i) == Some(&MARKER[(start + i) % len]))
            .count();
        let before = (1..PIECE.min(at + 1))
            .take_while(|&i| bytes[at - i] == MARKER[(start + PIECE * len - i) % len])
            .count();
        before + after
    };
    (0..bytes.len()).step_by(PIECE).any(|at| {
        let starts = (0..MARKER.len()).filter(|&start| MARKER[start] == bytes[at]);
        starts
            .into_iter()
            .any(|start| run_around(at, start) >= PIECE)
    })
}

/// Addresses and ports of a UDP frame.
pub fn udp_flow(frame: &[u8]) -> Option<((IpAddr, u16), (IpAddr, u16))> {
    let ip = frame.get(14..)?;
    let udp = udp_offset(ip)?;
    let port = |at: usize| u16::from_be_bytes([ip[at], ip[at + 1]]);
    let (source, destination): (IpAddr, IpAddr) = if ip[0] >> 4 == 4 {
        (
            Ipv4Addr::from(*ip[12..].first_chunk()?).into(),
            Ipv4Addr::from(*ip[16..].first_chunk()?).into(),
        )
    } else {
        (
            Ipv6Addr::from(*ip[8..].first_chunk()?).into(),
            Ipv6Addr::from(*ip[24..].first_chunk()?).into(),
        )
    };
    Some(((source, port(udp)), (destination, port(udp + 2))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::traffic::marker_stream;

    #[test]
    fn a_piece_of_the_marker_is_found_wherever_it_was_cut() {
        for offset in 0..MARKER.len() {
            let mut frame = vec![0xA5; 61];
            frame.extend(marker_stream(offset, PIECE));
            frame.extend([7; 30]);
            assert!(contains_marker(&frame), "{offset}");
            frame[61 + 9] ^= 1;
            assert!(!contains_marker(&frame), "{offset}");
        }
        assert!(!contains_marker(&MARKER[..PIECE - 1]));
        assert!(!contains_marker(b""));
    }

    #[test]
    fn udp_flows_are_read_from_frames() {
        let mut frame = vec![0; 14];
        frame.extend([
            0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
        ]);
        frame.extend([0x10, 0, 0x20, 0, 0, 8, 0, 0]);
        let (source, destination) = udp_flow(&frame).unwrap();
        assert_eq!(source, ("10.0.0.1".parse().unwrap(), 0x1000));
        assert_eq!(destination, ("10.0.0.2".parse().unwrap(), 0x2000));
        assert_eq!(udp_flow(&frame[..30]), None);
    }
}
