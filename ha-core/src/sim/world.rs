//! The simulated world: what is going to happen, and what happens next.
//!
//! Decides the order of events and what faults do to machines. One thread, no clock, no randomness but from the seed: the same setup, seed and
//! actions give the same run, for ever.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::action::{Action, Behaviour};
use super::clock::{Moment, NodeClock};
use super::disk::{Disk, Path};
use super::draws::Draws;
use super::liveness::{Line, Service};
use super::lun::{Lun, Sent, Stage};
use super::network::Network;
use super::node::{FIRST_VERSION, ForAgent, ForMachine, Guard, Memory, Node, Program, Real, Waiting, Written};
use super::observer::{Observer, Violation};
use super::queue::Queue;
use super::setup::Setup;
use crate::claim::lock_area::machine::{Input as AreaInput, Tag};
use crate::name::{HierarchyName, ResourceName};
use crate::recovery::{Operation, Pressure};

/// From one look at the whole to the next.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// From the power to the agent, if nothing else is said.
const BOOT: Duration = Duration::from_secs(2);
/// So many datagrams wait for an agent that is stopped; more are dropped, as a socket would.
const SOCKET: usize = 256;
/// More events than this at one moment are one too many.
const MOST_AT_ONCE: u64 = 1_000_000;

/// Something that is going to happen.
pub(super) enum What {
    Datagram {
        to: usize,
        channel: usize,
        bytes: Arc<[u8]>,
    },
    Agent {
        node: usize,
        life: u64,
        what: ForAgent,
    },
    Machine {
        node: usize,
        boot: u64,
        what: ForMachine,
    },
    /// A watchdog device resets a machine that was not fed since.
    Device {
        node: usize,
        boot: u64,
    },
    Boots {
        node: usize,
        boot: u64,
    },
    Fenced(super::fencing::Order),
    AskedIfOff(super::fencing::Question),
    DiskBlock {
        node: usize,
        boot: u64,
        area: usize,
        offset: u64,
        bytes: Vec<u8>,
    },
    DiskRead {
        node: usize,
        life: u64,
        area: usize,
        tag: Tag,
        offset: u64,
        len: usize,
        answer_at: Moment,
    },
    OnDisk(Box<Sent>, Stage),
    Act(Action),
    Look,
}

/// Counts of what happened in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Events of the simulation.
    pub events: u64,
    /// Datagrams sent.
    pub datagrams: u64,
    /// Reads and writes of lock areas, and commands about reservations.
    pub transfers: u64,
    /// Writes that a reservation let pass.
    pub writes: u64,
    /// Operations on resources.
    pub operations: u64,
    /// Claims given.
    pub acquired: u64,
    /// Claims given that another node had.
    pub takeovers: u64,
    /// Machines that were reset by themselves, or by another one.
    pub resets: u64,
    /// Machines that a device switched off for another one.
    pub fencings: u64,
}

/// A cluster in a box.
pub struct World {
    pub(super) setup: Arc<Setup>,
    pub(super) by_name: BTreeMap<HierarchyName, usize>,
    pub(super) now: Moment,
    pub(super) queue: Queue<What>,
    pub(super) nodes: Vec<Node>,
    pub(super) network: Network,
    pub(super) disks: Vec<Disk>,
    /// The disks with reservations, by hierarchy.
    pub(super) luns: Vec<Vec<Lun>>,
    pub(super) observer: Observer,
    pub(super) stats: Stats,
    pub(super) log: Option<Vec<Line>>,
    pub(super) service: Vec<Vec<Service>>,
    /// When something was last done to the cluster, or a machine was reset.
    pub(super) disturbed_at: Moment,
    /// When something last began or ceased to run anywhere.
    pub(super) changed_at: Moment,
    pub(super) next_flight: u64,
    pub(super) next_command: u64,
    pub(super) next_claim: u64,
    pub(super) boots_in: Duration,
    /// Events at this moment.
    still: u64,
    draws: Draws,
}

