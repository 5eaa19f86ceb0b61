//! Where a link's datagrams go, and the proof that someone receives there.
//!
//! ```text
//!            datagram from a new address           PATH_RESPONSE
//!  (none) ───────────────────────────────► candidate ───────────► validated
//!                                             ▲
//!                                             │
//!                                      another address (only the newest packet number counts)
//! ```
//!
//! Until the answer a candidate gets at most three times the bytes that came from it, and no tunnel data; a
//! validated path stays in use meanwhile (RFC 9000 sections 8.1, 8.2 and 9.3).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::base::Instant;
use crate::wire::header::DATA_OVERHEAD_BYTES;
use crate::wire::message::SEND_TIME_BYTES;

/// Bytes sent for each byte received from an address that is not validated.
const AMPLIFICATION_MAX: u64 = 3;
/// Bytes of a datagram with a challenge and an acknowledgement of the link.
pub const CHALLENGE_BYTES: usize = DATA_OVERHEAD_BYTES + SEND_TIME_BYTES + 9 + 2;
/// Time between the first two challenges; it doubles up to the longest. They never end while datagrams come from the
/// address: the way back to it may be dead for long, and there is no other.
const CHALLENGE_INTERVAL: Duration = Duration::from_millis(100);
const CHALLENGE_INTERVAL_MAX: Duration = Duration::from_secs(1);

/// Shortest time between two changes of a validated address: each costs the driver a socket.
const CHANGE_INTERVAL: Duration = Duration::from_millis(100);

/// Local port (as a listener number) and remote address of a link at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Which of our listening sockets.
    pub port: u16,
    /// The peer's address.
    pub address: SocketAddr,
    /// Our address that the peer sends to; `None` = whatever the routing table gives.
    pub local: Option<IpAddr>,
}

/// Path state of one link.
#[derive(Clone, Debug)]
pub struct Path {
    /// The client's sockets are connected; it knows no addresses.
    fixed: bool,
    validated: Option<Origin>,
    candidate: Option<Candidate>,
    /// Number of the newest datagram that came by any address.
    newest: u64,
    /// No challenge to a new address before this.
    quiet_until: Instant,
}

#[derive(Clone, Debug)]
struct Candidate {
    origin: Origin,
    token: [u8; 8],
    received_bytes: u64,
    sent_bytes: u64,
    /// Until the next challenge.
    interval: Duration,
    next_challenge: Instant,
}

impl Candidate {
    /// Whether one more challenge keeps within what came from the address.
    const fn may_send(&self) -> bool {
        let allowed = self.received_bytes.saturating_mul(AMPLIFICATION_MAX);
        self.sent_bytes + CHALLENGE_BYTES as u64 <= allowed
    }
}

impl Path {
    /// A path that needs no proof: our socket is connected to the peer.
    pub const fn fixed() -> Self {
        Self {
            fixed: true,
            validated: None,
            candidate: None,
            newest: 0,
            quiet_until: Instant::ZERO,
        }
    }

    /// A path that the peer's datagrams reveal.
    pub const fn learned() -> Self {
        Self {
            fixed: false,
            validated: None,
            candidate: None,
            newest: 0,
            quiet_until: Instant::ZERO,
        }
    }

    /// Whether tunnel data may be sent.
    pub const fn is_validated(&self) -> bool {
        self.fixed || self.validated.is_some()
    }

    /// The validated address; `None` on the client.
    pub const fn origin(&self) -> Option<Origin> {
        self.validated
    }

    /// An authenticated datagram with continuous `number` came from `origin`.
    pub fn on_datagram(
        &mut self,
        origin: Option<Origin>,
        number: u64,
        bytes: usize,
        now: Instant,
        token: impl FnOnce() -> [u8; 8],
    ) {
        let Some(origin) = origin else { return };
        if let Some(candidate) = self.candidate.as_mut().filter(|c| c.origin == origin) {
            candidate.received_bytes += bytes as u64;
        }
        if number < self.newest {
            return;
        }
        self.newest = number;
        if self.validated == Some(origin) {
            self.candidate = None; // the peer is where it was
        } else if self.candidate.as_ref().is_none_or(|c| c.origin != origin) {
            self.candidate = Some(Candidate {
                origin,
                token: token(),
                received_bytes: bytes as u64,
                sent_bytes: 0,
                interval: CHALLENGE_INTERVAL,
                // The first address is wanted at once.
                next_challenge: now.max(self.quiet_until),
            });
        }
    }

