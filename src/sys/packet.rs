//! AF_PACKET sockets: whole Ethernet frames from and to one interface, many in one system call.
//!
//! For the link emulator and for captures in the lab; the tunnel itself never opens one. Needs CAP_NET_RAW in the
//! user namespace that owns the network namespace.
//!
//! Frames must not be larger than [`FRAME_BYTES_MAX`]: offloads of the interface that faces the socket have to be
//! off, or the kernel hands over superframes without checksums. Such frames are counted, not passed on.
//!
//! References: packet(7), recvmmsg(2), socket(7) for SO_TIMESTAMPNS.

use std::io;
use std::mem::zeroed;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use super::option;

/// Largest frame that is received: a 9000-byte packet, its Ethernet header, and room to align.
pub const FRAME_BYTES_MAX: usize = 9_216;
/// Frames in one system call: beyond this the call's own cost no longer shows.
pub const BATCH_FRAMES: usize = 64;
/// Bytes of control data that one SCM_TIMESTAMPNS takes on 64-bit systems, in words.
const CONTROL_WORDS: usize = 4;

/// Why a packet socket could not be used.
#[derive(Debug, thiserror::Error)]
pub enum PacketError {
    /// socket(2).
    #[error("packet socket for {device}: {source} (needs CAP_NET_RAW)")]
    Socket {
        /// The interface.
        device: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// setsockopt(2).
    #[error("packet socket for {device}: option {option}: {source}")]
    Option {
        /// The interface.
        device: String,
        /// The option's name.
        option: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The interface is not in this network namespace, or binding to it failed.
    #[error("packet socket: interface {device}: {source}")]
    Bind {
        /// The interface.
        device: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// A non-blocking socket that hears everything which arrives at one interface, and can send any frame on it.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
}

impl PacketSocket {
    /// Opens a socket on `device` in the network namespace of the calling thread. It hears what comes in, not what
    /// this host sends there; what it sends bypasses the interface's queue, and so the ears of others.
    ///
    /// # Errors
    /// Without CAP_NET_RAW, or when the interface does not exist.
    pub fn open(device: &str, buffer_bytes: i32) -> Result<Self, PacketError> {
        let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: socket(2) takes no pointers. Protocol 0 receives nothing until `bind` names protocol and interface.
        let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        option::check(fd).map_err(|source| PacketError::Socket {
            device: device.into(),
            source,
        })?;
        // SAFETY: `fd` was just returned by socket(2), so it is open and nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let set = |level, name, value, option| {
            option::set(fd.as_fd(), level, name, value).map_err(|source| PacketError::Option {
                device: device.into(),
                option,
                source,
            })
        };
        set(libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1, "SO_TIMESTAMPNS")?;
        set(
            libc::SOL_PACKET,
            libc::PACKET_IGNORE_OUTGOING,
            1,
            "PACKET_IGNORE_OUTGOING",
        )?;
        set(
            libc::SOL_PACKET,
            libc::PACKET_QDISC_BYPASS,
            1,
            "PACKET_QDISC_BYPASS",
        )?;
        // The forced variants need CAP_NET_ADMIN in the initial namespace; without it the sysctl's limit holds.
        if set(
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            buffer_bytes,
            "SO_RCVBUFFORCE",
        )
        .is_err()
        {
            set(libc::SOL_SOCKET, libc::SO_RCVBUF, buffer_bytes, "SO_RCVBUF")?;
        }
        if set(
            libc::SOL_SOCKET,
            libc::SO_SNDBUFFORCE,
            buffer_bytes,
            "SO_SNDBUFFORCE",
        )
        .is_err()
        {
            set(libc::SOL_SOCKET, libc::SO_SNDBUF, buffer_bytes, "SO_SNDBUF")?;
        }
        bind(&fd, device).map_err(|source| PacketError::Bind {
            device: device.into(),
            source,
        })?;
        Ok(Self { fd })
    }

    /// Receives up to [`BATCH_FRAMES`] waiting frames and hands each to `on` with its arrival in Unix time (`None`:
    /// the kernel did not say). Returns how many there were; fewer than a batch means that nothing waits any more.
    ///
    /// # Errors
    /// What recvmmsg(2) says, except that an empty socket is zero frames.
    pub fn receive(
        &self,
        batch: &mut ReceiveBatch,
        mut on: impl FnMut(&[u8], Option<Duration>),
    ) -> io::Result<usize> {
        // SAFETY: iovec and mmsghdr are plain C structs for which all zero bytes are a valid value.
        let (mut iovecs, mut headers) =
            unsafe { zeroed::<([libc::iovec; BATCH_FRAMES], Headers)>() };
        let slots = batch
            .frames
            .chunks_exact_mut(FRAME_BYTES_MAX)
            .zip(batch.control.iter_mut());
        for ((iovec, header), (frame, control)) in iovecs.iter_mut().zip(&mut headers).zip(slots) {
            iovec.iov_base = frame.as_mut_ptr().cast();
            iovec.iov_len = frame.len();
            header.msg_hdr.msg_iov = iovec;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = control.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = size_of_val(control);
        }
        // SAFETY: every header points to one iovec of `iovecs`, one frame slot and one control slot of `batch`, all
        // borrowed mutably until the call returns, distinct, and as long as stated. No name buffer is given.
        let count = unsafe {
            libc::recvmmsg(
                self.fd.as_raw_fd(),
                headers.as_mut_ptr(),
                count_of(BATCH_FRAMES),
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        let count = match option::check(count) {
            Ok(()) => usize::try_from(count).unwrap_or(0),
            Err(error) if is_empty(&error) => return Ok(0),
            Err(error) => return Err(error),
        };
        for (index, header) in headers.iter().take(count).enumerate() {
            let len = usize::try_from(header.msg_len).unwrap_or(0);
            if header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0 || len > FRAME_BYTES_MAX {
                batch.oversize += 1;
                continue;
            }
            let start = index * FRAME_BYTES_MAX;
            let stamp = timestamp(&batch.control[index], header.msg_hdr.msg_controllen);
            on(&batch.frames[start..start + len], stamp);
        }
        Ok(count)
    }

    /// Sends frames, at most [`BATCH_FRAMES`] of them; returns how many the interface took.
    ///
    /// # Errors
    /// What sendmmsg(2) says about the first frame, except that a full interface is zero frames.
    pub fn send(&self, frames: &[&[u8]]) -> io::Result<usize> {
        // SAFETY: iovec and mmsghdr are plain C structs for which all zero bytes are a valid value.
        let (mut iovecs, mut headers) =
            unsafe { zeroed::<([libc::iovec; BATCH_FRAMES], Headers)>() };
        let frames = &frames[..frames.len().min(BATCH_FRAMES)];
        for ((iovec, header), frame) in iovecs.iter_mut().zip(&mut headers).zip(frames) {
            iovec.iov_base = frame.as_ptr().cast_mut().cast();
            iovec.iov_len = frame.len();
            header.msg_hdr.msg_iov = iovec;
            header.msg_hdr.msg_iovlen = 1;
        }
        let count = count_of(frames.len());
        // SAFETY: the first `count` headers point to one iovec each, which describes a live slice of `frames` that
        // the kernel only reads; name and control are null. All of them outlive the call.
        let sent = unsafe {
            libc::sendmmsg(
                self.fd.as_raw_fd(),
                headers.as_mut_ptr(),
                count,
                libc::MSG_DONTWAIT,
            )
        };
        match option::check(sent) {
            Ok(()) => Ok(usize::try_from(sent).unwrap_or(0)),
            Err(error) if is_empty(&error) || error.raw_os_error() == Some(libc::ENOBUFS) => Ok(0),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

type Headers = [libc::mmsghdr; BATCH_FRAMES];

/// Buffers for one call of [`PacketSocket::receive`]; one serves many sockets in turn.
#[derive(Debug)]
pub struct ReceiveBatch {
    frames: Box<[u8]>,
    control: Box<[[u64; CONTROL_WORDS]]>,
    oversize: u64,
}

impl ReceiveBatch {
    /// Allocates the buffers.
    pub fn new() -> Self {
        Self {
            frames: vec![0; BATCH_FRAMES * FRAME_BYTES_MAX].into(),
            control: vec![[0; CONTROL_WORDS]; BATCH_FRAMES].into(),
            oversize: 0,
        }
    }

    /// Frames dropped because they were too large: an offload is on where it must be off.
    pub fn oversize(&self) -> u64 {
        self.oversize
    }
}

impl Default for ReceiveBatch {
    fn default() -> Self {
        Self::new()
    }
}

/// A batch's length as the system calls take it.
fn count_of(frames: usize) -> libc::c_uint {
    libc::c_uint::try_from(frames.min(BATCH_FRAMES)).unwrap_or(0)
}

fn is_empty(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// Reads `struct cmsghdr { size_t len; int level; int type; }` and a 64-bit timespec out of the control words.
fn timestamp(words: &[u64; CONTROL_WORDS], length: usize) -> Option<Duration> {
    #[allow(clippy::cast_sign_loss)] // both constants are small and positive
    let wanted = if cfg!(target_endian = "little") {
        u64::from(libc::SOL_SOCKET as u32) | u64::from(libc::SCM_TIMESTAMPNS as u32) << 32
    } else {
        u64::from(libc::SOL_SOCKET as u32) << 32 | u64::from(libc::SCM_TIMESTAMPNS as u32)
    };
    if length < size_of_val(words) || words[1] != wanted {
        return None;
    }
    Some(Duration::new(words[2], u32::try_from(words[3]).ok()?))
}

fn bind(fd: &OwnedFd, device: &str) -> io::Result<()> {
    let index = nix::net::if_::if_nametoindex(device)?;
    // SAFETY: sockaddr_ll is a plain C struct for which all zero bytes are a valid value.
    let mut address = unsafe { zeroed::<libc::sockaddr_ll>() };
    address.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or(0);
    address.sll_protocol = u16::try_from(libc::ETH_P_ALL).unwrap_or(0).to_be();
    address.sll_ifindex = i32::try_from(index).unwrap_or(0);
    let len = u32::try_from(size_of_val(&address)).unwrap_or(0);
    // SAFETY: pointer and length describe the live sockaddr_ll above; the kernel copies it during the call.
    let result = unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), len) };
    option::check(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_words_of_another_kind_are_no_timestamp() {
        let mut words = [32, 0, 17, 5];
        assert_eq!(timestamp(&words, 32), None);
        words[1] = 1 | 35 << 32; // SOL_SOCKET, SCM_TIMESTAMPNS
        assert_eq!(timestamp(&words, 32), Some(Duration::new(17, 5)));
        assert_eq!(timestamp(&words, 16), None);
    }

    #[test]
    fn an_interface_that_does_not_exist_is_named() {
        match PacketSocket::open("no-such-device", 1 << 16) {
            Err(PacketError::Socket { .. }) => eprintln!("SKIPPED: no CAP_NET_RAW"),
            other => assert!(other.unwrap_err().to_string().contains("no-such-device")),
        }
    }
}
