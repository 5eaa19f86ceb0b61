//! What a link direction is like, as words: `rate=100mbit delay=10ms loss=2% outage=8s+3s`.
//!
//! | key | value | means |
//! | --- | --- | --- |
//! | `rate` | `100mbit`, `none` | serialisation rate of the bottleneck |
//! | `trace` | file | delivery opportunities of 1504 bytes, one time in ms a line, repeating |
//! | `delay` | `10ms` | one-way delay |
//! | `delay_trace` | file | further delay, one value in ms for each 10 ms, repeating |
//! | `jitter` | `2ms` | further delay that wanders between zero and this |
//! | `loss` | `2%`, `0.02` | independent loss |
//! | `gilbert` | `2%/8` | bursty loss: share of packets, mean burst in packets |
//! | `queue` | `50ms`, `64kB` | room before the bottleneck; beyond it packets are dropped at the tail |
//! | `mtu` | `1400`, `none` | packets of more bytes disappear without a word |
//! | `dup` | `0.1%` | packets that arrive twice |
//! | `reorder` | `1%`, `1%/5ms` | packets held back, and for how long |
//! | `corrupt` | `0.01%` | packets with one bit flipped |
//! | `outage` | `8s+3s`, `8s+3s,20s+1s`, `on`, `off` | nothing enters or leaves: from 8 s for 3 s; or the switch |
//! | `handover` | `15s/100ms`, `15s/60ms-135ms@5s` | silences in which packets wait: period, length, the first |
//!
//! `Display` writes what `parse` reads, keys at their default left out. Values given later overrule earlier ones.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::trace::{DelayTrace, Trace, TraceError};
use crate::base::{Instant, Rate};

mod text;

/// What the narrowest place of the link carries.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Capacity {
    /// No bottleneck.
    #[default]
    Unlimited,
    /// A constant rate.
    Rate(Rate),
    /// Recorded delivery opportunities.
    Trace(Arc<Trace>),
}

/// How packets get lost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Loss {
    /// Not at all.
    #[default]
    None,
    /// Each packet independently with this probability.
    Random(f64),
    /// Gilbert-Elliott with a lossless and a lossy state.
    Gilbert {
        /// Share of packets lost in the long run.
        ratio: f64,
        /// Mean number of packets lost in a row, at least 1.
        burst: f64,
    },
}

/// Room before the bottleneck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueLimit {
    /// As much as the bottleneck carries in this time at its (mean) rate.
    Time(Duration),
    /// This many bytes.
    Bytes(u64),
}

/// Packets that others overtake.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reordering {
    /// Probability.
    pub ratio: f64,
    /// How much later they arrive than they would have.
    pub by: Duration,
}

/// A time in which the link is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outage {
    /// From here ...
    pub from: Instant,
    /// ... for this long.
    pub length: Duration,
}

/// Regular silences in which packets wait and are not lost, as when a dish changes its satellite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handover {
    /// From the start of one silence to the start of the next.
    pub period: Duration,
    /// Shortest silence.
    pub length_min: Duration,
    /// Longest silence; each is drawn between the two.
    pub length_max: Duration,
    /// When the first silence starts.
    pub first: Duration,
}

/// The behaviour of one link direction.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// Serialisation at the bottleneck.
    pub capacity: Capacity,
    /// File name of a capacity trace, for `Display`.
    pub trace_file: String,
    /// Room before the bottleneck.
    pub queue: QueueLimit,
    /// One-way delay.
    pub delay: Duration,
    /// Further delay over time.
    pub delay_trace: Option<Arc<DelayTrace>>,
    /// File name of the delay trace, for `Display`.
    pub delay_trace_file: String,
    /// Further delay that wanders between zero and this.
    pub jitter: Duration,
    /// How packets get lost.
    pub loss: Loss,
    /// Longest packet that gets through, in bytes; longer ones disappear without a word.
    pub mtu: Option<u32>,
    /// Probability that a packet arrives twice.
    pub duplicate: f64,
    /// Packets held back.
    pub reorder: Reordering,
    /// Probability of a flipped bit.
    pub corrupt: f64,
    /// Scheduled outages.
    pub outages: Vec<Outage>,
    /// The outage switch: `true` = dead until switched back.
    pub outage: bool,
    /// Regular silences.
    pub handover: Option<Handover>,
}

/// Room of the queue when nothing is said: about what a tuned access router has.
const QUEUE_DEFAULT: QueueLimit = QueueLimit::Time(Duration::from_millis(50));
/// Least room in bytes: two full packets, so that a slow link can carry any.
const QUEUE_BYTES_MIN: u64 = 3_028;
/// Room of a queue whose limit is a time on a link without a rate (it fills in handover silences only).
const QUEUE_BYTES_UNLIMITED: u64 = 16 << 20;
/// How long a packet is held back when nothing is said.
const REORDER_BY_DEFAULT: Duration = Duration::from_millis(5);