    /// The challenge to send now, if one is due and may be sent.
    pub fn poll_challenge(&mut self, now: Instant) -> Option<(Origin, [u8; 8])> {
        let candidate = self.candidate.as_mut()?;
        if !candidate.may_send() || now < candidate.next_challenge {
            return None;
        }
        candidate.next_challenge = now + candidate.interval;
        candidate.interval = (candidate.interval * 2).min(CHALLENGE_INTERVAL_MAX);
        candidate.sent_bytes += CHALLENGE_BYTES as u64;
        Some((candidate.origin, candidate.token))
    }

    /// An answer. True when it validates the candidate: the path has changed.
    pub fn on_response(&mut self, token: [u8; 8], now: Instant) -> bool {
        if let Some(candidate) = self.candidate.take_if(|c| c.token == token) {
            self.validated = Some(candidate.origin);
            self.quiet_until = now + CHANGE_INTERVAL;
            return true;
        }
        false
    }

    /// When the next challenge is due.
    pub fn poll_timeout(&self) -> Instant {
        self.candidate
            .as_ref()
            .filter(|c| c.may_send())
            .map_or(Instant::FAR, |c| c.next_challenge)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(port: u16) -> Option<Origin> {
        Some(Origin {
            port: 0,
            address: SocketAddr::from(([192, 0, 2, 1], port)),
            local: None,
        })
    }

    #[test]
    fn data_waits_for_the_response_and_the_old_path_stays_meanwhile() {
        let (mut path, now) = (Path::learned(), Instant::ZERO);
        path.on_datagram(origin(1), 1, 100, now, || [7; 8]);
        assert!(!path.is_validated());
        let (to, token) = path.poll_challenge(now).unwrap();
        assert_eq!(Some(to), origin(1));
        assert!(!path.on_response([0; 8], now));
        assert!(path.on_response(token, now) && path.is_validated());
        path.on_datagram(origin(2), 2, 100, now, || [8; 8]);
        assert_eq!(
            path.origin(),
            origin(1),
            "a candidate does not take over by itself"
        );
        assert_eq!(path.poll_challenge(now), None, "one change at a time");
        let later = path.poll_timeout();
        assert_eq!(later, now + CHANGE_INTERVAL);
        let (_, token) = path.poll_challenge(later).unwrap();
        assert!(path.on_response(token, later));
        assert_eq!(path.origin(), origin(2));
    }

    #[test]
    fn a_candidate_gets_at_most_three_times_its_bytes() {
        let mut path = Path::learned();
        path.on_datagram(origin(1), 1, 50, Instant::ZERO, || [7; 8]);
        let mut sent = 0;
        for ms in 0..10_000 {
            let now = Instant::from_millis(ms);
            let due = path.poll_timeout() <= now;
            let challenge = path.poll_challenge(now);
            assert_eq!(
                challenge.is_some(),
                due,
                "what is due is sent, or time stands still"
            );
            sent += challenge.map_or(0, |_| CHALLENGE_BYTES);
        }
        assert_eq!(sent, 3 * CHALLENGE_BYTES);
    }

    #[test]
    fn an_old_datagram_copied_from_elsewhere_makes_no_candidate() {
        let (mut path, now) = (Path::learned(), Instant::ZERO);
        path.on_datagram(origin(1), 9, 100, now, || [7; 8]);
        path.on_datagram(origin(66), 8, 100, now, || [7; 8]);
        assert_eq!(
            path.poll_challenge(now).map(|(to, _)| Some(to)),
            Some(origin(1))
        );
    }
}
