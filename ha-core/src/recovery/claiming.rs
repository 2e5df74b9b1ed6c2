//! The claim in the life of a hierarchy: asking for it, winning, losing and giving it up.
//!
//! Decides when it is asked for again after a refusal, and what a lost claim demands. Leaves to [`super::decide`] whether it is
//! wanted at all.

use std::time::Duration;

use super::life::{After, BACKOFF_FIRST, Life, LifeTimer, Phase, RETRY_FIRST, RETRY_LAST};
use super::table::{Step, Trigger};
use super::{Around, Do, OpId, Out};
use crate::claim::{Held, Holder, Holding, Refusal};
use crate::contact::DisturbanceKind;
use crate::mutation::{self, Mutation};
use crate::name::{Epoch, NodeName};
use crate::record::Happened;
use crate::time::Time;

/// A stranger's claim is looked at again after this.
const RETRY_STRANGER: Duration = Duration::from_secs(30);
/// The claim is asked for again after this if something was heard meanwhile.
const HURRY: Duration = Duration::from_millis(1);
/// A release that failed is tried again after this.
const RELEASE_AGAIN: Duration = Duration::from_secs(1);
/// An heir that has not taken the claim after this is not waited for.
const HEIR_PATIENCE: Duration = Duration::from_secs(10);

impl Life {
    /// Recorded as running under `epoch` by an earlier life of the agent: the claim is proven again before anything else.
    pub(crate) fn recall(&mut self, epoch: Epoch, now: Time, out: &mut Out) {
        self.known = self.known.max(epoch);
        self.recalled = Some((epoch, now));
        self.works.suspect_all();
        out.record(Happened::Recalled { epoch });
        self.ask(now, out);
    }

    pub(super) fn ask(&mut self, now: Time, out: &mut Out) {
        self.timers.cancel(&LifeTimer::Retry);
        self.hurried = false;
        let op = out.next_op();
        out.record(Happened::ClaimAsked);
        out.push(Do::Acquire { op, known: self.known, adopt: self.recalled.map(|(epoch, _)| epoch) });
        self.enter(Phase::Claiming { op }, "asking for the claim", now, out);
    }

    /// Looks who holds the claim, unless that is being done.
    pub(crate) fn inspect(&mut self, out: &mut Out) {
        if self.inspecting.is_none() && !self.holds() && !matches!(self.phase, Phase::Claiming { .. }) {
            let op = out.next_op();
            self.inspecting = Some(op);
            out.push(Do::Inspect { op });
        }
    }

    pub(crate) fn inspected(&mut self, op: OpId, result: Result<Holding, Refusal>, now: Time) {
        if self.inspecting != Some(op) {
            return;
        }
        self.inspecting = None;
        match result {
            Ok(holding) => {
                self.claim_trouble = None;
                self.known = self.known.max(holding.epoch);
                self.remember_failures(holding.failures, now);
                if holding.holder == Some(Holder::Me) && !self.holds() {
                    self.suspect = true;
                }
            }
            // Begun before it was won, and said to nobody any more: whether it can be upheld is what counts.
            Err(_) if self.holds() => {}
            Err(refusal) => {
                self.claim_trouble = Some(refusal.to_string());
                let retry = self.longer_retry();
                self.timers.set(LifeTimer::Retry, now + retry);
            }
        }
    }

    /// The answer to an acquire.
    pub(crate) fn claimed(
        &mut self,
        op: OpId,
        answer: Result<Held, Refusal>,
        around: &Around<'_>,
        now: Time,
        out: &mut Out,
    ) {
        let awaited = self.phase == Phase::Claiming { op };
        match answer {
            Ok(held) if awaited => self.won(held, around, now, out),
            // Late, but leftovers may run: they are adopted or stopped under it before it is given up (S5).
            Ok(held) if self.phase == Phase::Waiting && self.runs() => self.won(held, around, now, out),
            Ok(held) if self.step(Trigger::ClaimWon) == Step::GiveBack => {
                self.known = self.known.max(held.epoch);
                self.held = Some(held);
                self.release(None, now, out);
            }
            Err(_) if awaited && mutation::is_on(Mutation::StartWithoutClaim) => {
                let (epoch, failures) = (self.known.next(), self.early_failures(now));
                self.won(Held { epoch, tenure: crate::claim::Tenure::UntilRevoked, failures }, around, now, out);
            }
            Err(refusal) if awaited && self.step(Trigger::ClaimRefused) == Step::Wait => {
                self.refused(refusal, around, now, out);
            }
            Ok(_) | Err(_) => {}
        }
    }

