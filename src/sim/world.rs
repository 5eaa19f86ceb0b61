//! A tunnel in virtual time: one server, its clients, the links between them, and the hosts behind both.
//!
//! ```text
//!  flows ─► TUN ─► client ══ link 0 up/down ══ NAT ══► server ─► TUN ─► flows
//!                        ══ link 1 up/down ══ NAT ══►
//!           foreign traffic ═══╝ of the house, beside the tunnel, to hosts that know nothing of it
//! ```
//!
//! Never reads a clock. The event loop is the driver's: after each `handle_*` all polls are drained, then time jumps
//! to whatever is due first. Both ends may have several workers: what these tell each other arrives at once, and the
//! TUN reads a flow where its last frame was written, as the kernel's does. The order of events at one instant is
//! fixed, so a seed tells the whole story but for the bytes of the handshakes.
//!
//! Checked at every step, with a panic that names the fault: time moves on; nothing comes out of a TUN twice or that
//! was never sent.

mod figures;
mod foreign;
mod trouble;
mod workers;

use std::time::Duration;

use super::impairment::Impairment;
use super::ledger::{Counts, Ledger};
use super::packet::{self, FlowAddress, Side};
use super::plan::Plan;
use super::traffic::Flow;
use super::wire::{Parcel, Wire, client_of, gather};
use crate::base::{FRAME_BYTES_MAX, Instant, Rng};
use crate::endpoint::{Client, Endpoint, Event, NoOthers, Server, Transmit};
use crate::session::RUN_BYTES_MAX;
use crate::session::path::Origin;
use foreign::Foreign;

pub use foreign::ForeignId;

/// Turns of the event loop at one instant. More means that someone asks to be woken and then does nothing.
const TURNS_MAX: u32 = 2_000;
/// One client and its links.
#[derive(Debug)]
struct Node {
    /// By worker.
    clients: Vec<Client>,
    wires: Vec<Wire>,
}

/// A flow and what became of its frames, by the side that sent them.
#[derive(Debug)]
struct Slot {
    flow: Flow,
    client: u8,
    ledgers: [Ledger; 2],
    /// Which worker's queue the TUN of each side gives its frames to.
    queues: [u8; 2],
}

/// Names a flow of a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowId(u16);

/// The world.
#[derive(Debug)]
pub struct World {
    now: Instant,
    plan: Plan,
    nodes: Vec<Node>,
    /// By worker.
    servers: Vec<Server>,
    handed: workers::Handed,
    flows: Vec<Slot>,
    foreign: Vec<Foreign>,
    events: Vec<(Instant, Side, Event)>,
    /// Turns at the present instant.
    turns: u32,
    restarts: u64,
    buffer: Vec<u8>,
    frame: Vec<u8>,
    arrived: Vec<(Vec<u8>, Origin)>,
    arrived_foreign: Vec<Vec<u8>>,
}

impl World {
    /// A world at time zero: clients about to dial, no flows.
    pub fn new(plan: Plan) -> Self {
        let now = Instant::ZERO;
        let mut rng = Rng::new(plan.seed);
        let nodes = (0..plan.clients)
            .map(|number| Node {
                clients: workers::clients(&plan, number, 0, now),
                wires: (0_u16..)
                    .zip(&plan.links)
                    .map(|(port, link)| Wire {
                        up: Impairment::new(link.up.clone(), rng.next_u64()),
                        down: Impairment::new(link.down.clone(), rng.next_u64()),
                        origins: workers::origins(&plan, number, port, 0),
                        device_mtu: link.device_mtu,
                        rebinds: 0,
                        nat_drops: 0,
                    })
                    .collect(),
            })
            .collect();
        Self {
            now,
            servers: workers::servers(&plan, 0, now),
            handed: workers::Handed::default(),
            nodes,
            plan,
            flows: Vec::new(),
            foreign: Vec::new(),
            events: Vec::new(),
            turns: 0,
            restarts: 0,
            buffer: vec![0; RUN_BYTES_MAX],
            frame: vec![0; FRAME_BYTES_MAX],
            arrived: Vec::new(),
            arrived_foreign: Vec::new(),
        }
    }