impl World {
    /// A world in which every node is off. With `seed`, everything that is left to chance is drawn.
    pub fn new(setup: Arc<Setup>, seed: u64) -> Self {
        let draws = Draws::new(seed);
        let nodes = setup.nodes.iter().enumerate().map(|(i, node)| Node {
            name: node.name.clone(),
            clock: NodeClock::new(Moment::BEGIN, node.clock_ppm),
            boot: 0,
            on: false,
            off_until: Moment::default(),
            resets: 0,
            frozen: false,
            agent: None,
            life: 0,
            paused: false,
            hangs: false,
            lag: Duration::ZERO,
            pressure: Pressure::Calm,
            storage: Path::Good,
            version: FIRST_VERSION.to_owned(),
            waiting: VecDeque::new(),
            memory: Memory::default(),
            parts: setup.hierarchies.iter().map(|h| vec![Program::default(); h.hierarchy.resources.len()]).collect(),
            may_run: BTreeSet::new(),
            flights: BTreeMap::new(),
            guard: Guard::default(),
            utility: BTreeMap::new(),
            lacks: BTreeMap::new(),
            revisions: vec![0; setup.hierarchies.len()],
            fit_since: None,
            written_by: Moment::BEGIN,
            writers: BTreeMap::new(),
            tenures: BTreeMap::new(),
            draws: draws.branch(&format!("node {i}")),
        });
        let nodes: Vec<Node> = nodes.collect();
        let disks = setup.areas.iter().map(|area| {
            let bytes = vec![0; area.header.area_len() as usize];
            Disk::new(bytes, area.header.block_size as usize, draws.branch(&format!("disk {}", area.name)))
        });
        let disks: Vec<Disk> = disks.collect();
        let luns = setup.hierarchies.iter().map(|h| {
            let disks = h.reservation().map_or(&[][..], |reservation| &reservation.disks);
            let lun = |(i, target): (usize, &super::scsi::Target)| {
                Lun::new(target.clone(), draws.branch(&format!("disk {i} of {}", h.hierarchy.name)))
            };
            disks.iter().enumerate().map(lun).collect()
        });
        let luns: Vec<Vec<Lun>> = luns.collect();
        let by_name = setup.hierarchies.iter().enumerate().map(|(i, h)| (h.hierarchy.name.clone(), i)).collect();
        let mut queue = Queue::new();
        queue.put(Moment::BEGIN, What::Look);
        World {
            by_name,
            now: Moment::BEGIN,
            queue,
            nodes,
            network: Network::new(draws.branch("network")),
            disks,
            luns,
            observer: Observer::new(setup.areas.len()),
            stats: Stats::default(),
            log: None,
            service: vec![Vec::new(); setup.hierarchies.len()],
            disturbed_at: Moment::BEGIN,
            changed_at: Moment::BEGIN,
            next_flight: 0,
            next_command: 0,
            next_claim: 0,
            boots_in: BOOT,
            still: 0,
            draws: draws.branch("world"),
            setup,
        }
    }

    /// A machine that resets itself needs so long until its agent runs again.
    pub fn boot_takes(&mut self, span: Duration) {
        self.boots_in = span;
    }

    /// Every start of a resource needs so long, on every node; without this, some milliseconds.
    pub fn start_takes(&mut self, hierarchy: &HierarchyName, resource: &ResourceName, span: Duration) {
        let Some(&h) = self.by_name.get(hierarchy) else { return };
        let position = self.setup.hierarchies[h].hierarchy.resources.iter().position(|r| r.name == *resource);
        if let Some(r) = position {
            for node in &mut self.nodes {
                node.parts[h][r].start_takes = Some(span);
            }
        }
    }

    /// Keeps a line for everything that happens from now on.
    pub fn keep_log(&mut self) {
        self.log.get_or_insert_with(Vec::new);
    }

    /// The lines kept.
    pub fn lines(&self) -> &[Line] {
        self.log.as_deref().unwrap_or_default()
    }

    /// Now.
    pub fn now(&self) -> Moment {
        self.now
    }

    /// What the cluster was made of.
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// What happened so far, counted.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// The first invariant that did not hold, if any.
    pub fn violation(&self) -> Option<&Violation> {
        self.observer.violation.as_ref()
    }

    /// Where a hierarchy was in service from when on, by its position in the setup.
    pub fn service(&self, hierarchy: usize) -> &[Service] {
        &self.service[hierarchy]
    }

    /// Lets something happen at a moment, or now if that is past.
    pub fn at(&mut self, at: Moment, action: Action) {
        self.put(at, What::Act(action));
    }

