//! Disks with persistent reservations in a simulated cluster: when what is sent to one arrives, is carried out and is answered, and what
//! programs write to it.
//!
//! Decides what is lost and what is late. Leaves what a disk answers to [`super::scsi`], what is sent to the claim's machine, and what must hold to
//! `exclusion`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::action::{Answers, ToDisk, Way};
use super::clock::Moment;
use super::disk::Path;
use super::draws::Draws;
use super::node::{ForAgent, ForMachine};
use super::reservations::Asker;
use super::scsi::{Begun, Device, Lba, Nexus, Reply, Request, Stamp, TaskId};
use super::world::{What, World};
use crate::claim::reservation::device::{Answer, Command, Failure, PathName, Sense};
use crate::name::HierarchyName;

/// Insufficient registration resources (SPC-4, 5.13.7).
const FULL: Sense = Sense { key: 0x5, asc: 0x55, ascq: 0x04 };
/// A program writes this often.
const WRITES_EVERY_MS: (u64, u64) = (80, 400);

/// A disk, and the ways to it.
pub(super) struct Lun {
    pub(super) device: Device,
    pub(super) answers: Answers,
    pub(super) powered: bool,
    pub(super) ports: u16,
    /// Paths that are down, by node and port.
    down: BTreeSet<(usize, u16)>,
    /// Counts how often each path was lost: what was on its way on it then does not arrive any more.
    sessions: BTreeMap<(usize, u16), u64>,
    /// When something was last done to it.
    pub(super) changed_at: Moment,
    /// Who has it, as was seen last.
    pub(super) holder: Option<usize>,
    /// When each node last ceased to have it.
    pub(super) lost_at: BTreeMap<usize, Moment>,
    draws: Draws,
}

impl Lun {
    pub(super) fn new(target: super::scsi::Target, draws: Draws) -> Lun {
        let ports = target.ports.get();
        Lun {
            device: Device::new(target),
            answers: Answers::Good,
            powered: true,
            ports,
            down: BTreeSet::new(),
            sessions: BTreeMap::new(),
            changed_at: Moment::BEGIN,
            holder: None,
            lost_at: BTreeMap::new(),
            draws,
        }
    }

    /// The nexuses of a node, one through each port.
    pub(super) fn nexuses(&self, node: usize) -> impl Iterator<Item = Nexus> + use<> {
        (1..=self.ports).map(move |port| nexus(node, port))
    }

    fn session(&self, node: usize, port: u16) -> u64 {
        self.sessions.get(&(node, port)).copied().unwrap_or_default()
    }

    fn disconnect(&mut self, node: usize, port: u16) {
        *self.sessions.entry((node, port)).or_default() += 1;
        self.device.disconnect(nexus(node, port));
    }

    fn connect(&mut self, node: usize) {
        for port in (1..=self.ports).filter(|port| !self.down.contains(&(node, *port))) {
            self.device.connect(nexus(node, port));
        }
    }

    /// The paths that the kernel of a node shows.
    pub(super) fn paths(&self, node: usize) -> Vec<PathName> {
        let up = (1..=self.ports).filter(|port| !self.down.contains(&(node, *port)));
        up.map(|port| PathName::new(port.to_string())).collect()
    }

    /// Whether nothing stands between a node and the disk.
    pub(super) fn is_well_for(&self, node: usize) -> bool {
        self.powered && self.answers == Answers::Good && !self.down.iter().any(|(n, _)| *n == node)
    }

    fn quick(&mut self) -> Duration {
        Duration::from_micros(self.draws.between(50, 1_500))
    }

    /// What becomes of a command that is sent on a path in this state.
    fn fate(&mut self, path: Path, limit: Duration) -> Fate {
        let below = |draws: &mut Draws, most: Duration| Duration::from_nanos(draws.below(most.as_nanos() as u64 + 1));
        let quick = self.quick();
        let mut fate = Fate { arrives: Some(quick), works: self.quick(), answers: Some(self.quick()), fails: None };
        match path {
            Path::Good => {}
            Path::Slow(most) => {
                fate.arrives = Some(quick + below(&mut self.draws, most / 2));
                fate.answers = Some(quick + below(&mut self.draws, most / 2));
            }
            Path::Errors => {
                fate.arrives = fate.arrives.filter(|_| self.draws.in_thousand(200));
                (fate.answers, fate.fails) = (None, Some(quick * 2));
            }
            Path::Hangs => {
                let late = below(&mut self.draws, limit * 2);
                fate.arrives = Some(quick + late).filter(|_| self.draws.in_thousand(500));
                fate.answers = None;
            }
            Path::Lost => {
                (fate.arrives, fate.answers) = (None, None);
                fate.fails = Some(quick).filter(|_| self.draws.in_thousand(500));
            }
        }
        match self.answers {
            Answers::Lost(share) if self.draws.in_thousand(share.into()) => {
                fate.arrives = fate.arrives.filter(|_| self.draws.in_thousand(500));
                fate.answers = None;
            }
            Answers::Busy(share) if self.draws.in_thousand(share.into()) => {
                (fate.arrives, fate.answers, fate.fails) = (None, None, Some(quick));
            }
            Answers::Good | Answers::Full | Answers::Lost(_) | Answers::Busy(_) => {}
            Answers::Late(most) => {
                let late = below(&mut self.draws, most);
                fate.answers = fate.answers.map(|after| after + late);
            }
        }
        fate
    }
}

