//! The log: one line per decision, with its reason.
//!
//! Decides where lines go and how they look, and writes one for every event of the node.

use std::thread::{self, JoinHandle};

use ha_core::record::Event;
use tokio::sync::broadcast::{Receiver, error::RecvError};
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

/// Writes a line for every event: first those that happened before `later` was subscribed to. On a thread of its own, since whoever reads
/// the log may be slow, and nothing of the node waits for that. Ends with the node.
pub(super) fn follow(earlier: Vec<Event>, mut later: Receiver<Event>) -> std::io::Result<JoinHandle<()>> {
    thread::Builder::new().name("log".to_owned()).spawn(move || {
        earlier.iter().for_each(line);
        loop {
            match later.blocking_recv() {
                // Happened between the subscription and the look at the earlier ones.
                Ok(event) if earlier.contains(&event) => {}
                Ok(event) => line(&event),
                Err(RecvError::Lagged(count)) => {
                    tracing::warn!("{count} events came faster than the log could be written: see `ha events`");
                }
                Err(RecvError::Closed) => return,
            }
        }
    })
}

fn line(event: &Event) {
    if event.what.is_bad() {
        tracing::warn!("{event}");
    } else {
        tracing::info!("{event}");
    }
}
