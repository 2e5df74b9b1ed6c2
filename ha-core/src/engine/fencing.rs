//! What follows for this node from another one having been fenced, and when it has one fenced by itself.
//!
//! Decides how long, and on what conditions, a node that was proven to be off is taken to be gone ([`crate::claim::Belief::Fenced`]), and which
//! nodes are fenced without an order. Leaves fencing itself, and what is proof of it, to the driver's owner, and what follows for each claim to
//! [`crate::mastership`] and the claims.
//!
//! A proof says that the machine was off at some moment. It counts only for a node that was heard before, is silent now, and was not heard at all,
//! directly or by hearsay or through storage, since the fencing began, or since the question that its devices answered: whoever is heard later was not
//! switched off, or was switched on again. It counts for a moment, in which no machine boots: so that a later life that nobody hears is not taken for the earlier one, whose claims only it could
//! have taken again. After that the node is silent like any other, and the claims find out by themselves whether it lives.
//!
//! By itself a node fences only one that is [configured for it](super::EngineConfig::fences), and only in two cases: that one is silent, on the storage
//! too, and its lease is what this node waits for; or it is heard, and says that it could not stop something that others are to serve. Two nodes that
//! lost each other do not both do so: with the storage they hear each other through it, and without it they wait for nothing.

use std::time::Duration;

use super::{Effect, Engine, TimerKey};
use crate::claim::Refusal;
use crate::contact::{AnnouncedPhase, Peer, PeerState};
use crate::hierarchy::OnStopFailure;
use crate::mastership::Standing;
use crate::mutation::{self, Mutation};
use crate::name::{HierarchyName, NodeName};
use crate::record::{FencingNews, Happened};
use crate::time::Time;

/// How long a proof counts that a node is off. Whoever fences a node does not switch it on again before.
pub const PROOF_COUNTS_FOR: Duration = Duration::from_secs(2);
/// A node is not fenced by this one again before: a device that proves nothing now will prove nothing in a moment either.
const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// An agent that is only restarted is back by then, and adopts what runs.
const SILENT_FOR: Duration = Duration::from_secs(3);
/// A lease that ends so soon is waited for.
const WORTH_IT: Duration = Duration::from_secs(1);
/// A node that could not stop something gets so long to help itself, by a later stop or by its watchdog.
const STUCK_FOR: Duration = Duration::from_secs(5);

impl Engine {
    pub(super) fn fencing(&mut self, node: NodeName, news: FencingNews) {
        if self.contact.peer(&node).is_none() {
            return;
        }
        let proof = match &news {
            FencingNews::Proven { begun, .. } => Some(*begun),
            FencingNews::Begun { .. } if mutation::is_on(Mutation::TakeOrderForProof) => Some(self.now),
            _ => None,
        };
        if let Some(begun) = proof {
            self.fenced.insert(node.clone(), begun);
            self.timers.set(TimerKey::FencedUntil(node.clone()), self.now + PROOF_COUNTS_FOR);
            self.concern(&node);
        }
        self.tell(None, Happened::Fencing { node, news });
    }

    /// The proof does not count any more.
    pub(super) fn forget_fencing(&mut self, node: &NodeName) {
        if self.fenced.remove(node).is_some() {
            self.concern(node);
        }
    }

    /// When the fencing began of a silent peer that is known to be off.
    pub(super) fn fenced(&self, peer: &Peer) -> Option<Time> {
        let begun = self.fenced.get(peer.name())?;
        let silent = matches!(peer.state(), PeerState::Lost { .. });
        let heard_of = peer.hearsay().map(|(_, at)| at);
        let quiet = peer.last_heard().is_some_and(|heard| heard.max(heard_of.unwrap_or(heard)) < *begun);
        (silent && quiet).then_some(*begun)
    }

    /// A claim was refused: where only the lease of a silent node is waited for, that node may be fenced.
    pub(super) fn refused(&mut self, name: &HierarchyName, refusal: &Refusal) {
        let Refusal::Held { holder, retry_at: Some(at), .. } = refusal else { return };
        let Some(heard) = self.contact.peer(holder).filter(|_| self.config.fences.contains(holder)) else { return };
        let due = heard.last_heard().map_or(self.now, |heard| heard + SILENT_FOR).max(self.now);
        if due + WORTH_IT < *at {
            self.timers.set(TimerKey::Silent(holder.clone(), name.clone()), due);
        }
    }

    /// A holder has been silent for long: if its lease is waited for still, it is fenced.
    pub(super) fn silent_for_long(&mut self, holder: &NodeName, name: &HierarchyName) {
        let Some(entry) = self.entries.get(name) else { return };
        let waits = entry.judgement.standing == Standing::Candidate && !entry.life.holds();
        let lost = |peer: &Peer| matches!(peer.state(), PeerState::Lost { .. }) && self.fenced(peer).is_none();
        if waits && self.contact.peer(holder).is_some_and(lost) {
            self.have_fenced(holder, format!("it is silent, and {name} waits for the end of its lease"));
        }
    }

    /// A peer spoke of a hierarchy: if it could not stop it, it has some time left.
    pub(super) fn mind_stuck(&mut self, peer: &NodeName, name: &HierarchyName) {
        let key = TimerKey::Stuck(peer.clone(), name.clone());
        if !self.is_stuck(peer, name) {
            self.timers.cancel(&key);
        } else if self.timers.get(&key).is_none() {
            self.timers.set(key, self.now + STUCK_FOR);
        }
    }

    /// The time is over: the first node of the list that could serve has it fenced.
    pub(super) fn stuck_for_long(&mut self, peer: &NodeName, name: &HierarchyName) {
        let Some(entry) = self.entries.get(name).filter(|_| self.is_stuck(peer, name)) else { return };
        let me = self.contact.me();
        let could = |node: &NodeName| match &entry.judgement.standing {
            _ if node == peer => false,
            Standing::Behind(_) | Standing::Candidate if node == me => true,
            _ => entry.judgement.able.contains(node),
        };
        let chosen = entry.life.hierarchy.nodes.iter().find(|node| could(node));
        if chosen == Some(me) {
            self.have_fenced(peer, format!("it could not stop {name}"));
        } else {
            // Should that one do nothing.
            self.timers.set(TimerKey::Stuck(peer.clone(), name.clone()), self.now + AGAIN_AFTER);
        }
    }

    fn is_stuck(&self, peer: &NodeName, name: &HierarchyName) -> bool {
        let told = self.contact.announcement(peer, name).is_some_and(|a| a.phase == AnnouncedPhase::StopFailed);
        let hold = Some(OnStopFailure::Hold);
        let policy = self.entries.get(name).map(|entry| entry.life.hierarchy.policy.on_stop_failure);
        told && self.contact.in_contact(peer) && self.config.fences.contains(peer) && policy.is_some_and(|p| p != hold)
    }

    fn have_fenced(&mut self, node: &NodeName, why: String) {
        let lately = self.fencing_ordered.get(node).is_some_and(|at| self.now < *at + AGAIN_AFTER);
        if !lately && self.config.fences.contains(node) && self.standby.is_none() {
            self.fencing_ordered.insert(node.clone(), self.now);
            self.effects.push_back(Effect::Fence { node: node.clone(), why });
        }
    }
}
