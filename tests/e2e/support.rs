//! What the cases share: programs, topologies, failures.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use chainlightning::lab::{LabError, Launch, Programs, Topology, Wan};

/// How a case ends other than well.
#[derive(Debug)]
pub enum Failure {
    /// It cannot run here.
    Skip(String),
    /// Something is wrong.
    Failed(String),
}

/// How a case ends.
pub type Outcome = Result<(), Failure>;

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Fails the case with a message unless a condition holds.
macro_rules! check {
    ($condition:expr, $($message:tt)+) => {
        let holds: bool = $condition;
        if !holds {
            return Err($crate::support::Failure::Failed(format!(
                "{}:{}: {}", file!(), line!(), format!($($message)+)
            )));
        }
    };
}
pub(crate) use check;

static OUTER: AtomicU32 = AtomicU32::new(0);

/// Remembers the number of the process outside, for unique names.
pub fn set_outer(number: u32) {
    OUTER.store(number, Ordering::Relaxed);
}

/// A directory for this case.
pub fn directory() -> PathBuf {
    std::env::temp_dir().join(format!(
        "chainlightning-lab-{}",
        OUTER.load(Ordering::Relaxed)
    ))
}

/// The programs under test: those that cargo built for this test, or those in `CHAINLIGHTNING_BIN_DIR`.
pub fn programs() -> Programs {
    let pick = |name: &str, built: Option<&str>| {
        let directory = std::env::var_os("CHAINLIGHTNING_BIN_DIR").map(PathBuf::from);
        Launch::program(
            directory.map_or_else(|| built.unwrap_or(name).into(), |dir| dir.join(name)),
        )
    };
    Programs {
        wanem: pick("wanem", option_env!("CARGO_BIN_EXE_wanem")),
        client: pick("client", option_env!("CARGO_BIN_EXE_client")),
        server: pick("server", option_env!("CARGO_BIN_EXE_server")),
    }
}

/// Builds a lab with WANs of these specifications, all behind NAT.
pub fn topology(specs: &[&str]) -> Result<Topology, LabError> {
    Topology::build(wans(specs), &programs(), directory())
}

/// The same without NAT, for flows that the server begins.
pub fn topology_without_nat(specs: &[&str]) -> Result<Topology, LabError> {
    let wans = wans(specs).into_iter().map(|wan| Wan { nat: false, ..wan });
    Topology::build(wans.collect(), &programs(), directory())
}

fn wans(specs: &[&str]) -> Vec<Wan> {
    specs
        .iter()
        .enumerate()
        .map(|(index, spec)| Wan::new(&format!("wan{}", index + 1), spec))
        .collect()
}
