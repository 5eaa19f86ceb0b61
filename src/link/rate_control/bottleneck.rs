//! The rate control against bottlenecks in virtual time, with the real pacer, sender and receiver around it.
//!
//! ```text
//!  source ─► Pacer ─► Sender ─► [queue, rate(t)] ─► base delay, jitter, loss ─► Receiver
//!                       ▲                                                          │ Report
//!                       └──────────────────── return delay ◄───────────────────────┘
//! ```

use std::collections::VecDeque;

use super::*;
use crate::link::pacer::Pacer;
use crate::link::receiver::{Receiver, ReceiverConfig, low_micros};
use crate::link::sender::{Sender, SenderConfig};

/// Bytes of each datagram.
const DATAGRAM: u32 = 1_400;
/// Step of the simulated world.
const STEP: Duration = Duration::from_micros(250);
/// The receiver's clock is this far ahead: its low 32 bits wrap during the tests.
const CLOCK_OFFSET: Duration = Duration::from_micros(4_290_000_000);

/// One WAN's one direction.
#[derive(Clone)]
struct Path {
    /// Capacity from a time on, Mbit/s.
    rates: Vec<(u64, f64)>,
    /// One-way delay out and back, ms.
    delay: u64,
    back: u64,
    /// Tail drop beyond this, ms of queue.
    queue_max: u64,
    /// Uniform delay added per packet, ms; order is kept.
    jitter: f64,
    loss: f64,
    /// Report interval, ms.
    report: u64,
    /// Nothing passes in this span of ms; what came waits.
    silence: (u64, u64),
    /// What the application offers, Mbit/s from a time on; none = greedy.
    offered: Vec<(u64, f64)>,
    ceiling: Option<u64>,
}

impl Default for Path {
    fn default() -> Self {
        Self {
            rates: vec![(0, 50.0)],
            delay: 20,
            back: 20,
            queue_max: 300,
            jitter: 0.0,
            loss: 0.0,
            report: 5,
            silence: (0, 0),
            offered: Vec::new(),
            ceiling: None,
        }
    }
}

fn at(steps: &[(u64, f64)], ms: u64) -> f64 {
    steps.iter().rev().find(|s| s.0 <= ms).map_or(0.0, |s| s.1)
}

/// One WAN in motion.
struct Wan {
    path: Path,
    control: RateControl,
    pacer: Pacer,
    sender: Sender<()>,
    peer: Receiver,
    number: u64,
    credit: f64,
    /// The bottleneck is busy until then.
    busy: Instant,
    last_arrival: Instant,
    air: VecDeque<(Instant, u64, u32)>,
    reports: VecDeque<(Instant, crate::link::Report)>,
    rng: Rng,
    /// Per ms: believed capacity Mbit/s, queue ms, bytes received.
    trace: Vec<(f64, f64, u64)>,
    phases: Vec<(u64, Phase, f64)>,
}

