//! Floor 5: the world outside of the tunnel as a deterministic model in virtual time.
//!
//! Never reads a clock, never opens a socket: `tools/wanem` lends the same model real time and real packets.
#![forbid(unsafe_code)]

pub mod impairment;
pub mod ledger;
pub mod nat;
pub mod packet;
pub mod plan;
pub mod scenario;
pub mod traffic;
mod wire;
pub mod world;
