//! The list of TCP connections of a namespace, with the congestion control of each, as `ss -ti` shows it.
//!
//! It is the only way to see what the subflows of a multipath connection run: the options of their common socket
//! tell about the first. References: `linux/inet_diag.h`, sock_diag(7).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::NetdevError;
use super::netlink::{Socket, attributes, text};

/// One end of a TCP connection over IPv4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpConnection {
    /// This end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// Name of its congestion control.
    pub congestion: String,
}

/// `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
/// `struct inet_diag_req_v2`: family u8, protocol u8, extensions u8, padding u8, states u32, a socket's id.
const REQUEST_BYTES: usize = 56;
/// `struct inet_diag_msg`: four bytes, the socket's id (48), five 32-bit numbers.
const ANSWER_BYTES: usize = 72;
/// The congestion control: an attribute, and the bit of the request that asks for it.
const CONGESTION: u16 = 4;
const ASK_CONGESTION: u8 = 1 << (CONGESTION - 1);
/// `TCP_ESTABLISHED` as a bit.
const ESTABLISHED: u32 = 1 << 1;

/// All established TCP connections over IPv4 of the calling thread's network namespace.
///
/// # Errors
/// The kernel cannot list sockets (`CONFIG_INET_DIAG`).
pub fn tcp_connections() -> Result<Vec<TcpConnection>, NetdevError> {
    let failed = |e| NetdevError::new("list", "TCP connections", e);
    let mut socket = Socket::open_protocol(libc::NETLINK_SOCK_DIAG).map_err(failed)?;
    let mut request = [0; REQUEST_BYTES];
    request[0] = 2; // AF_INET
    request[1] = 6; // IPPROTO_TCP
    request[2] = ASK_CONGESTION;
    request[4..8].copy_from_slice(&ESTABLISHED.to_ne_bytes());
    let mut found = Vec::new();
    let listed = socket.dump(BY_FAMILY, &request, |kind, body| {
        if kind == BY_FAMILY {
            found.extend(parse(body));
        }
    });
    listed.map_err(failed)?;
    Ok(found)
}

fn parse(body: &[u8]) -> Option<TcpConnection> {
    // struct inet_diag_sockid at 4: two ports and two addresses of 16 bytes, all in network order.
    let end = |port: usize, address: usize| {
        let port = u16::from_be_bytes(body.get(port..port + 2)?.try_into().ok()?);
        let address: [u8; 4] = body.get(address..address + 4)?.try_into().ok()?;
        Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::from(address)), port))
    };
    let congestion = attributes(body, ANSWER_BYTES).find(|(kind, _)| *kind == CONGESTION);
    Some(TcpConnection {
        local: end(4, 8)?,
        remote: end(6, 24)?,
        congestion: text(congestion?.1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_connection_is_listed_at_both_ends_with_its_congestion_control() {
        use nix::sys::socket::{setsockopt, sockopt};
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (_accepted, from) = listener.accept().unwrap();
        setsockopt(&stream, sockopt::TcpCongestion, &"reno".into()).unwrap();
        let all = match tcp_connections() {
            Ok(all) => all,
            Err(error) => {
                eprintln!("SKIPPED: {error}: {}", error.source);
                return;
            }
        };
        let ours = all.iter().find(|c| c.local == from).unwrap();
        assert_eq!(ours.remote, listener.local_addr().unwrap());
        assert_eq!(ours.congestion, "reno");
        assert!(all.iter().any(|c| c.remote == from));
    }

    #[test]
    fn answers_that_are_cut_off_are_no_connections() {
        let mut body = vec![0; ANSWER_BYTES];
        body.extend([9, 0, 4, 0]);
        body.extend(b"cubic\0\0\0");
        let whole = parse(&body).unwrap();
        assert_eq!(whole.congestion, "cubic");
        for length in 0..body.len() - 3 {
            assert_eq!(parse(&body[..length]), None, "{length}");
        }
    }
}
