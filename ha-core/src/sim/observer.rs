//! Watches what resources and disks really do, not what nodes believe, and checks the invariants S1 to S7 at every event.
//!
//! Decides what is a violation. Leaves the bounds on recovery to [`super::liveness`].

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::clock::Moment;
use super::node::{Node, Real};
use super::setup::WatchdogSetup;
use super::world::World;
use crate::claim::lock_area::layout::record_on_disk;
use crate::name::{Epoch, HierarchyName, NodeName};
use crate::recovery::Operation;

/// What must always be true, as the design numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    /// Resources of one hierarchy run on one node only, and a claim is given only when the former tenure is over.
    S1,
    /// A start runs only under a claim that is held.
    S2,
    /// Resources start after what they require, and stop before it.
    S3,
    /// Epochs grow.
    S4,
    /// A claim is given up only when all is stopped.
    S5,
    /// Nothing is taken from a node that is alive and reaches the storage.
    S6,
    /// Nothing runs longer than its tenure.
    S7,
    /// What some node can serve is in service within the bound, also when that node is the last one.
    L1,
    /// With no new fault, everything stays where it is.
    L4,
    /// A restart of the agent interrupts nothing.
    L5,
}

/// An invariant that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// When.
    pub at: Moment,
    /// Which.
    pub invariant: Invariant,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} violated at {}: {}", self.invariant, self.at, self.what)
    }
}

/// A claim as its last answer gave it.
#[derive(Clone, Debug)]
pub(super) struct Tenancy {
    pub(super) node: usize,
    pub(super) boot: u64,
    pub(super) epoch: Epoch,
    /// Given up, or not known to be decided in anybody's favour any more.
    pub(super) released: bool,
}

#[derive(Default)]
pub(super) struct Observer {
    pub(super) violation: Option<Violation>,
    pub(super) tenancies: BTreeMap<usize, Tenancy>,
    epochs: BTreeMap<usize, Epoch>,
    /// To when a node's lease in an area was good at most, in this boot.
    proven: BTreeMap<(usize, usize), Moment>,
    /// Hierarchies that a killed agent left in service, and that its next life must not touch.
    untouchable: BTreeMap<(usize, usize), Moment>,
    /// The record of each hierarchy, and how far they were looked for, by area.
    numbers: Vec<(u32, BTreeMap<HierarchyName, u32>)>,
}

impl Observer {
    pub(super) fn new(areas: usize) -> Self {
        Observer { numbers: vec![(0, BTreeMap::new()); areas], ..Observer::default() }
    }

    pub(super) fn proven(&mut self, node: usize, area: usize, until: Moment) {
        let proven = self.proven.entry((node, area)).or_default();
        *proven = (*proven).max(until);
    }

    pub(super) fn violated(&mut self, at: Moment, invariant: Invariant, what: String) {
        self.violation.get_or_insert(Violation { at, invariant, what });
    }

    fn until(&self, node: usize, area: usize) -> Moment {
        self.proven.get(&(node, area)).copied().unwrap_or_default()
    }

    /// The machine lost its power, with all that ran.
    pub(super) fn powered_off(&mut self, node: usize) {
        self.proven.retain(|(n, _), _| *n != node);
        self.untouchable.retain(|(n, _), _| *n != node);
    }

    /// Something else happened: what follows may have other reasons than a restart of an agent.
    pub(super) fn disturbed(&mut self) {
        self.untouchable.clear();
    }

    pub(super) fn agent_killed(&mut self, now: Moment, node: usize, served: impl Iterator<Item = usize>) {
        self.untouchable.extend(served.map(|hierarchy| ((node, hierarchy), now)));
    }

    pub(super) fn agent_started(&mut self, now: Moment, node: usize, at_most: Duration) {
        self.untouchable.retain(|(n, _), killed| *n != node || now.since(*killed) < at_most);
    }

    pub(super) fn adopted(&mut self, node: usize, hierarchy: usize) {
        self.untouchable.remove(&(node, hierarchy));
    }

    pub(super) fn is_untouchable(&self, node: usize, hierarchy: usize) -> bool {
        self.untouchable.contains_key(&(node, hierarchy))
    }
}

impl World {
    fn violated(&mut self, invariant: Invariant, what: String) {
        self.observer.violated(self.now, invariant, what);
    }

