//! What the whole core costs: two sessions with real keys, joined by memory, packets in one direction.
//!
//! Names are `session/load`, loads as of `chainlightning bench core`, which takes both ends apart. An iteration is a
//! millisecond of virtual time; the throughput is in packets that came out in it, each through both sessions. Times are
//! processor time. Superframes count as the packets that they stand for.
#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use chainlightning::bench::core::LOADS;
use chainlightning::bench::core::road::Road;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// Virtual time of an iteration.
const MILLISECOND: Duration = Duration::from_millis(1);
/// Iterations after which nearly all that was sent must have come out.
const ENOUGH: u64 = 50;

fn sessions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("session");
    for load in LOADS {
        let mut road = Road::new(load);
        assert!(road.warm_up(), "{}: not all comes through", load.name);
        group.throughput(Throughput::Elements(load.packets_per_s / 1000));
        group.bench_function(load.name, |bench| {
            bench.iter_custom(|iterations| {
                let (mut took, mut packets) = (Duration::ZERO, 0.0);
                for _ in 0..iterations {
                    let spent = road.pass(MILLISECOND);
                    took += spent.sending + spent.receiving;
                    packets += spent.packets;
                }
                let offered = (load.packets_per_s / 1000 * iterations) as f64;
                let all = packets >= offered * 0.9;
                assert!(
                    all || iterations < ENOUGH,
                    "{}: {packets} of {offered} packets came out",
                    load.name
                );
                took
            });
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
