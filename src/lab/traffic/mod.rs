//! Real traffic of the kernel's own TCP, UDP and ICMP, and captures of the links below it.
//!
//! Every generator runs on threads of its own inside a namespace, and is ended and read out by `finish`.

pub mod capture;
pub mod connection;
pub mod flood;
pub mod ping;
pub mod tcp;
pub mod udp;

pub use capture::Capture;
pub use connection::{Connection, Dial, End, Protocol};
pub use flood::{Flood, FloodConfig, FloodTrial};
pub use ping::{PingConfig, PingReport, Pinger};
pub use tcp::{BulkConfig, BulkFlow, BulkReport};
pub use udp::{UdpConfig, UdpFlow, UdpReport};

use std::time::Duration;

/// What all generators put into their packets: a capture of the links must never find it.
pub const MARKER: &[u8] = b"ChainLightning-plaintext-marker.";

/// The value below which a share `quantile` (0 to 1) of `sorted` lies; zero when there is none.
pub fn quantile(sorted: &[Duration], quantile: f64) -> Duration {
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss
    )]
    let index =
        ((sorted.len() as f64 * quantile).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(index).copied().unwrap_or_default()
}

/// `len` bytes of the repeated marker, as they stand at `offset` of an endless stream.
pub(super) fn marker_stream(offset: usize, len: usize) -> Vec<u8> {
    MARKER
        .iter()
        .copied()
        .cycle()
        .skip(offset % MARKER.len())
        .take(len)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_occurred() {
        let sorted: Vec<_> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(quantile(&sorted, 0.5), Duration::from_millis(50));
        assert_eq!(quantile(&sorted, 0.99), Duration::from_millis(99));
        assert_eq!(quantile(&sorted, 1.0), Duration::from_millis(100));
        assert_eq!(quantile(&[], 0.5), Duration::ZERO);
    }

    #[test]
    fn the_marker_stream_is_one_stream() {
        let whole = marker_stream(0, 200);
        assert_eq!(marker_stream(57, 100), whole[57..157]);
    }
}
