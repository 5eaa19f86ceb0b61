//! What surrounds a symbol on the wire.

use super::config::WIRE_OVERHEAD_BYTES;
use crate::wire::header::DATA_OVERHEAD_BYTES;
use crate::wire::message::{SEND_TIME_BYTES, SYMBOL_HEADER_BYTES, SYMBOL_LENGTH_BYTES};

/// Bytes of a datagram that carries one symbol, beyond the symbol itself.
pub const SYMBOL_OVERHEAD_BYTES: usize =
    DATA_OVERHEAD_BYTES + SEND_TIME_BYTES + SYMBOL_HEADER_BYTES;

/// Smallest datagram size a link may have: an IPv6 packet of 1280 bytes without its headers.
pub const DATAGRAM_BYTES_MIN: usize = 1232;

/// Length of the datagram that carries a symbol.
pub fn datagram_bytes(symbol_bytes: usize) -> u32 {
    u32::try_from(symbol_bytes + SYMBOL_OVERHEAD_BYTES).unwrap_or(u32::MAX)
}

/// The same with IP and UDP headers: what the WAN carries.
pub const fn wire_bytes(datagram_bytes: u32) -> u32 {
    datagram_bytes.saturating_add(WIRE_OVERHEAD_BYTES)
}

/// Longest symbol that fits datagrams of a size; even, because the code works on pairs of bytes.
pub const fn symbol_bytes_max(datagram_bytes_max: usize) -> usize {
    (datagram_bytes_max - SYMBOL_OVERHEAD_BYTES) & !1
}

/// Longest body of a source symbol.
pub const fn body_bytes_max(datagram_bytes_max: usize) -> usize {
    symbol_bytes_max(datagram_bytes_max) - SYMBOL_LENGTH_BYTES
}

/// Length of a datagram with the longest symbol: the UDP_SEGMENT size of the links' sockets.
pub const fn segment_bytes(datagram_bytes_max: usize) -> usize {
    symbol_bytes_max(datagram_bytes_max) + SYMBOL_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_of_1400_bytes_fits_one_datagram_over_both_families() {
        for datagram in [1472, 1452] {
            assert!(
                body_bytes_max(datagram) >= 1405,
                "5 bytes of piece header and the packet"
            );
            assert!(datagram_bytes(symbol_bytes_max(datagram)) as usize <= datagram);
        }
    }
}
