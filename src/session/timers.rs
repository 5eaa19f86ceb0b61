//! What the session waits for, and what it does then.

use std::time::Duration;

use super::Session;
use super::link::Link;
use super::patience::Cause;
use crate::base::Instant;
use crate::link::owd::base_difference;
use crate::link::{Condition, State};
use crate::reorder::hold::{HoldInputs, Retransmit};

/// Groups that are not acknowledged are given up after this and twice the longest round trip.
const EXPIRY_BASE: Duration = Duration::from_millis(300);
/// ... but never kept longer.
const EXPIRY_MAX: Duration = Duration::from_secs(2);
/// A link is silent when nothing came for this long although it carried data shortly before.
const SILENCE: Duration = Duration::from_millis(30);
/// How shortly: a peer sends heartbeats each 20 ms until a second after its last data, and rarely after that.
const DENSE: Duration = Duration::from_millis(900);

/// Why the session wants to be woken: named, so that a busy loop can name its culprit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// Nothing to wait for.
    Idle,
    /// A WAN's pacer allows the next datagram.
    Pacing,
    /// An open group's fill time is over.
    Group,
    /// A hole's hold time is over.
    Reorder,
    /// A link's sender: heartbeat, loss, suspicion, probe.
    Link,
    /// A report is due.
    Report,
    /// A WAN's rate control.
    Rate,
    /// What several sessions send over their WANs is measured and divided.
    Budget,
    /// LINK_OPEN or a challenge is due.
    Opening,
    /// Old keys are wiped.
    Epoch,
}

