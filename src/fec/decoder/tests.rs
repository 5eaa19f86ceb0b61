//! Whole groups against a model of what was sent, and hostile symbols.

use super::super::codec::Codec;
use super::*;
use crate::base::Rng;
use std::time::Duration;

const NOW: Instant = Instant::ZERO;
const BODY_MAX: usize = 60;

/// A group as its sender made it.
struct Sent {
    id: GroupId,
    bodies: Vec<Vec<u8>>,
    repairs: Vec<Vec<u8>>,
}

fn pick(rng: &mut Rng, bound: usize) -> usize {
    usize::try_from(rng.below(bound as u64)).unwrap()
}

fn byte(value: usize) -> u8 {
    u8::try_from(value).unwrap()
}

fn sent(rng: &mut Rng, codec: &mut Codec, id: u32, k: usize, r: usize) -> Sent {
    let mut body = || {
        let len = pick(rng, BODY_MAX + 1);
        (0..len)
            .map(|_| rng.next_u64().to_le_bytes()[0])
            .collect::<Vec<u8>>()
    };
    let bodies: Vec<Vec<u8>> = (0..k).map(|_| body()).collect();
    let longest = bodies.iter().map(Vec::len).max().unwrap();
    let protected: Vec<Vec<u8>> = bodies
        .iter()
        .map(|b| [&u16::try_from(b.len()).unwrap().to_le_bytes(), b.as_slice()].concat())
        .collect();
    let (mut repairs, sources) = (Vec::new(), protected.iter().map(Vec::as_slice));
    codec
        .encode(sources, r, symbol_bytes(longest), |_, s| {
            repairs.push(s.to_vec())
        })
        .unwrap();
    Sent {
        id: GroupId(id),
        bodies,
        repairs,
    }
}

impl Sent {
    /// Feeds one symbol; sources come before repairs.
    fn feed(&self, decoder: &mut Decoder, symbol: usize) -> Result<(), DropReason> {
        let (k, r) = (self.bodies.len(), self.repairs.len());
        match symbol.checked_sub(k) {
            None => decoder.on_source(self.id, byte(symbol), &self.bodies[symbol], true, NOW),
            Some(i) => decoder.on_repair(self.id, byte(k), byte(r), byte(i), &self.repairs[i], NOW),
        }
    }
}

#[test]
fn any_k_symbols_of_mixed_groups_deliver_each_body_once() {
    let (mut rng, mut codec) = (Rng::new(11), Codec::new());
    let mut decoder = Decoder::new(BODY_MAX, 2000);
    for round in 0..60_u32 {
        let groups: Vec<Sent> = (0..10)
            .map(|i| {
                let (k, r) = (1 + pick(&mut rng, 20), 1 + pick(&mut rng, 6));
                sent(&mut rng, &mut codec, round * 10 + i, k, r)
            })
            .collect();
        let mut arrivals = Vec::new();
        for (g, group) in groups.iter().enumerate() {
            for symbol in 0..group.bodies.len() + group.repairs.len() {
                let copies = [0, 1, 1, 1, 1, 1, 2][pick(&mut rng, 7)];
                (0..copies).for_each(|_| arrivals.push((rng.next_u64(), g, symbol)));
            }
        }
        arrivals.sort_unstable();
        let mut delivered: Vec<Vec<u32>> = groups.iter().map(|g| vec![0; g.bodies.len()]).collect();
        let mut distinct: Vec<Vec<usize>> = groups.iter().map(|_| Vec::new()).collect();
        for (_, g, symbol) in arrivals {
            let outcome = groups[g].feed(&mut decoder, symbol);
            if outcome.is_ok() && symbol < groups[g].bodies.len() {
                delivered[g][symbol] += 1;
            }
            while let Some(recovered) = decoder.poll_recovered() {
                let index = usize::from(recovered.index);
                assert_eq!(recovered.group, groups[g].id);
                assert_eq!(recovered.body, groups[g].bodies[index]);
                delivered[g][index] += 1;
            }
            if !distinct[g].contains(&symbol) {
                distinct[g].push(symbol);
            }
        }
        for (g, group) in groups.iter().enumerate() {
            let k = group.bodies.len();
            let enough = distinct[g].len() >= k;
            for (i, count) in delivered[g].iter().enumerate() {
                let expected = u32::from(enough || distinct[g].contains(&i));
                assert_eq!(*count, expected, "round {round}, group {g}, source {i}");
            }
        }
    }
    assert!(decoder.counters().recovered_symbols > 300);
    assert_eq!(decoder.counters().inconsistent_groups, 0);
    decoder.expire(Instant::FAR);
    assert_eq!(decoder.symbols_held(), 0);
    assert!(decoder.counters().unrecoverable_symbols > 0);
}

