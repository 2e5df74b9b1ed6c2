//! What follows from what was heard: lives, witnesses, announcements, and each peer's state.

use std::collections::BTreeMap;
use std::collections::btree_map::OccupiedEntry;
use std::time::Duration;

use crate::name::{ChannelName, HierarchyName, Incarnation, NodeName};
use crate::time::Time;

use super::announcement::{Announcement, NodeAnnouncement};
use super::event::ContactEvent;
use super::ids::NodeId;
use super::message::{Beat, BeatPeer, Delta, Item, Message};
use super::parcel::ParcelFailure;
use super::peer::{PeerState, Silence};
use super::{Contact, Peer};

/// So many parts that came before an earlier one are kept per peer, until that one comes: as many as a peer sends at
/// once.
const EARLY_PARTS_MAX: usize = 32;

impl Contact {
    /// Begins every call: finds out whether this node itself was stopped.
    ///
    /// A call that comes much later than what was due shows that this process did not run. It could not hear then, so
    /// the silence says nothing about the peers: whoever was in contact gets its full `dead_after` from now on. That
    /// delays the detection of a node which died meanwhile, by one `dead_after`; the other way round every pause would
    /// make this node run for every claim at once.
    pub(super) fn enter(&mut self, now: Time) {
        let dead_after = self.config.timing.dead_after;
        let Some(due) = self.deadline.map(|due| due.max(self.called_at)) else { return };
        self.called_at = self.called_at.max(now);
        if now <= due + dead_after / 2 {
            return;
        }
        let config = &self.config;
        for peer in self.peers.values_mut() {
            peer.excuse(due, now, |channel| config.channel_timing(channel), dead_after);
        }
        if !self.settled {
            self.grace_until = self.grace_until.max(now + dead_after);
        }
        self.paused_at = Some(now);
        self.events.push_back(ContactEvent::Paused { for_about: now.since(due) });
    }

    /// A message that arrived.
    pub(super) fn take(
        &mut self,
        now: Time,
        channel: &ChannelName,
        from: &NodeName,
        incarnation: Incarnation,
        message: Message,
    ) {
        if !message.is_for(self.incarnation) {
            return;
        }
        let Some(new_life) = self.admit(from, incarnation, &message) else { return };
        let Some(peer) = self.peers.get_mut(from) else { return };
        if message == Message::Goodbye {
            peer.leave(now);
            self.judge(from, now, None);
            self.judge_late_ones(now);
            return;
        }
        let sequence = if let Message::Beat(beat) = &message { Some(beat.sequence) } else { None };
        let silence = peer.last_heard().map(|at| now.since(at));
        let timing = self.config.channel_timing(channel);
        let measure = Silence { timing, paused_at: self.paused_at, new_life };
        if let Some(gap) = peer.hear(channel, now, sequence, &measure) {
            let (peer, channel, dead_after) = (from.clone(), channel.clone(), timing.dead_after);
            self.events.push_back(ContactEvent::Gap { peer, channel, gap, dead_after });
        }
        self.judge(from, now, silence);
        match message {
            Message::Beat(beat) => self.take_beat(now, from, &beat),
            Message::Delta(delta) => self.take_delta(now, from, delta),
            Message::Fragment(fragment) => {
                if let Some(peer) = self.peers.get_mut(from)
                    && let Some(bytes) = peer.inbox.accept(fragment, now, &self.config.timing)
                {
                    self.events.push_back(ContactEvent::Parcel { from: from.clone(), bytes });
                }
            }
            Message::FragmentAck(ack) => {
                if let Some(peer) = self.peers.get_mut(from)
                    && let Some(id) = peer.outbox.acknowledge(&ack, now, &self.config.timing)
                {
                    self.events.push_back(ContactEvent::ParcelDelivered { to: from.clone(), id });
                }
            }
            Message::Goodbye => {}
        }
    }

