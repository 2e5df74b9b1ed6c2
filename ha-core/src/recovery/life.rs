//! The state of one hierarchy on one node, and how it takes in what happened.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::table::{self, Kind, Step, Trigger};
use super::works::{Manner, Meaning, Operation, Outcome, State, Works};
use super::{Around, Do, OpId, Out};
use crate::claim::{EarlyFailures, Held, Holder, Holding, Refusal};
use crate::contact::AnnouncedPhase;
use crate::hierarchy::{Hierarchy, OnStopFailure};
use crate::name::{Epoch, NodeName, ResourceName};
use crate::record::Happened;
use crate::time::{Time, Timers};

/// After a refusal the claim is asked for again within this, at first.
const RETRY_FIRST: Duration = Duration::from_millis(250);
/// And within this, at last.
const RETRY_LAST: Duration = Duration::from_secs(10);
/// A stranger's claim is looked at again after this.
const RETRY_STRANGER: Duration = Duration::from_secs(30);
/// Local restarts beyond the limit, when no other node can serve, wait so long at first, doubling.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// And so long at last.
const BACKOFF_LAST: Duration = Duration::from_secs(60);
/// What could not be stopped is tried again after this.
const UNSTICK_AFTER: Duration = Duration::from_secs(30);
/// A release that failed is tried again after this.
const RELEASE_AGAIN: Duration = Duration::from_secs(1);
/// An heir that has not taken the claim after this is not waited for.
const HEIR_PATIENCE: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Out,
    Waiting,
    Claiming { op: OpId },
    Adopting,
    Starting,
    InService,
    Restarting,
    Stopping { after: After },
    Releasing { op: Option<OpId>, heir: Option<NodeName> },
    StopFailed { after: After },
}

/// What follows when everything is stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum After {
    Release { heir: Option<NodeName> },
    Lost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LifeTimer {
    Retry,
    RestartBackoff,
    Monitor(usize),
    Settle,
    DeclineEnd,
    ForcedStop,
    Unstick,
    ReleaseAgain,
    Failback,
    HeirGone,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decline {
    pub(crate) why: String,
    pub(crate) until: Time,
    /// From the failure to `until`.
    pub(crate) lasts: Duration,
}

/// One hierarchy on one node.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    pub(crate) hierarchy: Arc<Hierarchy>,
    pub(crate) phase: Phase,
    pub(crate) since: Time,
    pub(crate) detail: Option<String>,
    pub(super) works: Works,
    pub(crate) known: Epoch,
    pub(crate) held: Option<Held>,
    pub(crate) declined: Option<Decline>,
    pub(super) early: u8,
    pub(super) early_first: Time,
    /// The failure of this tenure is counted.
    pub(super) counted: bool,
    pub(super) restarts: VecDeque<Time>,
    pub(super) backoff: Duration,
    /// Local recovery has used up its limit: why. Another node takes over as soon as one can.
    pub(super) exhausted: Option<String>,
    pub(super) served_since: Option<Time>,
    pub(crate) heir: Option<NodeName>,
    pub(super) better: Option<(NodeName, Time)>,
    retry: Duration,
    /// The claim may be ours on the storage although nothing runs under it: a question was never answered.
    pub(crate) suspect: bool,
    /// The claim's storage does not answer: why.
    pub(crate) claim_trouble: Option<String>,
    /// Recorded as running by an earlier life of the agent, and not proven yet.
    recalled: Option<(Epoch, Time)>,
    adopted: bool,
    /// There is room for one more recovery on this node: the resources may start.
    pub(crate) may_start: bool,
    inspecting: Option<OpId>,
    /// The phase is another one than when mastership was last judged.
    turned: bool,
    pub(crate) timers: Timers<LifeTimer>,
}

impl Life {
    pub(crate) fn new(hierarchy: Arc<Hierarchy>, now: Time) -> Self {
        Life {
            works: Works::new(hierarchy.clone(), now),
            hierarchy,
            phase: Phase::Out,
            since: now,
            detail: None,
            known: Epoch::ZERO,
            held: None,
            declined: None,
            early: 0,
            early_first: now,
            counted: false,
            restarts: VecDeque::new(),
            backoff: BACKOFF_FIRST,
            exhausted: None,
            served_since: None,
            heir: None,
            better: None,
            retry: RETRY_FIRST,
            suspect: false,
            claim_trouble: None,
            recalled: None,
            adopted: false,
            may_start: false,
            inspecting: None,
            turned: false,
            timers: Timers::default(),
        }
    }

