//! The nodes and their disks, and how time passes for them.

mod faults;
mod verdict;

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use crate::claim::reservation::device::{Command, Failure, PathName, ReservationType, UnitAttention};
use crate::claim::reservation::key::Keyring;
use crate::claim::reservation::machine::{CommandId, Config, Effect, Input, Machine, Request, RequestId};
use crate::claim::reservation::timing::ReservationTiming;
use crate::claim::{Acquire, Belief, Loss};
use crate::name::{ClusterName, Epoch, NodeName};
use crate::sim::scsi::{Device, First, Lba, Nexus, Reply, Request as Ask, Stamp, Store, Target, TaskId};
use crate::time::Time;

const MS: u64 = 1_000_000;
const LIMIT: u64 = 1_500 * MS;

/// What a run is of.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    seed: u64,
    nodes: usize,
    devices: usize,
    ports: u16,
    target: Target,
    /// Nothing fails but nodes, so nothing excuses a node that is preempted, or a loser that stays.
    calm: bool,
    /// Devices lose power.
    power: bool,
}

impl Plan {
    pub(super) fn of(seed: u64) -> Plan {
        let mut rng = Rng(seed ^ 0x5ca1_ab1e);
        let ports = 1 + rng.below(2) as u16;
        let count = NonZeroU16::new(ports).unwrap();
        let standard = Target::standard(count);
        let target = match rng.below(6) {
            0 => Target::lio(count),
            1 => Target::tgt(count),
            2 => Target { store: Store::Fails, ..Target::lio(count) },
            3 => Target { first: First::Conflict, tells_preempted: None, ..standard },
            4 => Target { tells_preempted: Some(UnitAttention::ReservationsPreempted), ..standard },
            _ => standard,
        };
        let (nodes, devices) = (2 + rng.below(4) as usize, 1 + rng.below(3) as usize);
        Plan { seed, nodes, devices, ports, target, calm: seed.is_multiple_of(3), power: rng.below(2) == 0 }
    }
}

/// What happened in a run.
#[derive(Clone, Debug, Default)]
pub(super) struct Stats {
    pub(super) acquired: u64,
    pub(super) takeovers: u64,
    pub(super) defended: u64,
    pub(super) raced: u64,
    pub(super) adopted: u64,
    pub(super) lost: u64,
    pub(super) writes: u64,
}

impl Stats {
    pub(super) fn add(&mut self, other: &Stats) {
        self.acquired += other.acquired;
        self.takeovers += other.takeovers;
        self.defended += other.defended;
        self.raced += other.raced;
        self.adopted += other.adopted;
        self.lost += other.lost;
        self.writes += other.writes;
    }
}

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

/// What a node waits for an answer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Take,
    Release,
}

struct Node {
    machine: Machine,
    up: bool,
    life: u64,
    offset: u64,
    /// Local nanoseconds for 1,000 of the world's.
    rate: u64,
    /// Its agent stands still; what it runs goes on.
    paused_until: u64,
    asked: Option<(RequestId, Asked)>,
    /// Resources run under this epoch.
    runs: Option<Epoch>,
    /// What it recorded to run, which an agent that is restarted finds: until it is given up.
    recorded: Option<Epoch>,
    /// Its agent died: what is recorded has to be proven again.
    recalled: bool,
    /// It had the arbiter since it asked.
    had_arbiter: bool,
    /// When something last went wrong with it, or with its way to the disks.
    disturbed: u64,
    /// What it was asked to release last.
    released: Epoch,
    /// It ran something without having the claim when a device forgot whom it keeps out.
    excused: bool,
    /// The greatest epoch that it had, which it keeps.
    record: Epoch,
    asked_at: u64,
    /// It was registered nowhere when it asked.
    clean: bool,
    /// What it wrote and was not answered yet.
    writes: Vec<(usize, TaskId)>,
}

enum Event {
    Arrive { node: usize, life: u64, device: usize, port: u16, id: CommandId, command: Command, lost: bool },
    Execute { node: usize, life: u64, device: usize, task: TaskId, id: CommandId, lost: bool },
    Deliver { node: usize, life: u64, input: Input },
    Overdue { node: usize, life: u64, id: CommandId },
    Tick { node: usize, life: u64 },
    Begin { device: usize, task: TaskId },
    Land { node: usize, device: usize, task: TaskId },
    Engine { node: usize },
    ReleaseAgain { node: usize, life: u64 },
    AgentDies { node: usize, life: u64 },
    Reconnect { node: usize, device: usize, port: u16 },
    PowerUp { device: usize },
    Act,
}

