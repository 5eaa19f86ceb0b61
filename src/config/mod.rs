//! Floor 5: files -> validated parameters.
//!
//! ```text
//!  config.toml ── file ──► tables of values with places ── resolve ──► Config
//!                  │                                          │
//!                  └── unknown keys: warnings                 └── every fault at once: ConfigErrors
//! ```
//!
//! `keys` holds one table of all keys; defaults, messages, documents and tests follow from it.
//! Nothing here talks to the network or looks at this host's devices: a configuration is right or
//! wrong by itself. The only files read are the configuration and the key files that it names.
#![forbid(unsafe_code)]

mod context;
mod error;
mod file;
mod key_table;
pub mod keyfile;
pub mod keys;
mod reload;
mod resolve;
mod spans;
mod values;
mod workers;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

pub use crate::base::{Prefix, PrefixError};
use context::Context;
pub use error::{
    ConfigErrors, EXIT_CONFIG, EXIT_PERMISSION, Fault, FaultKind, HOW_TO_MAKE_KEYS, Warning,
};
use keyfile::KeyFiles;
pub use reload::{Change, Diff, diff};
pub use spans::Place;
pub use values::{
    Backend, CipherChoice, Class, ClassPolicy, Config, Direction, Equalise, FecMode, Gso, Keys,
    LinkPlan, Links, LogLevel, Logging, Mode, MssClamp, Peer, Performance, Quota, Role, Routing,
    Security, TUNNEL6_PREFIX_LEN, Threads, Tunnel, Wan, WanRole, ZeroCopy,
};

/// Where a configuration is looked for when none is named, in this order.
pub const SEARCH_PATHS: [&str; 2] = ["config.toml", "/etc/chainlightning/config.toml"];

/// A configuration and what to tell the operator about it.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What stops nothing but should be known.
    pub warnings: Vec<Warning>,
}

impl Config {
    /// Reads the file and the key files that it names.
    ///
    /// # Errors
    /// Every fault of the file and of the key files.
    pub fn load(path: &Path, role: Role) -> Result<Loaded, ConfigErrors> {
        Self::parse(&read(path)?, path, role, &keyfile::Disk)
    }

    /// Takes a text as the contents of `path`, which messages name and relative paths start from.
    ///
    /// # Errors
    /// Every fault of the text and of the key files.
    pub fn parse(
        text: &str,
        path: &Path,
        role: Role,
        key_files: &dyn KeyFiles,
    ) -> Result<Loaded, ConfigErrors> {
        let mut context = Context {
            role,
            file: path.to_owned(),
            text,
            faults: Vec::new(),
            warnings: Vec::new(),
        };
        let file = file::File::read(&mut context);
        let config = file.and_then(|file| resolve::resolve(&mut context, &file, key_files));
        match config {
            Some(config) => Ok(Loaded {
                config,
                warnings: context.warnings,
            }),
            None => Err(ConfigErrors::new(context.faults)),
        }
    }
}

/// The configuration to use: the named one, else the first of [`SEARCH_PATHS`] that exists.
///
/// # Errors
/// None is named and none exists.
pub fn find(explicit: Option<PathBuf>) -> Result<PathBuf, ConfigErrors> {
    if let Some(path) = explicit {
        return Ok(path);
    }
    let found = SEARCH_PATHS
        .iter()
        .map(PathBuf::from)
        .find(|path| path.exists());
    found.ok_or_else(|| {
        let what = format!(
            "there is no such file, and no {} either; name one with --config",
            SEARCH_PATHS[1]
        );
        file_fault(FaultKind::File, Path::new(SEARCH_PATHS[0]), what)
    })
}

/// Largest file that is taken for a configuration; the commented example has a hundredth of it.
const FILE_BYTES_MAX: u64 = 1 << 20;

fn read(path: &Path) -> Result<String, ConfigErrors> {
    let of_io = |error: std::io::Error| {
        let kind = match error.kind() {
            ErrorKind::PermissionDenied => FaultKind::Permission,
            _ => FaultKind::File,
        };
        file_fault(kind, path, format!("cannot be read: {error}"))
    };
    let length = std::fs::metadata(path).map_err(of_io)?.len();
    if length > FILE_BYTES_MAX {
        return Err(file_fault(
            FaultKind::File,
            path,
            format!("has {length} bytes: not a configuration"),
        ));
    }
    std::fs::read_to_string(path).map_err(of_io)
}

fn file_fault(kind: FaultKind, path: &Path, what: String) -> ConfigErrors {
    let (key, value, allowed) = (String::new(), String::new(), String::new());
    ConfigErrors::new(vec![Fault {
        kind,
        file: path.to_owned(),
        place: None,
        key,
        value,
        what,
        allowed,
    }])
}
