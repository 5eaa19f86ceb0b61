//! Frames in both directions.

use super::*;
use crate::sys::netdev::Netdev;
use crate::sys::testing::{self, in_namespace};
use crate::sys::tun::{Tun, TunConfig};
use crate::sys::udp::UdpConfig;

/// Each tier with a TUN `tun0` of its own, which is up as 10.7.0.1 and leads to 10.7.0.2.
fn each_tier_with_tun(test: impl Fn(&mut Datapath, &mut Log, &Tun) + Copy + Send + 'static) {
    for tier in Tier::ALL {
        in_namespace(move || {
            let Some(mut datapath) = open(tier) else {
                return;
            };
            let Some(tun) = testing::tun("tun0", TunConfig::default()) else {
                return;
            };
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

fn write_tun(datapath: &mut Datapath, frame: &[u8]) {
    let slot = datapath.send_slot().unwrap();
    datapath.slot_bytes(&slot)[..frame.len()].copy_from_slice(frame);
    datapath.write_tun(slot, frame.len());
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
