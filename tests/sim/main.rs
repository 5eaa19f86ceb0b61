//! The whole tunnel in virtual time: scenarios from plans and seeds.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod classes;
mod common;
mod equal;
mod failover;
mod foreign;
mod late;
mod links;
mod loss;
mod modes;
#[path = "../pair/mod.rs"]
mod pair;
mod policy;
mod sessions;
mod sizes;
mod storm;
mod throughput;
mod workers;
