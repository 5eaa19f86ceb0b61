//! WANs that several sessions of one peer share: one of them leads, all pace their part.
//!
//! ```text
//!  follower                                   leader: the lowest number that there is
//!  reports of its links ──── Delivery ──────► its RateControl sees all links of the WAN
//!  what it sends and keeps ── Demand ───────► link::budget::divide
//!  its pacer ◄────────────── Grant ────────── a part of the pacing rate
//! ```
//!
//! Sessions of one peer belong to the workers of one program, so their clocks are one. What they tell each other goes
//! through the owner ([`Session::poll_share`], [`Session::handle_share`]) and may be late or lost: every word is whole
//! in itself, and the next one follows in milliseconds while there is traffic. A session alone with its peer tells
//! nothing and computes as if there were no others.
//!
//! When the leader goes, the next one begins with the capacity that it was told last. When one with a lower number
//! comes, the old leader tells it what was learned.

use std::collections::VecDeque;
use std::time::Duration;

use super::Session;
use super::wan::Wan;
use crate::base::id::{LINKS_MAX, SESSIONS_MAX};
use crate::base::{Instant, LinkId, Rate, WanId};
use crate::link::budget::{self, Demand};
use crate::link::{Delivery, Phase};

/// Time between two words about what a session sends. As long as a probe's thirtieth part, so that the parts follow
/// what happens; a word costs less than a datagram.
const TICK: Duration = Duration::from_millis(4);
/// Weight of a tick in the usage that grows, and in one that falls: who begins is believed sooner than who stops.
const GAIN_UP: f64 = 0.5;
const GAIN_DOWN: f64 = 0.2;
/// Less is nothing (bits/s): an idle session shall not tick.
const USAGE_MIN: f64 = 20_000.0;
/// Words that may wait for the owner. Reports come in hundreds a second, and the owner takes words in each turn.
const OUTBOX_MAX: usize = 1024;

/// What a session may send over a WAN, and what the leader believes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The session's part of `pacing`.
    pub rate: Rate,
    /// What all sessions may send.
    pub pacing: Rate,
    /// Capacity of the WAN.
    pub capacity: Rate,
    /// What the rate control is doing.
    pub phase: Phase,
}

/// One word between the sessions of a peer.
#[derive(Clone, Copy, Debug)]
pub enum Share {
    /// To the leader: what a report says about a link.
    Delivery {
        /// Its WAN.
        wan: WanId,
        /// Which link of the telling session.
        link: LinkId,
        /// The figures.
        delivery: Delivery,
    },
    /// To the leader: what the session wants.
    Demand {
        /// Of this WAN.
        wan: WanId,
        /// How much.
        demand: Demand,
    },
    /// From the leader.
    Grant {
        /// Of this WAN.
        wan: WanId,
        /// How much.
        grant: Grant,
    },
    /// From the former leader to the new one.
    Learned {
        /// The WAN.
        wan: WanId,
        /// What it carries.
        capacity: Rate,
    },
}

/// A WAN's part in the budget.
#[derive(Debug)]
pub struct Shared {
    /// Ours; `None` while we are alone, or the leader has not spoken.
    pub(super) part: Option<Grant>,
    /// Data sent since `Budget::measured_at`.
    sent_bytes: u64,
    usage: f64,
    /// What each session wants; ours included.
    demands: [Demand; SESSIONS_MAX],
    /// What each session was granted last (leader).
    granted: [Option<Grant>; SESSIONS_MAX],
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            part: None,
            sent_bytes: 0,
            usage: 0.0,
            demands: [Demand::default(); SESSIONS_MAX],
            granted: [None; SESSIONS_MAX],
        }
    }
}

/// A session's place among those of its peer.
#[derive(Debug)]
pub(super) struct Budget {
    number: u8,
    /// All sessions there are, ours included, by bit.
    present: u16,
    measured_at: Instant,
    /// When the next measurement is due; far while nothing is sent.
    due_at: Instant,
    /// The parts have to be computed anew (leader).
    dirty: bool,
    outbox: VecDeque<(u8, Share)>,
}

impl Budget {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            number: 0,
            present: 1,
            measured_at: now,
            due_at: Instant::FAR,
            dirty: false,
            outbox: VecDeque::new(),
        }
    }

    const fn is_alone(&self) -> bool {
        self.present & !(1 << self.number) == 0
    }

    #[allow(clippy::cast_possible_truncation)] // at most 16
    const fn leader(&self) -> u8 {
        (self.present | 1 << self.number).trailing_zeros() as u8
    }

    pub(super) const fn leads(&self) -> bool {
        self.leader() == self.number
    }

    /// Words that find no room are lost: they are told again, or the next report says more.
    fn tell(&mut self, to: u8, share: Share) {
        if self.outbox.len() < OUTBOX_MAX {
            self.outbox.push_back((to, share));
        }
    }

    /// Where the rate control of the leader keeps the links of session `from`; its own come first.
    fn slots_of(&self, from: u8) -> Option<usize> {
        let above = from.checked_sub(self.number).filter(|above| *above > 0)?;
        Some(usize::from(above) * LINKS_MAX)
    }
}

