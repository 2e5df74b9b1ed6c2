//! What a hierarchy's life makes of mastership and of the operators' wishes.

use super::life::{After, Decline, Life, LifeTimer, Phase};
use super::table::{Step, Trigger};
use super::{Around, Do, Out};
use crate::contact::DisturbanceKind;
use crate::hierarchy::Failback;
use crate::mastership::{Excluded, Standing};
use crate::name::{NodeName, Utility};
use crate::record::Happened;
use crate::time::Time;

impl Life {
    /// Whether it would ask for its claim now.
    fn wants_claim(&self, around: &Around<'_>) -> bool {
        let ours = match around.judgement.standing {
            Standing::Candidate => true,
            // What may be ours on the storage blocks the others: it is taken, to be served or given back.
            Standing::Behind(_) | Standing::Excluded(_) => self.suspect,
            Standing::Owner => false,
        };
        let trouble = self.claim_trouble.is_some();
        ours && !trouble
            && around.lease_is_good
            && !around.directive.maintenance
            && matches!(self.phase, Phase::Out | Phase::Waiting)
            && self.timers.get(&LifeTimer::Retry).is_none()
    }

    /// Mastership was judged anew, or the operators' wishes changed.
    pub(crate) fn judged(&mut self, around: &Around<'_>, now: Time, out: &mut Out) {
        if self.holds() {
            self.consider(around, now, out);
            // What maintenance held up goes on at its end.
            self.proceed(around, now, out);
        } else if self.wants_claim(around) {
            if self.step(Trigger::Candidate) == Step::Claim {
                self.become_candidate(around, now, out);
            }
        } else if !matches!(around.judgement.standing, Standing::Candidate)
            && self.timers.get(&LifeTimer::Retry).is_none()
            && !self.runs()
            && self.step(Trigger::NotCandidate) == Step::Rest
        {
            self.rest(&around.judgement.standing.to_string(), now, out);
        }
    }

    fn become_candidate(&mut self, around: &Around<'_>, now: Time, out: &mut Out) {
        let why = around.judgement.facts.last().map_or_else(String::new, ToString::to_string);
        let (before, fault) = around.before.clone().map_or((None, None), |(node, heard)| (Some(node), heard));
        if self.phase == Phase::Out {
            out.record(Happened::Candidate { before, fault, why });
        }
        self.ask(now, out);
    }

    /// What the holder of the claim makes of what is wanted.
    pub(super) fn consider(&mut self, around: &Around<'_>, now: Time, out: &mut Out) {
        let directive = around.directive;
        if self.step(Trigger::GiveUp) != Step::Stop {
            return;
        }
        let best = around.judgement.best_other.clone();
        let by = &directive.by;
        if let Some(unfit) = around.judgement.unfit.as_ref().filter(|_| self.has_not_begun()) {
            // Taken because it may have been this node's already, or because things changed while it was asked for.
            let served = !directive.stopped && !directive.maintenance && directive.quarantined.is_none();
            self.give_up(
                DisturbanceKind::HandedOver,
                best.filter(|_| served),
                &format!("won, but not to be served here: {unfit}"),
                around,
                now,
                out,
            );
        } else if directive.maintenance {
            // Hands off.
        } else if directive.stopped {
            self.give_up(DisturbanceKind::Asked, None, &format!("stopped by {by}"), around, now, out);
        } else if let Some(why) = &directive.quarantined {
            self.give_up(DisturbanceKind::Failed, None, &format!("in quarantine: {why}"), around, now, out);
        } else if around.draining {
            self.hand_over(best, "this node is being drained", around, now, out);
        } else if let (Some(why), Some(best)) = (around.standby, best.clone()) {
            self.hand_over(Some(best), &format!("this node is in standby: {why}"), around, now, out);
        } else if let (Some(Excluded::NotListed), Some(best)) = (&around.judgement.unfit, best.clone()) {
            self.hand_over(Some(best), "this node is not one of its nodes any more", around, now, out);
        } else if let Some(pin) = directive.pin.clone().filter(|p| around.judgement.better.as_ref() == Some(p)) {
            self.hand_over(Some(pin), &format!("moved by {by}"), around, now, out);
        } else if self.exhausted.is_some() && best.is_some() {
            self.give_up_failed(around, now, out);
        } else if let (Some(best), true) = (best, around.utility == Utility::NONE) {
            self.hand_over(Some(best), "the utility of this node is 0, and another can serve", around, now, out);
        } else {
            self.consider_failback(around, now, out);
        }
    }

