//! Which links the packets of a class use, and the queue in which they wait for those links.
//!
//! ```text
//! packet ─► first rule that matches ─► route 0: all links, as the mode says
//!                                      route i: two links at once │ one WAN │ the best link
//! ```
//!
//! Each route has a flow queue, open groups and a list of symbols to send again of its own, so that a class whose links
//! are full waits alone, and never shares a body or a group with packets that go elsewhere. Routes with room take turns
//! of one body.
//!
//! Invariants: route 0 is there always; a symbol's group names its route for as long as the group lives, so routes are
//! added and turned to other targets by a reload, and never removed.

use std::collections::VecDeque;

use super::Session;
use super::config::{ClassConfig, Policy};
use super::egress::{Cutting, RESEND_MAX, Taken};
use super::symbols::SymbolKey;
use super::wan::Wan;
use crate::base::{DropReason, Frame, Instant, LinkId, WanId};
use crate::flow::class::Rule;
use crate::flow::queue::{FlowQueue, QueueConfig};
use crate::link::State;
use crate::stripe::Candidate;
use crate::wire::inner_ip::InnerIp;

/// Routes of a session: all links, two links, the best one, and each WAN with and without a fallback.
const ROUTES_MAX: usize = 3 + 2 * crate::base::id::LINKS_MAX;
/// Queues of a route other than the first: classes are for some flows out of many.
const CLASS_FLOWS: u32 = 128;
/// Frames that wait on such a route.
const CLASS_ITEMS_MAX: u32 = 2048;
/// How much better another link must be before the best one changes: a change costs reordering.
const KEEP_FACTOR: f64 = 1.25;

/// Where packets may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// All links, as the mode says.
    All,
    /// Two links at once.
    Twice,
    /// The links of one WAN.
    Wan { name: String, fallback: bool },
    /// The best link.
    Best,
}

/// Where a packet of a route may go at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// To all candidates.
    All,
    /// To this one.
    One(usize),
    /// Nowhere.
    Nowhere,
}

/// What a class does with its packets, and where they wait.
#[derive(Debug)]
pub(super) struct Route {
    target: Target,
    /// The WAN of the target's name, where the session has one.
    wan: Option<WanId>,
    /// The WAN that was best last.
    best: Option<WanId>,
    pub(super) queue: FlowQueue<Frame>,
    pub(super) cutting: Option<Cutting>,
    /// Taken from the queue, but did not fit the last body.
    pub(super) waiting: Option<Taken>,
    /// Symbols to send again.
    pub(super) resend: VecDeque<SymbolKey>,
}

impl Route {
    pub(super) fn all() -> Self {
        Self::new(Target::All, QueueConfig::default())
    }

    fn of_class(target: Target) -> Self {
        let config = QueueConfig {
            flows: CLASS_FLOWS,
            items_max: CLASS_ITEMS_MAX,
            ..QueueConfig::default()
        };
        Self::new(target, config)
    }

    fn new(target: Target, queue: QueueConfig) -> Self {
        Self {
            target,
            wan: None,
            best: None,
            queue: FlowQueue::new(queue),
            cutting: None,
            waiting: None,
            resend: VecDeque::with_capacity(RESEND_MAX),
        }
    }

    /// What it knew of its former target is forgotten: a WAN that nothing is pinned to is in use by nobody.
    fn turn_to(&mut self, target: Target) {
        self.target = target;
        (self.wan, self.best) = (None, None);
    }

    /// Whether frames wait for room on a link.
    pub(super) fn has_frames(&self) -> bool {
        self.cutting.is_some() || self.waiting.is_some() || !self.queue.is_empty()
    }

    /// Whether anything waits for room on a link.
    pub(super) fn has_work(&self) -> bool {
        self.has_frames() || !self.resend.is_empty()
    }

    /// Whether its packets go out twice.
    pub(super) fn is_twice(&self) -> bool {
        self.target == Target::Twice
    }
}

/// A class as packets meet it.
#[derive(Debug)]
pub(super) struct Treatment {
    rule: Rule,
    route: usize,
}

fn target_of(policy: &Policy) -> Target {
    match policy {
        Policy::Stripe => Target::All,
        Policy::Duplicate => Target::Twice,
        Policy::Pin { wan, fallback } => Target::Wan {
            name: wan.clone(),
            fallback: *fallback,
        },
        Policy::Best => Target::Best,
    }
}

/// Builds the treatments of these classes; routes that no class uses are turned, others are added.
pub(super) fn treatments(classes: &[ClassConfig], routes: &mut Vec<Route>) -> Vec<Treatment> {
    let targets: Vec<Target> = classes.iter().map(|c| target_of(&c.policy)).collect();
    for target in &targets {
        if routes.iter().any(|route| route.target == *target) {
            continue;
        }
        let unused = |route: &&mut Route| {
            route.target != Target::All && !route.has_work() && !targets.contains(&route.target)
        };
        if let Some(route) = routes.iter_mut().find(unused) {
            route.turn_to(target.clone());
        } else if routes.len() < ROUTES_MAX {
            routes.push(Route::of_class(target.clone()));
        }
    }
    let route_of = |target: &Target| routes.iter().position(|route| route.target == *target);
    classes
        .iter()
        .zip(&targets)
        .map(|(class, target)| Treatment {
            rule: class.rule.clone(),
            route: route_of(target).unwrap_or(0),
        })
        .collect()
}

