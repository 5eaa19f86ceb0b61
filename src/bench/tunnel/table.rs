//! The figures as text of at most 130 columns.

use std::fmt::Write as _;

use super::report::{ContenderReport, Measurement, Report, Row};

/// Width of the names.
const NAME: usize = 14;

/// What the columns mean.
const LEGEND: &str = "
kp/s: inner packets delivered, in thousands per second (TCP: full segments). CPU: client + server,
in s; Mbit/CPU-s: payload for each second of it. dgr/send, dgr/pkt: datagrams for each UDP send and
for each packet. ops/sub, sub/pkt: kernel operations for each submit, submits for each packet (both
programs). again: TCP segments sent again. ping: 50 and 99 % while idle, in ms. MB: resident, client + server.
idle: processor of client + server while nothing flows, in %.
";

/// Everything.
pub(super) fn table(report: &Report) -> String {
    let what = match report.payload_bytes {
        None => "TCP (CUBIC)".to_owned(),
        Some(bytes) => format!("UDP of {bytes} bytes"),
    };
    let mut text = format!(
        "{what}, flows: {}, links: {} ({}), {} s counted after {} s, runs: {}\n{}, {} CPUs, kernel {}, load average {} \
         before, {} after\n",
        report.flows,
        report.links,
        report.nic,
        report.seconds,
        report.warmup,
        report.runs,
        report.machine.cpu,
        report.machine.cpus,
        report.machine.kernel,
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

fn row_text(row: &Row) -> String {
    let names = [
        "Mbit/s",
        "kp/s",
        "CPU s",
        "Mbit/CPU-s",
        "s/GB",
        "dgr/send",
        "dgr/pkt",
        "ops/sub",
        "sub/pkt",
        "again",
        "ping",
        "MB",
        "idle",
    ];
    let mut text = columns(row.direction, &names.map(str::to_owned));
    for contender in &row.contenders {
        text += &contender_text(contender);
    }
    for ratio in &row.ratios {
        let efficiency = ratio
            .efficiency
            .map(|ratio| format!(", payload for CPU {ratio:.2} x"));
        let _ = writeln!(
            text,
            "=> {} / {}: goodput {:.2} x{}",
            ratio.of,
            ratio.to,
            ratio.goodput,
            efficiency.unwrap_or_default()
        );
    }
    text
}

fn contender_text(contender: &ContenderReport) -> String {
    let name = &contender.name;
    let Some(run) = contender.typical() else {
        let missing = contender.missing.as_deref().unwrap_or("not measured");
        let first = missing.lines().next().unwrap_or_default();
        return format!("{name:NAME$} {first}\n");
    };
    let mut text = columns(name, &figures(run));
    if let Some(packets) = run.packets {
        let _ = writeln!(
            text,
            "{:NAME$} offered {:.1} kp/s, lost {:.3} %; flooded: {:.1} kp/s",
            "",
            packets.offered_per_s / 1e3,
            100.0 * packets.loss,
            packets.flooded_per_s / 1e3
        );
    }
    if contender.runs.len() > 1
        && let Some((low, high)) = contender.range(|run| run.goodput_mbps)
    {
        let _ = write!(
            text,
            "{:NAME$} {} runs: {low:.0} to {high:.0} Mbit/s",
            "",
            contender.runs.len()
        );
        let efficiency = contender.range(|run| run.mbit_per_cpu_s.unwrap_or(0.0));
        if let Some((low, high)) = efficiency.filter(|range| range.1 > 0.0) {
            let _ = write!(text, ", {low:.0} to {high:.0} Mbit/CPU-s");
        }
        text.push('\n');
    }
    text
}

/// Width of each column.
const WIDTHS: [usize; 13] = [7, 7, 11, 10, 6, 8, 7, 7, 7, 6, 12, 7, 7];

/// A line of the table.
fn columns(name: &str, figures: &[String; 13]) -> String {
    let mut text = format!("{name:NAME$}");
    for (figure, width) in figures.iter().zip(WIDTHS) {
        let _ = write!(text, " {figure:>width$}");
    }
    text.push('\n');
    text
}

fn figures(run: &Measurement) -> [String; 13] {
    let dash = || "-".to_owned();
    let with = |value: Option<f64>, digits: usize| {
        value.map_or_else(dash, |value| format!("{value:.digits$}"))
    };
    let engine = run.engine;
    let both = |of: fn(&super::report::ProgramFigures) -> f64, digits: usize| {
        let (Some(client), Some(server)) = (&run.client, &run.server) else {
            return dash();
        };
        format!("{:.digits$}+{:.digits$}", of(client), of(server))
    };
    [
        format!("{:.0}", run.goodput_mbps),
        format!("{:.1}", run.packets_per_s / 1e3),
        both(|one| one.cpu_s, 2),
        with(run.mbit_per_cpu_s, 0),
        with(run.cpu_s_per_gb, 2),
        with(engine.map(|engine| engine.datagrams_per_send), 1),
        with(engine.map(|engine| engine.datagrams_per_packet), 2),
        with(engine.map(|engine| engine.operations_per_submit), 1),
        with(engine.map(|engine| engine.submits_per_packet), 3),
        run.retransmits.to_string(),
        format!("{:.2}/{:.2}", run.ping_idle.p50_ms, run.ping_idle.p99_ms),
        both(|one| one.resident_mb, 0),
        both(|one| 100.0 * one.idle_cpu_share, 1),
    ]
}

/// One line about a finished measurement, for whoever waits.
pub(super) fn progress(run: &Measurement) -> String {
    let efficiency = run.mbit_per_cpu_s;
    let efficiency = efficiency.map(|value| format!(", {value:.0} Mbit/CPU-s"));
    format!(
        "{:.0} Mbit/s, {:.1} kp/s{}",
        run.goodput_mbps,
        run.packets_per_s / 1e3,
        efficiency.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::super::plan::example as plan;
    use super::super::report::{EngineFigures, PacketFigures, example};
    use super::*;
    use crate::bench::report::PingSummary;

    #[test]
    fn every_contender_has_a_line_its_range_and_its_ratio() {
        let text = table(&example(&plan()));
        for part in [
            "TCP (CUBIC), flows: 1, links: 1 (offload), 5 s counted after 2 s, runs: 2\n",
            "up              Mbit/s    kp/s       CPU s Mbit/CPU-s   s/GB ",
            "\ndown ",
            "\ntunnel            1000     0.0   2.00+2.00       1250   6.40 ",
            "2 runs: 1000 to 2000 Mbit/s, 1250 to 2500 Mbit/CPU-s\n",
            "\nbaseline          4000     0.0           -          -      - ",
            "2 runs: 4000 to 8000 Mbit/s\n",
            "=> tunnel / openvpn: goodput 5.00 x, payload for CPU 5.00 x\n",
            "=> tunnel / baseline: goodput 0.25 x\n",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }

    #[test]
    fn every_line_fits_and_columns_stand_under_their_names() {
        let mut report = example(&plan());
        report.payload_bytes = Some(200);
        for contender in report.rows.iter_mut().flat_map(|row| &mut row.contenders) {
            for run in &mut contender.runs {
                (run.goodput_mbps, run.packets_per_s) = (123_456.0, 1_234_567.0);
                run.retransmits = 123_456;
                run.ping_idle = PingSummary {
                    sent: 200,
                    lost: 0,
                    p50_ms: 12.34,
                    p99_ms: 123.45,
                };
                run.engine = Some(EngineFigures {
                    datagrams_per_send: 44.4,
                    operations_per_submit: 123.4,
                    submits_per_packet: 1.234,
                    ..EngineFigures::default()
                });
                run.packets = Some(PacketFigures::default());
            }
        }
        let text = table(&report);
        let widest = text.lines().map(|line| line.chars().count()).max();
        assert!(widest.unwrap_or(0) <= 130, "{widest:?}\n{text}");
        assert!(text.contains("UDP of 200 bytes"), "{text}");
        assert!(
            text.contains("offered 0.0 kp/s, lost 0.000 %; flooded: 0.0 kp/s\n"),
            "{text}"
        );
        let mut lines = text.lines().skip_while(|line| !line.starts_with("up "));
        let (names, first) = (lines.next().unwrap(), lines.next().unwrap());
        assert_eq!(names.chars().count(), first.chars().count(), "{text}");
    }

    #[test]
    fn who_is_missing_says_why_and_failures_stand_at_the_end() {
        let mut report = example(&plan());
        let openvpn = &mut report.rows[0].contenders[3];
        openvpn.runs.clear();
        openvpn.missing = Some("no program openvpn (Debian: apt-get install openvpn)\nmore".into());
        report.failures.push("it broke".into());
        let text = table(&report);
        assert!(
            text.contains(
                "\nopenvpn        no program openvpn (Debian: apt-get install openvpn)\n"
            ),
            "{text}"
        );
        assert!(text.ends_with("FAILED: it broke\n"));
    }
}
