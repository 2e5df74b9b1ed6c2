//! One node: inputs in, effects out; nothing else.
//!
//! Decides, by putting [`crate::contact`], [`crate::mastership`] and [`crate::recovery`] together, everything that a node does.
//! Leaves doing it to the driver. Same inputs at the same times, same effects, on every machine, for ever.
//!
//! Like a protocol of a network stack without sockets: after each [`Engine::handle`] or [`Engine::handle_timeout`] its owner empties
//! [`Engine::poll_effect`] and comes back at [`Engine::next_deadline`].

mod asked;
mod call;
mod command;
mod fencing;
mod hearing;
mod io;
mod judge;
mod leases;
mod lives;
mod snapshot;
mod spread;
#[cfg(feature = "sim")]
pub(crate) mod supposed;
#[cfg(test)]
mod tests;
mod view;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

pub use call::{Call, Called};
pub use command::{Ask, Command, Refused, Reply, Switch};
pub use fencing::PROOF_COUNTS_FOR;
pub use io::{CommandId, Effect, Input, Lasting, TenureOf};
use leases::Lease;
pub use snapshot::{ChannelView, HierarchyView, LeaseView, NodeOpinion, PeerView, ResourceView, Snapshot};

use serde::{Deserialize, Serialize};

use crate::claim::{Held, Refusal, Storage};
use crate::contact::{Contact, ContactConfig, ContactConfigError, Directive, NodeAnnouncement};
use crate::hierarchy::{Fingerprint, Hierarchy};
use crate::mastership::Judgement;
use crate::mutation::{self, Mutation};
use crate::name::{ClusterName, Epoch, GroupName, HierarchyName, Incarnation, NodeName, ResourceName, Utility};
use crate::record::{Event, Happened};
use crate::recovery::{Decline, Life, LifeTimer, OpId, Out, Pressure};
use crate::time::{Time, Timers};

/// What the engine needs to know of its node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EngineConfig {
    /// The cluster.
    pub cluster: ClusterName,
    /// Nodes, timing, channels.
    pub contact: ContactConfig,
    /// The life of this agent.
    pub incarnation: Incarnation,
    /// The version of the software, for reports.
    pub version: String,
    /// A digest of the cluster's definition, to be compared between nodes.
    pub definition: Fingerprint,
    /// So many hierarchies start at once on this node; the others wait, the more important first. At least 1.
    pub max_recoveries: usize,
    /// Something on this node can reset it.
    pub can_reset: bool,
    /// The node was in standby before: why.
    pub standby: Option<String>,
    /// Nodes that this one has fenced by itself ([`Effect::Fence`]) where it waits for the lease of one that is silent, or where one could not stop
    /// something. None where that is an operator's.
    pub fences: BTreeSet<NodeName>,
}

