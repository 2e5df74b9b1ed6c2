//! The loop: waits for what happens, tells the engine, carries out what it wants.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{Receiver, UnboundedReceiver, UnboundedSender};
use tokio::sync::{broadcast, oneshot, watch};
use tokio::task::AbortHandle;

use super::builder::{Clock, Gauge};
use super::flight::Writing;
use super::guard::{After, FEED_EVERY, Guard};
use super::memory::{NodeState, RunMemory, StateDirectory};
use super::network::Network;
use super::node::{Ended, Request};
use super::plugin::{Fencer, Guarded, Probe, Resource, Watchdog};
use super::reload::Member;
use super::senses::{self, RunningHere};
use super::work::{Order, Work};
use crate::claim::Claim;
use crate::engine::{Call, CommandId, Effect, Input, Joining, Lasting, Refused, Reply};
use crate::name::{Epoch, HierarchyName, NodeName, ResourceName};
use crate::record::flight::Flight;
use crate::record::{Event, Happened, Timelines};
use crate::recovery::{Operation, Outcome, Pressure};

/// So many events are kept in memory.
const EVENTS_KEPT: usize = 4096;
/// So many inputs are taken in one turn, so that a flood of them does not keep beats from going out.
const TURN: usize = 512;

/// A hierarchy's code.
pub(super) struct Parts {
    pub(super) member: Member,
    /// The next object for a resource, taken up once the present one is stopped.
    pub(super) incoming: BTreeMap<ResourceName, Arc<dyn Resource>>,
    senses: Vec<AbortHandle>,
}

impl Drop for Parts {
    fn drop(&mut self) {
        for task in &self.senses {
            task.abort();
        }
    }
}

pub(super) struct Run {
    pub(super) engine: Flight,
    /// The writer of the flight recorder, if there is one.
    pub(super) recording: Option<Writing>,
    pub(super) clock: Clock,
    inputs: UnboundedSender<Input>,
    network: Network,
    work: Work,
    pub(super) parts: BTreeMap<HierarchyName, Parts>,
    leases: BTreeMap<String, AbortHandle>,
    memory: Option<RunMemory>,
    state: Option<StateWriter>,
    node_state: NodeState,
    running: RunningHere,
    guard: Option<Guard>,
    events: broadcast::Sender<Event>,
    recent: VecDeque<Event>,
    timelines: Timelines,
    answers: BTreeMap<CommandId, oneshot::Sender<Result<Reply, Refused>>>,
    next_command: u64,
    ended: watch::Sender<Ended>,
    refused_told: u64,
    pub(super) gauge: Option<Gauge>,
    pub(super) fencer: Option<Arc<dyn Fencer>>,
    pressure: Pressure,
    /// Hierarchies to be joined again with another definition once the present one is out of service here.
    pub(super) replacing: BTreeMap<HierarchyName, Option<Member>>,
}

impl Run {
    pub(super) fn new(
        engine: Flight,
        clock: Clock,
        inputs: UnboundedSender<Input>,
        network: Network,
        events: broadcast::Sender<Event>,
        ended: watch::Sender<Ended>,
    ) -> Self {
        let work = Work::new(engine.me().clone(), inputs.clone());
        let me = engine.me().clone();
        Run {
            engine,
            recording: None,
            clock,
            inputs,
            network,
            work,
            parts: BTreeMap::new(),
            leases: BTreeMap::new(),
            memory: None,
            state: None,
            node_state: NodeState::default(),
            running: RunningHere::default(),
            guard: None,
            events,
            recent: VecDeque::new(),
            timelines: Timelines::new(me),
            answers: BTreeMap::new(),
            next_command: 0,
            ended,
            refused_told: 0,
            gauge: None,
            fencer: None,
            pressure: Pressure::Calm,
            replacing: BTreeMap::new(),
        }
    }

    pub(super) fn remember_with(&mut self, memory: Option<RunMemory>, state: Option<StateDirectory>, node: NodeState) {
        self.memory = memory;
        self.state = state.map(|directory| StateWriter::start(directory, self.inputs.clone()));
        self.node_state = node;
    }

    pub(super) fn guard_with(&mut self, watchdog: Option<Arc<dyn Watchdog>>) {
        self.guard = watchdog.map(|watchdog| Guard::new(watchdog, self.inputs.clone()));
    }

    pub(super) fn complain(&self, part: &str, what: &str) {
        let _ = self.inputs.send(Input::Trouble { part: part.to_owned(), trouble: Some(what.to_owned()) });
    }

