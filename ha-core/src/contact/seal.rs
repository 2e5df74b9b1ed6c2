//! The seal around every message: who sent it, that nobody changed it, and that it is heard once.
//!
//! A datagram is a header of 28 bytes, the message sealed with XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha), and its
//! tag of 16 bytes:
//!
//! | bytes | what |
//! |---|---|
//! | 2 | `HB` |
//! | 1 | version of this format and of the messages in it: 1 |
//! | 1 | number of the key |
//! | 4 | [`NodeId`] of the sender |
//! | 4 | [`NodeId`] of the addressee |
//! | 8 | incarnation of the sender, big-endian |
//! | 8 | counter, big-endian, from 1 |
//!
//! The header and the cluster's name are authenticated with the message. The nonce is (sender, incarnation, counter)
//! and a digest of the cluster's name, so it is never used twice as long as no incarnation is. Each receiver takes from
//! a sender only its newest incarnation, and each counter once, within a window behind the greatest one seen.
//!
//! Leaves to the driver the datagrams themselves. What the seal cannot show is *when* a datagram was sent: one that
//! somebody held back passes once, if nothing much newer came before it.

use std::collections::BTreeMap;
use std::fmt;

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{Key, KeyInit, XChaCha20Poly1305, XNonce};

use crate::name::{ClusterName, Incarnation, NodeName};

use super::codec::DecodeError;
use super::ids::{NodeId, NodeIds};
use super::keys::{KeyId, KeyRing};
use super::message::Message;

const MAGIC: [u8; 2] = *b"HB";
const VERSION: u8 = 1;
const HEADER_BYTES: usize = 28;
const TAG_BYTES: usize = 16;

/// What a seal adds to a message, in bytes.
pub const SEAL_BYTES: usize = HEADER_BYTES + TAG_BYTES;

/// A datagram that is not listened to. Nothing was changed by it but the count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Refused {
    /// Shorter than a sealed message can be.
    #[error("too short to be a sealed message")]
    TooShort,
    /// Something else altogether.
    #[error("not a datagram of this protocol")]
    BadMagic,
    /// Of another version of the protocol.
    #[error("version {0} of the protocol, expected {VERSION}: upgrade one side")]
    WrongVersion(u8),
    /// Addressed to another node: seen on a channel that several nodes listen to.
    #[error("addressed to another node")]
    NotForMe,
    /// From a node that is not configured here.
    #[error("from a node ({0}) that is not configured here: are the nodes listed alike on all nodes?")]
    UnknownSender(NodeId),
    /// Says that this node sent it itself: an echo, or a second agent of the same name.
    #[error("said to be from this node itself")]
    FromMyself,
    /// Sealed with a key that is not in the ring.
    #[error("sealed with key {0}, which is not in the key file here")]
    UnknownKey(KeyId),
    /// Changed on the way, sealed with another secret, or of another cluster.
    #[error("not authentic: changed on the way, another key, or another cluster")]
    NotAuthentic,
    /// From a life of its sender before the one heard already.
    #[error("from an earlier life of its sender")]
    OldIncarnation,
    /// Heard already, or too old to tell.
    #[error("heard already")]
    Replayed,
    /// Authentic, but not readable.
    #[error(transparent)]
    NotReadable(#[from] DecodeError),
}

/// How many datagrams were refused, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each counts the variant of `Refused` of the same name")]
pub struct RefusedCounts {
    pub too_short: u64,
    pub bad_magic: u64,
    pub wrong_version: u64,
    pub not_for_me: u64,
    pub unknown_sender: u64,
    pub from_myself: u64,
    pub unknown_key: u64,
    pub not_authentic: u64,
    pub old_incarnation: u64,
    pub replayed: u64,
    pub not_readable: u64,
}

impl RefusedCounts {
    fn count(&mut self, refused: Refused) {
        *match refused {
            Refused::TooShort => &mut self.too_short,
            Refused::BadMagic => &mut self.bad_magic,
            Refused::WrongVersion(_) => &mut self.wrong_version,
            Refused::NotForMe => &mut self.not_for_me,
            Refused::UnknownSender(_) => &mut self.unknown_sender,
            Refused::FromMyself => &mut self.from_myself,
            Refused::UnknownKey(_) => &mut self.unknown_key,
            Refused::NotAuthentic => &mut self.not_authentic,
            Refused::OldIncarnation => &mut self.old_incarnation,
            Refused::Replayed => &mut self.replayed,
            Refused::NotReadable(_) => &mut self.not_readable,
        } += 1;
    }

    /// Each reason with its count, for the status and the metrics.
    pub fn by_reason(&self) -> [(&'static str, u64); 11] {
        [
            ("too_short", self.too_short),
            ("bad_magic", self.bad_magic),
            ("wrong_version", self.wrong_version),
            ("not_for_me", self.not_for_me),
            ("unknown_sender", self.unknown_sender),
            ("from_myself", self.from_myself),
            ("unknown_key", self.unknown_key),
            ("not_authentic", self.not_authentic),
            ("old_incarnation", self.old_incarnation),
            ("replayed", self.replayed),
            ("not_readable", self.not_readable),
        ]
    }
}

/// A message whose seal was good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Who sent it.
    pub from: NodeName,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// What it says.
    pub message: Message,
}

