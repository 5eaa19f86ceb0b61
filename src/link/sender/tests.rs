//! The sender against hand-made reports, a peer's [`Receiver`] and lost reports.

use super::*;
use crate::base::Rng;
use crate::link::State;
use crate::link::receiver::{Receiver, ReceiverConfig, low_micros};

fn at(ms: u64) -> Instant {
    Instant::from_millis(ms)
}

fn sender() -> Sender<u64> {
    Sender::new(SenderConfig::default(), Instant::ZERO)
}

/// A report in which exactly `numbers` (the largest last) were received.
fn report(numbers: &[u64]) -> Report {
    let largest = *numbers.last().unwrap();
    let mut report = Report {
        largest,
        packets: numbers.len() as u64,
        ..Report::default()
    };
    for number in numbers {
        let back = usize::try_from(largest - number).unwrap();
        report.seen[back / 64] |= 1 << (back % 64);
    }
    report
}

fn send(sender: &mut Sender<u64>, numbers: std::ops::Range<u64>, now: Instant) {
    for number in numbers {
        sender.on_transmit(number, 100, now, Some(number), &mut |_| {
            panic!("log is large")
        });
    }
}

#[test]
fn three_later_acks_or_time_make_a_loss() {
    let mut link = sender();
    send(&mut link, 0..6, at(0));
    let (mut acked, mut lost) = (Vec::new(), Vec::new());
    let mut on = |outcome| match outcome {
        Outcome::Acked { item, known, .. } => acked.push((item, known)),
        Outcome::Lost { item, .. } => lost.push(item),
    };
    link.on_report(&report(&[0, 2, 4, 5]), at(20), &mut on);
    // 1 has more than three later ones; 3 has not, until 9/8 of 20 ms and a report interval are over.
    link.handle_timeout(at(27), Instant::FAR, &mut on);
    assert_eq!(link.in_flight(), 100);
    assert_eq!(
        link.poll_timeout(at(27), Instant::ZERO),
        at(20).min(Instant::from_nanos(27_500_000))
    );
    link.handle_timeout(at(28), Instant::FAR, &mut on);
    assert_eq!(link.in_flight(), 0);
    acked.sort_unstable();
    assert_eq!(acked, [(0, true), (2, true), (4, true), (5, true)]);
    assert_eq!(lost, [1, 3]);
}

#[test]
fn an_old_report_that_comes_late_is_taken_and_never_samples_the_rtt() {
    let mut link = sender();
    send(&mut link, 0..1_100, at(0));
    let mut acked = 0;
    let mut on = |_| acked += 1;
    let old: Vec<u64> = (0..500).collect();
    let new: Vec<u64> = (500..700).collect();
    assert!(link.on_report(&report(&new), at(20), &mut on).is_some());
    let srtt = link.srtt();
    assert!(link.on_report(&report(&old), at(300), &mut on).is_none());
    assert_eq!(link.srtt(), srtt);
    // 0 to 187 lie beyond the newer bitmap: they counted as received when it came. The others were lost first.
    assert_eq!(link.counters().unknown, 188);
    assert_eq!(link.counters().spurious, 312);
    assert_eq!(link.counters().lost, 312);
    assert_eq!(link.in_flight(), 400 * 100);
    let _ = acked;
}

#[test]
fn reordering_on_the_link_raises_the_threshold() {
    let mut link = sender();
    send(&mut link, 0..100, at(0));
    let mut lost = 0;
    let mut on = |outcome| lost += u32::from(matches!(outcome, Outcome::Lost { .. }));
    let with_hole = |hole: u64, to: u64| (0..=to).filter(|&n| n != hole).collect::<Vec<_>>();
    link.on_report(&report(&with_hole(5, 12)), at(20), &mut on);
    link.on_report(&report(&with_hole(99, 20)), at(21), &mut on);
    assert_eq!((link.counters().lost, link.counters().spurious), (1, 1));
    link.on_report(&report(&with_hole(30, 38)), at(22), &mut on);
    assert_eq!(link.counters().lost, 1);
    link.on_report(&report(&with_hole(30, 39)), at(23), &mut on);
    assert_eq!(lost, 2);
}

