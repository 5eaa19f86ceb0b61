//! A tunnel inside of the lab: keys, configurations, one server and its clients, as an operator would run them.

mod files;

pub use files::write_key;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::traffic::ping::{PingConfig, PingReport, ping};
use super::{LabError, Process, Programs, Topology, wait_until};
use crate::cli::status::ask;
use crate::status::{Reply, Status};

/// What differs from tunnel to tunnel.
#[derive(Clone, Debug)]
pub struct TunnelSpec {
    /// Sockets over each WAN.
    pub links_per_wan: u8,
    /// Largest inner packet.
    pub tun_mtu: u16,
    /// Whether the links use IPv6.
    pub outer_v6: bool,
    /// Workers of each client and of the server; `None` = as many as they choose.
    pub threads: Option<[u8; 2]>,
    /// Further lines of both configurations' `[performance]`.
    pub performance: String,
    /// Further lines of both configurations' `[security]`.
    pub security: String,
    /// Level of the logs.
    pub log_level: &'static str,
    /// The clients know another key than the server's.
    pub wrong_key: bool,
}

impl Default for TunnelSpec {
    fn default() -> Self {
        Self {
            links_per_wan: 1,
            tun_mtu: 1400,
            outer_v6: false,
            threads: None,
            performance: String::new(),
            security: String::new(),
            log_level: "info",
            wrong_key: false,
        }
    }
}

/// The server's inner addresses.
pub const INNER_SERVER_V4: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
/// The server's inner IPv6 address.
pub const INNER_SERVER_V6: Ipv6Addr = Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 1);
/// Name of the TUN device on every side.
pub const TUN_NAME: &str = "tun-bond";
/// First port of the server.
pub const START_PORT: u16 = 9001;
/// How long a tunnel may take to carry its first packet, on a machine shared with much else.
const UP_LIMIT: Duration = Duration::from_secs(10);
/// How long the links of a tunnel that carries packets may take to be up on both sides.
pub const LINKS_LIMIT: Duration = Duration::from_secs(10);
/// A daemon has to be gone this long after SIGTERM.
pub const EXIT_LIMIT: Duration = Duration::from_secs(1);

/// Inner IPv4 address of client `index`, from 0.
pub fn inner_client_v4(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 99, 0, host(index))
}

/// Inner IPv6 address of client `index`, from 0.
pub fn inner_client_v6(index: usize) -> Ipv6Addr {
    Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, host(index).into())
}

fn host(index: usize) -> u8 {
    u8::try_from(index + 2).unwrap_or(u8::MAX)
}

/// A running tunnel; its programs end when it is dropped.
#[derive(Debug)]
pub struct Tunnel {
    programs: Programs,
    directory: PathBuf,
    server: Option<Process>,
    clients: Vec<Option<Process>>,
}

impl Tunnel {
    /// Makes keys and configurations and starts the server and one client for each client namespace.
    ///
    /// # Errors
    /// A file cannot be written or a program is missing.
    pub fn start(lab: &Topology, programs: &Programs, spec: &TunnelSpec) -> Result<Self, LabError> {
        let directory = lab.directory().to_owned();
        let count = lab.client_count();
        files::Files {
            wans: lab.wans(),
            directory: &directory,
            spec,
        }
        .write(count)?;
        let mut tunnel = Self {
            programs: programs.clone(),
            directory,
            server: None,
            clients: (0..count).map(|_| None).collect(),
        };
        tunnel.start_server(lab)?;
        for index in 0..count {
            tunnel.start_client(lab, index)?;
        }
        Ok(tunnel)
    }

    /// As [`Tunnel::start`], and waits until every client reaches the server through the tunnel.
    ///
    /// # Errors
    /// Also when that takes too long; then with the logs.
    pub fn start_and_wait(
        lab: &Topology,
        programs: &Programs,
        spec: &TunnelSpec,
    ) -> Result<Self, LabError> {
        let mut tunnel = Self::start(lab, programs, spec)?;
        for index in 0..lab.client_count() {
            tunnel.wait_up(lab, index)?;
        }
        Ok(tunnel)
    }

