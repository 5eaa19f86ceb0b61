//! How good the aggregation is: scenarios in virtual time, one table, targets and floors.
//!
//! `cargo test --release --test quality [-- FILTER...]` runs the scenarios whose names contain one of the filters.
//! A target is what is aimed at: missing it prints MISS. A floor is a little below what is reached: missing it fails.
//!
//! ```text
//! --list      only names        --seeds N   medians over N seeds       -v   what each second was like
//! --json      one object a line --seed N    begin with this seed       --threads N
//! --floors    the lines of floors.txt from what was reached
//! ```
//!
//! The links of T13 and T14 are recorded. Their files are looked for in `CHAINLIGHTNING_TRACES`, else in
//! `../shared/traces`; a scenario whose file is not there is SKIPPED and says so.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod cases;
mod check;
mod table;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use cases::Case;
use chainlightning::base::Instant;
use chainlightning::sim::scenario::{Figure, Row, run};
use chainlightning::sys::Clock;
use check::{Floors, Verdict};

/// What the command line says.
#[derive(Debug)]
struct Options {
    filters: Vec<String>,
    seed: u64,
    seeds: u64,
    threads: usize,
    list: bool,
    json: bool,
    floors: bool,
    verbose: bool,
}

/// What became of a case.
#[derive(Debug)]
struct Done {
    /// `Err`: the world found a fault, or the case cannot run.
    rows: Result<Vec<Row>, String>,
    seconds: f64,
}

fn main() -> ExitCode {
    let options = match options(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(word) => {
            eprintln!("what does '{word}' mean? see the head of tests/quality/main.rs");
            return ExitCode::FAILURE;
        }
    };
    let chosen: Vec<Case> = cases::all()
        .into_iter()
        .filter(|case| {
            let asked = |filter: &String| case.name.contains(filter.as_str());
            options.filters.is_empty() || options.filters.iter().any(asked)
        })
        .collect();
    if options.list {
        chosen
            .iter()
            .for_each(|case| println!("{}: test", case.name));
        return ExitCode::SUCCESS;
    }
    if chosen.is_empty() {
        return ExitCode::SUCCESS;
    }
    let clock = Clock::start();
    let is_table = !options.json && !options.floors;
    if options.floors {
        println!("{}", check::FLOORS_HEAD);
    } else if is_table {
        println!("{}", table::head());
    }
    let verdicts = run_all(&chosen, &options);
    if !is_table {
        return exit_code(&verdicts);
    }
    let count = |wanted: Verdict| {
        verdicts
            .iter()
            .filter(|verdict| **verdict == wanted)
            .count()
    };
    println!(
        "{} ok, {} miss a target, {} below a floor, {} skipped; {:.0} s",
        count(Verdict::Ok),
        count(Verdict::Miss),
        count(Verdict::Below),
        count(Verdict::Skipped),
        seconds_since(&clock),
    );
    exit_code(&verdicts)
}

fn exit_code(verdicts: &[Verdict]) -> ExitCode {
    if verdicts.contains(&Verdict::Below) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn seconds_since(clock: &Clock) -> f64 {
    clock.now().since(Instant::ZERO).as_secs_f64()
}

/// Reads the command line. Options of the standard test harness that mean nothing here are accepted.
fn options(words: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options {
        filters: Vec::new(),
        seed: 1,
        seeds: 1,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        list: false,
        json: false,
        floors: false,
        verbose: false,
    };
    let mut words = words;
    while let Some(word) = words.next() {
        let number = |words: &mut dyn Iterator<Item = String>| {
            let value = words.next().ok_or_else(|| word.clone())?;
            value.parse::<u64>().map_err(|_| value)
        };
        match word.as_str() {
            "--list" => options.list = true,
            "--json" => options.json = true,
            "--floors" => options.floors = true,
            "-v" | "--verbose" => options.verbose = true,
            "--seed" => options.seed = number(&mut words)?,
            "--seeds" => options.seeds = number(&mut words)?.max(1),
            "--threads" => {
                options.threads = usize::try_from(number(&mut words)?).unwrap_or(1).max(1);
            }
            _ if word.starts_with("--nocapture") || word.starts_with("--test-threads") => {}
            _ if word.starts_with('-') => return Err(word),
            _ => options.filters.push(word),
        }
    }
    Ok(options)
}

/// Runs the cases on all threads and prints each as soon as those before it are printed.
fn run_all(cases: &[Case], options: &Options) -> Vec<Verdict> {
    let next = AtomicUsize::new(0);
    let floors = Floors::read();
    let results: Mutex<(Vec<Option<Done>>, Vec<Verdict>)> =
        Mutex::new(((0..cases.len()).map(|_| None).collect(), Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..options.threads.min(cases.len()) {
            scope.spawn(|| {
                while let Some((at, case)) = take(&next, cases) {
                    let done = run_case(case, options);
                    let (results, verdicts) = &mut *results.lock().unwrap();
                    results[at] = Some(done);
                    while let Some(done) = results.get_mut(verdicts.len()).and_then(Option::take) {
                        let case = &cases[verdicts.len()];
                        verdicts.push(print(case, &done, options, &floors));
                    }
                }
            });
        }
    });
    results.into_inner().unwrap().1
}

fn take<'a>(next: &AtomicUsize, cases: &'a [Case]) -> Option<(usize, &'a Case)> {
    let at = next.fetch_add(1, Ordering::Relaxed);
    cases.get(at).map(|case| (at, case))
}

fn run_case(case: &Case, options: &Options) -> Done {
    let clock = Clock::start();
    let rows = match &case.scenario {
        Err(reason) => Err(reason.clone()),
        Ok(scenario) => (options.seed..options.seed + options.seeds)
            .map(|seed| {
                let mut scenario = scenario.clone();
                scenario.plan.seed = seed;
                let mut against = case.against.clone();
                catch_unwind(AssertUnwindSafe(|| {
                    let mut row = run(&scenario);
                    let against = against.as_mut().and_then(|against| {
                        against.plan.seed = seed;
                        run(against).get(Figure::Goodput)
                    });
                    let both = row.get(Figure::Goodput).zip(against);
                    row.set(Figure::Gain, both.map(|(goodput, other)| goodput / other));
                    row
                }))
                .map_err(|fault| format!("seed {seed}: {}", text_of(&fault)))
            })
            .collect(),
    };
    Done {
        rows,
        seconds: seconds_since(&clock),
    }
}

/// What a panic said.
fn text_of(fault: &Box<dyn std::any::Any + Send>) -> String {
    let text = fault.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| fault.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without words").to_owned()
}

fn print(case: &Case, done: &Done, options: &Options, floors: &Floors) -> Verdict {
    let rows = match &done.rows {
        Err(reason) if case.scenario.is_err() => {
            println!(
                "{:<table$} SKIPPED: {reason}",
                case.name,
                table = table::NAME
            );
            return Verdict::Skipped;
        }
        Err(fault) => {
            println!("{:<table$} FAULT: {fault}", case.name, table = table::NAME);
            return Verdict::Below;
        }
        Ok(rows) => rows,
    };
    let row = Row::median(rows);
    if options.floors {
        println!("{}", check::floors_line(&case.name, &case.checks, rows));
        return Verdict::Ok;
    }
    let (verdict, words) = check::judge(&case.name, &case.checks, &row, floors);
    if options.json {
        println!("{}", table::json(case, &row, &words));
        return verdict;
    }
    println!("{}", table::line(case, rows, &row, &words));
    if options.verbose {
        println!("{}({:.1} s)", table::story(&row), done.seconds);
    }
    verdict
}
