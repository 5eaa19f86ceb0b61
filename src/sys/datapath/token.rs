//! What a completion belongs to, packed into io_uring's 64-bit `user_data`. Never a pointer.
//!
//! ```text
//!  bits  0-3    4     8-23        24-43                 44-63
//!       kind  several slot        offset                bytes            Write, ZeroCopy
//!       kind          port        generation (24-39)    part (44-47)     Read, Poll
//! ```

/// The meaning of one completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// A read of a port; `part` names the buffer in the one-shot tier and is 0 for multishot.
    Read {
        port: u16,
        generation: u16,
        part: u8,
    },
    /// A one-shot poll of a port.
    Poll { port: u16, generation: u16 },
    /// A write of a part of a slot; `several` when it carries more than one datagram.
    Write {
        slot: u16,
        offset: u32,
        bytes: u32,
        several: bool,
    },
    /// A send of a part of a slot without a copy: completes, and once more when the kernel is done with the memory.
    ZeroCopy { slot: u16, offset: u32, bytes: u32 },
    /// A cancellation; nobody waits for it.
    Cancel,
}

/// Offsets and lengths inside of a slot have this many bits.
const SPAN_BITS: u32 = 20;
/// Largest offset or length inside of a slot.
pub(super) const SPAN_MAX: usize = (1 << SPAN_BITS) - 1;

const READ: u64 = 1;
const POLL: u64 = 2;
const WRITE: u64 = 3;
const CANCEL: u64 = 4;
const ZERO_COPY: u64 = 5;

impl Token {
    /// As `user_data`.
    pub(super) fn pack(self) -> u64 {
        match self {
            Self::Read {
                port,
                generation,
                part,
            } => READ | u64::from(port) << 8 | u64::from(generation) << 24 | u64::from(part) << 44,
            Self::Poll { port, generation } => {
                POLL | u64::from(port) << 8 | u64::from(generation) << 24
            }
            Self::Write {
                slot,
                offset,
                bytes,
                several,
            } => {
                WRITE
                    | u64::from(several) << 4
                    | u64::from(slot) << 8
                    | u64::from(offset) << 24
                    | u64::from(bytes) << 44
            }
            Self::ZeroCopy {
                slot,
                offset,
                bytes,
            } => {
                ZERO_COPY | u64::from(slot) << 8 | u64::from(offset) << 24 | u64::from(bytes) << 44
            }
            Self::Cancel => CANCEL,
        }
    }

    /// From `user_data`; `None` for what we never made.
    #[allow(clippy::cast_possible_truncation)] // each field is cut to its width on purpose
    pub(super) const fn unpack(data: u64) -> Option<Self> {
        let span = SPAN_MAX as u64;
        let port = (data >> 8) as u16;
        let generation = (data >> 24) as u16;
        Some(match data & 0xF {
            READ => Self::Read {
                port,
                generation,
                part: (data >> 44 & 0xF) as u8,
            },
            POLL => Self::Poll { port, generation },
            WRITE => Self::Write {
                slot: port,
                offset: (data >> 24 & span) as u32,
                bytes: (data >> 44 & span) as u32,
                several: data >> 4 & 1 == 1,
            },
            ZERO_COPY => Self::ZeroCopy {
                slot: port,
                offset: (data >> 24 & span) as u32,
                bytes: (data >> 44 & span) as u32,
            },
            CANCEL => Self::Cancel,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Rng;

    #[test]
    fn every_token_survives_packing() {
        let mut rng = Rng::new(1);
        for _ in 0..1_000 {
            let bits = rng.next_u64();
            let [a, b, c, d, e, f, g, h] = bits.to_le_bytes();
            let (port, generation) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
            let span = |x, y, z| u32::from_le_bytes([x, y, z, 0]) & 0xF_FFFF;
            let tokens = [
                Token::Read {
                    port,
                    generation,
                    part: e & 3,
                },
                Token::Poll { port, generation },
                Token::Write {
                    slot: port,
                    offset: span(c, d, e),
                    bytes: span(f, g, h),
                    several: a & 1 == 1,
                },
                Token::ZeroCopy {
                    slot: port,
                    offset: span(c, d, e),
                    bytes: span(f, g, h),
                },
                Token::Cancel,
            ];
            for token in tokens {
                assert_eq!(Token::unpack(token.pack()), Some(token));
            }
        }
        assert_eq!(Token::unpack(0), None);
    }
}
