//! The server: answers the links of one or more clients, and carries the TUN device's packets over them.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use chainlightning::cli::daemon::{DaemonArgs, daemon};
use chainlightning::cli::finish;
use chainlightning::config::Role;
use clap::Parser;

/// Server of a ChainLightning tunnel; runs in the foreground until SIGTERM, reads its file again on SIGHUP
#[derive(Parser)]
#[command(name = "server", version)]
struct Cli {
    #[command(flatten)]
    args: DaemonArgs,
}

fn main() -> ExitCode {
    finish(daemon(Role::Server, Cli::parse().args))
}
