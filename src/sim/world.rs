//! A tunnel in virtual time: one server, its clients, the links between them, and the hosts behind both.
//!
//! ```text
//!  flows ─► TUN ─► client ══ link 0 up/down ══ NAT ══► server ─► TUN ─► flows
//!                        ══ link 1 up/down ══ NAT ══►
//! ```
//!
//! Never reads a clock. The event loop is the driver's: after each `handle_*` all polls are drained, then time jumps
//! to whatever is due first. The order of events at one instant is fixed, so a seed tells the whole story but for the
//! bytes of the handshakes.
//!
//! Checked at every step, with a panic that names the fault: time moves on; nothing comes out of a TUN twice or that
//! was never sent.

mod figures;

use std::time::Duration;

use super::impairment::{Impairment, Spec};
use super::ledger::{Counts, Ledger};
use super::packet::{self, FlowAddress, Side};
use super::plan::{Plan, client_config, server_config};
use super::traffic::Flow;
use super::wire::{Parcel, Wire, address, client_of, gather};
use crate::base::{FRAME_BYTES_MAX, Instant, Rng};
use crate::endpoint::{Client, Endpoint, Event, Server, Transmit};
use crate::session::RUN_BYTES_MAX;
use crate::session::path::Origin;

/// Turns of the event loop at one instant. More means that someone asks to be woken and then does nothing.
const TURNS_MAX: u32 = 2_000;
/// One client and its links.
#[derive(Debug)]
struct Node {
    client: Client,
    wires: Vec<Wire>,
}

/// A flow and what became of its frames, by the side that sent them.
#[derive(Debug)]
struct Slot {
    flow: Flow,
    client: u8,
    ledgers: [Ledger; 2],
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
    server: Server,
    flows: Vec<Slot>,
    events: Vec<(Instant, Side, Event)>,
    /// Turns at the present instant.
    turns: u32,
    restarts: u64,
    buffer: Vec<u8>,
    frame: Vec<u8>,
    arrived: Vec<(Vec<u8>, Origin)>,
}

