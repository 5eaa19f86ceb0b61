//! The client's uplinks and the links over them: where each one goes, and what a WAN may carry.
//!
//! Never does: look at this host. Devices and addresses are found when the sockets are opened.

use std::net::IpAddr;
use std::time::Duration;

use super::choices::{Direction, WanRole};
use crate::base::{LinkId, Rate, WanId};

/// WANs, links and ports.
#[derive(Clone, Debug, PartialEq)]
pub struct Links {
    /// The client's WANs, in the order of their ids, those that are off included. Empty on the server.
    pub wans: Vec<Wan>,
    /// First UDP port of the server.
    pub start_port: u16,
    /// Links (sockets) over each WAN.
    pub links_per_wan: u8,
    /// How many ports the server listens on, from `start_port` upwards.
    pub ports: u16,
}

impl Links {
    /// The client's links: link `i` runs over WAN `i / links_per_wan` to port `start_port + i mod ports`.
    pub fn lanes(&self) -> impl Iterator<Item = LinkPlan> + '_ {
        (0_u8..)
            .zip(
                self.wans
                    .iter()
                    .flat_map(|wan| std::iter::repeat_n(wan.id, usize::from(self.links_per_wan))),
            )
            .map(|(index, wan)| LinkPlan {
                id: LinkId(index),
                wan,
                server_port: self.start_port + u16::from(index) % self.ports,
            })
    }

    /// All ports of the server.
    pub fn server_ports(&self) -> impl Iterator<Item = u16> + use<> {
        let first = self.start_port;
        (0..self.ports).map(move |offset| first + offset)
    }
}

/// Where one link of the client goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkPlan {
    /// The link.
    pub id: LinkId,
    /// The WAN it runs over.
    pub wan: WanId,
    /// The server's port.
    pub server_port: u16,
}

/// One uplink of the client.
#[derive(Clone, Debug, PartialEq)]
pub struct Wan {
    /// Position in the list.
    pub id: WanId,
    /// Name in status and logs.
    pub name: String,
    /// Source address; `None` = whatever the device or the routing table gives.
    pub source: Option<IpAddr>,
    /// Device to bind to; `None` = found by the source address.
    pub device: Option<String>,
    /// What it is used for.
    pub role: WanRole,
    /// Which way it carries data.
    pub direction: Direction,
    /// Round trip above which it is parked.
    pub rtt_max: Option<Duration>,
    /// Loss ratio above which it is parked, 0-1.
    pub loss_max: Option<f64>,
    /// What it may carry in a month; `None` = as much as it likes.
    pub quota: Option<Quota>,
    /// Ceiling towards the client; `None` = learned alone.
    pub down: Option<Rate>,
    /// Ceiling towards the server; `None` = learned alone.
    pub up: Option<Rate>,
}

/// What a WAN may carry in a month, both directions together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Bytes, with the headers of IP and UDP.
    pub bytes: u64,
    /// Day of the month (UTC) on which counting begins anew, 1 to 28.
    pub reset_day: u8,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wan(index: u8) -> Wan {
        Wan {
            id: WanId(index),
            name: format!("wan{index}"),
            source: None,
            device: None,
            role: WanRole::Active,
            direction: Direction::Both,
            rtt_max: None,
            loss_max: None,
            quota: None,
            down: None,
            up: None,
        }
    }

    #[test]
    fn links_wrap_inside_the_servers_ports() {
        let links = Links {
            wans: vec![wan(0), wan(1)],
            start_port: 9001,
            links_per_wan: 2,
            ports: 3,
        };
        let plans: Vec<_> = links
            .lanes()
            .map(|l| (l.id.0, l.wan.0, l.server_port))
            .collect();
        assert_eq!(
            plans,
            [(0, 0, 9001), (1, 0, 9002), (2, 1, 9003), (3, 1, 9001)]
        );
        assert_eq!(links.server_ports().collect::<Vec<_>>(), [9001, 9002, 9003]);
    }
}
