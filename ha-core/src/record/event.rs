//! One line per decision, with its reason.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::contact::{AnnouncedPhase, Directive, Disturbance, DisturbanceKind};
use crate::name::{Epoch, HierarchyName, NodeName, ResourceName};
use crate::recovery::Pressure;
use crate::time::Time;

/// Something that happened on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, on this node's clock.
    pub at: Time,
    /// The hierarchy that it is about, if it is about one.
    pub hierarchy: Option<HierarchyName>,
    /// What.
    pub what: Happened,
}

/// What can happen. [`fmt::Display`] gives the line for the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Happened {
    /// The agent began.
    Began {
        /// Hierarchies recorded as running by an earlier life of the agent.
        adopting: usize,
    },
    /// Something was noticed of a peer that changes nothing yet.
    Contact {
        /// The peer.
        peer: NodeName,
        /// What, in words.
        what: String,
    },
    /// A peer is heard: for the first time, or again.
    ContactMade {
        /// The peer.
        peer: NodeName,
        /// How long it had been silent; `None` when it had not been heard before.
        after: Option<Duration>,
    },
    /// A peer said goodbye.
    PeerLeft {
        /// The peer.
        peer: NodeName,
    },
    /// A new life of a peer's agent speaks.
    PeerRestarted {
        /// The peer.
        peer: NodeName,
        /// Its machine was booted in between: everything that ran on it is gone.
        rebooted: bool,
    },
    /// Another node tells that it has the hierarchy in service, or has not any more, or is about to.
    Peer {
        /// The node.
        peer: NodeName,
        /// The phase of the hierarchy there.
        phase: AnnouncedPhase,
        /// The epoch held there, or else the greatest one known there.
        epoch: Epoch,
        /// What disturbs it there.
        disturbance: Option<Disturbance>,
    },
    /// Contact with a peer is lost.
    ContactLost {
        /// The peer.
        peer: NodeName,
        /// When it was last heard.
        last_heard: Time,
    },
    /// The hierarchy entered a phase on this node.
    Phase {
        /// The phase.
        phase: AnnouncedPhase,
        /// Why.
        why: String,
        /// What kind of thing keeps it out of service since it last was in service here.
        disturbance: Option<DisturbanceKind>,
    },
    /// The hierarchy was recorded as running by an earlier life of this node's agent: its claim is to be proven before anything else.
    Recalled {
        /// The tenure that is recorded.
        epoch: Epoch,
    },
    /// This node found that the hierarchy is its own to recover.
    Candidate {
        /// The node that had it in service before, if it is known.
        before: Option<NodeName>,
        /// When that node was last heard, if it is lost: the fault cannot be earlier.
        fault: Option<Time>,
        /// The reasons, in one line.
        why: String,
    },
    /// The claim is being asked for.
    ClaimAsked,
    /// The claim is held.
    ClaimWon {
        /// The tenure.
        epoch: Epoch,
    },
    /// The claim was refused.
    ClaimRefused {
        /// Who holds it, if it is a node of the cluster.
        holder: Option<NodeName>,
        /// Why, and by whom.
        why: String,
    },
    /// The claim is held, but could not be proven for a while: told once when that begins.
    Unproven {
        /// Why.
        why: String,
        /// When it was last proven, or else when that could not be done any more.
        since: Time,
    },
    /// The claim is proven again.
    ProvenAgain {
        /// For how long it was not.
        after: Duration,
    },
    /// The claim is lost, or can no longer be proven.
    ClaimLost {
        /// Why.
        why: String,
    },
    /// The claim was given up.
    ClaimReleased {
        /// To whom.
        heir: Option<NodeName>,
    },
    /// A resource was started.
    Started {
        /// Which.
        resource: ResourceName,
        /// How long it took.
        took: Duration,
    },
    /// A resource was found running after a restart of the agent.
    Adopted {
        /// Which.
        resource: ResourceName,
    },
    /// A resource was stopped.
    Stopped {
        /// Which.
        resource: ResourceName,
        /// How long it took.
        took: Duration,
    },
    /// A resource failed, or one of its operations did.
    ResourceFailed {
        /// Which.
        resource: ResourceName,
        /// What was tried: "start", "stop", "monitor", …
        during: String,
        /// Why.
        why: String,
    },
    /// A monitor said neither good nor bad.
    MonitorUnknown {
        /// Of which resource.
        resource: ResourceName,
        /// Why.
        why: String,
        /// So many in a row now.
        in_a_row: u32,
    },
    /// The hierarchy is in service on this node.
    InService {
        /// The tenure.
        epoch: Epoch,
        /// It was running already when the agent began.
        adopted: bool,
    },
    /// The node leaves the hierarchy to others.
    Declined {
        /// Why.
        why: String,
        /// For how long; until cleared if not given.
        lasts: Option<Duration>,
    },
    /// The node takes part again.
    DeclineEnded,
    /// The hierarchy fails on every node: it is left alone.
    Quarantined {
        /// Why.
        why: String,
    },
    /// The utility of this node for the hierarchy changed.
    Utility {
        /// From.
        from: u8,
        /// To.
        to: u8,
        /// What was measured.
        facts: String,
    },
    /// This node is, or is not any more, able to serve the hierarchy.
    Readiness {
        /// What is lacking.
        lacking: Option<String>,
    },
    /// An operator, or the harness itself, changed what is wanted.
    Directive {
        /// What, in words.
        what: String,
        /// Who.
        by: String,
        /// Why.
        reason: String,
        /// What it means for who serves.
        wish: Wish,
    },
    /// A switchover began.
    Switchover {
        /// The heir.
        to: NodeName,
        /// Why.
        why: String,
    },
    /// The node must be reset.
    NodeReset {
        /// Why.
        why: String,
    },
    /// This node did not run for a while: every proof is old, and is made anew.
    TimeGap {
        /// How long.
        gap: Duration,
    },
    /// Something is wrong that an operator should know of.
    Trouble {
        /// What.
        what: String,
    },
    /// An operator removed every key and the reservation from the claim's disks (`ha claim break`).
    ClaimBroken {
        /// Whose keys there were, and on which disks, in words.
        was: String,
        /// Who did it.
        by: String,
        /// Why, as they gave it.
        why: String,
    },
    /// Another node is being fenced, or was.
    Fencing {
        /// The other node.
        node: NodeName,
        /// What.
        news: FencingNews,
    },
    /// This machine has too much to do, or not any more.
    Pressure(Pressure),
}

