//! Floor 5: sets up the log once; its level can be changed while the program runs.
//!
//! Lines go to standard output, where a journal or a terminal takes them. Under systemd the journal adds
//! the time itself, so ours is left out.
#![forbid(unsafe_code)]

use std::io::IsTerminal;
use std::sync::OnceLock;

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, Registry, fmt, reload};

/// The knob of the running log; empty until [`init`].
static LEVEL: OnceLock<reload::Handle<LevelFilter, Registry>> = OnceLock::new();

/// Starts the log. Later calls only change the level.
pub fn init(level: LevelFilter) {
    if LEVEL.get().is_some() {
        return set_level(level);
    }
    let (filter, handle) = reload::Layer::new(level);
    let lines = fmt::layer()
        .with_target(false)
        .with_ansi(std::io::stdout().is_terminal());
    let lines = if std::env::var_os("JOURNAL_STREAM").is_some() {
        lines.without_time().boxed()
    } else {
        lines.boxed()
    };
    // Another subscriber, such as a test's, may be there already: then it keeps its own level.
    if tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init()
        .is_ok()
    {
        let _ = LEVEL.set(handle);
    }
}

/// Changes the level of a running log.
pub fn set_level(level: LevelFilter) {
    if let Some(handle) = LEVEL.get() {
        // It fails only when the log is gone, and then there is nothing left to set.
        let _ = handle.modify(|filter| *filter = level);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_can_be_changed_while_the_log_runs() {
        init(LevelFilter::ERROR);
        assert!(!tracing::enabled!(tracing::Level::INFO));
        set_level(LevelFilter::DEBUG);
        assert!(tracing::enabled!(tracing::Level::DEBUG));
        init(LevelFilter::OFF);
        assert!(!tracing::enabled!(tracing::Level::ERROR));
    }
}
