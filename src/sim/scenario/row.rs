//! What a run of a scenario came to, as numbers.

/// One number of a [`Row`]. Times are in milliseconds, shares are of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// Goodput as part of what full packets could make of the links' capacity in the steady span. A link that is dead in
    /// the other direction alone counts; what is foreign traffic's in fairness does not.
    Efficiency,
    /// Goodput of all bulk flows in the steady span, Mbit/s.
    Goodput,
    /// Median round trip of the TCPs.
    RttP50,
    /// 95th percentile of it.
    RttP95,
    /// 99th percentile of it.
    RttP99,
    /// Median ping before the bulk flows began.
    IdleP50,
    /// 99th percentile of it.
    IdleP99,
    /// Median ping beside them.
    PingP50,
    /// 99th percentile of it.
    PingP99,
    /// By how much the median ping rose.
    RiseP50,
    /// By how much its 99th percentile rose.
    RiseP99,
    /// Longest time in the watched span in which a bulk flow's receiver got nothing.
    Gap,
    /// Segments that the tunnel lost without a word in the judged direction, from the watched span on.
    Lost,
    /// The same as part of those sent.
    LossRatio,
    /// Segments that TCPs sent again in the watched span, as part of all that they sent.
    Resent,
    /// Retransmission timeouts of TCPs in the watched span.
    Timeouts,
    /// Symbols that are repair, copy or sent again, for each source symbol, in the steady span.
    Overhead,
    /// Median queueing delay in the bottleneck of the link where it was largest.
    QueueP50,
    /// 95th percentile of it.
    QueueP95,
    /// 99th percentile of it.
    QueueP99,
    /// Largest error of a link's believed capacity 2 s after the start, as part of its rate.
    CapacityError,
    /// Jain's index of fairness among the bulk flows.
    Fairness,
    /// Frames that came out behind a later one of their flow, as part of all.
    Disorder,
    /// Times that links were suspected in the watched span by the judged sender.
    Suspicions,
    /// Goodput over that of another run, as of the fastest link alone; only who runs both knows it.
    Gain,
    /// Goodput of the bulk flow that had least, as part of an equal share; of two flows and more.
    LeastShare,
    /// Efficiency in the scenario's last span.
    Back,
    /// What foreign traffic had of its links in the steady span, headers included, Mbit/s.
    Foreign,
    /// The same as part of what is its own in fairness: half of the link for who is greedy, its rate for who has one.
    ForeignShare,
    /// Packets of foreign traffic with a constant rate that were lost, as part of those sent in the watched span.
    ForeignLoss,
}

impl Figure {
    /// All of them, in the order of a row.
    pub const ALL: [Self; 30] = [
        Self::Efficiency,
        Self::Goodput,
        Self::RttP50,
        Self::RttP95,
        Self::RttP99,
        Self::IdleP50,
        Self::IdleP99,
        Self::PingP50,
        Self::PingP99,
        Self::RiseP50,
        Self::RiseP99,
        Self::Gap,
        Self::Lost,
        Self::LossRatio,
        Self::Resent,
        Self::Timeouts,
        Self::Overhead,
        Self::QueueP50,
        Self::QueueP95,
        Self::QueueP99,
        Self::CapacityError,
        Self::Fairness,
        Self::Disorder,
        Self::Suspicions,
        Self::Gain,
        Self::LeastShare,
        Self::Back,
        Self::Foreign,
        Self::ForeignShare,
        Self::ForeignLoss,
    ];

    /// Its name in tables and in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Efficiency => "E",
            Self::Goodput => "mbps",
            Self::RttP50 => "rtt50",
            Self::RttP95 => "rtt95",
            Self::RttP99 => "rtt99",
            Self::IdleP50 => "idle50",
            Self::IdleP99 => "idle99",
            Self::PingP50 => "ping50",
            Self::PingP99 => "ping99",
            Self::RiseP50 => "rise50",
            Self::RiseP99 => "rise99",
            Self::Gap => "gap",
            Self::Lost => "lost",
            Self::LossRatio => "loss",
            Self::Resent => "resent",
            Self::Timeouts => "rto",
            Self::Overhead => "overhead",
            Self::QueueP50 => "queue50",
            Self::QueueP95 => "queue95",
            Self::QueueP99 => "queue99",
            Self::CapacityError => "Cerr",
            Self::Fairness => "jain",
            Self::Disorder => "disorder",
            Self::Suspicions => "suspect",
            Self::Gain => "gain",
            Self::LeastShare => "least",
            Self::Back => "back",
            Self::Foreign => "fmbps",
            Self::ForeignShare => "fshare",
            Self::ForeignLoss => "floss",
        }
    }
}

/// Figures of one run. One that makes no sense for a scenario, as the round trip of a constant rate, is missing.
#[derive(Clone, Debug, Default)]
pub struct Row {
    figures: [Option<f64>; Figure::ALL.len()],
    /// What each second was like.
    pub story: Vec<Second>,
}

impl Row {
    /// A figure.
    pub const fn get(&self, figure: Figure) -> Option<f64> {
        self.figures[figure as usize]
    }

    /// Puts a figure in, as one that takes several runs to know.
    pub const fn set(&mut self, figure: Figure, value: Option<f64>) {
        self.figures[figure as usize] = value;
    }

    /// Each figure's median over several runs, with the story of the first.
    pub fn median(rows: &[Self]) -> Self {
        let mut median = Self {
            story: rows
                .first()
                .map(|row| row.story.clone())
                .unwrap_or_default(),
            ..Self::default()
        };
        for figure in Figure::ALL {
            let mut values: Vec<f64> = rows.iter().filter_map(|row| row.get(figure)).collect();
            values.sort_unstable_by(f64::total_cmp);
            median.set(figure, values.get(values.len() / 2).copied());
        }
        median
    }
}

/// One second of a run in words: for people who look for a cause.
#[derive(Clone, Debug)]
pub struct Second {
    /// Goodput of all bulk flows, Mbit/s.
    pub goodput: f64,
    /// Goodput as in [`Figure::Efficiency`].
    pub efficiency: f64,
    /// Congestion window in segments and smoothed round trip of the first TCP, and what it did so far.
    pub tcp: String,
    /// For each link of the judged sender: believed capacity, phase, queueing delay in the bottleneck.
    pub links: Vec<String>,
    /// The judged session: bytes in its queue, hold time of its peer, load, repair symbols of a group.
    pub session: String,
    /// Goodput of each bulk flow, Mbit/s.
    pub flows: Vec<f64>,
    /// What each foreign flow had, as [`Figure::Foreign`].
    pub foreign: Vec<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_stored_where_their_number_says() {
        for (place, figure) in Figure::ALL.iter().enumerate() {
            assert_eq!(*figure as usize, place, "{}", figure.name());
        }
    }

    #[test]
    fn the_median_leaves_out_what_is_missing() {
        let rows = [Some(3.0), None, Some(1.0), Some(2.0)].map(|value| {
            let mut row = Row::default();
            row.set(Figure::Gap, value);
            row
        });
        let median = Row::median(&rows);
        assert_eq!(median.get(Figure::Gap), Some(2.0));
        assert_eq!(median.get(Figure::Lost), None);
    }
}
