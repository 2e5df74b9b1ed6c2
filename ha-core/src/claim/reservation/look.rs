//! What a device's reservations say, for whoever only wants to look: inspection, `ha check`, the tools of an operator.
//!
//! Changes nothing. Decides how keys read, and what to ask a device next. Leaves the sending, and every other conclusion, to its users.

use std::collections::VecDeque;

use super::device::{Answer, Command, Failure, Held, Key, Keys, PathName, Reservation, ReservationDevice};
use super::key::{ClusterKey, Keyring};
use super::machine::Config;
use crate::claim::{EarlyFailures, Holder, Holding, Refusal};
use crate::name::Epoch;

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

impl Shown {
    fn new(keyring: &Keyring, keys: &Keys, reservation: Reservation) -> Shown {
        let seen = |key: &Key| SeenKey { key: *key, known: keyring.decode(*key) };
        Shown {
            generation: keys.generation,
            keys: keys.keys.iter().map(seen).collect(),
            held: reservation.held,
            holder: reservation.held.and_then(|held| keyring.decode(held.key?)),
        }
    }
}

/// A look at a device, on the first of its paths that shows it: what to ask, from what was answered.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    paths: VecDeque<PathName>,
    attentions: usize,
    keys: Option<Keys>,
    reservation: Option<Reservation>,
    failed: Option<(PathName, Failure)>,
}

/// What comes next of a [`Look`].
pub(crate) enum Next {
    /// Send this, and say what was answered.
    Send(PathName, Command),
    /// What was seen; or which path failed last, if there is any, and how.
    Done(Result<(Keys, Reservation), Option<(PathName, Failure)>>),
}

impl Look {
    pub(crate) fn new(paths: Vec<PathName>) -> Look {
        Look { paths: paths.into(), attentions: 0, keys: None, reservation: None, failed: None }
    }

    pub(crate) fn next(&self) -> Next {
        match (self.paths.front(), &self.keys, self.reservation) {
            (_, Some(keys), Some(reservation)) => Next::Done(Ok((keys.clone(), reservation))),
            (None, ..) => Next::Done(Err(self.failed.clone())),
            (Some(path), None, _) => Next::Send(path.clone(), Command::ReadKeys),
            (Some(path), Some(_), None) => Next::Send(path.clone(), Command::ReadReservation),
        }
    }

    /// The answer to what was sent: it is sent again if the device had to tell something first.
    pub(crate) fn answered(&mut self, answer: Result<Answer, Failure>) {
        let failure = match answer {
            Ok(Answer::Keys(keys)) => {
                self.attentions = 0;
                return self.keys = Some(keys);
            }
            Ok(Answer::Reservation(reservation)) => return self.reservation = Some(reservation),
            Ok(_) => Failure::NotSupported,
            Err(Failure::UnitAttention(_)) if self.attentions < ATTENTIONS_MAX => return self.attentions += 1,
            Err(failure) => failure,
        };
        self.failed = self.paths.pop_front().map(|path| (path, failure));
        (self.keys, self.attentions) = (None, 0);
    }
}

impl Config {
    /// Who holds the claim, from what a look at the arbiter came to.
    pub(crate) fn inspected(
        &self,
        looked: Result<(Keys, Reservation), Option<(PathName, Failure)>>,
    ) -> Result<Holding, Refusal> {
        let arbiter = self.devices.first().map_or("the arbiter", |(name, _)| name.as_str());
        let (keys, reservation) = looked.map_err(|failed| {
            Refusal::Unreachable(match failed {
                Some((path, failure)) => format!("{arbiter}: reading the reservation on {path}: {failure}"),
                None => format!("{arbiter}: it has no path"),
            })
        })?;
        let shown = Shown::new(&self.keyring, &keys, reservation);
        let keys = shown.keys.iter().filter_map(|key| key.known).chain(shown.holder);
        let holder = shown.held.map(|held| match (shown.holder, held.key) {
            (Some(known), _) => self.name_of(known),
            (None, Some(key)) => Holder::Stranger(self.keyring.describe(key)),
            (None, None) => Holder::Stranger(format!("all that are registered, with {:?}", held.kind)),
        });
        let epoch = keys.map(|known| known.epoch).max().unwrap_or(Epoch::ZERO);
        Ok(Holding { holder, epoch, failures: EarlyFailures::default() })
    }

    fn name_of(&self, known: ClusterKey) -> Holder {
        match self.keyring.node(known.node) {
            Some(_) if known.node == self.me => Holder::Me,
            Some(node) => Holder::Node(node.clone()),
            None => Holder::Stranger(format!("{known:?}")),
        }
    }
}

/// What a path shows. Takes at most a few of the device's time limits.
pub async fn look(keyring: &Keyring, device: &dyn ReservationDevice, path: &PathName) -> Result<Shown, Failure> {
    let mut look = Look::new(vec![path.clone()]);
    loop {
        match look.next() {
            Next::Send(path, command) => look.answered(device.send(&path, command).await),
            Next::Done(Ok((keys, reservation))) => return Ok(Shown::new(keyring, &keys, reservation)),
            Next::Done(Err(failed)) => return Err(failed.map_or(Failure::Transport, |(_, failure)| failure)),
        }
    }
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
