//! What each WAN of a client has carried in its month, kept across restarts in one small file.
//!
//! Fed with the counters of the links once a second and at the end, by the control thread. The file is replaced as a
//! whole: once a minute, when a quota is used up or begins anew, and at the end. So a killed daemon, or a host that
//! loses power, forgets a minute at most, and never that a quota is used up. When the file cannot be read or written,
//! counting goes on in memory, and a line in the log says so.
//!
//! ```text
//! {"schema":1,"wans":{"lte":{"month":"2026-11-15","bytes":123456789}}}
//! ```
//!
//! Months end forwards only: a clock that is behind, as that of a router without a battery is after each start, ends
//! none.
//!
//! Never does: switching a WAN. It says which quotas are used up; the sessions are told like any change of a role.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::{Config, Quota};

/// Name of the file in the state folder.
const FILE: &str = "quota.json";
/// Version of its format.
const SCHEMA: u32 = 1;
/// Time between two writes: flash memory of routers wears out.
const WRITE_INTERVAL: Duration = Duration::from_secs(60);
/// Longest file that is read; 32 WANs need a twentieth of it.
const FILE_BYTES_MAX: u64 = 1 << 16;

/// The file.
#[derive(Debug, Default, Serialize, Deserialize)]
struct File {
    schema: u32,
    wans: BTreeMap<String, Count>,
}

/// What a WAN carried in a month.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Count {
    /// The day on which the month began, as `2026-11-15`: later days compare as greater.
    month: String,
    bytes: u64,
}

/// What status tells about a quota.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes carried in this month.
    pub used: u64,
    /// Bytes that may be.
    pub quota: u64,
}

/// The accounts of all WANs with a quota.
#[derive(Debug)]
pub struct Quotas {
    path: PathBuf,
    quotas: BTreeMap<String, Quota>,
    counts: BTreeMap<String, Count>,
    /// The links' counters at the last look, by the numbers of their session and of the link.
    before: BTreeMap<(u8, u8), u64>,
    spent: Vec<String>,
    /// The file was looked at, which is done when there is a first quota.
    read: bool,
    written_at: Duration,
    /// A fault of the file was told.
    told: bool,
}

impl Quotas {
    /// The accounts as the state folder has them; `now` is the time since 1970.
    pub fn open(config: &Config, now: Duration) -> Self {
        let mut quotas = Self {
            path: config.state_folder.join(FILE),
            quotas: BTreeMap::new(),
            counts: BTreeMap::new(),
            before: BTreeMap::new(),
            spent: Vec::new(),
            read: false,
            written_at: now,
            told: false,
        };
        quotas.reconfigure(config, now);
        quotas
    }

    /// Takes the quotas of a reloaded configuration; what was counted stays.
    pub fn reconfigure(&mut self, config: &Config, now: Duration) {
        let wans = config.links.wans.iter();
        self.quotas = wans
            .filter_map(|wan| Some((wan.name.clone(), wan.quota?)))
            .collect();
        self.take_file();
        self.settle(now);
    }

    /// Whether there is nothing to count.
    pub fn is_empty(&self) -> bool {
        self.quotas.is_empty()
    }

    fn take_file(&mut self) {
        if self.is_empty() || std::mem::replace(&mut self.read, true) {
            return;
        }
        match read(&self.path) {
            Ok(counts) => self.counts = counts,
            Err(error) => self.tell("cannot be read", &error),
        }
    }

    /// Takes the links' counters: numbers of the session and of the link, name of the WAN, bytes since their session
    /// began. Whether another set of quotas is used up than before.
    pub fn sample<'a>(
        &mut self,
        links: impl Iterator<Item = ((u8, u8), &'a str, u64)>,
        now: Duration,
    ) -> bool {
        for (link, wan, bytes) in links {
            let before = self.before.insert(link, bytes).unwrap_or(0);
            // A counter that went back belongs to a new session.
            let fresh = bytes.checked_sub(before).unwrap_or(bytes);
            if self.quotas.contains_key(wan) {
                self.counts.entry(wan.to_owned()).or_default().bytes += fresh;
            }
        }
        let changed = self.settle(now);
        if changed || now.abs_diff(self.written_at) >= WRITE_INTERVAL {
            self.write(now);
        }
        changed
    }

