//! The comparison as text of at most 80 columns.

use std::fmt::Write as _;

use super::report::{ContenderReport, Measurement, Report, Row, RttSummary};

/// Width of the names.
const NAME: usize = 14;

/// The whole comparison.
pub(super) fn table(report: &Report) -> String {
    let mut text = String::new();
    for (link, number) in report.links.iter().zip(1..) {
        if link.up == link.down {
            let _ = writeln!(text, "link {number}   {}", link.up);
        } else {
            let _ = writeln!(text, "link {number}   up {}", link.up);
            let _ = writeln!(text, "         down {}", link.down);
        }
    }
    let _ = writeln!(
        text,
        "each connection {} s, the first {} s not counted, runs: {}; load average {} before, {} after",
        report.seconds,
        report.warmup,
        report.runs,
        report.machine.load_average[0],
        report.machine.load_average[1]
    );
    for row in &report.rows {
        text.push('\n');
        text += &row_text(row);
    }
    text += LEGEND;
    for failure in &report.failures {
        let _ = writeln!(text, "FAILED: {failure}");
    }
    text
}

/// What the columns mean.
const LEGEND: &str = "
E: share of the bound, which is 0.93 of the links' sum: what is left for TCP beside a
tunnel's headers; without a tunnel 0.95 would be left. RTT: the sender's, under load,
of several paths the slowest; ping: beside the connection (idle before it), both in ms.
gap: longest time without a byte. again: segments sent again. CPU: client and server.
";

fn row_text(row: &Row) -> String {
    let mut text = format!(
        "{}, {}, {}: the links' sum is {:.0} Mbit/s, the bound {:.1}\n",
        row.case, row.direction, row.congestion, row.sum_mbps, row.bound_mbps
    );
    let _ = writeln!(
        text,
        "{:NAME$} Mbit/s     E  RTT 50/95 %    ping 50/99 % (idle)  gap ms   again  CPU s",
        ""
    );
    for contender in &row.contenders {
        let name = match contender.name {
            "link" => format!("link {} alone", row.best_link),
            "mptcp" => "kernel MPTCP".into(),
            name => name.to_owned(),
        };
        text += &contender_text(&name, contender);
    }
    text += &verdict(row);
    text
}

fn contender_text(name: &str, contender: &ContenderReport) -> String {
    let Some(run) = contender.typical() else {
        let missing = contender.missing.as_deref().unwrap_or("not measured");
        let first = missing.lines().next().unwrap_or_default();
        return format!("{name:NAME$} {first}\n");
    };
    let cpu = run
        .tunnel_cpu_s
        .map_or_else(|| "-".to_owned(), |s| format!("{s:.2}"));
    let (idle, beside) = (run.ping_idle, run.ping_beside);
    let rtt = format!("{} / {}", ms(run.rtt_ms.p50), ms(run.rtt_ms.p95));
    let ping = format!(
        "{} / {} ({})",
        ms(beside.p50_ms),
        ms(beside.p99_ms),
        ms(idle.p50_ms)
    );
    let mut text = format!(
        "{name:NAME$} {:>6.1}  {:>4.2}  {rtt:>11}  {ping:>21}  {:>6.0}  {:>6}  {cpu:>5}\n",
        run.goodput_mbps, run.efficiency, run.gap_ms, run.retransmits
    );
    if contender.runs.len() > 1 {
        let all = || contender.runs.iter().map(|run| run.goodput_mbps);
        let (low, high) = (all().fold(f64::MAX, f64::min), all().fold(0.0, f64::max));
        let _ = writeln!(
            text,
            "{:NAME$} median of {} runs, {low:.1} to {high:.1} Mbit/s",
            "",
            contender.runs.len()
        );
    }
    if contender.name != "link" {
        text += &links_text(run);
    }
    if let Some(outage) = run.outage {
        let _ = writeln!(
            text,
            "{:NAME$} outage: gap {:.0} ms, then {:.1} Mbit/s (E {:.2}); back {:.1} (E {:.2})",
            "",
            outage.gap_ms,
            outage.survivors_mbps,
            outage.survivors_efficiency,
            outage.back_mbps,
            outage.back_efficiency
        );
    }
    for doubt in &run.doubts {
        let _ = writeln!(text, "{:NAME$} doubtful: {doubt}", "");
    }
    text
}

/// What each link carried, and the paths of a connection that has several.
fn links_text(run: &Measurement) -> String {
    let list = |values: Vec<String>| values.join(" + ");
    let carried = run.link_mbps.iter().map(|mbps| format!("{mbps:.1}"));
    let mut line = format!("{:NAME$} links {} Mbit/s", "", list(carried.collect()));
    if run.paths.iter().any(|path| path.link.is_some()) {
        let rtts = run.paths.iter().map(|path| ms(path.rtt_ms.p50));
        let _ = write!(line, ", RTT {}", rtts.collect::<Vec<_>>().join(" "));
        let mut names: Vec<_> = run.paths.iter().filter_map(path_congestion).collect();
        names.dedup();
        if !names.is_empty() {
            let _ = write!(line, ", {}", names.join("/"));
        }
    }
    line.push('\n');
    line
}

