//! What would go wrong at run time, said beforehand.
//!
//! Decides what is looked at, and how bad each finding is. Changes nothing: opens for reading, asks the resources whether
//! they could start, and asks the running agent, if there is one. Leaves the files themselves to [`crate::config`].

mod bounds;
mod disks;
mod fencing;
mod machine;
mod measured;
mod storage;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use ha_core::claim::reservation::device::Queued;
use ha_core::hierarchy::{Hierarchy, Loaded, ResourceSpec};
use ha_core::name::{HierarchyName, NodeName};
use ha_resources::kinds::{Builtin, ClaimDefinition, ResourceDefinition};
use ha_resources::resource::{Directories, Weight};
use serde::Serialize;

use self::measured::Seen;
use crate::api::MeasuredView;
use crate::config::{Config, WardenAct, WatchdogSettings};
use crate::daemon::unarmed;
use crate::reservation::{Machine, armed};
use crate::view::{Problem, Severity};

pub(crate) use bounds::{Bounds, ClaimTimes, bounds};

/// A resource or probe that needs longer to say whether it could work is taken for one that could not.
const READY_WITHIN: Duration = Duration::from_secs(5);

/// What was found of one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct HierarchyCheck {
    /// Its name.
    pub(crate) name: String,
    /// Where it is defined.
    pub(crate) origin: String,
    /// How long it can be out of service after the death of a node.
    pub(crate) bounds: Bounds,
    /// How long a start of all its resources would take if each took the longest that was measured on this node; `null` where not all were
    /// started, or no agent runs.
    pub(crate) measured_start_ms: Option<u64>,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Report {
    /// What is wrong or doubtful, the worst first.
    pub(crate) problems: Vec<Problem>,
    /// Each hierarchy with its bounds.
    pub(crate) hierarchies: Vec<HierarchyCheck>,
}

/// Findings on their way.
#[derive(Default)]
struct Found(Vec<Problem>);

impl Found {
    fn add(
        &mut self,
        severity: Severity,
        about: impl ToString,
        what: impl Into<String>,
        help: impl Into<Option<String>>,
    ) {
        self.0.push(Problem { severity, about: about.to_string(), what: what.into(), help: help.into() });
    }
}

/// Looks at everything that the configuration names on this machine, and puts what the running agent has measured beside it.
pub(crate) async fn look(
    config: &Config,
    hierarchies: Vec<Loaded<Builtin>>,
    me: &NodeName,
    measured: &[MeasuredView],
) -> Report {
    let mut found = Found::default();
    machine::keys(config, &mut found);
    machine::addresses(config, me, &mut found);
    machine::watchdog(config, &mut found);
    let areas = storage::look_at_areas(config, me, &mut found).await;
    let directories = Directories::new(config.run_dir.clone(), config.log_dir.clone());
    fencing::fencing(config, &directories, &mut found).await;
    let mut disks = disks::Disks::new(config, Arc::new(Machine), &mut found);
    let mut checked = Vec::new();
    for loaded in hierarchies {
        let claim = match &loaded.claim {
            ClaimDefinition::LockArea(name) => {
                protection(config, &loaded.hierarchy, &mut found);
                // Without a readable area, with the usual times.
                let area = areas.iter().find(|area| area.name == *name);
                ClaimTimes::Lease(area.map(|area| area.timing).unwrap_or_default())
            }
            ClaimDefinition::Reservation(spec) => {
                let (name, serves) = (&loaded.hierarchy.name, loaded.hierarchy.nodes.contains(me));
                let open = if serves { disks.look(name, spec, &mut found).await } else { None };
                let armed = armed::read(&config.state_dir, name, spec, open.as_deref());
                if let (true, Err(unproven)) = (serves, &armed) {
                    found.0.push(unarmed(name, unproven));
                }
                // Until it is shown that a disk aborts what a dead holder left in it, it is taken to finish that first.
                let aborts = armed.is_ok_and(|armed| armed.aborts());
                ClaimTimes::Reservation(spec, if aborts { Queued::Aborted } else { Queued::Stay })
            }
        };
        let seen = Seen::of(&loaded.hierarchy, measured);
        found.0.extend(seen.short());
        checked.push(HierarchyCheck {
            name: loaded.hierarchy.name.to_string(),
            origin: loaded.origin.clone(),
            bounds: bounds(config, claim, &loaded.hierarchy),
            measured_start_ms: seen.start().and_then(|time| u64::try_from(time.as_millis()).ok()),
        });
        if loaded.hierarchy.nodes.contains(me) {
            readiness(loaded, &directories, &mut found).await;
        }
    }
    let mut problems = found.0;
    problems.sort();
    Report { problems, hierarchies: checked }
}

