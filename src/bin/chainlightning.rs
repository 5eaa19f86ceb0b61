//! The operator's tool: keys, checks, and a look at running daemons.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fs::File;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::process::ExitCode;

use chainlightning::cli::bench::{BenchCommand, bench};
use chainlightning::cli::daemon::{DaemonArgs, daemon};
use chainlightning::cli::{EXIT_FAILED, Failure, check, finish, keytool, status};
use chainlightning::config::Role;
use chainlightning::demo::{self, DemoArgs};
use chainlightning::lab::{relay, wanem};
use clap::{Parser, Subcommand, ValueEnum};

/// Tool of ChainLightning, an encrypted tunnel over several internet links at once
#[derive(Parser)]
#[command(name = "chainlightning", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show a tunnel at work on this machine alone: three emulated WANs, one of which dies on the way. Needs no
    /// root, no set-up and no other program
    Demo(DemoArgs),
    /// Measure what bonding is worth over links of your choice, on this machine alone
    Bench {
        #[command(subcommand)]
        command: BenchCommand,
    },
    /// Make a private key; prints it (umask 077; chainlightning genkey > private.key)
    Genkey,
    /// Make a preshared key; prints it
    Genpsk,
    /// Read a private key from standard input; prints its public key
    Pubkey,
    /// Find every fault of a configuration and its key files, without starting anything
    Check {
        /// Configuration file [default: ./config.toml, else /etc/chainlightning/config.toml]
        #[arg(short, long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Side to check it for
        #[arg(long, value_enum, default_value_t = Side::Client)]
        role: Side,
    },
    /// Show the state of a running client or server
    Status {
        /// Control socket [default: that of the client, else that of the server]
        #[arg(long, value_name = "PATH")]
        socket: Option<PathBuf>,
        /// Print the daemon's answer as one line of JSON
        #[arg(long)]
        json: bool,
    },
    // What `demo` and `bench` start inside of their namespaces, from this same file.
    #[command(name = "__client", hide = true)]
    Client(DaemonArgs),
    #[command(name = "__server", hide = true)]
    Server(DaemonArgs),
    #[command(name = "__relay", hide = true)]
    Relay {
        tun: String,
        local: SocketAddr,
        peer: SocketAddr,
    },
    #[command(name = "__wanem", hide = true)]
    Wanem {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Side {
    Client,
    Server,
}

impl From<Side> for Role {
    fn from(side: Side) -> Self {
        match side {
            Side::Client => Self::Client,
            Side::Server => Self::Server,
        }
    }
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Demo(args) => demo::run(args, &own_arguments()),
        Command::Bench { command } => bench(command, &own_arguments()),
        Command::Client(args) => finish(daemon(Role::Client, args)),
        Command::Server(args) => finish(daemon(Role::Server, args)),
        Command::Relay { tun, local, peer } => relay::run(&tun, local, peer),
        Command::Wanem { args } => wanem::run(&args),
        Command::Genkey => secret(keytool::genkey()),
        Command::Genpsk => secret(keytool::genpsk()),
        Command::Pubkey => finish(keytool::pubkey(std::io::stdin().lock())),
        Command::Check { config, role } => finish(check::check(config, role.into())),
        Command::Status { socket, json } => {
            let sockets = socket.map_or_else(status::default_sockets, |socket| vec![socket]);
            finish(status::status(&sockets, json))
        }
    }
}

/// The command line without the program's name.
fn own_arguments() -> Vec<OsString> {
    std::env::args_os().skip(1).collect()
}

/// Prints a secret straight to the descriptor: the buffer of `stdout()` would keep a copy.
fn secret(made: Result<zeroize::Zeroizing<String>, Failure>) -> ExitCode {
    let written = made.and_then(|line| {
        let stdout = std::io::stdout().as_fd().try_clone_to_owned();
        let written = stdout.and_then(|fd| File::from(fd).write_all(line.as_bytes()));
        written.map_err(|error| Failure::new(EXIT_FAILED, format!("standard output: {error}")))
    });
    finish(written.map(|()| String::new()))
}
