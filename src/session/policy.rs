//! Which links may carry ordinary data of ours, and why the others may not.
//!
//! ```text
//! up, active ─► up, backup ─► up, quota spent ─► up, parked ─► not up, not down
//! └── the first of these tiers that has a link carries the data; nothing of another tier does
//! ```
//!
//! A link is parked while its round trip or loss is above its WAN's limits, and when it costs more than it gives: so
//! slow and so small that every ordered flow would wait for it. Heartbeats and reports go on, so that it can come back.
//! A WAN whose direction is not ours, or that is off, is in no tier. What is pinned to a WAN asks for less, see
//! `routes`.

use std::time::Duration;

use super::Session;
use super::config::{Mode, WanRole};
use super::link::Link;
use crate::base::Instant;
use crate::base::id::LINKS_MAX;
use crate::link::{Phase, State};
use crate::stripe::{Assessment, Exponents, Figures, assess};

/// Time between two looks at the links' figures, which are about that old themselves.
const JUDGE_INTERVAL: Duration = Duration::from_millis(100);
/// A figure must be bad for this long: a handover or the end of a start are over by then.
const PARK_AFTER: Duration = Duration::from_secs(1);
/// ... and good for this long before the link comes back: moving a flow costs it more than waiting.
const RETURN_AFTER: Duration = Duration::from_secs(5);
/// How long a link that is not used usually counts as used after it brought something.
const USED_LATELY: Duration = Duration::from_secs(10);
/// Part of a limit below which a figure is good again.
const RETURN_PART: f64 = 0.8;

/// Why a link carries nothing although it is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parked {
    /// Its round trip is above the WAN's limit.
    Rtt,
    /// Its loss is above the WAN's limit.
    Loss,
    /// It carries so little at such a delay that every flow would wait for it.
    Outlier,
}

/// How a link stands, as far as its WAN and its figures decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Carries data when it is up.
    InUse,
    /// Only while no active link is up.
    Backup,
    /// Its quota is used up: only while no active and no backup link is up.
    Spent,
    /// Only while nothing better is up.
    Parked(Parked),
    /// Never: data goes the other way only.
    OtherWay,
    /// Never: it is switched off.
    Off,
}

impl Standing {
    /// The cause in words; empty when there is nothing to explain.
    pub const fn cause(self) -> &'static str {
        match self {
            Self::InUse => "",
            Self::Backup => "waits for the active links to fail",
            Self::Spent => "its quota is used up: waits for all others to fail",
            Self::Parked(Parked::Rtt) => "round trip above max_rtt_ms",
            Self::Parked(Parked::Loss) => "loss above max_loss_percent",
            Self::Parked(Parked::Outlier) => {
                "too slow for what it carries, flows would wait for it"
            }
            Self::OtherWay => "sends no data: its direction is the other way",
            Self::Off => "switched off",
        }
    }
}

/// What a link's figures say at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Bad(Parked),
    /// Neither bad nor good enough to come back.
    Between,
    Good,
}

/// A link's way into parking and out of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Parking {
    parked: Option<Parked>,
    /// Since when all verdicts were of the other kind.
    turning: Option<Instant>,
}

impl Parking {
    /// Why it is parked, if it is.
    pub const fn cause(&self) -> Option<Parked> {
        self.parked
    }

    fn judge(&mut self, verdict: Verdict, now: Instant) {
        let turns = match (self.parked, verdict) {
            (None, Verdict::Bad(_)) => Some(PARK_AFTER),
            (Some(_), Verdict::Good) => Some(RETURN_AFTER),
            (Some(_), Verdict::Bad(cause)) => {
                self.parked = Some(cause);
                None
            }
            (None, Verdict::Good | Verdict::Between) | (Some(_), Verdict::Between) => None,
        };
        let Some(after) = turns else {
            self.turning = None;
            return;
        };
        let since = *self.turning.get_or_insert(now);
        if now.since(since) >= after {
            self.parked = match verdict {
                Verdict::Bad(cause) => Some(cause),
                Verdict::Between | Verdict::Good => None,
            };
            self.turning = None;
        }
    }
}

