//! Everything that a daemon makes on its host, and its removal.
//!
//! TUN device with addresses, MTU and queue length; for each WAN of a client a source rule and a table, so that
//! a bound source address leaves by its own interface; sockets. Whatever was made here is removed when
//! [`Prepared`] is dropped, with what a killed daemon left in the same tables, and nothing else.

use std::net::{IpAddr, SocketAddr};

use super::RunError;
use super::convert;
use super::sockets::BUFFER_BYTES;
use crate::base::WanId;
use crate::config::{Config, Role, TUNNEL6_PREFIX_LEN, Wan};
use crate::session::config::WanConfig;
use crate::sys::netdev::{Netdev, NetdevError, Prefix, Route, Rule};
use crate::sys::{Tun, TunConfig, UdpConfig, UdpSocket};

/// Frames that may wait in the TUN's own ring, which drops without a word: 10 ms of 400 000 small packets a second,
/// as long as a busy machine may keep the data thread waiting. They queue for the links elsewhere.
pub const TUN_QUEUE_FRAMES: u32 = 4000;
/// Longest superframe that the TUN may give us: with what each of its symbols adds it leaves as one run on one link. One of
/// 64 KiB needs a second send for its last few symbols.
const TUN_SUPERFRAME_BYTES: u32 = 61_440;
/// Path MTU taken for a WAN whose device is not known.
const MTU_USUAL: u32 = 1500;
/// Smallest path MTU we work with, the IPv6 minimum.
const MTU_MIN: u32 = 1280;
/// Largest datagram the protocol's length field is used for: a jumbo frame.
const MTU_MAX: u32 = 9000;

/// What was made, in order; undone in reverse.
#[derive(Debug)]
enum Made {
    Rule(Rule),
    Route(Route),
}

/// A client's WANs and sockets.
#[derive(Debug)]
pub struct ClientParts {
    /// WANs in use, renumbered from 0.
    pub wans: Vec<WanConfig>,
    /// WAN of each link.
    pub wan_of_link: Vec<WanId>,
    /// Connected sockets: for each worker one for each link.
    pub sockets: Vec<Vec<UdpSocket>>,
}

/// What the data threads start from.
#[derive(Debug)]
pub enum Parts {
    /// A client.
    Client(ClientParts),
    /// A server's listeners, in the order of the ports.
    Server(Vec<UdpSocket>),
}

/// A host made ready. Dropping it removes what was made.
#[derive(Debug)]
pub struct Prepared {
    /// The TUN device; it vanishes with its last descriptor.
    pub tun: Tun,
    /// Data threads, each with a queue of the TUN.
    pub workers: u8,
    /// Sockets, and what they are for. Taken by the data threads.
    pub parts: Option<Parts>,
    /// Largest datagram that any of our devices carries whole; what the paths carry is found by probes.
    pub datagram_bytes_max: u16,
    /// The client's WANs in use, as the configuration numbers them, in the order of the session's numbers.
    pub opened: Vec<WanId>,
    made: Vec<Made>,
}

impl Drop for Prepared {
    fn drop(&mut self) {
        let Ok(mut netdev) = Netdev::open() else {
            return;
        };
        for made in self.made.drain(..).rev() {
            let removed = match &made {
                Made::Rule(rule) => netdev.remove_rule(rule),
                Made::Route(route) => netdev.remove_route(route),
            };
            if let Err(error) = removed {
                tracing::warn!(%error, "left behind");
            }
        }
    }
}

/// Makes the host ready for `config`.
pub fn prepare(role: Role, config: &Config) -> Result<Prepared, RunError> {
    let mut netdev = Netdev::open()?;
    let workers = convert::worker_count(config);
    let tun = make_tun(config, workers, &mut netdev)?;
    let mut prepared = Prepared {
        tun,
        workers,
        parts: None,
        datagram_bytes_max: 0,
        opened: Vec::new(),
        made: Vec::new(),
    };
    match role {
        Role::Client => prepare_client(config, &mut netdev, &mut prepared)?,
        Role::Server => {
            let mtu = MTU_USUAL;
            prepared.datagram_bytes_max = datagram_bytes(mtu, config.server_ip);
            prepared.parts = Some(Parts::Server(listeners(config)?));
        }
    }
    Ok(prepared)
}

