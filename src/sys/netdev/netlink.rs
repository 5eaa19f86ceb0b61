//! A small netlink client: one request, one answer, in the thread's network namespace. Nearly always of
//! NETLINK_ROUTE; the generic and the socket-listing families speak the same way.
//!
//! ```text
//!   nlmsghdr (16): length u32 | type u16 | flags u16 | sequence u32 | port u32
//!   fixed header of the message type (ifinfomsg, ifaddrmsg, rtmsg, fib_rule_hdr, genlmsghdr, inet_diag_req_v2)
//!   attributes: length u16 | type u16 | value, each padded to 4 bytes
//! ```
//!
//! All numbers are in the machine's byte order. Reference: RFC 3549, rtnetlink(7), `linux/netlink.h`.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::sys::option::{check, set};

/// Room for one read of answers; the kernel fills at most 32 KiB (NLMSG_GOODSIZE doubled for dumps).
const ANSWER_BYTES: usize = 65_536;
const HEADER_BYTES: usize = 16;

/// One request under construction.
#[derive(Clone, Debug)]
pub(super) struct Message {
    kind: u16,
    flags: u16,
    body: Vec<u8>,
}

impl Message {
    /// A request of `kind` with its fixed header.
    pub(super) fn new(kind: u16, flags: i32, header: &[u8]) -> Self {
        let flags = u16::try_from(flags).expect("netlink flags have 16 bits");
        Self {
            kind,
            flags,
            body: header.to_vec(),
        }
    }

    /// Appends an attribute.
    pub(super) fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len() + 4).expect("our attributes are short");
        self.body.extend_from_slice(&length.to_ne_bytes());
        self.body.extend_from_slice(&kind.to_ne_bytes());
        self.body.extend_from_slice(value);
        self.body.resize(self.body.len().next_multiple_of(4), 0);
    }

    /// Appends a string attribute with its terminating zero.
    pub(super) fn text(&mut self, kind: u16, value: &str) {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes);
    }

    /// Appends a 32-bit attribute.
    pub(super) fn number(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_ne_bytes());
    }

    /// Appends an attribute that holds attributes, or a fixed header and then attributes.
    pub(super) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let mut inner = Self {
            kind: 0,
            flags: 0,
            body: Vec::new(),
        };
        fill(&mut inner);
        self.attribute(kind, &inner.body);
    }

    /// Appends bytes without a frame around them: a fixed header inside of a nest.
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.body.extend_from_slice(bytes);
    }

    fn packet(&self, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(HEADER_BYTES + self.body.len()).expect("our requests are short");
        let mut packet = Vec::with_capacity(HEADER_BYTES + self.body.len());
        packet.extend_from_slice(&length.to_ne_bytes());
        packet.extend_from_slice(&self.kind.to_ne_bytes());
        packet.extend_from_slice(&self.flags.to_ne_bytes());
        packet.extend_from_slice(&sequence.to_ne_bytes());
        packet.extend_from_slice(&0_u32.to_ne_bytes());
        packet.extend_from_slice(&self.body);
        packet
    }
}