impl Session {
    /// Takes the classes of the configuration; what waits keeps its route.
    pub(super) fn apply_classes(&mut self) {
        self.egress.treatments = treatments(&self.config.classes, &mut self.egress.routes);
        self.egress.fit_groups();
        self.name_routes();
    }

    /// Finds the WANs that routes are pinned to; after any change of names.
    pub(super) fn name_routes(&mut self) {
        for route in &mut self.egress.routes {
            if let Target::Wan { name, .. } = &route.target {
                let named = |wan: &&Wan| wan.config.name == *name;
                route.wan = self.wans.iter().find(named).map(|wan| wan.config.id);
            }
        }
    }

    /// The route of a packet.
    ///
    /// # Errors
    /// It is pinned to a WAN that is down, and may not go elsewhere.
    pub(super) fn route_of(&self, ip: &InnerIp) -> Result<usize, DropReason> {
        let treatments = &self.egress.treatments;
        let route = treatments
            .iter()
            .find(|treatment| treatment.rule.matches(ip))
            .map_or(0, |treatment| treatment.route);
        if self.is_cut_off(route) {
            Err(DropReason::PinnedDown)
        } else {
            Ok(route)
        }
    }

    /// Whether a route's only WAN is gone. While it is suspected only, packets wait for it.
    fn is_cut_off(&self, route: usize) -> bool {
        let route = &self.egress.routes[route];
        if !matches!(route.target, Target::Wan { fallback, .. } if !fallback) {
            return false;
        }
        !self.links.iter().any(|link| {
            Some(link.wan) == route.wan
                && self.tier_of(link).is_some()
                && link.sender.state() != State::Down
        })
    }

    /// Gives up what waits on routes that are cut off.
    pub(super) fn drop_cut_off(&mut self) {
        for route in 1..self.egress.routes.len() {
            if self.egress.routes[route].has_work() && self.is_cut_off(route) {
                let dropped = self.egress.clear_route(route);
                self.drops.count_many(DropReason::PinnedDown, dropped);
            }
        }
    }

    /// Adds the links that only pinned routes use to the candidates that are apart from the ordinary ones.
    pub(super) fn refresh_apart(&mut self, now: Instant) {
        for route in 1..self.egress.routes.len() {
            let Some(wan) = self.egress.routes[route].wan else {
                continue;
            };
            if self.candidate_of_wan(wan).is_some() {
                continue;
            }
            let count = self.links.len();
            let turn = self.wans[wan.index()].next_link;
            let pinned = (0..count).map(|step| (turn + step) % count).find(|&index| {
                let link = &self.links[index];
                link.wan == wan
                    && link.is_up()
                    && self.tier_of(link).is_some()
                    && self.may_seal(link.id, now)
            });
            if let Some(index) = pinned {
                let delay = self.delay_of(&self.links[index]);
                let candidate = self.candidate_of_link(index, delay, now);
                self.apart.push(candidate);
            }
        }
    }

    /// Whether a route uses a link that is up because it is pinned to its WAN.
    pub(super) fn is_pinned_to(&self, index: usize) -> bool {
        let link = &self.links[index];
        let mut routes = self.egress.routes.iter();
        link.is_up() && self.tier_of(link).is_some() && routes.any(|r| r.wan == Some(link.wan))
    }

    fn candidate_of_wan(&self, wan: WanId) -> Option<usize> {
        let count = self.candidates.len() + self.apart.len();
        (0..count).find(|&at| self.wan_of(self.candidate(at).link) == wan)
    }

    fn wan_of(&self, link: LinkId) -> WanId {
        self.links[link.index()].wan
    }

    /// Where packets of a route may go now.
    pub(super) fn scope(&self, route: usize) -> Scope {
        let route = &self.egress.routes[route];
        match &route.target {
            Target::All | Target::Twice => Scope::All,
            Target::Wan { fallback, .. } => {
                match (
                    route.wan.and_then(|wan| self.candidate_of_wan(wan)),
                    fallback,
                ) {
                    (Some(at), _) => Scope::One(at),
                    (None, true) => Scope::All,
                    (None, false) => Scope::Nowhere,
                }
            }
            Target::Best => self.best(route.best).map_or(Scope::Nowhere, Scope::One),
        }
    }

    /// The candidate of the best quality; the one used last while it is nearly as good.
    fn best(&self, last: Option<WanId>) -> Option<usize> {
        let candidates = &self.candidates;
        let worth = |at: &usize| {
            let c = &candidates[*at];
            (c.quality, std::cmp::Reverse(c.delay))
        };
        let better = |a: &usize, b: &usize| {
            let ((qa, da), (qb, db)) = (worth(a), worth(b));
            // Of equal ones the first wins, also in `max_by`, which prefers the last.
            qa.total_cmp(&qb).then(da.cmp(&db)).then(b.cmp(a))
        };
        let best = (0..candidates.len()).max_by(better)?;
        let kept = candidates
            .iter()
            .position(|c| last.is_some_and(|wan| self.wan_of(c.link) == wan))
            .filter(|&at| candidates[at].quality * KEEP_FACTOR >= candidates[best].quality);
        Some(kept.unwrap_or(best))
    }

