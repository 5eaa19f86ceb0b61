//! The reorder buffer against a slow and obvious one.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const fn ms(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

/// The same rules on sorted maps, without rings, lists or caches. Sequences do not wrap.
#[derive(Default)]
struct Model {
    lanes: BTreeMap<u8, ModelLane>,
    hold: Duration,
    holes: u64,
}

#[derive(Default)]
struct ModelLane {
    next: u64,
    floor: u64,
    ahead: BTreeMap<u64, Held>,
    aside: BTreeMap<u64, Held>,
    released: BTreeSet<u64>,
    out: Vec<Left>,
}

#[derive(Clone, Copy)]
struct Held {
    ready: bool,
    late: bool,
    arrived: Instant,
}

/// (sequence, ready, late)
type Left = (u64, bool, bool);

const W: u64 = 8;

impl ModelLane {
    fn forget_old(&mut self) {
        let oldest = self.next.saturating_sub(2 * W);
        let old: Vec<u64> = self.aside.range(..oldest).map(|(&seq, _)| seq).collect();
        for seq in old {
            self.let_aside_go(seq);
        }
    }

    fn let_aside_go(&mut self, seq: u64) {
        let held = self.aside.remove(&seq).unwrap();
        self.released.insert(seq);
        self.out.push((seq, held.ready, held.late));
    }

    fn deadline(&self, hold: Duration) -> Option<Instant> {
        let in_order = match self.ahead.get(&self.next) {
            Some(head) => Some(head.arrived),
            None => self.ahead.values().map(|h| h.arrived).min(),
        };
        let aside = self.aside.values().map(|h| h.arrived).min();
        [in_order, aside]
            .into_iter()
            .flatten()
            .min()
            .map(|arrived| arrived + hold)
    }

    /// Skips or releases one sequence.
    fn pass(&mut self, holes: &mut u64) {
        match self.ahead.remove(&self.next) {
            Some(held) => {
                self.released.insert(self.next);
                self.out.push((self.next, held.ready, held.late));
            }
            None => *holes += 1,
        }
        self.next += 1;
        self.forget_old();
    }
}

impl Model {
    fn insert(&mut self, lane: u8, seq: u64, ready: bool, now: Instant) -> bool {
        let holes = &mut self.holes;
        let l = self.lanes.entry(lane).or_default();
        if lane == 0 {
            l.next = l.next.max(seq + 1);
        } else if seq >= l.next + 2 * W {
            l.floor = l.floor.max(seq - W + 1);
            while l.next < l.floor && !l.ahead.contains_key(&l.next) {
                l.pass(holes);
            }
            if !l.ahead.is_empty() {
                return false;
            }
        }
        l.forget_old();
        let known =
            l.released.contains(&seq) || l.ahead.contains_key(&seq) || l.aside.contains_key(&seq);
        if seq + 2 * W < l.next || known {
            return false;
        }
        let late = lane != 0 && seq < l.next;
        let held = Held {
            ready,
            late,
            arrived: now,
        };
        if seq >= l.next {
            l.ahead.insert(seq, held);
            if ready && seq == l.next {
                // What is waited for leaves the lane at once, polled or not.
                l.pass(holes);
                return true;
            }
            if seq >= l.next + W {
                l.floor = l.floor.max(seq - W + 1);
                while l.next < l.floor && !l.ahead.contains_key(&l.next) {
                    l.pass(holes);
                }
            }
        } else {
            l.aside.insert(seq, held);
            if ready {
                l.let_aside_go(seq);
            }
        }
        true
    }

    fn mark_ready(&mut self, lane: u8, seq: u64) -> bool {
        let l = self.lanes.entry(lane).or_default();
        if let Some(held) = l.ahead.get_mut(&seq) {
            held.ready = true;
            return true;
        }
        let Some(held) = l.aside.get_mut(&seq) else {
            return false;
        };
        held.ready = true;
        l.let_aside_go(seq);
        true
    }

    fn give_up(&mut self, lane: u8, seq: u64) {
        let l = self.lanes.entry(lane).or_default();
        l.floor = l.floor.max(seq);
        while l.next < l.floor && !l.ahead.contains_key(&l.next) {
            l.pass(&mut self.holes);
        }
        l.forget_old();
    }

