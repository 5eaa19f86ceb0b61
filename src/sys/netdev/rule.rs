//! Rules: which table a packet is looked up in.

use std::fmt;
use std::net::IpAddr;

use super::netlink::{Message, attributes, u32_at};
use super::{Netdev, NetdevError, Prefix, address_from, family, octets};

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

/// `struct fib_rule_hdr`: family, lengths, table and action in eight bytes, 32 flag bits.
const HEADER_BYTES: usize = 12;

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

fn parse_rule(body: &[u8]) -> Option<Rule> {
    // The kernel also lists the rules of multicast routing, under families of their own.
    if ![libc::AF_INET, libc::AF_INET6].contains(&i32::from(*body.first()?)) {
        return None;
    }
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
