//! The connection while it runs: a look once a second, and the events at their own instants in between.

use std::time::Duration;

use super::plan::{BEST, Plan, WANS};
use super::report::{LinkTick, Repairs, Tick};
use super::screen;
use crate::base::Rate;
use crate::lab::traffic::BulkFlow;
use crate::lab::{LabError, Topology, Tunnel, pause};
use crate::status::Status;

/// A running connection and what was seen at the last look.
pub(super) struct Watch<'a> {
    tunnel: &'a Tunnel,
    flow: &'a BulkFlow,
    looked_at: Duration,
    delivered: u64,
    /// Bytes sent over each WAN.
    sent: [u64; WANS.len()],
    repairs: Repairs,
}

impl<'a> Watch<'a> {
    pub(super) fn new(tunnel: &'a Tunnel, flow: &'a BulkFlow) -> Self {
        Self {
            tunnel,
            flow,
            looked_at: Duration::ZERO,
            delivered: 0,
            sent: tunnel
                .server_status()
                .map_or_else(|_| Default::default(), |status| bytes_sent(&status)),
            repairs: tunnel
                .client_status(0)
                .map(|status| repairs_of(&status))
                .unwrap_or_default(),
        }
    }

    /// Looks once a second until the plan ends, kills the best link and revives it.
    ///
    /// # Errors
    /// The emulator refuses.
    pub(super) fn run(
        mut self,
        plan: Plan,
        lab: &mut Topology,
        live: &impl Fn(String),
    ) -> Result<Vec<Tick>, LabError> {
        let mut ticks = Vec::new();
        let mut events = [(plan.dies(), true), (plan.returns(), false)]
            .into_iter()
            .peekable();
        for second in 1..=plan.seconds {
            let end = Duration::from_secs(second);
            let mut event = None;
            while let Some((at, dies)) = events.next_if(|(at, _)| *at < end) {
                self.wait(at);
                event = Some(switch(lab, at, dies)?);
            }
            self.wait(end);
            let tick = self.look(second, event);
            live(screen::rows(&tick, &WANS.map(|wan| wan.name)));
            ticks.push(tick);
        }
        Ok(ticks)
    }

    fn wait(&self, until: Duration) {
        // A signal, such as that of a stopped terminal, may end a pause early.
        while self.flow.elapsed() < until {
            pause(until.saturating_sub(self.flow.elapsed()));
        }
    }

    fn look(&mut self, second: u64, event: Option<String>) -> Tick {
        let now = self.flow.elapsed();
        let time = now.saturating_sub(std::mem::replace(&mut self.looked_at, now));
        let delivered = self.flow.delivered();
        let bytes = delivered - std::mem::replace(&mut self.delivered, delivered);
        // A daemon that is too busy to answer in time leaves a gap in the table, not an end of the demonstration.
        let links = self.tunnel.server_status().map_or_else(
            |_| vec![LinkTick::default(); WANS.len()],
            |status| links_of(&status, &mut self.sent, time),
        );
        let repairs = self
            .tunnel
            .client_status(0)
            .map_or(self.repairs, |status| repairs_of(&status));
        let before = std::mem::replace(&mut self.repairs, repairs);
        Tick {
            second,
            links,
            goodput_mbps: Rate::from_bytes_over(bytes, time).as_mbps(),
            repairs: repairs.since(before),
            event,
        }
    }
}

/// Kills the best link or revives it; says what was done.
fn switch(lab: &mut Topology, at: Duration, dies: bool) -> Result<String, LabError> {
    let (number, name, at) = (BEST + 1, WANS[BEST].name, at.as_secs_f64());
    if dies {
        lab.emulator().command(&format!("{number} both outage"))?;
        Ok(format!("{at:.1} s: {name} swallows every packet"))
    } else {
        lab.emulator()
            .command(&format!("{number} both outage=off"))?;
        Ok(format!("{at:.1} s: {name} works again"))
    }
}

impl Repairs {
    /// What was added since `before`.
    pub(super) fn since(self, before: Self) -> Self {
        Self {
            recovered_by_fec: self
                .recovered_by_fec
                .saturating_sub(before.recovered_by_fec),
            sent_again: self.sent_again.saturating_sub(before.sent_again),
            unrecoverable: self.unrecoverable.saturating_sub(before.unrecoverable),
        }
    }
}

/// What the receiving side has repaired so far.
pub(super) fn repairs_of(status: &Status) -> Repairs {
    let mut repairs = Repairs::default();
    for fec in status.peers.iter().map(|peer| &peer.fec) {
        repairs.recovered_by_fec += fec.recovered;
        repairs.sent_again += fec.retransmitted;
        repairs.unrecoverable += fec.unrecoverable;
    }
    repairs
}

