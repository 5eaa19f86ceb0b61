//! The server's other workers: whose a session is, which sessions there are, and what goes from one worker to another.
//!
//! Every worker knows of every session whether it exists and whether frames have a way through it, so that a frame
//! finds a session wherever it is read. A client that starts anew has a new boot id: its sessions of an earlier start
//! end, on all workers, as soon as the first of the new ones is confirmed. Else flows would go on to be sent to those
//! numbers that the client no longer has.

use super::peer::owner;
use super::{PeerId, Server, SessionId};
use crate::base::{DropReason, Instant};
use crate::endpoint::mail::{Handover, Mail, Presence};
use crate::session::path::Origin;

impl Server {
    /// A datagram under an index that is not ours: its owner follows from the index.
    pub(super) fn pass_on_data(
        &self,
        index: u32,
        origin: Origin,
        datagram: &[u8],
        over: Option<&mut dyn Handover>,
    ) -> Result<(), DropReason> {
        let worker = self.index_owner.of(index);
        let over = over.filter(|_| worker != self.config.workers.own);
        let over = over.ok_or(DropReason::UnknownIndex)?;
        if over.datagram(worker, origin, datagram) {
            Ok(())
        } else {
            Err(DropReason::HandoverFull)
        }
    }

    /// A session of this worker was confirmed.
    pub(super) fn join(&mut self, id: SessionId, boot_id: [u8; 8], now: Instant) {
        self.end_earlier_starts(id.peer, boot_id);
        let peer = id.peer;
        self.tell_others(|| Mail::Started { peer, boot_id });
        self.refresh_presence(now);
    }

    fn end_earlier_starts(&mut self, peer: PeerId, boot_id: [u8; 8]) {
        let Some(known) = self.peers.get(peer.index()) else {
            return;
        };
        let parts = known.parts.iter();
        let earlier = parts.filter(|(_, part)| part.session.is_some() && part.boot_id != boot_id);
        let earlier: Vec<_> = earlier.map(|(number, _)| *number).collect();
        for number in earlier {
            self.lose(SessionId { peer, number });
        }
    }

    /// Follows what the sessions of this worker have become, and tells the others.
    pub(super) fn refresh_presence(&mut self, now: Instant) {
        let ids = self.peers.len();
        for (at, id) in (0..ids).zip((0..).map(PeerId)) {
            let mut changed = false;
            let peer = &mut self.peers[at];
            let numbers = peer
                .parts
                .keys()
                .fold(0_u16, |set, number| set | 1 << number);
            for number in (0..16).filter(|number| numbers >> number & 1 == 1) {
                let peer = &mut self.peers[at];
                let Some(part) = peer.parts.get(&number) else {
                    continue;
                };
                let presence = match &part.session {
                    None => Presence::Gone,
                    Some(session) if session.has_way() => Presence::Usable,
                    Some(_) => Presence::Joined,
                };
                if peer.note(number, presence) {
                    changed = true;
                    let session = SessionId { peer: id, number };
                    self.tell_others(|| Mail::Presence { session, presence });
                }
            }
            if changed {
                self.tell_siblings(id, now);
            }
        }
    }

    fn tell_others(&mut self, mail: impl Fn() -> Mail) {
        let workers = &self.config.workers;
        for worker in (0..workers.count).filter(|worker| *worker != workers.own) {
            self.outbox.push_back((worker, mail()));
        }
    }

    /// The sessions of this worker hear which others their peer has: they share its WANs.
    fn tell_siblings(&mut self, peer: PeerId, now: Instant) {
        let peer = &mut self.peers[peer.index()];
        for (number, part) in &mut peer.parts {
            if let Some(session) = &mut part.session {
                session.set_siblings(*number, peer.joined, now);
            }
        }
    }

    pub(super) fn take_mail(&mut self, mail: Mail, now: Instant) {
        match mail {
            Mail::Presence { session, presence } => {
                let Some(peer) = self.peers.get_mut(session.peer.index()) else {
                    return;
                };
                if peer.note(session.number, presence) {
                    self.tell_siblings(session.peer, now);
                }
            }
            Mail::Started { peer, boot_id } => self.end_earlier_starts(peer, boot_id),
            Mail::Share { to, from, share } => {
                if let Some(session) = self.session_mut(to) {
                    session.handle_share(from, &share, now);
                }
            }
            Mail::Hello(opened) => {
                if let Err(reason) = self.answer_hello(*opened, now) {
                    self.drops.count(reason);
                }
            }
        }
    }

    /// The next word to another worker. What sessions of this one tell each other is delivered on the way.
    pub(super) fn next_mail(&mut self, now: Instant) -> Option<(u8, Mail)> {
        if let Some(mail) = self.outbox.pop_front() {
            return Some(mail);
        }
        let mut at = 0;
        while let Some(&id) = self.running.get(at) {
            let Some((number, share)) = self.session_mut(id).and_then(|s| s.poll_share()) else {
                at += 1;
                continue;
            };
            let to = SessionId { number, ..id };
            let worker = owner(to, &self.config.workers);
            if worker != self.config.workers.own {
                let from = id.number;
                return Some((worker, Mail::Share { to, from, share }));
            }
            if let Some(session) = self.session_mut(to) {
                session.handle_share(id.number, &share, now);
                // An answer may be in an outbox that was looked at already.
                at = 0;
            }
        }
        None
    }
}
