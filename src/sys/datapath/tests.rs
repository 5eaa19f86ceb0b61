//! The same behaviour in every tier, over loopback sockets and a TUN in a namespace of its own.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::os::fd::AsFd;

use super::*;
use crate::base::Instant;
use crate::sys::clock::Clock;
use crate::sys::netdev::Netdev;
use crate::sys::testing::{DEADLINE, in_namespace, loopback_pair};
use crate::sys::tun::{Tun, TunConfig};
use crate::sys::udp::{UdpConfig, set_segment};

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
    fn on_tun_error(&mut self, errno: i32) {
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

/// Each tier with a TUN `tun0` of its own, which is up as 10.7.0.1 and leads to 10.7.0.2.
fn each_tier_with_tun(test: impl Fn(&mut Datapath, &mut Log, &Tun) + Copy + Send + 'static) {
    for tier in Tier::ALL {
        in_namespace(move || {
            let Some(mut datapath) = open(tier) else {
                return;
            };
            let tun = Tun::create("tun0", TunConfig::default()).unwrap();
            let mut netdev = Netdev::open().unwrap();
            let peer = Some("10.7.0.2".parse().unwrap());
            netdev
                .add_address("tun0", "10.7.0.1/32".parse().unwrap(), peer)
                .unwrap();
            netdev.set_up("tun0", true).unwrap();
            datapath.add_tun(tun.queue(0)).unwrap();
            let mut log = Log::default();
            datapath.turn(Some(Duration::ZERO), &mut log).unwrap();
            test(&mut datapath, &mut log, &tun);
        });
    }
}

/// The first IPv4 frame, without the kernel's own IPv6 chatter.
fn ipv4_frame(log: &Log) -> Option<&Vec<u8>> {
    log.frames
        .iter()
        .find(|frame| frame.get(10).is_some_and(|byte| byte >> 4 == 4))
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

fn write_tun(datapath: &mut Datapath, frame: &[u8]) {
    let slot = datapath.send_slot().unwrap();
    datapath.slot_bytes(&slot)[..frame.len()].copy_from_slice(frame);
    datapath.write_tun(slot, frame.len());
}

fn pattern(bytes: usize, seed: u64) -> Vec<u8> {
    let mut rng = crate::base::Rng::new(seed);
    (0..bytes)
        .map(|_| rng.next_u64().to_le_bytes()[0])
        .collect()
}

#[test]
fn a_run_of_ten_datagrams_and_a_short_tail_leaves_in_one_write_and_arrives_merged() {
    each_tier(|datapath, log| {
        let (a, b) = loopback_pair(true);
        a.set_segment(1_400).unwrap();
        datapath.add_socket(1, &a, true).unwrap();
        datapath.add_socket(2, &b, true).unwrap();
        datapath.turn(Some(Duration::ZERO), log).unwrap();
        let run = pattern(14_077, 3);
        let before = *datapath.stats();
        send(datapath, 1, &run, 1_400);
        turn_until(datapath, log, |log| log.received(2).len() >= run.len());
        assert_eq!(log.received(2), run);
        let stats = datapath.stats();
        assert_eq!(
            (
                stats.sends - before.sends,
                stats.gso_sends - before.gso_sends
            ),
            (1, 1)
        );
        assert!(
            log.datagrams.len() < 11,
            "GRO merged nothing: {} reads",
            log.datagrams.len()
        );
        settle(datapath, log);
        assert_eq!(datapath.slots_free(), 64);
    });
}

#[test]
fn without_or_with_another_segment_a_run_leaves_datagram_by_datagram() {
    each_tier(|datapath, log| {
        let (a, b) = loopback_pair(true);
        datapath.add_socket(1, &a, false).unwrap();
        datapath.add_socket(2, &b, false).unwrap();
        let run = pattern(2_500, 4);
        send(datapath, 1, &run, 1_000);
        turn_until(datapath, log, |log| log.datagrams.len() == 3);
        // The socket cuts at 1400, the run at 1000: three writes, none of them cut.
        assert!(datapath.set_segment(1, 1_400));
        assert_eq!(datapath.segment(1), 1_400);
        send(datapath, 1, &run, 1_000);
        turn_until(datapath, log, |log| log.datagrams.len() == 6);
        // Longer than what the socket cuts at: must still arrive as one datagram, alone and in a run.
        assert!(datapath.set_segment(1, 500));
        send(datapath, 1, &run, 0);
        turn_until(datapath, log, |log| log.datagrams.len() == 7);
        send(datapath, 1, &run, 1_000);
        turn_until(datapath, log, |log| log.datagrams.len() == 10);
        let lengths: Vec<_> = log.datagrams.iter().map(|(_, b)| b.len()).collect();
        assert_eq!(
            lengths,
            [
                1_000, 1_000, 500, 1_000, 1_000, 500, 2_500, 1_000, 1_000, 500
            ]
        );
        assert_eq!(
            log.received(2),
            [run.clone(), run.clone(), run.clone(), run].concat()
        );
        assert_eq!(datapath.stats().gso_sends, 0);
        settle(datapath, log);
        assert_eq!(datapath.slots_free(), 64);
    });
}

#[test]
fn a_refused_segmented_write_is_sent_again_datagram_by_datagram() {
    each_tier(|datapath, log| {
        let (a, b) = loopback_pair(true);
        a.set_segment(1_000).unwrap();
        // The kernel refuses segmentation (EINVAL) on sockets that want no checksum.
        crate::sys::option::set(&a, libc::SOL_SOCKET, libc::SO_NO_CHECK, 1).unwrap();
        datapath.add_socket(1, &a, false).unwrap();
        datapath.add_socket(2, &b, false).unwrap();
        let run = pattern(3_300, 5);
        send(datapath, 1, &run, 1_000);
        send(datapath, 1, &run, 1_000);
        turn_until(datapath, log, |log| log.received(2).len() >= 6_600);
        assert_eq!(log.received(2), [run.clone(), run.clone()].concat());
        assert_eq!((datapath.segment(1), datapath.stats().demotions), (0, 1));
        send(datapath, 1, &run, 1_000);
        turn_until(datapath, log, |log| log.received(2).len() >= 9_900);
        assert!(log.send_errors.is_empty(), "{:?}", log.send_errors);
        settle(datapath, log);
        assert_eq!((datapath.stats().demotions, datapath.slots_free()), (1, 64));
    });
}

#[test]
fn a_datagram_too_long_for_the_device_is_reported() {
    each_tier(|datapath, log| {
        let (a, _b) = loopback_pair(true);
        datapath.add_socket(9, &a, false).unwrap();
        let long = pattern(SLOT_BYTES, 6);
        send(datapath, 9, &long, 0);
        turn_until(datapath, log, |log| !log.send_errors.is_empty());
        assert_eq!(log.send_errors, [(9, libc::EMSGSIZE, SLOT_BYTES)]);
        assert_eq!(datapath.stats().send_errors, 1);
    });
}

#[test]
fn a_thousand_datagrams_pass_although_there_are_fewer_buffers() {
    each_tier(|datapath, log| {
        let (a, b) = loopback_pair(true);
        datapath.add_socket(1, &a, false).unwrap();
        datapath.add_socket(2, &b, false).unwrap();
        for number in 0..1_000_u32 {
            if datapath.slots_free() == 0 {
                turn_until(datapath, log, |_| false);
            }
            send(datapath, 1, &number.to_le_bytes(), 0);
            if number % 50 == 49 {
                // Slots come back with the turn; what was received waits in the socket.
                settle(datapath, log);
            }
        }
        turn_until(datapath, log, |log| log.datagrams.len() == 1_000);
        let got: Vec<_> = log.datagrams.iter().map(|(_, b)| b.clone()).collect();
        let sent: Vec<_> = (0..1_000_u32).map(|n| n.to_le_bytes().to_vec()).collect();
        assert_eq!(got, sent);
    });
}

#[test]
fn a_flood_that_exhausts_all_buffers_does_not_stop_the_socket() {
    each_tier(|datapath, log| {
        let (a, b) = loopback_pair(true);
        datapath.add_socket(2, &b, false).unwrap();
        datapath.turn(Some(Duration::ZERO), log).unwrap();
        for number in 0..500_u32 {
            a.send(&number.to_le_bytes()).unwrap();
        }
        turn_until(datapath, log, |log| log.datagrams.len() == 500);
        // And an empty datagram, which ends a multishot read, does not either.
        a.send(&[]).unwrap();
        settle(datapath, log);
        a.send(b"after").unwrap();
        turn_until(datapath, log, |log| log.datagrams.len() == 501);
        assert_eq!(log.datagrams[500], (2, b"after".to_vec()));
    });
}

#[test]
fn an_icmp_error_ends_neither_receiving_nor_sending() {
    each_tier(|datapath, log| {
        let (a, b) = loopback_pair(true);
        let address = b.local_addr().unwrap();
        datapath.add_socket(1, &a, false).unwrap();
        drop(b);
        send(datapath, 1, b"to nobody", 0);
        let clock = Clock::start();
        while datapath.stats().receive_errors == 0 {
            datapath.turn(Some(Duration::from_millis(10)), log).unwrap();
            assert!(clock.now().since(Instant::ZERO) < DEADLINE);
        }
        let again = UdpSocket::bind(UdpConfig {
            source: address,
            device: None,
            reuse_port: false,
            buffer_bytes: 0,
        });
        let b = again.unwrap();
        b.connect(a.local_addr().unwrap()).unwrap();
        b.send(b"hello again").unwrap();
        turn_until(datapath, log, |log| log.received(1) == b"hello again");
    });
}

#[test]
fn a_removed_socket_is_silent_and_its_port_is_free_again() {
    each_tier(|datapath, log| {
        let (a, b) = loopback_pair(true);
        let (to, from) = (b.local_addr().unwrap(), a.local_addr().unwrap());
        datapath.add_socket(1, &a, false).unwrap();
        datapath.add_socket(2, &b, false).unwrap();
        datapath.turn(Some(Duration::ZERO), log).unwrap();
        send(datapath, 2, b"last words", 0);
        a.send(b"never heard").unwrap();
        datapath.remove_socket(2);
        drop(b);
        turn_until(datapath, log, |log| log.received(1) == b"last words");
        settle(datapath, log);
        assert!(log.received(2).is_empty());
        let config = UdpConfig {
            source: to,
            device: None,
            reuse_port: false,
            buffer_bytes: 0,
        };
        let heir = UdpSocket::bind(config).unwrap();
        heir.connect(from).unwrap();
        datapath.add_socket(2, &heir, false).unwrap();
        send(datapath, 1, b"for the heir", 0);
        turn_until(datapath, log, |log| log.received(2) == b"for the heir");
        send(datapath, 3, b"unknown", 0);
        assert_eq!(
            (datapath.stats().unknown_keys, datapath.slots_free()),
            (1, 64)
        );
    });
}

#[test]
fn sockets_come_and_go_more_often_than_there_is_room() {
    for tier in Tier::ALL {
        let config = Config {
            tier: Some(tier),
            ports_max: 4,
            ..Config::default()
        };
        let Ok(mut datapath) = Datapath::open(config) else {
            continue;
        };
        let mut log = Log::default();
        for round in 0..20_u32 {
            let (a, b) = loopback_pair(true);
            datapath.add_socket(round, &a, false).unwrap();
            a.connect(b.local_addr().unwrap()).unwrap();
            b.send(&round.to_le_bytes()).unwrap();
            turn_until(&mut datapath, &mut log, |log| {
                log.received(round) == round.to_le_bytes()
            });
            datapath.remove_socket(round);
            settle(&mut datapath, &mut log);
        }
    }
}

#[test]
fn a_listener_is_told_of_until_it_is_read_empty() {
    each_tier(|datapath, log| {
        let (a, b) = loopback_pair(false);
        datapath.add_listener(5, &b).unwrap();
        datapath.turn(Some(Duration::ZERO), log).unwrap();
        let to: SocketAddr = b.local_addr().unwrap();
        a.send_to(b"one", to).unwrap();
        a.send_to(b"two", to).unwrap();
        let mut buffer = [0; 16];
        for expected in [b"one", b"two"] {
            log.readable.clear();
            turn_until(datapath, log, |log| log.readable == [5]);
            let (count, from) = b.recv_from(&mut buffer).unwrap();
            assert_eq!(
                (&buffer[..count], from),
                (&expected[..], a.local_addr().unwrap())
            );
        }
        settle(datapath, log);
        log.readable.clear();
        settle(datapath, log);
        assert!(log.readable.is_empty());
    });
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
    let Ok(mut ring) = ring::Ring::open(8) else {
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
fn tiers_have_names_that_parse() {
    for tier in Tier::ALL {
        assert_eq!(tier.to_string().parse::<Tier>().unwrap(), tier);
    }
    assert!("uring".parse::<Tier>().is_err());
}

#[test]
fn segments_set_behind_our_back_are_noticed_when_the_socket_is_added() {
    each_tier(|datapath, _| {
        let (a, _b) = loopback_pair(true);
        set_segment(a.as_fd(), 777).unwrap();
        datapath.add_socket(1, &a, false).unwrap();
        assert_eq!(datapath.segment(1), 777);
        assert_eq!(datapath.segment(2), 0);
    });
}

#[test]
fn frames_pass_the_tun_in_both_directions() {
    each_tier_with_tun(|datapath, log, _tun| {
        let socket = std::net::UdpSocket::bind("10.7.0.1:0").unwrap();
        socket.send_to(b"ping", "10.7.0.2:7").unwrap();
        turn_until(datapath, log, |log| ipv4_frame(log).is_some());
        let mut frame = ipv4_frame(log).unwrap().clone();
        assert_eq!(frame.len(), 10 + 20 + 8 + 4);
        assert_eq!(&frame[38..], b"ping");
        // The answer: a header without offload, addresses and ports swapped, no UDP checksum.
        frame[..10].fill(0);
        for at in 0..4 {
            frame.swap(22 + at, 26 + at);
        }
        frame.swap(30, 32);
        frame.swap(31, 33);
        frame[36..38].fill(0);
        frame[38..].copy_from_slice(b"pong");
        write_tun(datapath, &frame);
        settle(datapath, log);
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut buffer = [0; 16];
        let (count, from) = socket.recv_from(&mut buffer).unwrap();
        assert_eq!(
            (&buffer[..count], from.to_string()),
            (&b"pong"[..], "10.7.0.2:7".into())
        );
        assert!(log.tun_errors.is_empty());
        assert_eq!(
            (datapath.slots_free(), datapath.stats().tun_writes),
            (64, 1)
        );
    });
}

#[test]
fn a_superframe_is_read_in_one_piece_and_taken_back() {
    each_tier_with_tun(|datapath, log, tun| {
        if !tun.offloads().udp_segmentation() {
            eprintln!("SKIPPED: no UDP segmentation on TUN devices (Linux 6.2)");
            return;
        }
        let config = UdpConfig {
            source: "10.7.0.1:0".parse().unwrap(),
            device: None,
            reuse_port: false,
            buffer_bytes: 0,
        };
        let socket = UdpSocket::bind(config).unwrap();
        socket.connect("10.7.0.2:7".parse().unwrap()).unwrap();
        socket.set_segment(1_000).unwrap();
        let run = pattern(40_500, 8);
        socket.send(&run).unwrap();
        turn_until(datapath, log, |log| ipv4_frame(log).is_some());
        let frame = ipv4_frame(log).unwrap().clone();
        assert_eq!(&frame[38..], run);
        // gso_type 5 is UDP_L4; gso_size 1000.
        assert_eq!(
            (frame[1], u16::from_le_bytes([frame[4], frame[5]])),
            (5, 1_000)
        );
        write_tun(datapath, &frame);
        settle(datapath, log);
        assert!(log.tun_errors.is_empty(), "{:?}", log.tun_errors);
    });
}

#[test]
fn a_frame_that_the_tun_refuses_is_reported_and_its_slot_comes_back() {
    each_tier_with_tun(|datapath, log, _tun| {
        write_tun(datapath, &[0xFF; 12]);
        turn_until(datapath, log, |log| !log.tun_errors.is_empty());
        assert_eq!(log.tun_errors, [libc::EINVAL]);
        assert_eq!(
            (datapath.slots_free(), datapath.stats().tun_errors),
            (64, 1)
        );
    });
}

#[test]
fn a_deleted_tun_ends_the_turns() {
    each_tier_with_tun(|datapath, log, _tun| {
        Netdev::open().unwrap().remove_interface("tun0").unwrap();
        let clock = Clock::start();
        let error = loop {
            assert!(
                clock.now().since(Instant::ZERO) < DEADLINE,
                "{}",
                datapath.description()
            );
            if let Err(error) = datapath.turn(Some(Duration::from_millis(20)), log) {
                break error;
            }
        };
        assert!(matches!(error, DatapathError::TunGone(_)), "{error}");
    });
}
