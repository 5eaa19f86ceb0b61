//! The figures as text of at most 80 columns.

use std::fmt::Write as _;

use super::CoreFigures;
use super::stages::{Code, Stage};

/// What the columns of loads mean.
const LEGEND: &str = "
send, receive: processor time of each end for a packet, median (and the best
twentieth of the takes); M/s: packets a second and core. both: packets a second
through both ends on one core for each thread, all threads together. Superframes
(tso) count as the packets of 1400 bytes that they stand for.
";

pub(super) fn core(figures: &CoreFigures) -> String {
    let mut text = format!(
        "threads {}, load average {} before, {} after\n",
        figures.threads, figures.load_average[0], figures.load_average[1]
    );
    if !figures.stages.is_empty() {
        let _ = write!(text, "\n{}", stages(&figures.stages));
    }
    let _ = writeln!(
        text,
        "\n{:<11}{:>5}{:>12}{:>7}{:>16}{:>7}{:>9}{:>10}",
        "load", "links", "send ns", "M/s", "receive ns", "M/s", "both M/s", "datagrams"
    );
    for load in &figures.loads {
        let cost = |cost: &super::Cost| format!("{:.0} ({:.0})", cost.median_ns, cost.best_ns);
        let _ = writeln!(
            text,
            "{:<11}{:>5}{:>12}{:>7.2}{:>16}{:>7.2}{:>9.2}{:>10.2}{}",
            load.name,
            load.links,
            cost(&load.send),
            load.send.per_s() / 1e6,
            cost(&load.receive),
            load.receive.per_s() / 1e6,
            load.packets_per_s / 1e6,
            load.datagrams_per_packet,
            if load.arrived < 0.95 { " !" } else { "" }
        );
    }
    if figures.loads.iter().any(|load| load.arrived < 0.95) {
        text += "! not all that was sent arrived: the figure is of another load\n";
    }
    text + LEGEND
}

/// Steps, one a line.
pub(super) fn stages(stages: &[Stage]) -> String {
    let mut text = format!(
        "{:<10}{:<36}{:>10}{:>10}{:>10}\n",
        "part", "step", "ns", "best", "M/s"
    );
    for stage in stages {
        let _ = writeln!(
            text,
            "{:<10}{:<36}{:>10.1}{:>10.1}{:>10.2}",
            stage.part,
            stage.step,
            stage.cost.median_ns,
            stage.cost.best_ns,
            stage.cost.per_s() / 1e6
        );
    }
    text
}

/// Groups, one a line.
pub(super) fn fec(codes: &[Code]) -> String {
    let mut text = format!(
        "{:<16}{:>7}{:>11}{:>12}{:>15}{:>15}\n",
        "group", "bytes", "encode us", "ns/packet", "recover 1, us", "recover all, us"
    );
    for code in codes {
        let micros = |cost: &super::Cost| cost.median_ns / 1e3;
        let sources = u32::try_from(code.sources).map_or(f64::MAX, f64::from);
        let _ = writeln!(
            text,
            "{:<16}{:>7}{:>11.2}{:>12.0}{:>15.2}{:>15.2}",
            format!("{}+{} of {}", code.sources, code.repairs, code.rows),
            code.symbol_bytes,
            micros(&code.encode),
            code.encode.median_ns / sources,
            micros(&code.recover_one),
            micros(&code.recover_all)
        );
    }
    text
}
