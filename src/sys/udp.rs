//! UDP sockets as the tunnel needs them: bound to a source, connected, with segmentation offload both ways.
//!
//! Never fragments: every datagram carries "don't fragment", and the kernel's own path MTU guess is ignored
//! (PMTUDISC_PROBE), since the peer's reports are the better judge.
//!
//! UDP_SEGMENT is a property of the socket. Linux then refuses every send (EMSGSIZE), also a short one, while
//! segment and headers exceed the device's MTU, and cuts every longer write.

use std::io::{self, IoSlice};
use std::net::{SocketAddr, UdpSocket as StdUdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, SockaddrStorage, bind, sendmsg,
    socket,
};

use super::option;

/// Most datagrams in one segmented send: the limit of kernels before 6.9 (`UDP_MAX_SEGMENTS`, 128 since).
pub const SEGMENTS_MAX: usize = 64;

/// Most bytes in one segmented send: below 65 535 - 20 - 8 with room for IPv6 and IP options.
pub const RUN_BYTES_MAX: usize = 65_000;

/// A nonblocking UDP socket.
#[derive(Debug)]
pub struct UdpSocket {
    inner: StdUdpSocket,
    /// Bytes granted by the kernel, as asked for (the kernel books twice that for its own overhead).
    receive_buffer_bytes: usize,
    send_buffer_bytes: usize,
}

/// How to open a socket.
#[derive(Clone, Debug)]
pub struct UdpConfig {
    /// Address and port to bind; port 0 takes a free one.
    pub source: SocketAddr,
    /// Interface to bind to (SO_BINDTODEVICE; needs no privilege since Linux 5.7).
    pub device: Option<String>,
    /// Several sockets may share address and port (SO_REUSEPORT, same user).
    pub reuse_port: bool,
    /// Wanted size of each kernel buffer; 0 keeps the system's default.
    pub buffer_bytes: usize,
}