    pub(crate) fn holds(&self) -> bool {
        self.held.is_some()
    }

    /// Whether anything of it may run on this node.
    pub(crate) fn runs(&self) -> bool {
        !self.works.all_down()
    }

    /// Whether it counts towards the limit of simultaneous recoveries, or waits for room.
    pub(crate) fn recovering(&self) -> bool {
        self.phase == Phase::Starting
    }

    pub(crate) fn is_claiming(&self) -> bool {
        matches!(self.phase, Phase::Claiming { .. } | Phase::Releasing { .. })
    }

    /// The claim is held and nothing was done under it yet.
    pub(super) fn has_not_begun(&self) -> bool {
        self.phase == Phase::Starting && !self.may_start && !self.runs()
    }

    /// There is room on this node: the resources may start.
    pub(crate) fn let_start(&mut self, around: &Around<'_>, now: Time, out: &mut Out) {
        self.may_start = true;
        self.proceed(around, now, out);
    }

    pub(crate) fn resource_states(&self) -> impl Iterator<Item = (&'static str, Option<&str>)> {
        self.works.parts.iter().map(|p| (p.state.word(), p.trouble.as_deref()))
    }

    pub(crate) fn resource_is_up(&self, i: usize) -> bool {
        self.works.parts.get(i).is_some_and(|p| p.state == State::Up)
    }

    pub(crate) fn announced_phase(&self) -> AnnouncedPhase {
        match &self.phase {
            Phase::Out => AnnouncedPhase::Out,
            Phase::Waiting => AnnouncedPhase::Waiting,
            // Leftovers may run: others should see it as ours.
            Phase::Claiming { .. } if self.recalled.is_some() => AnnouncedPhase::Restarting,
            Phase::Claiming { .. } => AnnouncedPhase::Claiming,
            Phase::Starting => AnnouncedPhase::Starting,
            Phase::InService => AnnouncedPhase::InService,
            Phase::Adopting | Phase::Restarting => AnnouncedPhase::Restarting,
            Phase::Stopping { .. } | Phase::Releasing { .. } => AnnouncedPhase::Stopping,
            Phase::StopFailed { .. } => AnnouncedPhase::StopFailed,
        }
    }

    pub(super) fn kind(&self) -> Kind {
        match self.phase {
            Phase::Out => Kind::Out,
            Phase::Waiting => Kind::Waiting,
            Phase::Claiming { .. } => Kind::Claiming,
            Phase::Adopting => Kind::Adopting,
            Phase::Starting => Kind::Starting,
            Phase::InService => Kind::InService,
            Phase::Restarting => Kind::Restarting,
            Phase::Stopping { .. } => Kind::Stopping,
            Phase::Releasing { .. } => Kind::Releasing,
            Phase::StopFailed { .. } => Kind::StopFailed,
        }
    }

    pub(super) fn step(&self, trigger: Trigger) -> Step {
        table::step(self.kind(), trigger)
    }

    pub(super) fn enter(&mut self, phase: Phase, why: &str, now: Time, out: &mut Out) {
        let before = self.announced_phase();
        let kind = self.kind();
        self.may_start &= phase == Phase::Starting;
        self.phase = phase;
        self.detail = Some(why.to_owned());
        self.turned |= self.kind() != kind;
        if self.announced_phase() != before {
            self.since = now;
            out.record(Happened::Phase { phase: self.announced_phase(), why: why.to_owned() });
        }
    }

    /// Whether the phase changed since this was last asked: mastership is to be judged anew.
    pub(crate) fn take_turned(&mut self) -> bool {
        std::mem::take(&mut self.turned)
    }

    /// As it is announced: does not change as time goes by.
    pub(crate) fn early_told(&self) -> EarlyFailures {
        EarlyFailures { count: self.early, first_ms_ago: 0 }
    }

