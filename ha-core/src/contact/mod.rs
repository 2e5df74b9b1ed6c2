//! What this node hears of the others, and what it tells them.
//!
//! Decides who is in contact, what is to be sent to whom and when, and keeps what the others announced. A deterministic
//! machine: time and messages come in as arguments, messages and events go out; no I/O. Leaves to the driver the
//! channels and the seal around each message, and to [`crate::mastership`] what follows from contact.

mod announcement;
mod codec;
mod event;
mod ids;
mod keys;
mod message;
mod parcel;
mod peer;
mod receive;
mod seal;
mod send;
#[cfg(feature = "sim")]
mod supposed;
mod timing;
mod told;

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::name::{ChannelName, HierarchyName, Incarnation, NodeName};
use crate::time::Time;

use parcel::Inbox;
use told::{Progress, Told};

pub use announcement::{
    AnnouncedPhase, Announcement, Declined, Directive, Disturbance, DisturbanceKind, NodeAnnouncement,
};
pub use codec::{
    DISTURBANCE_BYTES_MAX, DecodeError, Fault, Field, REASON_BYTES_MAX, SHORT_BYTES_MAX, STORAGE_BYTES_MAX,
};
pub use event::ContactEvent;
pub use ids::{NodeId, NodeIdError, NodeIds};
pub use keys::{KeyFileError, KeyId, KeyProblem, KeyRing};
pub use message::{Beat, BeatPeer, Delta, Fragment, FragmentAck, Item, Message};
pub use parcel::{PARCEL_MAX, ParcelFailure, ParcelId, ParcelRefused};
pub use peer::{ChannelView, Peer, PeerState};
pub use seal::{NotSealed, Opened, Opener, Refused, RefusedCounts, SEAL_BYTES, Sealer};
pub use timing::{ChannelTiming, ContactConfig, ContactConfigError, Timing};

/// A message to be sealed and sent to a node, on every channel that leads there, each time sealed anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transmit {
    /// To whom.
    pub to: NodeName,
    /// What.
    pub message: Message,
}

/// Contact of one node with all others.
///
/// Every entry point takes `now`. After each of them the owner empties [`Contact::poll_transmit`] and
/// [`Contact::poll_event`], and calls [`Contact::handle_timeout`] at [`Contact::next_deadline`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Contact {
    config: ContactConfig,
    ids: NodeIds,
    incarnation: Incarnation,
    /// The greatest incarnation of this node that others know, if it is not this one.
    known_later: Option<Incarnation>,
    peers: BTreeMap<NodeName, Peer>,
    told: Told,
    started_at: Time,
    grace_until: Time,
    settled: bool,
    /// When this node itself last woke from a pause.
    paused_at: Option<Time>,
    called_at: Time,
    deadline: Option<Time>,
    beat_at: Time,
    beats: u64,
    parcels: u64,
    /// After [`Contact::goodbye`]: how often it is still to be said.
    goodbyes: Option<u8>,
    transmits: VecDeque<Transmit>,
    events: VecDeque<ContactEvent>,
}

/// A goodbye is not acknowledged, so it is said more than once.
const GOODBYES: u8 = 3;

impl Contact {
    /// Starts contact: the first beats are ready to be sent.
    ///
    /// `incarnation` is greater than any that this node used before, and never used twice (the seal's nonces depend on
    /// it): the wall clock in nanoseconds will do, see [`Contact::known_incarnation_of_me`] for a clock that was set
    /// back.
    pub fn new(config: ContactConfig, incarnation: Incarnation, now: Time) -> Result<Self, ContactConfigError> {
        config.check()?;
        let ids = NodeIds::new(&config.nodes)?;
        let others = config.nodes.iter().filter(|node| **node != config.me);
        let peers = others.map(|node| (node.clone(), Peer::new(node.clone(), now + config.timing.startup_grace)));
        let mut contact = Self {
            ids,
            incarnation,
            known_later: None,
            peers: peers.collect(),
            told: Told::default(),
            started_at: now,
            grace_until: now + config.timing.startup_grace,
            settled: false,
            paused_at: None,
            called_at: now,
            deadline: None,
            beat_at: now,
            beats: 0,
            parcels: 0,
            goodbyes: None,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            config,
        };
        contact.handle_timeout(now);
        Ok(contact)
    }

    /// A message arrived whose seal was good.
    ///
    /// Ignored if it comes from an unknown node, from an earlier life than one heard before, or from a life that said
    /// goodbye; and until the first beat of a life, which tells the boot that it belongs to. The first beat that a peer
    /// is believed is one that names this life of ours, so that nothing sent before it counts: a peer that this node
    /// hears but that has never heard this node stays unknown.
    pub fn received(
        &mut self,
        now: Time,
        channel: &ChannelName,
        from: &NodeName,
        incarnation: Incarnation,
        message: Message,
    ) {
        if self.goodbyes.is_none() {
            self.enter(now);
            self.take(now, channel, from, incarnation, message);
            self.finish(now);
        }
    }

    /// A peer's slot on shared storage was last seen to change at `at`, which may be a while ago.
    pub fn heard_on_storage(&mut self, now: Time, channel: &ChannelName, peer: &NodeName, at: Time) {
        if self.goodbyes.is_none() {
            self.enter(now);
            self.take_from_storage(now, channel, peer, at.min(now));
            self.finish(now);
        }
    }

    /// A peer's slot on shared storage says that it left in order. Believed when nothing else is heard of it either.
    pub fn left_on_storage(&mut self, now: Time, channel: &ChannelName, peer: &NodeName) {
        if self.goodbyes.is_none() {
            self.enter(now);
            if let Some(record) = self.peers.get_mut(peer) {
                record.leave_on_storage(channel, now);
            }
            self.judge(peer, now, None);
            self.judge_late_ones(now);
            self.finish(now);
        }
    }

