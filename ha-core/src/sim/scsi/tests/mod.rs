//! The device as scenarios: three nodes and a disk with two ports.

use std::num::NonZeroU16;

use crate::claim::reservation::device::{
    Answer, Command, Failure, Held, Key, Ports, PowerLoss, Queued, ReservationType, Sense, UnitAttention,
};

use super::{Begun, Device, First, Lba, Login, Nexus, Registered, Reply, Request, Stamp, Store, Target};
use ReservationType::{
    ExclusiveAccess, ExclusiveAccessAllRegistrants, ExclusiveAccessRegistrantsOnly, WriteExclusive,
    WriteExclusiveAllRegistrants, WriteExclusiveRegistrantsOnly,
};

mod arbitrary;
mod faults;
mod reservations;
mod targets;

const ALPHA: Nexus = Nexus { initiator: 1, port: 1 };
/// The second path of the first node.
const ALPHA_2: Nexus = Nexus { initiator: 1, port: 2 };
const BETA: Nexus = Nexus { initiator: 2, port: 1 };
const GAMMA: Nexus = Nexus { initiator: 3, port: 1 };

const A: Key = Key::new(0xA).unwrap();
const B: Key = Key::new(0xB).unwrap();
const C: Key = Key::new(0xC).unwrap();

const REGISTRANTS_ONLY: [ReservationType; 2] = [WriteExclusiveRegistrantsOnly, ExclusiveAccessRegistrantsOnly];
const ALL_REGISTRANTS: [ReservationType; 2] = [WriteExclusiveAllRegistrants, ExclusiveAccessAllRegistrants];

fn two_ports() -> NonZeroU16 {
    NonZeroU16::new(2).unwrap()
}

/// A device with four paths to it, none of which has anything to be told.
fn disk() -> Device {
    disk_of(Target::standard(two_ports()))
}

fn disk_of(target: Target) -> Device {
    let mut disk = Device::new(target);
    come_up(&mut disk);
    disk
}

fn come_up(disk: &mut Device) {
    for nexus in [ALPHA, ALPHA_2, BETA, GAMMA] {
        assert!(disk.connect(nexus));
        assert_eq!(told(disk, nexus), [UnitAttention::PowerOn]);
    }
}

/// A device with these registered.
fn disk_with(registered: &[(Nexus, Key)]) -> Device {
    let mut disk = disk();
    for &(nexus, key) in registered {
        assert_eq!(register(&mut disk, nexus, None, Some(key)), Ok(()));
    }
    disk
}

/// A device with these registered, and reserved by the first of them.
fn disk_held(kind: ReservationType, registered: &[(Nexus, Key)]) -> Device {
    let mut disk = disk_with(registered);
    let (holder, key) = registered[0];
    assert_eq!(reserve(&mut disk, holder, key, kind), Ok(()));
    disk
}

fn ask(disk: &mut Device, nexus: Nexus, command: Command) -> Result<Answer, Failure> {
    match disk.run(nexus, Request::Reservation(command)).expect("the path is up")? {
        Reply::Reservation(answer) => Ok(answer),
        other => panic!("{command:?} is answered {other:?}"),
    }
}

fn order(disk: &mut Device, nexus: Nexus, command: Command) -> Result<(), Failure> {
    assert_eq!(ask(disk, nexus, command)?, Answer::Done);
    Ok(())
}

fn register(disk: &mut Device, nexus: Nexus, old: Option<Key>, new: Option<Key>) -> Result<(), Failure> {
    order(disk, nexus, Command::Register { old, new, ports: Ports::This, power_loss: PowerLoss::Forgets })
}

fn register_ignoring(disk: &mut Device, nexus: Nexus, new: Option<Key>) -> Result<(), Failure> {
    order(disk, nexus, Command::RegisterIgnoring { new, ports: Ports::This, power_loss: PowerLoss::Forgets })
}

fn reserve(disk: &mut Device, nexus: Nexus, key: Key, kind: ReservationType) -> Result<(), Failure> {
    order(disk, nexus, Command::Reserve { key, kind })
}

fn release(disk: &mut Device, nexus: Nexus, key: Key, kind: ReservationType) -> Result<(), Failure> {
    order(disk, nexus, Command::Release { key, kind })
}

fn preempt(
    disk: &mut Device,
    nexus: Nexus,
    key: Key,
    victim: Option<Key>,
    kind: ReservationType,
) -> Result<(), Failure> {
    order(disk, nexus, Command::Preempt { key, victim, kind, queued: Queued::Stay })
}

fn write(disk: &mut Device, nexus: Nexus) -> Result<Reply, Failure> {
    disk.run(nexus, Request::Write(Lba(0), Stamp(u64::from(nexus.initiator)))).expect("the path is up")
}

fn read(disk: &mut Device, nexus: Nexus) -> Result<Reply, Failure> {
    disk.run(nexus, Request::Read(Lba(0))).expect("the path is up")
}

/// All that a nexus has to be told, by asking until it is told nothing more.
fn told(disk: &mut Device, nexus: Nexus) -> Vec<UnitAttention> {
    let mut told = vec![];
    loop {
        match disk.run(nexus, Request::TestUnitReady).expect("the path is up") {
            Err(Failure::UnitAttention(what)) => told.push(what),
            Ok(Reply::Good) => return told,
            other => panic!("TEST UNIT READY is answered {other:?}"),
        }
    }
}

fn keys(disk: &mut Device, nexus: Nexus) -> (u32, Vec<Key>) {
    match ask(disk, nexus, Command::ReadKeys) {
        Ok(Answer::Keys(read)) => (read.generation, read.keys),
        other => panic!("READ KEYS is answered {other:?}"),
    }
}

fn held(disk: &Device) -> Option<Held> {
    disk.reservation().held
}

#[expect(clippy::unnecessary_wraps, reason = "compared with what `held` returns")]
fn by(key: Key, kind: ReservationType) -> Option<Held> {
    Some(Held { key: Some(key), kind })
}
