//! Taking a device: the next command, from what is known of it.
//!
//! Decides by the reservation that was read: free, held by this node, by another, or by a stranger. On the first device of a claim, the
//! arbiter, by what is believed of the holder, too. Leaves the other devices to the same rules, with every holder of the cluster passing for gone.

use super::device::{Command, Key, PowerLoss};
use super::key::{ClusterKey, Role, epoch_under_any_list};
use super::lane::{Common, End, Goal, Lane, Step};
use super::path::{Path, Registration};
use crate::claim::{Acquire, Belief, Refusal};
use crate::mutation::{self, Mutation};
use crate::name::{Epoch, NodeName};
use crate::time::Time;

/// More commands than this, and the attempt is given up: something keeps changing.
const STEPS_MAX: u16 = 80;

/// So often a challenger's key is registered that is not seen afterwards.
const CHALLENGES_MAX: u8 = 4;
const DEFENDED: &str = "it is alive and defends its reservation";

/// Waiting for whoever may have lost a device without memory to come back to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blank {
    NotSeen,
    Waiting(Time),
    /// Since then.
    Waited(Time),
}

/// Whether the holder defends itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Duel {
    None,
    /// Until the moment, once the challenger is registered.
    Challenging {
        victim: Key,
        challenger: Key,
        path: usize,
        tries: u8,
        until: Option<Time>,
    },
    /// The time is over, and the keys were, or are, read again.
    Judged {
        victim: Key,
        challenger: Key,
        path: usize,
    },
}

/// Whether somebody else may have had the claim until now, and written wherever no reservation stood in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writers {
    None,
    Possible,
}

/// What is known of an attempt.
#[derive(Clone, Debug)]
pub(super) struct Take {
    /// None on a device that is not the arbiter.
    request: Option<Acquire>,
    /// Resources run here, perhaps, that an earlier life of the agent began under this tenure. They lose a device with its registration.
    adopt: Option<Epoch>,
    /// Greater than every epoch that was tried before.
    floor: Epoch,
    pub(super) key: Option<Key>,
    pub(super) blank: Blank,
    pub(super) writers: Writers,
    pub(super) duel: Duel,
    /// The key under which an earlier life of the agent held the tenure that is to go on; maybe of an earlier list of nodes.
    former: Option<Key>,
    /// The reservation was asked for: whoever has it now, other than the one seen first, was faster.
    tried: bool,
    /// Who had the reservation when it was first read. Beliefs are about that one.
    first: Option<Option<Key>>,
    pub(super) begun: Time,
    pub(super) settle: Option<Time>,
    refusal: Option<Refusal>,
}

impl Take {
    pub(super) fn arbiter(request: Acquire, floor: Epoch, now: Time) -> Take {
        Take { begun: now, adopt: request.adopt, ..Take::new(Some(request), floor, None) }
    }

    /// Taking another device of the claim, under the key that the arbiter was taken with.
    pub(super) fn for_another(&self, key: Key) -> Take {
        let Take { adopt, writers, former, .. } = *self;
        Take { adopt, writers, former, ..Take::new(None, Epoch::ZERO, Some(key)) }
    }

    fn new(request: Option<Acquire>, floor: Epoch, key: Option<Key>) -> Take {
        Take {
            request,
            floor,
            adopt: None,
            key,
            blank: Blank::NotSeen,
            writers: Writers::None,
            duel: Duel::None,
            former: None,
            tried: false,
            begun: Time::ZERO,
            first: None,
            settle: None,
            refusal: None,
        }
    }

    /// What a preempted nexus has under way may be carried out until then.
    pub(super) fn settle(&mut self, until: Time) {
        self.settle = Some(self.settle.map_or(until, |before| before.max(until)));
    }

    /// Resources run here that were begun under an earlier tenure.
    pub(super) fn adopts(&self) -> bool {
        self.adopt.is_some()
    }

    /// The device told of a preemption on the path with this place: a holder that is challenged there has defended itself. If the challenger's
    /// key is there again, then through a command of an earlier life that came late.
    pub(super) fn told_of_preemption(&mut self, place: Option<usize>, common: &Common) {
        if let Duel::Challenging { victim, path, .. } | Duel::Judged { victim, path, .. } = self.duel
            && Some(path) == place
            && !self.tried
            && !mutation::is_on(Mutation::IgnoreDefence)
        {
            self.refusal.get_or_insert(held_by(victim, common, DEFENDED));
        }
    }

