//! Messages: the parts of a DATA datagram's plaintext.
//!
//! ```text
//! plaintext = send time u32 (µs, sender's clock) | message | message | ...
//!
//!  1 SYMBOL    type | index u8 | group u32 | k u8 | r u8 | symbol (to the end of the datagram)
//!  2 REPAIR    type | index u8 | group u32 | k u8 | r u8 | symbol (to the end of the datagram)
//!  3 REPORT    see `report.rs`
//!  4 HEARTBEAT type
//!  5 LINK_OPEN type | link u8 | WAN u8 | role u8 | direction u8 | rate to peer u32 | rate to sender u32 (kbit/s)
//!              | RTT limit u16 (ms) | loss limit u16 (1/100 %) | name u8+n
//!  6 LINK_ACK  type | link u8
//!  7 CHALLENGE type | 8 random bytes
//!  8 RESPONSE  type | the 8 bytes
//!  9 CLOSE     type | reason u8
//! 10 PADDING   type | anything (to the end of the datagram)
//! ```
//!
//! SYMBOL and REPAIR have the same 8 bytes in front, so that a full source datagram and a full repair datagram
//! have one length and share one UDP_SEGMENT size. In SYMBOL, `k` is the group's source count when the symbol is
//! known to be its last and 0 otherwise; `r` is 0 when no repair will follow, so that the receiver need not keep
//! the body. A source symbol is `length u16 | body`; a repair symbol is the code over those, zero-padded.

use super::report::ReportMessage;
use crate::base::{DropReason, GroupId, LinkId, WanId};

/// Bytes of the send time in front of the messages.
pub const SEND_TIME_BYTES: usize = 4;
/// Bytes of a SYMBOL or REPAIR message before the symbol.
pub const SYMBOL_HEADER_BYTES: usize = 8;
/// Bytes of the body length inside a symbol.
pub const SYMBOL_LENGTH_BYTES: usize = 2;
/// Where the symbol begins in a plaintext that carries nothing else: behind the send time and the symbol's header.
pub const SYMBOL_START: usize = SEND_TIME_BYTES + SYMBOL_HEADER_BYTES;
/// Longest WAN name that travels in LINK_OPEN.
pub const WAN_NAME_BYTES_MAX: usize = 24;

/// Position of a symbol in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SymbolHeader {
    /// Group in this session and direction.
    pub group: GroupId,
    /// Source index below `k`, or repair index below `r`.
    pub index: u8,
    /// Source symbols in the group; 0 = not known yet (SYMBOL only).
    pub source_count: u8,
    /// Repair symbols that follow or followed.
    pub repair_count: u8,
}

/// What a WAN is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum WanRole {
    /// Carries data.
    #[default]
    Active = 0,
    /// Carries data only while no active link is up.
    Backup = 1,
    /// Carries nothing but heartbeats: switched off while it was in use.
    Off = 2,
    /// Its quota is used up: carries data only while no active and no backup link is up.
    Spent = 3,
}

/// Which way a WAN carries data. Control messages go both ways on every WAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Direction {
    /// Both ways.
    #[default]
    Both = 0,
    /// From the client to the server only.
    Up = 1,
    /// From the server to the client only.
    Down = 2,
}

impl Direction {
    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Both),
            1 => Some(Self::Up),
            2 => Some(Self::Down),
            _ => None,
        }
    }

    /// Whether the client (`true`) or the server (`false`) sends data this way.
    pub const fn allows(self, client: bool) -> bool {
        matches!(
            (self, client),
            (Self::Both, _) | (Self::Up, true) | (Self::Down, false)
        )
    }
}

impl WanRole {
    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Active),
            1 => Some(Self::Backup),
            2 => Some(Self::Off),
            3 => Some(Self::Spent),
            _ => None,
        }
    }
}