    /// All that leaves at `now`, by lane.
    fn drain(&mut self, now: Instant) -> BTreeMap<u8, Vec<Left>> {
        for l in self.lanes.values_mut() {
            loop {
                let due = |held: &Held| held.arrived + self.hold <= now;
                let forced = l.next < l.floor;
                let head = l.ahead.get(&l.next);
                let first_arrival = l.ahead.values().map(|h| h.arrived).min();
                let hole_due = head.is_none()
                    && first_arrival.is_some_and(|arrived| arrived + self.hold <= now);
                if forced || head.is_some_and(|h| h.ready || due(h)) || hole_due {
                    l.pass(&mut self.holes);
                    // A skipped hole is skipped to its end, whatever arrived behind it.
                    while hole_due && !l.ahead.contains_key(&l.next) {
                        l.pass(&mut self.holes);
                    }
                    continue;
                }
                let aside = l.aside.iter().find(|(_, h)| due(h)).map(|(&seq, _)| seq);
                match aside {
                    Some(seq) => l.let_aside_go(seq),
                    None => break,
                }
            }
            l.forget_old();
        }
        let lanes = self.lanes.iter_mut();
        lanes
            .map(|(&lane, l)| (lane, std::mem::take(&mut l.out)))
            .filter(|l| !l.1.is_empty())
            .collect()
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// Lane, offset to the lane's next sequence, ready.
    Insert(u8, i64, bool),
    Ready(u8, i64),
    GiveUp(u8, i64),
    Hold(u64),
    Wait(u64),
    Drain,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let lane = 0..3_u8;
    let near = prop_oneof![8 => -3..6_i64, 3 => -20..20_i64, 1 => 15..60_i64];
    let step = prop_oneof![
        12 => (lane.clone(), near, prop::bool::weighted(0.8)).prop_map(|(l, o, r)| Step::Insert(l, o, r)),
        4 => (lane.clone(), -20..10_i64).prop_map(|(l, o)| Step::Ready(l, o)),
        1 => (1..3_u8, -5..12_i64).prop_map(|(l, o)| Step::GiveUp(l, o)),
        1 => (0..30_u64).prop_map(Step::Hold),
        6 => (0..15_u64).prop_map(Step::Wait),
        10 => Just(Step::Drain),
    ];
    prop::collection::vec(step, 1..200)
}

/// Sorts what order does not bind: late items and the unordered lane.
fn by_rule(lane: u8, left: &[Left]) -> (Vec<Left>, Vec<Left>) {
    let (mut loose, ordered): (Vec<Left>, Vec<Left>) = left.iter().partition(|l| lane == 0 || l.2);
    loose.sort_unstable();
    (ordered, loose)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn behaves_like_the_slow_model(steps in steps(), start in prop_oneof![Just(0_u32), Just(u32::MAX - 30)]) {
        // The model counts from far above zero, so that sequences before the start exist there as well.
        const ORIGIN: u64 = 1000;
        let wire = |seq: u64| start.wrapping_add(u32::try_from(seq).unwrap()).wrapping_sub(1000);
        let mut real = Buffer::new(8);
        let mut model = Model { hold: HOLD_MIN, ..Model::default() };
        for lane in 0..3_u8 {
            (real.lanes[lane as usize].next, real.lanes[lane as usize].floor) = (start, start);
            let fresh = ModelLane { next: ORIGIN, floor: ORIGIN, ..ModelLane::default() };
            model.lanes.insert(lane, fresh);
        }
        let mut now = ms(1);
        let (mut accepted, mut left_count) = (0_usize, 0_usize);
        for step in steps.into_iter().chain([Step::Wait(1000), Step::Drain]) {
            let at = |model: &Model, lane: u8, offset: i64| {
                model.lanes[&lane].next.checked_add_signed(offset).unwrap()
            };
            match step {
                Step::Insert(lane, offset, ready) => {
                    let seq = at(&model, lane, offset);
                    let expected = model.insert(lane, seq, ready, now);
                    let got = real.insert(Lane(lane), wire(seq), wire(seq), ready, now).is_ok();
                    prop_assert_eq!(got, expected, "insert {} {}", lane, seq);
                    accepted += usize::from(got);
                }
                Step::Ready(lane, offset) => {
                    let seq = at(&model, lane, offset);
                    let held = real.get_mut(Lane(lane), wire(seq)).copied();
                    let expected = model.mark_ready(lane, seq);
                    prop_assert_eq!(held, expected.then_some(wire(seq)));
                    prop_assert_eq!(real.mark_ready(Lane(lane), wire(seq)), expected);
                }
                Step::GiveUp(lane, offset) => {
                    let seq = at(&model, lane, offset);
                    model.give_up(lane, seq);
                    real.give_up(Lane(lane), wire(seq));
                }
                Step::Hold(millis) => {
                    model.hold = Duration::from_millis(millis);
                    real.set_hold(Duration::from_millis(millis));
                }
                Step::Wait(millis) => now += Duration::from_millis(millis),
                Step::Drain => {
                    let mut expected = model.drain(now);
                    let mut got: BTreeMap<u8, Vec<Left>> = BTreeMap::new();
                    while let Some(r) = real.poll(now) {
                        prop_assert_eq!(r.item, r.seq);
                        let seq = u64::from(r.seq.wrapping_sub(start).wrapping_add(1000));
                        got.entry(r.lane.0).or_default().push((seq, r.ready, r.late));
                        left_count += 1;
                    }
                    for lane in 0..3_u8 {
                        let expected = by_rule(lane, &expected.remove(&lane).unwrap_or_default());
                        let got = by_rule(lane, &got.remove(&lane).unwrap_or_default());
                        prop_assert_eq!(got, expected, "lane {}", lane);
                    }
                    let deadlines = model.lanes.values().filter_map(|l| l.deadline(model.hold));
                    prop_assert_eq!(real.poll_timeout(), deadlines.min().unwrap_or(Instant::FAR));
                    prop_assert_eq!(real.counters().holes_skipped, model.holes);
                }
            }
        }
        prop_assert!(real.is_empty());
        prop_assert_eq!(accepted, left_count);
    }
}
