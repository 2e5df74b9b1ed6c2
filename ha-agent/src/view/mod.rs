//! The cluster as one picture, made of what every node in contact says.
//!
//! Decides how views are put together, where they disagree, and what deserves the operator's attention. Pure: leaves asking
//! the nodes to [`crate::api`] and showing to [`crate::render`].

mod merge;
pub(crate) mod problems;
#[cfg(test)]
pub(crate) mod samples;

use std::collections::BTreeMap;

use ha_core::contact::{AnnouncedPhase, Directive};
use ha_core::engine::{LeaseView, ResourceView};
use ha_core::mastership::Standing;
use ha_core::name::{ClusterName, Epoch, HierarchyName, NodeName, Utility};
use serde::{Deserialize, Serialize};

pub(crate) use merge::{Answer, merge};

/// The whole cluster, as far as it is known on the node that was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClusterView {
    /// The cluster.
    pub(crate) cluster: ClusterName,
    /// The node that was asked.
    pub(crate) asked: NodeName,
    /// What an operator should know, the worst first.
    pub(crate) problems: Vec<Problem>,
    /// All nodes, by name.
    pub(crate) nodes: Vec<NodeStatus>,
    /// All hierarchies, by name.
    pub(crate) hierarchies: Vec<HierarchyStatus>,
}

/// Something that deserves attention.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Problem {
    /// How bad it is.
    pub(crate) severity: Severity,
    /// The hierarchy, node or file that it is about.
    pub(crate) about: String,
    /// What.
    pub(crate) what: String,
    /// What can be done, if something can.
    pub(crate) help: Option<String>,
}

/// How bad a problem is; the worst is the least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Severity {
    /// A hierarchy is not served, or data may be in danger.
    Error,
    /// It works, but not as well as it should.
    Warning,
    /// Somebody wanted it so.
    Note,
}

/// A node, as it says itself or as others see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeStatus {
    /// Its name.
    pub(crate) node: NodeName,
    /// Whether it could be asked.
    pub(crate) answer: NodeAnswer,
    /// How the node that was asked hears it: "here", "alive", "late", "lost", "left" or "unknown".
    pub(crate) heard: String,
    /// How long ago that was, in milliseconds.
    pub(crate) heard_ms_ago: Option<u64>,
    /// The version of its software.
    pub(crate) version: String,
    /// It is in standby: why.
    pub(crate) standby: Option<String>,
    /// The leases its claims live on.
    pub(crate) leases: Vec<LeaseView>,
    /// How it hears the other nodes; empty if it did not answer.
    pub(crate) hears: BTreeMap<NodeName, String>,
}

/// Whether a node could be asked for its view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum NodeAnswer {
    /// It gave its view.
    Given,
    /// It was asked and did not answer: why.
    Missing(String),
    /// It was not asked, since it is not in contact.
    NotAsked,
}

/// A hierarchy in the whole cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HierarchyStatus {
    /// Its name.
    pub(crate) name: HierarchyName,
    /// Where it is.
    pub(crate) place: Place,
    /// The greatest epoch that any node names.
    pub(crate) epoch: Epoch,
    /// How long it has been in that phase there, in milliseconds, if the node there said so.
    pub(crate) for_ms: Option<u64>,
    /// What the node there is doing, in words, if that says more than the phase.
    pub(crate) detail: Option<String>,
    /// What operators asked for.
    pub(crate) directive: Directive,
    /// The resources on the node where it is, as that node sees them.
    pub(crate) resources: Vec<ResourceView>,
    /// What is known of it on every node that may serve it, the preferred one first.
    pub(crate) nodes: Vec<Says>,
}

/// Where a hierarchy is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Place {
    /// In service on this node.
    InService(NodeName),
    /// The node has it, or is taking it, in this phase.
    Changing(NodeName, AnnouncedPhase),
    /// These nodes say that they hold its claim, each of them.
    Disputed(Vec<NodeName>),
    /// No node in contact has it.
    Out,
}

impl Place {
    /// The node that has it, if exactly one has.
    pub(crate) fn node(&self) -> Option<&NodeName> {
        match self {
            Place::InService(node) | Place::Changing(node, _) => Some(node),
            Place::Disputed(_) | Place::Out => None,
        }
    }
}

/// What is known of a hierarchy on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Says {
    /// The node.
    pub(crate) node: NodeName,
    /// Who says it.
    pub(crate) source: Source,
    /// Its phase; `None` when it never said.
    pub(crate) phase: Option<AnnouncedPhase>,
    /// The epoch that it named.
    pub(crate) epoch: Epoch,
    /// Its utility.
    pub(crate) utility: Utility,
    /// What it concludes about itself, if it was asked.
    pub(crate) standing: Option<Standing>,
    /// Why it would not serve it, if so.
    pub(crate) ineligible: Option<String>,
    /// It defines the hierarchy in another way than the node that was asked.
    pub(crate) definition_differs: bool,
}

/// Who says what is known of a hierarchy on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Source {
    /// The node itself.
    Itself,
    /// It did not answer, but this node is in contact with it.
    HeardBy(NodeName),
    /// Nobody is in contact with it; this is what it said last.
    LastHeard,
}

impl Says {
    /// Whether the node holds the claim now, as far as anybody can say.
    pub(crate) fn holds(&self) -> bool {
        self.source != Source::LastHeard && self.phase.is_some_and(AnnouncedPhase::holds_claim)
    }
}

impl ClusterView {
    /// The status of a hierarchy.
    pub(crate) fn hierarchy(&self, name: &HierarchyName) -> Option<&HierarchyStatus> {
        self.hierarchies.iter().find(|h| h.name == *name)
    }

    /// The status of a node.
    pub(crate) fn node(&self, name: &NodeName) -> Option<&NodeStatus> {
        self.nodes.iter().find(|n| n.node == *name)
    }
}
