//! The client: opens links over every WAN to one server, and carries the TUN device's packets over them.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use chainlightning::cli::daemon::{DaemonArgs, daemon};
use chainlightning::cli::finish;
use chainlightning::config::Role;
use clap::Parser;

/// Client of a ChainLightning tunnel; runs in the foreground until SIGTERM, reads its file again on SIGHUP
#[derive(Parser)]
#[command(name = "client", version)]
struct Cli {
    #[command(flatten)]
    args: DaemonArgs,
}

fn main() -> ExitCode {
    finish(daemon(Role::Client, Cli::parse().args))
}
