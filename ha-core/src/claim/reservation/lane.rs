//! One device as the machine knows it: its paths, what was read of it last, and the command under way.
//!
//! Decides what an answer says about the device. Leaves to [`super::take`], [`super::hold`] and [`super::give_up`] which command is
//! next: each looks at what is known and names one. What may have changed since it was read is read again first, so an answer that
//! never came, or came and said nothing, needs no rule of its own.

use std::time::Duration;

use super::device::{
    Answer, Command, Failure, Held, Key, Keys, PathName, Ports, PowerLoss, Queued, Reservation, ReservationType,
    UnitAttention,
};
use super::give_up::GiveUp;
use super::hold::Hold;
use super::key::{ClusterKey, Keyring, NodeNumber};
use super::machine::CommandId;
use super::path::{Path, Registration};
use super::take::{Take, Writers};
use super::timing::ReservationTiming;
use crate::claim::{Loss, Refusal};
use crate::mutation::{self, Mutation};
use crate::time::Time;

/// So many unit attentions in a row, and the path passes for failed.
const ATTENTIONS_MAX: u8 = 16;

/// What all devices of a claim have in common.
#[derive(Clone, Debug)]
pub(super) struct Common {
    pub(super) keyring: Keyring,
    pub(super) me: NodeNumber,
    pub(super) kind: ReservationType,
    pub(super) timing: ReservationTiming,
}

impl Common {
    /// The key as one of this cluster's, if it is another node's.
    pub(super) fn foreign(&self, key: Key) -> Option<ClusterKey> {
        self.keyring.decode(key).filter(|known| known.node != self.me)
    }

    pub(super) fn is_mine(&self, key: Key) -> bool {
        self.keyring.decode(key).is_some_and(|known| known.node == self.me)
    }
}

/// What is wanted of a device.
#[derive(Clone, Debug)]
pub(super) enum Goal {
    Nothing,
    Take(Box<Take>),
    Hold(Hold),
    GiveUp(GiveUp),
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Send, on the path with this place.
    Send(usize, Command),
    /// Nothing before this moment.
    Wait(Time),
    /// Think again: something changed.
    Again,
    /// It is done, in one way or another.
    End(End),
}

/// How a goal ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The device is held under this key.
    Taken(Key),
    /// It could not be taken, and nothing of the attempt is left, as far as that could be reached.
    Refused(Refusal),
    /// It is not held any more.
    Lost(Loss),
    /// It was given up.
    GivenUp,
    /// It could not be given up.
    Stuck(String),
}

/// The command under way.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) id: CommandId,
    path: PathName,
    pub(super) command: Command,
    pub(super) sent: Time,
    /// It was sent for an earlier goal: what it reads is not from after this one was set.
    stale: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Lane {
    pub(super) name: String,
    pub(super) limit: Duration,
    pub(super) paths: Vec<Path>,
    pub(super) goal: Goal,
    pub(super) pending: Option<Pending>,
    pub(super) keys: Option<Keys>,
    pub(super) reservation: Option<Reservation>,
    /// When the reservation that is known was asked for.
    pub(super) seen_at: Time,
    /// How many commands were sent for the goal, or in this look.
    pub(super) steps: u16,
    pub(super) wake: Option<Time>,
    /// So few registrations were shown of so many, and each was checked then.
    pub(super) audited: Option<(usize, usize)>,
    /// What the device can do, as far as it was found out.
    pub(super) power_loss: PowerLoss,
    pub(super) queued: Queued,
    /// Nothing is aborted for this goal, because of this node's own traffic.
    pub(super) own_traffic: bool,
    /// What was last complained of, for people.
    pub(super) trouble: Option<String>,
}

impl Lane {
    pub(super) fn new(name: String, limit: Duration) -> Lane {
        Lane {
            name,
            limit,
            paths: Vec::new(),
            goal: Goal::Nothing,
            pending: None,
            keys: None,
            reservation: None,
            seen_at: Time::ZERO,
            steps: 0,
            wake: None,
            audited: None,
            power_loss: PowerLoss::Keeps,
            queued: Queued::Aborted,
            own_traffic: false,
            trouble: None,
        }
    }