/// What went wrong with a socket, by operation.
#[derive(Debug, thiserror::Error)]
pub enum UdpError {
    /// Out of descriptors, or the address family is missing.
    #[error("cannot open a UDP socket for {0}")]
    Open(SocketAddr, #[source] io::Error),
    /// SO_BINDTODEVICE: no such device.
    #[error("cannot bind a UDP socket to device {0}")]
    Device(String, #[source] io::Error),
    /// The address is not ours or the port is taken.
    #[error("cannot bind a UDP socket to {0}")]
    Bind(SocketAddr, #[source] io::Error),
    /// No route, or not permitted.
    #[error("cannot connect a UDP socket to {0}")]
    Connect(SocketAddr, #[source] io::Error),
    /// An option that every kernel we support has.
    #[error("cannot set {0} of a UDP socket")]
    Option(&'static str, #[source] io::Error),
    /// UDP_SEGMENT (Linux 4.18) is missing or the size is impossible.
    #[error("UDP segmentation offload is not available")]
    Segment(#[source] io::Error),
    /// Out of descriptors.
    #[error("cannot duplicate a UDP socket")]
    Clone(#[source] io::Error),
    /// UDP_GRO (Linux 5.0) is missing.
    #[error("UDP receive offload is not available")]
    Gro(#[source] io::Error),
}

impl UdpSocket {
    /// Opens and binds a socket.
    ///
    /// # Errors
    /// See [`UdpError`]. Buffers that stay smaller than asked for are not an error.
    pub fn bind(config: UdpConfig) -> Result<Self, UdpError> {
        let source = config.source;
        let family = if source.is_ipv4() {
            AddressFamily::Inet
        } else {
            AddressFamily::Inet6
        };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(family, SockType::Datagram, flags, None)
            .map_err(|e| UdpError::Open(source, e.into()))?;
        if config.reuse_port {
            option::set(&fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)
                .map_err(|e| UdpError::Option("SO_REUSEPORT", e))?;
        }
        if let Some(device) = config.device {
            option::set_bytes(
                &fd,
                libc::SOL_SOCKET,
                libc::SO_BINDTODEVICE,
                device.as_bytes(),
            )
            .map_err(|e| UdpError::Device(device, e))?;
        }
        set_never_fragment(&fd, source)?;
        let receive_buffer_bytes = set_buffer(&fd, &RECEIVE, config.buffer_bytes)?;
        let send_buffer_bytes = set_buffer(&fd, &SEND, config.buffer_bytes)?;
        bind(fd.as_raw_fd(), &SockaddrStorage::from(source))
            .map_err(|e| UdpError::Bind(source, e.into()))?;
        Ok(Self {
            inner: StdUdpSocket::from(fd),
            receive_buffer_bytes,
            send_buffer_bytes,
        })
    }

    /// A second handle to the same socket, for another thread.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn try_clone(&self) -> Result<Self, UdpError> {
        let inner = self.inner.try_clone().map_err(UdpError::Clone)?;
        Ok(Self { inner, ..*self })
    }

    /// Fixes the peer: sends need no address, and datagrams of others are not received. May be called again
    /// to follow a peer that moved.
    ///
    /// # Errors
    /// No route to the address, or not permitted.
    pub fn connect(&self, peer: SocketAddr) -> Result<(), UdpError> {
        self.inner
            .connect(peer)
            .map_err(|e| UdpError::Connect(peer, e))
    }

    /// Cuts every longer write into datagrams of `bytes`; 0 switches that off.
    ///
    /// # Errors
    /// The kernel has no UDP_SEGMENT. That the egress cannot do it shows only when sending.
    pub fn set_segment(&self, bytes: u16) -> Result<(), UdpError> {
        set_segment(self.inner.as_fd(), bytes).map_err(UdpError::Segment)
    }

    /// The segment size in force; 0 when off or unknown to the kernel.
    pub fn segment(&self) -> u16 {
        segment(self.inner.as_fd())
    }

    /// Lets the kernel merge datagrams of one size into one read of up to 64 KiB. Reads must then offer that
    /// much room, or they lose data without a sign.
    ///
    /// # Errors
    /// The kernel has no UDP_GRO.
    pub fn set_gro(&self) -> Result<(), UdpError> {
        option::set(&self.inner, libc::SOL_UDP, libc::UDP_GRO, 1).map_err(UdpError::Gro)
    }

    /// Largest IP packet that the route to the connected peer takes, headers included.
    ///
    /// # Errors
    /// The socket is not connected.
    pub fn path_mtu(&self) -> io::Result<u32> {
        let (level, name) = if self.inner.local_addr()?.is_ipv4() {
            (libc::IPPROTO_IP, libc::IP_MTU)
        } else {
            (libc::IPPROTO_IPV6, libc::IPV6_MTU)
        };
        let mtu = option::get(&self.inner, level, name)?;
        u32::try_from(mtu).map_err(|_| io::ErrorKind::InvalidData.into())
    }

    /// Marks packets for policy routing (SO_MARK).
    ///
    /// # Errors
    /// Without CAP_NET_ADMIN.
    pub fn set_mark(&self, mark: u32) -> Result<(), UdpError> {
        option::set(
            &self.inner,
            libc::SOL_SOCKET,
            libc::SO_MARK,
            mark.cast_signed(),
        )
        .map_err(|e| UdpError::Option("SO_MARK", e))
    }

    /// Sends one datagram without waiting.
    ///
    /// # Errors
    /// As sendto(2); `WouldBlock` when the buffer is full.
    pub fn send_to(&self, bytes: &[u8], peer: SocketAddr) -> io::Result<usize> {
        self.inner.send_to(bytes, peer)
    }

    /// Sends to the connected peer without waiting.
    ///
    /// # Errors
    /// As send(2).
    pub fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        self.inner.send(bytes)
    }

    /// Receives one datagram without waiting.
    ///
    /// # Errors
    /// As recvfrom(2); `WouldBlock` when there is none.
    pub fn recv_from(&self, bytes: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.inner.recv_from(bytes)
    }

    /// Receives from the connected peer without waiting.
    ///
    /// # Errors
    /// As recv(2); `WouldBlock` when there is nothing.
    pub fn recv(&self, bytes: &mut [u8]) -> io::Result<usize> {
        self.inner.recv(bytes)
    }

    /// The address in force; after [`UdpSocket::connect`] with the source address the route chose.
    ///
    /// # Errors
    /// As getsockname(2).
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    /// The peer's address, of a connected socket.
    ///
    /// # Errors
    /// As getpeername(2).
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.inner.peer_addr()
    }

    /// Size of the kernel's receive buffer in the sense of [`UdpConfig::buffer_bytes`].
    pub const fn receive_buffer_bytes(&self) -> usize {
        self.receive_buffer_bytes
    }

    /// Size of the kernel's send buffer in the sense of [`UdpConfig::buffer_bytes`].
    pub const fn send_buffer_bytes(&self) -> usize {
        self.send_buffer_bytes
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

/// The two option names for one direction's buffer.
struct Buffer {
    force: i32,
    ask: i32,
    name: &'static str,
}

const RECEIVE: Buffer = Buffer {
    force: libc::SO_RCVBUFFORCE,
    ask: libc::SO_RCVBUF,
    name: "SO_RCVBUF",
};
const SEND: Buffer = Buffer {
    force: libc::SO_SNDBUFFORCE,
    ask: libc::SO_SNDBUF,
    name: "SO_SNDBUF",
};

/// Sets a buffer, beyond the system's limit where we may (CAP_NET_ADMIN in the first user namespace), and
/// returns what was granted.
fn set_buffer(fd: &OwnedFd, buffer: &Buffer, bytes: usize) -> Result<usize, UdpError> {
    let fail = |e| UdpError::Option(buffer.name, e);
    // The kernel doubles the number; half the range is therefore the largest that makes sense.
    let wanted = i32::try_from(bytes).unwrap_or(i32::MAX).min(i32::MAX / 2);
    if wanted > 0 && option::set(fd, libc::SOL_SOCKET, buffer.force, wanted).is_err() {
        option::set(fd, libc::SOL_SOCKET, buffer.ask, wanted).map_err(fail)?;
    }
    let granted = option::get(fd, libc::SOL_SOCKET, buffer.ask).map_err(fail)?;
    Ok(usize::try_from(granted / 2).unwrap_or(0))
}

/// Sets "don't fragment" and keeps an IPv6 socket to IPv6, so that both families can use one port.
fn set_never_fragment(fd: &OwnedFd, source: SocketAddr) -> Result<(), UdpError> {
    let set = |level, name, value, text| {
        option::set(fd, level, name, value).map_err(|e| UdpError::Option(text, e))
    };
    if source.is_ipv4() {
        let probe = libc::IP_PMTUDISC_PROBE;
        return set(
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            probe,
            "IP_MTU_DISCOVER",
        );
    }
    let v6 = libc::IPPROTO_IPV6;
    set(v6, libc::IPV6_V6ONLY, 1, "IPV6_V6ONLY")?;
    set(
        v6,
        libc::IPV6_MTU_DISCOVER,
        libc::IPV6_PMTUDISC_PROBE,
        "IPV6_MTU_DISCOVER",
    )?;
    set(v6, libc::IPV6_DONTFRAG, 1, "IPV6_DONTFRAG")
}

/// UDP_SEGMENT of any descriptor; the datapath uses it on its own copies.
pub(super) fn set_segment(fd: BorrowedFd<'_>, bytes: u16) -> io::Result<()> {
    option::set(fd, libc::SOL_UDP, libc::UDP_SEGMENT, i32::from(bytes))
}

/// UDP_SEGMENT in force; 0 when off, unknown or not a UDP socket.
pub(super) fn segment(fd: BorrowedFd<'_>) -> u16 {
    let value = option::get(fd, libc::SOL_UDP, libc::UDP_SEGMENT).unwrap_or(0);
    u16::try_from(value).unwrap_or(0)
}

/// Sends bytes to the connected peer as datagrams of `segment`. Returns errno on failure.
pub(super) fn send_segments(fd: BorrowedFd<'_>, bytes: &[u8], segment: u16) -> Result<(), i32> {
    let cut = [ControlMessage::UdpGsoSegments(&segment)];
    let flags = MsgFlags::MSG_DONTWAIT;
    sendmsg::<()>(fd.as_raw_fd(), &[IoSlice::new(bytes)], &cut, flags, None)
        .map(drop)
        .map_err(|errno| errno as i32)
}

/// Sends one datagram to the connected peer uncut, whatever UDP_SEGMENT is set to. Returns errno on failure.
pub(super) fn send_whole(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<(), i32> {
    let uncut = [ControlMessage::UdpGsoSegments(&0)];
    let flags = MsgFlags::MSG_DONTWAIT;
    sendmsg::<()>(fd.as_raw_fd(), &[IoSlice::new(bytes)], &uncut, flags, None)
        .map(drop)
        .map_err(|errno| errno as i32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing::{loopback_pair, wait_readable};

    #[test]
    fn a_run_of_segments_arrives_as_one_read_of_equal_datagrams() {
        let (a, b) = loopback_pair(true);
        a.set_segment(1_200).unwrap();
        assert_eq!(a.segment(), 1_200);
        b.set_gro().unwrap();
        let run: Vec<u8> = (0..2_500_u32).map(|i| i.to_le_bytes()[0]).collect();
        assert_eq!(a.send(&run).unwrap(), run.len());
        let mut got = Vec::new();
        let mut buffer = vec![0; 65_536];
        while got.len() < run.len() {
            wait_readable(&b);
            let count = b.recv(&mut buffer).unwrap();
            got.extend_from_slice(&buffer[..count]);
        }
        assert_eq!(got, run);
    }

    #[test]
    fn buffers_report_what_was_granted() {
        let config = UdpConfig {
            source: "127.0.0.1:0".parse().unwrap(),
            device: None,
            reuse_port: false,
            buffer_bytes: 100_000,
        };
        let socket = UdpSocket::bind(config).unwrap();
        assert!(socket.receive_buffer_bytes() >= 100_000);
        assert!(socket.send_buffer_bytes() >= 100_000);
    }

    #[test]
    fn two_sockets_share_a_port_only_when_both_ask_for_it() {
        let config = |source, reuse_port| UdpConfig {
            source,
            device: None,
            reuse_port,
            buffer_bytes: 0,
        };
        let any = "[::1]:0".parse().unwrap();
        let Ok(first) = UdpSocket::bind(config(any, true)) else {
            eprintln!("SKIPPED: no IPv6 on the loopback interface");
            return;
        };
        let address = first.local_addr().unwrap();
        assert!(UdpSocket::bind(config(address, true)).is_ok());
        let refused = UdpSocket::bind(config(address, false));
        assert!(matches!(refused, Err(UdpError::Bind(a, _)) if a == address));
    }

    #[test]
    fn a_missing_device_is_named() {
        let config = UdpConfig {
            source: "127.0.0.1:0".parse().unwrap(),
            device: Some("cl-nowhere".into()),
            reuse_port: false,
            buffer_bytes: 0,
        };
        let error = UdpSocket::bind(config).unwrap_err();
        assert!(error.to_string().contains("cl-nowhere"), "{error}");
    }
}
