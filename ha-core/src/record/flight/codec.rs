//! Segments as bytes.
//!
//! Decides what a whole record is. Leaves what follows from one to the replay.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::engine::{Call, Effect, Engine, EngineConfig};
use crate::name::{ClusterName, Incarnation, NodeName};
use crate::time::Time;

/// The format of what this version writes. Changes with the meaning of a frame or of a record's kind; what is inside of a call may differ
/// between versions of the software all the same.
pub const FORMAT: u32 = 1;

const MAGIC: &[u8; 8] = b"HAFLIGHT";
/// Length and checksum.
const FRAME_HEAD: usize = 8;

/// One thing written down.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Record<'a> {
    /// What the segment is; always first.
    Header(Header),
    /// What the engine was before the calls of this segment; always second.
    Start(Start<'a>),
    /// A call, written before it was made.
    Call {
        /// How long after the moment of the one before, or of the header, in nanoseconds; wraps where the clock went back.
        after_ns: u64,
        /// The call.
        call: Cow<'a, Call>,
    },
    /// What the call before led to; left out if it was nothing.
    LedTo(LedTo),
    /// The engine was ended in order.
    End,
}

/// What a segment is. Readable by every version of one [`FORMAT`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The version of the software that recorded it ([`super::SOFTWARE`]).
    pub software: String,
    /// The cluster.
    pub cluster: ClusterName,
    /// The node.
    pub node: NodeName,
    /// The life of the agent, as it began.
    pub life: Incarnation,
    /// How many calls this life had made before: those missing were lost.
    pub calls_before: u64,
    /// The moment of the last call before, on the node's clock.
    pub at: Time,
    /// The same on the wall clock, in nanoseconds since 1970 UTC, as well as the node knew it.
    pub wall_ns: u64,
}

/// What a segment begins with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Start<'a> {
    /// A new engine, made of this at the header's moment.
    New(Box<Cow<'a, EngineConfig>>),
    /// An engine in the middle of its work.
    State(Box<Cow<'a, Engine>>),
}

/// What a call led to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedTo {
    /// CRC-32C of all effects in postcard's encoding, one after the other. Only the same version is sure to find the same.
    pub digest: u32,
    /// The effects that are not [routine](Effect::is_routine), in words.
    pub decisions: Vec<String>,
}

impl LedTo {
    /// `None` if there are no effects. `scratch` is used and left as it is, to save its allocation.
    pub fn of<'a>(effects: impl IntoIterator<Item = &'a Effect>, scratch: &mut Vec<u8>) -> Option<Self> {
        let mut led_to: Option<LedTo> = None;
        for effect in effects {
            let this = led_to.get_or_insert_default();
            scratch.clear();
            encode(effect, scratch);
            this.digest = crc32c::crc32c_append(this.digest, scratch);
            if !effect.is_routine() {
                this.decisions.push(effect.to_string());
            }
        }
        led_to
    }
}

/// Appends the encoding of a value.
pub(super) fn encode(value: &impl Serialize, into: &mut Vec<u8>) {
    let before = into.len();
    // Nothing of ours has a length that serde does not know beforehand, the only thing that postcard refuses.
    match postcard::to_extend(value, std::mem::take(into)) {
        Ok(longer) => *into = longer,
        Err(_) => into.truncate(before),
    }
}

/// Begins a segment.
pub(super) fn begin_segment(into: &mut Vec<u8>) {
    into.extend_from_slice(MAGIC);
    into.extend_from_slice(&FORMAT.to_le_bytes());
}

/// Leaves room for the head of a frame; the payload is to be appended.
pub(super) fn begin_frame(into: &mut Vec<u8>) -> usize {
    let at = into.len();
    into.extend_from_slice(&[0; FRAME_HEAD]);
    at
}

/// Ends the frame that begins at `at`.
pub(super) fn end_frame(at: usize, bytes: &mut [u8]) {
    let length = (bytes.len() - at - FRAME_HEAD) as u32;
    let sum = checksum(length, &bytes[at + FRAME_HEAD..]);
    bytes[at..at + 4].copy_from_slice(&length.to_le_bytes());
    bytes[at + 4..at + 8].copy_from_slice(&sum.to_le_bytes());
}

fn checksum(length: u32, payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&length.to_le_bytes()), payload)
}

