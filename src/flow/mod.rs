//! Floor 2: inner flows: which one a packet belongs to, and whose turn it is when they wait.
#![forbid(unsafe_code)]

pub mod class;
pub mod codel;
pub mod hash;
pub mod meter;
pub mod queue;
mod turns;

pub use hash::hash;
pub use queue::{Dequeued, FlowQueue, QueueConfig, Verdict};
