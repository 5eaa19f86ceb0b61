//! From a HELLO to keys: who is answered, and what the answer may touch.
//!
//! ```text
//! HELLO ─► copy of the last one? ── yes ─► the same WELCOME again
//!            │ no
//!            ▼
//!          admission ─► opened ─► peer known, sane ─► gate ─┬─ new stamp ─► keys: next epoch, or a waiting session
//!          (mac1, limits, cookies)                          ├─ old, proven ► a waiting session, nothing else
//!                                                           └─ old ───────► COOKIE
//! ```
//!
//! A HELLO with an old stamp may be a recording, even if its sender has proved an address. It therefore never touches
//! a running session, nor one that waits for a HELLO with a new stamp.

use super::peer::{Answered, Waiting, session_parameters};
use super::{Answer, COPIES_MAX, COPIES_TIME, IndexEntry, Server, WAITING_TIME};
use crate::base::{DropReason, Instant, LinkId};
use crate::crypto::Cipher;
use crate::crypto::handshake::{Established, Responder};
use crate::crypto::key_schedule::Role;
use crate::endpoint::PeerId;
use crate::endpoint::admission::{Gate, Verdict};
use crate::endpoint::epoch::{FEATURE_FRESH, draw_indexes, epoch_keys};
use crate::session::Session;
use crate::session::path::Origin;
use crate::wire::handshake::{Hello, HelloPayload, WELCOME_BYTES, WelcomePayload};

impl Server {
    /// Decides about a HELLO and queues the answer, if it earns one.
    pub(super) fn on_hello(
        &mut self,
        origin: Origin,
        datagram: &[u8],
        now: Instant,
    ) -> Result<(), DropReason> {
        let hello = Hello::parse(datagram)?;
        self.check_room_for_answer()?;
        if let Some(copy) = self.copy_of(&hello, now) {
            return self.answer(origin, Answer::Welcome(copy?));
        }
        let verdict = self.admission.check(datagram, origin.address, now);
        if verdict != Verdict::Pass {
            return self.refuse(origin, verdict);
        }
        let responder = Responder::read(&self.config.private_key, datagram)?;
        let &id = self
            .keys
            .get(&responder.peer())
            .ok_or(DropReason::HandshakeRefused)?;
        let payload = *responder.payload();
        // Parallel sessions and agreed preshared keys do not exist; without links there is nothing to agree on.
        if payload.link_count == 0 || payload.session_number != 0 || payload.psk_kind != 0 {
            return Err(DropReason::HandshakeRefused);
        }
        let proven = self.admission.is_proven(datagram, origin.address, now);
        let gate = &mut self.peers[id.index()].gate;
        let old = match gate.check(payload.stamp, hello.ephemeral(), proven, now) {
            Gate::Pass => false,
            Gate::PassOld => true,
            Gate::Drop(reason) => return Err(reason),
            Gate::Prove => {
                let verdict = self.admission.challenge(datagram, origin.address, now);
                return self.refuse(origin, verdict);
            }
        };
        let fresh = self.is_first_contact(id, &payload);
        let disturbs = |waiting: &Waiting| !waiting.old && now < waiting.until;
        if old
            && (!fresh
                || self.peers[id.index()]
                    .waiting
                    .as_ref()
                    .is_some_and(disturbs))
        {
            return Err(DropReason::HandshakeReplay);
        }
        let welcome = self.welcome(id, responder, fresh, old, now)?;
        self.remember(id, &hello, &welcome, now);
        self.answer(origin, Answer::Welcome(welcome))
    }

    /// The WELCOME for one more copy of a HELLO that was answered; copies come by other links, or because the
    /// WELCOME was lost.
    fn copy_of(
        &mut self,
        hello: &Hello<'_>,
        now: Instant,
    ) -> Option<Result<Box<[u8; WELCOME_BYTES]>, DropReason>> {
        let id = self.copies.get(hello.mac1())?;
        let answered = self.peers[id.index()].answered.as_mut()?;
        if now >= answered.until || *answered.hello != *hello.before_mac2() {
            return None;
        }
        if answered.copies_left == 0 {
            return Some(Err(DropReason::HandshakeLimited));
        }
        answered.copies_left -= 1;
        Some(Ok(answered.welcome.clone()))
    }