impl World {
    /// A world at time zero: clients about to dial, no flows.
    pub fn new(plan: Plan) -> Self {
        let now = Instant::ZERO;
        let mut rng = Rng::new(plan.seed);
        let nodes = (0..plan.clients)
            .map(|number| Node {
                client: Client::new(client_config(&plan, number, 0), now),
                wires: (0_u16..)
                    .zip(&plan.links)
                    .map(|(port, link)| Wire {
                        up: Impairment::new(link.up.clone(), rng.next_u64()),
                        down: Impairment::new(link.down.clone(), rng.next_u64()),
                        origin: Origin {
                            port,
                            address: address(number, port, 0),
                            local: None,
                        },
                        device_mtu: link.device_mtu,
                        rebinds: 0,
                        nat_drops: 0,
                    })
                    .collect(),
            })
            .collect();
        Self {
            now,
            server: Server::new(server_config(&plan, 0), now),
            nodes,
            plan,
            flows: Vec::new(),
            events: Vec::new(),
            turns: 0,
            restarts: 0,
            buffer: vec![0; RUN_BYTES_MAX],
            frame: vec![0; FRAME_BYTES_MAX],
            arrived: Vec::new(),
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

    /// The client of a number.
    pub fn client(&mut self, number: u8) -> &mut Client {
        &mut self.nodes[usize::from(number)].client
    }

    /// The server.
    pub const fn server(&mut self) -> &mut Server {
        &mut self.server
    }

    /// Changes one or both directions of a link from now on.
    ///
    /// # Panics
    /// If the words are not a specification.
    pub fn change(&mut self, client: u8, link: usize, sides: &[Side], words: &str) {
        let now = self.now;
        let wire = &mut self.nodes[usize::from(client)].wires[link];
        for side in sides {
            let direction = match side {
                Side::Client => &mut wire.up,
                Side::Server => &mut wire.down,
            };
            let mut spec: Spec = direction.spec().clone();
            spec.apply(words).expect("a test's words are right");
            direction.set_spec(spec, now);
        }
    }

    /// The NAT in front of a link's client forgets its mapping: the next datagram comes from another address.
    pub fn rebind(&mut self, client: u8, link: usize) {
        let wire = &mut self.nodes[usize::from(client)].wires[link];
        wire.rebinds += 1;
        wire.origin.address = address(client, wire.origin.port, wire.rebinds);
    }

    /// The server's program starts anew and knows nothing.
    pub fn restart_server(&mut self) {
        self.restarts += 1;
        self.server = Server::new(server_config(&self.plan, self.restarts), self.now);
    }

    /// A client's program starts anew and knows nothing.
    pub fn restart_client(&mut self, number: u8) {
        self.restarts += 1;
        let config = client_config(&self.plan, number, self.restarts);
        self.nodes[usize::from(number)].client = Client::new(config, self.now);
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
        let mut next = self.server.poll_timeout(self.now);
        for node in &self.nodes {
            next = next.min(node.client.poll_timeout(self.now));
            for wire in &node.wires {
                next = next
                    .min(wire.up.poll_timeout())
                    .min(wire.down.poll_timeout());
            }
        }
        for slot in &self.flows {
            next = next.min(slot.flow.poll_timeout());
        }
        next
    }

    /// Who asks to be woken, for a panic.
    fn whose_turn(&self) -> String {
        let mut text = format!("server {:?}", self.server.next_timer(self.now));
        for node in &self.nodes {
            text += &format!(", client {:?}", node.client.next_timer(self.now));
            for wire in &node.wires {
                let (up, down) = (wire.up.poll_timeout(), wire.down.poll_timeout());
                text += &format!(", wire {up:?} {down:?}");
            }
        }
        for slot in &self.flows {
            text += &format!(", flow {:?}", slot.flow.poll_timeout());
        }
        text
    }

    /// Everything that happens at this instant, once.
    fn turn(&mut self) {
        let now = self.now;
        for at in 0..self.nodes.len() {
            self.receive(at);
        }
        if now >= self.server.poll_timeout(now) {
            self.server.handle_timeout(now);
        }
        for node in &mut self.nodes {
            if now >= node.client.poll_timeout(now) {
                node.client.handle_timeout(now);
            }
        }
        for at in 0..self.flows.len() {
            if now >= self.flows[at].flow.poll_timeout() {
                self.flows[at].flow.handle_timeout(now);
            }
            self.offer(at);
        }
        self.drain_server();
        for at in 0..self.nodes.len() {
            self.drain_client(at);
        }
        // What came out of the TUNs makes hosts answer.
        for at in 0..self.flows.len() {
            self.offer(at);
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
        for link in 0..self.nodes[at].wires.len() {
            gather(&mut self.nodes[at].wires[link].up, now, &mut arrived);
            for (mut bytes, origin) in arrived.drain(..) {
                self.server.handle_datagrams(Some(origin), &mut bytes, now);
                self.drain_frames(Side::Server, at);
            }
            gather(&mut self.nodes[at].wires[link].down, now, &mut arrived);
            for (mut bytes, origin) in arrived.drain(..) {
                let wire = &mut self.nodes[at].wires[link];
                if origin.address != wire.origin.address {
                    wire.nat_drops += 1;
                    continue;
                }
                self.nodes[at]
                    .client
                    .handle_datagrams(None, &mut bytes, now);
                self.drain_frames(Side::Client, at);
            }
        }
        self.arrived = arrived;
    }

    /// Frames that a flow's hosts want to send now.
    fn offer(&mut self, at: usize) {
        let now = self.now;
        for side in [Side::Client, Side::Server] {
            let mut frame = std::mem::take(&mut self.frame);
            while self.flows[at].flow.poll_frame(side, now, &mut frame) {
                let arrival = packet::read(&frame).expect("hosts write what they can read");
                let slot = &mut self.flows[at];
                slot.ledgers[side.index()].on_sent(&arrival);
                match side {
                    Side::Client => {
                        let node = &mut self.nodes[usize::from(slot.client)];
                        node.client.handle_frame(&frame, now);
                    }
                    Side::Server => self.server.handle_frame(&frame, now),
                }
            }
            self.frame = frame;
        }
    }

    fn drain_client(&mut self, at: usize) {
        let now = self.now;
        while let Some(event) = self.nodes[at].client.poll_event() {
            self.events.push((now, Side::Client, event));
        }
        while let Some(transmit) = self.nodes[at].client.poll_transmit(now, &mut self.buffer) {
            let Transmit {
                link,
                bytes,
                segment,
                ..
            } = transmit;
            let (peer, link) = link.expect("a client sends on links");
            let Node { client, wires } = &mut self.nodes[at];
            let wire = &mut wires[link.index()];
            for datagram in self.buffer[..bytes].chunks(usize::from(segment)) {
                if let Some(room) = wire.refusal(datagram) {
                    client.on_path_limit(peer, link, room, now);
                    continue;
                }
                let parcel = Parcel {
                    bytes: datagram.to_vec(),
                    origin: wire.origin,
                };
                wire.up.handle_packet(parcel, now);
            }
        }
        self.drain_frames(Side::Client, at);
    }

    fn drain_server(&mut self) {
        let now = self.now;
        while let Some(event) = self.server.poll_event() {
            self.events.push((now, Side::Server, event));
        }
        while let Some(transmit) = self.server.poll_transmit(now, &mut self.buffer) {
            let Transmit {
                link,
                origin,
                bytes,
                segment,
            } = transmit;
            let origin = origin.expect("a server's sockets are not connected");
            let Some(node) = self.nodes.get_mut(usize::from(client_of(origin.address))) else {
                continue; // an address that never was
            };
            let wire = &mut node.wires[usize::from(origin.port)];
            for datagram in self.buffer[..bytes].chunks(usize::from(segment)) {
                if let (Some(room), Some((peer, link))) = (wire.refusal(datagram), link) {
                    self.server.on_path_limit(peer, link, room, now);
                    continue;
                }
                let parcel = Parcel {
                    bytes: datagram.to_vec(),
                    origin,
                };
                wire.down.handle_packet(parcel, now);
            }
        }
        self.drain_frames(Side::Server, 0);
    }

    /// Frames that leave the tunnel at one side reach their hosts.
    fn drain_frames(&mut self, side: Side, at: usize) {
        let now = self.now;
        let mut frame = std::mem::take(&mut self.frame);
        frame.resize(FRAME_BYTES_MAX, 0);
        loop {
            let polled = match side {
                Side::Client => self.nodes[at].client.poll_frame(now, &mut frame),
                Side::Server => self.server.poll_frame(now, &mut frame),
            };
            let Some(bytes) = polled else { break };
            let arrival = packet::read(&frame[..bytes]).expect("a frame comes out as it went in");
            let slot = &mut self.flows[usize::from(arrival.flow)];
            let ledger = &mut slot.ledgers[side.other().index()];
            if let Err(fault) = ledger.on_delivered(&arrival) {
                panic!("{now:?} at {side:?}: {fault}");
            }
            slot.flow.handle_packet(side, &arrival, now);
        }
        self.frame = frame;
    }
}
