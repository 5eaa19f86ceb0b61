//! What the whole core costs a packet: two sessions with real keys, joined by memory without delay, packets of 1400
//! bytes both ways.
//!
//! Names are `session/links/FEC`; the throughput is in packets that came out, each through both sessions. One core
//! does the work of two hosts.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../tests/pair/mod.rs"]
mod pair;

use std::time::Duration;

use chainlightning::base::Instant;
use chainlightning::fec::protection::{Mode as FecMode, RESIDUAL};
use chainlightning::session::config::SessionConfig;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// Packets offered to each side in a millisecond of virtual time: 90 Mbit/s each way.
const PACKETS: usize = 8;
const PACKET_BYTES: usize = 1400;
/// Until links are up, the capacity is known and the path's size is found.
const WARM_UP: Duration = Duration::from_secs(3);
/// Milliseconds over which the packets that come out are counted.
const COUNTED: u32 = 500;

/// Two sessions under load and their clock.
struct Bench {
    pair: pair::Pair,
    now: Instant,
    frames: Vec<Vec<u8>>,
}

impl Bench {
    fn new(links: u8, fec: FecMode) -> Self {
        let now = Instant::ZERO;
        let mut pair = pair::Pair::new(links, now);
        let config = SessionConfig {
            fec,
            ..pair::config()
        };
        pair.client.set_config(config.clone());
        pair.server.set_config(config);
        let frames = (0..5).map(|flow| pair::frame(flow, PACKET_BYTES)).collect();
        let mut bench = Self { pair, now, frames };
        while bench.now < Instant::ZERO + WARM_UP {
            bench.millisecond();
        }
        bench
    }

    fn millisecond(&mut self) {
        self.now += Duration::from_millis(1);
        for at in 0..PACKETS {
            let frame = &self.frames[at % self.frames.len()];
            let _ = self.pair.client.handle_frame(frame, self.now);
            let _ = self.pair.server.handle_frame(frame, self.now);
        }
        self.pair.turn(self.now);
    }

    /// Packets that come out in a millisecond.
    fn throughput(&mut self) -> u64 {
        let before: u64 = self.pair.delivered.iter().sum();
        (0..COUNTED).for_each(|_| self.millisecond());
        let after: u64 = self.pair.delivered.iter().sum();
        (after - before) / u64::from(COUNTED)
    }
}

fn sessions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("session");
    let adaptive = FecMode::Adaptive {
        ceiling: 0.3,
        residual: RESIDUAL,
    };
    let fixed = FecMode::Fixed {
        source_count: 10,
        repair_count: 3,
    };
    for (links, name, fec) in [
        (3, "adaptive", adaptive),
        (3, "fixed 10+3", fixed),
        (1, "off", FecMode::Off),
    ] {
        let mut bench = Bench::new(links, fec);
        let packets = bench.throughput();
        assert!(
            packets >= PACKETS as u64 * 2 * 9 / 10,
            "{name}: {packets} packets a millisecond come out"
        );
        group.throughput(Throughput::Elements(packets));
        group.bench_function(BenchmarkId::new(format!("{links} links"), name), |b| {
            b.iter(|| bench.millisecond());
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = sessions
}
criterion_main!(benches);