    /// Whether a message is to be listened to; if so, whether it begins a new life of its sender.
    fn admit(&mut self, from: &NodeName, incarnation: Incarnation, message: &Message) -> Option<bool> {
        let peer = self.peers.get_mut(from)?;
        let known = peer.life;
        if let Some(life) = known
            && incarnation <= life.incarnation
        {
            return (incarnation == life.incarnation && !peer.has_left()).then_some(false);
        }
        let Message::Beat(beat) = message else { return None };
        if known.is_none() && !self.is_answer(from, incarnation, beat) {
            return None;
        }
        let peer = self.peers.get_mut(from)?;
        peer.begin_life(incarnation, beat.boot);
        if let Some(earlier) = known {
            let failed = peer.outbox.fail();
            self.events.push_back(ContactEvent::Restarted { peer: from.clone(), rebooted: earlier.boot != beat.boot });
            self.report_failed(from, failed, ParcelFailure::PeerRestarted);
        }
        // An answer at once lets the newcomer know of us without waiting for the next beat.
        if let Some(peer) = self.peers.get_mut(from) {
            peer.beat_at = Some(self.called_at);
        }
        Some(true)
    }

    /// Whether the first beat of a peer names this life of ours, and so cannot have been sent before it: what somebody
    /// recorded earlier must not make a dead peer look alive to a node that was just started and knows no counters yet.
    /// If not, the peer is told which life of it we have seen, so that its next beat can be an answer to that.
    fn is_answer(&mut self, from: &NodeName, incarnation: Incarnation, beat: &Beat) -> bool {
        let me = NodeId::of(&self.config.me);
        let named = beat.peers.iter().find(|told| told.id == me);
        if let Some(told) = named.filter(|told| told.incarnation >= self.incarnation) {
            self.take_word_of_me(self.called_at, from, told);
            return told.incarnation == self.incarnation;
        }
        if let Some(peer) = self.peers.get_mut(from)
            && peer.seen < Some(incarnation)
        {
            peer.seen = Some(incarnation);
            peer.beat_at = Some(self.called_at);
        }
        false
    }

    /// A sign of life on shared storage.
    pub(super) fn take_from_storage(&mut self, now: Time, channel: &ChannelName, name: &NodeName, at: Time) {
        let Some(peer) = self.peers.get_mut(name) else { return };
        let silence = peer.last_heard().map(|last| at.since(last));
        let timing = self.config.channel_timing(channel);
        peer.return_on_storage(at, timing.dead_after);
        peer.hear(channel, at, None, &Silence { timing, paused_at: self.paused_at, new_life: false });
        self.judge(name, now, silence);
    }

    fn take_beat(&mut self, now: Time, from: &NodeName, beat: &Beat) {
        let Some(life) = self.peers.get_mut(from).and_then(|peer| peer.life.as_mut()) else { return };
        // The same beat comes on every channel, and an old one may come late: only the newest says how things are.
        if beat.sequence <= life.sequence {
            return;
        }
        life.sequence = beat.sequence;
        life.version = beat.version;
        self.note_synced(from);
        let (me, sender) = (NodeId::of(&self.config.me), NodeId::of(from));
        for told in &beat.peers {
            if told.id == me {
                self.take_word_of_me(now, from, told);
            } else if told.id != sender
                && let Some(name) = self.ids.name(told.id).cloned()
            {
                self.take_hearsay(now, from, &name, told);
            }
        }
    }

    fn take_word_of_me(&mut self, now: Time, from: &NodeName, told: &BeatPeer) {
        if told.incarnation > self.incarnation {
            if self.known_later.is_none_or(|known| told.incarnation > known) {
                self.known_later = Some(told.incarnation);
                self.events.push_back(ContactEvent::KnownAsLater { incarnation: told.incarnation });
            }
            return;
        }
        let have = if told.incarnation == self.incarnation { told.have.min(self.told.version()) } else { 0 };
        if let Some(peer) = self.peers.get_mut(from) {
            peer.progress.acknowledge(have, now, self.config.timing.interval);
        }
    }

    fn take_hearsay(&mut self, now: Time, via: &NodeName, name: &NodeName, told: &BeatPeer) {
        let Some(age_us) = told.age_us else { return };
        let Some(peer) = self.peers.get_mut(name) else { return };
        let heard_at = now - Duration::from_micros(u64::from(age_us));
        peer.hear_of(via, told.incarnation, heard_at, self.config.timing.dead_after);
        if peer.state != PeerState::Alive {
            self.judge(name, now, None);
        }
    }

