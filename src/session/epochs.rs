//! Keys of the session's epochs and when each is used.
//!
//! ```text
//!              install (initiator)                    retire after OVERLAP_MIN
//!  handshake ──────────────────────► current ──► previous ──────────────────► wiped
//!      │ install (responder)            ▲
//!      └────────► next ─────────────────┘ first datagram opened under it
//! ```
//!
//! The responder keeps sending under the old keys until something arrives under the new ones: that is the key
//! confirmation. Packet numbers start at 0 in each epoch; `base` makes them one rising sequence of the link.
//!
//! Invariant: nothing is sealed or opened under keys older than [`STOP_AFTER`]; they are wiped at that age.

use crate::base::{DropReason, Instant, LinkId};
use crate::crypto::key_schedule::{OVERLAP_MIN, STOP_AFTER};
use crate::crypto::seal::{OpenKey, SealKey};
use crate::wire::header::DataHeader;

/// Numbers left out between the epochs of one link: more than a report's bitmap reaches, so that a report never
/// speaks about two epochs.
pub const NUMBER_GAP: u64 = 1024;

/// Keys and numbers of one link in one epoch.
#[derive(Debug)]
pub struct LinkKeys {
    /// Seals what we send.
    pub seal: SealKey,
    /// Opens what we receive.
    pub open: OpenKey,
    /// The peer's index for what we send.
    pub receiver_index: u32,
    /// First continuous number of what we send in this epoch; set when the epoch becomes current.
    pub sent_base: u64,
    /// First continuous number of what we receive; set at the first datagram.
    pub received_base: Option<u64>,
}

/// One epoch.
#[derive(Debug)]
pub struct EpochKeys {
    /// Counts up in the endpoint that owns the session.
    pub id: u32,
    /// The low byte of the HELLO's sender index: what both ends call this epoch in reports.
    pub tag: u8,
    /// By link.
    pub links: Vec<LinkKeys>,
    /// When the handshake ended.
    pub established_at: Instant,
}

impl EpochKeys {
    /// When they must not be used any more.
    pub fn expires_at(&self) -> Instant {
        self.established_at + STOP_AFTER
    }

    /// Whether a link's datagrams can be sealed at `now`.
    pub fn can_seal(&self, link: LinkId, now: Instant) -> bool {
        let key = self.links.get(link.index());
        now < self.expires_at() && key.is_some_and(|key| !key.seal.exhausted())
    }

    /// Whether a key is near a limit of its cipher, in either direction.
    pub fn wants_rotation(&self) -> bool {
        let near = |link: &LinkKeys| link.seal.wants_rotation() || link.open.wants_rotation();
        self.links.iter().any(near)
    }
}

/// Previous, current and next keys.
#[derive(Debug, Default)]
pub struct Epochs {
    previous: Option<(EpochKeys, Instant)>,
    current: Option<EpochKeys>,
    next: Option<EpochKeys>,
    dropped: Vec<u32>,
}

impl Epochs {
    /// New keys. The initiator uses them at once, the responder when they are confirmed.
    /// `sent_next(link)` is the link's next continuous number.
    pub fn install(
        &mut self,
        keys: EpochKeys,
        initiator: bool,
        now: Instant,
        sent_next: impl Fn(LinkId) -> u64,
    ) {
        if initiator || self.current.is_none() {
            self.promote(keys, now, sent_next);
        } else if let Some(old) = self.next.replace(keys) {
            self.dropped.push(old.id);
        }
    }

    fn promote(&mut self, mut keys: EpochKeys, now: Instant, sent_next: impl Fn(LinkId) -> u64) {
        for (link, link_keys) in (0_u8..).map(LinkId).zip(&mut keys.links) {
            link_keys.sent_base = sent_next(link) + NUMBER_GAP;
        }
        if let Some(old) = self.current.replace(keys)
            && let until = old.expires_at().min(now + OVERLAP_MIN)
            && let Some((older, _)) = self.previous.replace((old, until))
        {
            self.dropped.push(older.id);
        }
    }

