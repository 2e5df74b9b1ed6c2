//! A disk with persistent reservations, as its initiators see it: one logical unit behind several target ports.
//!
//! Decides what the device answers to each command and what it changes, by SPC-4 (INCITS 513; clauses are named where they are followed)
//! and by the [`Target`] that it is to be. There is no clock in it and no chance: **when** a command arrives, is begun, is carried out and is
//! answered, and whether the answer arrives, is for the world around it to say:
//!
//! - A command that has not arrived is one not yet [submitted](Device::submit).
//! - One that has arrived waits in the device. It is checked against reservations once, when it [begins](Device::begin); from then on it
//!   will be carried out, whoever reserves what in between (5.13.1), unless it is aborted. So a write can land long after its node was
//!   preempted, but for PREEMPT AND ABORT.
//! - It changes something when it is [executed](Device::execute). An answer is late when it is passed on late, and lost when it is not
//!   passed on; what was told in it, a unit attention for example, is then lost with it.
//!
//! Not modelled: SPEC_I_PT, REGISTER AND MOVE, REPLACE LOST RESERVATION; ACA; the status TASK ABORTED (an aborted command has no answer, as with
//! TAS set to zero) and the unit attention "commands cleared"; commands exempt from unit attentions; a full task set; COMPARE AND WRITE.

mod registry;
mod target;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::claim::reservation::device::{
    Answer, Capabilities, Command, Failure, Key, Keys, Ports, PowerLoss, Queued, Reservation, ReservationType, Sense,
    UnitAttention,
};
use registry::{Consequences, Existing, Preemption, Registry};

pub use target::{First, Login, Reservations, Store, Target, UnregisteredReserve};

/// An I_T nexus: one initiator's port as seen through one of the device's ports. A node with two paths to a device has two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nexus {
    /// The initiator's port.
    pub initiator: u16,
    /// The device's port, from 1 to [`Target::ports`].
    pub port: u16,
}

/// A command that the device has accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(u64);

/// The number of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lba(pub u64);

/// What was written to a block: whatever the world wants to recognise it by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp(pub u64);

/// Anything that can be asked of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// About reservations. Answered by [`Reply::Reservation`].
    Reservation(Command),
    /// PERSISTENT RESERVE IN, READ FULL STATUS. Answered by [`Reply::FullStatus`].
    ReadFullStatus,
    /// READ. Answered by [`Reply::Block`].
    Read(Lba),
    /// WRITE. Answered by [`Reply::Good`].
    Write(Lba, Stamp),
    /// TEST UNIT READY. Answered by [`Reply::Good`].
    TestUnitReady,
}

/// What a request that was carried out answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reply {
    /// About reservations.
    Reservation(Answer),
    /// Each registration.
    FullStatus(Vec<Registered>),
    /// What the block holds; none if it was never written.
    Block(Option<Stamp>),
    /// Done.
    Good,
}

/// A registration, as READ FULL STATUS shows it (6.15.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Registered {
    /// The nexus; twice the same if it came back as a new one ([`Login::New`]) and registered again.
    pub nexus: Nexus,
    /// Its key.
    pub key: Key,
    /// The type of the reservation that it holds, if it holds it.
    pub holds: Option<ReservationType>,
}

