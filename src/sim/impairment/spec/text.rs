//! The words of a specification: one function reads a `key=value` word, one writes them all.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{
    Capacity, DelayTrace, Handover, Loss, Outage, QueueLimit, REORDER_BY_DEFAULT, Reordering, Spec,
    SpecError, Trace, TraceError,
};
use crate::base::{Instant, Rate};

/// Every key, in the order in which `Display` writes them.
pub(super) const KEYS: &[&str] = &[
    "rate",
    "trace",
    "queue",
    "delay",
    "delay_trace",
    "jitter",
    "loss",
    "gilbert",
    "mtu",
    "dup",
    "reorder",
    "corrupt",
    "outage",
    "handover",
];

const EXPECT_RATE: &str = "a rate such as 100mbit, 512kbit or none";
const EXPECT_TIME: &str = "a time such as 10ms, 250us or 1.5s";
const EXPECT_RATIO: &str = "a share such as 2% or 0.02, below 100%";
const EXPECT_GILBERT: &str =
    "loss/burst such as 2%/8, with a mean burst of 1 or more that the loss allows";
const EXPECT_QUEUE: &str = "a time such as 50ms or bytes such as 64kB";
const EXPECT_MTU: &str = "bytes such as 1400, 68 to 65535, or none";
const EXPECT_REORDER: &str = "a share, or share/time such as 1%/5ms";
const EXPECT_OUTAGE: &str = "start+length such as 8s+3s (several separated by commas), on, or off";
const EXPECT_HANDOVER: &str = "period/length such as 15s/100ms, period/min-max@first such as 15s/60ms-135ms@5s, or none; length < period";

/// Changes `spec` as one word says.
pub(super) fn apply_word(spec: &mut Spec, word: &str) -> Result<(), SpecError> {
    if word == "outage" {
        spec.outage = true;
        return Ok(());
    }
    let Some((key, value)) = word.split_once('=') else {
        return Err(SpecError::NotAPair { word: word.into() });
    };
    let bad = |expected| SpecError::BadValue {
        key: key.into(),
        value: value.into(),
        expected,
    };
    match key {
        "rate" => {
            spec.capacity = parse_rate(value).ok_or_else(|| bad(EXPECT_RATE))?;
            spec.trace_file.clear();
        }
        "trace" => {
            spec.capacity = Capacity::Trace(Arc::new(read(key, value, Trace::parse)?));
            spec.trace_file = value.into();
        }
        "delay_trace" if value == "none" => spec.delay_trace = None,
        "delay_trace" => {
            spec.delay_trace = Some(Arc::new(read(key, value, DelayTrace::parse)?));
            spec.delay_trace_file = value.into();
        }
        "queue" => spec.queue = parse_queue(value).ok_or_else(|| bad(EXPECT_QUEUE))?,
        "delay" => spec.delay = parse_time(value).ok_or_else(|| bad(EXPECT_TIME))?,
        "jitter" => spec.jitter = parse_time(value).ok_or_else(|| bad(EXPECT_TIME))?,
        "loss" => {
            let ratio = parse_ratio(value).ok_or_else(|| bad(EXPECT_RATIO))?;
            spec.loss = if ratio > 0.0 {
                Loss::Random(ratio)
            } else {
                Loss::None
            };
        }
        "gilbert" => spec.loss = parse_gilbert(value).ok_or_else(|| bad(EXPECT_GILBERT))?,
        "mtu" if value == "none" => spec.mtu = None,
        "mtu" => spec.mtu = Some(parse_mtu(value).ok_or_else(|| bad(EXPECT_MTU))?),
        "dup" => spec.duplicate = parse_ratio(value).ok_or_else(|| bad(EXPECT_RATIO))?,
        "reorder" => spec.reorder = parse_reorder(value).ok_or_else(|| bad(EXPECT_REORDER))?,
        "corrupt" => spec.corrupt = parse_ratio(value).ok_or_else(|| bad(EXPECT_RATIO))?,
        "outage" => match value {
            "on" => spec.outage = true,
            "off" => (spec.outage, spec.outages) = (false, Vec::new()),
            _ => spec.outages = parse_outages(value).ok_or_else(|| bad(EXPECT_OUTAGE))?,
        },
        "handover" if value == "none" => spec.handover = None,
        "handover" => {
            spec.handover = Some(parse_handover(value).ok_or_else(|| bad(EXPECT_HANDOVER))?)
        }
        _ => return Err(SpecError::UnknownKey { key: key.into() }),
    }
    Ok(())
}

