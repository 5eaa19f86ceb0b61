//! One direction of one link: a bottleneck with a queue, a wire with delay, and everything that goes wrong on it.
//!
//! Sans-IO and deterministic: packets and `now` go in, packets and deadlines come out; the same seed, specification
//! and calls give the same result. The payload is generic, so that the simulator moves its own records and the
//! emulator moves real frames through the same model.
//!
//! ```text
//!  handle_packet           tail drop              loss, damage, copies          FIFO, jitter
//!  ───────────────► outage? ──► queue ──► bottleneck ──────────────► wire (delay) ──► outage? ──► poll
//!                                      rate or trace,                   └──► held back (reordering)
//!                                      handover silences
//! ```
//!
//! Invariants: packets leave in the order they entered, except those that `reorder` holds back; the bottleneck never
//! carries more than its rate (the serialisation time is exact, remainders are carried over); a loss uses
//! capacity, as a radio's does; a handover silence delays and an outage destroys. Time may stand still between two
//! calls, and a packet's arrival may lie before the last `poll`, as it does when an emulator reads its socket late.

mod bottleneck;
mod spec;
#[cfg(test)]
mod tests;
mod trace;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use crate::base::{Instant, Rng};
use bottleneck::Bottleneck;

pub use spec::{Capacity, Handover, Loss, Outage, QueueLimit, Reordering, Spec, SpecError};
pub use trace::{DelayTrace, Trace, TraceError};

/// What travels over a link.
pub trait Payload {
    /// Bytes that the packet occupies on the link (for IP: the whole IP packet).
    fn wire_bytes(&self) -> u32;
    /// Flips one bit somewhere.
    fn corrupt(&mut self, rng: &mut Rng);
    /// A second copy; `None` when the payload cannot be copied (it is then not duplicated).
    fn duplicate(&self) -> Option<Self>
    where
        Self: Sized;
}

impl Payload for Vec<u8> {
    fn wire_bytes(&self) -> u32 {
        u32::try_from(self.len()).unwrap_or(u32::MAX)
    }

    fn corrupt(&mut self, rng: &mut Rng) {
        let at = usize::try_from(rng.below(self.len() as u64)).unwrap_or(0);
        if let Some(byte) = self.get_mut(at) {
            *byte ^= 1 << rng.below(8);
        }
    }

    fn duplicate(&self) -> Option<Self> {
        Some(self.clone())
    }
}

/// What happened so far. `handled + duplicated = delivered + *_drops + lost + what is still inside`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets given to `handle_packet`.
    pub handled: u64,
    /// Their bytes.
    pub handled_bytes: u64,
    /// Packets that `poll` returned.
    pub delivered: u64,
    /// Their bytes.
    pub delivered_bytes: u64,
    /// Refused by the full queue.
    pub queue_drops: u64,
    /// Destroyed by an outage.
    pub outage_drops: u64,
    /// Longer than the link carries.
    pub size_drops: u64,
    /// Lost on the wire by the random or the Gilbert-Elliott process.
    pub lost: u64,
    /// Extra copies made.
    pub duplicated: u64,
    /// Held back so that later packets overtook them.
    pub reordered: u64,
    /// Damaged.
    pub corrupted: u64,
    /// Most bytes that ever waited in the queue.
    pub queue_bytes_max: u64,
}

/// The model of one direction. See the module's head for what it does.
#[derive(Debug)]
pub struct Impairment<T> {
    spec: Spec,
    rng: Rng,
    /// Seed of everything that is a function of time (jitter, silences), independent of the traffic.
    time_seed: u64,
    bottleneck: Bottleneck,
    /// With the time at which each entered.
    queue: VecDeque<(Instant, T)>,
    queue_bytes: u64,
    /// When the queue's head has been serialised; `None` when the queue is empty.
    head_finish: Option<Instant>,
    wire: VecDeque<(Instant, T)>,
    wire_last_due: Instant,
    held_back: BinaryHeap<Reverse<HeldBack<T>>>,
    held_back_count: u64,
    gilbert_bad: bool,
    counters: Counters,
    /// When each packet left the bottleneck and how long it had waited, once somebody wants to know.
    waits: Option<Vec<(Instant, Duration)>>,
}