/// A message could not be sealed: this life has sent 2^64 datagrams, or the message is larger than the cipher takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message could not be sealed: restart the agent")]
pub struct NotSealed;

/// Seals what this node sends.
pub struct Sealer {
    me: NodeId,
    cluster: ClusterName,
    incarnation: Incarnation,
    counter: u64,
    key: KeyId,
    cipher: XChaCha20Poly1305,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer")
            .field("incarnation", &self.incarnation)
            .field("counter", &self.counter)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

impl Sealer {
    /// Begins a life. No incarnation may be used twice with the same keys.
    pub fn new(me: &NodeName, cluster: &ClusterName, keys: &KeyRing, incarnation: Incarnation) -> Self {
        let (key, cipher) = sending_cipher(keys);
        Self { me: NodeId::of(me), cluster: cluster.clone(), incarnation, counter: 0, key, cipher }
    }

    /// Seals with the keys of a ring that was changed.
    pub fn set_keys(&mut self, keys: &KeyRing) {
        (self.key, self.cipher) = sending_cipher(keys);
    }

    /// Goes on as a later life; does nothing if `incarnation` is not greater.
    pub fn reincarnate(&mut self, incarnation: Incarnation) {
        if incarnation > self.incarnation {
            self.incarnation = incarnation;
            self.counter = 0;
        }
    }

    /// Seals a message for a node. Each channel's datagram is sealed anew, so that the copies are not taken for
    /// replays.
    pub fn seal(&mut self, to: &NodeName, message: &Message) -> Result<Vec<u8>, NotSealed> {
        let mut plain = Vec::with_capacity(256);
        message.encode(&mut plain);
        self.seal_bytes(to, &plain)
    }

    /// Seals a message as a later version of the software may say it.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn seal_as_later(&mut self, to: &NodeName, message: &Message) -> Result<Vec<u8>, NotSealed> {
        let mut plain = Vec::with_capacity(256);
        super::codec::encode_as_later(message, &mut plain);
        self.seal_bytes(to, &plain)
    }

    fn seal_bytes(&mut self, to: &NodeName, plain: &[u8]) -> Result<Vec<u8>, NotSealed> {
        self.counter = self.counter.checked_add(1).ok_or(NotSealed)?;
        let mut datagram = Vec::with_capacity(256);
        datagram.extend_from_slice(&MAGIC);
        datagram.extend_from_slice(&[VERSION, self.key.0]);
        datagram.extend_from_slice(&self.me.0.to_be_bytes());
        datagram.extend_from_slice(&NodeId::of(to).0.to_be_bytes());
        datagram.extend_from_slice(&self.incarnation.0.to_be_bytes());
        datagram.extend_from_slice(&self.counter.to_be_bytes());
        let nonce = nonce(self.me, self.incarnation, self.counter, &self.cluster);
        let aad = associated_data(&datagram, &self.cluster);
        let sealed = self.cipher.encrypt(&nonce, Payload { msg: plain, aad: &aad }).map_err(|_| NotSealed)?;
        datagram.extend_from_slice(&sealed);
        Ok(datagram)
    }
}

/// Opens what this node receives, and keeps what it needs to know replays.
pub struct Opener {
    me: NodeId,
    cluster: ClusterName,
    nodes: NodeIds,
    ciphers: BTreeMap<KeyId, XChaCha20Poly1305>,
    heard: BTreeMap<NodeId, Heard>,
    refused: RefusedCounts,
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener")
            .field("keys", &self.ciphers.keys().collect::<Vec<_>>())
            .field("refused", &self.refused)
            .finish_non_exhaustive()
    }
}

impl Opener {
    /// Listens to the nodes given.
    pub fn new(me: &NodeName, cluster: &ClusterName, nodes: NodeIds, keys: &KeyRing) -> Self {
        Self {
            me: NodeId::of(me),
            cluster: cluster.clone(),
            nodes,
            ciphers: all_ciphers(keys),
            heard: BTreeMap::new(),
            refused: RefusedCounts::default(),
        }
    }

    /// Accepts the keys of a ring that was changed. What was heard is not forgotten.
    pub fn set_keys(&mut self, keys: &KeyRing) {
        self.ciphers = all_ciphers(keys);
    }

    /// What was refused since the start.
    pub fn refused(&self) -> &RefusedCounts {
        &self.refused
    }

    /// Opens a datagram. One that is refused changes nothing but the count of its reason.
    pub fn open(&mut self, datagram: &[u8]) -> Result<Opened, Refused> {
        let opened = self.try_open(datagram);
        if let Err(refused) = &opened {
            self.refused.count(*refused);
        }
        opened
    }