    /// How long after its lease's end nothing of a node runs any more.
    fn over_after(&self, area: usize) -> Duration {
        self.setup.areas[area].header.timing.watchdog()
    }

    /// A claim was given to a node.
    pub(super) fn observe_acquired(&mut self, node: usize, hierarchy: &HierarchyName, epoch: Epoch) {
        let Some(&h) = self.by_name.get(hierarchy) else { return };
        self.stats.acquired += 1;
        let boot = self.nodes[node].boot;
        let greatest = self.observer.epochs.get(&h).copied().unwrap_or_default();
        let before = self.observer.tenancies.get(&h).cloned();
        let again = before.as_ref().is_some_and(|t| (t.node, t.boot, t.epoch) == (node, boot, epoch) && !t.released);
        let me = self.nodes[node].name.clone();
        if epoch <= greatest && !again {
            self.violated(
                Invariant::S4,
                format!("{me} holds {hierarchy} under epoch {epoch}, but {greatest} was used before"),
            );
        }
        if let Some(former) = before.filter(|former| former.node != node && !former.released) {
            self.stats.takeovers += 1;
            self.check_takeover(&me, h, &former);
        }
        self.check_disk(node, h, epoch);
        self.observer.epochs.insert(h, greatest.max(epoch));
        self.observer.tenancies.insert(h, Tenancy { node, boot, epoch, released: false });
    }

    fn check_takeover(&mut self, me: &NodeName, h: usize, former: &Tenancy) {
        let area = self.setup.hierarchies[h].area;
        let holder = &self.nodes[former.node];
        let (name, from) = (self.setup.hierarchies[h].hierarchy.name.clone(), holder.name.clone());
        if !holder.on || holder.boot != former.boot {
            return;
        }
        let timing = self.setup.areas[area].header.timing;
        let over = self.observer.until(former.node, area) + self.over_after(area);
        let needed = timing.expires_after() + timing.renew() * 2;
        let fit = holder.fit_since.is_some_and(|since| self.now.since(since) > needed);
        if fit {
            self.violated(
                Invariant::S6,
                format!("{me} took {name} from {from}, which is alive and reaches the storage"),
            );
        } else if self.now < over {
            self.violated(
                Invariant::S1,
                format!("{me} was given {name} while the tenure of {from} lasts until {over}"),
            );
        }
    }

    /// What the disk says, not what the machine answered.
    fn check_disk(&mut self, node: usize, h: usize, epoch: Epoch) {
        let area = self.setup.hierarchies[h].area;
        let header = &self.setup.areas[area].header;
        let name = &self.setup.hierarchies[h].hierarchy.name;
        let disk = &self.disks[area].bytes;
        // Numbers are given once and for ever: what was found is found there again.
        let (frontier, names) = &mut self.observer.numbers[area];
        while !names.contains_key(name) {
            let Some((known, ..)) = record_on_disk(header, disk, *frontier) else { break };
            // A name that was given two numbers counts under the first.
            names.entry(known).or_insert(*frontier);
            *frontier += 1;
        }
        let record = names.get(name).and_then(|number| record_on_disk(header, disk, *number));
        let Some((_, owner, on_disk)) = record else {
            return self.violated(Invariant::S2, format!("{name} was acquired, and the disk knows nothing of it"));
        };
        if (owner, on_disk) != (header.slot_of(&self.nodes[node].name), epoch) {
            let what = format!(
                "{} acquired {name} under epoch {epoch}, and on the disk it belongs to slot {owner:?} under {on_disk}",
                self.nodes[node].name
            );
            self.violated(Invariant::S2, what);
        }
    }

    /// A node asks to give a claim up.
    pub(super) fn observe_released(&mut self, node: usize, hierarchy: &HierarchyName, epoch: Epoch) {
        let Some(&h) = self.by_name.get(hierarchy) else { return };
        if self.nodes[node].runs(h) {
            let what = format!("{} gives {hierarchy} up while something of it runs", self.nodes[node].name);
            self.violated(Invariant::S5, what);
        }
        if let Some(tenancy) = self.observer.tenancies.get_mut(&h)
            && tenancy.node == node
            && tenancy.epoch == epoch
        {
            tenancy.released = true;
        }
    }