    /// The present.
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// The address that the next flow of a client will have.
    pub fn next_address(&self, client: u8) -> FlowAddress {
        let flow = u16::try_from(self.flows.len()).unwrap_or(u16::MAX);
        FlowAddress { client, flow }
    }

    /// Adds a flow made for [`World::next_address`].
    pub fn add(&mut self, client: u8, flow: Flow) -> FlowId {
        let id = FlowId(self.next_address(client).flow);
        self.flows.push(Slot {
            flow,
            client,
            ledgers: Default::default(),
            queues: self
                .plan
                .workers
                .map(|count| workers::first_queue(id, count)),
        });
        id
    }

    /// A flow.
    pub fn flow(&self, id: FlowId) -> &Flow {
        &self.flows[usize::from(id.0)].flow
    }

    /// Ends the sending of a flow.
    pub fn stop(&mut self, id: FlowId) {
        self.flows[usize::from(id.0)].flow.stop();
    }

    /// Ends the sending of all flows; echoes and acknowledgements go on.
    pub fn stop_all(&mut self) {
        for slot in &mut self.flows {
            slot.flow.stop();
        }
    }

    /// What became of a flow's frames sent from `side`.
    pub fn ledger(&self, id: FlowId, side: Side) -> &Ledger {
        &self.flows[usize::from(id.0)].ledgers[side.index()]
    }

    /// The sums over all flows of frames sent from `side`.
    pub fn counts(&self, side: Side) -> Counts {
        let mut sum = Counts::default();
        for slot in &self.flows {
            sum.add(slot.ledgers[side.index()].counts());
        }
        sum
    }

    /// Everything the endpoints told, with its time.
    pub fn events(&self) -> &[(Instant, Side, Event)] {
        &self.events
    }

    /// The client of a number; its first worker.
    pub fn client(&mut self, number: u8) -> &mut Client {
        &mut self.nodes[usize::from(number)].clients[0]
    }

    /// The server; its first worker.
    pub fn server(&mut self) -> &mut Server {
        &mut self.servers[0]
    }

    /// Runs for a time.
    pub fn run_for(&mut self, time: Duration) {
        self.run_until(self.now + time, |_| false);
    }

    /// Runs until `done` says so or the time comes; says whether `done` did.
    pub fn run_until(&mut self, end: Instant, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        loop {
            if done(self) {
                return true;
            }
            let next = self.next_event();
            if next > end {
                self.now = end;
                self.turns = 0;
                return false;
            }
            self.turns = if next > self.now { 0 } else { self.turns + 1 };
            self.now = self.now.max(next);
            assert!(
                self.turns < TURNS_MAX,
                "time stands still at {:?}: {}",
                self.now,
                self.whose_turn()
            );
            self.turn();
        }
    }

    fn next_event(&self) -> Instant {
        let servers = self.servers.iter();
        let timeouts = servers.map(|server| server.poll_timeout(self.now));
        let mut next = timeouts.min().unwrap_or(Instant::FAR);
        for node in &self.nodes {
            for client in &node.clients {
                next = next.min(client.poll_timeout(self.now));
            }
            for wire in &node.wires {
                next = next
                    .min(wire.up.poll_timeout())
                    .min(wire.down.poll_timeout());
            }
        }
        for slot in &self.flows {
            next = next.min(slot.flow.poll_timeout());
        }
        next.min(self.next_foreign())
    }

    /// Who asks to be woken, for a panic.
    fn whose_turn(&self) -> String {
        let mut text = String::new();
        for server in &self.servers {
            text += &format!("server {:?}, ", server.next_timer(self.now));
        }
        for node in &self.nodes {
            for client in &node.clients {
                text += &format!(", client {:?}", client.next_timer(self.now));
            }
            for wire in &node.wires {
                let (up, down) = (wire.up.poll_timeout(), wire.down.poll_timeout());
                text += &format!(", wire {up:?} {down:?}");
            }
        }
        for slot in &self.flows {
            text += &format!(", flow {:?}", slot.flow.poll_timeout());
        }
        text + &format!(", foreign {:?}", self.next_foreign())
    }

