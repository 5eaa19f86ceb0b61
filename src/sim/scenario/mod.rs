//! Scenarios as data: links, flows, what changes when, and which spans are judged; and the run that measures them.
//!
//! Never judges: a [`Row`] holds figures, whoever asked for them knows the bounds.

mod foreign;
mod row;
mod run;

use std::time::Duration;

use super::packet::Side;
use super::plan::Plan;
use super::traffic::TcpConfig;
use crate::base::Rate;

pub use foreign::{Foreign, ForeignKind};
pub use row::{Figure, Row, Second};
pub use run::run;

/// Both directions of a link.
pub const BOTH: [Side; 2] = [Side::Client, Side::Server];

/// A flow of a scenario; it begins when the scenario begins.
#[derive(Clone, Copy, Debug)]
pub enum Inner {
    /// Sends as much as it can.
    Tcp {
        /// Who sends.
        from: Side,
        /// Everything else; its start is the scenario's.
        config: TcpConfig,
    },
    /// Datagrams at a constant rate.
    Cbr {
        /// Who sends.
        from: Side,
        /// How fast.
        rate: Rate,
        /// Bytes of each IP packet.
        bytes: usize,
    },
    /// Requests and echoes.
    Ping {
        /// Who asks.
        from: Side,
        /// Time between two requests.
        interval: Duration,
    },
}

impl Inner {
    /// Who sends.
    pub const fn from(&self) -> Side {
        match self {
            Self::Tcp { from, .. } | Self::Cbr { from, .. } | Self::Ping { from, .. } => *from,
        }
    }
}

/// A link that becomes another one.
#[derive(Clone, Debug)]
pub struct Change {
    /// Since the start of the flows.
    pub at: Duration,
    /// Which link.
    pub link: usize,
    /// Which of its directions, by who sends.
    pub sides: Vec<Side>,
    /// What changes, in the words of a specification; `outage=on` and `off` among them.
    pub words: String,
}

/// A stretch of a scenario: from and to, since the start of the flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its beginning.
    pub from: Duration,
    /// Its end.
    pub to: Duration,
}

impl Span {
    /// In milliseconds.
    pub const fn millis(from: u64, to: u64) -> Self {
        Self {
            from: Duration::from_millis(from),
            to: Duration::from_millis(to),
        }
    }
}

/// A world, what happens in it, and what of it counts.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Links and behaviour of both ends; one client.
    pub plan: Plan,
    /// Flows of client 0. The first that is no ping says which direction is judged.
    pub flows: Vec<Inner>,
    /// Changes of links by time.
    pub changes: Vec<Change>,
    /// What others send beside the tunnel.
    pub foreign: Vec<Foreign>,
    /// When the flows stop.
    pub length: Duration,
    /// Where goodput, round trips, queues and overhead are taken.
    pub steady: Span,
    /// Where gaps, retransmissions and timeouts are counted.
    pub watched: Span,
    /// Where goodput is taken once more, as after something is over.
    pub back: Option<Span>,
}

impl Scenario {
    /// Links without flows, all of whose time counts.
    pub const fn new(plan: Plan, length: Duration) -> Self {
        let all = Span {
            from: Duration::ZERO,
            to: length,
        };
        Self {
            plan,
            flows: Vec::new(),
            changes: Vec::new(),
            foreign: Vec::new(),
            length,
            steady: all,
            watched: all,
            back: None,
        }
    }

    /// Adds a flow.
    #[must_use]
    pub fn flow(mut self, flow: Inner) -> Self {
        self.flows.push(flow);
        self
    }

    /// Adds a change; they are given in the order of their times.
    #[must_use]
    pub fn change(mut self, at: Duration, link: usize, sides: &[Side], words: &str) -> Self {
        self.changes.push(Change {
            at,
            link,
            sides: sides.to_vec(),
            words: words.to_owned(),
        });
        self
    }

    /// Adds foreign traffic.
    #[must_use]
    pub fn foreign(mut self, foreign: Foreign) -> Self {
        self.foreign.push(foreign);
        self
    }

    /// Sets the spans that every scenario has.
    #[must_use]
    pub const fn judged(mut self, steady: Span, watched: Span) -> Self {
        self.steady = steady;
        self.watched = watched;
        self
    }

    /// Sets the span where goodput is taken once more.
    #[must_use]
    pub const fn back(mut self, span: Span) -> Self {
        self.back = Some(span);
        self
    }

    /// Whose sending is judged.
    pub fn from(&self) -> Side {
        let bulk = self
            .flows
            .iter()
            .find(|flow| !matches!(flow, Inner::Ping { .. }));
        bulk.or(self.flows.first())
            .map_or(Side::Client, Inner::from)
    }

    /// The same with the fastest link alone, without changes and without others: what the bundle must not fall behind.
    #[must_use]
    pub fn alone(&self) -> Self {
        let rate = |at: &usize| {
            let link = &self.plan.links[*at];
            match self.from() {
                Side::Client => link.up.mean_rate(),
                Side::Server => link.down.mean_rate(),
            }
        };
        let mut alone = self.clone();
        alone.changes.clear();
        alone.foreign.clear();
        if let Some(best) = (0..self.plan.links.len()).rev().max_by_key(rate) {
            alone.plan.links = vec![self.plan.links[best].clone()];
            alone.plan.links[0].wan = 0;
        }
        alone
    }
}
