//! Tests of the scheduler: a slow model of earliest delivery, and what the split looks like over time.

use proptest::prelude::*;
use proptest::strategy::Strategy as _;

use super::*;
use crate::stripe::Strategy;
use crate::stripe::weight::{Assessment, Exponents, Figures, assess};

const STRATEGIES: [Strategy; 5] = [
    Strategy::EarliestDelivery,
    Strategy::Weighted,
    Strategy::SingleBest,
    Strategy::RoundRobin,
    Strategy::Redundant,
];
const PACKET: u32 = 1450;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Candidates as the composer fills them from (Mbit/s, relative one-way delay in ms, loss).
fn links(figures: &[(u64, u64, f64)], load: f64) -> Vec<Candidate> {
    let figures: Vec<Figures> = figures
        .iter()
        .map(|&(mbps, delay, loss)| Figures {
            capacity: Rate::from_mbps(mbps),
            delay_p50: ms(delay),
            delay_p95: ms(delay + 1),
            delay_base: ms(10),
            loss,
        })
        .collect();
    let mut assessed = vec![Assessment::default(); figures.len()];
    assess(&figures, Exponents::default(), load, &mut assessed);
    (0_u8..)
        .zip(figures.iter().zip(assessed))
        .map(|(link, (f, a))| Candidate {
            link: LinkId(link),
            free_at: Instant::ZERO,
            rate: f.capacity,
            delay: a.delay,
            quality: a.quality,
            weight: a.weight,
            backlog_max: a.backlog_max,
            share_of_group: 0,
        })
        .collect()
}

/// Bytes each link got in `span` when `wanted` is offered, in steps of 0.25 ms.
fn run(
    strategy: Strategy,
    candidates: &mut [Candidate],
    wanted: Rate,
    load: f64,
    span: Duration,
) -> Vec<u64> {
    let mut scheduler = Scheduler::new(strategy);
    let mut sent = vec![0; candidates.len()];
    let mut total = 0;
    for step in 0..span.as_micros() / 250 {
        let now = Instant::from_nanos(u64::try_from(step).unwrap() * 250_000);
        let due = wanted.bytes_in(now.since(Instant::ZERO));
        while total < due {
            let Some(index) = scheduler.pick(PACKET, now, load, candidates) else {
                // What finds no link waits; an endless queue is modelled by not catching up.
                total = due;
                break;
            };
            candidates[index].commit(PACKET, now);
            sent[index] += u64::from(PACKET);
            total += u64::from(PACKET);
        }
    }
    sent
}

/// Each link's part of the bytes.
#[expect(clippy::cast_precision_loss, reason = "test figures")]
fn shares(sent: &[u64]) -> Vec<f64> {
    let total: u64 = sent.iter().sum();
    sent.iter()
        .map(|&bytes| bytes as f64 / total as f64)
        .collect()
}

#[test]
fn at_saturation_shares_follow_capacity_and_nothing_is_left_unused() {
    let cells: [&[(u64, u64, f64)]; 4] = [
        &[(100, 0, 0.0), (50, 10, 0.0), (20, 20, 0.01)],
        &[(100, 0, 0.0), (50, 50, 0.0)],
        &[(200, 40, 0.0), (10, 0, 0.0)],
        &[
            (50, 3, 0.0),
            (50, 9, 0.0),
            (30, 0, 0.0),
            (30, 20, 0.02),
            (20, 40, 0.0),
            (20, 1, 0.0),
            (10, 5, 0.0),
            (5, 8, 0.0),
        ],
    ];
    for cell in cells {
        let total: u64 = cell.iter().map(|l| l.0).sum();
        for strategy in [Strategy::EarliestDelivery, Strategy::Redundant] {
            let mut candidates = links(cell, 1.0);
            let sent = run(
                strategy,
                &mut candidates,
                Rate::from_mbps(total * 2),
                1.0,
                ms(2000),
            );
            let used = Rate::from_bytes_over(sent.iter().sum(), ms(2000)).as_mbps();
            for (share, link) in shares(&sent).iter().zip(cell) {
                let fair = Rate::from_mbps(link.0).as_mbps() / Rate::from_mbps(total).as_mbps();
                assert!(
                    (share / fair - 1.0).abs() < 0.05,
                    "{cell:?}: {share} for {fair}"
                );
            }
            assert!(
                used > 0.98 * Rate::from_mbps(total).as_mbps(),
                "{used} of {total}"
            );
        }
    }
}

