//! What is known of one other node: on which channels it was heard and when, who else hears it, and what it announced.
//!
//! Decides the state of a peer from what was heard. Leaves to [`super::Contact`] when to look, and what to report.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::name::{BootId, ChannelName, HierarchyName, Incarnation, NodeName};
use crate::time::Time;

use super::announcement::{Announcement, NodeAnnouncement};

/// How well a peer is heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerState {
    /// Not heard since this node started.
    Unknown,
    /// Heard on some channel within its `late_after`.
    Alive,
    /// Silent for longer, but not for `dead_after`; or heard only by another node with which this one is in contact.
    Late,
    /// Silent for `dead_after` everywhere; or still unknown when the startup grace was over.
    Lost {
        /// When it was last heard, or this node's start.
        since: Time,
    },
    /// Said goodbye.
    Left,
}

impl fmt::Display for PeerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Unknown => "unknown",
            Self::Alive => "alive",
            Self::Late => "late",
            Self::Lost { .. } => "lost",
            Self::Left => "left",
        })
    }
}

/// How one channel of a peer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelView {
    /// When something was last heard on it.
    pub last_heard: Time,
    /// The longest time between two things heard, of one life of the peer; outages (three times `dead_after` and more) and
    /// pauses of this node do not count. Much less than `dead_after`: that could be shorter.
    pub longest_gap: Duration,
    /// How often it was silent for three times its `dead_after` and came back.
    pub outages: u64,
}

/// A peer, to be read. Changed only by [`super::Contact`].
#[derive(Clone, Debug)]
pub struct Peer {
    pub(super) name: NodeName,
    pub(super) state: PeerState,
    pub(super) incarnation: Option<Incarnation>,
    pub(super) boot: Option<BootId>,
    pub(super) announcements: BTreeMap<HierarchyName, Announcement>,
    pub(super) node_announcement: Option<NodeAnnouncement>,
}

impl Peer {
    /// Its name.
    pub fn name(&self) -> &NodeName {
        &self.name
    }

    /// How well it is heard.
    pub fn state(&self) -> PeerState {
        self.state
    }

    /// Whether it is alive, late, or heard by another node that is: not to be taken for dead.
    pub fn in_contact(&self) -> bool {
        matches!(self.state, PeerState::Alive | PeerState::Late)
    }

    /// The life of its agent that was last heard.
    pub fn incarnation(&self) -> Option<Incarnation> {
        self.incarnation
    }

    /// The boot of its machine that was last heard.
    pub fn boot(&self) -> Option<BootId> {
        self.boot
    }

    /// Whether everything that it said it has to tell has arrived.
    pub fn synced(&self) -> bool {
        false
    }

    /// The channels on which it was ever heard.
    pub fn channels(&self) -> impl Iterator<Item = (&ChannelName, ChannelView)> {
        std::iter::empty()
    }

    /// When it was last heard by this node itself, on any channel.
    pub fn last_heard(&self) -> Option<Time> {
        None
    }

    /// The other node that last heard it, and when, as far as that node told.
    pub fn hearsay(&self) -> Option<(&NodeName, Time)> {
        None
    }

    /// What it told of itself; of a lost peer, what it told last.
    pub fn node_announcement(&self) -> Option<&NodeAnnouncement> {
        self.node_announcement.as_ref()
    }

    /// What it told of a hierarchy; of a lost peer, what it told last.
    pub fn announcement(&self, hierarchy: &HierarchyName) -> Option<&Announcement> {
        self.announcements.get(hierarchy)
    }

    /// Everything that it told of hierarchies.
    pub fn announcements(&self) -> impl Iterator<Item = (&HierarchyName, &Announcement)> {
        self.announcements.iter()
    }
}