impl<T: Payload> Impairment<T> {
    /// A link direction that behaves as `spec` says, with all its chances drawn from `seed`.
    pub fn new(spec: Spec, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let time_seed = rng.next_u64();
        let bottleneck = Bottleneck::new(spec.capacity.clone(), spec.handover.clone(), time_seed);
        Self {
            spec,
            rng,
            time_seed,
            bottleneck,
            queue: VecDeque::new(),
            queue_bytes: 0,
            head_finish: None,
            wire: VecDeque::new(),
            wire_last_due: Instant::ZERO,
            held_back: BinaryHeap::new(),
            held_back_count: 0,
            gilbert_bad: false,
            counters: Counters::default(),
            waits: None,
        }
    }

    /// Writes down the queueing delay of each packet from here on, which takes memory for each.
    pub fn record_waits(&mut self) {
        self.waits.get_or_insert_default();
    }

    /// For each packet since [`Impairment::record_waits`]: when its last bit left the bottleneck, and how much longer
    /// it was there than it takes to serialise it at the mean rate.
    pub fn waits(&self) -> &[(Instant, Duration)] {
        self.waits.as_deref().unwrap_or_default()
    }

    /// What is in force.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Changes the behaviour from `now` on. The packet being serialised ends as it began; packets in the queue are
    /// served by the new rate; packets on the wire keep their arrival times.
    pub fn set_spec(&mut self, spec: Spec, now: Instant) {
        self.advance(now);
        self.bottleneck
            .set(spec.capacity.clone(), spec.handover.clone());
        self.spec = spec;
    }

    /// Counters since the start.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Packets that entered and neither left nor were destroyed.
    pub fn held(&self) -> usize {
        self.queue.len() + self.wire.len() + self.held_back.len()
    }

    /// Bytes that wait for the bottleneck, with the packet being serialised.
    pub fn queue_bytes(&self) -> u64 {
        self.queue_bytes
    }

    /// A packet enters the link at `now`.
    pub fn handle_packet(&mut self, packet: T, now: Instant) {
        self.advance(now);
        let bytes = u64::from(packet.wire_bytes());
        self.counters.handled += 1;
        self.counters.handled_bytes += bytes;
        if self.spec.is_outage(now) {
            self.counters.outage_drops += 1;
            return;
        }
        if self.spec.mtu.is_some_and(|mtu| bytes > u64::from(mtu)) {
            self.counters.size_drops += 1;
            return;
        }
        if self.queue_bytes > 0 && self.queue_bytes + bytes > self.spec.queue_bytes_max() {
            self.counters.queue_drops += 1;
            return;
        }
        self.queue_bytes += bytes;
        self.counters.queue_bytes_max = self.counters.queue_bytes_max.max(self.queue_bytes);
        self.queue.push_back((now, packet));
        if self.head_finish.is_none() {
            self.head_finish = Some(self.bottleneck.serve(now, bytes));
        }
        self.advance(now);
    }

    /// The next packet that reached the far end until `now`.
    pub fn poll(&mut self, now: Instant) -> Option<T> {
        self.advance(now);
        loop {
            let (due, packet) = self.pop_due(now)?;
            if self.spec.is_outage(due) {
                self.counters.outage_drops += 1;
                continue;
            }
            self.counters.delivered += 1;
            self.counters.delivered_bytes += u64::from(packet.wire_bytes());
            return Some(packet);
        }
    }

    /// When `poll` may next have something: never too late, at times too early (the head of the queue may be lost).
    pub fn poll_timeout(&self) -> Instant {
        let wire = self.wire.front().map_or(Instant::FAR, |(due, _)| *due);
        let held_back = self
            .held_back
            .peek()
            .map_or(Instant::FAR, |Reverse(held)| held.due);
        let head = self
            .head_finish
            .map_or(Instant::FAR, |at| at + self.delay_at(at));
        wire.min(held_back).min(head)
    }

    /// Moves everything that is serialised by `now` from the queue to the wire.
    fn advance(&mut self, now: Instant) {
        while let Some(finish) = self.head_finish.filter(|&finish| finish <= now) {
            let Some((entered, packet)) = self.queue.pop_front() else {
                self.head_finish = None;
                return;
            };
            let bytes = u64::from(packet.wire_bytes());
            self.queue_bytes -= bytes;
            if let Some(waits) = &mut self.waits {
                let own = self.spec.mean_rate().map(|rate| rate.time_for(bytes));
                let wait = finish
                    .since(entered)
                    .saturating_sub(own.unwrap_or_default());
                waits.push((finish, wait));
            }
            self.head_finish = self
                .queue
                .front()
                .map(|(_, next)| self.bottleneck.serve(finish, u64::from(next.wire_bytes())));
            self.on_serialised(packet, finish);
        }
    }

