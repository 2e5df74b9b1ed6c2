//! What the agent tells its supervisor (systemd's sd_notify(3)): that it is ready, that its loop turns, how things stand. And what it asks of
//! it: whether the whole machine goes down.
//!
//! Without a supervisor all of it does nothing.

use std::sync::Arc;
use std::time::Duration;

use ha_resources::systemd::{ServiceManager, SystemState};
use sd_notify::NotifyState;

use crate::api::Agent;

/// The status line changes no more often than this.
const STATUS_EVERY: Duration = Duration::from_secs(5);

/// Ready to serve.
pub(crate) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// About to end.
pub(crate) fn stopping(why: &str) {
    tell(&[NotifyState::Stopping, NotifyState::Status(why)]);
}

/// Whether systemd stops everything because the machine goes down, or is booted anew. Not where no systemd runs, or it does not answer.
pub(crate) async fn machine_goes_down() -> bool {
    match ServiceManager::of_machine().state().await {
        Ok(state) => state == SystemState::Stopping,
        Err(error) => {
            tracing::debug!(%error, "taken for a restart of the agent alone");
            false
        }
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the supervisor could not be told");
    }
}

/// Feeds the supervisor's watchdog as long as the engine's loop answers, and keeps the status line current. Never returns.
pub(crate) async fn accompany(agent: Arc<dyn Agent>) {
    let watchdog = sd_notify::watchdog_enabled();
    // Twice per period, as sd_watchdog_enabled(3) advises.
    let every = watchdog.map_or(STATUS_EVERY, |period| (period / 2).min(STATUS_EVERY));
    let mut ticks = tokio::time::interval(every);
    let mut shown = String::new();
    loop {
        ticks.tick().await;
        // An answer that does not come keeps the supervisor unfed, which is the point.
        let Ok(view) = agent.snapshot().await else { continue };
        if watchdog.is_some() {
            tell(&[NotifyState::Watchdog]);
        }
        let here = view.hierarchies.iter().filter(|h| h.phase.holds_claim()).count();
        let heard = view.peers.iter().filter(|p| p.state == "alive").count();
        let status = format!(
            "{} on {}: hierarchies here {here} of {}, other nodes heard {heard} of {}",
            view.cluster,
            view.node,
            view.hierarchies.len(),
            view.peers.len()
        );
        if status != shown {
            tell(&[NotifyState::Status(&status)]);
            shown = status;
        }
    }
}