#[test]
fn a_complete_group_needs_no_repair_and_holds_nothing() {
    let mut decoder = Decoder::new(BODY_MAX, 100);
    let group = sent(&mut Rng::new(1), &mut Codec::new(), 0, 4, 2);
    (0..4).for_each(|i| group.feed(&mut decoder, i).unwrap());
    assert_eq!(decoder.symbols_held(), 4);
    assert_eq!(group.feed(&mut decoder, 4), Err(DropReason::RepairUnused));
    assert_eq!(decoder.symbols_held(), 0);
    assert_eq!(group.feed(&mut decoder, 5), Err(DropReason::RepairUnused));
    assert_eq!(
        group.feed(&mut decoder, 0),
        Err(DropReason::DuplicateSymbol)
    );
}

#[test]
fn what_was_delivered_but_not_kept_is_not_delivered_again() {
    let mut decoder = Decoder::new(BODY_MAX, 100);
    let group = sent(&mut Rng::new(3), &mut Codec::new(), 0, 3, 3);
    for index in 0..2 {
        let body = &group.bodies[usize::from(index)];
        decoder
            .on_source(group.id, index, body, index == 0, NOW)
            .unwrap();
    }
    group.feed(&mut decoder, 3).unwrap();
    assert_eq!(
        decoder.poll_recovered(),
        None,
        "one kept and one repair symbol do not make three"
    );
    group.feed(&mut decoder, 4).unwrap();
    let missing = Recovered {
        group: group.id,
        index: 2,
        body: &group.bodies[2],
    };
    assert_eq!(decoder.poll_recovered(), Some(missing));
    assert_eq!(decoder.poll_recovered(), None);
    assert_eq!(decoder.counters().recovered_symbols, 1);
}

#[test]
fn expiry_gives_up_what_is_old_and_waits_for_what_is_not() {
    let mut decoder = Decoder::new(BODY_MAX, 100);
    let (mut rng, mut codec) = (Rng::new(6), Codec::new());
    let groups: Vec<Sent> = (0..5)
        .map(|i| sent(&mut rng, &mut codec, i, 3, 1))
        .collect();
    let source = |decoder: &mut Decoder, group: usize, index: u8, ms| {
        let body = &groups[group].bodies[usize::from(index)];
        decoder
            .on_source(
                groups[group].id,
                index,
                body,
                true,
                Instant::from_millis(ms),
            )
            .unwrap();
    };
    // Group 2 is not seen yet, group 1 complete, groups 0 and 3 of different age.
    source(&mut decoder, 0, 1, 10);
    (0..3).for_each(|i| source(&mut decoder, 1, i, 20));
    assert_eq!(
        groups[1].feed(&mut decoder, 3),
        Err(DropReason::RepairUnused)
    );
    source(&mut decoder, 3, 0, 30);
    decoder.expire(Instant::from_millis(10));
    assert_eq!(decoder.symbols_held(), 2);
    decoder.expire(Instant::from_millis(30));
    assert_eq!(
        (
            decoder.symbols_held(),
            decoder.counters().unrecoverable_symbols
        ),
        (1, 1)
    );
    // Group 2 was not passed: its symbols are kept and recover.
    (0..2).for_each(|i| source(&mut decoder, 2, i, 40));
    groups[2].feed(&mut decoder, 3).unwrap();
    assert_eq!(decoder.poll_recovered().unwrap().index, 2);
    // A later group that is too old takes it along; nothing of earlier groups is kept any more.
    decoder.expire(Instant::from_millis(31));
    assert_eq!(decoder.symbols_held(), 0);
    source(&mut decoder, 0, 2, 50);
    source(&mut decoder, 3, 1, 50);
    assert_eq!(decoder.symbols_held(), 0);
    assert_eq!(groups[3].feed(&mut decoder, 3), Err(DropReason::StaleGroup));
    source(&mut decoder, 4, 0, 60);
    assert_eq!(decoder.symbols_held(), 1);
}

