//! Bounds of figures and how a row stands to them.
//!
//! A target is what is aimed at and stands beside its scenario. A floor is what was reached, with room for chance: beyond
//! it something has become worse. Floors are in `floors.txt`, a line for each scenario; `--floors` writes that file.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use chainlightning::sim::scenario::{Figure, Row};

/// The first lines of `floors.txt`.
pub const FLOORS_HEAD: &str = "\
# What each scenario reached, with room for chance (tests/quality/check.rs). Written by:
# cargo test --release --test quality -- --seeds 3 --floors > tests/quality/floors.txt";

/// The target of one figure.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    figure: Figure,
    /// The figure should be this much or more; else, this much or less.
    at_least: bool,
    target: f64,
}

/// How a case ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It could not run.
    Skipped,
    /// All targets are met.
    Ok,
    /// A target is missed, and no floor.
    Miss,
    /// A floor is missed.
    Below,
}

/// `figure >= target`.
pub const fn least(figure: Figure, target: f64) -> Check {
    Check {
        figure,
        at_least: true,
        target,
    }
}

/// `figure <= target`; of a figure with a sign, its size.
pub const fn most(figure: Figure, target: f64) -> Check {
    Check {
        figure,
        at_least: false,
        target,
    }
}

impl Check {
    fn holds(&self, value: f64, bound: f64) -> bool {
        if self.at_least {
            value >= bound
        } else {
            value.abs() <= bound
        }
    }

    fn judge(&self, row: &Row, floor: Option<f64>) -> (Verdict, Option<String>) {
        let name = self.figure.name();
        let Some(value) = row.get(self.figure) else {
            return (Verdict::Below, Some(format!("{name} unknown")));
        };
        if self.holds(value, self.target) {
            return (Verdict::Ok, None);
        }
        let sign = if self.at_least { '<' } else { '>' };
        let words = format!("{name} {} {sign} {}", short(value), self.target);
        match floor {
            Some(floor) if !self.holds(value, floor) => {
                let words = format!("{words} BELOW FLOOR {}", short(floor));
                (Verdict::Below, Some(words))
            }
            _ => (Verdict::Miss, Some(words)),
        }
    }

    /// The worst of several runs, with room for chance.
    fn floor(&self, rows: &[Row]) -> Option<f64> {
        let values = rows.iter().filter_map(|row| row.get(self.figure));
        let sizes = values.map(|value| if self.at_least { value } else { value.abs() });
        let worst = if self.at_least {
            sizes.reduce(f64::min)? - 0.04
        } else {
            let (factor, more) = match self.figure {
                Figure::Lost | Figure::Timeouts | Figure::Suspicions => (1.5, 2.0),
                Figure::LossRatio | Figure::Disorder => (2.0, 2e-5),
                Figure::Resent => (2.0, 1e-3),
                Figure::Overhead => (1.1, 0.01),
                Figure::CapacityError => (1.0, 0.05),
                _ => (1.25, 2.0), // milliseconds
            };
            sizes.reduce(f64::max)? * factor + more
        };
        Some(worst)
    }
}

/// Floors by scenario and figure.
#[derive(Debug)]
pub struct Floors(BTreeMap<String, BTreeMap<String, f64>>);

impl Floors {
    /// Those of the file.
    ///
    /// # Panics
    /// If a line is not `scenario: figure value figure value`.
    pub fn read() -> Self {
        let lines = include_str!("floors.txt").lines();
        let lines = lines.filter(|line| !line.starts_with('#') && !line.is_empty());
        let floors = lines.map(|line| {
            let (name, rest) = line.rsplit_once(": ").expect("scenario: floors");
            let words: Vec<&str> = rest.split_whitespace().collect();
            let floors = words
                .chunks_exact(2)
                .map(|pair| (pair[0].to_owned(), pair[1].parse().expect("a number")));
            (name.to_owned(), floors.collect())
        });
        Self(floors.collect())
    }

    fn get(&self, name: &str, figure: Figure) -> Option<f64> {
        self.0.get(name)?.get(figure.name()).copied()
    }
}

/// The worst of all bounds, and in words those that are missed.
pub fn judge(name: &str, checks: &[Check], row: &Row, floors: &Floors) -> (Verdict, String) {
    let judged: Vec<_> = checks
        .iter()
        .map(|check| check.judge(row, floors.get(name, check.figure)))
        .collect();
    let verdict = judged.iter().map(|(verdict, _)| *verdict).max();
    let missed: Vec<String> = judged.into_iter().filter_map(|(_, words)| words).collect();
    match verdict.unwrap_or(Verdict::Ok) {
        Verdict::Skipped | Verdict::Ok => (Verdict::Ok, "ok".to_owned()),
        worse => (worse, format!("MISS {}", missed.join("; "))),
    }
}

/// A line of `floors.txt` from what several seeds reached; never stricter than the targets.
pub fn floors_line(name: &str, checks: &[Check], rows: &[Row]) -> String {
    let mut line = format!("{name}:");
    for check in checks {
        let Some(floor) = check.floor(rows) else {
            continue;
        };
        let floor = if check.at_least {
            floor.min(check.target)
        } else {
            floor.max(check.target)
        };
        let _ = write!(line, " {} {}", check.figure.name(), short(floor));
    }
    line
}

/// Three digits that count.
fn short(value: f64) -> String {
    match value.abs() {
        size if size == 0.0 || size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.3}"),
        _ => format!("{value:.6}"),
    }
}
