//! What a reload would change, key by key, and whether it can.

use std::fmt;

use super::keys::{self, Reload};
use super::values::Config;

/// One key whose effective value changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Full name of the key.
    pub key: &'static str,
    /// Effective value before.
    pub old: String,
    /// Effective value after.
    pub new: String,
    /// Whether it applies at once.
    pub reload: Reload,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} -> {}", self.key, self.old, self.new)
    }
}

/// All changes between two configurations, in the order of the key table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// What changed.
    pub changes: Vec<Change>,
}

impl Diff {
    /// Whether nothing changed.
    pub const fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Changes that apply at once.
    pub fn live(&self) -> impl Iterator<Item = &Change> {
        self.changes
            .iter()
            .filter(|change| change.reload == Reload::Live)
    }

    /// Changes that only a restart applies. If there are any, a reload is refused as a whole.
    pub fn restart(&self) -> impl Iterator<Item = &Change> {
        self.changes
            .iter()
            .filter(|change| change.reload == Reload::Restart)
    }
}

/// Compares two resolved configurations of the same role.
pub fn diff(old: &Config, new: &Config) -> Diff {
    let mut changes = Vec::new();
    for key in keys::ALL.iter().filter(|key| key.side.includes(old.role)) {
        let (before, after) = ((key.show)(old), (key.show)(new));
        if before != after {
            changes.push(Change {
                key: key.name,
                old: before,
                new: after,
                reload: key.reload,
            });
        }
    }
    // A key file can change behind an unchanged path.
    let mut contents = |key: &'static str, changed: bool| {
        if changed && changes.iter().all(|change| change.key != key) {
            let (old, new) = ("old contents".into(), "new contents".into());
            changes.push(Change {
                key,
                old,
                new,
                reload: Reload::Restart,
            });
        }
    };
    contents(
        "security.private_key_file",
        old.keys.private.public() != new.keys.private.public(),
    );
    contents(
        "security.preshared_key_file",
        old.keys.preshared_digests != new.keys.preshared_digests,
    );
    Diff { changes }
}
