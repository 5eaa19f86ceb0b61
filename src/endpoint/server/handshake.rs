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

use super::peer::{Answered, SESSION_COUNT_MAX, Waiting, owner, session_parameters};
use super::{Answer, COPIES_MAX, COPIES_TIME, IndexEntry, Server, SessionId, WAITING_TIME};
use crate::base::{DropReason, Instant, LinkId};
use crate::crypto::Cipher;
use crate::crypto::handshake::{Established, Responder};
use crate::crypto::key_schedule::Role;
use crate::endpoint::admission::{Gate, Verdict};
use crate::endpoint::epoch::{FEATURE_FRESH, draw_indexes, epoch_keys};
use crate::endpoint::mail::{Handover, Mail, Opened};
use crate::session::Session;
use crate::session::path::Origin;
use crate::wire::handshake::{Hello, HelloPayload, MAC_BYTES, WELCOME_BYTES, WelcomePayload};

impl Server {
    /// Decides about a HELLO and queues the answer, if it earns one. Only one worker admits, so that limits are those of
    /// the server; whose session it is about gives the answer.
    pub(super) fn on_hello(
        &mut self,
        origin: Origin,
        datagram: &[u8],
        now: Instant,
        over: Option<&mut dyn Handover>,
    ) -> Result<(), DropReason> {
        let hello = Hello::parse(datagram)?;
        self.check_room_for_answer()?;
        let own = self.config.workers.own;
        let answered = self.copies.get(hello.mac1()).copied();
        let elsewhere = match answered.map(|id| owner(id, &self.config.workers)) {
            Some(worker) if worker == own => None,
            // A worker that does not admit knows of its own answers only.
            None if own == 0 => None,
            other => Some(other.unwrap_or(0)),
        };
        if let Some(worker) = elsewhere {
            let over = over.ok_or(DropReason::HandshakeReplay)?;
            return if over.datagram(worker, origin, datagram) {
                Ok(())
            } else {
                Err(DropReason::HandoverFull)
            };
        }
        if let Some(copy) = self.copy_of(&hello, now) {
            return self.answer(origin, Answer::Welcome(copy?));
        }
        if own != 0 {
            // A copy that comes too late, handed over by the worker that admits.
            return Err(DropReason::HandshakeReplay);
        }
        let verdict = self.admission.check(datagram, origin.address, now);
        if verdict != Verdict::Pass {
            return self.refuse(origin, verdict);
        }
        let opened = self.open_hello(origin, datagram, now)?;
        let worker = owner(opened.session, &self.config.workers);
        if worker == own {
            return self.answer_hello(opened, now);
        }
        self.note_passed_on(opened.session, *hello.mac1());
        self.outbox
            .push_back((worker, Mail::Hello(Box::new(opened))));
        Ok(())
    }

    /// Two key agreements: finds out who sent it and what about.
    fn open_hello(
        &mut self,
        origin: Origin,
        datagram: &[u8],
        now: Instant,
    ) -> Result<Opened, DropReason> {
        let responder = Responder::read(&self.config.private_key, datagram)?;
        let &peer = self
            .keys
            .get(&responder.peer())
            .ok_or(DropReason::HandshakeRefused)?;
        let payload = responder.payload();
        let number = payload.session_number;
        // Agreed preshared keys do not exist; without links there is nothing to agree on.
        if payload.link_count == 0 || number >= SESSION_COUNT_MAX || payload.psk_kind != 0 {
            return Err(DropReason::HandshakeRefused);
        }
        // A HELLO has one length, which was checked when it was parsed.
        let &bytes = datagram.first_chunk().ok_or(DropReason::Malformed)?;
        Ok(Opened {
            origin,
            proven: self.admission.is_proven(datagram, origin.address, now),
            hello: bytes,
            responder,
            session: SessionId { peer, number },
        })
    }

