//! Many UDP datagrams in one system call, without segmentation offload: for the traffic generators of the lab, whose
//! packets must each be one to the kernel, and whose own cost must not be what is measured.
//!
//! The tunnel itself never uses this: it sends runs (`udp.rs`).
//!
//! References: sendmmsg(2), recvmmsg(2).

use std::io;
use std::mem::zeroed;
use std::os::fd::{AsFd, AsRawFd};

use super::option::check;

/// Datagrams in one system call: beyond this the call's own cost no longer shows.
pub const BATCH_DATAGRAMS: usize = 64;
/// Bytes of each datagram that a receiver looks at.
pub const START_BYTES: usize = 16;

type Headers = [libc::mmsghdr; BATCH_DATAGRAMS];

/// Sends `count` datagrams (at most [`BATCH_DATAGRAMS`]) of the same content to the connected peer without waiting.
/// Returns how many the kernel took.
///
/// # Errors
/// As sendmmsg(2), when it took none; `WouldBlock` when the socket's buffer is full.
pub fn send_copies(socket: impl AsFd, bytes: &[u8], count: usize) -> io::Result<usize> {
    let mut vector = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: mmsghdr is a plain C struct for which all zero bytes are a valid value.
    let mut headers = unsafe { zeroed::<Headers>() };
    for header in &mut headers {
        header.msg_hdr.msg_iov = &raw mut vector;
        header.msg_hdr.msg_iovlen = 1;
    }
    // SAFETY: every header points to the one vector, which describes `bytes`; both live until the call returns, and
    // the kernel only reads what a send describes. No more headers are announced than there are.
    let sent = unsafe {
        libc::sendmmsg(
            socket.as_fd().as_raw_fd(),
            headers.as_mut_ptr(),
            announced(count),
            libc::MSG_DONTWAIT,
        )
    };
    check(sent)?;
    Ok(usize::try_from(sent).unwrap_or(0))
}

/// Receives waiting datagrams, the first bytes of each; the kernel throws the rest away. Returns how many there were.
///
/// # Errors
/// As recvmmsg(2); `WouldBlock` when there is none.
pub fn receive_starts(
    socket: impl AsFd,
    starts: &mut [[u8; START_BYTES]; BATCH_DATAGRAMS],
) -> io::Result<usize> {
    // SAFETY: iovec and mmsghdr are plain C structs for which all zero bytes are a valid value.
    let (mut vectors, mut headers) =
        unsafe { zeroed::<([libc::iovec; BATCH_DATAGRAMS], Headers)>() };
    for ((vector, header), start) in vectors.iter_mut().zip(&mut headers).zip(starts) {
        vector.iov_base = start.as_mut_ptr().cast();
        vector.iov_len = START_BYTES;
        header.msg_hdr.msg_iov = vector;
        header.msg_hdr.msg_iovlen = 1;
    }
    // SAFETY: every header points to a vector of its own, and that to a start of its own, borrowed mutably until the
    // call returns and as long as stated. No buffers for names or control data are given.
    let count = unsafe {
        libc::recvmmsg(
            socket.as_fd().as_raw_fd(),
            headers.as_mut_ptr(),
            announced(BATCH_DATAGRAMS),
            libc::MSG_DONTWAIT,
            std::ptr::null_mut(),
        )
    };
    check(count)?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// As the system calls want it.
fn announced(count: usize) -> u32 {
    u32::try_from(count.min(BATCH_DATAGRAMS)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing::{loopback_pair, wait_readable};

    #[test]
    fn a_batch_arrives_as_so_many_datagrams_each_with_its_start() {
        let (a, b) = loopback_pair(true);
        let mut bytes = [7_u8; 200];
        bytes[0] = 9;
        assert_eq!(send_copies(&a, &bytes, 10).unwrap(), 10);
        assert_eq!(send_copies(&a, &bytes[..8], 1).unwrap(), 1);
        let mut starts = [[0; START_BYTES]; BATCH_DATAGRAMS];
        let mut got = 0;
        while got < 11 {
            wait_readable(&b);
            let count = receive_starts(&b, &mut starts).unwrap();
            for start in &starts[..count] {
                assert_eq!((start[0], start[7]), (9, 7));
            }
            got += count;
        }
        let nothing = receive_starts(&b, &mut starts).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn no_more_than_a_batch_is_sent_at_once() {
        let (a, _b) = loopback_pair(true);
        assert_eq!(send_copies(&a, b"x", 1000).unwrap(), BATCH_DATAGRAMS);
    }
}
