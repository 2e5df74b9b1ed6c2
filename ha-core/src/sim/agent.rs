//! The agent on a simulated node: what the engine wants is carried out as the driver does it.
//!
//! Decides nothing but what simulated programs do.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::apply::revision;
use super::clock::Moment;
use super::liveness::Line;
use super::node::{Agent, FIRST_VERSION, ForAgent, ForMachine, Part, Real, Written};
use super::programs::Order;
use super::setup::{HierarchySetup, ReservationSetup, WatchdogSetup};
use super::storage::{AreaOnNode, Question, boot_id};
use super::world::{What, World};
use crate::claim::lock_area::machine::{Config, Machine, Request};
use crate::claim::reservation::machine::Request as Reservation;
use crate::contact::{ContactConfig, KeyId, KeyRing, NodeIds, Opener, Sealer, Transmit};
use crate::engine::{Effect, Engine, EngineConfig, Input, Joining, TenureOf};
use crate::hierarchy::{Change, Fingerprint, Plan};
use crate::name::{HierarchyName, Incarnation, ResourceName, Utility};
use crate::record::Happened;

use crate::recovery::{Operation, Outcome, Pressure};
use crate::time::Time;

/// As the driver's.
const FEED_EVERY: Duration = Duration::from_millis(500);
const FEED_SOON: Duration = Duration::from_millis(50);

impl World {
    /// The agent begins, with what its machine remembers.
    pub(super) fn start_agent(&mut self, n: usize) {
        if !self.nodes[n].on || self.nodes[n].agent.is_some() {
            return;
        }
        self.nodes[n].life += 1;
        self.nodes[n].paused = false;
        let incarnation = Incarnation(self.now.0 + 1);
        let Some(agent) = self.new_agent(n, incarnation) else { return };
        self.nodes[n].agent = Some(agent);
        let of_leases = self.setup.areas.iter().map(|a| a.header.timing.deadline() / 4).min().unwrap_or_default();
        // Where nobody defends it for longer than that, a reservation may be challenged and taken.
        let of_reserved = |reserved: &ReservationSetup| reserved.timing.defend_interval() * 2;
        let reserved = |h: usize| self.setup.hierarchies.get(h).and_then(HierarchySetup::reservation);
        let at_most = |h| reserved(h).map_or(of_leases, |reserved| of_leases.min(of_reserved(reserved)));
        self.observer.agent_started(self.now, n, at_most);
        self.tell(n, || "agent began".to_owned());
        for h in 0..self.setup.hierarchies.len() {
            self.join(n, h);
        }
        let pressure = self.nodes[n].pressure;
        if pressure != Pressure::Calm {
            self.engine_input(n, Input::Pressure(pressure));
        }
        self.carry(n);
        self.for_agent(n, ForAgent::Tick);
        for area in 0..self.setup.areas.len() {
            self.area_due(n, area, self.now);
        }
    }

    fn new_agent(&mut self, n: usize, incarnation: Incarnation) -> Option<Agent> {
        let names: Vec<_> = self.setup.nodes.iter().map(|node| node.name.clone()).collect();
        let node = &self.nodes[n];
        let (me, boot, time) = (node.name.clone(), boot_id(n, node.boot), node.time(self.now));
        let contact = ContactConfig {
            me: me.clone(),
            boot,
            nodes: names.clone(),
            timing: self.setup.timing,
            channels: BTreeMap::new(),
        };
        let config = EngineConfig {
            cluster: self.setup.cluster.clone(),
            contact,
            incarnation,
            version: node.version.clone(),
            definition: Fingerprint(1),
            max_recoveries: self.setup.max_recoveries,
            can_reset: self.setup.watchdog != WatchdogSetup::None,
            standby: node.memory.standby.clone(),
            fences: self.setup.fencing.of(&me, &names),
        };
        let keys = KeyRing::generate(KeyId(1), [9; 32]);
        let seed = self.nodes[n].draws.number();
        let areas = self.setup.areas.iter().map(|area| {
            let config = Config { node: me.clone(), boot, incarnation, seed };
            Machine::new(area.header.clone(), &config).map(AreaOnNode::new)
        });
        Some(Agent {
            engine: Engine::new(config, time).ok()?,
            areas: areas.collect::<Option<_>>()?,
            reservations: BTreeMap::new(),
            sealer: Sealer::new(&me, &self.setup.cluster, &keys, incarnation),
            opener: Opener::new(&me, &self.setup.cluster, NodeIds::new(&names).ok()?, &keys),
            watched: std::collections::BTreeSet::new(),
            due_at: None,
            called_for: None,
            feed_now: true,
            feed_soon: false,
            incarnation,
            replacing: BTreeMap::new(),
            leaving: 0,
        })
    }

