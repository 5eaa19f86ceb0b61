//! What the rate control must do with each kind of WAN and application.

use super::{Path, Wan, run, run_one};
use crate::base::Rate;
use crate::link::rate_control::Phase;

/// Jitter ms, report interval ms, RTT ms, loss.
const KINDS: [(f64, u64, u64, f64); 7] = [
    (0.0, 5, 40, 0.0),
    (0.0, 25, 20, 0.0),
    (2.0, 5, 60, 0.0),
    (5.0, 10, 40, 0.02),
    (15.0, 5, 40, 0.0),
    (15.0, 25, 40, 0.0),
    (0.0, 5, 150, 0.0),
];

#[test]
fn finds_the_capacity_of_an_unknown_wan_and_keeps_the_queue_short() {
    let mut failed = String::new();
    for mbps in [5.0, 20.0, 50.0, 100.0, 300.0, 1_000.0] {
        for (jitter, report, rtt, loss) in KINDS {
            let path = Path {
                rates: vec![(0, mbps)],
                jitter,
                report,
                loss,
                delay: rtt / 2,
                back: rtt / 2,
                ..Path::default()
            };
            let wan = run_one(&path, 15, 1);
            let found = wan.capacity(3_000) / mbps;
            let used = wan.utilisation(5_000, 14_999) / (1.0 - loss);
            let queue = wan.queue(5_000, 15_000, 0.5);
            let queue_high = wan.queue(5_000, 15_000, 0.99);
            if (found - 1.0).abs() > 0.05 || used < 0.93 || queue > 5.0 || queue_high > 30.0 {
                failed += &format!(
                    "{mbps} Mbit/s, jitter {jitter}, report {report}, RTT {rtt}, loss {loss}: at 3 s \
                     {found:.3} of the capacity, used {used:.3}, queue {queue:.1} p99 {queue_high:.1}\n"
                );
            }
        }
    }
    assert!(failed.is_empty(), "\n{failed}");
}

#[test]
fn a_fall_of_capacity_is_seen_in_400_ms_and_a_rise_regained_in_3_s() {
    for (jitter, report, seed) in [(0.0, 5, 1), (5.0, 10, 2), (15.0, 5, 3), (0.0, 25, 4)] {
        let path = Path {
            rates: vec![(0, 50.0), (5_000, 20.0), (10_000, 50.0)],
            jitter,
            report,
            ..Path::default()
        };
        let wan = run_one(&path, 15, seed);
        let seen = wan.when(5_000, |t| t.capacity < 25.0) - 5_000;
        let empty = wan.when(5_050, |t| t.queue < 10.0) - 5_000;
        let regained = wan.when(10_000, |t| t.capacity > 47.0) - 10_000;
        let least = wan.least_capacity(5_000, 10_000);
        assert!(
            seen <= 400 && empty <= 1_000 && regained <= 3_000 && least > 16.0,
            "jitter {jitter}, report {report}: {seen} {empty} {regained} ms, least {least:.1}"
        );
    }
}

#[test]
fn a_steep_fall_is_seen_within_a_round_trip_and_in_the_middle_of_a_probe() {
    // Falls at different moments meet every phase of the control.
    for fall in (5_000..6_500).step_by(50) {
        let path = Path {
            rates: vec![(0, 50.0), (fall, 20.0)],
            delay: 10,
            back: 10,
            ..Path::default()
        };
        let wan = run_one(&path, 8, fall);
        let seen = wan.when(fall, |t| t.capacity < 30.0) - fall;
        let most = wan.queue(fall, fall + 1_000, 1.0);
        let least = wan.least_capacity(fall, 8_000);
        assert!(
            seen <= 110 && most < 115.0 && least > 16.0,
            "at {fall}: {seen} ms, queue {most:.0}, least {least:.1}"
        );
    }
}

#[test]
fn a_silence_does_not_lower_the_capacity() {
    let kinds = [
        (false, 5, 0.0),
        (true, 5, 0.0),
        (false, 25, 5.0),
        (true, 10, 15.0),
    ];
    for (told, report, jitter) in kinds {
        let path = Path {
            silence: (6_000, 6_135),
            report,
            jitter,
            ..Path::default()
        };
        let wan = run(
            std::slice::from_ref(&path),
            10,
            5,
            |wan, ms, now| match ms {
                6_060 if told => wan.control.on_suspect(now),
                6_160 if told => wan.control.on_return(now),
                _ => {}
            },
        )
        .remove(0);
        let least = wan.least_capacity(5_900, 10_000);
        let empty = wan.when(6_200, |t| t.queue < 10.0) - 6_135;
        assert!(
            least > 45.0 && empty < 1_000,
            "told {told}: least {least:.1}, empty after {empty} ms"
        );
    }
}

#[test]
fn after_a_long_silence_half_the_capacity_is_tried_first() {
    let path = Path {
        silence: (4_000, 6_000),
        ..Path::default()
    };
    let wan = run(
        std::slice::from_ref(&path),
        10,
        15,
        |wan, ms, now| match ms {
            4_060 => wan.control.on_suspect(now),
            6_050 => {
                wan.control.on_return(now);
                assert!(wan.control.pacing_rate() < Rate::from_mbps(27));
            }
            _ => {}
        },
    )
    .remove(0);
    let regained = wan.when(6_051, |t| t.capacity > 46.0) - 6_051;
    assert!(regained < 1_500, "{regained}");
}

