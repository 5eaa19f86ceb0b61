//! The rate control against bottlenecks in virtual time, with the real pacer, senders and receivers around it.
//!
//! ```text
//!  source ─► Pacer ─► Sender ─► [queue, rate(t)] ─► base delay, jitter, loss ─► Receiver
//!                       ▲                                                          │ Report
//!                       └──────────────────── return delay ◄───────────────────────┘
//! ```
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::unwrap_used,
    reason = "figures of a test that lasts seconds"
)]

mod scenarios;

use std::collections::VecDeque;
use std::time::Duration;

use super::{Phase, RateConfig, RateControl};
use crate::base::{Instant, Rate, Rng};
use crate::link::Report;
use crate::link::pacer::Pacer;
use crate::link::receiver::{Receiver, ReceiverConfig, low_micros};
use crate::link::sender::{Sender, SenderConfig};

/// Bytes of each datagram and heartbeat.
const DATAGRAM: u32 = 1_400;
const HEARTBEAT: u32 = 80;
/// Step of the simulated world.
const STEP: Duration = Duration::from_micros(250);
/// Start of the simulated world.
const START: Instant = Instant::from_millis(1_000);
/// The receiver's clock is this far ahead: its low 32 bits wrap during the tests.
const CLOCK_OFFSET: Duration = Duration::from_micros(4_290_000_000);

/// Time between two points of a delay that wanders, ms.
const WANDER: u64 = 100;

/// One WAN's one direction.
#[derive(Clone)]
struct Path {
    /// Links over the WAN; datagrams go round.
    links: usize,
    /// Capacity from a time on, Mbit/s.
    rates: Vec<(u64, f64)>,
    /// One-way delay out and back, ms.
    delay: u64,
    back: u64,
    /// Tail drop beyond this, ms of queue.
    queue_max: u64,
    /// Uniform delay added per packet, ms; order is kept.
    jitter: f64,
    /// Delay that wanders up to this, ms: another one each 100 ms, on a straight way there.
    wander: f64,
    loss: f64,
    report_loss: f64,
    /// Report interval, ms.
    report: u64,
    /// Nothing passes in this span of ms; what came waits.
    silence: (u64, u64),
    /// What the application offers, Mbit/s from a time on; none = greedy.
    offered: Vec<(u64, f64)>,
    /// Data of other WANs wait all the time, however little is offered here.
    waits: bool,
    ceiling: Option<u64>,
}

impl Default for Path {
    fn default() -> Self {
        Self {
            links: 1,
            rates: vec![(0, 50.0)],
            delay: 20,
            back: 20,
            queue_max: 300,
            jitter: 0.0,
            wander: 0.0,
            loss: 0.0,
            report_loss: 0.0,
            report: 5,
            silence: (0, 0),
            offered: Vec::new(),
            waits: false,
            ceiling: None,
        }
    }
}

/// The value of a step function.
fn at(steps: &[(u64, f64)], ms: u64) -> f64 {
    let after = steps.partition_point(|step| step.0 <= ms);
    if after == 0 { 0.0 } else { steps[after - 1].1 }
}

/// What one millisecond of a run looked like.
struct Moment {
    /// Believed capacity, Mbit/s.
    capacity: f64,
    /// Real queue, ms.
    queue: f64,
    /// Bytes received so far.
    bytes: u64,
}

/// One link's two ends.
struct Link {
    sender: Sender<()>,
    peer: Receiver,
    number: u64,
    air: VecDeque<(Instant, u64, u32, u32)>,
    reports: VecDeque<(Instant, Report)>,
}

/// One WAN in motion.
struct Wan {
    path: Path,
    control: RateControl,
    pacer: Pacer,
    links: Vec<Link>,
    turn: usize,
    credit: f64,
    /// The bottleneck is busy until then.
    busy: Instant,
    last_arrival: Instant,
    rng: Rng,
    /// Where the delay wanders to, in seconds.
    wanders: Vec<f64>,
    trace: Vec<Moment>,
    phases: Vec<Phase>,
}

