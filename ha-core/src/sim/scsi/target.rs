//! What kind of target a simulated device is: the freedoms that the standard leaves, and how targets in use depart from it.
//!
//! Decides nothing but the defaults. The departures of LIO and tgt were seen with LIO of Linux 6.1 and tgtd 1.0.85.

use std::num::NonZeroU16;

use crate::claim::reservation::device::{Ports, PowerLoss, UnitAttention};

/// A kind of target. Every field can be changed on its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// How many ports it has, numbered from 1.
    pub ports: NonZeroU16,
    /// Whether it knows reservations at all, and how much of them.
    pub reservations: Reservations,
    /// To which ports one registration can be made to apply at best.
    pub registers: Ports,
    /// What it can keep over loss of power.
    pub store: Store,
    /// What a nexus is told whose registration was preempted. The standard says [`UnitAttention::RegistrationsPreempted`]; some targets
    /// tell the other preemption, some nothing.
    pub tells_preempted: Option<UnitAttention>,
    /// What comes first for a command that deserves both.
    pub first: First,
    /// What becomes of a registration when its nexus comes back.
    pub login: Login,
    /// How RESERVE from a nexus that is not registered is refused while nobody holds a reservation.
    pub unregistered_reserve: UnregisteredReserve,
}

/// How much a target knows of persistent reservations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reservations {
    /// Nothing: every such command is answered "not supported".
    Unknown,
    /// All but PREEMPT AND ABORT and READ FULL STATUS.
    Basic,
    /// All that is modelled.
    Full,
}

/// What a target can keep over loss of power.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Store {
    /// Nothing: a registration that asks for it is refused.
    None,
    /// The reservation and all registrations.
    Works,
    /// It should, but cannot: a registration that asks for it takes effect and is answered with an error all the same.
    Fails,
}

impl Store {
    /// What loss of power can be made to do at best, as the target reports it.
    pub(super) fn best(self) -> PowerLoss {
        match self {
            Store::None => PowerLoss::Forgets,
            Store::Works | Store::Fails => PowerLoss::Keeps,
        }
    }
}

/// What comes first for a command that deserves both a reservation conflict and a unit attention. SAM-5 was read either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum First {
    /// The unit attention, which consumes the command. So do LIO and tgt.
    UnitAttention,
    /// The conflict, unless it is a matter of a reset. The unit attention then waits for a command that is allowed.
    Conflict,
}

/// What becomes of the registration of a nexus that was lost and comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Login {
    /// It is the same nexus, registered as before, as 5.13.1 has it.
    Same,
    /// It counts as a new nexus, unregistered; the old registration, and a reservation that hangs on it, stay with nobody. tgt does so, and
    /// every target if the initiator comes back under another name for its port (an iSCSI initiator with a new ISID).
    New,
}

/// How a target refuses RESERVE from a nexus that is not registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnregisteredReserve {
    /// Reservation conflict, by 5.13.7.
    Conflict,
    /// Sense 2h/08h/00h, as LIO does.
    CommunicationFailure,
}

impl Target {
    /// A target that does all that the standard describes, in the way it prescribes.
    pub fn standard(ports: NonZeroU16) -> Target {
        Target {
            ports,
            reservations: Reservations::Full,
            registers: Ports::All,
            store: Store::Works,
            tells_preempted: Some(UnitAttention::RegistrationsPreempted),
            first: First::UnitAttention,
            login: Login::Same,
            unregistered_reserve: UnregisteredReserve::Conflict,
        }
    }

    /// The target of the Linux kernel, with its place for what is to survive loss of power (`/etc/target/pr`) in order.
    pub fn lio(ports: NonZeroU16) -> Target {
        Target { unregistered_reserve: UnregisteredReserve::CommunicationFailure, ..Target::standard(ports) }
    }

    /// The target framework in user space, tgtd.
    pub fn tgt(ports: NonZeroU16) -> Target {
        Target {
            reservations: Reservations::Basic,
            registers: Ports::This,
            store: Store::None,
            tells_preempted: Some(UnitAttention::ReservationsPreempted),
            login: Login::New,
            ..Target::standard(ports)
        }
    }

    /// A disk that knows no persistent reservations, as scsi_debug of the Linux kernel.
    pub fn without_reservations(ports: NonZeroU16) -> Target {
        Target { reservations: Reservations::Unknown, ..Target::standard(ports) }
    }
}
