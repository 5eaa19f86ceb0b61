//! Heartbeats of an idle session leave together, and none leaves late.
#![allow(clippy::unwrap_used)]

mod pair;

use std::time::Duration;

use chainlightning::base::{Instant, LinkId};
use chainlightning::session::RUN_BYTES_MAX;
use pair::{origin, sessions};

const LINKS: u8 = 5;

/// Datagrams on their way: when they arrive, whether up, which link, what.
type Way = Vec<(Instant, bool, LinkId, Vec<u8>)>;

/// Both ends for six seconds over links of 10 ms each, or of 10 to 14 ms; in how many of the last 3000 milliseconds each end
/// sent something, and how many datagrams by end and link in all.
fn run(equal: bool) -> ([u64; 2], [[u64; LINKS as usize]; 2]) {
    let start = Instant::from_millis(1);
    let (mut client, mut server) = sessions(LINKS, start);
    let (mut way, mut turns) = (Way::new(), [0; 2]);
    let mut sent = [[0; LINKS as usize]; 2];
    let mut buffer = vec![0; RUN_BYTES_MAX + 1024];
    for step in 0..6_000 {
        let now = start + Duration::from_millis(step);
        way.retain_mut(|(at, up, link, datagram)| {
            let due = *at <= now;
            if due {
                let end = if *up { &mut server } else { &mut client };
                let from = up.then(|| origin(link.0));
                end.handle_datagram(1, *link, datagram, from, now).unwrap();
            }
            !due
        });
        for (number, end) in [&mut client, &mut server].into_iter().enumerate() {
            end.handle_timeout(now);
            while end.poll_event().is_some() {}
            let mut left = false;
            while let Some(transmit) = end.poll_transmit(now, &mut buffer) {
                left = true;
                let link = transmit.link;
                sent[number][link.index()] += 1;
                let more = if equal { 0 } else { u64::from(link.0) };
                let arrival = now + Duration::from_millis(10 + more);
                way.push((
                    arrival,
                    number == 0,
                    link,
                    buffer[..transmit.bytes].to_vec(),
                ));
            }
            turns[number] += u64::from(left && step >= 3_000);
        }
    }
    assert!(client.has_way() && server.has_way());
    (turns, sent)
}

#[test]
fn beats_and_reports_of_an_idle_session_leave_in_few_turns() {
    // 30 intervals, with a beat and a report each.
    let (turns, _) = run(true);
    assert!(
        turns.iter().all(|count| (25..=66).contains(count)),
        "{turns:?}"
    );
    let (turns, _) = run(false);
    assert!(
        turns.iter().all(|count| (25..=96).contains(count)),
        "{turns:?}"
    );
}

#[test]
fn no_link_beats_less_often_than_its_interval_asks_for() {
    for equal in [true, false] {
        let (_, sent) = run(equal);
        assert!(sent.iter().flatten().all(|count| *count >= 58), "{sent:?}");
    }
}
