//! The agent behind the API: the node, and the files it is made from.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use ha_core::driver::{Measured, Member, Node, Reload, ReloadReport};
use ha_core::engine::{Command, Refused, Reply, Snapshot};
use ha_core::hierarchy::{Change, Loaded};
use ha_core::name::{HierarchyName, NodeName};
use ha_core::record::{Event, Ongoing, Timeline};
use ha_resources::kinds::{Builtin, ClaimDefinition};
use tokio::sync::broadcast;
use tokio::sync::mpsc::UnboundedReceiver;

use super::fencing::Fencing;
use super::parts::{self, Ground};
use crate::api::{Agent, ErrorBody, FenceLine, FenceRequest, ReloadMode, ReloadView, Stopped};
use crate::config::{self, Config, WatchdogSettings};
use crate::reservation::armed;
use crate::view::{Problem, Severity};

/// A running agent.
pub(super) struct Running {
    pub(super) node: Node,
    pub(super) me: NodeName,
    pub(super) dir: PathBuf,
    pub(super) ground: Arc<Ground>,
    /// As it took effect; what else stands in the file now waits for a restart.
    pub(super) config: Config,
    /// How other nodes can be switched off.
    pub(super) fencing: Arc<Fencing>,
    /// How each hierarchy is claimed, for the warnings.
    pub(super) claims: Mutex<Claims>,
}

#[async_trait]
impl Agent for Running {
    async fn command(&self, to: Option<NodeName>, command: Command) -> Result<Reply, Refused> {
        self.node.command(to, command).await
    }

    async fn snapshot(&self) -> Result<Snapshot, Stopped> {
        self.node.snapshot().await.map_err(|_| Stopped)
    }

    fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.node.subscribe()
    }

    async fn timelines(&self) -> Result<Vec<Timeline>, Stopped> {
        self.node.timelines().await.map_err(|_| Stopped)
    }

    async fn ongoing(&self) -> Result<Vec<Ongoing>, Stopped> {
        self.node.ongoing().await.map_err(|_| Stopped)
    }

    async fn recent_events(&self) -> Result<Vec<Event>, Stopped> {
        self.node.recent_events().await.map_err(|_| Stopped)
    }

    async fn measured(&self) -> Result<Vec<Measured>, Stopped> {
        self.node.measured().await.map_err(|_| Stopped)
    }

    async fn reload(&self, mode: ReloadMode) -> Result<ReloadView, String> {
        let dir = self.dir.clone();
        let read = tokio::task::spawn_blocking(move || config::read_whole(&dir)).await.map_err(|e| e.to_string())?;
        let (config, hierarchies, _) = read.map_err(|failure| failure.what)?;
        let claims = claims(&hierarchies, &self.me);
        let members: Vec<Member> =
            hierarchies.into_iter().map(|loaded| self.ground.member(loaded)).collect::<Result<_, _>>()?;
        let keys = self.config.keys.as_deref().map(parts::keys).transpose().map_err(|failure| failure.what)?;
        let gone = |_| "the agent is stopping".to_owned();
        let report = match mode {
            ReloadMode::Plan => self.node.reload(members, Reload::Plan).await.map_err(gone)?,
            ReloadMode::Apply => {
                if let Some(keys) = keys {
                    self.node.set_keys(keys).await.map_err(gone)?;
                }
                *self.claims.lock().unwrap_or_else(PoisonError::into_inner) = claims;
                self.node.reload(members, Reload::Apply).await.map_err(gone)?
            }
        };
        Ok(ReloadView {
            applied: mode == ReloadMode::Apply,
            changes: changes(&report),
            needs_restart: needs_restart(&self.config, &config),
        })
    }

    fn fence(&self, request: FenceRequest, by: String) -> Result<UnboundedReceiver<FenceLine>, ErrorBody> {
        self.fencing.begin(request, by, &self.node)
    }

    fn warnings(&self) -> Vec<Problem> {
        let claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        let guarded = self.config.watchdog != WatchdogSettings::None;
        let warning = |(name, claim): &(HierarchyName, ClaimDefinition)| match claim {
            ClaimDefinition::LockArea(_) => (!guarded).then(|| unprotected(name)),
            ClaimDefinition::Reservation(spec) => {
                let unproven =
                    armed::read(&self.config.state_dir, name, spec, self.ground.disks_of(name).as_deref()).err()?;
                Some(unarmed(name, &unproven))
            }
        };
        claims.iter().filter_map(warning).collect()
    }
}