/// Which links may carry data: those of the first tier that has any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tier {
    Active,
    Backup,
    Spent,
    Parked,
    Any,
}

impl Session {
    /// How a link stands.
    pub(super) fn standing(&self, link: &Link) -> Standing {
        let wan = &self.wans[link.wan.index()].config;
        if wan.role == WanRole::Off {
            return Standing::Off;
        }
        if !wan.direction.allows(self.initiator) {
            return Standing::OtherWay;
        }
        match (link.parking.cause(), wan.role) {
            (Some(cause), _) => Standing::Parked(cause),
            (None, WanRole::Backup) => Standing::Backup,
            (None, WanRole::Spent) => Standing::Spent,
            (None, WanRole::Active | WanRole::Off) => Standing::InUse,
        }
    }

    /// The tier that a link is in, if it may carry data at all.
    pub(super) fn tier_of(&self, link: &Link) -> Option<Tier> {
        let standing = self.standing(link);
        if matches!(standing, Standing::OtherWay | Standing::Off) || !link.is_open() {
            return None;
        }
        if !link.is_up() {
            return (link.sender.state() != State::Down).then_some(Tier::Any);
        }
        Some(match standing {
            Standing::Parked(_) => Tier::Parked,
            Standing::Spent => Tier::Spent,
            Standing::Backup => Tier::Backup,
            Standing::InUse | Standing::OtherWay | Standing::Off => Tier::Active,
        })
    }

    /// How much a link is to be spared reports on the others, the least first: where a quota is used up every byte costs,
    /// and what is switched off carries heartbeats.
    pub(super) fn sparing(&self, link: &Link) -> u8 {
        match self.wans[link.wan.index()].config.role {
            WanRole::Active | WanRole::Backup => 0,
            WanRole::Spent => 1,
            WanRole::Off => 2,
        }
    }

    /// The tier that carries data now.
    pub(super) fn usable_tier(&self) -> Tier {
        let tiers = self.links.iter().filter_map(|link| self.tier_of(link));
        tiers.min().unwrap_or(Tier::Any)
    }

    /// Whether a link may carry data while the links of `tier` do.
    pub(super) fn is_usable(&self, index: usize, tier: Tier, now: Instant) -> bool {
        let link = &self.links[index];
        self.tier_of(link) == Some(tier) && self.may_seal(link.id, now)
    }

    /// Whether frames that the peer sends may come late by this link: all that may carry its data do, and others as
    /// long as they did lately. Parked links and backups are often slow, and nobody should wait for them.
    pub(super) fn awaits_data(&self, link: &Link, now: Instant) -> bool {
        let wan = &self.wans[link.wan.index()].config;
        let usual = wan.role == WanRole::Active
            && wan.direction.allows(!self.initiator)
            && link.parking.cause().is_none();
        usual || link.symbol_at.is_some_and(|at| now.since(at) < USED_LATELY)
    }

    /// Looks at the links' figures from time to time, parks those that are beyond their limits and takes back those
    /// that are well again.
    pub(super) fn judge_links(&mut self, now: Instant) {
        if now < self.judged_at + JUDGE_INTERVAL {
            return;
        }
        self.judged_at = now;
        let outliers = self.outliers();
        for (index, outlier) in outliers.iter().enumerate().take(self.links.len()) {
            let verdict = self.verdict(&self.links[index], *outlier);
            self.links[index].parking.judge(verdict, now);
        }
    }

    fn verdict(&self, link: &Link, outlier: bool) -> Verdict {
        let limits = self.wans[link.wan.index()].config.limits;
        if !link.is_up() {
            return Verdict::Between;
        }
        let rtt = (link.sender.rtt().count > 0).then(|| link.sender.srtt());
        let part_of_rtt = match (limits.rtt_max, rtt) {
            (Some(most), Some(rtt)) => {
                rtt.as_secs_f64() / most.as_secs_f64().max(f64::MIN_POSITIVE)
            }
            _ => 0.0,
        };
        let part_of_loss = limits.loss_max.map_or(0.0, |most| {
            link.sender.loss().ratio / most.max(f64::MIN_POSITIVE)
        });
        if part_of_rtt > 1.0 {
            Verdict::Bad(Parked::Rtt)
        } else if part_of_loss > 1.0 {
            Verdict::Bad(Parked::Loss)
        } else if outlier {
            Verdict::Bad(Parked::Outlier)
        } else if part_of_rtt.max(part_of_loss) > RETURN_PART {
            Verdict::Between
        } else {
            Verdict::Good
        }
    }

