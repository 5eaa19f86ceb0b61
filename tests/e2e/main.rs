//! End to end: real programs, the real kernel, emulated WANs, each case in namespaces of its own.
//!
//! ```text
//!   client ns ══ eth1..3 ══► emulator ══► eth1..3 ══ server ns (10.200.0.1)      see src/lab/mod.rs
//! ```
//!
//! `cargo test --test e2e [-- FILTER...]` runs the cases whose names contain one of the filters; `-- --list` names
//! them. Every case runs in a process that is killed when its time is over; its output is shown when it fails. A
//! case that cannot run here is SKIPPED and says why; with CI in the environment that is a failure.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod bench;
mod daemons;
mod datapath;
mod failures;
mod plain;
mod quota;
mod support;
mod traffic;
mod workers;

use std::ffi::OsString;
use std::fs;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use chainlightning::lab::{Entry, enter, wait_until};
use support::{Failure, Outcome};

/// One case.
struct Case {
    name: &'static str,
    /// Killed after this.
    limit: Duration,
    /// Needs /dev/net/tun and the tunnel's programs.
    tunnel: bool,
    run: fn() -> Outcome,
}

impl Case {
    const fn through_tunnel(name: &'static str, limit: Duration, run: fn() -> Outcome) -> Self {
        Self {
            name,
            limit,
            tunnel: true,
            run,
        }
    }
}

/// Exit code of a case that cannot run here.
const SKIPPED: u8 = 77;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let Some(at) = args.iter().position(|arg| arg == "--case") {
        return run_inside(args.get(at + 1).map_or("", String::as_str));
    }
    let filters: Vec<_> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let chosen: Vec<_> = cases()
        .into_iter()
        .filter(|case| {
            filters.is_empty()
                || filters
                    .iter()
                    .any(|filter| case.name.contains(filter.as_str()))
        })
        .collect();
    if args.iter().any(|arg| arg == "--list") {
        chosen
            .iter()
            .for_each(|case| println!("{}: test", case.name));
        return ExitCode::SUCCESS;
    }
    let ci = std::env::var_os("CI").is_some();
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for case in chosen {
        print!("test {} ... ", case.name);
        let _ = std::io::Write::flush(&mut std::io::stdout());
        match run_outside(&case) {
            Ended::Passed(seconds) => {
                passed += 1;
                println!("ok ({seconds:.1} s)");
            }
            Ended::Skipped(reason) if ci => {
                failed += 1;
                println!("FAILED: skipped although CI is set: {reason}");
            }
            Ended::Skipped(reason) => {
                skipped += 1;
                println!("SKIPPED {reason}");
            }
            Ended::Failed(output) => {
                failed += 1;
                println!("FAILED\n{}", indent(&output));
            }
        }
    }
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn cases() -> Vec<Case> {
    [
        plain::cases(),
        traffic::cases(),
        workers::cases(),
        failures::cases(),
        daemons::cases(),
        quota::cases(),
        datapath::cases(),
        bench::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

enum Ended {
    Passed(f64),
    Skipped(String),
    Failed(String),
}

/// Runs one case in a process of its own and judges how it ended.
fn run_outside(case: &Case) -> Ended {
    let output = std::env::temp_dir().join(format!(
        "chainlightning-e2e-{}-{}.txt",
        std::process::id(),
        case.name
    ));
    let file = fs::File::create(&output).unwrap();
    let clock = chainlightning::sys::Clock::start();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--case", case.name])
        .stdin(Stdio::null())
        .stdout(file.try_clone().unwrap())
        .stderr(file)
        .spawn()
        .unwrap();
    let code = wait_code(&mut child, case.limit);
    let seconds = clock
        .now()
        .since(chainlightning::base::Instant::ZERO)
        .as_secs_f64();
    let text = fs::read(&output)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default();
    let _ = fs::remove_file(&output);
    match code {
        Some(0) => {
            if std::env::var_os("E2E_SHOW").is_some() {
                println!("\n{}", indent(&text));
            }
            Ended::Passed(seconds)
        }
        Some(code) if code == i32::from(SKIPPED) => {
            Ended::Skipped(text.lines().last().unwrap_or("without a reason").to_owned())
        }
        Some(code) => Ended::Failed(format!("{text}exit code {code} after {seconds:.1} s")),
        None => Ended::Failed(format!(
            "{text}killed: not done after {:.0} s",
            case.limit.as_secs_f64()
        )),
    }
}

/// The exit code, or `None` when the time is over or a signal ended it.
fn wait_code(child: &mut Child, limit: Duration) -> Option<i32> {
    let mut status = None;
    wait_until(limit, || {
        status = child.try_wait().ok().flatten();
        status.is_some()
    });
    if status.is_none() {
        // Everything inside dies with it: it is process 1 of its namespace's processes.
        let _ = child.kill();
        let _ = child.wait();
    }
    status.and_then(|status| status.code())
}

/// The process of one case: enters namespaces, then runs it.
fn run_inside(name: &str) -> ExitCode {
    let all = cases();
    let Some(case) = all.iter().find(|case| case.name == name) else {
        println!("no case '{name}'");
        return ExitCode::FAILURE;
    };
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    match enter::enter(&args, case.tunnel) {
        Ok(Entry::Finished(code)) => code,
        Ok(Entry::Inside(directory)) => {
            support::set_directory(directory);
            match (case.run)() {
                Ok(()) => ExitCode::SUCCESS,
                Err(Failure::Skip(reason)) => {
                    println!("{reason}");
                    ExitCode::from(SKIPPED)
                }
                Err(Failure::Failed(text)) => {
                    println!("{text}");
                    ExitCode::FAILURE
                }
            }
        }
        Err(error) => {
            println!("{error}");
            ExitCode::from(SKIPPED)
        }
    }
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}
