//! One node's machine, and the device that it speaks with.
//!
//! Decides how each is stepped, and keeps what came of it: the same machine with the same input does the same again, and so does the device.
//! Leaves to the model what happens when.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use super::super::{Answered, Output};
use super::{Kind, Start, name};
use crate::claim::reservation::device::{
    Answer, Command, Failure, Key, PathName, Ports, PowerLoss, Queued, ReservationType,
};
use crate::claim::reservation::machine::{Config, Effect, Input, Machine, Reply, Request, RequestId};
use crate::claim::reservation::supposed::NOW;
use crate::claim::reservation::{Keyring, ReservationTiming};
use crate::claim::{Acquire, Belief};
use crate::name::{ClusterName, Epoch, NodeName};
use crate::sim::model::intern::Interner;
use crate::sim::scsi::{self, Device, Nexus, Target};

/// A quarter of a defence interval: all times of a model are multiples of it.
pub(super) const UNIT: Duration = Duration::from_millis(250);

/// The time limit of a command, in units: a defence interval.
pub(super) const LIMIT: u8 = 4;

/// What a machine takes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Stimulus {
    /// `gone`: a bit for each node that passes for gone.
    Take {
        gone: u8,
        known: u8,
        adopt: Option<u8>,
    },
    Release(u8),
    /// With the number of the result.
    Answered(u32),
    Due,
    /// So many units of time pass.
    Age(u8),
}

/// A machine, canonical.
#[derive(Clone)]
pub(super) struct Local {
    machine: Machine,
    /// The command under way.
    pub(super) command: Option<Command>,
    /// In so many units it is not answered in time.
    pub(super) in_time_for: u8,
    /// In so many units something is due, if no command is under way.
    pub(super) due_in: Option<u8>,
    /// The tenure it believes to have.
    pub(super) held: Option<u8>,
}

impl Local {
    fn of(mut machine: Machine) -> Local {
        machine.make_canonical();
        let under_way = machine.under_way();
        let sent = under_way.map_or(NOW, |(_, _, sent)| sent);
        Local {
            command: under_way.map(|(_, command, _)| command),
            in_time_for: units(NOW.until(sent + UNIT * u32::from(LIMIT))),
            due_in: machine.next_deadline().map(|at| units(NOW.until(at))),
            held: machine.held().map(small),
            machine,
        }
    }
}

/// Rounded up.
fn units(time: Duration) -> u8 {
    time.as_nanos().div_ceil(UNIT.as_nanos()).try_into().unwrap_or(u8::MAX)
}

fn small(epoch: Epoch) -> u8 {
    u8::try_from(epoch.0).unwrap_or(u8::MAX)
}

/// All that never changes, and all that was stepped before.
pub(super) struct Memo {
    pub(super) keyring: Keyring,
    timing: ReservationTiming,
    nodes: Vec<NodeName>,
    locals: Interner<Local>,
    results: Interner<Result<Answer, Failure>>,
    stirred: HashMap<(u32, Stimulus), Output>,
    disks: Interner<Disk>,
    asked: HashMap<(u32, u8, Command), (u32, u32)>,
}

impl Memo {
    #[expect(clippy::expect_used, reason = "constant names and times, checked by every test")]
    pub(super) fn new(nodes: usize) -> Memo {
        let nodes: Vec<_> = (0..nodes).map(|i| NodeName::new(name(i)).expect("a valid name")).collect();
        let cluster = ClusterName::new("shop").expect("a valid name");
        Memo {
            keyring: Keyring::new(&cluster, nodes.iter().cloned()).expect("few nodes"),
            timing: ReservationTiming::new(UNIT * 4, UNIT * 12).expect("the shortest bound that is allowed"),
            nodes,
            locals: Interner::default(),
            results: Interner::default(),
            stirred: HashMap::new(),
            disks: Interner::default(),
            asked: HashMap::new(),
        }
    }

    pub(super) fn local(&self, number: u32) -> &Local {
        self.locals.get(number)
    }

    pub(super) fn disk(&self, number: u32) -> &Disk {
        self.disks.get(number)
    }

    pub(super) fn result(&self, number: u32) -> &Result<Answer, Failure> {
        self.results.get(number)
    }

