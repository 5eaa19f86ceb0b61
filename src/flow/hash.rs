//! The hash of an inner flow: picks its queue and its order lane.
//!
//! Keyed, so that a sender inside the tunnel cannot choose ports that fall into one queue with a victim's. Not
//! symmetric: the two directions of a flow are scheduled by different peers and need no common value.

use std::net::IpAddr;

use crate::wire::inner_ip::InnerIp;

/// Hash of (source, destination, protocol, ports) under `seed`. Fragments hash without ports.
pub fn hash(ip: &InnerIp, seed: u64) -> u64 {
    let (source, destination) = ip.ports.unwrap_or((0, 0));
    let rest = u64::from(source) << 32 | u64::from(destination) << 16 | u64::from(ip.proto) << 8;
    let mut state = fold(seed ^ KEYS[0], rest | u64::from(ip.version) ^ KEYS[1]);
    for address in [ip.src, ip.dst] {
        let (high, low) = halves(address);
        state = fold(state ^ high ^ KEYS[2], low ^ seed.rotate_left(32) ^ KEYS[3]);
    }
    // A factor of zero would wipe the other one out; the last round separates such neighbours again.
    fold(state ^ KEYS[1], rest ^ seed ^ KEYS[2])
}

/// Odd constants with balanced bits (those of wyhash).
const KEYS: [u64; 4] = [
    0xa076_1d64_78bd_642f,
    0xe703_7ed1_a0b4_28db,
    0x8ebc_6af0_9c88_c6e3,
    0x5899_65cc_7537_4cc3,
];

/// Both halves of the 128-bit product: each output bit depends on every input bit.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the two halves are taken apart on purpose"
)]
const fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    product as u64 ^ (product >> 64) as u64
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the two halves are taken apart on purpose"
)]
fn halves(address: IpAddr) -> (u64, u64) {
    match address {
        IpAddr::V4(v4) => (4, u64::from(v4.to_bits())),
        IpAddr::V6(v6) => ((v6.to_bits() >> 64) as u64, v6.to_bits() as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(source: u32, port: u16) -> InnerIp {
        InnerIp {
            version: 4,
            src: IpAddr::V4(source.into()),
            dst: IpAddr::V4(0x0a00_0001.into()),
            proto: 6,
            ports: Some((port, 443)),
            header_len: 20,
            total_len: 40,
            dscp: 0,
            ecn: 0,
            tcp_flags: 0,
            fragment: false,
        }
    }

    #[test]
    fn every_part_of_the_key_and_the_seed_matter_and_lengths_do_not() {
        let a = flow(0x0a00_0002, 5000);
        let mut others = vec![a, a, a, a, a];
        others[0].src = a.dst;
        others[1].dst = a.src;
        others[2].proto = 17;
        others[3].ports = Some((443, 5000));
        others[4].ports = None;
        for other in others {
            assert_ne!(hash(&a, 1), hash(&other, 1), "{other:?}");
        }
        assert_ne!(hash(&a, 1), hash(&a, 2));
        let same = InnerIp {
            total_len: 1400,
            tcp_flags: 2,
            ecn: 3,
            ..a
        };
        assert_eq!(hash(&a, 1), hash(&same, 1));
    }

    #[test]
    fn neighbouring_flows_spread_evenly_over_queues_and_lanes() {
        for buckets in [63_u64, 1024] {
            let mut counts = vec![0_u32; usize::try_from(buckets).unwrap()];
            let flows = 100 * buckets;
            for i in 0..flows {
                let source = 0x0a00_0000 + u32::try_from(i / 200).unwrap();
                let ip = flow(source, 40_000 + u16::try_from(i % 200).unwrap());
                counts[usize::try_from(hash(&ip, 9) % buckets).unwrap()] += 1;
            }
            // 100 expected in each, standard deviation 10: six of them either way.
            assert!(
                counts.iter().all(|&n| (40..=160).contains(&n)),
                "{buckets}: {counts:?}"
            );
        }
    }
}