    fn remember(
        &mut self,
        id: PeerId,
        hello: &Hello<'_>,
        welcome: &[u8; WELCOME_BYTES],
        now: Instant,
    ) {
        let before = self.peers[id.index()].answered.replace(Answered {
            hello: hello.before_mac2().into(),
            welcome: Box::new(*welcome),
            copies_left: COPIES_MAX,
            until: now + COPIES_TIME,
        });
        if let Some(mac1) = before.as_ref().and_then(|old| old.hello.last_chunk()) {
            self.copies.remove(mac1);
        }
        self.copies.insert(*hello.mac1(), id);
    }

    fn refuse(&mut self, origin: Origin, verdict: Verdict) -> Result<(), DropReason> {
        match verdict {
            Verdict::Pass => Ok(()),
            Verdict::Drop(reason) => Err(reason),
            Verdict::Cookie(cookie) => self.answer(origin, Answer::Cookie(cookie)),
        }
    }

    /// Whether the keys begin a new session: one side has lost its state, or the links are others.
    fn is_first_contact(&self, id: PeerId, hello: &HelloPayload) -> bool {
        let peer = &self.peers[id.index()];
        hello.features & FEATURE_FRESH != 0
            || peer.superseded
            || hello.boot_id != peer.boot_id
            || peer.session.as_ref().map(Session::link_count) != Some(hello.link_count)
    }

    /// Makes keys for a peer whose HELLO was opened.
    fn welcome(
        &mut self,
        id: PeerId,
        responder: Responder,
        fresh: bool,
        old: bool,
        now: Instant,
    ) -> Result<Box<[u8; WELCOME_BYTES]>, DropReason> {
        let hello = *responder.payload();
        #[allow(clippy::cast_possible_truncation)] // the low byte names the epoch
        let tag = responder.sender_index() as u8;
        let Self {
            indexes, numbers, ..
        } = self;
        let is_used = |index| indexes.contains_key(&index);
        let own_indexes = draw_indexes(hello.link_count, numbers, is_used);
        let cipher = Cipher::choose(self.config.cipher_bits, hello.cipher_bits);
        let payload = WelcomePayload {
            cipher: cipher.code(),
            features: if fresh { FEATURE_FRESH } else { 0 },
            boot_id: self.config.boot_id,
            link_count: hello.link_count,
            datagram_bytes_max: self.config.datagram_bytes_max,
            hold_time_max_ms: u16::try_from(crate::reorder::hold::HOLD_MAX.as_millis())
                .unwrap_or(u16::MAX),
            indexes: own_indexes,
        };
        let mut welcome = Box::new([0; WELCOME_BYTES]);
        let own_index = self.numbers.next_u32();
        let psk = self.peers[id.index()].config.preshared_key.as_ref();
        let established = responder
            .finish(psk, own_index, &payload, &mut welcome)
            .map_err(|_| DropReason::HandshakeRefused)?;
        self.handshakes += 1;
        self.install(id, &established, &hello, tag, fresh, old, now);
        Ok(welcome)
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the ends of one handshake, used once"
    )]
    fn install(
        &mut self,
        id: PeerId,
        established: &Established,
        hello: &HelloPayload,
        tag: u8,
        fresh: bool,
        old: bool,
        now: Instant,
    ) {
        self.epoch_count = self.epoch_count.wrapping_add(1);
        let epoch = self.epoch_count;
        let (links, role) = (hello.link_count, Role::Responder);
        let keys = epoch_keys(established, role, epoch, tag, links, &hello.indexes, now);
        if fresh {
            self.forget_indexes(|entry| entry.peer == id && entry.waiting);
        }
        let peer = &mut self.peers[id.index()];
        peer.epoch = epoch;
        peer.cipher = Some(established.cipher);
        if fresh {
            let bytes = hello.datagram_bytes_max.min(self.config.datagram_bytes_max);
            let parameters = session_parameters(links, bytes, self.numbers.next_u64());
            let until = now + WAITING_TIME;
            peer.superseded |= !old;
            peer.waiting = Some(Waiting::new(keys, parameters, hello.boot_id, old, until));
        } else if let Some(session) = &mut peer.session {
            session.install_epoch(keys, now);
        }
        for link in (0..links).map(LinkId) {
            let entry = IndexEntry {
                peer: id,
                epoch,
                link,
                waiting: fresh,
            };
            let index = established.payload.indexes[link.index()];
            self.indexes.insert(index, entry);
        }
    }
}