/// What there is to tell of the fencing of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FencingNews {
    /// It was ordered, and begins.
    Begun {
        /// By whom.
        by: String,
        /// Why, as they gave it.
        reason: String,
    },
    /// The node was off: every device of one level said so when it was asked after it had been told to switch the node off.
    Proven {
        /// When the fencing began, or the devices were asked once more, on this node's clock: the node was off at some moment after it.
        begun: Time,
        /// Which devices said so, in words.
        how: String,
    },
    /// The node was cut off from what some devices guard, as they said, and may be running: nothing follows from it for who takes what.
    CutOff {
        /// Which devices said so, in words.
        how: String,
    },
    /// It could not be shown that the node is off: nothing follows from it.
    NotProven {
        /// What each device did, in words.
        why: String,
    },
    /// After a proof, the node was switched on again, or that was tried.
    SwitchedOn {
        /// What went wrong, if something did.
        trouble: Option<String>,
    },
}

impl FencingNews {
    fn of(&self, node: &NodeName, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FencingNews::Begun { by, reason } if reason.is_empty() => write!(f, "fencing {node}, by {by}"),
            FencingNews::Begun { by, reason } => write!(f, "fencing {node}, by {by}: {reason}"),
            FencingNews::Proven { how, .. } => write!(f, "{node} is fenced, proven to be off: {how}"),
            FencingNews::CutOff { how } => write!(f, "{node} is cut off, but is not proven to be off: {how}"),
            FencingNews::NotProven { why } => write!(f, "fencing {node} is NOT proven, it may be running: {why}"),
            FencingNews::SwitchedOn { trouble: None } => write!(f, "{node} was switched on again"),
            FencingNews::SwitchedOn { trouble: Some(why) } => write!(f, "{node} was not switched on again: {why}"),
        }
    }
}

/// What a change of what is wanted means for who serves a hierarchy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wish {
    /// It is to be out of service.
    Stop,
    /// It is to be in service again.
    Start,
    /// It is to be served by another node.
    Move,
    /// Nothing.
    Other,
}

