//! Floor 2: which link takes the next packet.
#![forbid(unsafe_code)]

pub mod scheduler;
pub mod weight;

pub use scheduler::{Candidate, Scheduler, Strategy};
pub use weight::{Assessment, Exponents, Figures, assess};
