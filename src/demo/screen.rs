//! The demonstration's words and tables.

use std::fmt::Write as _;

use super::report::{Report, Tick, WanReport};

/// Before anything happens.
pub(super) fn introduction(seconds: u64, wans: &[WanReport]) -> String {
    let mut text = format!(
        "ChainLightning demo: one TCP connection (cubic) for {seconds} s through an encrypted tunnel over three \
         emulated WANs.\nAll of it happens in namespaces of its own; nothing on this machine is changed.\n\n"
    );
    for wan in wans {
        let _ = writeln!(
            text,
            "  {:<9} {:>5.0} Mbit/s   {}",
            wan.name, wan.rate_mbps, wan.character
        );
    }
    text.push('\n');
    text
}

/// The head of the live table.
pub(super) fn head(wans: &[WanReport]) -> String {
    let mut text = String::from("      ");
    for wan in wans {
        let _ = write!(text, "│ {:<27} ", wan.name);
    }
    text += "│ tunnel\n time ";
    for _ in wans {
        text += "│ Mbit/s share rtt50/99  loss ";
    }
    text += "│ Mbit/s repaired\n";
    text
}

/// One second of the live table.
pub(super) fn row(tick: &Tick) -> String {
    let mut text = String::new();
    if let Some(event) = &tick.event {
        let _ = writeln!(text, "      ── {event}");
    }
    let _ = write!(text, "{:>4} s", tick.second);
    for link in &tick.links {
        if link.state == "up" {
            let rtt = format!("{:.0}/{:.0}", link.rtt_p50_ms, link.rtt_p99_ms);
            let (share, loss) = (100.0 * link.share, 100.0 * link.loss_ratio);
            let _ = write!(
                text,
                "│ {:>6.1} {share:>4.0}% {rtt:>8} {loss:>4.1}% ",
                link.mbps
            );
        } else {
            let state = if link.state.is_empty() {
                "-"
            } else {
                &link.state
            };
            let _ = write!(text, "│ {state:^27} ");
        }
    }
    let _ = writeln!(text, "│ {:>6.1} {:>8}", tick.goodput_mbps, tick.repaired);
    text
}

/// The result.
pub(super) fn table(report: &Report) -> String {
    let mut text = String::from("\n                             goodput   sum of links\n");
    for phase in &report.phases {
        let share = 100.0 * phase.goodput_mbps / phase.links_mbps;
        let _ = writeln!(
            text,
            "  {:<22} {:>6.1} Mbit/s  {:>5.0} Mbit/s  {share:>3.0} %",
            phase.name, phase.goodput_mbps, phase.links_mbps
        );
    }
    let best = report
        .wans
        .iter()
        .max_by(|a, b| a.rate_mbps.total_cmp(&b.rate_mbps));
    let best = best.map_or("", |wan| wan.name);
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "  {name:<34} {value}");
    };
    line(
        "against the best link alone",
        format!("{:.2} x {best}", report.gain_over_best_link),
    );
    line(
        "longest stall of the connection",
        format!("{:.0} ms, at {:.1} s", report.stall_ms, report.stall_at_s),
    );
    line(
        "losses repaired",
        format!(
            "{} ({} by FEC, {} sent again), {} not repaired",
            report.recovered_by_fec + report.sent_again,
            report.recovered_by_fec,
            report.sent_again,
            report.unrecoverable
        ),
    );
    let added = report.ping_idle.p50_ms - report.ping_direct.p50_ms;
    line(
        "ping, idle",
        format!(
            "{:.1} ms through the tunnel, {:.1} ms over {best} alone: {added:.1} ms added",
            report.ping_idle.p50_ms, report.ping_direct.p50_ms
        ),
    );
    let loaded = report.ping_loaded;
    line(
        "ping, beside the connection",
        format!(
            "{:.1} ms median, {:.1} ms at p99, {} of {} lost",
            loaded.p50_ms, loaded.p99_ms, loaded.lost, loaded.sent
        ),
    );
    line(
        "plaintext found on the links",
        format!(
            "{} of {} packets",
            report.packets_with_plaintext, report.packets_captured
        ),
    );
    line("TCP resets", report.tcp_resets.to_string());
    line(
        "TCP segments sent again",
        report.tcp_retransmits.to_string(),
    );
    line("engine", format!("{}, {}", report.engine, report.cipher));
    text
}

#[cfg(test)]
mod tests {
    use super::super::report::{LinkTick, Phase};
    use super::*;

    fn wans() -> Vec<WanReport> {
        ["fiber", "dsl"]
            .map(|name| WanReport {
                name,
                rate_mbps: 100.0,
                character: "x",
            })
            .into()
    }

    #[test]
    fn head_and_rows_are_equally_wide() {
        let link = |state: &str| LinkTick {
            state: state.into(),
            mbps: 99.94,
            share: 1.0,
            rtt_p50_ms: 110.0,
            rtt_p99_ms: 250.0,
            loss_ratio: 0.1234,
        };
        let links = vec![link("up"), link("suspect")];
        let tick = Tick {
            second: 17,
            links,
            goodput_mbps: 168.25,
            repaired: 1234,
            event: None,
        };
        let columns = |line: &str| {
            line.match_indices('│')
                .map(|(at, _)| line[..at].chars().count())
                .collect::<Vec<_>>()
        };
        let head = head(&wans());
        let lines: Vec<_> = head.lines().collect();
        let row = row(&tick);
        assert_eq!(columns(lines[0]), columns(lines[1]));
        assert_eq!(columns(lines[1]), columns(row.trim_end()), "\n{head}{row}");
    }

    #[test]
    fn the_table_names_what_was_measured() {
        let mut report = Report::new(wans());
        assert!(!report.is_good());
        report.phases.push(Phase {
            name: "all links".into(),
            from_s: 2.0,
            to_s: 8.0,
            goodput_mbps: 180.0,
            links_mbps: 200.0,
        });
        report.packets_captured = 10;
        let text = table(&report);
        assert!(
            text.contains("all links               180.0 Mbit/s    200 Mbit/s   90 %"),
            "{text}"
        );
        assert!(report.is_good());
        report.tcp_resets = 1;
        assert!(!report.is_good());
        let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
        assert_eq!(json["tcp_resets"], 1);
    }
}
