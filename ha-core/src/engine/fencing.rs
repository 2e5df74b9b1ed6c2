//! What follows for this node from another one having been fenced.
//!
//! Decides how long, and on what conditions, a node that was proven to be off is taken to be gone ([`crate::claim::Belief::Gone`]). Leaves fencing
//! itself, and what is proof of it, to the driver's owner, and what follows for each claim to [`crate::mastership`] and the claims.
//!
//! A proof says that the machine was off at some moment. It counts only for a node that was heard before, is silent now, and was not heard at all,
//! directly or by hearsay or through storage, since the fencing began: whoever is heard later was not switched off, or was switched on again. It
//! counts for half of the startup grace. A later life that this node does not hear does not hear this node either, so it asks for nothing before
//! its own grace is over: it is never taken for the earlier one. After that the node is silent like any other, and the claims find out by
//! themselves whether it lives.

use super::{Engine, TimerKey};
use crate::contact::{Peer, PeerState};
use crate::name::NodeName;
use crate::record::{FencingNews, Happened};

impl Engine {
    pub(super) fn fencing(&mut self, node: NodeName, news: FencingNews) {
        if self.contact.peer(&node).is_none() {
            return;
        }
        if let FencingNews::Proven { begun, .. } = &news {
            self.fenced.insert(node.clone(), *begun);
            let counts_for = self.config.contact.timing.startup_grace / 2;
            self.timers.set(TimerKey::FencedUntil(node.clone()), self.now + counts_for);
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