fn make_tun(config: &Config, workers: u8, netdev: &mut Netdev) -> Result<Tun, RunError> {
    let tunnel = &config.tunnel;
    let tun = Tun::create(
        &tunnel.name,
        TunConfig {
            offload: config.performance.offload,
            queues: workers.into(),
        },
    )?;
    let name = tun.name();
    netdev.set_mtu(name, u32::from(tunnel.mtu))?;
    netdev.set_queue_length(name, TUN_QUEUE_FRAMES)?;
    netdev.set_superframe_bytes(name, TUN_SUPERFRAME_BYTES)?;
    let v4 = Prefix {
        address: tunnel.local.into(),
        bits: tunnel.prefix_len,
    };
    // A subnet on the device reaches the peer; with a host mask the peer is named.
    let peer = (tunnel.prefix_len >= 31).then_some(IpAddr::V4(tunnel.remote));
    netdev.add_address(name, v4, peer)?;
    if let Some((local, _)) = tunnel.v6 {
        netdev.add_address(
            name,
            Prefix {
                address: local.into(),
                bits: TUNNEL6_PREFIX_LEN,
            },
            None,
        )?;
    }
    netdev.set_up(name, true)?;
    tracing::info!(name, mtu = tunnel.mtu, local = %tunnel.local, "tunnel device is up");
    Ok(tun)
}

fn listeners(config: &Config) -> Result<Vec<UdpSocket>, RunError> {
    let open = |port| -> Result<UdpSocket, RunError> {
        let socket = UdpSocket::bind(UdpConfig {
            source: SocketAddr::new(config.server_ip, port),
            device: None,
            reuse_port: true,
            buffer_bytes: BUFFER_BYTES,
        })?;
        let what = "asking for local addresses";
        let system = |source| RunError::System { what, source };
        socket
            .set_local_address_wanted(config.server_ip.is_ipv6())
            .map_err(system)?;
        Ok(socket)
    };
    let sockets = config
        .links
        .server_ports()
        .map(open)
        .collect::<Result<Vec<_>, _>>()?;
    let (first, last) = (
        config.links.start_port,
        config.links.start_port + config.links.ports - 1,
    );
    tracing::info!(address = %config.server_ip, first, last, "listening");
    Ok(sockets)
}

fn prepare_client(
    config: &Config,
    netdev: &mut Netdev,
    prepared: &mut Prepared,
) -> Result<(), RunError> {
    let mut parts = ClientParts {
        wans: Vec::new(),
        wan_of_link: Vec::new(),
        sockets: (0..prepared.workers).map(|_| Vec::new()).collect(),
    };
    let mut mtu = MTU_MIN;
    let mut refused = Vec::new();
    for (known_as, wan) in convert::wans(config) {
        let configured = &config.links.wans[known_as.index()];
        let workers = prepared.workers;
        match open_wan(config, configured, workers, netdev, &mut prepared.made) {
            Ok((sockets, device_mtu)) => {
                let id = WanId(u8::try_from(parts.wans.len()).unwrap_or(u8::MAX));
                prepared.opened.push(known_as);
                parts.wans.push(WanConfig { id, ..wan });
                let links = sockets.first().map_or(0, Vec::len);
                parts.wan_of_link.extend(std::iter::repeat_n(id, links));
                for (all, more) in parts.sockets.iter_mut().zip(sockets) {
                    all.extend(more);
                }
                mtu = mtu.max(device_mtu);
            }
            Err(error) => {
                tracing::warn!(wan = wan.name, %error, "WAN left out");
                refused.push(format!("{}: {error}", wan.name));
            }
        }
    }
    if parts.wan_of_link.is_empty() {
        return Err(RunError::NoWan(refused.join("; ")));
    }
    prepared.datagram_bytes_max = datagram_bytes(mtu, config.server_ip);
    prepared.parts = Some(Parts::Client(parts));
    Ok(())
}

