//! The TCP over one plain link, without any tunnel: whether it does what a kernel's would.

use std::time::Duration;

use super::{CongestionControl, Tcp, TcpConfig};
use crate::base::Instant;
use crate::sim::impairment::{Impairment, Spec};
use crate::sim::packet::{self, Body, FlowAddress, MSS, Side};

/// Bytes of a full segment on the link.
const PACKET_BYTES: usize = packet::MTU + crate::wire::virtio::VIRTIO_BYTES;

/// One TCP from the client, for a time.
fn over(words: &str, control: CongestionControl, seconds: u64) -> Tcp {
    let address = FlowAddress { client: 0, flow: 0 };
    let config = TcpConfig {
        control,
        ..TcpConfig::default()
    };
    let mut tcp = Tcp::new(address, Side::Client, config);
    let mut data = Impairment::<Vec<u8>>::new(Spec::parse(words).unwrap(), 1);
    let mut acks = Impairment::<Vec<u8>>::new(Spec::parse("delay=20ms").unwrap(), 2);
    let (mut now, end) = (Instant::ZERO, Instant::from_millis(seconds * 1_000));
    let mut frame = Vec::new();
    while now < end {
        tcp.handle_timeout(now);
        while tcp.poll_frame(Side::Client, now, &mut frame) {
            data.handle_packet(frame.clone(), now);
        }
        for (link, to) in [(&mut data, Side::Server), (&mut acks, Side::Client)] {
            while let Some(bytes) = link.poll(now) {
                let Body::Tcp(segment) = packet::read(&bytes).unwrap().body else {
                    panic!("not a segment");
                };
                tcp.handle_segment(to, &segment, now);
            }
        }
        while tcp.poll_frame(Side::Server, now, &mut frame) {
            acks.handle_packet(frame.clone(), now);
        }
        let next = tcp.poll_timeout().min(data.poll_timeout());
        now = now.max(next.min(acks.poll_timeout()));
    }
    tcp
}

/// Goodput of the last seconds as part of what the link carries, and the median round trip.
fn figures(tcp: &Tcp, mbps: f64, from: u64, to: u64) -> (f64, Duration) {
    let (from, to) = (Instant::from_millis(from), Instant::from_millis(to));
    let share = MSS as f64 / PACKET_BYTES as f64;
    let efficiency = tcp.goodput(from, to).as_mbps() / (mbps * share);
    (efficiency, tcp.rtt_quantile(0.5, from, to).unwrap())
}

#[test]
fn cubic_fills_a_link_with_a_queue() {
    let words = "rate=170mbit delay=20ms queue=50ms";
    let tcp = over(words, CongestionControl::Cubic, 20);
    let (efficiency, rtt) = figures(&tcp, 170.0, 10_000, 20_000);
    assert!(
        efficiency > 0.92,
        "{efficiency} {rtt:?} {:?}",
        tcp.counters()
    );
}

#[test]
fn bbr_fills_a_link_and_leaves_its_queue_short() {
    let words = "rate=170mbit delay=20ms queue=200ms";
    let tcp = over(words, CongestionControl::Bbr, 25);
    let (efficiency, rtt) = figures(&tcp, 170.0, 5_000, 25_000);
    let told = format!("{efficiency} {rtt:?} {:?}", tcp.counters());
    assert!(efficiency > 0.92, "{told}");
    assert!(rtt < Duration::from_millis(52), "{told}");
    assert_eq!(tcp.counters().timeouts, 0, "{told}");
}

#[test]
fn bbr_finds_the_round_trip_again_every_ten_seconds() {
    let words = "rate=50mbit delay=20ms queue=200ms";
    let tcp = over(words, CongestionControl::Bbr, 25);
    let quiet =
        (30..245).filter(|&tenth| figures(&tcp, 50.0, tenth * 100, tenth * 100 + 100).0 < 0.5);
    let quiet = quiet.count();
    assert!((2..=8).contains(&quiet), "{quiet} tenths of a second");
}

#[test]
fn losses_stop_cubic_and_not_bbr() {
    let words = "rate=100mbit delay=20ms queue=50ms loss=2%";
    let [cubic, bbr] = [CongestionControl::Cubic, CongestionControl::Bbr]
        .map(|control| figures(&over(words, control, 15), 100.0, 5_000, 15_000).0);
    assert!(cubic < 0.15, "{cubic}");
    assert!(bbr > 0.8, "{bbr}");
}