    fn take_delta(&mut self, now: Time, from: &NodeName, delta: Delta) {
        let ack_at = now + self.config.timing.interval / 10;
        let Some(peer) = self.peers.get_mut(from) else { return };
        peer.beat_at = peer.beat_at.or(Some(ack_at));
        let Some(life) = peer.life.as_mut() else { return };
        life.version = life.version.max(delta.version);
        if delta.base > life.have && peer.early.len() < EARLY_PARTS_MAX {
            peer.early.insert(delta.base, delta);
            return;
        }
        let mut next = Some(delta);
        while let Some(part) = next.filter(|part| part.base <= life.have) {
            if part.to > life.have {
                life.have = part.to;
                for item in part.items {
                    self.events.extend(apply(&peer.name, &mut peer.announcements, &mut peer.node_announcement, item));
                }
            }
            next = peer.early.first_entry().filter(|early| *early.key() <= life.have).map(OccupiedEntry::remove);
        }
        self.note_synced(from);
    }

    fn note_synced(&mut self, name: &NodeName) {
        let Some(life) = self.peers.get_mut(name).and_then(|peer| peer.life.as_mut()) else { return };
        if !life.synced && life.have >= life.version {
            life.synced = true;
            self.events.push_back(ContactEvent::Synced { peer: name.clone() });
        }
    }

    /// Judges the state of a peer anew. `silence` is how long it had been silent before what was heard just now.
    pub(super) fn judge(&mut self, name: &NodeName, now: Time, silence: Option<Duration>) {
        let Some(peer) = self.peers.get(name) else { return };
        let heard_until = |via: &NodeName| self.peers.get(via).map_or(Time::ZERO, Peer::heard_until);
        let (state, judge_at) = peer.judge(now, self.grace_until, self.started_at, heard_until);
        let Some(peer) = self.peers.get_mut(name) else { return };
        peer.judge_at = judge_at;
        let earlier = std::mem::replace(&mut peer.state, state);
        if std::mem::discriminant(&earlier) == std::mem::discriminant(&state) {
            return;
        }
        let peer_name = name.clone();
        self.events.push_back(match state {
            PeerState::Alive => ContactEvent::Alive { peer: peer_name, after: silence },
            PeerState::Late => ContactEvent::Late { peer: peer_name },
            PeerState::Lost { since } => ContactEvent::Lost { peer: peer_name, since },
            PeerState::Left => ContactEvent::Left { peer: peer_name },
            // Nothing leads back to it.
            PeerState::Unknown => return,
        });
        if matches!(state, PeerState::Lost { .. } | PeerState::Left) {
            peer.progress.pause();
            peer.outbox.pause();
        }
    }

    /// Judges those that may be in contact only because another node hears them.
    pub(super) fn judge_late_ones(&mut self, now: Time) {
        let late = self.peers.values().filter(|peer| peer.state == PeerState::Late);
        for name in late.map(|peer| peer.name.clone()).collect::<Vec<_>>() {
            self.judge(&name, now, None);
        }
    }
}

/// Takes over what a peer told; returns what is new.
pub(super) fn apply(
    peer: &NodeName,
    announcements: &mut BTreeMap<HierarchyName, Announcement>,
    node_announcement: &mut Option<NodeAnnouncement>,
    item: Item,
) -> Option<ContactEvent> {
    let peer = peer.clone();
    match item {
        Item::Node(node) => {
            let news = node_announcement.as_ref() != Some(&node);
            *node_announcement = Some(node);
            news.then_some(ContactEvent::NodeAnnounced { peer })
        }
        Item::Hierarchy(hierarchy, announcement) => {
            let event = ContactEvent::Announced { peer, hierarchy: hierarchy.clone() };
            let news = announcements.get(&hierarchy) != Some(&*announcement);
            announcements.insert(hierarchy, *announcement);
            news.then_some(event)
        }
        Item::Withdrawn(hierarchy) => {
            announcements.remove(&hierarchy)?;
            Some(ContactEvent::Withdrawn { peer, hierarchy })
        }
    }
}
