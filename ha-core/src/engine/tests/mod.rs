//! A cluster of engines in virtual time: a network that can be cut, one truth for every claim, resources that can be told to fail.
//! After every event the invariants S1 to S5 are checked.

mod chaos;
mod commands;
mod crowd;
mod faults;
mod fenced;
mod first;
mod history;
mod leases;
mod recorded;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::claim::{Belief, EarlyFailures, Held, Holder, Holding, Loss, Refusal, Tenure};
use crate::contact::{AnnouncedPhase, Message, Timing};
use crate::hierarchy::{Monitor, Policy, ResourceSpec, Timeouts};
use crate::name::{BootId, ChannelName, ResourceName};
use crate::record::flight::{Flight, Limits};
use crate::recovery::{OpId, Operation, Outcome};

use recorded::Tape;

const ALPHA: &str = "alpha";
const BETA: &str = "beta";
const GAMMA: &str = "gamma";
const NAMES: [&str; 5] = [ALPHA, BETA, GAMMA, "delta", "epsilon"];

/// How long a claim is good without renewal.
const LEASE: Duration = Duration::from_secs(2);
/// How long the storage takes for anything.
const STORAGE: Duration = Duration::from_millis(5);
const NET: Duration = Duration::from_micros(100);

fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn hier(name: &str) -> HierarchyName {
    HierarchyName::new(name).unwrap()
}

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn resource(name: &str, requires: &[usize]) -> ResourceSpec {
    ResourceSpec {
        name: ResourceName::new(name).unwrap(),
        kind: "Fake".to_owned(),
        requires: requires.to_vec(),
        timeouts: Timeouts::default(),
        monitor: Monitor { every: secs(10), unknowns_tolerated: 2 },
        fingerprint: Fingerprint(1),
    }
}

/// A disk, an address, and a server that needs both.
fn web(name: &str, nodes: &[&str]) -> Hierarchy {
    Hierarchy {
        name: hier(name),
        nodes: nodes.iter().map(|n| node(n)).collect(),
        resources: vec![resource("disk", &[]), resource("vip", &[]), resource("server", &[0, 1])],
        policy: Policy { forced_stop_within: ms(500), ..Policy::default() },
        claim: Fingerprint(1),
        fingerprint: Fingerprint(1),
    }
}

/// What an operation does.
#[derive(Clone, Debug)]
enum Act {
    After(Duration, Outcome),
    Never,
}

#[derive(Debug)]
enum News {
    Net { from: NodeName, incarnation: Incarnation, message: Message },
    Acquire { hierarchy: HierarchyName, op: OpId, request: crate::claim::Acquire },
    Inspect { hierarchy: HierarchyName, op: OpId },
    Uphold { hierarchy: HierarchyName, op: OpId, epoch: Epoch },
    Release { hierarchy: HierarchyName, op: OpId, epoch: Epoch, heir: Option<NodeName>, failures: EarlyFailures },
    Ended { hierarchy: HierarchyName, resource: ResourceName, op: OpId, operation: Operation, outcome: Outcome },
    Answer(Box<Input>),
}

/// One truth per hierarchy.
#[derive(Default)]
struct Truth {
    holder: Option<(NodeName, Epoch)>,
    until: Time,
    heir: Option<NodeName>,
    epoch: Epoch,
    failures: EarlyFailures,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// A start was asked for: from then on it may run.
    Starting,
    Running,
}

/// A machine: what its disk, its temporary files and its processes are outlives its agent.
#[derive(Default)]
struct Machine {
    engine: Option<Flight>,
    tape: Tape,
    life: u64,
    boot: u8,
    lasting: BTreeMap<HierarchyName, Lasting>,
    standby: Option<String>,
    recorded: BTreeMap<HierarchyName, Epoch>,
    proven: BTreeMap<TenureOf, Time>,
    parts: BTreeMap<(HierarchyName, ResourceName), Part>,
    operations: BTreeMap<OpId, (HierarchyName, ResourceName, Operation)>,
    events: Vec<Event>,
    answers: BTreeMap<u64, Result<Reply, Refused>>,
    resets: Vec<String>,
    drained: bool,
    storage_cut: bool,
    can_reset: bool,
}