/// A netlink socket.
#[derive(Debug)]
pub(super) struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl Socket {
    /// Opens a socket for interfaces, addresses and routes in the calling thread's network namespace; it stays there.
    pub(super) fn open() -> io::Result<Self> {
        Self::open_protocol(libc::NETLINK_ROUTE)
    }

    /// The same for another part of the kernel (`NETLINK_GENERIC`, `NETLINK_SOCK_DIAG`).
    pub(super) fn open_protocol(protocol: libc::c_int) -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // SAFETY: socket takes no pointers.
        let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, protocol) };
        check(fd)?;
        // SAFETY: `fd` was just opened by us and nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // The kernel then checks dump requests and applies their filters (Linux 4.20); older ones ignore it.
        let _ = set(&fd, libc::SOL_NETLINK, libc::NETLINK_GET_STRICT_CHK, 1);
        Ok(Self { fd, sequence: 0 })
    }

    /// Sends a change and waits for the kernel's verdict.
    pub(super) fn change(&mut self, message: Message) -> io::Result<()> {
        self.ask(message, |_, _| {})
    }

    /// Asks for one thing and hands the answer (type, body) to `each`, then waits for the kernel's verdict.
    pub(super) fn ask(
        &mut self,
        mut message: Message,
        each: impl FnMut(u16, &[u8]),
    ) -> io::Result<()> {
        message.flags |= flag(libc::NLM_F_REQUEST | libc::NLM_F_ACK);
        self.exchange(&message, each)
    }

    /// Asks for a list and hands each answer (type, body) to `each`.
    pub(super) fn dump(
        &mut self,
        kind: u16,
        header: &[u8],
        each: impl FnMut(u16, &[u8]),
    ) -> io::Result<()> {
        let message = Message::new(kind, libc::NLM_F_REQUEST | libc::NLM_F_DUMP, header);
        self.exchange(&message, each)
    }

    fn exchange(&mut self, message: &Message, mut each: impl FnMut(u16, &[u8])) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let packet = message.packet(self.sequence);
        // An unbound netlink socket sends to the kernel.
        nix::sys::socket::send(
            self.fd.as_raw_fd(),
            &packet,
            nix::sys::socket::MsgFlags::empty(),
        )?;
        let mut answer = vec![0_u8; ANSWER_BYTES];
        loop {
            let count = nix::sys::socket::recv(
                self.fd.as_raw_fd(),
                &mut answer,
                nix::sys::socket::MsgFlags::empty(),
            )?;
            let mut rest = &answer[..count];
            while let Some((head, body, next)) = split(rest) {
                rest = next;
                if head.sequence != self.sequence {
                    continue;
                }
                match i32::from(head.kind) {
                    libc::NLMSG_DONE => return Ok(()),
                    libc::NLMSG_ERROR => return verdict(body),
                    _ => each(head.kind, body),
                }
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

struct Head {
    kind: u16,
    sequence: u32,
}

/// Takes the first message off a read.
fn split(bytes: &[u8]) -> Option<(Head, &[u8], &[u8])> {
    let length = u32_at(bytes, 0)? as usize;
    let head = Head {
        kind: u16_at(bytes, 4)?,
        sequence: u32_at(bytes, 8)?,
    };
    let body = bytes.get(HEADER_BYTES..length)?;
    let next = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    Some((head, body, next))
}

/// The error number of an NLMSG_ERROR; 0 is the acknowledgement.
fn verdict(body: &[u8]) -> io::Result<()> {
    match u32_at(body, 0).map_or(-libc::EPROTO, u32::cast_signed) {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(-errno)),
    }
}

/// The attributes of an answer after its fixed header.
pub(super) fn attributes(body: &[u8], header: usize) -> impl Iterator<Item = (u16, &[u8])> {
    /// The upper bits say "nested" and "network byte order".
    const KIND: u16 = 0x3FFF;
    let mut rest = body.get(header..).unwrap_or(&[]);
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(rest, 0)?);
        let kind = u16_at(rest, 2)? & KIND;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, value))
    })
}

/// A 16-bit number at an offset.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// A 32-bit number at an offset.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// A string without its terminating zero.
pub(super) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|&b| b == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

fn flag(bits: i32) -> u16 {
    u16::try_from(bits).expect("netlink flags have 16 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_padded_and_its_attributes_are_found_again() {
        let mut message = Message::new(16, 1, &[0; 16]);
        message.text(3, "lo");
        message.nest(18, |inner| inner.number(4, 7));
        let packet = message.packet(9);
        assert_eq!(packet.len() % 4, 0);
        let (head, body, rest) = split(&packet).unwrap();
        assert_eq!((head.kind, head.sequence, rest.len()), (16, 9, 0));
        let found: Vec<_> = attributes(body, 16).collect();
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].0, text(found[0].1).as_str()), (3, "lo"));
        let inner: Vec<_> = attributes(found[1].1, 0).collect();
        assert_eq!((inner[0].0, u32_at(inner[0].1, 0)), (4, Some(7)));
    }

    #[test]
    fn truncated_answers_end_the_walk() {
        let mut message = Message::new(16, 1, &[0; 16]);
        message.text(3, "eth0");
        let packet = message.packet(1);
        for end in 0..packet.len() {
            assert!(split(&packet[..end]).is_none(), "{end}");
        }
        let (_, body, _) = split(&packet).unwrap();
        for end in 16..body.len() {
            let whole = attributes(&body[..end], 16).count();
            assert!(whole == 0 || end >= 16 + 4 + 5, "{end}");
        }
        assert!(verdict(&[]).is_err() && verdict(&[0; 4]).is_ok());
    }
}