#[test]
fn an_application_that_sends_little_neither_lowers_nor_raises_the_capacity() {
    // Fills the WAN for 4 s, then sends 5 Mbit/s, then fills it again.
    let path = Path {
        offered: vec![(0, 80.0), (4_000, 5.0), (20_000, 80.0)],
        jitter: 3.0,
        ..Path::default()
    };
    let wan = run_one(&path, 22, 7);
    for ms in 4_000..20_000 {
        assert!(
            (wan.capacity(ms) / 50.0 - 1.0).abs() < 0.06,
            "{ms} {}",
            wan.capacity(ms)
        );
    }
    assert!(wan.utilisation(20_100, 21_999) > 0.92);
}

#[test]
fn delays_that_wander_do_not_lower_a_capacity_that_little_is_asked_of() {
    let mut seen = Vec::new();
    for seed in 0..12 {
        let path = Path {
            rates: vec![(0, 20.0)],
            offered: vec![(0, 40.0), (4_000, 6.0)],
            waits: true,
            jitter: 5.0,
            wander: 15.0,
            ..Path::default()
        };
        let wan = run_one(&path, 14, seed);
        let capacities = (9_000..14_000).map(|ms| wan.capacity(ms));
        seen.push(capacities.sum::<f64>() / 5_000.0);
    }
    seen.sort_by(f64::total_cmp);
    assert!(seen[0] > 12.0 && seen[6] > 16.0, "{seen:.1?}");
}

#[test]
fn nothing_beyond_twice_of_what_passed_is_believed() {
    let path = Path {
        offered: vec![(0, 8.0)],
        ..Path::default()
    };
    let wan = run_one(&path, 10, 8);
    assert!(
        (8.0..=20.0).contains(&wan.capacity(9_999)),
        "{}",
        wan.capacity(9_999)
    );
}

#[test]
fn a_capacity_that_falls_below_a_steady_application_is_found() {
    let path = Path {
        rates: vec![(0, 50.0), (8_000, 20.0)],
        offered: vec![(0, 80.0), (4_000, 30.0)],
        ..Path::default()
    };
    let wan = run_one(&path, 12, 9);
    assert!(wan.capacity(9_500) < 22.0, "{}", wan.capacity(9_500));
    assert!(wan.queue(9_500, 12_000, 0.9) < 15.0);
}

#[test]
fn two_wans_take_turns_in_probing_and_both_are_filled() {
    let fast = Path {
        rates: vec![(0, 100.0), (8_000, 60.0)],
        jitter: 2.0,
        ..Path::default()
    };
    let slow = Path {
        rates: vec![(0, 20.0), (8_000, 40.0)],
        delay: 40,
        jitter: 8.0,
        report: 10,
        ..Path::default()
    };
    for wan in &run(&[fast, slow], 15, 11, |_, _, _| {}) {
        let probes = wan
            .phases
            .iter()
            .filter(|&&phase| phase == Phase::Probe)
            .count();
        let (before, after) = (
            wan.utilisation(3_000, 7_999),
            wan.utilisation(11_000, 14_999),
        );
        assert!(
            probes >= 8 && before > 0.93 && after > 0.93,
            "{probes} {before:.3} {after:.3}"
        );
        assert!(wan.queue(11_000, 15_000, 0.5) <= 5.0);
    }
}

#[test]
fn links_of_one_wan_share_its_capacity_and_its_control() {
    let path = Path {
        links: 3,
        jitter: 2.0,
        ..Path::default()
    };
    let wan = run_one(&path, 10, 17);
    let (capacity, used) = (wan.capacity(3_000), wan.utilisation(3_000, 9_999));
    assert!(
        (capacity / 50.0 - 1.0).abs() < 0.05 && used > 0.93,
        "{capacity:.1} {used:.3}"
    );
    assert!(wan.queue(3_000, 10_000, 0.5) <= 5.0);
}

#[test]
fn a_shallow_queue_that_drops_is_found_by_what_does_not_come() {
    let path = Path {
        queue_max: 3,
        ..Path::default()
    };
    let wan = run_one(&path, 10, 13);
    let (capacity, used) = (wan.capacity(9_999), wan.utilisation(4_000, 9_999));
    assert!(
        (capacity / 50.0 - 1.0).abs() < 0.05 && used > 0.93,
        "{capacity:.1} {used:.3}"
    );
    assert!(wan.lost() < 0.03, "{}", wan.lost());
}

#[test]
fn lost_reports_cost_little() {
    let path = Path {
        jitter: 2.0,
        report_loss: 0.3,
        ..Path::default()
    };
    let wan = run_one(&path, 10, 18);
    let (capacity, used) = (wan.capacity(3_000), wan.utilisation(4_000, 9_999));
    assert!(
        (capacity / 50.0 - 1.0).abs() < 0.05 && used > 0.93,
        "{capacity:.1} {used:.3}"
    );
}

#[test]
fn a_slow_wan_is_found_again_after_it_recovers() {
    let path = Path {
        rates: vec![(0, 8.0), (4_000, 0.5), (9_000, 8.0)],
        ..Path::default()
    };
    let wan = run_one(&path, 20, 19);
    assert!(wan.capacity(8_999) < 0.7, "{}", wan.capacity(8_999));
    assert!(wan.capacity(15_000) > 7.0, "{}", wan.capacity(15_000));
}

#[test]
fn a_ceiling_is_never_passed() {
    let path = Path {
        ceiling: Some(30),
        ..Path::default()
    };
    let wan: Wan = run_one(&path, 6, 14);
    assert!((0..6_000).all(|ms| wan.capacity(ms) <= 30.0));
    let used = wan.utilisation(2_000, 5_999);
    assert!((0.56..0.61).contains(&used), "{used}");
}
