//! Tests of the equaliser: which lanes it delays, by how much, and what it takes for a probe.

use super::*;

const RTT: Duration = Duration::from_millis(20);
const LANE: Lane = Lane(3);

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Runs for some seconds with a lane at a rate and the links' rate in use, and tells the lane's level at the end.
fn run(equaliser: &mut Equaliser, now: &mut Instant, seconds: u64, lane: u64, used: u64) -> u64 {
    for _ in 0..seconds * 100 {
        *now += ms(10);
        let bytes = Rate::from_mbps(lane).bytes_in(ms(10));
        equaliser.on_frame(LANE, usize::try_from(bytes).unwrap(), *now);
        let mut links =
            [(60, 50), (0, 100)].map(|(delay, rate)| (ms(delay), Rate::from_mbps(rate)));
        equaliser.rtt = RTT;
        equaliser.refresh(&mut links, Rate::from_mbps(used), false, *now);
    }
    let level = equaliser.level_of(LANE, *now);
    u64::try_from(level.as_millis()).unwrap()
}

#[test]
fn bulk_is_delayed_after_two_seconds_and_more_after_a_probe_for_the_round_trip() {
    let mut now = Instant::ZERO;
    let mut equaliser = Equaliser::new(now);
    assert_eq!(run(&mut equaliser, &mut now, 1, 90, 90), 0, "short");
    assert_eq!(run(&mut equaliser, &mut now, 2, 90, 90), 16, "0.8 of 20 ms");
    assert_eq!(run(&mut equaliser, &mut now, 8, 90, 90), 16);
    // (20 + 60) / 1.25 - 20 = 44, which the second step allows (44.8).
    assert!((42..=44).contains(&run(&mut equaliser, &mut now, 4, 90, 90)));
}

#[test]
fn a_pause_of_a_probe_changes_nothing_and_a_long_one_ends_it() {
    let mut now = Instant::ZERO;
    let mut equaliser = Equaliser::new(now);
    let before = run(&mut equaliser, &mut now, 16, 90, 90);
    assert!(before > 30);
    assert_eq!(run(&mut equaliser, &mut now, 1, 1, 1), before);
    assert_eq!(run(&mut equaliser, &mut now, 1, 90, 90), before);
    assert_eq!(run(&mut equaliser, &mut now, 5, 1, 1), 0);
}

/// What a BBR flow sends while it looks for the round trip, after its window has drained.
fn probe(equaliser: &mut Equaliser, now: &mut Instant) {
    for _ in 0..6 {
        *now += ms(40);
        for _ in 0..4 {
            equaliser.on_frame(LANE, 1_500, *now);
        }
    }
}

#[test]
fn a_probe_for_the_round_trip_is_the_next_step_and_no_more() {
    let mut now = Instant::ZERO;
    let mut equaliser = Equaliser::new(now);
    assert_eq!(run(&mut equaliser, &mut now, 10, 90, 90), 16);
    assert!(!equaliser.probed);
    equaliser.round = ms(100);
    probe(&mut equaliser, &mut now);
    assert_eq!(equaliser.level_of(LANE, now), ms(16), "what it finds");
    run(&mut equaliser, &mut now, 1, 90, 90);
    // 1.8 times the 36 ms that it found, of 100.
    let level = equaliser.level_of(LANE, now).as_secs_f64();
    assert!((level - 0.0448).abs() < 1e-6, "{level}");
    assert!(equaliser.probed, "what it has in flight may stand");
    run(&mut equaliser, &mut now, 16, 90, 90);
    assert!(!equaliser.probed, "it would have probed again");
}

#[test]
fn a_pause_that_ends_at_full_rate_is_no_probe() {
    let mut now = Instant::ZERO;
    let mut equaliser = Equaliser::new(now);
    assert_eq!(run(&mut equaliser, &mut now, 10, 90, 90), 16);
    now += ms(300);
    assert_eq!(run(&mut equaliser, &mut now, 1, 90, 90), 16);
    assert!(!equaliser.probed);
}

#[test]
fn the_round_trip_outlasts_doubt_about_a_link_and_the_return_of_a_quicker_one() {
    let mut now = Instant::ZERO;
    let mut equaliser = Equaliser::new(now);
    let before = run(&mut equaliser, &mut now, 26, 90, 90);
    let quick = |equaliser: &mut Equaliser, now: &mut Instant, millis: u64| {
        for _ in 0..millis / 10 {
            *now += ms(10);
            equaliser.on_frame(LANE, 112_500, *now);
            let mut links = [(ms(0), Rate::from_mbps(100))];
            equaliser.refresh(&mut links, Rate::from_mbps(90), false, *now);
        }
        u64::try_from(equaliser.level_of(LANE, *now).as_millis()).unwrap()
    };
    assert!(before >= 42);
    assert_eq!(quick(&mut equaliser, &mut now, 2_500), before);
    assert_eq!(quick(&mut equaliser, &mut now, 3_000), 0);
    // Over the slower links alone the round trip is as long by itself.
    equaliser.rtt = ms(60);
    quick(&mut equaliser, &mut now, 1_000);
    equaliser.rtt = RTT;
    assert!(quick(&mut equaliser, &mut now, 10) >= 38);
}

#[test]
fn small_flows_and_loads_that_the_quick_links_carry_are_left_alone() {
    let mut now = Instant::ZERO;
    let mut equaliser = Equaliser::new(now);
    assert_eq!(run(&mut equaliser, &mut now, 20, 4, 140), 0);
    let mut equaliser = Equaliser::new(now);
    assert_eq!(run(&mut equaliser, &mut now, 20, 60, 60), 0);
    let other = equaliser.level_of(Lane(4), now);
    assert!(other.is_zero());
}

#[test]
fn asked_for_all_it_follows_the_slowest_link_without_load() {
    let mut equaliser = Equaliser::new(Instant::ZERO);
    for at in 0..100 {
        let mut links = [(ms(60), Rate::from_mbps(50)), (ms(0), Rate::from_mbps(100))];
        let now = Instant::from_millis(at * 20);
        equaliser.rtt = RTT;
        equaliser.refresh(&mut links, Rate::ZERO, true, now);
    }
    assert!((ms(42)..=ms(44)).contains(&equaliser.level()));
}
