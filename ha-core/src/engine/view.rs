//! Makes the snapshot: the only reader of everything at once.

use std::time::Duration;

use super::snapshot::{ChannelView, HierarchyView, LeaseView, NodeOpinion, PeerView, ResourceView, Snapshot};
use super::{Engine, Entry, Unproven};
use crate::contact::Peer;
use crate::mastership::{self, Fact};
use crate::name::{Epoch, NodeName, Utility};
use crate::time::Time;

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Engine {
    /// What this node knows now.
    pub fn snapshot(&self, now: Time) -> Snapshot {
        Snapshot {
            cluster: self.config.cluster.clone(),
            node: self.me().clone(),
            incarnation: self.config.incarnation,
            now,
            version: self.config.version.clone(),
            standby: self.standby.clone(),
            pressure: self.pressure,
            troubles: self.troubles.iter().map(|(part, what)| format!("{part}: {what}")).collect(),
            leases: self
                .leases
                .iter()
                .map(|(name, lease)| LeaseView {
                    name: name.clone(),
                    good_for_ms: lease.until.filter(|t| *t > now).map(|t| ms(now.until(t))),
                    trouble: lease.trouble.clone(),
                })
                .collect(),
            peers: self.contact.peers().map(|peer| self.peer_view(peer, now)).collect(),
            hierarchies: self.entries.values().map(|entry| self.hierarchy_view(entry, now)).collect(),
        }
    }

    fn peer_view(&self, peer: &Peer, now: Time) -> PeerView {
        let node = peer.node_announcement();
        PeerView {
            node: peer.name().clone(),
            state: peer.state().to_string(),
            heard_ms_ago: peer.last_heard().map(|t| ms(now.since(t))),
            channels: peer
                .channels()
                .map(|(name, view)| ChannelView {
                    channel: name.to_string(),
                    heard_ms_ago: ms(now.since(view.last_heard)),
                    longest_gap_ms: ms(view.longest_gap),
                })
                .collect(),
            standby: node.and_then(|n| n.standby.clone()),
            version: node.map_or_else(String::new, |n| n.version.clone()),
            cluster_differs: node.is_some_and(|n| n.definition != self.config.definition),
        }
    }

    fn hierarchy_view(&self, entry: &Entry, now: Time) -> HierarchyView {
        let life = &entry.life;
        let mut reasons = entry.judgement.facts.clone();
        if let Some(detail) = &life.detail {
            reasons.push(Fact(format!("phase: {}: {detail}", life.announced_phase())));
        }
        if let Some(Unproven { since, why, .. }) = &entry.unproven {
            let since = now.since(*since);
            reasons.push(Fact(format!("the claim is held, but could not be proven for {since:.1?} now: {why}")));
        }
        HierarchyView {
            name: life.hierarchy.name.clone(),
            phase: life.announced_phase(),
            phase_for_ms: ms(now.since(life.since)),
            detail: life.detail.clone(),
            epoch: life.held.map_or(life.known, |h| h.epoch),
            standing: entry.judgement.standing.clone(),
            reasons,
            utility: entry.utility(),
            utility_facts: entry.utility_facts(),
            declined: life.declined.as_ref().map(|d| format!("{} (for another {:.0?})", d.why, now.until(d.until))),
            unready: self.unready(entry),
            failures: life.early_failures(now),
            directive: entry.directive.clone(),
            definition: life.hierarchy.fingerprint,
            resources: life
                .hierarchy
                .resources
                .iter()
                .zip(life.resource_states())
                .map(|(spec, (state, trouble))| ResourceView {
                    name: spec.name.clone(),
                    kind: spec.kind.clone(),
                    state: state.to_owned(),
                    trouble: trouble.map(ToOwned::to_owned),
                })
                .collect(),
            nodes: life.hierarchy.nodes.iter().map(|node| self.opinion(entry, node)).collect(),
        }
    }

    fn opinion(&self, entry: &Entry, node: &NodeName) -> NodeOpinion {
        let life = &entry.life;
        if node == self.me() {
            let declined = life.declined.as_ref().map(|d| format!("it declined: {}", d.why));
            let unready = self.unready(entry).map(|u| format!("it is not ready: {u}"));
            let standby = self.standby.as_ref().map(|s| format!("it is in standby ({s})"));
            return NodeOpinion {
                node: node.clone(),
                in_contact: true,
                phase: Some(life.announced_phase()),
                epoch: life.held.map_or(life.known, |h| h.epoch),
                utility: entry.utility(),
                ineligible: standby.or(declined).or(unready.filter(|_| !life.holds())),
                definition_differs: false,
            };
        }
        let view = self.view(entry, None);
        let other = view.others.iter().find(|o| o.name == node);
        let announced = other.and_then(|o| o.announced);
        NodeOpinion {
            node: node.clone(),
            in_contact: self.contact.in_contact(node),
            phase: announced.map(|a| a.phase),
            epoch: announced.map_or(Epoch::ZERO, |a| a.epoch),
            utility: announced.map_or(Utility::NONE, |a| a.utility),
            ineligible: other.and_then(|o| mastership::ineligible(&view, o)),
            definition_differs: announced.is_some_and(|a| a.definition != life.hierarchy.fingerprint),
        }
    }
}
