//! Parcels: larger things, such as commands and views, carried whole to one peer.
//!
//! Decides how a parcel is cut, acknowledged, sent again and given up. Leaves to others what is in it. A parcel is
//! handed over at most once; its sender is told that it arrived, or that it gave up and does not know.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::name::{Incarnation, NodeName};
use crate::time::{Span, Time};

use super::message::{Fragment, FragmentAck, Message};
use super::timing::Timing;

/// The greatest parcel, in bytes.
pub const PARCEL_MAX: usize = 1 << 20;
/// The bytes of each piece but the last.
pub(super) const FRAGMENT_BYTES: usize = 1100;
/// The pieces of the greatest parcel.
pub(super) const FRAGMENT_COUNT_MAX: usize = PARCEL_MAX.div_ceil(FRAGMENT_BYTES);
/// So many parcels may wait for one peer.
const WAITING_MAX: usize = 64;
/// So many pieces may be on their way to one peer, so that its receive buffer holds them.
const WINDOW: usize = 32;

/// Which parcel, of one life of its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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
    /// This node has said goodbye.
    #[error("this node has said goodbye to the others and sends nothing more")]
    Leaving,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// This node said goodbye meanwhile.
    Leaving,
}

impl fmt::Display for ParcelFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut { after } => write!(f, "no answer for {}", Span(*after)),
            Self::PeerRestarted => f.write_str("the addressee left or was restarted"),
            Self::Leaving => f.write_str("this node left"),
            Self::Reincarnated => f.write_str("this node changed its incarnation"),
        }
    }
}

