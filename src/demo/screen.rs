//! The live part of the demonstration: plain lines of at most 80 columns, as good in a pipe as on a terminal.

use std::fmt::Write as _;

use super::report::{PingSummary, Repairs, Report, Tick};

/// Before anything happens.
pub(super) fn introduction(report: &Report) -> String {
    let mut text = format!(
        "ChainLightning demo: one TCP connection for {} s through an encrypted tunnel\n\
         over three emulated WANs, one of which dies on the way. All of it is in\n\
         namespaces of its own; nothing on this machine is changed.\n\n",
        report.seconds
    );
    for wan in &report.wans {
        let _ = writeln!(
            text,
            "  {:<9} {:>4.0} Mbit/s   {}",
            wan.name, wan.rate_mbps, wan.character
        );
    }
    text.push('\n');
    text
}

/// The best WAN without the tunnel was measured.
pub(super) fn alone(report: &Report) -> String {
    format!(
        "TCP over {} alone, without the tunnel: {:.1} Mbit/s\n",
        report.best_link, report.best_link_mbps
    )
}

/// The tunnel works.
pub(super) fn up(report: &Report) -> String {
    let milliseconds = |ping: PingSummary| format!("{:.1} ms", ping.p50_ms);
    format!(
        "tunnel up with all links after {:.0} ms: {}, {}\nping through it: {}; over {} alone: {}\n",
        report.up_after_ms,
        report.cipher,
        report.engine,
        milliseconds(report.ping_idle),
        report.best_link,
        milliseconds(report.ping_direct)
    )
}

/// Head of the live lines; stands again behind every event.
pub(super) fn head() -> String {
    "\n  time  link       Mbit/s   share    rtt p50/p99 ms     loss  state\n".into()
}

/// One second: a line for each link, and one for the tunnel.
pub(super) fn rows(tick: &Tick, names: &[&str]) -> String {
    let mut text = String::new();
    if let Some(event) = &tick.event {
        let _ = write!(text, "\n*** {event}\n{}", head());
    }
    let mut time = format!("{} s", tick.second);
    for (name, link) in names.iter().zip(&tick.links) {
        let state = if link.state.is_empty() {
            "did not tell"
        } else {
            &link.state
        };
        let rtt = if link.rtt_p50_ms > 0.0 {
            format!("{:.1} / {:.1}", link.rtt_p50_ms, link.rtt_p99_ms)
        } else {
            "-".into()
        };
        let (share, loss) = (100.0 * link.share, 100.0 * link.loss_ratio);
        let _ = writeln!(
            text,
            "{time:>6}  {name:<9} {:>7.1}  {share:>5.0}%  {rtt:>16}  {loss:>6.1}%  {state}",
            link.mbps
        );
        time.clear();
    }
    let Repairs {
        recovered_by_fec,
        sent_again,
        unrecoverable,
    } = tick.repairs;
    let _ = writeln!(
        text,
        "        {:<9} {:>7.1}  goodput; repaired: FEC {recovered_by_fec}, resent {sent_again}; lost {unrecoverable}",
        "tunnel", tick.goodput_mbps
    );
    text
}

#[cfg(test)]
mod tests {
    use super::super::report::LinkTick;
    use super::*;

    /// The widest line that anything here may have.
    const COLUMNS: usize = 80;

    fn widest(text: &str) -> usize {
        text.lines()
            .map(|line| line.chars().count())
            .max()
            .unwrap_or(0)
    }

    fn tick(state: &str, event: Option<&str>) -> Tick {
        let link = LinkTick {
            state: state.into(),
            mbps: 10_099.94,
            share: 1.0,
            rtt_p50_ms: 1110.04,
            rtt_p99_ms: 2250.0,
            loss_ratio: 1.0,
        };
        Tick {
            second: 3600,
            links: vec![link; 3],
            goodput_mbps: 168.25,
            repairs: Repairs {
                recovered_by_fec: 12_345,
                sent_again: 1234,
                unrecoverable: 123,
            },
            event: event.map(Into::into),
        }
    }

    #[test]
    fn everything_fits_80_columns() {
        let mut report = Report::new(3600);
        (report.cipher, report.engine) = ("chacha20-poly1305".into(), "io_uring_oneshot".into());
        (report.up_after_ms, report.best_link_mbps) = (14_999.0, 100.0);
        report.ping_idle.p50_ms = 120.4;
        let names = ["fiber", "starlink", "dsl"];
        for text in [
            introduction(&report),
            alone(&report),
            up(&report),
            head(),
            rows(&tick("handshake", None), &names),
        ] {
            assert!(widest(&text) <= COLUMNS, "{}\n{text}", widest(&text));
        }
    }

    #[test]
    fn columns_of_head_and_links_end_at_the_same_places() {
        let names = ["fiber", "starlink", "dsl"];
        let mut tick = tick("up", None);
        for link in &mut tick.links {
            (link.mbps, link.share, link.loss_ratio) = (97.0, 0.79, 0.005);
        }
        let (head, rows) = (head(), rows(&tick, &names));
        let head = head.trim_start_matches('\n');
        for row in rows.lines().take(names.len()) {
            assert_eq!(row.find('%'), head.find("share").map(|at| at + 4), "{row}");
            assert_eq!(row.find("up"), head.find("state"), "{row}");
        }
        assert_eq!(rows.lines().count(), 4);
    }

    #[test]
    fn an_event_stands_before_its_second_and_an_unknown_rtt_is_a_dash() {
        let mut tick = tick("down", Some("fiber swallows every packet"));
        tick.links[1].rtt_p50_ms = 0.0;
        tick.links[2].state.clear();
        let text = rows(&tick, &["fiber", "starlink", "dsl"]);
        let line = |part: &str| text.lines().position(|line| line.contains(part)).unwrap();
        assert!(line("*** fiber swallows") < line("3600 s"), "{text}");
        assert!(line("down") > line("state"), "{text}");
        assert!(text.contains(" -  "), "{text}");
        assert!(text.contains("did not tell"), "{text}");
    }
}
