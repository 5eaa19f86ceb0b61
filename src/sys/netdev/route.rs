//! Routes and rules: which table a packet is looked up in, and what that table says.

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

/// One policy rule: packets that match are looked up in `table`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Rules are tried from low to high.
    pub priority: u32,
    /// Where to look.
    pub table: u32,
    /// The rule's family where neither `from` nor `to` says it.
    pub ipv6: bool,
    /// Only packets from here.
    pub from: Option<Prefix>,
    /// Only packets to here.
    pub to: Option<Prefix>,
    /// Only packets with this firewall mark (all 32 bits).
    pub mark: Option<u32>,
    /// Match everything that the conditions do not.
    pub invert: bool,
    /// Ignore a result whose prefix has at most this many bits (0: ignore default routes).
    pub suppress_prefix_length: Option<u32>,
}

impl Rule {
    /// `from SOURCE lookup TABLE`: what one WAN of a client needs.
    pub const fn from_source(source: IpAddr, table: u32, priority: u32) -> Self {
        Self {
            priority,
            table,
            ipv6: source.is_ipv6(),
            from: Some(Prefix::host(source)),
            to: None,
            mark: None,
            invert: false,
            suppress_prefix_length: None,
        }
    }

    fn family(&self) -> u8 {
        let known = self.from.or(self.to).map(|prefix| family(prefix.address));
        known.unwrap_or(if self.ipv6 { 10 } else { 2 })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.priority)?;
        if let Some(from) = self.from {
            write!(f, " from {from}")?;
        }
        if let Some(to) = self.to {
            write!(f, " to {to}")?;
        }
        if let Some(mark) = self.mark {
            write!(
                f,
                "{} fwmark {mark:#x}",
                if self.invert { " not" } else { "" }
            )?;
        }
        write!(f, " lookup {}", self.table)
    }
}

/// `struct rtmsg` and `struct fib_rule_hdr`: eight bytes and 32 flag bits.
const HEADER_BYTES: usize = 12;

/// `linux/rtnetlink.h`.
const RTNH_F_ONLINK: u32 = 4;

// `linux/fib_rules.h`.
const FRA_DST: u16 = 1;
const FRA_SRC: u16 = 2;
const FRA_PRIORITY: u16 = 6;
const FRA_FWMARK: u16 = 10;
const FRA_SUPPRESS_PREFIXLEN: u16 = 14;
const FRA_TABLE: u16 = 15;
const FRA_FWMASK: u16 = 16;
const FR_ACT_TO_TBL: u8 = 1;
const FIB_RULE_INVERT: u32 = 2;

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

    /// Adds a rule; `false` when the same is there already.
    ///
    /// # Errors
    /// Not permitted, or the kernel has no policy routing.
    pub fn add_rule(&mut self, rule: &Rule) -> Result<bool, NetdevError> {
        let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        self.create(
            rule_message(libc::RTM_NEWRULE, flags, rule),
            "add rule",
            rule,
        )
    }

    /// Removes a rule; `false` when there is none like it.
    ///
    /// # Errors
    /// Not permitted.
    pub fn remove_rule(&mut self, rule: &Rule) -> Result<bool, NetdevError> {
        self.delete(
            rule_message(libc::RTM_DELRULE, 0, rule),
            "remove rule",
            rule,
        )
    }

    /// All rules of both families that look up a table, in the order in which they are tried.
    ///
    /// # Errors
    /// Netlink fails.
    pub fn rules(&mut self) -> Result<Vec<Rule>, NetdevError> {
        let mut found = Vec::new();
        self.socket
            .dump(libc::RTM_GETRULE, &[0; HEADER_BYTES], |kind, body| {
                if kind == libc::RTM_NEWRULE {
                    found.extend(parse_rule(body));
                }
            })
            .map_err(|e| NetdevError::new("list", "rules", e))?;
        Ok(found)
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

fn rule_message(kind: u16, flags: i32, rule: &Rule) -> Message {
    let bits = |prefix: Option<Prefix>| prefix.map_or(0, |prefix| prefix.bits);
    let mut header = [
        rule.family(),
        bits(rule.to),
        bits(rule.from),
        0,
        0,
        0,
        0,
        FR_ACT_TO_TBL,
        0,
        0,
        0,
        0,
    ];
    let invert = if rule.invert { FIB_RULE_INVERT } else { 0 };
    header[8..].copy_from_slice(&invert.to_ne_bytes());
    let mut message = Message::new(kind, flags, &header);
    message.number(FRA_TABLE, rule.table);
    message.number(FRA_PRIORITY, rule.priority);
    if let Some(from) = rule.from {
        message.attribute(FRA_SRC, &octets(from.address));
    }
    if let Some(to) = rule.to {
        message.attribute(FRA_DST, &octets(to.address));
    }
    if let Some(mark) = rule.mark {
        message.number(FRA_FWMARK, mark);
        message.number(FRA_FWMASK, u32::MAX);
    }
    if let Some(bits) = rule.suppress_prefix_length {
        message.number(FRA_SUPPRESS_PREFIXLEN, bits);
    }
    message
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

fn parse_rule(body: &[u8]) -> Option<Rule> {
    let (to_bits, from_bits) = (*body.get(1)?, *body.get(2)?);
    if *body.get(7)? != FR_ACT_TO_TBL {
        return None;
    }
    let mut rule = Rule {
        priority: 0,
        table: u32::from(*body.get(4)?),
        ipv6: i32::from(*body.first()?) == libc::AF_INET6,
        from: None,
        to: None,
        mark: None,
        invert: u32_at(body, 8)? & FIB_RULE_INVERT != 0,
        suppress_prefix_length: None,
    };
    for (kind, value) in attributes(body, HEADER_BYTES) {
        match kind {
            FRA_SRC => {
                rule.from = Some(Prefix {
                    address: address_from(value)?,
                    bits: from_bits,
                })
            }
            FRA_DST => {
                rule.to = Some(Prefix {
                    address: address_from(value)?,
                    bits: to_bits,
                })
            }
            FRA_PRIORITY => rule.priority = u32_at(value, 0)?,
            FRA_FWMARK => rule.mark = u32_at(value, 0),
            FRA_TABLE => rule.table = u32_at(value, 0)?,
            // The kernel says "none" with all bits set.
            FRA_SUPPRESS_PREFIXLEN => {
                rule.suppress_prefix_length = u32_at(value, 0).filter(|&bits| bits != u32::MAX);
            }
            _ => {}
        }
    }
    Some(rule)
}