#[test]
fn a_group_that_expiry_passed_unseen_is_delivered_but_not_kept() {
    let mut decoder = Decoder::new(BODY_MAX, 100);
    decoder.on_source(GroupId(1), 0, &[1], true, NOW).unwrap();
    decoder.expire(Instant::FAR);
    decoder.on_source(GroupId(0), 0, &[1], true, NOW).unwrap();
    assert_eq!(decoder.symbols_held(), 0);
    let repair = decoder.on_repair(GroupId(0), 3, 1, 0, &[0; 4], NOW);
    assert_eq!(repair, Err(DropReason::NoBuffer));
}

#[test]
fn the_window_forgets_and_refuses_what_is_behind_it() {
    let mut decoder = Decoder::new(BODY_MAX, 100);
    let source =
        |decoder: &mut Decoder, id: u32| decoder.on_source(GroupId(id), 1, &[7; 9], true, NOW);
    assert_eq!(source(&mut decoder, u32::MAX), Err(DropReason::StaleGroup));
    source(&mut decoder, 0).unwrap();
    source(&mut decoder, 4095).unwrap();
    assert_eq!(source(&mut decoder, 0), Err(DropReason::DuplicateSymbol));
    source(&mut decoder, 4096).unwrap();
    assert_eq!(source(&mut decoder, 0), Err(DropReason::StaleGroup));
    assert_eq!(
        (
            decoder.symbols_held(),
            decoder.counters().unrecoverable_symbols
        ),
        (2, 1)
    );
    // The farthest jump there is clears everything, and the ids go on to wrap.
    source(&mut decoder, 4096 + i32::MAX.unsigned_abs()).unwrap();
    assert_eq!(
        (
            decoder.symbols_held(),
            decoder.counters().unrecoverable_symbols
        ),
        (1, 3)
    );
    source(&mut decoder, u32::MAX).unwrap();
    source(&mut decoder, 3).unwrap();
    source(&mut decoder, u32::MAX - 1).unwrap();
    assert_eq!(
        source(&mut decoder, u32::MAX),
        Err(DropReason::DuplicateSymbol)
    );
}

#[test]
fn contradictions_spoil_only_their_own_group() {
    let mut decoder = Decoder::new(BODY_MAX, 100);
    let group = sent(&mut Rng::new(2), &mut Codec::new(), 0, 4, 2);
    let bytes = group.repairs[0].len();
    let mut id = 0;
    for (k, r, longer) in [(3, 2, 0), (4, 3, 0), (4, 2, 2)] {
        id += 1;
        let group = Sent {
            id: GroupId(id),
            ..sent(&mut Rng::new(2), &mut Codec::new(), 0, 4, 2)
        };
        (0..3).for_each(|i| group.feed(&mut decoder, i).unwrap());
        group.feed(&mut decoder, 4).ok();
        while decoder.poll_recovered().is_some() {}
        id += 1;
        let group = Sent {
            id: GroupId(id),
            ..group
        };
        (0..2).for_each(|i| group.feed(&mut decoder, i).unwrap());
        group.feed(&mut decoder, 4).unwrap();
        let symbol = vec![0; bytes + longer];
        let outcome = decoder.on_repair(group.id, k, r, 1, &symbol, NOW);
        assert_eq!(
            outcome,
            Err(DropReason::InconsistentGroup),
            "{k}+{r} {longer}"
        );
        assert_eq!(
            group.feed(&mut decoder, 5),
            Err(DropReason::InconsistentGroup)
        );
        assert_eq!(
            group.feed(&mut decoder, 3),
            Ok(()),
            "sources are still delivered"
        );
        assert_eq!(decoder.symbols_held(), 0);
    }
    assert_eq!(decoder.counters().inconsistent_groups, 3);
    assert_eq!(decoder.counters().recovered_symbols, 3);
    // A source beyond the group, or longer than its symbols.
    group.feed(&mut decoder, 4).unwrap();
    let beyond = decoder.on_source(group.id, 4, &[], true, NOW);
    assert_eq!(beyond, Err(DropReason::InconsistentGroup));
}

#[test]
fn a_repair_that_computes_nonsense_is_noticed() {
    let mut decoder = Decoder::new(BODY_MAX, 100);
    decoder
        .on_repair(GroupId(1), 1, 1, 0, &[0xff; 8], NOW)
        .unwrap();
    assert_eq!(decoder.poll_recovered(), None);
    assert_eq!(decoder.counters().inconsistent_groups, 1);
    decoder
        .on_repair(GroupId(2), 1, 1, 0, &[3, 0, 7, 8, 9, 0], NOW)
        .unwrap();
    let recovered = Recovered {
        group: GroupId(2),
        index: 0,
        body: &[7, 8, 9],
    };
    assert_eq!(decoder.poll_recovered(), Some(recovered));
    assert_eq!(decoder.poll_recovered(), None);
}

