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

#[test]
fn a_fall_of_capacity_is_seen_in_400_ms_and_a_rise_regained_in_3_s() {
    for (jitter, report, seed) in [(0.0, 5, 1), (5.0, 10, 2), (15.0, 5, 3), (0.0, 25, 4)] {
        let path = Path {
            rates: vec![(0, 50.0), (5_000, 20.0), (10_000, 50.0)],
            jitter,
            report,
            ..Path::default()
        };
        let wan = run_one(&path, 15, seed);
        print("steps", &wan);
        let seen = wan.when(5_000, |t| t.0 < 25.0) - 5_000;
        let empty = wan.when(5_050, |t| t.1 < 10.0) - 5_000;
        let worst = wan.queue(5_000, 6_000, 1.0);
        let regained = wan.when(10_000, |t| t.0 > 47.0).saturating_sub(10_000);
        eprintln!(
            "jitter {jitter} report {report}: seen {seen} ms, queue < 10 ms after {empty} ms (worst {worst:.0} ms), regained {regained} ms, C at 9.9 s {:.2}, used {:.3} {:.3}",
            wan.capacity(9_900),
            wan.utilisation(6_000, 9_999),
            wan.utilisation(12_000, 14_999)
        );
        assert!(seen <= 400 && empty <= 1_000 && regained <= 3_000);
    }
}

#[test]
fn a_silence_does_not_lower_the_capacity() {
    for (told, report, jitter) in [
        (false, 5, 0.0),
        (true, 5, 0.0),
        (false, 25, 5.0),
        (true, 10, 15.0),
    ] {
        let path = Path {
            silence: (6_000, 6_135),
            report,
            jitter,
            ..Path::default()
        };
        let wan = run(std::slice::from_ref(&path), 10, 5, |wan, ms, now| {
            if told && ms == 6_060 {
                wan.control.on_suspect(now);
            }
            if told && ms == 6_160 {
                wan.control.on_return(now);
            }
        })
        .remove(0);
        print("silence", &wan);
        let least = (5_900..10_000)
            .map(|ms| wan.capacity(ms))
            .fold(99.0, f64::min);
        let empty = wan.when(6_200, |t| t.1 < 10.0) - 6_135;
        eprintln!(
            "told {told} report {report} jitter {jitter}: least C {least:.2}, queue < 10 ms {empty} ms after, used {:.3}",
            wan.utilisation(7_000, 9_999)
        );
        assert!(least > 45.0 && empty < 1_000);
    }
}

#[test]
fn an_application_that_sends_little_neither_lowers_nor_raises_the_capacity() {
    // Fills the WAN for 4 s, then sends 5 Mbit/s, then fills it again.
    let path = Path {
        offered: vec![(0, 80.0), (4_000, 5.0), (20_000, 80.0)],
        jitter: 3.0,
        ..Path::default()
    };
    let wan = run_one(&path, 22, 7);
    print("app", &wan);
    for ms in 4_000..20_000 {
        assert!(
            (wan.capacity(ms) / 50.0 - 1.0).abs() < 0.06,
            "{ms} {}",
            wan.capacity(ms)
        );
    }
    assert!(wan.utilisation(20_100, 21_999) > 0.92);
    // Never sends more than 8 Mbit/s: the start value stands, and nothing beyond twice of what passed is believed.
    let path = Path {
        offered: vec![(0, 8.0)],
        ..Path::default()
    };
    let wan = run_one(&path, 10, 8);
    assert!(
        (8.0..=20.0).contains(&wan.capacity(9_999)),
        "{}",
        wan.capacity(9_999)
    );
    // And the capacity falls below what a steady application sends.
    let path = Path {
        rates: vec![(0, 50.0), (8_000, 20.0)],
        offered: vec![(0, 80.0), (4_000, 30.0)],
        ..Path::default()
    };
    let wan = run_one(&path, 12, 9);
    print("app fall", &wan);
    assert!(wan.capacity(9_500) < 22.0, "{}", wan.capacity(9_500));
    assert!(wan.queue(9_500, 12_000, 0.9) < 15.0);
}

#[test]
fn two_wans_take_turns_in_probing_and_both_are_filled() {
    let fast = Path {
        rates: vec![(0, 100.0), (8_000, 60.0)],
        jitter: 2.0,
        ..Path::default()
    };
    let slow = Path {
        rates: vec![(0, 20.0), (8_000, 40.0)],
        delay: 40,
        jitter: 8.0,
        report: 10,
        ..Path::default()
    };
    let wans = run(&[fast, slow], 15, 11, |_, _, _| {});
    for wan in &wans {
        print("two", wan);
        let probes = wan.phases.iter().filter(|p| p.1 == Phase::Probe).count();
        eprintln!(
            "probes {probes} used {:.3} {:.3} q50 {:.1}",
            wan.utilisation(3_000, 7_999),
            wan.utilisation(11_000, 14_999),
            wan.queue(11_000, 15_000, 0.5)
        );
        assert!(probes >= 8);
        assert!(wan.utilisation(3_000, 7_999) > 0.93 && wan.utilisation(11_000, 14_999) > 0.93);
        assert!(wan.queue(11_000, 15_000, 0.5) <= 5.0);
    }
}

#[test]
fn a_shallow_queue_that_drops_is_found_by_what_does_not_come() {
    let path = Path {
        queue_max: 3,
        ..Path::default()
    };
    let wan = run_one(&path, 10, 13);
    print("shallow", &wan);
    let used = wan.utilisation(4_000, 9_999);
    let lost = wan.sender.counters().lost as f64 / wan.sender.counters().packets as f64;
    eprintln!(
        "shallow: C {:.2} used {used:.3} lost {lost:.4}",
        wan.capacity(9_999)
    );
    assert!((wan.capacity(9_999) / 50.0 - 1.0).abs() < 0.05 && used > 0.93 && lost < 0.03);
}

#[test]
fn a_ceiling_is_never_passed() {
    let path = Path {
        ceiling: Some(30),
        ..Path::default()
    };
    let wan = run_one(&path, 6, 14);
    assert!(wan.trace.iter().all(|t| t.0 <= 30.0));
    assert!(wan.utilisation(2_000, 5_999) < 0.61 && wan.utilisation(2_000, 5_999) > 0.56);
}

#[test]
fn after_a_long_silence_half_the_capacity_is_tried_first() {
    let path = Path {
        silence: (4_000, 6_000),
        ..Path::default()
    };
    let wan = run(
        std::slice::from_ref(&path),
        10,
        15,
        |wan, ms, now| match ms {
            4_060 => wan.control.on_suspect(now),
            6_050 => {
                wan.control.on_return(now);
                assert!(wan.control.pacing_rate() < Rate::from_mbps(27));
            }
            _ => {}
        },
    )
    .remove(0);
    print("long silence", &wan);
    let regained = wan.when(6_051, |t| t.0 > 46.0) - 6_051;
    assert!(regained < 1_500, "{regained}");
}