#[test]
fn what_is_taken_has_no_outcome_but_ends_the_suspicion_of_loss() {
    let mut link = sender();
    send(&mut link, 0..10, at(0));
    let mut taken = Vec::new();
    link.on_report(&report(&[0, 1]), at(10), &mut |_| {});
    link.take_unacked(|item| taken.push(item));
    assert_eq!(taken, [2, 3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(link.in_flight(), 0);
    link.on_report(&report(&[0, 1, 2, 9]), at(20), &mut |_| {
        panic!("no outcome")
    });
    assert_eq!(link.counters().lost, 4);
}

#[test]
fn a_report_about_the_future_is_refused() {
    let mut link = sender();
    send(&mut link, 0..10, at(0));
    assert!(
        link.on_report(&report(&[10]), at(10), &mut |_| panic!("refused"))
            .is_none()
    );
    assert_eq!(link.counters().bad_reports, 1);
}

#[test]
fn a_full_log_evicts_the_oldest_as_received() {
    let config = SenderConfig {
        sent_log_entries: 64,
        ..SenderConfig::default()
    };
    let mut link = Sender::new(config, Instant::ZERO);
    let mut out = Vec::new();
    for number in 7..107_u64 {
        link.on_transmit(number, 10, at(0), Some(number), &mut |outcome| {
            out.push(outcome)
        });
    }
    assert_eq!(out.len(), 36);
    assert_eq!(
        out[0],
        Outcome::Acked {
            item: 7,
            number: 7,
            bytes: 10,
            known: false
        }
    );
    assert_eq!((link.in_flight(), link.counters().evicted), (640, 36));
}

#[test]
fn a_black_hole_under_traffic_is_suspected_within_60_ms_and_heartbeats_revive_it() {
    let mut link = sender();
    let mut peer = Receiver::new(ReceiverConfig::default(), Instant::ZERO);
    let mut number = 0;
    let (mut suspected, mut revived) = (0, 0);
    // 20 ms out, reports every 5 ms come back after 10 ms; silent from 1000 to 1200 ms.
    let mut back = std::collections::VecDeque::new();
    let mut out = std::collections::VecDeque::new();
    for ms in 0..1_500_u64 {
        let now = at(ms);
        let data = link.state() == State::Up || ms < 10;
        if data || link.wants_heartbeat(now) {
            link.on_transmit(number, 1_400, now, data.then_some(number), &mut |_| {});
            if !(1_000..1_200).contains(&ms) {
                out.push_back((now + Duration::from_millis(20), number, low_micros(now)));
            }
            number += 1;
        }
        while let Some(&(due, number, sent_us)) = out.front()
            && due <= now
        {
            peer.on_datagram(number, 1_400, sent_us, now);
            out.pop_front();
        }
        if peer.report_due(now) {
            let due = now + Duration::from_millis(10);
            back.push_back((due, peer.build_report(now).unwrap()));
        }
        while let Some(&(due, report)) = back.front()
            && due <= now
        {
            link.on_report(&report, now, &mut |_| {});
            back.pop_front();
        }
        link.handle_timeout(now, Instant::FAR, &mut |_| {});
        if link.state() == State::Suspect && suspected == 0 {
            suspected = ms;
            let mut count = 0;
            link.take_unacked(|_| count += 1);
            assert!((30..=60).contains(&count), "{count}");
        }
        if suspected > 0 && revived == 0 && link.state() == State::Up {
            revived = ms;
        }
    }
    assert!((1_030..=1_060).contains(&suspected), "{suspected}");
    assert!((1_230..=1_250).contains(&revived), "{revived}");
}

#[test]
fn under_random_loss_and_lost_reports_every_item_has_one_outcome() {
    let mut rng = Rng::new(11);
    let mut link = Sender::new(SenderConfig::default(), Instant::ZERO);
    let mut peer = Receiver::new(ReceiverConfig::default(), Instant::ZERO);
    let mut outcomes = vec![0_u32; 40_000];
    let (mut number, mut wrong) = (0_u64, 0_u32);
    let mut arrived = vec![false; 40_000];
    for step in 0..20_000_u64 {
        let now = Instant::from_nanos(step * 500_000);
        for _ in 0..2 {
            let item = usize::try_from(number).unwrap();
            link.on_transmit(number, 1_000, now, Some(item), &mut |_| {
                panic!("log is large")
            });
            if !rng.chance(0.05) {
                arrived[item] = true;
                peer.on_datagram(number, 1_000, low_micros(now), now);
            }
            number += 1;
        }
        let mut on = |outcome: Outcome<usize>| match outcome {
            Outcome::Acked { item, known, .. } => {
                outcomes[item] += 1;
                wrong += u32::from(known && !arrived[item]);
            }
            Outcome::Lost { item, .. } => {
                outcomes[item] += 1;
                wrong += u32::from(arrived[item]);
            }
        };
        if peer.report_due(now) {
            let report = peer.build_report(now).unwrap();
            if !rng.chance(0.3) {
                link.on_report(&report, now, &mut on);
            }
        }
        link.handle_timeout(now, Instant::FAR, &mut on);
    }
    assert_eq!(wrong, 0);
    let open = outcomes.iter().rev().take_while(|&&n| n == 0).count();
    assert!(open < 200, "{open}");
    assert!(outcomes[..40_000 - open - 10].iter().all(|&n| n == 1));
    assert!((link.loss().ratio - 0.05).abs() < 0.02);
    assert_eq!(link.in_flight() % 1_000, 0);
}

#[test]
fn the_end_of_a_burst_is_given_up_when_it_is_overdue_and_a_window_is_not() {
    for (count, expected) in [(3, vec![2, 3, 4]), (40, Vec::new())] {
        let mut link = sender();
        send(&mut link, 0..2, at(0));
        let mut ignore = |_| ();
        link.on_report(&report(&[0, 1]), at(20), &mut ignore);
        assert_eq!(link.state(), State::Up);
        send(&mut link, 2..2 + count, at(30));
        let mut lost = Vec::new();
        let mut on = |outcome| match outcome {
            Outcome::Lost { item, .. } => lost.push(item),
            Outcome::Acked { item, .. } => panic!("{item}"),
        };
        let due = at(30) + link.suspect_timeout();
        link.handle_timeout(due - Duration::from_millis(1), Instant::ZERO, &mut on);
        if count == 3 {
            assert!(link.poll_timeout(at(31), Instant::ZERO) <= due);
        }
        link.handle_timeout(due, Instant::ZERO, &mut on);
        link.handle_timeout(due, Instant::ZERO, &mut on);
        assert_eq!(lost, expected);
        assert_eq!(link.in_flight(), if count == 3 { 0 } else { 4_000 });
    }
}

/// A link that acknowledges after 20 ms, and did so once after 400: that long a silence is nothing unusual for it. Two
/// datagrams are in flight at the end, at the time given back, and the number of the next.
fn used_to_pauses() -> (Sender<u64>, u64, u64) {
    let mut link = sender();
    send(&mut link, 0..1, at(0));
    link.on_report(&report(&[0]), at(400), &mut |_| {});
    link.on_report(&report(&[0]), at(401), &mut |_| {});
    let mut now = 400;
    for number in 1..100 {
        now += 10;
        send(&mut link, number..number + 1, at(now));
        if number > 2 {
            let seen: Vec<u64> = (1..=number - 2).collect();
            link.on_report(&report(&seen), at(now), &mut |_| {});
        }
    }
    assert!(link.suspect_timeout() > Duration::from_millis(300));
    (link, now, 100)
}

#[test]
fn a_pause_stalls_a_link_long_before_it_is_suspect_and_only_something_newer_ends_it() {
    let (mut link, now, next) = used_to_pauses();
    send(&mut link, next..next + 4, at(now));
    // The third that is unknown was sent last; 20 ms, a report interval and the margin later it is late.
    let due = at(now) + Duration::from_millis(45);
    let early = due - Duration::from_millis(5);
    link.handle_timeout(early, Instant::FAR, &mut |_| {});
    assert!(link.flows());
    // The peer tells of no link: it may be that only its reports are lost.
    let late = due + Duration::from_millis(5);
    link.handle_timeout(late, early, &mut |_| {});
    assert!(link.flows());
    assert!(link.poll_timeout(late, late) <= late);
    link.handle_timeout(late, late, &mut |_| {});
    let condition = link.condition();
    assert!(condition.stalled && condition.state == State::Up && !link.flows());

    // What was under way goes by other links; the WAN still has it to carry.
    let before = link.in_flight();
    let mut taken = 0;
    link.take_unacked(|_| taken += 1);
    assert_eq!((taken, link.in_flight()), (6, 0));
    send(
        &mut link,
        next + 4..next + 5,
        late + Duration::from_millis(1),
    );
    let old: Vec<u64> = (next - 2..next + 2).collect();
    let delivery = link.on_report(&report(&old), late + Duration::from_millis(2), &mut |_| {});
    assert_eq!(delivery.unwrap().in_flight, before - 400 + 100);
    assert!(!link.flows(), "the queue on the way is not empty");
    let new: Vec<u64> = (next - 2..next + 5).collect();
    link.on_report(&report(&new), late + Duration::from_millis(3), &mut |_| {});
    assert!(link.flows());
    assert_eq!(link.counters().suspicions, 0);
}

#[test]
fn a_way_that_becomes_longer_bit_by_bit_is_no_stall() {
    let (mut link, mut now, mut next) = used_to_pauses();
    let mut delay = 20;
    while delay < 150 {
        send(&mut link, next..next + 1, at(now));
        let seen: Vec<u64> = (next - 2..=next).collect();
        for ms in now..now + delay {
            link.handle_timeout(at(ms), Instant::FAR, &mut |_| {});
            assert!(link.flows(), "after {} of {delay} ms", ms - now);
        }
        now += delay;
        link.on_report(&report(&seen), at(now), &mut |_| {});
        next += 1;
        delay += 2;
    }
}