#[test]
fn at_low_load_everything_stays_on_the_best_link() {
    let mut candidates = links(&[(20, 20, 0.0), (100, 0, 0.0), (50, 10, 0.01)], 0.05);
    let sent = run(
        Strategy::EarliestDelivery,
        &mut candidates,
        Rate::from_mbps(8),
        0.05,
        ms(1000),
    );
    assert_eq!((sent[0], sent[2]), (0, 0));
    assert!(sent[1] > 990_000);
}

#[test]
fn quality_moves_low_load_off_a_lossy_link_of_equal_delay() {
    let mut candidates = links(&[(100, 0, 0.04), (50, 0, 0.0)], 0.1);
    let sent = run(
        Strategy::EarliestDelivery,
        &mut candidates,
        Rate::from_mbps(5),
        0.1,
        ms(1000),
    );
    assert_eq!(sent[0], 0);
}

#[test]
fn what_is_given_at_one_moment_arrives_at_one_moment() {
    let mut candidates = links(&[(100, 0, 0.0), (50, 10, 0.0), (20, 20, 0.0)], 1.0);
    let mut scheduler = Scheduler::new(Strategy::EarliestDelivery);
    while let Some(index) = scheduler.pick(PACKET, Instant::ZERO, 1.0, &candidates) {
        candidates[index].commit(PACKET, Instant::ZERO);
    }
    let arrivals = candidates.iter().map(|c| c.free_at + c.delay);
    let spread = arrivals
        .clone()
        .max()
        .unwrap()
        .since(arrivals.min().unwrap());
    // One packet of the slowest link takes 0.58 ms.
    assert!(spread < Duration::from_millis(1), "{spread:?}");
}

#[test]
fn weighted_splits_by_weight_and_a_returning_link_does_not_claim_its_absence() {
    let mut candidates = links(&[(60, 0, 0.0), (30, 0, 0.0), (10, 0, 0.0)], 1.0);
    let sent = run(
        Strategy::Weighted,
        &mut candidates,
        Rate::from_mbps(50),
        1.0,
        ms(2000),
    );
    for (share, fair) in shares(&sent).iter().zip([0.6, 0.3, 0.1]) {
        assert!((share - fair).abs() < 0.01, "{share} for {fair}");
    }
    let mut scheduler = Scheduler::new(Strategy::Weighted);
    let idle = links(&[(50, 0, 0.0), (50, 0, 0.0)], 1.0);
    for _ in 0..10_000 {
        scheduler.pick(PACKET, Instant::ZERO, 1.0, &idle[..1]);
    }
    let second = (0..1000)
        .filter(|_| scheduler.pick(PACKET, Instant::ZERO, 1.0, &idle) == Some(1))
        .count();
    assert!((500..600).contains(&second), "{second}");
}

#[test]
fn single_best_moves_only_for_a_clear_gain_and_waits_when_its_link_is_full() {
    let mut candidates = links(&[(100, 0, 0.0), (110, 0, 0.0)], 1.0);
    let mut scheduler = Scheduler::new(Strategy::SingleBest);
    assert_eq!(
        scheduler.pick(PACKET, Instant::ZERO, 1.0, &candidates),
        Some(1)
    );
    candidates[0].weight = 120e6;
    assert_eq!(
        scheduler.pick(PACKET, Instant::ZERO, 1.0, &candidates),
        Some(1)
    );
    candidates[0].weight = 200e6;
    assert_eq!(
        scheduler.pick(PACKET, Instant::ZERO, 1.0, &candidates),
        Some(0)
    );
    candidates[0].free_at = Instant::from_millis(50);
    assert_eq!(
        scheduler.pick(PACKET, Instant::ZERO, 1.0, &candidates),
        None
    );
    assert_eq!(
        scheduler.pick(PACKET, Instant::ZERO, 1.0, &candidates[1..]),
        Some(0)
    );
}

