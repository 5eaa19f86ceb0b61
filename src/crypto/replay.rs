//! Replay window: which packet numbers of one key were received.
//!
//! ```text
//!        oldest word                      newest word
//!   ...─┬───────────┬──── 126 words ────┬───────────┬─► numbers
//!       │ partly old│                   │    ▲ largest
//! ```
//!
//! The bits form a ring of whole words (RFC 6479), so moving the window clears words and never shifts bits. Because
//! the newest word is only partly used, [`REACH`] is one word less than the ring.
//!
//! Invariant: a number is accepted at most once, whatever the order of calls. Only authenticated numbers may be
//! passed to [`Window::insert`]; [`Window::check`] changes nothing and is for a look before the tag is verified.

use crate::base::DropReason;
use crate::wire::header::PACKET_NUMBER_MAX;

/// Bits in the ring. Inside one link little is reordered: 8192 packets are 82 ms at 100 000 packets/s.
const BITS: u64 = 8192;
const WORD_BITS: u64 = u64::BITS as u64;
const WORDS: usize = (BITS / WORD_BITS) as usize;
/// How far behind the largest number a packet may arrive.
pub const REACH: u64 = BITS - WORD_BITS;

/// The window of one key.
#[derive(Clone, Debug)]
pub struct Window {
    /// Word `w` of the number line is `words[w % WORDS]`.
    words: [u64; WORDS],
    largest: u64,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            words: [0; WORDS],
            largest: 0,
        }
    }
}

impl Window {
    /// Whether `number` would be accepted.
    ///
    /// # Errors
    /// [`DropReason::ReplayTooOld`], [`DropReason::ReplayDuplicate`], or [`DropReason::Malformed`] for a number
    /// that does not exist.
    pub const fn check(&self, number: u64) -> Result<(), DropReason> {
        if number > PACKET_NUMBER_MAX {
            return Err(DropReason::Malformed);
        }
        if number > self.largest {
            return Ok(());
        }
        if self.largest - number > REACH {
            return Err(DropReason::ReplayTooOld);
        }
        if self.words[place(number)] & bit(number) != 0 {
            return Err(DropReason::ReplayDuplicate);
        }
        Ok(())
    }

    /// Accepts `number` if it is new, in one step.
    ///
    /// # Errors
    /// As [`Window::check`]; nothing changes then.
    pub fn insert(&mut self, number: u64) -> Result<(), DropReason> {
        self.check(number)?;
        if number > self.largest {
            let (from, to) = (self.largest / WORD_BITS, number / WORD_BITS);
            for step in 1..=(to - from).min(WORDS as u64) {
                self.words[place((from + step) * WORD_BITS)] = 0;
            }
            self.largest = number;
        }
        self.words[place(number)] |= bit(number);
        Ok(())
    }

    /// Largest number accepted; 0 before the first.
    pub const fn largest(&self) -> u64 {
        self.largest
    }
}

const fn place(number: u64) -> usize {
    ((number / WORD_BITS) % WORDS as u64) as usize
}

const fn bit(number: u64) -> u64 {
    1 << (number % WORD_BITS)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::base::Rng;

    /// The hand-picked steps of WireGuard's `selftest/counter.c`, with our limit of 2^48 in the place of its own.
    #[test]
    fn wireguards_steps() {
        const LIM: u64 = REACH + 1;
        const END: u64 = PACKET_NUMBER_MAX + 1;
        let steps = [
            (0, true),
            (1, true),
            (1, false),
            (9, true),
            (8, true),
            (7, true),
            (7, false),
            (LIM, true),
            (LIM - 1, true),
            (LIM - 1, false),
            (LIM - 2, true),
            (2, true),
            (2, false),
            (LIM + 16, true),
            (3, false),
            (LIM + 16, false),
            (LIM * 4, true),
            (LIM * 4 - (LIM - 1), true),
            (10, false),
            (LIM * 4 - LIM, false),
            (LIM * 4 - (LIM + 1), false),
            (LIM * 4 - (LIM - 2), true),
            (LIM * 4 + 1 - LIM, false),
            (0, false),
            (END, false),
            (END - 1, true),
            (END, false),
            (END - 1, false),
            (END - 2, true),
            (END + 1, false),
            (END + 2, false),
            (END - 2, false),
            (END - 3, true),
            (0, false),
        ];
        let mut window = Window::default();
        for (i, (number, accepted)) in steps.into_iter().enumerate() {
            let before = window.check(number);
            assert_eq!(window.insert(number).is_ok(), accepted, "step {}", i + 1);
            assert_eq!(before.is_ok(), accepted, "step {}", i + 1);
        }
    }

    /// The sweeps at the end of the same file.
    #[test]
    fn sweeps_forwards_and_backwards_accept_each_number_once() {
        let sweep = |numbers: &mut dyn Iterator<Item = u64>, then: &[(u64, bool)]| {
            let mut window = Window::default();
            for number in numbers {
                assert_eq!(window.insert(number), Ok(()), "{number}");
            }
            for &(number, accepted) in then {
                assert_eq!(window.insert(number).is_ok(), accepted, "{number}");
            }
        };
        sweep(&mut (1..=REACH), &[(0, true), (0, false)]);
        sweep(&mut (2..=REACH + 1), &[(1, true), (0, false)]);
        sweep(&mut (0..=REACH).rev(), &[]);
        sweep(&mut (1..=REACH + 1).rev(), &[(0, false)]);
        sweep(&mut (1..=REACH).rev(), &[(REACH + 1, true), (0, false)]);
        sweep(&mut (1..=REACH).rev(), &[(0, true), (REACH + 1, true)]);
    }

    /// Against the set of all numbers ever accepted, with steps of every size in both directions.
    #[test]
    fn agrees_with_a_set_of_all_numbers() {
        for seed in 0..20 {
            let mut rng = Rng::new(seed);
            let (mut window, mut seen, mut largest) = (Window::default(), HashSet::new(), 0_u64);
            for step in 0..50_000 {
                let span = 1 << rng.below(15);
                let number = if rng.chance(0.3) {
                    largest + rng.below(span)
                } else {
                    largest.saturating_sub(rng.below(span))
                };
                let expected = if largest.saturating_sub(number) > REACH {
                    Err(DropReason::ReplayTooOld)
                } else if seen.contains(&number) {
                    Err(DropReason::ReplayDuplicate)
                } else {
                    Ok(())
                };
                assert_eq!(window.check(number), expected, "seed {seed} step {step}");
                assert_eq!(window.insert(number), expected, "seed {seed} step {step}");
                if expected.is_ok() {
                    seen.insert(number);
                    largest = largest.max(number);
                }
                assert_eq!(window.largest(), largest);
            }
        }
    }

    #[test]
    fn a_jump_over_the_whole_ring_forgets_everything_below() {
        let mut window = Window::default();
        for number in 0..BITS {
            window.insert(number).unwrap();
        }
        window.insert(10 * BITS).unwrap();
        for number in 10 * BITS - REACH..10 * BITS {
            assert_eq!(window.insert(number), Ok(()), "{number}");
        }
    }
}
