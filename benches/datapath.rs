//! What is done for each packet next to the kernel: its time inside recorded, and a small packet merged into a train.
//!
//! Names are `datapath/what`.
#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;
use std::time::Duration;

use chainlightning::base::Instant;
use chainlightning::link::History;
use chainlightning::stream::merge::{Flow, Train};
use chainlightning::wire::virtio::VirtioHeader;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};

/// A UDP datagram of 200 bytes with an unfinished checksum, as a TUN hands it out.
fn datagram() -> Vec<u8> {
    let mut packet = vec![0; 228];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&228_u16.to_be_bytes());
    packet[6] = 0x40;
    packet[8..10].copy_from_slice(&[64, 17]);
    packet[24..26].copy_from_slice(&208_u16.to_be_bytes());
    let sum: u32 = packet[..20]
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    let folded = u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    packet[10..12].copy_from_slice(&(!folded).to_be_bytes());
    let mut frame = VirtioHeader::checksum_of(&packet)
        .unwrap()
        .to_bytes()
        .to_vec();
    frame.extend(packet);
    frame
}

fn residence(criterion: &mut Criterion) {
    let mut history = History::new(Instant::ZERO);
    let (mut now, mut step) = (Instant::ZERO, 0_u64);
    criterion.bench_function("datapath/residence", |bench| {
        bench.iter(|| {
            step = step.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            now += Duration::from_micros(3);
            history.record(black_box(Duration::from_micros(step >> 54)), now);
        });
    });
}

fn merge(criterion: &mut Criterion) {
    let frame = datagram();
    criterion.bench_function("datapath/merge_64_of_200_bytes", |bench| {
        bench.iter_batched_ref(
            || {
                let mut held = frame.clone();
                held.resize(69_632, 0);
                held
            },
            |held| {
                let flow = Flow::of(held.get(..frame.len()).unwrap());
                let mut train = Train::start(&held[..frame.len()]).unwrap();
                while Flow::of(&frame) == flow && train.append(held, &frame) {}
                assert_eq!(train.count(), 64);
                train.finish(held)
            },
            BatchSize::LargeInput,
        );
    });
}

criterion_group!(benches, residence, merge);
criterion_main!(benches);
