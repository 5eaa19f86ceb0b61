//! What can be read off a world besides its flows: the links' own counters and queues, and what the tunnel lost.

use std::time::Duration;

use super::World;
use crate::base::{DropCounters, DropReason, Instant};
use crate::endpoint::{Endpoint, PeerId, SessionId};
use crate::session::stats::SessionStats;
use crate::sim::impairment::Spec;
use crate::sim::packet::Side;

/// Discards of the sending end by which a flow is meant to notice that there is too much of it.
const KNOWN_DROPS: [DropReason; 4] = [
    DropReason::Aqm,
    DropReason::QueueFull,
    DropReason::NoBuffer,
    DropReason::NoSession,
];

impl World {
    /// A client's first session and the server's session with it, where there are such.
    pub fn stats(&mut self, client: u8) -> (Option<SessionStats>, Option<SessionStats>) {
        self.stats_of(client, 0)
    }

    /// The session of a client's worker and the server's session with it, where there are such.
    pub fn stats_of(
        &mut self,
        client: u8,
        worker: u8,
    ) -> (Option<SessionStats>, Option<SessionStats>) {
        let now = self.now;
        let near = &mut self.nodes[usize::from(client)].clients[usize::from(worker)];
        let near = near.stats(now).peers.swap_remove(0).session;
        let id = SessionId {
            peer: PeerId(u16::from(client)),
            number: worker,
        };
        let mut far = self
            .servers
            .iter_mut()
            .flat_map(|server| server.stats(now).peers);
        (
            near,
            far.find(|peer| peer.id == id).and_then(|peer| peer.session),
        )
    }

    /// Packets and bytes that a link's directions took up to now, foreign traffic among them: towards the server, towards
    /// the client.
    pub fn carried(&self, client: u8, link: usize) -> [(u64, u64); 2] {
        let wire = &self.nodes[usize::from(client)].wires[link];
        [&wire.up, &wire.down].map(|direction| {
            let counters = direction.counters();
            (counters.handled, counters.handled_bytes)
        })
    }

    /// Packets that a link's directions lost, foreign traffic among them: towards the server, towards the client.
    pub fn lost(&self, client: u8, link: usize) -> [u64; 2] {
        let wire = &self.nodes[usize::from(client)].wires[link];
        [&wire.up, &wire.down].map(|direction| {
            let counters = direction.counters();
            counters.lost + counters.queue_drops + counters.outage_drops + counters.size_drops
        })
    }

    /// How a link behaves at present: towards the server, towards the client.
    pub fn specs(&self, client: u8, link: usize) -> [&Spec; 2] {
        let wire = &self.nodes[usize::from(client)].wires[link];
        [&wire.up, &wire.down].map(|direction| direction.spec())
    }

    /// Writes down the queueing delay of each datagram in the links' bottlenecks from here on.
    pub fn record_waits(&mut self) {
        for wire in self.nodes.iter_mut().flat_map(|node| &mut node.wires) {
            wire.up.record_waits();
            wire.down.record_waits();
        }
    }

    /// When each datagram from `from` left the bottleneck of a link, and its queueing delay there.
    pub fn waits(&self, client: u8, link: usize, from: Side) -> &[(Instant, Duration)] {
        let wire = &self.nodes[usize::from(client)].wires[link];
        match from {
            Side::Client => wire.up.waits(),
            Side::Server => wire.down.waits(),
        }
    }

    /// Segments that the sending end dropped knowingly, from either side of client 0.
    pub fn known_drops(&mut self) -> [u64; 2] {
        let now = self.now;
        let near = self.nodes[0]
            .clients
            .iter_mut()
            .map(|client| client.stats(now));
        let near: Vec<_> = near.collect();
        let far = self.servers.iter_mut().map(|server| server.stats(now));
        let far: Vec<_> = far.collect();
        [near, far].map(|side| {
            let mut drops = DropCounters::default();
            for worker in &side {
                drops.merge(&worker.drops);
                let own = worker.peers.iter().filter(|peer| peer.id.peer == PeerId(0));
                for session in own.filter_map(|peer| peer.session.as_ref()) {
                    drops.merge(&session.drops);
                }
            }
            KNOWN_DROPS.iter().map(|reason| drops.get(*reason)).sum()
        })
    }

    /// Segments sent from either side of client 0 that did not come out and that the sending end did not drop
    /// knowingly. Segments under way count, so let them arrive first.
    pub fn lost_inside(&mut self) -> [u64; 2] {
        let known = self.known_drops();
        [Side::Client, Side::Server].map(|side| {
            let missing = self.counts(side).missing();
            missing.saturating_sub(known[side.index()])
        })
    }
}
