//! What the model checker needs of a life: to tell it from those that would behave differently, and to let a timer run off at any time.
//!
//! Decides which of its fields matter. Leaves to [`crate::sim::model`] what happens.

use super::life::{BACKOFF_FIRST, Life, LifeTimer, RETRY_FIRST};
use crate::time::Time;

impl Life {
    /// What waits for its time.
    pub(crate) fn pending(&self) -> Vec<LifeTimer> {
        self.timers.keys().copied().collect()
    }

    /// The time of one timer has come, whatever that of the others is.
    pub(crate) fn suppose_due(&mut self, timer: LifeTimer, now: Time) {
        if timer == LifeTimer::Settle {
            self.served_since = self.served_since.map(|since| since - self.hierarchy.policy.settle);
        }
        self.timers.set(timer, now);
    }

    /// All timers run off at `later`, and none is longer than another: a model lets them run off in any order.
    pub(crate) fn make_plain(&mut self, later: Time) {
        for timer in self.pending() {
            self.timers.set(timer, later);
        }
        (self.retry, self.backoff) = (RETRY_FIRST, BACKOFF_FIRST);
    }

    /// Everything that its future depends on.
    pub(crate) fn identity(&self) -> String {
        // All fields are named, so that none that is added later is forgotten.
        let Life {
            hierarchy: _,
            phase,
            since: _,
            detail: _,
            disturbance: _,
            works,
            known,
            held,
            declined,
            early,
            early_first: _,
            counted,
            restarts,
            backoff: _,
            exhausted,
            served_since,
            heir,
            better,
            retry: _,
            hurried,
            suspect,
            claim_trouble,
            recalled,
            adopted,
            may_start,
            inspecting,
            turned,
            timers,
        } = self;
        let parts = (&works.parts, works.cycle());
        let failures = (declined.is_some(), early, counted, restarts.len(), exhausted.is_some(), served_since);
        let claim = (known, held, heir, better, hurried, suspect, claim_trouble.is_some(), recalled.is_some());
        let rest = (adopted, may_start, inspecting, turned, timers.keys().collect::<Vec<_>>());
        format!("{phase:?}{parts:?}{failures:?}{claim:?}{rest:?}")
    }
}
