//! What goes into the engine, and what comes out.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::command::{Command, Refused, Reply};
use crate::claim::{Acquire, EarlyFailures, Held, Holding, LeaseNews, Loss, Refusal, Storage, Tenure};
use crate::contact::{Directive, Message, Transmit};
use crate::name::{ChannelName, Epoch, HierarchyName, Incarnation, NodeName, ResourceName, Utility};
use crate::record::{Event, FencingNews};
use crate::recovery::{OpId, Operation, Outcome, Pressure};
use crate::time::Time;

/// Names a command until it is answered; chosen by the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CommandId(pub u64);

/// Something that happened outside the engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input {
    /// A message arrived whose seal was good.
    Received {
        /// The channel.
        channel: ChannelName,
        /// Its sender.
        from: NodeName,
        /// The life of the sender.
        incarnation: Incarnation,
        /// What it says.
        message: Message,
    },
    /// An answer to [`Effect::Acquire`].
    Acquired {
        /// The hierarchy.
        hierarchy: HierarchyName,
        /// Which question.
        op: OpId,
        /// The answer.
        answer: Result<Held, Refusal>,
    },
    /// An answer to [`Effect::Inspect`].
    Inspected {
        /// The hierarchy.
        hierarchy: HierarchyName,
        /// Which question.
        op: OpId,
        /// The answer.
        answer: Result<Holding, Refusal>,
    },
    /// An answer to [`Effect::Uphold`].
    Upheld {
        /// The hierarchy.
        hierarchy: HierarchyName,
        /// Which question.
        op: OpId,
        /// The answer.
        answer: Result<Tenure, Loss>,
    },
    /// An answer to [`Effect::Release`].
    Released {
        /// The hierarchy.
        hierarchy: HierarchyName,
        /// Which question.
        op: OpId,
        /// The answer.
        answer: Result<(), Refusal>,
    },
    /// An operation on a resource ended, or its time did.
    Operated {
        /// The hierarchy.
        hierarchy: HierarchyName,
        /// Which operation.
        op: OpId,
        /// How.
        outcome: Outcome,
    },
    /// The watch on a running resource says that it failed.
    WatchFired {
        /// The hierarchy.
        hierarchy: HierarchyName,
        /// The resource.
        resource: ResourceName,
        /// Why.
        why: String,
    },
    /// The probes of a hierarchy were measured.
    Measured {
        /// The hierarchy.
        hierarchy: HierarchyName,
        /// Together.
        utility: Utility,
        /// What was seen.
        facts: String,
    },
    /// What this node lacks to serve a hierarchy was looked for.
    Readiness {
        /// The hierarchy.
        hierarchy: HierarchyName,
        /// What, if anything.
        lacking: Option<String>,
    },
    /// Something is new on a shared lease.
    Lease {
        /// Its name.
        lease: String,
        /// What.
        news: LeaseNews,
    },
    /// An operator asks.
    Command {
        /// To be given back with the answer.
        id: CommandId,
        /// The node that is to do it; this one, or whichever it concerns, if not given.
        to: Option<NodeName>,
        /// What.
        command: Command,
    },
    /// How busy the machine is now.
    Pressure(Pressure),
    /// Something is wrong, or not any more, with a part of the driver.
    Trouble {
        /// The part: one trouble is kept for each.
        part: String,
        /// What, if anything.
        trouble: Option<String>,
    },
    /// A claim found by itself that it is lost ([`crate::Claim::lost`]). New inputs go last: recordings know them by their place.
    ClaimLost {
        /// The hierarchy.
        hierarchy: HierarchyName,
        /// The tenure that was lost.
        epoch: Epoch,
        /// How.
        loss: Loss,
    },
    /// What storage a claim lives on was found out ([`crate::Claim::stands_on`]).
    StandsOn {
        /// The hierarchy.
        hierarchy: HierarchyName,
        /// Which.
        storage: Vec<Storage>,
    },
    /// Another node is being fenced, or was. Must come when its fencing began, too, and be true: see [`crate::record::FencingNews::Proven`].
    Fencing {
        /// The other node.
        node: NodeName,
        /// What.
        news: FencingNews,
    },
}