    /// Everything that happens at this instant, once.
    fn turn(&mut self) {
        let now = self.now;
        for at in 0..self.nodes.len() {
            self.receive(at);
        }
        for server in &mut self.servers {
            if now >= server.poll_timeout(now) {
                server.handle_timeout(now);
            }
        }
        for client in self.nodes.iter_mut().flat_map(|node| &mut node.clients) {
            if now >= client.poll_timeout(now) {
                client.handle_timeout(now);
            }
        }
        self.exchange();
        for at in 0..self.flows.len() {
            if now >= self.flows[at].flow.poll_timeout() {
                self.flows[at].flow.handle_timeout(now);
            }
            self.offer(at);
        }
        self.offer_foreign();
        self.drain_server();
        for at in 0..self.nodes.len() {
            self.drain_client(at);
        }
        // What came out of the TUNs makes hosts answer.
        let mut offered = false;
        for at in 0..self.flows.len() {
            offered |= self.offer(at);
        }
        if !offered {
            return;
        }
        self.drain_server();
        for at in 0..self.nodes.len() {
            self.drain_client(at);
        }
    }

    /// Datagrams that reached the far ends of a node's links.
    fn receive(&mut self, at: usize) {
        let now = self.now;
        let mut arrived = std::mem::take(&mut self.arrived);
        let mut foreign = std::mem::take(&mut self.arrived_foreign);
        for link in 0..self.nodes[at].wires.len() {
            let wire = &mut self.nodes[at].wires[link];
            gather(&mut wire.up, now, &mut arrived, &mut foreign);
            self.receive_foreign(Side::Server, &mut foreign);
            for (mut bytes, origin) in arrived.drain(..) {
                let worker = self.listener(origin);
                let Self {
                    servers, handed, ..
                } = self;
                servers[worker].handle_datagrams(Some(origin), &mut bytes, now, handed);
                self.take_over(Side::Server, at);
                self.drain_frames(Side::Server, at);
            }
            let wire = &mut self.nodes[at].wires[link];
            gather(&mut wire.down, now, &mut arrived, &mut foreign);
            self.receive_foreign(Side::Client, &mut foreign);
            for (mut bytes, origin) in arrived.drain(..) {
                let wire = &mut self.nodes[at].wires[link];
                let known = wire
                    .origins
                    .iter()
                    .any(|known| known.address == origin.address);
                if !known {
                    wire.nat_drops += 1;
                    continue;
                }
                let worker = usize::from(client_of(origin.address).1);
                self.nodes[at].clients[worker].handle_datagrams(
                    None,
                    &mut bytes,
                    now,
                    &mut NoOthers,
                );
                self.drain_frames(Side::Client, at);
            }
        }
        self.arrived = arrived;
        self.arrived_foreign = foreign;
    }

    /// Frames that a flow's hosts want to send now; whether there were any.
    fn offer(&mut self, at: usize) -> bool {
        let now = self.now;
        let mut offered = false;
        for side in [Side::Client, Side::Server] {
            let mut frame = std::mem::take(&mut self.frame);
            while self.flows[at].flow.poll_frame(side, now, &mut frame) {
                offered = true;
                let arrival = packet::read(&frame).expect("hosts write what they can read");
                let slot = &mut self.flows[at];
                slot.ledgers[side.index()].on_sent(&arrival);
                let (node, queue) = (
                    usize::from(slot.client),
                    usize::from(slot.queues[side.index()]),
                );
                let handed = &mut self.handed;
                match side {
                    Side::Client => {
                        self.nodes[node].clients[queue].handle_frame(&frame, now, handed);
                    }
                    Side::Server => self.servers[queue].handle_frame(&frame, now, handed),
                }
                self.take_over(side, node);
            }
            self.frame = frame;
        }
        offered
    }