    /// Lets something happen now.
    pub fn act(&mut self, action: Action) {
        self.apply(&action);
    }

    /// Switches every node on, now.
    pub fn power_on_all(&mut self) {
        for node in &self.setup.clone().nodes {
            self.apply(&Action::PowerOn(node.name.clone()));
        }
    }

    /// Lets time pass up to a moment, or to the first violation.
    pub fn run_until(&mut self, end: Moment) {
        while self.observer.violation.is_none() && self.queue.next_at().is_some_and(|at| at <= end) {
            self.step();
        }
        if self.observer.violation.is_none() {
            self.now = self.now.max(end);
        }
    }

    /// Lets time pass until something is so, for at most so long; says whether it is.
    pub fn until(&mut self, at_most: Duration, so: impl Fn(&World) -> bool) -> bool {
        let end = self.now + at_most;
        while !so(self) {
            if self.observer.violation.is_some() || self.queue.next_at().is_none_or(|at| at > end) {
                return false;
            }
            self.step();
        }
        true
    }

    pub(super) fn put(&mut self, at: Moment, what: What) {
        self.queue.put(at.max(self.now), what);
    }

    pub(super) fn for_agent(&mut self, node: usize, what: ForAgent) {
        self.for_agent_at(node, self.now, what);
    }

    pub(super) fn for_agent_at(&mut self, node: usize, at: Moment, what: ForAgent) {
        let lag = self.nodes[node].lag;
        let late = if lag.is_zero() {
            Duration::ZERO
        } else {
            Duration::from_nanos(self.nodes[node].draws.below(lag.as_nanos() as u64))
        };
        let life = self.nodes[node].life;
        self.put(at + late, What::Agent { node, life, what });
    }

    pub(super) fn log(&mut self, line: Line) {
        if let Some(log) = &mut self.log {
            log.push(line);
        }
    }

    pub(super) fn tell(&mut self, node: usize, text: impl FnOnce() -> String) {
        if self.log.is_some() {
            let (at, name) = (self.now, self.nodes[node].name.clone());
            self.log(Line { at, node: Some(name), hierarchy: None, text: text(), told: None });
        }
    }

    /// As [`World::tell`], of a hierarchy.
    pub(super) fn tell_of(&mut self, node: usize, h: usize, text: impl FnOnce() -> String) {
        if self.log.is_some() {
            let (at, name) = (self.now, self.nodes[node].name.clone());
            let hierarchy = Some(self.setup.hierarchies[h].hierarchy.name.clone());
            self.log(Line { at, node: Some(name), hierarchy, text: text(), told: None });
        }
    }

    fn step(&mut self) {
        let Some((at, what)) = self.queue.take() else { return };
        self.still = if at == self.now { self.still + 1 } else { 0 };
        if self.still > MOST_AT_ONCE {
            self.observer.violated(
                at,
                super::Invariant::L4,
                "time stands still: something happens again and again at once".to_owned(),
            );
        }
        self.now = at;
        self.stats.events += 1;
        match what {
            What::Datagram { to, channel, bytes } => self.arrives(to, channel, bytes),
            What::Agent { node, life, what } => self.happens_to_agent(node, life, what),
            What::Machine { node, boot, what } => self.happens_on_machine(node, boot, what),
            What::Device { node, boot } => {
                let n = &self.nodes[node];
                if n.on && n.boot == boot && n.guard.reset_at.is_some_and(|at| at <= self.now) {
                    self.tell(node, || "the watchdog device resets the machine".to_owned());
                    self.reset(node);
                }
            }
            What::Boots { node, boot } => {
                if !self.nodes[node].on && self.nodes[node].boot == boot {
                    self.power_on(node);
                }
            }
            What::Fenced(order) => self.fenced(order),
            What::AskedIfOff(question) => self.asked_if_off(&question),
            What::DiskBlock { node, boot, area, offset, bytes } => {
                // What was on its way when the power was lost has left the node, or has not.
                let gone = !self.nodes[node].on || self.nodes[node].boot != boot;
                if !gone || self.draws.in_thousand(500) {
                    self.disks[area].write(offset, &bytes);
                }
            }
            What::DiskRead { node, life, area, tag, offset, len, answer_at } => {
                if self.nodes[node].life == life
                    && let Some(bytes) = self.disks[area].read(offset, len)
                {
                    self.for_agent_at(node, answer_at, ForAgent::Disk(area, AreaInput::Read(tag, Ok(bytes))));
                }
            }
            What::OnDisk(sent, stage) => self.on_disk(sent, stage),
            What::Act(action) => self.apply(&action),
            What::Look => {
                self.look();
                self.put(self.now + LOOK_EVERY, What::Look);
            }
        }
    }

