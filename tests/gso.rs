//! Kernels that damage segmented sends, as a session meets them: two sessions joined by memory that does the same.
#![allow(clippy::unwrap_used)]

mod pair;

use chainlightning::base::Instant;
use chainlightning::link::gso::{Shape, Wanted};
use pair::{Pair, frame};

/// Sends 10 packets each millisecond for as long, over memory that spoils segmented sends; returns the pair and how many
/// were delivered in the last second.
fn after(seconds: u64, spoil: fn(usize, bool, usize) -> bool) -> (Pair, u64) {
    let mut pair = Pair::new(1, Instant::ZERO);
    for ms in 0..300 {
        pair.turn(Instant::from_millis(ms));
    }
    pair.spoil = spoil;
    let (start, end) = (300, 300 + seconds * 1_000);
    let mut before = 0;
    for ms in start..end {
        let now = Instant::from_millis(ms);
        if ms == end - 1_000 {
            before = pair.delivered[1];
        }
        for _ in 0..10 {
            let _ = pair.client.handle_frame(&frame(1, 1_380), now);
        }
        pair.turn(now);
    }
    let delivered = pair.delivered[1] - before;
    (pair, delivered)
}

fn shape(pair: &mut Pair) -> &'static str {
    pair.client.stats(Instant::from_millis(20_000)).links[0].gso
}

#[test]
fn sound_segmentation_stays_on() {
    let (mut pair, delivered) = after(3, |_, _, _| false);
    assert_eq!(shape(&mut pair), "on");
    assert!(delivered > 9_500, "{delivered} of 10000");
}

#[test]
fn runs_that_lose_their_last_equal_datagram_become_uneven_and_all_arrives() {
    let (mut pair, delivered) = after(6, |segments, even, index| even && index + 1 == segments);
    assert_eq!(shape(&mut pair), "uneven");
    assert!(delivered > 9_500, "{delivered} of 10000");
}

#[test]
fn runs_that_are_lost_whole_when_they_are_equal_become_uneven_and_all_arrives() {
    let (mut pair, delivered) = after(8, |_, even, _| even);
    assert_eq!(shape(&mut pair), "uneven");
    assert!(delivered > 9_000, "{delivered} of 10000");
}

#[test]
fn where_every_segmented_send_is_lost_datagrams_leave_by_themselves() {
    let (mut pair, _) = after(12, |_, _, _| true);
    assert_eq!(shape(&mut pair), "off");
}

#[test]
fn names_and_order_of_shapes_are_those_of_the_documentation() {
    assert!(Shape::On < Shape::Uneven && Shape::Uneven < Shape::Off);
    assert_eq!(Wanted::default(), Wanted::Auto);
    let names = [Shape::On, Shape::Uneven, Shape::Off].map(Shape::name);
    assert_eq!(names, ["on", "uneven", "off"]);
}
