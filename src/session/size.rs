//! How long our datagrams are, after the kernel said that they are too long.
//!
//! The size agreed on in the handshake is what both ends take; what a path carries can be less, for example when the
//! server's own device has a small MTU. Only our sending direction changes: the peer takes shorter datagrams as they are.

use super::{Session, overhead};

impl Session {
    /// Makes all further datagrams at most `bytes` long, but not shorter than every path must carry. `false` when
    /// that changes nothing. Symbols that are on their way keep their length, and are repaired where they are lost.
    pub fn limit_datagrams(&mut self, bytes: usize) -> bool {
        let bytes = bytes.max(overhead::DATAGRAM_BYTES_MIN);
        if bytes >= self.datagram_bytes_max {
            return false;
        }
        self.datagram_bytes_max = bytes;
        self.body_bytes_max = overhead::body_bytes_max(bytes);
        self.segment_bytes = overhead::segment_bytes(bytes);
        true
    }

    /// Longest datagram we send.
    pub const fn datagram_bytes_max(&self) -> usize {
        self.datagram_bytes_max
    }
}
