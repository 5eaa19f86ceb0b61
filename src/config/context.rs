//! Reads single values out of the file's tables and collects what is wrong with them.
//!
//! A value that is not set takes the default of the key table, through the same checks, so that the
//! table's default column cannot lie. A faulty value is reported once and then also replaced by the
//! default, so that one pass finds every other fault.

use std::fmt::Display;
use std::net::IpAddr;
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;

use toml::de::DeValue;

use super::error::{Fault, FaultKind, Warning};
use super::file::Table;
use super::keys;
use super::spans::{excerpt, place_of};
use super::values::{MssClamp, Role};

/// A value with the key and the place it came from.
#[derive(Clone, Debug)]
pub(super) struct Placed<T> {
    /// The value.
    pub value: T,
    /// Full name of the key, with the index for elements of lists.
    pub key: String,
    /// Where it stands; `None` for a default.
    pub span: Option<Range<usize>>,
}

impl<T> Placed<T> {
    /// Another value with the same place.
    pub fn with<U>(&self, value: U) -> Placed<U> {
        Placed {
            value,
            key: self.key.clone(),
            span: self.span.clone(),
        }
    }
}

/// Types that a TOML value can have in this file.
pub(super) trait FromToml: Sized {
    /// What it is, with article, for messages.
    const KIND: &'static str;
    /// The value, if it has this type.
    fn from_toml(value: &DeValue<'_>) -> Option<Self>;
}

impl FromToml for i64 {
    const KIND: &'static str = "an integer";
    fn from_toml(value: &DeValue<'_>) -> Option<Self> {
        let integer = value.as_integer()?;
        Self::from_str_radix(integer.as_str(), integer.radix()).ok()
    }
}

impl FromToml for f64 {
    const KIND: &'static str = "a number";
    fn from_toml(value: &DeValue<'_>) -> Option<Self> {
        match value {
            DeValue::Float(float) => float.as_str().parse().ok(),
            DeValue::Integer(integer) if integer.radix() == 10 => integer.as_str().parse().ok(),
            _ => None,
        }
    }
}

impl FromToml for bool {
    const KIND: &'static str = "true or false";
    fn from_toml(value: &DeValue<'_>) -> Option<Self> {
        value.as_bool()
    }
}

impl FromToml for String {
    const KIND: &'static str = "a string";
    fn from_toml(value: &DeValue<'_>) -> Option<Self> {
        value.as_str().map(Self::from)
    }
}

/// Either the word `auto` or a number.
#[derive(Clone, Copy, Debug)]
pub(super) enum AutoOr {
    /// The word.
    Auto,
    /// The number.
    Number(i64),
}

impl FromToml for AutoOr {
    const KIND: &'static str = "\"auto\" or an integer";
    fn from_toml(value: &DeValue<'_>) -> Option<Self> {
        match value.as_str() {
            Some("auto") => Some(Self::Auto),
            Some(_) => None,
            None => i64::from_toml(value).map(Self::Number),
        }
    }
}

/// A word or a number.
#[derive(Clone, Debug)]
pub(super) enum WordOr {
    /// The word.
    Word(String),
    /// The number.
    Number(i64),
}

impl FromToml for WordOr {
    const KIND: &'static str = "a string or an integer";
    fn from_toml(value: &DeValue<'_>) -> Option<Self> {
        match value.as_str() {
            Some(word) => Some(Self::Word(word.to_owned())),
            None => i64::from_toml(value).map(Self::Number),
        }
    }
}

impl FromToml for MssClamp {
    const KIND: &'static str = "\"auto\", \"off\" or an integer";
    fn from_toml(value: &DeValue<'_>) -> Option<Self> {
        match value.as_str() {
            Some("auto") => Some(Self::Auto),
            Some("off") => Some(Self::Off),
            Some(_) => None,
            // What does not fit is out of any range.
            None => i64::from_toml(value).map(|n| Self::Bytes(u16::try_from(n).unwrap_or(0))),
        }
    }
}

/// Enums with one spelling for each value.
pub(super) trait Named: Copy + 'static {
    /// All values with their spelling.
    const ALL: &'static [(&'static str, Self)];
}