/// How each hierarchy is claimed that this node may have to serve.
pub(super) type Claims = Vec<(HierarchyName, ClaimDefinition)>;

pub(super) fn claims(hierarchies: &[Loaded<Builtin>], me: &NodeName) -> Claims {
    let here = hierarchies.iter().filter(|loaded| loaded.hierarchy.nodes.contains(me));
    here.map(|loaded| (loaded.hierarchy.name.clone(), loaded.claim.clone())).collect()
}

/// A reservation that nobody has seen to work here.
pub(crate) fn unarmed(hierarchy: &HierarchyName, why: &str) -> Problem {
    Problem {
        severity: Severity::Warning,
        about: hierarchy.to_string(),
        what: format!("UNPROTECTED on this node: {why}"),
        help: Some(format!("`ha arm {hierarchy}`, while it is out of service")),
    }
}

fn unprotected(hierarchy: &HierarchyName) -> Problem {
    Problem {
        severity: Severity::Warning,
        about: hierarchy.to_string(),
        what: "UNPROTECTED: it is claimed by a lease, and there is no watchdog: a node whose agent hangs could go on writing \
               while another one has taken over"
            .to_owned(),
        help: Some("set `watchdog: Device(\"/dev/watchdog\")` or `watchdog: Warden` in agent.ron".to_owned()),
    }
}

/// One line for each hierarchy that changes.
fn changes(report: &ReloadReport) -> Vec<String> {
    let lines = report.plan.changes().filter_map(|(name, change)| {
        let running = report.running_here.contains(name);
        let interruption = if running { " (an interruption: it is in service here)" } else { "" };
        Some(match change {
            Change::Unchanged => return None,
            Change::Added => format!("{name}: new"),
            Change::Removed => format!("{name}: removed, stopped here if it runs{interruption}"),
            Change::Changed { rebuild: Some(why), .. } => {
                format!("{name}: taken out of service and brought back: {why}{interruption}")
            }
            Change::Changed { live, restart, rebuild: None } if restart.is_empty() => {
                format!("{name}: changed while it runs, nothing is interrupted: {}", live.join(", "))
            }
            Change::Changed { restart, .. } => {
                let restart: Vec<String> =
                    restart.iter().map(|(resource, why)| format!("{resource} ({why})")).collect();
                format!("{name}: restarted in place, with what requires them: {}{interruption}", restart.join(", "))
            }
        })
    });
    lines.collect()
}

/// What of `agent.ron` takes effect only at the next start.
fn needs_restart(now: &Config, file: &Config) -> Vec<String> {
    let parts = [
        ("cluster", now.cluster != file.cluster),
        ("nodes", now.nodes != file.nodes),
        (
            "fencing",
            now.fencing != file.fencing
                || now.fencing_by != file.fencing_by
                || now.fencing_check_every != file.fencing_check_every,
        ),
        ("heartbeat", now.timing != file.timing),
        ("keys (the path)", now.keys != file.keys),
        ("lock_areas", now.lock_areas != file.lock_areas),
        ("watchdog", now.watchdog != file.watchdog),
        ("on_kernel_fault", now.on_kernel_fault != file.on_kernel_fault),
        ("run_dir", now.run_dir != file.run_dir),
        ("state_dir", now.state_dir != file.state_dir),
        ("log_dir", now.log_dir != file.log_dir),
        ("socket", now.socket != file.socket),
        ("log", now.log != file.log),
        ("max_recoveries", now.max_recoveries != file.max_recoveries),
        ("flight_recorder", now.flight_recorder != file.flight_recorder),
    ];
    parts.iter().filter(|(_, differs)| *differs).map(|(name, _)| (*name).to_owned()).collect()
}