    /// Begins on a goal, knowing nothing.
    pub(super) fn set_goal(&mut self, goal: Goal) {
        self.goal = goal;
        self.steps = 0;
        self.audited = None;
        if std::mem::take(&mut self.own_traffic) {
            self.queued = Queued::Aborted;
        }
        self.look_anew();
        for path in &mut self.paths {
            path.rest();
        }
    }

    /// What was read, and what is being read now, does not count any more.
    pub(super) fn look_anew(&mut self) {
        if let Some(pending) = &mut self.pending {
            pending.stale = true;
        }
        self.forget();
    }

    /// What was read may not be so any more.
    pub(super) fn forget(&mut self) {
        self.keys = None;
        self.reservation = None;
    }

    pub(super) fn set_paths(&mut self, names: Vec<PathName>) {
        let mut before = std::mem::take(&mut self.paths);
        let keep = |name: PathName| match before.iter().position(|path| path.name == name) {
            Some(place) => before.swap_remove(place),
            None => Path::new(name),
        };
        self.paths = names.into_iter().map(keep).collect();
    }

    /// Every path, working or not, is registered with `key`.
    pub(super) fn is_all_in(&self, key: Key) -> bool {
        self.paths.iter().all(|path| path.is_registered_with(key))
    }

    /// The path to use: the first that has not failed.
    pub(super) fn usable(&self) -> Option<usize> {
        self.paths.iter().position(|path| path.failed.is_none())
    }

    /// The one that is registered with `key`, or else the first.
    pub(super) fn usable_with(&self, key: Key) -> Option<usize> {
        let good = |path: &Path| path.failed.is_none() && path.is_registered_with(key);
        self.paths.iter().position(good).or_else(|| self.usable())
    }

    /// The next of the two reads, unless both were done.
    pub(super) fn read(&self, path: usize) -> Option<Step> {
        match (&self.keys, &self.reservation) {
            (None, _) => Some(Step::Send(path, Command::ReadKeys)),
            (Some(_), None) => Some(Step::Send(path, Command::ReadReservation)),
            (Some(_), Some(_)) => None,
        }
    }

    pub(super) fn keys(&self) -> &[Key] {
        self.keys.as_ref().map_or(&[], |keys| &keys.keys)
    }

    pub(super) fn held(&self) -> Option<Held> {
        self.reservation.as_ref().and_then(|reservation| reservation.held)
    }

    /// Nobody has registered since the device came up.
    pub(super) fn is_blank(&self) -> bool {
        self.keys.as_ref().is_some_and(|keys| keys.generation == 0 && keys.keys.is_empty())
            && self.reservation.as_ref().is_some_and(|reservation| reservation.generation == 0)
    }

    /// Registers `key` on a path, with a command that is refused unless it finds what it expects: carried out late, it undoes nothing that
    /// a later life did. Where it is not known what is there, each key of this node's that was read is tried, and then nothing.
    /// `former` passes for one of this node's. None if the key is there already.
    pub(super) fn let_in(&mut self, place: usize, key: Key, former: Option<Key>, common: &Common) -> Option<Step> {
        let path = self.paths.get(place)?;
        if path.is_registered_with(key) {
            return None;
        }
        let held = self.held().and_then(|held| held.key);
        let mine = |key: &Key| common.is_mine(*key) || former == Some(*key);
        let old = match path.registration {
            Registration::With(there) => Some(there),
            Registration::None => None,
            Registration::Unknown => {
                let may_be = |one: &Key| mine(one) && path.may_have(*one);
                let all = || held.into_iter().chain(self.keys().iter().copied()).filter(may_be);
                all().find(|one| *one != key).or_else(|| all().next())
            }
        };
        Some(self.register_over(place, old, key))
    }