/// Writes the keys that differ from the default.
pub(super) fn write_spec(spec: &Spec, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let default = Spec::default();
    let mut words = Vec::new();
    match &spec.capacity {
        Capacity::Unlimited => {}
        Capacity::Rate(rate) => words.push(format!("rate={}", RateText(*rate))),
        Capacity::Trace(_) => words.push(format!("trace={}", spec.trace_file)),
    }
    if spec.queue != default.queue {
        words.push(match spec.queue {
            QueueLimit::Time(time) => format!("queue={}", TimeText(time)),
            QueueLimit::Bytes(bytes) => format!("queue={bytes}B"),
        });
    }
    if !spec.delay.is_zero() {
        words.push(format!("delay={}", TimeText(spec.delay)));
    }
    if spec.delay_trace.is_some() {
        words.push(format!("delay_trace={}", spec.delay_trace_file));
    }
    if !spec.jitter.is_zero() {
        words.push(format!("jitter={}", TimeText(spec.jitter)));
    }
    match spec.loss {
        Loss::None => {}
        Loss::Random(ratio) => words.push(format!("loss={}", RatioText(ratio))),
        Loss::Gilbert { ratio, burst } => {
            words.push(format!("gilbert={}/{burst}", RatioText(ratio)))
        }
    }
    if let Some(mtu) = spec.mtu {
        words.push(format!("mtu={mtu}"));
    }
    if spec.duplicate > 0.0 {
        words.push(format!("dup={}", RatioText(spec.duplicate)));
    }
    if spec.reorder != default.reorder {
        words.push(format!(
            "reorder={}/{}",
            RatioText(spec.reorder.ratio),
            TimeText(spec.reorder.by)
        ));
    }
    if spec.corrupt > 0.0 {
        words.push(format!("corrupt={}", RatioText(spec.corrupt)));
    }
    if !spec.outages.is_empty() {
        let list = spec.outages.iter().map(|outage| {
            format!(
                "{}+{}",
                TimeText(outage.from.since(Instant::ZERO)),
                TimeText(outage.length)
            )
        });
        words.push(format!("outage={}", list.collect::<Vec<_>>().join(",")));
    }
    if spec.outage {
        words.push("outage=on".into());
    }
    if let Some(handover) = &spec.handover {
        words.push(handover_text(handover));
    }
    f.write_str(&words.join(" "))
}

fn handover_text(handover: &Handover) -> String {
    let mut text = format!(
        "handover={}/{}",
        TimeText(handover.period),
        TimeText(handover.length_min)
    );
    if handover.length_max != handover.length_min {
        text += &format!("-{}", TimeText(handover.length_max));
    }
    if handover.first != handover.period {
        text += &format!("@{}", TimeText(handover.first));
    }
    text
}

fn read<V>(
    key: &str,
    file: &str,
    parse: fn(&str) -> Result<V, TraceError>,
) -> Result<V, SpecError> {
    let text = std::fs::read_to_string(file).map_err(|source| SpecError::File {
        key: key.into(),
        file: file.into(),
        source,
    })?;
    parse(&text).map_err(|source| SpecError::Trace {
        key: key.into(),
        file: file.into(),
        source,
    })
}

fn parse_rate(text: &str) -> Option<Capacity> {
    if text == "none" {
        return Some(Capacity::Unlimited);
    }
    let (number, unit) = split_unit(text)?;
    let scale = match unit {
        "gbit" => 1e9,
        "mbit" => 1e6,
        "kbit" => 1e3,
        "bit" => 1.0,
        _ => return None,
    };
    let rate = Rate::from_bits_per_s(1_000_000_000).mul_f64(number * scale / 1e9);
    // Below 1 kbit/s one packet would take longer than any test.
    (rate.bits_per_s() >= 1_000).then_some(Capacity::Rate(rate))
}

fn parse_time(text: &str) -> Option<Duration> {
    let (number, unit) = split_unit(text)?;
    let scale = match unit {
        "s" => 1e9,
        "ms" => 1e6,
        "us" => 1e3,
        "ns" => 1.0,
        _ => return None,
    };
    let nanos = (number * scale).round();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // checked: 0 to 10^18
    (0.0..1e18)
        .contains(&nanos)
        .then(|| Duration::from_nanos(nanos as u64))
}

fn parse_ratio(text: &str) -> Option<f64> {
    let ratio = match text.strip_suffix('%') {
        Some(percent) => percent.parse::<f64>().ok()? / 100.0,
        None => text.parse::<f64>().ok()?,
    };
    (0.0..1.0).contains(&ratio).then_some(ratio)
}

