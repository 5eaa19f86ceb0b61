//! The lab's network: client namespaces, a server namespace, and emulated WANs between them.
//!
//! The server has one address, reachable over every WAN, and every WAN has its own gateway: only source rules make a
//! client's packet leave by the right one, as at home. Neighbours are known from the start, so that ARP and its
//! losses play no part.

mod direct;

use std::ffi::OsString;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use direct::Nic;

use super::{Emulator, LabError, Launch, Netns, Process, netns, wait_until};
use crate::sys::Netdev;
use crate::sys::netdev::{Feature, Mac, Prefix, Route};

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

impl Programs {
    /// All of them are this very program under other names (`src/bin/chainlightning.rs`).
    ///
    /// # Errors
    /// When the system does not say which file runs.
    pub fn this_program() -> Result<Self, LabError> {
        Ok(Self {
            wanem: Launch::this_program("__wanem")?,
            client: Launch::this_program("__client")?,
            server: Launch::this_program("__server")?,
        })
    }
}

/// The built network. All of it is gone when this is dropped.
#[derive(Debug)]
pub struct Topology {
    wans: Vec<Wan>,
    clients: Vec<Netns>,
    server: Netns,
    outside: Netns,
    directory: PathBuf,
    /// Dropped (and so ended) before the namespaces; none between cables without emulation.
    emulator: Option<Emulator>,
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
        server.run(configure_server)??;
        let mut netdev = Netdev::open()?;
        for (index, wan) in wans.iter().enumerate() {
            connect_wan(&mut netdev, index + 1, wan, &clients[wan.client], &server)?;
        }
        // Addresses come last: on an interface that runs already they work from the start, IPv6 ones too.
        for namespace in clients.iter().chain([&server, &outside]) {
            wait_running(namespace)?;
        }
        for (index, wan) in wans.iter().enumerate() {
            let device = format!("eth{}", index + 1);
            clients[wan.client].run(|| configure_end(index + 1, &device, Side::Client))??;
            server.run(|| configure_end(index + 1, &device, Side::Server))??;
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
            emulator: Some(emulator),
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

    /// How many clients there are.
    pub fn client_count(&self) -> usize {
        self.clients.len()
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
    ///
    /// # Panics
    /// In a lab of [`Topology::direct`], which has none.
    pub fn emulator(&mut self) -> &mut Emulator {
        let emulator = self.emulator.as_mut();
        emulator.expect("only a lab with emulated WANs is asked for its emulator")
    }

    /// Where logs and configurations are.
    pub fn directory(&self) -> &Path {
        &self.directory
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
            let mut netdev = Netdev::open()?;
            if up {
                netdev.set_up(&device, true)?;
                client_routes(&mut netdev, number)
            } else {
                Ok(netdev.set_up(&device, false)?)
            }
        })?
    }
}

impl Drop for Topology {
    fn drop(&mut self) {
        // The kernel clears a namespace away some time after its end; a lab built right after this one must not meet
        // its interfaces.
        if self.emulator.is_some()
            && let Ok(mut netdev) = Netdev::open()
        {
            for device in self.devices() {
                let _ = netdev.remove_interface(&device);
            }
        }
        let _ = fs::remove_dir_all(&self.directory);
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

/// Waits until every interface of `namespace` carries packets: the kernel connects virtual cables some time after both
/// ends are up, and drops what is sent before. Until then the state is `unknown`, which counts as running.
fn wait_running(namespace: &Netns) -> Result<(), LabError> {
    const LIMIT: Duration = Duration::from_secs(5);
    let connected = |name: &str| {
        let state = fs::read_to_string(format!("/sys/class/net/{name}/operstate"));
        state.map_or(true, |state| state.trim() == "up")
    };
    let running = || -> Result<bool, LabError> {
        let interfaces = Netdev::open()?.interfaces()?;
        let mut cables = interfaces
            .iter()
            .filter(|interface| interface.up && interface.name != "lo");
        Ok(cables.all(|interface| interface.running && connected(&interface.name)))
    };
    let all = namespace.run(|| wait_until(LIMIT, || running().unwrap_or(false)))?;
    let failure = || {
        LabError::Program(format!(
            "an interface in {} does not come up",
            namespace.name()
        ))
    };
    all.then_some(()).ok_or_else(failure)
}

fn configure_server() -> Result<(), LabError> {
    let mut netdev = Netdev::open()?;
    netdev.add_address("lo", Prefix::host(SERVER_V4.into()), None)?;
    netdev.add_address("lo", Prefix::host(SERVER_V6.into()), None)?;
    Ok(())
}

/// One WAN: two pairs of interfaces with the emulator between them, up and without addresses.
fn connect_wan(
    netdev: &mut Netdev,
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
        if !netdev.add_veth(ours, &device)? {
            return Err(LabError::Program(format!(
                "there is a {ours} or {device} already"
            )));
        }
        netdev.move_to(&device, namespace.as_fd())?;
    }
    let mtu = wan.mtu;
    for (namespace, side) in [(client, Side::Client), (server, Side::Server)] {
        namespace.run(|| {
            let mut netdev = Netdev::open()?;
            bring_up_without_offload(&mut netdev, &device, mtu, Some(mac(number, side)))
        })??;
    }
    bring_up_without_offload(netdev, &inside, mtu, None)?;
    bring_up_without_offload(netdev, &outside, mtu, None)
}

/// One end's addresses on one WAN, and what it knows about the other end.
fn configure_end(number: usize, device: &str, side: Side) -> Result<(), LabError> {
    let mut netdev = Netdev::open()?;
    for address in addresses(number, side) {
        let bits = if address.is_ipv4() { 24 } else { 64 };
        netdev.add_address(device, Prefix { address, bits }, None)?;
    }
    if side == Side::Client {
        return client_routes(&mut netdev, number);
    }
    for address in addresses(number, Side::Client) {
        netdev.add_neighbour(device, address, mac(number, Side::Client))?;
    }
    Ok(())
}

/// Gateways and default routes over every WAN with rising metrics: the first WAN carries what has no source rule.
fn client_routes(netdev: &mut Netdev, number: usize) -> Result<(), LabError> {
    let metric = 100 + u32::from(octet(number));
    let device = format!("eth{number}");
    for gateway in addresses(number, Side::Server) {
        netdev.add_neighbour(&device, gateway, mac(number, Side::Server))?;
        let all = if gateway.is_ipv4() {
            Prefix::DEFAULT_V4
        } else {
            Prefix::DEFAULT_V6
        };
        let route = Route {
            gateway: Some(gateway),
            device: Some(device.clone()),
            metric,
            ..Route::to(all)
        };
        netdev.add_route(&route)?;
    }
    Ok(())
}

/// Frames that the emulator sees must be what a wire would carry: no superframes, checksums filled in.
fn bring_up_without_offload(
    netdev: &mut Netdev,
    device: &str,
    mtu: u32,
    mac: Option<Mac>,
) -> Result<(), LabError> {
    for feature in Feature::ALL {
        netdev.set_feature(device, feature, false)?;
    }
    netdev.set_mtu(device, mtu)?;
    if let Some(mac) = mac {
        netdev.set_mac(device, mac)?;
    }
    Ok(netdev.set_up(device, true)?)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}

/// A locally administered Ethernet address.
fn mac(number: usize, side: Side) -> Mac {
    let end = if side == Side::Client { 0xC0 } else { 0x50 };
    Mac([0x02, 0, 0, 0, end, octet(number)])
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