    fn arrives(&mut self, to: usize, channel: usize, bytes: Arc<[u8]>) {
        let node = &mut self.nodes[to];
        if node.agent.is_none() || !node.on {
            return;
        }
        if node.paused || node.frozen {
            let waiting = node.waiting.iter().filter(|w| matches!(w, Waiting::Datagram(..))).count();
            if waiting < SOCKET {
                node.waiting.push_back(Waiting::Datagram(channel, bytes));
            }
            return;
        }
        self.datagram(to, channel, &bytes);
    }

    fn happens_to_agent(&mut self, node: usize, life: u64, what: ForAgent) {
        let n = &mut self.nodes[node];
        if n.life != life || n.agent.is_none() || !n.on {
            return;
        }
        if n.paused || n.frozen {
            return n.waiting.push_back(Waiting::Agent(life, what));
        }
        match what {
            ForAgent::Input(input) => self.engine_input(node, input),
            ForAgent::Due(at) => self.engine_due(node, at),
            ForAgent::Feed => self.carry(node),
            ForAgent::Tick => self.tick(node),
            ForAgent::Disk(area, input) => self.area_input(node, area, input),
            ForAgent::AreaDue(area, at) => self.area_is_due(node, area, at),
            ForAgent::Unanswered(area, id) => self.unanswered(node, area, id),
            ForAgent::Commanded { h, made, asker, answer } => self.commanded(node, h, made, asker, answer),
            ForAgent::Paths(h, disk) => self.paths_of(node, h, disk),
            ForAgent::ReservationDue(h, made, at) => self.reservation_is_due(node, h, made, at),
            ForAgent::Unreserved(h, made, id) => self.unreserved(node, h, made, id),
            ForAgent::TimedOut(flight, after) => self.flight_timed_out(node, flight, after),
            ForAgent::Reload(hierarchy, to) => self.reloads(node, hierarchy, to),
            ForAgent::Ends => self.kill_agent(node),
        }
    }

    fn happens_on_machine(&mut self, node: usize, boot: u64, what: ForMachine) {
        let n = &mut self.nodes[node];
        if n.boot != boot || !n.on {
            return;
        }
        if n.frozen {
            return n.waiting.push_back(Waiting::Machine(boot, what));
        }
        match what {
            ForMachine::Ends(flight) => self.flight_ends(node, flight),
            ForMachine::Dies(part, starts) => {
                let program = n.parts[part.0][part.1];
                if program.starts == starts && matches!(program.behaviour, Behaviour::Crashes(_)) {
                    self.dies(node, part);
                }
            }
            ForMachine::Writes(hierarchy, begun) => self.writes(node, hierarchy, begun),
            ForMachine::Warden => self.warden(node),
            ForMachine::Killed(hierarchy) => self.killed_by_warden(node, hierarchy),
            ForMachine::AgentStarts => self.start_agent(node),
            ForMachine::Written(written) => match *written {
                Written::Lasting(name, lasting) => drop(n.memory.lasting.insert(name, lasting)),
                Written::Standby(why) => n.memory.standby = why,
            },
        }
    }

    // --- Machines ------------------------------------------------------------------------------------------------------------

    pub(super) fn power_on(&mut self, n: usize) {
        if self.nodes[n].on {
            return;
        }
        if self.now < self.nodes[n].off_until {
            return self.boots_later(n, Duration::ZERO);
        }
        let ppm = self.setup.nodes[n].clock_ppm;
        let node = &mut self.nodes[n];
        node.on = true;
        node.boot += 1;
        node.clock = NodeClock::new(self.now, ppm);
        self.log_in(n);
        self.start_agent(n);
        self.observe_fitness(n);
    }

