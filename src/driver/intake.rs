//! What the kernel delivers, handed to the endpoint while the datapath is in a turn.
//!
//! Never touches the datapath: what comes of a frame or a datagram is sent after the turn, by [`super::worker`].

use super::landing::Landing;
use super::mailbox::Mailbox;
use super::sockets::Sockets;
use crate::base::DropReason;
use crate::endpoint::Endpoint;
use crate::session::path::Origin;
use crate::sys::{Clock, Handler};

/// Datagrams taken from one listener in one go; the rest waits for the next turn.
const LISTENER_BATCH: usize = 64;

/// Hands what the kernel delivers to the endpoint.
pub struct Intake<'a> {
    pub endpoint: &'a mut dyn Endpoint,
    pub sockets: &'a mut Sockets,
    pub landing: &'a mut Landing,
    pub clock: &'a Clock,
    pub mailbox: &'a mut Mailbox,
}

impl Handler for Intake<'_> {
    fn on_frame(&mut self, frame: &mut [u8]) {
        let now = self.clock.now();
        self.endpoint.handle_frame(frame, now, self.mailbox);
    }

    fn on_datagrams(&mut self, key: u32, bytes: &mut [u8]) {
        let origin = self.sockets.origin_of(key);
        self.endpoint
            .handle_datagrams(origin, bytes, self.clock.now(), self.mailbox);
    }

    fn on_readable(&mut self, key: u32) {
        for _ in 0..LISTENER_BATCH {
            let Some((bytes, origin)): Option<(&mut [u8], Origin)> = self.sockets.receive(key)
            else {
                return;
            };
            let now = self.clock.now();
            self.endpoint
                .handle_datagrams(Some(origin), bytes, now, self.mailbox);
        }
    }

    fn on_send_error(&mut self, key: u32, errno: i32, bytes: usize) {
        tracing::debug!(key, errno, bytes, "send refused");
        let Some((session, link)) = self.sockets.link_of(key) else {
            return self.endpoint.count_drop(DropReason::SendFailed, 1);
        };
        if Sockets::is_link_down(errno) {
            // The session counts it.
            return self.endpoint.on_send_error(session, link, self.clock.now());
        }
        self.endpoint.count_drop(DropReason::SendFailed, 1);
        if Sockets::is_too_long(errno)
            && let Some(bytes) = self.sockets.path_limit(session, link)
        {
            self.endpoint
                .on_path_limit(session, link, bytes, self.clock.now());
        }
    }

    fn on_tun_error(&mut self, errno: i32, frame: &[u8]) {
        tracing::debug!(errno, "frame refused by the TUN");
        if errno == libc::EINVAL && self.landing.refused(frame) {
            return;
        }
        self.endpoint.count_drop(DropReason::TunWriteFailed, 1);
    }

    fn on_wake(&mut self) {}
}