    /// A registration that is refused unless it finds what it expects.
    pub(super) fn register_over(&mut self, path: usize, old: Option<Key>, key: Key) -> Step {
        if let Some(path) = self.paths.get_mut(path) {
            path.try_with(key);
        }
        let power_loss = self.power_loss;
        Step::Send(path, Command::Register { old, new: Some(key), ports: Ports::This, power_loss })
    }

    /// Removes what is registered on the path, by name: carried out late, a command that removes whatever it finds would take the
    /// registration of a later life away. Where it is not known, each key of this node's that was read is tried, and no other: one that
    /// was never seen may be the next life's choice.
    pub(super) fn unregister(&mut self, place: usize, common: &Common) -> Step {
        let (ports, power_loss) = (Ports::This, self.power_loss);
        let read = self.keys.as_ref().map(|keys| keys.keys.as_slice());
        let Some(path) = self.paths.get_mut(place) else { return Step::Again };
        let mine = read.unwrap_or_default().iter().filter(|key| common.is_mine(**key));
        let key = match path.registration {
            Registration::With(key) => Some(key),
            _ => mine.copied().find(|key| path.may_have(*key)),
        };
        match (key, read) {
            (Some(key), _) => Step::Send(place, Command::Register { old: Some(key), new: None, ports, power_loss }),
            (None, None) => Step::Send(place, Command::ReadKeys),
            (None, Some(_)) => {
                path.know(Registration::None);
                Step::Again
            }
        }
    }

    pub(super) fn preempt(&self, path: usize, key: Key, victim: Key, common: &Common) -> Step {
        Step::Send(path, Command::Preempt { key, victim: Some(victim), kind: common.kind, queued: self.queued })
    }

    /// The key for which something may have been registered.
    pub(super) fn tried(&self) -> Option<Key> {
        match &self.goal {
            Goal::Take(take) if self.paths.iter().any(|path| path.touched) => take.key,
            _ => None,
        }
    }

    pub(super) fn unreachable(&self) -> String {
        let why = self.trouble.as_deref().unwrap_or("it has no path");
        format!("{}: {why}", self.name)
    }

    pub(super) fn sent(&mut self, id: CommandId, path: usize, command: Command, now: Time) -> Option<PathName> {
        let path = self.paths.get(path)?.name.clone();
        self.steps = self.steps.saturating_add(1);
        self.pending = Some(Pending { id, path: path.clone(), command, sent: now, stale: false });
        Some(path)
    }

    /// Takes an answer in. False if it is none to the command under way.
    pub(super) fn answered(
        &mut self,
        id: CommandId,
        result: Result<Answer, Failure>,
        common: &Common,
        now: Time,
    ) -> bool {
        let Some(Pending { path, command, sent, stale, .. }) = self.pending.take_if(|pending| pending.id == id) else {
            return false;
        };
        let place = self.paths.iter().position(|p| p.name == path);
        if let Err(failure) = &result {
            self.trouble = Some(format!("{} on {path}: {failure}", in_words(&command)));
        }
        if let Some(path) = place.and_then(|place| self.paths.get_mut(place)) {
            match &result {
                // One that is busy is asked again like one that failed: not at once.
                Err(Failure::NoAnswer | Failure::Transport | Failure::Busy) => path.failed = Some(now),
                Err(Failure::UnitAttention(_)) => {
                    path.attentions += 1;
                    path.failed = (path.attentions > ATTENTIONS_MAX).then_some(now);
                }
                _ => (path.failed, path.attentions) = (None, 0),
            }
        }
        if let Err(Failure::UnitAttention(UnitAttention::RegistrationsPreempted | UnitAttention::ReservationsPreempted)) =
            &result
            && let Goal::Take(take) = &mut self.goal
        {
            take.told_of_preemption(place, common);
        }
        match (&command, result) {
            // Taken in so late, after a standstill of this node, that somebody may have taken the device since.
            (Command::ReadKeys | Command::ReadReservation, Ok(_)) if stale || sent + self.limit < now => {}
            (Command::ReadKeys, Ok(Answer::Keys(keys))) => self.keys = Some(keys),
            (Command::ReadReservation, Ok(Answer::Reservation(reservation))) => {
                self.reservation = Some(reservation);
                self.seen_at = sent;
            }
            (
                Command::ReadKeys | Command::ReadReservation | Command::ReportCapabilities,
                Err(Failure::UnitAttention(_)),
            ) => {
                self.doubt(place);
                self.keys = None;
            }
            (Command::ReadKeys | Command::ReadReservation | Command::ReportCapabilities, _) => {
                if let Some(path) = place.and_then(|place| self.paths.get_mut(place)) {
                    path.failed = Some(now);
                }
            }
            (_, result) => self.changed(place, &command, result, common, now),
        }
        true
    }

