//! Heartbeats of an idle session leave together.
//!
//! ```text
//!  under load    link 0  ·    ·    ·    ·        each link has its own beat
//!                link 1     ·    ·    ·    ·
//!  idle          link 0  |         ¦    |        | = our beat, ¦ = our report on the peer's beat, which ours joins
//!                link 1  |         ¦    |            when it is due soon
//! ```
//!
//! What idling costs is wake-ups, and ten links with beats of their own have ten times as many of them. So when one is
//! due those of all links leave that are half due, and when a report is due those that are three quarters due leave with
//! it: the peer that is a little behind beats as an answer. And when all links have brought a heartbeat, there is nothing
//! more to wait for, and the report leaves at once. What leaves only ever comes earlier by this, so that nothing is
//! noticed later.
//!
//! With data of the last second every link keeps its own beat: beats that come together tell nothing of the time between
//! them, and under bursts of loss that cost a flow its window.
//!
//! Never does: delay a report or a beat, or touch a link that is not Up, whose beats are what decides about it.

use std::time::Duration;

use super::Session;
use super::link::Link;
use crate::base::Instant;
use crate::link::State;

/// A session without symbols for this long, either way, is idle: as long as heartbeats stay dense after data.
const IDLE_AFTER: Duration = Duration::from_secs(1);

/// When the session carried something last, and whether its links are beating.
#[derive(Clone, Copy, Debug)]
pub(super) struct Idle {
    /// When a symbol left or came.
    symbol_at: Instant,
}

impl Idle {
    pub(super) const fn new(now: Instant) -> Self {
        Self { symbol_at: now }
    }

    /// A symbol left or came.
    pub(super) const fn on_symbol(&mut self, now: Instant) {
        self.symbol_at = now;
    }
}

impl Session {
    /// Whether nothing but heartbeats and reports has moved for a while, so that nobody waits for what comes next.
    pub fn is_idle(&self, now: Instant) -> bool {
        now.since(self.idle.symbol_at) >= IDLE_AFTER && !self.egress.has_work()
    }

    /// Whether every link that is up has brought something that is to be reported, and all of it is heartbeats.
    pub(super) fn is_round_complete(&self, now: Instant) -> bool {
        let mut up = self.links.iter().filter(|link| link.is_up()).peekable();
        let asks = |link: &Link| {
            link.receiver
                .report_at()
                .is_some_and(|at| at < Instant::FAR)
        };
        self.is_idle(now) && up.peek().is_some() && up.all(asks)
    }

    /// Marks the links whose heartbeats leave now although they are not due. `reporting`: a report is about to leave.
    pub(super) fn align_beats(&mut self, reporting: bool, now: Instant) {
        if !self.is_idle(now) {
            return;
        }
        let beats = |link: &Link| link.is_open() && link.sender.state() == State::Up;
        let interval = self.config.heartbeat;
        let due = |link: &Link| beats(link) && link.sender.wants_heartbeat(now);
        let ahead = if self.links.iter().any(due) {
            interval / 2
        } else if reporting {
            interval / 4
        } else {
            return;
        };
        for link in &mut self.links {
            link.beat = beats(link) && link.sender.wants_heartbeat(now + ahead);
        }
    }
}