    /// Different machines, and different states of the device.
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.locals.len(), self.disks.len())
    }

    fn put(&mut self, i: usize, machine: Machine) -> u32 {
        let local = Local::of(machine);
        let identity = format!("{i}{}", local.machine.identity());
        self.locals.put(identity.as_bytes(), || local)
    }

    /// A node as its agent begins.
    #[expect(clippy::expect_used, reason = "the model's nodes are the cluster's")]
    pub(super) fn fresh(&mut self, i: usize) -> u32 {
        let config = Config {
            keyring: self.keyring.clone(),
            me: self.keyring.number_of(&self.nodes[i]).expect("a node of the cluster"),
            kind: ReservationType::WriteExclusiveRegistrantsOnly,
            timing: self.timing,
            devices: vec![("disk".to_owned(), UNIT * u32::from(LIMIT))],
        };
        let mut machine = Machine::new(config);
        machine.handle(NOW, Input::Paths(0, vec![PathName::new("sda")]));
        self.put(i, machine)
    }

    pub(super) fn no_answer(&mut self) -> u32 {
        self.put_result(Err(Failure::NoAnswer))
    }

    fn put_result(&mut self, result: Result<Answer, Failure>) -> u32 {
        self.results.put(format!("{result:?}").as_bytes(), || result)
    }

    /// Has the machine of node `i` take something in.
    pub(super) fn stir(&mut self, number: u32, stimulus: Stimulus, i: usize) -> Result<Output, String> {
        if let Some(output) = self.stirred.get(&(number, stimulus)) {
            return Ok(output.clone());
        }
        let mut machine = self.locals.get(number).machine.clone();
        match stimulus {
            Stimulus::Age(by) => machine.age(UNIT * u32::from(by)),
            Stimulus::Due => machine.handle(NOW, Input::Tick),
            Stimulus::Answered(result) => {
                if let Some((id, ..)) = machine.under_way() {
                    machine.handle(NOW, Input::Answered(id, self.results.get(result).clone()));
                }
            }
            Stimulus::Release(epoch) => {
                machine.handle(NOW, Input::Ask(RequestId(0), Request::Release(Epoch(epoch.into()))));
            }
            Stimulus::Take { gone, known, adopt } => {
                let belief = |j: usize| if gone & 1 << j == 0 { Belief::Lost } else { Belief::Gone };
                let others = self.nodes.iter().enumerate().filter(|(j, _)| *j != i);
                let beliefs: BTreeMap<_, _> = others.map(|(j, node)| (node.clone(), belief(j))).collect();
                let (known, adopt) = (Epoch(known.into()), adopt.map(|epoch| Epoch(epoch.into())));
                let acquire = Acquire { beliefs: Arc::new(beliefs), known, adopt };
                machine.handle(NOW, Input::Ask(RequestId(0), Request::Acquire(acquire)));
            }
        }
        let mut answer = None;
        let mut sent = 0;
        while let Some(effect) = machine.poll_effect() {
            match effect {
                Effect::Send { .. } => sent += 1,
                Effect::Reply(_, Reply::Acquired(held)) => answer = Some(Answered::Acquired(small(held.epoch))),
                Effect::Reply(_, Reply::Done) => answer = Some(Answered::Done),
                Effect::Reply(_, Reply::Refused(refusal)) => answer = Some(Answered::Refused(refusal.to_string())),
            }
        }
        if sent > 1 {
            return Err(format!("{} sends {sent} commands at once", name(i)));
        }
        let output = Output { local: self.put(i, machine), answer };
        self.stirred.insert((number, stimulus), output.clone());
        Ok(output)
    }

    /// Has the device carry a command of node `i` out: the device then, and the number of the result.
    pub(super) fn carry_out(&mut self, disk: u32, i: usize, command: Command) -> (u32, u32) {
        let key = (disk, i as u8, command);
        if let Some(done) = self.asked.get(&key) {
            return *done;
        }
        let mut device = self.disks.get(disk).device.clone();
        let result = match device.run(nexus(i), scsi::Request::Reservation(command)) {
            Some(Ok(scsi::Reply::Reservation(answer))) => Ok(answer),
            Some(Err(failure)) => Err(failure),
            _ => Err(Failure::Transport),
        };
        let done = (self.put_disk(device), self.put_result(result));
        self.asked.insert(key, done);
        done
    }

    /// Something else on node `i` uses the device, and is told what there is to tell.
    pub(super) fn hear(&mut self, disk: u32, i: usize) -> u32 {
        let mut device = self.disks.get(disk).device.clone();
        let _ = device.run(nexus(i), scsi::Request::TestUnitReady);
        self.put_disk(device)
    }

    /// Node `i` comes back to the device after it was away.
    pub(super) fn log_in(&mut self, disk: u32, i: usize) -> u32 {
        let mut device = self.disks.get(disk).device.clone();
        device.disconnect(nexus(i));
        device.connect(nexus(i));
        self.put_disk(device)
    }

    fn put_disk(&mut self, mut device: Device) -> u32 {
        device.make_canonical();
        let nodes = self.nodes.len();
        let bits = |which: &dyn Fn(usize) -> bool| (0..nodes).filter(|i| which(*i)).fold(0, |bits, i| bits | 1 << i);
        let registrations = device.registrations();
        let disk = Disk {
            may_write: bits(&|i| device.may_write(nexus(i))),
            registered: bits(&|i| registrations.iter().any(|r| r.nexus == nexus(i))),
            registrations: registrations.len(),
            has_to_tell: bits(&|i| device.has_to_tell(nexus(i))),
            device,
        };
        self.disks.put(format!("{:?}", disk.device).as_bytes(), || disk)
    }

    /// The device as a run begins with it: everybody is connected, and was told that it was switched on.
    #[expect(clippy::expect_used, reason = "constants")]
    pub(super) fn first_disk(&mut self, kind: Kind, start: Start) -> u32 {
        let one = NonZeroU16::new(1).expect("not zero");
        let mut device = Device::new(match kind {
            Kind::Lio => Target::lio(one),
            Kind::Tgt => Target::tgt(one),
        });
        for i in 0..self.nodes.len() {
            device.connect(nexus(i));
            let _ = device.run(nexus(i), scsi::Request::TestUnitReady);
        }
        if start != Start::Blank {
            for new in [Key::new(1), None] {
                let (ports, power_loss) = (Ports::This, PowerLoss::Forgets);
                let command = Command::RegisterIgnoring { new, ports, power_loss };
                let _ = device.run(nexus(0), scsi::Request::Reservation(command));
            }
        }
        self.put_disk(device)
    }

    /// A command, for people.
    pub(super) fn in_words(&self, command: &Command) -> String {
        let key = |key: &Key| self.keyring.describe(*key);
        let some = |k: &Option<Key>| k.as_ref().map_or_else(|| "nothing".to_owned(), key);
        match command {
            Command::ReadKeys => "read keys".to_owned(),
            Command::ReadReservation => "read the reservation".to_owned(),
            Command::ReportCapabilities => "report capabilities".to_owned(),
            Command::Register { old, new, .. } => format!("register {} over {}", some(new), some(old)),
            Command::RegisterIgnoring { new, .. } => format!("register {}", some(new)),
            Command::Reserve { key: k, .. } => format!("reserve as {}", key(k)),
            Command::Release { key: k, .. } => format!("release as {}", key(k)),
            Command::Clear { key: k } => format!("clear as {}", key(k)),
            Command::Preempt { key: k, victim, queued, .. } => {
                let abort = if *queued == Queued::Aborted { " and abort" } else { "" };
                format!("preempt{abort} {} as {}", some(victim), key(k))
            }
        }
    }
}

/// The device, and what an observer sees of it.
pub(super) struct Disk {
    device: Device,
    /// A bit for each node that could write.
    pub(super) may_write: u8,
    /// A bit for each node with a registration.
    pub(super) registered: u8,
    /// All of them, those of nodes that came back as others included.
    pub(super) registrations: usize,
    /// A bit for each node that is told something before the next command is carried out.
    pub(super) has_to_tell: u8,
}

fn nexus(i: usize) -> Nexus {
    Nexus { initiator: i as u16 + 1, port: 1 }
}
