//! Replay and spacing of one peer's handshakes: decides about a HELLO that was opened, before it is answered.
//!
//! A HELLO's stamp must exceed the last one. A router without a clock that lost its saved stamp cannot do that; it
//! must prove its address instead, and each of its HELLOs is accepted once. What an attacker gains by replaying a
//! recording whose ephemeral key is forgotten is an epoch that is never confirmed and carries nothing.

use std::time::Duration;

use crate::base::{DropReason, Instant};

/// What a [`PeerGate`] says about an opened HELLO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Answer it.
    Pass,
    /// Answer it, but only as a first contact: its stamp is old, so it may be a recording, and must not disturb
    /// what runs.
    PassOld,
    /// Discard it.
    Drop(DropReason),
    /// Its stamp is old: send [`Admission::challenge`](super::Admission::challenge). A sender that lost its clock
    /// proves its address and comes back.
    Prove,
}

/// A peer's handshakes come no closer than this; WireGuard's value.
const SPACING: Duration = Duration::from_millis(20);
/// The same for HELLOs with an old stamp. Only these can be recordings, so they are counted apart: replaying them
/// must not use up the peer's own turn.
const OLD_SPACING: Duration = Duration::from_secs(1);
/// Accepted HELLOs that are remembered. With [`OLD_SPACING`] these are more than a minute's worth.
const EPHEMERALS: usize = 64;

/// Replay and rate protection for the HELLOs of one peer (and one of its parallel sessions).
#[derive(Clone, Debug)]
pub struct PeerGate {
    /// Largest stamp accepted.
    stamp: [u8; 12],
    next_at: Instant,
    next_old_at: Instant,
    /// Ephemeral keys of accepted HELLOs; the oldest is overwritten first.
    ephemerals: [[u8; 32]; EPHEMERALS],
    accepted: usize,
}

impl Default for PeerGate {
    fn default() -> Self {
        Self {
            stamp: [0; 12],
            next_at: Instant::ZERO,
            next_old_at: Instant::ZERO,
            // No HELLO has this ephemeral key: it is of low order and never agreed with.
            ephemerals: [[0; 32]; EPHEMERALS],
            accepted: 0,
        }
    }
}

impl PeerGate {
    /// Decides about an opened HELLO with this stamp and ephemeral key. `proven` is what
    /// [`Admission::is_proven`](super::Admission::is_proven) says about it.
    pub fn check(
        &mut self,
        stamp: [u8; 12],
        ephemeral: &[u8; 32],
        proven: bool,
        now: Instant,
    ) -> Gate {
        let fresh = stamp > self.stamp;
        if !fresh && self.ephemerals.contains(ephemeral) {
            return Gate::Drop(DropReason::HandshakeReplay);
        }
        if !fresh && !proven {
            return Gate::Prove;
        }
        let (next_at, spacing) = if fresh {
            (&mut self.next_at, SPACING)
        } else {
            (&mut self.next_old_at, OLD_SPACING)
        };
        if now < *next_at {
            return Gate::Drop(DropReason::HandshakeLimited);
        }
        *next_at = now + spacing;
        // Fresh ones too: by its own stamp each is an old one from the next call on.
        self.ephemerals[self.accepted % EPHEMERALS] = *ephemeral;
        self.accepted = self.accepted.wrapping_add(1);
        self.stamp = self.stamp.max(stamp);
        if fresh { Gate::Pass } else { Gate::PassOld }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(n: u8) -> [u8; 12] {
        let mut stamp = [0; 12];
        stamp[0] = n;
        stamp
    }

    #[test]
    fn a_growing_stamp_passes_and_a_copy_does_not() {
        let mut gate = PeerGate::default();
        let at = Instant::from_millis;
        assert_eq!(gate.check(stamp(1), &[1; 32], false, at(0)), Gate::Pass);
        let replay = Gate::Drop(DropReason::HandshakeReplay);
        assert_eq!(gate.check(stamp(1), &[1; 32], false, at(100)), replay);
        assert_eq!(gate.check(stamp(1), &[1; 32], true, at(100)), replay);
        assert_eq!(gate.check(stamp(2), &[2; 32], false, at(100)), Gate::Pass);
        assert_eq!(gate.check(stamp(1), &[1; 32], true, at(200)), replay);
    }

    #[test]
    fn handshakes_of_a_peer_keep_their_distance() {
        let mut gate = PeerGate::default();
        assert_eq!(
            gate.check(stamp(1), &[1; 32], false, Instant::ZERO),
            Gate::Pass
        );
        let limited = Gate::Drop(DropReason::HandshakeLimited);
        let at = Instant::from_millis;
        assert_eq!(gate.check(stamp(2), &[2; 32], false, at(19)), limited);
        assert_eq!(gate.check(stamp(2), &[2; 32], false, at(20)), Gate::Pass);
    }

    #[test]
    fn a_client_that_lost_its_clock_proves_itself_and_passes_once() {
        let mut gate = PeerGate::default();
        let at = Instant::from_millis;
        assert_eq!(gate.check(stamp(9), &[9; 32], false, at(0)), Gate::Pass);
        assert_eq!(gate.check(stamp(1), &[1; 32], false, at(100)), Gate::Prove);
        assert_eq!(gate.check(stamp(1), &[1; 32], true, at(200)), Gate::PassOld);
        let replay = Gate::Drop(DropReason::HandshakeReplay);
        assert_eq!(gate.check(stamp(1), &[1; 32], true, at(2000)), replay);
    }

    #[test]
    fn replayed_recordings_do_not_use_up_the_turn_of_the_peer() {
        let mut gate = PeerGate::default();
        let at = Instant::from_millis;
        assert_eq!(gate.check(stamp(9), &[9; 32], false, at(0)), Gate::Pass);
        let mut passed = 0;
        for i in 0..100 {
            if gate.check(stamp(1), &[100 + i; 32], true, at(u64::from(i) * 10)) == Gate::PassOld {
                passed += 1;
            }
        }
        assert_eq!(passed, 1);
        assert_eq!(
            gate.check(stamp(10), &[10; 32], false, at(1000)),
            Gate::Pass
        );
    }
}