impl Session {
    /// Does what is due. Harmless when nothing is.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.epochs.handle_timeout(now);
        for index in 0..self.links.len() {
            self.link_timeout(index, now);
        }
        self.refresh_size(now);
        if self.budget.leads() {
            for wan in &mut self.wans {
                wan.rate.handle_timeout(now);
                wan.pacer.set_rate(wan.pacing_rate(), now);
            }
        }
        self.judge_links(now);
        if self.budget.leads() {
            self.grant_probes(now);
        }
        self.refresh_budget(now);
        let rtt_max = self
            .links
            .iter()
            .map(|link| link.sender.srtt())
            .max()
            .unwrap_or_default();
        let age_max = (EXPIRY_BASE + rtt_max * 2).min(EXPIRY_MAX);
        let expired = self.egress.store.expire(now, age_max);
        self.drops
            .count_many(crate::base::DropReason::Expired, expired);
        self.ingress.decoder.expire(now - EXPIRY_MAX);
        self.give_up_overdue(now);
        self.refresh_hold(now);
        self.refresh_protection(now);
    }

    fn link_timeout(&mut self, index: usize, now: Instant) {
        // A link that nothing can be sent on proves nothing by its silence.
        if !self.links[index].is_reachable() {
            return;
        }
        let told_at = self.told_at;
        let link = &mut self.links[index];
        let (id, before) = (link.id, link.sender.condition());
        self.outcomes.clear();
        let outcomes = &mut self.outcomes;
        link.sender
            .handle_timeout(now, told_at, &mut |outcome| outcomes.push(outcome));
        self.apply_outcomes(id, now);
        self.on_link_state(index, before, now);
    }

    /// Follows a link's change of state, whatever caused it: a timeout, a report or a refusal of the kernel.
    pub(super) fn on_link_state(&mut self, index: usize, before: Condition, now: Instant) {
        let link = &self.links[index];
        let (after, wan) = (link.sender.condition(), link.wan);
        if before.state == State::Up && after.state != State::Up {
            self.leave_link(index, now);
        } else if before.state != State::Up && after.state == State::Up {
            self.on_wan_returned(wan, now);
        } else if after.stalled && !before.stalled {
            // What is known of the WAN stays: what it brings when it moves again was sent before.
            self.keep_window(Cause::Stall, now);
            self.move_off(index);
        }
    }

    /// A link may be dead: everything moves off it.
    pub(super) fn leave_link(&mut self, index: usize, now: Instant) {
        self.keep_window(Cause::Outage, now);
        self.move_off(index);
        let wan = self.links[index].wan;
        self.on_wan_left(wan, now);
    }

    /// Moves what waits on a link, and copies of what is in flight, to where it finds another way.
    pub(super) fn move_off(&mut self, index: usize) {
        let link = &mut self.links[index];
        let mut moved = std::mem::take(&mut self.moved);
        moved.clear();
        link.sender.take_unacked(|key| moved.push(key));
        moved.extend(link.urgent.drain(..).map(|queued| queued.key));
        moved.extend(link.queue.drain(..).map(|queued| queued.key));
        link.queued_bytes = 0;
        for key in moved.drain(..) {
            self.requeue(key);
        }
        self.moved = moved;
    }

    /// One WAN at a time may probe for more, so that two that share a bottleneck do not fill it together.
    fn grant_probes(&mut self, now: Instant) {
        if self.wans.iter().any(|wan| wan.rate.holds_probe()) {
            return;
        }
        let count = self.wans.len();
        for turn in 0..count {
            let index = (self.next_probe + turn) % count;
            if self.wans[index].rate.probe_wanted(now) {
                self.wans[index].rate.probe_grant(now);
                self.next_probe = index + 1;
                return;
            }
        }
    }

    pub(super) fn hold_inputs(&self, now: Instant) -> HoldInputs {
        let live = || {
            self.links
                .iter()
                .filter(|link| link.is_open() && link.received.1 > 0 && self.awaits_data(link, now))
        };
        let base_of = |link: &Link| link.receiver.base_us();
        let first = live().map(base_of).next().unwrap_or(0);
        // The clocks' offset wraps: compare with one of them, never absolutely.
        let base_min = live()
            .map(base_of)
            .min_by_key(|base| base_difference(*base, first))
            .unwrap_or(0);
        let spread = live()
            .map(|link| {
                let above = base_difference(base_of(link), base_min).max(0);
                let usual = link.receiver.delay_history().snapshot().p99;
                usual.max(link.receiver.delay_now() * 5 / 4)
                    + Duration::from_micros(above.unsigned_abs())
            })
            .max()
            .unwrap_or_default();
        let rtt_min = live()
            .map(|link| link.sender.rtt_min())
            .min()
            .unwrap_or_default();
        let silent = live().any(|link| {
            now.since(link.receiver.last_at()) > SILENCE
                && link.symbol_at.is_some_and(|at| now.since(at) < DENSE)
                && link.sender.state() != State::Down
        });
        HoldInputs {
            delay_spread: spread,
            fill_time_max: Some(self.group_limits(0).fill_time_max),
            retransmit: Some(Retransmit {
                rtt_min,
                report_interval: self.reports.interval,
            }),
            silent_link: silent,
        }
    }

    /// When to call [`Session::handle_timeout`] and the polls again, and why.
    pub fn poll_timeout(&self, now: Instant) -> (Instant, Timer) {
        let mut soonest = (self.epochs.poll_timeout(), Timer::Epoch);
        let mut consider = |at: Instant, timer: Timer| {
            if at < soonest.0 {
                soonest = (at, timer);
            }
        };
        let can_report = self.links.iter().any(Link::is_open);
        for link in &self.links {
            if !self.may_seal(link.id, now) {
                continue; // what is due cannot be sent
            }
            if link.is_reachable() {
                consider(link.sender.poll_timeout(now, self.told_at), Timer::Link);
            }
            consider(link.open_at().min(link.path.poll_timeout()), Timer::Opening);
            if can_report && let Some(at) = link.receiver.report_at() {
                consider(at.max(self.reports.next_at), Timer::Report);
            }
            let first = link.first_not_before();
            let first = link.probe_wanted().map_or(first, |_| Some(now));
            if let Some(first) = first {
                let paced = self.wans[link.wan.index()].pacer.next_send_at(now);
                consider(paced.max(first), Timer::Pacing);
            }
        }
        if self.budget.leads() {
            for wan in &self.wans {
                consider(wan.rate.poll_timeout(), Timer::Rate);
            }
        }
        consider(self.budget_timeout(now), Timer::Budget);
        if self.egress.has_work() {
            // Room appears as the pacers drain what is committed.
            consider(now + Duration::from_micros(500), Timer::Pacing);
        }
        for (slot, open) in self.egress.open.iter().enumerate() {
            if let Some(opened_at) = open.opened_at() {
                consider(opened_at + self.fill_time_max(slot), Timer::Group);
            }
        }
        consider(self.hold_timeout(), Timer::Reorder);
        if soonest.0 == Instant::FAR {
            (Instant::FAR, Timer::Idle)
        } else {
            soonest
        }
    }
}
