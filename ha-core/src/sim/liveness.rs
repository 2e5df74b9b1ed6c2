//! Whether what should come back does: who serves what, since when, and the bounds on it.
//!
//! Decides when a hierarchy has been out of service for too long (L1, L2), and whether all stays where it is (L4). Leaves safety to
//! [`super::observer`].

use std::fmt;
use std::time::Duration;

use super::action::Behaviour;
use super::clock::Moment;
use super::observer::Invariant;
use super::world::World;
use crate::contact::AnnouncedPhase;
use crate::name::{HierarchyName, NodeName};
use crate::record::Happened;

/// One line of what happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When.
    pub at: Moment,
    /// On which node; `None` for what was done to the cluster.
    pub node: Option<NodeName>,
    /// Of which hierarchy, if of one.
    pub hierarchy: Option<HierarchyName>,
    /// What.
    pub text: String,
    /// What, as the node told it; `None` for what the world did.
    pub told: Option<Happened>,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = self.node.as_ref().map_or("", NodeName::as_str);
        write!(f, "{:>12}  {node:<8} {}", self.at.to_string(), self.text)
    }
}

/// A hierarchy is in service on this node, or on none, from this moment on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// From when.
    pub from: Moment,
    /// Where, by position in the setup.
    pub on: Option<usize>,
}

impl World {
    /// Notes where a hierarchy is in service now: all its resources run there.
    pub(super) fn observe_service(&mut self, h: usize) {
        // What runs on without its disks serves nobody.
        let tenant = self.observer.tenancies.get(&h).map(|tenancy| tenancy.node);
        let reserved = self.setup.hierarchies[h].reservation().is_some();
        let may = |n: usize| !reserved || tenant == Some(n);
        let on = (0..self.nodes.len()).find(|n| may(*n) && self.nodes[*n].serves(h));
        let (now, past) = (self.now, &mut self.service[h]);
        if past.last().is_none_or(|last| last.on != on) {
            past.push(Service { from: now, on });
        }
    }

    pub(super) fn observe_all_service(&mut self) {
        for h in 0..self.setup.hierarchies.len() {
            self.observe_service(h);
        }
    }

    /// Where a hierarchy is in service, and since when it has been so.
    pub(super) fn service_of(&self, h: usize) -> Service {
        self.service[h].last().copied().unwrap_or(Service { from: Moment::BEGIN, on: None })
    }

    /// L1: looked at all the time. A hierarchy that some healthy node could have served for longer than the bound, while nothing was done to
    /// the cluster, is in service.
    pub(super) fn look(&mut self) {
        self.observe_tenures();
        let bound = self.setup.bound();
        if self.now.since(self.disturbed_at) < bound {
            return;
        }
        let waiting: Vec<usize> = (0..self.setup.hierarchies.len())
            .filter(|h| {
                let service = self.service_of(*h);
                service.on.is_none() && self.now.since(service.from) >= bound
            })
            .collect();
        for h in waiting {
            if let Some(able) = (0..self.nodes.len()).find(|n| self.could_serve(*n, h)) {
                let what = format!(
                    "{} is out of service for {} s, and {} could serve it: {}",
                    self.setup.hierarchies[h].hierarchy.name,
                    self.now.since(self.service_of(h).from).as_secs(),
                    self.nodes[able].name,
                    self.why(h).join(" | ")
                );
                self.observer.violated(self.now, Invariant::L1, what);
            }
        }
    }

    /// Whether nothing at all speaks against a node serving a hierarchy.
    fn could_serve(&self, n: usize, h: usize) -> bool {
        let node = &self.nodes[n];
        let setup = &self.setup.hierarchies[h];
        let name = &setup.hierarchy.name;
        let long_enough = node.fit_since.is_some_and(|since| self.now.since(since) >= self.setup.bound());
        let well = node.parts[h].iter().all(|part| part.behaviour == Behaviour::Well);
        let useful = node.utility.get(&h).copied().unwrap_or(100) > 0 && !node.lacks.contains_key(&h);
        let reaches = self.disks_are_well(n, h);
        if !(setup.hierarchy.nodes.contains(&node.name) && long_enough && well && useful && reaches) {
            return false;
        }
        // What operators want, and what keeps others from giving it up, is known to the nodes themselves.
        let alive = self.nodes.iter().filter(|other| other.on && other.agent.is_some());
        let mut views = alive.filter_map(|other| {
            let engine = &other.agent.as_ref()?.engine;
            let snapshot = engine.snapshot(other.time(self.now));
            let view = snapshot.hierarchies.iter().find(|view| view.name == *name)?.clone();
            Some((other.name.clone(), snapshot.standby.is_some(), view))
        });
        let definition = |name: &NodeName| self.setup.node(name).map(|n| self.nodes[n].revisions[h]);
        views.all(|(other, standby, view)| {
            let here = other == node.name;
            let directive = &view.directive;
            let wanted = !directive.maintenance && !directive.stopped && directive.quarantined.is_none();
            let agreed = definition(&other) == definition(&node.name);
            let held_elsewhere = !here && view.phase.holds_claim();
            let free_here = !here || (!standby && view.declined.is_none() && view.phase != AnnouncedPhase::StopFailed);
            wanted && agreed && !held_elsewhere && free_here
        })
    }

    /// What each agent says of a hierarchy, by its position in the setup: one line for each node.
    pub fn why(&self, h: usize) -> Vec<String> {
        let name = &self.setup.hierarchies[h].hierarchy.name;
        let of = |node: &super::node::Node| {
            let Some(agent) = &node.agent else { return format!("{}: no agent", node.name) };
            let snapshot = agent.engine.snapshot(node.time(self.now));
            let Some(view) = snapshot.hierarchies.iter().find(|view| view.name == *name) else {
                return format!("{}: does not know it", node.name);
            };
            let reasons: Vec<String> = view.reasons.iter().map(ToString::to_string).collect();
            let detail = view.detail.as_deref().unwrap_or_default();
            format!("{}: {} {}, {} ({})", node.name, view.phase, detail, view.standing, reasons.join("; "))
        };
        self.nodes.iter().map(of).collect()
    }

    /// L1 and L4 at the end: everything was repaired at `healed`. Within the bound every hierarchy must be in service, and stay where it is for a
    /// minute beyond the longest failback.
    pub fn must_converge(&mut self, healed: Moment) {
        let last = healed + self.setup.bound();
        let all_served = |world: &World| (0..world.service.len()).all(|h| world.service_of(h).on.is_some());
        self.run_until(healed);
        self.until(last.since(healed), all_served);
        loop {
            let from = self.now;
            self.run_until(from + STEADY + self.setup.longest_failback());
            if self.observer.violation.is_some() || (self.changed_at <= from && all_served(self)) {
                return;
            }
            if from >= last {
                break;
            }
        }
        for h in 0..self.setup.hierarchies.len() {
            if self.service_of(h).on.is_none() {
                let what = format!(
                    "{} is not in service although everything was repaired: {}",
                    self.setup.hierarchies[h].hierarchy.name,
                    self.why(h).join(" | ")
                );
                self.observer.violated(self.now, Invariant::L1, what);
            }
        }
        let what = "something moves although nothing is wrong".to_owned();
        self.observer.violated(self.changed_at, Invariant::L4, what);
    }
}

/// How long everything must stay as it is at the end.
const STEADY: Duration = Duration::from_secs(60);
