//! One node: inputs in, effects out; nothing else.
//!
//! Decides, by putting [`crate::contact`], [`crate::mastership`] and [`crate::recovery`] together, everything that a node does.
//! Leaves doing it to the driver. Same inputs at the same times, same effects, on every machine, for ever.
//!
//! Like a protocol of a network stack without sockets: after each [`Engine::handle`] or [`Engine::handle_timeout`] its owner empties
//! [`Engine::poll_effect`] and comes back at [`Engine::next_deadline`].

mod asked;
mod command;
mod io;
mod judge;
mod snapshot;
#[cfg(test)]
mod tests;
mod view;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

pub use command::{Ask, Command, Refused, Reply, Switch};
pub use io::{CommandId, Effect, Input, Lasting};
pub use snapshot::{ChannelView, HierarchyView, LeaseView, NodeOpinion, PeerView, ResourceView, Snapshot};

use crate::claim::{Loss, Tenure};
use crate::contact::{Contact, ContactConfig, ContactConfigError, ContactEvent, Directive, NodeAnnouncement};
use crate::hierarchy::{Fingerprint, Hierarchy};
use crate::mastership::Judgement;
use crate::name::{ChannelName, ClusterName, Epoch, HierarchyName, Incarnation, NodeName, ResourceName, Utility};
use crate::record::{Event, Happened};
use crate::recovery::{Around, Decline, Do, Life, LifeTimer, OpId, Out, Pressure};
use crate::time::{Time, Timers};

/// A claim that is not kept up by itself is proven this often.
const UPHOLD_EVERY: Duration = Duration::from_secs(1);
/// A claim that could not be proven is tried again after this.
const UPHOLD_AGAIN: Duration = Duration::from_millis(250);

/// A clock set back needs one new incarnation; two agents with one name would need ever more.
const REINCARNATIONS: u32 = 3;

/// What the engine needs to know of its node.
#[derive(Clone, Debug)]
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
}