impl Session {
    /// Tells the session its number among those of its peer, and which of them there are, by bit. They share the WANs.
    pub fn set_siblings(&mut self, number: u8, present: u16, now: Instant) {
        let present = present | 1 << number;
        let (led, before) = (self.budget.leads(), self.budget.present);
        if self.budget.number == number && before == present {
            return;
        }
        (self.budget.number, self.budget.present) = (number, present);
        let before = before & !(1 << number);
        let leads = self.budget.leads();
        for wan in &mut self.wans {
            for gone in (0..SESSIONS_MAX).filter(|at| (before & !present) >> at & 1 == 1) {
                (wan.shared.demands[gone], wan.shared.granted[gone]) = Default::default();
                let slots = u8::try_from(gone)
                    .ok()
                    .and_then(|n| self.budget.slots_of(n));
                if let Some(first) = slots {
                    wan.rate.forget_links(first..first + LINKS_MAX);
                }
            }
            let part = wan.shared.part.take();
            match (led, leads) {
                (true, false) if wan.rate.phase() != Phase::Startup => {
                    let (wan, capacity) = (wan.config.id, wan.rate.capacity());
                    let to = self.budget.leader();
                    self.budget.tell(to, Share::Learned { wan, capacity });
                }
                (false, true) => {
                    if let Some(part) = part.filter(|part| part.phase != Phase::Startup) {
                        wan.rate.resume(part.capacity, now);
                    }
                }
                _ => {}
            }
            wan.shared.granted = [None; SESSIONS_MAX];
            wan.pacer.set_rate(wan.pacing_rate(), now);
        }
        (self.budget.dirty, self.budget.due_at) = (true, now);
        if self.budget.is_alone() {
            (self.budget.dirty, self.budget.due_at) = (false, Instant::FAR);
            self.budget.outbox.clear();
        }
    }

    /// The next word to another session of the peer, and its number.
    pub fn poll_share(&mut self) -> Option<(u8, Share)> {
        self.budget.outbox.pop_front()
    }

    /// Takes a word of the session number `from`.
    pub fn handle_share(&mut self, from: u8, share: &Share, now: Instant) {
        let known = self.budget.present >> from & 1 == 1;
        let (leads, from_leader) = (self.budget.leads(), self.budget.leader() == from);
        let wan =
            |session: &mut Self, id: WanId| session.wans.get_mut(id.index()).map(|_| id.index());
        match *share {
            Share::Delivery {
                wan: id,
                link,
                delivery,
            } => {
                let slots = self.budget.slots_of(from).filter(|_| known && leads);
                if let (Some(first), Some(at)) = (slots, wan(self, id)) {
                    let slot = first + link.index() % LINKS_MAX;
                    self.wans[at].rate.on_delivery(slot, &delivery, now);
                    self.budget.dirty = true;
                }
            }
            Share::Demand { wan: id, demand } => {
                if let (true, Some(at)) = (known && leads, wan(self, id)) {
                    let known = &mut self.wans[at].shared.demands[usize::from(from)];
                    let before = std::mem::replace(known, demand);
                    self.budget.dirty |= before != demand;
                    match (before.up, demand.up) {
                        (false, true) => self.wans[at].rate.on_return(now),
                        (true, false) => self.suspect_if_left(at, now),
                        _ => {}
                    }
                }
            }
            Share::Grant { wan: id, grant } => {
                if let (true, Some(at)) = (from_leader && !leads, wan(self, id)) {
                    self.wans[at].shared.part = Some(grant);
                    self.wans[at].pacer.set_rate(grant.rate, now);
                }
            }
            Share::Learned { wan: id, capacity } => {
                if let (true, Some(at)) = (leads, wan(self, id))
                    && self.wans[at].rate.phase() == Phase::Startup
                {
                    self.wans[at].rate.resume(capacity, now);
                    self.budget.dirty = true;
                }
            }
        }
    }

    /// A report's figures reach whoever rules the WAN.
    pub(super) fn on_delivery(
        &mut self,
        wan: WanId,
        link: LinkId,
        delivery: &Delivery,
        now: Instant,
    ) {
        if self.budget.leads() {
            self.wans[wan.index()].on_delivery(link.index(), delivery, now);
            self.budget.dirty |= !self.budget.is_alone();
            return;
        }
        let (to, delivery) = (self.budget.leader(), *delivery);
        self.budget.tell(
            to,
            Share::Delivery {
                wan,
                link,
                delivery,
            },
        );
    }

    /// Data left over a WAN.
    pub(super) fn on_data_sent(&mut self, wan: WanId, bytes: u64, now: Instant) {
        if !self.budget.is_alone() {
            self.wans[wan.index()].shared.sent_bytes += bytes;
            self.budget.due_at = self.budget.due_at.min(now + TICK);
        }
    }

    /// A link over a WAN left the state Up: what reports say of capacity means nothing while none is up, in any of the
    /// sessions.
    pub(super) fn on_wan_left(&mut self, wan: WanId, now: Instant) {
        self.note_presence(wan.index(), now);
        self.suspect_if_left(wan.index(), now);
    }

