//! Interfaces, addresses and routes of the lab, by netlink on the calling thread's namespace.

use std::net::IpAddr;
use std::os::fd::AsRawFd;

use futures_util::TryStreamExt;
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::{Handle, LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::{LabError, Netns};

/// A connection to the kernel of the namespace in which it was made.
#[derive(Debug)]
pub(super) struct Netlink {
    runtime: tokio::runtime::Runtime,
    handle: Handle,
}

/// Bytes of an Ethernet address.
pub(super) type Mac = [u8; 6];

impl Netlink {
    /// Connects in the namespace of the calling thread.
    pub(super) fn connect() -> Result<Self, LabError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build();
        let runtime = runtime.map_err(LabError::io("runtime for netlink"))?;
        let (connection, handle, _) = {
            let _inside = runtime.enter();
            rtnetlink::new_connection().map_err(LabError::io("netlink socket"))?
        };
        runtime.spawn(connection);
        Ok(Self { runtime, handle })
    }

    /// Makes a pair of virtual interfaces with the given names.
    pub(super) fn add_veth(&self, name: &str, peer: &str) -> Result<(), LabError> {
        let message = LinkVeth::new(name, peer).build();
        self.wait(
            format!("veth {name}-{peer}"),
            self.handle.link().add(message).execute(),
        )
    }

    /// Moves an interface into another namespace.
    pub(super) fn move_to(&self, name: &str, namespace: &Netns) -> Result<(), LabError> {
        let fd = namespace.file().as_raw_fd();
        let message = LinkUnspec::new_with_name(name).setns_by_fd(fd).build();
        self.change(format!("move {name} to {}", namespace.name()), message)
    }

    /// Sets MTU and, if given, the Ethernet address, and brings the interface up.
    pub(super) fn bring_up(
        &self,
        name: &str,
        mtu: Option<u32>,
        mac: Option<Mac>,
    ) -> Result<(), LabError> {
        let mut builder = LinkUnspec::new_with_name(name).up();
        if let Some(mtu) = mtu {
            builder = builder.mtu(mtu);
        }
        if let Some(mac) = mac {
            builder = builder.address(mac.to_vec());
        }
        self.change(format!("bring up {name}"), builder.build())
    }

    /// Takes an interface down.
    pub(super) fn take_down(&self, name: &str) -> Result<(), LabError> {
        self.change(
            format!("take down {name}"),
            LinkUnspec::new_with_name(name).down().build(),
        )
    }

    /// Adds an address.
    pub(super) fn add_address(
        &self,
        name: &str,
        address: IpAddr,
        prefix: u8,
    ) -> Result<(), LabError> {
        let index = self.index(name)?;
        let request = self.handle.address().add(index, address, prefix);
        self.wait(
            format!("address {address}/{prefix} on {name}"),
            request.execute(),
        )
    }

    /// Adds a default route; `metric` decides between several.
    pub(super) fn add_default_route(
        &self,
        name: &str,
        gateway: IpAddr,
        metric: u32,
    ) -> Result<(), LabError> {
        let index = self.index(name)?;
        let message = match gateway {
            IpAddr::V4(gateway) => RouteMessageBuilder::<std::net::Ipv4Addr>::new()
                .gateway(gateway)
                .output_interface(index)
                .priority(metric)
                .build(),
            IpAddr::V6(gateway) => RouteMessageBuilder::<std::net::Ipv6Addr>::new()
                .gateway(gateway)
                .output_interface(index)
                .priority(metric)
                .build(),
        };
        self.wait(
            format!("default route via {gateway}"),
            self.handle.route().add(message).execute(),
        )
    }

    /// Tells the Ethernet address of a neighbour once and for all, so that lost ARP packets are never the reason
    /// for what a measurement shows.
    pub(super) fn add_neighbour(
        &self,
        name: &str,
        address: IpAddr,
        mac: Mac,
    ) -> Result<(), LabError> {
        let index = self.index(name)?;
        let request = self
            .handle
            .neighbours()
            .add(index, address)
            .link_layer_address(&mac);
        self.wait(format!("neighbour {address} on {name}"), request.execute())
    }

    fn change(&self, what: String, message: LinkMessage) -> Result<(), LabError> {
        self.wait(what, self.handle.link().change(message).execute())
    }

    fn index(&self, name: &str) -> Result<u32, LabError> {
        let mut links = self
            .handle
            .link()
            .get()
            .match_name(name.to_owned())
            .execute();
        let found = self.wait(format!("interface {name}"), links.try_next())?;
        found
            .map(|link| link.header.index)
            .ok_or_else(|| LabError::Program(format!("no interface {name}")))
    }

    fn wait<R>(
        &self,
        what: String,
        request: impl Future<Output = Result<R, rtnetlink::Error>>,
    ) -> Result<R, LabError> {
        let result = self.runtime.block_on(request);
        result.map_err(|source| LabError::Netlink {
            what,
            source: Box::new(source),
        })
    }
}