    /// Answers a HELLO about a session of this worker.
    pub(super) fn answer_hello(&mut self, opened: Opened, now: Instant) -> Result<(), DropReason> {
        let (id, origin, proven) = (opened.session, opened.origin, opened.proven);
        let hello = Hello::parse(&opened.hello)?;
        self.check_room_for_answer()?;
        if let Some(copy) = self.copy_of(&hello, now) {
            return self.answer(origin, Answer::Welcome(copy?));
        }
        let payload = *opened.responder.payload();
        let gate = &mut self.part_mut(id).gate;
        let old = match gate.check(payload.stamp, hello.ephemeral(), proven, now) {
            Gate::Pass => false,
            Gate::PassOld => true,
            Gate::Drop(reason) => return Err(reason),
            Gate::Prove => {
                let verdict = self.admission.challenge(&opened.hello, origin.address, now);
                return self.refuse(origin, verdict);
            }
        };
        let fresh = self.is_first_contact(id, &payload);
        let disturbs = |waiting: &Waiting| !waiting.old && now < waiting.until;
        let waiting = self.part_mut(id).waiting.as_ref();
        if old && (!fresh || waiting.is_some_and(disturbs)) {
            return Err(DropReason::HandshakeReplay);
        }
        let welcome = self.welcome(id, opened.responder, fresh, old, now)?;
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
        let &id = self.copies.get(hello.mac1())?;
        let answered = self.part_mut(id).answered.as_mut()?;
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
        id: SessionId,
        hello: &Hello<'_>,
        welcome: &[u8; WELCOME_BYTES],
        now: Instant,
    ) {
        let before = self.part_mut(id).answered.replace(Answered {
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

    /// Copies of a HELLO that another worker answers go there without being opened.
    fn note_passed_on(&mut self, id: SessionId, mac1: [u8; MAC_BYTES]) {
        let known = &mut self.peers[id.peer.index()].passed_on;
        if let Some(before) = known.insert(id.number, mac1) {
            self.copies.remove(&before);
        }
        self.copies.insert(mac1, id);
    }

    fn refuse(&mut self, origin: Origin, verdict: Verdict) -> Result<(), DropReason> {
        match verdict {
            Verdict::Pass => Ok(()),
            Verdict::Drop(reason) => Err(reason),
            Verdict::Cookie(cookie) => self.answer(origin, Answer::Cookie(cookie)),
        }
    }

    /// Whether the keys begin a new session: one side has lost its state, or the links are others.
    fn is_first_contact(&mut self, id: SessionId, hello: &HelloPayload) -> bool {
        let part = self.part_mut(id);
        hello.features & FEATURE_FRESH != 0
            || part.superseded
            || hello.boot_id != part.boot_id
            || part.session.as_ref().map(Session::link_count) != Some(hello.link_count)
    }

    /// Makes keys for a peer whose HELLO was opened.
    fn welcome(
        &mut self,
        id: SessionId,
        responder: Responder,
        fresh: bool,
        old: bool,
        now: Instant,
    ) -> Result<Box<[u8; WELCOME_BYTES]>, DropReason> {
        let hello = *responder.payload();
        #[allow(clippy::cast_possible_truncation)] // the low byte names the epoch
        let tag = responder.sender_index() as u8;
        let Self {
            indexes,
            numbers,
            index_owner,
            config,
            ..
        } = self;
        let own = config.workers.own;
        let is_used = |index| indexes.contains_key(&index) || index_owner.of(index) != own;
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
        let psk = self.peers[id.peer.index()].config.preshared_key.as_ref();
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
        id: SessionId,
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
            self.forget_indexes(|entry| entry.session == id && entry.waiting);
        }
        let bytes = hello.datagram_bytes_max.min(self.config.datagram_bytes_max);
        let seed = if fresh { self.numbers.next_u64() } else { 0 };
        let part = self.part_mut(id);
        part.epoch = epoch;
        part.cipher = Some(established.cipher);
        if fresh {
            let parameters = session_parameters(links, bytes, seed);
            let until = now + WAITING_TIME;
            part.superseded |= !old;
            part.waiting = Some(Waiting::new(keys, parameters, hello.boot_id, old, until));
        } else if let Some(session) = &mut part.session {
            session.install_epoch(keys, now);
        }
        for link in (0..links).map(LinkId) {
            let entry = IndexEntry {
                session: id,
                epoch,
                link,
                waiting: fresh,
            };
            let index = established.payload.indexes[link.index()];
            self.indexes.insert(index, entry);
        }
    }
}
