//! What the kernel knows about one of its TCP connections.
//!
//! References: tcp(7), linux/tcp.h `struct tcp_info`.

use std::io;
use std::mem::zeroed;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use super::option;

/// A part of TCP_INFO.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpInfo {
    /// Smoothed round-trip time.
    pub rtt: Duration,
    /// Its mean deviation.
    pub rtt_variation: Duration,
    /// Segments sent again since the start.
    pub retransmits: u32,
    /// Retransmission timeouts in a row without an answer.
    pub timeouts: u8,
    /// Congestion window in segments.
    pub window_segments: u32,
    /// Largest reordering that the sender allows for, in segments.
    pub reordering: u32,
    /// Segments sent and not acknowledged.
    pub in_flight_segments: u32,
    /// Payload bytes of a full segment.
    pub segment_bytes: u32,
    /// Payload bytes sent since the start, those sent again counted again.
    pub bytes_sent: u64,
}

impl From<&libc::tcp_info> for TcpInfo {
    fn from(raw: &libc::tcp_info) -> Self {
        Self {
            rtt: Duration::from_micros(raw.tcpi_rtt.into()),
            rtt_variation: Duration::from_micros(raw.tcpi_rttvar.into()),
            retransmits: raw.tcpi_total_retrans,
            timeouts: raw.tcpi_retransmits,
            window_segments: raw.tcpi_snd_cwnd,
            reordering: raw.tcpi_reordering,
            in_flight_segments: raw.tcpi_unacked,
            segment_bytes: raw.tcpi_snd_mss,
            bytes_sent: raw.tcpi_bytes_sent,
        }
    }
}

/// Reads TCP_INFO of a connection.
///
/// # Errors
/// When `socket` is not a TCP socket.
pub fn info(socket: impl AsFd) -> io::Result<TcpInfo> {
    // SAFETY: tcp_info is a plain C struct of integers for which all zero bytes are a valid value.
    let mut raw = unsafe { zeroed::<libc::tcp_info>() };
    let mut bytes = libc::socklen_t::try_from(size_of_val(&raw)).unwrap_or(0);
    // SAFETY: pointer and length describe the live, writable struct above; the kernel writes at most that much and
    // keeps neither pointer.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut raw).cast(),
            &raw mut bytes,
        )
    };
    option::check(result)?;
    Ok(TcpInfo::from(&raw))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_tells_its_window_and_another_socket_nothing() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let info = info(&stream).unwrap();
        assert!(info.window_segments >= 1);
        assert_eq!(info.retransmits, 0);
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(super::info(&udp).is_err());
    }
}
