//! The resources in the life of a hierarchy: what the end of an operation leads to.
//!
//! Decides on local recovery, its limit, and what follows when all is up or all is down. Leaves the order to [`super::works`].

use std::time::Duration;

use super::life::{After, Life, LifeTimer, Phase};
use super::table::{Step, Trigger};
use super::works::{Manner, Meaning, Operation, Outcome};
use super::{Around, Do, OpId, Out};
use crate::contact::DisturbanceKind;
use crate::hierarchy::OnStopFailure;
use crate::mutation::{self, Mutation};
use crate::record::Happened;
use crate::time::Time;

/// And so long at last.
const BACKOFF_LAST: Duration = Duration::from_secs(60);
/// What could not be stopped is tried again after this.
pub(super) const UNSTICK_AFTER: Duration = Duration::from_secs(30);

impl Life {
    /// An operation ended.
    pub(crate) fn operated(&mut self, op: OpId, outcome: &Outcome, around: &Around<'_>, now: Time, out: &mut Out) {
        match self.works.ended(op, outcome, around.pressure, now, out) {
            Meaning::Stale => return,
            Meaning::Fine => {}
            Meaning::CameBack { part } => {
                self.returned(part, outcome, around, now, out);
                return;
            }
            Meaning::MonitorAgain { part } => {
                let every = self.hierarchy.resources[part].monitor.every;
                self.timers.set(LifeTimer::Monitor(part), now + every);
            }
            Meaning::NotRunning { part } => {
                self.adopted = false;
                self.works.restart(part);
            }
            Meaning::Stuck { .. } => self.stuck(around, now, out),
            Meaning::Failed { part, during } => {
                let why = self.works.parts[part].trouble.clone().unwrap_or_default();
                self.failed(part, during, &why, around, now, out);
            }
        }
        self.proceed(around, now, out);
    }

    /// The watch on a resource that was up says that it failed.
    pub(crate) fn watch_fired(&mut self, part: usize, why: &str, around: &Around<'_>, now: Time, out: &mut Out) {
        if self.resource_is_up(part) {
            self.failed(part, Operation::Monitor, why, around, now, out);
            self.proceed(around, now, out);
        }
    }

    pub(super) fn failed(
        &mut self,
        part: usize,
        during: Operation,
        why: &str,
        around: &Around<'_>,
        now: Time,
        out: &mut Out,
    ) {
        let name = self.hierarchy.resources[part].name.clone();
        let record =
            Happened::ResourceFailed { resource: name.clone(), during: during.word().to_owned(), why: why.to_owned() };
        if around.directive.maintenance {
            out.record(record);
            if during == Operation::Start {
                self.works.restart(part);
            }
            self.timers.set(LifeTimer::Monitor(part), now + self.hierarchy.resources[part].monitor.every);
            return;
        }
        if self.step(Trigger::Repair) != Step::Repair {
            return;
        }
        out.record(record);
        self.works.mark_failed(part, why, out);
        let reason = format!("{name} failed ({}): {why}", during.word());
        let first_start = self.phase == Phase::Starting && during == Operation::Start;
        if !first_start && self.may_restart(now) {
            self.restarts.push_back(now);
            self.works.restart(part);
            self.disturb(Phase::Restarting, DisturbanceKind::Failed, &reason, now, out);
        } else {
            self.works.restart(part);
            self.exhaust(&reason, around, now, out);
        }
    }

    pub(super) fn may_restart(&mut self, now: Time) -> bool {
        let limit = self.hierarchy.policy.restarts;
        while self.restarts.front().is_some_and(|t| now.since(*t) > limit.within) {
            self.restarts.pop_front();
        }
        (self.restarts.len() as u64) < u64::from(limit.count)
    }

    pub(super) fn exhaust(&mut self, reason: &str, around: &Around<'_>, now: Time, out: &mut Out) {
        self.exhausted = Some(reason.to_owned());
        if self.count_failure(now) {
            let count = self.early;
            let why = format!("failed soon after entering service on {count} tenures in a row; last here: {reason}");
            out.push(Do::Quarantine { why: why.clone() });
            self.give_up(DisturbanceKind::Failed, None, &why, around, now, out);
            return;
        }
        if around.judgement.best_other.is_some() {
            self.give_up_failed(around, now, out);
            return;
        }
        let wait = self.backoff;
        self.backoff = (self.backoff * 2).min(BACKOFF_LAST);
        self.timers.set(LifeTimer::RestartBackoff, now + wait);
        let why = format!(
            "{reason}; no other node in contact can serve it: trying here again in {}",
            humantime::format_duration(wait)
        );
        self.disturb(Phase::Restarting, DisturbanceKind::Failed, &why, now, out);
        self.works.advance_down_for_restart(now, out);
    }