/// Opens the sockets of one WAN for each worker, after making sure that they leave by its device.
fn open_wan(
    config: &Config,
    wan: &Wan,
    workers: u8,
    netdev: &mut Netdev,
    made: &mut Vec<Made>,
) -> Result<(Vec<Vec<UdpSocket>>, u32), RunError> {
    let device = match (&wan.device, wan.source) {
        (Some(device), _) => Some(device.clone()),
        (None, Some(source)) => netdev.device_of(source)?,
        (None, None) => None,
    };
    if let (Some(source), None) = (wan.source, &device) {
        return Err(RunError::NoWan(format!(
            "{source} is no address of this host"
        )));
    }
    if let (Some(source), Some(device), true) = (wan.source, &device, config.routing.manage) {
        route_wan(config, wan.id, source, device, netdev, made)?;
    }
    let mtu = match &device {
        Some(device) => netdev.mtu_of(device)?.unwrap_or(MTU_USUAL),
        None => MTU_USUAL,
    };
    let sockets = (0..workers).map(|_| link_sockets(config, wan, device.as_ref()));
    let sockets: Vec<_> = sockets.collect::<Result<_, _>>()?;
    let source = wan
        .source
        .map_or_else(|| "any".to_owned(), |source| source.to_string());
    tracing::info!(
        wan = wan.name,
        source,
        device,
        mtu,
        links = sockets.first().map_or(0, Vec::len),
        workers,
        "WAN opened"
    );
    Ok((sockets, mtu))
}

/// The sockets of one worker's links over a WAN.
fn link_sockets(
    config: &Config,
    wan: &Wan,
    device: Option<&String>,
) -> Result<Vec<UdpSocket>, RunError> {
    let any: IpAddr = if config.server_ip.is_ipv4() {
        std::net::Ipv4Addr::UNSPECIFIED.into()
    } else {
        std::net::Ipv6Addr::UNSPECIFIED.into()
    };
    let mut sockets = Vec::new();
    for lane in config.links.lanes().filter(|lane| lane.wan == wan.id) {
        let socket = UdpSocket::bind(UdpConfig {
            source: SocketAddr::new(wan.source.unwrap_or(any), 0),
            device: device.cloned(),
            reuse_port: false,
            buffer_bytes: BUFFER_BYTES,
        })?;
        socket.connect(SocketAddr::new(config.server_ip, lane.server_port))?;
        sockets.push(socket);
    }
    Ok(sockets)
}

/// `from SOURCE lookup TABLE`, and in the table the way out of the WAN's own device.
fn route_wan(
    config: &Config,
    wan: WanId,
    source: IpAddr,
    device: &str,
    netdev: &mut Netdev,
    made: &mut Vec<Made>,
) -> Result<(), NetdevError> {
    let table = config.routing.table_of(wan);
    let gateway = match netdev.gateway_of(device, source)? {
        Some(gateway) => Some(gateway),
        None => specific_gateway(netdev, device, config.server_ip)?,
    };
    let route = Route {
        gateway,
        device: Some(device.to_owned()),
        table,
        on_link: gateway.is_some(),
        ..Route::to(Prefix::default_of(source))
    };
    // One that is there already was left by a daemon that was killed: the table and the priority are ours.
    netdev.add_route(&route)?;
    made.push(Made::Route(route));
    let rule = Rule::from_source(source, table, config.routing.priority_of(wan));
    netdev.add_rule(&rule)?;
    made.push(Made::Rule(rule));
    Ok(())
}

/// The gateway of a route to the server over this device, where the device has no default route.
fn specific_gateway(
    netdev: &mut Netdev,
    device: &str,
    server: IpAddr,
) -> Result<Option<IpAddr>, NetdevError> {
    let routes = netdev.routes()?;
    Ok(routes
        .iter()
        .filter(|route| route.device.as_deref() == Some(device) && route.gateway.is_some())
        .filter(|route| {
            crate::base::Prefix::new(route.destination.address, route.destination.bits)
                .is_some_and(|prefix| prefix.contains(server))
        })
        .max_by_key(|route| route.destination.bits)
        .and_then(|route| route.gateway))
}

/// UDP payload that fits packets of `mtu` bytes towards an address; even, because symbols are.
fn datagram_bytes(mtu: u32, address: IpAddr) -> u16 {
    let headers = if address.is_ipv4() { 28 } else { 48 };
    u16::try_from((mtu.clamp(MTU_MIN, MTU_MAX) - headers) & !1).unwrap_or(u16::MAX)
}