impl Machine {
    fn proven_until(&self, hierarchy: &HierarchyName, lease: Option<&String>) -> Option<Time> {
        let of = lease.map_or_else(|| TenureOf::Hierarchy(hierarchy.clone()), |lease| TenureOf::Lease(lease.clone()));
        self.proven.get(&of).copied()
    }
}

struct Cluster {
    now: Time,
    machines: BTreeMap<NodeName, Machine>,
    hierarchies: BTreeMap<HierarchyName, Hierarchy>,
    /// A definition that differs on one node.
    odd: BTreeMap<(NodeName, HierarchyName), Hierarchy>,
    wire: BTreeMap<(Time, u64), (NodeName, u64, News)>,
    sequence: u64,
    cut: BTreeSet<(NodeName, NodeName)>,
    lost_percent: u64,
    truths: BTreeMap<HierarchyName, Truth>,
    /// (node or "*", hierarchy or "*", resource, operation)
    acts: BTreeMap<(String, String, String, &'static str), Act>,
    random: u64,
    max_recoveries: usize,
    /// Whoever believes that a holder is gone takes its claim at once, as with reservations.
    revocable: bool,
    /// Nodes that others have fenced by themselves.
    fences: BTreeSet<NodeName>,
    /// Who had whom fenced, and why.
    fencings: Vec<(NodeName, NodeName, String)>,
    /// The claims live on a shared lease of this name.
    lease: Option<String>,
    starts_at_once: usize,
    started_order: Vec<(NodeName, HierarchyName)>,
    commands: u64,
    served: BTreeMap<HierarchyName, Epoch>,
    steps: u64,
    work: Work,
}

/// How much the engines of a cluster had to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Work {
    timeouts: u64,
    effects: u64,
    messages: u64,
    message_bytes: usize,
}

impl Cluster {
    fn new(hierarchies: impl IntoIterator<Item = Hierarchy>) -> Self {
        Cluster {
            now: Time::ZERO + secs(1),
            machines: BTreeMap::new(),
            hierarchies: hierarchies.into_iter().map(|h| (h.name.clone(), h)).collect(),
            odd: BTreeMap::new(),
            wire: BTreeMap::new(),
            sequence: 0,
            cut: BTreeSet::new(),
            lost_percent: 0,
            truths: BTreeMap::new(),
            acts: BTreeMap::new(),
            random: 0x9e37_79b9_7f4a_7c15,
            max_recoveries: 64,
            revocable: false,
            fences: BTreeSet::new(),
            fencings: Vec::new(),
            lease: None,
            starts_at_once: 0,
            started_order: Vec::new(),
            commands: 0,
            served: BTreeMap::new(),
            steps: 0,
            work: Work::default(),
        }
    }

    /// The first `count` nodes with one hierarchy "web" that lists them all, in service on alpha.
    fn serving(count: usize) -> Self {
        let mut cluster = Cluster::new([web("web", &NAMES[..count])]);
        cluster.power_on_all(&NAMES[..count]);
        cluster.until("web is in service on alpha", |c| c.serves(ALPHA, "web"));
        cluster.run(secs(40));
        cluster
    }

    fn power_on_all(&mut self, names: &[&str]) {
        for name in names {
            self.machines.insert(node(name), Machine::default());
        }
        for name in names {
            self.power_on(name);
        }
    }

    fn power_on(&mut self, name: &str) {
        let machine = self.machines.get_mut(&node(name)).unwrap();
        machine.boot += 1;
        self.start_agent(name);
    }

