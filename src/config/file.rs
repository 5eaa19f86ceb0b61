//! TOML text -> tables of values with their places. Knows which keys exist, not what they mean.
//!
//! Never stops at the first fault: syntax errors are collected by the parser's recovery, tables of the
//! wrong shape are reported and skipped, unknown keys become warnings with the nearest known key, so
//! that a file from another version still starts the tunnel.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::context::{Context, Placed};
use super::error::FaultKind;
use super::keys;

/// One table of the file: values by key name.
#[derive(Debug, Default)]
pub(super) struct Table<'a> {
    /// Name of the table in the key table, such as `links.wan`.
    pub name: String,
    /// Where it stands; `None` when the file has no such table.
    pub span: Option<Range<usize>>,
    /// Known keys with their values.
    pub values: BTreeMap<String, Spanned<DeValue<'a>>>,
}

impl Table<'_> {
    /// A table without keys: all of them have their defaults.
    pub fn empty(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..Self::default()
        }
    }

    /// Whether the file sets this key to something other than an empty string.
    pub fn sets(&self, name: &str) -> bool {
        self.values
            .get(name)
            .is_some_and(|value| value.get_ref().as_str() != Some(""))
    }

    /// The table itself as a place for faults.
    pub fn placed(&self) -> Placed<()> {
        Placed {
            value: (),
            key: format!("[[{}]]", self.name),
            span: self.span.clone(),
        }
    }
}

/// The tables of a file. Absent ones are empty.
#[derive(Debug)]
pub(super) struct File<'a> {
    tables: BTreeMap<&'static str, Table<'a>>,
    /// `[[links.wan]]`.
    pub wans: Vec<Table<'a>>,
    /// `[[classes]]`.
    pub classes: Vec<Table<'a>>,
    /// `[[peers]]`.
    pub peers: Vec<Table<'a>>,
}

/// Names of the plain tables.
const TABLES: [&str; 7] = [
    "general",
    "links",
    "performance",
    "security",
    "routing",
    "status",
    "logging",
];
/// Names of the tables that may occur many times.
const TABLE_LISTS: [&str; 3] = ["links.wan", "classes", "peers"];

impl<'a> File<'a> {
    /// Takes the text of `context` apart. `None` when it is not TOML; the reasons are then in `context`.
    pub fn read(context: &mut Context<'a>) -> Option<Self> {
        let text = context.text;
        let (root, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            let at = Placed {
                value: (),
                key: String::new(),
                span: error.span(),
            };
            let what = format!("this is not TOML: {}", error.message().trim_end());
            context.fault_of_kind(FaultKind::Syntax, &at, what);
        }
        if !errors.is_empty() {
            return None;
        }
        let mut file = Self {
            tables: TABLES
                .iter()
                .map(|&name| (name, Table::empty(name)))
                .collect(),
            wans: Vec::new(),
            classes: Vec::new(),
            peers: Vec::new(),
        };
        for (key, value) in root.get_ref() {
            file.read_top(context, key, value);
        }
        Some(file)
    }

    /// One of the plain tables.
    pub fn table(&self, name: &'static str) -> &Table<'a> {
        &self.tables[name]
    }

    fn read_top(
        &mut self,
        context: &mut Context<'a>,
        key: &Spanned<Cow<'a, str>>,
        value: &Spanned<DeValue<'a>>,
    ) {
        let name = key.get_ref().as_ref();
        if name == "classes" {
            self.classes = read_tables(context, "classes", value);
        } else if name == "peers" {
            self.peers = read_tables(context, "peers", value);
        } else if let Some(&table_name) = TABLES.iter().find(|&&known| known == name) {
            let Some(table) = read_table(context, table_name, value) else {
                return;
            };
            self.tables.insert(table_name, table);
            if let Some(wans) = value.get_ref().get("wan").filter(|_| name == "links") {
                self.wans = read_tables(context, "links.wan", wans);
            }
        } else {
            warn_unknown(context, name, key.span());
        }
    }
}

/// A plain table; warns of unknown keys.
fn read_table<'a>(
    context: &mut Context<'a>,
    name: &str,
    value: &Spanned<DeValue<'a>>,
) -> Option<Table<'a>> {
    let span = Some(value.span());
    let DeValue::Table(pairs) = value.get_ref() else {
        let at = Placed {
            value: (),
            key: name.to_owned(),
            span,
        };
        let is = value.get_ref().type_str();
        context.fault(
            &at,
            format!("is of type {is}, not a table; write [{name}] above its keys"),
        );
        return None;
    };
    let mut table = Table {
        name: name.to_owned(),
        span,
        values: BTreeMap::new(),
    };
    for (key, value) in pairs {
        let full = format!("{name}.{}", key.get_ref());
        if TABLE_LISTS.contains(&full.as_str()) {
            continue;
        }
        if keys::find(&full).is_none() {
            warn_unknown(context, &full, key.span());
            continue;
        }
        let value = value.clone();
        table.values.insert(key.get_ref().to_string(), value);
    }
    Some(table)
}

/// A list of tables.
fn read_tables<'a>(
    context: &mut Context<'a>,
    name: &str,
    value: &Spanned<DeValue<'a>>,
) -> Vec<Table<'a>> {
    let DeValue::Array(list) = value.get_ref() else {
        let at = Placed {
            value: (),
            key: name.to_owned(),
            span: Some(value.span()),
        };
        let is = value.get_ref().type_str();
        context.fault(
            &at,
            format!("is of type {is}, not a list of tables; write [[{name}]]"),
        );
        return Vec::new();
    };
    list.iter()
        .filter_map(|element| read_table(context, name, element))
        .collect()
}

fn warn_unknown(context: &mut Context<'_>, full: &str, span: Range<usize>) {
    let hint = suggestion(full)
        .map(|known| format!("; did you mean {known}?"))
        .unwrap_or_default();
    context.warn(full, Some(span), format!("unknown key, ignored{hint}"));
}

/// The known key that was most likely meant: the same name in another table, else the nearest spelling.
fn suggestion(full: &str) -> Option<&'static str> {
    let last = full.rsplit('.').next().unwrap_or(full);
    let elsewhere = keys::ALL
        .iter()
        .find(|key| key.name.rsplit('.').next() == Some(last));
    elsewhere.map(|key| key.name).or_else(|| {
        let known = keys::ALL
            .iter()
            .map(|key| key.name)
            .chain(TABLES)
            .chain(TABLE_LISTS);
        nearest(full, known)
    })
}

/// Below this likeness (1 = equal) a suggestion would only confuse.
const LIKENESS_MIN: f64 = 0.8;

/// The candidate most like `word`, if any is alike enough.
pub(super) fn nearest<'a>(
    word: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    candidates
        .map(|candidate| (strsim::jaro_winkler(word, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}
