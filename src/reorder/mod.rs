//! Floor 2: put frames back in order, or let go in time.
#![forbid(unsafe_code)]

mod agenda;
pub mod buffer;
pub mod hold;
mod lane;
pub mod released;
mod ring;
mod slab;

pub use buffer::{Buffer, WINDOW};
pub use hold::{HoldInputs, hold_time};
pub use released::{Counters, Released};