    /// The agent starts with what the machine remembers.
    fn start_agent(&mut self, name: &str) {
        let me = node(name);
        let nodes: Vec<NodeName> = self.machines.keys().cloned().collect();
        let machine = self.machines.get_mut(&me).unwrap();
        machine.life += 1;
        machine.drained = false;
        let contact = ContactConfig {
            me: me.clone(),
            boot: BootId([machine.boot; 16]),
            nodes,
            timing: Timing::default(),
            channels: BTreeMap::new(),
        };
        let config = EngineConfig {
            cluster: ClusterName::new("shop").unwrap(),
            contact,
            incarnation: Incarnation(machine.life),
            version: "1".to_owned(),
            definition: Fingerprint(1),
            max_recoveries: self.max_recoveries,
            can_reset: machine.can_reset,
            standby: machine.standby.clone(),
            fences: self.fences.clone(),
        };
        let limits = Limits { segment_bytes: 16 << 10 };
        let mut engine = Flight::new(config, self.now, Some((Box::new(machine.tape.clone()), limits))).unwrap();
        for hierarchy in self.hierarchies.values() {
            let hierarchy = self.odd.get(&(me.clone(), hierarchy.name.clone())).unwrap_or(hierarchy);
            if !hierarchy.nodes.contains(&me) {
                continue;
            }
            let joining = Joining {
                hierarchy: Arc::new(hierarchy.clone()),
                lease: self.lease.clone(),
                lasting: machine.lasting.get(&hierarchy.name).cloned().unwrap_or_default(),
                running: machine.recorded.get(&hierarchy.name).copied(),
                proven_until: machine.proven_until(&hierarchy.name, self.lease.as_ref()),
                probed: false,
            };
            engine.call(self.now, Call::Join(joining));
        }
        machine.engine = Some(engine);
        self.carry(&me);
    }

    /// The agent is gone; what runs goes on running.
    fn kill_agent(&mut self, name: &str) {
        let machine = self.machines.get_mut(&node(name)).unwrap();
        machine.engine = None;
        machine.operations.clear();
    }

    fn power_off(&mut self, name: &str) {
        self.kill_agent(name);
        let machine = self.machines.get_mut(&node(name)).unwrap();
        machine.recorded.clear();
        machine.proven.clear();
        machine.parts.clear();
    }

    fn cut(&mut self, one: &str, other: &str) {
        self.cut.insert((node(one), node(other)));
        self.cut.insert((node(other), node(one)));
    }

    fn cut_all(&mut self) {
        let names: Vec<NodeName> = self.machines.keys().cloned().collect();
        for one in &names {
            for other in &names {
                self.cut.insert((one.clone(), other.clone()));
            }
        }
    }

    fn heal(&mut self) {
        self.cut.clear();
        self.lost_percent = 0;
        for machine in self.machines.values_mut() {
            machine.storage_cut = false;
        }
    }

    /// From now on the operation does this. `"*"` stands for every node or hierarchy.
    fn act(&mut self, at: &str, hierarchy: &str, resource: &str, operation: Operation, act: Act) {
        self.acts.insert((at.to_owned(), hierarchy.to_owned(), resource.to_owned(), operation.word()), act);
    }

    fn fails(&mut self, at: &str, resource: &str, operation: Operation) {
        self.act(at, "*", resource, operation, Act::After(ms(10), Outcome::Bad("broken".to_owned())));
    }

    fn mend(&mut self) {
        self.acts.clear();
    }

    fn engine(&self, name: &str) -> &Engine {
        self.machines[&node(name)].engine.as_ref().expect("the agent runs")
    }

    fn entry(&self, at: &str, name: &str) -> &Entry {
        &self.engine(at).entries[&hier(name)]
    }

    fn phase(&self, at: &str, name: &str) -> AnnouncedPhase {
        self.entry(at, name).life.announced_phase()
    }

    fn serves(&self, at: &str, name: &str) -> bool {
        self.machines[&node(at)].engine.as_ref().is_some_and(|e| {
            e.entries.get(&hier(name)).is_some_and(|e| e.life.announced_phase() == AnnouncedPhase::InService)
        })
    }

    /// Where a hierarchy is in service.
    fn places(&self, name: &str) -> Vec<&str> {
        self.machines.keys().map(NodeName::as_str).filter(|n| self.serves(n, name)).collect()
    }

    fn why(&self, at: &str, name: &str) -> String {
        let entry = self.entry(at, name);
        let facts: Vec<String> = entry.judgement.facts.iter().map(ToString::to_string).collect();
        format!("{}: {} ({})", entry.judgement.standing, facts.join("; "), entry.life.detail.as_deref().unwrap_or(""))
    }

    /// Gives a command to a node; the number under which it will be answered.
    fn command(&mut self, at: &str, to: Option<&str>, what: Ask) -> u64 {
        self.commands += 1;
        let id = self.commands;
        let command = Command { what, by: "root@test".to_owned(), reason: String::new() };
        self.input(at, Input::Command { id: CommandId(id), to: to.map(node), command });
        id
    }

