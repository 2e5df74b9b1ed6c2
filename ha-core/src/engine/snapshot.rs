//! What a node knows at a moment: the one source of the status, `why`, the metrics and every other view.
//!
//! Decides what can be seen. Leaves how it is shown to the agent.

use serde::{Deserialize, Serialize};

use crate::claim::EarlyFailures;
use crate::contact::{AnnouncedPhase, Directive};
use crate::hierarchy::Fingerprint;
use crate::mastership::{Fact, Standing};
use crate::name::{ClusterName, Epoch, HierarchyName, Incarnation, NodeName, ResourceName, Utility};
use crate::recovery::Pressure;
use crate::time::Time;

/// A node's view of itself and the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The cluster.
    pub cluster: ClusterName,
    /// The node whose view this is.
    pub node: NodeName,
    /// The life of its agent.
    pub incarnation: Incarnation,
    /// Its clock when the view was taken.
    pub now: Time,
    /// The version of its software.
    pub version: String,
    /// It is in standby: why.
    pub standby: Option<String>,
    /// How busy its machine is. An agent of before this was told says nothing of it.
    #[serde(default)]
    pub pressure: Pressure,
    /// What is wrong with the node itself, for the operator.
    pub troubles: Vec<String>,
    /// The leases its claims live on.
    pub leases: Vec<LeaseView>,
    /// The other nodes.
    pub peers: Vec<PeerView>,
    /// All hierarchies defined on the node, by name.
    pub hierarchies: Vec<HierarchyView>,
}

/// A shared lease as the node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseView {
    /// Its name.
    pub name: String,
    /// How long it is still good, in milliseconds; `None` when it is not held.
    pub good_for_ms: Option<u64>,
    /// The last error of its storage.
    pub trouble: Option<String>,
}

/// Another node as this one sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerView {
    /// Its name.
    pub node: NodeName,
    /// "alive", "late", "lost", "left" or "unknown".
    pub state: String,
    /// How long ago it was last heard over any channel, in milliseconds.
    pub heard_ms_ago: Option<u64>,
    /// Every channel over which it was ever heard.
    pub channels: Vec<ChannelView>,
    /// It is in standby: why.
    pub standby: Option<String>,
    /// The version of its software.
    pub version: String,
    /// Its definition of the cluster is not the same as ours.
    pub cluster_differs: bool,
}

/// One channel to another node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelView {
    /// Its name.
    pub channel: String,
    /// How long ago the peer was heard over it, in milliseconds.
    pub heard_ms_ago: u64,
    /// The longest silence between two datagrams while the peer was alive, in milliseconds.
    pub longest_gap_ms: u64,
}

/// A hierarchy as the node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HierarchyView {
    /// Its name.
    pub name: HierarchyName,
    /// Its phase on this node.
    pub phase: AnnouncedPhase,
    /// How long it has been in that phase, in milliseconds.
    pub phase_for_ms: u64,
    /// What it is doing or waiting for, in words, if that says more than the phase.
    pub detail: Option<String>,
    /// The epoch held, or else the greatest one known.
    pub epoch: Epoch,
    /// What the node concludes about itself.
    pub standing: Standing,
    /// The facts that led to it, in order.
    pub reasons: Vec<Fact>,
    /// How useful it would be to serve it here.
    pub utility: Utility,
    /// What the probes measured, if there are any.
    pub utility_facts: String,
    /// Why this node leaves it to others, if it does.
    pub declined: Option<String>,
    /// What this node is lacking to serve it.
    pub unready: Option<String>,
    /// Early failures on successive tenures.
    pub failures: EarlyFailures,
    /// What operators asked for.
    pub directive: Directive,
    /// How it is defined here.
    pub definition: Fingerprint,
    /// Its resources, in the order in which they could start.
    pub resources: Vec<ResourceView>,
    /// What every node that may serve it says of itself, in order of preference.
    pub nodes: Vec<NodeOpinion>,
}

/// A resource as the node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceView {
    /// Its name.
    pub name: ResourceName,
    /// Its kind.
    pub kind: String,
    /// "down", "starting", "up", "stopping", "killing", "failed" or "stuck".
    pub state: String,
    /// The last thing that was wrong with it.
    pub trouble: Option<String>,
}

/// What a node says of a hierarchy, as last heard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeOpinion {
    /// The node.
    pub node: NodeName,
    /// In contact with us now (always so for ourselves).
    pub in_contact: bool,
    /// Its phase; `None` when it never said.
    pub phase: Option<AnnouncedPhase>,
    /// The epoch that it named.
    pub epoch: Epoch,
    /// Its utility.
    pub utility: Utility,
    /// Why it would not take it, if so.
    pub ineligible: Option<String>,
    /// It defines the hierarchy in another way than we do.
    pub definition_differs: bool,
}