pub(super) struct World {
    plan: Plan,
    now: u64,
    order: u64,
    events: BTreeMap<(u64, u64), Event>,
    devices: Vec<Device>,
    nodes: Vec<Node>,
    keyring: Keyring,
    rng: Rng,
    /// Who was told last that it has the claim, and its epoch.
    tenant: Option<(usize, Epoch)>,
    greatest: Epoch,
    /// What nobody can read from a device any more.
    forgotten: Epoch,
    forgotten_at: u64,
    /// Who has each device.
    held: Vec<Option<usize>>,
    next: u64,
    faults: bool,
    acts: bool,
    stats: Stats,
    said: bool,
}

fn name(i: usize) -> NodeName {
    NodeName::new(format!("n{i}")).unwrap()
}

fn path(port: u16) -> PathName {
    PathName::new(port.to_string())
}

impl World {
    fn new(plan: Plan) -> World {
        let keyring = Keyring::new(&ClusterName::new("sim").unwrap(), (0..plan.nodes).map(name)).unwrap();
        let mut world = World {
            now: 1_000 * MS,
            order: 0,
            events: BTreeMap::new(),
            devices: (0..plan.devices).map(|_| Device::new(plan.target.clone())).collect(),
            nodes: Vec::new(),
            keyring,
            rng: Rng(plan.seed),
            tenant: None,
            greatest: Epoch::ZERO,
            forgotten: Epoch::ZERO,
            forgotten_at: 0,
            held: vec![None; plan.devices],
            next: 0,
            faults: !plan.calm,
            acts: true,
            stats: Stats::default(),
            said: std::env::var("RESERVATION_SEED").is_ok(),
            plan,
        };
        for i in 0..world.plan.nodes {
            let (offset, rate) = (world.rng.below(1 << 40), 995 + world.rng.below(11));
            let machine = world.machine(i);
            world.nodes.push(Node {
                machine,
                up: true,
                life: 1,
                offset,
                rate,
                paused_until: 0,
                asked: None,
                runs: None,
                recorded: None,
                recalled: false,
                had_arbiter: false,
                disturbed: 0,
                released: Epoch::ZERO,
                excused: false,
                record: Epoch::ZERO,
                asked_at: 0,
                clean: true,
                writes: Vec::new(),
            });
            world.connect_all(i);
            world.begin(i);
            world.at(world.now, Event::Engine { node: i });
        }
        world.at(world.now, Event::Act);
        world
    }

    fn say(&self, what: impl FnOnce() -> String) {
        if self.said {
            println!("{:>8.3} {}", self.now as f64 / 1e9, what());
        }
    }

    fn machine(&self, i: usize) -> Machine {
        Machine::new(Config {
            keyring: self.keyring.clone(),
            me: self.keyring.number_of(&name(i)).unwrap(),
            kind: ReservationType::WriteExclusiveRegistrantsOnly,
            timing: ReservationTiming::default(),
            devices: (0..self.plan.devices).map(|d| (format!("disk{d}"), Duration::from_nanos(LIMIT))).collect(),
        })
    }

    fn nexus(node: usize, port: u16) -> Nexus {
        Nexus { initiator: node as u16 + 1, port }
    }

    fn nexuses(&self, node: usize) -> impl Iterator<Item = Nexus> + use<> {
        (1..=self.plan.ports).map(move |port| World::nexus(node, port))
    }

    fn connect_all(&mut self, node: usize) {
        for nexus in self.nexuses(node) {
            for device in &mut self.devices {
                device.connect(nexus);
            }
        }
    }

    /// A machine that has just been made is told of its paths.
    fn begin(&mut self, node: usize) {
        for device in 0..self.plan.devices {
            let names = (1..=self.plan.ports).map(path).collect();
            self.feed(node, Input::Paths(device, names));
        }
    }

    fn at(&mut self, when: u64, event: Event) {
        self.order += 1;
        self.events.insert((when.max(self.now), self.order), event);
    }

    fn local(&self, node: usize) -> Time {
        let n = &self.nodes[node];
        Time(n.offset + self.now / 1_000 * n.rate)
    }

    fn latency(&mut self) -> u64 {
        if self.faults && self.rng.below(80) == 0 {
            return self.rng.below(2 * LIMIT);
        }
        MS / 5 + self.rng.below(4 * MS)
    }

    fn feed(&mut self, node: usize, input: Input) {
        let (now, life) = (self.local(node), self.nodes[node].life);
        self.nodes[node].machine.handle(now, input);
        while let Some(effect) = self.nodes[node].machine.poll_effect() {
            self.say(|| format!("n{node}: {effect}"));
            match effect {
                Effect::Send { id, device, path, command } => {
                    let port = path.as_str().parse().unwrap();
                    let rarely = if matches!(command, Command::Preempt { .. }) { 8 } else { 150 };
                    let lost = self.faults && self.rng.below(rarely) == 0;
                    let when = self.now + self.latency();
                    if when > self.now + 100 * MS || lost {
                        self.nodes[node].disturbed = self.now + LIMIT * 2;
                    }
                    if !(lost && self.rng.below(2) == 0) {
                        self.at(when, Event::Arrive { node, life, device, port, id, command, lost });
                    }
                    self.at(self.now + LIMIT, Event::Overdue { node, life, id });
                }
                Effect::Reply(id, reply) => self.replied(node, id, reply),
            }
        }
        if let Some(due) = self.nodes[node].machine.next_deadline() {
            let n = &self.nodes[node];
            let when = due.0.saturating_sub(n.offset).div_ceil(n.rate) * 1_000;
            self.at(when.max(self.now + 1_000), Event::Tick { node, life });
        }
    }