impl Wan {
    fn new(path: Path, seed: u64) -> Self {
        let ceiling = path.ceiling.map(Rate::from_mbps);
        let config = RateConfig {
            ceiling,
            links: path.links,
            ..RateConfig::default()
        };
        let interval = Duration::from_millis(path.report);
        let receiver = ReceiverConfig {
            report_interval: interval,
            ..ReceiverConfig::default()
        };
        let sender = SenderConfig {
            report_interval: interval,
            ..SenderConfig::default()
        };
        let link = |_| Link {
            sender: Sender::new(sender, START),
            peer: Receiver::new(receiver, START),
            number: 0,
            air: VecDeque::new(),
            reports: VecDeque::new(),
        };
        Self {
            control: RateControl::new(config, Rng::new(seed), START),
            pacer: Pacer::new(Rate::from_mbps(10), START),
            links: (0..path.links).map(link).collect(),
            turn: 0,
            credit: 0.0,
            busy: START,
            last_arrival: START,
            rng: Rng::new(seed + 1_000),
            wanders: Vec::new(),
            trace: Vec::new(),
            phases: Vec::new(),
            path,
        }
    }

    fn step(&mut self, now: Instant, ms: u64) {
        for slot in 0..self.links.len() {
            self.receive(slot, now);
        }
        self.control.handle_timeout(now);
        for link in &mut self.links {
            link.sender.handle_timeout(now, now, &mut |_| {});
        }
        self.pacer.set_rate(self.control.pacing_rate(), now);
        self.send(now, ms);
        let phase = self.control.phase();
        if self.phases.last() != Some(&phase) {
            self.phases.push(phase);
        }
        if self.trace.len() as u64 <= ms {
            self.trace.push(Moment {
                capacity: self.control.capacity().as_mbps(),
                queue: self.busy.since(now).as_secs_f64() * 1e3,
                bytes: self.links.iter().map(|link| link.peer.bytes()).sum(),
            });
        }
    }

    fn send(&mut self, now: Instant, ms: u64) {
        let greedy = self.path.offered.is_empty();
        self.credit += at(&self.path.offered, ms) * 1e6 / 8.0 * STEP.as_secs_f64();
        self.credit = self.credit.min(300_000.0);
        let mut backlogged = false;
        while greedy || self.credit >= f64::from(DATAGRAM) {
            if self.pacer.allowance(now) < u64::from(DATAGRAM) {
                backlogged = true;
                break;
            }
            self.credit -= f64::from(DATAGRAM);
            self.turn = (self.turn + 1) % self.links.len();
            self.transmit(self.turn, DATAGRAM, now, ms);
        }
        let waits = backlogged || self.path.waits;
        self.control.set_backlogged(waits, now);
        for slot in 0..self.links.len() {
            if self.links[slot].sender.wants_heartbeat(now) {
                self.transmit(slot, HEARTBEAT, now, ms);
            }
        }
    }

    fn transmit(&mut self, slot: usize, bytes: u32, now: Instant, ms: u64) {
        let wander = self.wander(ms);
        self.pacer.on_transmit(u64::from(bytes), now);
        let link = &mut self.links[slot];
        let number = link.number;
        link.number += 1;
        link.sender
            .on_transmit(number, bytes, now, Some(()), &mut |_| {});
        let free = self.busy.max(now);
        if free.since(now) > Duration::from_millis(self.path.queue_max) {
            return;
        }
        let rate = Rate::from_bits_per_s((at(&self.path.rates, ms) * 1e6) as u64);
        let mut done = free + rate.time_for(u64::from(bytes));
        let (from, to) = self.path.silence;
        let (from, to) = (
            START + Duration::from_millis(from),
            START + Duration::from_millis(to),
        );
        if done > from && done <= to {
            done = to;
        }
        self.busy = done;
        if self.rng.chance(self.path.loss) {
            return;
        }
        let jitter = Duration::from_secs_f64(self.rng.unit() * self.path.jitter * 1e-3);
        let arrival = done + Duration::from_millis(self.path.delay) + jitter + wander;
        self.last_arrival = self.last_arrival.max(arrival);
        link.air
            .push_back((self.last_arrival, number, bytes, low_micros(now)));
    }

