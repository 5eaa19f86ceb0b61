//! Sockets of the kernel's multipath TCP (RFC 8684), and what their subflows tell.
//!
//! References: `linux/mptcp.h`, the kernel's Documentation/networking/mptcp.rst. Which addresses open subflows is the
//! path manager's affair ([`super::netdev::Mptcp`]).

use std::io;
use std::mem::zeroed;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use super::option;
use super::tcp::TcpInfo;

/// Option level and options of multipath sockets.
const SOL_MPTCP: libc::c_int = 284;
const MPTCP_TCPINFO: libc::c_int = 2;
const MPTCP_SUBFLOW_ADDRS: libc::c_int = 3;
/// Room for the subflows of one connection: the first, and eight that the path manager may add; some may be closing.
const SUBFLOWS: usize = 16;

/// One path of a multipath connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subflow {
    /// This end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// What the kernel says about it.
    pub info: TcpInfo,
}

/// A new socket over IPv4 for a multipath connection or for listening to them.
///
/// # Errors
/// EPROTONOSUPPORT when the kernel has no multipath TCP, ENOPROTOOPT when `net.mptcp.enabled` is 0.
pub fn socket() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
    // SAFETY: socket takes no pointers.
    let fd = unsafe { libc::socket(libc::AF_INET, kind, libc::IPPROTO_MPTCP) };
    option::check(fd)?;
    // SAFETY: `fd` was just opened by us and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The subflows of a multipath connection.
///
/// # Errors
/// ENOPROTOOPT or EOPNOTSUPP when it is none, which is also so when it fell back to TCP while it was made, and with
/// kernels before 5.16.
pub fn subflows(socket: impl AsFd) -> io::Result<Vec<Subflow>> {
    let infos: Vec<libc::tcp_info> = list(socket.as_fd(), MPTCP_TCPINFO)?;
    let ends: Vec<[libc::sockaddr_storage; 2]> = list(socket.as_fd(), MPTCP_SUBFLOW_ADDRS)?;
    // Both lists have the kernel's order. A subflow that comes or goes in between is at the end of one of them.
    let both = infos.iter().zip(&ends);
    Ok(both
        .filter_map(|(info, [local, remote])| {
            Some(Subflow {
                local: address(local)?,
                remote: address(remote)?,
                info: info.into(),
            })
        })
        .collect())
}

/// `struct mptcp_subflow_data`: its own size, subflows, size of the kernel's records, size of ours; then the records.
const HEAD_BYTES: usize = 16;

/// Plain C structures for which any bytes are a valid value.
trait Record: Copy {}
impl Record for libc::tcp_info {}
impl Record for [libc::sockaddr_storage; 2] {}

/// Reads an option that has one record for each subflow.
fn list<T: Record>(socket: impl AsFd, name: libc::c_int) -> io::Result<Vec<T>> {
    let mut answer = vec![0_u8; HEAD_BYTES + SUBFLOWS * size_of::<T>()];
    let word = |value: usize| u32::try_from(value).unwrap_or(0).to_ne_bytes();
    answer[..4].copy_from_slice(&word(HEAD_BYTES));
    answer[12..16].copy_from_slice(&word(size_of::<T>()));
    let mut bytes = libc::socklen_t::try_from(answer.len()).unwrap_or(0);
    // SAFETY: pointer and length describe the live, writable vector above; the kernel writes at most that much and
    // keeps neither pointer.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            SOL_MPTCP,
            name,
            answer.as_mut_ptr().cast(),
            &raw mut bytes,
        )
    };
    option::check(result)?;
    let number = |at: usize| {
        let bytes = answer[at..at + 4].try_into().unwrap_or_default();
        usize::try_from(u32::from_ne_bytes(bytes)).unwrap_or(0)
    };
    // A kernel whose records are shorter than ours packs them closer together and says so.
    let step = number(12).clamp(1, size_of::<T>());
    let records = answer[HEAD_BYTES..].chunks_exact(step);
    Ok(records
        .take(number(4).min(SUBFLOWS))
        .map(record_from)
        .collect())
}

/// A record from the bytes that the kernel knows of it; the rest is zero.
fn record_from<T: Record>(bytes: &[u8]) -> T {
    // SAFETY: a Record is a plain C structure; zero is a value for all of its fields.
    let mut record = unsafe { zeroed::<T>() };
    let count = bytes.len().min(size_of::<T>());
    // SAFETY: `count` bytes are inside of both, which do not overlap, and any bytes make a valid Record.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), (&raw mut record).cast(), count) };
    record
}

fn address(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that the storage holds a sockaddr_in, which is smaller and no more aligned.
            let v4 = unsafe { &*std::ptr::from_ref(storage).cast::<libc::sockaddr_in>() };
            let address = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            Some((address, u16::from_be(v4.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that the storage holds a sockaddr_in6, which is smaller and no more aligned.
            let v6 = unsafe { &*std::ptr::from_ref(storage).cast::<libc::sockaddr_in6>() };
            let address = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            Some((address, u16::from_be(v6.sin6_port)).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{Backlog, SockaddrStorage, bind, connect, listen};
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_multipath_connection_lists_its_first_subflow_and_another_socket_none() {
        let Ok(listener) = socket() else {
            eprintln!("SKIPPED: no multipath TCP here");
            return;
        };
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        bind(listener.as_raw_fd(), &SockaddrStorage::from(any)).unwrap();
        listen(&listener, Backlog::new(1).unwrap()).unwrap();
        let listener = TcpListener::from(listener);
        let target = listener.local_addr().unwrap();
        let dialled = socket().unwrap();
        connect(dialled.as_raw_fd(), &SockaddrStorage::from(target)).unwrap();
        let (_accepted, from) = listener.accept().unwrap();
        let all = subflows(&dialled).unwrap();
        assert_eq!(all.len(), 1);
        assert_eq!((all[0].local, all[0].remote), (from, target));
        assert!(all[0].info.window_segments >= 1);

        let plain = TcpStream::connect(target).unwrap();
        assert!(subflows(&plain).is_err());
    }
}
