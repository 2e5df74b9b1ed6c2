//! What a node tells the others of itself: per hierarchy an [`Announcement`], and one [`NodeAnnouncement`].
//!
//! Decides the content. Leaves to the rest of [`crate::contact`] how it travels.

use serde::{Deserialize, Serialize};

use crate::claim::EarlyFailures;
use crate::hierarchy::Fingerprint;
use crate::name::{Epoch, NodeName, Utility};

/// What a node tells of itself for one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// How far the hierarchy is on that node.
    pub phase: AnnouncedPhase,
    /// The epoch held, or else the greatest one known.
    pub epoch: Epoch,
    /// How useful it would be to serve it there.
    pub utility: Utility,
    /// Why the node will not take it, if so.
    pub declined: Option<Declined>,
    /// What the node is lacking to serve it, if anything: it is not ready, and not eligible.
    pub unready: Option<String>,
    /// Early failures on successive tenures, as far as the node knows.
    pub failures: EarlyFailures,
    /// What operators asked for, and quarantine: the same on all nodes once they have heard each other.
    pub directive: Directive,
    /// How the hierarchy is defined on that node.
    pub definition: Fingerprint,
    /// The claim was handed to this node, which takes it first.
    pub heir: Option<NodeName>,
    /// Why it is not in service there any more, or may not stay so. Nothing is decided by it: it is for people.
    pub disturbance: Option<Disturbance>,
    /// Which storage the claim lives on there, if that is known; at most [`crate::contact::STORAGE_BYTES_MAX`] bytes.
    pub storage: Option<String>,
}

/// Why a hierarchy is not in service any more on the node that had it, or may not stay so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disturbance {
    /// What kind of thing it is.
    pub kind: DisturbanceKind,
    /// Why, for people; at most 150 bytes.
    pub why: String,
    /// How long it had been so when it was told, in milliseconds.
    pub told_after_ms: u32,
}

impl std::fmt::Display for Disturbance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.kind {
            DisturbanceKind::Unproven => write!(f, "the claim cannot be proven for now: {}", self.why),
            DisturbanceKind::ClaimLost => write!(f, "the claim is lost: {}", self.why),
            DisturbanceKind::Failed | DisturbanceKind::HandedOver | DisturbanceKind::Asked => f.write_str(&self.why),
        }
    }
}

/// What can disturb a hierarchy that is in service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DisturbanceKind {
    /// The claim cannot be proven for now; the service goes on.
    Unproven,
    /// The claim is lost, or could not be proven for too long.
    ClaimLost,
    /// A resource failed, or cannot be asked any more.
    Failed,
    /// It is handed to another node: moved by an operator, drained, failed back.
    HandedOver,
    /// It is interrupted because that was asked for: stopped, or redefined.
    Asked,
}

/// The phase of a hierarchy as others need to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum AnnouncedPhase {
    /// Not running, claim not held.
    Out,
    /// Candidate, but another node holds the claim.
    Waiting,
    /// Taking the claim.
    Claiming,
    /// Claim held, resources starting.
    Starting,
    /// In service.
    InService,
    /// In service, being repaired in place.
    Restarting,
    /// Stopping; the claim is held still.
    Stopping,
    /// Could not be stopped; the claim is held still.
    StopFailed,
}

impl AnnouncedPhase {
    /// Whether a node in this phase holds the claim.
    pub fn holds_claim(self) -> bool {
        use AnnouncedPhase::{InService, Restarting, Starting, StopFailed, Stopping};
        matches!(self, Starting | InService | Restarting | Stopping | StopFailed)
    }
}

/// A node leaves a hierarchy to others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declined {
    /// Why, for people; at most 150 bytes.
    pub why: String,
    /// How long from the moment of the announcement; `None` until cleared by an operator.
    pub for_ms: Option<u64>,
}

/// What operators want of one hierarchy, and whether it is in quarantine: one value for the whole cluster.
///
/// Every change carries a greater `serial`; each node takes over the greatest (serial, author) that it hears of, keeps it
/// on disk, and announces it. So the last word reaches every node, by way of any other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directive {
    /// Greater is later; 0 when nobody ever asked for anything.
    pub serial: u64,
    /// The node on which the change was made; settles equal serials.
    pub author: Option<NodeName>,
    /// Who asked, for people: "root@alpha".
    pub by: String,
    /// Why, as they gave it.
    pub reason: String,
    /// The node that a switchover pinned the hierarchy to.
    pub pin: Option<NodeName>,
    /// The harness keeps its hands off: nothing is started, stopped or monitored.
    pub maintenance: bool,
    /// It is to be out of service on every node.
    pub stopped: bool,
    /// It failed on every node in turn and is left alone until cleared: why.
    pub quarantined: Option<String>,
    /// Counts calls of `clear`: nodes drop their declines and failure counts when it grows.
    pub cleared: u64,
}

impl Directive {
    /// Whether this one is later than `other`.
    pub fn is_later_than(&self, other: &Directive) -> bool {
        (self.serial, &self.author) > (other.serial, &other.author)
    }
}

/// What a node tells of itself as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeAnnouncement {
    /// It wants to serve nothing: the reason.
    pub standby: Option<String>,
    /// The version of its software.
    pub version: String,
    /// A digest of the cluster's definition (nodes, timing) on that node.
    pub definition: Fingerprint,
}

impl std::fmt::Display for AnnouncedPhase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            AnnouncedPhase::Out => "out of service",
            AnnouncedPhase::Waiting => "waiting",
            AnnouncedPhase::Claiming => "claiming",
            AnnouncedPhase::Starting => "starting",
            AnnouncedPhase::InService => "in service",
            AnnouncedPhase::Restarting => "restarting",
            AnnouncedPhase::Stopping => "stopping",
            AnnouncedPhase::StopFailed => "stop failed",
        })
    }
}