    fn answer(&self, at: &str, id: u64) -> Option<&Result<Reply, Refused>> {
        self.machines[&node(at)].answers.get(&id)
    }

    fn accepted(&mut self, at: &str, what: Ask) {
        let id = self.command(at, None, what);
        self.until("the command is answered", |c| c.answer(at, id).is_some());
        assert!(matches!(self.answer(at, id), Some(Ok(_))), "{:?}", self.answer(at, id));
    }

    fn refused(&mut self, at: &str, what: Ask) -> String {
        let id = self.command(at, None, what);
        self.until("the command is answered", |c| c.answer(at, id).is_some());
        match self.answer(at, id) {
            Some(Err(refused)) => refused.to_string(),
            other => panic!("{other:?}"),
        }
    }

    fn input(&mut self, at: &str, input: Input) {
        let now = self.now;
        if let Some(engine) = self.machines.get_mut(&node(at)).and_then(|m| m.engine.as_mut()) {
            engine.call(now, Call::Handle(input));
            self.carry(&node(at));
        }
    }

    fn events(&self, at: &str, name: &str) -> Vec<String> {
        let events = &self.machines[&node(at)].events;
        events.iter().filter(|e| e.hierarchy.as_ref() == Some(&hier(name))).map(|e| e.what.to_string()).collect()
    }

    fn forget_events(&mut self) {
        self.machines.values_mut().for_each(|m| m.events.clear());
    }

    fn run(&mut self, length: Duration) {
        let end = self.now + length;
        while self.next().is_some_and(|next| next <= end) {
            self.step();
        }
        self.now = end;
    }

    /// Runs until something is so; two minutes are too long for anything.
    fn until(&mut self, what: &str, so: impl Fn(&Cluster) -> bool) {
        let end = self.now + secs(120);
        while !so(self) {
            assert!(self.next().is_some_and(|next| next <= end), "within two minutes: {what}\n{}", self.picture());
            self.step();
        }
    }

    /// Everything an error needs to show.
    fn picture(&self) -> String {
        let mut lines = vec![format!("at {}", self.now)];
        for (name, machine) in &self.machines {
            let Some(engine) = &machine.engine else {
                lines.push(format!("{name}: off"));
                continue;
            };
            for hierarchy in engine.entries.keys().take(3) {
                let phase = self.phase(name.as_str(), hierarchy.as_str());
                lines.push(format!("{name} {hierarchy}: {phase}; {}", self.why(name.as_str(), hierarchy.as_str())));
            }
            let last = machine.events.iter().rev().take(12).rev();
            lines.extend(last.map(|e| {
                format!("    {} {} {}", e.at, e.hierarchy.as_ref().map_or("", HierarchyName::as_str), e.what)
            }));
        }
        for (name, truth) in self.truths.iter().take(3) {
            lines.push(format!("claim of {name}: {:?}, until {}, heir {:?}", truth.holder, truth.until, truth.heir));
        }
        lines.join("\n")
    }

    fn next(&self) -> Option<Time> {
        let engines = self.machines.values().filter_map(|m| m.engine.as_ref()).filter_map(|e| e.next_deadline());
        engines.chain(self.wire.keys().next().map(|(at, _)| *at)).min().map(|at| at.max(self.now))
    }

    fn step(&mut self) {
        let Some(next) = self.next() else { return };
        self.now = next;
        self.steps += 1;
        if let Some(first) = self.wire.first_entry().filter(|first| first.key().0 <= next) {
            let (to, life, news) = first.remove();
            self.happens(&to, life, news);
        }
        for name in self.machines.keys().cloned().collect::<Vec<_>>() {
            let Some(engine) = self.machines.get_mut(&name).and_then(|m| m.engine.as_mut()) else { continue };
            if engine.next_deadline().is_some_and(|at| at <= next) {
                engine.call(next, Call::Timeout);
                self.work.timeouts += 1;
                self.carry(&name);
            }
        }
    }

    fn later(&mut self, after: Duration, to: &NodeName, life: u64, news: News) {
        self.sequence += 1;
        self.wire.insert((self.now + after, self.sequence), (to.clone(), life, news));
    }