    /// Starts the server (again).
    ///
    /// # Errors
    /// The program is missing.
    pub fn start_server(&mut self, lab: &Topology) -> Result<(), LabError> {
        let args = config_args(&self.directory.join("server.toml"));
        let process = Process::start(
            "server",
            &self.programs.server,
            &args,
            lab.server(),
            &self.directory,
            false,
        )?;
        self.server = Some(process);
        Ok(())
    }

    /// Starts client `index` (again).
    ///
    /// # Errors
    /// The program is missing.
    pub fn start_client(&mut self, lab: &Topology, index: usize) -> Result<(), LabError> {
        let name = client_name(index);
        let args = config_args(&self.directory.join(format!("{name}.toml")));
        let namespace = lab.client(index);
        let process = Process::start(
            &name,
            &self.programs.client,
            &args,
            namespace,
            &self.directory,
            false,
        )?;
        self.clients[index] = Some(process);
        Ok(())
    }

    /// Waits until a packet of client `index` comes back through the tunnel.
    ///
    /// # Errors
    /// When it takes longer than 10 s or a program ends; with the logs.
    pub fn wait_up(&mut self, lab: &Topology, index: usize) -> Result<(), LabError> {
        let mut ended = None;
        let up = wait_until(UP_LIMIT, || {
            ended = self.ended();
            ended.is_some()
                || self
                    .ping(lab, index, 1)
                    .is_ok_and(|report| report.received == 1)
        });
        match ended {
            Some(name) => Err(LabError::Program(format!(
                "the {name} ended\n{}",
                self.logs()
            ))),
            None if up => Ok(()),
            None => Err(LabError::Program(format!(
                "no way through the tunnel\n{}",
                self.logs()
            ))),
        }
    }

    /// Waits until every link of the only client is up on both sides.
    ///
    /// # Errors
    /// When that takes longer than [`LINKS_LIMIT`]; with the logs.
    pub fn wait_links_up(&self, links: usize) -> Result<(), LabError> {
        let up = wait_until(LINKS_LIMIT, || {
            let both = [self.server_status(), self.client_status(0)];
            both.iter()
                .all(|status| status.as_ref().is_ok_and(|status| all_up(status, links)))
        });
        let failure = || {
            let limit = LINKS_LIMIT.as_secs();
            let logs = self.logs();
            LabError::Program(format!("not every link came up within {limit} s\n{logs}"))
        };
        up.then_some(()).ok_or_else(failure)
    }

    /// Processor time that all its programs have used.
    pub fn cpu_time(&self) -> Duration {
        let running = self.clients.iter().chain([&self.server]).flatten();
        running.map(Process::cpu_time).sum()
    }

    /// Client 0 and the server, while they are not stopped.
    pub fn processes(&self) -> Option<(&Process, &Process)> {
        Some((self.clients.first()?.as_ref()?, self.server.as_ref()?))
    }

    /// Pings the server's inner address from client `index`.
    ///
    /// # Errors
    /// Without CAP_NET_RAW.
    pub fn ping(&self, lab: &Topology, index: usize, count: usize) -> Result<PingReport, LabError> {
        let config = PingConfig::new(lab.client(index), INNER_SERVER_V4, Some(count));
        // Without the inner source address, packets would take the default route while there is no tunnel, and the
        // server would even answer them: its kernel knows the inner address, whatever interface asks.
        ping(PingConfig {
            source: Some(inner_client_v4(index).into()),
            linger: Duration::from_millis(500),
            ..config
        })
    }

    /// The server, while it is not stopped.
    pub fn server(&mut self) -> Option<&mut Process> {
        self.server.as_mut()
    }

    /// Client `index`, while it is not stopped.
    pub fn client(&mut self, index: usize) -> Option<&mut Process> {
        self.clients[index].as_mut()
    }