#[test]
fn round_robin_takes_each_eligible_link_in_turn() {
    let mut candidates = links(&[(10, 0, 0.0), (20, 0, 0.0), (30, 0, 0.0)], 1.0);
    candidates[1].free_at = Instant::from_millis(50);
    let mut scheduler = Scheduler::new(Strategy::RoundRobin);
    let picks: Vec<_> = (0..5)
        .filter_map(|_| scheduler.pick(PACKET, Instant::ZERO, 1.0, &candidates))
        .collect();
    assert_eq!(picks, [0, 2, 0, 2, 0]);
}

#[test]
fn repair_symbols_avoid_the_link_that_carries_most_of_the_group() {
    let mut candidates = links(&[(100, 0, 0.0), (50, 10, 0.0), (20, 20, 0.0)], 1.0);
    (candidates[0].share_of_group, candidates[1].share_of_group) = (10, 4);
    let mut scheduler = Scheduler::new(Strategy::EarliestDelivery);
    let mut pick = |candidates: &[Candidate]| {
        scheduler.pick_for_repair(PACKET, Instant::ZERO, 1.0, candidates)
    };
    assert_eq!(pick(&candidates), Some(1), "the earlier one of the others");
    candidates[1].free_at = Instant::from_millis(100);
    assert_eq!(pick(&candidates), Some(2));
    candidates[2].free_at = Instant::from_millis(100);
    assert_eq!(pick(&candidates), Some(0));
}

#[test]
fn of_links_that_deliver_repair_at_about_the_same_time_the_one_with_less_of_the_group_is_taken() {
    let mut candidates = links(&[(100, 0, 0.0), (50, 10, 0.0), (50, 10, 0.0)], 1.0);
    for (candidate, share) in candidates.iter_mut().zip([20, 6, 3]) {
        candidate.share_of_group = share;
    }
    let mut scheduler = Scheduler::new(Strategy::EarliestDelivery);
    let mut taken = Vec::new();
    for _ in 0..6 {
        let picked = scheduler.pick_for_repair(PACKET, Instant::ZERO, 1.0, &candidates);
        let picked = picked.unwrap();
        candidates[picked].share_of_group += 1;
        taken.push(picked);
    }
    assert_eq!(taken, [2, 2, 2, 1, 2, 1]);
}

fn candidate(link: u8) -> impl proptest::strategy::Strategy<Value = Candidate> {
    let times = (0..40_000_u64, 0..60_000_u64, 0..40_000_u64);
    (times, 0..500_u64, 0.001..1.0_f64, 0..20_u8).prop_map(
        move |((free_us, delay_us, backlog_us), mbps, quality, share_of_group)| {
            let rate = Rate::from_mbps(mbps);
            Candidate {
                link: LinkId(link),
                free_at: Instant::from_nanos(free_us * 1000),
                rate,
                delay: Duration::from_micros(delay_us),
                quality,
                weight: quality * rate.as_mbps() * 1e6,
                backlog_max: Duration::from_micros(backlog_us),
                share_of_group,
            }
        },
    )
}

fn candidates() -> impl proptest::strategy::Strategy<Value = Vec<Candidate>> {
    (0..9_u8).prop_flat_map(|n| (0..n).map(candidate).collect::<Vec<_>>())
}