    #[cfg(test)]
    pub(super) fn is_refused(&self) -> bool {
        self.refusal.is_some()
    }

    /// The tenure that goes on, if it is not a new one.
    pub(super) fn continued(&self) -> Option<Epoch> {
        self.adopt.filter(|_| self.former.is_some())
    }

    fn belief(&self, node: &NodeName) -> Belief {
        let told = self.request.as_ref().map(|request| request.beliefs.get(node).copied().unwrap_or(Belief::Lost));
        match told {
            None => Belief::Gone,
            Some(Belief::Lost) if mutation::is_on(Mutation::PreemptWithoutChallenge) => Belief::Gone,
            Some(belief) => belief,
        }
    }

    /// Whether somebody may hold the device who is not heard.
    fn somebody_may_live(&self, common: &Common) -> bool {
        let mine = common.keyring.node(common.me);
        self.request.is_some()
            && common.keyring.nodes().iter().any(|node| Some(node) != mine && !self.belief(node).is_gone())
    }
}

impl Lane {
    /// The next step of taking this device.
    pub(super) fn plan_take(&mut self, common: &Common, now: Time) -> Step {
        let Goal::Take(mut take) = std::mem::replace(&mut self.goal, Goal::Nothing) else { return Step::Again };
        let step = self.next_of_take(&mut take, common, now);
        self.goal = Goal::Take(take);
        step
    }

    fn next_of_take(&mut self, take: &mut Take, common: &Common, now: Time) -> Step {
        if let Some(refusal) = &take.refusal {
            return self.clear_away(refusal.clone(), take, common, now);
        }
        if self.steps > STEPS_MAX {
            return refuse(take, Refusal::Unreachable(format!("{}: its state keeps changing", self.name)));
        }
        let Some(path) = self.usable() else {
            return refuse(take, Refusal::Unreachable(self.unreachable()));
        };
        if let Some(step) = self.read(path) {
            return step;
        }
        if take.first.is_none() && take.request.is_some() {
            take.former = self.former_key(take, common);
        }
        if let Some(refusal) = self.stranger(take, common) {
            return refuse(take, refusal);
        }
        let key = match take.key {
            Some(key) => key,
            None => match self.choose_key(take, common) {
                Ok(key) => *take.key.insert(key),
                Err(refusal) => return refuse(take, refusal),
            },
        };
        let first = self.held().and_then(|held| held.key);
        let touched = self.paths.iter().any(|path| path.touched);
        if !touched && let Some(refusal) = Self::leftovers_forbid(take, first, common) {
            return refuse(take, refusal);
        }
        take.first.get_or_insert(first);
        match self.held().map(|held| held.key) {
            None => self.take_free(take, key, path, common, now),
            Some(Some(holder)) if holder == key => self.secure(take, key, common, now),
            Some(Some(holder)) => self.take_from(take, key, holder, path, common, now),
            // Refused as a stranger's above.
            Some(None) => Step::Again,
        }
    }

    /// The reservation's key, if it is of this node, or of an earlier list of nodes, and not older than the tenure that this node says it
    /// has. Whether it is this machine's is for the device to say: only who is registered with a key can change it.
    fn former_key(&self, take: &Take, common: &Common) -> Option<Key> {
        let held = self.held().and_then(|held| held.key)?;
        let epoch = epoch_under_any_list(held).filter(|_| common.foreign(held).is_none());
        (epoch? >= take.adopt?).then_some(held)
    }

    /// What an earlier life left running would be let in again by any registration: it has to be stopped first, unless the reservation
    /// is this node's still.
    fn leftovers_forbid(take: &Take, holder: Option<Key>, common: &Common) -> Option<Refusal> {
        take.request.as_ref().filter(|_| take.adopts())?;
        match holder {
            Some(holder) if common.is_mine(holder) || take.former == Some(holder) => None,
            Some(holder) => Some(held_by(holder, common, "it has taken it since")),
            None => Some(Refusal::Raced),
        }
    }

