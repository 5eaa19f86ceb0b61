//! What befalls a world from outside while it runs: links that change, NATs that forget, programs that start anew.

use super::{World, workers};
use crate::sim::impairment::Spec;
use crate::sim::packet::Side;

impl World {
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
        let port = wire.origins[0].port;
        wire.origins = workers::origins(&self.plan, client, port, wire.rebinds);
    }

    /// The server's program starts anew and knows nothing.
    pub fn restart_server(&mut self) {
        self.restarts += 1;
        self.servers = workers::servers(&self.plan, self.restarts, self.now);
    }

    /// A client's program starts anew and knows nothing.
    pub fn restart_client(&mut self, number: u8) {
        self.restarts += 1;
        let clients = workers::clients(&self.plan, number, self.restarts, self.now);
        self.nodes[usize::from(number)].clients = clients;
    }
}