/// How a node is known to disks.
pub(super) fn nexus(node: usize, port: u16) -> Nexus {
    Nexus { initiator: node as u16 + 1, port }
}

/// The fate of one command, each time counted from the one before.
struct Fate {
    arrives: Option<Duration>,
    works: Duration,
    answers: Option<Duration>,
    /// The path fails instead, so long after it was sent.
    fails: Option<Duration>,
}

/// Who sent something to a disk.
#[derive(Clone, Copy)]
pub(super) enum Sender {
    /// The agent in this life, for the claim that was made as the so manieth.
    Agent { life: u64, made: u64, asker: Asker },
    /// What runs under a tenure, since it was begun for the so manieth time.
    Program { tenure: u64, begun: u64 },
}

/// Something that was sent to a disk.
pub(super) struct Sent {
    pub(super) hierarchy: usize,
    pub(super) disk: usize,
    pub(super) node: usize,
    boot: u64,
    port: u16,
    session: u64,
    sender: Sender,
    works: Duration,
    answers: Option<Duration>,
}

/// How far it is.
pub(super) enum Stage {
    Arrives(Request),
    Begins(TaskId),
    Ends {
        task: TaskId,
        /// The disk was reserved when the command passed its check.
        reserved: bool,
    },
}

impl World {
    /// An agent sends a command.
    pub(super) fn command(
        &mut self,
        n: usize,
        (h, disk): (usize, usize),
        path: &PathName,
        command: Command,
        (made, asker): (u64, Asker),
    ) {
        let Some(limit) = self.setup.hierarchies[h].reservation().map(|r| r.time_limit) else { return };
        let life = self.nodes[n].life;
        self.stats.transfers += 1;
        let port = path.as_str().parse().unwrap_or_default();
        let sender = Sender::Agent { life, made, asker };
        let fails = self.send_to_disk(n, (h, disk), port, Request::Reservation(command), sender);
        let answer = |failure| ForAgent::Commanded { h, made, asker, answer: Err(failure) };
        if let Some(fails) = fails {
            self.for_agent_at(n, self.now + fails, answer(Failure::Transport));
        }
        self.for_agent_at(n, self.bound(n, limit), answer(Failure::NoAnswer));
    }

    /// After which time the path fails, if it does.
    fn send_to_disk(
        &mut self,
        n: usize,
        (h, disk): (usize, usize),
        port: u16,
        request: Request,
        sender: Sender,
    ) -> Option<Duration> {
        let limit = self.setup.hierarchies[h].reservation()?.time_limit;
        let (path, boot) = (self.nodes[n].storage, self.nodes[n].boot);
        let lun = self.luns.get_mut(h)?.get_mut(disk)?;
        let fate = lun.fate(path, limit);
        let session = lun.session(n, port);
        if let Some(arrives) = fate.arrives {
            let (works, answers) = (fate.works, fate.answers);
            let sent = Sent { hierarchy: h, disk, node: n, boot, port, session, sender, works, answers };
            self.put(self.now + arrives, What::OnDisk(Box::new(sent), Stage::Arrives(request)));
        }
        fate.fails
    }

    pub(super) fn on_disk(&mut self, sent: Box<Sent>, stage: Stage) {
        match stage {
            Stage::Arrives(request) => self.arrives_on_disk(sent, request),
            Stage::Begins(task) => {
                let device = &mut self.luns[sent.hierarchy][sent.disk].device;
                let reserved = device.reservation().held.is_some();
                if device.begin(task) == Begun::Proceeds {
                    self.put(self.now + sent.works, What::OnDisk(sent, Stage::Ends { task, reserved }));
                }
            }
            Stage::Ends { task, reserved } => self.ends_on_disk(&sent, task, reserved),
        }
    }