/// A hierarchy as it joins the engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joining {
    /// Its definition.
    pub hierarchy: Arc<Hierarchy>,
    /// The shared lease that its claim lives on, if it does.
    pub lease: Option<String>,
    /// What outlived the last boot.
    pub lasting: Lasting,
    /// The epoch under which an earlier life of the agent recorded it as running.
    pub running: Option<Epoch>,
    /// To when that life had proven the tenure, if that was [remembered](Effect::RememberTenure). What runs on a shared lease whose end is not
    /// known is taken to have outlived it.
    pub proven_until: Option<Time>,
    /// It has probes: its utility is 0 until they have said something.
    pub probed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum TimerKey {
    Hierarchy(HierarchyName),
    Uphold(HierarchyName),
    TenureEnd(HierarchyName),
    LeaseEnd(String),
    Request(u64),
    FencedUntil(NodeName),
    Silent(NodeName, HierarchyName),
    Stuck(NodeName, HierarchyName),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Entry {
    life: Life,
    judgement: Judgement,
    directive: Directive,
    /// What the probes say.
    measured: Utility,
    measured_facts: String,
    /// So many others of its group this node has.
    beside: usize,
    lacking: Option<String>,
    /// What the claim lives on here, as far as it is known.
    storage: Vec<Storage>,
    lease: Option<String>,
    upholding: Option<OpId>,
    /// To be taken out: another definition is in the making, or none.
    retiring: bool,
    /// How long its own lease is from one renewal to its end, for a claim that does not share one.
    tenure_length: Option<Duration>,
    /// To when what runs may run at most.
    guarded_until: Option<Time>,
    /// The claim is held, and cannot be proven for now: told once.
    unproven: Option<Unproven>,
    /// What was told of other nodes that hold the claim: nothing is decided by it.
    elsewhere: BTreeMap<NodeName, judge::Elsewhere>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Unproven {
    /// When it was last proven, as far as is known.
    since: Time,
    noticed: Time,
    why: String,
}

/// One node of the cluster.
///
/// Can be written down whole with serde, and read back: what is read back does from then on exactly what the original does. Only
/// this version of the software is sure to understand it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Engine {
    config: EngineConfig,
    contact: Contact,
    entries: BTreeMap<HierarchyName, Entry>,
    by_node: BTreeMap<NodeName, BTreeSet<HierarchyName>>,
    leases: BTreeMap<String, Lease>,
    groups: BTreeMap<GroupName, spread::Group>,
    troubles: BTreeMap<String, String>,
    /// Nodes that were proven to be off, each with when its fencing began.
    fenced: BTreeMap<NodeName, Time>,
    /// Those that this one had fenced by itself, and when.
    fencing_ordered: BTreeMap<NodeName, Time>,
    standby: Option<String>,
    pressure: Pressure,
    draining: bool,
    farewell: bool,
    settled: bool,
    starting: BTreeSet<HierarchyName>,
    queued: BTreeSet<(Reverse<i32>, HierarchyName)>,
    dirty: BTreeSet<HierarchyName>,
    timers: Timers<TimerKey>,
    requests: BTreeMap<u64, (CommandId, NodeName)>,
    parcels: BTreeMap<(NodeName, u64), u64>,
    next_request: u64,
    begun: Time,
    reincarnations: u32,
    out: Out,
    effects: VecDeque<Effect>,
    now: Time,
}

impl Engine {
    /// A node with no hierarchies yet.
    pub fn new(config: EngineConfig, now: Time) -> Result<Self, ContactConfigError> {
        let contact = Contact::new(config.contact.clone(), config.incarnation, now)?;
        let standby = config.standby.clone();
        let mut engine = Engine {
            config,
            contact,
            entries: BTreeMap::new(),
            by_node: BTreeMap::new(),
            leases: BTreeMap::new(),
            groups: BTreeMap::new(),
            troubles: BTreeMap::new(),
            fenced: BTreeMap::new(),
            fencing_ordered: BTreeMap::new(),
            standby,
            pressure: Pressure::Calm,
            draining: false,
            farewell: false,
            settled: false,
            starting: BTreeSet::new(),
            queued: BTreeSet::new(),
            dirty: BTreeSet::new(),
            timers: Timers::default(),
            requests: BTreeMap::new(),
            parcels: BTreeMap::new(),
            next_request: 0,
            begun: now,
            reincarnations: 0,
            out: Out::default(),
            effects: VecDeque::new(),
            now,
        };
        engine.announce_node();
        Ok(engine)
    }

    /// The cluster's name.
    pub fn cluster(&self) -> &ClusterName {
        &self.config.cluster
    }

    /// What this node concludes about itself for every hierarchy, by name, with the facts that led to it.
    pub fn standings(&self) -> impl ExactSizeIterator<Item = (&HierarchyName, &Judgement)> {
        self.entries.iter().map(|(name, entry)| (name, &entry.judgement))
    }

    /// This node's name.
    pub fn me(&self) -> &NodeName {
        self.contact.me()
    }

    /// Adds a hierarchy. One that was recorded as running is proven and adopted before anything else.
    pub fn join(&mut self, now: Time, joining: Joining) {
        self.begin(now);
        let name = joining.hierarchy.name.clone();
        for node in &joining.hierarchy.nodes {
            self.by_node.entry(node.clone()).or_default().insert(name.clone());
        }
        if let Some(lease) = &joining.lease {
            self.leases.entry(lease.clone()).or_default().members.insert(name.clone());
        }
        let mut life = Life::new(joining.hierarchy, now);
        life.known = joining.lasting.epoch;
        if let Some((why, for_ms)) = joining.lasting.declined {
            let lasts = Duration::from_millis(for_ms);
            life.timers.set(LifeTimer::DeclineEnd, now + lasts);
            life.declined = Some(Decline { why, until: now + lasts, lasts });
        }
        let measured = if joining.probed && joining.running.is_none() { Utility::NONE } else { Utility::FULL };
        let entry = Entry {
            life,
            judgement: judge::nothing_known(),
            directive: joining.lasting.directive,
            measured,
            measured_facts: String::new(),
            beside: 0,
            lacking: None,
            storage: Vec::new(),
            lease: joining.lease,
            upholding: None,
            retiring: false,
            tenure_length: None,
            guarded_until: None,
            unproven: None,
            elsewhere: BTreeMap::new(),
        };
        self.entries.insert(name.clone(), entry);
        // Those with a shared lease begin once the lease is held: before that there is nothing to ask with.
        let shares_lease = self.entries.get(&name).is_some_and(|e| e.lease.is_some());
        if let Some(epoch) = joining.running {
            self.with_life(&name, |life, _, now, out| life.recall(epoch, now, out));
            self.recall_tenure(&name, joining.proven_until);
        } else if !shares_lease {
            self.with_life(&name, |life, _, _, out| life.inspect(out));
        }
        self.enter_group(&name);
        self.dirty.insert(name);
        self.settle();
    }

    /// Takes over a new definition of a hierarchy. What runs is not touched: whoever changes what runs has it stopped first.
    pub fn redefine(&mut self, now: Time, hierarchy: Arc<Hierarchy>) {
        self.begin(now);
        let name = hierarchy.name.clone();
        self.leave_group(&name);
        let Some(entry) = self.entries.get_mut(&name) else { return };
        entry.life.redefine(hierarchy.clone(), now);
        self.enter_group(&name);
        for members in self.by_node.values_mut() {
            members.remove(&name);
        }
        for node in &hierarchy.nodes {
            self.by_node.entry(node.clone()).or_default().insert(name.clone());
        }
        self.dirty.insert(name);
        self.settle();
    }

    /// Restarts resources, and what requires them, in place: their definition changed.
    pub fn restart(&mut self, now: Time, name: &HierarchyName, resources: &[ResourceName]) {
        self.begin(now);
        self.with_life(name, |life, around, now, out| life.restart(resources, around, now, out));
        self.settle();
    }

    /// Takes a hierarchy out of service here, in order, and keeps it so until it [leaves](Engine::leave).
    pub fn retire(&mut self, now: Time, name: &HierarchyName) {
        self.begin(now);
        if let Some(entry) = self.entries.get_mut(name) {
            entry.retiring = true;
            self.dirty.insert(name.clone());
        }
        self.settle();
    }

    /// Takes a hierarchy out, if nothing of it runs here and its claim is not held; says whether it did.
    pub fn leave(&mut self, now: Time, name: &HierarchyName) -> bool {
        self.begin(now);
        let Some(entry) = self.entries.get(name) else { return true };
        if entry.life.holds() || entry.life.runs() || entry.life.is_claiming() {
            return false;
        }
        self.leave_group(name);
        self.entries.remove(name);
        for members in self.by_node.values_mut() {
            members.remove(name);
        }
        for lease in self.leases.values_mut() {
            lease.members.remove(name);
        }
        for key in
            [TimerKey::Hierarchy(name.clone()), TimerKey::Uphold(name.clone()), TimerKey::TenureEnd(name.clone())]
        {
            self.timers.cancel(&key);
        }
        self.queued.retain(|(_, n)| n != name);
        self.starting.remove(name);
        self.dirty.remove(name);
        self.contact.withdraw(now, name);
        self.settle();
        true
    }

    /// Takes in something that happened. What was due before it is done first: after a pause of this node, nothing may begin
    /// under a tenure whose end has passed.
    pub fn handle(&mut self, now: Time, input: Input) {
        self.begin(now);
        match input {
            Input::Received { channel, from, incarnation, message } => {
                self.contact.received(now, &channel, &from, incarnation, message);
            }
            Input::Acquired { hierarchy, op, answer } => {
                // Nothing may begin under a tenure that ended while its news was on the way, or this node stood still.
                let over = |held: &Held| held.tenure.is_over(now);
                let answer = match answer {
                    Ok(held) if over(&held) => Err(Refusal::Unreachable(leases::TOO_LATE.to_owned())),
                    answer => answer,
                };
                if let Err(refusal) = &answer {
                    self.refused(&hierarchy, refusal);
                }
                self.with_life(&hierarchy, |life, around, now, out| life.claimed(op, answer, around, now, out));
                self.begin_tenure(&hierarchy);
                self.dirty.insert(hierarchy);
            }
            Input::Inspected { hierarchy, op, answer } => {
                self.with_life(&hierarchy, |life, _, now, _| life.inspected(op, answer, now));
                self.dirty.insert(hierarchy);
            }
            Input::Upheld { hierarchy, op, answer } => self.upheld(&hierarchy, op, answer),
            Input::Released { hierarchy, op, answer } => {
                self.with_life(&hierarchy, |life, _, now, out| life.released(op, answer, now, out));
                self.dirty.insert(hierarchy);
            }
            Input::Operated { hierarchy, op, outcome } => {
                self.with_life(&hierarchy, |life, around, now, out| life.operated(op, &outcome, around, now, out));
            }
            Input::WatchFired { hierarchy, resource, why } => {
                self.with_life(&hierarchy, |life, around, now, out| {
                    if let Some(part) = life.hierarchy.resources.iter().position(|r| r.name == resource) {
                        life.watch_fired(part, &why, around, now, out);
                    }
                });
            }
            Input::Measured { hierarchy, utility, facts } => self.measured(&hierarchy, utility, facts),
            Input::Readiness { hierarchy, lacking } => self.readiness(&hierarchy, lacking),
            Input::Lease { lease, news } => self.lease_news(&lease, &news),
            Input::Command { id, to, command } => self.asked(id, to, command),
            Input::Pressure(pressure) => {
                if self.pressure != pressure {
                    self.pressure = pressure;
                    self.tell(None, Happened::Pressure(pressure));
                }
            }
            Input::Trouble { part, trouble } => self.trouble(part, trouble),
            Input::ClaimLost { hierarchy, epoch, loss } => self.lost(&hierarchy, epoch, &loss),
            Input::Fencing { node, news } => self.fencing(node, news),
            Input::StandsOn { hierarchy, storage } => {
                if let Some(entry) = self.entries.get_mut(&hierarchy) {
                    entry.storage = storage;
                    self.dirty.insert(hierarchy);
                }
            }
        }
        self.settle();
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Time) {
        self.now = now;
        if self.contact.next_deadline().is_some_and(|at| at <= now) {
            self.contact.handle_timeout(now);
        }
        self.do_what_is_due();
        self.settle();
    }

    /// Nothing is done at a time before what was due by then: above all, tenures that are over end first.
    fn begin(&mut self, now: Time) {
        self.now = now;
        self.do_what_is_due();
    }

    fn do_what_is_due(&mut self) {
        let now = self.now;
        loop {
            let mut due: Vec<TimerKey> = std::iter::from_fn(|| self.timers.pop_due(now)).collect();
            if due.is_empty() {
                break;
            }
            // After this node stood still much is due at once: nothing may begin under a tenure that is over.
            due.sort_by_key(|key| !matches!(key, TimerKey::TenureEnd(_) | TimerKey::LeaseEnd(_)));
            for key in due {
                self.is_due(key);
            }
        }
    }

    fn is_due(&mut self, key: TimerKey) {
        match key {
            TimerKey::Hierarchy(name) => {
                let judge = self.with_life(&name, |life, around, now, out| life.timers_due(around, now, out));
                if judge == Some(true) {
                    self.dirty.insert(name);
                }
            }
            TimerKey::Uphold(name) => self.uphold(&name),
            TimerKey::TenureEnd(name) => self.tenure_ends(&name),
            TimerKey::LeaseEnd(lease) => self.lease_ends(&lease),
            TimerKey::Request(request) => self.request_failed(request, "no answer in time"),
            TimerKey::FencedUntil(node) => self.forget_fencing(&node),
            TimerKey::Silent(holder, name) => self.silent_for_long(&holder, &name),
            TimerKey::Stuck(peer, name) => self.stuck_for_long(&peer, &name),
        }
    }

    /// When [`Engine::handle_timeout`] is to be called.
    pub fn next_deadline(&self) -> Option<Time> {
        [self.contact.next_deadline(), self.timers.next()].into_iter().flatten().min()
    }

    /// The next thing to be done.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// What runs under leases, and to when each may run at most: for the watchdog.
    pub fn guarded(&self) -> impl Iterator<Item = (&HierarchyName, Time)> {
        self.entries.iter().filter_map(|(name, entry)| self.guarded_until(entry).map(|until| (name, until)))
    }

    /// Whether something of a hierarchy runs under a lease.
    pub fn is_guarded(&self, name: &HierarchyName) -> bool {
        self.entries.get(name).is_some_and(|entry| self.guarded_until(entry).is_some())
    }

    fn guarded_until(&self, entry: &Entry) -> Option<Time> {
        if mutation::is_on(Mutation::OverstayLease) || mutation::is_on(Mutation::TellWatchdogNothing) {
            return None;
        }
        self.may_run_until(entry).filter(|_| entry.life.runs())
    }

    // --- What happens around -------------------------------------------------------------------------------------------------

    fn measured(&mut self, name: &HierarchyName, utility: Utility, facts: String) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        let from = entry.measured;
        entry.measured = utility;
        entry.measured_facts.clone_from(&facts);
        if from != utility {
            if from == Utility::NONE || utility == Utility::NONE {
                self.tell(Some(name), Happened::Utility { from: from.get(), to: utility.get(), facts });
            }
            self.dirty.insert(name.clone());
        }
    }

    fn readiness(&mut self, name: &HierarchyName, lacking: Option<String>) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        if entry.lacking != lacking {
            entry.lacking.clone_from(&lacking);
            self.tell(Some(name), Happened::Readiness { lacking });
            self.dirty.insert(name.clone());
        }
    }

    fn trouble(&mut self, part: String, trouble: Option<String>) {
        match trouble {
            Some(what) => {
                if self.troubles.get(&part) != Some(&what) {
                    self.tell(None, Happened::Trouble { what: format!("{part}: {what}") });
                    self.troubles.insert(part, what);
                }
            }
            None => {
                self.troubles.remove(&part);
            }
        }
    }

    // --- All together --------------------------------------------------------------------------------------------------------

    /// Works until nothing is left to be judged.
    fn settle(&mut self) {
        loop {
            self.take_contact();
            if let Some(name) = self.dirty.pop_first() {
                self.judge(&name);
            } else if !self.start_queued() && self.dirty.is_empty() {
                break;
            }
        }
        while let Some(transmit) = self.contact.poll_transmit() {
            self.effects.push_back(Effect::Send(transmit));
        }
        self.check_drained();
    }

    /// Lets the most important waiting hierarchy start if there is room.
    fn start_queued(&mut self) -> bool {
        if self.starting.len() >= self.config.max_recoveries.max(1) {
            return false;
        }
        let Some((_, name)) = self.queued.pop_first() else { return false };
        self.with_life(&name, |life, around, now, out| life.let_start(around, now, out));
        true
    }

    fn tell(&mut self, hierarchy: Option<&HierarchyName>, what: Happened) {
        self.effects.push_back(Effect::Tell(Event { at: self.now, hierarchy: hierarchy.cloned(), what }));
    }

    fn announce_node(&mut self) {
        let announcement = NodeAnnouncement {
            standby: self.standby.clone(),
            version: self.config.version.clone(),
            definition: self.config.definition,
        };
        self.contact.set_node_announcement(self.now, announcement);
    }

    fn check_drained(&mut self) {
        if !self.draining || self.farewell {
            return;
        }
        let busy = |e: &Entry| e.life.holds() || e.life.runs() || e.life.is_claiming();
        if self.entries.values().any(busy) {
            return;
        }
        self.farewell = true;
        self.contact.goodbye(self.now);
        while let Some(transmit) = self.contact.poll_transmit() {
            self.effects.push_back(Effect::Send(transmit));
        }
        self.effects.push_back(Effect::Drained);
    }
}
