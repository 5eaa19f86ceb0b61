//! A handshake under way: one HELLO and when which link carries it.
//!
//! Identical bytes are safe in Noise, so one HELLO goes out on every link, again and again, until its WELCOME comes:
//! a round trip may take as long as [`ATTEMPT`]. Then another HELLO takes its place, because the server may have
//! answered this one to nobody.

use std::time::Duration;

use crate::base::id::LINKS_MAX;
use crate::base::{DropReason, Instant, LinkId};
use crate::crypto::handshake::{Established, Initiator};
use crate::wire::handshake::HELLO_BYTES;

/// A HELLO without an answer is replaced by a new one after this; WireGuard's value.
pub(super) const ATTEMPT: Duration = Duration::from_secs(5);
/// The HELLO leaves on the first link, soon after on all others, then on all, then on all at this interval.
const STAGE_OTHERS: Duration = Duration::from_millis(20);
const STAGE_ALL: Duration = Duration::from_millis(200);
const REPEAT: Duration = Duration::from_millis(500);
/// The first stage that uses all links.
const ALL: u32 = 2;
/// COOKIEs that one HELLO takes. A cookie holds for one link's address; the others ask for theirs when they see it.
const COOKIES_MAX: u8 = 8;

/// A handshake under way.
pub(super) struct Dial {
    pub(super) initiator: Initiator,
    pub(super) hello: Box<[u8; HELLO_BYTES]>,
    pub(super) indexes: [u32; LINKS_MAX],
    pub(super) tag: u8,
    started_at: Instant,
    stage: u32,
    /// The next link in this stage.
    next_link: u8,
    cookies: u8,
}

impl Dial {
    pub(super) const fn new(
        initiator: Initiator,
        hello: Box<[u8; HELLO_BYTES]>,
        indexes: [u32; LINKS_MAX],
        tag: u8,
        now: Instant,
    ) -> Self {
        Self {
            initiator,
            hello,
            indexes,
            tag,
            started_at: now,
            stage: 0,
            next_link: 0,
            cookies: 0,
        }
    }

    /// Takes a WELCOME; a wrong one changes nothing.
    pub(super) fn finish(&mut self, welcome: &[u8]) -> Result<Established, DropReason> {
        self.initiator.finish(welcome)
    }

    /// Takes a COOKIE: the HELLO proves the address and leaves again.
    pub(super) fn on_cookie(&mut self, datagram: &[u8]) -> Result<(), DropReason> {
        let cookie = self.initiator.open_cookie(datagram)?;
        if self.cookies == COOKIES_MAX {
            return Err(DropReason::HandshakeLimited);
        }
        self.cookies += 1;
        self.initiator.set_cookie(&mut self.hello, &cookie);
        // The stage that was due last, on all links, so at once.
        (self.stage, self.next_link) = (self.stage.saturating_sub(1).max(ALL), 0);
        Ok(())
    }

    /// When the next copy leaves.
    pub(super) fn due_at(&self) -> Instant {
        self.started_at
            + match self.stage {
                0 => Duration::ZERO,
                1 => STAGE_OTHERS,
                ALL => STAGE_ALL,
                later => REPEAT * (later - ALL),
            }
    }

    /// The link that carries a copy now.
    pub(super) fn poll(&mut self, link_count: u8, now: Instant) -> Option<LinkId> {
        if now < self.due_at() || link_count == 0 {
            return None;
        }
        let link = LinkId(self.next_link);
        let last = if self.stage == 0 { 0 } else { link_count - 1 };
        if self.next_link >= last {
            self.stage += 1;
            self.next_link = u8::from(self.stage == 1 && link_count > 1);
        } else {
            self.next_link += 1;
        }
        Some(link)
    }
}