fn parse_gilbert(text: &str) -> Option<Loss> {
    let (ratio, burst) = text.split_once('/')?;
    let (ratio, burst) = (parse_ratio(ratio)?, burst.parse::<f64>().ok()?);
    // The way into the lossy state is a probability, so the loss cannot exceed what bursts of this length can hold.
    let possible = burst >= 1.0 && burst.is_finite() && ratio / (1.0 - ratio) <= burst;
    if ratio == 0.0 {
        return Some(Loss::None);
    }
    possible.then_some(Loss::Gilbert { ratio, burst })
}

fn parse_queue(text: &str) -> Option<QueueLimit> {
    if let Some(time) = parse_time(text) {
        return Some(QueueLimit::Time(time));
    }
    let (number, unit) = split_unit(text)?;
    let scale = match unit {
        "MB" => 1e6,
        "kB" => 1e3,
        "B" => 1.0,
        _ => return None,
    };
    let bytes = number * scale;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // checked: 0 to 10^12
    (0.0..1e12)
        .contains(&bytes)
        .then_some(QueueLimit::Bytes(bytes as u64))
}

/// From what every IPv4 link must carry (RFC 791) to what a packet can be.
fn parse_mtu(text: &str) -> Option<u32> {
    let bytes = text.parse().ok()?;
    (68..=65_535).contains(&bytes).then_some(bytes)
}

fn parse_reorder(text: &str) -> Option<Reordering> {
    let Some((ratio, by)) = text.split_once('/') else {
        return Some(Reordering {
            ratio: parse_ratio(text)?,
            by: REORDER_BY_DEFAULT,
        });
    };
    Some(Reordering {
        ratio: parse_ratio(ratio)?,
        by: parse_time(by)?,
    })
}

fn parse_outages(text: &str) -> Option<Vec<Outage>> {
    let one = |part: &str| {
        let (from, length) = part.split_once('+')?;
        Some(Outage {
            from: Instant::ZERO + parse_time(from)?,
            length: parse_time(length)?,
        })
    };
    text.split(',').map(one).collect()
}

fn parse_handover(text: &str) -> Option<Handover> {
    let (period, rest) = text.split_once('/')?;
    let period = parse_time(period)?;
    let (lengths, first) = match rest.split_once('@') {
        Some((lengths, first)) => (lengths, parse_time(first)?),
        None => (rest, period),
    };
    let (length_min, length_max) = match lengths.split_once('-') {
        Some((min, max)) => (parse_time(min)?, parse_time(max)?),
        None => (parse_time(lengths)?, parse_time(lengths)?),
    };
    let possible = length_min <= length_max && length_max < period;
    possible.then_some(Handover {
        period,
        length_min,
        length_max,
        first,
    })
}

/// Splits `1.5ms` into 1.5 and `ms`.
fn split_unit(text: &str) -> Option<(f64, &str)> {
    let at = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(at);
    let number = number.parse::<f64>().ok()?;
    (number >= 0.0).then_some((number, unit))
}

/// A rate in the largest unit that needs no fraction.
struct RateText(Rate);

impl fmt::Display for RateText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = self.0.bits_per_s();
        let units = [
            (1_000_000_000, "gbit"),
            (1_000_000, "mbit"),
            (1_000, "kbit"),
            (1, "bit"),
        ];
        write_in_unit(f, bits, &units)
    }
}

/// A time in the largest unit that needs no fraction.
struct TimeText(Duration);

impl fmt::Display for TimeText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX);
        write_in_unit(
            f,
            nanos,
            &[
                (1_000_000_000, "s"),
                (1_000_000, "ms"),
                (1_000, "us"),
                (1, "ns"),
            ],
        )
    }
}

fn write_in_unit(f: &mut fmt::Formatter<'_>, value: u64, units: &[(u64, &str)]) -> fmt::Result {
    let fits = units
        .iter()
        .find(|(scale, _)| value.is_multiple_of(*scale))
        .unwrap_or(&(1, ""));
    write!(f, "{}{}", value / fits.0, fits.1)
}

/// A share as percent where that reads back exactly, else as the number itself.
struct RatioText(f64);

impl fmt::Display for RatioText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = (self.0 * 1e8).round() / 1e6;
        if percent / 100.0 == self.0 {
            write!(f, "{percent}%")
        } else {
            write!(f, "{}", self.0)
        }
    }
}