    pub(super) fn won(&mut self, held: Held, around: &Around<'_>, now: Time, out: &mut Out) {
        self.known = held.epoch;
        self.held = Some(held);
        self.remember_failures(held.failures, now);
        self.suspect = false;
        self.claim_trouble = None;
        self.disturbance = None;
        self.heir = None;
        self.retry = RETRY_FIRST;
        self.served_since = None;
        self.exhausted = None;
        self.counted = false;
        self.backoff = BACKOFF_FIRST;
        self.restarts.clear();
        out.record(Happened::ClaimWon { epoch: held.epoch });
        // Recorded before the first start is asked for: whatever runs is found again after a crash of the agent.
        out.push(Do::Running(Some(held.epoch)));
        match self.recalled.take() {
            Some((epoch, _)) if epoch == held.epoch && !mutation::is_on(Mutation::RestartInsteadOfAdopting) => {
                self.adopted = true;
                self.enter(Phase::Adopting, "the claim stands: finding out what runs", now, out);
                self.works.adopt_all(now, out);
            }
            Some(_) => {
                self.adopted = false;
                self.enter(Phase::Starting, "the claim is a new one: leftovers are stopped first", now, out);
                for i in 0..self.works.parts.len() {
                    self.works.restart(i);
                }
            }
            None => {
                self.adopted = false;
                self.enter(Phase::Starting, "the claim is held", now, out);
            }
        }
        self.proceed(around, now, out);
    }

    pub(super) fn refused(&mut self, refusal: Refusal, around: &Around<'_>, now: Time, out: &mut Out) {
        let holder = if let Refusal::Held { holder, .. } = &refusal { Some(holder.clone()) } else { None };
        out.record(Happened::ClaimRefused { holder, why: refusal.to_string() });
        let hurried = std::mem::take(&mut self.hurried);
        let transient = matches!(refusal, Refusal::Unreachable(_) | Refusal::Unfit(_));
        if let Some((_, since)) = self.recalled {
            // Its storage may take a while to be opened again: on a lease there is time until its end.
            let patience = around.recalled_until.map_or(self.forced_stop_within(around), |end| end.since(since));
            if transient && now.since(since) < patience {
                self.enter(Phase::Waiting, &refusal.to_string(), now, out);
                self.timers.set(LifeTimer::Retry, now + Duration::from_millis(50));
                return;
            }
            self.recalled = None;
            self.suspect = transient;
            self.stop_by_force(&format!("leftovers of a claim that cannot be proven: {refusal}"), around, now, out);
            return;
        }
        if !transient {
            // The storage answered: the claim is somebody else's, or nobody's.
            self.suspect = false;
            self.claim_trouble = None;
        }
        let retry = self.longer_retry();
        let at = match &refusal {
            // What was heard while it was asked for may have come too late for the answer.
            Refusal::Held { .. } if hurried => now + HURRY,
            Refusal::Held { retry_at: Some(at), .. } => (*at).max(now + Duration::from_millis(1)),
            Refusal::Held { retry_at: None, .. } | Refusal::Raced => now + retry,
            Refusal::Stranger(_) => now + RETRY_STRANGER,
            Refusal::Unreachable(why) => {
                // The storage may have carried the request out all the same.
                self.suspect = true;
                self.claim_trouble = Some(why.clone());
                now + retry
            }
            Refusal::Unfit(why) => {
                self.claim_trouble = Some(why.clone());
                now + retry
            }
        };
        if let Refusal::Held { epoch, .. } = &refusal {
            self.known = self.known.max(*epoch);
        }
        let never = mutation::is_on(Mutation::NeverAskAgain).then(|| now + Duration::from_secs(86_400));
        self.enter(Phase::Waiting, &refusal.to_string(), now, out);
        self.timers.set(LifeTimer::Retry, never.unwrap_or(at));
    }

    pub(super) fn longer_retry(&mut self) -> Duration {
        let retry = self.retry;
        self.retry = (self.retry * 2).min(RETRY_LAST);
        retry
    }

