//! One WAN's rate for several sessions: who may send how much of it.
//!
//! ```text
//!   who waits for its pacer   what those that do not wait leave, split by the number of their waiting flows
//!   who does not wait         what would be its part if it began to wait; alone: all that the others leave
//! ```
//!
//! A session may begin to send at its fair part without asking. Until the others have heard of it, the WAN is sent up
//! to that part more than it carries: for two exchanges, so the queue that this makes is shorter than they take.
//!
//! Never does: measuring, pacing, or knowing who the sessions are.

use crate::base::Rate;

/// What one session wants of a WAN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Data that it sends at present.
    pub usage: Rate,
    /// Something waits for its pacer.
    pub backlogged: bool,
    /// Flows that wait in it; 0 counts as one.
    pub flows: u16,
    /// One of its links over the WAN is up.
    pub up: bool,
}

impl Demand {
    fn weight(&self) -> f64 {
        f64::from(self.flows.max(1))
    }
}

/// The part of `total` that each demand is granted, in their order. `parts` is overwritten and may be longer.
pub fn divide(total: Rate, demands: &[Demand], parts: &mut [Rate]) {
    let waiting = || demands.iter().filter(|demand| demand.backlogged);
    let weights: f64 = waiting().map(Demand::weight).sum();
    let fair = |demand: &Demand| total.mul_f64(demand.weight() / (weights + demand.weight()));
    let quiet = |demand: &Demand| demand.usage.min(fair(demand)).bits_per_s();
    let used: u64 = demands
        .iter()
        .filter(|demand| !demand.backlogged)
        .map(quiet)
        .sum();
    let left = |used: u64| Rate::from_bits_per_s(total.bits_per_s().saturating_sub(used));
    for (demand, part) in demands.iter().zip(parts) {
        *part = if demand.backlogged {
            left(used).mul_f64(demand.weight() / weights)
        } else if weights > 0.0 {
            fair(demand)
        } else {
            // Nobody waits: whoever begins finds the WAN as it is.
            left(used - quiet(demand)).max(total.mul_f64(1.0 / demands.len().max(1) as f64))
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOTAL: Rate = Rate::from_mbps(100);

    fn waits(flows: u16) -> Demand {
        Demand {
            usage: Rate::from_mbps(50),
            backlogged: true,
            flows,
            up: true,
        }
    }

    fn sends(mbps: u64) -> Demand {
        Demand {
            usage: Rate::from_mbps(mbps),
            ..Demand::default()
        }
    }

    fn parts(demands: &[Demand]) -> Vec<f64> {
        let mut parts = vec![Rate::ZERO; demands.len()];
        divide(TOTAL, demands, &mut parts);
        parts.iter().map(|part| part.as_mbps()).collect()
    }

    fn near(parts: &[f64], wanted: &[f64]) {
        let close = |(a, b): (&f64, &f64)| (a - b).abs() < 0.01;
        assert!(parts.iter().zip(wanted).all(close), "{parts:?} {wanted:?}");
    }

    #[test]
    fn one_session_has_the_whole_wan() {
        near(&parts(&[waits(1)]), &[100.0]);
        near(&parts(&[sends(5)]), &[100.0]);
    }

    #[test]
    fn who_waits_shares_by_flows() {
        near(&parts(&[waits(1), waits(1)]), &[50.0, 50.0]);
        near(&parts(&[waits(3), waits(1)]), &[75.0, 25.0]);
    }

    #[test]
    fn who_does_not_wait_takes_what_it_sends_and_may_begin_at_once() {
        // The quiet one sends 10 and may go up to its fair part; the other has all the rest.
        near(&parts(&[waits(1), sends(10)]), &[90.0, 50.0]);
        near(&parts(&[waits(1), sends(0)]), &[100.0, 50.0]);
        // What it claims to send beyond its fair part is not taken from the other.
        near(&parts(&[waits(1), sends(90)]), &[50.0, 50.0]);
    }

    #[test]
    fn where_nobody_waits_each_may_take_what_the_others_leave() {
        near(&parts(&[sends(20), sends(30)]), &[70.0, 80.0]);
        near(&parts(&[sends(0), sends(0)]), &[100.0, 100.0]);
    }

    #[test]
    fn those_that_wait_never_get_more_than_there_is() {
        let mut rng = crate::base::Rng::new(5);
        for _ in 0..2_000 {
            let count = 1 + rng.below(16);
            let demands: Vec<_> = (0..count)
                .map(|_| Demand {
                    usage: Rate::from_mbps(rng.below(200)),
                    backlogged: rng.below(2) == 0,
                    flows: u16::try_from(rng.below(9)).unwrap(),
                    up: true,
                })
                .collect();
            let parts = parts(&demands);
            let both = || demands.iter().zip(&parts);
            let waiting: f64 = both().filter(|(d, _)| d.backlogged).map(|(_, p)| p).sum();
            assert!(waiting < 100.01, "{demands:?} {parts:?}");
            assert!(parts.iter().all(|part| *part < 100.01 && *part >= 0.0));
        }
    }
}
