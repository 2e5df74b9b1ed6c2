//! What is due in the life of a hierarchy.
//!
//! Decides what each timer leads to. Leaves setting them to whatever waits for them.

use super::life::{BACKOFF_FIRST, Life, LifeTimer, Phase, RETRY_LAST};
use super::repair::UNSTICK_AFTER;
use super::{Around, Do, Out};
use crate::record::Happened;
use crate::time::Time;

impl Life {
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        [self.timers.next(), self.works.next_overdue()].into_iter().flatten().min()
    }

    /// Carries out what is due. Returns whether mastership should be judged anew.
    pub(crate) fn timers_due(&mut self, around: &Around<'_>, now: Time, out: &mut Out) -> bool {
        let mut judge = false;
        while let Some(timer) = self.timers.pop_due(now) {
            judge |= self.timer_due(timer, around, now, out);
        }
        self.overdue(around, now, out);
        judge
    }

    pub(super) fn timer_due(&mut self, timer: LifeTimer, around: &Around<'_>, now: Time, out: &mut Out) -> bool {
        match timer {
            LifeTimer::Retry => {
                if self.recalled.is_some() && self.phase == Phase::Waiting {
                    self.ask(now, out);
                } else if self.claim_trouble.is_some() {
                    self.inspect(out);
                }
                return true;
            }
            LifeTimer::RestartBackoff => self.proceed(around, now, out),
            LifeTimer::Monitor(part) => {
                if !matches!(self.phase, Phase::Adopting | Phase::Starting | Phase::InService | Phase::Restarting) {
                    return false;
                }
                if around.directive.maintenance {
                    let every = self.hierarchy.resources.get(part).map_or(RETRY_LAST, |r| r.monitor.every);
                    self.timers.set(LifeTimer::Monitor(part), now + every);
                } else if part < self.works.parts.len() {
                    self.works.monitor(part, now, out);
                }
            }
            LifeTimer::Settle if self.phase != Phase::InService => {}
            LifeTimer::Settle => {
                self.early = 0;
                self.counted = false;
                self.backoff = BACKOFF_FIRST;
                return true;
            }
            LifeTimer::DeclineEnd => {
                if self.declined.take().is_some() {
                    out.record(Happened::DeclineEnded);
                    out.push(Do::Lasting);
                }
                return true;
            }
            LifeTimer::ForcedStop => {
                let why = "the claim is lost and not everything could be stopped in time".to_owned();
                if around.can_reset {
                    out.push(Do::Reset { why });
                } else {
                    out.record(Happened::Trouble { what: format!("{why}, and nothing here can reset the node") });
                    self.works.unstick();
                    self.timers.set(LifeTimer::ForcedStop, now + self.forced_stop_within(around));
                    self.proceed(around, now, out);
                }
            }
            LifeTimer::Unstick => {
                if let Phase::StopFailed { after } = &self.phase {
                    let after = after.clone();
                    if !self.works.unstick() {
                        self.timers.set(LifeTimer::Unstick, now + UNSTICK_AFTER);
                        return false;
                    }
                    self.enter(Phase::Stopping { after }, "trying again to stop", now, out);
                    self.proceed(around, now, out);
                }
            }
            LifeTimer::ReleaseAgain => {
                if let Phase::Releasing { op: None, heir } = &self.phase {
                    let heir = heir.clone();
                    self.release(heir, now, out);
                }
            }
            LifeTimer::Failback => return true,
            LifeTimer::HeirGone => {
                self.heir = None;
                return true;
            }
        }
        false
    }
}
