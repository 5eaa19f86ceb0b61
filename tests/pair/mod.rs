//! Two sessions with real keys, joined by memory.
#![allow(dead_code, unused_imports, clippy::unwrap_used)] // each test uses its part

pub mod hostile;

use chainlightning::base::{FRAME_BYTES_MAX, Instant};
pub use chainlightning::bench::core::pair::{
    config, handshake, index_of, keys, origin, session, sessions,
};
use chainlightning::session::{Event, RUN_BYTES_MAX, Session};

/// Two sessions and the memory between them.
pub struct Pair {
    pub client: Session,
    pub server: Session,
    /// Every n-th datagram is lost; 0 = none.
    pub lose_each: u64,
    /// What happens to segmented sends of the client: from its datagrams, whether each is lost.
    pub spoil: fn(segments: usize, even: bool, index: usize) -> bool,
    /// Whether the client's socket is to cut runs.
    segmented: bool,
    pub carried: u64,
    pub delivered: [u64; 2],
    buffer: Vec<u8>,
    frame: Vec<u8>,
}

impl Pair {
    pub fn new(links: u8, now: Instant) -> Self {
        let (client, server) = sessions(links, now);
        Self {
            client,
            server,
            lose_each: 0,
            spoil: |_, _, _| false,
            segmented: true,
            carried: 0,
            delivered: [0; 2],
            buffer: vec![0; RUN_BYTES_MAX + 1024],
            frame: vec![0; FRAME_BYTES_MAX],
        }
    }

    /// Everything that can happen at this instant.
    pub fn turn(&mut self, now: Instant) {
        self.client.handle_timeout(now);
        self.server.handle_timeout(now);
        while let Some(event) = self.client.poll_event() {
            if let Event::SegmentChanged { bytes, .. } = event {
                self.segmented = bytes > 0;
            }
        }
        while self.server.poll_event().is_some() {}
        while self.carry(true, now) || self.carry(false, now) {}
    }

    fn carry(&mut self, up: bool, now: Instant) -> bool {
        let (from, to) = if up {
            (&mut self.client, &mut self.server)
        } else {
            (&mut self.server, &mut self.client)
        };
        let Some(transmit) = from.poll_transmit(now, &mut self.buffer) else {
            return false;
        };
        let link = transmit.link;
        let run = &mut self.buffer[..transmit.bytes];
        let segment = usize::from(transmit.segment);
        let (segments, even) = (
            run.len().div_ceil(segment),
            run.len().is_multiple_of(segment),
        );
        for (index, datagram) in run.chunks_mut(segment).enumerate() {
            self.carried += 1;
            if up && self.segmented && segments > 1 && (self.spoil)(segments, even, index) {
                continue;
            }
            if self.lose_each > 0 && self.carried.is_multiple_of(self.lose_each) {
                continue;
            }
            let from = up.then(|| origin(link.0));
            let _ = to.handle_datagram(1, link, datagram, from, now);
        }
        while to.poll_frame(now, &mut self.frame).is_some() {
            self.delivered[usize::from(up)] += 1;
        }
        true
    }
}

/// A frame with a UDP packet of this length, of one of several flows.
pub fn frame(flow: u16, packet_bytes: usize) -> Vec<u8> {
    chainlightning::bench::core::frames::udp(flow, u16::try_from(packet_bytes).unwrap())
}
