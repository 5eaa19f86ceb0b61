//! Token buckets: one for a whole class of events, and a fixed table with one for each address.
//!
//! Invariant: a place in the table is given to another address only once its bucket is full again, so that flooding
//! the table cannot refill anybody's bucket.

use std::net::IpAddr;
use std::time::Duration;

use crate::base::Instant;
use crate::crypto::mac::KeyedHash;

/// Under load, HELLOs with a right mac2 in a second from one IPv4 address or one IPv6 /64; WireGuard's values.
pub(super) const ADDRESS_PER_S: u32 = 20;
/// And so many at once after a pause.
pub(super) const ADDRESS_BURST: u32 = 5;
/// Addresses remembered under load: 1.5 MiB, touched only when used.
const ADDRESSES_MAX: usize = 65_536;
/// An address may stand in so many places; more makes a full set less likely and a look-up slower.
const WAYS: usize = 4;

/// Token bucket in the form of one time stamp: when it would be full again (GCRA, ITU-T I.371).
#[derive(Clone, Copy)]
pub(super) struct Bucket {
    /// Time for one token.
    interval: Duration,
    /// Time from empty to full, less one token.
    tolerance: Duration,
    pub(super) full_at: Instant,
}

impl Bucket {
    pub(super) fn new(per_s: u32, burst: u32) -> Self {
        let interval = Duration::from_secs(1) / per_s;
        Self {
            interval,
            tolerance: interval * (burst - 1),
            full_at: Instant::ZERO,
        }
    }

    pub(super) fn take(&mut self, now: Instant) -> bool {
        if self.full_at > now + self.tolerance {
            return false;
        }
        self.full_at = self.full_at.max(now) + self.interval;
        true
    }
}

/// One bucket an address, in a table of sets: an address belongs into one set and takes any of its places.
pub(super) struct Addresses {
    places: KeyedHash,
    /// 0 is a free place.
    addresses: Vec<u128>,
    /// [`Bucket::full_at`] of the place, in nanoseconds.
    full_at: Vec<u64>,
}

impl Addresses {
    pub(super) fn new(seed: &[u8; 32]) -> Self {
        Self {
            places: KeyedHash::new(seed, b"address places"),
            addresses: vec![0; ADDRESSES_MAX],
            full_at: vec![0; ADDRESSES_MAX],
        }
    }

    /// Takes a token of the address; false when it has none or the set is full of addresses that are busy too.
    pub(super) fn take(&mut self, from: IpAddr, now: Instant) -> bool {
        let address = network(from);
        // Keyed, so that nobody can aim at one set.
        let hash = u64::from_le_bytes(self.places.hash(&address.to_le_bytes()));
        let sets = (ADDRESSES_MAX / WAYS) as u64;
        let set = usize::try_from(hash % sets).unwrap_or(0) * WAYS;
        let known = (set..set + WAYS).find(|&at| self.addresses[at] == address);
        let idle = |&at: &usize| Instant::from_nanos(self.full_at[at]) <= now;
        let Some(at) = known.or_else(|| (set..set + WAYS).find(idle)) else {
            return false;
        };
        if known.is_none() {
            self.addresses[at] = address;
        }
        let mut bucket = Bucket::new(ADDRESS_PER_S, ADDRESS_BURST);
        bucket.full_at = Instant::from_nanos(self.full_at[at]);
        let taken = bucket.take(now);
        self.full_at[at] = bucket.full_at.as_nanos();
        taken
    }
}

/// What one subscriber owns: an IPv4 address (as IPv6), or the /64 of an IPv6 address.
fn network(from: IpAddr) -> u128 {
    match from.to_canonical() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits() >> 64 << 64,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn address(n: u32) -> IpAddr {
        Ipv4Addr::from_bits(0x0a00_0000 + n).into()
    }

    #[test]
    fn a_flooded_table_refills_no_bucket() {
        let mut table = Addresses::new(&[1; 32]);
        let (victim, now) = (address(0), Instant::ZERO);
        for _ in 0..ADDRESS_BURST {
            assert!(table.take(victim, now));
        }
        // Four times as many addresses as places.
        for n in 1..4 * u32::try_from(ADDRESSES_MAX).unwrap() {
            table.take(address(n), now);
        }
        assert!(
            table.addresses.contains(&network(victim)),
            "a busy address keeps its place"
        );
        assert!(!table.take(victim, now));
        assert!(table.take(victim, now + Duration::from_millis(50)));
    }

    #[test]
    fn addresses_of_one_subscriber_share_a_bucket() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8:0:1::1"), of("2001:db8:0:1:ffff::2"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8:0:2::1"));
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }
}
