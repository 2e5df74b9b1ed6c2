//! What contact reports: a closed list, each with a line for people.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::name::{ChannelName, HierarchyName, Incarnation, NodeName};
use crate::time::{Span, Time};

use super::parcel::{ParcelFailure, ParcelId};

/// Something that changed in what this node hears of the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContactEvent {
    /// A peer is heard: for the first time, or again.
    Alive {
        /// Who.
        peer: NodeName,
        /// How long it had been silent; `None` when it had not been heard before.
        after: Option<Duration>,
    },
    /// A peer has been silent for `late_after`, or is heard only by others.
    Late {
        /// Who.
        peer: NodeName,
    },
    /// A peer has been silent for `dead_after`, and nobody in contact hears it.
    Lost {
        /// Who.
        peer: NodeName,
        /// When it was last heard; the start of this node if it never was.
        since: Time,
    },
    /// A peer said goodbye.
    Left {
        /// Who.
        peer: NodeName,
    },
    /// A new life of a peer's agent speaks; what the earlier one told is forgotten.
    Restarted {
        /// Who.
        peer: NodeName,
        /// The machine was booted in between: everything that ran on it is gone.
        rebooted: bool,
    },
    /// What a peer tells of a hierarchy is new or has changed.
    Announced {
        /// Who.
        peer: NodeName,
        /// Of what.
        hierarchy: HierarchyName,
    },
    /// A peer does not know a hierarchy any more.
    Withdrawn {
        /// Who.
        peer: NodeName,
        /// Of what.
        hierarchy: HierarchyName,
    },
    /// What a peer tells of itself is new or has changed.
    NodeAnnounced {
        /// Who.
        peer: NodeName,
    },
    /// Everything that a peer in contact has to tell has arrived.
    Synced {
        /// Who.
        peer: NodeName,
    },
    /// A channel was silent for longer than ever before, and for more than half its `dead_after`: that is tight.
    Gap {
        /// Whose beats.
        peer: NodeName,
        /// Where.
        channel: ChannelName,
        /// How long nothing came.
        gap: Duration,
        /// What would have been too long.
        dead_after: Duration,
    },
    /// This node itself did not run for this long beyond what was due; the silence in it is held against nobody.
    Paused {
        /// How long.
        for_about: Duration,
    },
    /// A parcel arrived.
    Parcel {
        /// From whom.
        from: NodeName,
        /// What.
        bytes: Vec<u8>,
    },
    /// A parcel of ours has arrived.
    ParcelDelivered {
        /// To whom.
        to: NodeName,
        /// Which.
        id: ParcelId,
    },
    /// A parcel of ours was given up. Whether it arrived is not known.
    ParcelFailed {
        /// To whom.
        to: NodeName,
        /// Which.
        id: ParcelId,
        /// Why.
        why: ParcelFailure,
    },
    /// Others know a later life of this node than this one, and refuse what it says: go on with a greater incarnation
    /// ([`Contact::reincarnate`](super::Contact::reincarnate)). The clock was set back before the start; or, if it
    /// happens again, a second agent runs under this name.
    KnownAsLater {
        /// The greatest that a peer knows.
        incarnation: Incarnation,
    },
}

impl fmt::Display for ContactEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alive { peer, after: None } => write!(f, "{peer} is heard"),
            Self::Alive { peer, after: Some(silence) } => write!(f, "{peer} is heard again after {}", Span(*silence)),
            Self::Late { peer } => write!(f, "{peer} is late"),
            Self::Lost { peer, since } => write!(f, "contact with {peer} lost, silent since {since}"),
            Self::Left { peer } => write!(f, "{peer} said goodbye"),
            Self::Restarted { peer, rebooted: true } => write!(f, "{peer} was booted"),
            Self::Restarted { peer, rebooted: false } => write!(f, "the agent on {peer} was restarted"),
            Self::Announced { peer, hierarchy } => write!(f, "{peer} announced {hierarchy}"),
            Self::Withdrawn { peer, hierarchy } => write!(f, "{peer} does not know {hierarchy} any more"),
            Self::NodeAnnounced { peer } => write!(f, "{peer} announced itself"),
            Self::Synced { peer } => write!(f, "everything {peer} has to tell is known"),
            Self::Gap { peer, channel, gap, dead_after } => write!(
                f,
                "nothing came from {peer} on {channel} for {}: dead_after ({}) is tight",
                Span(*gap),
                Span(*dead_after)
            ),
            Self::Paused { for_about } => {
                write!(f, "this node did not run for {}: silence meanwhile is not counted", Span(*for_about))
            }
            Self::Parcel { from, bytes } => write!(f, "parcel of {} bytes from {from}", bytes.len()),
            Self::ParcelDelivered { to, id } => write!(f, "parcel {id} to {to} arrived"),
            Self::ParcelFailed { to, id, why } => write!(f, "parcel {id} to {to} given up: {why}"),
            Self::KnownAsLater { incarnation } => write!(
                f,
                "others know a later life of this node (incarnation {incarnation}): clock set back, or a second agent \
                 under this name"
            ),
        }
    }
}
