//! What is asked of a device that has persistent reservations, and what it answers.
//!
//! Decides the words, the same for SCSI and NVMe and without a byte of either: the commands, the answers, and the ways in which a
//! command fails. Leaves encoding and decoding, and the sending on one path or several, to whoever touches the device.
//!
//! Clauses in comments are those of SPC-4 (INCITS 513).

use std::fmt;
use std::num::NonZeroU64;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

/// A reservation key: eight bytes, big-endian on the wire, by which a registered nexus shows that it knows what it is doing.
///
/// Never zero, since zero means "none" in every field that takes a key. Two nexuses may use the same one (5.13.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key(NonZeroU64);

impl Key {
    /// The key with this value; none for zero.
    pub const fn new(value: u64) -> Option<Key> {
        match NonZeroU64::new(value) {
            Some(value) => Some(Key(value)),
            None => None,
        }
    }

    /// The value.
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#018x}", self.get())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whom a reservation keeps out, and who holds it (6.15.3.4). The scope is always the whole logical unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ReservationType {
    /// One nexus writes, all read.
    WriteExclusive,
    /// One nexus writes and reads.
    ExclusiveAccess,
    /// Every registered nexus writes, all read; one nexus holds, and the reservation ends with its registration.
    WriteExclusiveRegistrantsOnly,
    /// Every registered nexus writes and reads; one nexus holds, and the reservation ends with its registration.
    ExclusiveAccessRegistrantsOnly,
    /// Every registered nexus writes and holds, all read; the reservation ends with the last registration.
    WriteExclusiveAllRegistrants,
    /// Every registered nexus writes, reads and holds; the reservation ends with the last registration.
    ExclusiveAccessAllRegistrants,
}

impl ReservationType {
    /// Every type, in the order of the numbers that SCSI gives them.
    pub const ALL: [ReservationType; 6] = [
        ReservationType::WriteExclusive,
        ReservationType::ExclusiveAccess,
        ReservationType::WriteExclusiveRegistrantsOnly,
        ReservationType::ExclusiveAccessRegistrantsOnly,
        ReservationType::WriteExclusiveAllRegistrants,
        ReservationType::ExclusiveAccessAllRegistrants,
    ];

    /// Whether every registered nexus is a holder (5.13.10).
    pub const fn is_held_by_all_registrants(self) -> bool {
        matches!(self, Self::WriteExclusiveAllRegistrants | Self::ExclusiveAccessAllRegistrants)
    }

    /// Whether a nexus may read and write for no other reason than that it is registered.
    pub const fn admits_registrants(self) -> bool {
        !matches!(self, Self::WriteExclusive | Self::ExclusiveAccess)
    }

    /// Whether a nexus that the reservation keeps from writing may read all the same.
    pub const fn admits_readers(self) -> bool {
        matches!(self, Self::WriteExclusive | Self::WriteExclusiveRegistrantsOnly | Self::WriteExclusiveAllRegistrants)
    }
}

/// To which of the device's ports a registration applies (ALL_TG_PT, 6.16.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Ports {
    /// The one through which it comes.
    This,
    /// Every one, as if the same request had come through each.
    All,
}

/// What loss of power does to the reservation and to *all* registrations, whoever made them (APTPL, 6.16.3). The latest
/// registration that was carried out decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PowerLoss {
    /// They are gone.
    Forgets,
    /// They stay. Not every device can.
    Keeps,
}

/// What becomes of commands that the preempted nexuses have in the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Queued {
    /// They stay. One that passed its check already is carried out, *after* the preemption (5.13.1): a write can come late.
    Stay,
    /// They are aborted before the preemption is answered (5.13.11.2.6). Not every device can.
    Aborted,
}

/// A command about reservations, to be sent on one nexus: one path from this node to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Command {
    /// PERSISTENT RESERVE IN, READ KEYS. Answered by [`Answer::Keys`].
    ReadKeys,
    /// PERSISTENT RESERVE IN, READ RESERVATION. Answered by [`Answer::Reservation`].
    ReadReservation,
    /// PERSISTENT RESERVE IN, REPORT CAPABILITIES. Answered by [`Answer::Capabilities`].
    ReportCapabilities,
    /// REGISTER: makes, changes or removes this nexus' registration; a conflict unless `old` is what is registered. A
    /// reservation stays when the key of its holder changes, and ends when its holder is unregistered.
    Register {
        /// The key that is registered; none for a nexus that is not.
        old: Option<Key>,
        /// The key from now on; none to unregister.
        new: Option<Key>,
        /// To which ports it applies.
        ports: Ports,
        /// What loss of power does from now on.
        power_loss: PowerLoss,
    },
    /// REGISTER AND IGNORE EXISTING KEY: as REGISTER, whatever is registered. A nexus that was fenced lets itself in again with it.
    RegisterIgnoring {
        /// The key from now on; none to unregister.
        new: Option<Key>,
        /// To which ports it applies.
        ports: Ports,
        /// What loss of power does from now on.
        power_loss: PowerLoss,
    },
    /// RESERVE: takes a reservation that nobody holds; done, too, if this nexus holds it with the same type.
    Reserve {
        /// This nexus' key.
        key: Key,
        /// The type.
        kind: ReservationType,
    },
    /// RELEASE: ends the reservation that this nexus holds. Done, and nothing happened, if it is registered and holds none.
    Release {
        /// This nexus' key.
        key: Key,
        /// The type of the reservation that is held.
        kind: ReservationType,
    },
    /// CLEAR: ends the reservation, whoever holds it, and removes all registrations.
    Clear {
        /// This nexus' key.
        key: Key,
    },
    /// PREEMPT, or PREEMPT AND ABORT: removes every registration with the victim's key; if the victim holds the reservation, this nexus
    /// holds it from then on. A conflict if nobody is registered with the victim's key.
    Preempt {
        /// This nexus' key.
        key: Key,
        /// The victim's; none to take a reservation that all registrants hold from all of them.
        victim: Option<Key>,
        /// The type of the reservation from now on, if it changes hands.
        kind: ReservationType,
        /// What becomes of the victims' commands.
        queued: Queued,
    },
}

