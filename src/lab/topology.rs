//! The lab's network: client namespaces, a server namespace, and emulated WANs between them.
//!
//! The server has one address, reachable over every WAN, and every WAN has its own gateway: only source rules make a
//! client's packet leave by the right one, as at home. Neighbours are known from the start, so that ARP and its
//! losses play no part.

use std::ffi::OsString;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use super::netlink::{Mac, Netlink};
use super::{Emulator, LabError, Launch, Netns, Process, netns};
use crate::sys::ethtool;

/// One emulated WAN.
#[derive(Clone, Debug)]
pub struct Wan {
    /// For people.
    pub name: String,
    /// Emulator words: `both delay=5ms down rate=100mbit up rate=20mbit`.
    pub spec: String,
    /// Whether the client sits behind a translator of ports.
    pub nat: bool,
    /// Which client it belongs to, from 0.
    pub client: usize,
    /// Largest IP packet.
    pub mtu: u32,
}

impl Wan {
    /// A WAN of the first client, behind NAT, with Ethernet's MTU.
    pub fn new(name: &str, spec: &str) -> Self {
        Self {
            name: name.into(),
            spec: spec.into(),
            nat: true,
            client: 0,
            mtu: 1500,
        }
    }

    /// The same for another client.
    #[must_use]
    pub fn of_client(mut self, client: usize) -> Self {
        self.client = client;
        self
    }
}

/// The programs that a lab starts.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The link emulator.
    pub wanem: Launch,
    /// The tunnel's client.
    pub client: Launch,
    /// The tunnel's server.
    pub server: Launch,
}

/// The built network. All of it is gone when this is dropped.
#[derive(Debug)]
pub struct Topology {
    wans: Vec<Wan>,
    clients: Vec<Netns>,
    server: Netns,
    outside: Netns,
    directory: PathBuf,
    keep_directory: bool,
    /// Dropped (and so ended) before the namespaces.
    emulator: Emulator,
}

/// The server's only public IPv4 address.
pub const SERVER_V4: Ipv4Addr = Ipv4Addr::new(10, 200, 0, 1);
/// The server's only public IPv6 address.
pub const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x200, 0, 0, 0, 0, 0, 1);
/// Most WANs of one lab: what one octet of the address plan holds.
const WANS_MAX: usize = 250;
const CLIENT_NAMES: [&str; 3] = ["client", "client2", "client3"];

impl Topology {
    /// Builds namespaces, interfaces and routes and starts the emulator. `directory` is made and will hold logs.
    ///
    /// # Errors
    /// The step that failed.
    pub fn build(
        wans: Vec<Wan>,
        programs: &Programs,
        directory: PathBuf,
    ) -> Result<Self, LabError> {
        assert!(
            !wans.is_empty() && wans.len() <= WANS_MAX,
            "a lab has 1 to {WANS_MAX} WANs"
        );
        fs::create_dir_all(&directory).map_err(LabError::io(directory.display().to_string()))?;
        netns::quiet_settings();
        // Nothing in our own namespace shall talk; frames belong to the emulator.
        let _ = fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
        let outside = Netns::current("wan")?;
        let server = Netns::create("server")?;
        let count = wans.iter().map(|wan| wan.client + 1).max().unwrap_or(1);
        let clients = CLIENT_NAMES[..count]
            .iter()
            .map(|name| Netns::create(name))
            .collect::<Result<Vec<_>, _>>()?;
        for client in &clients {
            client.run(|| Netlink::connect()?.bring_up("lo", None, None))??;
        }
        server.run(configure_server)??;
        let netlink = Netlink::connect()?;
        for (index, wan) in wans.iter().enumerate() {
            connect_wan(&netlink, index + 1, wan, &clients[wan.client], &server)?;
        }
        let args = emulator_args(&wans);
        let emulator = Process::start("wanem", &programs.wanem, &args, &outside, &directory, true)?;
        let emulator = Emulator::new(emulator)?;
        Ok(Self {
            wans,
            clients,
            server,
            outside,
            directory,
            keep_directory: false,
            emulator,
        })
    }

    /// The WANs, in order.
    pub fn wans(&self) -> &[Wan] {
        &self.wans
    }

    /// The namespace of client `index`.
    pub fn client(&self, index: usize) -> &Netns {
        &self.clients[index]
    }

    /// The server's namespace.
    pub fn server(&self) -> &Netns {
        &self.server
    }

    /// The namespace of the emulator, where all links can be heard.
    pub fn outside(&self) -> &Netns {
        &self.outside
    }

    /// The emulator.
    pub fn emulator(&mut self) -> &mut Emulator {
        &mut self.emulator
    }

    /// Where logs and configurations are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Leaves the logs on disk for a look after a failure.
    pub fn keep_directory(&mut self) {
        self.keep_directory = true;
    }

    /// The emulator's interfaces of all WANs: what arrives at them is everything that both ends send.
    pub fn devices(&self) -> Vec<String> {
        (1..=self.wans.len())
            .flat_map(|number| [format!("w{number}c"), format!("w{number}s")])
            .collect()
    }

