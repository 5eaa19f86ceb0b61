//! Datagrams: runs, refusals, floods, removal.

use std::net::SocketAddr;
use std::os::fd::AsFd;

use super::*;
use crate::sys::udp::{UdpConfig, set_segment};

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
fn a_run_is_never_cut_at_another_size_than_its_own() {
    each_tier(|datapath, log| {
        let (a, b) = loopback_pair(true);
        datapath.add_socket(1, &a, false).unwrap();
        datapath.add_socket(2, &b, false).unwrap();
        let run = pattern(2_500, 4);
        send(datapath, 1, &run, 1_000);
        turn_until(datapath, log, |log| log.datagrams.len() == 3);
        // The socket cuts at 1400, the run at 1000: one write that says so.
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
        assert_eq!((datapath.stats().gso_sends, datapath.stats().sends), (1, 8));
        settle(datapath, log);
        assert_eq!(datapath.slots_free(), 64);
    });
}

#[test]
fn a_run_of_another_size_that_the_kernel_refuses_is_sent_again_and_the_socket_learns() {
    each_tier(|datapath, log| {
        let (a, b) = loopback_pair(true);
        a.set_segment(1_400).unwrap();
        crate::sys::option::set(&a, libc::SOL_SOCKET, libc::SO_NO_CHECK, 1).unwrap();
        datapath.add_socket(1, &a, false).unwrap();
        datapath.add_socket(2, &b, false).unwrap();
        let run = pattern(3_300, 6);
        for round in 1..4 {
            send(datapath, 1, &run, 1_000);
            turn_until(datapath, log, |log| log.datagrams.len() == round * 4);
        }
        assert_eq!(log.received(2), run.repeat(3));
        assert_eq!((datapath.segment(1), datapath.stats().demotions), (0, 1));
    });
}

/// Runs that leave without a copy, as far as we are concerned; loopback copies them.
fn zero_copy_runs(mode: ZeroCopy, runs: usize) -> Option<(Stats, usize)> {
    let config = Config {
        zero_copy: mode,
        ..Config::default()
    };
    let Ok(mut datapath) = Datapath::open(config) else {
        return None;
    };
    if datapath.tier() == Tier::Epoll {
        eprintln!("SKIPPED: no io_uring");
        return None;
    }
    let datapath = &mut datapath;
    let log = &mut Log::default();
    let (a, b) = loopback_pair(true);
    a.set_segment(1_400).unwrap();
    datapath.add_socket(1, &a, false).unwrap();
    datapath.add_socket(2, &b, true).unwrap();
    for seed in 0..runs {
        // Slots are used again at once, so a buffer that came back too early would show as a wrong run.
        let run = pattern(20_000, seed as u64);
        log.datagrams.clear();
        send(datapath, 1, &run, 1_400);
        turn_until(datapath, log, |log| log.received(2).len() >= run.len());
        assert_eq!(log.received(2), run, "run {seed}");
    }
    settle(datapath, log);
    Some((*datapath.stats(), datapath.slots_free()))
}

#[test]
fn zero_copy_turns_itself_off_where_the_kernel_copies() {
    let Some((stats, free)) = zero_copy_runs(ZeroCopy::Auto, 80) else {
        return;
    };
    if stats.zero_copy_sends == 0 {
        eprintln!("SKIPPED: no zero-copy sends (Linux 6.0)");
        return;
    }
    assert_eq!((stats.zero_copy_ended, free), (1, 64));
    assert!(stats.zero_copy_sends < 40, "{stats:?}");
    assert_eq!(stats.zero_copy_copied, stats.zero_copy_sends);
    assert_eq!((stats.sends, stats.send_errors), (80, 0));
}

#[test]
fn zero_copy_does_as_it_is_told() {
    let Some((always, free)) = zero_copy_runs(ZeroCopy::On, 80) else {
        return;
    };
    assert!(matches!(always.zero_copy_sends, 0 | 80), "{always:?}");
    assert_eq!((always.zero_copy_ended, free), (0, 64));
    let (never, _) = zero_copy_runs(ZeroCopy::Off, 40).unwrap();
    assert_eq!(never.zero_copy_sends, 0);
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
fn segments_set_behind_our_back_are_noticed_when_the_socket_is_added() {
    each_tier(|datapath, _| {
        let (a, _b) = loopback_pair(true);
        set_segment(a.as_fd(), 777).unwrap();
        datapath.add_socket(1, &a, false).unwrap();
        assert_eq!(datapath.segment(1), 777);
        assert_eq!(datapath.segment(2), 0);
    });
}
