//! The log: one line per decision, with its reason.
//!
//! Decides where lines go and how they look. Leaves the lines themselves to the driver of the node, which writes one for every event.

use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, LogSettings};
use crate::exit::{Exit, Failure};

/// Sets the log up. `HA_LOG` in the environment wins over the settings.
pub(crate) fn set_up(settings: &LogSettings) -> Result<(), Failure> {
    let filter = match std::env::var("HA_LOG") {
        Ok(filter) => EnvFilter::try_new(&filter).map_err(|e| {
            Failure::new(Exit::BadInput, format!("HA_LOG is {filter:?}: {e}"))
                .help("expected a level (error, warn, info, debug, trace), or filters as of the tracing library")
        })?,
        Err(_) => EnvFilter::new(&settings.level),
    };
    // The journal has its own clock.
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_target(false).with_writer(std::io::stderr);
    let set = match (settings.format, journal) {
        (LogFormat::Json, _) => builder.json().flatten_event(true).try_init(),
        (LogFormat::Text, true) => builder.with_ansi(false).without_time().try_init(),
        (LogFormat::Text, false) => builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
    };
    set.map_err(|e| Failure::new(Exit::System, format!("the log could not be set up: {e}")))
}
