//! Superframes: a TCP stretch or a train of UDP datagrams under one set of headers, as kernels pass them to
//! devices that segment.
//!
//! ```text
//! | virtio 10 | IP | TCP or UDP | segment 0 | segment 1 | ... | last, may be shorter |
//!                               |<- gso_size ->|
//! ```
//!
//! A superframe normally passes the tunnel as it is. This module is for what happens otherwise: a queue that
//! drops one segment of it, a hole that was never filled, a kernel that takes no superframes. It knows IPv4
//! without fragmentation and IPv6 without extension headers; everything else has no parts it could name.
//!
//! Invariants: what is emitted is a valid frame of its own, from bytes that are inside the ranges asked for
//! only; no input makes it panic.

use std::ops::Range;

use super::bytes::{be16, be32, put16};
use super::checksum::{complete_checksum, fold, pseudo_header, sum};
use super::coverage::Coverage;
use crate::wire::virtio::{GSO_ECN, GSO_NONE, GSO_UDP_L4, NEEDS_CSUM, VIRTIO_BYTES, VirtioHeader};

/// Number of segments; 1 for everything that is no superframe this module can take apart.
pub fn segment_count(frame: &[u8]) -> usize {
    Layout::of(frame).map_or(1, |layout| layout.segments())
}

/// Writes the segments in `range` as a frame of their own to the start of `out` and returns its length. One
/// segment becomes an ordinary packet with an unfinished checksum. `None` when the frame has no such segments
/// or `out` is too short.
pub fn extract(frame: &[u8], range: Range<usize>, out: &mut [u8]) -> Option<usize> {
    let layout = Layout::of(frame)?;
    if range.is_empty() || range.end > layout.segments() {
        return None;
    }
    let payload = layout.frame_range(&range);
    let headers = VIRTIO_BYTES + layout.headers;
    let total = headers + payload.len();
    let out = out.get_mut(..total)?;
    out[..headers].copy_from_slice(&frame[..headers]);
    out[headers..].copy_from_slice(&frame[payload]);
    layout.rewrite_headers(out, &range)?;
    Some(total)
}

/// Gives every maximal run of complete segments of a frame with holes to `emit`, as frames of their own, built
/// in `scratch` (at least as long as the frame); of those segments only that have bytes `within`. Returns the number of
/// segments saved, `None` when the headers are not there or it is no superframe.
pub fn rescue(
    frame: &[u8],
    coverage: &Coverage,
    within: &Range<usize>,
    scratch: &mut [u8],
    mut emit: impl FnMut(&[u8]),
) -> Option<usize> {
    let mut stretches = coverage.stretches().peekable();
    // Nothing may be read before it is known to have arrived.
    let start = stretches.peek().filter(|s| s.start == 0)?;
    let layout = Layout::of_prefix(frame, start.end)?;
    let (mut saved, mut run) = (0, 0..0);
    let mut emit_run = |run: &Range<usize>| {
        let written = extract(frame, run.clone(), scratch);
        saved += written.map_or(0, |bytes| {
            emit(&scratch[..bytes]);
            run.len()
        });
    };
    for segment in 0..layout.segments() {
        let bytes = layout.frame_range(&(segment..segment + 1));
        while stretches.next_if(|s| s.end < bytes.end).is_some() {}
        let touched = bytes.start < within.end && within.start < bytes.end;
        if touched
            && stretches
                .peek()
                .is_some_and(|s| s.start <= bytes.start && bytes.end <= s.end)
        {
            run = if run.end == segment {
                run.start..segment + 1
            } else {
                segment..segment + 1
            };
        } else if !run.is_empty() {
            emit_run(&run);
            run = 0..0;
        }
    }
    emit_run(&run);
    Some(saved)
}

/// Gives each segment of a superframe to `emit` as a finished packet, for a kernel without offloads. Returns
/// their number: 0 when it is no superframe.
pub fn split(frame: &[u8], scratch: &mut [u8], mut emit: impl FnMut(&[u8])) -> usize {
    let Some(layout) = Layout::of(frame) else {
        return 0;
    };
    let mut count = 0;
    for segment in 0..layout.segments() {
        let Some(bytes) = extract(frame, segment..segment + 1, scratch) else {
            break;
        };
        if complete_checksum(&mut scratch[..bytes]) {
            emit(&scratch[..bytes]);
            count += 1;
        }
    }
    count
}

/// Where the parts of a superframe lie, in bytes of its packet.
#[derive(Clone, Copy, Debug)]
struct Layout {
    virtio: VirtioHeader,
    version: Version,
    transport: Transport,
    /// Start of the transport header.
    transport_at: usize,
    /// Length of all headers.
    headers: usize,
    /// Payload bytes behind them; never 0.
    payload: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V4,
    V6,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Tcp = 6,
    Udp = 17,
}

const IPV4_BYTES_MIN: usize = 20;
const IPV6_BYTES: usize = 40;
const TCP_BYTES_MIN: usize = 20;
const UDP_BYTES: usize = 8;

/// Offsets in a TCP header.
const TCP_SEQ: usize = 4;
const TCP_DATA_OFFSET: usize = 12;
const TCP_FLAGS: usize = 13;
const TCP_FIN: u8 = 0x01;
const TCP_PSH: u8 = 0x08;
const TCP_CWR: u8 = 0x80;

