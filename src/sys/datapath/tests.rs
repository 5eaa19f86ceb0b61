//! The same behaviour in every tier, over loopback sockets and a TUN in a namespace of its own.
#![allow(clippy::unwrap_used)]

mod tun;
mod udp;

use super::*;
use crate::base::Instant;
use crate::sys::clock::Clock;
use crate::sys::testing::{DEADLINE, loopback_pair};

/// Remembers everything.
#[derive(Default)]
struct Log {
    frames: Vec<Vec<u8>>,
    datagrams: Vec<(u32, Vec<u8>)>,
    readable: Vec<u32>,
    send_errors: Vec<(u32, i32, usize)>,
    tun_errors: Vec<i32>,
    wakes: usize,
}

impl Log {
    fn received(&self, key: u32) -> Vec<u8> {
        let of_key = self.datagrams.iter().filter(|(k, _)| *k == key);
        of_key.flat_map(|(_, bytes)| bytes.clone()).collect()
    }
}

impl Handler for Log {
    fn on_frame(&mut self, frame: &mut [u8]) {
        self.frames.push(frame.to_vec());
        frame.fill(0xEE); // in place, as decryption does
    }
    fn on_datagrams(&mut self, key: u32, bytes: &mut [u8]) {
        self.datagrams.push((key, bytes.to_vec()));
        bytes.fill(0xEE);
    }
    fn on_readable(&mut self, key: u32) {
        self.readable.push(key);
    }
    fn on_send_error(&mut self, key: u32, errno: i32, bytes: usize) {
        self.send_errors.push((key, errno, bytes));
    }
    fn on_tun_error(&mut self, errno: i32, _: &[u8]) {
        self.tun_errors.push(errno);
    }
    fn on_wake(&mut self) {
        self.wakes += 1;
    }
}

/// A datapath in `tier`, or `None` with a loud word when this host refuses it.
fn open(tier: Tier) -> Option<Datapath> {
    match Datapath::open(Config {
        tier: Some(tier),
        ..Config::default()
    }) {
        Ok(datapath) => {
            assert_eq!(datapath.tier(), tier);
            Some(datapath)
        }
        Err(error) => {
            eprintln!("SKIPPED: {error}");
            None
        }
    }
}

fn each_tier(test: impl Fn(&mut Datapath, &mut Log)) {
    for tier in Tier::ALL {
        if let Some(mut datapath) = open(tier) {
            test(&mut datapath, &mut Log::default());
        }
    }
}

/// Takes turns until `done`; panics when that takes longer than any test should.
fn turn_until(datapath: &mut Datapath, log: &mut Log, done: impl Fn(&Log) -> bool) {
    let clock = Clock::start();
    while !done(log) {
        assert!(
            clock.now().since(Instant::ZERO) < DEADLINE,
            "{}",
            datapath.description()
        );
        datapath.turn(Some(Duration::from_millis(50)), log).unwrap();
    }
}

/// A few turns without waiting, after which everything that can be complete is.
fn settle(datapath: &mut Datapath, log: &mut Log) {
    for _ in 0..4 {
        datapath.turn(Some(Duration::from_millis(2)), log).unwrap();
    }
}

fn send(datapath: &mut Datapath, key: u32, bytes: &[u8], segment: u16) {
    let slot = datapath.send_slot().unwrap();
    datapath.slot_bytes(&slot)[..bytes.len()].copy_from_slice(bytes);
    datapath.send(key, slot, bytes.len(), segment);
}

fn pattern(bytes: usize, seed: u64) -> Vec<u8> {
    let mut rng = crate::base::Rng::new(seed);
    (0..bytes)
        .map(|_| rng.next_u64().to_le_bytes()[0])
        .collect()
}

#[test]
fn a_wake_ends_a_wait_that_has_no_end() {
    each_tier(|datapath, log| {
        let wake = Wake::new().unwrap();
        datapath.add_wake(&wake).unwrap();
        for round in 1..4 {
            let other = wake.try_clone().unwrap();
            let thread = std::thread::spawn(move || other.signal());
            while log.wakes < round {
                datapath.turn(None, log).unwrap();
            }
            thread.join().unwrap();
        }
        settle(datapath, log);
        assert_eq!(log.wakes, 3);
    });
}

#[test]
fn a_timeout_is_kept_to_within_milliseconds() {
    each_tier(|datapath, log| {
        let (a, _b) = loopback_pair(true);
        datapath.add_socket(1, &a, false).unwrap();
        datapath.turn(Some(Duration::ZERO), log).unwrap();
        let clock = Clock::start();
        // A ring closed before signals its thread once more, and a signal may end a wait.
        let mut interrupted = 0;
        for micros in [300, 2_000, 20_000] {
            let wanted = Duration::from_micros(micros);
            // The machine is shared: the best of some attempts must be precise, each must be long enough.
            let mut best = Duration::MAX;
            for _ in 0..10 {
                let start = clock.now();
                datapath.turn(Some(wanted), log).unwrap();
                let took = clock.now().since(start);
                if took < wanted {
                    interrupted += 1;
                    assert!(
                        interrupted < 3,
                        "{took:?} for {wanted:?}: {}",
                        datapath.tier()
                    );
                    continue;
                }
                best = best.min(took);
            }
            let tier = datapath.tier();
            assert!(
                best < wanted + Duration::from_millis(3),
                "{tier}: {best:?} for {wanted:?}"
            );
        }
        let start = clock.now();
        datapath.turn(Some(Duration::ZERO), log).unwrap();
        assert!(clock.now().since(start) < Duration::from_millis(50));
    });
}

