//! What the model promises, measured on the model.

use super::*;
use crate::base::Rate;

/// A payload that knows its number.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Packet {
    number: u64,
    bytes: u32,
    damaged: bool,
}

impl Payload for Packet {
    fn wire_bytes(&self) -> u32 {
        self.bytes
    }
    fn corrupt(&mut self, _: &mut Rng) {
        self.damaged = true;
    }
    fn duplicate(&self) -> Option<Self> {
        Some(self.clone())
    }
}

fn link(spec: &str) -> Impairment<Packet> {
    Impairment::new(spec.parse().unwrap(), 42)
}

fn packet(number: u64) -> Packet {
    Packet {
        number,
        bytes: 1250,
        damaged: false,
    }
}

/// Sends packet after packet at a fixed distance and returns (number, arrival) of each, driven by `poll_timeout`.
fn run(link: &mut Impairment<Packet>, count: u64, gap: Duration) -> Vec<(Packet, Instant)> {
    let mut arrived = Vec::new();
    let mut send_at = Instant::ZERO;
    for number in 0..count {
        drain_until(link, send_at, &mut arrived);
        link.handle_packet(packet(number), send_at);
        send_at += gap;
    }
    drain_until(link, Instant::from_millis(10_000_000), &mut arrived);
    assert_eq!(link.held(), 0);
    arrived
}

fn drain_until(
    link: &mut Impairment<Packet>,
    until: Instant,
    arrived: &mut Vec<(Packet, Instant)>,
) {
    loop {
        let next = link.poll_timeout();
        if next > until {
            return;
        }
        while let Some(packet) = link.poll(next) {
            arrived.push((packet, next));
        }
    }
}

fn assert_balanced(link: &Impairment<Packet>) {
    let c = link.counters();
    let gone = c.delivered + c.queue_drops + c.outage_drops + c.size_drops + c.lost;
    assert_eq!(c.handled + c.duplicated, gone + link.held() as u64, "{c:?}");
}

#[test]
fn a_lone_packet_takes_its_serialisation_time_and_the_delay() {
    let mut link = link("rate=10mbit delay=7ms");
    let arrived = run(&mut link, 1, Duration::ZERO);
    assert_eq!(arrived, [(packet(0), Instant::from_millis(8))]); // 1250 bytes at 10 Mbit/s: 1 ms
}

#[test]
fn a_backlogged_link_delivers_its_rate_within_a_tenth_of_a_percent() {
    for mbit in [3, 20, 97, 1000, 9_973] {
        let mut link = link(&format!("rate={mbit}mbit delay=3ms queue=100MB"));
        let arrived = run(&mut link, 20_000, Duration::ZERO);
        assert_eq!(arrived.len(), 20_000);
        let span = arrived[19_999].1.since(arrived[0].1);
        let rate = Rate::from_bytes_over(19_999 * 1250, span).as_mbps();
        let wanted = f64::from(mbit);
        assert!((rate / wanted - 1.0).abs() < 0.001, "{rate} of {wanted}");
    }
}

#[test]
fn independent_loss_has_its_ratio_and_no_bursts() {
    let mut link = link("loss=2%");
    let losses = losses(&mut link, 200_000);
    assert!((losses.ratio / 0.02 - 1.0).abs() < 0.07, "{losses:?}"); // 4 sigma = 6.3 %
    assert!((losses.burst - 1.02).abs() < 0.02, "{losses:?}");
    assert_balanced(&link);
}

#[test]
fn gilbert_loss_has_its_ratio_and_mean_burst() {
    for (text, ratio, burst) in [("gilbert=2%/8", 0.02, 8.0), ("gilbert=10%/3", 0.1, 3.0)] {
        let mut link = link(text);
        let losses = losses(&mut link, 1_000_000);
        assert!(
            (losses.ratio / ratio - 1.0).abs() < 0.1,
            "{text}: {losses:?}"
        );
        assert!(
            (losses.burst / burst - 1.0).abs() < 0.1,
            "{text}: {losses:?}"
        );
    }
}

#[derive(Debug)]
struct Losses {
    ratio: f64,
    burst: f64,
}

