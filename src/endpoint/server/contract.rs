//! The server's side of the driver contract (docs/architecture.md, section 4): what comes in, what goes out, and when it
//! wants to be woken. Sessions take turns, so that none keeps the others from sending.
//!
//! Never lets a frame out whose inner source address is not its peer's.

use super::{Answer, Server};
use crate::base::{DropReason, Instant, LinkId};
use crate::crypto::Cipher;
use crate::endpoint::mail::{Handover, Mail};
use crate::endpoint::stats::{EndpointStats, PeerStats};
use crate::endpoint::{Endpoint, Event, PeerId, SessionId, Transmit};
use crate::session::path::Origin;
use crate::session::{self, Session};
use crate::wire::header::{self, Kind};

impl Endpoint for Server {
    fn handle_frame(&mut self, frame: &[u8], now: Instant, over: &mut dyn Handover) {
        if let Err(reason) = self.take_frame(frame, now, over) {
            self.drops.count(reason);
        }
    }

    fn handle_handed_frame(&mut self, session: SessionId, frame: &[u8], now: Instant) {
        let result = match self.session_mut(session) {
            Some(session) => session.handle_frame(frame, now),
            None => Err(DropReason::NoSession),
        };
        if let Err(reason) = result {
            self.drops.count(reason);
        }
    }

    fn handle_datagrams(
        &mut self,
        origin: Option<Origin>,
        buffer: &mut [u8],
        now: Instant,
        over: &mut dyn Handover,
    ) {
        let Some(origin) = origin else { return };
        for part in header::datagrams(buffer) {
            let taken = match part {
                Ok((kind, datagram)) => {
                    self.handle_datagram(kind, origin, datagram, now, Some(over))
                }
                Err(reason) => Err(reason),
            };
            if let Err(reason) = taken {
                self.drops.count(reason);
            }
        }
    }

    fn handle_handed_datagram(
        &mut self,
        origin: Origin,
        datagram: &mut [u8],
        now: Instant,
        over: &mut dyn Handover,
    ) {
        // The worker that admits gets HELLOs from the others' sockets; nothing else is passed on a second time.
        let admits = self.config.workers.own == 0;
        for part in header::datagrams(datagram) {
            let taken = match part {
                Ok((Kind::Hello, hello)) if admits => self.on_hello(origin, hello, now, Some(over)),
                Ok((kind, datagram)) => self.handle_datagram(kind, origin, datagram, now, None),
                Err(reason) => Err(reason),
            };
            if let Err(reason) = taken {
                self.drops.count(reason);
            }
        }
    }

    fn handle_mail(&mut self, mail: Mail, now: Instant) {
        self.take_mail(mail, now);
    }

    fn poll_mail(&mut self, now: Instant) -> Option<(u8, Mail)> {
        self.next_mail(now)
    }

    fn handle_timeout(&mut self, now: Instant) {
        for (at, id) in (0..self.peers.len()).zip((0..).map(PeerId)) {
            let mut over = 0_u16;
            for (number, part) in &mut self.peers[at].parts {
                let is_over = part.waiting.take_if(|w| now >= w.until).is_some();
                over |= u16::from(is_over) << number;
            }
            if over != 0 {
                self.forget_indexes(|entry| {
                    entry.waiting
                        && entry.session.peer == id
                        && over >> entry.session.number & 1 == 1
                });
            }
        }
        let mut ended = false;
        for at in 0..self.running.len() {
            if let Some(session) = self.session_mut(self.running[at]) {
                session.handle_timeout(now);
                ended |= !session.has_keys();
            }
        }
        while ended {
            let without_keys = |id: &&SessionId| self.session(**id).is_some_and(|s| !s.has_keys());
            match self.running.iter().find(without_keys) {
                Some(&id) => self.lose(id),
                None => ended = false,
            }
        }
        self.refresh_presence(now);
    }

    fn on_send_error(&mut self, session: SessionId, link: LinkId, now: Instant) {
        if let Some(session) = self.session_mut(session) {
            session.on_send_error(link, now);
        }
    }

    fn on_path_limit(&mut self, session: SessionId, link: LinkId, bytes: usize, now: Instant) {
        if let Some(session) = self.session_mut(session) {
            session.limit_datagrams(link, bytes, now);
        }
    }

    fn count_drop(&mut self, reason: DropReason, count: u64) {
        self.drops.count_many(reason, count);
    }

