//! The first bytes of every datagram.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +---------------------------+---+-------------------------------+
//! |     length (14 bits)      | k |  ...                          |
//! +---------------------------+---+-------------------------------+
//! ```
//!
//! The first u16 holds the datagram's length in its low 14 bits and its kind in the high 2. The length is what
//! lets a receiver take a GRO buffer apart without asking the kernel for the segment size.
//!
//! DATA (all else of it is ciphertext and a 16-byte tag; the 12 bytes are the associated data):
//!
//! ```text
//! | length+kind u16 | packet number, high 16 of 48 | receiver index u32 | packet number, low 32 of 48 |
//! ```

use crate::base::DropReason;

/// Bytes before the ciphertext of a DATA datagram.
pub const DATA_HEADER_BYTES: usize = 12;
/// Bytes of the AEAD tag.
pub const TAG_BYTES: usize = 16;
/// Header and tag.
pub const DATA_OVERHEAD_BYTES: usize = DATA_HEADER_BYTES + TAG_BYTES;
/// Longest datagram the length field can name.
pub const DATAGRAM_BYTES_MAX: usize = (1 << 14) - 1;
/// Packet numbers are 48 bits.
pub const PACKET_NUMBER_MAX: u64 = (1 << 48) - 1;

/// What a datagram is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// First handshake message.
    Hello = 0,
    /// Second handshake message.
    Welcome = 1,
    /// "Prove your address": answer to a HELLO under load.
    Cookie = 2,
    /// Everything else.
    Data = 3,
}

impl Kind {
    const fn from_bits(bits: u16) -> Self {
        match bits & 3 {
            0 => Self::Hello,
            1 => Self::Welcome,
            2 => Self::Cookie,
            _ => Self::Data,
        }
    }
}

/// Writes the length and kind of the whole `datagram` into its first two bytes.
///
/// # Panics
/// If the datagram is shorter than 2 or longer than [`DATAGRAM_BYTES_MAX`] bytes; sizes are ours.
pub fn emit_start(datagram: &mut [u8], kind: Kind) {
    assert!(
        datagram.len() <= DATAGRAM_BYTES_MAX,
        "a datagram's length must fit 14 bits"
    );
    #[allow(clippy::cast_possible_truncation)] // asserted above
    let word = datagram.len() as u16 | (kind as u16) << 14;
    datagram[..2].copy_from_slice(&word.to_le_bytes());
}

/// Takes the first datagram off a buffer that may hold several (UDP GRO).
///
/// # Errors
/// [`DropReason::Malformed`] when the length does not fit the buffer; the rest of it cannot be used then.
pub fn split_first(buffer: &mut [u8]) -> Result<(Kind, &mut [u8], &mut [u8]), DropReason> {
    let Some(start) = buffer.first_chunk::<2>() else {
        return Err(DropReason::Malformed);
    };
    let word = u16::from_le_bytes(*start);
    let length = usize::from(word & 0x3fff);
    if length < DATA_OVERHEAD_BYTES || length > buffer.len() {
        return Err(DropReason::Malformed);
    }
    let (datagram, rest) = buffer.split_at_mut(length);
    Ok((Kind::from_bits(word >> 14), datagram, rest))
}

/// Takes a receive buffer apart by [`split_first`]. After an error nothing more comes.
pub const fn datagrams(buffer: &mut [u8]) -> Datagrams<'_> {
    Datagrams { rest: buffer }
}

/// Iterator over the datagrams of a buffer.
#[derive(Debug)]
pub struct Datagrams<'a> {
    rest: &'a mut [u8],
}

impl<'a> Iterator for Datagrams<'a> {
    type Item = Result<(Kind, &'a mut [u8]), DropReason>;

    fn next(&mut self) -> Option<Self::Item> {
        let buffer = std::mem::take(&mut self.rest);
        if buffer.is_empty() {
            return None;
        }
        Some(split_first(buffer).map(|(kind, datagram, rest)| {
            self.rest = rest;
            (kind, datagram)
        }))
    }
}

/// Header of a DATA datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataHeader {
    /// Names peer, epoch, link and direction to the receiver.
    pub receiver_index: u32,
    /// Counter of this (epoch, link, direction), 48 bits.
    pub packet_number: u64,
}

impl DataHeader {
    /// Reads the header of a datagram that [`split_first`] called [`Kind::Data`].
    ///
    /// # Errors
    /// [`DropReason::Malformed`] when it is too short.
    pub fn parse(datagram: &[u8]) -> Result<Self, DropReason> {
        let Some(b) = datagram.first_chunk::<DATA_HEADER_BYTES>() else {
            return Err(DropReason::Malformed);
        };
        let high = u16::from_le_bytes([b[2], b[3]]);
        let low = u32::from_le_bytes([b[8], b[9], b[10], b[11]]);
        Ok(Self {
            receiver_index: u32::from_le_bytes([b[4], b[5], b[6], b[7]]),
            packet_number: u64::from(high) << 32 | u64::from(low),
        })
    }

    /// Writes the header over the first 12 bytes of the whole `datagram` (tag room included).
    #[allow(clippy::cast_possible_truncation)] // taken apart into 16 and 32 bits
    pub fn emit(&self, datagram: &mut [u8]) {
        emit_start(datagram, Kind::Data);
        datagram[2..4].copy_from_slice(&((self.packet_number >> 32) as u16).to_le_bytes());
        datagram[4..8].copy_from_slice(&self.receiver_index.to_le_bytes());
        datagram[8..12].copy_from_slice(&(self.packet_number as u32).to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_data_header_both_ways() {
        let header = DataHeader {
            receiver_index: 0x0403_0201,
            packet_number: 0x0a0b_0c0d_0e0f,
        };
        let mut datagram = [0_u8; 40];
        header.emit(&mut datagram);
        let golden = [0x28, 0xc0, 0x0b, 0x0a, 1, 2, 3, 4, 0x0f, 0x0e, 0x0d, 0x0c];
        assert_eq!(datagram[..12], golden);
        assert_eq!(DataHeader::parse(&datagram), Ok(header));
    }

    #[test]
    fn a_buffer_of_several_datagrams_is_taken_apart() {
        let mut buffer = vec![0_u8; 100];
        emit_start(&mut buffer[..40], Kind::Data);
        emit_start(&mut buffer[40..100], Kind::Cookie);
        let (kind, first, rest) = split_first(&mut buffer).unwrap();
        assert_eq!((kind, first.len()), (Kind::Data, 40));
        let (kind, second, rest) = split_first(rest).unwrap();
        assert_eq!((kind, second.len(), rest.len()), (Kind::Cookie, 60, 0));
        buffer[41] |= 0x20; // longer than the buffer
        let all: Vec<_> = datagrams(&mut buffer)
            .map(|d| d.map(|(_, b)| b.len()))
            .collect();
        assert_eq!(all, [Ok(40), Err(DropReason::Malformed)]);
    }

    #[test]
    fn a_length_that_does_not_fit_is_malformed() {
        for length in 0..60_u16 {
            let mut buffer = [0_u8; 40];
            buffer[..2].copy_from_slice(&(length | 3 << 14).to_le_bytes());
            let fits = (28..=40).contains(&length);
            assert_eq!(split_first(&mut buffer).is_ok(), fits, "length {length}");
        }
        assert_eq!(split_first(&mut []).err(), Some(DropReason::Malformed));
    }
}