    fn happens(&mut self, at: &NodeName, life: u64, news: News) {
        let now = self.now;
        let machine = &self.machines[at];
        if machine.life != life || machine.engine.is_none() {
            return;
        }
        let input = match news {
            News::Net { from, incarnation, message } => {
                let channel = ChannelName::new("net").unwrap();
                Some(Input::Received { channel, from, incarnation, message })
            }
            News::Ended { hierarchy, resource, op, operation, outcome } => {
                self.ended(at, &hierarchy, &resource, op, operation, &outcome);
                Some(Input::Operated { hierarchy, op, outcome })
            }
            News::Answer(input) => Some(*input),
            asked => {
                let answer = self.storage(at, asked);
                self.later(STORAGE, at, life, News::Answer(Box::new(answer)));
                None
            }
        };
        if let Some(input) = input {
            let engine = self.machines.get_mut(at).and_then(|m| m.engine.as_mut()).unwrap();
            engine.call(now, Call::Handle(input));
            self.carry(at);
        }
    }

    /// What the arbiter says.
    fn storage(&mut self, me: &NodeName, asked: News) -> Input {
        let now = self.now;
        let cut = self.machines[me].storage_cut;
        let unreachable = || Refusal::Unreachable("no path to the device".to_owned());
        match asked {
            News::Acquire { hierarchy, op, request } => {
                let truth = self.truths.entry(hierarchy.clone()).or_default();
                if truth.until <= now {
                    truth.holder = None;
                }
                let taken = match (&truth.holder, &truth.heir) {
                    (Some((holder, _)), _)
                        if self.revocable
                            && matches!(request.beliefs.get(holder), Some(Belief::Gone | Belief::Fenced { .. })) =>
                    {
                        None
                    }
                    (Some((holder, _)), _) if holder != me => Some(holder.clone()),
                    (None, Some(heir)) if heir != me && truth.until > now => Some(heir.clone()),
                    _ => None,
                };
                let answer = if cut {
                    Err(unreachable())
                } else if let Some(holder) = taken {
                    let epoch = truth.epoch;
                    Err(Refusal::Held {
                        holder,
                        epoch,
                        why: "its lease is good".to_owned(),
                        retry_at: Some(truth.until),
                    })
                } else {
                    let stands = truth.holder.as_ref().is_some_and(|(_, e)| Some(*e) == request.adopt);
                    if !stands {
                        truth.epoch = truth.epoch.max(request.known).next();
                    }
                    truth.holder = Some((me.clone(), truth.epoch));
                    truth.heir = None;
                    truth.until = now + LEASE;
                    Ok(Held { epoch: truth.epoch, tenure: Tenure::Until(now + LEASE), failures: truth.failures })
                };
                Input::Acquired { hierarchy, op, answer }
            }
            News::Inspect { hierarchy, op } => {
                let truth = self.truths.entry(hierarchy.clone()).or_default();
                let holder = truth
                    .holder
                    .as_ref()
                    .filter(|_| truth.until > now)
                    .map(|(holder, _)| if holder == me { Holder::Me } else { Holder::Node(holder.clone()) });
                let holding = Holding { holder, epoch: truth.epoch, failures: truth.failures };
                Input::Inspected { hierarchy, op, answer: if cut { Err(unreachable()) } else { Ok(holding) } }
            }
            News::Uphold { hierarchy, op, epoch } => {
                let truth = self.truths.entry(hierarchy.clone()).or_default();
                let mine = truth.holder == Some((me.clone(), epoch)) && truth.until > now;
                let answer = if cut {
                    Err(Loss::unproven("no path to the device"))
                } else if mine {
                    truth.until = now + LEASE;
                    Ok(Tenure::Until(now + LEASE))
                } else {
                    Err(Loss::Taken(format!("{:?}", truth.holder)))
                };
                Input::Upheld { hierarchy, op, answer }
            }
            News::Release { hierarchy, op, epoch, heir, failures } => {
                let truth = self.truths.entry(hierarchy.clone()).or_default();
                let answer = if cut { Err(unreachable()) } else { Ok(()) };
                if !cut && truth.holder == Some((me.clone(), epoch)) {
                    *truth = Truth { heir, failures, epoch: truth.epoch, until: now + LEASE, holder: None };
                }
                Input::Released { hierarchy, op, answer }
            }
            News::Net { .. } | News::Ended { .. } | News::Answer(_) => unreachable!("not for the storage"),
        }
    }