    /// Stops the server with `signal`; returns how long it took and its exit code, if it ended within a second.
    pub fn stop_server(&mut self, signal: Signal) -> Option<i32> {
        stop(self.server.take()?, signal)
    }

    /// Stops client `index` with `signal`; returns its exit code, if it ended within a second.
    pub fn stop_client(&mut self, index: usize, signal: Signal) -> Option<i32> {
        stop(self.clients[index].take()?, signal)
    }

    /// What the server says about itself.
    ///
    /// # Errors
    /// It does not answer.
    pub fn server_status(&self) -> Result<Status, LabError> {
        status(&self.directory.join("server.sock"))
    }

    /// What client `index` says about itself.
    ///
    /// # Errors
    /// It does not answer.
    pub fn client_status(&self, index: usize) -> Result<Status, LabError> {
        status(&self.directory.join(format!("{}.sock", client_name(index))))
    }

    /// The configuration file of client `index`.
    pub fn client_config_file(&self, index: usize) -> PathBuf {
        self.directory.join(format!("{}.toml", client_name(index)))
    }

    /// The folder of what client `index` keeps when it ends.
    pub fn client_state_folder(&self, index: usize) -> PathBuf {
        self.directory.join(format!("{}.state", client_name(index)))
    }

    /// All logs, one after another.
    pub fn logs(&self) -> String {
        let running = self.clients.iter().chain([&self.server]).flatten();
        running.fold(String::new(), |mut text, process| {
            let _ = write!(text, "--- {}\n{}", process.name(), process.log());
            text
        })
    }

    /// The name of a program that ended although nobody stopped it.
    fn ended(&mut self) -> Option<String> {
        let all = self.clients.iter_mut().chain([&mut self.server]);
        let mut ended = all
            .flatten()
            .filter_map(|process| process.try_exit().map(|_| process.name().to_owned()));
        ended.next()
    }
}

/// Whether the first peer has at least `links` links and all of them are up.
fn all_up(status: &Status, links: usize) -> bool {
    status.peers.first().is_some_and(|peer| {
        peer.state == "up"
            && peer.links.len() >= links
            && peer.links.iter().all(|link| link.state == "up")
    })
}

fn stop(mut process: Process, signal: Signal) -> Option<i32> {
    process.signal(signal);
    process.wait_exit(EXIT_LIMIT)?.code()
}

fn status(socket: &Path) -> Result<Status, LabError> {
    let line = ask(socket).map_err(LabError::io(socket.display().to_string()))?;
    match serde_json::from_str(&line) {
        Ok(Reply::Status(status)) => Ok(*status),
        Ok(Reply::Refusal(refusal)) => Err(LabError::Program(format!("status: {}", refusal.error))),
        Err(error) => Err(LabError::Program(format!("status: {error}"))),
    }
}

fn client_name(index: usize) -> String {
    if index == 0 {
        "client".into()
    } else {
        format!("client{}", index + 1)
    }
}

fn config_args(file: &Path) -> [OsString; 2] {
    ["--config".into(), file.into()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{LinkStatus, PeerStatus};

    #[test]
    fn a_tunnel_is_up_when_every_link_of_its_peer_is() {
        let status = |peer: &str, states: &[&str]| Status {
            peers: vec![PeerStatus {
                state: peer.into(),
                links: states
                    .iter()
                    .map(|&state| LinkStatus {
                        state: state.into(),
                        ..LinkStatus::default()
                    })
                    .collect(),
                ..PeerStatus::default()
            }],
            ..Status::default()
        };
        assert!(all_up(&status("up", &["up", "up", "up"]), 3));
        assert!(!all_up(&status("up", &["up", "up"]), 3));
        assert!(!all_up(&status("up", &["up", "probing", "up"]), 3));
        assert!(!all_up(&status("handshake", &["up", "up", "up"]), 3));
        assert!(!all_up(&Status::default(), 3));
    }
}