    fn arrives_on_disk(&mut self, mut sent: Box<Sent>, request: Request) {
        let (n, h) = (sent.node, sent.hierarchy);
        let lun = &mut self.luns[h][sent.disk];
        // What was on its way when the power was lost has left the node, or has not.
        let dead = self.nodes[n].boot != sent.boot && lun.draws.in_thousand(500);
        let aborted =
            matches!(sent.sender, Sender::Program { begun, .. } if self.nodes[n].on && self.nodes[n].begun(h) != begun);
        if lun.session(n, sent.port) != sent.session || dead || aborted {
            return;
        }
        let Some(task) = lun.device.submit(nexus(n, sent.port), request) else {
            return self.answer_agent(&sent, Err(Failure::Transport));
        };
        if let Sender::Program { .. } = sent.sender {
            let limit = self.setup.hierarchies[h].reservation().map(|r| r.time_limit).unwrap_or_default();
            let draws = &mut lun.draws;
            let most = if draws.in_thousand(250) { limit } else { Duration::from_millis(5) };
            sent.works = Duration::from_nanos(draws.below(most.as_nanos() as u64));
            let begins = self.now + Duration::from_micros(draws.below(5_000));
            return self.put(begins, What::OnDisk(sent, Stage::Begins(task)));
        }
        self.put(self.now + sent.works, What::OnDisk(sent, Stage::Ends { task, reserved: true }));
    }

    fn ends_on_disk(&mut self, sent: &Sent, task: TaskId, reserved: bool) {
        let lun = &mut self.luns[sent.hierarchy][sent.disk];
        let request = lun.device.tasks().find(|(id, ..)| *id == task).map(|(_, _, request)| request);
        let Some(request) = request else { return };
        let registers = matches!(
            request,
            Request::Reservation(
                Command::Register { new: Some(_), .. } | Command::RegisterIgnoring { new: Some(_), .. }
            )
        );
        let registered = |lun: &Lun| lun.device.registrations().iter().any(|r| r.nexus == nexus(sent.node, sent.port));
        let result = if lun.answers == Answers::Full && registers && !registered(lun) {
            lun.device.abort(task);
            Err(Failure::Rejected(FULL))
        } else {
            let Some(result) = lun.device.execute(task) else { return };
            result
        };
        match sent.sender {
            Sender::Program { tenure, .. } => {
                if result.is_ok() && reserved {
                    self.observe_landed(sent, tenure);
                }
            }
            Sender::Agent { .. } => {
                self.observe_disk(sent.hierarchy, sent.disk, Some(sent.node));
                if let Ok(Reply::Reservation(answer)) = result {
                    self.answer_agent(sent, Ok(answer));
                } else if let Err(failure) = result {
                    self.answer_agent(sent, Err(failure));
                }
            }
        }
    }

    fn answer_agent(&mut self, sent: &Sent, answer: Result<Answer, Failure>) {
        let Sender::Agent { life, made, asker } = sent.sender else { return };
        if let Some(after) = sent.answers.filter(|_| self.nodes[sent.node].life == life) {
            let what = ForAgent::Commanded { h: sent.hierarchy, made, asker, answer };
            self.for_agent_at(sent.node, self.now + after, what);
        }
    }

    // --- What programs write -------------------------------------------------------------------------------------------------

    /// Something of a hierarchy runs from now on, and writes.
    pub(super) fn begin_writing(&mut self, n: usize, h: usize) {
        if self.setup.hierarchies[h].reservation().is_none() {
            return;
        }
        let node = &mut self.nodes[n];
        let begun = node.writers.entry(h).or_default();
        *begun += 1;
        let (begun, boot) = (*begun, node.boot);
        self.put(self.now, What::Machine { node: n, boot, what: ForMachine::Writes(h, begun) });
    }

    /// Nothing of a hierarchy runs any more: what it had written is done, or was aborted. Nobody does that where the power was lost.
    pub(super) fn end_writing(&mut self, n: usize, h: usize) {
        if !self.nodes[n].on {
            return;
        }
        *self.nodes[n].writers.entry(h).or_default() += 1;
        for lun in &mut self.luns[h] {
            let writes = |(task, nexus, request): (TaskId, Nexus, Request)| {
                let write = matches!(request, Request::Write(..)) && nexus.initiator == n as u16 + 1;
                write.then_some(task)
            };
            let tasks: Vec<TaskId> = lun.device.tasks().filter_map(writes).collect();
            tasks.into_iter().for_each(|task| lun.device.abort(task));
        }
    }

