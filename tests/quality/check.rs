//! Bounds of figures and how a row stands to them.

use chainlightning::sim::scenario::{Figure, Row};

/// A bound of one figure.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    figure: Figure,
    /// The figure should be this much or more; else, this much or less.
    at_least: bool,
    /// What is aimed at.
    target: f64,
    /// What is reached, with room for chance: beyond it something has become worse.
    floor: f64,
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

/// `figure >= target`; a figure below `floor` fails.
pub const fn least(figure: Figure, target: f64, floor: f64) -> Check {
    Check {
        figure,
        at_least: true,
        target,
        floor,
    }
}

/// `figure <= target`; a figure above `floor` fails.
pub const fn most(figure: Figure, target: f64, floor: f64) -> Check {
    Check {
        figure,
        at_least: false,
        target,
        floor,
    }
}

impl Check {
    fn holds(&self, value: f64, bound: f64) -> bool {
        if self.at_least {
            value >= bound
        } else {
            value <= bound
        }
    }

    fn judge(&self, row: &Row) -> (Verdict, Option<String>) {
        let name = self.figure.name();
        let Some(value) = row.get(self.figure) else {
            return (Verdict::Below, Some(format!("{name} unknown")));
        };
        // An error may have either sign.
        let size = if self.figure == Figure::CapacityError {
            value.abs()
        } else {
            value
        };
        if self.holds(size, self.target) {
            return (Verdict::Ok, None);
        }
        let sign = if self.at_least { '<' } else { '>' };
        if self.holds(size, self.floor) {
            let words = format!("{name} {value:.4} {sign} {}", self.target);
            (Verdict::Miss, Some(words))
        } else {
            let words = format!(
                "{name} {value:.4} {sign} {} FLOOR {}",
                self.target, self.floor
            );
            (Verdict::Below, Some(words))
        }
    }
}

/// The worst of all bounds, and in words those that are missed.
pub fn judge(checks: &[Check], row: &Row) -> (Verdict, String) {
    let judged: Vec<_> = checks.iter().map(|check| check.judge(row)).collect();
    let verdict = judged.iter().map(|(verdict, _)| *verdict).max();
    let missed: Vec<String> = judged.into_iter().filter_map(|(_, words)| words).collect();
    match verdict.unwrap_or(Verdict::Ok) {
        Verdict::Skipped | Verdict::Ok => (Verdict::Ok, "ok".to_owned()),
        worse => (worse, format!("MISS {}", missed.join("; "))),
    }
}
