//! The relay: the least that a tunnel in user space can be. A program at each end that carries packets and does nothing
//! else: no encryption, no repair, no order, no statistics.
//!
//! ```text
//!  TUN ─ read ─► send ─ UDP ══════ UDP ─ recv ─► write ─ TUN       and the same the other way round
//! ```
//!
//! What `bench tunnel` measures with it is the kernel's part: two network stacks, two wake-ups for each way, and for each
//! packet two system calls at each end. Its idle ping is the floor of every tunnel on the same machine that sleeps between
//! packets; what another one has beyond it is that tunnel's own. Its goodput and processor time are the floor of every
//! tunnel that takes packets one by one; one that carries superframes may cost less, and what it saves is what they are
//! worth.
//!
//! Around it everything is as around the tunnel: priority of the thread, sizes of the socket's buffers and of the TUN's
//! queue. Like a cable it loses what a queue has no room for and does not count it; whoever measures sees the loss in the
//! traffic.

use std::convert::Infallible;
use std::io::{self, ErrorKind, Write};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::process::ExitCode;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::driver::{BUFFER_BYTES, chain};
use crate::sys::{BareTun, TunError, UdpConfig, UdpError, UdpSocket, priority};

/// Longest IP packet, and so the longest datagram: nothing is ever cut.
const PACKET_BYTES_MAX: usize = 65_535;
/// Packets that one way may carry before the other one is looked at: an endless flood must not keep answers waiting, and
/// one poll for so many packets costs nothing.
const BURST_MAX: usize = 64;