    /// What the delay has wandered off to.
    fn wander(&mut self, ms: u64) -> Duration {
        if self.path.wander == 0.0 {
            return Duration::ZERO;
        }
        while self.wanders.len() as u64 <= ms / WANDER + 1 {
            self.wanders.push(self.rng.unit() * self.path.wander * 1e-3);
        }
        let way = (ms % WANDER) as f64 / WANDER as f64;
        let from = (ms / WANDER) as usize;
        let (from, to) = (self.wanders[from], self.wanders[from + 1]);
        Duration::from_secs_f64(from + way * (to - from))
    }

    fn receive(&mut self, slot: usize, now: Instant) {
        let link = &mut self.links[slot];
        while let Some(&(due, number, bytes, sent_us)) = link.air.front()
            && due <= now
        {
            link.peer
                .on_datagram(number, bytes, sent_us, due + CLOCK_OFFSET);
            link.air.pop_front();
        }
        if link.peer.report_due(now + CLOCK_OFFSET) {
            let report = link.peer.build_report(now + CLOCK_OFFSET).unwrap();
            if !self.rng.chance(self.path.report_loss) {
                link.reports
                    .push_back((now + Duration::from_millis(self.path.back), report));
            }
        }
        while let Some(&(due, report)) = link.reports.front()
            && due <= now
        {
            let report = Report {
                same_link: true,
                ..report
            };
            if let Some(sample) = link.sender.on_report(&report, now, &mut |_| {}) {
                self.control.on_delivery(slot, &sample, now);
            }
            link.reports.pop_front();
        }
    }

    /// Share of the capacity between two times that was received.
    fn utilisation(&self, from: u64, to: u64) -> f64 {
        let bytes = self.trace[to as usize].bytes - self.trace[from as usize].bytes;
        let could: f64 = (from..to).map(|ms| at(&self.path.rates, ms) * 125.0).sum();
        bytes as f64 / could
    }

    fn queue(&self, from: u64, to: u64, quantile: f64) -> f64 {
        let span = &self.trace[from as usize..to as usize];
        let mut queues: Vec<f64> = span.iter().map(|moment| moment.queue).collect();
        queues.sort_by(f64::total_cmp);
        queues[((queues.len() - 1) as f64 * quantile) as usize]
    }

    fn capacity(&self, ms: u64) -> f64 {
        self.trace[ms as usize].capacity
    }

    fn least_capacity(&self, from: u64, to: u64) -> f64 {
        (from..to)
            .map(|ms| self.capacity(ms))
            .fold(f64::INFINITY, f64::min)
    }

    /// Share of all datagrams that was lost.
    fn lost(&self) -> f64 {
        let counters = self.links[0].sender.counters();
        counters.lost as f64 / counters.packets as f64
    }

    /// First time from `from` on at which `holds`.
    fn when(&self, from: u64, holds: impl Fn(&Moment) -> bool) -> u64 {
        let found = self.trace[from as usize..].iter().position(holds);
        found.map_or(1_000_000, |index| index as u64 + from)
    }
}

/// Runs the WANs side by side for `seconds`; one of them probes at a time. `each` is called before each step.
fn run(
    paths: &[Path],
    seconds: u64,
    seed: u64,
    mut each: impl FnMut(&mut Wan, u64, Instant),
) -> Vec<Wan> {
    let mut wans: Vec<Wan> = paths
        .iter()
        .zip(seed * 10..)
        .map(|(path, seed)| Wan::new(path.clone(), seed))
        .collect();
    let mut turn = 0;
    for step in 0..seconds * 4_000 {
        let now = START + STEP * u32::try_from(step).unwrap();
        for wan in &mut wans {
            if step % 4 == 0 {
                each(wan, step / 4, now);
            }
            wan.step(now, step / 4);
        }
        for _ in 0..wans.len() {
            turn = (turn + 1) % wans.len();
            let taken = wans.iter().any(|wan| wan.control.holds_probe());
            if !taken && wans[turn].control.probe_wanted(now) {
                wans[turn].control.probe_grant(now);
            }
        }
    }
    wans
}

fn run_one(path: &Path, seconds: u64, seed: u64) -> Wan {
    run(std::slice::from_ref(path), seconds, seed, |_, _, _| {}).remove(0)
}
