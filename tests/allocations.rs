//! The packet path takes no memory from the system once it has seen its shapes.
#![allow(unsafe_code, clippy::unwrap_used)]

mod pair;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ops::Range;

use chainlightning::base::{FRAME_BYTES_MAX, FrameStore, GroupId, Instant, Lane};
use chainlightning::crypto::key_schedule::Role;
use chainlightning::fec::codec::Codec;
use chainlightning::fec::decoder::Decoder;
use chainlightning::fec::encoder::OpenGroup;
use chainlightning::flow::class::Rule;
use chainlightning::session::RUN_BYTES_MAX;
use chainlightning::session::config::{ClassConfig, Mode, Policy, SessionConfig};
use chainlightning::stream::assembler::{Assembler, Progress};
use chainlightning::stream::cut::fragments;

/// The system's allocator, counting for each thread so that tests do not see each other.
struct Counting;

thread_local! {
    static TAKEN: Cell<u64> = const { Cell::new(0) };
    /// Bytes taken and not given back.
    static LIVE: Cell<i64> = const { Cell::new(0) };
}

// SAFETY: every call goes on to `System`, which keeps the contract; counting touches a thread-local without
// destructor and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        TAKEN.set(TAKEN.get() + 1);
        LIVE.set(LIVE.get() + layout.size().cast_signed() as i64);
        // SAFETY: the caller keeps `GlobalAlloc::alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.set(LIVE.get() - layout.size().cast_signed() as i64);
        // SAFETY: `pointer` came from `System` with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn allocations(work: impl FnOnce()) -> u64 {
    let before = TAKEN.get();
    work();
    TAKEN.get() - before
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(vec![0_u8; 9]))), 1);
}

#[test]
fn groups_are_encoded_and_recovered_without_allocation() {
    const BODY: usize = 1405;
    let (mut codec, mut decoder) = (Codec::new(), Decoder::new(BODY, 1000));
    codec.reserve(96, 32, BODY + 3).unwrap();
    let mut open = OpenGroup::new();
    let mut symbols = vec![[7_u8; BODY + 3]; 48];
    for (i, symbol) in symbols.iter_mut().enumerate() {
        symbol[..2].copy_from_slice(&u16::try_from(BODY - i).unwrap().to_le_bytes());
    }
    let mut repairs = vec![[0_u8; BODY + 3]; 8];
    let mut recovered = 0;
    let mut group = |id: u32, k: usize, r: usize, lost: usize| {
        let (id, now) = (GroupId(id), Instant::ZERO);
        for (i, symbol) in symbols.iter().take(k).enumerate() {
            let index = open.push(i, BODY - i, now).1;
            if i >= lost {
                decoder
                    .on_source(id, index, &symbol[2..BODY + 2 - i], true, now)
                    .unwrap();
            }
        }
        let bytes = open.params().symbol_bytes;
        let sources = open.sources().iter().map(|&i| &symbols[i][..BODY + 2 - i]);
        codec
            .encode(sources, r, bytes, |i, s| {
                repairs[i][..bytes].copy_from_slice(s)
            })
            .unwrap();
        drop(open.take());
        let (k, count) = (u8::try_from(k).unwrap(), u8::try_from(r).unwrap());
        for (i, symbol) in (0..count).zip(&repairs) {
            let _ = decoder.on_repair(id, k, count, i, &symbol[..bytes], now);
            while decoder.poll_recovered().is_some() {
                recovered += 1;
            }
        }
    };
    let mut groups = |ids: Range<u32>| {
        for id in ids {
            let (k, r) = [(1, 1), (10, 3), (48, 7), (5, 8)][id as usize % 4];
            group(id, k, r, (id as usize / 4 % 4).min(r).min(k));
        }
    };
    // Working memory is taken with the first use of each way to compute.
    groups(0..16);
    assert_eq!(allocations(|| groups(16..116)), 0);
    assert!(recovered > 50);
}