    /// Adds a hierarchy; false if there is one of that name.
    pub(super) fn join(&mut self, member: Member) -> bool {
        let hierarchy = Arc::new(member.hierarchy.clone());
        let name = hierarchy.name.clone();
        if self.parts.contains_key(&name) {
            return false;
        }
        let lease = member.claim.shared_lease();
        let (lasting, complaint) = match &self.state {
            Some(state) => state.directory.hierarchy(&name),
            None => (Lasting::default(), None),
        };
        if let Some(complaint) = complaint {
            self.complain("state directory", &complaint);
        }
        let running = self.memory.as_ref().and_then(|m| m.epoch(&name));
        self.running.set(&name, running.is_some());
        let joining = Joining {
            hierarchy,
            lease: lease.as_ref().map(|l| l.name().to_owned()),
            lasting,
            running,
            proven_until: self
                .memory
                .as_ref()
                .and_then(|m| m.proven_until(&member.hierarchy.name, lease.as_ref().map(|l| l.name()))),
            probed: !member.probes.is_empty(),
        };
        let senses = self.senses(&name, &member);
        self.parts.insert(name, Parts { member, incoming: BTreeMap::new(), senses });
        let now = (self.clock)();
        self.engine.call(now, Call::Join(joining));
        if let Some(lease) = lease {
            let inputs = self.inputs.clone();
            self.leases.entry(lease.name().to_owned()).or_insert_with(|| senses::follow(lease, inputs));
        }
        true
    }

    fn senses(&self, name: &HierarchyName, member: &Member) -> Vec<AbortHandle> {
        let probes: &[Arc<dyn Probe>] = &member.probes;
        let mut tasks = senses::measure(name.clone(), probes, self.inputs.clone());
        let named = member.hierarchy.resources.iter().zip(&member.resources);
        let resources = named.map(|(spec, resource)| (spec.name.to_string(), resource.clone())).collect();
        if member.claim.shared_lease().is_none() {
            tasks.push(senses::storage(name.clone(), member.claim.clone(), self.inputs.clone()));
        }
        tasks.push(senses::readiness(name.clone(), resources, self.running.clone(), self.inputs.clone()));
        tasks
    }

    /// Puts new code in the place of old, without touching what runs.
    pub(super) fn replace_parts(&mut self, member: Member, incoming: BTreeMap<ResourceName, Arc<dyn Resource>>) {
        let name = member.hierarchy.name.clone();
        let senses = self.senses(&name, &member);
        self.parts.insert(name, Parts { member, incoming, senses });
    }

    /// Takes in what was measured before the node says anything.
    pub(super) fn begin_with(&mut self, measured: Vec<Input>) {
        measured.into_iter().for_each(|input| self.take(input));
    }

    /// Says so when something was left running that no hierarchy is defined for any more.
    pub(super) fn report_orphans(&self) {
        let Some(memory) = &self.memory else { return };
        let orphans: Vec<&str> =
            memory.hierarchies().filter(|name| !self.parts.contains_key(*name)).map(HierarchyName::as_str).collect();
        if !orphans.is_empty() {
            let what = format!(
                "{} ran here when the agent ended, and is not defined any more: stop what is left of it by hand, or define it again",
                orphans.join(", ")
            );
            self.complain("leftovers", &what);
        }
    }

    pub(super) async fn run(mut self, mut inbox: UnboundedReceiver<Input>, mut requests: Receiver<Request>) {
        let adopting = self.memory.as_ref().map_or(0, |m| m.hierarchies().count());
        let now = (self.clock)();
        self.carry_out(Effect::Tell(Event { at: now, hierarchy: None, what: Happened::Began { adopting } }));
        let mut tick = tokio::time::interval(FEED_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            self.carry_out_all();
            self.feed_watchdog();
            let now = (self.clock)();
            let wait = self.engine.next_deadline().map_or(FEED_EVERY, |at| now.until(at));
            let wait = self.guard.as_ref().map_or(wait, |guard| wait.min(guard.patience()));
            tokio::select! {
                biased;
                request = requests.recv() => match request {
                    Some(Request::Shutdown(done)) => {
                        self.shut_down().await;
                        let _ = done.send(());
                        return;
                    }
                    Some(request) => self.asked(request),
                    // Every handle is gone: nobody can ask for anything any more, but the services are still to be kept.
                    None => tokio::time::sleep(FEED_EVERY).await,
                },
                Some(input) = inbox.recv() => {
                    self.take(input);
                    for _ in 0..TURN {
                        let Ok(input) = inbox.try_recv() else { break };
                        self.take(input);
                    }
                }
                Some(arrived) = self.network.incoming.recv() => {
                    let mut next = Some(arrived);
                    for _ in 0..TURN {
                        let Some(arrived) = next else { break };
                        if let Some(input) = self.network.open(&arrived) {
                            self.take(input);
                        }
                        next = self.network.incoming.try_recv().ok();
                    }
                }
                () = tokio::time::sleep(wait) => {}
                _ = tick.tick() => self.tick(),
            }
            // Whatever woke us, what is due is done: neither a flood of inputs nor of datagrams delays a beat.
            let now = (self.clock)();
            if self.engine.next_deadline().is_some_and(|at| at <= now) {
                self.engine.call(now, Call::Timeout);
            }
        }
    }