    pub(super) fn power_off(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        if !node.on {
            return;
        }
        node.on = false;
        node.boot += 1;
        node.life += 1;
        (node.frozen, node.paused) = (false, false);
        node.agent = None;
        node.waiting.clear();
        node.flights.clear();
        node.guard = Guard::default();
        node.memory.running.clear();
        node.memory.proven.clear();
        for h in 0..self.setup.hierarchies.len() {
            for r in 0..self.nodes[n].parts[h].len() {
                self.nodes[n].parts[h][r].up = false;
                self.becomes(n, (h, r), Real::Stopped);
            }
        }
        self.observer.powered_off(n);
        self.observe_fitness(n);
    }

    /// The machine resets itself, and comes back.
    pub(super) fn reset(&mut self, n: usize) {
        self.stats.resets += 1;
        self.nodes[n].resets += 1;
        self.disturbed_at = self.now;
        self.observer.disturbed();
        self.power_off(n);
        self.boots_later(n, self.boots_in);
    }

    pub(super) fn kill_agent(&mut self, n: usize) {
        let wanted: Vec<bool> = (0..self.setup.hierarchies.len()).map(|h| self.is_wanted_on(n, h)).collect();
        let node = &mut self.nodes[n];
        if node.agent.take().is_none() {
            return;
        }
        node.life += 1;
        let paused = std::mem::take(&mut node.paused);
        node.waiting.retain(|waiting| matches!(waiting, Waiting::Machine(..)));
        // What it had begun goes on in processes of its own, or ends with it.
        let draws = &mut node.draws;
        node.flights.retain(|_, flight| {
            matches!(flight.operation, Operation::Start | Operation::Stop | Operation::Kill) && draws.in_thousand(500)
        });
        // On a node on which nothing else is wrong.
        let fit = node.on && !paused && !node.frozen && !node.hangs && node.lag.is_zero() && node.storage == Path::Good;
        let luns = &self.luns;
        let has_disks = |h: usize| luns[h].iter().all(|lun| lun.holder == Some(n) && lun.is_well_for(n));
        let served: Vec<usize> = (0..node.parts.len())
            .filter(|h| fit && wanted[*h])
            .filter(|h| {
                let well =
                    node.parts[*h].iter().all(|p| p.real == Real::Running && p.up && p.behaviour == Behaviour::Well);
                well && has_disks(*h) && !node.flights.values().any(|f| f.part.0 == *h)
            })
            .collect();
        for program in node.parts.iter_mut().flatten() {
            program.up = false;
        }
        self.observer.agent_killed(self.now, n, served.into_iter());
        self.observe_fitness(n);
    }

    /// Whether no operator has asked for something that has this node stop it: at once, when it hears of that, or when another can take it.
    fn is_wanted_on(&self, n: usize, h: usize) -> bool {
        let node = &self.nodes[n];
        if node.agent.as_ref().is_some_and(|agent| agent.engine.snapshot(node.time(self.now)).standby.is_some()) {
            return false;
        }
        let (me, name) = (&self.nodes[n].name, &self.setup.hierarchies[h].hierarchy.name);
        self.nodes.iter().filter_map(|other| Some((other, other.agent.as_ref()?))).all(|(other, agent)| {
            let snapshot = agent.engine.snapshot(other.time(self.now));
            let directive = snapshot.hierarchies.iter().find(|view| view.name == *name).map(|view| &view.directive);
            directive.is_none_or(|wish| {
                let stays = !wish.stopped && !wish.maintenance && wish.quarantined.is_none();
                stays && wish.pin.as_ref().is_none_or(|pin| pin == me)
            })
        })
    }

    pub(super) fn let_run(&mut self, n: usize) {
        if self.nodes[n].frozen {
            return;
        }
        for waiting in std::mem::take(&mut self.nodes[n].waiting) {
            match waiting {
                Waiting::Machine(boot, what) => self.put(self.now, What::Machine { node: n, boot, what }),
                later if self.nodes[n].paused => self.nodes[n].waiting.push_back(later),
                Waiting::Datagram(channel, bytes) => self.put(self.now, What::Datagram { to: n, channel, bytes }),
                Waiting::Agent(life, what) => self.put(self.now, What::Agent { node: n, life, what }),
            }
        }
    }
}
