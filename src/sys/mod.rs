//! Floor 5: the kernel, and the only floor with `unsafe`.
#![allow(unsafe_code)]

pub mod clock;
pub mod ethtool;
pub mod packet;
pub mod priority;
pub mod tcp;

#[allow(dead_code)]
mod option;

pub use clock::Clock;
pub use packet::{PacketError, PacketSocket, ReceiveBatch};