fn path_congestion(path: &super::report::PathReport) -> Option<&str> {
    path.congestion.as_deref()
}

/// The last line of a row.
fn verdict(row: &Row) -> String {
    let Some(ratios) = row.tunnel else {
        return format!("{:NAME$} no verdict without the tunnel\n", "=>");
    };
    let mptcp = ratios
        .to_mptcp
        .map(|ratio| format!("tunnel / MPTCP {ratio:.2}, "));
    let link = ratios
        .to_link
        .map(|ratio| format!(", tunnel / link {} {ratio:.2}", row.best_link));
    format!(
        "{:NAME$} {}tunnel / bound {:.2}{}\n",
        "=>",
        mptcp.unwrap_or_default(),
        ratios.to_bound,
        link.unwrap_or_default()
    )
}

/// Milliseconds with as many digits as matter.
pub(super) fn ms(value: f64) -> String {
    if value < 99.95 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}

/// One line about a finished measurement, for whoever waits.
pub(super) fn progress(run: &Measurement) -> String {
    let RttSummary { p50, .. } = run.rtt_ms;
    format!(
        "{:.1} Mbit/s, E {:.2}, RTT {} ms, ping {} ms",
        run.goodput_mbps,
        run.efficiency,
        ms(p50),
        ms(run.ping_beside.p50_ms)
    )
}

#[cfg(test)]
mod tests {
    use super::super::plan::example as plan;
    use super::super::report::{OutageReport, PathReport, PingSummary, example};
    use super::*;

    /// A report with the longest numbers that can be expected.
    fn wide() -> Report {
        let mut report = example(&plan());
        for contender in report.rows.iter_mut().flat_map(|row| &mut row.contenders) {
            for run in &mut contender.runs {
                run.rtt_ms = RttSummary {
                    samples: 200,
                    p50: 1234.5,
                    p95: 1234.5,
                };
                run.ping_beside = PingSummary {
                    sent: 1000,
                    lost: 1,
                    p50_ms: 1234.5,
                    p99_ms: 1234.5,
                };
                run.ping_idle.p50_ms = 1234.5;
                (run.gap_ms, run.retransmits) = (12_340.0, 123_456);
                run.tunnel_cpu_s = Some(12.34);
                run.outage = Some(OutageReport {
                    gap_ms: 6_000.0,
                    survivors_mbps: 123.4,
                    survivors_efficiency: 0.95,
                    back_mbps: 123.4,
                    back_efficiency: 0.95,
                });
                run.doubts = vec!["link 8 carried hardly anything".into()];
                let path = |link| PathReport {
                    link: Some(link),
                    congestion: Some("cubic".into()),
                    rtt_ms: run.rtt_ms,
                    retransmits: 0,
                };
                run.paths = (1..=3).map(path).collect();
            }
            contender.runs = vec![contender.runs[0].clone(); 3];
        }
        report.judge();
        report
    }

    #[test]
    fn a_row_has_every_contender_and_ends_with_a_verdict() {
        let text = table(&example(&plan()));
        for part in [
            "link 1   rate=100mbit queue=100ms delay=10ms\n",
            "default, up, cubic: the links' sum is 170 Mbit/s, the bound 158.1\n",
            "link 1 alone     95.2  0.60 ",
            "kernel MPTCP    150.4  0.95 ",
            "tunnel          148.3  0.94 ",
            "links 97.1 + 48.0 + 18.9 Mbit/s\n",
            "=>             tunnel / MPTCP 0.99, tunnel / bound 0.94, tunnel / link 1 1.56\n",
            "default, down, cubic: ",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }

    #[test]
    fn every_line_fits_its_terminal() {
        let text = table(&wide());
        let widest = text.lines().map(|line| line.chars().count()).max();
        assert!(widest.unwrap_or(0) <= 100, "{widest:?}\n{text}");
        let text = table(&example(&plan()));
        let rows = text.lines().filter(|line| !line.starts_with("each "));
        assert!(
            rows.clone().all(|line| line.chars().count() <= 88),
            "{text}"
        );
        for part in [
            "median of 3 runs",
            "outage: gap 6000 ms",
            "doubtful:",
            ", cubic\n",
        ] {
            assert!(table(&wide()).contains(part), "{part}");
        }
    }

    #[test]
    fn what_is_missing_says_why_and_has_no_part_in_the_verdict() {
        let mut report = example(&plan());
        let row = &mut report.rows[0];
        row.contenders[1].runs.clear();
        row.contenders[1].missing = Some("no multipath TCP in this kernel: x\nmore".into());
        report.judge();
        let text = table(&report);
        assert!(
            text.contains("kernel MPTCP   no multipath TCP in this kernel: x\n"),
            "{text}"
        );
        assert!(
            text.contains("=>             tunnel / bound 0.94"),
            "{text}"
        );
        report.rows[0].contenders[2].runs.clear();
        report.judge();
        assert!(table(&report).contains("no verdict without the tunnel\n"));
    }

    #[test]
    fn failures_stand_at_the_end() {
        let mut report = example(&plan());
        report.failures.push("it broke".into());
        assert!(table(&report).ends_with("FAILED: it broke\n"));
    }
}
