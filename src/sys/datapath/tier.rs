//! What can be chosen about a datapath: tier and sizes.

use std::fmt;
use std::str::FromStr;

use super::zero_copy::ZeroCopy;

/// How the kernel is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// io_uring with multishot reads into provided buffers (Linux 6.0 for UDP, 6.7 for the TUN).
    Multishot,
    /// io_uring with a few outstanding reads into registered buffers for each descriptor (Linux 5.19).
    OneShot,
    /// Plain system calls, for hosts that refuse io_uring.
    Epoll,
}

impl Tier {
    /// All tiers, best first.
    pub const ALL: [Self; 3] = [Self::Multishot, Self::OneShot, Self::Epoll];

    /// The tier's name in configuration and status.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Multishot => "io_uring",
            Self::OneShot => "io_uring_oneshot",
            Self::Epoll => "epoll",
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Tier {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|tier| tier.name() == text);
        found.ok_or_else(|| format!("{text:?} is none of io_uring, io_uring_oneshot, epoll"))
    }
}

/// Sizes of a datapath.
#[derive(Clone, Debug)]
pub struct Config {
    /// Use this tier or fail; `None` takes the best that works.
    pub tier: Option<Tier>,
    /// Runs and frames that may be on their way into the kernel at one time.
    pub send_slots: u16,
    /// Room in a slot; at least a whole frame ([`SLOT_BYTES`]).
    pub slot_bytes: usize,
    /// Whether runs leave without a copy.
    pub zero_copy: ZeroCopy,
    /// Most descriptors at one time: sockets, listeners, TUN queue, wakes.
    pub ports_max: u16,
}

/// A slot holds the longest frame (10 + 65 535 bytes), in whole pages. Runs are shorter
/// ([`crate::sys::udp::RUN_BYTES_MAX`]).
pub const SLOT_BYTES: usize = 69_632;

impl Default for Config {
    fn default() -> Self {
        // 64 slots are 4.25 MiB: with the receive buffers below the 8 MiB of locked memory that an
        // unprivileged process may have, and 30 ms of 1 Gbit/s.
        Self {
            tier: None,
            send_slots: 64,
            slot_bytes: SLOT_BYTES,
            zero_copy: ZeroCopy::Auto,
            ports_max: 1_024,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiers_have_names_that_parse() {
        for tier in Tier::ALL {
            assert_eq!(tier.to_string().parse::<Tier>().unwrap(), tier);
        }
        assert!("uring".parse::<Tier>().is_err());
    }
}
