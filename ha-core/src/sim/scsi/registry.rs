//! The registrations and the reservation of one logical unit, and what each service action does to them.
//!
//! Decides who may write, and every rule of SPC-4 clause 5.13. Leaves tasks, unit attentions and power to [`super::Device`]: a service action
//! returns whom to tell what, and whose commands to abort.

use std::collections::BTreeMap;

use crate::claim::reservation::device::{Command, Failure, Held, Key, Queued, ReservationType, Sense, UnitAttention};

use super::{Nexus, Registered};

/// To whom a registration belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Registrant {
    /// To a nexus.
    Nexus(Nexus),
    /// To nobody any more: its nexus came back as another one. The number tells several apart.
    Orphan(Nexus, u32),
}

impl Registrant {
    fn nexus(self) -> Option<Nexus> {
        match self {
            Registrant::Nexus(nexus) => Some(nexus),
            Registrant::Orphan(..) => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Grip {
    kind: ReservationType,
    /// None for the types that all registrants hold.
    holder: Option<Registrant>,
}

/// What a service action does to others.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Consequences {
    /// Whom to tell what.
    pub(super) tell: Vec<(Nexus, UnitAttention)>,
    /// Whose commands to abort.
    pub(super) abort: Vec<Nexus>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Registry {
    keys: BTreeMap<Registrant, Key>,
    grip: Option<Grip>,
    generation: u32,
    orphans: u32,
}

/// What REGISTER asks of the key that is there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Existing {
    Is(Option<Key>),
    Any,
}

impl Existing {
    fn agrees(self, with: Option<Key>) -> bool {
        match self {
            Existing::Is(key) => key == with,
            Existing::Any => true,
        }
    }
}

impl Registry {
    pub(super) fn generation(&self) -> u32 {
        self.generation
    }

    /// 6.15.2: one for each registration, equal ones too.
    pub(super) fn keys(&self) -> Vec<Key> {
        self.keys.values().copied().collect()
    }

    /// 5.13.6.3: the key reads as none for the types that all registrants hold.
    pub(super) fn held(&self) -> Option<Held> {
        let grip = self.grip?;
        Some(Held { key: grip.holder.and_then(|holder| self.keys.get(&holder).copied()), kind: grip.kind })
    }

    /// 5.13.6.4.
    pub(super) fn full_status(&self) -> Vec<Registered> {
        let describe = |(&registrant, &key): (&Registrant, &Key)| {
            let (Registrant::Nexus(nexus) | Registrant::Orphan(nexus, _)) = registrant;
            let holds = self.grip.filter(|_| self.holds(registrant)).map(|grip| grip.kind);
            Registered { nexus, key, holds }
        };
        self.keys.iter().map(describe).collect()
    }

    pub(super) fn key_of(&self, nexus: Nexus) -> Option<Key> {
        self.keys.get(&Registrant::Nexus(nexus)).copied()
    }

    /// 5.13.10.
    fn holds(&self, registrant: Registrant) -> bool {
        self.grip.is_some_and(|grip| match grip.holder {
            Some(holder) => holder == registrant,
            None => self.keys.contains_key(&registrant),
        })
    }

    pub(super) fn is_held_by(&self, nexus: Nexus) -> bool {
        self.holds(Registrant::Nexus(nexus))
    }

    /// Table 65, for commands that write the medium.
    pub(super) fn may_write(&self, nexus: Nexus) -> bool {
        let registered = self.key_of(nexus).is_some();
        self.grip.is_none_or(|grip| self.is_held_by(nexus) || registered && grip.kind.admits_registrants())
    }

    /// Table 65, for commands that read the medium.
    pub(super) fn may_read(&self, nexus: Nexus) -> bool {
        self.may_write(nexus) || self.grip.is_some_and(|grip| grip.kind.admits_readers())
    }

    /// Table 66: whether the reservation alone keeps a command out, whatever its parameters.
    pub(super) fn keeps_out(&self, nexus: Nexus, command: &Command) -> bool {
        let registered = self.key_of(nexus).is_some();
        self.grip.is_some()
            && match command {
                Command::ReadKeys
                | Command::ReadReservation
                | Command::ReportCapabilities
                | Command::Register { .. }
                | Command::RegisterIgnoring { .. } => false,
                Command::Release { .. } | Command::Clear { .. } | Command::Preempt { .. } => !registered,
                Command::Reserve { .. } => !self.is_held_by(nexus),
            }
    }

    /// 5.13.7, tables 67 to 69. `through` are the nexuses of the same initiator through the ports that it applies to, `nexus`
    /// among them; "as if the same request had come through each" (6.16.3), so one with another key than `old` stays as it is.
    pub(super) fn register(
        &mut self,
        nexus: Nexus,
        existing: Existing,
        new: Option<Key>,
        through: &[Nexus],
    ) -> Result<Consequences, Failure> {
        let now = self.key_of(nexus);
        if !existing.agrees(now) {
            return Err(Failure::Conflict);
        }
        let mut consequences = Consequences::default();
        // Tables 67 and 68: "do nothing except return GOOD status"; LIO does not count it either.
        if now.is_none() && new.is_none() {
            return Ok(consequences);
        }
        self.count();
        for &each in through {
            if !existing.agrees(self.key_of(each)) {
                continue;
            }
            match new {
                // The reservation stays with a holder whose key changes.
                Some(key) => drop(self.keys.insert(Registrant::Nexus(each), key)),
                None => self.unregister(each, &mut consequences),
            }
        }
        Ok(consequences)
    }

    /// 5.13.11.2.3.
    fn unregister(&mut self, nexus: Nexus, consequences: &mut Consequences) {
        let held = self.is_held_by(nexus);
        self.keys.remove(&Registrant::Nexus(nexus));
        let Some(grip) = self.grip.filter(|_| held) else { return };
        if grip.kind.is_held_by_all_registrants() {
            self.release_if_nobody_is_left();
        } else {
            self.grip = None;
            if grip.kind.admits_registrants() {
                self.tell_others(nexus, UnitAttention::ReservationsReleased, consequences);
            }
        }
    }

    /// 5.13.9.
    pub(super) fn reserve(&mut self, nexus: Nexus, key: Key, kind: ReservationType) -> Result<Consequences, Failure> {
        self.check_key(nexus, key)?;
        match self.grip {
            None => self.take(nexus, kind),
            Some(grip) if self.is_held_by(nexus) && grip.kind == kind => {}
            Some(_) => return Err(Failure::Conflict),
        }
        Ok(Consequences::default())
    }

    /// 5.13.11.2.2.
    pub(super) fn release(&mut self, nexus: Nexus, key: Key, kind: ReservationType) -> Result<Consequences, Failure> {
        self.check_key(nexus, key)?;
        let mut consequences = Consequences::default();
        let Some(grip) = self.grip.filter(|_| self.is_held_by(nexus)) else { return Ok(consequences) };
        if grip.kind != kind {
            return Err(Failure::Rejected(Sense::INVALID_RELEASE));
        }
        self.grip = None;
        if kind.admits_registrants() {
            self.tell_others(nexus, UnitAttention::ReservationsReleased, &mut consequences);
        }
        Ok(consequences)
    }

    /// 5.13.11.2.7.
    pub(super) fn clear(&mut self, nexus: Nexus, key: Key) -> Result<Consequences, Failure> {
        self.check_key(nexus, key)?;
        self.count();
        let mut consequences = Consequences::default();
        self.tell_others(nexus, UnitAttention::ReservationsPreempted, &mut consequences);
        self.keys.clear();
        self.grip = None;
        Ok(consequences)
    }

    /// 5.13.11.2.4 to 5.13.11.2.6, table 72. `told` is what the preempted are told.
    pub(super) fn preempt(
        &mut self,
        nexus: Nexus,
        preemption: Preemption,
        told: Option<UnitAttention>,
    ) -> Result<Consequences, Failure> {
        let Preemption { key, victim, kind, queued } = preemption;
        self.check_key(nexus, key)?;
        let shared = self.grip.is_some_and(|grip| grip.kind.is_held_by_all_registrants());
        let victims: Vec<Registrant> = match victim {
            None if !shared => return Err(Failure::NotSupported),
            None => self.keys.keys().copied().collect(),
            Some(victim) => self.keys.iter().filter(|&(_, key)| *key == victim).map(|(&who, _)| who).collect(),
        };
        if victims.is_empty() {
            return Err(Failure::Conflict);
        }
        self.count();
        let takes = match self.grip.and_then(|grip| grip.holder) {
            Some(holder) => victims.contains(&holder),
            None => shared && victim.is_none(),
        };
        let itself = Registrant::Nexus(nexus);
        let mut consequences = Consequences::default();
        for &loser in &victims {
            // Who takes the reservation stays registered; who only removes registrations with its own key does not.
            if loser != itself || !takes {
                self.keys.remove(&loser);
            }
            if loser != itself {
                consequences.tell.extend(loser.nexus().zip(told));
            }
        }
        if takes {
            let before = self.grip.map(|grip| grip.kind);
            self.take(nexus, kind);
            if before != Some(kind) {
                self.tell_others(nexus, UnitAttention::ReservationsReleased, &mut consequences);
            }
        } else {
            self.release_if_nobody_is_left();
        }
        // Whether or not they hold the reservation, and the preempting nexus too, if the key is its own (5.13.11.2.6).
        if queued == Queued::Aborted {
            consequences.abort = victims.into_iter().filter_map(Registrant::nexus).collect();
        }
        Ok(consequences)
    }

    /// The registration of a nexus stays, and belongs to nobody any more.
    pub(super) fn orphan(&mut self, nexus: Nexus) {
        let was = Registrant::Nexus(nexus);
        let Some(key) = self.keys.remove(&was) else { return };
        self.orphans += 1;
        let now = Registrant::Orphan(nexus, self.orphans);
        self.keys.insert(now, key);
        if let Some(grip) = self.grip.as_mut().filter(|grip| grip.holder == Some(was)) {
            grip.holder = Some(now);
        }
    }

    /// 5.13.11.2.1: nothing was kept over loss of power.
    pub(super) fn forget(&mut self) {
        self.keys.clear();
        self.grip = None;
    }

    /// 6.15.2: "set to zero by a power on", whatever was kept.
    pub(super) fn restart_generation(&mut self) {
        self.generation = 0;
    }

    /// 5.13.7: but for the registering ones, every service action needs a registration, and its key (6.16.3).
    fn check_key(&self, nexus: Nexus, key: Key) -> Result<(), Failure> {
        if self.key_of(nexus) == Some(key) { Ok(()) } else { Err(Failure::Conflict) }
    }

    /// Of the generation it only counts whether it is zero.
    pub(super) fn make_canonical(&mut self) {
        self.generation = self.generation.min(1);
    }

    fn take(&mut self, nexus: Nexus, kind: ReservationType) {
        let holder = (!kind.is_held_by_all_registrants()).then_some(Registrant::Nexus(nexus));
        self.grip = Some(Grip { kind, holder });
    }

    fn count(&mut self) {
        self.generation = self.generation.wrapping_add(1);
    }

    /// Table 71.
    fn release_if_nobody_is_left(&mut self) {
        if self.keys.is_empty() {
            self.grip = None;
        }
    }

    fn tell_others(&self, nexus: Nexus, what: UnitAttention, consequences: &mut Consequences) {
        let others = self.keys.keys().filter_map(|who| who.nexus()).filter(|&other| other != nexus);
        consequences.tell.extend(others.map(|other| (other, what)));
    }
}

/// The parameters of PREEMPT.
#[derive(Clone, Copy)]
pub(super) struct Preemption {
    pub(super) key: Key,
    pub(super) victim: Option<Key>,
    pub(super) kind: ReservationType,
    pub(super) queued: Queued,
}
