//! What HELLO and WELCOME say under their seal: exactly 256 bytes each, whatever the number of links.
//!
//! ```text
//! HELLO:   stamp 12 | boot id 8 | cipher bits u8 | psk kind u8 | features u32 | session number u8 |
//!          link count u8 | datagram bytes max u16 | 32 receiver indexes u32 | zero 98
//! WELCOME: cipher u8 | link count u8 | features u32 | boot id 8 | datagram bytes max u16 |
//!          hold time max ms u16 | 32 receiver indexes u32 | zero 110
//! ```
//!
//! The zeros are ignored by the reader: a later version may use them together with a feature bit.

use super::{PAYLOAD_BYTES, array_at, u32_at};
use crate::base::DropReason;
use crate::base::id::LINKS_MAX;

/// What the initiator says inside its HELLO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HelloPayload {
    /// Grows from one HELLO of an initiator to the next: a recorded HELLO is worthless. Compared as bytes.
    pub stamp: [u8; 12],
    /// Random number of this start of the program; a change tells the peer that all state was lost.
    pub boot_id: [u8; 8],
    /// Data ciphers the initiator can use, as `crypto::Cipher` numbers them.
    pub cipher_bits: u8,
    /// Which preshared key is mixed in: 0 the configured one (or none), 1 the one agreed in the last epoch.
    pub psk_kind: u8,
    /// Optional features, one bit each.
    pub features: u32,
    /// Which of the peer's parallel sessions this is.
    pub session_number: u8,
    /// How many of `indexes` are meant, at most [`LINKS_MAX`].
    pub link_count: u8,
    /// Longest datagram the initiator takes on any link, in bytes.
    pub datagram_bytes_max: u16,
    /// Receiver index, by link, that the peer must write into DATA towards the initiator.
    pub indexes: [u32; LINKS_MAX],
}

const HELLO_INDEXES: usize = 30;

impl HelloPayload {
    /// Writes the 256 bytes.
    pub fn emit(&self) -> [u8; PAYLOAD_BYTES] {
        let mut out = [0; PAYLOAD_BYTES];
        out[0..12].copy_from_slice(&self.stamp);
        out[12..20].copy_from_slice(&self.boot_id);
        out[20] = self.cipher_bits;
        out[21] = self.psk_kind;
        out[22..26].copy_from_slice(&self.features.to_le_bytes());
        out[26] = self.session_number;
        out[27] = self.link_count;
        out[28..30].copy_from_slice(&self.datagram_bytes_max.to_le_bytes());
        emit_indexes(&self.indexes, &mut out[HELLO_INDEXES..]);
        out
    }

    /// Reads the 256 bytes.
    ///
    /// # Errors
    /// [`DropReason::BadFrame`] when `link_count` is beyond [`LINKS_MAX`].
    pub fn parse(bytes: &[u8; PAYLOAD_BYTES]) -> Result<Self, DropReason> {
        Ok(Self {
            stamp: *array_at(bytes, 0),
            boot_id: *array_at(bytes, 12),
            cipher_bits: bytes[20],
            psk_kind: bytes[21],
            features: u32_at(bytes, 22),
            session_number: bytes[26],
            link_count: link_count(bytes[27])?,
            datagram_bytes_max: u16::from_le_bytes(*array_at(bytes, 28)),
            indexes: parse_indexes(bytes, HELLO_INDEXES),
        })
    }
}

/// What the responder says inside its WELCOME.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WelcomePayload {
    /// The data cipher of this epoch, as `crypto::Cipher` numbers it.
    pub cipher: u8,
    /// Features of the HELLO that the responder agrees to.
    pub features: u32,
    /// Random number of this start of the responder's program.
    pub boot_id: [u8; 8],
    /// How many links the responder accepts, at most [`LINKS_MAX`]; so many of `indexes` are meant.
    pub link_count: u8,
    /// Longest datagram the responder takes on any link, in bytes.
    pub datagram_bytes_max: u16,
    /// Longest time the responder's reorder buffer waits for a hole, in milliseconds.
    pub hold_time_max_ms: u16,
    /// Receiver index, by link, that the peer must write into DATA towards the responder.
    pub indexes: [u32; LINKS_MAX],
}