    fn take(&mut self, input: Input) {
        match &input {
            Input::Operated { op, outcome, .. } => {
                self.work.ended(*op);
                if let (Outcome::Good, Some(guard)) = (outcome, &mut self.guard) {
                    guard.changed();
                }
            }
            Input::Acquired { hierarchy, answer, .. } => {
                if let (Ok(held), Some(claim)) = (answer, self.claim(hierarchy)) {
                    self.work.held(claim, hierarchy.clone(), held.epoch);
                }
                self.hurry_guard();
            }
            Input::Lease { .. } | Input::Upheld { .. } => self.hurry_guard(),
            _ => {}
        }
        let now = (self.clock)();
        self.engine.call(now, Call::Handle(input));
    }

    fn tick(&mut self) {
        self.hurry_guard();
        self.finish_replacing();
        let pressure = self.gauge.as_ref().map_or(Pressure::Calm, |gauge| gauge());
        if pressure != self.pressure {
            self.pressure = pressure;
            self.take(Input::Pressure(pressure));
        }
        let refused = self.network.refused();
        let counts: Vec<(&str, u64)> = refused.by_reason().into_iter().filter(|(_, n)| *n > 0).collect();
        let total: u64 = counts.iter().map(|(_, n)| n).sum();
        if total != self.refused_told {
            let list: Vec<String> = counts.iter().map(|(why, n)| format!("{n} {}", why.replace('_', " "))).collect();
            let what =
                format!("refused since the start: {} (wrong keys, or a stranger on the network?)", list.join(", "));
            // Told in doublings, so that a flood of garbage is not a flood of reports.
            if total >= self.refused_told.saturating_mul(2) {
                self.refused_told = total;
                self.complain("datagrams", &what);
            }
        }
    }

    fn asked(&mut self, request: Request) {
        match request {
            Request::Command { to, command, answer } => {
                self.next_command += 1;
                let id = CommandId(self.next_command);
                self.answers.insert(id, answer);
                self.take(Input::Command { id, to, command });
            }
            Request::Snapshot(answer) => {
                let _ = answer.send(self.engine.snapshot((self.clock)()));
            }
            Request::Timelines(answer) => {
                let _ = answer.send(self.timelines.finished().cloned().collect());
            }
            Request::Ongoing(answer) => {
                let _ = answer.send(self.timelines.ongoing().collect());
            }
            Request::Events(answer) => {
                let _ = answer.send(self.recent.iter().cloned().collect());
            }
            Request::Measured(answer) => {
                let _ = answer.send(self.work.measured());
            }
            Request::Keys(keys) => self.network.set_keys(&keys),
            Request::Reload { members, mode, answer } => {
                let _ = answer.send(self.reload(members, mode));
            }
            Request::Trouble { part, trouble } => {
                let _ = self.inputs.send(Input::Trouble { part, trouble });
            }
            Request::Reset(why) => self.reset(why),
            Request::Fencing { node, news } => self.take(Input::Fencing { node, news }),
            Request::Shutdown(done) => {
                let _ = done.send(());
            }
        }
    }

    fn carry_out_all(&mut self) {
        let mut effects = Vec::new();
        while let Some(effect) = self.engine.poll_effect() {
            match effect {
                Effect::RememberRunning { hierarchy, epoch } => {
                    self.running.set(&hierarchy, epoch.is_some());
                    if let Some(memory) = &mut self.memory {
                        memory.set(hierarchy, epoch);
                    }
                }
                Effect::RememberTenure { of, until } => {
                    if let Some(memory) = &mut self.memory {
                        memory.set_proven(of, until);
                    }
                }
                other => effects.push(other),
            }
        }
        // What led to the effects is written down before they are carried out.
        self.engine.flush();
        // Before anything is started: what runs must be found again, whenever the agent dies.
        if let Some(Err(error)) = self.memory.as_mut().map(RunMemory::flush) {
            self.complain("run directory", &format!("{error}: a restarted agent would not find what runs"));
        }
        for effect in effects {
            self.carry_out(effect);
        }
    }

