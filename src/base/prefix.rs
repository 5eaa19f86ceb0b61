//! An IP prefix such as `10.99.0.0/24`: which inner addresses belong to a peer, or to a class of traffic.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Network address and length; no bit is set behind the length.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    network: IpAddr,
    len: u8,
}

impl Prefix {
    /// All of IPv4.
    pub const ALL_V4: Self = Self {
        network: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        len: 0,
    };
    /// All of IPv6.
    pub const ALL_V6: Self = Self {
        network: IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        len: 0,
    };

    /// The prefix of length `len` around `address`; `None` when `len` is more than the address has bits.
    pub fn new(address: IpAddr, len: u8) -> Option<Self> {
        (len <= bits(address)).then(|| Self {
            network: masked(address, len),
            len,
        })
    }

    /// The prefix that holds just this address.
    pub const fn host(address: IpAddr) -> Self {
        Self {
            network: address,
            len: bits(address),
        }
    }

    /// Network address.
    pub const fn network(self) -> IpAddr {
        self.network
    }

    /// Length in bits.
    pub const fn bit_len(self) -> u8 {
        self.len
    }

    /// Whether the address lies inside. Addresses of the other family never do.
    pub fn contains(self, address: IpAddr) -> bool {
        address.is_ipv4() == self.network.is_ipv4() && masked(address, self.len) == self.network
    }
}

/// Number of bits of the address' family.
const fn bits(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// The address with all bits behind `len` cleared.
fn masked(address: IpAddr, len: u8) -> IpAddr {
    let keep = u32::from(len);
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - keep.min(32)).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask))
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - keep.min(128)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.len)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is not a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// The part before the slash is not an IP address.
    #[error("is not an IP prefix")]
    Address,
    /// The length is not a number, or more than the address has bits.
    #[error("has a prefix length beyond the address")]
    Length,
    /// Bits are set behind the length: a typing error in either part.
    #[error("has bits set behind the prefix length; the network is {0}")]
    HostBits(Prefix),
}

impl FromStr for Prefix {
    type Err = PrefixError;

    /// `10.0.0.0/8`, `fd00::/64`, or an address alone for itself.
    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let (address_text, len_text) = match text.split_once('/') {
            Some((address, len)) => (address, Some(len)),
            None => (text, None),
        };
        let address: IpAddr = address_text.parse().map_err(|_| PrefixError::Address)?;
        let Some(len_text) = len_text else {
            return Ok(Self::host(address));
        };
        let len = len_text.parse().map_err(|_| PrefixError::Length)?;
        let prefix = Self::new(address, len).ok_or(PrefixError::Length)?;
        if prefix.network != address {
            return Err(PrefixError::HostBits(prefix));
        }
        Ok(prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn a_prefix_holds_its_addresses_and_no_others() {
        let p = prefix("10.99.0.0/24");
        assert!(p.contains("10.99.0.0".parse().unwrap()));
        assert!(p.contains("10.99.0.255".parse().unwrap()));
        assert!(!p.contains("10.99.1.0".parse().unwrap()));
        assert!(!p.contains("::".parse().unwrap()));
        assert!(Prefix::ALL_V4.contains("255.255.255.255".parse().unwrap()));
        assert!(Prefix::ALL_V6.contains("ffff::1".parse().unwrap()));
        assert!(!Prefix::ALL_V6.contains("1.2.3.4".parse().unwrap()));
    }

    #[test]
    fn an_address_alone_is_its_own_prefix() {
        assert_eq!(prefix("10.0.0.1").to_string(), "10.0.0.1/32");
        assert_eq!(prefix("fd00::1").to_string(), "fd00::1/128");
    }

    #[test]
    fn bad_prefixes_say_what_is_wrong() {
        assert_eq!("10.0.0/8".parse::<Prefix>(), Err(PrefixError::Address));
        assert_eq!("10.0.0.0/33".parse::<Prefix>(), Err(PrefixError::Length));
        assert_eq!("fd00::/129".parse::<Prefix>(), Err(PrefixError::Length));
        assert_eq!("10.0.0.0/".parse::<Prefix>(), Err(PrefixError::Length));
        let host_bits = PrefixError::HostBits(prefix("10.0.0.0/8"));
        assert_eq!("10.0.0.1/8".parse::<Prefix>(), Err(host_bits));
    }

    #[test]
    fn containment_agrees_with_comparing_bit_by_bit() {
        let mut rng = super::super::Rng::new(7);
        for _ in 0..2000 {
            let (a, b) = (
                rng.next_u64(),
                rng.next_u64() & rng.next_u64() & rng.next_u64(),
            );
            let network = u32::try_from(a >> 32).unwrap();
            let other = network ^ u32::try_from(b >> 32).unwrap();
            let len = u8::try_from(a % 33).unwrap();
            let p = Prefix::new(Ipv4Addr::from_bits(network).into(), len).unwrap();
            let same = (0..len).all(|i| (network >> (31 - i)) & 1 == (other >> (31 - i)) & 1);
            assert_eq!(
                p.contains(Ipv4Addr::from_bits(other).into()),
                same,
                "{p} {other:#x}"
            );
        }
    }
}