/// Whether a node that lost its lease surely stops.
fn protection(config: &Config, hierarchy: &Hierarchy, found: &mut Found) {
    let name = &hierarchy.name;
    match &config.watchdog {
        WatchdogSettings::None => found.add(
            Severity::Warning,
            name,
            "UNPROTECTED: it is claimed by a lease, and there is no watchdog: a node whose agent hangs could go on writing \
             while another one has taken over",
            "set `watchdog: Device(\"/dev/watchdog\")` or `watchdog: Warden` in agent.ron".to_owned(),
        ),
        WatchdogSettings::Warden { on_expiry: WardenAct::Kill | WardenAct::KillElseReset, .. } => {
            let of_kind = |kind: &str| {
                let these = hierarchy.resources.iter().filter(|r| r.kind == kind).map(|r| r.name.as_str());
                these.collect::<Vec<_>>().join(", ")
            };
            let (mounts, agents) = (of_kind("Filesystem"), of_kind("Ocf"));
            let mut stays = |what: String| {
                let help = "set `watchdog: Device(…)`, or `watchdog: Warden(on_expiry: Reset)`".to_owned();
                found.add(Severity::Warning, name, what, help);
            };
            if !mounts.is_empty() {
                stays(format!(
                    "if the agent hangs, the warden ends programs and takes addresses away, but {mounts} would stay mounted"
                ));
            }
            if !agents.is_empty() {
                stays(format!(
                    "if the agent hangs, the warden ends what the OCF agents of {agents} started, but what else they brought about \
                     (an address, a mount) would stay"
                ));
            }
        }
        WatchdogSettings::Warden { on_expiry: WardenAct::Reset, .. } | WatchdogSettings::Device { .. } => {}
    }
    if hierarchy.resources.iter().any(|r| r.kind == "Filesystem") {
        found.add(
            Severity::Note,
            name,
            "a lease cannot stop a write that left a node before its reset and is still on its way to the storage, nor a node \
             whose virtual machine is paused",
            None,
        );
    }
}

async fn readiness(loaded: Loaded<Builtin>, directories: &Directories, found: &mut Found) {
    let name = loaded.hierarchy.name;
    for (spec, definition) in loaded.hierarchy.resources.into_iter().zip(loaded.resources) {
        let resource = definition.clone().build(directories);
        let lacking = match tokio::time::timeout(READY_WITHIN, resource.ready()).await {
            Ok(Ok(())) => {
                advice(&definition, &spec, directories, &name, found).await;
                continue;
            }
            Ok(Err(lacking)) => lacking.to_string(),
            Err(_) => format!("it could not be found out within {} s", READY_WITHIN.as_secs()),
        };
        found.add(Severity::Error, &name, format!("{} could not be started here: {lacking}", spec.name), None);
    }
    for probe in loaded.probes {
        let probe = probe.build();
        match tokio::time::timeout(READY_WITHIN, probe.measure()).await {
            Ok(Ok((utility, _))) if utility.get() > 0 => {}
            Ok(Ok((_, facts))) => {
                found.add(Severity::Warning, &name, format!("its utility is 0 here now: {facts}"), None);
            }
            Ok(Err(failed)) => {
                found.add(Severity::Warning, &name, format!("its utility is 0 here now: {failed}"), None);
            }
            Err(_) => found.add(Severity::Warning, &name, "its utility is 0 here now: no answer", None),
        }
    }
}

/// What would be better otherwise with a resource that could be started.
async fn advice(
    definition: &ResourceDefinition,
    spec: &ResourceSpec,
    directories: &Directories,
    hierarchy: &HierarchyName,
    found: &mut Found,
) {
    for advice in definition.advice(spec, directories).await {
        let severity = match advice.weight {
            Weight::Warning => Severity::Warning,
            Weight::Note => Severity::Note,
        };
        found.add(severity, hierarchy, format!("{}: {}", spec.name, advice.what), advice.help);
    }
}