/// What one pass over a file knows and has found.
#[derive(Debug)]
pub(super) struct Context<'a> {
    /// Which side reads the file.
    pub role: Role,
    /// Path of the file, for messages.
    pub file: PathBuf,
    /// Its text, for places and excerpts.
    pub text: &'a str,
    /// Found so far.
    pub faults: Vec<Fault>,
    /// Found so far.
    pub warnings: Vec<Warning>,
}

impl<'a> Context<'a> {
    /// Reports a fault of a value.
    pub fn fault<T>(&mut self, at: &Placed<T>, what: impl Display) {
        let kind = if at.span.is_some() {
            FaultKind::Value
        } else {
            FaultKind::Missing
        };
        self.fault_of_kind(kind, at, what);
    }

    /// Reports a fault of the given sort.
    pub fn fault_of_kind<T>(&mut self, kind: FaultKind, at: &Placed<T>, what: impl Display) {
        let table_key = at.key.split('[').next().unwrap_or_default();
        let allowed = keys::find(table_key).map_or("", |key| key.allowed);
        self.faults.push(Fault {
            kind,
            file: self.file.clone(),
            place: at.span.as_ref().map(|span| place_of(self.text, span.start)),
            key: at.key.clone(),
            value: at
                .span
                .clone()
                .map(|span| excerpt(self.text, span))
                .unwrap_or_default(),
            what: what.to_string(),
            allowed: allowed.to_owned(),
        });
    }

    /// Reports something that stops nothing.
    pub fn warn(&mut self, key: &str, span: Option<Range<usize>>, what: impl Display) {
        self.warnings.push(Warning {
            file: self.file.clone(),
            place: span.map(|span| place_of(self.text, span.start)),
            key: key.to_owned(),
            what: what.to_string(),
        });
    }

    /// The place of a key that is not set, for faults about its absence.
    pub fn unset(key: &str) -> Placed<()> {
        Placed {
            value: (),
            key: key.to_owned(),
            span: None,
        }
    }

    /// The key's value, or the table's default; `None` when there is neither.
    pub fn value<T: FromToml>(&mut self, table: &Table<'a>, name: &str) -> Option<Placed<T>> {
        let key = format!("{}.{name}", table.name);
        if let Some(found) = table.values.get(name) {
            let placed = Placed {
                value: (),
                key: key.clone(),
                span: Some(found.span()),
            };
            match T::from_toml(found.get_ref()) {
                Some(value) => return Some(placed.with(value)),
                None => {
                    let is = found.get_ref().type_str();
                    self.fault(&placed, format!("is of type {is}, not {}", T::KIND));
                }
            }
        }
        self.default(&key)
    }

    /// The table's default of a key.
    pub fn default<T: FromToml>(&self, key: &str) -> Option<Placed<T>> {
        let text = keys::find(key)
            .expect("every key read is in the key table")
            .default
            .text(self.role)?;
        let parsed = DeValue::parse(text).expect("defaults of the key table are TOML");
        let value =
            T::from_toml(parsed.get_ref()).expect("defaults of the key table have the key's type");
        Some(Placed {
            value,
            key: key.to_owned(),
            span: None,
        })
    }

    /// An integer inside `range`; the default when it is outside.
    pub fn integer(
        &mut self,
        table: &Table<'a>,
        name: &str,
        range: RangeInclusive<i64>,
    ) -> Placed<i64> {
        let found = self
            .value::<i64>(table, name)
            .expect("integer keys have a default");
        if range.contains(&found.value) {
            return found;
        }
        self.fault(&found, "is out of range");
        self.default(&found.key)
            .expect("integer keys have a default")
    }

    /// A number inside `range`; the default when it is outside or not a number.
    pub fn number(
        &mut self,
        table: &Table<'a>,
        name: &str,
        range: RangeInclusive<f64>,
    ) -> Placed<f64> {
        let found = self
            .value::<f64>(table, name)
            .expect("number keys have a default");
        if range.contains(&found.value) {
            return found;
        }
        self.fault(&found, "is out of range");
        self.default(&found.key)
            .expect("number keys have a default")
    }

    /// `auto` (`None`) or an integer inside `range`.
    pub fn auto_or(
        &mut self,
        table: &Table<'a>,
        name: &str,
        range: RangeInclusive<i64>,
    ) -> Option<Placed<i64>> {
        let found = self.value::<AutoOr>(table, name)?;
        match found.value {
            AutoOr::Auto => None,
            AutoOr::Number(number) if range.contains(&number) => Some(found.with(number)),
            AutoOr::Number(_) => {
                self.fault(&found, "is out of range");
                None
            }
        }
    }