    fn drain_client(&mut self, at: usize) {
        for worker in 0..self.nodes[at].clients.len() {
            self.drain_client_worker(at, worker);
        }
        self.drain_frames(Side::Client, at);
    }

    fn drain_client_worker(&mut self, at: usize, worker: usize) {
        let now = self.now;
        while let Some(event) = self.nodes[at].clients[worker].poll_event() {
            self.events.push((now, Side::Client, event));
        }
        while let Some(transmit) =
            self.nodes[at].clients[worker].poll_transmit(now, &mut self.buffer)
        {
            let Transmit {
                link,
                bytes,
                segment,
                ..
            } = transmit;
            let (session, link) = link.expect("a client sends on links");
            let Node { clients, wires } = &mut self.nodes[at];
            let wire = &mut wires[link.index()];
            for datagram in self.buffer[..bytes].chunks(usize::from(segment)) {
                if let Some(room) = wire.refusal(datagram) {
                    clients[worker].on_path_limit(session, link, room, now);
                    continue;
                }
                let parcel = Parcel::Datagram {
                    bytes: datagram.to_vec(),
                    origin: wire.origins[worker],
                };
                wire.up.handle_packet(parcel, now);
            }
        }
    }

    fn drain_server(&mut self) {
        for worker in 0..self.servers.len() {
            self.drain_server_worker(worker);
        }
        self.drain_frames(Side::Server, 0);
    }

    fn drain_server_worker(&mut self, worker: usize) {
        let now = self.now;
        while let Some(event) = self.servers[worker].poll_event() {
            self.events.push((now, Side::Server, event));
        }
        while let Some(transmit) = self.servers[worker].poll_transmit(now, &mut self.buffer) {
            let Transmit {
                link,
                origin,
                bytes,
                segment,
            } = transmit;
            let origin = origin.expect("a server's sockets are not connected");
            let (client, _) = client_of(origin.address);
            let Some(node) = self.nodes.get_mut(usize::from(client)) else {
                continue; // an address that never was
            };
            let wire = &mut node.wires[usize::from(origin.port)];
            for datagram in self.buffer[..bytes].chunks(usize::from(segment)) {
                if let (Some(room), Some((session, link))) = (wire.refusal(datagram), link) {
                    self.servers[worker].on_path_limit(session, link, room, now);
                    continue;
                }
                let parcel = Parcel::Datagram {
                    bytes: datagram.to_vec(),
                    origin,
                };
                wire.down.handle_packet(parcel, now);
            }
        }
    }

    /// Frames that leave the tunnel at one side reach their hosts.
    fn drain_frames(&mut self, side: Side, at: usize) {
        for worker in 0..usize::from(self.plan.workers[side.index()]) {
            self.drain_frames_of(side, at, worker);
        }
    }

    fn drain_frames_of(&mut self, side: Side, at: usize, worker: usize) {
        let now = self.now;
        let mut frame = std::mem::take(&mut self.frame);
        frame.resize(FRAME_BYTES_MAX, 0);
        loop {
            let polled = match side {
                Side::Client => self.nodes[at].clients[worker].poll_frame(now, &mut frame),
                Side::Server => self.servers[worker].poll_frame(now, &mut frame),
            };
            let Some(bytes) = polled else { break };
            let arrival = packet::read(&frame[..bytes]).expect("a frame comes out as it went in");
            let slot = &mut self.flows[usize::from(arrival.flow)];
            slot.queues[side.index()] = u8::try_from(worker).unwrap_or(0);
            let ledger = &mut slot.ledgers[side.other().index()];
            if let Err(fault) = ledger.on_delivered(&arrival) {
                panic!("{now:?} at {side:?}: {fault}");
            }
            slot.flow.handle_packet(side, &arrival, now);
        }
        self.frame = frame;
    }
}
