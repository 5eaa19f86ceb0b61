//! Who sent what and what came of it: the invariants that hold for every tunnel, whatever its links do.
//!
//! Each frame of a flow and direction has a number; a superframe's segments are told apart by their TCP sequence.
//! A segment that arrives twice is a fault; one that arrives behind a later one is counted.

use super::packet::{Arrival, Body, MSS};

/// What one flow sent in one direction, and what arrived of it.
#[derive(Debug, Default)]
pub struct Ledger {
    sent: Vec<Sent>,
    /// Number and segment that came last of those in order.
    newest: Option<(u64, u32)>,
    counts: Counts,
}

/// Sums of a [`Ledger`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Frames given to the tunnel.
    pub sent: u64,
    /// Segments in them; a frame that is no superframe is one segment.
    pub sent_segments: u64,
    /// Frames that came out.
    pub delivered: u64,
    /// Segments in those.
    pub delivered_segments: u64,
    /// Payload or packet bytes that came out.
    pub delivered_bytes: u64,
    /// Frames that came behind a later one.
    pub out_of_order: u64,
}

impl Counts {
    /// Segments that have not come (yet).
    pub const fn missing(&self) -> u64 {
        self.sent_segments - self.delivered_segments
    }

    /// Adds another flow's.
    pub const fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.sent_segments += other.sent_segments;
        self.delivered += other.delivered;
        self.delivered_segments += other.delivered_segments;
        self.delivered_bytes += other.delivered_bytes;
        self.out_of_order += other.out_of_order;
    }
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    /// TCP sequence of its first byte; 0 for datagrams.
    seq: u32,
    /// Segments it has; at most 64.
    segments: u8,
    /// Bit i: segment i arrived.
    arrived: u64,
}

impl Ledger {
    /// The next frame of the flow enters the tunnel. Frames are numbered by the order of these calls, from 0.
    pub fn on_sent(&mut self, arrival: &Arrival) {
        let (number, seq, segments) = parts(arrival);
        assert_eq!(
            number,
            self.sent.len() as u64,
            "a flow numbers its frames from 0"
        );
        assert!(
            segments <= 64,
            "a superframe has at most 64 segments here, not {segments}"
        );
        self.sent.push(Sent {
            seq,
            segments: u8::try_from(segments).unwrap_or(u8::MAX),
            arrived: 0,
        });
        self.counts.sent += 1;
        self.counts.sent_segments += u64::from(segments);
    }

    /// A frame left the tunnel.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn on_delivered(&mut self, arrival: &Arrival) -> Result<(), String> {
        let (number, seq, segments) = parts(arrival);
        let sent = usize::try_from(number)
            .ok()
            .and_then(|at| self.sent.get_mut(at));
        let Some(sent) = sent else {
            return Err(format!(
                "flow {} frame {number} was never sent",
                arrival.flow
            ));
        };
        let mss = u32::try_from(MSS).unwrap_or(u32::MAX);
        let first = seq.wrapping_sub(sent.seq) / mss;
        if first + segments > u32::from(sent.segments) {
            return Err(format!(
                "flow {} frame {number}: segments {first}+{segments} of {}",
                arrival.flow, sent.segments
            ));
        }
        let mask = u64::MAX >> (64 - segments) << first;
        if sent.arrived & mask != 0 {
            return Err(format!(
                "flow {} frame {number} segments {first}+{segments} delivered twice",
                arrival.flow
            ));
        }
        sent.arrived |= mask;
        let place = (number, first);
        if self.newest.is_some_and(|newest| newest > place) {
            self.counts.out_of_order += 1;
        } else {
            self.newest = Some(place);
        }
        self.counts.delivered += 1;
        self.counts.delivered_segments += u64::from(segments);
        self.counts.delivered_bytes += arrival.bytes as u64;
        Ok(())
    }

    /// The sums.
    pub const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Segments of the frames from a number on: all, and those that have not come.
    pub fn since(&self, first: u64) -> (u64, u64) {
        let first = usize::try_from(first).unwrap_or(usize::MAX);
        let frames = self.sent.get(first..).unwrap_or_default();
        let segments = frames.iter().map(|sent| u64::from(sent.segments)).sum();
        let came: u64 = frames
            .iter()
            .map(|sent| u64::from(sent.arrived.count_ones()))
            .sum();
        (segments, segments - came)
    }

    /// Numbers of frames of which a part is missing.
    pub fn missing(&self) -> impl Iterator<Item = u64> + '_ {
        (0_u64..)
            .zip(&self.sent)
            .filter(|(_, sent)| sent.arrived != u64::MAX >> (64 - sent.segments))
            .map(|(number, _)| number)
    }
}

/// Number, TCP sequence and segments of a frame.
fn parts(arrival: &Arrival) -> (u64, u32, u32) {
    match arrival.body {
        Body::Udp { number, .. } => (number, 0, 1),
        Body::Tcp(segment) => {
            let segments = segment.bytes.div_ceil(MSS).max(1);
            (
                u64::from(segment.number),
                segment.seq,
                u32::try_from(segments).unwrap_or(u32::MAX),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::packet::Segment;

    fn tcp(number: u32, seq: usize, segments: usize) -> Arrival {
        let segment = Segment {
            seq: u32::try_from(seq * MSS).unwrap(),
            bytes: segments * MSS,
            number,
            ..Segment::default()
        };
        Arrival {
            flow: 1,
            body: Body::Tcp(segment),
            bytes: segment.bytes,
        }
    }

    #[test]
    fn a_superframe_may_come_in_parts_but_no_part_twice() {
        let mut ledger = Ledger::default();
        ledger.on_sent(&tcp(0, 0, 64));
        ledger.on_sent(&tcp(1, 64, 2));
        assert_eq!(ledger.on_delivered(&tcp(0, 0, 60)), Ok(()));
        assert!(ledger.on_delivered(&tcp(0, 59, 2)).is_err());
        assert_eq!(ledger.on_delivered(&tcp(1, 64, 2)), Ok(()));
        assert_eq!(ledger.on_delivered(&tcp(0, 61, 3)), Ok(()));
        assert!(ledger.on_delivered(&tcp(2, 66, 1)).is_err());
        assert_eq!(
            (ledger.counts().missing(), ledger.counts().out_of_order),
            (1, 1)
        );
        assert_eq!(ledger.missing().collect::<Vec<_>>(), [0]);
        assert_eq!((ledger.since(0), ledger.since(1)), ((66, 1), (2, 0)));
    }
}