    fn ended(
        &mut self,
        at: &NodeName,
        hierarchy: &HierarchyName,
        resource: &ResourceName,
        op: OpId,
        operation: Operation,
        outcome: &Outcome,
    ) {
        let machine = self.machines.get_mut(at).unwrap();
        if machine.operations.remove(&op).is_none() {
            return;
        }
        let part = (hierarchy.clone(), resource.clone());
        match (operation, outcome) {
            (Operation::Start, Outcome::Good) => {
                machine.parts.insert(part, Part::Running);
            }
            (Operation::Stop | Operation::Kill, Outcome::Good) => {
                machine.parts.remove(&part);
            }
            _ => {}
        }
    }

    /// Carries out what an engine wants done.
    fn carry(&mut self, name: &NodeName) {
        while let Some(effect) = self.machines.get_mut(name).and_then(|m| m.engine.as_mut()?.poll_effect()) {
            self.work.effects += 1;
            if let Effect::Send(transmit) = &effect {
                let mut bytes = Vec::new();
                transmit.message.encode(&mut bytes);
                self.work.messages += 1;
                self.work.message_bytes += bytes.len();
            }
            self.effect(name, effect);
        }
        if let Some(engine) = self.machines.get_mut(name).and_then(|m| m.engine.as_mut()) {
            engine.flush();
        }
    }

