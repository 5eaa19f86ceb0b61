//! Tests of the reorder buffer, rule by rule.

use super::*;

const LANE: Lane = Lane(5);

const fn ms(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

fn buffer() -> Buffer<u32> {
    let mut buffer = Buffer::new(8);
    buffer.set_hold(Duration::from_millis(20));
    buffer
}

/// Releases all that leaves at `now`: (sequence, ready, late).
fn drained(buffer: &mut Buffer<u32>, now: Instant) -> Vec<(u32, bool, bool)> {
    std::iter::from_fn(|| buffer.poll(now))
        .map(|r| (r.seq, r.ready, r.late))
        .collect()
}

/// The sequences that leave at `now`.
fn seqs(buffer: &mut Buffer<u32>, now: Instant) -> Vec<u32> {
    drained(buffer, now).into_iter().map(|r| r.0).collect()
}

impl<T> Buffer<T> {
    /// Puts in what began to wait when it came.
    pub(super) fn insert(
        &mut self,
        lane: Lane,
        seq: u32,
        item: T,
        ready: bool,
        now: Instant,
    ) -> Result<(), (DropReason, T)> {
        self.insert_since(lane, seq, item, ready, now, now)
    }
}

#[test]
fn items_in_order_leave_at_once() {
    let mut b = buffer();
    for seq in 0..100 {
        b.insert(LANE, seq, seq, true, ms(0)).unwrap();
        assert_eq!(drained(&mut b, ms(0)), [(seq, true, false)]);
    }
    assert_eq!(b.poll_timeout(), Instant::FAR);
    assert_eq!(
        *b.counters(),
        Counters {
            depth_max: 1,
            ..Counters::default()
        }
    );
}

#[test]
fn a_hole_is_skipped_when_the_first_arrival_behind_it_was_held_long_enough() {
    let mut b = buffer();
    b.insert(LANE, 3, 0, true, ms(10)).unwrap();
    b.insert(LANE, 1, 0, true, ms(15)).unwrap();
    assert!(drained(&mut b, ms(29)).is_empty());
    assert_eq!(b.poll_timeout(), ms(30));
    assert_eq!(seqs(&mut b, ms(30)), [1, 3]);
    assert_eq!(b.counters().holes_skipped, 2);
}

#[test]
fn the_hold_of_a_second_hole_counts_from_its_own_first_arrival() {
    let mut b = buffer();
    b.insert(LANE, 1, 0, true, ms(0)).unwrap();
    b.insert(LANE, 3, 0, true, ms(8)).unwrap();
    assert_eq!(seqs(&mut b, ms(20)), [1]);
    assert_eq!(b.poll_timeout(), ms(28));
    b.insert(LANE, 2, 0, true, ms(25)).unwrap();
    assert_eq!(seqs(&mut b, ms(25)), [2, 3]);
}

#[test]
fn an_item_that_comes_after_its_skip_is_late_but_delivered_once() {
    let mut b = buffer();
    b.insert(LANE, 1, 0, true, ms(0)).unwrap();
    assert_eq!(seqs(&mut b, ms(20)), [1]);
    b.insert(LANE, 0, 0, true, ms(21)).unwrap();
    assert_eq!(drained(&mut b, ms(21)), [(0, true, true)]);
    for seq in [0, 1] {
        assert_eq!(
            b.insert(LANE, seq, 9, true, ms(22)),
            Err((DropReason::DuplicateFrame, 9))
        );
    }
    assert_eq!((b.counters().late, b.counters().duplicates), (1, 2));
}

#[test]
fn an_unready_item_holds_its_lane_until_it_is_ready_or_its_time_is_over() {
    let mut b = buffer();
    b.insert(LANE, 0, 0, false, ms(0)).unwrap();
    b.insert(LANE, 1, 0, true, ms(5)).unwrap();
    assert_eq!(seqs(&mut b, ms(10)), [] as [u32; 0]);
    assert!(b.mark_ready(LANE, 0));
    assert_eq!(b.poll_timeout(), Instant::ZERO);
    assert_eq!(seqs(&mut b, ms(10)), [0, 1]);
    assert!(!b.mark_ready(LANE, 0));

    b.insert(LANE, 2, 0, false, ms(20)).unwrap();
    *b.get_mut(LANE, 2).unwrap() = 77;
    assert_eq!(b.poll(ms(39)), None);
    let released = b.poll(ms(40)).unwrap();
    assert_eq!(
        (released.seq, released.item, released.ready),
        (2, 77, false)
    );
    assert_eq!(released.held, Duration::from_millis(20));
    assert_eq!(b.get_mut(LANE, 2), None);
    assert_eq!(b.counters().unready, 1);
}

#[test]
fn a_hole_in_one_lane_delays_no_other() {
    let mut b = buffer();
    b.insert(LANE, 1, 0, true, ms(0)).unwrap();
    b.insert(Lane(6), 0, 0, true, ms(1)).unwrap();
    b.insert(Lane(63), 2, 0, true, ms(2)).unwrap();
    assert_eq!(b.poll(ms(2)).map(|r| (r.lane, r.seq)), Some((Lane(6), 0)));
    assert_eq!(b.poll(ms(2)), None);
    assert_eq!(b.poll(ms(20)).map(|r| r.lane), Some(LANE));
    assert_eq!(b.poll(ms(22)).map(|r| r.lane), Some(Lane(63)));
}

#[test]
fn the_unordered_lane_waits_for_nothing_but_knows_its_duplicates() {
    let mut b = buffer();
    for seq in [7, 3, 5, 0] {
        b.insert(Lane::UNORDERED, seq, 0, true, ms(0)).unwrap();
        assert_eq!(drained(&mut b, ms(0)), [(seq, true, false)]);
        assert!(b.insert(Lane::UNORDERED, seq, 0, true, ms(0)).is_err());
    }
    b.insert(Lane::UNORDERED, 8, 0, false, ms(1)).unwrap();
    b.insert(Lane::UNORDERED, 9, 0, false, ms(2)).unwrap();
    assert!(b.mark_ready(Lane::UNORDERED, 9));
    assert_eq!(drained(&mut b, ms(2)), [(9, true, false)]);
    assert_eq!(drained(&mut b, ms(21)), [(8, false, false)]);
    assert_eq!(b.counters().holes_skipped, 0);
    assert_eq!(b.counters().overtaken, 5, "all but the first one");
}

#[test]
fn more_than_a_window_pushes_the_oldest_hole_out() {
    let mut b = buffer();
    for seq in 1..8 {
        b.insert(LANE, seq, 0, true, ms(0)).unwrap();
    }
    assert_eq!(seqs(&mut b, ms(0)), [] as [u32; 0]);
    b.insert(LANE, 8, 0, true, ms(0)).unwrap();
    assert_eq!(seqs(&mut b, ms(0)), (1..9).collect::<Vec<_>>());
}

#[test]
fn a_jump_far_ahead_resumes_one_window_behind_the_newcomer() {
    let mut b = buffer();
    b.insert(LANE, 1_000_000, 0, true, ms(0)).unwrap();
    b.insert(LANE, 1_000_000 - 7, 0, true, ms(1)).unwrap();
    assert_eq!(seqs(&mut b, ms(1)), [1_000_000 - 7]);
    assert_eq!(seqs(&mut b, ms(20)), [1_000_000]);
    // With items held, the newcomer is refused once and the lane follows.
    b.insert(LANE, 1_000_003, 0, true, ms(30)).unwrap();
    let refused = b.insert(LANE, 2_000_000, 0, true, ms(30));
    assert_eq!(refused, Err((DropReason::ReorderFull, 0)));
    assert_eq!(seqs(&mut b, ms(30)), [1_000_003]);
    b.insert(LANE, 2_000_000, 0, true, ms(30)).unwrap();
}

#[test]
fn proof_of_loss_skips_at_once() {
    let mut b = buffer();
    b.insert(LANE, 2, 0, true, ms(0)).unwrap();
    b.give_up(LANE, 1);
    assert_eq!(seqs(&mut b, ms(0)), [] as [u32; 0]);
    b.give_up(LANE, 2);
    assert_eq!(seqs(&mut b, ms(0)), [2]);
    assert_eq!(b.counters().holes_skipped, 2);
}

#[test]
fn under_pressure_the_oldest_hole_goes_first() {
    let mut b = Buffer::new(WINDOW);
    b.set_hold(Duration::from_secs(1));
    b.insert(Lane(9), 1, 0_u32, true, ms(0)).unwrap();
    let mut inserted = 1;
    'lanes: for lane in 10..14 {
        for seq in 1..WINDOW {
            b.insert(Lane(lane), seq, 0, true, ms(1)).unwrap();
            inserted += 1;
            if b.poll_timeout() == Instant::ZERO {
                break 'lanes;
            }
        }
    }
    assert_eq!(inserted, ITEMS_HIGH + 1);
    assert_eq!(b.poll(ms(1)).map(|r| (r.lane, r.seq)), Some((Lane(9), 1)));
    assert!(b.give_up_oldest());
    assert!(b.poll(ms(1)).is_some());
}

