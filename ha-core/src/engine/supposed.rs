//! What the model checker supposes of an engine's surroundings, and how it tells one engine from another.
//!
//! Decides which parts of an engine matter. Leaves to [`crate::sim::model`] what happens, and when.

use super::{Engine, TimerKey};
use crate::contact::{AnnouncedPhase, Directive};
use crate::name::{Epoch, HierarchyName, NodeName};
use crate::recovery::LifeTimer;
use crate::time::Time;

/// Something that waits for its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Due {
    Life(LifeTimer),
    /// The tenure could not be proven for so long that everything must be stopped.
    TenureEnd,
}

/// How a hierarchy stands on a node, as far as what happens next depends on it.
#[derive(Clone, Debug)]
pub(crate) struct Outlook {
    pub(crate) held: Option<Epoch>,
    pub(crate) runs: bool,
    pub(crate) phase: AnnouncedPhase,
    pub(crate) directive: Directive,
    pub(crate) standby: bool,
    pub(crate) dues: Vec<Due>,
}

impl Engine {
    /// The other node is heard, with everything that it tells.
    pub(crate) fn suppose_heard(&mut self, other: &Engine) {
        self.contact.suppose_heard(self.now, &other.contact);
        self.settle();
    }

    /// The other node was silent for too long.
    pub(crate) fn suppose_silent(&mut self, other: &NodeName) {
        self.contact.suppose_silent(self.now, other);
        self.settle();
    }

    /// The time of one timer has come, whatever that of the others is.
    pub(crate) fn suppose_due(&mut self, now: Time, name: &HierarchyName, due: Due) {
        match due {
            Due::Life(timer) => {
                let Some(entry) = self.entries.get_mut(name) else { return };
                entry.life.suppose_due(timer, now);
                self.timers.set(TimerKey::Hierarchy(name.clone()), now);
            }
            Due::TenureEnd => self.timers.set(TimerKey::TenureEnd(name.clone()), now),
        }
        self.handle_timeout(now);
    }

    /// Puts all timers far away, and forgets what only the network would do.
    pub(crate) fn make_plain(&mut self, later: Time) {
        self.contact.forget_sent();
        for entry in self.entries.values_mut() {
            entry.life.make_plain(later);
        }
        for key in self.timers.keys().cloned().collect::<Vec<_>>() {
            self.timers.set(key, later);
        }
    }

    pub(crate) fn outlook(&self, name: &HierarchyName) -> Option<Outlook> {
        let entry = self.entries.get(name)?;
        let mut dues: Vec<Due> = entry.life.pending().into_iter().map(Due::Life).collect();
        dues.extend(self.timers.get(&TimerKey::TenureEnd(name.clone())).map(|_| Due::TenureEnd));
        Some(Outlook {
            held: entry.life.held.map(|h| h.epoch),
            runs: entry.life.runs(),
            phase: entry.life.announced_phase(),
            directive: entry.directive.clone(),
            standby: self.standby.is_some(),
            dues,
        })
    }

    /// Everything that its future depends on; and what others can hear of it.
    pub(crate) fn identity(&self) -> (String, String) {
        let (heard, told) = self.contact.identity();
        let entries = self.entries.iter().map(|(name, entry)| {
            let j = &entry.judgement;
            let judgement = (&j.standing, &j.unfit, &j.able, &j.best_other, &j.better);
            let around =
                (&entry.directive, entry.utility(), &entry.lacking, &entry.storage, entry.upholding, entry.retiring);
            format!("{}{judgement:?}{around:?}{}", entry.life.identity(), self.starting.contains(name))
        });
        let node = (&self.standby, self.draining, self.farewell, self.settled, &self.queued, &self.dirty, &self.fenced);
        let timers: Vec<&TimerKey> = self.timers.keys().collect();
        let text = format!("{heard}{told}{node:?}{timers:?}{}", entries.collect::<String>());
        (text, told)
    }
}
