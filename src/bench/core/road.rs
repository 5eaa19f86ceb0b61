//! A session core under load: one end sends what comes from its TUN, the other one receives it, and nothing is between
//! them but memory. Both ends' time is taken apart.
//!
//! ```text
//!  frames ─► client ─► runs of datagrams ─► server ─► frames           one step of virtual time
//!              ▲                              │
//!              └──── reports, a step later ◄──┘
//! ```
//!
//! A step does what a turn of the data thread does: timers, events, all that may leave, the next deadline.

use std::time::Duration;

use super::cost::clock_cost;
use super::{frames, pair};
use crate::base::{DropCounters, FRAME_BYTES_MAX, Instant, LinkId};
use crate::fec::protection::Mode as FecMode;
use crate::session::config::SessionConfig;
use crate::session::{RUN_BYTES_MAX, Session, Transmit};
use crate::sys::clock::thread_time;
use crate::wire::virtio::VIRTIO_BYTES;

/// Virtual time of a step: how often a busy data thread gets round.
pub const STEP: Duration = Duration::from_micros(100);
/// Flows, so that frames use several queues and lanes.
const FLOWS: u16 = 5;
/// Runs that leave in one step at most; more wait for the next one. At 10 Gbit/s a step has two.
const RUNS: usize = 256;
/// Until links are up, paths are measured and the first probes for capacity are over.
const WARM_UP_MIN: Duration = Duration::from_secs(4);
/// A load that does not come through by then never will.
const WARM_UP_MAX: Duration = Duration::from_secs(20);
/// Virtual time over which it is looked at whether all that is sent arrives.
const LOOK: Duration = Duration::from_millis(100);
/// Part of the load that must arrive in it.
const ARRIVES: f64 = 0.97;
/// A datagram of this size begins a run's room, the longest run and a datagram that does not count in it.
const RUN_ROOM: usize = RUN_BYTES_MAX + 2048;

/// What a TUN gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// UDP packets of this length.
    Udp(u16),
    /// Superframes of TCP, in packets of 1400 bytes.
    Superframes,
    /// Acknowledgements of TCP.
    Acks,
}

/// A load of a session.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// What it is called.
    pub name: &'static str,
    /// Links, each with a WAN of its own.
    pub links: u8,
    /// FEC of the sender.
    pub fec: FecMode,
    /// What is sent.
    pub traffic: Traffic,
    /// How much of it, in packets a second of virtual time.
    pub packets_per_s: u64,
    /// Every n-th datagram to the server is lost; 0 = none.
    pub lose_each: u64,
}

/// What a part of the road took, in processor time of this thread where nobody else ran.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    /// Time of the sender.
    pub sending: Duration,
    /// Time of the receiver.
    pub receiving: Duration,
    /// Packets that came out at the receiver.
    pub packets: f64,
    /// Datagrams to the receiver.
    pub datagrams: u64,
}

/// Datagrams on their way.
#[derive(Debug)]
struct Runs {
    bytes: Vec<u8>,
    runs: Vec<Transmit>,
}

impl Runs {
    fn new() -> Self {
        Self {
            bytes: vec![0; RUNS * RUN_ROOM],
            runs: Vec::with_capacity(RUNS),
        }
    }

    /// Takes all that a session may send.
    fn fill(&mut self, from: &mut Session, now: Instant) {
        self.runs.clear();
        for room in self.bytes.chunks_exact_mut(RUN_ROOM) {
            let Some(transmit) = from.poll_transmit(now, room) else {
                return;
            };
            self.runs.push(transmit);
        }
    }

    /// Hands every datagram on.
    fn each(&mut self, mut on: impl FnMut(LinkId, &mut [u8])) {
        for (room, run) in self.bytes.chunks_exact_mut(RUN_ROOM).zip(&self.runs) {
            let datagrams = room[..run.bytes].chunks_mut(usize::from(run.segment));
            datagrams.for_each(|datagram| on(run.link, datagram));
        }
        self.runs.clear();
    }
}

/// Two sessions and what is between them.
#[derive(Debug)]
pub struct Road {
    /// Sends.
    pub client: Session,
    /// Receives.
    pub server: Session,
    load: Load,
    now: Instant,
    frames: Vec<Vec<u8>>,
    /// Packets that each frame stands for.
    packets_per_frame: u64,
    offered: u64,
    there: Runs,
    back: Runs,
    frame: Vec<u8>,
    carried: u64,
    delivered_bytes: u64,
    /// Of reading the clock, in each span of time.
    clock_cost: Duration,
    /// What the server refused of it, by reason.
    pub refused: DropCounters,
}

impl Road {
    /// A road whose sessions have agreed on keys and have sent nothing yet.
    pub fn new(load: Load) -> Self {
        let now = Instant::ZERO;
        let (mut client, mut server) = pair::sessions(load.links, now);
        let config = SessionConfig {
            fec: load.fec,
            ..pair::config()
        };
        client.set_config(config.clone());
        server.set_config(config);
        let (make, packets_per_frame): (&dyn Fn(u16) -> Vec<u8>, u64) = match load.traffic {
            Traffic::Udp(bytes) => (&move |flow| frames::udp(flow, bytes), 1),
            Traffic::Superframes => (&frames::superframe, frames::SUPERFRAME_PACKETS.into()),
            Traffic::Acks => (&frames::ack, 1),
        };
        Self {
            client,
            server,
            load,
            now,
            frames: (0..FLOWS).map(make).collect(),
            packets_per_frame,
            offered: 0,
            there: Runs::new(),
            back: Runs::new(),
            frame: vec![0; FRAME_BYTES_MAX],
            carried: 0,
            delivered_bytes: 0,
            clock_cost: clock_cost(),
            refused: DropCounters::default(),
        }
    }