impl Wish {
    /// What changed from one directive to a later one.
    pub fn between(before: &Directive, after: &Directive) -> Wish {
        match (before.stopped, after.stopped) {
            (false, true) => Wish::Stop,
            (true, false) => Wish::Start,
            _ if before.quarantined.is_some() && after.quarantined.is_none() => Wish::Start,
            _ if after.pin.is_some() && before.pin != after.pin => Wish::Move,
            _ => Wish::Other,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(hierarchy) = &self.hierarchy {
            write!(f, "{hierarchy}: ")?;
        }
        self.what.fmt(f)
    }
}

impl fmt::Display for Happened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Happened::Began { adopting: 0 } => f.write_str("agent began"),
            Happened::Began { adopting } => write!(f, "agent began; hierarchies to adopt: {adopting}"),
            Happened::Contact { peer: _, what } | Happened::Trouble { what } => f.write_str(what),
            Happened::ContactMade { peer, after: None } => write!(f, "{peer} is heard"),
            Happened::ContactMade { peer, after: Some(silence) } => {
                write!(f, "{peer} is heard again after {silence:.1?}")
            }
            Happened::PeerLeft { peer } => write!(f, "{peer} said goodbye"),
            Happened::PeerRestarted { peer, rebooted: true } => write!(f, "{peer} was booted"),
            Happened::PeerRestarted { peer, rebooted: false } => write!(f, "the agent on {peer} was restarted"),
            Happened::ContactLost { peer, .. } => write!(f, "contact with {peer} lost"),
            Happened::Peer { peer, phase, epoch, disturbance } => {
                write!(f, "{peer} says: {phase}")?;
                if *phase == AnnouncedPhase::InService {
                    write!(f, ", epoch {epoch}")?;
                }
                match disturbance {
                    Some(disturbance) => write!(f, ": {disturbance}"),
                    None => Ok(()),
                }
            }
            Happened::Phase { phase, why, .. } => write!(f, "now {phase}: {why}"),
            Happened::Recalled { epoch } => {
                write!(f, "found recorded as running under epoch {epoch} by this agent's earlier life")
            }
            Happened::Candidate { why, .. } => write!(f, "candidate: {why}"),
            Happened::ClaimAsked => f.write_str("asking for the claim"),
            Happened::ClaimWon { epoch } => write!(f, "claim held, epoch {epoch}"),
            Happened::ClaimRefused { why, .. } => write!(f, "claim refused: {why}"),
            Happened::Unproven { why, .. } => write!(
                f,
                "the claim cannot be proven for now: {why}; the service goes on, and is stopped here if this lasts too long"
            ),
            Happened::ProvenAgain { after } => write!(f, "the claim is proven again, after {after:.1?}"),
            Happened::ClaimLost { why } => write!(f, "claim lost: {why}"),
            Happened::ClaimReleased { heir: Some(heir) } => write!(f, "claim handed to {heir}"),
            Happened::ClaimReleased { heir: None } => f.write_str("claim released"),
            Happened::Started { resource, took } => write!(f, "{resource} started in {took:.1?}"),
            Happened::Adopted { resource } => write!(f, "{resource} found running and adopted"),
            Happened::Stopped { resource, took } => write!(f, "{resource} stopped in {took:.1?}"),
            Happened::ResourceFailed { resource, during, why } => write!(f, "{resource} failed ({during}): {why}"),
            Happened::MonitorUnknown { resource, why, in_a_row } => {
                write!(f, "{resource}: monitor says nothing, {in_a_row} in a row: {why}")
            }
            Happened::InService { epoch, adopted: false } => write!(f, "in service, epoch {epoch}"),
            Happened::InService { epoch, adopted: true } => write!(f, "adopted in service, epoch {epoch}"),
            Happened::Declined { why, lasts: Some(lasts) } => {
                write!(f, "left to others for {}: {why}", humantime::format_duration(*lasts))
            }
            Happened::Declined { why, lasts: None } => write!(f, "left to others until cleared: {why}"),
            Happened::DeclineEnded => f.write_str("eligible again"),
            Happened::Quarantined { why } => write!(f, "quarantined until cleared: {why}"),
            Happened::Utility { from, to, facts } => write!(f, "utility {from} → {to}: {facts}"),
            Happened::Readiness { lacking: Some(lacking) } => write!(f, "not ready: {lacking}"),
            Happened::Readiness { lacking: None } => f.write_str("ready"),
            Happened::Directive { what, by, reason, .. } if reason.is_empty() => write!(f, "{what}, by {by}"),
            Happened::Directive { what, by, reason, .. } => write!(f, "{what}, by {by}: {reason}"),
            Happened::ClaimBroken { was, by, why } => write!(f, "claim broken by {by}, which was {was}: {why}"),
            Happened::Fencing { node, news } => news.of(node, f),
            Happened::Switchover { to, why } => write!(f, "handing over to {to}: {why}"),
            Happened::NodeReset { why } => write!(f, "this node must be reset: {why}"),
            Happened::Pressure(Pressure::High) => f.write_str(
                "this machine is under pressure, work waits for processors, memory or disks: monitors that say nothing are borne with for longer",
            ),
            Happened::Pressure(Pressure::Calm) => f.write_str("this machine is not under pressure any more"),
            Happened::TimeGap { gap } => write!(f, "this node did not run for {gap:.1?}: proving everything anew"),
        }
    }
}

impl Happened {
    /// Whether an operator should look at it.
    pub fn is_bad(&self) -> bool {
        matches!(
            self,
            Happened::ContactLost { .. }
                | Happened::Unproven { .. }
                | Happened::ClaimLost { .. }
                | Happened::ClaimBroken { .. }
                | Happened::ResourceFailed { .. }
                | Happened::Declined { .. }
                | Happened::Quarantined { .. }
                | Happened::NodeReset { .. }
                | Happened::TimeGap { .. }
                | Happened::Fencing { .. }
                | Happened::Trouble { .. }
        )
    }
}