/// Why a relay could not start or go on.
#[derive(Debug, thiserror::Error)]
enum RelayError {
    /// The TUN device.
    #[error(transparent)]
    Tun(#[from] TunError),
    /// The UDP socket.
    #[error(transparent)]
    Udp(#[from] UdpError),
    /// Waiting, or taking a packet.
    #[error("cannot {0}")]
    System(&'static str, #[source] io::Error),
}

/// One end.
#[derive(Debug)]
struct Relay {
    tun: BareTun,
    socket: UdpSocket,
    packet: Box<[u8]>,
}

/// Makes the device `tun`, which somebody else must set up, and carries its packets between the addresses `local` and
/// `peer` until the process is killed.
pub fn run(tun: &str, local: SocketAddr, peer: SocketAddr) -> ExitCode {
    // Without the right to it (user namespaces) the tunnel's data thread has no higher priority either.
    let _ = priority::raise();
    let Err(error) = Relay::open(tun, local, peer).and_then(Relay::carry);
    let _ = writeln!(io::stderr(), "relay: {}", chain(&error));
    ExitCode::FAILURE
}

impl Relay {
    fn open(tun: &str, local: SocketAddr, peer: SocketAddr) -> Result<Self, RelayError> {
        let socket = UdpSocket::bind(UdpConfig {
            source: local,
            device: None,
            reuse_port: false,
            buffer_bytes: BUFFER_BYTES,
        })?;
        socket.connect(peer)?;
        Ok(Self {
            tun: BareTun::create(tun)?,
            socket,
            packet: vec![0; PACKET_BYTES_MAX].into(),
        })
    }

    fn carry(mut self) -> Result<Infallible, RelayError> {
        loop {
            self.turn(PollTimeout::NONE)?;
        }
    }

    /// Waits until a packet comes from either side, then carries what is there.
    fn turn(&mut self, limit: impl Into<PollTimeout>) -> Result<(), RelayError> {
        let (tun, socket) = (&self.tun, &self.socket);
        let mut fds = [tun.as_fd(), socket.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match poll(&mut fds, limit) {
            Err(Errno::EINTR) => return Ok(()),
            result => result.map_err(|errno| RelayError::System("poll", errno.into()))?,
        };
        // An error on a descriptor counts as well: it is taken off by reading.
        let [outward, inward] = fds.map(|fd| fd.any() != Some(false));
        if outward {
            burst(&mut self.packet, |p| tun.read(p), |p| socket.send(p))
                .map_err(|error| RelayError::System("read the TUN", error))?;
        }
        if inward {
            burst(&mut self.packet, |p| socket.recv(p), |p| tun.write(p))
                .map_err(|error| RelayError::System("receive", error))?;
        }
        Ok(())
    }
}

/// Carries packets one by one, until there are none or the other way has its turn.
fn burst(
    packet: &mut [u8],
    take: impl Fn(&mut [u8]) -> io::Result<usize>,
    give: impl Fn(&[u8]) -> io::Result<usize>,
) -> io::Result<()> {
    for _ in 0..BURST_MAX {
        match take(packet) {
            // What is refused is lost, as on a cable.
            Ok(bytes) => drop(give(&packet[..bytes])),
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock => break,
                // What became of an earlier datagram: the other end has not started yet.
                ErrorKind::ConnectionRefused
                | ErrorKind::HostUnreachable
                | ErrorKind::NetworkUnreachable
                | ErrorKind::Interrupted => {}
                _ => return Err(error),
            },
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket as StdUdpSocket;

    use super::*;
    use crate::sys::{Netdev, testing};

    const DEVICE: &str = "cl-relay";
    /// Longest wait of one turn, in milliseconds.
    const LIMIT: u8 = 200;
    /// So many turns and datagrams are more than the kernel's own few can use up.
    const DATAGRAMS_MAX: u32 = 50;

    /// The relay, the other end of its socket, and a socket behind its TUN.
    fn relay() -> Option<(Relay, StdUdpSocket, StdUdpSocket)> {
        let peer = StdUdpSocket::bind("127.0.0.1:0").unwrap();
        let local = "127.0.0.1:5555".parse().unwrap();
        let relay = match Relay::open(DEVICE, local, peer.local_addr().unwrap()) {
            Err(RelayError::Tun(TunError::Open(source) | TunError::Attach { source, .. }))
                if source.kind() == ErrorKind::PermissionDenied =>
            {
                eprintln!("SKIPPED: cannot make TUN device {DEVICE}: {source}");
                return None;
            }
            relay => relay.unwrap(),
        };
        let mut netdev = Netdev::open().unwrap();
        let address = "10.7.0.1/24".parse().unwrap();
        netdev.add_address(DEVICE, address, None).unwrap();
        netdev.set_up(DEVICE, true).unwrap();
        let inner = StdUdpSocket::bind("10.7.0.1:7000").unwrap();
        for socket in [&peer, &inner] {
            socket.set_nonblocking(true).unwrap();
        }
        peer.connect(local).unwrap();
        Some((relay, peer, inner))
    }

    /// The next datagram of a socket that is `wanted`, while the relay works. The kernel has IPv6 packets of its own for
    /// every device, which are passed over.
    fn next(relay: &mut Relay, socket: &StdUdpSocket, wanted: fn(&[u8]) -> bool) -> Vec<u8> {
        let mut datagram = vec![0; PACKET_BYTES_MAX];
        for _ in 0..DATAGRAMS_MAX {
            match socket.recv(&mut datagram) {
                Ok(bytes) if wanted(&datagram[..bytes]) => return datagram[..bytes].to_vec(),
                Ok(_) => {}
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
                    turn(relay);
                }
            }
        }
        panic!("the wanted one does not come");
    }

    fn turn(relay: &mut Relay) {
        relay.turn(LIMIT).unwrap();
    }

    #[test]
    fn a_packet_of_the_tun_leaves_as_it_is_and_one_that_arrives_comes_out_of_it() {
        testing::in_namespace(|| {
            let Some((mut relay, peer, inner)) = relay() else {
                return;
            };
            inner.send_to(b"out", "10.7.0.2:7000").unwrap();
            let mut packet = next(&mut relay, &peer, |packet| packet[0] >> 4 == 4);
            assert_eq!((packet[0], packet.len()), (0x45, 20 + 8 + 3));
            assert_eq!(packet[28..], *b"out");
            // Back to where it came from; sums over both addresses stay what they were.
            let (source, destination) = (packet[12..16].to_vec(), packet[16..20].to_vec());
            packet[12..16].copy_from_slice(&destination);
            packet[16..20].copy_from_slice(&source);
            peer.send(&packet).unwrap();
            assert_eq!(next(&mut relay, &inner, |_| true), b"out");
        });
    }

    #[test]
    fn what_the_kernel_refuses_and_a_missing_peer_do_not_end_a_relay() {
        testing::in_namespace(|| {
            let Some((mut relay, peer, inner)) = relay() else {
                return;
            };
            peer.send(b"no IP packet").unwrap();
            turn(&mut relay);
            drop(peer);
            // The first one brings the refusal back, which the turns after it take off.
            for _ in 0..4 {
                inner.send_to(b"out", "10.7.0.2:7000").unwrap();
                turn(&mut relay);
            }
        });
    }

    #[test]
    fn a_burst_ends_with_the_packets_or_when_it_is_the_others_turn() {
        let mut packet = [0; 4];
        let taken = std::cell::Cell::new(0);
        let take = |most: usize| {
            let taken = &taken;
            taken.set(0);
            move |_: &mut [u8]| {
                taken.set(taken.get() + 1);
                if taken.get() > most {
                    return Err(ErrorKind::WouldBlock.into());
                }
                Ok(1)
            }
        };
        burst(&mut packet, take(3), |p| Ok(p.len())).unwrap();
        assert_eq!(
            taken.get(),
            4,
            "three packets and the word that there are no more"
        );
        burst(&mut packet, take(usize::MAX), |_| {
            Err(ErrorKind::OutOfMemory.into())
        })
        .unwrap();
        assert_eq!(taken.get(), BURST_MAX, "what is not taken on is lost");
        let gone = |_: &mut [u8]| Err(ErrorKind::NotFound.into());
        assert!(burst(&mut packet, gone, |p| Ok(p.len())).is_err());
    }
}
