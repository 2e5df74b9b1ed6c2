//! The state of one hierarchy on one node.
//!
//! Decides what is kept, and what of it others are told. Leaves what happens to it to the files beside this one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::table::{self, Kind, Step, Trigger};
use super::works::{State, Works};
use super::{Around, OpId, Out};
use crate::claim::{EarlyFailures, Held};
use crate::contact::{AnnouncedPhase, Disturbance, DisturbanceKind};
use crate::hierarchy::Hierarchy;
use crate::name::{Epoch, NodeName, ResourceName};
use crate::record::Happened;
use crate::time::{Time, Timers};

/// After a refusal the claim is asked for again within this, at first.
pub(super) const RETRY_FIRST: Duration = Duration::from_millis(250);
/// And within this, at last.
pub(super) const RETRY_LAST: Duration = Duration::from_secs(10);
/// Local restarts beyond the limit, when no other node can serve, wait so long at first, doubling.
pub(super) const BACKOFF_FIRST: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum After {
    Release { heir: Option<NodeName> },
    Lost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Decline {
    pub(crate) why: String,
    pub(crate) until: Time,
    /// From the failure to `until`.
    pub(crate) lasts: Duration,
}

/// One hierarchy on one node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Life {
    pub(crate) hierarchy: Arc<Hierarchy>,
    pub(crate) phase: Phase,
    pub(crate) since: Time,
    pub(crate) detail: Option<String>,
    /// Why it is not in service here any more, since it last was. Nothing is decided by it.
    pub(crate) disturbance: Option<Disturbance>,
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
    pub(super) retry: Duration,
    /// Something that may change the answer was heard while the claim is asked for.
    pub(super) hurried: bool,
    /// The claim may be ours on the storage although nothing runs under it: a question was never answered.
    pub(crate) suspect: bool,
    /// The claim's storage does not answer: why.
    pub(crate) claim_trouble: Option<String>,
    /// Recorded as running by an earlier life of the agent, and not proven yet.
    pub(super) recalled: Option<(Epoch, Time)>,
    pub(super) adopted: bool,
    /// There is room for one more recovery on this node: the resources may start.
    pub(crate) may_start: bool,
    pub(super) inspecting: Option<OpId>,
    /// The phase is another one than when mastership was last judged.
    pub(super) turned: bool,
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
            disturbance: None,
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
            hurried: false,
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

    /// Left running by an earlier life of the agent, and not proven by this one.
    pub(crate) fn is_recalled(&self) -> bool {
        self.recalled.is_some()
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

    /// Enters a phase because something disturbs what is, or is about to be, in service. What disturbed it first is kept, unless the claim
    /// went after it: that explains more.
    pub(super) fn disturb(&mut self, phase: Phase, kind: DisturbanceKind, why: &str, now: Time, out: &mut Out) {
        let explains_more = kind == DisturbanceKind::ClaimLost;
        if self.disturbance.as_ref().is_none_or(|known| explains_more && known.kind == DisturbanceKind::Failed) {
            let why = why.chars().take(150).collect();
            self.disturbance = Some(Disturbance { kind, why, told_after_ms: 0 });
        }
        self.enter(phase, why, now, out);
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
            let kind = self.disturbance.as_ref().map(|disturbance| disturbance.kind);
            out.record(Happened::Phase { phase: self.announced_phase(), why: why.to_owned(), disturbance: kind });
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
            self.disturb(Phase::Restarting, DisturbanceKind::Asked, "restarting what was redefined", now, out);
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
