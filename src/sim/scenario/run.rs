//! One scenario from the first handshake to the last segment, and its figures.
//!
//! ```text
//!  links come up ─► pings alone (1 s) ─► flows begin ─► changes at their times ... ─► flows stop ─► all arrives (2.5 s)
//!                                        0              samples each 100 ms           length
//! ```

mod figures;

use std::time::Duration;

use super::row::{Row, Second};
use super::{Inner, Scenario};
use crate::base::Instant;
use crate::link::State;
use crate::session::egress::SymbolCounts;
use crate::session::stats::SessionStats;
use crate::sim::impairment::{Capacity, Spec};
use crate::sim::packet::Side;
use crate::sim::traffic::{Cbr, Flow, Ping, Tcp, TcpConfig, quantile_in};
use crate::sim::world::{FlowId, ForeignId, World};

/// Payload of a full packet as part of what the links carry for it: 1348 of 1450 bytes.
pub const GOODPUT_SHARE: f64 = 0.93;
/// By then all links must have come up.
const UP_WITHIN: Duration = Duration::from_secs(5);
/// Pings before the flows: how many and how often.
const IDLE_PINGS: u64 = 100;
const IDLE_INTERVAL: Duration = Duration::from_millis(10);
/// Time between two samples.
const TICK: Duration = Duration::from_millis(100);
/// What is under way gets so long to arrive.
const REST: Duration = Duration::from_millis(2_500);
/// When the believed capacities are compared with the links.
const CAPACITY_AFTER: Duration = Duration::from_secs(2);

/// Runs a scenario.
///
/// # Panics
/// If the links do not come up, or the world finds a fault in the tunnel.
pub fn run(scenario: &Scenario) -> Row {
    let mut run = Run::new(scenario);
    run.drive();
    run.world.stop_all();
    run.world.run_for(REST);
    run.row()
}

/// Sums at one instant.
#[derive(Debug)]
struct Sample {
    at: Instant,
    /// Segments that the judged TCPs sent, sent again, and their timeouts.
    tcp: [u64; 3],
    symbols: SymbolCounts,
    suspicions: u64,
    /// Frames that came, and those of them that came behind a later one.
    arrived: [u64; 2],
    /// Frames that each flow sent in the judged direction, and segments that the sending end dropped knowingly.
    sent: Vec<u64>,
    dropped: u64,
}

#[derive(Debug)]
struct Run<'a> {
    scenario: &'a Scenario,
    world: World,
    /// Whose sending is judged.
    from: Side,
    begin: Instant,
    idle: FlowId,
    bulk: Vec<FlowId>,
    pings: Vec<FlowId>,
    /// One for each of the scenario's.
    foreign: Vec<ForeignId>,
    samples: Vec<Sample>,
    /// How the links were from a time on.
    specs: Vec<(Instant, Vec<[Spec; 2]>)>,
    capacity_error: Option<f64>,
    story: Vec<Second>,
}

impl<'a> Run<'a> {
    /// Links up, pings alone over, flows there.
    fn new(scenario: &'a Scenario) -> Self {
        let mut world = World::new(scenario.plan.clone());
        let up = world.run_until(Instant::ZERO + UP_WITHIN, |world| {
            let (near, far) = world.stats(0);
            let all_up = |stats: Option<SessionStats>| {
                stats.is_some_and(|stats| stats.links.iter().all(|link| link.state == State::Up))
            };
            all_up(near) && all_up(far)
        });
        assert!(up, "the links do not come up: {:#?}", world.events());
        let from = scenario.from();
        let (address, start) = (world.next_address(0), world.now());
        let ping = Ping::new(address, from, IDLE_INTERVAL, IDLE_PINGS, start);
        let idle = world.add(0, Flow::Ping(ping));
        world.run_for(IDLE_INTERVAL * u32::try_from(IDLE_PINGS).unwrap_or(1));
        world.record_waits();
        let mut run = Self {
            scenario,
            from,
            begin: world.now(),
            world,
            idle,
            bulk: Vec::new(),
            pings: Vec::new(),
            foreign: Vec::new(),
            samples: Vec::new(),
            specs: Vec::new(),
            capacity_error: None,
            story: Vec::new(),
        };
        for inner in &scenario.flows {
            run.add(inner);
        }
        for foreign in &scenario.foreign {
            let flow = foreign.flow(run.world.next_foreign_address(0), run.begin);
            let until = run.begin + foreign.during.to;
            let id = run.world.add_foreign(0, foreign.link, flow, until);
            run.foreign.push(id);
        }
        run
    }

    fn add(&mut self, inner: &Inner) {
        let (address, start) = (self.world.next_address(0), self.begin);
        let flow = match *inner {
            Inner::Tcp { from, config } => {
                let config = TcpConfig { start, ..config };
                Flow::Tcp(Box::new(Tcp::new(address, from, config)))
            }
            Inner::Cbr { from, rate, bytes } => {
                let count = rate.bytes_in(self.scenario.length) / bytes as u64;
                Flow::Cbr(Cbr::new(address, from, rate, bytes, count, start))
            }
            Inner::Ping { from, interval } => {
                Flow::Ping(Ping::new(address, from, interval, u64::MAX, start))
            }
        };
        let is_ping = matches!(flow, Flow::Ping(_));
        let id = self.world.add(0, flow);
        if is_ping {
            self.pings.push(id);
        } else if inner.from() == self.from {
            self.bulk.push(id);
        }
    }