    /// The links that would slow everybody down, by number. Only those of which it is known what they carry; and not in the
    /// modes that are there for comparison.
    fn outliers(&self) -> [bool; LINKS_MAX] {
        let mut out = [false; LINKS_MAX];
        if matches!(
            self.config.mode,
            Mode::Weighted | Mode::SingleBest | Mode::RoundRobin
        ) {
            return out;
        }
        let mut figures = [Figures::NONE; LINKS_MAX];
        let mut assessments = [Assessment::default(); LINKS_MAX];
        let mut judged = [usize::MAX; LINKS_MAX];
        let mut count = 0;
        let rtt_min = self.rtt_min_of_links();
        for (number, wan) in self.wans.iter().enumerate() {
            let may = |link: &&Link| {
                let limited = matches!(link.parking.cause(), Some(Parked::Rtt | Parked::Loss));
                link.wan.index() == number
                    && link.is_up()
                    && wan.config.role == WanRole::Active
                    && wan.config.direction.allows(self.initiator)
                    && !limited
            };
            if let Some(link) = self.links.iter().find(may) {
                figures[count] = self.figures_of(link, self.delay_of(link), rtt_min);
                judged[count] = number;
                count += 1;
            }
        }
        let exponents = Exponents {
            rtt: self.config.rtt_weight,
            loss: self.config.loss_weight,
        };
        assess(&figures[..count], exponents, 1.0, &mut assessments);
        for (&wan, assessment) in judged.iter().zip(&assessments).take(count) {
            let wan_of = &self.wans[wan];
            let known = wan_of.phase() != Phase::Startup || wan_of.config.rate_to_peer.is_some();
            for (link, outlier) in self.links.iter().zip(&mut out) {
                *outlier |= link.wan.index() == wan && assessment.outlier && known;
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    fn judged(parking: &mut Parking, from: u64, to: u64, verdict: Verdict) -> Option<Parked> {
        for ms in (from..to).step_by(100) {
            parking.judge(verdict, at(ms));
        }
        parking.cause()
    }

    #[test]
    fn a_link_is_parked_when_it_stays_bad_and_returns_when_it_stays_good() {
        let mut parking = Parking::default();
        let bad = Verdict::Bad(Parked::Rtt);
        assert_eq!(judged(&mut parking, 0, 1_000, bad), None);
        assert_eq!(judged(&mut parking, 1_000, 1_100, Verdict::Between), None);
        assert_eq!(judged(&mut parking, 1_100, 2_000, bad), None, "from anew");
        assert_eq!(judged(&mut parking, 2_000, 2_200, bad), Some(Parked::Rtt));
        // Just below the limit is not good enough.
        let between = judged(&mut parking, 2_200, 20_000, Verdict::Between);
        assert_eq!(between, Some(Parked::Rtt));
        let good = judged(&mut parking, 20_000, 25_000, Verdict::Good);
        assert_eq!(good, Some(Parked::Rtt));
        assert_eq!(judged(&mut parking, 25_000, 25_100, Verdict::Good), None);
    }

    #[test]
    fn the_cause_that_is_told_is_the_present_one() {
        let mut parking = Parking::default();
        judged(&mut parking, 0, 1_100, Verdict::Bad(Parked::Rtt));
        let now = judged(&mut parking, 1_100, 1_200, Verdict::Bad(Parked::Loss));
        assert_eq!(now, Some(Parked::Loss));
    }

    #[test]
    fn tiers_stand_in_the_order_in_which_they_are_tried() {
        let order = [
            Tier::Active,
            Tier::Backup,
            Tier::Spent,
            Tier::Parked,
            Tier::Any,
        ];
        assert!(order.is_sorted());
    }
}