    fn effect(&mut self, me: &NodeName, effect: Effect) {
        let machine = self.machines.get_mut(me).unwrap();
        let life = machine.life;
        let news = match effect {
            Effect::Send(transmit) => {
                if !self.cut.contains(&(me.clone(), transmit.to.clone())) && !self.chance(self.lost_percent) {
                    let to_life = self.machines[&transmit.to].life;
                    let incarnation = self.machines[me].engine.as_ref().unwrap().contact.incarnation();
                    let news = News::Net { from: me.clone(), incarnation, message: transmit.message };
                    self.later(NET, &transmit.to, to_life, news);
                }
                return;
            }
            Effect::Acquire { hierarchy, op, request } => News::Acquire { hierarchy, op, request },
            Effect::Inspect { hierarchy, op } => News::Inspect { hierarchy, op },
            Effect::Uphold { hierarchy, op, epoch } => News::Uphold { hierarchy, op, epoch },
            Effect::Release { hierarchy, op, epoch, heir, failures } => {
                // S5
                let left: Vec<_> = machine.parts.keys().filter(|(h, _)| *h == hierarchy).collect();
                assert!(left.is_empty(), "S5: {me} releases {hierarchy} while {left:?} may run");
                News::Release { hierarchy, op, epoch, heir, failures }
            }
            Effect::Operate { hierarchy, resource, op, operation, epoch, .. } => {
                self.operate(me, life, hierarchy, resource, op, operation, epoch);
                return;
            }
            Effect::Cancel { op } => {
                machine.operations.remove(&op);
                self.wire.retain(|_, (to, _, news)| {
                    !(to == me && matches!(news, News::Ended { op: ended, .. } if *ended == op))
                });
                return;
            }
            Effect::RememberRunning { hierarchy, epoch: Some(epoch) } => {
                machine.recorded.insert(hierarchy, epoch);
                return;
            }
            Effect::RememberTenure { of, until } => {
                machine.proven.insert(of, until);
                return;
            }
            Effect::RememberRunning { hierarchy, epoch: None } => {
                machine.recorded.remove(&hierarchy);
                return;
            }
            Effect::RememberLasting { hierarchy, lasting } => {
                machine.lasting.insert(hierarchy, lasting);
                return;
            }
            Effect::RememberStandby(why) => {
                machine.standby = why;
                return;
            }
            Effect::Reset { why } => {
                machine.resets.push(why);
                return;
            }
            Effect::Fence { node, why } => {
                self.fencings.push((me.clone(), node, why));
                return;
            }
            Effect::Tell(event) => {
                if let (Some(hierarchy), Happened::InService { epoch, .. }) = (&event.hierarchy, &event.what) {
                    let before = self.served.insert(hierarchy.clone(), *epoch).unwrap_or_default();
                    assert!(*epoch >= before, "S4: {hierarchy} is served under {epoch} after {before}");
                }
                machine.events.push(event);
                return;
            }
            Effect::Answer { id, result } => {
                machine.answers.insert(id.0, result);
                return;
            }
            Effect::Drained => {
                machine.drained = true;
                return;
            }
            Effect::Watch { .. } | Effect::Unwatch { .. } | Effect::Reincarnate(_) => return,
        };
        self.later(Duration::ZERO, me, life, news);
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one effect")]
    fn operate(
        &mut self,
        me: &NodeName,
        life: u64,
        hierarchy: HierarchyName,
        resource: ResourceName,
        op: OpId,
        operation: Operation,
        epoch: Epoch,
    ) {
        let machine = self.machines.get_mut(me).unwrap();
        let part = (hierarchy.clone(), resource.clone());
        let busy = machine.operations.values().find(|(h, r, _)| *h == hierarchy && *r == resource);
        // A kill may run beside what hangs.
        let alone = busy.is_none() || operation == Operation::Kill;
        assert!(alone, "{operation:?} of {hierarchy}/{resource} on {me} beside {busy:?}");
        machine.operations.insert(op, (hierarchy.clone(), resource.clone(), operation));
        let resources = &self.hierarchies[&hierarchy].resources;
        let index = resources.iter().position(|r| r.name == resource).unwrap();
        let name_of = |i: usize| (hierarchy.clone(), resources[i].name.clone());
        match operation {
            Operation::Start => {
                let truth = &self.truths[&hierarchy];
                assert_eq!(truth.holder, Some((me.clone(), epoch)), "S2: start of {hierarchy}/{resource} on {me}");
                for required in &resources[index].requires {
                    let state = machine.parts.get(&name_of(*required));
                    assert_eq!(state, Some(&Part::Running), "S3: {resource} starts before {:?}", name_of(*required));
                }
                machine.parts.insert(part, Part::Starting);
                for (other, there) in self.machines.iter().filter(|(name, _)| *name != me) {
                    let runs = there.parts.keys().find(|(h, _)| *h == hierarchy);
                    assert_eq!(runs, None, "S1: may run on {other} while it starts on {me}\n{}", self.picture());
                }
                self.started_order.push((me.clone(), hierarchy.clone()));
            }
            Operation::Stop => {
                for dependent in resources.iter().filter(|r| r.requires.contains(&index)) {
                    let above = machine.parts.get(&(hierarchy.clone(), dependent.name.clone()));
                    assert_eq!(above, None, "S3: {resource} stops before {}", dependent.name);
                }
            }
            Operation::Kill | Operation::Monitor | Operation::Adopt => {}
        }
        let machine = &self.machines[me];
        let at_once: BTreeSet<&HierarchyName> =
            machine.operations.values().filter(|o| o.2 == Operation::Start).map(|o| &o.0).collect();
        self.starts_at_once = self.starts_at_once.max(at_once.len());
        let runs = machine.parts.get(&(hierarchy.clone(), resource.clone())) == Some(&Part::Running);
        let usual = match operation {
            Operation::Start => Act::After(ms(20), Outcome::Good),
            Operation::Stop => Act::After(ms(10), Outcome::Good),
            Operation::Kill => Act::After(ms(5), Outcome::Good),
            Operation::Monitor | Operation::Adopt if runs => Act::After(ms(2), Outcome::Good),
            Operation::Monitor | Operation::Adopt => Act::After(ms(2), Outcome::Bad("does not run".to_owned())),
        };
        let names = [(me.as_str(), hierarchy.as_str()), (me.as_str(), "*"), ("*", hierarchy.as_str()), ("*", "*")];
        let key = |(n, h): (&str, &str)| (n.to_owned(), h.to_owned(), resource.to_string(), operation.word());
        let act = names.into_iter().find_map(|pair| self.acts.get(&key(pair)).cloned()).unwrap_or(usual);
        if let Act::After(after, outcome) = act {
            self.later(after, me, life, News::Ended { hierarchy, resource, op, operation, outcome });
        }
    }

    fn chance(&mut self, percent: u64) -> bool {
        percent > 0 && self.draw() % 100 < percent
    }

    /// xorshift64 (Marsaglia 2003).
    fn draw(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}