    /// Notes which WAN is the best one, for the routes that stay with it.
    pub(super) fn remember_best(&mut self) {
        for route in 1..self.egress.routes.len() {
            if self.egress.routes[route].target == Target::Best
                && let Some(at) = self.best(self.egress.routes[route].best)
            {
                let wan = self.wan_of(self.candidates[at].link);
                self.egress.routes[route].best = Some(wan);
            }
        }
    }

    /// Whether a route's next packet can go out now.
    pub(super) fn has_room_on(&self, route: usize, now: Instant) -> bool {
        let eligible = |c: &&Candidate| c.is_eligible(now);
        match self.scope(route) {
            Scope::All if self.egress.routes[route].is_twice() => {
                let wanted = self.candidates.len().min(2);
                wanted > 0 && self.candidates.iter().filter(eligible).count() >= wanted
            }
            Scope::All => self.has_room(now),
            Scope::One(at) => self.candidate(at).is_eligible(now),
            Scope::Nowhere => false,
        }
    }

    /// The next route in turn with frames and room.
    pub(super) fn next_ready_route(&mut self, now: Instant) -> Option<usize> {
        let count = self.egress.routes.len();
        let ready = (0..count)
            .map(|turn| (self.egress.next_route + turn) % count)
            .find(|&route| {
                self.egress.routes[route].has_frames() && self.has_room_on(route, now)
            })?;
        self.egress.next_route = ready + 1;
        Some(ready)
    }

    /// A link for the next symbol of a route.
    pub(super) fn pick_on(&mut self, route: usize, bytes: usize, now: Instant) -> Option<usize> {
        match self.scope(route) {
            Scope::All => self.pick(bytes, now),
            Scope::One(at) => self.candidate(at).is_eligible(now).then_some(at),
            Scope::Nowhere => None,
        }
    }

    /// The two links for a symbol that goes ahead of the queues; the second one is for a copy.
    pub(super) fn pick_two_on(
        &mut self,
        route: usize,
        bytes: usize,
        now: Instant,
    ) -> (Option<usize>, Option<usize>) {
        if self.candidates.is_empty() {
            self.refresh_candidates(now);
        }
        match self.scope(route) {
            Scope::All => self.pick_two_quick(bytes),
            Scope::One(at) => (Some(at), None),
            Scope::Nowhere => (None, None),
        }
    }

    /// A link for a repair symbol of a route.
    pub(super) fn pick_for_repair_on(
        &mut self,
        route: usize,
        bytes: usize,
        now: Instant,
    ) -> Option<usize> {
        match self.scope(route) {
            Scope::All => self.pick_for_repair(bytes, now),
            Scope::One(at) => Some(at),
            Scope::Nowhere => None,
        }
    }

    /// Whether what waits on the routes shows that a WAN limits us.
    pub(super) fn waits_for(&self, wan: usize) -> bool {
        let routes = &self.egress.routes;
        (0..routes.len()).any(|route| {
            routes[route].has_work()
                && match self.scope(route) {
                    Scope::All => true,
                    Scope::One(at) => self.wan_of(self.candidate(at).link).index() == wan,
                    Scope::Nowhere => false,
                }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(policy: Policy) -> ClassConfig {
        ClassConfig {
            name: "x".to_owned(),
            rule: Rule::default(),
            policy,
        }
    }

    fn pin(wan: &str) -> Policy {
        Policy::Pin {
            wan: wan.to_owned(),
            fallback: true,
        }
    }

    #[test]
    fn classes_of_one_target_share_a_route_and_stripes_use_the_first() {
        let mut routes = vec![Route::all()];
        let classes = [pin("a"), Policy::Stripe, pin("b"), pin("a"), Policy::Best].map(class);
        let treatments = treatments(&classes, &mut routes);
        let of: Vec<_> = treatments.iter().map(|t| t.route).collect();
        assert_eq!(of, [1, 0, 2, 1, 3]);
        assert_eq!(routes.len(), 4);
    }

    #[test]
    fn a_reload_turns_routes_that_nobody_needs_and_keeps_those_with_work() {
        let mut routes = vec![Route::all()];
        let _ = treatments(&[class(pin("a")), class(pin("b"))], &mut routes);
        routes[1].resend.push_back(SymbolKey::NONE);
        let after = treatments(
            &[class(Policy::Best), class(Policy::Duplicate)],
            &mut routes,
        );
        assert_eq!(after.iter().map(|t| t.route).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(routes.len(), 4);
        assert!(matches!(&routes[1].target, Target::Wan { name, .. } if name == "a"));
        for round in 0..200 {
            routes.iter_mut().for_each(|route| {
                route.resend.push_back(SymbolKey::NONE);
            });
            let _ = treatments(&[class(pin(&round.to_string()))], &mut routes);
            assert!(routes.len() <= ROUTES_MAX);
        }
    }
}