/// Something to be done outside the engine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Effect {
    /// Seal and send on every channel that leads there.
    Send(Transmit),
    /// Ask for a claim.
    Acquire {
        /// The hierarchy.
        hierarchy: HierarchyName,
        /// To be given back with the answer.
        op: OpId,
        /// How.
        request: Acquire,
    },
    /// Look who holds a claim.
    Inspect {
        /// The hierarchy.
        hierarchy: HierarchyName,
        /// To be given back with the answer.
        op: OpId,
    },
    /// Prove a claim anew.
    Uphold {
        /// The hierarchy.
        hierarchy: HierarchyName,
        /// To be given back with the answer.
        op: OpId,
        /// The tenure.
        epoch: Epoch,
    },
    /// Give a claim up.
    Release {
        /// The hierarchy.
        hierarchy: HierarchyName,
        /// To be given back with the answer.
        op: OpId,
        /// The tenure.
        epoch: Epoch,
        /// To whom.
        heir: Option<NodeName>,
        /// What the claim should remember.
        failures: EarlyFailures,
    },
    /// Run an operation on a resource.
    Operate {
        /// The hierarchy.
        hierarchy: HierarchyName,
        /// The resource.
        resource: ResourceName,
        /// To be given back with the outcome.
        op: OpId,
        /// Which.
        operation: Operation,
        /// The tenure under which it runs.
        epoch: Epoch,
        /// Within which.
        timeout: Duration,
    },
    /// Drop an operation: its outcome is not waited for any more.
    Cancel {
        /// Which.
        op: OpId,
    },
    /// Watch a resource that runs now.
    Watch {
        /// The hierarchy.
        hierarchy: HierarchyName,
        /// The resource.
        resource: ResourceName,
        /// The tenure under which it runs.
        epoch: Epoch,
    },
    /// End a watch.
    Unwatch {
        /// The hierarchy.
        hierarchy: HierarchyName,
        /// The resource.
        resource: ResourceName,
    },
    /// Remember, until the next boot, what runs here: to be done before any later effect.
    RememberRunning {
        /// The hierarchy.
        hierarchy: HierarchyName,
        /// The tenure; `None` when nothing of it runs any more.
        epoch: Option<Epoch>,
    },
    /// Remember, until the next boot, to when a tenure is proven. If it is not done, what runs is stopped sooner than it need be after a
    /// restart of the agent; nothing else.
    RememberTenure {
        /// Whose.
        of: TenureOf,
        /// On this boot's clock.
        until: Time,
    },
    /// Remember beyond the next boot.
    RememberLasting {
        /// The hierarchy.
        hierarchy: HierarchyName,
        /// What.
        lasting: Lasting,
    },
    /// Remember beyond the next boot whether the node is in standby.
    RememberStandby(Option<String>),
    /// Reset the node.
    Reset {
        /// Why.
        why: String,
    },
    /// Switch another node off, prove that it is off, and tell what comes of it ([`Input::Fencing`]).
    Fence {
        /// Which.
        node: NodeName,
        /// Why.
        why: String,
    },
    /// Tell what happened.
    Tell(Event),
    /// Answer a command.
    Answer {
        /// Which.
        id: CommandId,
        /// The answer.
        result: Result<Reply, Refused>,
    },
    /// Seal as a later life of this node from now on.
    Reincarnate(Incarnation),
    /// Nothing is served here any more and goodbye is said: the agent may end.
    Drained,
}

impl Effect {
    /// The hierarchy that it is about, if it is about one.
    pub fn hierarchy(&self) -> Option<&HierarchyName> {
        match self {
            Effect::Acquire { hierarchy, .. }
            | Effect::Inspect { hierarchy, .. }
            | Effect::Uphold { hierarchy, .. }
            | Effect::Release { hierarchy, .. }
            | Effect::Operate { hierarchy, .. }
            | Effect::Watch { hierarchy, .. }
            | Effect::Unwatch { hierarchy, .. }
            | Effect::RememberRunning { hierarchy, .. }
            | Effect::RememberTenure { of: TenureOf::Hierarchy(hierarchy), .. }
            | Effect::RememberLasting { hierarchy, .. } => Some(hierarchy),
            Effect::Tell(event) => event.hierarchy.as_ref(),
            Effect::Send(_)
            | Effect::Cancel { .. }
            | Effect::RememberTenure { of: TenureOf::Lease(_), .. }
            | Effect::RememberStandby(_)
            | Effect::Reset { .. }
            | Effect::Fence { .. }
            | Effect::Answer { .. }
            | Effect::Reincarnate(_)
            | Effect::Drained => None,
        }
    }

