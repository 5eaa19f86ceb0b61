//! Fates of symbols and what they make of their groups.

use std::time::Duration;

use super::*;

fn add(store: &mut SymbolStore, group: GroupId, kind: SymbolKind, index: u8) -> SymbolKey {
    let header = SymbolHeader {
        group,
        index,
        source_count: 0,
        repair_count: 0,
    };
    let key = if kind == SymbolKind::Source {
        store.body_room()[0] = index;
        store.add_source(header, usize::from(index))
    } else {
        store.add_repair(header, &vec![index; 2 + usize::from(index)])
    };
    let key = key.unwrap();
    store.on_committed(key, 0);
    key
}

fn source(store: &mut SymbolStore, group: GroupId, index: u8) -> SymbolKey {
    add(store, group, SymbolKind::Source, index)
}

fn repair(store: &mut SymbolStore, group: GroupId, index: u8) -> SymbolKey {
    add(store, group, SymbolKind::Repair, index)
}

#[test]
fn a_group_is_freed_when_any_k_symbols_are_acknowledged() {
    let mut store = SymbolStore::new(16, 8);
    let group = store.open_group(1, Instant::ZERO);
    let (a, b) = (source(&mut store, group, 0), source(&mut store, group, 1));
    let r = repair(&mut store, group, 0);
    store.close_group(group, 4);
    store.on_acked(a);
    assert!(store.is_wanted(b) && !store.is_wanted(a));
    store.on_acked(r);
    assert_eq!(store.usage().0, 0);
    assert!(store.get(b).is_none());
}

#[test]
fn losses_within_the_repair_are_covered_and_beyond_it_make_the_group_late_once() {
    let mut store = SymbolStore::new(16, 8);
    let group = store.open_group(1, Instant::from_millis(3));
    let keys: Vec<_> = (0..3).map(|i| source(&mut store, group, i)).collect();
    let _ = repair(&mut store, group, 0);
    store.close_group(group, 4);
    assert_eq!(store.on_lost(keys[0]), None);
    assert_eq!(store.on_lost(keys[0]), None, "the same loss counts once");
    assert_eq!(store.on_lost(keys[1]), Some(group));
    assert_eq!(store.on_lost(keys[2]), None, "the caller knows");
    let need = store.need(group).unwrap();
    let expected = Need {
        deficit: 2,
        round: 1,
        opened_at: Instant::from_millis(3),
        source_count: Some(3),
        rows: (1, 4),
    };
    assert_eq!(need, expected);
    let again = store.lost_source(group).unwrap();
    store.on_committed(again, need.round);
    assert_eq!(store.need(group).unwrap().deficit, 1);
    let _ = repair(&mut store, group, 1);
    assert_eq!(store.need(group), None);
    assert_eq!(store.on_lost(again), Some(group));
    assert_eq!(store.need(group).unwrap().round, 2);
}

#[test]
fn an_open_group_counts_on_the_repair_that_will_come() {
    let mut store = SymbolStore::new(16, 8);
    let group = store.open_group(1, Instant::ZERO);
    let keys: Vec<_> = (0..2).map(|i| source(&mut store, group, i)).collect();
    assert_eq!(store.on_lost(keys[0]), None);
    assert_eq!(store.on_lost(keys[1]), Some(group));
    let need = store.need(group).unwrap();
    assert_eq!((need.deficit, need.source_count), (1, None));
    // It gets none after all.
    store.close_group(group, 4);
    assert_eq!(store.note_late(group), Some(group));
    assert_eq!(store.need(group).unwrap().deficit, 2);
}

#[test]
fn a_symbol_is_lost_when_all_its_copies_are() {
    let mut store = SymbolStore::new(16, 8);
    let group = store.open_group(0, Instant::ZERO);
    let key = source(&mut store, group, 0);
    store.on_committed(key, 0);
    store.close_group(group, 0);
    assert_eq!(store.on_lost(key), None, "the other copy is under way");
    assert_eq!(store.on_lost(key), Some(group));
    assert_eq!(store.need(group).unwrap().source_count, None);
    store.on_committed(key, 1);
    store.on_moved(key);
    store.on_committed(key, 1);
    assert_eq!(store.on_lost(key), Some(group));
    store.on_acked(key);
    assert_eq!(store.usage().0, 0);
}