const WELCOME_INDEXES: usize = 18;

impl WelcomePayload {
    /// Writes the 256 bytes.
    pub fn emit(&self) -> [u8; PAYLOAD_BYTES] {
        let mut out = [0; PAYLOAD_BYTES];
        out[0] = self.cipher;
        out[1] = self.link_count;
        out[2..6].copy_from_slice(&self.features.to_le_bytes());
        out[6..14].copy_from_slice(&self.boot_id);
        out[14..16].copy_from_slice(&self.datagram_bytes_max.to_le_bytes());
        out[16..18].copy_from_slice(&self.hold_time_max_ms.to_le_bytes());
        emit_indexes(&self.indexes, &mut out[WELCOME_INDEXES..]);
        out
    }

    /// Reads the 256 bytes.
    ///
    /// # Errors
    /// [`DropReason::BadFrame`] when `link_count` is beyond [`LINKS_MAX`].
    pub fn parse(bytes: &[u8; PAYLOAD_BYTES]) -> Result<Self, DropReason> {
        Ok(Self {
            cipher: bytes[0],
            link_count: link_count(bytes[1])?,
            features: u32_at(bytes, 2),
            boot_id: *array_at(bytes, 6),
            datagram_bytes_max: u16::from_le_bytes(*array_at(bytes, 14)),
            hold_time_max_ms: u16::from_le_bytes(*array_at(bytes, 16)),
            indexes: parse_indexes(bytes, WELCOME_INDEXES),
        })
    }
}

fn link_count(count: u8) -> Result<u8, DropReason> {
    if usize::from(count) <= LINKS_MAX {
        Ok(count)
    } else {
        Err(DropReason::BadFrame)
    }
}

fn emit_indexes(indexes: &[u32; LINKS_MAX], out: &mut [u8]) {
    for (place, index) in out.chunks_exact_mut(4).zip(indexes) {
        place.copy_from_slice(&index.to_le_bytes());
    }
}

fn parse_indexes(bytes: &[u8; PAYLOAD_BYTES], at: usize) -> [u32; LINKS_MAX] {
    std::array::from_fn(|link| u32_at(bytes, at + 4 * link))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_payloads_both_ways() {
        let indexes = std::array::from_fn(|link| 0x0101_0101 * u32::try_from(link + 1).unwrap());
        let hello = HelloPayload {
            stamp: [1; 12],
            boot_id: [2; 8],
            cipher_bits: 3,
            psk_kind: 4,
            features: 0x0504_0302,
            session_number: 6,
            link_count: 32,
            datagram_bytes_max: 0x0807,
            indexes,
        };
        let mut golden = vec![1; 12];
        golden.extend([2; 8]);
        golden.extend([3, 4, 2, 3, 4, 5, 6, 32, 7, 8]);
        golden.extend((1..=32_u8).flat_map(|link| [link; 4]));
        golden.resize(256, 0);
        assert_eq!(hello.emit()[..], golden);
        assert_eq!(HelloPayload::parse(&hello.emit()), Ok(hello));

        let welcome = WelcomePayload {
            cipher: 1,
            features: 0x0504_0302,
            boot_id: [2; 8],
            link_count: 32,
            datagram_bytes_max: 0x0807,
            hold_time_max_ms: 0x0a09,
            indexes,
        };
        let mut golden = vec![1, 32, 2, 3, 4, 5];
        golden.extend([2; 8]);
        golden.extend([7, 8, 9, 10]);
        golden.extend((1..=32_u8).flat_map(|link| [link; 4]));
        golden.resize(256, 0);
        assert_eq!(welcome.emit()[..], golden);
        assert_eq!(WelcomePayload::parse(&welcome.emit()), Ok(welcome));
    }

    #[test]
    fn more_links_than_possible_are_refused() {
        let mut bytes = [0; PAYLOAD_BYTES];
        bytes[27] = 33;
        assert_eq!(HelloPayload::parse(&bytes), Err(DropReason::BadFrame));
        bytes[1] = 33;
        assert_eq!(WelcomePayload::parse(&bytes), Err(DropReason::BadFrame));
    }
}
