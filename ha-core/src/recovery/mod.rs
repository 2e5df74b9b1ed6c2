//! The life of one hierarchy on one node: phases, start and stop order, local recovery, declining, quarantine, adoption.
//!
//! Decides what is done with the claim and the resources of one hierarchy, and when. Leaves to [`crate::mastership`] whether
//! the hierarchy is this node's, to [`crate::engine`] what concerns several hierarchies, and to the driver to carry it out.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::claim::EarlyFailures;
use crate::contact::Directive;
use crate::mastership::Judgement;
use crate::name::{Epoch, NodeName, Utility};
use crate::record::Happened;
use crate::time::Time;

mod claiming;
mod decide;
mod life;
mod overdue;
mod repair;
#[cfg(feature = "sim")]
mod supposed;
mod table;
#[cfg(test)]
mod tests;
mod timers;
mod works;

pub(crate) use life::{Decline, Life, LifeTimer};
pub use works::{Operation, Outcome, Pressure};

/// Names one operation that was asked for; an answer to any other is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OpId(pub u64);

/// What the life of a hierarchy wants done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Do {
    Acquire { op: OpId, known: Epoch, adopt: Option<Epoch> },
    Inspect { op: OpId },
    Release { op: OpId, epoch: Epoch, heir: Option<NodeName>, failures: EarlyFailures },
    Operate { op: OpId, resource: usize, operation: Operation, timeout: Duration },
    Cancel { op: OpId },
    Watch { resource: usize },
    Unwatch { resource: usize },
    Running(Option<Epoch>),
    Lasting,
    Record(Happened),
    Quarantine { why: String },
    Reset { why: String },
}

/// Where a life puts what it wants done.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Out {
    pub(crate) list: Vec<Do>,
    ops: u64,
}

impl Out {
    pub(crate) fn push(&mut self, what: Do) {
        self.list.push(what);
    }

    pub(crate) fn record(&mut self, what: Happened) {
        self.list.push(Do::Record(what));
    }

    pub(crate) fn next_op(&mut self) -> OpId {
        self.ops += 1;
        OpId(self.ops)
    }
}

/// What surrounds a hierarchy on its node at a moment.
#[derive(Clone, Debug)]
pub(crate) struct Around<'a> {
    pub(crate) judgement: &'a Judgement,
    pub(crate) directive: &'a Directive,
    /// Why the node wants to serve nothing.
    pub(crate) standby: Option<&'a str>,
    /// The agent is to end once nothing is served here any more.
    pub(crate) draining: bool,
    pub(crate) utility: Utility,
    pub(crate) pressure: Pressure,
    /// Something on this node can reset it.
    pub(crate) can_reset: bool,
    /// Who had it in service before, and when that node was last heard if it is lost.
    pub(crate) before: Option<(NodeName, Option<Time>)>,
    /// How long the tenure is from one renewal to its end, where it is a lease.
    pub(crate) lease_length: Option<Duration>,
    /// What an earlier life of the agent left running is stopped then, if it cannot be proven before; known where it runs on a lease.
    pub(crate) recalled_until: Option<Time>,
    /// Claims may be held on the shared lease that it needs, if it needs one.
    pub(crate) lease_is_good: bool,
}
