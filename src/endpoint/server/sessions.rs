//! Sessions begin with the first datagram under keys that wait, and end without keys or with a farewell.

use super::{PeerId, Server, SessionId};
use crate::base::{DropReason, Instant};
use crate::endpoint::Event;
use crate::endpoint::mail::Handover;
use crate::session::path::Origin;
use crate::wire::header::DataHeader;

impl Server {
    pub(super) fn on_data(
        &mut self,
        origin: Origin,
        datagram: &mut [u8],
        now: Instant,
        over: Option<&mut dyn Handover>,
    ) -> Result<(), DropReason> {
        let index = DataHeader::parse(datagram)?.receiver_index;
        let Some(&entry) = self.indexes.get(&index) else {
            return self.pass_on_data(index, origin, datagram, over);
        };
        let Self { peers, config, .. } = self;
        let peer = &mut peers[entry.session.peer.index()];
        let part = peer.parts.get_mut(&entry.session.number);
        let part = part.ok_or(DropReason::NoSession)?;
        if !entry.waiting {
            let session = part.session.as_mut().ok_or(DropReason::NoSession)?;
            return session.handle_datagram(entry.epoch, entry.link, datagram, Some(origin), now);
        }
        let waiting = part.waiting.as_mut().ok_or(DropReason::NoSession)?;
        let session = waiting.session(&config.session, now);
        let result = session.handle_datagram(entry.epoch, entry.link, datagram, Some(origin), now);
        if session.received_datagrams() > 0 {
            self.promote(entry.session, now);
        }
        result
    }

    /// The waiting session's keys were confirmed: it replaces the old one.
    fn promote(&mut self, id: SessionId, now: Instant) {
        let part = self.part_mut(id);
        let Some(waiting) = part.waiting.take() else {
            return;
        };
        (part.boot_id, part.superseded) = (waiting.boot_id, false);
        let boot_id = waiting.boot_id;
        let Some(mut session) = waiting.into_session() else {
            return;
        };
        session.handle_timeout(now);
        if part.session.replace(session).is_some() {
            self.events.push_back(Event::Lost { session: id });
        }
        self.forget_indexes(|entry| entry.session == id && !entry.waiting);
        for entry in self.indexes.values_mut() {
            entry.waiting &= entry.session != id;
        }
        self.events.push_back(Event::Established {
            session: id,
            fresh: true,
        });
        self.list_running();
        self.join(id, boot_id, now);
    }

    /// Wipes a session.
    pub(super) fn lose(&mut self, id: SessionId) {
        self.part_mut(id).session = None;
        self.forget_indexes(|entry| entry.session == id && !entry.waiting);
        self.events.push_back(Event::Lost { session: id });
        self.list_running();
    }

    fn list_running(&mut self) {
        self.running.clear();
        for (peer, id) in self.peers.iter().zip((0..).map(PeerId)) {
            let there = peer.parts.iter().filter(|(_, part)| part.session.is_some());
            let there = there.map(|(number, _)| SessionId {
                peer: id,
                number: *number,
            });
            self.running.extend(there);
        }
    }
}