/// What a client says about a link when it opens it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkOpen<'a> {
    /// The link; must be the one whose key sealed the datagram.
    pub link: LinkId,
    /// The WAN that owns its capacity.
    pub wan: WanId,
    /// What its WAN is used for.
    pub role: WanRole,
    /// Which way it carries data.
    pub direction: Direction,
    /// Configured ceiling in the sender's direction, kbit/s; 0 = learn.
    pub rate_to_peer_kbit: u32,
    /// Configured ceiling in the receiver's direction, kbit/s; 0 = learn.
    pub rate_to_sender_kbit: u32,
    /// Round trip above which the WAN is parked, ms; 0 = none.
    pub rtt_max_ms: u16,
    /// Loss above which the WAN is parked, hundredths of a percent; 0 = none.
    pub loss_max_bp: u16,
    /// Name for status, UTF-8, at most [`WAN_NAME_BYTES_MAX`] bytes.
    pub name: &'a str,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A source symbol's body.
    Symbol(SymbolHeader, &'a [u8]),
    /// A repair symbol.
    Repair(SymbolHeader, &'a [u8]),
    /// What arrived on one link.
    Report(ReportMessage),
    /// Nothing; makes the link measurable.
    Heartbeat,
    /// The client wants to use a link.
    LinkOpen(LinkOpen<'a>),
    /// The server knows the link.
    LinkAck(LinkId),
    /// Prove that you receive at the address this was sent to.
    PathChallenge([u8; 8]),
    /// The proof.
    PathResponse([u8; 8]),
    /// The sender ends the session.
    Close(u8),
    /// Nothing, in length.
    Padding(usize),
}

const SYMBOL: u8 = 1;
const REPAIR: u8 = 2;
const REPORT: u8 = 3;
const HEARTBEAT: u8 = 4;
const LINK_OPEN: u8 = 5;
const LINK_ACK: u8 = 6;
const CHALLENGE: u8 = 7;
const RESPONSE: u8 = 8;
const CLOSE: u8 = 9;
const PADDING: u8 = 10;

impl SymbolHeader {
    /// Writes the beginning of a plaintext that carries one symbol, but for the send time. The symbol of SYMBOL is
    /// `length | body`, that of REPAIR fills what is left.
    ///
    /// # Panics
    /// If `plaintext` is shorter than [`SYMBOL_START`]; buffers are ours.
    pub fn emit_start(&self, repair: bool, plaintext: &mut [u8]) {
        let kind = if repair { REPAIR } else { SYMBOL };
        plaintext[SEND_TIME_BYTES..SYMBOL_START].copy_from_slice(&self.to_bytes(kind));
    }

    const fn to_bytes(self, kind: u8) -> [u8; SYMBOL_HEADER_BYTES] {
        let [g0, g1, g2, g3] = self.group.0.to_le_bytes();
        let (k, r) = (self.source_count, self.repair_count);
        [kind, self.index, g0, g1, g2, g3, k, r]
    }
}

/// Writes the send time of a plaintext.
///
/// # Panics
/// If `plaintext` cannot hold it; buffers are ours.
pub fn emit_send_time(plaintext: &mut [u8], send_time_us: u32) {
    plaintext[..SEND_TIME_BYTES].copy_from_slice(&send_time_us.to_le_bytes());
}

/// Splits a plaintext into the sender's time (µs) and its messages.
///
/// # Errors
/// [`DropReason::BadFrame`] when there is no send time.
pub fn parse(plaintext: &[u8]) -> Result<(u32, Messages<'_>), DropReason> {
    let (time, rest) = plaintext
        .split_first_chunk::<4>()
        .ok_or(DropReason::BadFrame)?;
    Ok((u32::from_le_bytes(*time), Messages { rest }))
}

/// Iterator over messages; ends after the first error.
#[derive(Clone, Debug)]
pub struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, DropReason>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let message = self.parse_one();
        if message.is_none() {
            self.rest = &[];
        }
        Some(message.ok_or(DropReason::BadFrame))
    }
}

impl<'a> Messages<'a> {
    fn parse_one(&mut self) -> Option<Message<'a>> {
        let kind = self.take::<1>()?[0];
        Some(match kind {
            SYMBOL => {
                let header = self.symbol_header()?;
                let length = u16::from_le_bytes(*self.take::<2>()?);
                let body = self.rest.get(..usize::from(length))?;
                self.rest = &[];
                Message::Symbol(header, body)
            }
            REPAIR => {
                let header = self.symbol_header()?;
                if header.source_count == 0 || header.index >= header.repair_count {
                    return None;
                }
                Message::Repair(header, std::mem::take(&mut self.rest))
            }
            REPORT => {
                let (report, used) = ReportMessage::parse(self.rest)?;
                self.rest = &self.rest[used..];
                Message::Report(report)
            }
            HEARTBEAT => Message::Heartbeat,
            LINK_OPEN => Message::LinkOpen(self.link_open()?),
            LINK_ACK => Message::LinkAck(LinkId(self.take::<1>()?[0])),
            CHALLENGE => Message::PathChallenge(*self.take::<8>()?),
            RESPONSE => Message::PathResponse(*self.take::<8>()?),
            CLOSE => Message::Close(self.take::<1>()?[0]),
            PADDING => Message::Padding(std::mem::take(&mut self.rest).len()),
            _ => return None,
        })
    }

    fn take<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (head, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(head)
    }

    fn symbol_header(&mut self) -> Option<SymbolHeader> {
        let b = self.take::<7>()?;
        Some(SymbolHeader {
            index: b[0],
            group: GroupId(u32::from_le_bytes([b[1], b[2], b[3], b[4]])),
            source_count: b[5],
            repair_count: b[6],
        })
    }

    fn link_open(&mut self) -> Option<LinkOpen<'a>> {
        let b = self.take::<17>()?;
        let (name, rest) = self.rest.split_at_checked(usize::from(b[16]))?;
        if name.len() > WAN_NAME_BYTES_MAX {
            return None;
        }
        self.rest = rest;
        Some(LinkOpen {
            link: LinkId(b[0]),
            wan: WanId(b[1]),
            role: WanRole::from_byte(b[2])?,
            direction: Direction::from_byte(b[3])?,
            rate_to_peer_kbit: u32::from_le_bytes([b[4], b[5], b[6], b[7]]),
            rate_to_sender_kbit: u32::from_le_bytes([b[8], b[9], b[10], b[11]]),
            rtt_max_ms: u16::from_le_bytes([b[12], b[13]]),
            loss_max_bp: u16::from_le_bytes([b[14], b[15]]),
            name: std::str::from_utf8(name).ok()?,
        })
    }
}

