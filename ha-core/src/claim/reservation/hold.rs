//! Holding a device: looking at it at every interval, defending it, and noticing when it is lost.
//!
//! Decides what a look shows. A reservation that is not ours is lost for good: nothing here registers again after that. Leaves to the
//! [machine](super::machine) what the loss of one device means for the claim.

use super::device::{Command, Key};
use super::lane::{Common, End, Goal, Lane, Step};
use super::path::{Path, Registration};
use crate::claim::Loss;
use crate::mutation::{self, Mutation};
use crate::time::Time;

/// More commands than this in one look, and the rest waits for the next.
const STEPS_MAX: u16 = 32;

#[derive(Clone, Debug)]
pub(super) struct Hold {
    pub(super) key: Key,
    /// When the next look is due.
    pub(super) look_at: Time,
    /// When the latest read was sent that showed the reservation to be ours.
    pub(super) proven: Time,
    /// A look that was begun since this was last unset showed it to be ours, and nobody else of the cluster registered.
    pub(super) confirmed: bool,
}

impl Hold {
    pub(super) fn new(key: Key, now: Time) -> Hold {
        Hold { key, look_at: now, proven: now, confirmed: false }
    }

    /// Looks at once. What is being read now is from before.
    pub(super) fn hurry(&mut self, now: Time) {
        self.confirmed = false;
        self.look_at = now;
    }
}

impl Lane {
    /// The next step of holding this device.
    pub(super) fn plan_hold(&mut self, common: &Common, now: Time) -> Step {
        let Goal::Hold(mut hold) = std::mem::replace(&mut self.goal, Goal::Nothing) else { return Step::Again };
        let step = self.next_of_hold(&mut hold, common, now);
        self.goal = Goal::Hold(hold);
        step
    }

    fn next_of_hold(&mut self, hold: &mut Hold, common: &Common, now: Time) -> Step {
        let interval = common.timing.defend_interval();
        let lost_at = hold.proven + common.timing.uphold_bound();
        if now >= lost_at {
            let why = format!("{} has not answered for {:?}", self.unreachable(), common.timing.uphold_bound());
            return Step::End(End::Lost(Loss::GivenUp(why)));
        }
        if now >= hold.look_at && !self.is_looking(hold) {
            hold.look_at = now + interval;
            self.steps = 0;
            self.forget();
        }
        if self.steps > STEPS_MAX {
            return Step::Wait(hold.look_at.min(lost_at));
        }
        let Some(path) = self.usable_with(hold.key).or_else(|| self.least_failed(interval / 4, now)) else {
            let again = self.paths.iter().filter_map(|path| path.failed).min().map(|at| at + interval / 4);
            return Step::Wait(again.unwrap_or(hold.look_at).min(lost_at));
        };
        if let Some(step) = self.read(path) {
            return step;
        }
        match self.held().map(|held| held.key) {
            Some(Some(key)) if key == hold.key => self.defend(hold, path, common, now),
            None => self.restore(hold, path, common, now),
            Some(other) => {
                let who =
                    other.map_or_else(|| "all that are registered".to_owned(), |key| common.keyring.describe(key));
                if let Some(other) = other.filter(|_| mutation::is_on(Mutation::FightBack)) {
                    return self.push_out(hold.key, other, path, common);
                }
                Step::End(End::Lost(Loss::Taken(format!("{who}, on {}", self.name))))
            }
        }
    }

    fn defend(&mut self, hold: &mut Hold, path: usize, common: &Common, now: Time) -> Step {
        hold.proven = hold.proven.max(self.seen_at);
        let key = hold.key;
        let others = |k: &Key| common.foreign(*k).is_some();
        let other = self.keys().iter().copied().find(others).filter(|_| !mutation::is_on(Mutation::NeverDefend));
        if let Some(other) = other {
            return self.push_out(key, other, path, common);
        }
        hold.confirmed = true;
        self.audit(key);
        let interval = common.timing.defend_interval();
        let old = |k: &Key| *k != key && common.is_mine(*k);
        let lacks = |path: &Path| {
            !path.is_registered_with(key) && path.again <= now && path.failed.is_none_or(|at| at + interval <= now)
        };
        if let Some(path) = self.paths.iter().position(lacks) {
            return self.let_in(path, key, None, common).unwrap_or(Step::Again);
        }
        match self.keys().iter().copied().find(old) {
            // Of an earlier life, on a path that is not there any more. One that only does not answer may be in use under it.
            Some(old) if self.is_all_in(key) => self.preempt(path, key, old, common),
            // The look took longer than an interval: the next one begins.
            _ if hold.look_at <= now => Step::Again,
            _ => Step::Wait(hold.look_at),
        }
    }

    /// In the middle of a look, which is brought to its end however slowly the device answers: one that were begun anew at every interval
    /// would never show anything where two reads take longer.
    fn is_looking(&self, hold: &Hold) -> bool {
        let concluded = self.reservation.is_some() && self.seen_at <= hold.proven;
        self.keys.is_some() && !concluded && self.steps <= STEPS_MAX && !self.paths.is_empty()
    }

    /// Every path that was registered shows in the keys. Fewer than those, and a registration is gone that nothing told of: each is checked, with a
    /// command that is refused where there is none. Some devices show a key once, however often it is registered: those are checked once.
    fn audit(&mut self, key: Key) {
        let shown = self.keys().iter().filter(|one| **one == key).count();
        let believed = self.paths.iter().filter(|path| path.is_registered_with(key)).count();
        if shown >= believed || self.audited == Some((shown, believed)) {
            return;
        }
        self.audited = Some((shown, believed));
        for path in &mut self.paths {
            if path.is_registered_with(key) {
                path.doubt();
            }
        }
    }

    /// The device holds no reservation: it lost its memory, or somebody who preempted this node has released it since.
    fn restore(&mut self, hold: &mut Hold, path: usize, common: &Common, now: Time) -> Step {
        let key = hold.key;
        if self.keys().contains(&key) {
            return self
                .let_in(path, key, None, common)
                .unwrap_or(Step::Send(path, Command::Reserve { key, kind: common.kind }));
        }
        if self.is_blank() && now < hold.proven + common.timing.uphold_bound() {
            if let Some(path) = self.paths.get_mut(path) {
                path.registration = Registration::None;
            }
            return self.let_in(path, key, None, common).unwrap_or(Step::Again);
        }
        let why = format!("somebody who has released it since, on {}", self.name);
        Step::End(End::Lost(Loss::Taken(why)))
    }

    /// Only a registered path can preempt.
    fn push_out(&mut self, key: Key, other: Key, path: usize, common: &Common) -> Step {
        self.let_in(path, key, None, common).unwrap_or_else(|| self.preempt(path, key, other, common))
    }

    /// The path that failed longest ago, if that is at least `pause`.
    fn least_failed(&self, pause: std::time::Duration, now: Time) -> Option<usize> {
        let failed = self.paths.iter().enumerate().filter_map(|(place, path)| Some((path.failed?, place)));
        failed.min().filter(|(at, _)| *at + pause <= now).map(|(_, place)| place)
    }
}
