//! The warden: a small process beside the agent that ends what a hierarchy runs when its tenure ends unproven.
//!
//! The agent tells it what runs under which lease and until when (boot-time clock). Whatever is not prolonged in time is killed,
//! whether the agent is dead, hung or stopped. It outlives the agent, and serves its next life.
//!
//! Decides whose deadline has come. It can end processes, take addresses off their interfaces and reset the machine, nothing else.
//! A mount stays: it cannot be undone while the kernel still has something to write, which is when it matters. Where a lease
//! guards mounts, let the warden reset the machine, or use a watchdog device.

mod client;
mod process;
mod removal;

#[cfg(test)]
mod tests;

use std::time::Duration;

use ha_core::driver::{Guarded, KillHandle};
use ha_core::name::HierarchyName;
use ha_core::time::Time;
use serde::{Deserialize, Serialize};

use super::Reset;

pub use client::WardenClient;
pub use process::warden_main;

/// What a warden does, as given on its command line by the one who starts it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long after a tenure's end it may take until nothing runs. Default 500 ms.
    pub margin: Duration,
    /// What is done at a tenure's end.
    pub on_expiry: OnExpiry,
    /// With nothing to guard and no agent it ends after this. Default 60 s.
    pub idle_for: Duration,
}

impl Settings {
    /// With the default times.
    pub fn new(on_expiry: OnExpiry) -> Self {
        Self { margin: Duration::from_millis(500), on_expiry, idle_for: Duration::from_secs(60) }
    }
}

/// What is done at a tenure's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnExpiry {
    /// SIGKILL to what runs, and addresses taken away; and a reset, by these means, if something of it is left one margin later (stuck
    /// in the kernel).
    KillGroups {
        /// `Reset::Refused` to go on trying instead, and say so.
        otherwise: Reset,
    },
    /// The machine is reset at once.
    ResetMachine(Reset),
}

/// One line from the agent: all that it has running.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Guards {
    /// Comes back in the answer.
    number: u64,
    leases: Vec<Lease>,
    /// In place of `leases`: all that this agent told last may run until then. Renewing a thousand costs what one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    prolonged: Option<Time>,
}

/// [`Guarded`] as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Lease {
    hierarchy: HierarchyName,
    until: Time,
    handles: Vec<KillHandle>,
}

/// One line to the agent: this was received and counts from now on.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Received {
    number: u64,
}

impl From<&Guarded> for Lease {
    fn from(guarded: &Guarded) -> Lease {
        Lease { hierarchy: guarded.hierarchy.clone(), until: guarded.until, handles: guarded.handles.clone() }
    }
}