    /// Whoever is registered might write, so a stranger who is keeps the claim from being worth anything.
    fn stranger(&self, take: &Take, common: &Common) -> Option<Refusal> {
        let held = self.held();
        if let Some(held) = held.filter(|held| held.key.is_none()) {
            let why = format!("{} is reserved by all that are registered ({:?})", self.name, held.kind);
            return Some(Refusal::Stranger(why));
        }
        let reserved = held.and_then(|held| held.key);
        let mut all = reserved.into_iter().chain(self.keys().iter().copied());
        let stranger = all.find(|key| common.keyring.decode(*key).is_none() && take.former != Some(*key))?;
        let does = if reserved == Some(stranger) { "has reserved" } else { "is registered, and might write, with" };
        Some(Refusal::Stranger(format!("{}, {does} {}", common.keyring.describe(stranger), self.name)))
    }

    fn choose_key(&self, take: &Take, common: &Common) -> Result<Key, Refusal> {
        let known = |key: Key| common.keyring.decode(key);
        let holder = self.held().and_then(|held| held.key).and_then(known);
        let seen = self.keys().iter().filter_map(|key| known(*key)).map(|k| k.epoch);
        let told = take.request.as_ref().map(|request| request.known).into_iter().chain(take.adopt);
        // The keys were read before the reservation, and may be older than its holder.
        let holder = holder.map(|k| k.epoch).into_iter().chain(take.former.and_then(epoch_under_any_list));
        let next = seen.chain(told).chain(holder).fold(take.floor, Epoch::max).next();
        // A tenure that goes on gets a new key, too: commands of the earlier life that are carried out late name the old one.
        let epoch = take.continued().filter(|_| mutation::is_on(Mutation::KeepKey)).unwrap_or(next);
        let key = common.keyring.encode(ClusterKey { role: Role::Holder, node: common.me, epoch });
        key.map_err(|e| Refusal::Unfit(e.to_string()))
    }

    fn take_free(&mut self, take: &mut Take, key: Key, path: usize, common: &Common, now: Time) -> Step {
        if take.adopts() && take.request.is_some() {
            // It was this node's when it was first read. Whoever took it may have given it up again; leftovers must not be let in.
            return refuse(take, Refusal::Raced);
        }
        let lost_its_memory = self.is_blank() || self.may_be_coming_back(common);
        if lost_its_memory && take.somebody_may_live(common) && !mutation::is_on(Mutation::TakeBlankAtOnce) {
            match take.blank {
                Blank::NotSeen => {
                    let until = now + common.timing.blank_wait();
                    take.blank = Blank::Waiting(until);
                    take.writers = Writers::Possible;
                    return Step::Wait(until);
                }
                Blank::Waiting(until) if until > now => return Step::Wait(until),
                Blank::Waiting(until) => {
                    take.blank = Blank::Waited(until);
                    self.forget();
                    return Step::Again;
                }
                // Looked at so late that it may have lost its memory once more.
                Blank::Waited(until) if until + common.timing.defend_interval() < self.seen_at => {
                    take.blank = Blank::NotSeen;
                    return Step::Again;
                }
                Blank::Waited(_) => {}
            }
        }
        if let Duel::Challenging { challenger, .. } | Duel::Judged { challenger, .. } = take.duel
            && !take.tried
            && !self.keys().contains(&challenger)
            && !self.keys().contains(&key)
        {
            // Whoever removed it has had the claim meanwhile, under an epoch that cannot be known.
            return refuse(take, Refusal::Raced);
        }
        if let Some(step) = self.let_in(path, key, take.former, common) {
            return step;
        }
        take.tried = true;
        Step::Send(path, Command::Reserve { key, kind: common.kind })
    }

    /// The holder of a device without memory that has lost power is registered again before it has reserved it again.
    fn may_be_coming_back(&self, common: &Common) -> bool {
        self.power_loss == PowerLoss::Forgets && self.keys().iter().any(|key| common.foreign(*key).is_some())
    }

