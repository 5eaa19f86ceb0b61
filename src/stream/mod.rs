//! Floor 2: frames become symbol bodies and come back.
//!
//! `cut` and `assembler` move bytes and never look into a packet; `segment` is the only place that knows
//! what a superframe is made of.
#![forbid(unsafe_code)]

pub mod assembler;
pub mod cut;