    fn consider_failback(&mut self, around: &Around<'_>, now: Time, out: &mut Out) {
        let Failback::Auto { after } = self.hierarchy.policy.failback else { return };
        let Some(better) = around.judgement.better.clone().filter(|_| self.phase == Phase::InService) else {
            self.better = None;
            self.timers.cancel(&LifeTimer::Failback);
            return;
        };
        match &self.better {
            Some((node, since)) if *node == better => {
                if now.since(*since) >= after {
                    let why = "failback: it ranks higher and has been eligible for long enough";
                    self.hand_over(Some(better), why, around, now, out);
                } else {
                    self.timers.set(LifeTimer::Failback, *since + after);
                }
            }
            _ => {
                self.better = Some((better, now));
                self.timers.set(LifeTimer::Failback, now + after);
            }
        }
    }

    fn hand_over(&mut self, heir: Option<NodeName>, why: &str, around: &Around<'_>, now: Time, out: &mut Out) {
        if let Some(to) = &heir {
            out.record(Happened::Switchover { to: to.clone(), why: why.to_owned() });
        }
        self.give_up(DisturbanceKind::HandedOver, heir, why, around, now, out);
    }

    /// Failed here for good: another node is to try.
    pub(super) fn give_up_failed(&mut self, around: &Around<'_>, now: Time, out: &mut Out) {
        let why = self.exhausted.take().unwrap_or_default();
        let heir = around.judgement.best_other.clone();
        self.decline(&why, now, out);
        self.give_up(DisturbanceKind::Failed, heir, &why, around, now, out);
    }

    /// Counts the failure of this tenure, once, and says whether it means that no node can serve the hierarchy.
    ///
    /// A tenure is counted whether another node can try next or not: on the last of three nodes the third failure in a row
    /// says as much as on the third of five.
    pub(super) fn count_failure(&mut self, now: Time) -> bool {
        let quarantine = self.hierarchy.policy.quarantine;
        let settle = self.hierarchy.policy.settle;
        if self.served_since.is_some_and(|since| now.since(since) >= settle) {
            self.early = 0;
            return false;
        }
        if std::mem::replace(&mut self.counted, true) {
            return false;
        }
        if self.early == 0 || now.since(self.early_first) > quarantine.within {
            self.early = 0;
            self.early_first = now;
        }
        self.early = self.early.saturating_add(1);
        u32::from(self.early) >= quarantine.count
    }

    pub(super) fn decline(&mut self, why: &str, now: Time, out: &mut Out) {
        let lasts = self.hierarchy.policy.decline_for;
        let why: String = why.chars().take(150).collect();
        out.record(Happened::Declined { why: why.clone(), lasts: Some(lasts) });
        self.declined = Some(Decline { why, until: now + lasts, lasts });
        self.timers.set(LifeTimer::DeclineEnd, now + lasts);
        out.push(Do::Lasting);
    }

    /// An operator cleared it: declines and counts are forgotten, nothing that runs is touched.
    pub(crate) fn clear(&mut self, now: Time, out: &mut Out) {
        self.early = 0;
        self.restarts.clear();
        self.exhausted = None;
        self.timers.cancel(&LifeTimer::DeclineEnd);
        if self.declined.take().is_some() {
            out.record(Happened::DeclineEnded);
            out.push(Do::Lasting);
        }
        if matches!(self.phase, Phase::StopFailed { .. }) {
            self.timers.set(LifeTimer::Unstick, now);
        }
        if self.timers.get(&LifeTimer::RestartBackoff).is_some() {
            self.timers.set(LifeTimer::RestartBackoff, now);
        }
        self.hurry();
    }

    pub(super) fn give_up(
        &mut self,
        kind: DisturbanceKind,
        heir: Option<NodeName>,
        why: &str,
        around: &Around<'_>,
        now: Time,
        out: &mut Out,
    ) {
        self.timers.cancel(&LifeTimer::RestartBackoff);
        self.timers.cancel(&LifeTimer::Settle);
        self.works.unstick();
        self.disturb(Phase::Stopping { after: After::Release { heir } }, kind, why, now, out);
        self.proceed(around, now, out);
    }
}
