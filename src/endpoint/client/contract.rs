//! The client's side of the driver contract (docs/architecture.md, section 4): what comes in, what goes out, and when it
//! wants to be woken.
//!
//! Never does: anything for another worker's session. What is not for ours is handed over, or counted.

use std::time::Duration;

use super::Client;
use crate::base::{DropReason, Instant, LinkId};
use crate::crypto::Cipher;
use crate::endpoint::mail::{Handover, Mail};
use crate::endpoint::stats::{EndpointStats, PeerStats};
use crate::endpoint::{Endpoint, Event, SessionId, Transmit};
use crate::session::path::Origin;
use crate::session::{self, Session};
use crate::wire::header;

/// Nothing heard for this long, and for three heartbeats, which the server answers: it may have forgotten us.
const SILENCE: Duration = Duration::from_millis(1500);

/// When the server's silence means that it may have forgotten us. New keys are news of it as well: without them the
/// next handshake would begin before the first datagram under them is back, and so on for ever.
fn silent_at(session: &Session, heartbeat: Duration) -> Instant {
    let agreed = session.established_at().unwrap_or(Instant::ZERO);
    session.last_received_at().max(agreed) + SILENCE.max(heartbeat * 3)
}

impl Endpoint for Client {
    fn handle_frame(&mut self, frame: &[u8], now: Instant, over: &mut dyn Handover) {
        match self.others_way() {
            Some(session) if over.frame(session.number, session, frame) => {}
            Some(_) => self.drops.count(DropReason::HandoverFull),
            None => self.handle_handed_frame(self.id(), frame, now),
        }
    }

    fn handle_handed_frame(&mut self, _session: SessionId, frame: &[u8], now: Instant) {
        let result = match &mut self.session {
            Some(session) => session.handle_frame(frame, now),
            None => Err(DropReason::NoSession),
        };
        if let Err(reason) = result {
            self.drops.count(reason);
        }
    }

    fn handle_handed_datagram(
        &mut self,
        _origin: Origin,
        _datagram: &mut [u8],
        _now: Instant,
        _over: &mut dyn Handover,
    ) {
        // A client's sockets are connected: each belongs to the session of its worker.
        self.drops.count(DropReason::UnknownIndex);
    }

    fn handle_mail(&mut self, mail: Mail, now: Instant) {
        self.take_mail(mail, now);
    }

    fn poll_mail(&mut self, _now: Instant) -> Option<(u8, Mail)> {
        self.next_mail()
    }

    fn handle_datagrams(
        &mut self,
        _origin: Option<Origin>,
        buffer: &mut [u8],
        now: Instant,
        _over: &mut dyn Handover,
    ) {
        for part in header::datagrams(buffer) {
            let taken = part.and_then(|(kind, datagram)| self.handle_datagram(kind, datagram, now));
            if let Err(reason) = taken {
                self.drops.count(reason);
            }
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if let Some(session) = &mut self.session {
            session.handle_timeout(now);
            let silent = now >= silent_at(session, self.config.session.heartbeat);
            let rotate = now >= self.rotate_at || session.wants_rotation();
            if self.dial.is_none() && (silent || rotate) && self.dial_at == Instant::FAR {
                self.dial_at = now;
            }
            if !session.has_keys() {
                // What is dialed now promised the server that the session goes on: dial anew.
                (self.session, self.dial, self.dial_at) = (None, None, now);
                self.indexes.clear();
                self.events.push_back(Event::Lost { session: self.id() });
            }
        }
        self.refresh_presence(now);
        if self.closed {
            self.dial_at = Instant::FAR;
        }
        if now >= self.dial_at {
            self.start_dial(now);
        }
    }

    fn on_send_error(&mut self, _session: SessionId, link: LinkId, now: Instant) {
        if let Some(session) = &mut self.session {
            session.on_send_error(link, now);
        }
    }

    fn on_path_limit(&mut self, _session: SessionId, link: LinkId, bytes: usize, now: Instant) {
        if let Some(session) = &mut self.session {
            session.limit_datagrams(link, bytes, now);
        }
    }

    fn count_drop(&mut self, reason: DropReason, count: u64) {
        self.drops.count_many(reason, count);
    }

    fn poll_transmit(&mut self, now: Instant, out: &mut [u8]) -> Option<Transmit> {
        if let Some(hello) = self.poll_hello(now, out) {
            return Some(hello);
        }
        let transmit = self.session.as_mut()?.poll_transmit(now, out)?;
        Some(Transmit {
            link: Some((self.id(), transmit.link)),
            origin: transmit.to,
            bytes: transmit.bytes,
            segment: transmit.segment,
        })
    }

    fn poll_frame(&mut self, now: Instant, out: &mut [u8]) -> Option<usize> {
        self.session.as_mut()?.poll_frame(now, out)
    }

    fn poll_event(&mut self) -> Option<Event> {
        let id = self.id();
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        loop {
            match self.session.as_mut()?.poll_event()? {
                session::Event::PathChanged { .. } => {}
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
                session::Event::LinkState { link, state } => {
                    return Some(Event::LinkState {
                        session: id,
                        link,
                        state,
                    });
                }
                session::Event::EpochDropped(epoch) => self.forget_epoch(epoch),
                // The server goes away: try to find it again.
                session::Event::Closed if !self.closed => self.dial_at = Instant::ZERO,
                session::Event::Closed => {}
            }
        }
    }

    fn poll_timeout(&self, now: Instant) -> Instant {
        let mut soonest = self.dial_at;
        if let Some(dial) = &self.dial {
            soonest = soonest.min(dial.due_at());
        }
        if let Some(session) = &self.session {
            soonest = soonest.min(session.poll_timeout(now).0);
            // Silence and old keys make us dial, which has its own time once it is decided on.
            if self.dial_at == Instant::FAR && !self.closed {
                let silent_at = silent_at(session, self.config.session.heartbeat);
                soonest = soonest.min(silent_at).min(self.rotate_at);
            }
        }
        soonest
    }

    fn is_idle(&self, now: Instant) -> bool {
        let session = self.session.as_ref();
        session.is_none_or(|session| session.is_idle(now))
    }

    fn stats(&mut self, now: Instant) -> EndpointStats {
        let peer = PeerStats {
            id: self.id(),
            name: "server".to_owned(),
            public_key: self.config.server_key.to_string(),
            cipher: self.cipher.map(Cipher::name),
            epoch: self.epoch_count,
            session: self.session.as_mut().map(|session| session.stats(now)),
            dialing: self.dial.is_some(),
        };
        EndpointStats {
            peers: vec![peer],
            drops: self.drops.clone(),
            handshakes: self.handshakes,
        }
    }

    fn close(&mut self, now: Instant) {
        let _ = now;
        if let Some(session) = &mut self.session {
            session.close();
        }
        self.dial = None;
        self.dial_at = Instant::FAR;
        self.closed = true;
    }
}