#[test]
fn the_sources_of_a_group_are_listed_in_their_order() {
    let mut store = SymbolStore::new(16, 8);
    let (first, second) = (
        store.open_group(1, Instant::ZERO),
        store.open_group(1, Instant::ZERO),
    );
    let mut keys = Vec::new();
    for index in 0..3 {
        keys.push(source(&mut store, first, index));
        let _ = source(&mut store, second, index);
    }
    let _ = repair(&mut store, first, 0);
    let mut listed = Vec::new();
    assert_eq!(store.sources(first, &mut listed), 4);
    assert_eq!(listed, keys);
    assert_eq!(store.sources(GroupId(9), &mut listed), 0);
    assert!(listed.is_empty());
}

#[test]
fn old_groups_expire_in_order_and_stale_keys_find_nothing() {
    let mut store = SymbolStore::new(16, 8);
    let first = store.open_group(0, Instant::ZERO);
    let a = source(&mut store, first, 0);
    store.close_group(first, 0);
    let second = store.open_group(0, Instant::from_millis(50));
    let b = source(&mut store, second, 0);
    store.close_group(second, 0);
    assert_eq!(
        store.expire(Instant::from_millis(100), Duration::from_millis(80)),
        1
    );
    assert!(store.get(a).is_none() && store.get(b).is_some());
    assert_eq!(store.on_lost(a), None);
    let third = store.open_group(0, Instant::from_millis(100));
    let c = source(&mut store, third, 0);
    assert!(store.get(a).is_none() && store.get(c).is_some());
}

#[test]
fn a_full_ring_of_groups_gives_up_the_oldest() {
    let mut store = SymbolStore::new(16, 8);
    let first = store.open_group(0, Instant::ZERO);
    let a = source(&mut store, first, 0);
    for _ in 0..GROUPS {
        store.open_group(0, Instant::ZERO);
    }
    assert!(store.get(a).is_none());
    assert_eq!(store.usage().0, 0);
}

#[test]
fn a_withdrawn_source_is_done_with_but_repair_symbols_do_not_cover_two() {
    let mut store = SymbolStore::new(16, 8);
    let group = store.open_group(1, Instant::ZERO);
    let [a, b, c] = [0, 1, 2].map(|index| source(&mut store, group, index));
    let _ = repair(&mut store, group, 0);
    store.close_group(group, 1);
    assert_eq!(store.withdraw(a), None, "the repair symbol is for b or c");
    assert!(!store.is_wanted(a));
    assert_eq!(store.on_lost(b), Some(group));
    assert_eq!(store.need(group).unwrap().deficit, 1);
    assert_eq!(store.lost_source(group), Some(b));
    store.on_acked(b);
    store.on_acked(a); // late: counted already
    assert!(store.is_wanted(c));
    store.on_acked(c);
    assert_eq!(store.usage().0, 0);
}

#[test]
fn a_lost_source_whose_repair_symbol_was_enough_makes_its_group_late_when_another_is_withdrawn() {
    let mut store = SymbolStore::new(16, 8);
    let group = store.open_group(1, Instant::ZERO);
    let [lost, cut] = [0, 1].map(|index| source(&mut store, group, index));
    let _ = repair(&mut store, group, 0);
    store.close_group(group, 1);
    assert_eq!(store.on_lost(lost), None, "the repair symbol is under way");
    assert_eq!(store.withdraw(cut), Some(group));
    assert_eq!(store.need(group).unwrap().deficit, 1);
    assert_eq!(store.lost_source(group), Some(lost));
}

#[test]
fn sources_of_a_group_that_makes_room_are_counted_as_given_up() {
    let mut store = SymbolStore::new(16, 8);
    let group = store.open_group(0, Instant::ZERO);
    let _ = source(&mut store, group, 0);
    store.close_group(group, 0);
    for _ in 1..=GROUPS {
        let other = store.open_group(0, Instant::ZERO);
        store.close_group(other, 0);
    }
    assert_eq!(store.usage().0, 0);
    assert_eq!(store.expire(Instant::ZERO, Duration::from_secs(1)), 1);
}
