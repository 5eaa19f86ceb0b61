//! Frames of a real TUN, turned round and written back: what the sockets get is what was sent.

use std::net::UdpSocket;
use std::time::Duration;

use super::*;
use crate::sys::datapath::Config;
use crate::sys::netdev::Netdev;
use crate::sys::testing::{self, DEADLINE, in_namespace};
use crate::sys::{Handler, TunConfig};

/// Keeps IPv4 frames with their addresses and ports swapped.
#[derive(Default)]
struct Mirror {
    frames: Vec<Vec<u8>>,
    refused: usize,
}

impl Handler for Mirror {
    fn on_frame(&mut self, frame: &mut [u8]) {
        if frame[10] >> 4 == 4 {
            for at in 0..4 {
                frame.swap(22 + at, 26 + at);
            }
            frame.swap(30, 32);
            frame.swap(31, 33);
            self.frames.push(frame.to_vec());
        }
    }
    fn on_datagrams(&mut self, _: u32, _: &mut [u8]) {}
    fn on_readable(&mut self, _: u32) {}
    fn on_send_error(&mut self, _: u32, _: i32, _: usize) {}
    fn on_tun_error(&mut self, _: i32, _: &[u8]) {
        self.refused += 1;
    }
    fn on_wake(&mut self) {}
}

/// A TUN in a namespace, three sockets, and the turned frames of ten datagrams of each, in turn.
fn with_frames(
    test: impl Fn(&mut Datapath, &mut Mirror, &mut Landing, &[UdpSocket]) + Send + 'static,
) {
    in_namespace(move || {
        let Some(tun) = testing::tun("tun0", TunConfig::default()) else {
            return;
        };
        if !tun.offloads().udp_segmentation() {
            eprintln!("SKIPPED: no UDP segmentation on TUN devices (Linux 6.2)");
            return;
        }
        let mut netdev = Netdev::open().unwrap();
        let peer = Some("10.7.0.2".parse().unwrap());
        let address = "10.7.0.1/32".parse().unwrap();
        netdev.add_address("tun0", address, peer).unwrap();
        netdev.set_up("tun0", true).unwrap();
        let mut datapath = Datapath::open(Config::default()).unwrap();
        datapath.add_tun(tun.queue(0)).unwrap();
        let mut mirror = Mirror::default();
        let sockets: Vec<_> = (0..3)
            .map(|_| UdpSocket::bind("10.7.0.1:0").unwrap())
            .collect();
        for number in 0..10_u8 {
            for socket in &sockets {
                socket.send_to(&[number; 200], "10.7.0.2:7").unwrap();
            }
        }
        for _ in 0..200 {
            let wait = Some(Duration::from_millis(10));
            datapath.turn(wait, &mut mirror).unwrap();
            if mirror.frames.len() == 30 {
                break;
            }
        }
        assert_eq!(mirror.frames.len(), 30);
        let mut landing = Landing::new(tun.offloads());
        test(&mut datapath, &mut mirror, &mut landing, &sockets);
    });
}

fn land(datapath: &mut Datapath, landing: &mut Landing, frames: &[Vec<u8>]) {
    let mut spare = None;
    for frame in frames {
        let slot = spare.take().or_else(|| datapath.send_slot()).unwrap();
        datapath.slot_bytes(&slot)[..frame.len()].copy_from_slice(frame);
        spare = landing.take(slot, frame.len(), datapath);
    }
    if let Some(slot) = spare {
        datapath.release(slot);
    }
    landing.finish(datapath);
}

/// All ten arrive, in order.
fn check(sockets: &[UdpSocket], datapath: &mut Datapath, mirror: &mut Mirror) {
    let wait = Some(Duration::from_millis(2));
    for _ in 0..4 {
        datapath.turn(wait, mirror).unwrap();
    }
    assert_eq!(mirror.refused, 0);
    for socket in sockets {
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        for number in 0..10_u8 {
            let mut buffer = [0; 256];
            let count = socket.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..count], [number; 200]);
        }
    }
    assert_eq!(datapath.slots_free(), 64);
}

#[test]
fn datagrams_of_several_flows_are_written_as_one_superframe_each() {
    with_frames(|datapath, mirror, landing, sockets| {
        let frames = std::mem::take(&mut mirror.frames);
        land(datapath, landing, &frames);
        check(sockets, datapath, mirror);
        assert_eq!(landing.stats().merged, 27);
        assert_eq!(datapath.stats().tun_writes, 3);
    });
}

#[test]
fn a_refused_superframe_is_written_as_packets_and_no_more_are_made() {
    with_frames(|datapath, mirror, landing, sockets| {
        let frames = std::mem::take(&mut mirror.frames);
        let mut held = frames[0].clone();
        held.resize(70_000, 0);
        let mut train = Train::start(&frames[0]).unwrap();
        for frame in frames.iter().skip(3).step_by(3) {
            assert!(train.append(&mut held, frame));
        }
        let bytes = train.finish(&mut held);
        assert!(landing.refused(&held[..bytes]));
        landing.write_parts(datapath);
        let others: Vec<_> = frames
            .iter()
            .enumerate()
            .filter(|(at, _)| at % 3 > 0)
            .map(|(_, frame)| frame.clone())
            .collect();
        land(datapath, landing, &others);
        check(sockets, datapath, mirror);
        let stats = landing.stats();
        assert_eq!((stats.merged, stats.split), (0, 10));
        assert_eq!(datapath.stats().tun_writes, 30);
        assert!(!landing.refused(&frames[0]), "a packet has no parts");
    });
}
