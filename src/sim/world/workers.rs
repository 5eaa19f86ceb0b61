//! The workers of both ends: who they are, and what goes from one to another.

use std::mem;

use super::{FlowId, World};
use crate::base::Instant;
use crate::endpoint::{Client, Endpoint, Handover, Mail, Server, SessionId};
use crate::session::path::Origin;
use crate::sim::packet::Side;
use crate::sim::plan::{Plan, client_config, server_config};
use crate::sim::wire::address;

/// Bytes on their way to another worker.
#[derive(Debug, Default)]
pub(super) struct Handed {
    frames: Vec<(u8, SessionId, Vec<u8>)>,
    datagrams: Vec<(u8, Origin, Vec<u8>)>,
    /// So many were handed over so far.
    count: u64,
}

impl Handover for Handed {
    fn frame(&mut self, worker: u8, session: SessionId, frame: &[u8]) -> bool {
        self.frames.push((worker, session, frame.to_vec()));
        self.count += 1;
        true
    }

    fn datagram(&mut self, worker: u8, origin: Origin, datagram: &[u8]) -> bool {
        self.datagrams.push((worker, origin, datagram.to_vec()));
        self.count += 1;
        true
    }
}

/// The workers of a client.
pub(super) fn clients(plan: &Plan, number: u8, restarts: u64, now: Instant) -> Vec<Client> {
    let workers = 0..plan.workers[Side::Client.index()];
    let config = |worker| client_config(plan, number, worker, restarts);
    workers
        .map(|worker| Client::new(config(worker), now))
        .collect()
}

/// The workers of the server.
pub(super) fn servers(plan: &Plan, restarts: u64, now: Instant) -> Vec<Server> {
    let workers = 0..plan.workers[Side::Server.index()];
    let config = |worker| server_config(plan, worker, restarts);
    workers
        .map(|worker| Server::new(config(worker), now))
        .collect()
}

/// What the server sees of a link, by the client's worker.
pub(super) fn origins(plan: &Plan, client: u8, port: u16, rebinds: u16) -> Vec<Origin> {
    let workers = 0..plan.workers[Side::Client.index()];
    workers
        .map(|worker| Origin {
            port,
            address: address(client, worker, port, rebinds),
            local: None,
        })
        .collect()
}

/// The queue of a flow that nothing was written for: the kernel has a hash for this.
pub(super) fn first_queue(flow: FlowId, count: u8) -> u8 {
    u8::try_from(flow.0 % u16::from(count.max(1))).unwrap_or(0)
}

impl World {
    /// The server's worker whose socket hears an address: as if the kernel spread the addresses, so that what is not
    /// for a worker is handed over.
    pub(super) fn listener(&self, origin: Origin) -> usize {
        usize::from(origin.address.port() / 7 + origin.port) % self.servers.len()
    }

    /// Bytes and words that were handed from one worker to another.
    pub const fn handed_over(&self) -> u64 {
        self.handed.count
    }

    /// What was handed over reaches its worker. `at`: the client that the frames are of, if they are a client's.
    pub(super) fn take_over(&mut self, side: Side, at: usize) {
        let now = self.now;
        for (worker, session, frame) in mem::take(&mut self.handed.frames) {
            let worker = usize::from(worker);
            match side {
                Side::Client => {
                    self.nodes[at].clients[worker].handle_handed_frame(session, &frame, now);
                }
                Side::Server => self.servers[worker].handle_handed_frame(session, &frame, now),
            }
        }
        while !self.handed.datagrams.is_empty() {
            for (worker, origin, mut bytes) in mem::take(&mut self.handed.datagrams) {
                let Self {
                    servers, handed, ..
                } = self;
                let server = &mut servers[usize::from(worker)];
                server.handle_handed_datagram(origin, &mut bytes, now, handed);
            }
        }
        if side == Side::Server {
            self.exchange();
        }
    }

    /// All words between workers, until nobody has one more.
    pub(super) fn exchange(&mut self) {
        let now = self.now;
        exchange(&mut self.servers, now);
        for node in &mut self.nodes {
            exchange(&mut node.clients, now);
        }
    }
}

fn exchange<E: Endpoint>(workers: &mut [E], now: Instant) {
    let mut at = 0;
    while at < workers.len() {
        let Some((to, mail)) = workers[at].poll_mail(now) else {
            at += 1;
            continue;
        };
        let mail: Mail = mail;
        workers[usize::from(to)].handle_mail(mail, now);
        // An answer may come from one that had nothing to say before.
        at = 0;
    }
}
