//! What the cryptography costs: a datagram sealed and opened, the replay window, a handshake, and what a server spends
//! on a HELLO before it knows who sent it.
//!
//! Names are `crypto/what/parameter`; the throughput is in bytes of datagrams, or in operations.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../tests/pair/mod.rs"]
mod pair;

use std::hint::black_box;
use std::net::SocketAddr;

use chainlightning::base::LinkId;
use chainlightning::crypto::Cipher;
use chainlightning::crypto::key_schedule::Role;
use chainlightning::crypto::keys::PrivateKey;
use chainlightning::crypto::mac::{CookieSecret, Mac1Key};
use chainlightning::crypto::replay::Window;
use chainlightning::wire::handshake::HELLO_BYTES;
use chainlightning::wire::header::DataHeader;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// A heartbeat with its report, and a full datagram.
const SIZES: [usize; 2] = [140, 1472];

fn datagrams(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("crypto");
    let (near, far) = pair::handshake();
    for cipher in [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305] {
        let keys = |role| match role {
            Role::Initiator => near.secret.link_keys(role, LinkId(0), cipher),
            Role::Responder => far.secret.link_keys(role, LinkId(0), cipher),
        };
        for bytes in SIZES {
            let (mut seal, _) = keys(Role::Initiator);
            let (_, mut open) = keys(Role::Responder);
            let mut datagram = vec![7; bytes];
            group.throughput(Throughput::Bytes(bytes as u64));
            let id = |what: &str| BenchmarkId::new(format!("{}/{what}", cipher.name()), bytes);
            group.bench_function(id("seal"), |bench| {
                bench.iter(|| seal.seal(1, black_box(&mut datagram)).unwrap());
            });
            group.bench_function(id("open"), |bench| {
                bench.iter_batched_ref(
                    || {
                        let mut sealed = datagram.clone();
                        seal.seal(1, &mut sealed).unwrap();
                        sealed
                    },
                    |sealed| {
                        let header = DataHeader::parse(sealed).unwrap();
                        open.open(&header, sealed).unwrap().len()
                    },
                    BatchSize::SmallInput,
                );
            });
        }
    }
    group.finish();
}

fn window(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("crypto/replay");
    group.throughput(Throughput::Elements(1));
    for (name, step) in [("in order", 1_u64), ("every third lost", 3)] {
        let (mut window, mut number) = (Window::default(), 0);
        group.bench_function(name, |bench| {
            bench.iter(|| {
                number += step;
                window.insert(black_box(number)).unwrap();
            });
        });
    }
    group.finish();
}

fn handshakes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("crypto/handshake");
    group.throughput(Throughput::Elements(1));
    // Both ends, with the making of two static keys.
    group.bench_function("both ends", |bench| bench.iter(pair::handshake));
    let key = Mac1Key::new(PrivateKey::generate().unwrap().public());
    let hello = [7; HELLO_BYTES];
    group.bench_function("mac1", |bench| {
        bench.iter(|| key.sign(black_box(&hello[..HELLO_BYTES - 32])));
    });
    let secret = CookieSecret::new(&[7; 32], 1);
    let from = SocketAddr::from(([192, 0, 2, 1], 4000));
    group.bench_function("cookie", |bench| {
        bench.iter(|| secret.cookie(black_box(from)));
    });
    group.finish();
}

criterion_group!(benches, datagrams, window, handshakes);
criterion_main!(benches);