/// How far [`Device::begin`] got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begun {
    /// There is no such command any more: aborted, or answered.
    Gone,
    /// It was not carried out, and is answered.
    Refused(Failure),
    /// It passed every check, and is carried out when [executed](Device::execute).
    Proceeds,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Task {
    nexus: Nexus,
    request: Request,
    checked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Path {
    /// Not since power on.
    NeverUp,
    Up,
    Down,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Line {
    path: Path,
    /// What the nexus is to be told, one thing by each command, in this order.
    pending: Vec<UnitAttention>,
}

impl Line {
    /// A nexus of which the device has not heard since power on: it is told of that first (SAM-5, 5.14).
    fn new() -> Line {
        Line { path: Path::NeverUp, pending: vec![UnitAttention::PowerOn] }
    }

    /// The same thing is not told twice, and resets are told before all else.
    fn tell(&mut self, what: UnitAttention) {
        if self.pending.contains(&what)
            || what == UnitAttention::NexusLost && self.pending.first().copied().is_some_and(is_reset)
        {
            return;
        }
        if is_reset(what) {
            self.pending.insert(0, what);
        } else {
            self.pending.push(what);
        }
    }
}

/// The codes 29h/xx, which come before all other unit attentions (SAM-5, 5.3.3).
fn is_reset(attention: UnitAttention) -> bool {
    matches!(attention, UnitAttention::PowerOn | UnitAttention::Reset | UnitAttention::NexusLost)
}

/// The device. See the [module](self) for how it is driven.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Device {
    target: Target,
    powered: bool,
    power_loss: PowerLoss,
    registry: Registry,
    lines: BTreeMap<Nexus, Line>,
    tasks: BTreeMap<TaskId, Task>,
    tasks_so_far: u64,
    blocks: BTreeMap<Lba, Stamp>,
}

impl Device {
    /// A device that was just switched on: nobody connected, nothing registered, nothing written.
    pub fn new(target: Target) -> Device {
        Device {
            target,
            powered: true,
            power_loss: PowerLoss::Forgets,
            registry: Registry::default(),
            lines: BTreeMap::new(),
            tasks: BTreeMap::new(),
            tasks_so_far: 0,
            blocks: BTreeMap::new(),
        }
    }

    /// A path comes up, for the first time or again. False, and nothing happens, without power or without such a port.
    pub fn connect(&mut self, nexus: Nexus) -> bool {
        if !self.powered || !(1..=self.target.ports.get()).contains(&nexus.port) {
            return false;
        }
        let line = self.lines.entry(nexus).or_insert_with(Line::new);
        match (line.path, self.target.login) {
            (Path::Up | Path::NeverUp, _) => {}
            (Path::Down, Login::Same) => line.tell(UnitAttention::NexusLost),
            (Path::Down, Login::New) => {
                *line = Line::new();
                self.registry.orphan(nexus);
            }
        }
        line.path = Path::Up;
        true
    }

    /// A path goes down (I_T nexus loss): the commands that came by it are aborted, its registration stays (5.13.1).
    pub fn disconnect(&mut self, nexus: Nexus) {
        if let Some(line) = self.lines.get_mut(&nexus).filter(|line| line.path == Path::Up) {
            line.path = Path::Down;
        }
        self.tasks.retain(|_, task| task.nexus != nexus);
    }

    /// A command arrives, and waits. None if it cannot arrive, since the path or the device is down.
    pub fn submit(&mut self, nexus: Nexus, request: Request) -> Option<TaskId> {
        if !self.is_connected(nexus) {
            return None;
        }
        self.tasks_so_far += 1;
        let id = TaskId(self.tasks_so_far);
        self.tasks.insert(id, Task { nexus, request, checked: false });
        Some(id)
    }

    /// The device begins a command: it tells the nexus what it has to tell, and checks whether a reservation keeps the command out
    /// (5.13.1). The service actions of PERSISTENT RESERVE OUT are checked when they are carried out, since each is one indivisible event.
    pub fn begin(&mut self, id: TaskId) -> Begun {
        let Some(task) = self.tasks.get_mut(&id) else { return Begun::Gone };
        if task.checked {
            return Begun::Proceeds;
        }
        task.checked = true;
        let Task { nexus, request, .. } = *task;
        match self.check(nexus, request) {
            Ok(()) => Begun::Proceeds,
            Err(failure) => {
                self.tasks.remove(&id);
                Begun::Refused(failure)
            }
        }
    }

    /// The device carries a command out and answers, beginning it first if need be. None if there is no such command any more: it was
    /// aborted, and will never be answered.
    pub fn execute(&mut self, id: TaskId) -> Option<Result<Reply, Failure>> {
        match self.begin(id) {
            Begun::Gone => None,
            Begun::Refused(failure) => Some(Err(failure)),
            Begun::Proceeds => self.tasks.remove(&id).map(|task| self.carry_out(task.nexus, task.request)),
        }
    }

    /// A command that arrives and is carried out at once. None if it cannot arrive.
    pub fn run(&mut self, nexus: Nexus, request: Request) -> Option<Result<Reply, Failure>> {
        let id = self.submit(nexus, request)?;
        self.execute(id)
    }

    /// An initiator gives a command up (ABORT TASK). One that was carried out stays carried out.
    pub fn abort(&mut self, id: TaskId) {
        self.tasks.remove(&id);
    }

    /// LOGICAL UNIT RESET: all commands are aborted, and every nexus is told; reservation and registrations stay (5.13.1).
    pub fn reset(&mut self) {
        self.tasks.clear();
        for line in self.lines.values_mut() {
            line.tell(UnitAttention::Reset);
        }
    }

    /// The device loses power: all commands are gone, and all paths down. What was written stays; the reservation and the
    /// registrations stay if the latest registration asked for it (6.16.3).
    pub fn lose_power(&mut self) {
        self.powered = false;
        self.tasks.clear();
        self.lines.clear();
        if self.power_loss == PowerLoss::Forgets {
            self.registry.forget();
        }
    }

    /// Power is back. The paths have to [come up](Self::connect) again.
    pub fn restore_power(&mut self) {
        if !self.powered {
            self.powered = true;
            self.registry.restart_generation();
        }
    }

    /// Whether a command that is sent on this nexus arrives.
    pub fn is_connected(&self, nexus: Nexus) -> bool {
        self.lines.get(&nexus).is_some_and(|line| line.path == Path::Up)
    }

    /// The commands that wait, oldest first.
    pub fn tasks(&self) -> impl Iterator<Item = (TaskId, Nexus, Request)> + '_ {
        self.tasks.iter().map(|(&id, task)| (id, task.nexus, task.request))
    }

    /// Each registration, for whoever watches the simulation: nobody is told anything by looking.
    pub fn registrations(&self) -> Vec<Registered> {
        self.registry.full_status()
    }

    /// The reservation and the generation, for whoever watches.
    pub fn reservation(&self) -> Reservation {
        Reservation { generation: self.registry.generation(), held: self.registry.held() }
    }

    /// Whether the next command of the nexus is told something instead of being carried out.
    pub(crate) fn has_to_tell(&self, nexus: Nexus) -> bool {
        self.lines.get(&nexus).is_some_and(|line| !line.pending.is_empty())
    }

    /// Takes away in what devices may differ without anybody's finding out: how many commands there were, and how many registrations,
    /// but for none. For devices in which no command waits.
    pub(crate) fn make_canonical(&mut self) {
        self.tasks_so_far = 0;
        self.registry.make_canonical();
    }

    /// Whether a write that begins now would pass the reservation.
    pub fn may_write(&self, nexus: Nexus) -> bool {
        self.registry.may_write(nexus)
    }

    /// What a block holds.
    pub fn block(&self, lba: Lba) -> Option<Stamp> {
        self.blocks.get(&lba).copied()
    }

    fn check(&mut self, nexus: Nexus, request: Request) -> Result<(), Failure> {
        let kept_out = match request {
            Request::Read(_) => !self.registry.may_read(nexus),
            Request::Write(..) => !self.registry.may_write(nexus),
            Request::Reservation(_) | Request::ReadFullStatus | Request::TestUnitReady => false,
        };
        let refused =
            kept_out || matches!(&request, Request::Reservation(asked) if self.registry.keeps_out(nexus, asked));
        if let Some(line) = self.lines.get_mut(&nexus)
            && let Some(what) = line.pending.first().copied()
        {
            if self.target.first == First::Conflict && refused && !is_reset(what) {
                return Err(Failure::Conflict);
            }
            line.pending.remove(0);
            return Err(Failure::UnitAttention(what));
        }
        if kept_out { Err(Failure::Conflict) } else { Ok(()) }
    }

    fn carry_out(&mut self, nexus: Nexus, request: Request) -> Result<Reply, Failure> {
        match request {
            Request::Read(lba) => Ok(Reply::Block(self.block(lba))),
            Request::Write(lba, stamp) => {
                self.blocks.insert(lba, stamp);
                Ok(Reply::Good)
            }
            Request::TestUnitReady => Ok(Reply::Good),
            Request::ReadFullStatus if self.target.reservations == Reservations::Full => {
                Ok(Reply::FullStatus(self.registry.full_status()))
            }
            Request::ReadFullStatus => Err(Failure::NotSupported),
            Request::Reservation(_) if self.target.reservations == Reservations::Unknown => Err(Failure::NotSupported),
            Request::Reservation(command) => self.answer(nexus, command).map(Reply::Reservation),
        }
    }

    fn answer(&mut self, nexus: Nexus, command: Command) -> Result<Answer, Failure> {
        let generation = self.registry.generation();
        let consequences = match command {
            Command::ReadKeys => return Ok(Answer::Keys(Keys { generation, keys: self.registry.keys() })),
            Command::ReadReservation => return Ok(Answer::Reservation(self.reservation())),
            Command::ReportCapabilities => return Ok(Answer::Capabilities(self.capabilities())),
            Command::Register { old, new, ports, power_loss } => {
                return self.register(nexus, Existing::Is(old), new, (ports, power_loss));
            }
            Command::RegisterIgnoring { new, ports, power_loss } => {
                return self.register(nexus, Existing::Any, new, (ports, power_loss));
            }
            Command::Reserve { key, kind } => {
                let quirk = self.target.unregistered_reserve == UnregisteredReserve::CommunicationFailure;
                if quirk && self.registry.key_of(nexus).is_none() && self.registry.held().is_none() {
                    return Err(Failure::Rejected(Sense::COMMUNICATION_FAILURE));
                }
                self.registry.reserve(nexus, key, kind)?
            }
            Command::Release { key, kind } => self.registry.release(nexus, key, kind)?,
            Command::Clear { key } => self.registry.clear(nexus, key)?,
            Command::Preempt { queued: Queued::Aborted, .. } if self.target.reservations == Reservations::Basic => {
                return Err(Failure::NotSupported);
            }
            Command::Preempt { key, victim, kind, queued } => {
                self.registry.preempt(nexus, Preemption { key, victim, kind, queued }, self.target.tells_preempted)?
            }
        };
        self.apply(consequences);
        Ok(Answer::Done)
    }

    /// Of whatever is asked, a flag that the target does not know refuses all (6.16.3).
    fn register(
        &mut self,
        nexus: Nexus,
        existing: Existing,
        new: Option<Key>,
        (ports, power_loss): (Ports, PowerLoss),
    ) -> Result<Answer, Failure> {
        let keeps = power_loss == PowerLoss::Keeps;
        if ports == Ports::All && self.target.registers == Ports::This || keeps && self.target.store == Store::None {
            return Err(Failure::NotSupported);
        }
        let through: Vec<Nexus> = match ports {
            Ports::This => vec![nexus],
            Ports::All => (1..=self.target.ports.get()).map(|port| Nexus { port, ..nexus }).collect(),
        };
        let did_nothing = new.is_none() && self.registry.key_of(nexus).is_none();
        let consequences = self.registry.register(nexus, existing, new, &through)?;
        self.apply(consequences);
        if did_nothing {
            return Ok(Answer::Done);
        }
        if keeps && self.target.store == Store::Fails {
            self.power_loss = PowerLoss::Forgets;
            return Err(Failure::Rejected(Sense::COMMUNICATION_FAILURE));
        }
        self.power_loss = power_loss;
        Ok(Answer::Done)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            power_loss: self.target.store.best(),
            power_loss_now: self.power_loss,
            ports: self.target.registers,
            types: ReservationType::ALL.to_vec(),
        }
    }

    /// A nexus that is down is told when it is back.
    fn apply(&mut self, consequences: Consequences) {
        for (nexus, what) in consequences.tell {
            self.lines.entry(nexus).or_insert_with(Line::new).tell(what);
        }
        self.tasks.retain(|_, task| !consequences.abort.contains(&task.nexus));
    }
}