/// A hierarchy as it joins the engine.
#[derive(Clone, Debug)]
pub struct Joining {
    /// Its definition.
    pub hierarchy: Arc<Hierarchy>,
    /// The shared lease that its claim lives on, if it does.
    pub lease: Option<String>,
    /// What outlived the last boot.
    pub lasting: Lasting,
    /// The epoch under which an earlier life of the agent recorded it as running.
    pub running: Option<Epoch>,
    /// It has probes: its utility is 0 until they have said something.
    pub probed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum TimerKey {
    Hierarchy(HierarchyName),
    Uphold(HierarchyName),
    TenureEnd(HierarchyName),
    LeaseEnd(String),
    Request(u64),
}

struct Entry {
    life: Life,
    judgement: Judgement,
    directive: Directive,
    utility: Utility,
    utility_facts: String,
    lacking: Option<String>,
    lease: Option<String>,
    upholding: Option<OpId>,
    /// To be taken out: another definition is in the making, or none.
    retiring: bool,
    /// To when its own lease is good, for a claim that does not share one.
    tenure_end: Option<Time>,
    /// To when what runs may run at most.
    guarded_until: Option<Time>,
}

#[derive(Default)]
struct Lease {
    until: Option<Time>,
    length: Duration,
    trouble: Option<String>,
    lapsed: u64,
    channel: Option<ChannelName>,
    members: BTreeSet<HierarchyName>,
}

/// One node of the cluster.
pub struct Engine {
    config: EngineConfig,
    contact: Contact,
    entries: BTreeMap<HierarchyName, Entry>,
    by_node: BTreeMap<NodeName, BTreeSet<HierarchyName>>,
    leases: BTreeMap<String, Lease>,
    troubles: BTreeMap<String, String>,
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
            troubles: BTreeMap::new(),
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
            reincarnations: 0,
            out: Out::default(),
            effects: VecDeque::new(),
            now,
        };
        engine.announce_node();
        Ok(engine)
    }

    /// This node's name.
    pub fn me(&self) -> &NodeName {
        self.contact.me()
    }

    /// Adds a hierarchy. One that was recorded as running is proven and adopted before anything else.
    pub fn join(&mut self, now: Time, joining: Joining) {
        self.now = now;
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
        let utility = if joining.probed && joining.running.is_none() { Utility::NONE } else { Utility::FULL };
        let entry = Entry {
            life,
            judgement: judge::nothing_known(),
            directive: joining.lasting.directive,
            utility,
            utility_facts: String::new(),
            lacking: None,
            lease: joining.lease,
            upholding: None,
            retiring: false,
            tenure_end: None,
            guarded_until: None,
        };
        self.entries.insert(name.clone(), entry);
        // Those with a shared lease begin once the lease is held: before that there is nothing to ask with.
        if let Some(epoch) = joining.running {
            self.with_life(&name, |life, _, now, out| life.recall(epoch, now, out));
        } else {
            self.with_life(&name, |life, _, _, out| life.inspect(out));
        }
        self.dirty.insert(name);
        self.settle();
    }

    /// Takes over a new definition of a hierarchy. What runs is not touched: whoever changes what runs has it stopped first.
    pub fn redefine(&mut self, now: Time, hierarchy: Arc<Hierarchy>) {
        self.now = now;
        let name = hierarchy.name.clone();
        let Some(entry) = self.entries.get_mut(&name) else { return };
        entry.life.redefine(hierarchy.clone(), now);
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
        self.now = now;
        self.with_life(name, |life, around, now, out| life.restart(resources, around, now, out));
        self.settle();
    }

    /// Takes a hierarchy out of service here, in order, and keeps it so until it [leaves](Engine::leave).
    pub fn retire(&mut self, now: Time, name: &HierarchyName) {
        self.now = now;
        if let Some(entry) = self.entries.get_mut(name) {
            entry.retiring = true;
            self.dirty.insert(name.clone());
        }
        self.settle();
    }

    /// Takes a hierarchy out, if nothing of it runs here and its claim is not held; says whether it did.
    pub fn leave(&mut self, now: Time, name: &HierarchyName) -> bool {
        self.now = now;
        let Some(entry) = self.entries.get(name) else { return true };
        if entry.life.holds() || entry.life.runs() || entry.life.is_claiming() {
            return false;
        }
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

    /// Takes in something that happened.
    pub fn handle(&mut self, now: Time, input: Input) {
        self.now = now;
        match input {
            Input::Received { channel, from, incarnation, message } => {
                self.contact.received(now, &channel, &from, incarnation, message);
            }
            Input::Acquired { hierarchy, op, answer } => {
                self.with_life(&hierarchy, |life, around, now, out| life.claimed(op, answer, around, now, out));
                self.begin_tenure(&hierarchy);
                self.unpin_from_failed(&hierarchy);
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
            Input::Pressure(pressure) => self.pressure = pressure,
            Input::Trouble { part, trouble } => self.trouble(part, trouble),
        }
        self.settle();
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Time) {
        self.now = now;
        if self.contact.next_deadline().is_some_and(|at| at <= now) {
            self.contact.handle_timeout(now);
        }
        while let Some(key) = self.timers.pop_due(now) {
            match key {
                TimerKey::Hierarchy(name) => {
                    let judge = self.with_life(&name, |life, around, now, out| life.timers_due(around, now, out));
                    if judge == Some(true) {
                        self.dirty.insert(name);
                    }
                }
                TimerKey::Uphold(name) => self.uphold(&name),
                TimerKey::TenureEnd(name) => {
                    self.with_life(&name, |life, around, now, out| {
                        life.claim_lost("its lease ends and could not be renewed", around, now, out);
                    });
                    self.dirty.insert(name);
                }
                TimerKey::LeaseEnd(lease) => self.lease_ends(&lease),
                TimerKey::Request(request) => self.request_failed(request, "no answer in time"),
            }
        }
        self.settle();
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
        self.entries.iter().filter(|(_, e)| e.life.runs()).filter_map(|(name, e)| e.guarded_until.map(|t| (name, t)))
    }

    // --- One hierarchy -------------------------------------------------------------------------------------------------------

    /// Runs `act` on the life of a hierarchy and carries out what it wants.
    fn with_life<R>(
        &mut self,
        name: &HierarchyName,
        act: impl FnOnce(&mut Life, &Around<'_>, Time, &mut Out) -> R,
    ) -> Option<R> {
        let lease_length = self.lease_length(name);
        let before = self.served_before(name);
        let entry = self.entries.get_mut(name)?;
        let around = Around {
            judgement: &entry.judgement,
            directive: &entry.directive,
            utility: entry.utility,
            pressure: self.pressure,
            standby: self.standby.as_deref(),
            draining: self.draining || entry.retiring,
            can_reset: self.config.can_reset,
            before,
            lease_length,
        };
        let result = act(&mut entry.life, &around, self.now, &mut self.out);
        self.carry_out(name);
        Some(result)
    }

    fn carry_out(&mut self, name: &HierarchyName) {
        let list = std::mem::take(&mut self.out.list);
        for what in list {
            self.carry_out_one(name, what);
        }
        self.mind(name);
    }

    fn carry_out_one(&mut self, name: &HierarchyName, what: Do) {
        let Some(entry) = self.entries.get(name) else { return };
        let hierarchy = name.clone();
        let resource = |i: usize| entry.life.hierarchy.resources.get(i).map(|r| r.name.clone());
        let epoch = entry.life.held.map_or(entry.life.known, |h| h.epoch);
        let effect = match what {
            Do::Acquire { op, known, adopt } => {
                let request = crate::claim::Acquire { beliefs: self.beliefs(name), known, adopt };
                Some(Effect::Acquire { hierarchy, op, request })
            }
            Do::Inspect { op } => Some(Effect::Inspect { hierarchy, op }),
            Do::Release { op, epoch, heir, failures } => Some(Effect::Release { hierarchy, op, epoch, heir, failures }),
            Do::Operate { op, resource: i, operation, timeout } => {
                resource(i).map(|resource| Effect::Operate { hierarchy, resource, op, operation, epoch, timeout })
            }
            Do::Cancel { op } => Some(Effect::Cancel { op }),
            Do::Watch { resource: i } => resource(i).map(|resource| Effect::Watch { hierarchy, resource, epoch }),
            Do::Unwatch { resource: i } => resource(i).map(|resource| Effect::Unwatch { hierarchy, resource }),
            Do::Running(epoch) => {
                if epoch.is_some() {
                    self.remember(name);
                }
                Some(Effect::RememberRunning { hierarchy, epoch })
            }
            Do::Lasting => {
                self.remember(name);
                None
            }
            Do::Record(what) => {
                self.tell(Some(name), what);
                None
            }
            Do::Quarantine { why } => {
                self.tell(Some(name), Happened::Quarantined { why: why.clone() });
                let by = format!("ha@{}", self.me());
                self.direct(name, &by, "", None, |d| d.quarantined = Some(why));
                None
            }
            Do::Reset { why } => {
                self.tell(Some(name), Happened::NodeReset { why: why.clone() });
                Some(Effect::Reset { why: format!("{name}: {why}") })
            }
        };
        self.effects.extend(effect);
    }

    /// Keeps what depends on a life's state in step with it: timers, the queue, the guard, the announcement.
    fn mind(&mut self, name: &HierarchyName) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        if entry.life.take_turned() {
            self.dirty.insert(name.clone());
        }
        let key = TimerKey::Hierarchy(name.clone());
        match entry.life.next_deadline() {
            Some(at) => self.timers.set(key, at),
            None => self.timers.cancel(&key),
        }
        if !entry.life.holds() {
            entry.upholding = None;
            self.timers.cancel(&TimerKey::Uphold(name.clone()));
            self.timers.cancel(&TimerKey::TenureEnd(name.clone()));
            if !entry.life.runs() {
                entry.guarded_until = None;
            }
        }
        let place = (Reverse(entry.life.hierarchy.policy.importance), name.clone());
        if entry.life.recovering() && !entry.directive.maintenance {
            if entry.life.may_start {
                self.queued.remove(&place);
                self.starting.insert(name.clone());
            } else {
                self.queued.insert(place);
            }
        } else {
            self.queued.remove(&place);
            self.starting.remove(name);
        }
        self.announce(name);
    }

    fn begin_tenure(&mut self, name: &HierarchyName) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        let Some(held) = entry.life.held else { return };
        match entry.lease.as_ref().and_then(|l| self.leases.get(l)) {
            Some(lease) => entry.guarded_until = lease.until,
            None => self.renewed(name, held.tenure),
        }
    }

    /// A pin holds until its target fails: then it must not pull the hierarchy back later.
    fn unpin_from_failed(&mut self, name: &HierarchyName) {
        let Some(entry) = self.entries.get(name) else { return };
        let Some(pin) = entry.directive.pin.clone() else { return };
        if entry.life.holds() && pin != *self.me() {
            let by = format!("ha@{}", self.me());
            let reason = format!("{pin} does not serve it any more, and {} took over", self.me());
            self.direct(name, &by, &reason, Some("unpinned"), |d| d.pin = None);
        }
    }

    fn renewed(&mut self, name: &HierarchyName, tenure: Tenure) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        self.timers.set(TimerKey::Uphold(name.clone()), self.now + UPHOLD_EVERY);
        if let Tenure::Until(until) = tenure {
            let length = self.now.until(until);
            entry.tenure_end = Some(until);
            entry.guarded_until = Some(until);
            let forced = entry.life.hierarchy.policy.forced_stop_within.min(length / 3);
            self.timers.set(TimerKey::TenureEnd(name.clone()), until - forced);
            self.timers.set(TimerKey::Uphold(name.clone()), self.now + UPHOLD_EVERY.min(length / 5));
        }
    }

    fn uphold(&mut self, name: &HierarchyName) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        let Some(held) = entry.life.held else { return };
        if entry.upholding.is_none() {
            let op = self.out.next_op();
            entry.upholding = Some(op);
            self.effects.push_back(Effect::Uphold { hierarchy: name.clone(), op, epoch: held.epoch });
        }
    }

    fn upheld(&mut self, name: &HierarchyName, op: OpId, answer: Result<Tenure, Loss>) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        if entry.upholding.take_if(|o| *o == op).is_none() || !entry.life.holds() {
            return;
        }
        match answer {
            Ok(tenure) => self.renewed(name, tenure),
            Err(Loss::Unproven(why)) => {
                self.tell(Some(name), Happened::Trouble { what: format!("the claim could not be proven: {why}") });
                self.timers.set(TimerKey::Uphold(name.clone()), self.now + UPHOLD_AGAIN);
            }
            Err(loss @ Loss::Taken(_)) => {
                let why = loss.to_string();
                self.with_life(name, |life, around, now, out| life.claim_lost(&why, around, now, out));
                self.dirty.insert(name.clone());
            }
        }
    }

    // --- What happens around -------------------------------------------------------------------------------------------------

    fn measured(&mut self, name: &HierarchyName, utility: Utility, facts: String) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        let from = entry.utility;
        entry.utility = utility;
        entry.utility_facts.clone_from(&facts);
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

    fn lease_news(&mut self, name: &str, news: &crate::claim::LeaseNews) {
        let now = self.now;
        let lease = self.leases.entry(name.to_owned()).or_default();
        let was_good = lease.until.is_some_and(|t| t > now);
        let was_trouble = lease.trouble.clone();
        lease.until = news.until;
        lease.trouble.clone_from(&news.trouble);
        let is_good = news.until.is_some_and(|t| t > now);
        // A lease that ran out and was entered anew proves nothing of what was held before.
        let was_good = was_good && lease.lapsed == news.lapsed;
        let renewed_after_lapse = lease.lapsed != news.lapsed;
        lease.lapsed = news.lapsed;
        if let Some(until) = news.until.filter(|_| is_good) {
            lease.length = lease.length.max(now.until(until));
        }
        let channel = match &lease.channel {
            Some(channel) => channel.clone(),
            None => {
                let channel = ChannelName::new(name.replace(':', "-")).ok();
                lease.channel.clone_from(&channel);
                match channel {
                    Some(channel) => channel,
                    None => return,
                }
            }
        };
        let members: Vec<HierarchyName> = lease.members.iter().cloned().collect();
        for (peer, seen) in &news.peers {
            match seen {
                crate::claim::PeerOnStorage::Beating(at) => self.contact.heard_on_storage(now, &channel, peer, *at),
                crate::claim::PeerOnStorage::Left => self.contact.left_on_storage(now, &channel, peer),
            }
        }
        if news.trouble != was_trouble {
            self.trouble(format!("lease {name}"), news.trouble.clone());
        }
        if is_good {
            self.set_lease_end(name, &members);
        }
        if is_good != was_good {
            for member in members {
                if renewed_after_lapse {
                    self.with_life(&member, |life, around, now, out| {
                        if life.holds() {
                            life.claim_lost("the lease ran out before it was renewed", around, now, out);
                        }
                    });
                }
                if is_good {
                    self.with_life(&member, |life, _, _, out| {
                        life.hurry();
                        life.inspect(out);
                    });
                } else {
                    self.with_life(&member, |life, around, now, out| {
                        if life.holds() {
                            life.claim_lost("the lease is lost", around, now, out);
                        }
                    });
                }
                self.dirty.insert(member);
            }
        }
    }

    /// One timer for the whole lease: the longest forced stop among those that run decides when it is too late to wait.
    fn set_lease_end(&mut self, name: &str, members: &[HierarchyName]) {
        let Some(lease) = self.leases.get(name) else { return };
        let (Some(until), length) = (lease.until, lease.length) else { return };
        let mut forced = Duration::ZERO;
        for member in members {
            let Some(entry) = self.entries.get_mut(member) else { continue };
            if entry.life.holds() {
                entry.guarded_until = Some(until);
                forced = forced.max(entry.life.hierarchy.policy.forced_stop_within.min(length / 3));
            }
        }
        if forced > Duration::ZERO {
            self.timers.set(TimerKey::LeaseEnd(name.to_owned()), until - forced);
        } else {
            self.timers.set(TimerKey::LeaseEnd(name.to_owned()), until);
        }
    }

    fn lease_ends(&mut self, name: &str) {
        let Some(lease) = self.leases.get(name) else { return };
        let left = lease.until.map_or(Duration::ZERO, |t| self.now.until(t));
        let trouble = lease.trouble.clone().unwrap_or_else(|| "no renewal was acknowledged".to_owned());
        let why = format!("lease {name} ends in {left:.1?} and could not be renewed: {trouble}");
        let members: Vec<HierarchyName> = lease.members.iter().cloned().collect();
        for member in members {
            self.with_life(&member, |life, around, now, out| {
                if life.holds() {
                    life.claim_lost(&why, around, now, out);
                }
            });
            self.dirty.insert(member);
        }
        if left > Duration::ZERO {
            self.timers.set(TimerKey::LeaseEnd(name.to_owned()), self.now + left);
        }
    }

    fn lease_length(&self, name: &HierarchyName) -> Option<Duration> {
        let entry = self.entries.get(name)?;
        match &entry.lease {
            Some(lease) => self.leases.get(lease).map(|l| l.length).filter(|l| *l > Duration::ZERO),
            None => entry.tenure_end.map(|_| UPHOLD_EVERY * 3),
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

    fn take_contact(&mut self) {
        while let Some(event) = self.contact.poll_event() {
            self.contact_event(event);
        }
        if !self.settled && self.contact.settled() {
            self.settled = true;
            self.dirty.extend(self.entries.keys().cloned());
        }
    }

    fn contact_event(&mut self, event: ContactEvent) {
        let line = event.to_string();
        match event {
            ContactEvent::Alive { peer, .. } | ContactEvent::Left { peer } | ContactEvent::Restarted { peer, .. } => {
                self.tell(None, Happened::Contact { peer: peer.clone(), what: line });
                self.concern(&peer);
            }
            ContactEvent::Late { peer } => self.tell(None, Happened::Contact { peer, what: line }),
            ContactEvent::Lost { peer, since } => {
                self.tell(None, Happened::ContactLost { peer: peer.clone(), last_heard: since });
                self.concern(&peer);
            }
            ContactEvent::Announced { peer, hierarchy } => self.announced(&peer, &hierarchy),
            ContactEvent::Withdrawn { hierarchy, .. } => {
                self.dirty.insert(hierarchy);
            }
            ContactEvent::NodeAnnounced { peer } | ContactEvent::Synced { peer } => self.concern(&peer),
            ContactEvent::Gap { .. } => self.tell(None, Happened::Trouble { what: line }),
            ContactEvent::Paused { for_about } => {
                self.tell(None, Happened::TimeGap { gap: for_about });
                let names: Vec<HierarchyName> = self.entries.keys().cloned().collect();
                for name in names {
                    self.uphold(&name);
                }
            }
            ContactEvent::Parcel { from, bytes } => self.parcel(&from, &bytes),
            ContactEvent::ParcelDelivered { to, id } => {
                self.parcels.remove(&(to, id.0));
            }
            ContactEvent::ParcelFailed { to, id, why } => {
                if let Some(request) = self.parcels.remove(&(to, id.0)) {
                    self.request_failed(request, &why.to_string());
                }
            }
            ContactEvent::KnownAsLater { incarnation } => {
                let next = Incarnation(incarnation.0.saturating_add(1));
                self.tell(None, Happened::Trouble { what: line });
                self.reincarnations += 1;
                if self.reincarnations > REINCARNATIONS {
                    let what =
                        "another agent speaks under the name of this node: this one falls silent; stop one of them";
                    self.trouble("name".to_owned(), Some(what.to_owned()));
                    return;
                }
                self.contact.reincarnate(self.now, next);
                self.config.incarnation = next;
                self.effects.push_back(Effect::Reincarnate(next));
            }
        }
    }

    /// What is new of a peer concerns the hierarchies that list it.
    fn concern(&mut self, peer: &NodeName) {
        let names: Vec<HierarchyName> = self.by_node.get(peer).into_iter().flatten().cloned().collect();
        for name in names {
            if let Some(entry) = self.entries.get_mut(&name) {
                entry.life.hurry();
            }
            self.dirty.insert(name);
        }
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
