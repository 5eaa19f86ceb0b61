//! What comes late, and what is told late.

use std::time::Duration;

use chainlightning::fec::protection::Mode as FecMode;
use chainlightning::sim::packet::Side;
use chainlightning::sim::plan::Plan;
use chainlightning::sim::traffic::TcpConfig;
use chainlightning::sim::world::World;

use crate::common::*;

/// Superframes as a sender's kernel makes them.
fn superframes() -> TcpConfig {
    TcpConfig {
        superframe_segments: 44,
        ..TcpConfig::default()
    }
}

#[test]
fn what_comes_after_the_hold_time_is_late_and_not_lost() {
    for seed in 1..=3 {
        let links = LINKS_A.map(|link| format!("{link} loss=2%"));
        let links: Vec<&str> = links.iter().map(String::as_str).collect();
        let mut plan = Plan::new(seed, &links);
        // What is lost is sent again, and that takes longer than anybody waits.
        plan.session.fec = FecMode::Off;
        plan.session.reorder_max = Some(Duration::from_millis(10));
        let mut world = World::new(plan);
        settle(&mut world);
        let flow = add_tcp(&mut world, Side::Server, superframes());
        let _ = add_cbr(&mut world, Side::Server, 10, 1_400, 4);
        world.run_for(ms(4_000));
        finish(&mut world);
        let near = world.stats(0).0.unwrap();
        println!(
            "{seed}: lost {:?} rescued {} {:?}\n{}",
            world.lost_inside(),
            near.rescued_frames,
            tcp(&world, flow).counters(),
            describe(&mut world)
        );
        assert!(near.rescued_frames > 50, "superframes broke");
        assert_eq!(world.lost_inside(), [0, 0]);
    }
}

/// Bytes that the client sent over each link in two seconds in which nothing but reports and heartbeats went its way.
fn reported(words: &str, backup: Option<usize>) -> [u64; 3] {
    let links = LINKS_A.map(|link| format!("{link} {words}"));
    let links: Vec<&str> = links.iter().map(String::as_str).collect();
    let mut plan = Plan::new(7, &links);
    if let Some(link) = backup {
        plan.links[link].backup = true;
    }
    let mut world = World::new(plan);
    settle(&mut world);
    let _ = add_cbr(&mut world, Side::Server, 50, 1_400, 40);
    world.run_for(ms(30_000));
    carried(&mut world, Side::Client, ms(2_000))
}

#[test]
fn reports_whose_way_loses_in_bursts_come_by_another_as_well() {
    // A burst of them lasts longer than a report can tell of, and what none told of is never repaired.
    let clean = reported("", None);
    let bursts = reported("gilbert=2%/8", None);
    let backup = reported("gilbert=2%/8", Some(1));
    println!("{clean:?} {bursts:?} {backup:?}");
    assert!(clean[1] * 4 < clean[0], "{clean:?}");
    assert!(bursts[1] * 4 > bursts[0] * 3, "{bursts:?}");
    assert!(backup[1] * 4 < backup[0], "{backup:?}");
    assert!(backup[2] * 4 > backup[0] * 3, "{backup:?}");
}
