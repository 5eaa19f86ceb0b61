//! Tests of the flow queue: turns, limits, CoDel on superframes, and accounts against a slow model.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const SUPERFRAME: u32 = 64_000;

const fn ms(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

fn queue() -> FlowQueue<u32> {
    FlowQueue::new(QueueConfig::default())
}

fn config(flows: u32, bytes_max: u64, items_max: u32) -> QueueConfig {
    QueueConfig {
        flows,
        bytes_max,
        items_max,
        ..QueueConfig::default()
    }
}

/// All that waits, as (flow hash, item).
fn order(queue: &mut FlowQueue<u32>, now: Instant) -> Vec<(u64, u32)> {
    std::iter::from_fn(|| queue.dequeue(now))
        .map(|d| (d.hash, d.item))
        .collect()
}

#[test]
fn one_flow_keeps_its_order() {
    let mut q = queue();
    for i in 0..50 {
        assert_eq!(q.enqueue(7, 100 + i, i, ms(0)), None);
    }
    assert_eq!((q.len(), q.bytes()), (50, 50 * 100 + 49 * 25));
    assert_eq!(
        order(&mut q, ms(1)).iter().map(|o| o.1).collect::<Vec<_>>(),
        (0..50).collect::<Vec<_>>()
    );
    assert!(q.is_empty() && q.bytes() == 0);
}

#[test]
fn a_new_flow_passes_a_backlog_and_is_sparse() {
    let mut q = queue();
    for i in 0..100_u32 {
        assert_eq!(q.enqueue(1, SUPERFRAME / 2, i, ms(0)), None);
    }
    for _ in 0..3 {
        q.dequeue(ms(0)).unwrap();
    }
    assert_eq!(q.enqueue(2, 98, 1000, ms(10)), None);
    let next = q.dequeue(ms(11)).unwrap();
    assert_eq!((next.hash, next.item, next.sparse), (2, 1000, true));
    assert_eq!(next.sojourn, Duration::from_millis(1));
    let next = q.dequeue(ms(11)).unwrap();
    assert_eq!((next.hash, next.sparse), (1, false));
}

#[test]
fn a_ping_every_second_stays_sparse_and_a_bulk_flow_does_not() {
    let mut q = queue();
    for second in 0..100 {
        assert_eq!(q.enqueue(2, 98, 0, ms(second * 1000)), None);
        let ping = q.dequeue(ms(second * 1000)).unwrap();
        assert!(ping.sparse && ping.rate < Rate::from_bits_per_s(10_000));
        assert!(q.dequeue(ms(second * 1000)).is_none());
    }
    let mut sparse = 0;
    for i in 0..100_u32 {
        assert_eq!(q.enqueue(1, 1500, 0, ms(200_000)), None);
        if i % 4 == 3 {
            for _ in 0..3 {
                sparse += u32::from(q.dequeue(ms(200_000)).unwrap().sparse);
            }
        }
    }
    assert_eq!(
        sparse, 2,
        "the first quantum, overdrawn by the second packet"
    );
}

#[test]
fn bytes_are_shared_evenly_between_superframes_and_small_packets() {
    let mut q = FlowQueue::new(config(1024, u64::MAX, 30_000));
    for i in 0..100_u32 {
        assert_eq!(q.enqueue(1, SUPERFRAME, i, ms(0)), None);
        assert_eq!(q.enqueue(3, 1500, i, ms(0)), None);
    }
    for i in 0..10_000 {
        assert_eq!(q.enqueue(2, 500, i, ms(0)), None);
        assert_eq!(q.enqueue(3, 1500, i, ms(0)), None);
    }
    let mut bytes: BTreeMap<u64, u64> = BTreeMap::new();
    for _ in 0..4000 {
        let d = q.dequeue(ms(1)).unwrap();
        *bytes.entry(d.hash).or_default() += u64::from(d.bytes);
    }
    let (least, most) = (bytes.values().min().unwrap(), bytes.values().max().unwrap());
    assert_eq!(bytes.len(), 3);
    assert!(
        most - least <= u64::from(SUPERFRAME + 2 * 1514),
        "{bytes:?}"
    );
}

#[test]
fn beyond_the_limit_the_fattest_flow_loses_its_oldest() {
    let mut q = FlowQueue::new(config(64, 10_000, 100));
    for i in 0..9 {
        assert_eq!(q.enqueue(1, 1000, i, ms(0)), None);
    }
    assert_eq!(q.enqueue(2, 500, 100, ms(0)), None);
    assert_eq!(q.enqueue(3, 700, 101, ms(0)), Some(0));
    assert_eq!(q.bytes(), 9200);
    // One search is good for up to half of the flow's bytes.
    let batch: Vec<u32> = std::iter::from_fn(|| q.shed()).collect();
    assert_eq!(batch, [1, 2, 3, 4]);
    let mut q = FlowQueue::new(config(64, 10_000, 100));
    assert_eq!(
        q.enqueue(1, 20_000, 5, ms(0)),
        Some(5),
        "the newcomer is the fattest itself"
    );
    assert!(q.is_empty());
}

#[test]
fn the_number_of_items_is_bounded_as_well() {
    let mut q = FlowQueue::new(config(64, u64::MAX, 10));
    let victims = (0..100_u32)
        .filter_map(|i| q.enqueue(u64::from(i % 3), 60, i, ms(0)))
        .count();
    assert_eq!((q.len(), victims), (10, 90));
}

#[test]
fn a_lone_superframe_is_never_a_standing_queue() {
    let mut q = queue();
    // 10 Mbit/s: a superframe takes 51 ms, and a new one is there each time one leaves.
    for i in 0..100_u32 {
        assert_eq!(q.enqueue(1, SUPERFRAME, 0, ms(51 * u64::from(i))), None);
        let d = q.dequeue(ms(51 * u64::from(i + 1))).unwrap();
        assert_eq!(d.verdict, Verdict::Pass);
        assert!(d.sojourn > Duration::from_millis(50) && !d.overdue);
    }
}

#[test]
fn a_rest_of_less_than_a_quantum_is_no_standing_queue() {
    let mut q = queue();
    assert_eq!(q.enqueue(1, 500, 0, ms(0)), None);
    for i in 0..100 {
        assert_eq!(q.enqueue(1, 500, 0, ms(20 * i)), None);
        assert_eq!(q.dequeue(ms(20 * i + 19)).unwrap().verdict, Verdict::Pass);
    }
}

#[test]
fn flows_that_keep_coming_back_as_new_do_not_starve_an_old_one() {
    let mut q = queue();
    for i in 0..100 {
        assert_eq!(q.enqueue(1, 1500, i, ms(0)), None);
    }
    for _ in 0..2 {
        q.dequeue(ms(0)).unwrap();
    }
    let mut served = 0;
    for i in 0..1000 {
        assert_eq!(q.enqueue(2 + i % 2, 1500, 0, ms(i)), None);
        served += u32::from(q.dequeue(ms(i)).unwrap().hash == 1);
    }
    assert_eq!(served, 98, "all of its rest");
}

/// Packets of 1500 bytes arrive at twice the rate at which they leave, for one second; the flow never slows down.
fn overload(q: &mut FlowQueue<u32>, drop: bool) -> Vec<(u64, Duration, bool)> {
    let mut signals = Vec::new();
    for at in 0..1000 {
        for i in 0..2 {
            while q.enqueue(1, 1500, i, ms(at)).is_some() {}
        }
        while let Some(d) = q.dequeue(ms(at)) {
            if d.verdict == Verdict::Pass {
                break;
            }
            signals.push((at, d.sojourn, d.overdue));
            if !drop {
                break;
            }
            q.refund(d.hash, d.bytes);
        }
    }
    signals
}

#[test]
fn codel_signals_a_standing_queue_after_one_interval() {
    let signals = overload(&mut queue(), true);
    assert!((100..120).contains(&signals[0].0), "{:?}", signals[0]);
    let gaps: Vec<u64> = signals.windows(2).map(|w| w[1].0 - w[0].0).collect();
    assert!(gaps[0] >= 99 && gaps.last().unwrap() < &20, "{gaps:?}");
}

#[test]
fn a_flow_that_ignores_its_signals_is_overdue_once_it_waits_too_long() {
    let signals = overload(&mut queue(), false);
    let first = signals.iter().position(|s| s.2).unwrap();
    assert!(first >= 3 && signals[first].1 > Duration::from_millis(100));
    assert!(signals[first..].iter().all(|s| s.2));
    // After a silence of the links all that waits is old, but nobody was told anything: it passes.
    let mut q = queue();
    for i in 0..50 {
        assert_eq!(q.enqueue(1, 1500, i, ms(0)), None);
    }
    for _ in 0..50 {
        assert_eq!(q.dequeue(ms(300)).unwrap().verdict, Verdict::Pass);
    }
}

#[test]
fn drained_queues_start_afresh() {
    let mut q = queue();
    for i in 0..100_u32 {
        assert_eq!(q.enqueue(u64::from(i % 7), 1000, i, ms(0)), None);
    }
    q.dequeue(ms(0)).unwrap();
    let mut items = Vec::new();
    q.drain(|item| items.push(item));
    assert_eq!((items.len(), q.len(), q.bytes()), (99, 0, 0));
    assert!(q.dequeue(ms(1)).is_none());
    assert_eq!(q.enqueue(3, 50, 0, ms(2)), None);
    assert!(q.dequeue(ms(2)).unwrap().sparse);
}

#[derive(Clone, Debug)]
enum Step {
    Enqueue(u64, u32),
    Dequeue,
    Shed,
    Refund(u64, u32),
    Drain,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let bytes = prop_oneof![3 => 40..1500_u32, 1 => 1500..66_000_u32];
    prop::collection::vec(
        prop_oneof![
            10 => (0..6_u64, bytes).prop_map(|(flow, bytes)| Step::Enqueue(flow, bytes)),
            8 => Just(Step::Dequeue),
            1 => Just(Step::Shed),
            1 => (0..6_u64, 40..66_000_u32).prop_map(|(flow, bytes)| Step::Refund(flow, bytes)),
            1 => Just(Step::Drain),
        ],
        1..400,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Accounts, bounds and order inside a flow, against one plain queue for each flow.
    #[test]
    fn every_item_leaves_once_in_the_order_of_its_flow(steps in steps()) {
        let limits = config(4, 200_000, 30);
        let mut q = FlowQueue::new(limits);
        // Hashes 0..6 share four queues, so that collisions are part of it.
        let mut model: BTreeMap<u64, Vec<(u32, u32)>> = BTreeMap::new();
        let take_oldest = |model: &mut BTreeMap<u64, Vec<(u32, u32)>>, item: u32| {
            let flow = model.values_mut().find(|f| f.first().is_some_and(|i| i.0 == item));
            flow.map(|f| f.remove(0).1)
        };
        for (id, step) in (0_u32..).zip(steps) {
            let now = ms(u64::from(id));
            match step {
                Step::Enqueue(hash, bytes) => {
                    model.entry(hash % 4).or_default().push((id, bytes));
                    let fattest = model.values().map(|f| f.iter().map(|i| u64::from(i.1)).sum::<u64>()).max();
                    let over = q.bytes() + u64::from(bytes) > limits.bytes_max || q.len() == 30;
                    let mut victim = q.enqueue(hash, bytes, id, now);
                    prop_assert_eq!(victim.is_some(), over);
                    while let Some(item) = victim {
                        let lost = take_oldest(&mut model, item);
                        prop_assert!(lost.is_some_and(|bytes| Some(u64::from(bytes)) <= fattest));
                        victim = q.shed();
                    }
                    prop_assert!(q.bytes() <= limits.bytes_max && q.len() <= 30);
                }
                Step::Dequeue => {
                    let left = q.dequeue(now);
                    prop_assert_eq!(left.is_none(), model.values().all(Vec::is_empty));
                    if let Some(d) = left {
                        prop_assert_eq!(take_oldest(&mut model, d.item), Some(d.bytes));
                        prop_assert_eq!(d.sojourn, now.since(ms(u64::from(d.item))));
                    }
                }
                Step::Shed => prop_assert_eq!(q.shed(), None),
                Step::Refund(hash, bytes) => q.refund(hash, bytes),
                Step::Drain => {
                    let mut count = 0;
                    q.drain(|_| count += 1);
                    prop_assert_eq!(count, model.values().map(Vec::len).sum::<usize>());
                    model.clear();
                }
            }
            prop_assert_eq!(q.len(), model.values().map(Vec::len).sum::<usize>());
            let bytes: u64 = model.values().flatten().map(|i| u64::from(i.1)).sum();
            prop_assert_eq!(q.bytes(), bytes);
        }
    }
}
