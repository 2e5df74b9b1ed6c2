//! Runs the lives of the hierarchies, and carries out what they want done.
//!
//! Decides what of a life's wishes becomes which effect, and keeps what depends on a life's state in step with it. Leaves the
//! wishes to [`crate::recovery`].

use std::cmp::Reverse;

use super::{Effect, Engine, TimerKey};
use crate::name::HierarchyName;
use crate::record::Happened;
use crate::recovery::{Around, Do, Life, Out};
use crate::time::Time;

impl Engine {
    /// Runs `act` on the life of a hierarchy and carries out what it wants.
    pub(super) fn with_life<R>(
        &mut self,
        name: &HierarchyName,
        act: impl FnOnce(&mut Life, &Around<'_>, Time, &mut Out) -> R,
    ) -> Option<R> {
        let lease_length = self.lease_length(name);
        let before = self.served_before(name);
        let tenure_end = self.timers.get(&TimerKey::TenureEnd(name.clone()));
        let entry = self.entries.get_mut(name)?;
        let around = Around {
            judgement: &entry.judgement,
            directive: &entry.directive,
            utility: entry.utility(),
            pressure: self.pressure,
            standby: self.standby.as_deref(),
            draining: self.draining || entry.retiring,
            can_reset: self.config.can_reset,
            before,
            lease_length,
            recalled_until: tenure_end.filter(|_| entry.life.is_recalled()),
            lease_is_good: entry.lease.as_ref().is_none_or(|l| self.leases.get(l).is_some_and(|l| l.is_good)),
        };
        let result = act(&mut entry.life, &around, self.now, &mut self.out);
        self.carry_out(name);
        Some(result)
    }

    fn carry_out(&mut self, name: &HierarchyName) {
        let list = std::mem::take(&mut self.out.list);
        for what in list {
            self.carry_out_one(name, what);
        }
        self.mind(name);
    }

    fn carry_out_one(&mut self, name: &HierarchyName, what: Do) {
        let Some(entry) = self.entries.get(name) else { return };
        let hierarchy = name.clone();
        let resource = |i: usize| entry.life.hierarchy.resources.get(i).map(|r| r.name.clone());
        let epoch = entry.life.held.map_or(entry.life.known, |h| h.epoch);
        let effect = match what {
            Do::Acquire { op, known, adopt } => {
                let request = crate::claim::Acquire { beliefs: self.beliefs(name), known, adopt };
                Some(Effect::Acquire { hierarchy, op, request })
            }
            Do::Inspect { op } => Some(Effect::Inspect { hierarchy, op }),
            Do::Release { op, epoch, heir, failures } => Some(Effect::Release { hierarchy, op, epoch, heir, failures }),
            Do::Operate { op, resource: i, operation, timeout } => {
                resource(i).map(|resource| Effect::Operate { hierarchy, resource, op, operation, epoch, timeout })
            }
            Do::Cancel { op } => Some(Effect::Cancel { op }),
            Do::Watch { resource: i } => resource(i).map(|resource| Effect::Watch { hierarchy, resource, epoch }),
            Do::Unwatch { resource: i } => resource(i).map(|resource| Effect::Unwatch { hierarchy, resource }),
            Do::Running(epoch) => {
                if epoch.is_some() {
                    self.remember(name);
                }
                Some(Effect::RememberRunning { hierarchy, epoch })
            }
            Do::Lasting => {
                self.remember(name);
                None
            }
            Do::Record(what) => {
                self.tell(Some(name), what);
                None
            }
            Do::Quarantine { why } => {
                self.tell(Some(name), Happened::Quarantined { why: why.clone() });
                let by = format!("ha@{}", self.me());
                self.direct(name, &by, "", None, |d| d.quarantined = Some(why));
                None
            }
            Do::Reset { why } => {
                self.tell(Some(name), Happened::NodeReset { why: why.clone() });
                Some(Effect::Reset { why: format!("{name}: {why}") })
            }
        };
        self.effects.extend(effect);
    }

    /// Keeps what depends on a life's state in step with it: timers, the queue, the guard, the announcement.
    fn mind(&mut self, name: &HierarchyName) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        if entry.life.take_turned() {
            self.dirty.insert(name.clone());
        }
        let key = TimerKey::Hierarchy(name.clone());
        match entry.life.next_deadline() {
            Some(at) => self.timers.set(key, at),
            None => self.timers.cancel(&key),
        }
        if !entry.life.holds() {
            entry.upholding = None;
            entry.unproven = None;
            self.timers.cancel(&TimerKey::Uphold(name.clone()));
            // What is recalled keeps the end that it was given.
            if !entry.life.is_recalled() {
                self.timers.cancel(&TimerKey::TenureEnd(name.clone()));
            }
            if !entry.life.runs() {
                entry.guarded_until = None;
            } else if entry.guarded_until.is_none() {
                // What still runs after the claim is lost may run to the end that was proven last, and is prolonged no more.
                entry.guarded_until = entry.lease.as_ref().and_then(|l| self.leases.get(l)).and_then(|l| l.proven);
            }
        } else if entry.lease.is_some() {
            self.timers.cancel(&TimerKey::TenureEnd(name.clone()));
            entry.guarded_until = None;
        }
        let place = (Reverse(entry.life.hierarchy.policy.importance), name.clone());
        if entry.life.recovering() && !entry.directive.maintenance {
            if entry.life.may_start {
                self.queued.remove(&place);
                self.starting.insert(name.clone());
            } else {
                self.queued.insert(place);
            }
        } else {
            self.queued.remove(&place);
            self.starting.remove(name);
        }
        self.mind_group(name);
        self.announce(name);
    }
}