    fn ask(&mut self, node: usize, asked: Asked) {
        self.next += 1;
        let id = RequestId(self.next);
        self.nodes[node].asked = Some((id, asked));
        let request = match asked {
            Asked::Take => {
                self.nodes[node].asked_at = self.now;
                self.nodes[node].clean = !self.is_registered(node);
                self.nodes[node].had_arbiter = self.holder(0) == Some(node);
                let mut beliefs = BTreeMap::new();
                for other in 0..self.plan.nodes {
                    let belief = match (self.nodes[other].up, self.rng.below(12)) {
                        (false, 0..6) => Belief::Gone,
                        (true, 0) => Belief::Heard,
                        _ => Belief::Lost,
                    };
                    beliefs.insert(name(other), belief);
                }
                let known = if self.rng.below(2) == 0 { self.greatest } else { self.forgotten };
                let known = known.max(self.nodes[node].record);
                let adopt = self.nodes[node].recorded.filter(|_| self.nodes[node].recalled);
                Request::Acquire(Acquire { beliefs: Arc::new(beliefs), known, adopt })
            }
            Asked::Release => Request::Release(self.nodes[node].released),
        };
        self.say(|| format!("n{node} is asked: {request:?}"));
        self.feed(node, Input::Ask(id, request));
    }

    fn step(&mut self) {
        let ((when, _), event) = self.events.pop_first().unwrap();
        self.now = when;
        match event {
            Event::Arrive { node, life, device, port, id, command, lost } => {
                self.arrive(node, life, device, port, id, command, lost);
            }
            Event::Execute { node, life, device, task, id, lost } => {
                let held = self.holder(device) == Some(node);
                let answer = self.devices[device].execute(task);
                let runs = self.nodes[node].runs.filter(|_| !self.nodes[node].recalled);
                if let (true, Some(epoch), None) = (held, runs, self.holder(device)) {
                    self.fail(format!("n{node} gives disk{device} up, and has the claim, epoch {epoch}"));
                }
                self.say(|| format!("disk{device}: n{node} #{}: {answer:?}", id.0));
                self.check_order(node);
                if let (Some(answer), false) = (answer, lost) {
                    let input = Input::Answered(
                        id,
                        answer.map(|reply| match reply {
                            Reply::Reservation(answer) => answer,
                            other => panic!("{other:?}"),
                        }),
                    );
                    let when = self.now + self.latency() / 2;
                    self.at(when, Event::Deliver { node, life, input });
                }
            }
            Event::Deliver { node, life, input } => {
                let n = &self.nodes[node];
                if !n.up || n.life != life {
                    return;
                }
                if n.paused_until > self.now {
                    return self.at(self.nodes[node].paused_until, Event::Deliver { node, life, input });
                }
                self.feed(node, input);
            }
            Event::Overdue { node, life, id } => {
                self.at(self.now, Event::Deliver { node, life, input: Input::Answered(id, Err(Failure::NoAnswer)) });
            }
            Event::Tick { node, life } => {
                let n = &self.nodes[node];
                if !n.up || n.life != life {
                    return;
                }
                if n.paused_until > self.now {
                    return self.at(self.nodes[node].paused_until, Event::Tick { node, life });
                }
                if n.machine.next_deadline().is_some_and(|due| due <= self.local(node)) {
                    self.feed(node, Input::Tick);
                }
            }
            Event::Begin { device, task } => {
                self.devices[device].begin(task);
            }
            Event::Land { node, device, task } => self.land(node, device, task),
            Event::Engine { node } => self.engine(node),
            Event::ReleaseAgain { node, life } => {
                if self.nodes[node].up && self.nodes[node].life == life {
                    self.ask(node, Asked::Release);
                }
            }
            Event::AgentDies { node, life } => {
                if self.nodes[node].up && self.nodes[node].life == life {
                    self.agent_dies(node);
                }
            }
            Event::Reconnect { node, device, port } => {
                self.devices[device].connect(World::nexus(node, port));
                let n = &self.nodes[node];
                if n.up && n.paused_until <= self.now {
                    let names = (1..=self.plan.ports).map(path).collect();
                    self.feed(node, Input::Paths(device, names));
                }
            }
            Event::PowerUp { device } => {
                self.devices[device].restore_power();
                for node in 0..self.plan.nodes {
                    for nexus in self.nexuses(node) {
                        self.devices[device].connect(nexus);
                    }
                }
            }
            Event::Act => self.act(),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "all of one event")]
    fn arrive(
        &mut self,
        node: usize,
        life: u64,
        device: usize,
        port: u16,
        id: CommandId,
        command: Command,
        lost: bool,
    ) {
        match self.devices[device].submit(World::nexus(node, port), Ask::Reservation(command)) {
            Some(task) => {
                let when = self.now + self.latency() / 4;
                self.at(when, Event::Execute { node, life, device, task, id, lost });
            }
            None if self.rng.below(2) == 0 => {
                let input = Input::Answered(id, Err(Failure::Transport));
                self.at(self.now, Event::Deliver { node, life, input });
            }
            None => {}
        }
    }