    fn join(&mut self, n: usize, h: usize) {
        let setup = &self.setup.hierarchies[h];
        let lease = setup.area().map(|area| self.setup.areas[area].name.to_string());
        let probed = setup.probed;
        let node = &mut self.nodes[n];
        let hierarchy = revision(&setup.hierarchy, node.revisions[h]);
        if !hierarchy.nodes.contains(&node.name) {
            return;
        }
        let name = hierarchy.name.clone();
        let of = lease.clone().map_or_else(|| TenureOf::Hierarchy(name.clone()), TenureOf::Lease);
        let joining = Joining {
            hierarchy,
            proven_until: node.memory.proven.get(&of).copied(),
            lease,
            lasting: node.memory.lasting.get(&name).cloned().unwrap_or_default(),
            running: node.memory.running.get(&name).copied(),
            probed,
        };
        let time = node.time(self.now);
        let Some(agent) = &mut node.agent else { return };
        agent.engine.join(time, joining);
        self.make_reservation(n, h);
        self.measure(n, h);
    }

    /// The probes and the look for what is lacking speak.
    pub(super) fn measure(&mut self, n: usize, h: usize) {
        let hierarchy = self.setup.hierarchies[h].hierarchy.name.clone();
        if self.setup.hierarchies[h].probed {
            let utility = Utility::new(self.nodes[n].utility.get(&h).copied().unwrap_or(100)).unwrap_or(Utility::FULL);
            let input = Input::Measured { hierarchy: hierarchy.clone(), utility, facts: format!("measured {utility}") };
            self.for_agent_at(n, self.now + Duration::from_millis(5), ForAgent::Input(input));
        }
        let lacking = self.nodes[n].lacks.get(&h).cloned();
        let input = Input::Readiness { hierarchy, lacking };
        self.for_agent_at(n, self.now + Duration::from_millis(5), ForAgent::Input(input));
    }

    pub(super) fn engine_input(&mut self, n: usize, input: Input) {
        let time = self.nodes[n].time(self.now);
        let Some(agent) = &mut self.nodes[n].agent else { return };
        match &input {
            Input::Operated { outcome, .. } => agent.feed_soon |= *outcome == Outcome::Good,
            Input::Lease { .. } | Input::Acquired { .. } | Input::Upheld { .. } => agent.feed_now = true,
            _ => {}
        }
        agent.engine.handle(time, input);
        // What it asks for after hearing something is new.
        agent.called_for = None;
        self.carry(n);
    }

    pub(super) fn engine_due(&mut self, n: usize, at: Moment) {
        let time = self.nodes[n].time(self.now);
        let Some(agent) = &mut self.nodes[n].agent else { return };
        if agent.due_at != Some(at) {
            return;
        }
        agent.due_at = None;
        agent.called_for = agent.engine.next_deadline().filter(|at| *at <= time);
        if agent.engine.next_deadline().is_some_and(|at| at <= time) {
            agent.engine.handle_timeout(time);
        }
        self.carry(n);
    }

    pub(super) fn tick(&mut self, n: usize) {
        let time = self.nodes[n].time(self.now);
        let Some(agent) = &mut self.nodes[n].agent else { return };
        agent.feed_now = true;
        for (h, again) in agent.replacing.clone() {
            let name = self.setup.hierarchies[h].hierarchy.name.clone();
            let Some(agent) = &mut self.nodes[n].agent else { return };
            if agent.engine.leave(time, &name) {
                agent.replacing.remove(&h);
                if again {
                    self.join(n, h);
                }
            }
        }
        self.for_agent_at(n, self.bound(n, FEED_EVERY), ForAgent::Tick);
        self.carry(n);
    }