#[allow(clippy::cast_precision_loss)]
fn losses(link: &mut Impairment<Packet>, count: u64) -> Losses {
    let arrived = run(link, count, Duration::from_micros(1));
    let mut next = 0;
    let (mut lost, mut bursts) = (0, 0);
    for (packet, _) in arrived {
        if packet.number > next {
            lost += packet.number - next;
            bursts += 1;
        }
        next = packet.number + 1;
    }
    Losses {
        ratio: lost as f64 / count as f64,
        burst: lost as f64 / f64::from(bursts),
    }
}

#[test]
fn a_full_queue_drops_at_the_tail_and_bounds_the_delay() {
    let mut link = link("rate=10mbit queue=20ms");
    let arrived = run(&mut link, 5_000, Duration::from_micros(500)); // twice the rate
    let c = link.counters();
    assert!(c.queue_drops > 2_400 && c.queue_drops < 2_600, "{c:?}");
    assert!(c.queue_bytes_max <= 25_000, "{c:?}");
    for (packet, at) in arrived {
        let took = at.since(
            Instant::ZERO + Duration::from_micros(500) * u32::try_from(packet.number).unwrap(),
        );
        assert!(
            took <= Duration::from_millis(20),
            "{packet:?} took {took:?}"
        );
    }
    assert_balanced(&link);
}

#[test]
fn jitter_moves_the_delay_but_never_the_order() {
    let mut link = link("rate=100mbit delay=20ms jitter=8ms loss=1% dup=1%");
    let arrived = run(&mut link, 50_000, Duration::from_micros(150));
    assert!(
        arrived
            .windows(2)
            .all(|w| w[0].0.number <= w[1].0.number && w[0].1 <= w[1].1)
    );
    let delays: Vec<_> = arrived
        .iter()
        .map(|(p, at)| at.since(Instant::from_nanos(p.number * 150_000)))
        .collect();
    let (min, max) = (delays.iter().min().unwrap(), delays.iter().max().unwrap());
    assert!(
        *min >= Duration::from_millis(20) && *min < Duration::from_millis(21),
        "{min:?}"
    );
    assert!(
        *max <= Duration::from_micros(28_200) && *max > Duration::from_millis(27),
        "{max:?}"
    );
    assert_balanced(&link);
}

#[test]
fn reordering_holds_back_its_share_and_delivers_everything() {
    let mut link = link("delay=5ms reorder=1%/3ms");
    let arrived = run(&mut link, 20_000, Duration::from_micros(100));
    assert_eq!(arrived.len(), 20_000);
    let late = arrived
        .windows(2)
        .filter(|w| w[1].0.number < w[0].0.number)
        .count() as u64;
    assert!((150..250).contains(&late), "{late}");
    assert!((150..250).contains(&link.counters().reordered));
    assert!(arrived.windows(2).all(|w| w[0].1 <= w[1].1));
}

#[test]
fn damage_and_copies_have_their_share() {
    let mut link = link("dup=1% corrupt=2%");
    let arrived = run(&mut link, 50_000, Duration::from_micros(10));
    let copies = arrived
        .windows(2)
        .filter(|w| w[0].0.number == w[1].0.number)
        .count() as u64;
    let damaged = arrived.iter().filter(|(p, _)| p.damaged).count();
    assert!(
        (400..600).contains(&copies) && copies == link.counters().duplicated,
        "{copies}"
    );
    assert!((850..1200).contains(&damaged), "{damaged}");
    assert_balanced(&link);
}

#[test]
fn a_flipped_bit_is_exactly_one() {
    let mut bytes = vec![0_u8; 100];
    bytes.corrupt(&mut Rng::new(1));
    assert_eq!(bytes.iter().map(|b| b.count_ones()).sum::<u32>(), 1);
}

#[test]
fn an_outage_destroys_what_enters_and_what_is_on_its_way() {
    let mut link = link("delay=10ms outage=100ms+50ms");
    let arrived = run(&mut link, 300, Duration::from_millis(1));
    let numbers: Vec<_> = arrived.iter().map(|(p, _)| p.number).collect();
    let wanted: Vec<_> = (0..90).chain(150..300).collect();
    assert_eq!(numbers, wanted);
    assert_balanced(&link);
}

