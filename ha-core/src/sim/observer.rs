//! Watches what resources and disks really do, not what nodes believe, and checks the invariants S1 to S7 at every event.
//!
//! Decides what is a violation. Leaves the bounds on recovery to [`super::liveness`].

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::clock::Moment;
use super::exclusion::Reserved;
use super::node::{Node, Real};
use super::setup::WatchdogSetup;
use super::world::World;
use crate::claim::lock_area::layout::{given_up_in, record_on_disk};
use crate::name::{Epoch, HierarchyName, NodeName};
use crate::recovery::Operation;

/// What must always be true, as the design numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    /// Resources of one hierarchy run on one node only, and a claim is given only when the former tenure is over; where disks are reserved, only
    /// the node that was given the claim last writes to them.
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

/// One lease, from when it is entered to when it runs out: of a node, in an area, in a life of the agent, and how often it had run out before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LeaseKey {
    node: usize,
    area: usize,
    life: u64,
    lapsed: u64,
}

/// A claim as its last answer gave it.
#[derive(Clone, Debug)]
pub(super) struct Tenancy {
    pub(super) node: usize,
    pub(super) boot: u64,
    pub(super) epoch: Epoch,
    /// Given up, or not known to be decided in anybody's favour any more.
    pub(super) released: bool,
    /// On which it was acquired, if on a lease.
    pub(super) lease: Option<LeaseKey>,
}

#[derive(Default)]
pub(super) struct Observer {
    pub(super) violation: Option<Violation>,
    pub(super) tenancies: BTreeMap<usize, Tenancy>,
    pub(super) epochs: BTreeMap<usize, Epoch>,
    pub(super) reserved: Reserved,
    /// To when each lease was good at most.
    proven: BTreeMap<LeaseKey, Moment>,
    /// By which lease of a later life of the agent one was continued.
    goes_on: BTreeMap<LeaseKey, LeaseKey>,
    /// The lease that a node has in an area, or had last.
    leases: BTreeMap<(usize, usize), LeaseKey>,
    /// Hierarchies that a killed agent left in service, and that its next life must not touch.
    untouchable: BTreeMap<(usize, usize), Moment>,
    /// The record of each hierarchy, and how far they were looked for, by area.
    numbers: Vec<(u32, BTreeMap<HierarchyName, u32>)>,
}

impl Observer {
    pub(super) fn new(areas: usize) -> Self {
        Observer { numbers: vec![(0, BTreeMap::new()); areas], ..Observer::default() }
    }

    pub(super) fn leased(
        &mut self,
        now: Moment,
        (node, area): (usize, usize),
        (life, lapsed): (u64, u64),
        until: Option<Moment>,
    ) {
        let key = LeaseKey { node, area, life, lapsed };
        if let Some(until) = until {
            // Entered again by a new life of the agent before the former lease ended: nobody can have taken anything in between.
            let former = self.leases.insert((node, area), key).filter(|former| former.life != life);
            if let Some(former) = former.filter(|former| self.end(*former) > now) {
                self.goes_on.insert(former, key);
            }
            let proven = self.proven.entry(key).or_default();
            *proven = (*proven).max(until);
        }
    }

    pub(super) fn violated(&mut self, at: Moment, invariant: Invariant, what: String) {
        self.violation.get_or_insert(Violation { at, invariant, what });
    }

    /// To when a tenure lasts at most.
    fn end_of(&self, tenancy: &Tenancy) -> Moment {
        tenancy.lease.map_or(Moment(u64::MAX), |lease| self.end(lease))
    }

    fn end(&self, mut lease: LeaseKey) -> Moment {
        let mut end = self.proven.get(&lease).copied().unwrap_or_default();
        while let Some(next) = self.goes_on.get(&lease) {
            end = end.max(self.proven.get(next).copied().unwrap_or_default());
            lease = *next;
        }
        end
    }

    /// The machine lost its power, with all that ran.
    pub(super) fn powered_off(&mut self, node: usize) {
        self.proven.retain(|key, _| key.node != node);
        self.untouchable.retain(|(n, _), _| *n != node);
    }

    /// Something else happened: what follows may have other reasons than a restart of an agent.
    pub(super) fn disturbed(&mut self) {
        self.untouchable.clear();
    }

    pub(super) fn agent_killed(&mut self, now: Moment, node: usize, served: impl Iterator<Item = usize>) {
        self.untouchable.extend(served.map(|hierarchy| ((node, hierarchy), now)));
    }

    /// An agent that was away for less than `at_most` of a hierarchy is to interrupt nothing of it.
    pub(super) fn agent_started(&mut self, now: Moment, node: usize, at_most: impl Fn(usize) -> Duration) {
        self.untouchable.retain(|(n, h), killed| *n != node || now.since(*killed) < at_most(*h));
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
        // A release that was asked for and then forgotten, the agent being killed, has not happened: the disk tells.
        let again = before.as_ref().is_some_and(|t| (t.node, t.boot, t.epoch) == (node, boot, epoch));
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
        let area = self.setup.hierarchies[h].area();
        if let Some(lease) = area.and_then(|area| self.observer.leases.get(&(node, area)).copied()) {
            self.observer.tenancies.insert(h, Tenancy { node, boot, epoch, released: false, lease: Some(lease) });
        }
    }

