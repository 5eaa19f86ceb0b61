//! `client` and `server`: reads the configuration, starts the log, hands over to the driver.

use std::io::Write as _;
use std::path::PathBuf;

use super::{EXIT_FAILED, Failure};
use crate::config::{self, Config, EXIT_PERMISSION, Role};
use crate::{driver, logging};

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
    driver::run(role, config, path).map_err(|error| {
        let mut message = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            message = format!("{message}: {cause}");
            source = cause.source();
        }
        if error.is_permission() {
            message.push_str("\nThis needs CAP_NET_ADMIN (run it as root, or by its systemd unit) and /dev/net/tun.");
            return Failure::new(EXIT_PERMISSION, message);
        }
        Failure::new(EXIT_FAILED, message)
    })
}