/// Why bytes are not a segment that can be replayed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It does not begin as one.
    #[error("this is not a recording: expected it to begin with {:?}", String::from_utf8_lossy(MAGIC))]
    NotARecording,
    /// Another format.
    #[error("this recording has format {0}, and this version ({software}) reads format {FORMAT}: use the version that recorded it", software = super::SOFTWARE)]
    Format(u32),
    /// It ends, or is damaged, before the first call.
    #[error("{0}, before the first call")]
    Damaged(#[from] Damage),
    /// What it begins with was written by another version.
    #[error(
        "this recording of {node} was made by version {software}, and its state cannot be read by this one ({ours}): use that version",
        node = header.node, software = header.software, ours = super::SOFTWARE
    )]
    OtherVersion {
        /// What it says of itself.
        header: Box<Header>,
    },
}

/// Why the records end early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The last frame is not whole: the writer was stopped in the middle of it.
    #[error("it is cut off at byte {at}")]
    Torn {
        /// Where the frame begins.
        at: usize,
    },
    /// The checksum of a frame is wrong.
    #[error("it is damaged at byte {at}")]
    Checksum {
        /// Where the frame begins.
        at: usize,
    },
    /// The checksum is right, and the record means nothing to this version.
    #[error("it has a record that this version does not understand at byte {at}")]
    Meaning {
        /// Where the frame begins.
        at: usize,
    },
}

/// The records of one segment, in order.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    bytes: &'a [u8],
    /// Where the next frame begins.
    at: usize,
    /// What is left of the present frame's payload, and where that frame begins.
    frame: (usize, &'a [u8]),
}

impl<'a> Records<'a> {
    /// Begins to read; returns what the segment begins with, and its calls.
    pub fn open(bytes: &'a [u8]) -> Result<(Header, Start<'static>, Self), Unreadable> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(Unreadable::NotARecording)?;
        let format = rest.first_chunk::<4>().ok_or(Damage::Torn { at: MAGIC.len() })?;
        let format = u32::from_le_bytes(*format);
        if format != FORMAT {
            return Err(Unreadable::Format(format));
        }
        let at = MAGIC.len() + 4;
        let mut records = Records { bytes, at, frame: (at, &[]) };
        let header = match records.next() {
            Some(Ok(Record::Header(header))) => header,
            Some(Err(damage)) => return Err(damage.into()),
            Some(Ok(_)) => return Err(Damage::Meaning { at }.into()),
            None => return Err(Damage::Torn { at }.into()),
        };
        match records.next() {
            // Alone in its frame: what another version wrote and this one takes for less is not what it was.
            Some(Ok(Record::Start(start))) if records.frame.1.is_empty() => Ok((header, start, records)),
            Some(Ok(_) | Err(Damage::Meaning { .. })) if header.software != super::SOFTWARE => {
                Err(Unreadable::OtherVersion { header: Box::new(header) })
            }
            Some(Err(damage)) => Err(damage.into()),
            Some(Ok(_)) => Err(Damage::Meaning { at }.into()),
            None => Err(Damage::Torn { at }.into()),
        }
    }

    /// So many bytes of the segment are whole frames, as far as was read.
    pub fn whole_bytes(&self) -> usize {
        self.at
    }

    fn next_frame(&mut self) -> Result<(), Damage> {
        let at = self.at;
        let rest = &self.bytes[at..];
        let torn = Damage::Torn { at };
        let (length, rest) = rest.split_first_chunk::<4>().ok_or(torn)?;
        let (sum, rest) = rest.split_first_chunk::<4>().ok_or(torn)?;
        let length = u32::from_le_bytes(*length);
        let payload = usize::try_from(length).ok().and_then(|n| rest.get(..n)).ok_or(torn)?;
        if checksum(length, payload) != u32::from_le_bytes(*sum) {
            return Err(Damage::Checksum { at });
        }
        self.at += FRAME_HEAD + payload.len();
        self.frame = (at, payload);
        Ok(())
    }
}

impl Iterator for Records<'_> {
    type Item = Result<Record<'static>, Damage>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.frame.1.is_empty() {
            if self.at == self.bytes.len() {
                return None;
            }
            if let Err(damage) = self.next_frame() {
                // Nothing can be known of what comes after.
                self.bytes = &self.bytes[..self.at];
                return Some(Err(damage));
            }
        }
        match postcard::take_from_bytes::<Record<'static>>(self.frame.1) {
            Ok((record, rest)) => {
                self.frame.1 = rest;
                Some(Ok(record))
            }
            Err(_) => {
                self.bytes = &self.bytes[..self.at];
                self.frame.1 = &[];
                Some(Err(Damage::Meaning { at: self.frame.0 }))
            }
        }
    }
}
