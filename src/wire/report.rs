//! REPORT: what arrived on one link, told to its sender. After the type byte:
//!
//! ```text
//! link u8 | epoch tag u8 | largest u48 | its send time u32 µs | hold u32 µs | packets u48 | bytes u48
//! | its receive time u32 µs | OWD min i32 | last i32 | max i32 (µs, receiver's clock minus sender's)
//! | interval u8 (ms) | n u8 | n bytes of bitmap: bit i of the whole = number (largest - i) was received
//! ```
//!
//! `packets` and `bytes` are cumulative over the session, so a lost report loses no count. One-way delays carry
//! the unknown offset of the two clocks; only their differences mean anything.

use crate::base::LinkId;

/// Bytes of bitmap at most: 512 packet numbers, 45 ms at 130 Mbit/s of full datagrams on one link.
pub const BITMAP_BYTES_MAX: usize = 64;
/// Bytes after the type without the bitmap.
const FIXED_BYTES: usize = 2 + 6 + 4 + 4 + 6 + 6 + 4 + 12 + 1 + 1;
/// Bytes of the longest REPORT message, type included.
pub const REPORT_BYTES_MAX: usize = 1 + FIXED_BYTES + BITMAP_BYTES_MAX;

/// One REPORT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportMessage {
    /// The link reported on.
    pub link: LinkId,
    /// Tag of the epoch whose packet numbers are meant.
    pub epoch_tag: u8,
    /// Largest packet number received, 48 bits.
    pub largest: u64,
    /// Its send time, sender's clock, µs.
    pub largest_sent_us: u32,
    /// Time from its receipt to this report, µs.
    pub hold_us: u32,
    /// Datagrams received so far, 48 bits.
    pub packets: u64,
    /// Bytes received so far, 48 bits.
    pub bytes: u64,
    /// Its receive time, receiver's clock, µs.
    pub received_us: u32,
    /// One-way delays since the previous report, µs, clocks not aligned.
    pub owd_min_us: i32,
    /// That of `largest`.
    pub owd_last_us: i32,
    /// The longest since the previous report.
    pub owd_max_us: i32,
    /// Longest time between two reports at present, ms: how long the sender must wait before silence means
    /// anything.
    pub interval_ms: u8,
    /// Bytes of `bitmap` in use.
    pub bitmap_bytes: u8,
    /// Bit i: number `largest - i` was received.
    pub bitmap: [u8; BITMAP_BYTES_MAX],
}

impl ReportMessage {
    /// Reads a message after its type byte; also says how many bytes it took.
    pub(super) fn parse(b: &[u8]) -> Option<(Self, usize)> {
        let (fixed, rest) = b.split_first_chunk::<FIXED_BYTES>()?;
        let bitmap_bytes = fixed[FIXED_BYTES - 1];
        let seen = rest.get(..usize::from(bitmap_bytes))?;
        let mut bitmap = [0; BITMAP_BYTES_MAX];
        bitmap.get_mut(..seen.len())?.copy_from_slice(seen);
        let u32_at = |at: usize| {
            u32::from_le_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]])
        };
        let u48_at = |at: usize| {
            u64::from(u32_at(at)) | u64::from(fixed[at + 4]) << 32 | u64::from(fixed[at + 5]) << 40
        };
        let report = Self {
            link: LinkId(fixed[0]),
            epoch_tag: fixed[1],
            largest: u48_at(2),
            largest_sent_us: u32_at(8),
            hold_us: u32_at(12),
            packets: u48_at(16),
            bytes: u48_at(22),
            received_us: u32_at(28),
            owd_min_us: u32_at(32).cast_signed(),
            owd_last_us: u32_at(36).cast_signed(),
            owd_max_us: u32_at(40).cast_signed(),
            interval_ms: fixed[44],
            bitmap_bytes,
            bitmap,
        };
        Some((report, FIXED_BYTES + seen.len()))
    }

    /// Writes the message after its type byte; `None` when it does not fit.
    pub(super) fn emit(&self, out: &mut [u8]) -> Option<usize> {
        let total = FIXED_BYTES + usize::from(self.bitmap_bytes);
        let out = out.get_mut(..total)?;
        out[0] = self.link.0;
        out[1] = self.epoch_tag;
        out[2..8].copy_from_slice(&self.largest.to_le_bytes()[..6]);
        out[8..12].copy_from_slice(&self.largest_sent_us.to_le_bytes());
        out[12..16].copy_from_slice(&self.hold_us.to_le_bytes());
        out[16..22].copy_from_slice(&self.packets.to_le_bytes()[..6]);
        out[22..28].copy_from_slice(&self.bytes.to_le_bytes()[..6]);
        out[28..32].copy_from_slice(&self.received_us.to_le_bytes());
        out[32..36].copy_from_slice(&self.owd_min_us.to_le_bytes());
        out[36..40].copy_from_slice(&self.owd_last_us.to_le_bytes());
        out[40..44].copy_from_slice(&self.owd_max_us.to_le_bytes());
        out[44] = self.interval_ms;
        out[45] = self.bitmap_bytes;
        out[FIXED_BYTES..].copy_from_slice(self.bitmap.get(..usize::from(self.bitmap_bytes))?);
        Some(total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::message::{Message, Writer, parse};

    #[test]
    fn golden_bytes_both_ways_and_every_truncation() {
        let mut bitmap = [0; BITMAP_BYTES_MAX];
        bitmap[..2].copy_from_slice(&[0xff, 0x7f]);
        let report = ReportMessage {
            link: LinkId(3),
            epoch_tag: 9,
            largest: 0x0605_0403_0201,
            largest_sent_us: 0x1413_1211,
            hold_us: 0x2423_2221,
            packets: 0x3635_3433_3231,
            bytes: 0x4645_4443_4241,
            received_us: 0x5453_5251,
            owd_min_us: -2,
            owd_last_us: 1,
            owd_max_us: 0x7fff_ffff,
            interval_ms: 0x61,
            bitmap_bytes: 2,
            bitmap,
        };
        let mut out = [0_u8; 100];
        let mut writer = Writer::new(&mut out, 0);
        assert!(writer.push(&Message::Report(report)));
        let used = writer.len();
        let golden = [
            3, 3, 9, 1, 2, 3, 4, 5, 6, 0x11, 0x12, 0x13, 0x14, 0x21, 0x22, 0x23, 0x24, 0x31, 0x32,
            0x33, 0x34, 0x35, 0x36, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x51, 0x52, 0x53, 0x54,
            0xfe, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f, 0x61, 2, 0xff, 0x7f,
        ];
        assert_eq!(out[4..used], golden);
        let (_, mut messages) = parse(&out[..used]).unwrap();
        assert_eq!(messages.next(), Some(Ok(Message::Report(report))));
        for cut in 5..used {
            let (_, mut messages) = parse(&out[..cut]).unwrap();
            assert!(messages.next().unwrap().is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_bitmap_longer_than_the_bound_is_refused() {
        let mut bytes = [0_u8; 200];
        bytes[4] = 3;
        bytes[4 + FIXED_BYTES] = 65;
        let (_, mut messages) = parse(&bytes).unwrap();
        assert!(messages.next().unwrap().is_err());
    }
}
