//! Giving a device up, whichever of this node's paths, earlier lives or former nexuses the reservation hangs on.
//!
//! Decides the order: release, unregister every path, and remove what is left of this node's keys. Leaves to the
//! [machine](super::machine) which device is last.

use super::device::{Command, Key, Queued};
use super::lane::{Common, End, Goal, Lane, Step};
use super::path::{Path, Registration};
use crate::time::Time;

/// More commands than this, and it is left for the next attempt.
const STEPS_MAX: u16 = 60;

#[derive(Clone, Debug, Default)]
pub(super) struct GiveUp {
    /// RELEASE was carried out, and the reservation stayed: it hangs on another path.
    released: bool,
    /// The keys were read after every path was unregistered.
    checked: bool,
    swept: Option<Key>,
    /// Until then the device may carry out what a preempted node had under way. The next holder of a free device does not wait for it.
    settle: Option<Time>,
}

impl GiveUp {
    /// Giving up after whatever was wanted before.
    pub(super) fn after(goal: &Goal) -> GiveUp {
        let settle = match goal {
            Goal::Take(take) => take.settle,
            Goal::GiveUp(give_up) => give_up.settle,
            Goal::Nothing | Goal::Hold(_) => None,
        };
        GiveUp { settle, ..GiveUp::default() }
    }
}

impl Lane {
    /// The next step of giving this device up.
    pub(super) fn plan_give_up(&mut self, common: &Common, now: Time) -> Step {
        let Goal::GiveUp(mut give_up) = std::mem::replace(&mut self.goal, Goal::Nothing) else { return Step::Again };
        let step = self.next_of_give_up(&mut give_up, common, now);
        self.goal = Goal::GiveUp(give_up);
        step
    }

    fn next_of_give_up(&mut self, give_up: &mut GiveUp, common: &Common, now: Time) -> Step {
        if let Some(until) = give_up.settle.filter(|until| *until > now) {
            return Step::Wait(until);
        }
        if self.steps > STEPS_MAX {
            return Step::End(End::Stuck(format!("{}: its state keeps changing", self.name)));
        }
        let Some(path) = self.usable() else {
            return Step::End(End::Stuck(self.unreachable()));
        };
        if let Some(step) = self.read(path) {
            return step;
        }
        let held = self.held();
        if let Some((key, kind)) = held.and_then(|held| Some((held.key.filter(|key| common.is_mine(*key))?, held.kind)))
        {
            let path = self.usable_with(key).unwrap_or(path);
            if let Some(step) = self.let_in(path, key, None, common) {
                return step;
            }
            give_up.released = !give_up.released;
            let preempt = Command::Preempt { key, victim: Some(key), kind, queued: Queued::Stay };
            return Step::Send(path, if give_up.released { Command::Release { key, kind } } else { preempt });
        }
        let left = self.keys().iter().copied().find(|key| common.is_mine(*key));
        if let Some(key) = left.filter(|key| give_up.checked && give_up.swept != Some(*key)) {
            if let Some(step) = self.let_in(path, key, None, common) {
                return step;
            }
            give_up.swept = Some(key);
            // Its own registration may go with the others, or stay.
            let step = Command::Preempt { key, victim: Some(key), kind: common.kind, queued: Queued::Stay };
            if let Some(path) = self.paths.get_mut(path) {
                path.doubt();
            }
            return Step::Send(path, step);
        }
        let registered = |path: &Path| path.failed.is_none() && path.registration != Registration::None;
        match self.paths.iter().position(registered) {
            Some(path) => self.unregister(path, common),
            None if !give_up.checked => {
                give_up.checked = true;
                self.forget();
                Step::Again
            }
            None => Step::End(End::GivenUp),
        }
    }
}