impl Wan {
    fn new(path: Path, seed: u64) -> Self {
        let start = Instant::from_millis(1_000);
        let ceiling = path.ceiling.map(Rate::from_mbps);
        let config = RateConfig {
            ceiling,
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
        Self {
            control: RateControl::new(config, Rng::new(seed), start),
            pacer: Pacer::new(Rate::from_mbps(10), start),
            sender: Sender::new(sender, start),
            peer: Receiver::new(receiver, start),
            number: 0,
            credit: 0.0,
            busy: start,
            last_arrival: start,
            air: VecDeque::new(),
            reports: VecDeque::new(),
            rng: Rng::new(seed + 1_000),
            trace: Vec::new(),
            phases: Vec::new(),
            path,
        }
    }

    fn step(&mut self, now: Instant, ms: u64) {
        self.receive(now);
        self.control.handle_timeout(now);
        self.sender.handle_timeout(now, Instant::FAR, &mut |_| {});
        self.pacer.set_rate(self.control.pacing_rate(), now);
        self.send(now, ms);
        let phase = self.control.phase();
        if self.phases.last().is_none_or(|last| last.1 != phase) {
            self.phases
                .push((ms, phase, self.control.capacity().as_mbps()));
        }
        if self.trace.len() as u64 <= ms {
            let queue = self.busy.since(now).as_secs_f64() * 1e3;
            self.trace
                .push((self.control.capacity().as_mbps(), queue, self.peer.bytes()));
        }
    }

    fn send(&mut self, now: Instant, ms: u64) {
        let greedy = self.path.offered.is_empty();
        self.credit += at(&self.path.offered, ms) * 1e6 / 8.0 * STEP.as_secs_f64();
        self.credit = self.credit.min(300_000.0);
        let mut limited_by_pacer = false;
        while greedy || self.credit >= f64::from(DATAGRAM) {
            if self.pacer.allowance(now) < u64::from(DATAGRAM) {
                limited_by_pacer = true;
                break;
            }
            self.credit -= f64::from(DATAGRAM);
            self.transmit(now, ms);
        }
        self.control.set_backlogged(limited_by_pacer, now);
        if self.sender.wants_heartbeat(now) {
            self.transmit(now, ms);
        }
    }

    fn transmit(&mut self, now: Instant, ms: u64) {
        self.pacer.on_transmit(u64::from(DATAGRAM), now);
        let number = self.number;
        self.number += 1;
        self.sender
            .on_transmit(number, DATAGRAM, now, Some(()), &mut |_| {});
        let free = self.busy.max(now);
        if free.since(now) > Duration::from_millis(self.path.queue_max) {
            return;
        }
        let rate = Rate::from_bits_per_s((at(&self.path.rates, ms) * 1e6) as u64);
        let mut done = free + rate.time_for(u64::from(DATAGRAM));
        let (from, to) = self.path.silence;
        let origin = Instant::from_millis(1_000);
        let (from, to) = (
            origin + Duration::from_millis(from),
            origin + Duration::from_millis(to),
        );
        if done > from && done <= to {
            done = to;
        }
        self.busy = done;
        if self.rng.chance(self.path.loss) {
            return;
        }
        let jitter = Duration::from_secs_f64(self.rng.unit() * self.path.jitter * 1e-3);
        let arrival = done + Duration::from_millis(self.path.delay) + jitter;
        self.last_arrival = self.last_arrival.max(arrival);
        self.air
            .push_back((self.last_arrival, number, low_micros(now)));
    }

    fn receive(&mut self, now: Instant) {
        while let Some(&(due, number, sent_us)) = self.air.front()
            && due <= now
        {
            self.peer
                .on_datagram(number, DATAGRAM, sent_us, due + CLOCK_OFFSET);
            self.air.pop_front();
        }
        if self.peer.report_due(now + CLOCK_OFFSET) {
            let report = self.peer.build_report(now + CLOCK_OFFSET).unwrap();
            self.reports
                .push_back((now + Duration::from_millis(self.path.back), report));
        }
        while let Some(&(due, report)) = self.reports.front()
            && due <= now
        {
            let report = crate::link::Report {
                same_link: true,
                ..report
            };
            if let Some(sample) = self.sender.on_report(&report, now, &mut |_| {}) {
                self.control.on_delivery(0, &sample, now);
            }
            self.reports.pop_front();
        }
    }

    /// Share of the capacity between two times that was received.
    fn utilisation(&self, from: u64, to: u64) -> f64 {
        let bytes = self.trace[to as usize].2 - self.trace[from as usize].2;
        let could: f64 = (from..to).map(|ms| at(&self.path.rates, ms) * 125.0).sum();
        bytes as f64 / could
    }

    fn queue(&self, from: u64, to: u64, quantile: f64) -> f64 {
        let mut queues: Vec<f64> = self.trace[from as usize..to as usize]
            .iter()
            .map(|t| t.1)
            .collect();
        queues.sort_by(f64::total_cmp);
        queues[((queues.len() - 1) as f64 * quantile) as usize]
    }

    fn capacity(&self, ms: u64) -> f64 {
        self.trace[ms as usize].0
    }

    /// First time from `from` on at which `holds`.
    fn when(&self, from: u64, holds: impl Fn(&(f64, f64, u64)) -> bool) -> u64 {
        self.trace[from as usize..]
            .iter()
            .position(holds)
            .map_or(u64::MAX, |n| n as u64 + from)
    }
}

/// Runs the WANs side by side for `seconds`; one of them probes at a time.
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
        let now = Instant::from_millis(1_000) + STEP * u32::try_from(step).unwrap();
        for wan in &mut wans {
            each(wan, step / 4, now);
            wan.step(now, step / 4);
        }
        if !wans.iter().any(|wan| wan.control.holds_probe()) {
            for _ in 0..wans.len() {
                turn = (turn + 1) % wans.len();
                if wans[turn].control.probe_wanted(now) {
                    wans[turn].control.probe_grant(now);
                    break;
                }
            }
        }
        assert!(wans.iter().filter(|wan| wan.control.holds_probe()).count() <= 1);
    }
    wans
}