    /// What runs writes, and the engine asks whether the claim is held, whatever the agent does.
    fn engine(&mut self, node: usize) {
        let pause = 200 * MS + self.rng.below(200 * MS);
        self.at(self.now + pause, Event::Engine { node });
        let n = &self.nodes[node];
        let Some(epoch) = n.runs.filter(|_| n.up) else { return };
        for device in 0..self.plan.devices {
            let port = 1 + self.rng.below(self.plan.ports.into()) as u16;
            let write = Ask::Write(Lba(0), Stamp(epoch.0));
            if let Some(task) = self.devices[device].submit(World::nexus(node, port), write) {
                let begins = self.now + self.rng.below(5 * MS);
                let lands =
                    begins + if self.rng.below(4) == 0 { self.rng.below(LIMIT) } else { self.rng.below(5 * MS) };
                self.nodes[node].writes.push((device, task));
                self.at(begins, Event::Begin { device, task });
                self.at(lands, Event::Land { node, device, task });
            }
        }
        let n = &self.nodes[node];
        if n.paused_until <= self.now && !n.recalled && n.asked.is_none() {
            match n.machine.uphold(self.local(node), epoch) {
                Err(Loss::Taken(why) | Loss::GivenUp(why)) => {
                    self.say(|| format!("n{node} has lost the claim: {why}"));
                    self.stats.lost += 1;
                    let undisturbed = n.disturbed + 12_000 * MS < self.now;
                    (self.nodes[node].runs, self.nodes[node].recorded) = (None, None);
                    if undisturbed && self.plan.calm {
                        self.fail(format!("n{node} lost the claim for no reason: {why}"));
                    }
                }
                Ok(_) | Err(Loss::Unproven { .. }) => {}
            }
        }
    }

    fn land(&mut self, node: usize, device: usize, task: TaskId) {
        self.nodes[node].writes.retain(|write| *write != (device, task));
        let Some(result) = self.devices[device].execute(task) else { return };
        if result.is_err() {
            return;
        }
        self.stats.writes += 1;
        let tenant = self.tenant.filter(|(tenant, _)| self.nodes[*tenant].runs.is_some());
        if let Some((tenant, epoch)) = tenant.filter(|(tenant, _)| *tenant != node && !self.nodes[node].excused) {
            self.fail(format!(
                "a write of n{node} landed on disk{device} while n{tenant} has the claim, epoch {epoch}"
            ));
        }
    }

    fn run_until(&mut self, end: u64) -> Result<(), String> {
        while self.now < end {
            self.step();
            self.check();
            if let Some(failed) = FAILED.with(|failed| failed.borrow_mut().take()) {
                return Err(failed);
            }
        }
        Ok(())
    }
}

thread_local! {
    static FAILED: std::cell::RefCell<Option<String>> = const { std::cell::RefCell::new(None) };
}

/// A storm; then everything is mended, and somebody must have the claim in the end; then that node dies for good, and another must.
pub(super) fn run(plan: &Plan) -> Result<Stats, String> {
    let mut world = World::new(plan.clone());
    world.run_until(world.now + 90_000 * MS)?;
    world.heal();
    for round in 0..2 {
        let before = world.stats.acquired;
        let runs = |world: &World| world.nodes.iter().position(|node| node.runs.is_some());
        world.run_until(world.now + 40_000 * MS)?;
        if runs(&world).is_none() {
            // It was just given up, and somebody is about to take it.
            world.run_until(world.now + 20_000 * MS)?;
        }
        let runs = runs(&world);
        if world.stats.acquired == before && runs.is_none() {
            return Err(format!("seed {}: nobody has the claim in round {round}; {plan:?}", plan.seed));
        }
        if let Some(runs) = runs {
            world.reset(runs);
            world.nodes[runs].life += 1;
        }
    }
    Ok(world.stats)
}