#[test]
fn frames_are_assembled_without_allocation() {
    let (mut store, mut table) = (FrameStore::default(), Assembler::new());
    let frame = vec![9_u8; 60_000];
    let mut complete = 0;
    let taken = allocations(|| {
        for seq in 0..50 {
            for cut in fragments(frame.len(), 1405) {
                let bytes = &frame[cut.offset..cut.offset + cut.len];
                let progress =
                    table.insert(&mut store, Lane(1), seq, frame.len(), cut.offset, bytes);
                if let Ok(Progress::Complete(frame)) = progress {
                    store.give(frame);
                    complete += 1;
                }
            }
        }
    });
    assert_eq!((taken, complete), (0, 50));
}

/// A class of each sort, for the flows of the test below.
fn classes() -> Vec<ClassConfig> {
    let pin = Policy::Pin {
        wan: "wan1".to_owned(),
        fallback: true,
    };
    (0..)
        .zip([Policy::Duplicate, pin, Policy::Best])
        .map(|(port, policy)| ClassConfig {
            name: format!("class{port}"),
            rule: Rule {
                ports: vec![port..=port],
                ..Rule::default()
            },
            policy,
        })
        .collect()
}

/// Two sessions over three links of memory that lose datagrams: small packets, full ones and superframes, both ways.
#[test]
fn frames_pass_two_sessions_without_allocation() {
    let mut pair = pair::Pair::new(3, Instant::ZERO);
    pair.lose_each = 97;
    let frames: Vec<Vec<u8>> = (0..40_u16)
        .map(|i| {
            pair::frame(
                i % 5,
                [100, 1400, 1400, 1000, 9000, 30_000][usize::from(i) % 6],
            )
        })
        .collect();
    let mut offered = 0;
    let mut work = |pair: &mut pair::Pair, from_ms: u64, until_ms: u64| {
        for ms in from_ms..until_ms {
            let now = Instant::from_millis(ms);
            for _ in 0..2 {
                let frame = &frames[offered % frames.len()];
                let _ = pair.client.handle_frame(frame, now);
                let _ = pair.server.handle_frame(frame, now);
                offered += 1;
            }
            pair.turn(now);
        }
    };
    work(&mut pair, 0, 3_000);
    let before = pair.delivered;
    let taken = allocations(|| work(&mut pair, 3_000, 8_000));
    let symbols = pair.client.stats(Instant::from_millis(8_000)).symbols;
    // Classes and another mode take memory when they are set, and then none.
    for end in [&mut pair.client, &mut pair.server] {
        end.set_config(SessionConfig {
            mode: Mode::Latency,
            classes: classes(),
            ..pair::config()
        });
    }
    work(&mut pair, 8_000, 11_000);
    let with_classes = allocations(|| work(&mut pair, 11_000, 14_000));
    assert_eq!(with_classes, 0);
    assert!(symbols.repair + symbols.resent > 100, "{symbols:?}");
    let passed = [0, 1].map(|i| pair.delivered[i] - before[i]);
    assert!(passed.iter().all(|&n| n >= 5_000), "{passed:?}");
    assert_eq!(taken, 0, "{passed:?}");
}

/// Whatever an authenticated peer sends, a session keeps to the memory it had.
#[test]
fn a_hostile_peer_takes_no_memory() {
    let (near, far) = pair::handshake();
    let now = Instant::ZERO;
    let mut victim = pair::session(false, 3, now);
    victim.install_epoch(pair::keys(&far, Role::Responder, 3, now), now);
    let peers = pair::keys(&near, Role::Initiator, 3, now);
    let mut hostile = pair::hostile::Hostile::new(9, peers);
    let mut buffers = (vec![0; RUN_BYTES_MAX + 1024], vec![0; FRAME_BYTES_MAX]);
    let mut run = |now, datagrams| {
        let buffers = (&mut buffers.0[..], &mut buffers.1[..]);
        pair::hostile::assault(&mut hostile, &mut victim, now, datagrams, buffers)
    };
    let now = run(now, 5_000);
    let before = LIVE.get();
    run(now, 60_000);
    let grown = LIVE.get() - before;
    // The code's tables for the largest group there can be.
    assert!(grown < 512 << 10, "{grown} bytes");
}
