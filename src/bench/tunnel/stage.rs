//! A lab with one contender on it, ready for traffic.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::plan::{Contender, Plan, Rival, Variant};
use super::rivals::{self, Pair};
use super::{TUN_MTU, UP_LIMIT};
use crate::bench::contender::NoStage;
use crate::bench::plan::Direction;
use crate::lab::traffic::ping::ping;
use crate::lab::traffic::{Dial, End, FloodConfig, PingConfig, Protocol};
use crate::lab::tunnel::{INNER_SERVER_V4, inner_client_v4};
use crate::lab::{LabError, Process, Programs, Topology, Tunnel, TunnelSpec, wait_until};
use crate::status::Status;

/// Sockets over each cable, unless a variant says otherwise: what the configuration's default is.
const LINKS_PER_WAN: u8 = 2;

/// What carries the packets.
#[derive(Debug)]
enum Engine {
    /// Nothing but the cable.
    Cable,
    /// Our tunnel.
    Tunnel(Tunnel),
    /// Another one.
    Rival(Pair),
}

/// One contender's lab. The engine ends before the lab.
#[derive(Debug)]
pub(super) struct Stage {
    engine: Engine,
    lab: Topology,
    client: IpAddr,
    server: IpAddr,
}

impl Stage {
    /// Builds the cables, starts the contender and waits until it carries packets.
    ///
    /// # Errors
    /// A rival is not installed, or something fails.
    pub(super) fn build(
        plan: &Plan,
        contender: &Contender<'_>,
        programs: &Programs,
        directory: PathBuf,
    ) -> Result<Self, NoStage> {
        let lab = Topology::direct(plan.links, plan.nic, directory)?;
        let engine = match *contender {
            Contender::Rival(Rival::Baseline) => Engine::Cable,
            Contender::Rival(Rival::Relay) => Engine::Rival(rivals::relay(&lab, TUN_MTU)?),
            Contender::Rival(Rival::Openvpn) => Engine::Rival(rivals::openvpn(&lab, TUN_MTU)?),
            Contender::Rival(Rival::WireguardGo) => {
                Engine::Rival(rivals::wireguard(&lab, TUN_MTU)?)
            }
            Contender::Tunnel(variant) => {
                Engine::Tunnel(start_tunnel(&lab, plan, variant, programs)?)
            }
        };
        let (client, server) = match engine {
            Engine::Cable => (Topology::client_v4(1), Topology::gateway_v4(1)),
            Engine::Tunnel(_) | Engine::Rival(_) => (inner_client_v4(0), INNER_SERVER_V4),
        };
        let (client, server) = (client.into(), server.into());
        let stage = Self {
            engine,
            lab,
            client,
            server,
        };
        stage.wait_up()?;
        Ok(stage)
    }

    fn wait_up(&self) -> Result<(), LabError> {
        let once = PingConfig {
            linger: Duration::from_millis(200),
            ..self.pings(1)
        };
        let answered = || ping(once.clone()).is_ok_and(|report| report.received == 1);
        let up = wait_until(UP_LIMIT, answered);
        let failure = || LabError::Program(format!("no packet gets through\n{}", self.logs()));
        up.then_some(()).ok_or_else(failure)
    }

    /// `count` pings from the client to the server, on the way that is measured.
    pub(super) fn pings(&self, count: usize) -> PingConfig {
        PingConfig {
            source: Some(self.client),
            interval: super::PING_EVERY,
            ..PingConfig::new(self.lab.client(0), self.server, Some(count))
        }
    }

    /// How to connect; only the client dials, whichever way the payload flows.
    pub(super) fn dial(&self) -> Dial {
        Dial {
            from: self.lab.client(0).clone(),
            to: self.lab.server().clone(),
            target: SocketAddr::new(self.server, 0),
            protocol: Protocol::Tcp,
        }
    }

    /// Which end of a connection sends.
    pub(super) fn sender(direction: Direction) -> End {
        match direction {
            Direction::Up => End::Dialler,
            Direction::Down => End::Listener,
        }
    }

    /// Small packets in one direction.
    pub(super) fn flood(&self, direction: Direction, bytes: usize, flows: usize) -> FloodConfig {
        let (client, server) = (self.lab.client(0).clone(), self.lab.server().clone());
        let (from, to, target) = match direction {
            Direction::Up => (client, server, self.server),
            Direction::Down => (server, client, self.client),
        };
        FloodConfig {
            from,
            to,
            target: SocketAddr::new(target, 0),
            bytes,
            flows,
        }
    }

    /// The programs of client and server, if there are any.
    pub(super) fn processes(&self) -> Option<(&Process, &Process)> {
        match &self.engine {
            Engine::Cable => None,
            Engine::Tunnel(tunnel) => tunnel.processes(),
            Engine::Rival((client, server)) => Some((client, server)),
        }
    }

    /// What our own programs say about themselves: client, server.
    pub(super) fn status(&self) -> Option<[Status; 2]> {
        match &self.engine {
            Engine::Tunnel(tunnel) => {
                Some([tunnel.client_status(0).ok()?, tunnel.server_status().ok()?])
            }
            Engine::Cable | Engine::Rival(_) => None,
        }
    }

    /// What the programs wrote.
    pub(super) fn logs(&self) -> String {
        match &self.engine {
            Engine::Cable => String::new(),
            Engine::Tunnel(tunnel) => tunnel.logs(),
            Engine::Rival((client, server)) => format!("{}\n{}", client.log(), server.log()),
        }
    }
}

fn start_tunnel(
    lab: &Topology,
    plan: &Plan,
    variant: &Variant,
    programs: &Programs,
) -> Result<Tunnel, LabError> {
    let links_per_wan = variant.links_per_wan().unwrap_or(LINKS_PER_WAN);
    let spec = TunnelSpec {
        links_per_wan,
        tun_mtu: variant.tun_mtu().unwrap_or(TUN_MTU),
        performance: variant.performance().join("\n"),
        security: variant.security().join("\n"),
        ..TunnelSpec::default()
    };
    let tunnel = Tunnel::start_and_wait(lab, programs, &spec)?;
    tunnel.wait_links_up(plan.links * usize::from(links_per_wan))?;
    Ok(tunnel)
}