    /// A link over a WAN is up again.
    pub(super) fn on_wan_returned(&mut self, wan: WanId, now: Instant) {
        self.note_presence(wan.index(), now);
        if self.budget.leads() {
            self.wans[wan.index()].rate.on_return(now);
        }
    }

    fn suspect_if_left(&mut self, wan: usize, now: Instant) {
        let wan = &mut self.wans[wan];
        if self.budget.leads() && !wan.shared.demands.iter().any(|demand| demand.up) {
            wan.rate.on_suspect(now);
        }
    }

    fn note_presence(&mut self, wan: usize, now: Instant) {
        let mut links = self.links.iter();
        let up = links.any(|link| link.wan.index() == wan && link.is_present());
        let own = usize::from(self.budget.number);
        let known = &mut self.wans[wan].shared.demands[own].up;
        if std::mem::replace(known, up) != up && !self.budget.is_alone() {
            self.budget.due_at = now;
        }
    }

    /// Measures what is sent, tells the leader, or divides anew.
    pub(super) fn refresh_budget(&mut self, now: Instant) {
        if self.budget.is_alone() {
            return;
        }
        if now >= self.budget.due_at {
            self.measure_usage(now);
        }
        if self.budget.leads() {
            let changed = |wan: &Wan| {
                let part = wan.shared.part.as_ref();
                part.is_none_or(|part| part.pacing != wan.rate.pacing_rate())
            };
            if self.budget.dirty || self.wans.iter().any(changed) {
                self.budget.dirty = false;
                self.grant(now);
            }
        }
    }

    fn measure_usage(&mut self, now: Instant) {
        let span = now.since(self.budget.measured_at).max(TICK / 2);
        self.budget.measured_at = now;
        let own = usize::from(self.budget.number);
        let flows = u16::try_from(self.egress.waiting_flows()).unwrap_or(u16::MAX);
        let (leads, leader) = (self.budget.leads(), self.budget.leader());
        let mut active = false;
        for wan in 0..self.wans.len() {
            self.note_presence(wan, now);
        }
        for wan in &mut self.wans {
            let shared = &mut wan.shared;
            let sent = Rate::from_bytes_over(std::mem::take(&mut shared.sent_bytes), span);
            #[allow(clippy::cast_precision_loss)] // a rate
            let sent = sent.bits_per_s() as f64;
            let gain = if sent > shared.usage {
                GAIN_UP
            } else {
                GAIN_DOWN
            };
            shared.usage += gain * (sent - shared.usage);
            if shared.usage < USAGE_MIN {
                shared.usage = 0.0;
            }
            let before = shared.demands[own];
            let demand = Demand {
                usage: crate::link::rate_control::rate(shared.usage),
                backlogged: wan.backlogged,
                flows,
                ..before
            };
            active |= demand.usage > Rate::ZERO || demand.backlogged;
            shared.demands[own] = demand;
            self.budget.dirty |= demand != before;
            if !leads {
                let wan = wan.config.id;
                self.budget.tell(leader, Share::Demand { wan, demand });
            }
        }
        self.budget.due_at = if active { now + TICK } else { Instant::FAR };
    }

    /// Divides each WAN's rate and tells who has another part than before.
    fn grant(&mut self, now: Instant) {
        let own = self.budget.number;
        for wan in &mut self.wans {
            let pacing = wan.rate.pacing_rate();
            let mut demands = [Demand::default(); SESSIONS_MAX];
            let mut numbers = [0_u8; SESSIONS_MAX];
            let mut parts = [Rate::ZERO; SESSIONS_MAX];
            let mut count = 0;
            for (number, demand) in (0_u8..).zip(&wan.shared.demands) {
                if self.budget.present >> number & 1 == 1 {
                    (demands[count], numbers[count]) = (*demand, number);
                    count += 1;
                }
            }
            let demands = &demands[..count];
            wan.rate
                .set_backlogged(demands.iter().any(|d| d.backlogged), now);
            budget::divide(pacing, demands, &mut parts);
            for (&number, &rate) in numbers[..count].iter().zip(&parts) {
                let grant = Grant {
                    rate,
                    pacing,
                    capacity: wan.rate.capacity(),
                    phase: wan.rate.phase(),
                };
                if number == own {
                    wan.shared.part = Some(grant);
                    wan.pacer.set_rate(rate, now);
                } else if wan.shared.granted[usize::from(number)] != Some(grant) {
                    wan.shared.granted[usize::from(number)] = Some(grant);
                    let wan = wan.config.id;
                    self.budget.tell(number, Share::Grant { wan, grant });
                }
            }
        }
    }

    /// When [`Session::refresh_budget`] has something to do.
    pub(super) fn budget_timeout(&self, now: Instant) -> Instant {
        if self.budget.is_alone() {
            Instant::FAR
        } else if self.budget.dirty && self.budget.leads() {
            now
        } else {
            self.budget.due_at
        }
    }
}