    /// The client's IPv4 address on WAN `number` (from 1).
    pub fn client_v4(number: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 1, octet(number), 2)
    }

    /// The client's IPv6 address on WAN `number` (from 1).
    pub fn client_v6(number: usize) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 1, octet(number).into(), 0, 0, 0, 0, 2)
    }

    /// The client's gateway on WAN `number` (from 1), which is the server's interface there.
    pub fn gateway_v4(number: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 1, octet(number), 1)
    }

    /// Takes the client's interface of WAN `number` (from 1) down or up, as pulling the cable does.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn set_client_interface(&self, number: usize, up: bool) -> Result<(), LabError> {
        let wan = &self.wans[number - 1];
        let device = format!("eth{number}");
        self.clients[wan.client].run(|| {
            let netlink = Netlink::connect()?;
            if up {
                netlink.bring_up(&device, None, None)?;
                client_routes(&netlink, number)
            } else {
                netlink.take_down(&device)
            }
        })?
    }
}

impl Drop for Topology {
    fn drop(&mut self) {
        if !self.keep_directory {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

fn octet(number: usize) -> u8 {
    u8::try_from(number).unwrap_or(u8::MAX)
}

fn emulator_args(wans: &[Wan]) -> Vec<OsString> {
    let mut args = vec![OsString::from("--quit-on-eof")];
    for (index, wan) in wans.iter().enumerate() {
        let nat = if wan.nat { "nat " } else { "" };
        let number = index + 1;
        args.push(format!("w{number}c:w{number}s {nat}{}", wan.spec).into());
    }
    args
}

fn configure_server() -> Result<(), LabError> {
    let netlink = Netlink::connect()?;
    netlink.bring_up("lo", None, None)?;
    netlink.add_address("lo", SERVER_V4.into(), 32)?;
    netlink.add_address("lo", SERVER_V6.into(), 128)
}

/// One WAN: two pairs of interfaces with the emulator between them.
fn connect_wan(
    netlink: &Netlink,
    number: usize,
    wan: &Wan,
    client: &Netns,
    server: &Netns,
) -> Result<(), LabError> {
    let (inside, outside, device) = (
        format!("w{number}c"),
        format!("w{number}s"),
        format!("eth{number}"),
    );
    for (ours, namespace) in [(&inside, client), (&outside, server)] {
        netlink.add_veth(ours, &device)?;
        netlink.move_to(&device, namespace)?;
    }
    let mtu = wan.mtu;
    let client_side = || -> Result<(), LabError> {
        let netlink = Netlink::connect()?;
        bring_up_without_offload(&netlink, &device, mtu, Some(mac(number, Side::Client)))?;
        netlink.add_address(&device, Topology::client_v4(number).into(), 24)?;
        netlink.add_address(&device, Topology::client_v6(number).into(), 64)?;
        client_routes(&netlink, number)
    };
    let server_side = || -> Result<(), LabError> {
        let netlink = Netlink::connect()?;
        bring_up_without_offload(&netlink, &device, mtu, Some(mac(number, Side::Server)))?;
        let [v4, v6] = addresses(number, Side::Server);
        netlink.add_address(&device, v4, 24)?;
        netlink.add_address(&device, v6, 64)?;
        let [v4, v6] = addresses(number, Side::Client);
        netlink.add_neighbour(&device, v4, mac(number, Side::Client))?;
        netlink.add_neighbour(&device, v6, mac(number, Side::Client))
    };
    client.run(client_side)??;
    server.run(server_side)??;
    bring_up_without_offload(netlink, &inside, mtu, None)?;
    bring_up_without_offload(netlink, &outside, mtu, None)
}

/// Gateways and default routes over every WAN with rising metrics: the first WAN carries what has no source rule.
fn client_routes(netlink: &Netlink, number: usize) -> Result<(), LabError> {
    let metric = 100 + u32::from(octet(number));
    let device = format!("eth{number}");
    for gateway in addresses(number, Side::Server) {
        netlink.add_neighbour(&device, gateway, mac(number, Side::Server))?;
        netlink.add_default_route(&device, gateway, metric)?;
    }
    Ok(())
}

/// Frames that the emulator sees must be what a wire would carry: no superframes, checksums filled in.
fn bring_up_without_offload(
    netlink: &Netlink,
    device: &str,
    mtu: u32,
    mac: Option<Mac>,
) -> Result<(), LabError> {
    ethtool::disable_offloads(device).map_err(LabError::io(format!("offloads of {device}")))?;
    netlink.bring_up(device, Some(mtu), mac)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}

/// A locally administered Ethernet address.
fn mac(number: usize, side: Side) -> Mac {
    [
        0x02,
        0,
        0,
        0,
        if side == Side::Client { 0xC0 } else { 0x50 },
        octet(number),
    ]
}

fn addresses(number: usize, side: Side) -> [IpAddr; 2] {
    match side {
        Side::Client => [
            Topology::client_v4(number).into(),
            Topology::client_v6(number).into(),
        ],
        Side::Server => {
            let v6 = Ipv6Addr::new(0xfd00, 1, octet(number).into(), 0, 0, 0, 0, 1);
            [Topology::gateway_v4(number).into(), v6.into()]
        }
    }
}
