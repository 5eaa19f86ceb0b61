//! What the cases share: programs, topologies, failures.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use chainlightning::lab::traffic::{BulkConfig, BulkFlow, BulkReport, PingReport};
use chainlightning::lab::tunnel::{INNER_SERVER_V4, inner_client_v4};
use chainlightning::lab::{
    LabError, Launch, Netns, Programs, Topology, Tunnel, TunnelSpec, Wan, wait_until,
};
use nix::sys::signal::Signal;

/// How a case ends other than well.
#[derive(Debug)]
pub enum Failure {
    /// It cannot run here.
    Skip(String),
    /// Something is wrong.
    Failed(String),
}

/// How a case ends.
pub type Outcome = Result<(), Failure>;

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Fails the case with a message unless a condition holds.
macro_rules! check {
    ($condition:expr, $($message:tt)+) => {
        let holds: bool = $condition;
        if !holds {
            return Err($crate::support::Failure::Failed(format!(
                "{}:{}: {}", file!(), line!(), format!($($message)+)
            )));
        }
    };
}
pub(crate) use check;

static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();

/// Remembers where logs and configurations go.
pub fn set_directory(directory: PathBuf) {
    let _ = DIRECTORY.set(directory);
}

/// A directory for this case.
pub fn directory() -> PathBuf {
    DIRECTORY.get().cloned().unwrap_or_else(std::env::temp_dir)
}

/// The programs under test: those that cargo built for this test, or those in `CHAINLIGHTNING_BIN_DIR`.
pub fn programs() -> Programs {
    let pick = |name: &str, built: Option<&str>| {
        let directory = std::env::var_os("CHAINLIGHTNING_BIN_DIR").map(PathBuf::from);
        Launch::program(
            directory.map_or_else(|| built.unwrap_or(name).into(), |dir| dir.join(name)),
        )
    };
    Programs {
        wanem: pick("wanem", option_env!("CARGO_BIN_EXE_wanem")),
        client: pick("client", option_env!("CARGO_BIN_EXE_client")),
        server: pick("server", option_env!("CARGO_BIN_EXE_server")),
    }
}

/// Builds a lab with WANs of these specifications, all behind NAT.
pub fn topology(specs: &[&str]) -> Result<Topology, LabError> {
    Topology::build(wans(specs), &programs(), directory())
}

/// The same without NAT, for flows that the server begins.
pub fn topology_without_nat(specs: &[&str]) -> Result<Topology, LabError> {
    let wans = wans(specs).into_iter().map(|wan| Wan { nat: false, ..wan });
    Topology::build(wans.collect(), &programs(), directory())
}

fn wans(specs: &[&str]) -> Vec<Wan> {
    specs
        .iter()
        .enumerate()
        .map(|(index, spec)| Wan::new(&format!("wan{}", index + 1), spec))
        .collect()
}

/// A lab with a tunnel in it.
pub struct World {
    pub lab: Topology,
    pub tunnel: Tunnel,
}

/// Three unlike WANs, small enough for a machine that runs both ends and the emulator.
pub const THREE: [&str; 3] = [
    "both delay=5ms down rate=60mbit up rate=30mbit",
    "both delay=12ms down rate=30mbit up rate=15mbit",
    "both delay=20ms down rate=15mbit up rate=8mbit",
];

impl World {
    /// Builds the lab, starts the tunnel, waits until it carries packets, and runs `case`. When that fails, the
    /// programs' logs follow.
    pub fn run(
        specs: &[&str],
        spec: &TunnelSpec,
        case: impl FnOnce(&mut Self) -> Outcome,
    ) -> Outcome {
        Self::run_wans(wans(specs), spec, case)
    }

    /// The same with WANs of several clients.
    pub fn run_wans(
        wans: Vec<Wan>,
        spec: &TunnelSpec,
        case: impl FnOnce(&mut Self) -> Outcome,
    ) -> Outcome {
        let programs = programs();
        let lab = Topology::build(wans, &programs, directory())?;
        let tunnel = Tunnel::start_and_wait(&lab, &programs, spec)?;
        let mut world = Self { lab, tunnel };
        match case(&mut world) {
            Err(Failure::Failed(text)) => {
                Err(Failure::Failed(format!("{text}\n{}", world.tunnel.logs())))
            }
            other => other,
        }
    }

    /// Starts a bulk flow through the tunnel from the server to client `index`.
    pub fn download(&self, index: usize) -> Result<BulkFlow, LabError> {
        self.bulk(
            self.lab.server(),
            self.lab.client(index),
            inner_client_v4(index),
        )
    }

    /// Starts a bulk flow through the tunnel from client `index` to the server.
    pub fn upload(&self, index: usize) -> Result<BulkFlow, LabError> {
        self.bulk(self.lab.client(index), self.lab.server(), INNER_SERVER_V4)
    }

    /// Starts a bulk flow of cubic with every byte compared.
    pub fn bulk(
        &self,
        from: &Netns,
        to: &Netns,
        target: impl Into<IpAddr>,
    ) -> Result<BulkFlow, LabError> {
        BulkFlow::start(&BulkConfig {
            from: from.clone(),
            to: to.clone(),
            target: (target.into(), 0).into(),
            congestion: "cubic",
            verify: true,
        })
    }

    /// Fails unless `count` pings of client `index` come back, each once and whole.
    pub fn check_ping(&self, index: usize, count: usize) -> Outcome {
        let report = self.tunnel.ping(&self.lab, index, count)?;
        check_whole(&report)
    }

    /// The states of the client's links, in order.
    pub fn link_states(&self, index: usize) -> Result<Vec<String>, LabError> {
        let status = self.tunnel.client_status(index)?;
        Ok(status
            .peers
            .iter()
            .flat_map(|peer| &peer.links)
            .map(|link| link.state.clone())
            .collect())
    }

    /// Puts `text` in the place of the configuration of client `index`, and tells the client.
    pub fn reload_client(&mut self, index: usize, text: &str) -> Outcome {
        std::fs::write(self.tunnel.client_config_file(index), text)?;
        let client = self.tunnel.client(index);
        check!(client.is_some(), "the client is gone");
        client
            .into_iter()
            .for_each(|client| client.signal(Signal::SIGHUP));
        Ok(())
    }

    /// Waits until all links of client `index` are up.
    pub fn wait_links_up(&self, index: usize, limit: Duration) -> Outcome {
        let mut last = Vec::new();
        let up = wait_until(limit, || {
            last = self.link_states(index).unwrap_or_default();
            !last.is_empty() && last.iter().all(|state| state == "up")
        });
        check!(up, "links after {limit:?}: {last:?}");
        Ok(())
    }
}

/// Fails unless every request was answered once with what it carried.
pub fn check_whole(report: &PingReport) -> Outcome {
    let summary = PingReport {
        rtts: Vec::new(),
        ..report.clone()
    };
    let whole =
        report.lost() == 0 && report.duplicates == 0 && report.corrupted == 0 && report.sent > 0;
    check!(whole, "{} lost of {summary:?}", report.lost());
    Ok(())
}

/// Fails when a flow was reset, gave up, or delivered anything but what was sent.
pub fn check_flow(report: &BulkReport) -> Outcome {
    let BulkReport {
        reset,
        corrupted,
        error,
        bytes,
        ..
    } = report;
    check!(
        !reset && !corrupted && error.is_none() && *bytes > 0,
        "reset {reset} corrupted {corrupted} {error:?}"
    );
    Ok(())
}