/// Writes a plaintext: the send time, then messages.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut [u8],
    used: usize,
}

impl<'a> Writer<'a> {
    /// Starts a plaintext at the beginning of `out`.
    ///
    /// # Panics
    /// If `out` cannot hold the send time; buffers are ours.
    pub fn new(out: &'a mut [u8], send_time_us: u32) -> Self {
        emit_send_time(out, send_time_us);
        Self {
            out,
            used: SEND_TIME_BYTES,
        }
    }

    /// Bytes written so far.
    pub const fn len(&self) -> usize {
        self.used
    }

    /// Whether nothing but the send time was written.
    pub const fn is_empty(&self) -> bool {
        self.used == SEND_TIME_BYTES
    }

    /// Appends a message; `false` and nothing written when it does not fit.
    /// SYMBOL, REPAIR and PADDING must come last.
    pub fn push(&mut self, message: &Message<'_>) -> bool {
        let start = self.used;
        if self.try_push(message).is_none() {
            self.used = start;
            return false;
        }
        true
    }

    fn try_push(&mut self, message: &Message<'_>) -> Option<()> {
        match message {
            Message::Symbol(header, body) => {
                self.symbol_header(SYMBOL, header)?;
                self.put(&u16::try_from(body.len()).ok()?.to_le_bytes())?;
                self.put(body)
            }
            Message::Repair(header, symbol) => {
                self.symbol_header(REPAIR, header)?;
                self.put(symbol)
            }
            Message::Report(report) => {
                self.put(&[REPORT])?;
                self.used += report.emit(&mut self.out[self.used..])?;
                Some(())
            }
            Message::Heartbeat => self.put(&[HEARTBEAT]),
            Message::LinkOpen(open) => self.link_open(open),
            Message::LinkAck(link) => self.put(&[LINK_ACK, link.0]),
            Message::PathChallenge(token) => self.put(&[CHALLENGE]).and_then(|()| self.put(token)),
            Message::PathResponse(token) => self.put(&[RESPONSE]).and_then(|()| self.put(token)),
            Message::Close(reason) => self.put(&[CLOSE, *reason]),
            Message::Padding(bytes) => {
                self.put(&[PADDING])?;
                self.out.get_mut(self.used..self.used + bytes)?.fill(0);
                self.used += bytes;
                Some(())
            }
        }
    }

    fn put(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.used + bytes.len();
        self.out.get_mut(self.used..end)?.copy_from_slice(bytes);
        self.used = end;
        Some(())
    }

    fn symbol_header(&mut self, kind: u8, header: &SymbolHeader) -> Option<()> {
        self.put(&header.to_bytes(kind))
    }

    fn link_open(&mut self, open: &LinkOpen<'_>) -> Option<()> {
        let name = open.name.as_bytes();
        self.put(&[LINK_OPEN, open.link.0, open.wan.0])?;
        self.put(&[open.role as u8, open.direction as u8])?;
        self.put(&open.rate_to_peer_kbit.to_le_bytes())?;
        self.put(&open.rate_to_sender_kbit.to_le_bytes())?;
        self.put(&open.rtt_max_ms.to_le_bytes())?;
        self.put(&open.loss_max_bp.to_le_bytes())?;
        self.put(&[u8::try_from(name.len()).ok()?])?;
        self.put(name)
    }
}

#[cfg(test)]
mod tests;
