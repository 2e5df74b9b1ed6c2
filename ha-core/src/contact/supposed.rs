//! What the model checker supposes of contact instead of computing it: a peer is heard, with all that it tells, or is not heard any more.
//!
//! Decides how the state looks that the machine would reach by beats and deltas, and which events it would report. Leaves to
//! [`crate::sim::model`] when, in whatever order.

use super::Contact;
use super::announcement::Announcement;
use super::event::ContactEvent;
use super::message::Item;
use super::peer::PeerState;
use super::receive::apply;
use super::told::Progress;
use crate::name::NodeName;
use crate::time::Time;

impl Contact {
    /// A beat of the peer, and everything that it tells by now, have arrived.
    pub(crate) fn suppose_heard(&mut self, now: Time, from: &Contact) {
        let name = from.config.me.clone();
        let Some(peer) = self.peers.get_mut(&name) else { return };
        let known = peer.life;
        if known.is_none_or(|life| life.incarnation < from.incarnation) {
            peer.begin_life(from.incarnation, from.config.boot);
            if let Some(earlier) = known {
                let rebooted = earlier.boot != from.config.boot;
                self.events.push_back(ContactEvent::Restarted { peer: name.clone(), rebooted });
            }
        }
        if peer.state != PeerState::Alive {
            peer.state = PeerState::Alive;
            self.events.push_back(ContactEvent::Alive { peer: name.clone(), after: None });
        }
        for item in from.told.items() {
            let event = apply(&name, &mut peer.announcements, &mut peer.node_announcement, item.clone());
            self.events.extend(event);
        }
        if let Some(life) = &mut peer.life {
            (life.version, life.have) = (from.told.version(), from.told.version());
            if !std::mem::replace(&mut life.synced, true) {
                self.events.push_back(ContactEvent::Synced { peer: name });
            }
        }
        self.finish(now);
    }

    /// The peer was silent for too long.
    pub(crate) fn suppose_silent(&mut self, now: Time, name: &NodeName) {
        let Some(peer) = self.peers.get_mut(name) else { return };
        peer.state = PeerState::Lost { since: now };
        self.events.push_back(ContactEvent::Lost { peer: name.clone(), since: now });
        self.finish(now);
    }

    /// Forgets what was sent, and what is to be sent again: nothing is decided by it.
    pub(crate) fn forget_sent(&mut self) {
        self.transmits.clear();
        for peer in self.peers.values_mut() {
            peer.progress = Progress::new();
            (peer.beat_at, peer.judge_at) = (None, None);
        }
    }

    /// What decisions can depend on: all that is known of each peer, and, on the other side, all that is told.
    pub(crate) fn identity(&self) -> (String, String) {
        let heard = self.peers.values().map(|p| {
            let life = p.life.map(|l| (l.incarnation, l.boot, l.synced));
            let announced = p.announcements.iter().map(|(name, it)| (name, decisive(it))).collect::<Vec<_>>();
            format!("{:?}{life:?}{announced:?}{:?}", p.state, p.node_announcement)
        });
        let items = self.told.items().map(|item| match item {
            Item::Hierarchy(name, it) => Item::Hierarchy(name.clone(), Box::new(decisive(it))),
            other => other.clone(),
        });
        let told = format!("{:?}{:?}", self.incarnation, items.collect::<Vec<_>>());
        (format!("{}{}", self.settled, heard.collect::<String>()), told)
    }
}

/// An announcement without what is for people only.
fn decisive(announcement: &Announcement) -> Announcement {
    Announcement { disturbance: None, ..announcement.clone() }
}