    fn check_takeover(&mut self, me: &NodeName, h: usize, former: &Tenancy) {
        let Some(area) = self.setup.hierarchies[h].area() else { return };
        let holder = &self.nodes[former.node];
        let (name, from) = (self.setup.hierarchies[h].hierarchy.name.clone(), holder.name.clone());
        if !holder.on || holder.boot != former.boot {
            return;
        }
        let timing = self.setup.areas[area].header.timing;
        let over = self.observer.end_of(former) + self.over_after(area);
        let needed = timing.expires_after() + timing.renew() * 2;
        // What its own lease's end took from it can have been decided long before the new holder heard of it, and is no theft.
        if self.now >= over {
            return;
        }
        let (invariant, what) = match holder.fit_since {
            Some(since) if self.now.since(since) > needed => {
                (Invariant::S6, format!("{me} took {name} from {from}, which is alive and reaches the storage"))
            }
            _ => (Invariant::S1, format!("{me} was given {name} while the tenure of {from} lasts until {over}")),
        };
        self.violated(invariant, what);
    }

    /// What the disk says, not what the machine answered.
    fn check_disk(&mut self, node: usize, h: usize, epoch: Epoch) {
        let Some(area) = self.setup.hierarchies[h].area() else { return };
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
        if !names.contains_key(name) {
            // One of those numbers was given to another name since.
            for number in 0..*frontier {
                if let Some((known, ..)) = record_on_disk(header, disk, number) {
                    names.entry(known).or_insert(number);
                }
            }
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
        self.observe_given_up(node, h, epoch);
        if let Some(tenancy) = self.observer.tenancies.get_mut(&h)
            && tenancy.node == node
            && tenancy.epoch == epoch
        {
            tenancy.released = true;
        }
    }

    /// A node writes to a lock area. Its machine gives up without being asked what was decided in its favour after it had given up asking.
    pub(super) fn observe_written(&mut self, node: usize, area: usize, offset: u64, bytes: &[u8]) {
        let header = &self.setup.areas[area].header;
        let Some(slot) = header.slot_of(&self.nodes[node].name) else { return };
        for (name, epoch) in given_up_in(header, slot, offset, bytes) {
            let h = self.by_name.get(&name);
            let tenancy = h.and_then(|h| self.observer.tenancies.get(h)).filter(|t| t.node == node && !t.released);
            if let Some(held) = tenancy.map(|t| t.epoch).filter(|held| *held <= epoch) {
                self.observe_released(node, &name, held);
            }
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
        if self.setup.hierarchies[h].reservation().is_some() {
            return self.check_reservation(node, h, epoch);
        }
        let boot = self.nodes[node].boot;
        let tenancy = self.observer.tenancies.get(&h);
        let held = tenancy.filter(|t| (t.node, t.boot, t.epoch) == (node, boot, epoch) && !t.released);
        let me = &self.nodes[node].name;
        let name = &self.setup.hierarchies[h].hierarchy.name;
        let what = match held {
            None => format!("{me} starts {name} under epoch {epoch}, which it does not hold: {tenancy:?}"),
            Some(held) if self.now >= self.observer.end_of(held) => {
                format!("{me} starts {name} after the end of its lease")
            }
            Some(_) => return,
        };
        self.violated(Invariant::S2, what);
    }

    /// Something of a hierarchy began to run somewhere. Where disks are reserved, what runs elsewhere may go on, and is kept from writing.
    pub(super) fn observe_running(&mut self, node: usize, h: usize) {
        if self.setup.hierarchies[h].reservation().is_some() {
            return;
        }
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
            for h in &node.may_run {
                let Some(area) = self.setup.hierarchies[*h].area() else { continue };
                let tenancy = self.observer.tenancies.get(h).filter(|t| t.node == i && t.boot == node.boot);
                let end = tenancy.map(|t| self.observer.end_of(t)).unwrap_or_default();
                if self.now > end + self.over_after(area) {
                    late = Some((i, *h, end));
                }
            }
        }
        if let Some((node, h, end)) = late {
            let (node, name) = (&self.nodes[node].name, &self.setup.hierarchies[h].hierarchy.name);
            let what = format!("{node} runs {name} although its lease ended at {end}");
            self.violated(Invariant::S7, what);
        }
    }

    pub(super) fn observe_fitness(&mut self, node: usize) {
        let now = self.now;
        let Node { fit_since, .. } = self.nodes[node];
        self.nodes[node].fit_since = if self.nodes[node].is_fit() { fit_since.or(Some(now)) } else { None };
    }
}