    /// Begins new months, and finds out which quotas are used up. Whether that changed.
    fn settle(&mut self, now: Duration) -> bool {
        let mut spent = Vec::new();
        for (name, quota) in &self.quotas {
            let month = month_began(now, quota.reset_day);
            let count = self.counts.entry(name.clone()).or_default();
            if count.month.is_empty() {
                count.month = month;
            } else if count.month < month {
                *count = Count { month, bytes: 0 };
            }
            if count.bytes >= quota.bytes {
                spent.push(name.clone());
            }
        }
        let changed = spent != self.spent;
        self.spent = spent;
        changed
    }

    /// Whether the quota of a WAN is used up.
    pub fn is_spent(&self, wan: &str) -> bool {
        self.spent.iter().any(|name| name == wan)
    }

    /// All quotas with what is used of them.
    pub fn usage(&self) -> BTreeMap<String, Usage> {
        let of = |(name, quota): (&String, &Quota)| {
            let used = self.counts.get(name).map_or(0, |count| count.bytes);
            let quota = quota.bytes;
            (name.clone(), Usage { used, quota })
        };
        self.quotas.iter().map(of).collect()
    }

    /// Writes the file, if there is anything to count.
    pub fn write(&mut self, now: Duration) {
        self.written_at = now;
        if self.is_empty() {
            return;
        }
        let file = File {
            schema: SCHEMA,
            wans: self.counts.clone(),
        };
        match replace(&self.path, &file) {
            Ok(()) => self.told = false,
            Err(error) => self.tell("cannot be written", &error),
        }
    }

    fn tell(&mut self, what: &str, error: &std::io::Error) {
        if !std::mem::replace(&mut self.told, true) {
            let path = self.path.display();
            tracing::warn!(%path, %error, "counts of quotas {what}; they are kept in memory only");
        }
    }
}

/// The counts of a file; none when there is no file yet.
fn read(path: &Path) -> std::io::Result<BTreeMap<String, Count>> {
    let length = match std::fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(error),
    };
    if length > FILE_BYTES_MAX {
        return Err(ErrorKind::FileTooLarge.into());
    }
    let file: File = serde_json::from_str(&std::fs::read_to_string(path)?)?;
    if file.schema != SCHEMA {
        return Err(ErrorKind::InvalidData.into());
    }
    Ok(file.wans)
}

/// Puts a whole new file in the place of the old one; whenever the power fails, there is one of them.
fn replace(path: &Path, file: &File) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let beside = path.with_extension("new");
    let mut new = std::fs::File::create(&beside)?;
    new.write_all(serde_json::to_string(file)?.as_bytes())?;
    new.sync_data()?;
    std::fs::rename(&beside, path)
}

/// The day on which the month of a moment began when months begin on `reset_day`, as `2026-11-15`; UTC.
fn month_began(now: Duration, reset_day: u8) -> String {
    let (year, month, day) = civil(now.as_secs() / 86_400);
    let (year, month) = match (day >= u64::from(reset_day), month) {
        (true, _) => (year, month),
        (false, 1) => (year - 1, 12),
        (false, _) => (year, month - 1),
    };
    format!("{year:04}-{month:02}-{reset_day:02}")
}

