//! `client` and `server`: reads the configuration, starts the log, hands over to the driver.

use std::io::Write as _;
use std::path::PathBuf;

use super::{EXIT_FAILED, Failure};
use crate::config::{self, Config, Role};
use crate::logging;

/// Arguments of both daemons.
#[derive(Clone, Debug, clap::Args)]
pub struct DaemonArgs {
    /// Configuration file [default: ./config.toml, else /etc/chainlightning/config.toml]
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Runs a daemon until it is told to stop.
///
/// # Errors
/// It could not start, or something that it cannot do without failed.
pub fn daemon(role: Role, args: DaemonArgs) -> Result<String, Failure> {
    let path = config::find(args.config)?;
    let loaded = Config::load(&path, role)?;
    for warning in &loaded.warnings {
        let _ = writeln!(std::io::stderr(), "warning: {warning}");
    }
    logging::init(loaded.config.logging.level.filter());
    run(role, loaded.config, path)?;
    Ok(String::new())
}

/// The one call into the driver.
fn run(role: Role, config: Config, path: PathBuf) -> Result<(), Failure> {
    // DRIVER: replace this body by
    //   driver::run(role, config, path).map_err(|error| Failure::new(exit_code_of(&error), error.to_string()))
    // with 77 for a missing privilege (TUN, netlink), 78 for a configuration fault, 1 for all else.
    let (_, _) = (config, path);
    Err(Failure::new(
        EXIT_FAILED,
        format!("this build has no driver to run a {role} with"),
    ))
}
