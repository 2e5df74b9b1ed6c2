//! What nodes say to each other: the content of one sealed datagram.
//!
//! Decides what is said. Leaves its bytes to the codec, and its seal to the seal module.

use serde::{Deserialize, Serialize};

use crate::name::{BootId, HierarchyName, Incarnation};

use super::announcement::{Announcement, NodeAnnouncement};
use super::ids::NodeId;
use super::parcel::ParcelId;

/// One message. Who sent it, and which life of it, stands outside, on the seal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// I am here.
    Beat(Beat),
    /// This changed in what I tell of myself.
    Delta(Delta),
    /// A piece of a parcel.
    Fragment(Fragment),
    /// Pieces of a parcel have arrived.
    FragmentAck(FragmentAck),
    /// I leave in order.
    Goodbye,
}

impl Message {
    /// Whether this may be taken by the life `me` of its addressee. What was meant for an earlier one may have been
    /// recorded then; a beat shows by its sequence, and by whom it names, whether it is new.
    pub(super) fn is_for(&self, me: Incarnation) -> bool {
        match self {
            Message::Beat(_) | Message::Goodbye => true,
            Message::Delta(delta) => delta.addressee == me,
            Message::Fragment(fragment) => fragment.addressee == me,
            Message::FragmentAck(ack) => ack.sender == me,
        }
    }
}

/// A beat: small, the same size whatever the number of hierarchies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// Counts the beats of this life.
    pub sequence: u64,
    /// The boot of the sender's machine.
    pub boot: BootId,
    /// The version of what the sender tells of itself.
    pub version: u64,
    /// What the sender knows of the others that it has ever heard.
    pub peers: Vec<BeatPeer>,
}

/// What the sender of a beat knows of another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BeatPeer {
    /// Which.
    pub id: NodeId,
    /// The greatest incarnation of it that the sender knows.
    pub incarnation: Incarnation,
    /// Up to which version the sender has what that life told: the acknowledgement of deltas.
    pub have: u64,
    /// How long ago the sender itself last heard it, in microseconds; `None` if it does not hear it.
    pub age_us: Option<u32>,
}

/// One part of what changed between two versions of what a node tells of itself.
///
/// To be applied exactly if the receiver has version `base` or a later one, and not `to` already; then it has `to`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// For which life of the addressee; another one must not take it.
    pub addressee: Incarnation,
    /// The part holds everything that changed after this version,
    pub base: u64,
    /// and up to this one.
    pub to: u64,
    /// The version of everything that the sender has to tell now; more is to come if it is greater than `to`.
    pub version: u64,
    /// As it is now, in the order in which it changed.
    pub items: Vec<Item>,
}

/// One thing that a node tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Item {
    /// Of itself.
    Node(NodeAnnouncement),
    /// Of a hierarchy.
    Hierarchy(HierarchyName, Box<Announcement>),
    /// It does not know this hierarchy any more.
    Withdrawn(HierarchyName),
}

/// A piece of a parcel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fragment {
    /// Of which parcel.
    pub parcel: ParcelId,
    /// For which life of the addressee; another one must not take it.
    pub addressee: Incarnation,
    /// Which piece, counted from 0.
    pub index: u16,
    /// Of how many.
    pub count: u16,
    /// The piece.
    pub bytes: Vec<u8>,
}

/// Which pieces of a parcel have arrived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FragmentAck {
    /// Of which parcel.
    pub parcel: ParcelId,
    /// Of which life of the parcel's sender.
    pub sender: Incarnation,
    /// All of them.
    pub complete: bool,
    /// Bit i of byte i / 8, the lowest first: whether piece i is there. Empty when complete.
    pub arrived: Vec<u8>,
}
