//! `chainlightning bench tunnel`: what the tunnel itself costs and carries where no link limits it, measured on one
//! machine with real packets of the kernel, against the bare cable, the least that a tunnel in user space can be, other
//! settings and other tunnels.
//!
//! ```text
//!  client namespace                                server namespace
//!  TCP or UDP ─ TUN ─ client ═══ cables ═══ server ─ TUN ─ TCP or UDP
//! ```
//!
//! Everything runs on the same processors: programs, traffic and the kernel's work for both. Absolute figures belong
//! to the machine; contenders take turns, in changing order, so that ratios do not belong to the moment.

mod measure;
pub mod plan;
mod report;
mod rivals;
mod search;
mod stage;
mod table;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use super::contender::NoStage;
use super::plan::Direction;
use super::{complain, inside, load_average, machine, tell};
use crate::lab::{LabError, Programs};
use plan::Contender;
pub use plan::Plan;
use report::Measurement;
pub use report::Report;
use stage::Stage;

/// Largest inner packet of every tunnel: the default of ours.
const TUN_MTU: u16 = 1400;
/// How long a contender may take until it carries packets.
const UP_LIMIT: Duration = Duration::from_secs(15);
/// From one ping to the next.
const PING_EVERY: Duration = Duration::from_millis(5);
/// Pings of an idle tunnel: one second.
const IDLE_PINGS: usize = 200;

/// Runs the benchmark and prints it. `command_line` is the program's own, without its name: inside of the namespaces
/// the program is started again with it. Call it before any thread exists.
pub fn tunnel(plan: &Plan, json: bool, command_line: &[OsString]) -> ExitCode {
    let directory = match inside(command_line, true) {
        Ok(directory) => directory,
        Err(code) => return code,
    };
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

fn compare(plan: &Plan, directory: &Path) -> Result<Report, LabError> {
    let programs = Programs::this_program()?;
    let mut machine = machine();
    machine.load_average[0] = load_average();
    let mut report = Report::new(plan, machine);
    let contenders = plan.contenders();
    let total = plan.measurements();
    complain(&format!(
        "{total} measurements; other work on this machine disturbs the figures"
    ));
    for (job, number) in jobs(plan).into_iter().zip(1..) {
        let (row, index) = (job.row, job.contender);
        let contender = &contenders[index];
        let direction = plan.directions[row];
        let place = format!("{number}/{total} {} {}", direction.name(), contender.name());
        let entry = &mut report.rows[row].contenders[index];
        match run_one(plan, direction, contender, &programs, directory.to_owned()) {
            Ok(measurement) => {
                complain(&format!("{place}: {}", table::progress(&measurement)));
                entry.runs.push(measurement);
            }
            Err(NoStage::Missing(reason)) => {
                complain(&format!("{place}: {reason}"));
                entry.missing = Some(reason);
            }
            Err(NoStage::Failed(error)) => {
                let text = format!("{place}: {error}");
                complain(&text);
                entry.missing = Some(error.to_string());
                report.failures.push(text);
            }
        }
    }
    report.machine.load_average[1] = load_average();
    report.judge();
    Ok(report)
}

/// One measurement to make, by its places in the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Job {
    row: usize,
    contender: usize,
}

/// All measurements in their order: contenders of one row take turns, every other run backwards.
fn jobs(plan: &Plan) -> Vec<Job> {
    let contenders = plan.contenders().len();
    let mut jobs = Vec::new();
    for run in 0..plan.runs {
        for row in 0..plan.directions.len() {
            let place = |at: usize| {
                if run % 2 == 0 {
                    at
                } else {
                    contenders - 1 - at
                }
            };
            jobs.extend((0..contenders).map(|at| Job {
                row,
                contender: place(at),
            }));
        }
    }
    jobs
}

fn run_one(
    plan: &Plan,
    direction: Direction,
    contender: &Contender<'_>,
    programs: &Programs,
    directory: PathBuf,
) -> Result<Measurement, NoStage> {
    let stage = Stage::build(plan, contender, programs, directory)?;
    measure::measure(plan, direction, &stage)
        .map_err(|error| NoStage::Failed(LabError::Program(format!("{error}\n{}", stage.logs()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contenders_take_turns_and_every_other_run_goes_backwards() {
        let plan = plan::example();
        let jobs = jobs(&plan);
        assert_eq!(jobs.len(), plan.measurements());
        let order: Vec<_> = jobs.iter().map(|job| (job.row, job.contender)).collect();
        assert_eq!(order[..4], [(0, 0), (0, 1), (0, 2), (0, 3)]);
        assert_eq!(order[4..8], [(1, 0), (1, 1), (1, 2), (1, 3)]);
        assert_eq!(order[8..12], [(0, 3), (0, 2), (0, 1), (0, 0)]);
    }
}
