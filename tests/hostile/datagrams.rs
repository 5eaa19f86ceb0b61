//! Forged, cut and swapped datagrams: the server neither answers nor changes.

use std::time::Duration;

use chainlightning::base::DropReason;
use chainlightning::endpoint::Endpoint;

use crate::pair::origin;
use crate::world::{STRANGER, World};

#[test]
fn a_flipped_bit_anywhere_in_a_datagram_changes_nothing() {
    let (mut world, link, datagram) = World::established();
    let before = world.state();
    for from in [origin(link.0), STRANGER] {
        for bit in 0..datagram.len() * 8 {
            let mut forged = datagram.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            world.expect_nothing(from, &forged, &before, &format!("bit {bit}"));
        }
        for cut in 0..datagram.len() {
            world.expect_nothing(from, &datagram[..cut], &before, &format!("cut at {cut}"));
        }
    }
    // Proof that the datagram itself would have had an effect.
    world.deliver(origin(link.0), &datagram);
    assert_ne!(world.state(), before);
    let _ = world.server_sends();
    let (before, known) = (world.state(), world.dropped(DropReason::ReplayDuplicate));
    world.expect_nothing(STRANGER, &datagram, &before, "a copy");
    assert_eq!(world.dropped(DropReason::ReplayDuplicate), known + 1);
}

#[test]
fn a_datagram_under_another_links_index_or_an_unknown_one_is_silently_dropped() {
    let (mut world, link, datagram) = World::established();
    let mut indexes = vec![];
    for _ in 0..200 {
        world.now += Duration::from_millis(1);
        for (other, datagram) in world.client_sends() {
            if other != link {
                indexes.push(datagram[4..8].to_vec());
            }
        }
    }
    assert!(!indexes.is_empty());
    world.server.handle_timeout(world.now);
    while world.server.poll_event().is_some() {}
    let _ = world.server_sends();
    let before = world.state();
    for index in &indexes {
        let mut swapped = datagram.clone();
        swapped[4..8].copy_from_slice(index);
        world.expect_nothing(origin(link.0), &swapped, &before, "another link's index");
    }
    let refused = [DropReason::AuthFailed, DropReason::ReplayDuplicate].map(|r| world.dropped(r));
    assert!(refused[0] > 0);
    assert_eq!(refused[0] + refused[1], indexes.len() as u64);
    let mut unknown = datagram;
    unknown[4..8].copy_from_slice(&[0; 4]);
    world.expect_nothing(STRANGER, &unknown, &before, "an unknown index");
    assert_eq!(world.dropped(DropReason::UnknownIndex), 1);
}
