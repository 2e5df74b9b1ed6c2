//! Made-up clusters for tests.

use std::collections::BTreeMap;

use ha_core::claim::EarlyFailures;
use ha_core::contact::{AnnouncedPhase, Directive};
use ha_core::engine::{ChannelView, HierarchyView, LeaseView, NodeOpinion, PeerView, ResourceView, Snapshot};
use ha_core::hierarchy::Fingerprint;
use ha_core::mastership::{Fact, Standing};
use ha_core::name::{Epoch, HierarchyName, Incarnation, NodeName, ResourceName, Utility};
use ha_core::recovery::Pressure;
use ha_core::time::Time;

use super::{Answer, ClusterView, merge};

/// All nodes of the made-up cluster.
pub(crate) const NODES: [&str; 3] = ["alpha", "beta", "gamma"];

pub(crate) fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

pub(crate) fn web() -> HierarchyName {
    HierarchyName::new("web").unwrap()
}

/// A node's view: it hears all others, and `web` is in service on alpha under epoch 7.
pub(crate) fn snapshot(me: &str) -> Snapshot {
    Snapshot {
        cluster: "shop".parse().unwrap(),
        node: node(me),
        incarnation: Incarnation(1),
        now: Time(90_000_000_000),
        version: "0.1.0".to_owned(),
        standby: None,
        pressure: Pressure::Calm,
        troubles: Vec::new(),
        leases: vec![LeaseView { name: "main".to_owned(), good_for_ms: Some(9_200), trouble: None }],
        peers: NODES.iter().filter(|n| **n != me).map(|n| peer(n)).collect(),
        hierarchies: vec![hierarchy(me)],
    }
}

fn peer(name: &str) -> PeerView {
    PeerView {
        node: node(name),
        state: "alive".to_owned(),
        heard_ms_ago: Some(23),
        channels: vec![ChannelView { channel: "udp-10.1.0.1".to_owned(), heard_ms_ago: 23, longest_gap_ms: 180 }],
        standby: None,
        version: "0.1.0".to_owned(),
        cluster_differs: false,
    }
}

fn hierarchy(me: &str) -> HierarchyView {
    let phase_on = |n: &str| if n == "alpha" { AnnouncedPhase::InService } else { AnnouncedPhase::Out };
    let here = me == "alpha";
    HierarchyView {
        name: web(),
        phase: phase_on(me),
        phase_for_ms: 187_000_000,
        detail: None,
        epoch: Epoch(7),
        standing: if here { Standing::Owner } else { Standing::Behind(node("alpha")) },
        reasons: vec![Fact("nodes in order of rank: alpha, beta, gamma".to_owned())],
        utility: Utility::FULL,
        utility_facts: String::new(),
        declined: None,
        unready: None,
        failures: EarlyFailures::default(),
        directive: Directive::default(),
        definition: Fingerprint(1),
        resources: [("data", "Filesystem"), ("vip", "Address")]
            .map(|(name, kind)| ResourceView {
                name: ResourceName::new(name).unwrap(),
                kind: kind.to_owned(),
                state: if here { "up" } else { "down" }.to_owned(),
                trouble: None,
            })
            .to_vec(),
        nodes: NODES
            .iter()
            .map(|n| NodeOpinion {
                node: node(n),
                in_contact: true,
                phase: Some(phase_on(n)),
                epoch: Epoch(7),
                utility: Utility::FULL,
                ineligible: None,
                definition_differs: false,
            })
            .collect(),
    }
}

/// The cluster as alpha sees it, after `change` was made to the views of all nodes; a node left out does not answer.
pub(crate) fn cluster(change: impl FnOnce(&mut BTreeMap<&'static str, Snapshot>)) -> ClusterView {
    let mut views: BTreeMap<&'static str, Snapshot> = NODES.map(|n| (n, snapshot(n))).into();
    change(&mut views);
    let local = views.remove("alpha").unwrap();
    let mut answers: BTreeMap<NodeName, Answer> =
        views.into_iter().map(|(name, view)| (node(name), Answer::View(Box::new(view)))).collect();
    for peer in &local.peers {
        if matches!(peer.state.as_str(), "alive" | "late") {
            answers.entry(peer.node.clone()).or_insert_with(|| Answer::Missing("no answer within 1 s".to_owned()));
        }
    }
    merge(&local, &answers, Vec::new())
}