/// Microseconds until arrival, straight from the formula.
#[expect(clippy::cast_precision_loss, reason = "microseconds")]
fn arrival_us(c: &Candidate, all: &[Candidate], bytes: u32, now: Instant, load: f64) -> f64 {
    let us = |d: Duration| d.as_secs_f64() * 1e6;
    let start = now.max(c.free_at).as_nanos() as f64 / 1e3;
    let delays = all.iter().map(|c| us(c.delay));
    let spread = delays.clone().fold(0.0, f64::max) - delays.fold(f64::MAX, f64::min);
    let penalty = (1.0 - load) * (1.0 - c.quality) * (spread + 5_000.0);
    start + f64::from(bytes) * 8.0 / c.rate.as_mbps() + us(c.delay) + penalty
}

proptest! {
    #[test]
    fn no_strategy_picks_an_ineligible_link(
        all in candidates(), now_us in 0..50_000_u64, load in 0.0..1.0_f64, rounds in 1..20,
    ) {
        let now = Instant::from_nanos(now_us * 1000);
        for strategy in STRATEGIES {
            let mut scheduler = Scheduler::new(strategy);
            let mut all = all.clone();
            for _ in 0..rounds {
                let repair = scheduler.pick_for_repair(PACKET, now, load, &all);
                let pair = scheduler.pick_two(PACKET, now, load, &all);
                let second = pair.and_then(|p| p.1);
                let data = [pair.map(|p| p.0), second].map(|index| (index, Duration::ZERO));
                for (index, more) in data.into_iter().chain([(repair, REPAIR_BACKLOG)]) {
                    let Some(index) = index else { continue };
                    let c = &all[index];
                    let more = if strategy == Strategy::SingleBest { Duration::ZERO } else { more };
                    let backlog = c.free_at.as_nanos().saturating_sub(now.as_nanos());
                    prop_assert!(u128::from(backlog) <= (c.backlog_max + more).as_nanos());
                    prop_assert!(c.rate > Rate::ZERO);
                }
                let eligible = all.iter().filter(|c| c.is_eligible(now)).count();
                if strategy != Strategy::SingleBest {
                    prop_assert_eq!(pair.is_some(), eligible > 0);
                    prop_assert!(repair.is_some() || eligible == 0);
                    prop_assert_eq!(second.is_some(), eligible > 1);
                }
                let Some((first, _)) = pair else { break };
                prop_assert_ne!(Some(first), second);
                all[first].commit(PACKET, now);
            }
        }
    }

    #[test]
    fn earliest_delivery_agrees_with_the_formula(
        all in candidates(), now_us in 0..50_000_u64, load in 0.0..1.0_f64, bytes in 40..65_000_u32,
    ) {
        let now = Instant::from_nanos(now_us * 1000);
        let mut scheduler = Scheduler::new(Strategy::EarliestDelivery);
        let Some(index) = scheduler.pick(bytes, now, load, &all) else { return Ok(()) };
        let picked = arrival_us(&all[index], &all, bytes, now, load);
        for other in all.iter().filter(|c| c.is_eligible(now)) {
            let arrival = arrival_us(other, &all, bytes, now, load);
            // At most the tie width later than the earliest; and among ties, nobody is heavier.
            prop_assert!(picked <= arrival + 200.1, "{picked} {arrival}");
            prop_assert!(arrival > picked || other.weight <= all[index].weight);
        }
    }

    #[test]
    fn repair_spares_the_majority_link_whenever_it_can(all in candidates(), load in 0.0..1.0_f64) {
        let mut scheduler = Scheduler::new(Strategy::EarliestDelivery);
        let total: u32 = all.iter().map(|c| u32::from(c.share_of_group)).sum();
        let carries_most = |c: &Candidate| 2 * u32::from(c.share_of_group) > total;
        let now = Instant::from_millis(20);
        let picked = scheduler.pick_for_repair(PACKET, now, load, &all);
        let spare = all.iter().any(|c| c.is_eligible(now) && !carries_most(c));
        prop_assert!(picked.is_none_or(|index| !carries_most(&all[index]) || !spare));
    }
}