    /// Sends until all that is sent arrives; whether it does.
    pub fn warm_up(&mut self) -> bool {
        while self.now < Instant::ZERO + WARM_UP_MAX {
            let (offered, delivered) = (self.offered, self.delivered_bytes);
            self.pass(LOOK);
            let sent = (self.offered - offered) * self.frame_bytes();
            let arrived = self.delivered_bytes - delivered;
            #[allow(clippy::cast_precision_loss)] // a ratio
            if arrived as f64 >= sent as f64 * ARRIVES && self.now >= Instant::ZERO + WARM_UP_MIN {
                return true;
            }
        }
        false
    }

    /// Lets virtual time pass under load.
    pub fn pass(&mut self, span: Duration) -> Spent {
        let end = self.now + span;
        let (before, carried) = (self.delivered_bytes, self.carried);
        let mut spent = Spent::default();
        while self.now < end {
            self.step(&mut spent);
        }
        #[allow(clippy::cast_precision_loss)] // counts of a bench
        let frames = (self.delivered_bytes - before) as f64 / self.frame_bytes() as f64;
        #[allow(clippy::cast_precision_loss)] // at most a superframe's
        let packets_per_frame = self.packets_per_frame as f64;
        spent.packets = frames * packets_per_frame;
        spent.datagrams = self.carried - carried;
        spent
    }

    /// Inner bytes of a packet of this load.
    pub fn packet_bytes(&self) -> u64 {
        self.frame_bytes() / self.packets_per_frame
    }

    /// Inner bytes of a frame.
    fn frame_bytes(&self) -> u64 {
        (self.frames[0].len() - VIRTIO_BYTES) as u64
    }

    /// Packets that were given to the sender.
    pub const fn offered_packets(&self) -> u64 {
        self.offered * self.packets_per_frame
    }

    /// Frames that were to be sent until now.
    fn due(&self) -> u64 {
        let micros = u128::from(self.now.as_micros()) * u128::from(self.load.packets_per_s);
        u64::try_from(micros / 1_000_000).unwrap_or(u64::MAX) / self.packets_per_frame
    }

    fn step(&mut self, spent: &mut Spent) {
        self.now += STEP;
        let now = self.now;
        let started = thread_time();
        let client = &mut self.client;
        self.back.each(|link, datagram| {
            let _ = client.handle_datagram(1, link, datagram, None, now);
        });
        for number in self.offered..self.due() {
            let flow = usize::try_from(number).unwrap_or(0) % self.frames.len();
            // What a full queue drops does not arrive, and is seen there.
            let _ = self.client.handle_frame(&self.frames[flow], now);
            self.offered += 1;
        }
        turn(&mut self.client, &mut self.there, now);
        let between = thread_time();
        let (server, frame) = (&mut self.server, &mut self.frame);
        self.there.each(|link, datagram| {
            self.carried += 1;
            if self.load.lose_each > 0 && self.carried.is_multiple_of(self.load.lose_each) {
                return;
            }
            let from = pair::origin(link.0);
            if let Err(reason) = server.handle_datagram(1, link, datagram, Some(from), now) {
                self.refused.count(reason);
            }
            while let Some(bytes) = server.poll_frame(now, frame) {
                self.delivered_bytes += (bytes - VIRTIO_BYTES) as u64;
            }
        });
        turn(server, &mut self.back, now);
        while let Some(bytes) = server.poll_frame(now, frame) {
            self.delivered_bytes += (bytes - VIRTIO_BYTES) as u64;
        }
        let ended = thread_time();
        let clock = self.clock_cost;
        spent.sending += between.saturating_sub(started).saturating_sub(clock);
        spent.receiving += ended.saturating_sub(between).saturating_sub(clock);
    }
}

/// What the data thread does with a session in each turn.
fn turn(session: &mut Session, out: &mut Runs, now: Instant) {
    session.handle_timeout(now);
    while session.poll_event().is_some() {}
    out.fill(session, now);
    let _ = session.poll_timeout(now);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_the_receiver_can_hold_behind_holes_goes_through_without_them() {
        let load = Load {
            name: "fast and lossy",
            links: 3,
            fec: pair::ADAPTIVE,
            traffic: Traffic::Udp(1400),
            packets_per_s: 300_000,
            lose_each: 50,
        };
        let mut road = Road::new(load);
        road.pass(Duration::from_millis(1_500));
        let offered = road.offered_packets();
        let spent = road.pass(Duration::from_millis(300));
        let offered = road.offered_packets() - offered;
        #[allow(clippy::cast_precision_loss)] // a ratio
        let arrived = spent.packets / offered as f64;
        assert!(arrived > 0.9, "{arrived} of {offered}: {:?}", road.refused);
    }

    #[test]
    fn a_report_leaves_when_it_is_full() {
        let reports = |packets_per_s| {
            let mut road = Road::new(Load {
                name: "one way",
                links: 1,
                fec: FecMode::Off,
                traffic: Traffic::Udp(1400),
                packets_per_s,
                lose_each: 0,
            });
            let mut sent = || {
                road.pass(Duration::from_millis(500));
                road.server.stats(road.now).links[0].sent.1
            };
            let before = sent();
            sent() - before
        };
        // One in 5 ms, but for 256 datagrams one in a millisecond.
        let (slow, fast) = (reports(10_000), reports(300_000));
        assert!((90..150).contains(&slow), "{slow}");
        assert!((400..=600).contains(&fast), "{fast}");
    }
}
