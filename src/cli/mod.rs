//! Floor 7: what the programs in `src/bin` do once their arguments are read. They print and exit; this
//! returns texts and exit codes, so that it can be tested.
//!
//! Exit codes: 0 good, 1 failed, 2 usage (clap's), 69 daemon not reachable, 77 permission, 78 configuration.
//! What was asked for goes to standard output, everything else to standard error.
#![forbid(unsafe_code)]

pub mod bench;
pub mod check;
pub mod daemon;
pub mod keytool;
pub mod status;
mod table;

/// Exit code: it was done.
pub const EXIT_GOOD: u8 = 0;
/// Exit code: it was tried and failed.
pub const EXIT_FAILED: u8 = 1;
/// Exit code: the arguments contradict each other; the same that clap uses.
pub const EXIT_USAGE: u8 = 2;
/// Exit code: no daemon answers (`EX_UNAVAILABLE` of sysexits.h).
pub const EXIT_UNAVAILABLE: u8 = 69;

/// Why a command ended without its result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Exit code of the program.
    pub exit_code: u8,
    /// What to print on standard error: what, where, why, and what to do next.
    pub message: String,
}

impl Failure {
    /// A failure of this code.
    pub fn new(exit_code: u8, message: impl Into<String>) -> Self {
        Self {
            exit_code,
            message: message.into(),
        }
    }
}

impl From<crate::config::ConfigErrors> for Failure {
    fn from(errors: crate::config::ConfigErrors) -> Self {
        Self::new(errors.exit_code(), errors.to_string())
    }
}

/// Prints a command's result or failure; gives the program's exit code.
pub fn finish(result: Result<String, Failure>) -> std::process::ExitCode {
    use std::io::Write as _;
    match result {
        // A reader that closes early, such as `head`, is no failure of ours.
        Ok(text) => {
            let _ = std::io::stdout().write_all(text.as_bytes());
            EXIT_GOOD.into()
        }
        Err(failure) => {
            let _ = writeln!(std::io::stderr(), "{}", failure.message);
            failure.exit_code.into()
        }
    }
}