    pub(crate) fn early_failures(&self, now: Time) -> EarlyFailures {
        let ago = if self.early == 0 { Duration::ZERO } else { now.since(self.early_first) };
        EarlyFailures { count: self.early, first_ms_ago: u32::try_from(ago.as_millis()).unwrap_or(u32::MAX) }
    }

    /// Takes over what a claim or a peer remembers of early failures, if it is more.
    pub(crate) fn remember_failures(&mut self, told: EarlyFailures, now: Time) {
        let within = self.hierarchy.policy.quarantine.within;
        let ago = Duration::from_millis(u64::from(told.first_ms_ago));
        if told.count > self.early && ago <= within {
            self.early = told.count;
            self.early_first = now - ago;
        }
    }

    /// Takes over what the node that has it in service says of early failures: it knows.
    pub(crate) fn agree_on_failures(&mut self, told: EarlyFailures, now: Time) {
        self.early = told.count;
        self.early_first = now - Duration::from_millis(u64::from(told.first_ms_ago));
    }

    // --- The claim -----------------------------------------------------------------------------------------------------------

    /// Recorded as running under `epoch` by an earlier life of the agent: the claim is proven again before anything else.
    pub(crate) fn recall(&mut self, epoch: Epoch, now: Time, out: &mut Out) {
        self.known = self.known.max(epoch);
        self.recalled = Some((epoch, now));
        self.works.suspect_all();
        let why = format!("found recorded as running under epoch {epoch} by this agent's earlier life");
        out.record(Happened::Candidate { before: None, fault: None, why });
        self.ask(now, out);
    }