    /// An operation begins on a node.
    pub(super) fn observe_operation(&mut self, node: usize, part: (usize, usize), operation: Operation, epoch: Epoch) {
        let (h, r) = part;
        let hierarchy = self.setup.hierarchies[h].hierarchy.clone();
        let (me, resource) = (self.nodes[node].name.clone(), hierarchy.resources[r].name.clone());
        if self.observer.is_untouchable(node, h)
            && matches!(operation, Operation::Start | Operation::Stop | Operation::Kill)
        {
            let what = format!(
                "{me}: {} of {}/{resource} after a mere restart of the agent",
                operation.word(),
                hierarchy.name
            );
            self.violated(Invariant::L5, what);
        }
        let parts = &self.nodes[node].parts[h];
        match operation {
            Operation::Start => {
                let down: Vec<String> = hierarchy.resources[r]
                    .requires
                    .iter()
                    .filter(|required| !parts[**required].up)
                    .map(|required| hierarchy.resources[*required].name.to_string())
                    .collect();
                if !down.is_empty() {
                    let what = format!("{me}: {}/{resource} starts before {}", hierarchy.name, down.join(", "));
                    self.violated(Invariant::S3, what);
                }
                self.check_claim(node, h, epoch);
            }
            Operation::Stop => {
                let above = hierarchy
                    .resources
                    .iter()
                    .enumerate()
                    .find(|(i, above)| above.requires.contains(&r) && parts[*i].real != Real::Stopped);
                if let Some((_, above)) = above {
                    let what = format!("{me}: {}/{resource} stops before {}", hierarchy.name, above.name);
                    self.violated(Invariant::S3, what);
                }
            }
            Operation::Kill | Operation::Monitor | Operation::Adopt => {}
        }
    }

    fn check_claim(&mut self, node: usize, h: usize, epoch: Epoch) {
        let area = self.setup.hierarchies[h].area;
        let boot = self.nodes[node].boot;
        let holds = self
            .observer
            .tenancies
            .get(&h)
            .is_some_and(|t| (t.node, t.boot, t.epoch) == (node, boot, epoch) && !t.released);
        let me = &self.nodes[node].name;
        let name = &self.setup.hierarchies[h].hierarchy.name;
        if !holds {
            let what = format!(
                "{me} starts {name} under epoch {epoch}, which it does not hold: {:?}",
                self.observer.tenancies.get(&h)
            );
            self.violated(Invariant::S2, what);
        } else if self.now >= self.observer.until(node, area) {
            let what = format!("{me} starts {name} after the end of its lease");
            self.violated(Invariant::S2, what);
        }
    }

    /// Something of a hierarchy began to run somewhere.
    pub(super) fn observe_running(&mut self, node: usize, h: usize) {
        let other = self.nodes.iter().enumerate().find(|(i, other)| *i != node && other.may_run.contains(&h));
        if let Some((_, other)) = other {
            let name = &self.setup.hierarchies[h].hierarchy.name;
            let what = format!("{name} begins to run on {} while it may run on {}", self.nodes[node].name, other.name);
            self.violated(Invariant::S1, what);
        }
    }

    /// S7: nothing runs beyond its tenure, where there is a watchdog.
    pub(super) fn observe_tenures(&mut self) {
        if self.setup.watchdog == WatchdogSetup::None {
            return;
        }
        let mut late = None;
        for (i, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.on) {
            let overrun = |h: &&usize| {
                let area = self.setup.hierarchies[**h].area;
                self.now > self.observer.until(i, area) + self.over_after(area)
            };
            if let Some(h) = node.may_run.iter().find(overrun) {
                late = Some((i, *h));
            }
        }
        if let Some((node, h)) = late {
            let area = self.setup.hierarchies[h].area;
            let what = format!(
                "{} runs {} although its lease ended at {}",
                self.nodes[node].name,
                self.setup.hierarchies[h].hierarchy.name,
                self.observer.until(node, area)
            );
            self.violated(Invariant::S7, what);
        }
    }

    pub(super) fn observe_fitness(&mut self, node: usize) {
        let now = self.now;
        let Node { fit_since, .. } = self.nodes[node];
        self.nodes[node].fit_since = if self.nodes[node].is_fit() { fit_since.or(Some(now)) } else { None };
    }
}
