//! Going over to new definitions while services run.
//!
//! Decides, from [`Plan`](crate::hierarchy::Plan), what is swapped, restarted or rebuilt. Leaves to the engine how a hierarchy is taken out of
//! service and brought back.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::plugin::{Probe, Resource};
use super::run::Run;
use crate::claim::Claim;
use crate::engine::{Call, Called};
use crate::hierarchy::{Change, Hierarchy, Plan};
use crate::name::HierarchyName;

/// A hierarchy with its code.
#[derive(Clone)]
pub struct Member {
    /// Its definition.
    pub hierarchy: Hierarchy,
    /// Its claim.
    pub claim: Arc<dyn Claim>,
    /// One for each of [`Hierarchy::resources`], in the same order.
    pub resources: Vec<Arc<dyn Resource>>,
    /// What its utility is measured with; none means always 100.
    pub probes: Vec<Arc<dyn Probe>>,
}

/// What [`super::Node::reload`] is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// Say what would change; change nothing.
    Plan,
    /// Change it.
    Apply,
}

/// What a reload would change, or changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReloadReport {
    /// What changes, hierarchy by hierarchy.
    pub plan: Plan,
    /// Hierarchies that run on this node now: for these a restart or rebuild is an interruption.
    pub running_here: Vec<HierarchyName>,
}

impl Run {
    pub(super) fn reload(&mut self, members: Vec<Member>, mode: Reload) -> ReloadReport {
        let old: Vec<&Hierarchy> = self.parts.values().map(|p| &p.member.hierarchy).collect();
        let new: Vec<&Hierarchy> = members.iter().map(|m| &m.hierarchy).collect();
        let plan = Plan::between(&old, &new);
        let report = ReloadReport { plan, running_here: self.runs_here().into_iter().collect() };
        if mode == Reload::Apply {
            let mut members: BTreeMap<HierarchyName, Member> =
                members.into_iter().map(|m| (m.hierarchy.name.clone(), m)).collect();
            for (name, change) in report.plan.changes() {
                let member = members.remove(name);
                self.apply(name, change, member);
            }
            self.finish_replacing();
        }
        report
    }

    fn apply(&mut self, name: &HierarchyName, change: &Change, member: Option<Member>) {
        let now = (self.clock)();
        match (change, member) {
            (Change::Added, Some(member)) => {
                self.join(member);
            }
            (Change::Changed { rebuild: None, restart, .. }, Some(member)) => {
                self.swap(member, restart.iter().map(|r| r.0.clone()).collect());
            }
            (Change::Changed { .. }, Some(member)) => {
                self.engine.call(now, Call::Retire { hierarchy: name.clone() });
                self.replacing.insert(name.clone(), Some(member));
            }
            (Change::Removed, _) => {
                self.engine.call(now, Call::Retire { hierarchy: name.clone() });
                self.replacing.insert(name.clone(), None);
            }
            (Change::Unchanged, _) | (Change::Added | Change::Changed { .. }, None) => {}
        }
    }

    /// The same resources by name and order of requirement: code that did not change stays in place, with all it knows of what runs; the
    /// rest is taken up when it is stopped to be restarted.
    fn swap(&mut self, mut member: Member, restart: Vec<crate::name::ResourceName>) {
        let name = member.hierarchy.name.clone();
        let mut incoming = BTreeMap::new();
        if let Some(parts) = self.parts.get(&name) {
            // The same claim: the code that holds it goes on, and defends what it holds.
            member.claim = parts.member.claim.clone();
            for (i, spec) in member.hierarchy.resources.iter().enumerate() {
                let old = &parts.member;
                let Some(k) = old.hierarchy.resources.iter().position(|r| r.name == spec.name) else { continue };
                let code = std::mem::replace(&mut member.resources[i], old.resources[k].clone());
                if old.hierarchy.resources[k].fingerprint != spec.fingerprint {
                    incoming.insert(spec.name.clone(), code);
                }
            }
        }
        let now = (self.clock)();
        let hierarchy = Arc::new(member.hierarchy.clone());
        self.replace_parts(member, incoming);
        self.engine.call(now, Call::Redefine(hierarchy));
        self.engine.call(now, Call::Restart { hierarchy: name, resources: restart });
    }

    /// Takes out what is out of service here, and puts its successor in.
    pub(super) fn finish_replacing(&mut self) {
        let names: Vec<HierarchyName> = self.replacing.keys().cloned().collect();
        for name in names {
            let now = (self.clock)();
            if self.engine.call(now, Call::Leave { hierarchy: name.clone() }) == Called::Done {
                self.parts.remove(&name);
                if let Some(Some(member)) = self.replacing.remove(&name) {
                    self.join(member);
                }
            }
        }
    }
}
