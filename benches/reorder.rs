//! What the reorder buffer costs an item: insert and release, in order, displaced, and with losses.
//!
//! Names are `reorder/variant/parameter`; the throughput is in items.
#![allow(missing_docs)]

use std::time::Duration;

use chainlightning::base::{Instant, Lane, Rng};
use chainlightning::reorder::{Buffer, WINDOW};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// Items of one iteration: enough to fill every pattern several times over.
const ITEMS: u32 = 4096;
/// 1 Gbit/s of full packets.
const GAP: Duration = Duration::from_micros(11);

/// The order in which sequences arrive when each is displaced by up to `extent`, and `loss` of them never do.
fn arrivals(extent: u64, loss: f64) -> Vec<u32> {
    let mut rng = Rng::new(1);
    let mut order: Vec<(u64, u32)> = (0..ITEMS)
        .filter(|_| !rng.chance(loss))
        .collect::<Vec<_>>()
        .into_iter()
        .map(|seq| (u64::from(seq) + rng.below(extent + 1), seq))
        .collect();
    order.sort_unstable();
    order.into_iter().map(|(_, seq)| seq).collect()
}

fn reorder(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("reorder");
    for (name, extent, loss, lanes) in [
        ("in order", 0, 0.0, 1_u8),
        ("displaced by 64", 64, 0.0, 1),
        ("displaced by 1000", 1000, 0.0, 1),
        ("2 % lost", 64, 0.02, 1),
        ("2 % lost in 60 lanes", 64, 0.02, 60),
    ] {
        let order = arrivals(extent, loss);
        group.throughput(Throughput::Elements(order.len() as u64 * u64::from(lanes)));
        let mut buffer = Buffer::new(WINDOW);
        buffer.set_hold(Duration::from_millis(15));
        let (mut now, mut base) = (Instant::ZERO, 0_u32);
        group.bench_function(BenchmarkId::new(name, lanes), |bench| {
            bench.iter(|| {
                let mut released = 0_u32;
                for &offset in &order {
                    for lane in 1..=lanes {
                        now += GAP;
                        let seq = base.wrapping_add(offset);
                        let refused = buffer.insert_since(Lane(lane), seq, offset, true, now, now);
                        released += u32::from(refused.is_err());
                        while buffer.poll(now).is_some() {
                            released += 1;
                        }
                    }
                }
                base = base.wrapping_add(ITEMS);
                released
            });
        });
    }
    group.finish();
}

criterion_group!(benches, reorder);
criterion_main!(benches);
