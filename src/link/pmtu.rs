//! How long the datagrams of one link may be: a search by probes, and the way back when long ones stop arriving.
//!
//! ```text
//!             the longest passes, or no size is left             RAISE
//!  Searching ──────────────────────────────────────► Complete ─────────► Searching
//!     ▲  │                                              │
//!     │  │                  black hole, another path    │
//!     │  │ ◄────────────────────────────────────────────┘
//!     │  └─ not even the base passes ──► Narrow
//!     └──────────────────────────────────── RETRY
//! ```
//!
//! One probe at a time. The longest size goes first, because most paths carry it and one round trip then ends the
//! search; if it fails, sizes in between are tried by halves of a list of lengths that real paths have. Until a probe
//! arrives the base is used, so a search never costs data.
//!
//! Never does: sending, counting probes as losses (its owner keeps them apart), choosing a session's size.
//!
//! Sizes are lengths on the wire, as the owner counts them for every datagram. Invariants: `base <= validated <=
//! ceiling <= max`; at most one probe is outstanding.
//!
//! Reference: RFC 8899 (DPLPMTUD), sections 4.3 (black holes) and 5 (states and timers).

#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::base::Instant;

/// Lost probes of one size after which it does not pass (RFC 8899 MAX_PROBES).
const TRIES: u32 = 3;
/// After this long a path may carry more than it did (RFC 8899 PMTU_RAISE_TIMER).
const RAISE: Duration = Duration::from_secs(600);
/// A path that does not even carry the base is asked again this often.
const RETRY: Duration = Duration::from_secs(10);
/// Long datagrams lost in a row after which they may be too long.
const RUN_LOST: u32 = 3;
/// They must have been sent over this time, and over a round trip: a burst that overflows a queue loses many long
/// datagrams at once and lets a short one pass, but the next burst is not lost from its beginning.
const RUN_SPAN: Duration = Duration::from_millis(25);

/// Lengths of IPv4 packets that paths are known to end at; those of IPv6 paths appear 20 less, as our datagrams count
/// there. Ethernet 1500, PPPoE 1492, tunnels over both, mobile networks 1358 to 1460, WireGuard 1420 and 1440, jumbo.
const SIZES: [u32; 24] = [
    1280, 1300, 1320, 1340, 1358, 1380, 1400, 1410, 1420, 1430, 1440, 1450, 1454, 1460, 1472, 1480,
    1492, 1500, 2000, 4000, 4464, 6000, 8000, 8980,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Searching,
    Complete,
    Narrow,
}

/// Long datagrams lost since the last one arrived.
#[derive(Clone, Copy, Debug)]
struct Run {
    lost: u32,
    /// The shortest of them.
    least: u32,
    /// When the first and the last were sent.
    since: Instant,
    until: Instant,
}

const NO_RUN: Run = Run {
    lost: 0,
    least: u32::MAX,
    since: Instant::FAR,
    until: Instant::ZERO,
};

/// The search on one link and direction.
#[derive(Clone, Debug)]
pub struct Search {
    base: u32,
    max: u32,
    /// Nothing longer leaves our own host; `max` unless the kernel said less.
    ceiling: u32,
    validated: u32,
    /// The shortest that did not pass; `u32::MAX` = none is known.
    refused: u32,
    /// Something as long as the base arrived.
    confirmed: bool,
    /// Not even the base passes.
    narrow: bool,
    phase: Phase,
    /// What to try next.
    next: Option<u32>,
    /// Number and length of the probe under way.
    outstanding: Option<(u64, u32)>,
    /// Probes of the present size that were lost.
    tries: u32,
    /// When the search begins anew.
    again_at: Instant,
    run: Run,
    black_holes: u64,
}

impl Search {
    /// A search between `base`, which is used at once, and `max`.
    pub fn new(base: u32, max: u32) -> Self {
        let mut search = Self {
            base,
            max: max.max(base),
            ceiling: max.max(base),
            validated: base,
            refused: u32::MAX,
            confirmed: false,
            narrow: false,
            phase: Phase::Searching,
            next: None,
            outstanding: None,
            tries: 0,
            again_at: Instant::FAR,
            run: NO_RUN,
            black_holes: 0,
        };
        search.restart();
        search
    }

    /// The path may be another one: the base is used until probes say more.
    pub fn restart(&mut self) {
        self.ceiling = self.max;
        self.validated = self.base;
        self.confirmed = false;
        self.run = NO_RUN;
        self.look(Instant::ZERO);
    }

    /// The longest datagram that is known to arrive.
    pub const fn size(&self) -> u32 {
        self.validated
    }

    /// Whether not even the base arrives: the path carries nothing but short datagrams.
    pub const fn is_narrow(&self) -> bool {
        self.narrow
    }

    /// Black holes found so far.
    pub const fn black_holes(&self) -> u64 {
        self.black_holes
    }

    /// The length of the probe to send now.
    pub const fn wanted(&self) -> Option<u32> {
        match self.outstanding {
            None => self.next,
            Some(_) => None,
        }
    }

    /// A probe left.
    pub const fn on_transmit(&mut self, number: u64, bytes: u32) {
        self.outstanding = Some((number, bytes));
    }

