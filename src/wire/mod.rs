//! Floor 1: bytes and their meaning, no state. Little-endian throughout (`docs/protocol.md`).
//!
//! Untrusted bytes are checked once, here, into views whose accessors cannot fail.
#![forbid(unsafe_code)]

pub mod handshake;
pub mod header;
pub mod inner_ip;
pub mod message;
pub mod piece;
pub mod report;
pub mod virtio;