    fn doubt(&mut self, place: Option<usize>) {
        if let Some(path) = place.and_then(|place| self.paths.get_mut(place)) {
            path.doubt();
        }
    }

    /// The answer to a command that changes something.
    fn changed(
        &mut self,
        place: Option<usize>,
        command: &Command,
        result: Result<Answer, Failure>,
        common: &Common,
        now: Time,
    ) {
        let asked_too_much = matches!(result, Err(Failure::NotSupported | Failure::Rejected(_)));
        let registration = match command {
            Command::Register { new, power_loss, .. } => {
                if asked_too_much && *power_loss == PowerLoss::Keeps {
                    // Some registers all the same: asked for less, it says what is.
                    self.power_loss = PowerLoss::Forgets;
                } else if asked_too_much && let Some(path) = place.and_then(|place| self.paths.get_mut(place)) {
                    path.failed = Some(now);
                }
                Some(*new)
            }
            Command::Preempt { queued: Queued::Aborted, .. }
                if matches!(result, Err(Failure::NotSupported | Failure::OwnTraffic)) =>
            {
                self.queued = Queued::Stay;
                self.own_traffic = result == Err(Failure::OwnTraffic);
                None
            }
            _ => None,
        };
        match (registration, &result) {
            (Some(new), Ok(_)) => {
                let path = place.and_then(|place| self.paths.get_mut(place));
                let before = path.map(|path| {
                    let before = path.registration;
                    path.know(new.map_or(Registration::None, Registration::With));
                    before
                });
                // Confirming what is there tells nothing new.
                if before == new.map(Registration::With) && before.is_some() {
                    return;
                }
            }
            (Some(_), Err(Failure::Conflict)) => {
                if let Some(path) = place.and_then(|place| self.paths.get_mut(place)) {
                    match command {
                        Command::Register { old: Some(old), .. } => path.has_not(*old),
                        _ => {
                            path.doubt();
                            path.again = now + common.timing.defend_interval();
                        }
                    }
                }
            }
            (Some(_), Err(Failure::Busy)) => {}
            // LIO rejects RESERVE of a nexus whose registration is gone.
            (Some(_), Err(_)) | (None, Err(Failure::Conflict | Failure::UnitAttention(_) | Failure::Rejected(_))) => {
                self.doubt(place);
            }
            (None, _) => {}
        }
        if let Goal::Take(take) = &mut self.goal
            && !mutation::is_on(Mutation::TrustPlainPreempt)
            && match command {
                Command::Preempt { victim: Some(victim), queued: Queued::Stay, .. } => {
                    common.foreign(*victim).is_some()
                }
                // It lost its memory: whoever held it could write until now.
                Command::Reserve { .. } => take.writers == Writers::Possible,
                _ => false,
            }
        {
            take.settle(now + self.limit);
        }
        self.forget();
    }
}

/// A command, for people.
pub(super) fn in_words(command: &Command) -> &'static str {
    match command {
        Command::ReadKeys => "reading the keys",
        Command::ReadReservation => "reading the reservation",
        Command::ReportCapabilities => "asking for the capabilities",
        Command::Register { new: None, .. } | Command::RegisterIgnoring { new: None, .. } => "unregistering",
        Command::Register { .. } | Command::RegisterIgnoring { .. } => "registering",
        Command::Reserve { .. } => "reserving",
        Command::Release { .. } => "releasing",
        Command::Clear { .. } => "clearing",
        Command::Preempt { .. } => "preempting",
    }
}