impl Default for Spec {
    fn default() -> Self {
        Self {
            capacity: Capacity::Unlimited,
            trace_file: String::new(),
            queue: QUEUE_DEFAULT,
            delay: Duration::ZERO,
            delay_trace: None,
            delay_trace_file: String::new(),
            jitter: Duration::ZERO,
            loss: Loss::None,
            mtu: None,
            duplicate: 0.0,
            reorder: Reordering {
                ratio: 0.0,
                by: REORDER_BY_DEFAULT,
            },
            corrupt: 0.0,
            outages: Vec::new(),
            outage: false,
            handover: None,
        }
    }
}

/// Why a specification was refused.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// A word without `=` that is not the outage switch.
    #[error("'{word}' is not of the form key=value (the only bare word is 'outage')")]
    NotAPair {
        /// The word.
        word: String,
    },
    /// A key that does not exist.
    #[error("unknown key '{key}'; keys: {}", text::KEYS.join(", "))]
    UnknownKey {
        /// The key.
        key: String,
    },
    /// A value that the key does not take.
    #[error("{key}={value}: expected {expected}")]
    BadValue {
        /// The key.
        key: String,
        /// What was given.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
    /// The file of a trace cannot be read.
    #[error("{key}={file}: {source}")]
    File {
        /// The key.
        key: String,
        /// The file's name.
        file: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file of a trace does not hold a trace.
    #[error("{key}={file}: {source}")]
    Trace {
        /// The key.
        key: String,
        /// The file's name.
        file: String,
        /// What is wrong with it.
        source: TraceError,
    },
}

impl Spec {
    /// Reads `key=value` pairs separated by blanks. Trace files are read at once.
    ///
    /// # Errors
    /// The first pair that cannot be understood, with what would be right.
    pub fn parse(text: &str) -> Result<Self, SpecError> {
        let mut spec = Self::default();
        spec.apply(text)?;
        Ok(spec)
    }

    /// Changes what `text` names and leaves the rest. On an error nothing is changed.
    ///
    /// # Errors
    /// As [`Spec::parse`].
    pub fn apply(&mut self, text: &str) -> Result<(), SpecError> {
        let mut changed = self.clone();
        for word in text.split_ascii_whitespace() {
            text::apply_word(&mut changed, word)?;
        }
        *self = changed;
        Ok(())
    }

    /// The mean rate of the bottleneck; `None` when there is none.
    pub fn mean_rate(&self) -> Option<Rate> {
        match &self.capacity {
            Capacity::Unlimited => None,
            Capacity::Rate(rate) => Some(*rate),
            Capacity::Trace(trace) => Some(trace.mean_rate()),
        }
    }

    /// Bytes that the bottleneck can carry in a span: nothing while the outage switch is on, and `None` when there is
    /// no bottleneck. Scheduled outages and silences are not taken off.
    pub fn bytes_in(&self, from: Instant, to: Instant) -> Option<u64> {
        match &self.capacity {
            _ if self.outage => Some(0),
            Capacity::Unlimited => None,
            Capacity::Rate(rate) => Some(rate.bytes_in(to.since(from))),
            Capacity::Trace(trace) => Some(trace.bytes_in(from, to)),
        }
    }

    pub(super) fn is_outage(&self, at: Instant) -> bool {
        self.outage
            || self
                .outages
                .iter()
                .any(|outage| at >= outage.from && at < outage.from + outage.length)
    }

    pub(super) fn queue_bytes_max(&self) -> u64 {
        let room = match self.queue {
            QueueLimit::Bytes(bytes) => bytes,
            QueueLimit::Time(time) => self
                .mean_rate()
                .map_or(QUEUE_BYTES_UNLIMITED, |rate| rate.bytes_in(time)),
        };
        room.max(QUEUE_BYTES_MIN)
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        text::write_spec(self, f)
    }
}

impl std::str::FromStr for Spec {
    type Err = SpecError;
    fn from_str(text: &str) -> Result<Self, SpecError> {
        Self::parse(text)
    }
}

impl Handover {
    pub(super) fn first_at(&self) -> Instant {
        Instant::ZERO + self.first
    }

    /// Which silence (counted from 0) started last before or at `at`, which must not lie before the first.
    pub(super) fn index_at(&self, at: Instant) -> u64 {
        let since = at.since(self.first_at()).as_nanos();
        u64::try_from(since / self.period.as_nanos().max(1)).unwrap_or(u64::MAX)
    }

    pub(super) fn start_of(&self, index: u64) -> Instant {
        let nanos = u64::try_from(self.period.as_nanos())
            .unwrap_or(u64::MAX)
            .saturating_mul(index);
        self.first_at() + Duration::from_nanos(nanos)
    }

    /// The first start of a silence after `at`.
    pub(super) fn next_after(&self, at: Instant) -> Instant {
        if at < self.first_at() {
            self.first_at()
        } else {
            self.start_of(self.index_at(at) + 1)
        }
    }
}