/// Bytes that the server has sent over each WAN.
fn bytes_sent(status: &Status) -> [u64; WANS.len()] {
    let mut sent = [0; WANS.len()];
    for link in status.peers.iter().flat_map(|peer| &peer.links) {
        if let Some(sent) = sent.get_mut(usize::from(link.wan)) {
            *sent += link.tx_bytes;
        }
    }
    sent
}

/// The server's view of each WAN, its links taken together: the connection flows from the server to the client.
/// `sent` are the bytes at the last look, `time` ago.
fn links_of(status: &Status, sent: &mut [u64; WANS.len()], time: Duration) -> Vec<LinkTick> {
    let before = std::mem::replace(sent, bytes_sent(status));
    // A session that was made anew counts from zero.
    let new: Vec<u64> = sent
        .iter()
        .zip(before)
        .map(|(now, before)| now.saturating_sub(before))
        .collect();
    let all = Rate::from_bytes_over(new.iter().sum(), time).as_mbps();
    let mut ticks = vec![LinkTick::default(); WANS.len()];
    for (tick, bytes) in ticks.iter_mut().zip(new) {
        tick.mbps = Rate::from_bytes_over(bytes, time).as_mbps();
        tick.share = if all > 0.0 { tick.mbps / all } else { 0.0 };
    }
    for link in status.peers.iter().flat_map(|peer| &peer.links) {
        let Some(tick) = ticks.get_mut(usize::from(link.wan)) else {
            continue;
        };
        // One link that is not up is what people want to know about its WAN.
        if tick.state.is_empty() || tick.state == "up" {
            tick.state.clone_from(&link.state);
        }
        tick.rtt_p50_ms = tick.rtt_p50_ms.max(link.rtt_ms.p50);
        tick.rtt_p99_ms = tick.rtt_p99_ms.max(link.rtt_ms.p99);
        tick.loss_ratio = tick.loss_ratio.max(link.loss_ratio_tx);
    }
    ticks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{FecStatus, LinkStatus, PeerStatus, Percentiles};

    fn status(links: &[(u8, &str, u64)]) -> Status {
        let link = |&(wan, state, tx_bytes): &(u8, &str, u64)| LinkStatus {
            wan,
            state: state.into(),
            tx_bytes,
            rtt_ms: Percentiles {
                p50: f64::from(wan) + 1.0,
                ..Percentiles::default()
            },
            ..LinkStatus::default()
        };
        Status {
            peers: vec![PeerStatus {
                links: links.iter().map(link).collect(),
                fec: FecStatus {
                    recovered: 7,
                    retransmitted: 5,
                    unrecoverable: 3,
                    ..FecStatus::default()
                },
                ..PeerStatus::default()
            }],
            ..Status::default()
        }
    }

    #[test]
    fn rates_and_shares_come_from_the_bytes_between_two_looks() {
        let mut sent = [1_000, 0, 500_000];
        let now = status(&[(0, "up", 751_000), (1, "up", 200_000), (1, "down", 50_000)]);
        let ticks = links_of(&now, &mut sent, Duration::from_secs(2));
        assert_eq!(sent, [751_000, 250_000, 0]);
        let numbers: Vec<_> = ticks.iter().map(|tick| (tick.mbps, tick.share)).collect();
        assert_eq!(numbers, [(3.0, 0.75), (1.0, 0.25), (0.0, 0.0)]);
        let states: Vec<_> = ticks.iter().map(|tick| tick.state.as_str()).collect();
        assert_eq!(states, ["up", "down", ""]);
        assert!((ticks[1].rtt_p50_ms - 2.0).abs() < 1e-9);
    }

    #[test]
    fn a_server_without_peers_has_links_without_state() {
        let ticks = links_of(&status(&[]), &mut [5; 3], Duration::from_secs(1));
        assert!(
            ticks
                .iter()
                .all(|tick| tick.state.is_empty() && tick.share == 0.0)
        );
    }

    #[test]
    fn repairs_are_counted_between_two_looks() {
        let now = repairs_of(&status(&[]));
        let before = Repairs {
            recovered_by_fec: 4,
            sent_again: 5,
            unrecoverable: 9,
        };
        let new = now.since(before);
        assert_eq!(
            (new.recovered_by_fec, new.sent_again, new.unrecoverable),
            (3, 0, 0)
        );
    }
}