    fn take_from(&mut self, take: &mut Take, key: Key, holder: Key, path: usize, common: &Common, now: Time) -> Step {
        let known = common.keyring.decode(holder);
        if let Duel::Challenging { challenger, .. } | Duel::Judged { challenger, .. } = take.duel
            && challenger == holder
        {
            if !take.tried && !mutation::is_on(Mutation::TrustPlainPreempt) {
                // By a command of an earlier life, which nobody waited for.
                take.settle(now + self.limit);
            }
            // The reservation stays with a holder whose key changes. One that hangs on a path that is not there any more is preempted.
            return self.preempt_from(take, key, holder, path, common);
        }
        let mine = known.is_some_and(|known| known.node == common.me);
        // What an earlier life sent may have made it this node's meanwhile.
        if take.first != Some(Some(holder)) && (take.adopts() || !mine) {
            let raced = take.tried || take.first == Some(None);
            let since = || held_by(holder, common, "it has taken it since");
            return refuse(take, if raced { Refusal::Raced } else { since() });
        }
        if take.former == Some(holder) || mine {
            if let Some(step) = self.take_own(take, key, holder, common, now) {
                return step;
            }
            if known.is_none() {
                let why = format!("{}, has reserved {}", common.keyring.describe(holder), self.name);
                return refuse(take, Refusal::Stranger(why));
            }
            return self.challenge(take, key, holder, path, common, now);
        }
        take.writers = Writers::Possible;
        let belief = known.and_then(|known| common.keyring.node(known.node)).map(|node| take.belief(node));
        match belief {
            // Long enough ago that it may have come back meanwhile.
            Some(Belief::Gone | Belief::Fenced { .. })
                if take.request.is_some() && take.begun + common.timing.defend_interval() < now =>
            {
                self.challenge(take, key, holder, path, common, now)
            }
            Some(Belief::Gone | Belief::Fenced { .. }) => self.preempt_from(take, key, holder, path, common),
            Some(Belief::Lost) => self.challenge(take, key, holder, path, common, now),
            Some(Belief::Heard) => refuse(take, held_by(holder, common, "it is in contact")),
            None => Step::Again,
        }
    }

    fn preempt_from(&mut self, take: &mut Take, key: Key, victim: Key, path: usize, common: &Common) -> Step {
        if let Some(step) = self.let_in(path, key, take.former, common) {
            return step;
        }
        take.tried = true;
        self.preempt(path, key, victim, common)
    }

    /// A reservation under a key of this node's, left over from an earlier life. That it is this machine's, and not another's that goes by
    /// the same name, shows when the device lets the key be changed.
    fn take_own(&mut self, take: &mut Take, key: Key, holder: Key, common: &Common, now: Time) -> Option<Step> {
        if take.request.is_some() {
            // The earlier life may have ended while it waited for what a node that it had preempted had under way.
            if take.former.is_none() && !mutation::is_on(Mutation::TrustPlainPreempt) {
                take.settle(now + self.limit);
            }
            if !self.paths.iter().any(|path| path.failed.is_none() && path.is_registered_with(key)) {
                let place = self.paths.iter().position(|path| path.failed.is_none() && path.may_have(holder))?;
                return Some(self.register_over(place, Some(holder), key));
            }
        }
        if take.adopts()
            && let Some(step) = self.let_all_in(take, key, common)
        {
            return Some(step);
        }
        // The reservation hangs on a path that is not there any more.
        let path = self.usable_with(key)?;
        Some(self.preempt_from(take, key, holder, path, common))
    }

    /// Registers the next path that answers and is not registered with `key`.
    fn let_all_in(&mut self, take: &Take, key: Key, common: &Common) -> Option<Step> {
        let lacks = |path: &Path| path.failed.is_none() && !path.is_registered_with(key);
        let place = self.paths.iter().position(lacks)?;
        self.let_in(place, key, take.former, common)
    }

