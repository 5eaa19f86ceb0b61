//! What goes into a [`super::Sender`] and comes out of it.

use std::time::Duration;

use super::super::gso;

/// Parameters of a [`super::Sender`].
#[derive(Clone, Copy, Debug)]
pub struct SenderConfig {
    /// Longest time without a datagram on an idle link that is up.
    pub heartbeat_interval: Duration,
    /// How long the peer usually waits before it reports.
    pub report_interval: Duration,
    /// Datagrams remembered, rounded up to a power of two. At 1 Gbit/s of 1400-byte datagrams and an RTT of
    /// 100 ms 9000 are in flight.
    pub sent_log_entries: usize,
    /// Bytes of the longest datagram that every usable path carries, and of the longest that both ends take.
    pub size_base: u32,
    /// See `size_base`.
    pub size_max: u32,
    /// Which runs may leave as one send.
    pub gso: gso::Wanted,
}

impl Default for SenderConfig {
    fn default() -> Self {
        Self {
            heartbeat_interval: Duration::from_millis(100),
            report_interval: Duration::from_millis(5),
            sent_log_entries: 16_384,
            size_base: 1260,
            size_max: 1260,
            gso: gso::Wanted::Auto,
        }
    }
}

/// What became of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<T> {
    /// Received, as far as anyone can tell.
    Acked {
        /// What it carried.
        item: T,
        /// Its packet number.
        number: u64,
        /// Its length.
        bytes: u32,
        /// False: no report told about it in time, or it left the log; most such datagrams arrived.
        known: bool,
    },
    /// Lost.
    Lost {
        /// What it carried.
        item: T,
        /// Its packet number.
        number: u64,
        /// Its length.
        bytes: u32,
    },
}

/// Counters of one link and direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SenderCounters {
    /// Datagrams sent.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Datagrams declared lost, probes of the path's size left out.
    pub lost: u64,
    /// Of those, how many were acknowledged later.
    pub spurious: u64,
    /// Datagrams no report told about in time.
    pub unknown: u64,
    /// Datagrams that left the log before their fate was known.
    pub evicted: u64,
    /// Reports taken.
    pub reports: u64,
    /// Reports that acknowledge what was never sent, and were ignored.
    pub bad_reports: u64,
    /// Changes from Up to Suspect.
    pub suspicions: u64,
}
