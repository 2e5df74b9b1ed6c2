//! The hierarchy as the engine sees it.
//!
//! Decides its shape and the defaults of its policy. Leaves making one, and checking it, to the reader and the builder.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::name::{GroupName, HierarchyName, NodeName, ResourceName};

/// A hierarchy as the engine sees it: names, order and policy, without any code. Valid by construction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hierarchy {
    /// Its name.
    pub name: HierarchyName,
    /// The nodes that may serve it, the preferred one first; not empty, no node twice.
    pub nodes: Vec<NodeName>,
    /// Its resources in an order in which they could start; each one's requirements come before it.
    pub resources: Vec<ResourceSpec>,
    /// How it is to be treated.
    pub policy: Policy,
    /// Changes when anything in the claim's definition does.
    pub claim: Fingerprint,
    /// Equal on two nodes exactly if the hierarchy is defined alike on both, whatever its comments and layout.
    pub fingerprint: Fingerprint,
}

/// One resource of a hierarchy, as the engine sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceSpec {
    /// Its name.
    pub name: ResourceName,
    /// The kind, for reports: "Filesystem".
    pub kind: String,
    /// Positions in [`Hierarchy::resources`] of what must run before it; all smaller than its own position.
    pub requires: Vec<usize>,
    /// How long each operation may take.
    pub timeouts: Timeouts,
    /// How it is watched.
    pub monitor: Monitor,
    /// Changes when anything in the resource's own definition does but its `timeouts`, `monitoring` and `requires`, which
    /// can be changed while it runs.
    pub fingerprint: Fingerprint,
}

/// A digest of a definition (two 64-bit halves of a stable, non-cryptographic hash).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(pub u64);

/// How long each operation of a resource may take before it counts as timed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeouts {
    /// Default 60 s.
    pub start: Duration,
    /// Default 60 s; then the resource is killed.
    pub stop: Duration,
    /// Default 20 s; a monitor that takes longer says nothing ("unknown").
    pub monitor: Duration,
    /// Of a forced stop, and of finding a running resource again. Default 10 s.
    pub kill: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            start: Duration::from_secs(60),
            stop: Duration::from_secs(60),
            monitor: Duration::from_secs(20),
            kill: Duration::from_secs(10),
        }
    }
}

/// How a running resource is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Monitor {
    /// From the end of one monitor to the begin of the next. Default 10 s.
    pub every: Duration,
    /// So many answers "unknown" in a row are tolerated; one more counts as bad. Default 2.
    pub unknowns_tolerated: u32,
}

impl Default for Monitor {
    fn default() -> Self {
        Self { every: Duration::from_secs(10), unknowns_tolerated: 2 }
    }
}

/// How a hierarchy is treated. Defaults stand in [`Policy::default`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Of the hierarchies that wait for recovery on one node, those of greater importance go first. Default 0.
    pub importance: i32,
    /// What ranks the nodes.
    pub rank: Rank,
    /// Whether the hierarchy returns to a preferred node that comes back.
    pub failback: Failback,
    /// So many local restarts are tried within the window before failing over. Default 3 in 10 min.
    pub restarts: Limit,
    /// How long a node on which the hierarchy failed leaves it to others. Default 10 min.
    pub decline_for: Duration,
    /// A failure so soon after entering service is an early one, which counts towards quarantine. Default 30 s.
    pub settle: Duration,
    /// So many successive tenures with early failures within the window mean that no node can serve it. Default 3 in 10 min.
    pub quarantine: Limit,
    /// What is done when a resource can neither be stopped nor killed. `None`: `Reset` where there is something that can
    /// reset the node, else `Hold`.
    pub on_stop_failure: Option<OnStopFailure>,
    /// After a loss of the claim everything must be confirmed stopped within this, else the node is reset. Default 2 s.
    pub forced_stop_within: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        let ten_minutes = Duration::from_secs(600);
        Self {
            importance: 0,
            rank: Rank::Priority,
            failback: Failback::Manual,
            restarts: Limit { count: 3, within: ten_minutes },
            decline_for: ten_minutes,
            settle: Duration::from_secs(30),
            quarantine: Limit { count: 3, within: ten_minutes },
            on_stop_failure: None,
            forced_stop_within: Duration::from_secs(2),
        }
    }
}

/// So many of something within a sliding window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// How many.
    pub count: u32,
    /// Within how long.
    pub within: Duration,
}

/// What ranks the nodes of a hierarchy, after a pin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rank {
    /// The position in the priority list only.
    Priority,
    /// Utility first, then the position; a difference of less than `margin` does not count.
    Utility {
        /// In points of utility, 1 to 100.
        margin: u8,
        /// The hierarchies of one group prefer different nodes: each that a node has lowers its utility for the others by
        /// [`SPREAD_STEP`].
        spread: Option<GroupName>,
    },
}

/// What each hierarchy of a group costs its node in utility for another one of the group, in points. The utility does not fall to 0 by it.
pub const SPREAD_STEP: u8 = 10;

impl Policy {
    /// The group that the hierarchy is spread with, if it is.
    pub fn spread(&self) -> Option<&GroupName> {
        match &self.rank {
            Rank::Utility { spread, .. } => spread.as_ref(),
            Rank::Priority => None,
        }
    }
}

/// Whether a hierarchy returns to a better ranked node that can serve it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Failback {
    /// Only when an operator moves it. The default: a second interruption should be somebody's decision.
    Manual,
    /// When the better node has been eligible and in contact for so long without interruption.
    Auto {
        /// How long.
        after: Duration,
    },
}

/// What is done when a resource can neither be stopped nor killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnStopFailure {
    /// Reset the node, so that the hierarchy can be served elsewhere.
    Reset,
    /// Keep the claim and everything else on the node; tell the operator.
    Hold,
}
