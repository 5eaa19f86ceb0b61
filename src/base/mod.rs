//! Floor 0: words and numbers. No clock, no socket, no allocation after construction.
#![forbid(unsafe_code)]

pub mod drop;
pub mod frames;
pub mod id;
pub mod pool;
pub mod prefix;
pub mod rng;
pub mod time;
pub mod units;

pub use drop::{DropCounters, DropReason};
pub use frames::{FRAME_BYTES_MAX, Frame, FrameStore};
pub use id::{Epoch, GroupId, Lane, LinkId, WanId};
pub use pool::{Pool, Slot};
pub use prefix::{Prefix, PrefixError};
pub use rng::Rng;
pub use time::Instant;
pub use units::Rate;
