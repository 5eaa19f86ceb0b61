//! What the code costs a group: `encode` for each group with loss or without, `recover` for each group with
//! loss, `stock` the same with the library's own erasure locator.
//!
//! Names are `fec/what/k+r/lost`; throughput is that of the group's source bytes.
#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;

use chainlightning::fec::codec::Codec;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use reed_solomon_simd::ReedSolomonDecoder;

/// An ordinary packet in its symbol.
const SYMBOL_BYTES: usize = 1408;

/// (source count, repair count, losses to recover from).
const GROUPS: &[(usize, usize, &[usize])] = &[
    (4, 1, &[1]),
    (10, 3, &[1, 2, 3]),
    (20, 4, &[4]),
    (48, 7, &[1, 7]),
    (96, 9, &[9]),
];

fn groups(criterion: &mut Criterion) {
    let mut codec = Codec::new();
    for &(k, r, losses) in GROUPS {
        let mut bench = criterion.benchmark_group(format!("fec/{k}+{r}"));
        bench.throughput(Throughput::Bytes((k * SYMBOL_BYTES) as u64));
        let sources: Vec<Vec<u8>> = (0..k)
            .map(|i| {
                (0..SYMBOL_BYTES)
                    .map(|j| (i * 7 + j * 13).to_le_bytes()[0])
                    .collect()
            })
            .collect();
        let mut repairs = Vec::new();
        let all = || sources.iter().map(Vec::as_slice);
        codec
            .encode(all(), r, SYMBOL_BYTES, |_, s| repairs.push(s.to_vec()))
            .unwrap();
        bench.bench_function("encode", |bencher| {
            bencher.iter(|| {
                codec.encode(all(), r, SYMBOL_BYTES, |_, symbol| {
                    black_box(symbol);
                })
            });
        });
        for &lost in losses {
            let kept = || all().enumerate().skip(lost);
            let repair = || repairs.iter().map(Vec::as_slice).enumerate().take(lost);
            bench.bench_function(format!("recover/{lost}"), |bencher| {
                bencher.iter(|| {
                    codec.recover(k, r, SYMBOL_BYTES, kept(), repair(), |_, symbol| {
                        black_box(symbol);
                    })
                });
            });
        }
        let lost = losses[0];
        let mut stock = ReedSolomonDecoder::new(k, r, SYMBOL_BYTES).unwrap();
        bench.bench_function(format!("stock/{lost}"), |bencher| {
            bencher.iter(|| {
                for (index, symbol) in all().enumerate().skip(lost) {
                    stock.add_original_shard(index, symbol).unwrap();
                }
                for (index, symbol) in repairs.iter().enumerate().take(lost) {
                    stock.add_recovery_shard(index, symbol).unwrap();
                }
                black_box(stock.decode().unwrap().restored_original(0));
            });
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = groups
}
criterion_main!(benches);
