//! The log: one line per decision, with its reason.
//!
//! Decides how loud each kind of event is. Leaves the words to the events themselves.

use ha_core::record::{Event, Happened};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tracing::Level;
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

/// Writes every event until the node has ended.
pub(crate) async fn follow(mut events: Receiver<Event>) {
    loop {
        match events.recv().await {
            Ok(event) => write(&event),
            Err(RecvError::Lagged(missed)) => tracing::warn!(missed, "events came faster than they could be logged"),
            Err(RecvError::Closed) => return,
        }
    }
}

fn write(event: &Event) {
    let hierarchy = event.hierarchy.as_ref().map(ToString::to_string);
    let hierarchy = hierarchy.as_deref();
    let what = &event.what;
    match level(what) {
        Level::ERROR => tracing::error!(hierarchy, "{what}"),
        Level::WARN => tracing::warn!(hierarchy, "{what}"),
        Level::DEBUG | Level::TRACE => tracing::debug!(hierarchy, "{what}"),
        _ => tracing::info!(hierarchy, "{what}"),
    }
}

fn level(what: &Happened) -> Level {
    match what {
        Happened::ClaimLost { .. } | Happened::Quarantined { .. } | Happened::NodeReset { .. } => Level::ERROR,
        Happened::ContactLost { .. }
        | Happened::ResourceFailed { .. }
        | Happened::MonitorUnknown { .. }
        | Happened::Declined { .. }
        | Happened::Readiness { lacking: Some(_) }
        | Happened::ClaimRefused { .. }
        | Happened::TimeGap { .. }
        | Happened::Trouble { .. } => Level::WARN,
        Happened::Began { .. }
        | Happened::Contact { .. }
        | Happened::Phase { .. }
        | Happened::Candidate { .. }
        | Happened::ClaimAsked
        | Happened::ClaimWon { .. }
        | Happened::ClaimReleased { .. }
        | Happened::Started { .. }
        | Happened::Adopted { .. }
        | Happened::Stopped { .. }
        | Happened::InService { .. }
        | Happened::DeclineEnded
        | Happened::Utility { .. }
        | Happened::Readiness { lacking: None }
        | Happened::Directive { .. }
        | Happened::Switchover { .. } => Level::INFO,
    }
}
