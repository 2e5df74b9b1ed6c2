//! What this node hears of the others, and what it tells them.
//!
//! Decides who is in contact, what is to be sent to whom and when, and keeps what the others announced. A deterministic machine: time and
//! messages come in as arguments, messages and events go out; no I/O. Leaves to the driver the channels and the
//! seal around each message, and to [`crate::mastership`] what follows from contact.

mod announcement;
mod event;
mod ids;
mod message;
mod parcel;
mod peer;
mod timing;

use std::collections::{BTreeMap, VecDeque};

use crate::name::{ChannelName, HierarchyName, Incarnation, NodeName};
use crate::time::Time;

pub use announcement::{AnnouncedPhase, Announcement, Declined, Directive, NodeAnnouncement};
pub use event::ContactEvent;
pub use ids::{NodeId, NodeIdError, NodeIds};
pub use message::{Beat, BeatPeer, Delta, Fragment, FragmentAck, Item, Message};
pub use parcel::{PARCEL_MAX, ParcelFailure, ParcelId, ParcelRefused};
pub use peer::{ChannelView, Peer, PeerState};
pub use timing::{ChannelTiming, ContactConfig, ContactConfigError, Timing};

/// A message to be sealed and sent to a node, on every channel that leads there, each time sealed anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// To whom.
    pub to: NodeName,
    /// What.
    pub message: Message,
}

/// Contact of one node with all others.
///
/// Every entry point takes `now`. After each of them the owner empties [`Contact::poll_transmit`] and [`Contact::poll_event`],
/// and calls [`Contact::handle_timeout`] at [`Contact::next_deadline`].
#[derive(Debug)]
pub struct Contact {
    config: ContactConfig,
    incarnation: Incarnation,
    known_later: Option<Incarnation>,
    peers: BTreeMap<NodeName, Peer>,
    settled: bool,
    transmits: VecDeque<Transmit>,
    events: VecDeque<ContactEvent>,
}

impl Contact {
    /// Starts contact: the first beats are ready to be sent.
    ///
    /// `incarnation` is greater than any that this node used before, and never used twice (the seal's nonces depend on it): the
    /// wall clock in nanoseconds will do, see [`Contact::known_incarnation_of_me`] for a clock that was set back.
    pub fn new(config: ContactConfig, incarnation: Incarnation, now: Time) -> Result<Self, ContactConfigError> {
        config.check()?;
        let _ = now;
        Ok(Self {
            config,
            incarnation,
            known_later: None,
            peers: BTreeMap::new(),
            settled: false,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        })
    }

    /// A message arrived whose seal was good.
    pub fn received(
        &mut self,
        now: Time,
        channel: &ChannelName,
        from: &NodeName,
        incarnation: Incarnation,
        message: Message,
    ) {
        let _ = (now, channel, from, incarnation, message);
    }

    /// A peer's slot on shared storage was last seen to change at `at`, which may be a while ago.
    pub fn heard_on_storage(&mut self, now: Time, channel: &ChannelName, peer: &NodeName, at: Time) {
        let _ = (now, channel, peer, at);
    }

    /// A peer's slot on shared storage says that it left in order.
    pub fn left_on_storage(&mut self, now: Time, channel: &ChannelName, peer: &NodeName) {
        let _ = (now, channel, peer);
    }

    /// Says of a hierarchy from now on. Does nothing if it is said already.
    pub fn set_announcement(&mut self, now: Time, hierarchy: &HierarchyName, announcement: Announcement) {
        let _ = (now, hierarchy, announcement);
    }

    /// Says nothing of a hierarchy any more. Does nothing if nothing is said of it.
    pub fn withdraw(&mut self, now: Time, hierarchy: &HierarchyName) {
        let _ = (now, hierarchy);
    }

    /// Says of this node from now on. Does nothing if it is said already.
    pub fn set_node_announcement(&mut self, now: Time, announcement: NodeAnnouncement) {
        let _ = (now, announcement);
    }

    /// Sends a parcel of at most [`PARCEL_MAX`] bytes. Ends in [`ContactEvent::ParcelDelivered`] or [`ContactEvent::ParcelFailed`].
    /// Parcels to one node arrive in the order in which they were sent.
    pub fn send_parcel(&mut self, now: Time, to: &NodeName, bytes: Vec<u8>) -> Result<ParcelId, ParcelRefused> {
        let _ = now;
        if bytes.len() > PARCEL_MAX {
            return Err(ParcelRefused::TooLarge(bytes.len()));
        }
        Err(ParcelRefused::NotAPeer(to.clone()))
    }

    /// Leaves in order: says goodbye to everybody, a few times, and nothing more. Everything is said when
    /// [`Contact::next_deadline`] is `None`.
    pub fn goodbye(&mut self, now: Time) {
        let _ = now;
    }

    /// Goes on as a later life, after [`ContactEvent::KnownAsLater`]: everything is told anew. The driver seals with the
    /// new incarnation from then on.
    pub fn reincarnate(&mut self, now: Time, incarnation: Incarnation) {
        let _ = now;
        self.incarnation = incarnation;
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Time) {
        let _ = now;
    }

    /// When [`Contact::handle_timeout`] is to be called.
    pub fn next_deadline(&self) -> Option<Time> {
        None
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

    /// The greatest incarnation of this node that others know, if it is later than this one: they refuse what this one says.
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

    /// Whether all that can be known at the start is known: every peer was heard and has told everything, or left or was lost, or the startup
    /// grace is over. Once true it stays so.
    pub fn settled(&self) -> bool {
        self.settled
    }
}
