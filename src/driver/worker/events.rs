//! What the endpoint has to tell: lines in the log, and sockets that follow their links.
//!
//! Never lets others fill the log: each kind of line that a peer or the network can cause has its own limit.

use super::super::log_limit::LogLimit;
use super::Worker;
use crate::base::Instant;
use crate::endpoint::Event;

/// Limits of the log lines that others can cause.
#[derive(Debug)]
pub(super) struct Lines {
    keys: LogLimit,
    ended: LogLimit,
    address: LogLimit,
    socket: LogLimit,
    state: LogLimit,
    size: LogLimit,
}

impl Lines {
    pub(super) fn new() -> Self {
        Self {
            keys: LogLimit::new(),
            ended: LogLimit::new(),
            address: LogLimit::new(),
            socket: LogLimit::new(),
            state: LogLimit::new(),
            size: LogLimit::new(),
        }
    }
}

impl Worker {
    pub(super) fn handle_events(&mut self, now: Instant) {
        while let Some(event) = self.role.endpoint().poll_event() {
            self.handle_event(event, now);
        }
    }

    fn handle_event(&mut self, event: Event, now: Instant) {
        let Self {
            role,
            sockets,
            datapath,
            lines,
            ..
        } = self;
        match event {
            Event::Established { session, fresh } => {
                if let Some(suppressed) = lines.keys.allow(now) {
                    tracing::info!(
                        peer = role.peer_name(session),
                        session = session.number,
                        fresh,
                        suppressed,
                        "keys agreed on"
                    );
                }
            }
            Event::SegmentChanged {
                session,
                link,
                bytes,
                shrunk,
            } => {
                let name = role.peer_name(session);
                tracing::debug!(peer = name, %link, bytes, "length of datagrams");
                if shrunk && let Some(suppressed) = lines.size.allow(now) {
                    tracing::warn!(peer = name, %link, bytes, suppressed, "the path takes shorter datagrams only");
                }
                sockets.set_segment(session, link, bytes, datapath);
            }
            Event::Lost { session } => {
                if let Some(suppressed) = lines.ended.allow(now) {
                    let (peer, number) = (role.peer_name(session), session.number);
                    tracing::info!(peer, session = number, suppressed, "session ended");
                }
                sockets.forget(session, datapath);
            }
            Event::PathChanged {
                session,
                link,
                origin,
            } => {
                let address = origin.address;
                if let Some(suppressed) = lines.address.allow(now) {
                    tracing::info!(peer = role.peer_name(session), session = session.number, %link, %address, suppressed, "link has an address");
                }
                if let Err(error) = sockets.connect(session, link, origin, datapath)
                    && let Some(suppressed) = lines.socket.allow(now)
                {
                    tracing::warn!(%link, %error, suppressed, "link keeps the shared socket");
                }
            }
            Event::LinkState {
                session,
                link,
                state,
            } => {
                if let Some(suppressed) = lines.state.allow(now) {
                    let (state, at_ms) = (state.name(), now.as_micros() / 1000);
                    tracing::info!(peer = role.peer_name(session), session = session.number, %link, state, at_ms, suppressed, "link state");
                }
            }
        }
    }
}