    /// One of an enum's words; the default when it is none of them.
    pub fn named<E: Named>(&mut self, table: &Table<'a>, name: &str) -> E {
        let of = |word: &str| {
            E::ALL
                .iter()
                .find(|(text, _)| *text == word)
                .map(|(_, value)| *value)
        };
        let found = self
            .value::<String>(table, name)
            .expect("enum keys have a default");
        if let Some(value) = of(&found.value) {
            return value;
        }
        let near = super::file::nearest(&found.value, E::ALL.iter().map(|(text, _)| *text));
        let hint = near
            .map(|word| format!(" (did you mean \"{word}\"?)"))
            .unwrap_or_default();
        self.fault(&found, format!("is not known{hint}"));
        let default = self
            .default::<String>(&found.key)
            .expect("enum keys have a default");
        of(&default.value).expect("defaults of the key table are allowed words")
    }

    /// A string; empty counts as not set.
    pub fn text(&mut self, table: &Table<'a>, name: &str) -> Option<Placed<String>> {
        self.value::<String>(table, name)
            .filter(|found| !found.value.is_empty())
    }

    /// An address of type `A`; empty counts as not set. Faulty: reported, and the default or `None`.
    pub fn address<A: std::str::FromStr>(
        &mut self,
        table: &Table<'a>,
        name: &str,
    ) -> Option<Placed<A>> {
        let found = self.text(table, name)?;
        if let Ok(address) = found.value.parse() {
            return Some(found.with(address));
        }
        self.fault(&found, not_an_address(&found.value));
        let default = self.default::<String>(&found.key)?;
        default
            .value
            .parse()
            .ok()
            .map(|address| default.with(address))
    }

    /// Reports an address that only stands for one in documentation. Returns whether it did.
    pub fn refuse_placeholder(&mut self, at: &Placed<IpAddr>) -> bool {
        let refused = at.span.is_some() && is_documentation(at.value);
        if refused {
            self.fault(
                at,
                "is a placeholder (an address reserved for documentation); put your own",
            );
        }
        refused
    }

    /// The elements of a list of strings, each with its own place. No list has another default than empty.
    pub fn list(&mut self, table: &Table<'a>, name: &str) -> Vec<Placed<String>> {
        self.list_of(table, name)
    }

    /// The same for elements of another type.
    pub fn list_of<T: FromToml>(&mut self, table: &Table<'a>, name: &str) -> Vec<Placed<T>> {
        let key = format!("{}.{name}", table.name);
        let Some(found) = table.values.get(name) else {
            return Vec::new();
        };
        let Some(list) = found.get_ref().as_array() else {
            let at = Placed {
                value: (),
                key,
                span: Some(found.span()),
            };
            self.fault(
                &at,
                format!("is of type {}, not a list", found.get_ref().type_str()),
            );
            return Vec::new();
        };
        let mut out = Vec::new();
        for (index, element) in list.iter().enumerate() {
            let at = Placed {
                value: (),
                key: format!("{key}[{index}]"),
                span: Some(element.span()),
            };
            match T::from_toml(element.get_ref()) {
                Some(value) => out.push(at.with(value)),
                None => {
                    let is = element.get_ref().type_str();
                    self.fault(&at, format!("is of type {is}, not {}", T::KIND));
                }
            }
        }
        out
    }
}

/// What is wrong with a text that should be an address. Names and fill-in words get their own advice.
pub(super) fn not_an_address(text: &str) -> &'static str {
    let lower = text.to_ascii_lowercase();
    let fill_in = ["your", "x.x", "xxx", "<", "change", "example"];
    if fill_in.iter().any(|word| lower.contains(word)) {
        "is a placeholder; put the real address"
    } else if lower.contains('.') && lower.chars().any(|c| c.is_ascii_alphabetic()) {
        "is a name, not an address; put what `getent hosts` prints for it"
    } else {
        "is not an address of the right kind"
    }
}

/// Addresses that only occur in documents: RFC 5737 and RFC 3849.
fn is_documentation(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_documentation(),
        IpAddr::V6(v6) => v6.segments()[0] == 0x2001 && v6.segments()[1] == 0x0db8,
    }
}