    pub(super) fn ask(&mut self, now: Time, out: &mut Out) {
        self.timers.cancel(&LifeTimer::Retry);
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
            Err(refusal) if awaited && self.step(Trigger::ClaimRefused) == Step::Wait => {
                self.refused(refusal, around, now, out);
            }
            Ok(_) | Err(_) => {}
        }
    }

    fn won(&mut self, held: Held, around: &Around<'_>, now: Time, out: &mut Out) {
        self.known = held.epoch;
        self.held = Some(held);
        self.remember_failures(held.failures, now);
        self.suspect = false;
        self.claim_trouble = None;
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
            Some((epoch, _)) if epoch == held.epoch => {
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

    fn refused(&mut self, refusal: Refusal, around: &Around<'_>, now: Time, out: &mut Out) {
        out.record(Happened::ClaimRefused { why: refusal.to_string() });
        let transient = matches!(refusal, Refusal::Unreachable(_) | Refusal::Unfit(_));
        if let Some((_, since)) = self.recalled {
            let patience = self.forced_stop_within(around);
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
        self.enter(Phase::Waiting, &refusal.to_string(), now, out);
        self.timers.set(LifeTimer::Retry, at);
    }

    fn longer_retry(&mut self) -> Duration {
        let retry = self.retry;
        self.retry = (self.retry * 2).min(RETRY_LAST);
        retry
    }

    /// Something was heard that may change a refusal: ask again at once. Nothing that is heard mends the claim's storage.
    pub(crate) fn hurry(&mut self) {
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

    fn stop_by_force(&mut self, why: &str, around: &Around<'_>, now: Time, out: &mut Out) {
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
        self.enter(Phase::Stopping { after: After::Lost }, why, now, out);
        self.timers.set(LifeTimer::ForcedStop, now + self.forced_stop_within(around));
        self.proceed(around, now, out);
    }

    /// Within how long everything must be stopped by force: never more than a third of a lease.
    pub(crate) fn forced_stop_within(&self, around: &Around<'_>) -> Duration {
        let configured = self.hierarchy.policy.forced_stop_within;
        around.lease_length.map_or(configured, |length| configured.min(length / 3))
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

    // --- The resources -------------------------------------------------------------------------------------------------------

    /// An operation ended.
    pub(crate) fn operated(&mut self, op: OpId, outcome: &Outcome, around: &Around<'_>, now: Time, out: &mut Out) {
        match self.works.ended(op, outcome, around.pressure, now, out) {
            Meaning::Stale => return,
            Meaning::Fine => {}
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

    fn failed(&mut self, part: usize, during: Operation, why: &str, around: &Around<'_>, now: Time, out: &mut Out) {
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
            self.enter(Phase::Restarting, &reason, now, out);
        } else {
            self.works.restart(part);
            self.exhaust(&reason, around, now, out);
        }
    }

    fn may_restart(&mut self, now: Time) -> bool {
        let limit = self.hierarchy.policy.restarts;
        while self.restarts.front().is_some_and(|t| now.since(*t) > limit.within) {
            self.restarts.pop_front();
        }
        (self.restarts.len() as u64) < u64::from(limit.count)
    }

    fn exhaust(&mut self, reason: &str, around: &Around<'_>, now: Time, out: &mut Out) {
        self.exhausted = Some(reason.to_owned());
        if self.count_failure(now) {
            let count = self.early;
            let why = format!("failed soon after entering service on {count} tenures in a row; last here: {reason}");
            out.push(Do::Quarantine { why: why.clone() });
            self.give_up(None, &why, around, now, out);
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
        self.enter(Phase::Restarting, &why, now, out);
        self.works.advance_down_for_restart(now, out);
    }

    fn stuck(&mut self, around: &Around<'_>, now: Time, out: &mut Out) {
        let after = match &self.phase {
            Phase::Stopping { after } => after.clone(),
            _ => After::Release { heir: None },
        };
        let what = "a resource could neither be stopped nor killed";
        if after == After::Lost {
            // The forced stop's own time decides: the rest is killed meanwhile.
            return;
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
                if self.works.all_down() && self.step(Trigger::AllDown) == Step::Release {
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

    fn serve(&mut self, around: &Around<'_>, now: Time, out: &mut Out) {
        let epoch = self.held.map_or(self.known, |h| h.epoch);
        let adopted = self.adopted && self.phase == Phase::Adopting;
        self.enter(Phase::InService, "all resources run", now, out);
        out.record(Happened::InService { epoch, adopted });
        self.served_since.get_or_insert(now);
        self.exhausted = None;
        self.timers.set(LifeTimer::Settle, now + self.hierarchy.policy.settle);
        self.consider(around, now, out);
    }

    // --- Timers --------------------------------------------------------------------------------------------------------------

    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.timers.next()
    }

    /// Carries out what is due. Returns whether mastership should be judged anew.
    pub(crate) fn timers_due(&mut self, around: &Around<'_>, now: Time, out: &mut Out) -> bool {
        let mut judge = false;
        while let Some(timer) = self.timers.pop_due(now) {
            judge |= self.timer_due(timer, around, now, out);
        }
        judge
    }

    fn timer_due(&mut self, timer: LifeTimer, around: &Around<'_>, now: Time, out: &mut Out) -> bool {
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
                    self.works.unstick();
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

    /// Takes over a definition whose changes touch nothing that runs.
    pub(crate) fn redefine(&mut self, hierarchy: Arc<Hierarchy>, now: Time) {
        self.works.redefine(hierarchy.clone(), now);
        self.hierarchy = hierarchy;
        // The intervals may be others, and the positions.
        for (part, spec) in self.hierarchy.resources.iter().enumerate() {
            self.timers.set(LifeTimer::Monitor(part), now + spec.monitor.every);
        }
    }

    /// Restarts resources whose definition changed, if anything of the hierarchy runs here.
    pub(crate) fn restart(&mut self, names: &[ResourceName], around: &Around<'_>, now: Time, out: &mut Out) {
        if self.step(Trigger::Repair) != Step::Repair {
            return;
        }
        for (i, spec) in self.hierarchy.resources.iter().enumerate() {
            if names.contains(&spec.name) {
                self.works.restart(i);
            }
        }
        if !names.is_empty() {
            self.enter(Phase::Restarting, "restarting what was redefined", now, out);
        }
        self.proceed(around, now, out);
    }

    /// Everything up is monitored at once: after a gap in time, or at the end of maintenance.
    pub(crate) fn monitor_all(&mut self, now: Time, out: &mut Out) {
        for i in 0..self.works.parts.len() {
            self.works.monitor(i, now, out);
        }
    }
}