    fn claim(&self, hierarchy: &HierarchyName) -> Option<Arc<dyn Claim>> {
        self.parts.get(hierarchy).map(|p| p.member.claim.clone())
    }

    fn resource(&self, hierarchy: &HierarchyName, resource: &ResourceName) -> Option<Arc<dyn Resource>> {
        let parts = self.parts.get(hierarchy)?;
        let i = parts.member.hierarchy.resources.iter().position(|r| r.name == *resource)?;
        parts.member.resources.get(i).cloned()
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Send(transmit) => {
                if !self.network.send(&transmit) {
                    self.complain("sealing", "a message could not be sealed: restart the agent");
                }
            }
            Effect::Acquire { hierarchy, op, request } => {
                if let Some(claim) = self.claim(&hierarchy) {
                    self.work.acquire(claim, hierarchy, op, request);
                }
            }
            Effect::Inspect { hierarchy, op } => {
                if let Some(claim) = self.claim(&hierarchy) {
                    self.work.inspect(claim, hierarchy, op);
                }
            }
            Effect::Uphold { hierarchy, op, epoch } => {
                if let Some(claim) = self.claim(&hierarchy) {
                    self.work.uphold(claim, hierarchy, op, epoch);
                }
            }
            Effect::Release { hierarchy, op, epoch, heir, failures } => {
                if let Some(claim) = self.claim(&hierarchy) {
                    self.work.release(claim, hierarchy, op, (epoch, heir, failures));
                }
            }
            Effect::Operate { hierarchy, resource, op, operation, epoch, timeout } => {
                if operation == Operation::Start {
                    self.take_up_incoming(&hierarchy, &resource);
                }
                if let Some(code) = self.resource(&hierarchy, &resource) {
                    let after = self.before(operation, &hierarchy);
                    self.work.operate(code, Order { hierarchy, resource, op, operation, epoch, timeout }, after);
                }
            }
            Effect::Cancel { op } => self.work.cancel(op),
            Effect::Watch { hierarchy, resource, epoch } => {
                if let Some(code) = self.resource(&hierarchy, &resource) {
                    self.work.watch(code, hierarchy, resource, epoch);
                }
            }
            Effect::Unwatch { hierarchy, resource } => self.work.unwatch(&hierarchy, &resource),
            // Done before the others, in `carry_out_all`.
            Effect::RememberRunning { .. } | Effect::RememberTenure { .. } => {}
            Effect::RememberLasting { hierarchy, lasting } => {
                if let Some(state) = &self.state {
                    state.write(Written::Hierarchy(hierarchy, Box::new(lasting)));
                }
            }
            Effect::RememberStandby(standby) => {
                self.node_state.standby = standby;
                self.write_node_state();
            }
            Effect::Reset { why } => self.reset(why),
            Effect::Fence { node, why } => self.fence(node, why),
            Effect::Tell(event) => self.tell(event),
            Effect::Answer { id, result } => {
                if let Some(answer) = self.answers.remove(&id) {
                    let _ = answer.send(result);
                }
            }
            Effect::Reincarnate(incarnation) => {
                self.network.reincarnate(incarnation);
                self.node_state.incarnation = incarnation;
                self.write_node_state();
            }
            Effect::Drained => {
                let _ = self.ended.send(Ended::Drained);
            }
        }
    }

    fn take_up_incoming(&mut self, hierarchy: &HierarchyName, resource: &ResourceName) {
        let Some(parts) = self.parts.get_mut(hierarchy) else { return };
        if let Some(code) = parts.incoming.remove(resource)
            && let Some(i) = parts.member.hierarchy.resources.iter().position(|r| r.name == *resource)
            && let Some(place) = parts.member.resources.get_mut(i)
        {
            *place = code;
            if let Some(guard) = &mut self.guard {
                guard.forget(hierarchy);
            }
        }
    }

    fn write_node_state(&self) {
        if let Some(state) = &self.state {
            state.write(Written::Node(self.node_state.clone()));
        }
    }

    fn reset(&self, why: String) {
        match self.guard.as_ref().map(Guard::watchdog) {
            Some(watchdog) => {
                let (watchdog, inputs) = (watchdog.clone(), self.inputs.clone());
                tokio::spawn(async move {
                    let failed = watchdog.reset(&why).await;
                    let trouble = Some(format!("the node could not be reset: {failed}"));
                    let _ = inputs.send(Input::Trouble { part: "reset".to_owned(), trouble });
                });
            }
            None => self.complain("reset", &format!("the node should be reset and cannot be: no watchdog ({why})")),
        }
    }

    fn fence(&self, node: NodeName, why: String) {
        let Some(fencer) = self.fencer.clone() else { return };
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            let tell = |news| drop(inputs.send(Input::Fencing { node: node.clone(), news }));
            fencer.fence(&node, &why, &tell).await;
        });
    }

    fn tell(&mut self, event: Event) {
        self.timelines.observe(&event);
        if self.recent.len() == EVENTS_KEPT {
            self.recent.pop_front();
        }
        self.recent.push_back(event.clone());
        let _ = self.events.send(event);
    }

    /// What an operation has to wait for.
    fn before(&mut self, operation: Operation, hierarchy: &HierarchyName) -> After {
        match &mut self.guard {
            Some(guard) if operation == Operation::Start && self.engine.is_guarded(hierarchy) => {
                guard.before_start(hierarchy)
            }
            _ => After::Nothing,
        }
    }

    fn hurry_guard(&mut self) {
        if let Some(guard) = &mut self.guard {
            guard.hurry();
        }
    }

    fn feed_watchdog(&mut self) {
        let now = (self.clock)();
        let Some(guard) = self.guard.as_mut().filter(|guard| guard.is_due(now)) else { return };
        let leases = self
            .engine
            .guarded()
            .filter_map(|(name, until)| {
                let parts = self.parts.get(name)?;
                let code = parts.member.hierarchy.resources.iter().zip(&parts.member.resources);
                let handles = code.flat_map(|(spec, code)| {
                    code.handles(&self.work.context(name, &spec.name, Epoch::default(), Duration::ZERO))
                });
                Some(Guarded { hierarchy: name.clone(), until, handles: handles.collect() })
            })
            .collect();
        guard.feed(now, leases);
    }

    async fn shut_down(&mut self) {
        self.carry_out_all();
        if let Some(guard) = &self.guard
            && let Err(failed) = guard.watchdog().disarm().await
        {
            tracing::warn!("the watchdog could not be disarmed: {failed}");
        }
        if let Some(state) = self.state.take() {
            state.finish().await;
        }
        self.engine.end();
        if let Some(recording) = self.recording.take() {
            recording.finish().await;
        }
        let _ = self.ended.send(Ended::ShutDown);
    }

    pub(super) fn runs_here(&self) -> BTreeSet<HierarchyName> {
        self.memory.as_ref().map(|m| m.hierarchies().cloned().collect()).unwrap_or_default()
    }
}