impl Layout {
    fn of(frame: &[u8]) -> Option<Self> {
        Self::of_prefix(frame, frame.len())
    }

    /// The layout as the first `known` bytes of the frame tell it.
    fn of_prefix(frame: &[u8], known: usize) -> Option<Self> {
        let known = frame.get(VIRTIO_BYTES..known)?;
        if known.is_empty() {
            return None;
        }
        let (virtio, packet) = VirtioHeader::split(frame).ok()?;
        virtio.validate(packet).ok()?;
        if !virtio.is_superframe() || !virtio.needs_checksum() {
            return None;
        }
        let transport = match virtio.gso_kind() {
            GSO_UDP_L4 => Transport::Udp,
            _ => Transport::Tcp,
        };
        let (version, transport_at, length, protocol) = match known[0] >> 4 {
            4 => {
                let header: &[u8; IPV4_BYTES_MIN] = known.first_chunk()?;
                let fragment = be16(header, 6) & 0x3fff;
                (fragment == 0).then_some(())?;
                let at = usize::from(header[0] & 0xf) * 4;
                (Version::V4, at, usize::from(be16(header, 2)), header[9])
            }
            _ => {
                let header: &[u8; IPV6_BYTES] = known.first_chunk()?;
                let length = IPV6_BYTES + usize::from(be16(header, 4));
                (Version::V6, IPV6_BYTES, length, header[6])
            }
        };
        let fits = protocol == transport as u8
            && length == packet.len()
            && transport_at >= IPV4_BYTES_MIN
            && usize::from(virtio.csum_start) == transport_at;
        fits.then_some(())?;
        let transport_bytes = match transport {
            Transport::Udp => UDP_BYTES,
            Transport::Tcp => usize::from(known.get(transport_at + TCP_DATA_OFFSET)? >> 4) * 4,
        };
        let sane = transport == Transport::Udp || transport_bytes >= TCP_BYTES_MIN;
        let headers = transport_at + transport_bytes;
        let payload = packet
            .len()
            .checked_sub(headers)
            .filter(|bytes| *bytes > 0)?;
        (sane && headers <= known.len()).then_some(())?;
        Some(Self {
            virtio,
            version,
            transport,
            transport_at,
            headers,
            payload,
        })
    }

    fn segments(&self) -> usize {
        self.payload.div_ceil(usize::from(self.virtio.gso_size))
    }

    /// The bytes of the frame that the payload of some segments fills.
    fn frame_range(&self, segments: &Range<usize>) -> Range<usize> {
        let size = usize::from(self.virtio.gso_size);
        let start = VIRTIO_BYTES + self.headers;
        let end = (segments.end * size).min(self.payload);
        start + segments.start * size..start + end
    }

    /// Makes the headers of `frame` say that it holds `segments` only.
    fn rewrite_headers(&self, frame: &mut [u8], segments: &Range<usize>) -> Option<()> {
        let (header, packet) = frame.split_at_mut(VIRTIO_BYTES);
        let skipped = segments.start * usize::from(self.virtio.gso_size);
        let mut virtio = self.virtio;
        if self.transport == Transport::Tcp {
            let tcp = &mut packet[self.transport_at..];
            let seq = be32(tcp, TCP_SEQ).wrapping_add(u32::try_from(skipped).ok()?);
            tcp[TCP_SEQ..TCP_SEQ + 4].copy_from_slice(&seq.to_be_bytes());
            if segments.end < self.segments() {
                tcp[TCP_FLAGS] &= !(TCP_FIN | TCP_PSH);
            }
            // CWR belongs to the first segment alone (RFC 3168, 6.1.2), and the type names it.
            if segments.start > 0 {
                tcp[TCP_FLAGS] &= !TCP_CWR;
                virtio.gso_type &= !GSO_ECN;
            }
        }
        let length = u16::try_from(packet.len() - self.transport_at).ok()?;
        if self.transport == Transport::Udp {
            put16(packet, self.transport_at + 4, length);
        }
        let addresses = match self.version {
            Version::V4 => {
                put16(packet, 2, u16::try_from(packet.len()).ok()?);
                // Segments of one superframe count the identification up, as kernels do.
                let first = u16::try_from(segments.start).ok()?;
                put16(packet, 4, be16(packet, 4).wrapping_add(first));
                put16(packet, 10, 0);
                let checksum = !fold(sum(&packet[..self.transport_at]));
                put16(packet, 10, checksum);
                12..20
            }
            Version::V6 => {
                put16(packet, 4, length);
                8..40
            }
        };
        let partial = pseudo_header(packet, addresses, self.transport as u8, length);
        put16(
            packet,
            self.transport_at + usize::from(virtio.csum_offset),
            partial,
        );
        virtio.flags = NEEDS_CSUM;
        if segments.len() == 1 {
            virtio = VirtioHeader {
                gso_type: GSO_NONE,
                gso_size: 0,
                hdr_len: 0,
                ..virtio
            };
        } else {
            virtio.hdr_len = u16::try_from(self.headers).ok()?;
        }
        virtio.emit(header);
        Some(())
    }
}

#[cfg(test)]
mod tests;