#[test]
fn the_room_is_bounded_even_when_nobody_polls() {
    let mut b = Buffer::new(WINDOW);
    let mut accepted = 0_u32;
    for i in 0..u32::from(ITEMS_MAX) + 100 {
        let lane = Lane(1 + (i % 4).to_le_bytes()[0]);
        accepted += u32::from(b.insert(lane, i / 4, i, true, ms(0)).is_ok());
    }
    assert_eq!(accepted, u32::from(ITEMS_MAX));
    assert_eq!(b.counters().refused, 100);
    let mut count = 0;
    b.drain(|_| count += 1);
    assert_eq!(count, accepted);
    assert!(b.is_empty());
}

#[test]
fn a_lane_that_does_not_exist_is_refused() {
    let mut b = buffer();
    assert_eq!(
        b.insert(Lane(64), 0, 5, true, ms(0)),
        Err((DropReason::BadFrame, 5))
    );
    assert_eq!(b.get_mut(Lane(200), 0), None);
    assert!(!b.mark_ready(Lane(255), 0));
    b.give_up(Lane(64), 9);
    assert_eq!(b.poll(ms(1000)), None);
}

#[test]
fn truncated_sequences_expand_to_the_nearest() {
    let mut b = buffer();
    b.lanes[LANE.index()].next = 0x0500_0010;
    for seq in [
        0x0500_0010_u32,
        0x0500_0000,
        0x04ff_fff0,
        0x0500_1000,
        0x057f_ffff,
        0x0480_0020,
    ] {
        assert_eq!(b.expand(LANE, seq & 0x00ff_ffff), seq, "{seq:x}");
    }
}

#[test]
fn what_came_by_a_slow_way_has_waited_for_part_of_its_time_already() {
    let mut b = buffer();
    b.set_hold(Duration::from_millis(20));
    b.insert_since(LANE, 1, 1, true, ms(10), ms(25)).unwrap();
    assert_eq!(b.poll_timeout(), ms(30));
    assert!(b.poll(ms(29)).is_none());
    let released = b.poll(ms(30)).unwrap();
    assert_eq!(
        (released.item, released.held),
        (1, Duration::from_millis(5))
    );
    // A time to come is no time to wait from.
    b.insert_since(LANE, 3, 3, true, ms(99), ms(40)).unwrap();
    assert_eq!(b.poll_timeout(), ms(60));
}
