//! Rows as aligned text and as JSON.

use std::fmt::Write as _;

use chainlightning::sim::scenario::{Figure, Row};

use crate::cases::Case;

/// Width of the names.
pub const NAME: usize = 30;

/// A column: figure, title, width, decimals, factor.
const COLUMNS: [(Figure, &str, usize, usize, f64); 21] = [
    (Figure::Efficiency, "E", 6, 3, 1.0),
    (Figure::Goodput, "Mbit/s", 6, 1, 1.0),
    (Figure::Gain, "gain", 5, 2, 1.0),
    (Figure::RttP50, "rtt50", 5, 0, 1.0),
    (Figure::RttP99, "rtt99", 5, 0, 1.0),
    (Figure::RiseP50, "+p50", 5, 1, 1.0),
    (Figure::RiseP99, "+p99", 5, 1, 1.0),
    (Figure::Gap, "gap", 4, 0, 1.0),
    (Figure::Lost, "lost", 4, 0, 1.0),
    (Figure::Resent, "again%", 6, 2, 100.0),
    (Figure::Timeouts, "rto", 3, 0, 1.0),
    (Figure::Overhead, "ovh%", 5, 1, 100.0),
    (Figure::QueueP50, "q50", 5, 1, 1.0),
    (Figure::QueueP99, "q99", 5, 0, 1.0),
    (Figure::CapacityError, "C2s%", 5, 0, 100.0),
    (Figure::Fairness, "jain", 5, 3, 1.0),
    (Figure::LeastShare, "least", 5, 2, 1.0),
    (Figure::Suspicions, "susp", 4, 0, 1.0),
    (Figure::ForeignShare, "frgn", 5, 2, 1.0),
    (Figure::ForeignLoss, "fls%", 5, 2, 100.0),
    (Figure::Back, "back", 5, 3, 1.0),
];

/// Titles. Times are ms; `+p50` and `+p99` are the rise of a ping beside the flow, `frgn` is what foreign traffic had of its fair
/// share, `fls%` what it lost, `back` is E once more after something is over.
pub fn head() -> String {
    let mut text = format!("{:<NAME$}", "scenario");
    for (_, title, width, ..) in COLUMNS {
        let _ = write!(text, " {title:>width$}");
    }
    text
}

/// One case.
pub fn line(case: &Case, rows: &[Row], row: &Row, words: &str) -> String {
    let mut text = format!("{:<NAME$}", case.name);
    for (figure, _, width, decimals, factor) in COLUMNS {
        let _ = match row.get(figure) {
            Some(value) => write!(text, " {:>width$.decimals$}", value * factor),
            None => write!(text, " {:>width$}", "-"),
        };
    }
    let _ = write!(text, "  {words}");
    if rows.len() > 1 {
        let values = || rows.iter().filter_map(|row| row.get(Figure::Efficiency));
        let (low, high) = (
            values().fold(f64::MAX, f64::min),
            values().fold(f64::MIN, f64::max),
        );
        let _ = write!(text, "  [E {low:.3}..{high:.3}]");
    }
    text
}

/// What each second was like.
pub fn story(row: &Row) -> String {
    let mut text = String::new();
    for (number, second) in row.story.iter().enumerate() {
        let _ = write!(
            text,
            "  {number:2}s {:6.1} E {:.3} | {} | {} | {}",
            second.goodput,
            second.efficiency,
            second.links.join(" | "),
            second.session,
            second.tcp
        );
        for (name, rates) in [
            ("flows", &second.flows[..]),
            ("foreign", &second.foreign[..]),
        ] {
            // One flow is the whole goodput, which stands in front.
            if rates.len() > usize::from(name == "flows") {
                let rates: Vec<String> = rates.iter().map(|rate| format!("{rate:.1}")).collect();
                let _ = write!(text, " | {name} {}", rates.join(" "));
            }
        }
        text.push('\n');
    }
    text
}

/// All figures of a case as an object.
pub fn json(case: &Case, row: &Row, words: &str) -> String {
    let mut object = serde_json::Map::new();
    object.insert("scenario".into(), case.name.clone().into());
    object.insert("verdict".into(), words.into());
    for figure in Figure::ALL {
        object.insert(figure.name().into(), row.get(figure).into());
    }
    serde_json::Value::Object(object).to_string()
}
