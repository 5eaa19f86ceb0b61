//! Floor 7: `chainlightning demo`: a tunnel over three emulated WANs on one machine, without root, watched live.
//!
//! ```text
//!  plan ──► scenario: builds the lab, measures the best link alone, starts the tunnel and one TCP connection
//!               ├── watch: kills and revives a link ──► Tick each second ──► screen
//!               └── Report ──► table, or JSON
//! ```
//!
//! Every figure is measured from outside of the tunnel (kernel TCP, ICMP, captures of the links), except what each
//! link carries and repairs, which the programs tell over their control sockets.
//!
//! It leaves nothing: everything is in namespaces that end with the process, also when that is killed.
#![forbid(unsafe_code)]

mod plan;
mod report;
mod scenario;
mod screen;
mod table;
mod watch;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use crate::lab::{EnterError, Entry, enter};
use plan::{Plan, SECONDS_MAX, SECONDS_MIN};
pub use report::Report;

/// Options of `chainlightning demo`.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct DemoArgs {
    /// How long the connection runs
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(SECONDS_MIN..=SECONDS_MAX), value_name = "S")]
    pub seconds: u64,
    /// Print one JSON document at the end and nothing else
    #[arg(long)]
    pub json: bool,
}

/// Exit code: this host does not permit it (`EX_NOPERM` of sysexits.h).
const EXIT_PERMISSION: u8 = 77;

/// Runs the demonstration. `command_line` is the program's own, without its name: inside of the namespaces the
/// program is started again with it. Call it before any thread exists.
pub fn run(args: DemoArgs, command_line: &[OsString]) -> ExitCode {
    let directory = match enter::enter(command_line, true) {
        Ok(Entry::Finished(code)) => return code,
        Ok(Entry::Inside(directory)) => directory,
        Err(error) => {
            complain(&error.to_string());
            let restart = matches!(error, EnterError::Restart { .. });
            return if restart {
                ExitCode::FAILURE
            } else {
                ExitCode::from(EXIT_PERMISSION)
            };
        }
    };
    let show = |text: &str| {
        // A reader that closes early, such as `head`, does not stop the measurement.
        let mut out = io::stdout().lock();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    };
    let live = |text: String| {
        if !args.json {
            show(&text);
        }
    };
    let plan = Plan {
        seconds: args.seconds,
    };
    let report = match scenario::play(plan, directory, live) {
        Ok(report) => report,
        Err(error) => {
            complain(&error.to_string());
            return ExitCode::FAILURE;
        }
    };
    if args.json {
        show(&report.to_json());
        for failure in &report.failures {
            complain(failure);
        }
    } else {
        show(&table::table(&report));
    }
    if report.failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "demo: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(Debug, clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: DemoArgs,
    }

    #[test]
    fn arguments_have_defaults_and_bounds() {
        let parse = |words: &[&str]| {
            let words = ["demo"].iter().chain(words);
            Cli::try_parse_from(words).map(|cli| (cli.args.seconds, cli.args.json))
        };
        assert_eq!(parse(&[]).unwrap(), (20, false));
        assert_eq!(parse(&["--seconds", "8", "--json"]).unwrap(), (8, true));
        for bad in ["7", "3601", "-8", "ten", "8.5"] {
            assert!(parse(&["--seconds", bad]).is_err(), "{bad}");
        }
    }
}