    fn poll_transmit(&mut self, now: Instant, out: &mut [u8]) -> Option<Transmit> {
        if let Some((origin, answer)) = self.answers.pop_front() {
            let bytes: &[u8] = match &answer {
                Answer::Welcome(welcome) => &welcome[..],
                Answer::Cookie(cookie) => cookie,
            };
            out[..bytes.len()].copy_from_slice(bytes);
            let segment = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
            return Some(Transmit {
                link: None,
                origin: Some(origin),
                bytes: bytes.len(),
                segment,
            });
        }
        let count = self.running.len();
        for turn in 0..count {
            let at = (self.next_sender + turn) % count;
            let id = self.running[at];
            let Some(session) = self.session_mut(id) else {
                continue;
            };
            if let Some(transmit) = session.poll_transmit(now, out) {
                self.next_sender = at + 1;
                return Some(Transmit {
                    link: Some((id, transmit.link)),
                    origin: transmit.to,
                    bytes: transmit.bytes,
                    segment: transmit.segment,
                });
            }
        }
        None
    }

    fn poll_frame(&mut self, now: Instant, out: &mut [u8]) -> Option<usize> {
        let count = self.running.len();
        for turn in 0..count {
            let at = (self.next_frame + turn) % count;
            let id = self.running[at];
            while let Some(bytes) = self.session_mut(id)?.poll_frame(now, out) {
                if self.routes.owner_of_source(&out[..bytes]) == Some(id.peer.index()) {
                    self.next_frame = at + 1;
                    return Some(bytes);
                }
                self.drops.count(DropReason::InnerSource);
            }
        }
        None
    }

    fn poll_event(&mut self) -> Option<Event> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        let mut at = 0;
        while let Some(&id) = self.running.get(at) {
            let Some(event) = self.session_mut(id).and_then(Session::poll_event) else {
                at += 1;
                continue;
            };
            match event {
                session::Event::PathChanged { link, origin } => {
                    return Some(Event::PathChanged {
                        session: id,
                        link,
                        origin,
                    });
                }
                session::Event::LinkState { link, state } => {
                    return Some(Event::LinkState {
                        session: id,
                        link,
                        state,
                    });
                }
                session::Event::SegmentChanged {
                    link,
                    bytes,
                    shrunk,
                } => {
                    return Some(Event::SegmentChanged {
                        session: id,
                        link,
                        bytes,
                        shrunk,
                    });
                }
                session::Event::EpochDropped(epoch) => {
                    self.forget_indexes(|entry| entry.session == id && entry.epoch == epoch);
                }
                session::Event::Closed => {
                    self.lose(id);
                    return self.events.pop_front();
                }
            }
        }
        None
    }

    fn poll_timeout(&self, now: Instant) -> Instant {
        if !self.answers.is_empty() {
            return now;
        }
        let parts = self.peers.iter().flat_map(|peer| peer.parts.values());
        parts
            .map(|part| {
                let waiting = part.waiting.as_ref().map_or(Instant::FAR, |w| w.until);
                let session = part.session.as_ref();
                session.map_or(waiting, |s| s.poll_timeout(now).0.min(waiting))
            })
            .min()
            .unwrap_or(Instant::FAR)
    }

    fn is_idle(&self, now: Instant) -> bool {
        let mut sessions = self.running.iter().filter_map(|id| self.session(*id));
        sessions.all(|session| session.is_idle(now))
    }

    fn stats(&mut self, now: Instant) -> EndpointStats {
        let mut peers = Vec::new();
        for (peer, id) in self.peers.iter_mut().zip((0..).map(PeerId)) {
            for (number, part) in &mut peer.parts {
                peers.push(PeerStats {
                    id: SessionId {
                        peer: id,
                        number: *number,
                    },
                    name: peer.config.name.clone(),
                    public_key: peer.config.public_key.to_string(),
                    cipher: part.cipher.map(Cipher::name),
                    epoch: part.epoch,
                    session: part.session.as_mut().map(|session| session.stats(now)),
                    dialing: false,
                });
            }
        }
        EndpointStats {
            peers,
            drops: self.drops.clone(),
            handshakes: self.handshakes,
        }
    }

    fn close(&mut self, now: Instant) {
        let _ = now;
        for at in 0..self.running.len() {
            if let Some(session) = self.session_mut(self.running[at]) {
                session.close();
            }
        }
    }
}
