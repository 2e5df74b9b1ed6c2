//! Parcels: larger things, such as commands and views, carried whole to one peer.
//!
//! Decides how a parcel is cut, acknowledged, sent again and given up. Leaves to others what is in it. A parcel is handed over at
//! most once; its sender is told that it arrived, or that it gave up and does not know.

use std::fmt;
use std::time::Duration;

use crate::name::NodeName;
use crate::time::Span;

/// The greatest parcel, in bytes.
pub const PARCEL_MAX: usize = 1 << 20;

/// Which parcel, of one life of its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParcelId(pub u64);

impl fmt::Display for ParcelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a parcel was not accepted for sending. Nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParcelRefused {
    /// Greater than [`PARCEL_MAX`].
    #[error("a parcel of {0} bytes is too large: at most {PARCEL_MAX} bytes go into one")]
    TooLarge(usize),
    /// Not another node of this cluster.
    #[error("a parcel to {0} leads nowhere: it is not another node of this cluster")]
    NotAPeer(NodeName),
    /// Too many are waiting for that peer.
    #[error("{waiting} parcels are waiting for {to} already: wait until some have arrived or were given up")]
    TooMany {
        /// For whom.
        to: NodeName,
        /// How many.
        waiting: usize,
    },
}

/// Why a parcel was given up. Whether it arrived is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParcelFailure {
    /// Not acknowledged within [`Timing::parcel_deadline`](super::Timing::parcel_deadline).
    TimedOut {
        /// How long it was tried.
        after: Duration,
    },
    /// The addressee restarted meanwhile, or left; its new life knows nothing of it.
    PeerRestarted,
    /// This node's own incarnation changed meanwhile.
    Reincarnated,
}

impl fmt::Display for ParcelFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut { after } => write!(f, "no answer for {}", Span(*after)),
            Self::PeerRestarted => f.write_str("the addressee left or was restarted"),
            Self::Reincarnated => f.write_str("this node changed its incarnation"),
        }
    }
}
