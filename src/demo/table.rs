//! The result as a table of at most 80 columns.

use std::fmt::Write as _;

use super::report::{Phase, Report};

/// Width of the names.
const NAME: usize = 26;

/// The result.
pub(super) fn table(report: &Report) -> String {
    let mut text = String::from("\nResult\n");
    let lines = speed(report).into_iter().chain(quality(report));
    for (name, value) in lines {
        let _ = writeln!(text, "  {name:<NAME$} {value}");
    }
    text += &verdict(report);
    text
}

type Line = (String, String);

/// What it carried.
fn speed(report: &Report) -> Vec<Line> {
    let mut lines: Vec<Line> = report
        .phases
        .iter()
        .map(|phase| (format!("goodput {}", phase.name), against_sum(phase)))
        .collect();
    let alone = format!(
        "{:>6.1} Mbit/s   {:.2} times that",
        report.best_link_mbps, report.gain_over_best_link
    );
    lines.insert(
        lines.len().min(1),
        (format!("  against {} alone", report.best_link), alone),
    );
    lines
}

/// What it did to the connection, and what an eavesdropper got.
fn quality(report: &Report) -> Vec<Line> {
    let (repairs, loaded) = (report.repairs, report.ping_loaded);
    let lines = [
        (
            "longest stall",
            format!("{:.0} ms, at {:.1} s", report.stall_ms, report.stall_at_s),
        ),
        (
            "TCP",
            format!(
                "{} resets, {} segments sent again",
                report.tcp_resets, report.tcp_retransmits
            ),
        ),
        (
            "losses repaired",
            format!(
                "{} ({} by FEC, {} sent again)",
                repairs.recovered_by_fec + repairs.sent_again,
                repairs.recovered_by_fec,
                repairs.sent_again
            ),
        ),
        ("lost for good", repairs.unrecoverable.to_string()),
        (
            "added latency, idle",
            format!(
                "{:.1} ms (tunnel {:.1} ms, {} alone {:.1} ms)",
                report.added_latency_ms,
                report.ping_idle.p50_ms,
                report.best_link,
                report.ping_direct.p50_ms
            ),
        ),
        (
            "ping beside the connection",
            format!(
                "p50 {:.1} ms, p99 {:.1} ms, {} of {} lost",
                loaded.p50_ms, loaded.p99_ms, loaded.lost, loaded.sent
            ),
        ),
        (
            "plaintext on the links",
            format!(
                "in {} of {} packets",
                report.packets_with_plaintext, report.packets_captured
            ),
        ),
        (
            "  without the tunnel",
            format!(
                "in {} of {} packets (the same search)",
                report.control_packets_with_plaintext, report.control_packets
            ),
        ),
        ("cipher", report.cipher.clone()),
        ("tier", report.engine.clone()),
    ];
    lines.map(|(name, value)| (name.to_owned(), value)).into()
}

fn against_sum(phase: &Phase) -> String {
    let share = 100.0 * phase.goodput_mbps / phase.links_mbps;
    format!(
        "{:>6.1} Mbit/s   {share:.0} % of the links' {:.0}",
        phase.goodput_mbps, phase.links_mbps
    )
}

/// The last lines: all is well, or what is not.
fn verdict(report: &Report) -> String {
    if report.failures.is_empty() {
        return "\nOK: faster than the best link alone, no reset, nothing readable on the links.\n"
            .into();
    }
    report
        .failures
        .iter()
        .fold(String::from("\n"), |mut text, failure| {
            let _ = writeln!(text, "FAILED: {failure}");
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut report = Report::new(20);
        let names = ["with all links", "without fiber", "with fiber back"];
        for (name, links_mbps) in names.into_iter().zip([180.0, 80.0, 180.0]) {
            report.phases.push(Phase {
                name: name.into(),
                from_s: 2.0,
                to_s: 8.0,
                goodput_mbps: links_mbps * 0.9,
                links_mbps,
            });
        }
        report.best_link_mbps = 94.2;
        (report.cipher, report.engine) = ("aes-256-gcm".into(), "io_uring".into());
        report.packets_captured = 10;
        (
            report.control_packets,
            report.control_packets_with_plaintext,
        ) = (9, 8);
        report.judge();
        report
    }

    #[test]
    fn the_table_names_what_was_measured_in_80_columns() {
        let mut report = report();
        (report.tcp_retransmits, report.packets_captured) = (1_234_567, 123_456_789);
        let text = table(&report);
        for part in [
            "  goodput with all links      162.0 Mbit/s   90 % of the links' 180\n",
            "    against fiber alone        94.2 Mbit/s   1.72 times that\n",
            "  goodput without fiber        72.0 Mbit/s   90 % of the links' 80\n",
            "in 8 of 9 packets (the same search)\n",
            "  tier                       io_uring\n",
            "\nOK: ",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
    }

    #[test]
    fn a_failed_run_says_what_failed_and_not_ok() {
        let mut report = report();
        report.tcp_resets = 1;
        report.judge();
        let text = table(&report);
        assert!(text.ends_with("\nFAILED: the connection was reset or gave up\n"));
        assert!(!text.contains("OK"), "{text}");
    }
}
