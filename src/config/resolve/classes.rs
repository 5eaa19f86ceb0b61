//! `[[classes]]`: which packets of this side are treated in a way of their own.

use std::ops::RangeInclusive;

use crate::base::Prefix;
use crate::flow::class::{Protocol, Rule};
use crate::wire::inner_ip::proto;

use super::super::context::{Context, Placed, WordOr};
use super::super::file::{File, Table};
use super::super::values::{Class, ClassPolicy, Links};
use super::{NAME_CHARS_MAX, flag, has_wans, is_plain_name};

/// Most classes: each packet is compared with all of them.
const CLASSES_MAX: usize = 32;
/// Most ports and most prefixes of a class, for the same reason.
const VALUES_MAX: usize = 32;
/// Values of the DSCP field: 6 bits (RFC 2474).
const DSCP_MAX: i64 = 63;

/// All classes, in the order of the file.
pub(super) fn classes<'a>(context: &mut Context<'a>, file: &File<'a>, links: &Links) -> Vec<Class> {
    if let Some(table) = file.classes.get(CLASSES_MAX) {
        context.fault(
            &table.placed(),
            format!("is one more than the {CLASSES_MAX} classes that there can be"),
        );
    }
    let mut out: Vec<Class> = Vec::new();
    for table in &file.classes {
        let class = class(context, table, &out, links);
        out.push(class);
    }
    out
}

fn class<'a>(
    context: &mut Context<'a>,
    table: &Table<'a>,
    before: &[Class],
    links: &Links,
) -> Class {
    let mut name = format!("class{}", before.len());
    if let Some(found) = context.text(table, "name") {
        if !is_plain_name(&found.value, NAME_CHARS_MAX) {
            context.fault(&found, "cannot be the name of a class");
        } else if before.iter().any(|other| other.name == found.value) {
            context.fault(&found, "is the name of another class");
        }
        name = found.value;
    }
    let faults_before = context.faults.len();
    let rule = Rule {
        dscp: dscp(context, table),
        protocol: protocol(context, table),
        ports: ports(context, table),
        prefixes: prefixes(context, table),
    };
    if rule == Rule::default() && context.faults.len() == faults_before {
        context.fault(
            &table.placed(),
            "says nothing about its packets; set dscp, protocol, ports or prefixes",
        );
    }
    let policy = context.named::<ClassPolicy>(table, "policy");
    let wan = wan(context, table, policy, links);
    Class {
        name,
        rule,
        policy,
        wan,
        fallback: flag(context, table, "fallback"),
    }
}

/// The WAN of a pinned class. The server does not know its clients' WANs, and takes any name.
fn wan<'a>(
    context: &mut Context<'a>,
    table: &Table<'a>,
    policy: ClassPolicy,
    links: &Links,
) -> Option<String> {
    let found = context.text(table, "wan");
    match (policy, &found) {
        (ClassPolicy::Pin, None) if !table.sets("wan") => {
            context.fault(&table.placed(), "is pinned, but names no wan");
        }
        (ClassPolicy::Pin, Some(found)) => {
            let known = links.wans.iter().any(|wan| wan.name == found.value);
            if has_wans(context) && !known {
                context.fault(found, "is not the name of a WAN");
            }
        }
        (_, Some(found)) => {
            context.fault(found, format!("is of no use with policy = \"{policy}\""));
        }
        _ => {}
    }
    found.map(|found| found.value)
}

fn dscp<'a>(context: &mut Context<'a>, table: &Table<'a>) -> u64 {
    let mut mask = 0;
    for found in context.list_of::<i64>(table, "dscp") {
        if (0..=DSCP_MAX).contains(&found.value) {
            mask |= 1 << found.value;
        } else {
            context.fault(&found, "is out of range");
        }
    }
    mask
}

fn protocol<'a>(context: &mut Context<'a>, table: &Table<'a>) -> Option<Protocol> {
    let found = context.value::<WordOr>(table, "protocol")?;
    match &found.value {
        WordOr::Word(word) => match word.as_str() {
            "" => None,
            "tcp" => Some(Protocol::Number(proto::TCP)),
            "udp" => Some(Protocol::Number(proto::UDP)),
            "icmp" => Some(Protocol::Icmp),
            _ => {
                context.fault(&found, "is not known");
                None
            }
        },
        WordOr::Number(number) => {
            let number = u8::try_from(*number);
            if number.is_err() {
                context.fault(&found, "is out of range");
            }
            number.ok().map(Protocol::Number)
        }
    }
}

fn ports<'a>(context: &mut Context<'a>, table: &Table<'a>) -> Vec<RangeInclusive<u16>> {
    let mut out = Vec::new();
    for found in context.list_of::<WordOr>(table, "ports") {
        let range = match &found.value {
            WordOr::Number(port) => u16::try_from(*port).ok().map(|port| port..=port),
            WordOr::Word(word) => range_of(word),
        };
        match range {
            Some(range) => push_bounded(context, &mut out, range, &found),
            None => context.fault(&found, "is neither a port nor a range of ports"),
        }
    }
    out
}

/// `5000-5100`, or a port alone.
fn range_of(word: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = word.split_once('-').unwrap_or((word, word));
    let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (first <= last).then_some(first..=last)
}

fn prefixes<'a>(context: &mut Context<'a>, table: &Table<'a>) -> Vec<Prefix> {
    let mut out = Vec::new();
    for found in context.list(table, "prefixes") {
        match found.value.parse::<Prefix>() {
            Ok(prefix) => push_bounded(context, &mut out, prefix, &found),
            Err(error) => context.fault(&found, error),
        }
    }
    out
}

fn push_bounded<T, P>(context: &mut Context<'_>, out: &mut Vec<T>, value: T, at: &Placed<P>) {
    if out.len() < VALUES_MAX {
        out.push(value);
    } else {
        context.fault(at, format!("is one more than {VALUES_MAX}"));
    }
}