    /// What is done all the time, whatever happens: beats and whatever else is sent, renewals, monitors.
    pub fn is_routine(&self) -> bool {
        matches!(
            self,
            Effect::Send(_)
                | Effect::Uphold { .. }
                | Effect::Inspect { .. }
                | Effect::RememberTenure { .. }
                | Effect::Operate { operation: Operation::Monitor, .. }
        )
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Effect::Send(transmit) => write!(f, "send to {}", transmit.to),
            Effect::Acquire { hierarchy, request, .. } => match request.adopt {
                Some(epoch) => write!(f, "confirm claim of {hierarchy} under epoch {epoch}"),
                None => write!(f, "acquire claim of {hierarchy}"),
            },
            Effect::Inspect { hierarchy, .. } => write!(f, "inspect claim of {hierarchy}"),
            Effect::Uphold { hierarchy, epoch, .. } => write!(f, "uphold claim of {hierarchy}, epoch {epoch}"),
            Effect::Release { hierarchy, epoch, heir: Some(heir), .. } => {
                write!(f, "hand claim of {hierarchy}, epoch {epoch}, to {heir}")
            }
            Effect::Release { hierarchy, epoch, heir: None, .. } => {
                write!(f, "release claim of {hierarchy}, epoch {epoch}")
            }
            Effect::Operate { hierarchy, resource, operation, .. } => {
                write!(f, "{} {hierarchy}/{resource}", operation.word())
            }
            Effect::Cancel { op } => write!(f, "drop operation {}", op.0),
            Effect::Watch { hierarchy, resource, .. } => write!(f, "watch {hierarchy}/{resource}"),
            Effect::Unwatch { hierarchy, resource } => write!(f, "unwatch {hierarchy}/{resource}"),
            Effect::RememberRunning { hierarchy, epoch: Some(epoch) } => {
                write!(f, "remember that {hierarchy} runs under epoch {epoch}")
            }
            Effect::RememberRunning { hierarchy, epoch: None } => write!(f, "remember that {hierarchy} does not run"),
            Effect::RememberTenure { of, until } => write!(f, "remember that {of} is good until {until}"),
            Effect::RememberLasting { hierarchy, .. } => write!(f, "remember what is wanted of {hierarchy}"),
            Effect::RememberStandby(Some(why)) => write!(f, "remember standby: {why}"),
            Effect::RememberStandby(None) => f.write_str("remember not to be in standby"),
            Effect::Reset { why } => write!(f, "reset the node: {why}"),
            Effect::Fence { node, why } => write!(f, "fence {node}: {why}"),
            Effect::Tell(event) => write!(f, "tell: {event}"),
            Effect::Answer { id, .. } => write!(f, "answer command {}", id.0),
            Effect::Reincarnate(incarnation) => write!(f, "seal as incarnation {incarnation}"),
            Effect::Drained => f.write_str("drained"),
        }
    }
}

/// Whose tenure.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TenureOf {
    /// Everything that is held on a shared lease.
    Lease(String),
    /// A hierarchy whose claim is a lease of its own.
    Hierarchy(HierarchyName),
}

impl fmt::Display for TenureOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TenureOf::Lease(lease) => write!(f, "lease {lease}"),
            TenureOf::Hierarchy(hierarchy) => write!(f, "the claim of {hierarchy}"),
        }
    }
}

/// What outlives a boot for one hierarchy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lasting {
    /// The greatest epoch known.
    #[serde(default)]
    pub epoch: Epoch,
    /// Why this node declines it, if it does, and for how many milliseconds from now.
    #[serde(default)]
    pub declined: Option<(String, u64)>,
    /// What operators want of it.
    #[serde(default)]
    pub directive: Directive,
}