    pub(super) fn writes(&mut self, n: usize, h: usize, begun: u64) {
        if self.nodes[n].begun(h) != begun || !self.nodes[n].runs(h) {
            return;
        }
        let tenure = self.nodes[n].tenures.get(&h).copied().unwrap_or_default();
        let mut next = Duration::ZERO;
        for disk in 0..self.luns[h].len() {
            let lun = &mut self.luns[h][disk];
            let port = lun.draws.between(1, lun.ports.into()) as u16;
            next = Duration::from_millis(lun.draws.between(WRITES_EVERY_MS.0, WRITES_EVERY_MS.1));
            let request = Request::Write(Lba(0), Stamp(tenure));
            self.send_to_disk(n, (h, disk), port, request, Sender::Program { tenure, begun });
        }
        let boot = self.nodes[n].boot;
        self.put(self.now + next, What::Machine { node: n, boot, what: ForMachine::Writes(h, begun) });
    }

    // --- What is done to disks and paths -------------------------------------------------------------------------------------

    pub(super) fn happen_to_disk(&mut self, hierarchy: &HierarchyName, disk: usize, what: &ToDisk) {
        let Some(&h) = self.by_name.get(hierarchy) else { return };
        if self.luns[h].get(disk).is_none() {
            return;
        }
        match what {
            ToDisk::Off => self.disk_off(h, disk),
            ToDisk::On => self.disk_on(h, disk),
            ToDisk::Reset => self.luns[h][disk].device.reset(),
            ToDisk::Answers(answers) => self.luns[h][disk].answers = *answers,
        }
        self.luns[h][disk].changed_at = self.now;
    }

    fn disk_off(&mut self, h: usize, disk: usize) {
        let nodes = self.nodes.len();
        let lun = &mut self.luns[h][disk];
        if !std::mem::replace(&mut lun.powered, false) {
            return;
        }
        let registered = !lun.device.registrations().is_empty();
        lun.device.lose_power();
        for node in 0..nodes {
            for port in 1..=lun.ports {
                *lun.sessions.entry((node, port)).or_default() += 1;
            }
        }
        let forgot = registered && lun.device.registrations().is_empty();
        self.observe_disk(h, disk, None);
        if forgot {
            self.observe_forgotten(h);
        }
    }

    fn disk_on(&mut self, h: usize, disk: usize) {
        let lun = &mut self.luns[h][disk];
        if std::mem::replace(&mut lun.powered, true) {
            return;
        }
        lun.device.restore_power();
        for (n, node) in self.nodes.iter().enumerate() {
            if node.on && node.storage != Path::Lost {
                lun.connect(n);
            }
        }
    }

    /// A node's ways to all disks are there again, as new ones.
    pub(super) fn log_in(&mut self, n: usize) {
        for lun in self.luns.iter_mut().flatten() {
            for port in 1..=lun.ports {
                lun.disconnect(n, port);
            }
            lun.connect(n);
        }
    }

    pub(super) fn disk_path(&mut self, n: usize, (hierarchy, disk): (&HierarchyName, usize), port: u16, way: Way) {
        let Some(&h) = self.by_name.get(hierarchy) else { return };
        let reached = self.nodes[n].on && self.nodes[n].storage != Path::Lost;
        let Some(lun) = self.luns[h].get_mut(disk).filter(|lun| (1..=lun.ports).contains(&port)) else { return };
        lun.changed_at = self.now;
        let told = match way {
            Way::Down => {
                lun.down.insert((n, port));
                lun.disconnect(n, port);
                // Some kernels take a path away, some leave it there, broken.
                lun.draws.in_thousand(500)
            }
            Way::Up => {
                lun.down.remove(&(n, port));
                if reached {
                    lun.connect(n);
                }
                true
            }
        };
        let after = Duration::from_micros(lun.draws.between(100, 100_000));
        if told {
            self.for_agent_at(n, self.now + after, ForAgent::Paths(h, disk));
        }
    }

    /// Every disk, and every way to one, is as it should be.
    pub(super) fn heal_disks(&mut self) {
        for h in 0..self.luns.len() {
            for disk in 0..self.luns[h].len() {
                self.disk_on(h, disk);
                let lun = &mut self.luns[h][disk];
                (lun.answers, lun.changed_at) = (Answers::Good, self.now);
                lun.down.clear();
                for n in 0..self.nodes.len() {
                    if self.nodes[n].on {
                        self.luns[h][disk].connect(n);
                        self.for_agent(n, ForAgent::Paths(h, disk));
                    }
                }
            }
        }
    }

    /// Whether nothing stands between a node and the disks of a hierarchy.
    pub(super) fn disks_are_well(&self, n: usize, h: usize) -> bool {
        self.luns[h].iter().all(|lun| lun.is_well_for(n))
    }
}