fn run_one(path: &Path, seconds: u64, seed: u64) -> Wan {
    run(std::slice::from_ref(path), seconds, seed, |_, _, _| {}).remove(0)
}

fn print(name: &str, wan: &Wan) {
    if std::env::var_os("LINK_TRACE").is_none() {
        return;
    }
    eprintln!("== {name}");
    for (ms, phase, capacity) in &wan.phases {
        eprintln!("   {ms:6} {:8} C {capacity:.2}", phase.name());
    }
    for (ms, t) in wan.trace.iter().enumerate().step_by(20) {
        eprintln!("   {ms:6} C {:.2} q {:.1} ms", t.0, t.1);
    }
}

#[test]
fn finds_the_capacity_of_an_unknown_wan_and_keeps_the_queue_short() {
    let mut table = String::new();
    let mut bad = 0;
    for mbps in [5.0, 20.0, 50.0, 100.0, 300.0, 1_000.0] {
        for (jitter, report, rtt, loss) in [
            (0.0, 5, 40, 0.0),
            (0.0, 25, 20, 0.0),
            (2.0, 5, 60, 0.0),
            (5.0, 10, 40, 0.02),
            (15.0, 5, 40, 0.0),
            (15.0, 25, 40, 0.0),
            (0.0, 5, 150, 0.0),
        ] {
            let path = Path {
                rates: vec![(0, mbps)],
                jitter,
                report,
                loss,
                delay: rtt / 2,
                back: rtt / 2,
                ..Path::default()
            };
            let wan = run_one(&path, 15, 1);
            print(&format!("{mbps} {jitter} {report}"), &wan);
            let at3 = wan.capacity(3_000) / mbps;
            let errors: Vec<f64> = (3_000..15_000).map(|ms| wan.capacity(ms) / mbps).collect();
            let mean = errors.iter().sum::<f64>() / errors.len() as f64;
            let low = errors.iter().copied().fold(9.0, f64::min);
            let high = errors.iter().copied().fold(0.0, f64::max);
            let used = wan.utilisation(5_000, 14_999) / (1.0 - loss);
            let (q50, q95, q99) = (
                wan.queue(5_000, 15_000, 0.5),
                wan.queue(5_000, 15_000, 0.95),
                wan.queue(5_000, 15_000, 0.99),
            );
            let ok = (at3 - 1.0).abs() <= 0.05 && used >= 0.93 && q50 <= 5.0;
            bad += u32::from(!ok);
            table += &format!(
                "{} {mbps:6} Mbit/s jitter {jitter:4} report {report:2} rtt {rtt:3} loss {loss:.2}: C/true at 3 s {at3:.3} mean {mean:.3} ({low:.3}-{high:.3}) used {used:.3} q50 {q50:.1} q95 {q95:.1} q99 {q99:.1}\n",
                if ok { "  " } else { "!!" }
            );
        }
    }
    eprintln!("{table}");
    assert_eq!(bad, 0);
}
