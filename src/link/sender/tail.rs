//! The end of a burst: what was sent last, while nothing sent later can show that it is lost.
//!
//! A link with traffic in full notices a loss by what follows. On one that carries a few datagrams now and then nothing
//! follows but heartbeats, and bursts of losses swallow those too; meanwhile a whole flow waits for the hole. So the last
//! few datagrams are given up when they are overdue, and their content goes by another link.
//!
//! Never does: doubt the link itself, which is `state`'s affair, nor give up a window: where many are overdue at once
//! the way has become longer, and sending all of it again would be a storm.
//!
//! Reference: RFC 8985 section 7 (tail loss probe), with another link in place of another try.

use std::ops::Range;

use super::{Fate, Outcome, Sender};
use crate::base::Instant;
use crate::link::state::State;

/// Most datagrams after the last one acknowledged that are an end and not a window.
const TAIL_MAX: u64 = 16;

impl<T: Copy> Sender<T> {
    /// Gives up the end of a burst that is overdue.
    pub(super) fn give_up_tail(&mut self, now: Instant, on: &mut impl FnMut(Outcome<T>)) {
        let timeout = self.suspect_timeout();
        for number in self.tail() {
            let Some(entry) = self.log.get_mut(number) else {
                continue;
            };
            if entry.fate != Fate::InFlight || entry.sent_at + timeout > now {
                continue;
            }
            let Some(item) = entry.item.take() else {
                continue;
            };
            entry.fate = Fate::Taken;
            let bytes = entry.bytes;
            self.in_flight -= u64::from(bytes);
            self.taken += u64::from(bytes);
            on(Outcome::Lost {
                item,
                number,
                bytes,
            });
        }
    }

    /// When [`Sender::give_up_tail`] has something to do.
    pub(super) fn tail_at(&self) -> Instant {
        let mut tail = self.tail().filter_map(|number| self.log.get(number));
        let oldest = tail.find(|entry| entry.fate == Fate::InFlight && entry.item.is_some());
        oldest.map_or(Instant::FAR, |entry| entry.sent_at + self.suspect_timeout())
    }

    fn tail(&self) -> Range<u64> {
        let from = self
            .anchor
            .map_or(self.oldest, |anchor| self.oldest.max(anchor + 1));
        let to = self.log.next();
        if to - from.min(to) > TAIL_MAX || self.state() != State::Up {
            to..to
        } else {
            from..to
        }
    }
}