    /// Says of a hierarchy from now on. Does nothing if it is said already.
    pub fn set_announcement(&mut self, now: Time, hierarchy: &HierarchyName, announcement: Announcement) {
        self.tell(now, Item::Hierarchy(hierarchy.clone(), Box::new(announcement)));
    }

    /// Says nothing of a hierarchy any more. Does nothing if nothing is said of it.
    pub fn withdraw(&mut self, now: Time, hierarchy: &HierarchyName) {
        self.tell(now, Item::Withdrawn(hierarchy.clone()));
    }

    /// Says of this node from now on. Does nothing if it is said already.
    pub fn set_node_announcement(&mut self, now: Time, announcement: NodeAnnouncement) {
        self.tell(now, Item::Node(announcement));
    }

    fn tell(&mut self, now: Time, item: Item) {
        if self.told.set(item) && self.goodbyes.is_none() {
            self.enter(now);
            self.finish(now);
        }
    }

    /// Sends a parcel of at most [`PARCEL_MAX`] bytes. Ends in [`ContactEvent::ParcelDelivered`] or
    /// [`ContactEvent::ParcelFailed`]. Parcels to one node arrive in the order in which they were sent. One for a node
    /// that is not in contact waits for it, within [`Timing::parcel_deadline`].
    pub fn send_parcel(&mut self, now: Time, to: &NodeName, bytes: Vec<u8>) -> Result<ParcelId, ParcelRefused> {
        if bytes.len() > PARCEL_MAX {
            return Err(ParcelRefused::TooLarge(bytes.len()));
        }
        if self.goodbyes.is_some() {
            return Err(ParcelRefused::Leaving);
        }
        let peer = self.peers.get_mut(to).ok_or_else(|| ParcelRefused::NotAPeer(to.clone()))?;
        let id = ParcelId(self.parcels + 1);
        peer.outbox.give(id, to, bytes, now)?;
        self.parcels += 1;
        self.enter(now);
        self.finish(now);
        Ok(id)
    }

    /// Leaves in order: says goodbye to everybody, a few times, and nothing more; hears nothing more either. Everything
    /// is said when [`Contact::next_deadline`] is `None`.
    ///
    /// Others then take what this node had in service for free: for a node that leaves its services running, going
    /// silent is right.
    pub fn goodbye(&mut self, now: Time) {
        if self.goodbyes.is_none() {
            self.fail_all_parcels(ParcelFailure::Leaving);
            self.goodbyes = Some(GOODBYES);
            self.beat_at = now;
            self.say_goodbye(now);
        }
    }

    /// Goes on as a later life, after [`ContactEvent::KnownAsLater`]: everything is told anew. The driver seals with
    /// the new incarnation from then on, what is to be sent already included. Does nothing if `incarnation` is not
    /// greater.
    pub fn reincarnate(&mut self, now: Time, incarnation: Incarnation) {
        if incarnation > self.incarnation && self.goodbyes.is_none() {
            self.enter(now);
            self.incarnation = incarnation;
            self.known_later = self.known_later.filter(|later| *later > incarnation);
            self.fail_all_parcels(ParcelFailure::Reincarnated);
            for peer in self.peers.values_mut() {
                peer.progress = Progress::new();
                // Answers to pieces of the earlier life's parcels would come from the wrong life.
                peer.inbox = Inbox::default();
            }
            self.transmits.clear();
            self.beat_at = now;
            self.finish(now);
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Time) {
        if self.goodbyes.is_some() {
            self.say_goodbye(now);
            return;
        }
        self.enter(now);
        let due = self.peers.values().filter(|peer| peer.judge_at.is_some_and(|at| at <= now));
        for name in due.map(|peer| peer.name.clone()).collect::<Vec<_>>() {
            self.judge(&name, now, None);
        }
        self.finish(now);
    }

    /// When [`Contact::handle_timeout`] is to be called.
    pub fn next_deadline(&self) -> Option<Time> {
        self.deadline
    }

    /// The next message to be sent.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<ContactEvent> {
        self.events.pop_front()
    }

    /// This node.
    pub fn me(&self) -> &NodeName {
        &self.config.me
    }

    /// The life of this node that speaks.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The greatest incarnation of this node that others know, if it is later than this one: they refuse what this one
    /// says.
    pub fn known_incarnation_of_me(&self) -> Option<Incarnation> {
        self.known_later
    }

    /// A configured node other than this one.
    pub fn peer(&self, name: &NodeName) -> Option<&Peer> {
        self.peers.get(name)
    }

    /// All configured nodes other than this one, by name.
    pub fn peers(&self) -> impl Iterator<Item = &Peer> {
        self.peers.values()
    }

    /// What a peer told of a hierarchy; of a lost one, what it told last.
    pub fn announcement(&self, peer: &NodeName, hierarchy: &HierarchyName) -> Option<&Announcement> {
        self.peers.get(peer)?.announcement(hierarchy)
    }

    /// What a peer told of itself; of a lost one, what it told last.
    pub fn node_announcement(&self, peer: &NodeName) -> Option<&NodeAnnouncement> {
        self.peers.get(peer)?.node_announcement()
    }

    /// Whether a peer is alive, late, or heard by another one that is.
    pub fn in_contact(&self, peer: &NodeName) -> bool {
        self.peers.get(peer).is_some_and(Peer::in_contact)
    }

    /// Whether all that can be known at the start is known: every peer was heard and has told everything, or left or
    /// was lost, or the startup grace is over. Once true it stays so.
    pub fn settled(&self) -> bool {
        self.settled
    }
}

#[cfg(test)]
mod tests;