    pub(super) fn stuck(&mut self, around: &Around<'_>, now: Time, out: &mut Out) {
        let after = match &self.phase {
            Phase::Stopping { after } => after.clone(),
            _ => After::Release { heir: None },
        };
        let what = "a resource could neither be stopped nor killed";
        if after == After::Lost {
            // The forced stop's own time decides: the rest is killed meanwhile.
            return;
        }
        if self.declined.is_none() {
            self.decline(what, now, out);
        }
        let policy = self.hierarchy.policy.on_stop_failure;
        let policy = policy.unwrap_or(if around.can_reset { OnStopFailure::Reset } else { OnStopFailure::Hold });
        if self.step(Trigger::Stuck) == Step::Hold {
            self.enter(Phase::StopFailed { after }, what, now, out);
            self.timers.set(LifeTimer::Unstick, now + UNSTICK_AFTER);
        }
        if policy == OnStopFailure::Reset {
            out.push(Do::Reset { why: what.to_owned() });
        }
    }

    /// Lets every operation begin that may, and moves on when all is up or all is down.
    ///
    /// In maintenance nothing begins but what a lost claim demands.
    pub(super) fn proceed(&mut self, around: &Around<'_>, now: Time, out: &mut Out) {
        let forced = matches!(self.phase, Phase::Stopping { after: After::Lost });
        if around.directive.maintenance && !forced {
            if self.works.all_up() && self.step(Trigger::AllUp) == Step::Serve {
                self.serve(around, now, out);
            }
            return;
        }
        match &self.phase {
            Phase::Adopting | Phase::Starting | Phase::Restarting => {
                if self.timers.get(&LifeTimer::RestartBackoff).is_some() {
                    self.works.advance_down_for_restart(now, out);
                    return;
                }
                if self.phase == Phase::Starting && !self.may_start {
                    self.works.advance_down_for_restart(now, out);
                    return;
                }
                self.works.advance_up(now, out);
                if self.works.all_up() && self.step(Trigger::AllUp) == Step::Serve {
                    self.serve(around, now, out);
                }
            }
            Phase::Stopping { after } => {
                let after = after.clone();
                let manner = if after == After::Lost { Manner::ByForce } else { Manner::Orderly };
                self.works.advance_down(manner, now, out);
                let is_down = self.works.all_down() || mutation::is_on(Mutation::ReleaseBeforeStopping);
                if is_down && self.step(Trigger::AllDown) == Step::Release {
                    match after {
                        After::Release { heir } => {
                            // It may have died, or declined, while everything stopped here.
                            let heir = heir.filter(|h| around.judgement.able.contains(h));
                            self.release(heir, now, out);
                        }
                        After::Lost => self.rest("everything is stopped", now, out),
                    }
                }
            }
            Phase::StopFailed { after } => {
                if self.works.all_down() {
                    let after = after.clone();
                    self.enter(Phase::Stopping { after }, "stopped in the end", now, out);
                    self.proceed(around, now, out);
                }
            }
            Phase::Out | Phase::Waiting | Phase::Claiming { .. } | Phase::InService | Phase::Releasing { .. } => {}
        }
    }

    pub(super) fn serve(&mut self, around: &Around<'_>, now: Time, out: &mut Out) {
        let epoch = self.held.map_or(self.known, |h| h.epoch);
        let adopted = self.adopted && self.phase == Phase::Adopting;
        self.disturbance = None;
        self.enter(Phase::InService, "all resources run", now, out);
        out.record(Happened::InService { epoch, adopted });
        self.served_since.get_or_insert(now);
        self.exhausted = None;
        self.timers.set(LifeTimer::Settle, now + self.hierarchy.policy.settle);
        self.consider(around, now, out);
    }
}
