//! The datagrams of one link that are on their way or were not long ago: a ring by packet number.
//!
//! Never does: decide what is lost. The ring grows to its bound as numbers are used, so that an idle link costs
//! nothing, and does not allocate once it has been full.
//!
//! Invariant: `first <= next`, `next - first <= capacity`, and the entry of number n is at `(n - origin) & mask`.

use super::gso::Carriage;
use crate::base::Instant;

/// What is known about a sent datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Nothing heard.
    InFlight,
    /// Nothing heard, and its content was sent again elsewhere.
    Taken,
    /// Received.
    Acked,
    /// Given up.
    Lost,
    /// The number was never used.
    Skipped,
}

/// One sent datagram.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<T> {
    pub(super) sent_at: Instant,
    pub(super) bytes: u32,
    pub(super) fate: Fate,
    /// What it carried; `None` for what need not be sent again.
    pub(super) item: Option<T>,
    /// Nobody is asked to report about it soon.
    pub(super) quiet: bool,
    /// Longer than what is known to arrive: its loss says nothing of the link.
    pub(super) probe: bool,
    /// It left while the link was not Up: its fate shows whether the link works, not what it usually loses.
    pub(super) trial: bool,
    /// How it left.
    pub(super) carriage: Carriage,
}

/// Ring of [`Entry`] by packet number.
#[derive(Debug)]
pub(super) struct SentLog<T> {
    entries: Vec<Entry<T>>,
    capacity: usize,
    origin: u64,
    first: u64,
    next: u64,
}

impl<T: Copy> SentLog<T> {
    /// A log of `capacity` entries, rounded up to a power of two.
    pub(super) fn new(capacity: usize) -> Self {
        let capacity = capacity.max(64).next_power_of_two();
        Self {
            entries: Vec::with_capacity(capacity),
            capacity,
            origin: 0,
            first: 0,
            next: 0,
        }
    }

    /// The number after the last one sent.
    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    /// The oldest number held.
    pub(super) const fn first(&self) -> u64 {
        self.first
    }

    /// Whether the next push takes the place of the oldest entry.
    pub(super) const fn is_full(&self) -> bool {
        self.next - self.first == self.capacity as u64
    }

    /// Forgets all entries; `number` is the next to be pushed.
    pub(super) fn restart(&mut self, number: u64) {
        self.entries.clear();
        (self.origin, self.first, self.next) = (number, number, number);
    }

    /// Appends the entry of number [`SentLog::next`]; the oldest goes when the ring is full.
    pub(super) fn push(&mut self, entry: Entry<T>) {
        if self.is_full() {
            self.first += 1;
        }
        let index = self.index(self.next);
        if index == self.entries.len() {
            self.entries.push(entry);
        } else {
            self.entries[index] = entry;
        }
        self.next += 1;
    }

    /// The entry of a number, if it is held.
    pub(super) fn get(&self, number: u64) -> Option<&Entry<T>> {
        if number < self.first || number >= self.next {
            return None;
        }
        self.entries.get(self.index(number))
    }

    /// The entry of a number, to change.
    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut Entry<T>> {
        if number < self.first || number >= self.next {
            return None;
        }
        let index = self.index(number);
        self.entries.get_mut(index)
    }

    #[allow(clippy::cast_possible_truncation)] // masked to the capacity, which is a usize
    const fn index(&self, number: u64) -> usize {
        (number - self.origin) as usize & (self.capacity - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Rng;

    #[test]
    fn holds_the_last_entries_by_number_as_a_map_would() {
        let mut log = SentLog::new(64);
        let mut model = std::collections::BTreeMap::new();
        let mut rng = Rng::new(5);
        log.restart(1_000);
        for n in 0..500_u64 {
            if rng.chance(0.002) {
                let number = log.next() + 10_000;
                log.restart(number);
                model.clear();
            }
            let number = log.next();
            let entry = Entry {
                sent_at: Instant::from_millis(n),
                bytes: 1,
                fate: Fate::InFlight,
                item: Some(n),
                quiet: false,
                probe: false,
                trial: false,
                carriage: Carriage::Alone,
            };
            log.push(entry);
            model.insert(number, n);
            if model.len() > 64 {
                model.pop_first();
            }
            assert_eq!(log.first(), *model.first_key_value().unwrap().0);
            for back in 0..70 {
                let asked = number.saturating_sub(back);
                assert_eq!(
                    log.get(asked).and_then(|e| e.item),
                    model.get(&asked).copied()
                );
            }
            assert!(log.get(number + 1).is_none());
        }
    }
}
