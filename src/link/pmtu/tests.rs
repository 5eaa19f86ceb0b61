//! What the search finds on paths of every kind.

use super::*;
use crate::base::Rng;

const BASE: u32 = 1260;

/// A path that carries packets up to `mtu` and loses others with probability `loss`; returns the probes it took.
fn run(search: &mut Search, mtu: u32, loss: f64, rng: &mut Rng) -> u64 {
    let mut number = 0;
    while let Some(bytes) = search.wanted() {
        number += 1;
        assert!(number < 100, "the search ends");
        let now = Instant::from_millis(number * 30);
        search.on_transmit(number, bytes);
        assert_eq!(search.wanted(), None, "one probe at a time");
        if bytes <= mtu && !rng.chance(loss) {
            search.on_probe_acked(number, bytes, now);
        } else {
            search.on_probe_lost(number, bytes, now);
        }
        assert!(search.size() <= mtu.max(BASE));
    }
    number
}

#[test]
fn a_path_that_carries_all_takes_one_probe() {
    let mut search = Search::new(BASE, 1500);
    assert_eq!((search.size(), search.wanted()), (BASE, Some(1500)));
    assert_eq!(run(&mut search, 1500, 0.0, &mut Rng::new(1)), 1);
    assert_eq!(search.size(), 1500);
    assert_eq!(search.poll_timeout(), Instant::FAR, "there is no more");
}

#[test]
fn every_path_is_found_to_the_next_known_size() {
    for max in [1260, 1472, 1480, 1500, 9000] {
        for mtu in (1260..9100).step_by(2) {
            let mut search = Search::new(BASE, max);
            let probes = run(&mut search, mtu, 0.0, &mut Rng::new(1));
            let best = SIZES
                .iter()
                .chain([&BASE, &max])
                .filter(|size| **size <= mtu && **size <= max)
                .max();
            assert_eq!(Some(&search.size()), best, "mtu {mtu} max {max}");
            // The longest, the base, and one in each halving of 24, three times each.
            assert!(probes <= 3 * 7, "{probes}");
        }
    }
}

#[test]
fn lost_probes_rarely_cost_size() {
    let mut rng = Rng::new(7);
    let full = (0..1000)
        .filter(|_| {
            let mut search = Search::new(BASE, 1500);
            run(&mut search, 1500, 0.1, &mut rng);
            search.size() == 1500
        })
        .count();
    assert!(full >= 990, "{full}");
}

#[test]
fn a_path_below_the_base_is_narrow_and_asked_again() {
    let mut search = Search::new(BASE, 1500);
    run(&mut search, 1200, 0.0, &mut Rng::new(1));
    assert!(search.is_narrow());
    let at = search.poll_timeout();
    search.handle_timeout(at);
    assert!(search.is_narrow(), "until something arrives");
    run(&mut search, 1400, 0.0, &mut Rng::new(1));
    assert!(!search.is_narrow());
    assert_eq!(search.size(), 1400);
}

#[test]
fn after_ten_minutes_the_path_may_carry_more() {
    let mut search = Search::new(BASE, 1500);
    run(&mut search, 1400, 0.0, &mut Rng::new(1));
    assert_eq!(search.size(), 1400);
    search.handle_timeout(search.poll_timeout() - Duration::from_millis(1));
    assert_eq!(search.wanted(), None);
    search.handle_timeout(search.poll_timeout());
    assert_eq!((search.wanted(), search.size()), (Some(1500), 1400));
    run(&mut search, 1500, 0.0, &mut Rng::new(1));
    assert_eq!(search.size(), 1500);
}

#[test]
fn the_kernels_word_shortens_at_once_and_is_tried_itself() {
    let mut search = Search::new(BASE, 1500);
    search.on_transmit(1, 1500);
    assert!(!search.limit(1400, Instant::ZERO));
    assert_eq!(search.wanted(), Some(1400));
    run(&mut search, 1400, 0.0, &mut Rng::new(1));
    assert_eq!(search.size(), 1400);
    assert!(search.limit(1300, Instant::ZERO));
    assert_eq!(search.size(), 1300);
    assert!(search.limit(1000, Instant::ZERO) && search.is_narrow());
}

#[test]
fn what_happens_to_a_probe_of_a_link_in_trouble_says_nothing() {
    let mut search = Search::new(BASE, 1500);
    for number in 0..20 {
        search.on_transmit(number, 1500);
        search.interrupt();
        search.on_probe_lost(number, 1500, Instant::ZERO);
    }
    assert_eq!(search.wanted(), Some(1500));
    search.on_transmit(30, 1500);
    search.on_probe_unknown(30);
    assert_eq!(search.wanted(), Some(1500));
    // A late answer is an answer.
    search.on_probe_acked(3, 1500, Instant::ZERO);
    assert_eq!(search.size(), 1500);
}

/// Feeds `(length, arrived)` one each 10 ms; says whether a black hole was found.
fn feed(search: &mut Search, fates: &[(u32, bool)]) -> bool {
    let rtt = Duration::from_millis(20);
    (0..).zip(fates).any(|(n, &(bytes, arrived))| {
        search.on_fate(bytes, Instant::from_millis(1_000 + n * 10), arrived, rtt)
    })
}

fn validated() -> Search {
    let mut search = Search::new(BASE, 1500);
    run(&mut search, 1500, 0.0, &mut Rng::new(1));
    search
}

#[test]
fn long_datagrams_that_vanish_while_short_ones_pass_are_a_black_hole() {
    let mut search = validated();
    let (long, short) = ((1500, false), (100, true));
    assert!(!feed(&mut search, &[long; 9]), "nothing arrives at all");
    assert!(!feed(&mut validated(), &[long, long, short, short, short]));
    assert!(feed(&mut search, &[short, long, long, short, long, short]));
    assert_eq!((search.size(), search.black_holes()), (BASE, 1));
    assert_eq!(search.wanted(), Some(1500), "the search begins anew");
}

#[test]
fn outages_and_full_queues_are_no_black_holes() {
    let (long, short) = ((1500, false), (100, false));
    // An outage loses short ones as well.
    assert!(!feed(
        &mut validated(),
        &[long, long, long, short, long, (100, true), (1500, true)]
    ));
    // A full queue lets a short one pass, and a long one soon after.
    for _ in 0..3 {
        let mut search = validated();
        assert!(!feed(
            &mut search,
            &[long, long, (100, true), (1500, true), long, (100, true)]
        ));
    }
    // One burst that is lost says nothing, however long short ones pass behind it.
    let mut search = validated();
    for bytes in [1500; 9] {
        search.on_fate(bytes, Instant::from_millis(5), false, Duration::ZERO);
    }
    for ms in [6, 60, 600] {
        assert!(!search.on_fate(100, Instant::from_millis(ms), true, Duration::ZERO));
    }
    assert_eq!(search.size(), 1500);
}