/// Parcels to one peer: one at a time, in order.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Outbox {
    waiting: VecDeque<Outgoing>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Outgoing {
    id: ParcelId,
    bytes: Vec<u8>,
    given_at: Time,
    pieces: Vec<Piece>,
    resend_at: Option<Time>,
    resend_after: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Piece {
    Waiting,
    Sent,
    Arrived,
}

impl Outbox {
    /// Takes a parcel in; the caller has checked its size.
    pub(super) fn give(&mut self, id: ParcelId, to: &NodeName, bytes: Vec<u8>, now: Time) -> Result<(), ParcelRefused> {
        if self.waiting.len() >= WAITING_MAX {
            return Err(ParcelRefused::TooMany { to: to.clone(), waiting: self.waiting.len() });
        }
        let pieces = vec![Piece::Waiting; bytes.len().div_ceil(FRAGMENT_BYTES).max(1)];
        let (resend_at, resend_after) = (None, Duration::ZERO);
        self.waiting.push_back(Outgoing { id, bytes, given_at: now, pieces, resend_at, resend_after });
        Ok(())
    }

    pub(super) fn deadline(&self, timing: &Timing) -> Option<Time> {
        let first = self.waiting.front()?;
        let give_up_at = first.given_at + timing.parcel_deadline();
        Some(first.resend_at.map_or(give_up_at, |at| at.min(give_up_at)))
    }

    /// Stops sending until [`Outbox::send`] is called again: the peer is not in contact.
    pub(super) fn pause(&mut self) {
        if let Some(first) = self.waiting.front_mut() {
            first.resend_at = None;
            first.resend_after = Duration::ZERO;
            for piece in first.pieces.iter_mut().filter(|p| **p == Piece::Sent) {
                *piece = Piece::Waiting;
            }
        }
    }

    /// Gives everything up.
    pub(super) fn fail(&mut self) -> Vec<ParcelId> {
        self.waiting.drain(..).map(|parcel| parcel.id).collect()
    }

    /// Gives up what has been tried for too long.
    pub(super) fn expire(&mut self, now: Time, timing: &Timing) -> Vec<ParcelId> {
        let mut expired = Vec::new();
        while let Some(first) = self.waiting.front() {
            if first.given_at + timing.parcel_deadline() > now {
                break;
            }
            expired.push(first.id);
            self.waiting.pop_front();
        }
        expired
    }

    /// The pieces to be sent now.
    pub(super) fn send(&mut self, addressee: Incarnation, now: Time, timing: &Timing) -> Vec<Message> {
        let Some(first) = self.waiting.front_mut() else { return Vec::new() };
        if first.resend_at.is_some_and(|at| at <= now) {
            for piece in first.pieces.iter_mut().filter(|p| **p == Piece::Sent) {
                *piece = Piece::Waiting;
            }
            first.resend_after = (first.resend_after * 2).min(timing.interval * 20);
            first.resend_at = None;
        }
        let on_their_way = first.pieces.iter().filter(|p| **p == Piece::Sent).count();
        let count = first.pieces.len() as u16;
        let mut messages = Vec::new();
        let fresh = first.pieces.iter_mut().enumerate().filter(|(_, p)| **p == Piece::Waiting);
        for (index, piece) in fresh.take(WINDOW.saturating_sub(on_their_way)) {
            *piece = Piece::Sent;
            let start = index * FRAGMENT_BYTES;
            let end = (start + FRAGMENT_BYTES).min(first.bytes.len());
            messages.push(Message::Fragment(Fragment {
                parcel: first.id,
                addressee,
                index: index as u16,
                count,
                bytes: first.bytes[start..end].to_vec(),
            }));
        }
        if !messages.is_empty() && first.resend_at.is_none() {
            first.resend_after = first.resend_after.max(timing.interval * 2);
            first.resend_at = Some(now + first.resend_after);
        }
        messages
    }

    /// Takes an acknowledgement in; returns the parcel if it has arrived whole.
    pub(super) fn acknowledge(&mut self, ack: &FragmentAck, now: Time, timing: &Timing) -> Option<ParcelId> {
        let first = self.waiting.front_mut().filter(|first| first.id == ack.parcel)?;
        if ack.complete {
            return self.waiting.pop_front().map(|parcel| parcel.id);
        }
        let mut news = false;
        for (index, piece) in first.pieces.iter_mut().enumerate() {
            let arrived = ack.arrived.get(index / 8).is_some_and(|byte| byte >> (index % 8) & 1 == 1);
            if arrived && *piece != Piece::Arrived {
                *piece = Piece::Arrived;
                news = true;
            }
        }
        if news {
            first.resend_after = timing.interval * 2;
            first.resend_at = Some(now + first.resend_after);
        }
        None
    }
}

/// Parcels from one life of one peer. Holds the pieces of one parcel at most.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Inbox {
    /// The last parcel that was handed over.
    delivered: Option<ParcelId>,
    arriving: Option<Arriving>,
    ack_at: Option<Time>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Arriving {
    id: ParcelId,
    pieces: Vec<Option<Vec<u8>>>,
    missing: usize,
    forget_at: Time,
}

impl Inbox {
    pub(super) fn deadline(&self) -> Option<Time> {
        [self.ack_at, self.arriving.as_ref().map(|a| a.forget_at)].into_iter().flatten().min()
    }

    #[cfg(test)]
    pub(super) fn holds_pieces(&self) -> bool {
        self.arriving.is_some()
    }

    /// Takes a piece in; returns the parcel if it is complete now.
    pub(super) fn accept(&mut self, fragment: Fragment, now: Time, timing: &Timing) -> Option<Vec<u8>> {
        if self.delivered.is_some_and(|delivered| fragment.parcel <= delivered) {
            if self.delivered == Some(fragment.parcel) {
                self.ack_at = Some(now);
            }
            return None;
        }
        if self.arriving.as_ref().is_none_or(|a| a.id < fragment.parcel) {
            self.arriving = Some(Arriving {
                id: fragment.parcel,
                pieces: vec![None; usize::from(fragment.count)],
                missing: usize::from(fragment.count),
                forget_at: now,
            });
        }
        let arriving = self.arriving.as_mut().filter(|a| a.id == fragment.parcel)?;
        let count = arriving.pieces.len();
        let piece = arriving.pieces.get_mut(usize::from(fragment.index))?;
        if usize::from(fragment.count) != count {
            return None;
        }
        if piece.is_none() {
            *piece = Some(fragment.bytes);
            arriving.missing -= 1;
        }
        arriving.forget_at = now + timing.parcel_deadline();
        if arriving.missing > 0 {
            // Not at once, so that a burst of pieces is acknowledged together.
            self.ack_at = self.ack_at.or(Some(now + timing.interval / 10));
            return None;
        }
        self.ack_at = Some(now);
        self.delivered = Some(fragment.parcel);
        let whole = self.arriving.take()?;
        Some(whole.pieces.into_iter().flatten().flatten().collect())
    }

    /// Forgets a parcel that its sender has given up, and acknowledges what is due.
    pub(super) fn handle_timeout(&mut self, sender: Incarnation, now: Time) -> Option<FragmentAck> {
        if self.arriving.as_ref().is_some_and(|a| a.forget_at <= now) {
            self.arriving = None;
        }
        self.ack_at.filter(|at| *at <= now)?;
        self.ack_at = None;
        if let Some(arriving) = &self.arriving {
            let mut arrived = vec![0u8; arriving.pieces.len().div_ceil(8)];
            for (index, _) in arriving.pieces.iter().enumerate().filter(|(_, piece)| piece.is_some()) {
                arrived[index / 8] |= 1 << (index % 8);
            }
            return Some(FragmentAck { parcel: arriving.id, sender, complete: false, arrived });
        }
        let parcel = self.delivered?;
        Some(FragmentAck { parcel, sender, complete: true, arrived: Vec::new() })
    }
}