/// What a command that was carried out answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Answer {
    /// A command that changes something was carried out.
    Done,
    /// The registrations.
    Keys(Keys),
    /// The reservation.
    Reservation(Reservation),
    /// What the device can do.
    Capabilities(Capabilities),
}

/// The registrations of a device.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Keys {
    /// Grows with every registration, preemption and clearing that is carried out, wraps round, and is zero again after loss of power
    /// (6.15.2). Reserving and releasing leave it.
    pub generation: u32,
    /// One for each registered nexus, in no particular order; the same key as often as it is registered.
    pub keys: Vec<Key>,
}

/// The reservation of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Reservation {
    /// As in [`Keys::generation`].
    pub generation: u32,
    /// The reservation, if there is one.
    pub held: Option<Held>,
}

/// A reservation that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Held {
    /// The holder's key; none for the types that all registrants hold.
    pub key: Option<Key>,
    /// Its type.
    pub kind: ReservationType,
}

/// Who is registered, one nexus after the other (READ FULL STATUS, 6.15.5; NVMe's Reservation Report), for reports.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Registrations {
    /// As in [`Keys::generation`].
    pub generation: u32,
    /// Each registered nexus.
    pub registrations: Vec<Registration>,
    /// The nexus that asked, as far as it is known: the path itself.
    pub asked_by: Nexus,
}

/// One nexus that is registered.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Registration {
    /// The key.
    pub key: Key,
    /// Who is registered.
    pub initiator: InitiatorPort,
    /// Through which of the target's ports: its relative target port identifier. None for a registration that is for all of them.
    pub port: Option<u16>,
    /// It holds the reservation.
    pub holds: bool,
}

/// The port of an initiator, as its transport names it (SPC-4, 7.6.4).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct InitiatorPort {
    /// Its name: of iSCSI the initiator's, `iqn.…`; else with the transport, such as `fcp.…`, `sas.…` and `nvme.…`.
    pub name: String,
    /// The session's identifier (ISID), twelve hexadecimal digits, which makes of an iSCSI initiator a port. None elsewhere, and where it is not
    /// told.
    pub session: Option<String>,
}

impl fmt::Display for InitiatorPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.session.as_ref().map_or(Ok(()), |session| write!(f, ",i,0x{session}"))
    }
}

/// A path from an initiator's port to a target's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Nexus {
    /// The initiator's; none where it cannot be found out.
    pub initiator: Option<InitiatorPort>,
    /// The target's: its relative target port identifier; none where the device does not say.
    pub port: Option<u16>,
}

impl Registration {
    /// Whether it can be that of this nexus, as far as both are known.
    pub(crate) fn may_be(&self, nexus: &Nexus) -> bool {
        let Some(initiator) = &nexus.initiator else { return false };
        let same_session = match (&self.initiator.session, &initiator.session) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        };
        self.initiator.name == initiator.name && same_session && (self.port.is_none() || self.port == nexus.port)
    }

    /// Whether it is that of this nexus and can be no other one's, except where it is for all ports.
    pub(crate) fn is_exactly(&self, nexus: &Nexus) -> bool {
        let told = self.initiator.session.is_some()
            && nexus.initiator.as_ref().is_some_and(|initiator| initiator.session.is_some());
        self.may_be(nexus) && (told || self.port.is_none())
    }
}

/// What a device says that it can do. Whether it knows PREEMPT AND ABORT it does not say: that shows when it is asked to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Capabilities {
    /// What loss of power can be made to do at best (PTPL_C).
    pub power_loss: PowerLoss,
    /// What it would do now (PTPL_A).
    pub power_loss_now: PowerLoss,
    /// To which ports one registration can be made to apply at best (ATP_C).
    pub ports: Ports,
    /// The types it knows, in ascending order.
    pub types: Vec<ReservationType>,
}

