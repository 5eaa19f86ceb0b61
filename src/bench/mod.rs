//! Floor 7: `chainlightning bench`: what bonding is worth over given links, measured on one machine with the kernel's
//! TCP, against the best link alone, the kernel's multipath TCP and the bound.
//!
//! ```text
//!  plan ──► for each run, case, direction, congestion control:
//!             for each contender: stage (a lab of its own) ──► measure ──► Measurement
//!         ──► report ──► table, or JSON
//! ```
//!
//! Contenders take turns, so that what else the machine does hits all of them. Everything is measured from outside of
//! the tunnel: the receiver's bytes, TCP_INFO of the sender, ICMP echo, the emulator's counters. Nothing of the host is
//! touched, and nothing is left. [`emulator`] measures the measuring instrument, [`tunnel`] the tunnel without links that
//! limit it.
#![forbid(unsafe_code)]

mod contender;
pub mod core;
pub mod emulator;
mod measure;
pub mod plan;
mod report;
mod table;
pub mod tunnel;

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::lab::traffic::{Dial, End, Protocol};
use crate::lab::{EnterError, Entry, LabError, Netns, Programs, enter};
use contender::{Contender, Job, NoStage, Stage};
pub use plan::Plan;
pub use report::Report;
use report::{Machine, Measurement};

/// Exit code: this host does not permit it (`EX_NOPERM` of sysexits.h).
const EXIT_PERMISSION: u8 = 77;

/// Runs the comparison and prints it. `command_line` is the program's own, without its name: inside of the namespaces
/// the program is started again with it. Call it before any thread exists.
pub fn aggregation(plan: &Plan, json: bool, command_line: &[OsString]) -> ExitCode {
    let directory = match inside(command_line, true) {
        Ok(directory) => directory,
        Err(code) => return code,
    };
    if let Err(message) = check_congestion(&plan.congestions) {
        complain(&message);
        return ExitCode::from(EXIT_PERMISSION);
    }
    let report = compare(plan, &directory).map(|report| {
        let text = if json {
            report.to_json()
        } else {
            table::table(&report)
        };
        (text, report.failures)
    });
    tell(report, json)
}

/// Enters namespaces of our own; gives the directory for files, or the exit code with which the program shall end.
fn inside(command_line: &[OsString], tun: bool) -> Result<PathBuf, ExitCode> {
    match enter::enter(command_line, tun) {
        Ok(Entry::Finished(code)) => Err(code),
        Ok(Entry::Inside(directory)) => Ok(directory),
        Err(error) => {
            complain(&error.to_string());
            let restart = matches!(error, EnterError::Restart { .. });
            Err(if restart {
                ExitCode::FAILURE
            } else {
                ExitCode::from(EXIT_PERMISSION)
            })
        }
    }
}

/// Tries every congestion control on a connection that nobody needs.
fn check_congestion(names: &[&str]) -> Result<(), String> {
    let try_all = || -> Result<(), LabError> {
        let namespace = Netns::create("trial")?;
        let dial = Dial {
            from: namespace.clone(),
            to: namespace,
            target: ([127, 0, 0, 1], 0).into(),
            protocol: Protocol::Tcp,
        };
        let connection = dial.connect()?;
        let mut names = names.iter();
        names.try_for_each(|name| connection.set_congestion(End::Dialler, name))
    };
    try_all().map_err(|error| {
        format!("{error}. Load it as root (modprobe tcp_bbr), or choose another with --congestion")
    })
}

