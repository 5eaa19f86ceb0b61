//! Floor 4: many sessions behind one socket, and who may become one.
#![forbid(unsafe_code)]

pub mod admission;