enum Written {
    Hierarchy(HierarchyName, Box<Lasting>),
    Node(NodeState),
}

/// Writes to the state directory, on a thread that may block: a full or dead disk holds up nothing.
struct StateWriter {
    directory: StateDirectory,
    queue: UnboundedSender<Written>,
    task: tokio::task::JoinHandle<()>,
}

impl StateWriter {
    fn start(directory: StateDirectory, inputs: UnboundedSender<Input>) -> Self {
        let (queue, mut waiting) = tokio::sync::mpsc::unbounded_channel();
        let to = directory.clone();
        let task = tokio::task::spawn_blocking(move || {
            let mut was_bad = false;
            while let Some(written) = waiting.blocking_recv() {
                let result = match written {
                    Written::Hierarchy(name, lasting) => to.write_hierarchy(&name, &lasting),
                    Written::Node(state) => to.write_node(&state),
                };
                let trouble = result.err().map(|e| format!("{e}; what operators want would not outlive a reboot"));
                let is_bad = trouble.is_some();
                if is_bad || was_bad {
                    let _ = inputs.send(Input::Trouble { part: "state directory".to_owned(), trouble });
                }
                was_bad = is_bad;
            }
        });
        StateWriter { directory, queue, task }
    }

    fn write(&self, what: Written) {
        let _ = self.queue.send(what);
    }

    /// Waits, not for long, until everything is written.
    async fn finish(self) {
        drop(self.queue);
        let _ = tokio::time::timeout(Duration::from_secs(2), self.task).await;
    }
}