    /// Time goes on to the end of the flows, with samples on the way.
    fn drive(&mut self) {
        let end = self.begin + self.scenario.length;
        self.note_specs();
        self.sample();
        let mut changes = self.scenario.changes.iter().peekable();
        let (mut tick, mut second) = (self.begin + TICK, self.begin + Duration::from_secs(1));
        while self.world.now() < end {
            let due = changes
                .peek()
                .map_or(Instant::FAR, |change| self.begin + change.at);
            self.world.run_until(tick.min(due).min(end), |_| false);
            let now = self.world.now();
            while let Some(change) = changes.next_if(|change| now >= self.begin + change.at) {
                self.world
                    .change(0, change.link, &change.sides, &change.words);
                self.note_specs();
            }
            if now >= tick {
                tick += TICK;
                self.sample();
            }
            if now >= second {
                second += Duration::from_secs(1);
                self.tell();
            }
        }
    }

    fn note_specs(&mut self) {
        let links = 0..self.scenario.plan.links.len();
        let specs = links
            .map(|link| self.world.specs(0, link).map(Clone::clone))
            .collect();
        self.specs.push((self.world.now(), specs));
    }

    /// The judged sender's session.
    fn session(&mut self) -> SessionStats {
        let (near, far) = self.world.stats(0);
        match self.from {
            Side::Client => near,
            Side::Server => far,
        }
        .expect("a session that was up stays")
    }

    fn sample(&mut self) {
        let stats = self.session();
        let at = self.world.now();
        let mut tcp = [0; 3];
        for &id in &self.bulk {
            if let Flow::Tcp(flow) = self.world.flow(id) {
                let counters = flow.counters();
                tcp[0] += self.world.ledger(id, self.from).counts().sent_segments;
                tcp[1] += counters.retransmitted;
                tcp[2] += counters.timeouts;
            }
        }
        if at == self.begin + CAPACITY_AFTER {
            let errors = stats.links.iter().zip(&self.specs[0].1);
            self.capacity_error = errors
                .filter_map(|(link, specs)| match specs[self.from.index()].capacity {
                    Capacity::Rate(rate) => Some(link.capacity.as_mbps() / rate.as_mbps() - 1.0),
                    Capacity::Unlimited | Capacity::Trace(_) => None,
                })
                .max_by(|a, b| a.abs().total_cmp(&b.abs()));
        }
        let counts = self.world.counts(self.from);
        self.samples.push(Sample {
            at,
            tcp,
            arrived: [counts.delivered, counts.out_of_order],
            symbols: stats.symbols,
            suspicions: stats.links.iter().map(|link| link.suspicions).sum(),
            sent: self
                .flows()
                .map(|id| self.world.ledger(id, self.from).counts().sent)
                .collect(),
            dropped: self.world.known_drops()[self.from.index()],
        });
    }

    /// Writes down the second that ends now.
    fn tell(&mut self) {
        let to = self.world.now();
        let from = Instant::from_nanos(to.as_nanos().saturating_sub(1_000_000_000));
        let stats = self.session();
        let flows = self.goodputs(from, to);
        let goodput = flows.iter().sum();
        let foreign = self.foreign.iter();
        let foreign = foreign.map(|&id| self.foreign_mbps(id, (from, to)));
        let foreign = foreign.collect();
        let links = (0..stats.links.len())
            .map(|at| {
                let link = &stats.links[at];
                let waits = self.world.waits(0, at, self.from);
                let wait = quantile_in(waits, 0.5, from, to).unwrap_or_default();
                format!(
                    "{:5.1} {} q{:.1}",
                    link.capacity.as_mbps(),
                    if link.state == State::Up {
                        link.phase
                    } else {
                        link.state.name()
                    },
                    millis(wait),
                )
            })
            .collect();
        let tcp = self.bulk.iter().find_map(|&id| match self.world.flow(id) {
            Flow::Tcp(tcp) => Some(tcp),
            _ => None,
        });
        let tcp = tcp.map_or(String::new(), |tcp| {
            let ((window, rtt), did) = (tcp.window(), tcp.counters());
            format!(
                "window {window:.0} rtt {:.0} again {} recoveries {}-{} rto {}",
                millis(rtt),
                did.retransmitted,
                did.recoveries,
                did.undone,
                did.timeouts
            )
        });
        self.story.push(Second {
            goodput,
            efficiency: self.efficiency(goodput, from, to).unwrap_or_default(),
            tcp,
            links,
            session: format!(
                "queue {} kB load {:.2} repair {} aqm {}",
                stats.queued_bytes / 1_000,
                stats.load,
                stats.repair_count,
                stats.drops.get(crate::base::DropReason::Aqm)
            ),
            flows,
            foreign,
        });
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
