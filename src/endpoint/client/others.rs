//! The client's other workers: which of them have a session, and what goes to them.

use super::Client;
use crate::base::{DropReason, Instant};
use crate::endpoint::SessionId;
use crate::endpoint::mail::{Mail, Presence, Workers, pick};

impl Client {
    /// Follows what the session has become, and tells the other workers.
    pub(super) fn refresh_presence(&mut self, now: Instant) {
        let presence = match &self.session {
            None => Presence::Gone,
            Some(session) if session.has_way() => Presence::Usable,
            Some(_) => Presence::Joined,
        };
        let id = self.id();
        if !self.note_presence(id.number, presence, now) {
            return;
        }
        let Workers { own, count, .. } = self.config.workers;
        for worker in (0..count).filter(|worker| *worker != own) {
            let mail = Mail::Presence {
                session: id,
                presence,
            };
            self.outbox.push_back((worker, mail));
        }
    }

    /// Whether this is news.
    fn note_presence(&mut self, number: u8, presence: Presence, now: Instant) -> bool {
        let before = (self.joined, self.usable);
        let set = |set: &mut u16, on: bool| *set = *set & !(1 << number) | u16::from(on) << number;
        set(&mut self.joined, presence != Presence::Gone);
        set(&mut self.usable, presence == Presence::Usable);
        if before == (self.joined, self.usable) {
            return false;
        }
        if let Some(session) = &mut self.session {
            session.set_siblings(self.config.workers.own, self.joined, now);
        }
        true
    }

    /// The session of another worker that frames go through while ours has no way. All such frames of a worker go to one
    /// place, so that flows keep their order.
    pub(super) fn others_way(&self) -> Option<SessionId> {
        let own = self.id().number;
        if self.usable >> own & 1 == 1 {
            return None;
        }
        let number = pick(self.usable, own.into())?;
        Some(SessionId {
            number,
            ..self.id()
        })
    }

    pub(super) fn take_mail(&mut self, mail: Mail, now: Instant) {
        match mail {
            Mail::Presence { session, presence } => {
                self.note_presence(session.number, presence, now);
            }
            Mail::Share { from, share, .. } => {
                if let Some(session) = &mut self.session {
                    session.handle_share(from, &share, now);
                }
            }
            Mail::Hello(_) | Mail::Started { .. } => self.drops.count(DropReason::HandshakeRefused),
        }
    }

    /// The next word to another worker.
    pub(super) fn next_mail(&mut self) -> Option<(u8, Mail)> {
        if let Some(mail) = self.outbox.pop_front() {
            return Some(mail);
        }
        let from = self.config.workers.own;
        let (to, share) = self.session.as_mut()?.poll_share()?;
        let number = SessionId {
            number: to,
            ..self.id()
        };
        let mail = Mail::Share {
            to: number,
            from,
            share,
        };
        Some((to, mail))
    }
}