    /// Opens a datagram of the epoch `id`; confirms that epoch when it was waiting. Returns the continuous
    /// number and the plaintext.
    ///
    /// # Errors
    /// [`DropReason::EpochExpired`], or what [`OpenKey::open`] says.
    pub fn open<'a>(
        &mut self,
        id: u32,
        link: LinkId,
        header: &DataHeader,
        datagram: &'a mut [u8],
        largest_received: u64,
        now: Instant,
    ) -> Result<(u64, &'a mut [u8]), DropReason> {
        let keys = [
            self.current.as_mut(),
            self.next.as_mut(),
            self.previous.as_mut().map(|(k, _)| k),
        ]
        .into_iter()
        .flatten()
        .find(|keys| keys.id == id && now < keys.expires_at())
        .and_then(|keys| keys.links.get_mut(link.index()))
        .ok_or(DropReason::EpochExpired)?;
        let plaintext = keys.open.open(header, datagram)?;
        let base = *keys
            .received_base
            .get_or_insert(largest_received + NUMBER_GAP);
        Ok((base + header.packet_number, plaintext))
    }

    /// Makes the waiting epoch current if it is `id`.
    pub fn confirm(&mut self, id: u32, now: Instant, sent_next: impl Fn(LinkId) -> u64) {
        if self.next.as_ref().is_some_and(|keys| keys.id == id)
            && let Some(keys) = self.next.take()
        {
            self.promote(keys, now, sent_next);
        }
    }

    /// Keys to send with.
    pub const fn current(&self) -> Option<&EpochKeys> {
        self.current.as_ref()
    }

    /// Keys to send with.
    pub const fn current_mut(&mut self) -> Option<&mut EpochKeys> {
        self.current.as_mut()
    }

    /// The sending base of the epoch that a report names.
    pub fn sent_base(&self, tag: u8, link: LinkId) -> Option<u64> {
        [
            self.current.as_ref(),
            self.previous.as_ref().map(|(keys, _)| keys),
        ]
        .into_iter()
        .flatten()
        .find(|keys| keys.tag == tag)
        .and_then(|keys| keys.links.get(link.index()))
        .map(|keys| keys.sent_base)
    }

    /// For a report on what we received as continuous `largest`: the epoch's tag and its packet number.
    pub fn received_position(&self, link: LinkId, largest: u64) -> Option<(u8, u64)> {
        [
            self.current.as_ref(),
            self.next.as_ref(),
            self.previous.as_ref().map(|(keys, _)| keys),
        ]
        .into_iter()
        .flatten()
        .filter_map(|keys| Some((keys, keys.links.get(link.index())?.received_base?)))
        .filter(|(_, base)| *base <= largest)
        .max_by_key(|(_, base)| *base)
        .map(|(keys, base)| (keys.tag, largest - base))
    }

    /// Whether there are keys in use, or waiting to be confirmed.
    pub const fn is_empty(&self) -> bool {
        self.current.is_none() && self.next.is_none()
    }

    /// Wipes keys whose time is over.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some((old, _)) = self.previous.take_if(|(_, until)| now >= *until) {
            self.dropped.push(old.id);
        }
        for keys in [&mut self.current, &mut self.next] {
            if let Some(old) = keys.take_if(|keys| now >= keys.expires_at()) {
                self.dropped.push(old.id);
            }
        }
    }

    /// When [`Epochs::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Instant {
        let expiry =
            |keys: &Option<EpochKeys>| keys.as_ref().map_or(Instant::FAR, EpochKeys::expires_at);
        let previous = self.previous.as_ref().map_or(Instant::FAR, |(_, at)| *at);
        previous.min(expiry(&self.current)).min(expiry(&self.next))
    }

    /// Epochs whose receiver indexes are free.
    pub fn poll_dropped(&mut self) -> Option<u32> {
        self.dropped.pop()
    }
}
