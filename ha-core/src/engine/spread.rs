//! The hierarchies of one group prefer different nodes.
//!
//! Decides what this node's utility for a hierarchy is worth beside the others of its group that it has. Leaves what follows to mastership, for
//! which it is utility like any other: announced, ranked by, and never a reason to serve nowhere.
//!
//! A node counts what it claims or serves, since of several hierarchies that have lost their node together all would otherwise go to the
//! same one. For a hierarchy that it has itself it counts only those with a smaller name: so of those that share a node each but the first is drawn
//! elsewhere, and two never change places for ever.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Engine, Entry};
use crate::contact::AnnouncedPhase;
use crate::hierarchy::SPREAD_STEP;
use crate::name::{GroupName, HierarchyName, Utility};

/// The hierarchies of one group, as far as this node knows them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Group {
    members: BTreeSet<HierarchyName>,
    /// Those that this node has, or asks for.
    here: BTreeSet<HierarchyName>,
}

impl Entry {
    /// How useful this node is for the hierarchy: what its probes say, and less where it has others of the group.
    pub(super) fn utility(&self) -> Utility {
        let beside = u8::try_from(self.beside).unwrap_or(u8::MAX);
        let spread = Utility::FULL.get().saturating_sub(SPREAD_STEP.saturating_mul(beside)).max(1);
        self.measured.min(Utility::new(spread).unwrap_or(Utility::FULL))
    }

    /// What the utility comes from, for people.
    pub(super) fn utility_facts(&self) -> String {
        let spread = self.life.hierarchy.policy.spread().filter(|_| self.beside > 0);
        let spread = spread.map(|group| format!("beside {} of the group {group} on this node", self.beside));
        [Some(self.measured_facts.clone()).filter(|facts| !facts.is_empty()), spread]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join("; ")
    }
}

impl Engine {
    /// A hierarchy joined, or came into another group.
    pub(super) fn enter_group(&mut self, name: &HierarchyName) {
        if let Some(group) = self.group_of(name) {
            self.groups.entry(group.clone()).or_default().members.insert(name.clone());
            self.mind_group(name);
            self.spread(&group);
        }
    }

    /// A hierarchy is about to leave, or to come into another group.
    pub(super) fn leave_group(&mut self, name: &HierarchyName) {
        let Some(group) = self.group_of(name) else { return };
        let Some(left) = self.groups.get_mut(&group) else { return };
        left.members.remove(name);
        left.here.remove(name);
        if let Some(entry) = self.entries.get_mut(name) {
            entry.beside = 0;
        }
        if left.members.is_empty() {
            self.groups.remove(&group);
        } else {
            self.spread(&group);
        }
    }

    /// The state of a hierarchy may have changed.
    pub(super) fn mind_group(&mut self, name: &HierarchyName) {
        let Some(group) = self.group_of(name) else { return };
        let phase = self.entries.get(name).map(|entry| entry.life.announced_phase());
        let is_here = phase.is_some_and(|phase| phase != AnnouncedPhase::Out);
        let Some(others) = self.groups.get_mut(&group) else { return };
        let changed = if is_here { others.here.insert(name.clone()) } else { others.here.remove(name) };
        if changed {
            self.spread(&group);
        }
    }

    /// Counts anew, and has judged whose utility is another one by it.
    fn spread(&mut self, group: &GroupName) {
        let Some(group) = self.groups.get(group) else { return };
        let mut smaller = 0;
        for name in &group.members {
            let is_here = group.here.contains(name);
            let beside = if is_here { smaller } else { group.here.len() };
            smaller += usize::from(is_here);
            if let Some(entry) = self.entries.get_mut(name)
                && entry.beside != beside
            {
                entry.beside = beside;
                self.dirty.insert(name.clone());
            }
        }
    }

    fn group_of(&self, name: &HierarchyName) -> Option<GroupName> {
        self.entries.get(name)?.life.hierarchy.policy.spread().cloned()
    }
}
