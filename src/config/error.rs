//! What the operator did wrong: every fault of a file at once, each with its place, and what is allowed.

use std::fmt;
use std::path::PathBuf;

use super::spans::Place;

/// Exit code for a configuration that cannot be used (`EX_CONFIG` of sysexits.h).
pub const EXIT_CONFIG: u8 = 78;
/// Exit code for a file that we may not read (`EX_NOPERM` of sysexits.h).
pub const EXIT_PERMISSION: u8 = 77;

/// Every fault found in one configuration, in the order of the file. Never empty.
#[derive(Clone, Debug)]
pub struct ConfigErrors {
    faults: Vec<Fault>,
}

impl ConfigErrors {
    /// Sorts the faults by place; those without a place (a key that is not set) come last.
    pub(super) fn new(mut faults: Vec<Fault>) -> Self {
        debug_assert!(!faults.is_empty(), "an error needs a fault");
        faults.sort_by_key(|fault| (fault.place.is_none(), fault.place));
        Self { faults }
    }

    /// The faults, in the order of the file.
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// Whether a key is missing that the operator has to make first (first use).
    pub fn keys_missing(&self) -> bool {
        self.faults
            .iter()
            .any(|fault| fault.kind == FaultKind::KeyMissing)
    }

    /// Exit code for a program that stops because of this: 77 when only permissions are in the way, else 78.
    pub fn exit_code(&self) -> u8 {
        let only_permissions = self
            .faults
            .iter()
            .all(|fault| fault.kind == FaultKind::Permission);
        if only_permissions {
            EXIT_PERMISSION
        } else {
            EXIT_CONFIG
        }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{fault}")?;
        }
        if self.keys_missing() {
            write!(f, "\n\n{HOW_TO_MAKE_KEYS}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// The commands of first use. The tunnel never runs without keys.
pub const HOW_TO_MAKE_KEYS: &str = "\
The tunnel does not run without keys. On each side, once:
  umask 077; mkdir -p /etc/chainlightning
  chainlightning genkey > /etc/chainlightning/private.key
  chainlightning pubkey < /etc/chainlightning/private.key
The last command prints this side's public key. Put it into the other side's config.toml:
  on the client: [security] peer_public_key = \"<the server's public key>\"
  on the server: [security] peer_public_key = \"<the client's public key>\"  (or one [[peers]] table per client)";

/// One thing that is wrong. Prints as `file:line:column: key = value: what is wrong; allowed: ...`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What sort of fault; decides the exit code and the advice.
    pub kind: FaultKind,
    /// The file it is in.
    pub file: PathBuf,
    /// Where in the file; `None` when the key is not set at all.
    pub place: Option<Place>,
    /// Full name of the key, `section.name`; empty when the text is not TOML.
    pub key: String,
    /// The value as it stands in the file; empty when the key is not set.
    pub value: String,
    /// What is wrong and, where it helps, what to do.
    pub what: String,
    /// What is allowed; empty when `what` says it all.
    pub allowed: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_head(f, &self.file, self.place, &self.key, &self.value)?;
        f.write_str(&self.what)?;
        if !self.allowed.is_empty() {
            write!(f, "; allowed: {}", self.allowed)?;
        }
        Ok(())
    }
}

/// Sorts of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// There is no file, or it cannot be read.
    File,
    /// A file exists, but we may not read it.
    Permission,
    /// The text is not TOML.
    Syntax,
    /// A value of the wrong type, out of range, or against another value.
    Value,
    /// A key without a default is not set.
    Missing,
    /// A cryptographic key is not there yet.
    KeyMissing,
    /// A key file exists but cannot be used: others may read it, or it holds no key.
    KeyFile,
}

/// Something that does not stop the program but that the operator should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The file it is in.
    pub file: PathBuf,
    /// Where in the file, if it has a place.
    pub place: Option<Place>,
    /// Full name of the key.
    pub key: String,
    /// What to know.
    pub what: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_head(f, &self.file, self.place, &self.key, "")?;
        f.write_str(&self.what)
    }
}

/// Writes `file:line:column: key = value: ` with the parts that are there.
fn write_head(
    f: &mut fmt::Formatter<'_>,
    file: &std::path::Path,
    place: Option<Place>,
    key: &str,
    value: &str,
) -> fmt::Result {
    write!(f, "{}:", file.display())?;
    if let Some(place) = place {
        write!(f, "{place}:")?;
    }
    f.write_str(" ")?;
    match (key.is_empty(), value.is_empty()) {
        (true, _) => Ok(()),
        (false, true) => write!(f, "{key}: "),
        (false, false) => write!(f, "{key} = {value}: "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(kind: FaultKind, line: Option<usize>) -> Fault {
        Fault {
            kind,
            file: PathBuf::from("c.toml"),
            place: line.map(|line| Place { line, column: 3 }),
            key: "links.ports".into(),
            value: "0".into(),
            what: "too small".into(),
            allowed: "1 to 64".into(),
        }
    }

    #[test]
    fn faults_print_in_file_order_with_those_without_a_place_last() {
        let errors = ConfigErrors::new(vec![
            fault(FaultKind::Missing, None),
            fault(FaultKind::Value, Some(9)),
            fault(FaultKind::Value, Some(2)),
        ]);
        let text = errors.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "c.toml:2:3: links.ports = 0: too small; allowed: 1 to 64"
        );
        assert!(lines[1].starts_with("c.toml:9:3:"));
        assert!(lines[2].starts_with("c.toml: links.ports"));
    }

    #[test]
    fn only_a_pure_permission_problem_exits_with_77() {
        let permission = fault(FaultKind::Permission, None);
        let value = fault(FaultKind::Value, None);
        assert_eq!(
            ConfigErrors::new(vec![permission.clone()]).exit_code(),
            EXIT_PERMISSION
        );
        assert_eq!(
            ConfigErrors::new(vec![permission, value]).exit_code(),
            EXIT_CONFIG
        );
    }

    #[test]
    fn missing_keys_bring_the_commands_that_make_them() {
        let errors = ConfigErrors::new(vec![fault(FaultKind::KeyMissing, None)]);
        assert!(errors.keys_missing());
        assert!(errors.to_string().contains("chainlightning genkey > /etc/"));
    }
}
