//! What a decision costs: flow queue and scheduler, for each packet or run.
//!
//! Names are `mechanism/variant/parameter`; the throughput is in decisions.
#![allow(missing_docs)]

use std::hint::black_box;
use std::net::IpAddr;
use std::time::Duration;

use chainlightning::base::{Instant, LinkId, Rate};
use chainlightning::flow::{FlowQueue, QueueConfig, hash};
use chainlightning::stripe::{
    Assessment, Candidate, Exponents, Figures, Scheduler, Strategy, assess,
};
use chainlightning::wire::inner_ip::{InnerIp, parse};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// A full datagram.
const PACKET: u32 = 1450;
/// Links of a home, of a van with everything, and as many as a session may have.
const LINK_COUNTS: [u8; 3] = [3, 8, 32];

fn figures(count: u8) -> Vec<Figures> {
    (0..count)
        .map(|i| Figures {
            capacity: Rate::from_mbps(20 + u64::from(i) * 15),
            delay_p50: Duration::from_millis(u64::from(i) * 3),
            delay_p95: Duration::from_millis(u64::from(i) * 4),
            delay_base: Duration::from_millis(10),
            loss: f64::from(i % 4) * 0.005,
        })
        .collect()
}

fn candidates(count: u8) -> Vec<Candidate> {
    let figures = figures(count);
    let mut assessed = vec![Assessment::default(); figures.len()];
    assess(&figures, Exponents::default(), 0.7, &mut assessed);
    (0..count)
        .zip(figures.iter().zip(assessed))
        .map(|(link, (f, a))| Candidate {
            link: LinkId(link),
            free_at: Instant::ZERO,
            rate: f.capacity,
            delay: a.delay,
            quality: a.quality,
            weight: a.weight,
            backlog_max: a.backlog_max,
            share_of_group: link % 5,
        })
        .collect()
}

fn scheduler(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("stripe");
    group.throughput(Throughput::Elements(1));
    for count in LINK_COUNTS {
        for (name, strategy) in [
            ("earliest", Strategy::EarliestDelivery),
            ("weighted", Strategy::Weighted),
        ] {
            let mut all = candidates(count);
            let total: u64 = all.iter().map(|c| c.rate.bits_per_s()).sum();
            // Time moves as fast as the links together send: saturated, and always somebody free.
            let step = Rate::from_bits_per_s(total).time_for(u64::from(PACKET));
            let mut now = Instant::ZERO;
            let mut scheduler = Scheduler::new(strategy);
            group.bench_function(BenchmarkId::new(name, count), |bench| {
                bench.iter(|| {
                    now += step;
                    let picked = scheduler.pick(PACKET, now, 0.9, black_box(&all));
                    if let Some(index) = picked {
                        all[index].commit(PACKET, now);
                    }
                    picked
                });
            });
        }
        let all = candidates(count);
        let mut scheduler = Scheduler::new(Strategy::EarliestDelivery);
        group.bench_function(BenchmarkId::new("repair", count), |bench| {
            bench.iter(|| scheduler.pick_for_repair(PACKET, Instant::ZERO, 0.9, black_box(&all)));
        });
        let figures = figures(count);
        let mut assessed = vec![Assessment::default(); figures.len()];
        group.bench_function(BenchmarkId::new("assess", count), |bench| {
            bench.iter(|| {
                assess(
                    black_box(&figures),
                    Exponents::default(),
                    0.5,
                    &mut assessed,
                );
                assessed[0].weight
            });
        });
    }
    group.finish();
}

fn flow(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("flow");
    group.throughput(Throughput::Elements(1));
    for (flows, backlog) in [(1_u64, 1_u32), (1, 64), (100, 1000)] {
        let mut queue = FlowQueue::new(QueueConfig::default());
        let mut now = Instant::ZERO;
        let mut i = 0_u64;
        for n in 0..backlog {
            let _ = queue.enqueue(u64::from(n) % flows, 1400, n, now);
        }
        let id = BenchmarkId::new("enqueue+dequeue", format!("{flows}x{backlog}"));
        group.bench_function(id, |bench| {
            bench.iter(|| {
                i += 1;
                now += Duration::from_nanos(500);
                let victim = queue.enqueue(i % flows, 1400, 0, now);
                (victim, queue.dequeue(now))
            });
        });
    }
    // Each enqueue beyond the limit has to find the fattest of 1024 flows, or go on with a batch.
    let mut queue = FlowQueue::new(QueueConfig {
        bytes_max: 1 << 20,
        ..QueueConfig::default()
    });
    let mut i = 0_u64;
    group.bench_function("enqueue/overflow", |bench| {
        bench.iter(|| {
            i += 1;
            queue.enqueue(i % 1000, 1400, 0, Instant::ZERO)
        });
    });
    let packet = tcp_packet();
    let ip = parse(&packet).unwrap_or_else(|reason| panic!("{reason:?}"));
    group.bench_function("parse/ipv4-tcp", |bench| {
        bench.iter(|| parse(black_box(&packet)))
    });
    let v6 = InnerIp {
        src: IpAddr::V6(0xfd00_u128.into()),
        dst: IpAddr::V6(0xfd01_u128.into()),
        ..ip
    };
    for (name, ip) in [("ipv4", ip), ("ipv6", v6)] {
        group.bench_function(BenchmarkId::new("hash", name), |bench| {
            bench.iter(|| hash(black_box(&ip), black_box(7)));
        });
    }
    group.finish();
}

fn tcp_packet() -> [u8; 40] {
    let mut packet = [0; 40];
    packet[..20].copy_from_slice(&[
        0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
    ]);
    packet[20..24].copy_from_slice(&[0x1f, 0x90, 0x01, 0xbb]);
    packet
}

criterion_group!(benches, scheduler, flow);
criterion_main!(benches);