    /// Carries out what the engine wants.
    pub(super) fn carry(&mut self, n: usize) {
        let mut effects = Vec::new();
        while let Some(effect) = self.nodes[n].agent.as_mut().and_then(|agent| agent.engine.poll_effect()) {
            let memory = &mut self.nodes[n].memory;
            match effect {
                Effect::RememberRunning { hierarchy, epoch: Some(epoch) } => {
                    memory.running.insert(hierarchy, epoch);
                }
                Effect::RememberRunning { hierarchy, epoch: None } => {
                    memory.running.remove(&hierarchy);
                }
                Effect::RememberTenure { of, until } => {
                    memory.proven.insert(of, until);
                }
                other => effects.push(other),
            }
        }
        for effect in effects {
            self.carry_out(n, effect);
        }
        self.feed(n);
        let clock = self.nodes[n].clock;
        let Some(agent) = &mut self.nodes[n].agent else { return };
        if let Some(next) = agent.engine.next_deadline() {
            let at = clock.when(next).max(self.now);
            if next <= clock.shows(self.now) && agent.called_for == Some(next) {
                let what = format!("the engine of {} asks to be called again at once", self.nodes[n].name);
                return self.observer.violated(self.now, super::Invariant::L4, what);
            }
            if agent.due_at.is_none_or(|due| at < due) {
                agent.due_at = Some(at);
                self.for_agent_at(n, at, ForAgent::Due(at));
            }
        }
    }

    fn carry_out(&mut self, n: usize, effect: Effect) {
        if self.nodes[n].agent.is_none() {
            return;
        }
        match effect {
            Effect::Send(transmit) => self.send(n, &transmit),
            Effect::Acquire { hierarchy, op, request } => match self.reserved(&hierarchy) {
                Some(h) => self.ask_reservation(n, h, Question::Acquire(op), Reservation::Acquire(request)),
                None => {
                    let request = Request::Acquire(hierarchy.clone(), request);
                    self.ask_claim(n, &hierarchy, Question::Acquire(op), request);
                }
            },
            Effect::Inspect { hierarchy, op } => match self.reserved(&hierarchy) {
                Some(h) => self.inspect_reservation(n, h, op),
                None => {
                    let request = Request::Inspect(hierarchy.clone());
                    self.ask_claim(n, &hierarchy, Question::Inspect(op), request);
                }
            },
            Effect::Uphold { hierarchy, op, epoch } => {
                if let Some(h) = self.reserved(&hierarchy) {
                    return self.uphold_reservation(n, h, op, epoch);
                }
                let area = self.area_for(&hierarchy);
                if let Some(answer) = area.and_then(|area| self.uphold(n, area, &hierarchy, epoch)) {
                    self.for_agent(n, ForAgent::Input(Input::Upheld { hierarchy, op, answer }));
                }
            }
            Effect::Release { hierarchy, op, epoch, heir, failures } => {
                self.observe_released(n, &hierarchy, epoch);
                if let Some(h) = self.reserved(&hierarchy) {
                    // An heir needs nothing on the disks.
                    return self.ask_reservation(n, h, Question::Release(op), Reservation::Release(epoch));
                }
                let request = Request::Release { hierarchy: hierarchy.clone(), epoch, heir, failures };
                self.ask_claim(n, &hierarchy, Question::Release(op), request);
            }
            Effect::Operate { hierarchy, resource, op, operation, epoch, timeout } => {
                if let Some(part) = self.part(&hierarchy, &resource) {
                    // Nothing begins to run before the watchdog was told of it.
                    if let Some(agent) = self.nodes[n].agent.as_mut().filter(|_| operation == Operation::Start) {
                        agent.feed_now = true;
                    }
                    self.operate(n, &Order { part, op, operation, epoch, timeout });
                }
            }
            Effect::Cancel { op } => {
                let life = self.nodes[n].life;
                self.nodes[n].flights.retain(|_, flight| flight.life != life || flight.op != op);
            }
            Effect::Watch { hierarchy, resource, .. } => {
                let part = self.part(&hierarchy, &resource);
                if let (Some(part), Some(agent)) = (part, &mut self.nodes[n].agent) {
                    agent.watched.insert(part);
                    // What died before it was watched is seen at once.
                    if self.nodes[n].parts[part.0][part.1].real == Real::Stopped {
                        self.watch_fires(n, part);
                    }
                }
            }
            Effect::Unwatch { hierarchy, resource } => {
                let part = self.part(&hierarchy, &resource);
                if let (Some(part), Some(agent)) = (part, &mut self.nodes[n].agent) {
                    agent.watched.remove(&part);
                }
            }
            Effect::RememberRunning { .. } | Effect::RememberTenure { .. } => {}
            Effect::RememberLasting { hierarchy, lasting } => self.write_state(n, Written::Lasting(hierarchy, lasting)),
            Effect::RememberStandby(why) => self.write_state(n, Written::Standby(why)),
            Effect::Reset { why } => {
                if self.setup.watchdog != WatchdogSetup::None {
                    self.tell(n, || format!("reset: {why}"));
                    self.reset(n);
                }
            }
            Effect::Fence { node, why } => self.fence(n, &node, &why),
            Effect::Tell(event) => self.told(n, &event),
            Effect::Answer { id, result } => {
                let text = match result {
                    Ok(_) => format!("command {} accepted", id.0),
                    Err(refused) => format!("command {} refused: {refused}", id.0),
                };
                self.tell(n, || text);
            }
            Effect::Reincarnate(incarnation) => {
                if let Some(agent) = &mut self.nodes[n].agent {
                    agent.sealer.reincarnate(incarnation);
                    agent.incarnation = incarnation;
                }
            }
            Effect::Drained => {
                let areas = self.setup.areas.len();
                if let Some(agent) = &mut self.nodes[n].agent {
                    agent.leaving = areas;
                }
                for area in 0..areas {
                    self.ask_area(n, area, Question::Leave, Request::Leave);
                }
                if areas == 0 {
                    self.for_agent(n, ForAgent::Ends);
                }
            }
        }
    }

