//! What a receiver tells the sender about one link: which datagrams came, when, and how late.
//!
//! Never does: encoding (that is `wire`'s). A report is idempotent and cumulative: losing one costs nothing but
//! time, and one that arrives late or twice does no harm.

/// Packet numbers one report can tell about: the largest and the 511 before it.
pub const SEEN_NUMBERS: u64 = 512;
/// Words of the bitmap.
pub const SEEN_WORDS: usize = 8;

/// One report on one link and direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Largest packet number received.
    pub largest: u64,
    /// Send time of that datagram: low 32 bits of the sender's clock in microseconds.
    pub largest_sent_us: u32,
    /// Microseconds between its receipt and the sending of this report.
    pub hold_us: u32,
    /// Datagrams received since the session began.
    pub packets: u64,
    /// Bytes of those datagrams, headers included.
    pub bytes: u64,
    /// Receipt of the largest: low 32 bits of the receiver's clock in microseconds.
    pub received_us: u32,
    /// Least one-way delay since the previous report: receiver clock minus sender clock, wrapping microseconds.
    pub owd_min_us: i32,
    /// One-way delay of the datagram that came last.
    pub owd_last_us: i32,
    /// Greatest one-way delay since the previous report.
    pub owd_max_us: i32,
    /// Bit i (of word i / 64): number `largest - i` was received.
    pub seen: [u64; SEEN_WORDS],
    /// The report came back on the link it tells about. Set by whoever received the report; not on the wire.
    pub same_link: bool,
}

impl Report {
    /// Whether the report says that `number` was received; false also for numbers it says nothing about.
    pub fn is_seen(&self, number: u64) -> bool {
        match self.largest.checked_sub(number) {
            Some(back) if back < SEEN_NUMBERS => {
                #[allow(clippy::cast_possible_truncation)] // below 512
                let back = back as usize;
                self.seen[back / 64] >> (back % 64) & 1 == 1
            }
            _ => false,
        }
    }
}

/// `seen` after the largest number has moved on by `count`: old bits go to higher places, new ones are 0.
pub(super) fn shift(seen: &[u64; SEEN_WORDS], count: u64) -> [u64; SEEN_WORDS] {
    let mut out = [0; SEEN_WORDS];
    if count >= SEEN_NUMBERS {
        return out;
    }
    #[allow(clippy::cast_possible_truncation)] // below 512
    let (words, bits) = ((count / 64) as usize, count % 64);
    for index in words..SEEN_WORDS {
        out[index] = seen[index - words] << bits;
        if bits > 0 && index > words {
            out[index] |= seen[index - words - 1] >> (64 - bits);
        }
    }
    out
}

/// The positions of the set bits, lowest first.
pub(super) fn set_bits(seen: &[u64; SEEN_WORDS]) -> impl Iterator<Item = u64> + '_ {
    (0_u64..).zip(seen).flat_map(|(word, &bits)| {
        let mut rest = bits;
        std::iter::from_fn(move || {
            if rest == 0 {
                return None;
            }
            let bit = u64::from(rest.trailing_zeros());
            rest &= rest - 1;
            Some(word * 64 + bit)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Rng;

    #[test]
    fn shifting_agrees_with_a_shift_bit_by_bit() {
        let mut rng = Rng::new(1);
        for _ in 0..500 {
            let seen = std::array::from_fn(|_| rng.next_u64());
            let count = rng.below(600);
            let before = Report {
                largest: 1_000,
                seen,
                ..Report::default()
            };
            let after = Report {
                largest: 1_000 + count,
                seen: shift(&seen, count),
                ..Report::default()
            };
            for number in 1_000 + count - 511..=1_000 + count {
                assert_eq!(
                    after.is_seen(number),
                    number <= 1_000 && before.is_seen(number)
                );
            }
        }
    }

    #[test]
    fn every_set_bit_is_named_once_in_order() {
        let mut seen = [0; SEEN_WORDS];
        let places = [0_u64, 1, 63, 64, 200, 511];
        for place in places {
            seen[usize::try_from(place).unwrap() / 64] |= 1 << (place % 64);
        }
        assert!(set_bits(&seen).eq(places));
    }

    #[test]
    fn numbers_outside_the_bitmap_are_not_seen() {
        let report = Report {
            largest: 600,
            seen: [u64::MAX; SEEN_WORDS],
            ..Report::default()
        };
        assert!(report.is_seen(600) && report.is_seen(89));
        assert!(!report.is_seen(88) && !report.is_seen(601));
    }
}
