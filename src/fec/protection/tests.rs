//! The amounts against tables and simulations.

use super::*;
use crate::base::Rng;

const ADAPTIVE: Mode = Mode::Adaptive {
    ceiling: 1.0,
    residual: RESIDUAL,
};

fn repair(k: usize, ratio: f64, burst: f64, again: bool) -> usize {
    ADAPTIVE.repair_count(
        k,
        &[Loss {
            symbols: k,
            ratio,
            burst,
        }],
        again,
    )
}

#[test]
fn independent_losses_get_the_table_of_residual_1e_5() {
    let table = [
        (0.001, [2, 2, 2, 2, 2, 2]),
        (0.005, [3, 3, 4, 4, 4, 5]),
        (0.01, [3, 4, 5, 5, 6, 7]),
        (0.02, [4, 6, 7, 8, 9, 10]),
        (0.05, [7, 9, 11, 13, 16, 19]),
        (0.1, [10, 14, 18, 21, 27, 32]),
    ];
    for (ratio, row) in table {
        for (k, expected) in [16, 32, 48, 64, 96, 128].into_iter().zip(row) {
            assert_eq!(repair(k, ratio, 1.0, false), expected, "{k} at {ratio}");
        }
    }
}

#[test]
fn the_residual_is_what_a_simulation_loses() {
    let (mut rng, k, r, p) = (Rng::new(8), 16, 2, 0.05);
    let (mut lost, rounds) = (0, 40_000);
    for _ in 0..rounds {
        let sources = (0..k).filter(|_| rng.chance(p)).count();
        let repairs = (0..r).filter(|_| rng.chance(p)).count();
        lost += if sources + repairs > r { sources } else { 0 };
    }
    let simulated = f64::from(u32::try_from(lost).unwrap()) / f64::from(rounds * 16);
    let computed = residual_loss(k + r, r, p);
    assert!(
        (simulated / computed - 1.0).abs() < 0.1,
        "{simulated} {computed}"
    );
}

#[test]
fn bursts_ask_for_more_and_retransmission_for_less() {
    assert_eq!(repair(64, 0.02, 2.0, false), 11);
    assert!(repair(64, 0.02, 4.0, false) > repair(64, 0.02, 2.0, false));
    assert!(repair(64, 0.02, 1.0, true) < repair(64, 0.02, 1.0, false));
    assert_eq!(repair(64, 0.000_1, 1.0, true), 0);
    assert_eq!(repair(64, 0.0, 1.0, false), 0);
}

/// Cost of `r` repair symbols by trying: bursts are laid out over a long row of groups.
#[allow(clippy::cast_precision_loss)] // counts are below 256
fn simulated_cost(rng: &mut Rng, k: usize, r: usize, ratio: f64, burst: f64) -> f64 {
    let (groups, mut bad) = (4_000, false);
    let (mut sum, mut enter) = (0.0, ratio / (burst * (1.0 - ratio)));
    enter = enter.min(1.0);
    for _ in 0..groups {
        let mut lost = 0;
        for _ in 0..k {
            bad = if bad {
                !rng.chance(1.0 / burst)
            } else {
                rng.chance(enter)
            };
            lost += usize::from(bad);
        }
        let late = lost.saturating_sub(r);
        sum += r as f64 + late as f64 + if late > 0 { WAIT_SYMBOLS } else { 0.0 };
    }
    sum / f64::from(groups)
}

#[test]
fn no_other_number_is_much_cheaper_in_a_simulation() {
    let mut rng = Rng::new(4);
    for (ratio, burst) in [
        (0.001, 1.0),
        (0.02, 1.0),
        (0.02, 4.0),
        (0.02, 8.0),
        (0.1, 1.5),
    ] {
        let chosen = repair(96, ratio, burst, true);
        let cost = simulated_cost(&mut rng, 96, chosen, ratio, burst);
        for other in 0..40 {
            let other_cost = simulated_cost(&mut rng, 96, other, ratio, burst);
            let case = format!("{chosen} against {other} at {ratio}/{burst}");
            assert!(cost < other_cost * 1.1 + 0.3, "{case}: {cost} {other_cost}");
        }
    }
}