    /// A probe arrived, be it late.
    pub fn on_probe_acked(&mut self, number: u64, bytes: u32, now: Instant) {
        self.end_probe(number);
        self.tries = 0;
        if bytes > self.ceiling {
            return;
        }
        (self.confirmed, self.narrow) = (true, false);
        self.validated = self.validated.max(bytes);
        if self.refused <= bytes {
            self.refused = u32::MAX;
        }
        self.choose(now);
    }

    /// A probe was lost.
    pub fn on_probe_lost(&mut self, number: u64, bytes: u32, now: Instant) {
        if !self.end_probe(number) {
            return;
        }
        self.tries += 1;
        if self.tries < TRIES {
            return;
        }
        self.tries = 0;
        if bytes > self.base {
            self.refused = self.refused.min(bytes);
            self.choose(now);
        } else if !self.confirmed {
            self.give_up(now);
        }
    }

    /// Nobody will tell what became of a probe.
    pub fn on_probe_unknown(&mut self, number: u64) {
        self.end_probe(number);
    }

    /// The link is in trouble: what happens to probes says nothing of their length.
    pub const fn interrupt(&mut self) {
        self.outstanding = None;
        self.tries = 0;
    }

    /// Our own host sends nothing longer than `bytes` on this path. True when the size fell.
    pub fn limit(&mut self, bytes: u32, now: Instant) -> bool {
        let before = self.validated;
        self.ceiling = self.ceiling.min(bytes).max(self.base);
        self.validated = before.min(self.ceiling);
        if self
            .outstanding
            .is_some_and(|(_, probe)| probe > self.ceiling)
        {
            self.interrupt();
        }
        if bytes < self.base {
            self.give_up(now);
        } else {
            self.choose(now);
        }
        self.validated < before || bytes < self.base
    }

    /// The fate of a datagram is known; called in the order of their numbers. True when long datagrams vanish on this
    /// path while shorter ones arrive: the base is in use again.
    pub fn on_fate(
        &mut self,
        bytes: u32,
        sent_at: Instant,
        arrived: bool,
        round_trip: Duration,
    ) -> bool {
        if !arrived {
            self.on_lost(bytes, sent_at);
            return false;
        }
        if bytes >= self.base && (!self.confirmed || self.narrow) {
            (self.confirmed, self.narrow) = (true, false);
            self.choose(sent_at);
        }
        if self.run.lost == 0 {
            return false;
        }
        if bytes >= self.run.least {
            self.run = NO_RUN;
            return false;
        }
        let lasting = self.run.until >= self.run.since + RUN_SPAN.max(round_trip);
        if self.run.lost < RUN_LOST || !lasting {
            return false;
        }
        let found = self.run.least <= self.validated;
        self.run = NO_RUN;
        if found {
            self.black_holes += 1;
            self.validated = self.base;
            self.confirmed = false;
            self.look(sent_at);
        }
        found
    }

    fn on_lost(&mut self, bytes: u32, sent_at: Instant) {
        if bytes <= self.base {
            // Short ones are lost as well: length is not the reason.
            self.run = NO_RUN;
            return;
        }
        if self.run.lost == 0 {
            self.run.since = sent_at;
        }
        self.run.lost += 1;
        self.run.until = sent_at;
        self.run.least = self.run.least.min(bytes);
    }

    /// Begins anew when it is time.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.phase != Phase::Searching && now >= self.again_at {
            self.ceiling = self.max;
            self.look(now);
        }
    }

    /// When [`Search::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Instant {
        if self.phase == Phase::Searching {
            Instant::FAR
        } else {
            self.again_at
        }
    }

    /// Searches upwards from what is in use.
    fn look(&mut self, now: Instant) {
        self.refused = u32::MAX;
        self.interrupt();
        self.choose(now);
    }

    fn give_up(&mut self, now: Instant) {
        (self.narrow, self.confirmed) = (true, false);
        self.validated = self.base;
        (self.phase, self.next) = (Phase::Narrow, None);
        self.again_at = now + RETRY;
    }

    /// Ends the wait for a probe; `false` when it was not waited for.
    fn end_probe(&mut self, number: u64) -> bool {
        let waited = self.outstanding.is_some_and(|(known, _)| known == number);
        if waited {
            self.outstanding = None;
        }
        waited
    }

    /// Decides what to try next.
    fn choose(&mut self, now: Instant) {
        let next = if self.validated < self.ceiling && self.refused > self.ceiling {
            Some(self.ceiling)
        } else if !self.confirmed {
            Some(self.base)
        } else {
            self.between()
        };
        if next != self.next {
            self.tries = 0;
        }
        self.next = next;
        self.phase = if next.is_some() {
            Phase::Searching
        } else {
            Phase::Complete
        };
        self.again_at = if self.validated < self.max {
            now + RAISE
        } else {
            Instant::FAR
        };
    }

    /// The middle one of the sizes that may still pass.
    fn between(&self) -> Option<u32> {
        let open = |size: &&u32| {
            **size > self.validated && **size < self.refused && **size <= self.ceiling
        };
        let count = SIZES.iter().filter(open).count();
        SIZES.iter().filter(open).nth(count / 2).copied()
    }
}
