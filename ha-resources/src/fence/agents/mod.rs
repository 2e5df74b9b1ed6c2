//! Other nodes, switched off through fence agents: programs that steer power switches, management boards, hypervisors.
//!
//! Source: the fence agents' API (`FenceAgentAPI.md` of ClusterLabs/fence-agents): options as `key=value` lines on standard input, exit code 0 for
//! done; for `status` 0 is on and 2 is off. Decides how agents are run, within which time and without showing a password, and what counts as proof
//! that a node is off. Leaves when to fence to operators, and what follows from a proof to the engine.

mod device;
mod level;
mod read;
mod secrets;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

pub use device::{FenceDevice, Findings, PowerState};
pub use level::{
    DeviceReport, FenceReport, LevelReport, Order, Progress, Proof, Step, fence, look_at, still_off, switch_on,
};
pub use read::levels;

/// How long one action of an agent may take where nothing is said.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// A fence agent with what it needs to reach its device, as the operator says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceSpec {
    /// The agent: the name of a program, such as "fence_ipmilan", or its whole path.
    pub agent: String,
    /// Its parameters. None is a password.
    pub params: BTreeMap<String, String>,
    /// Its passwords: the names of parameters, and the files in which their values stand.
    pub secrets: BTreeMap<String, PathBuf>,
    /// How long one action may take.
    pub timeout: Duration,
}

impl DeviceSpec {
    /// With every default.
    pub fn new(agent: impl Into<String>) -> Self {
        Self { agent: agent.into(), params: BTreeMap::new(), secrets: BTreeMap::new(), timeout: TIMEOUT }
    }

    /// The agent, and which device or plug it is told to steer.
    pub fn label(&self) -> String {
        let agent = self.agent.rsplit('/').next().unwrap_or(&self.agent);
        let telling = ["ip", "ipaddr", "plug", "port", "devices", "serial_port"];
        let known: Vec<String> =
            telling.iter().filter_map(|name| Some(format!("{name} {}", self.params.get(*name)?))).collect();
        if known.is_empty() { agent.to_owned() } else { format!("{agent} ({})", known.join(", ")) }
    }
}
