//! A lab without emulated WANs: client and server joined by virtual cables that carry what the processor can. For
//! measuring the tunnel itself.
//!
//! ```text
//!  client namespace                         server namespace
//!  eth1 10.1.1.2 ═════════════════ wan1 10.1.1.1 ┐
//!  eth2 10.1.2.2 ═════════════════ wan2 10.1.2.1 ┴─ lo 10.200.0.1
//! ```

use std::fs;
use std::os::fd::AsFd;
use std::path::PathBuf;

use super::{
    Side, Topology, WANS_MAX, Wan, bring_up_without_offload, configure_end, configure_server, mac,
    wait_running,
};
use crate::lab::{LabError, Netns, netns};
use crate::sys::Netdev;

/// What the network cards at both ends of the cables can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nic {
    /// Segmentation offload, as good cards have it: a run of datagrams crosses whole.
    Offload,
    /// None: every datagram crosses alone, with its checksum computed by the processor.
    Plain,
}

impl Topology {
    /// Builds namespaces, `links` cables and routes, all of the first client. `directory` is made and will hold logs.
    ///
    /// # Errors
    /// The step that failed.
    pub fn direct(links: usize, nic: Nic, directory: PathBuf) -> Result<Self, LabError> {
        assert!(
            (1..=WANS_MAX).contains(&links),
            "a lab has 1 to {WANS_MAX} WANs"
        );
        fs::create_dir_all(&directory).map_err(LabError::io(directory.display().to_string()))?;
        let outside = Netns::current("outside")?;
        let (client, server) = (Netns::create("client")?, Netns::create("server")?);
        server.run(configure_server)??;
        for number in 1..=links {
            client.run(|| connect(number, nic, &server))??;
            server.run(|| bring_up(&server_device(number), nic, number, Side::Server))??;
        }
        for namespace in [&client, &server] {
            wait_running(namespace)?;
        }
        for number in 1..=links {
            let (eth, wan) = (format!("eth{number}"), server_device(number));
            client.run(|| configure_end(number, &eth, Side::Client))??;
            server.run(|| configure_end(number, &wan, Side::Server))??;
        }
        let wans = (1..=links).map(|number| Wan::new(&format!("link{number}"), ""));
        Ok(Self {
            wans: wans.collect(),
            clients: vec![client],
            server,
            outside,
            directory,
            emulator: None,
        })
    }
}

fn server_device(number: usize) -> String {
    format!("wan{number}")
}

/// A cable from the calling thread's namespace to the server's, and this end of it up.
fn connect(number: usize, nic: Nic, server: &Netns) -> Result<(), LabError> {
    netns::quiet_settings();
    let mut netdev = Netdev::open()?;
    let (ours, theirs) = (format!("eth{number}"), server_device(number));
    if !netdev.add_veth(&ours, &theirs)? {
        return Err(LabError::Program(format!(
            "there is a {ours} or {theirs} already"
        )));
    }
    netdev.move_to(&theirs, server.as_fd())?;
    bring_up(&ours, nic, number, Side::Client)
}

fn bring_up(device: &str, nic: Nic, number: usize, side: Side) -> Result<(), LabError> {
    let mut netdev = Netdev::open()?;
    match nic {
        Nic::Plain => bring_up_without_offload(&mut netdev, device, MTU, Some(mac(number, side))),
        Nic::Offload => {
            netdev.set_mtu(device, MTU)?;
            netdev.set_mac(device, mac(number, side))?;
            Ok(netdev.set_up(device, true)?)
        }
    }
}

/// Ethernet's.
const MTU: u32 = 1500;
