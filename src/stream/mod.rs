//! Floor 2: frames become symbol bodies and come back.
//!
//! `cut` and `assembler` move bytes and never look into a packet; `segment` is the only place that knows
//! what a superframe is made of, with `checksum` for its sums and `ecn` for congestion marks; `mss` changes what TCP
//! hosts announce; `merge` makes superframes of packets that follow each other.
#![forbid(unsafe_code)]

pub mod assembler;
mod bytes;
pub mod checksum;
pub mod coverage;
pub mod cut;
pub mod ecn;
pub mod merge;
pub mod mss;
pub mod segment;