/// Why a command was not answered as hoped for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
pub enum Failure {
    /// Not carried out: this nexus lacks the right, or the key it gave is not the registered one.
    #[error("reservation conflict")]
    Conflict,
    /// Not carried out: the device had to tell of something first, and has told it now. Send the command again.
    #[error("the device tells: {0}")]
    UnitAttention(UnitAttention),
    /// Not carried out: the device knows no reservations (sense 5h/20h/00h), or not this command (5h/24h/00h), or not with these
    /// parameters (5h/26h/00h), for example [`PowerLoss::Keeps`]. It will answer so again.
    #[error("not supported by the device")]
    NotSupported,
    /// The device answered with another error. Whether it carried the command out is to be read back: some do, and complain of
    /// what they could not do besides.
    #[error("the device answers {0}")]
    Rejected(Sense),
    /// Not carried out: the device, or its queue of commands, has no room now (the statuses BUSY and TASK SET FULL). The path works: ask again
    /// shortly.
    #[error("the device is busy")]
    Busy,
    /// No answer in time. Whether the command was carried out, or will be, is unknown.
    #[error("no answer in time")]
    NoAnswer,
    /// The path failed. Whether the command was carried out is unknown.
    #[error("the path to the device failed")]
    Transport,
    /// Not sent: this node reads or writes on this path without a pause, and beside that a preemption that aborts can hang the target.
    #[error("this node reads or writes on the path all the time, beside which nothing can be aborted safely")]
    OwnTraffic,
}

/// Something that happened to a nexus without its doing, and of which the device tells it by its next command.
///
/// Devices differ in which of the two preemptions a preempted nexus is told of: to be treated alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
pub enum UnitAttention {
    /// 29h/00h: the device had no power, or was reset.
    #[error("power on or reset")]
    PowerOn,
    /// 29h/03h: the logical unit was reset; reservations and registrations stay.
    #[error("logical unit reset")]
    Reset,
    /// 29h/07h: the nexus was lost and has come back; reservations and registrations stay.
    #[error("the nexus was lost")]
    NexusLost,
    /// 2Ah/03h: the reservation was preempted, or all registrations were cleared.
    #[error("reservations preempted")]
    ReservationsPreempted,
    /// 2Ah/04h: the reservation under which this nexus had rights was released, or its type changed.
    #[error("reservations released")]
    ReservationsReleased,
    /// 2Ah/05h: this nexus' registration was removed.
    #[error("registrations preempted")]
    RegistrationsPreempted,
    /// Anything else, for example that the size of the device changed.
    #[error("additional sense code {asc:02X}h/{ascq:02X}h")]
    Other {
        /// The additional sense code.
        asc: u8,
        /// Its qualifier.
        ascq: u8,
    },
}

/// How SCSI says what is wrong (sense data).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Sense {
    /// The sense key, 0 to 15.
    pub key: u8,
    /// The additional sense code.
    pub asc: u8,
    /// Its qualifier.
    pub ascq: u8,
}

impl Sense {
    /// A release that names another type than the reservation has (5.13.11.2.2).
    pub const INVALID_RELEASE: Sense = Sense { key: 0x5, asc: 0x26, ascq: 0x04 };
    /// Something inside the device did not work. The target of Linux answers so when it cannot store what is to survive
    /// loss of power, although the registration took effect.
    pub const COMMUNICATION_FAILURE: Sense = Sense { key: 0x2, asc: 0x08, ascq: 0x00 };
}

impl fmt::Display for Sense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sense key {:X}h, additional sense code {:02X}h/{:02X}h", self.key, self.asc, self.ascq)
    }
}

/// One way from this node to a device: an I_T nexus. Named as the system names it, for example `sdb`; a device whose kernel driver
/// spreads commands over all its ways by itself has one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PathName(String);

impl PathName {
    /// The path with this name.
    pub fn new(name: impl Into<String>) -> PathName {
        PathName(name.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PathName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A device with reservations, as this node reaches it: one logical unit, over one path or several.
#[async_trait]
pub trait ReservationDevice: Send + Sync + 'static {
    /// What the operator calls it: a stable name, for reports.
    fn name(&self) -> &str;

    /// The paths there are now, in an order that stays. Every one is registered for itself; none when the device is away.
    fn paths(&self) -> Vec<PathName>;

    /// Waits until [`ReservationDevice::paths`] may answer something else than `seen`. Cancel-safe. A device whose paths never change never
    /// returns.
    async fn paths_changed(&self, seen: &[PathName]);

    /// Sends one command on one path, once, and never repeats it, unless the device said that it is [busy](Failure::Busy) and did not carry it
    /// out. Ends with [`Failure::NoAnswer`] within the device's own time limit
    /// ([`ReservationDevice::time_limit`]), even if the kernel does not let go of the command. Dropping the future does not take the command
    /// back: it may be carried out later.
    async fn send(&self, path: &PathName, command: Command) -> Result<Answer, Failure>;

    /// Who is registered, nexus by nexus, and which nexus `path` is: for reports; no claim rests on it. Changes nothing; as to time and repetition
    /// it is as [`ReservationDevice::send`]. [`Failure::NotSupported`] if the device does not tell.
    async fn registrations(&self, path: &PathName) -> Result<Registrations, Failure> {
        let _ = path;
        Err(Failure::NotSupported)
    }

    /// The longest that [`ReservationDevice::send`] takes.
    fn time_limit(&self) -> std::time::Duration;
}
