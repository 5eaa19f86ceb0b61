//! What reading and writing the protocol's bytes costs: buffers taken apart, messages, pieces, and the clamp of TCP's
//! segment size.
//!
//! Names are `wire/what/parameter`; the throughput is in datagrams, messages or packets.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../tests/pair/mod.rs"]
mod pair;

use std::hint::black_box;

use chainlightning::base::{GroupId, Lane, LinkId};
use chainlightning::stream::mss::{self, MssMax};
use chainlightning::wire::header::{self, DataHeader, Kind};
use chainlightning::wire::message::{self, Message, SymbolHeader, Writer};
use chainlightning::wire::piece::{emit_whole, pieces};
use chainlightning::wire::report::{BITMAP_BYTES_MAX, ReportMessage};
use chainlightning::wire::virtio::VirtioHeader;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// A full datagram, and as many as a receive buffer holds.
const DATAGRAM_BYTES: usize = 1472;
const DATAGRAMS: usize = 44;

fn buffers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wire/datagrams");
    group.throughput(Throughput::Elements(DATAGRAMS as u64));
    let mut buffer = vec![0; DATAGRAM_BYTES * DATAGRAMS];
    for datagram in buffer.chunks_mut(DATAGRAM_BYTES) {
        let header = DataHeader {
            receiver_index: 7,
            packet_number: 1 << 33,
        };
        header.emit(datagram);
    }
    group.bench_function("split", |bench| {
        bench.iter(|| {
            let parts = header::datagrams(black_box(&mut buffer)).flatten();
            parts
                .filter(|(kind, _)| *kind == Kind::Data)
                .map(|(_, datagram)| DataHeader::parse(datagram).unwrap().packet_number)
                .fold(0, |sum: u64, number| sum.wrapping_add(number))
        });
    });
    group.finish();
}

fn report() -> ReportMessage {
    ReportMessage {
        link: LinkId(2),
        epoch_tag: 9,
        largest: 1_000_000,
        largest_sent_us: 1,
        hold_us: 2,
        packets: 3,
        bytes: 4,
        received_us: 5,
        owd_min_us: 6,
        owd_last_us: 7,
        owd_max_us: 8,
        interval_ms: 5,
        bitmap_bytes: 64,
        bitmap: [0xff; BITMAP_BYTES_MAX],
    }
}

fn messages(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wire/message");
    group.throughput(Throughput::Elements(1));
    let header = SymbolHeader {
        group: GroupId(77),
        index: 3,
        source_count: 0,
        repair_count: 3,
    };
    let body = [7; 1405];
    let report = report();
    for (name, message) in [
        ("symbol", Message::Symbol(header, &body)),
        ("report", Message::Report(report)),
        ("heartbeat", Message::Heartbeat),
    ] {
        let mut out = [0; DATAGRAM_BYTES];
        group.bench_function(BenchmarkId::new("write", name), |bench| {
            bench.iter(|| {
                let mut writer = Writer::new(black_box(&mut out), 1);
                writer.push(black_box(&message));
                writer.len()
            });
        });
        let mut writer = Writer::new(&mut out, 1);
        assert!(writer.push(&message));
        let length = writer.len();
        group.bench_function(BenchmarkId::new("read", name), |bench| {
            bench.iter(|| {
                let (_, messages) = message::parse(black_box(&out[..length])).unwrap();
                messages.filter(Result::is_ok).count()
            });
        });
    }
    group.finish();
}

fn packets(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wire/packet");
    group.throughput(Throughput::Elements(1));
    let frame = pair::frame(1, 1400);
    let (virtio, packet) = VirtioHeader::split(&frame).unwrap();
    let mut body = [0; 1405];
    group.bench_function("emit", |bench| {
        bench.iter(|| {
            let out = black_box(&mut body);
            emit_whole(out, Lane(1), 7, &virtio, black_box(packet), false)
        });
    });
    group.bench_function("pieces", |bench| {
        bench.iter(|| pieces(black_box(&body)).filter(Result::is_ok).count());
    });
    let max = MssMax::of_mtu(1400);
    let mut bulk = frame.clone();
    bulk[10 + 9] = 6;
    let mut syn = bulk.clone();
    syn[10 + 20 + 12] = 0x60;
    syn[10 + 20 + 13] = 2;
    syn[10 + 40..10 + 44].copy_from_slice(&[2, 4, 5, 180]);
    for (name, mut frame) in [("bulk", bulk), ("syn", syn)] {
        group.bench_function(BenchmarkId::new("mss", name), |bench| {
            bench.iter(|| mss::clamp(black_box(&mut frame), max));
        });
    }
    group.finish();
}

criterion_group!(benches, buffers, messages, packets);
criterion_main!(benches);
