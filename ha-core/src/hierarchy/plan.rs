//! What going over from some definitions to others would do: made before anything is changed, and shown.
//!
//! Decides which changes touch nothing that runs, which restart resources in place, and which need the hierarchy to be taken out of service.
//! Leaves doing it to the driver.

use std::collections::BTreeMap;
use std::fmt;

use super::model::{Hierarchy, ResourceSpec};
use crate::name::{HierarchyName, ResourceName};

/// What changes for one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing: it is not touched.
    Unchanged,
    /// It is new.
    Added,
    /// It is gone: handed over or stopped, and forgotten.
    Removed,
    /// Its definition is another one.
    Changed {
        /// What changes while it runs, without touching it.
        live: Vec<String>,
        /// Resources restarted in place, each with the reason; what requires them is restarted with them.
        restart: Vec<(ResourceName, String)>,
        /// Why the whole hierarchy must be taken out of service and brought back, if it must.
        rebuild: Option<String>,
    },
}

/// What a reload would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    changes: BTreeMap<HierarchyName, Change>,
}

impl Plan {
    /// Compares what is defined with what is to be.
    pub fn between(old: &[&Hierarchy], new: &[&Hierarchy]) -> Plan {
        let mut changes = BTreeMap::new();
        let by_name: BTreeMap<&HierarchyName, &Hierarchy> = new.iter().map(|h| (&h.name, *h)).collect();
        for before in old {
            let after = by_name.get(&before.name);
            changes.insert(before.name.clone(), after.map_or(Change::Removed, |after| compare(before, after)));
        }
        for after in new {
            changes.entry(after.name.clone()).or_insert(Change::Added);
        }
        Plan { changes }
    }

    /// Every hierarchy, by name.
    pub fn changes(&self) -> impl Iterator<Item = (&HierarchyName, &Change)> {
        self.changes.iter()
    }

    /// Whether nothing changes at all.
    pub fn is_empty(&self) -> bool {
        self.changes.values().all(|c| *c == Change::Unchanged)
    }
}

fn compare(before: &Hierarchy, after: &Hierarchy) -> Change {
    if before == after {
        return Change::Unchanged;
    }
    let mut live = Vec::new();
    let mut restart = Vec::new();
    let mut rebuild = Vec::new();
    if before.claim != after.claim {
        rebuild.push("its claim is another one".to_owned());
    }
    if before.nodes != after.nodes {
        live.push("nodes".to_owned());
    }
    if before.policy != after.policy {
        live.push("policy".to_owned());
    }
    for old in &before.resources {
        if !after.resources.iter().any(|r| r.name == old.name) {
            rebuild.push(format!("resource {} is gone", old.name));
        }
    }
    for (i, new) in after.resources.iter().enumerate() {
        let Some(old) = before.resources.iter().find(|r| r.name == new.name) else {
            rebuild.push(format!("resource {} is new", new.name));
            continue;
        };
        if names(before, old) != names(after, new) {
            rebuild.push(format!("{} requires other resources", new.name));
        }
        if old.fingerprint != new.fingerprint {
            restart.push((after.resources[i].name.clone(), "its definition changed".to_owned()));
        }
        if old.timeouts != new.timeouts {
            live.push(format!("time-outs of {}", new.name));
        }
        if old.monitor != new.monitor {
            live.push(format!("monitor of {}", new.name));
        }
    }
    if live.is_empty() && restart.is_empty() && rebuild.is_empty() {
        live.push("probes or other details".to_owned());
    }
    let rebuild = (!rebuild.is_empty()).then(|| rebuild.join(", "));
    Change::Changed { live, restart, rebuild }
}

fn names<'a>(hierarchy: &'a Hierarchy, resource: &ResourceSpec) -> Vec<&'a ResourceName> {
    let mut names: Vec<_> =
        resource.requires.iter().filter_map(|i| hierarchy.resources.get(*i)).map(|r| &r.name).collect();
    names.sort();
    names
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return write!(f, "nothing changes");
        }
        for (name, change) in &self.changes {
            match change {
                Change::Unchanged => {}
                Change::Added => writeln!(f, "+ {name}: new")?,
                Change::Removed => writeln!(f, "- {name}: handed over or stopped, and forgotten")?,
                Change::Changed { live, restart, rebuild } => {
                    writeln!(f, "~ {name}")?;
                    for what in live {
                        writeln!(f, "    while it runs, untouched: {what}")?;
                    }
                    for (resource, why) in restart.iter().filter(|_| rebuild.is_none()) {
                        writeln!(f, "    restarted in place, with what requires it: {resource} ({why})")?;
                    }
                    if let Some(why) = rebuild {
                        writeln!(f, "    taken out of service and brought back: {why}")?;
                    }
                }
            }
        }
        let untouched = self.changes.values().filter(|c| **c == Change::Unchanged).count();
        write!(f, "unchanged and not touched: {untouched}")
    }
}
