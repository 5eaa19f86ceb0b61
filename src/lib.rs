//! ChainLightning: one encrypted tunnel over several internet links at once.
//!
//! The modules stand in floor order; a module may use those above it in this list and nothing else
//! (`docs/architecture.md`, held by `tests/tidy.rs`).

pub mod base;

pub mod wire;

pub mod crypto;
pub mod fec;
pub mod flow;
pub mod link;
pub mod reorder;
pub mod stream;
pub mod stripe;

pub mod session;

pub mod endpoint;

pub mod config;
pub mod logging;
pub mod sim;
pub mod status;
pub mod sys;

pub mod driver;

pub mod bench;
pub mod cli;
pub mod demo;
pub mod lab;
