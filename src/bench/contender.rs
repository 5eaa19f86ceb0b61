//! What is compared, and how each gets onto the links: every measurement has a lab of its own, built from the same
//! words and the same seed, so that no connection inherits another's queues, routes or learnt rates.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::plan::{Case, Direction, Plan};
use crate::lab::traffic::{Dial, End, PingConfig, Protocol};
use crate::lab::tunnel::{INNER_SERVER_V4, inner_client_v4};
use crate::lab::{LabError, Netns, Programs, Topology, Tunnel, TunnelSpec, Wan, mptcp};

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contender {
    /// TCP over the best link alone.
    Link,
    /// The kernel's multipath TCP over all links.
    Mptcp,
    /// TCP through the tunnel over all links.
    Tunnel,
}

impl Contender {
    /// All of them, in the order in which they take turns.
    pub(super) const ALL: [Self; 3] = [Self::Link, Self::Mptcp, Self::Tunnel];

    /// Its name in the JSON document.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::Mptcp => "mptcp",
            Self::Tunnel => "tunnel",
        }
    }
}

/// One measurement to make.
#[derive(Clone, Copy, Debug)]
pub(super) struct Job<'a> {
    pub(super) plan: &'a Plan,
    pub(super) case: Case,
    pub(super) direction: Direction,
    pub(super) congestion: &'static str,
    pub(super) contender: Contender,
}

/// Why there is nothing to measure.
#[derive(Debug)]
pub(super) enum NoStage {
    /// This kernel lacks something that not every kernel has.
    Missing(String),
    /// It should have worked.
    Failed(LabError),
}

impl<E: Into<LabError>> From<E> for NoStage {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// A lab that is ready for one connection.
#[derive(Debug)]
pub(super) struct Stage {
    /// Ends before the lab.
    pub(super) tunnel: Option<Tunnel>,
    pub(super) lab: Topology,
    dial: Dial,
    sender: End,
}

impl Stage {
    /// Builds the links and what the contender needs on them.
    ///
    /// # Errors
    /// See [`NoStage`].
    pub(super) fn build(
        job: Job<'_>,
        programs: &Programs,
        directory: PathBuf,
    ) -> Result<Self, NoStage> {
        let Job { plan, .. } = job;
        let links = plan.links.iter().zip(1..);
        let wans = links
            .map(|(link, number)| Wan::new(&format!("link{number}"), &link.words(job.case)))
            .collect();
        let lab = Topology::build(wans, programs, directory)?;
        let mut tunnel = None;
        let mut protocol = Protocol::Tcp;
        match job.contender {
            Contender::Link => {}
            Contender::Mptcp => {
                mptcp::prepare(&lab).map_err(|error| NoStage::Missing(error.to_string()))?;
                protocol = Protocol::Mptcp;
            }
            Contender::Tunnel => tunnel = Some(start_tunnel(&lab, programs, plan)?),
        }
        // Only the client dials, whichever way the payload flows, as behind a translator.
        let dial = Dial {
            from: lab.client(0).clone(),
            to: lab.server().clone(),
            target: target(job),
            protocol,
        };
        let sender = match job.direction {
            Direction::Up => End::Dialler,
            Direction::Down => End::Listener,
        };
        Ok(Self {
            tunnel,
            lab,
            dial,
            sender,
        })
    }

    /// How to connect.
    pub(super) fn dial(&self) -> &Dial {
        &self.dial
    }

    /// Which end sends.
    pub(super) fn sender(&self) -> End {
        self.sender
    }

    /// The namespace of the sending end.
    pub(super) fn sender_namespace(&self) -> &Netns {
        match self.sender {
            End::Dialler => &self.dial.from,
            End::Listener => &self.dial.to,
        }
    }

    /// Pings the way of the connection: through the tunnel, else over the best link.
    pub(super) fn pings(&self, interval: Duration, count: Option<usize>) -> PingConfig {
        let config = PingConfig::new(&self.dial.from, self.dial.target.ip(), count);
        PingConfig {
            interval,
            source: self.tunnel.as_ref().map(|_| inner_client_v4(0).into()),
            ..config
        }
    }
}

/// The server's address: of the tunnel, or that of the best link's far end, to which only this link leads.
fn target(job: Job<'_>) -> SocketAddr {
    let address = match job.contender {
        Contender::Tunnel => INNER_SERVER_V4,
        Contender::Link | Contender::Mptcp => {
            Topology::gateway_v4(job.plan.best_link(job.direction) + 1)
        }
    };
    (address, 0).into()
}

fn start_tunnel(lab: &Topology, programs: &Programs, plan: &Plan) -> Result<Tunnel, LabError> {
    let spec = TunnelSpec {
        links_per_wan: plan.links_per_wan,
        performance: plan.settings.join("\n"),
        ..TunnelSpec::default()
    };
    let tunnel = Tunnel::start_and_wait(lab, programs, &spec)?;
    tunnel.wait_links_up(plan.links.len() * usize::from(plan.links_per_wan))?;
    Ok(tunnel)
}