#[test]
fn the_switch_is_an_outage_until_it_is_turned() {
    let mut link = link("delay=1ms");
    link.handle_packet(packet(0), Instant::from_millis(1));
    let mut spec = link.spec().clone();
    spec.apply("outage").unwrap();
    link.set_spec(spec.clone(), Instant::from_millis(1));
    link.handle_packet(packet(1), Instant::from_millis(2));
    assert_eq!(link.poll(Instant::from_millis(50)), None);
    spec.apply("outage=off").unwrap();
    link.set_spec(spec, Instant::from_millis(50));
    link.handle_packet(packet(2), Instant::from_millis(50));
    assert_eq!(link.poll(Instant::from_millis(51)), Some(packet(2)));
    assert_eq!(link.counters().outage_drops, 2);
}

#[test]
fn a_handover_delays_and_loses_nothing() {
    let mut link = link("rate=10mbit delay=5ms queue=1MB handover=1s/100ms");
    let arrived = run(&mut link, 2_500, Duration::from_millis(1));
    assert_eq!(arrived.len(), 2_500);
    let gaps: Vec<_> = arrived.windows(2).map(|w| w[1].1.since(w[0].1)).collect();
    let long = gaps
        .iter()
        .filter(|gap| **gap > Duration::from_millis(50))
        .count();
    assert_eq!(long, 2, "one silence in each full second after the first");
    assert!(gaps.iter().all(|gap| *gap <= Duration::from_millis(102)));
}

#[test]
fn handovers_of_random_length_stay_in_their_range_and_repeat_for_a_seed() {
    let silences = |seed| {
        let mut link = Impairment::new(
            "rate=10mbit queue=1MB handover=500ms/60ms-135ms@200ms"
                .parse()
                .unwrap(),
            seed,
        );
        let arrived = run(&mut link, 5_000, Duration::from_millis(1));
        let gaps = arrived.windows(2).map(|w| w[1].1.since(w[0].1));
        gaps.filter(|gap| *gap > Duration::from_millis(30))
            .collect::<Vec<_>>()
    };
    let lengths = silences(1);
    assert!(lengths.len() >= 9);
    let range = Duration::from_millis(60)..Duration::from_millis(138);
    assert!(
        lengths.iter().all(|length| range.contains(length)),
        "{lengths:?}"
    );
    assert_eq!(lengths, silences(1));
    assert_ne!(lengths, silences(2));
}

#[test]
fn a_trace_gives_its_opportunities_and_no_more() {
    let mut spec: Spec = "queue=100MB".parse().unwrap();
    spec.capacity = Capacity::Trace(Trace::parse("1\n2\n10\n").unwrap().into());
    let mut link = Impairment::new(spec, 1);
    // 752 bytes: two packets in each opportunity.
    for number in 0..12 {
        link.handle_packet(
            Packet {
                number,
                bytes: 752,
                damaged: false,
            },
            Instant::ZERO,
        );
    }
    let mut arrived = Vec::new();
    drain_until(&mut link, Instant::from_millis(1_000), &mut arrived);
    let times: Vec<_> = arrived
        .iter()
        .map(|(_, at)| at.as_nanos() / 1_000_000)
        .collect();
    assert_eq!(times, [1, 1, 2, 2, 10, 10, 11, 11, 12, 12, 20, 20]);
    // What is not used at its time is gone; a packet larger than the rest of one waits for the next.
    link.handle_packet(packet(12), Instant::from_nanos(20_500_000));
    link.handle_packet(packet(13), Instant::from_nanos(20_500_000));
    arrived.clear();
    drain_until(&mut link, Instant::from_millis(1_000), &mut arrived);
    let times: Vec<_> = arrived
        .iter()
        .map(|(_, at)| at.as_nanos() / 1_000_000)
        .collect();
    assert_eq!(times, [21, 22]);
}

#[test]
fn a_new_rate_serves_the_queue_that_is_already_there() {
    let mut link = link("rate=10mbit queue=1MB");
    for number in 0..10 {
        link.handle_packet(packet(number), Instant::ZERO);
    }
    let mut spec = link.spec().clone();
    spec.apply("rate=1mbit").unwrap();
    link.set_spec(spec, Instant::from_nanos(4_500_000)); // four are gone, the fifth is being sent
    let mut arrived = Vec::new();
    drain_until(&mut link, Instant::from_millis(1_000), &mut arrived);
    let times: Vec<_> = arrived
        .iter()
        .map(|(_, at)| at.as_nanos() / 1_000_000)
        .collect();
    assert_eq!(times, [1, 2, 3, 4, 5, 15, 25, 35, 45, 55]);
}

