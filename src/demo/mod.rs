//! Floor 7: `chainlightning demo`: a tunnel over three emulated WANs on one machine, without root, watched live.
//!
//! ```text
//!  scenario ── builds the lab, moves one TCP connection, kills and revives a link ──► Tick each second ──► screen
//!      └────────────────────────────────────────────── Report at the end ──► screen (text) or JSON
//! ```
//!
//! Every figure is measured from outside of the tunnel (kernel TCP, ICMP, captures of the links), except what each
//! link carries and repairs, which the programs tell over their control sockets.
#![forbid(unsafe_code)]

mod report;
mod scenario;
mod screen;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use crate::lab::{EnterError, Entry, enter};
pub use report::Report;

/// Options of `chainlightning demo`.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct DemoArgs {
    /// How long the connection runs
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(10..=3600), value_name = "S")]
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
    match scenario::play(args.seconds, directory, live) {
        Ok(report) => {
            show(&if args.json {
                report.to_json()
            } else {
                screen::table(&report)
            });
            if report.is_good() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            complain(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "demo: {text}");
}
