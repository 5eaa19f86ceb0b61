//! Routes: what a table says about a destination.

use std::fmt;
use std::net::IpAddr;

use super::netlink::{Message, attributes, u32_at};
use super::{Netdev, NetdevError, Prefix, address_from, family, octets};

/// The table that holds the host's ordinary routes.
pub const TABLE_MAIN: u32 = 254;

/// One unicast route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where to; its family is the route's.
    pub destination: Prefix,
    /// The next hop; `None` when the destination is directly on the device.
    pub gateway: Option<IpAddr>,
    /// The interface; `None` lets the kernel find it through the gateway.
    pub device: Option<String>,
    /// The table ([`TABLE_MAIN`] for ordinary routes).
    pub table: u32,
    /// The lower the better; 0 for the kernel's default.
    pub metric: u32,
    /// Source address for packets that have none yet.
    pub source: Option<IpAddr>,
    /// The gateway counts as directly reachable although no route says so.
    pub on_link: bool,
}

impl Route {
    /// A route in the main table without anything special.
    pub const fn to(destination: Prefix) -> Self {
        Self {
            destination,
            gateway: None,
            device: None,
            table: TABLE_MAIN,
            metric: 0,
            source: None,
            on_link: false,
        }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.destination)?;
        if let Some(gateway) = self.gateway {
            write!(f, " via {gateway}")?;
        }
        if let Some(device) = &self.device {
            write!(f, " dev {device}")?;
        }
        write!(f, " table {}", self.table)
    }
}

/// `struct rtmsg`: family, lengths, table, protocol, scope and type in eight bytes, 32 flag bits.
const HEADER_BYTES: usize = 12;

/// `linux/rtnetlink.h`.
const RTNH_F_ONLINK: u32 = 4;

impl Netdev {
    /// Adds a route; `false` when the same is there already.
    ///
    /// # Errors
    /// The gateway is not reachable, no such interface, or not permitted.
    pub fn add_route(&mut self, route: &Route) -> Result<bool, NetdevError> {
        let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        let message = self.route_message(libc::RTM_NEWROUTE, flags, route)?;
        self.create(message, "add route", route)
    }

    /// Removes a route; `false` when there is none like it.
    ///
    /// # Errors
    /// Not permitted.
    pub fn remove_route(&mut self, route: &Route) -> Result<bool, NetdevError> {
        if let Some(device) = &route.device
            && self.interface(device)?.is_none()
        {
            return Ok(false); // routes go with their interface
        }
        let message = self.route_message(libc::RTM_DELROUTE, 0, route)?;
        self.delete(message, "remove route", route)
    }

    /// All unicast routes of both families and all tables but the kernel's own (local).
    ///
    /// # Errors
    /// Netlink fails.
    pub fn routes(&mut self) -> Result<Vec<Route>, NetdevError> {
        let interfaces = self.interfaces()?;
        let name = |index: u32| {
            interfaces
                .iter()
                .find(|interface| interface.index == index)
                .map(|i| i.name.clone())
        };
        let mut found = Vec::new();
        self.socket
            .dump(libc::RTM_GETROUTE, &[0; HEADER_BYTES], |kind, body| {
                if kind == libc::RTM_NEWROUTE {
                    found.extend(parse_route(body, &name));
                }
            })
            .map_err(|e| NetdevError::new("list", "routes", e))?;
        Ok(found)
    }

    /// The best default route of the main table that leaves by `device`, in the family of `like`; `None` when
    /// there is none.
    ///
    /// # Errors
    /// Netlink fails.
    pub fn default_route(
        &mut self,
        device: &str,
        like: IpAddr,
    ) -> Result<Option<Route>, NetdevError> {
        let everything = Prefix::default_of(like);
        let fits = |route: &Route| {
            route.table == TABLE_MAIN
                && route.destination == everything
                && route.device.as_deref() == Some(device)
        };
        let routes = self.routes()?;
        Ok(routes
            .into_iter()
            .filter(fits)
            .min_by_key(|route| route.metric))
    }

    /// The gateway of [`Netdev::default_route`]; `None` when there is no such route or it needs none.
    ///
    /// # Errors
    /// Netlink fails.
    pub fn gateway_of(
        &mut self,
        device: &str,
        like: IpAddr,
    ) -> Result<Option<IpAddr>, NetdevError> {
        Ok(self
            .default_route(device, like)?
            .and_then(|route| route.gateway))
    }

    fn route_message(
        &mut self,
        kind: u16,
        flags: i32,
        route: &Route,
    ) -> Result<Message, NetdevError> {
        let scope = if route.gateway.is_none() && route.destination.address.is_ipv4() {
            libc::RT_SCOPE_LINK
        } else {
            libc::RT_SCOPE_UNIVERSE
        };
        let on_link = if route.on_link { RTNH_F_ONLINK } else { 0 };
        let deleting = kind == libc::RTM_DELROUTE;
        let mut header = [
            family(route.destination.address),
            route.destination.bits,
            0,
            0,
            0, // the table stands in an attribute, which has room for large numbers
            // Deleting matches any protocol and scope unless told otherwise.
            if deleting { 0 } else { libc::RTPROT_STATIC },
            if deleting {
                libc::RT_SCOPE_NOWHERE
            } else {
                scope
            },
            if deleting { 0 } else { libc::RTN_UNICAST },
            0,
            0,
            0,
            0,
        ];
        header[8..].copy_from_slice(&u32::to_ne_bytes(on_link));
        let mut message = Message::new(kind, flags, &header);
        message.number(libc::RTA_TABLE, route.table);
        if route.destination.bits > 0 {
            message.attribute(libc::RTA_DST, &octets(route.destination.address));
        }
        if let Some(gateway) = route.gateway {
            message.attribute(libc::RTA_GATEWAY, &octets(gateway));
        }
        if let Some(device) = &route.device {
            message.number(libc::RTA_OIF, self.index_of(device)?);
        }
        if route.metric > 0 {
            message.number(libc::RTA_PRIORITY, route.metric);
        }
        if let Some(source) = route.source {
            message.attribute(libc::RTA_PREFSRC, &octets(source));
        }
        Ok(message)
    }
}

/// `None` for what is not a unicast route with one next hop, or belongs to the kernel itself.
fn parse_route(body: &[u8], name: &impl Fn(u32) -> Option<String>) -> Option<Route> {
    let (address_family, bits, kind) = (*body.first()?, *body.get(1)?, *body.get(7)?);
    let flags = u32_at(body, 8)?;
    // Cached routes (RTM_F_CLONED) are nobody's configuration.
    if kind != libc::RTN_UNICAST || flags & libc::RTM_F_CLONED != 0 {
        return None;
    }
    let everything = match i32::from(address_family) {
        libc::AF_INET => Prefix::DEFAULT_V4,
        libc::AF_INET6 => Prefix::DEFAULT_V6,
        _ => return None,
    };
    let mut route = Route::to(everything);
    route.destination.bits = bits;
    route.table = u32::from(*body.get(4)?);
    route.on_link = flags & RTNH_F_ONLINK != 0;
    for (kind, value) in attributes(body, HEADER_BYTES) {
        match kind {
            libc::RTA_DST => route.destination.address = address_from(value)?,
            libc::RTA_GATEWAY => route.gateway = address_from(value),
            libc::RTA_OIF => route.device = name(u32_at(value, 0)?),
            libc::RTA_PRIORITY => route.metric = u32_at(value, 0)?,
            libc::RTA_PREFSRC => route.source = address_from(value),
            libc::RTA_TABLE => route.table = u32_at(value, 0)?,
            _ => {}
        }
    }
    Some(route)
}
