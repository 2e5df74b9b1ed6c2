//! What follows for this node from another one having been fenced.
//!
//! Decides how long, and on what conditions, a node that was proven to be off is taken to be gone ([`crate::claim::Belief::Gone`]). Leaves fencing
//! itself, and what is proof of it, to the driver's owner, and what follows for each claim to [`crate::mastership`] and the claims.
//!
//! A proof says that the machine was off at some moment. It counts only for a node that was heard before, is silent now, and was not heard at all,
//! directly or by hearsay or through storage, since the fencing began: whoever is heard later was not switched off, or was switched on again. It
//! counts for a moment, in which no machine boots: so that a later life that nobody hears is not taken for the earlier one, whose claims only it could
//! have taken again. After that the node is silent like any other, and the claims find out by themselves whether it lives.

use std::time::Duration;

use super::{Engine, TimerKey};
use crate::contact::{Peer, PeerState};
use crate::name::NodeName;
use crate::record::{FencingNews, Happened};

/// How long a proof counts that a node is off. Whoever fences a node does not switch it on again before.
pub const PROOF_COUNTS_FOR: Duration = Duration::from_secs(2);

impl Engine {
    pub(super) fn fencing(&mut self, node: NodeName, news: FencingNews) {
        if self.contact.peer(&node).is_none() {
            return;
        }
        if let FencingNews::Proven { begun, .. } = &news {
            self.fenced.insert(node.clone(), *begun);
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

    /// Whether a silent peer is known to be off.
    pub(super) fn is_fenced(&self, peer: &Peer) -> bool {
        let Some(begun) = self.fenced.get(peer.name()) else { return false };
        let silent = matches!(peer.state(), PeerState::Lost { .. });
        let heard_of = peer.hearsay().map(|(_, at)| at);
        silent && peer.last_heard().is_some_and(|heard| heard.max(heard_of.unwrap_or(heard)) < *begun)
    }
}