fn compare(plan: &Plan, directory: &Path) -> Result<Report, LabError> {
    let programs = Programs::this_program()?;
    let mut machine = machine();
    machine.load_average[0] = load_average();
    let mut report = Report::new(plan, machine);
    let total = plan.measurements(Contender::ALL.len());
    let minutes = plan.duration(Contender::ALL.len()).as_secs().div_ceil(60);
    complain(&format!(
        "{total} connections, about {minutes} min; other work on this machine disturbs the figures"
    ));
    for (job, number) in jobs(plan).into_iter().zip(1..) {
        let place = format!(
            "{number}/{total} {} {} {} {}",
            job.case.name(),
            job.direction.name(),
            job.congestion,
            job.contender.name()
        );
        match run_one(job, &programs, directory.to_owned()) {
            Ok(measurement) => {
                complain(&format!("{place}: {}", table::progress(&measurement)));
                report.contender(job).runs.push(measurement);
            }
            Err(NoStage::Missing(reason)) => {
                complain(&format!("{place}: {reason}"));
                report.contender(job).missing = Some(reason);
            }
            Err(NoStage::Failed(error)) => {
                let text = format!("{place}: {error}");
                complain(&text);
                report.contender(job).missing = Some(error.to_string());
                report.failures.push(text);
            }
        }
    }
    report.machine.load_average[1] = load_average();
    report.judge();
    Ok(report)
}

/// All measurements, in their order: those that are compared with each other come one after the other.
fn jobs(plan: &Plan) -> Vec<Job<'_>> {
    let mut jobs = Vec::new();
    for _ in 0..plan.runs {
        for &case in &plan.cases {
            for &direction in &plan.directions {
                for &congestion in &plan.congestions {
                    jobs.extend(Contender::ALL.map(|contender| Job {
                        plan,
                        case,
                        direction,
                        congestion,
                        contender,
                    }));
                }
            }
        }
    }
    jobs
}

fn run_one(job: Job<'_>, programs: &Programs, directory: PathBuf) -> Result<Measurement, NoStage> {
    let mut stage = Stage::build(job, programs, directory)?;
    measure::measure(job, &mut stage).map_err(|error| {
        let logs = stage.tunnel.as_ref().map(|tunnel| tunnel.logs());
        let logs = logs.unwrap_or_default();
        NoStage::Failed(LabError::Program(format!("{error}\n{logs}")))
    })
}

fn machine() -> Machine {
    let file = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let line = |path: &str| file(path).split_whitespace().collect::<Vec<_>>().join(" ");
    let cpuinfo = file("/proc/cpuinfo");
    let model = cpuinfo.lines().find(|line| line.starts_with("model name"));
    let model = model.and_then(|line| line.split_once(':'));
    Machine {
        kernel: line("/proc/sys/kernel/osrelease"),
        cpu: model.map_or_else(String::new, |(_, name)| name.trim().to_owned()),
        cpus: std::thread::available_parallelism().map_or(0, usize::from),
        load_average: Default::default(),
        tcp_buffers: [
            line("/proc/sys/net/ipv4/tcp_rmem"),
            line("/proc/sys/net/ipv4/tcp_wmem"),
        ],
    }
}

/// The load average of the last minute.
fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

fn show(text: &str) {
    // A reader that closes early, such as `head`, is no failure of ours.
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Prints a report, its failures beside it where it is one JSON document, and says how it went.
fn tell(report: Result<(String, Vec<String>), LabError>, json: bool) -> ExitCode {
    let (text, failures) = match report {
        Ok(report) => report,
        Err(error) => {
            complain(&error.to_string());
            return ExitCode::FAILURE;
        }
    };
    show(&text);
    if json {
        failures.iter().for_each(|failure| complain(failure));
    }
    if failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "bench: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compared_is_measured_one_after_the_other() {
        let mut plan = plan::example();
        (plan.congestions, plan.runs) = (vec!["cubic", "bbr"], 2);
        let jobs = jobs(&plan);
        assert_eq!(jobs.len(), plan.measurements(Contender::ALL.len()));
        assert_eq!(jobs.len(), 24);
        for group in jobs.chunks(3) {
            let contenders: Vec<_> = group.iter().map(|job| job.contender).collect();
            assert_eq!(contenders, Contender::ALL);
            assert!(
                group
                    .iter()
                    .all(|job| job.congestion == group[0].congestion)
            );
            assert!(group.iter().all(|job| job.direction == group[0].direction));
        }
    }

    #[test]
    fn the_machine_tells_its_kernel_and_load() {
        let machine = machine();
        assert!(!machine.kernel.is_empty() && machine.cpus > 0);
        assert!(load_average().parse::<f64>().is_ok());
    }
}