    /// Something was heard that may change a refusal: ask again at once. Nothing that is heard mends the claim's storage.
    pub(crate) fn hurry(&mut self) {
        self.hurried |= matches!(self.phase, Phase::Claiming { .. });
        if mutation::is_on(Mutation::NeverAskAgain) {
            return;
        }
        if self.phase == Phase::Waiting && self.recalled.is_none() && self.claim_trouble.is_none() {
            self.timers.cancel(&LifeTimer::Retry);
            self.retry = RETRY_FIRST;
        }
    }

    /// The claim is lost, or its tenure ends before it could be proven again.
    pub(crate) fn claim_lost(&mut self, why: &str, around: &Around<'_>, now: Time, out: &mut Out) {
        match self.step(Trigger::ClaimLost) {
            Step::StopByForce if self.holds() || self.runs() => self.stop_by_force(why, around, now, out),
            Step::Rest => self.rest("the claim is lost", now, out),
            _ => {}
        }
    }

    pub(super) fn stop_by_force(&mut self, why: &str, around: &Around<'_>, now: Time, out: &mut Out) {
        if matches!(self.phase, Phase::Stopping { after: After::Lost }) {
            return;
        }
        out.record(Happened::ClaimLost { why: why.to_owned() });
        self.held = None;
        self.recalled = None;
        // On the storage it may be ours still: it is asked for again once everything is stopped.
        self.suspect = true;
        self.works.abandon_all(out);
        self.works.unstick();
        self.disturb(Phase::Stopping { after: After::Lost }, DisturbanceKind::ClaimLost, why, now, out);
        self.timers.set(LifeTimer::ForcedStop, now + self.forced_stop_within(around));
        self.proceed(around, now, out);
    }

    /// Within how long everything must be stopped by force: never more than a third of a lease.
    pub(crate) fn forced_stop_within(&self, around: &Around<'_>) -> Duration {
        let configured = self.hierarchy.policy.forced_stop_within;
        // Never nothing: what is tried again after it would be tried without end at one moment.
        around.lease_length.map_or(configured, |length| configured.min(length / 3)).max(Duration::from_millis(1))
    }

    pub(super) fn release(&mut self, heir: Option<NodeName>, now: Time, out: &mut Out) {
        let Some(held) = self.held else {
            self.rest("everything is stopped", now, out);
            return;
        };
        let op = out.next_op();
        out.push(Do::Release { op, epoch: held.epoch, heir: heir.clone(), failures: self.early_failures(now) });
        self.enter(Phase::Releasing { op: Some(op), heir }, "everything is stopped: giving the claim up", now, out);
    }

    pub(crate) fn released(&mut self, op: OpId, result: Result<(), Refusal>, now: Time, out: &mut Out) {
        let Phase::Releasing { op: Some(awaited), heir } = &self.phase else { return };
        if *awaited != op {
            return;
        }
        let heir = heir.clone();
        match result {
            Ok(()) if self.step(Trigger::Released) == Step::Rest => {
                out.record(Happened::ClaimReleased { heir: heir.clone() });
                if heir.is_some() {
                    self.timers.set(LifeTimer::HeirGone, now + HEIR_PATIENCE);
                }
                self.heir = heir;
                self.rest("the claim is given up", now, out);
            }
            Err(refusal) if self.step(Trigger::ReleaseFailed) == Step::Release => {
                out.record(Happened::Trouble { what: format!("giving the claim up failed, trying again: {refusal}") });
                self.phase = Phase::Releasing { op: None, heir };
                self.timers.set(LifeTimer::ReleaseAgain, now + RELEASE_AGAIN);
            }
            Ok(()) | Err(_) => {}
        }
    }

    pub(super) fn rest(&mut self, why: &str, now: Time, out: &mut Out) {
        for timer in [LifeTimer::Settle, LifeTimer::ForcedStop, LifeTimer::Failback, LifeTimer::Unstick] {
            self.timers.cancel(&timer);
        }
        if self.claim_trouble.is_none() {
            // Else the timer is what looks at the claim's storage again.
            self.timers.cancel(&LifeTimer::Retry);
        }
        let ran =
            self.held.take().is_some() || !matches!(self.phase, Phase::Out | Phase::Waiting | Phase::Claiming { .. });
        self.served_since = None;
        self.better = None;
        if ran {
            out.push(Do::Running(None));
        }
        self.enter(Phase::Out, why, now, out);
    }
}
