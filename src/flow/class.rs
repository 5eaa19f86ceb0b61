//! Which inner packets belong to a class: a rule over the fields that the tunnel reads of a packet anyway.
//!
//! A rule names values for some fields; a packet matches when each of these fields has one of its values. No state, no
//! allocation: a rule of each sort costs a few comparisons, once for each read of the TUN.

use std::ops::RangeInclusive;

use crate::base::Prefix;
use crate::wire::inner_ip::{InnerIp, proto};

/// Which transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// ICMP of either IP version.
    Icmp,
    /// The one of this number.
    Number(u8),
}

/// Which packets. A field that names nothing matches all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Bit i: packets of code point i match.
    pub dscp: u64,
    /// Transport protocol.
    pub protocol: Option<Protocol>,
    /// Source or destination port. Packets without ports (fragments, ICMP) match no port.
    pub ports: Vec<RangeInclusive<u16>>,
    /// Source or destination address.
    pub prefixes: Vec<Prefix>,
}

impl Rule {
    /// Whether a packet matches.
    pub fn matches(&self, ip: &InnerIp) -> bool {
        (self.dscp == 0 || self.dscp >> (ip.dscp & 63) & 1 == 1)
            && self.protocol.is_none_or(|protocol| match protocol {
                Protocol::Icmp => matches!(ip.proto, proto::ICMP | proto::ICMPV6),
                Protocol::Number(number) => ip.proto == number,
            })
            && (self.ports.is_empty() || self.has_port(ip))
            && (self.prefixes.is_empty() || self.has_address(ip))
    }

    fn has_port(&self, ip: &InnerIp) -> bool {
        ip.ports.is_some_and(|(source, destination)| {
            let mut ranges = self.ports.iter();
            ranges.any(|range| range.contains(&source) || range.contains(&destination))
        })
    }

    fn has_address(&self, ip: &InnerIp) -> bool {
        let mut prefixes = self.prefixes.iter();
        prefixes.any(|prefix| prefix.contains(ip.src) || prefix.contains(ip.dst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet() -> InnerIp {
        InnerIp {
            version: 4,
            src: "10.0.0.2".parse().unwrap(),
            dst: "8.8.8.8".parse().unwrap(),
            proto: proto::UDP,
            ports: Some((40_000, 53)),
            header_len: 20,
            total_len: 60,
            dscp: 46,
            ecn: 0,
            tcp_flags: 0,
            fragment: false,
        }
    }

    #[test]
    fn a_rule_that_names_nothing_matches_everything() {
        assert!(Rule::default().matches(&packet()));
    }

    #[test]
    fn each_field_matches_one_of_its_values_and_no_other() {
        let of = |change: fn(&mut Rule)| {
            let mut rule = Rule::default();
            change(&mut rule);
            rule.matches(&packet())
        };
        assert!(of(|r| r.dscp = 1 << 46 | 1 << 10) && !of(|r| r.dscp = 1 << 10));
        assert!(of(|r| r.protocol = Some(Protocol::Number(17))));
        assert!(!of(|r| r.protocol = Some(Protocol::Number(6))));
        assert!(!of(|r| r.protocol = Some(Protocol::Icmp)));
        assert!(of(|r| r.ports = vec![1..=5, 53..=53]));
        assert!(of(|r| r.ports = vec![39_000..=41_000]));
        assert!(!of(|r| r.ports = vec![54..=39_999]));
        assert!(of(|r| r.prefixes = vec!["8.8.8.0/24".parse().unwrap()]));
        assert!(of(|r| r.prefixes = vec!["10.0.0.0/8".parse().unwrap()]));
        assert!(!of(|r| r.prefixes = vec!["::/0".parse().unwrap()]));
    }

    #[test]
    fn all_fields_that_are_named_must_match() {
        let mut rule = Rule {
            dscp: 1 << 46,
            ports: vec![53..=53],
            ..Rule::default()
        };
        assert!(rule.matches(&packet()));
        rule.protocol = Some(Protocol::Number(6));
        assert!(!rule.matches(&packet()));
    }

    #[test]
    fn both_icmps_are_icmp_and_fragments_have_no_port() {
        let rule = Rule {
            protocol: Some(Protocol::Icmp),
            ..Rule::default()
        };
        for number in [1, 58] {
            let ip = InnerIp {
                proto: number,
                ports: None,
                ..packet()
            };
            assert!(rule.matches(&ip));
            let ports = Rule {
                ports: vec![0..=65_535],
                ..Rule::default()
            };
            assert!(!ports.matches(&ip));
        }
    }
}