    /// The last bit left the bottleneck at `at`: decides the packet's fate on the wire.
    fn on_serialised(&mut self, mut packet: T, at: Instant) {
        if self.draws_loss() {
            self.counters.lost += 1;
            return;
        }
        if self.rng.chance(self.spec.corrupt) {
            self.counters.corrupted += 1;
            packet.corrupt(&mut self.rng);
        }
        let copy = if self.rng.chance(self.spec.duplicate) {
            packet.duplicate()
        } else {
            None
        };
        let due = at + self.delay_at(at);
        if self.rng.chance(self.spec.reorder.ratio) {
            self.counters.reordered += 1;
            self.held_back_count += 1;
            let held = HeldBack {
                due: due + self.spec.reorder.by,
                order: self.held_back_count,
                packet,
            };
            self.held_back.push(Reverse(held));
        } else {
            self.push_wire(due, packet);
        }
        if let Some(copy) = copy {
            self.counters.duplicated += 1;
            self.push_wire(due, copy);
        }
    }

    fn push_wire(&mut self, due: Instant, packet: T) {
        self.wire_last_due = self.wire_last_due.max(due);
        self.wire.push_back((self.wire_last_due, packet));
    }

    fn pop_due(&mut self, now: Instant) -> Option<(Instant, T)> {
        let wire = self.wire.front().map_or(Instant::FAR, |(due, _)| *due);
        let held_back = self
            .held_back
            .peek()
            .map_or(Instant::FAR, |Reverse(held)| held.due);
        if wire.min(held_back) > now {
            return None;
        }
        if wire <= held_back {
            return self.wire.pop_front();
        }
        self.held_back
            .pop()
            .map(|Reverse(held)| (held.due, held.packet))
    }

    fn draws_loss(&mut self) -> bool {
        match self.spec.loss {
            Loss::None => false,
            Loss::Random(ratio) => self.rng.chance(ratio),
            Loss::Gilbert { ratio, burst } => {
                // Two states: every packet is lost in the bad one. Mean stay there is `burst` packets; the way into
                // it is chosen so that the bad state holds `ratio` of all packets.
                let enter = ratio / (burst * (1.0 - ratio));
                let change = if self.gilbert_bad { 1.0 / burst } else { enter };
                if self.rng.chance(change) {
                    self.gilbert_bad = !self.gilbert_bad;
                }
                self.gilbert_bad
            }
        }
    }

    /// One-way delay of a packet whose last bit left the bottleneck at `at`: a function of time alone.
    fn delay_at(&self, at: Instant) -> Duration {
        let trace = self
            .spec
            .delay_trace
            .as_ref()
            .map_or(Duration::ZERO, |trace| trace.delay_at(at));
        self.spec.delay + trace + jitter_at(self.time_seed, self.spec.jitter, at)
    }
}

/// How often the jitter takes a new random value; between two of them it moves in a straight line, because the
/// delay of a real path wanders rather than leaps from packet to packet.
const JITTER_STEP: Duration = Duration::from_millis(10);

/// Extra delay between zero and `jitter` at time `at`.
fn jitter_at(seed: u64, jitter: Duration, at: Instant) -> Duration {
    if jitter.is_zero() {
        return jitter;
    }
    let step_nanos = u64::try_from(JITTER_STEP.as_nanos()).unwrap_or(u64::MAX);
    let (step, into) = (at.as_nanos() / step_nanos, at.as_nanos() % step_nanos);
    #[allow(clippy::cast_precision_loss)] // both below 10^7
    let along = into as f64 / step_nanos as f64;
    let from = noise(seed, step);
    let to = noise(seed, step + 1);
    jitter.mul_f64(from + (to - from) * along)
}

/// A uniform number in `[0, 1)` that belongs to `index` for this seed.
fn noise(seed: u64, index: u64) -> f64 {
    Rng::new(seed ^ index.wrapping_mul(0xD6E8_FEB8_6659_FD93)).unit()
}

/// A packet that later ones overtake.
#[derive(Debug)]
struct HeldBack<T> {
    due: Instant,
    order: u64,
    packet: T,
}

impl<T> PartialEq for HeldBack<T> {
    fn eq(&self, other: &Self) -> bool {
        (self.due, self.order) == (other.due, other.order)
    }
}
impl<T> Eq for HeldBack<T> {}
impl<T> PartialOrd for HeldBack<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for HeldBack<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.order).cmp(&(other.due, other.order))
    }
}
