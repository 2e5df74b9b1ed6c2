//! What follows from what is heard of the other nodes.
//!
//! Decides which hierarchies an event of contact concerns. Leaves what it means for each to [`crate::mastership`].

use super::{Effect, Engine};
use crate::contact::ContactEvent;
use crate::name::{HierarchyName, Incarnation, NodeName};
use crate::record::Happened;

/// A clock set back needs one new incarnation; two agents with one name would need ever more.
const REINCARNATIONS: u32 = 3;

impl Engine {
    pub(super) fn take_contact(&mut self) {
        while let Some(event) = self.contact.poll_event() {
            self.contact_event(event);
        }
        if !self.settled && self.contact.settled() {
            self.settled = true;
            self.dirty.extend(self.entries.keys().cloned());
        }
    }

    fn contact_event(&mut self, event: ContactEvent) {
        let line = event.to_string();
        match event {
            ContactEvent::Alive { peer, after } => {
                self.tell(None, Happened::ContactMade { peer: peer.clone(), after });
                self.concern(&peer);
            }
            ContactEvent::Left { peer } => {
                self.tell(None, Happened::PeerLeft { peer: peer.clone() });
                self.concern(&peer);
            }
            ContactEvent::Restarted { peer, rebooted } => {
                for entry in self.entries.values_mut() {
                    // What the new life says is news.
                    entry.elsewhere.remove(&peer);
                }
                self.tell(None, Happened::PeerRestarted { peer: peer.clone(), rebooted });
                self.concern(&peer);
            }
            ContactEvent::Late { peer } => self.tell(None, Happened::Contact { peer, what: line }),
            ContactEvent::Lost { peer, since } => {
                self.tell(None, Happened::ContactLost { peer: peer.clone(), last_heard: since });
                self.concern(&peer);
            }
            ContactEvent::Announced { peer, hierarchy } => self.announced(&peer, &hierarchy),
            ContactEvent::Withdrawn { hierarchy, .. } => {
                self.dirty.insert(hierarchy);
            }
            ContactEvent::NodeAnnounced { peer } | ContactEvent::Synced { peer } => self.concern(&peer),
            ContactEvent::Gap { .. } => self.tell(None, Happened::Trouble { what: line }),
            ContactEvent::Paused { for_about } => {
                self.tell(None, Happened::TimeGap { gap: for_about });
                // A shared lease proves itself.
                let own = self.entries.iter().filter(|(_, e)| e.lease.is_none());
                let names: Vec<HierarchyName> = own.map(|(name, _)| name.clone()).collect();
                for name in names {
                    self.uphold(&name);
                }
            }
            ContactEvent::Parcel { from, bytes } => self.parcel(&from, &bytes),
            ContactEvent::ParcelDelivered { to, id } => {
                self.parcels.remove(&(to, id.0));
            }
            ContactEvent::ParcelFailed { to, id, why } => {
                if let Some(request) = self.parcels.remove(&(to, id.0)) {
                    self.request_failed(request, &why.to_string());
                }
            }
            ContactEvent::KnownAsLater { incarnation } => {
                let next = Incarnation(incarnation.0.saturating_add(1));
                self.tell(None, Happened::Trouble { what: line });
                self.reincarnations += 1;
                if self.reincarnations > REINCARNATIONS {
                    let what =
                        "another agent speaks under the name of this node: this one falls silent; stop one of them";
                    self.trouble("name".to_owned(), Some(what.to_owned()));
                    return;
                }
                self.contact.reincarnate(self.now, next);
                self.config.incarnation = next;
                self.effects.push_back(Effect::Reincarnate(next));
            }
        }
    }

    /// What is new of a peer concerns the hierarchies that list it.
    pub(super) fn concern(&mut self, peer: &NodeName) {
        let names: Vec<HierarchyName> = self.by_node.get(peer).into_iter().flatten().cloned().collect();
        for name in names {
            if let Some(entry) = self.entries.get_mut(&name) {
                entry.life.hurry();
            }
            self.dirty.insert(name);
        }
    }
}