    fn challenge(&mut self, take: &mut Take, key: Key, victim: Key, path: usize, common: &Common, now: Time) -> Step {
        match take.duel {
            Duel::None => {
                let Some(known) = common.keyring.decode(key) else { return Step::Again };
                let challenger = ClusterKey { role: Role::Challenger, ..known };
                let Ok(challenger) = common.keyring.encode(challenger) else { return Step::Again };
                take.duel = Duel::Challenging { victim, challenger, path, tries: 1, until: None };
                self.let_in(path, challenger, take.former, common).unwrap_or(Step::Again)
            }
            Duel::Challenging { victim: first, .. } | Duel::Judged { victim: first, .. } if first != victim => {
                refuse(take, held_by(victim, common, "it has taken it since"))
            }
            Duel::Challenging { path, .. } | Duel::Judged { path, .. }
                if self.paths.get(path).is_none_or(|p| p.failed.is_some()) =>
            {
                refuse(take, Refusal::Unreachable(self.unreachable()))
            }
            Duel::Challenging { challenger, path, tries, until: None, .. } => {
                if self.keys().contains(&challenger) {
                    let until = now + common.timing.challenge(self.limit);
                    take.duel = Duel::Challenging { victim, challenger, path, tries, until: Some(until) };
                    return Step::Wait(until);
                }
                let confirmed = self.paths.get(path).is_some_and(|path| path.is_registered_with(challenger));
                if confirmed || tries >= CHALLENGES_MAX {
                    return refuse(take, held_by(victim, common, DEFENDED));
                }
                take.duel = Duel::Challenging { victim, challenger, path, tries: tries + 1, until: None };
                self.let_in(path, challenger, take.former, common).unwrap_or(Step::Again)
            }
            Duel::Challenging { until: Some(until), .. } if until > now => Step::Wait(until),
            Duel::Challenging { victim, challenger, path, .. } => {
                take.duel = Duel::Judged { victim, challenger, path };
                self.forget();
                Step::Again
            }
            Duel::Judged { challenger, path, .. } => {
                if self.keys().contains(&challenger) {
                    take.tried = true;
                    return self.preempt(path, challenger, victim, common);
                }
                if mutation::is_on(Mutation::IgnoreDefence) {
                    return self.let_in(path, challenger, take.former, common).unwrap_or(Step::Again);
                }
                refuse(take, held_by(victim, common, DEFENDED))
            }
        }
    }

    /// The reservation is held: whoever else could write is removed, and every path let in.
    fn secure(&mut self, take: &mut Take, key: Key, common: &Common, now: Time) -> Step {
        let Some(path) = self.usable_with(key) else { return Step::Again };
        if let Some(step) = self.let_in(path, key, take.former, common) {
            return step;
        }
        let other = |k: &Key| common.foreign(*k).is_some();
        if let Some(other) = self.keys().iter().copied().find(other) {
            return self.preempt(path, key, other, common);
        }
        // Paths that resources of an earlier life may be using are registered under the new key before the old one is removed.
        if take.adopts()
            && let Some(step) = self.let_all_in(take, key, common)
        {
            return step;
        }
        let old = |k: &Key| *k != key && (common.is_mine(*k) || take.former == Some(*k));
        let old = self.keys().iter().copied().find(old);
        if let Some(old) = old.filter(|_| !take.adopts() || self.is_all_in(key)) {
            return self.preempt(path, key, old, common);
        }
        if let Some(until) = take.settle {
            if until > now {
                return Step::Wait(until);
            }
            take.settle = None;
            self.forget();
            return Step::Again;
        }
        self.let_all_in(take, key, common).unwrap_or(Step::End(End::Taken(key)))
    }

    /// Unregisters where something was registered, and then refuses. A node whose leftovers run keeps what it has until they are stopped.
    /// Nor does it let go before what it preempted has settled: the next one to take a free device does not wait.
    fn clear_away(&mut self, refusal: Refusal, take: &Take, common: &Common, now: Time) -> Step {
        let left = |path: &Path| path.touched && path.failed.is_none() && path.registration != Registration::None;
        match self.paths.iter().position(left) {
            Some(path)
                if !take.adopts() && self.steps <= 2 * STEPS_MAX && !mutation::is_on(Mutation::StayRegistered) =>
            {
                match take.settle.filter(|until| *until > now) {
                    Some(until) => Step::Wait(until),
                    None => self.unregister(path, common),
                }
            }
            _ => Step::End(End::Refused(refusal)),
        }
    }
}

fn held_by(holder: Key, common: &Common, why: &str) -> Refusal {
    let known = common.keyring.decode(holder);
    match known.and_then(|known| Some((common.keyring.node(known.node)?.clone(), known.epoch))) {
        Some((holder, epoch)) => Refusal::Held { holder, epoch, why: why.to_owned(), retry_at: None },
        None => Refusal::Stranger(common.keyring.describe(holder)),
    }
}

fn refuse(take: &mut Take, refusal: Refusal) -> Step {
    take.refusal = Some(refusal);
    Step::Again
}