    fn told(&mut self, n: usize, event: &crate::record::Event) {
        if let (Some(hierarchy), Happened::InService { adopted: true, .. }) = (&event.hierarchy, &event.what)
            && let Some(&h) = self.by_name.get(hierarchy)
        {
            self.observer.adopted(n, h);
        }
        if self.log.is_some() {
            let (now, text, told) = (self.now, event.to_string(), Some(event.what.clone()));
            let line = Line {
                at: now,
                node: Some(self.nodes[n].name.clone()),
                hierarchy: event.hierarchy.clone(),
                text,
                told,
            };
            self.log(line);
        }
    }

    /// A lock area took a goodbye, or refused it.
    pub(super) fn left(&mut self, n: usize, area: usize, _done: bool) {
        let renew = self.setup.areas[area].header.timing.renew();
        let Some(agent) = &mut self.nodes[n].agent else { return };
        agent.leaving = agent.leaving.saturating_sub(1);
        if agent.leaving == 0 {
            self.for_agent_at(n, self.now + renew * 2, ForAgent::Ends);
        }
    }

    fn area_for(&self, hierarchy: &HierarchyName) -> Option<usize> {
        self.by_name.get(hierarchy).and_then(|h| self.setup.hierarchies[*h].area())
    }

    /// Its position, if it is claimed by reservation.
    fn reserved(&self, hierarchy: &HierarchyName) -> Option<usize> {
        self.by_name.get(hierarchy).copied().filter(|h| self.setup.hierarchies[*h].reservation().is_some())
    }

    fn part(&self, hierarchy: &HierarchyName, resource: &ResourceName) -> Option<Part> {
        let h = *self.by_name.get(hierarchy)?;
        let r = self.setup.hierarchies[h].hierarchy.resources.iter().position(|r| r.name == *resource)?;
        Some((h, r))
    }

    fn ask_claim(&mut self, n: usize, hierarchy: &HierarchyName, question: Question, request: Request) {
        if let Some(area) = self.area_for(hierarchy) {
            self.ask_area(n, area, question, request);
        }
    }

    fn write_state(&mut self, n: usize, written: Written) {
        let boot = self.nodes[n].boot;
        // One after the other, as the agent writes its files.
        let at = (self.now + Duration::from_millis(self.nodes[n].draws.between(1, 15))).max(self.nodes[n].written_by);
        self.nodes[n].written_by = at;
        self.put(at, What::Machine { node: n, boot, what: ForMachine::Written(Box::new(written)) });
    }