#[test]
fn packets_beyond_the_mtu_disappear() {
    for (mtu, through) in [(1249, 0), (1250, 10)] {
        let mut link = link(&format!("mtu={mtu} delay=1ms"));
        assert_eq!(run(&mut link, 10, Duration::ZERO).len(), through);
        assert_eq!(link.counters().size_drops, 10 - through as u64);
        assert_balanced(&link);
    }
}

#[test]
fn the_same_seed_gives_the_same_link() {
    let text = "rate=50mbit delay=10ms jitter=4ms gilbert=3%/4 dup=1% reorder=2% corrupt=1% handover=1s/50ms-90ms";
    let go = |seed| {
        let mut link = Impairment::new(text.parse().unwrap(), seed);
        run(&mut link, 20_000, Duration::from_micros(250))
    };
    assert_eq!(go(1), go(1));
    assert_ne!(go(1), go(2));
}

#[test]
fn late_reading_does_not_change_the_arrival_times() {
    let mut prompt = link("rate=10mbit delay=20ms");
    let mut lazy = link("rate=10mbit delay=20ms");
    let expected = run(&mut prompt, 10, Duration::from_millis(3));
    let mut arrived = Vec::new();
    for number in 0..10 {
        // The emulator looks at its clock, finds nothing due, and only then reads a packet that came 10 ms ago.
        drain_until(
            &mut lazy,
            Instant::from_millis(number * 3 + 10),
            &mut arrived,
        );
        lazy.handle_packet(packet(number), Instant::from_millis(number * 3));
    }
    drain_until(&mut lazy, Instant::from_millis(1_000), &mut arrived);
    assert_eq!(arrived, expected);
}

#[test]
fn specifications_read_back_what_they_print() {
    for text in [
        "",
        "rate=100mbit queue=20ms delay=10ms jitter=2ms loss=2%",
        "rate=1500kbit queue=64000B gilbert=2%/8 dup=0.1% reorder=1%/5ms corrupt=0.01%",
        "outage=8s+3s,20s+1s handover=15s/100ms",
        "outage=on handover=15s/60ms-135ms@5s",
        "loss=0.123456789123",
        "rate=1mbit mtu=1400 dup=1%",
    ] {
        let spec: Spec = text.parse().unwrap();
        assert_eq!(spec.to_string(), text);
        assert_eq!(spec.to_string().parse::<Spec>().unwrap(), spec);
    }
    assert_eq!(
        "delay=1.5ms".parse::<Spec>().unwrap().to_string(),
        "delay=1500us"
    );
    assert_eq!(
        "rate=0.5gbit outage".parse::<Spec>().unwrap().to_string(),
        "rate=500mbit outage=on"
    );
}

#[test]
fn bad_specifications_say_what_would_be_right() {
    for (text, part) in [
        ("rate", "'rate' is not of the form key=value"),
        ("speed=3", "unknown key 'speed'; keys: rate, trace"),
        ("rate=100", "rate=100: expected a rate such as 100mbit"),
        ("rate=0mbit", "expected a rate"),
        ("delay=10", "expected a time such as 10ms"),
        ("loss=200%", "expected a share such as 2%"),
        (
            "gilbert=90%/2",
            "mean burst of 1 or more that the loss allows",
        ),
        ("mtu=67", "mtu=67: expected bytes such as 1400"),
        ("queue=big", "expected a time such as 50ms or bytes"),
        ("outage=8s", "start+length"),
        ("handover=1s/2s", "length < period"),
        ("trace=/nonexistent", "trace=/nonexistent: "),
    ] {
        let error = text.parse::<Spec>().unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
    let mut spec: Spec = "rate=1mbit".parse().unwrap();
    assert!(spec.apply("rate=2mbit loss=oops").is_err());
    assert_eq!(
        spec.to_string(),
        "rate=1mbit",
        "a refused change changes nothing"
    );
}
