//! What a device's reservations say, for whoever only wants to look: inspection, `ha check`, the tools of an operator.
//!
//! Changes nothing. Decides how keys read. Leaves every conclusion to its users.

use super::device::{Answer, Command, Failure, Held, Key, PathName, ReservationDevice};
use super::key::{ClusterKey, Keyring};

/// So often a command is sent again that was answered by something the device had to tell.
const ATTENTIONS_MAX: usize = 16;

/// A key, and what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenKey {
    /// As it is registered.
    pub key: Key,
    /// Whose it is; none for a stranger's.
    pub known: Option<ClusterKey>,
}

/// What one path shows of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathReport {
    /// Which.
    pub path: PathName,
    /// What it shows, or why not.
    pub shows: Result<Shown, Failure>,
}

/// The registrations and the reservation of a device, as one path shows them. All paths of a device show the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Grows with every registration and preemption; zero after loss of power.
    pub generation: u32,
    /// Every registration.
    pub keys: Vec<SeenKey>,
    /// The reservation, if there is one.
    pub held: Option<Held>,
    /// The reservation's key, taken apart; none without one, or if it is a stranger's.
    pub holder: Option<ClusterKey>,
}

/// Sends a command that reads, again if the device had to tell something first.
pub(super) async fn ask(device: &dyn ReservationDevice, path: &PathName, command: Command) -> Result<Answer, Failure> {
    let mut answer = device.send(path, command).await;
    for _ in 0..ATTENTIONS_MAX {
        let Err(Failure::UnitAttention(_)) = answer else { break };
        answer = device.send(path, command).await;
    }
    answer
}

/// What a path shows. Takes at most a few of the device's time limits.
pub async fn look(keyring: &Keyring, device: &dyn ReservationDevice, path: &PathName) -> Result<Shown, Failure> {
    let Answer::Keys(keys) = ask(device, path, Command::ReadKeys).await? else { return Err(Failure::NotSupported) };
    let Answer::Reservation(reservation) = ask(device, path, Command::ReadReservation).await? else {
        return Err(Failure::NotSupported);
    };
    let seen = |key: &Key| SeenKey { key: *key, known: keyring.decode(*key) };
    Ok(Shown {
        generation: keys.generation,
        keys: keys.keys.iter().map(seen).collect(),
        held: reservation.held,
        holder: reservation.held.and_then(|held| keyring.decode(held.key?)),
    })
}

/// What every path of a device shows, one after the other.
pub async fn look_at_all(keyring: &Keyring, device: &dyn ReservationDevice) -> Vec<PathReport> {
    let mut reports = Vec::new();
    for path in device.paths() {
        let shows = look(keyring, device, &path).await;
        reports.push(PathReport { path, shows });
    }
    reports
}