    fn try_open(&mut self, datagram: &[u8]) -> Result<Opened, Refused> {
        let (header, sealed) = datagram.split_first_chunk::<HEADER_BYTES>().ok_or(Refused::TooShort)?;
        if header[..2] != MAGIC {
            return Err(Refused::BadMagic);
        }
        if header[2] != VERSION {
            return Err(Refused::WrongVersion(header[2]));
        }
        if sealed.len() <= TAG_BYTES {
            return Err(Refused::TooShort);
        }
        let key = KeyId(header[3]);
        let sender = NodeId(number(&header[4..8]) as u32);
        let addressee = NodeId(number(&header[8..12]) as u32);
        let incarnation = Incarnation(number(&header[12..20]));
        let counter = number(&header[20..28]);
        if addressee != self.me {
            return Err(Refused::NotForMe);
        }
        if sender == self.me {
            return Err(Refused::FromMyself);
        }
        let from = self.nodes.name(sender).ok_or(Refused::UnknownSender(sender))?.clone();
        let cipher = self.ciphers.get(&key).ok_or(Refused::UnknownKey(key))?;
        let nonce = nonce(sender, incarnation, counter, &self.cluster);
        let aad = associated_data(header, &self.cluster);
        let plain = cipher.decrypt(&nonce, Payload { msg: sealed, aad: &aad }).map_err(|_| Refused::NotAuthentic)?;
        let heard = match self.heard.get(&sender) {
            Some(heard) if incarnation < heard.incarnation => return Err(Refused::OldIncarnation),
            Some(heard) if incarnation == heard.incarnation => heard.with(counter).ok_or(Refused::Replayed)?,
            _ => Heard::first(incarnation, counter),
        };
        let message = Message::decode(&plain)?;
        self.heard.insert(sender, heard);
        Ok(Opened { from, incarnation, message })
    }
}

const WINDOW_WORDS: usize = 32;
/// How far behind the greatest counter a datagram may come, so that several channels of different speed do not take
/// each other's datagrams for replays.
const WINDOW: u64 = WINDOW_WORDS as u64 * 64;

/// Which counters of a sender's newest life were heard: a sliding window, as in RFC 6479 (a ring of bits).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Heard {
    incarnation: Incarnation,
    greatest: u64,
    /// Bit `counter % WINDOW`, for the counters of the window only.
    ring: [u64; WINDOW_WORDS],
}

impl Heard {
    fn first(incarnation: Incarnation, counter: u64) -> Self {
        let mut heard = Self { incarnation, greatest: counter, ring: [0; WINDOW_WORDS] };
        heard.mark(counter);
        heard
    }

    fn place(counter: u64) -> (usize, u64) {
        let bit = counter % WINDOW;
        ((bit / 64) as usize, 1 << (bit % 64))
    }

    fn mark(&mut self, counter: u64) {
        let (word, mask) = Self::place(counter);
        self.ring[word] |= mask;
    }

    /// With this counter heard too; `None` if it was heard before, or is too far behind to tell.
    fn with(&self, counter: u64) -> Option<Self> {
        let mut next = *self;
        if counter > self.greatest {
            if counter - self.greatest >= WINDOW {
                next.ring = [0; WINDOW_WORDS];
            } else {
                for skipped in self.greatest + 1..counter {
                    let (word, mask) = Self::place(skipped);
                    next.ring[word] &= !mask;
                }
            }
            next.greatest = counter;
        } else {
            let (word, mask) = Self::place(counter);
            if self.greatest - counter >= WINDOW || self.ring[word] & mask != 0 {
                return None;
            }
        }
        next.mark(counter);
        Some(next)
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

fn nonce(sender: NodeId, incarnation: Incarnation, counter: u64, cluster: &ClusterName) -> XNonce {
    let mut nonce = [0; 24];
    nonce[..4].copy_from_slice(&sender.0.to_be_bytes());
    nonce[4..12].copy_from_slice(&incarnation.0.to_be_bytes());
    nonce[12..20].copy_from_slice(&counter.to_be_bytes());
    nonce[20..].copy_from_slice(&crc32c::crc32c(cluster.as_str().as_bytes()).to_be_bytes());
    nonce.into()
}

fn associated_data(header: &[u8], cluster: &ClusterName) -> Vec<u8> {
    [header, cluster.as_str().as_bytes()].concat()
}

fn cipher(secret: &[u8; 32]) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(&Key::from(*secret))
}

fn all_ciphers(keys: &KeyRing) -> BTreeMap<KeyId, XChaCha20Poly1305> {
    keys.secrets().map(|(id, secret)| (id, cipher(secret))).collect()
}

fn sending_cipher(keys: &KeyRing) -> (KeyId, XChaCha20Poly1305) {
    (keys.sending(), cipher(keys.sending_secret()))
}