#[test]
fn a_full_pool_gives_up_the_oldest_group() {
    let mut decoder = Decoder::new(BODY_MAX, 8);
    let (mut rng, mut codec) = (Rng::new(4), Codec::new());
    let old = sent(&mut rng, &mut codec, 0, 9, 1);
    let new = sent(&mut rng, &mut codec, 1, 6, 2);
    (0..8).for_each(|i| old.feed(&mut decoder, i).unwrap());
    assert_eq!(old.feed(&mut decoder, 9), Err(DropReason::NoBuffer));
    (0..4).for_each(|i| new.feed(&mut decoder, i).unwrap());
    assert_eq!(
        (
            decoder.symbols_held(),
            decoder.counters().unrecoverable_symbols
        ),
        (4, 1)
    );
    assert_eq!(old.feed(&mut decoder, 9), Err(DropReason::StaleGroup));
    new.feed(&mut decoder, 6).unwrap();
    new.feed(&mut decoder, 7).unwrap();
    assert_eq!(decoder.counters().recovered_symbols, 2);
}

#[test]
fn hostile_symbols_never_panic_and_stay_within_bounds() {
    let (mut rng, mut decoder) = (Rng::new(5), Decoder::new(BODY_MAX, 64));
    let bytes = [0x5a; 80];
    for _ in 0..200_000 {
        let jump = if rng.chance(0.01) {
            rng.next_u64() >> 32
        } else {
            rng.below(6)
        };
        let id = GroupId(u32::try_from(jump).unwrap());
        let symbol = &bytes[..pick(&mut rng, 80)];
        let mut number = || byte(pick(&mut rng, if jump % 2 == 0 { 4 } else { 256 }));
        let (k, r, index) = (number(), number(), number());
        let outcome = if rng.chance(0.5) {
            decoder.on_source(id, index, symbol, rng.chance(0.9), NOW)
        } else {
            decoder.on_repair(id, k, r, index, symbol, NOW)
        };
        let _ = outcome;
        while decoder.poll_recovered().is_some() {}
        if rng.chance(0.001) {
            decoder = Decoder::new(BODY_MAX, 64);
        }
    }
    assert!(decoder.symbols_held() <= 64);
}

impl Decoder {
    /// What [`Decoder::expire`] does, by looking at every group.
    fn expire_slowly(&mut self, before: Instant) {
        for id in self.oldest_held..=self.newest {
            let state = &self.groups[ring_index(id)];
            let passed = match state.phase {
                Phase::Open if state.opened_at >= before => return,
                Phase::Open => {
                    self.give_up(id);
                    true
                }
                Phase::Unseen => false,
                Phase::Complete | Phase::GivenUp | Phase::Inconsistent => id == self.oldest_held,
            };
            if passed {
                self.oldest_held = id + 1;
            }
        }
    }
}

#[test]
fn expiry_finds_what_looking_at_every_group_finds() {
    let mut rng = Rng::new(8);
    let [mut quick, mut slow] = [(); 2].map(|()| Decoder::new(16, 64));
    let mut newest = 0_u32;
    for step in 0..20_000_u64 {
        let now = Instant::from_millis(step);
        newest += u32::from(rng.chance(0.3)) * u32::try_from(1 + rng.below(3)).unwrap();
        let group = GroupId(newest.saturating_sub(u32::try_from(rng.below(6)).unwrap()));
        let index = u8::try_from(rng.below(3)).unwrap();
        let repair = rng.chance(0.3);
        for decoder in [&mut quick, &mut slow] {
            let _ = if repair {
                decoder.on_repair(group, 2, 1, 0, &[0; 4], now)
            } else {
                decoder.on_source(group, index, &[], true, now)
            };
        }
        let age = Duration::from_millis(if rng.chance(0.01) { 2 } else { 60 });
        quick.expire(now - age);
        slow.expire_slowly(now - age);
        assert_eq!(quick.counters(), slow.counters(), "step {step}");
        assert_eq!(quick.oldest_held, slow.oldest_held, "step {step}");
        assert_eq!(quick.symbols_held(), slow.symbols_held(), "step {step}");
    }
    assert!(quick.counters().unrecoverable_symbols > 0);
}
