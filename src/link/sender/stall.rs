//! A link that has stopped moving for the moment: radio links do, for some tenths of a second, and then bring everything.
//!
//! ```text
//!                      a round trip and a margin later
//!  flows ──datagram──────────────────────────────────────► stalled: nothing more is sent, copies go by other links
//!    ▲                                                        │
//!    └──── what was sent after that is acknowledged ──────────┘   (so all before it has left the queue on the way)
//! ```
//!
//! It is less than a suspicion. The link stays up, nothing about its capacity is doubted and it does not count as a
//! flap; so it may be noticed long before silence would be unusual for the link.
//!
//! Never does: end by time. What ends without an acknowledgement is `state`'s affair.

use std::time::Duration;

use super::Sender;
use crate::base::Instant;
use crate::link::rtt::RTT_INITIAL;
use crate::link::state::{Silence, State};

/// How much later than usual. A hole is waited for 180 ms; in what this leaves of it the copies have to be sent and to
/// come. Over LTE traces 20 ms were better than 10, 30, 50 and 80.
const MARGIN: Duration = Duration::from_millis(20);

/// What a link does, as far as sending data on it is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Whether it may carry data at all.
    pub state: State,
    /// It is up, and for the moment nothing comes by it.
    pub stalled: bool,
}

impl<T: Copy> Sender<T> {
    /// State and stall.
    pub const fn condition(&self) -> Condition {
        Condition {
            state: self.state(),
            stalled: self.stalled_at.is_some(),
        }
    }

    /// Whether data should be sent: the link is up and moves.
    pub fn flows(&self) -> bool {
        self.state() == State::Up && self.stalled_at.is_none()
    }

    pub(super) fn judge_stall(&mut self, silence: &Silence, now: Instant) {
        if self.state() != State::Up {
            self.stalled_at = None;
        } else if self.stalled_at.is_none() {
            let due = self.stall_at(silence);
            if due <= now && due <= silence.told_at {
                self.stalled_at = Some(now);
            }
        }
    }

    /// When the link is stalled, if the peer then has told of other links and not of this one.
    pub(super) fn stall_at(&self, silence: &Silence) -> Instant {
        if self.state() != State::Up || self.stalled_at.is_some() {
            return Instant::FAR;
        }
        let Some(third) = silence.third_sent else {
            return Instant::FAR;
        };
        (third + self.stall_timeout())
            .max(self.liveness.acked_at() + self.config.report_interval * 2)
    }

    /// Something sent at `sent_at` was acknowledged.
    pub(super) fn end_stall(&mut self, sent_at: Instant) {
        if self.stalled_at.is_some_and(|since| sent_at > since) {
            self.stalled_at = None;
        }
    }

    /// The median forgets a bad moment, the smooth figure follows a way that became longer.
    fn stall_timeout(&self) -> Duration {
        let ack = self.ack_history.snapshot();
        let usual = if ack.count == 0 { RTT_INITIAL } else { ack.p50 };
        let smooth = self.path_rtt.smoothed().unwrap_or(RTT_INITIAL) + self.config.report_interval;
        usual.max(smooth) + MARGIN
    }
}
