//! The packet path takes no memory from the system once it has seen its shapes.
#![allow(unsafe_code, clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use chainlightning::base::{FrameStore, GroupId, Instant, Lane};
use chainlightning::fec::codec::Codec;
use chainlightning::fec::decoder::Decoder;
use chainlightning::fec::encoder::OpenGroup;
use chainlightning::stream::assembler::{Assembler, Progress};
use chainlightning::stream::cut::fragments;

/// The system's allocator, counting for each thread so that tests do not see each other.
struct Counting;

thread_local! {
    static TAKEN: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes on to `System`, which keeps the contract; counting touches a thread-local without
// destructor and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        TAKEN.set(TAKEN.get() + 1);
        // SAFETY: the caller keeps `GlobalAlloc::alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
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
        let (params, sources) = open.take();
        let sources = sources.map(|i| &symbols[i][..BODY + 2 - i]);
        let bytes = params.symbol_bytes;
        codec
            .encode(sources, r, bytes, |i, s| {
                repairs[i][..bytes].copy_from_slice(s)
            })
            .unwrap();
        let (k, count) = (u8::try_from(k).unwrap(), u8::try_from(r).unwrap());
        for (i, symbol) in (0..count).zip(&repairs) {
            let _ = decoder.on_repair(id, k, count, i, &symbol[..bytes], now);
            while decoder.poll_recovered().is_some() {
                recovered += 1;
            }
        }
    };
    let taken = allocations(|| {
        for id in 0..100 {
            let (k, r) = [(1, 1), (10, 3), (48, 7), (5, 8)][id as usize % 4];
            group(id, k, r, (id as usize / 4 % 4).min(r).min(k));
        }
    });
    assert_eq!(taken, 0);
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