    fn send(&mut self, n: usize, transmit: &Transmit) {
        let later = self.nodes[n].version != FIRST_VERSION;
        let Some(to) = self.setup.node(&transmit.to) else { return };
        for channel in 0..self.setup.channels.len() {
            let Some(agent) = &mut self.nodes[n].agent else { return };
            let (name, message) = (&transmit.to, &transmit.message);
            let sealed =
                if later { agent.sealer.seal_as_later(name, message) } else { agent.sealer.seal(name, message) };
            let Ok(datagram) = sealed else { return };
            self.stats.datagrams += 1;
            let bytes: std::sync::Arc<[u8]> = datagram.into();
            for after in self.network.fate((n, to, channel)).into_iter().flatten() {
                self.put(self.now + after, What::Datagram { to, channel, bytes: bytes.clone() });
            }
        }
    }

    pub(super) fn datagram(&mut self, n: usize, channel: usize, bytes: &[u8]) {
        let Some(agent) = &mut self.nodes[n].agent else { return };
        let Ok(opened) = agent.opener.open(bytes) else { return };
        let channel = self.setup.channels[channel].clone();
        let input =
            Input::Received { channel, from: opened.from, incarnation: opened.incarnation, message: opened.message };
        self.engine_input(n, input);
    }

    fn feed(&mut self, n: usize) {
        let now = self.now;
        let node = &mut self.nodes[n];
        let Some(agent) = &mut node.agent else { return };
        if !std::mem::take(&mut agent.feed_now) {
            if std::mem::take(&mut agent.feed_soon) {
                agent.feed_now = true;
                self.for_agent_at(n, now + FEED_SOON, ForAgent::Feed);
            }
            return;
        }
        let until: BTreeMap<usize, Time> =
            agent.engine.guarded().filter_map(|(name, until)| self.by_name.get(name).map(|h| (*h, until))).collect();
        let time = node.clock.shows(now);
        match self.setup.watchdog {
            WatchdogSetup::None => {}
            WatchdogSetup::Warden => {
                let ends: BTreeSet<Time> = until.values().copied().collect();
                for end in ends {
                    let (at, boot) = (node.clock.when(end).max(now), node.boot);
                    self.queue.put(at, What::Machine { node: n, boot, what: ForMachine::Warden });
                }
                // What an earlier life of the agent guarded stays guarded until this one takes it over.
                let life = node.life;
                node.guard.until.retain(|_, (_, of)| *of != life);
                node.guard.until.extend(until.into_iter().map(|(h, until)| (h, (until, life))));
                let guarded = &node.guard.until;
                node.guard.killed.retain(|h, _| guarded.contains_key(h));
            }
            WatchdogSetup::Device { timeout } => {
                if until.values().all(|until| time < *until) {
                    let at = now + timeout;
                    node.guard.reset_at = Some(at);
                    self.queue.put(at, What::Device { node: n, boot: node.boot });
                }
            }
        }
    }

    /// The files change. The agent reads them when it is told to, and runs.
    pub(super) fn reload(&mut self, n: usize, h: usize, to: u32) {
        if self.nodes[n].agent.is_some() {
            self.for_agent(n, ForAgent::Reload(h, to));
        } else {
            self.nodes[n].revisions[h] = to;
        }
    }

    /// A reload: what the files say now is compared with what the engine was told.
    pub(super) fn reloads(&mut self, n: usize, h: usize, to: u32) {
        let original = self.setup.hierarchies[h].hierarchy.clone();
        let before = revision(&original, std::mem::replace(&mut self.nodes[n].revisions[h], to));
        let after = revision(&original, to);
        let time = self.nodes[n].time(self.now);
        let Some(agent) = &mut self.nodes[n].agent else { return };
        if agent.replacing.contains_key(&h) {
            return;
        }
        let plan = Plan::between(&[&before], &[&after]);
        for (name, change) in plan.changes() {
            match change {
                Change::Changed { rebuild: None, restart, .. } => {
                    let restart: Vec<ResourceName> = restart.iter().map(|(name, _)| name.clone()).collect();
                    agent.engine.redefine(time, after.clone());
                    agent.engine.restart(time, name, &restart);
                }
                Change::Changed { .. } => {
                    agent.engine.retire(time, name);
                    agent.replacing.insert(h, true);
                }
                Change::Unchanged | Change::Added | Change::Removed => {}
            }
        }
        self.observer.disturbed();
        self.carry(n);
    }
}