/// Year, month and day of a day since 1970, in the Gregorian calendar. Years begin in March, so that the day that
/// leap years add is their last one; 400 of them have 146 097 days.
const fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // from 0000-03-01
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = era * 400 + year_of_era + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;

    fn quotas(path: PathBuf, bytes: u64) -> Quotas {
        let reset_day = 15;
        Quotas {
            path,
            quotas: BTreeMap::from([("lte".to_owned(), Quota { bytes, reset_day })]),
            counts: BTreeMap::new(),
            before: BTreeMap::new(),
            spent: Vec::new(),
            read: true,
            written_at: Duration::ZERO,
            told: false,
        }
    }

    fn nowhere() -> PathBuf {
        PathBuf::from("/proc/nowhere/quota.json")
    }

    #[test]
    fn days_have_their_dates() {
        for (days, date) in [
            (0, (1970, 1, 1)),
            (59, (1970, 3, 1)),
            (11_016, (2000, 2, 29)),
            (20_780, (2026, 11, 23)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(civil(days), date);
        }
        // Every day follows the one before it.
        let mut last = civil(0);
        for day in 1..60_000 {
            let next = civil(day);
            let same_month = (next.0, next.1) == (last.0, last.1) && next.2 == last.2 + 1;
            assert!(
                same_month || next.2 == 1 && last.2 >= 28,
                "{last:?} {next:?}"
            );
            last = next;
        }
    }

    #[test]
    fn a_month_begins_on_its_day() {
        let on = |days: u64, reset| month_began(Duration::from_secs(days * DAY), reset);
        assert_eq!(on(20_780, 23), "2026-11-23");
        assert_eq!(on(20_780, 24), "2026-10-24");
        assert_eq!(on(0, 2), "1969-12-02");
    }

    #[test]
    fn a_clock_that_is_behind_forgets_nothing() {
        let mut quotas = quotas(nowhere(), 1_000);
        let day = |days| Duration::from_secs(days * DAY);
        assert!(quotas.sample([((0, 0), "lte", 1_000)].into_iter(), day(20_780)));
        // The host starts again in 1970, and is told the time later, in the same month.
        for now in [day(0), day(20_700), day(20_781)] {
            assert!(!quotas.sample([((0, 0), "lte", 1_000)].into_iter(), now));
            assert!(quotas.is_spent("lte"), "{now:?}");
        }
        assert!(quotas.sample([((0, 0), "lte", 1_000)].into_iter(), day(20_802)));
    }

    #[test]
    fn another_day_of_the_month_ends_the_running_one_when_it_comes() {
        let mut quotas = quotas(nowhere(), 1_000);
        let day = |days| Duration::from_secs(days * DAY);
        // 2026-11-23, in the month from 15 on.
        assert!(quotas.sample([((0, 0), "lte", 1_000)].into_iter(), day(20_780)));
        quotas.quotas.get_mut("lte").unwrap().reset_day = 25;
        assert!(!quotas.sample([((0, 0), "lte", 1_000)].into_iter(), day(20_781)));
        assert!(quotas.sample([((0, 0), "lte", 1_000)].into_iter(), day(20_782)));
    }

    #[test]
    fn bytes_add_up_over_sessions_and_begin_anew_with_the_month() {
        let mut quotas = quotas(nowhere(), 1_000);
        let day = |days| Duration::from_secs(days * DAY);
        let now = day(20_780);
        assert!(!quotas.sample(
            [((0, 0), "lte", 400), ((0, 1), "dsl", 9_000)].into_iter(),
            now
        ));
        assert!(!quotas.sample([((0, 0), "lte", 700)].into_iter(), now));
        assert!(!quotas.is_spent("lte"));
        // Another worker's session, then a new one in the place of the first: counters that begin at zero.
        assert!(!quotas.sample([((1, 0), "lte", 100)].into_iter(), now));
        assert!(quotas.sample([((0, 0), "lte", 200)].into_iter(), now));
        assert!(quotas.is_spent("lte") && !quotas.is_spent("dsl"));
        let usage = Usage {
            used: 1_000,
            quota: 1_000,
        };
        assert_eq!(quotas.usage()["lte"], usage);
        assert!(!quotas.sample([((0, 0), "lte", 310)].into_iter(), now));
        // 2026-12-15.
        assert!(quotas.sample([((0, 0), "lte", 310)].into_iter(), day(20_802)));
        assert!(!quotas.is_spent("lte"));
    }

    #[test]
    fn the_file_survives_and_a_broken_one_stops_nothing() {
        let folder =
            std::env::temp_dir().join(format!("chainlightning-quota-{}", std::process::id()));
        let path = folder.join("deep").join(FILE);
        let now = Duration::from_secs(20_780 * DAY);
        assert_eq!(read(&path).unwrap(), BTreeMap::new());
        let mut first = quotas(path.clone(), 1_000);
        first.sample([((0, 0), "lte", 600)].into_iter(), now);
        first.write(now);
        let counts = read(&path).unwrap();
        assert_eq!(counts, first.counts);
        // The first quota may come with a reload.
        let mut second = Quotas {
            read: false,
            written_at: now,
            ..quotas(path.clone(), 1_000)
        };
        let quota = std::mem::take(&mut second.quotas);
        second.take_file();
        assert!(second.counts.is_empty());
        second.quotas = quota;
        second.take_file();
        assert_eq!(second.counts, counts);
        assert!(second.sample([((0, 0), "lte", 500)].into_iter(), now));
        // That a quota is used up is there at once, for a daemon that is killed in the next moment.
        assert!(read(&path).unwrap()["lte"].bytes >= 1_000);
        for bad in ["", "{}", "{\"schema\":9,\"wans\":{}}"] {
            std::fs::write(&path, bad).unwrap();
            assert!(read(&path).is_err(), "{bad}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
        let mut unwritable = quotas(nowhere(), 1_000);
        unwritable.write(now);
        assert!(unwritable.told);
    }
}
