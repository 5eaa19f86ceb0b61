//! Foreign traffic: what somebody else in the house sends over a link without the tunnel.
//!
//! ```text
//!  host in the house ─► queue of link N, up ─────► host somewhere            the tunnel's datagrams wait in the
//!                    ◄───── queue of link N, down ◄─ (answers)               same queues
//! ```
//!
//! A foreign flow is one of the flows that go through tunnels, but its frames are put on one link as they are: they
//! share its bottleneck, its delay and its losses with the tunnel, and no end of the tunnel ever sees them. Its far
//! host is as far away as the server. Never has superframes: a home router's queue is behind whatever makes packets of
//! them.

use super::World;
use crate::base::Instant;
use crate::sim::packet::{self, FlowAddress, Side};
use crate::sim::traffic::Flow;
use crate::sim::wire::Parcel;

/// A flow beside the tunnel.
#[derive(Debug)]
pub(super) struct Foreign {
    flow: Flow,
    client: u8,
    link: usize,
    until: Instant,
}

/// Names a foreign flow of a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForeignId(u16);

impl World {
    /// The address that the next foreign flow of a client's house will have.
    pub fn next_foreign_address(&self, client: u8) -> FlowAddress {
        let flow = u16::try_from(self.foreign.len()).unwrap_or(u16::MAX);
        FlowAddress { client, flow }
    }

    /// Adds a flow made for [`World::next_foreign_address`] on a link; it sends nothing new from `until` on.
    pub fn add_foreign(
        &mut self,
        client: u8,
        link: usize,
        flow: Flow,
        until: Instant,
    ) -> ForeignId {
        let id = ForeignId(self.next_foreign_address(client).flow);
        self.foreign.push(Foreign {
            flow,
            client,
            link,
            until,
        });
        id
    }

    /// A foreign flow.
    pub fn foreign(&self, id: ForeignId) -> &Flow {
        &self.foreign[usize::from(id.0)].flow
    }

    /// When a foreign flow has something to do.
    pub(super) fn next_foreign(&self) -> Instant {
        let due = self
            .foreign
            .iter()
            .map(|foreign| foreign.flow.poll_timeout());
        due.min().unwrap_or(Instant::FAR)
    }

    /// Frames that came to the hosts at `side`.
    pub(super) fn receive_foreign(&mut self, side: Side, frames: &mut Vec<Vec<u8>>) {
        for frame in frames.drain(..) {
            let arrival = packet::read(&frame).expect("a link delivers what it was given");
            let foreign = &mut self.foreign[usize::from(arrival.flow)];
            foreign.flow.handle_packet(side, &arrival, self.now);
        }
    }

    /// What the hosts want to send goes onto their links.
    pub(super) fn offer_foreign(&mut self) {
        let now = self.now;
        for foreign in &mut self.foreign {
            // Whoever wakes the flow after its end finds it over: nothing has to be due at the end itself.
            if now >= foreign.until {
                foreign.flow.stop();
            }
            if now >= foreign.flow.poll_timeout() {
                foreign.flow.handle_timeout(now);
            }
            let wire = &mut self.nodes[usize::from(foreign.client)].wires[foreign.link];
            for (side, direction) in [(Side::Client, &mut wire.up), (Side::Server, &mut wire.down)]
            {
                while foreign.flow.poll_frame(side, now, &mut self.frame) {
                    let frame = self.frame.clone();
                    direction.handle_packet(
                        Parcel::Foreign {
                            frame,
                            damaged: false,
                        },
                        now,
                    );
                }
            }
        }
    }
}
