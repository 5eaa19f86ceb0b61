//! `[general]`: the server's address and the TUN device.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::base::Prefix;

use super::super::context::{Context, Placed};
use super::super::file::Table;
use super::super::values::{MssClamp, Role, TUNNEL6_PREFIX_LEN, Tunnel};
use super::{is_plain_name, narrow};

/// The server's address; `None` after a fault.
pub(super) fn server_ip<'a>(context: &mut Context<'a>, table: &Table<'a>) -> Option<IpAddr> {
    let Some(found) = context.address::<IpAddr>(table, "server_ip") else {
        if !table.sets("server_ip") {
            let at = Context::unset("general.server_ip");
            context.fault(&at, "is not set; put the server's public address");
        }
        return None;
    };
    if context.refuse_placeholder(&found) {
        return None;
    }
    if context.role == Role::Client && (found.value.is_unspecified() || found.value.is_multicast())
    {
        context.fault(&found, "is no address that a client can reach");
        return None;
    }
    Some(found.value)
}

/// Longest name of a network device: `IFNAMSIZ` is 16 with the final zero (netdevice(7)).
pub(super) const DEVICE_NAME_BYTES_MAX: usize = 15;

/// IPv6 needs links that carry 1280 bytes (RFC 8200, section 5).
const MTU_MIN_V6: i64 = 1280;

/// The TUN device and its addresses.
pub(super) fn tunnel<'a>(context: &mut Context<'a>, table: &Table<'a>) -> Tunnel {
    let name = context
        .value::<String>(table, "tun_name")
        .expect("tun_name has a default");
    if !is_plain_name(&name.value, DEVICE_NAME_BYTES_MAX) {
        context.fault(&name, "cannot be the name of a device");
    }
    let local = tunnel_v4(context, table, "tun_local_ip");
    let remote = tunnel_v4(context, table, "tun_remote_ip");
    let prefix_len = netmask(context, table);
    let net = Prefix::new(local.value.into(), prefix_len).expect("a netmask has at most 32 bits");
    if local.value == remote.value {
        let at = if remote.span.is_some() {
            &remote
        } else {
            &local
        };
        context.fault(at, "local and remote address of the tunnel are the same");
    } else if !net.contains(remote.value.into()) {
        let at = if remote.span.is_some() {
            &remote
        } else {
            &local
        };
        context.fault(
            at,
            format!("the remote address {} is outside of {net}", remote.value),
        );
    }
    let v6 = tunnel_v6(context, table);
    let mtu = context.integer(table, "tun_mtu", 576..=9000);
    if v6.is_some() && mtu.value < MTU_MIN_V6 {
        context.fault(&mtu, "is too small for IPv6");
    }
    let mss_clamp = mss_clamp(context, table);
    let (local, remote, mtu) = (local.value, remote.value, narrow(&mtu));
    Tunnel {
        name: name.value,
        local,
        remote,
        prefix_len,
        v6,
        mtu,
        mss_clamp,
    }
}

/// From what every host must take (RFC 9293, section 3.7.1) to what the largest TUN carries.
const MSS_RANGE: std::ops::RangeInclusive<u16> = 536..=8960;

fn mss_clamp<'a>(context: &mut Context<'a>, table: &Table<'a>) -> MssClamp {
    let Some(found) = context.value::<MssClamp>(table, "mss_clamp") else {
        return MssClamp::Auto;
    };
    if let MssClamp::Bytes(bytes) = found.value
        && !MSS_RANGE.contains(&bytes)
    {
        context.fault(&found, "is out of range");
    }
    found.value
}

fn tunnel_v4<'a>(context: &mut Context<'a>, table: &Table<'a>, name: &str) -> Placed<Ipv4Addr> {
    // An empty string counts as not set here as everywhere.
    let found = context.address::<Ipv4Addr>(table, name).unwrap_or_else(|| {
        let key = format!("general.{name}");
        let default = context
            .default::<String>(&key)
            .expect("tunnel addresses have a default");
        default.with(
            default
                .value
                .parse()
                .expect("defaults of the key table are addresses"),
        )
    });
    let address = found.value;
    if address.is_unspecified()
        || address.is_multicast()
        || address.is_loopback()
        || address.is_broadcast()
    {
        context.fault(&found, "cannot be the address of a tunnel");
    }
    found
}

/// The netmask's length; 24 after a fault.
fn netmask<'a>(context: &mut Context<'a>, table: &Table<'a>) -> u8 {
    const FALLBACK: u8 = 24;
    let Some(found) = context.address::<Ipv4Addr>(table, "tun_netmask") else {
        return FALLBACK;
    };
    let bits = found.value.to_bits();
    if bits.leading_ones() != bits.count_ones() || bits == 0 || bits == u32::MAX {
        context.fault(&found, "is not a netmask of a network with two addresses");
        return FALLBACK;
    }
    u8::try_from(bits.count_ones()).expect("at most 32")
}

fn tunnel_v6<'a>(context: &mut Context<'a>, table: &Table<'a>) -> Option<(Ipv6Addr, Ipv6Addr)> {
    let local = context.address::<Ipv6Addr>(table, "tun_local_ip6");
    let remote = context.address::<Ipv6Addr>(table, "tun_remote_ip6");
    let (local, remote) = match (local, remote) {
        (None, None) => return None,
        (Some(only), None) => {
            let other_is_faulty = table.sets("tun_remote_ip6");
            if !other_is_faulty {
                context.fault(&only, "is set without tun_remote_ip6");
            }
            return None;
        }
        (None, Some(only)) => {
            if !table.sets("tun_local_ip6") {
                context.fault(&only, "is set without tun_local_ip6");
            }
            return None;
        }
        (Some(local), Some(remote)) => (local, remote),
    };
    let net = Prefix::new(local.value.into(), TUNNEL6_PREFIX_LEN).expect("64 is below 128");
    if local.value == remote.value {
        context.fault(
            &remote,
            "local and remote address of the tunnel are the same",
        );
    } else if !net.contains(remote.value.into()) {
        context.fault(&remote, format!("is outside of {net}"));
    }
    Some((local.value, remote.value))
}