#[test]
fn a_multishot_read_of_file_0_reads_the_registered_file_and_not_descriptor_0() {
    use std::io::Write as _;
    use std::os::fd::AsRawFd as _;
    // io-uring 0.7.15 wipes the flag that makes the difference.
    let Ok(mut ring) = ring::Ring::open(8, false) else {
        eprintln!("SKIPPED: no io_uring");
        return;
    };
    let (out, mut into) = io::pipe().unwrap();
    ring.submitter().register_files_sparse(1).unwrap();
    ring.set_file(0, out.as_raw_fd()).unwrap();
    let Ok(buffers) = buf_ring::BufRing::register(&ring, 0, 2, 4_096) else {
        eprintln!("SKIPPED: no buffer rings");
        return;
    };
    into.write_all(b"registered").unwrap();
    let token = token::Token::Read {
        port: 0,
        generation: 0,
        part: 0,
    };
    let stats = &mut Stats::default();
    let entry = uring::read_multi(io_uring::types::Fixed(0), 0);
    // SAFETY: the buffers live until the ring is gone: declared later, but dropped explicitly after it.
    unsafe { ring.push(entry, token, stats) };
    ring.enter(1, Some(DEADLINE), stats).unwrap();
    assert_eq!(ring.reap(1), 1);
    let completion = ring.completion(0);
    if completion.result == -libc::EINVAL {
        eprintln!("SKIPPED: no multishot read (Linux 6.7)");
        return;
    }
    assert_eq!(completion.result, 10, "descriptor 0 was read instead");
    // SAFETY: the completion names the buffer, which is not recycled.
    let bytes = unsafe { buffers.filled(completion.buffer().unwrap(), 10) };
    assert_eq!(bytes, b"registered");
    drop((into, out));
    drop(ring);
    drop(buffers);
}

#[test]
fn a_ring_refuses_what_a_datapath_never_does() {
    let Ok(mut ring) = ring::Ring::open(8, true) else {
        eprintln!("SKIPPED: no io_uring");
        return;
    };
    if !ring.enable(false, false).unwrap() {
        eprintln!("SKIPPED: rings cannot be restricted (Linux 5.10)");
        return;
    }
    let stats = &mut Stats::default();
    let token = token::Token::Read {
        port: 0,
        generation: 0,
        part: 0,
    };
    let open = io_uring::opcode::OpenAt::new(io_uring::types::Fd(libc::AT_FDCWD), c"/".as_ptr());
    // SAFETY: the path is static.
    unsafe { ring.push(open.build(), token, stats) };
    ring.enter(1, Some(DEADLINE), stats).unwrap();
    assert_eq!(ring.reap(1), 1);
    assert_eq!(ring.completion(0).result, -libc::EACCES);
}

#[test]
fn an_idle_datapath_does_not_spin() {
    each_tier(|datapath, log| {
        let (a, b) = loopback_pair(true);
        let wake = Wake::new().unwrap();
        datapath.add_socket(1, &a, true).unwrap();
        datapath.add_listener(2, &b).unwrap();
        datapath.add_wake(&wake).unwrap();
        // Something happens once, so that reads are armed for the second time.
        wake.signal();
        b.send(b"once").unwrap();
        turn_until(datapath, log, |log| {
            log.wakes == 1 && !log.datagrams.is_empty()
        });
        settle(datapath, log);
        let (clock, before) = (Clock::start(), datapath.stats().cqes);
        for _ in 0..5 {
            datapath.turn(Some(Duration::from_millis(20)), log).unwrap();
        }
        assert_eq!(datapath.stats().cqes, before, "{}", datapath.description());
        // One wait may be cut short by a ring that was closed before.
        assert!(clock.now() >= Instant::from_millis(75), "{:?}", clock.now());
    });
}

#[test]
fn under_load_one_wait_serves_many_packets() {
    let Some(mut datapath) = open(Tier::Multishot) else {
        return;
    };
    if !datapath.description().contains("collecting") {
        eprintln!("SKIPPED: no minimum wait (Linux 6.12)");
        return;
    }
    let (datapath, log) = (&mut datapath, &mut Log::default());
    let (a, b) = loopback_pair(true);
    datapath.add_socket(1, &b, false).unwrap();
    datapath.turn(Some(Duration::ZERO), log).unwrap();
    let sender = std::thread::spawn(move || {
        for _ in 0..20_000 {
            a.send(b"small").ok();
            std::thread::yield_now();
        }
    });
    while !sender.is_finished() {
        datapath.turn(Some(Duration::from_millis(50)), log).unwrap();
    }
    sender.join().unwrap();
    let stats = datapath.stats();
    assert!(
        stats.turns * 2 < stats.receives,
        "{} turns for {} reads",
        stats.turns,
        stats.receives
    );
}