#[test]
fn long_bursts_are_left_to_retransmission() {
    assert_eq!(repair(96, 0.001, 1.0, true), 1);
    assert!((5..=7).contains(&repair(96, 0.02, 1.0, true)));
    assert!(repair(96, 0.02, 8.0, true) <= 9);
    assert!(repair(96, 0.02, 8.0, false) > 20);
    assert_eq!(
        repair(96, 0.02, f64::NAN, true),
        repair(96, 0.02, 1.0, true)
    );
    // More than can be covered: what is sent ahead need not be sent again.
    let half = Mode::Adaptive {
        ceiling: 0.2,
        residual: RESIDUAL,
    };
    let loss = Loss {
        symbols: 96,
        ratio: 0.5,
        burst: 1.0,
    };
    assert_eq!(half.repair_count(96, &[loss], true), 19);
}

#[test]
fn ceiling_and_group_size_bound_everything() {
    let cheap = Mode::Adaptive {
        ceiling: 0.25,
        residual: RESIDUAL,
    };
    let loss = |k| {
        [Loss {
            symbols: k,
            ratio: 0.5,
            burst: f64::NAN,
        }]
    };
    assert_eq!(cheap.repair_count(48, &loss(48), false), 12);
    assert_eq!(cheap.repair_count(1, &loss(1), false), 1);
    for k in 0..300 {
        for mode in [
            cheap,
            ADAPTIVE,
            Mode::Fixed {
                source_count: 10,
                repair_count: 300,
            },
        ] {
            let r = mode.repair_count(k, &loss(k), false);
            assert!(r == 0 || k + r <= 255, "{k}+{r}");
        }
        assert_eq!(Mode::Off.repair_count(k, &loss(k), false), 0);
    }
}

#[test]
fn a_group_closed_early_gets_its_share() {
    let mode = Mode::Fixed {
        source_count: 10,
        repair_count: 3,
    };
    let counts: Vec<_> = (0..=11).map(|k| mode.repair_count(k, &[], true)).collect();
    assert_eq!(counts, [0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3]);
    assert_eq!(
        Mode::Fixed {
            source_count: 10,
            repair_count: 0
        }
        .repair_count(3, &[], true),
        0
    );
}

#[test]
fn groups_span_what_the_hold_time_allows() {
    let limits = |mbps, hold| {
        let limits = group_limits(Rate::from_mbps(mbps), 1400, Duration::from_millis(hold));
        (limits.source_count_max, limits.fill_time_max.as_millis())
    };
    assert_eq!(limits(140, 50), (96, 7));
    assert_eq!(limits(200, 20), (89, 5));
    assert_eq!(limits(2000, 50), (96, 4));
    assert_eq!(limits(20, 100), (44, 25));
    assert_eq!(limits(20, 20), (8, 5));
    assert_eq!(limits(0, 20), (1, 5));
    assert_eq!(limits(100, 0), (1, 0));
}

#[test]
fn protection_rises_at_once_and_falls_by_one_a_second() {
    let mut protection = Protection::new(ADAPTIVE);
    assert_eq!(
        (protection.repair_count(48), protection.repair_count(1)),
        (1, 1)
    );
    assert_eq!(protection.repair_count(96), 2);
    let loss = |ratio| {
        [Loss {
            symbols: 48,
            ratio,
            burst: 1.0,
        }]
    };
    let at = |ms| Instant::from_millis(ms);
    protection.update(48, &loss(0.02), false, at(0));
    assert_eq!(
        (protection.repair_count(48), protection.repair_count(10)),
        (7, 2)
    );
    for (ms, expected) in [
        (250, 7),
        (999, 7),
        (1000, 6),
        (1250, 6),
        (2000, 5),
        (3000, 4),
    ] {
        protection.update(48, &loss(0.001), false, at(ms));
        assert_eq!(protection.repair_count(48), expected, "at {ms} ms");
    }
    for s in 4..20 {
        protection.update(48, &loss(0.0), true, at(s * 1000));
    }
    assert_eq!(protection.repair_count(48), 0);
}
