//! The bytes of a [`Message`]: compact, the same on every machine, and each way in which they can be broken told apart.
//!
//! Whole numbers are LEB128 varints unless a fixed width is said; texts and names are a length and UTF-8. The version
//! of this format stands in the header of the [`seal`](super::seal). Leaves to others whether what is said makes sense.
//!
//! Nodes of several versions of the software work together while a cluster is upgraded. What a later one has to say in addition stands
//! at the end of a beat or of an item of a delta, in items of further kinds, or under further flags, and is skipped here.

use std::fmt;

use crate::claim::EarlyFailures;
use crate::hierarchy::Fingerprint;
use crate::name::{BootId, Epoch, HierarchyName, Incarnation, NodeName, Utility};

use super::announcement::{
    AnnouncedPhase, Announcement, Declined, Directive, Disturbance, DisturbanceKind, NodeAnnouncement,
};
use super::ids::NodeId;
use super::message::{Beat, BeatPeer, Delta, Fragment, FragmentAck, Item, Message};
use super::parcel::{FRAGMENT_BYTES, FRAGMENT_COUNT_MAX, ParcelId};

/// Reasons for people are cut to so many bytes, so that every announcement fits into one datagram.
pub const REASON_BYTES_MAX: usize = 200;
/// What disturbs a hierarchy, and why a node does not take it, is cut to so many.
pub const DISTURBANCE_BYTES_MAX: usize = 150;
/// Which storage a claim lives on is told in so many.
pub const STORAGE_BYTES_MAX: usize = 100;
/// Who asked for something, and software versions, are cut to so many bytes.
pub const SHORT_BYTES_MAX: usize = 64;

/// Which part of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each is named after the field that it stands for")]
pub enum Field {
    Kind,
    Sequence,
    Boot,
    Version,
    PeerCount,
    PeerId,
    PeerIncarnation,
    PeerHave,
    PeerAge,
    DeltaBase,
    DeltaTo,
    DeltaVersion,
    ItemCount,
    ItemKind,
    ItemLength,
    HierarchyName,
    Phase,
    Epoch,
    Utility,
    AnnouncementFlags,
    DeclinedWhy,
    DeclinedFor,
    Unready,
    FailureCount,
    FailureAge,
    Definition,
    Heir,
    DisturbanceKind,
    DisturbanceWhy,
    DisturbanceAge,
    Storage,
    DirectiveFlags,
    DirectiveSerial,
    DirectiveAuthor,
    DirectiveBy,
    DirectiveReason,
    Pin,
    Quarantined,
    Cleared,
    NodeFlags,
    Standby,
    SoftwareVersion,
    NodeDefinition,
    Parcel,
    Addressee,
    FragmentIndex,
    FragmentCount,
    FragmentBytes,
    AckSender,
    AckComplete,
    AckArrived,
}

/// In which way a field is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// The message ends within it, or before it.
    Missing,
    /// A number that is too large for the field.
    TooLarge,
    /// A value that means nothing.
    Meaningless,
    /// Text that is not UTF-8.
    NotText,
    /// A name that breaks the rules of names.
    NotAName,
}

/// A message that could not be read. Nothing of it was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
#[error("message not readable: {field:?} {fault}; do all nodes run versions that go together?")]
pub struct DecodeError {
    /// Where.
    pub field: Field,
    /// What.
    pub fault: Fault,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "is missing",
            Self::TooLarge => "is too large",
            Self::Meaningless => "means nothing",
            Self::NotText => "is not UTF-8",
            Self::NotAName => "is not a valid name",
        })
    }
}

const KIND_BEAT: u8 = 1;
const KIND_DELTA: u8 = 2;
const KIND_FRAGMENT: u8 = 3;
const KIND_FRAGMENT_ACK: u8 = 4;
const KIND_GOODBYE: u8 = 5;

const ITEM_NODE: u8 = 1;
const ITEM_HIERARCHY: u8 = 2;
const ITEM_WITHDRAWN: u8 = 3;

const HAS_DECLINED: u8 = 1;
const HAS_DECLINED_FOR: u8 = 2;
const HAS_UNREADY: u8 = 4;
const HAS_FAILURES: u8 = 8;
const HAS_DIRECTIVE: u8 = 16;
const HAS_HEIR: u8 = 32;
const HAS_DISTURBANCE: u8 = 64;
/// In the byte of the phase.
const HAS_STORAGE: u8 = 128;

const HAS_AUTHOR: u8 = 1;
const HAS_PIN: u8 = 2;
const IS_MAINTENANCE: u8 = 4;
const IS_STOPPED: u8 = 8;
const HAS_QUARANTINED: u8 = 16;

const PHASES: [AnnouncedPhase; 8] = [
    AnnouncedPhase::Out,
    AnnouncedPhase::Waiting,
    AnnouncedPhase::Claiming,
    AnnouncedPhase::Starting,
    AnnouncedPhase::InService,
    AnnouncedPhase::Restarting,
    AnnouncedPhase::Stopping,
    AnnouncedPhase::StopFailed,
];

const DISTURBANCES: [DisturbanceKind; 5] = [
    DisturbanceKind::Unproven,
    DisturbanceKind::ClaimLost,
    DisturbanceKind::Failed,
    DisturbanceKind::HandedOver,
    DisturbanceKind::Asked,
];

impl Message {
    /// Appends the message's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Message::Beat(beat) => {
                out.push(KIND_BEAT);
                put_beat(out, beat);
            }
            Message::Delta(delta) => {
                out.push(KIND_DELTA);
                put_number(out, delta.addressee.0);
                put_number(out, delta.base);
                put_number(out, delta.to.saturating_sub(delta.base));
                put_number(out, delta.version.saturating_sub(delta.to));
                put_number(out, delta.items.len() as u64);
                for item in &delta.items {
                    put_item(out, item);
                }
            }
            Message::Fragment(fragment) => {
                out.push(KIND_FRAGMENT);
                put_number(out, fragment.parcel.0);
                put_number(out, fragment.addressee.0);
                put_number(out, u64::from(fragment.index));
                put_number(out, u64::from(fragment.count));
                out.extend_from_slice(&fragment.bytes);
            }
            Message::FragmentAck(ack) => {
                out.push(KIND_FRAGMENT_ACK);
                put_number(out, ack.parcel.0);
                put_number(out, ack.sender.0);
                out.push(u8::from(ack.complete));
                out.extend_from_slice(&ack.arrived);
            }
            Message::Goodbye => out.push(KIND_GOODBYE),
        }
    }

    /// Reads a message. What a later version added is skipped.
    pub fn decode(bytes: &[u8]) -> Result<Message, DecodeError> {
        let mut input = Reader(bytes);
        Ok(match input.byte(Field::Kind)? {
            KIND_BEAT => Message::Beat(take_beat(&mut input)?),
            KIND_DELTA => Message::Delta(take_delta(&mut input)?),
            KIND_FRAGMENT => Message::Fragment(take_fragment(&mut input)?),
            KIND_FRAGMENT_ACK => Message::FragmentAck(take_fragment_ack(&mut input)?),
            KIND_GOODBYE => Message::Goodbye,
            _ => return Err(DecodeError { field: Field::Kind, fault: Fault::Meaningless }),
        })
    }
}

/// A message as a later version of the software may say it, with all that this one has to skip.
#[cfg(any(test, feature = "sim"))]
pub(super) fn encode_as_later(message: &Message, out: &mut Vec<u8>) {
    const MORE: &[u8] = b"more of it";
    let Message::Delta(delta) = message else {
        message.encode(out);
        return if matches!(message, Message::Beat(_)) {
            out.extend_from_slice(MORE)
        };
    };
    Message::Delta(Delta { items: Vec::new(), ..delta.clone() }).encode(out);
    out.pop();
    put_number(out, delta.items.len() as u64 + 1);
    for item in &delta.items {
        let mut body = Vec::new();
        let kind = put_item_body(&mut body, item);
        let flags = match item {
            Item::Node(_) => body.first_mut(),
            Item::Hierarchy(name, _) => body.get_mut(1 + name.as_str().len()),
            Item::Withdrawn(_) => None,
        };
        if let Some(flags) = flags {
            *flags |= 0x80;
        }
        out.push(kind);
        put_number(out, (body.len() + MORE.len()) as u64);
        out.extend_from_slice(&body);
        out.extend_from_slice(MORE);
    }
    out.push(ITEM_WITHDRAWN + 1);
    put_number(out, MORE.len() as u64);
    out.extend_from_slice(MORE);
}

/// How many bytes an item takes up in a delta.
pub(super) fn item_bytes(item: &Item) -> usize {
    let mut bytes = Vec::new();
    put_item(&mut bytes, item);
    bytes.len()
}

fn put_number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_text(out: &mut Vec<u8>, text: &str, max: usize) {
    let end = (0..=text.len().min(max)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
    let text = &text[..end];
    put_number(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn put_name(out: &mut Vec<u8>, name: &str) {
    put_text(out, name, usize::MAX);
}

fn put_beat(out: &mut Vec<u8>, beat: &Beat) {
    put_number(out, beat.sequence);
    out.extend_from_slice(&beat.boot.0);
    put_number(out, beat.version);
    put_number(out, beat.peers.len() as u64);
    for peer in &beat.peers {
        out.extend_from_slice(&peer.id.0.to_be_bytes());
        put_number(out, peer.incarnation.0);
        put_number(out, peer.have);
        put_number(out, peer.age_us.map_or(0, |age| u64::from(age) + 1));
    }
}

fn put_item(out: &mut Vec<u8>, item: &Item) {
    let mut body = Vec::new();
    let kind = put_item_body(&mut body, item);
    out.push(kind);
    put_number(out, body.len() as u64);
    out.extend_from_slice(&body);
}

/// Returns the item's kind.
fn put_item_body(out: &mut Vec<u8>, item: &Item) -> u8 {
    match item {
        Item::Node(node) => {
            out.push(u8::from(node.standby.is_some()));
            if let Some(reason) = &node.standby {
                put_text(out, reason, REASON_BYTES_MAX);
            }
            put_text(out, &node.version, SHORT_BYTES_MAX);
            out.extend_from_slice(&node.definition.0.to_be_bytes());
            ITEM_NODE
        }
        Item::Hierarchy(name, announcement) => {
            put_name(out, name.as_str());
            put_announcement(out, announcement);
            ITEM_HIERARCHY
        }
        Item::Withdrawn(name) => {
            put_name(out, name.as_str());
            ITEM_WITHDRAWN
        }
    }
}

fn put_announcement(out: &mut Vec<u8>, it: &Announcement) {
    let has_directive = it.directive != Directive::default();
    let has_failures = it.failures != EarlyFailures::default();
    let declined_for = it.declined.as_ref().and_then(|d| d.for_ms);
    out.push(
        flag(HAS_DECLINED, it.declined.is_some())
            | flag(HAS_DECLINED_FOR, declined_for.is_some())
            | flag(HAS_UNREADY, it.unready.is_some())
            | flag(HAS_FAILURES, has_failures)
            | flag(HAS_DIRECTIVE, has_directive)
            | flag(HAS_HEIR, it.heir.is_some())
            | flag(HAS_DISTURBANCE, it.disturbance.is_some()),
    );
    let phase = PHASES.iter().position(|p| *p == it.phase).unwrap_or_default() as u8;
    out.push(phase | flag(HAS_STORAGE, it.storage.is_some()));
    put_number(out, it.epoch.0);
    out.push(it.utility.get());
    out.extend_from_slice(&it.definition.0.to_be_bytes());
    if let Some(declined) = &it.declined {
        put_text(out, &declined.why, DISTURBANCE_BYTES_MAX);
    }
    if let Some(for_ms) = declined_for {
        put_number(out, for_ms);
    }
    if let Some(unready) = &it.unready {
        put_text(out, unready, DISTURBANCE_BYTES_MAX);
    }
    if has_failures {
        out.push(it.failures.count);
        put_number(out, u64::from(it.failures.first_ms_ago));
    }
    if has_directive {
        put_directive(out, &it.directive);
    }
    if let Some(heir) = &it.heir {
        put_name(out, heir.as_str());
    }
    if let Some(disturbance) = &it.disturbance {
        out.push(DISTURBANCES.iter().position(|k| *k == disturbance.kind).unwrap_or_default() as u8);
        put_text(out, &disturbance.why, DISTURBANCE_BYTES_MAX);
        put_number(out, u64::from(disturbance.told_after_ms));
    }
    if let Some(storage) = &it.storage {
        put_text(out, storage, STORAGE_BYTES_MAX);
    }
}

fn put_directive(out: &mut Vec<u8>, it: &Directive) {
    out.push(
        flag(HAS_AUTHOR, it.author.is_some())
            | flag(HAS_PIN, it.pin.is_some())
            | flag(IS_MAINTENANCE, it.maintenance)
            | flag(IS_STOPPED, it.stopped)
            | flag(HAS_QUARANTINED, it.quarantined.is_some()),
    );
    put_number(out, it.serial);
    if let Some(author) = &it.author {
        put_name(out, author.as_str());
    }
    put_text(out, &it.by, SHORT_BYTES_MAX);
    put_text(out, &it.reason, REASON_BYTES_MAX);
    if let Some(pin) = &it.pin {
        put_name(out, pin.as_str());
    }
    if let Some(why) = &it.quarantined {
        put_text(out, why, REASON_BYTES_MAX);
    }
    put_number(out, it.cleared);
}

fn flag(bit: u8, set: bool) -> u8 {
    if set { bit } else { 0 }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, field: Field, count: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(DecodeError { field, fault: Fault::Missing })?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: Field) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(DecodeError { field, fault: Fault::Missing })?;
        self.0 = rest;
        Ok(*taken)
    }

    fn byte(&mut self, field: Field) -> Result<u8, DecodeError> {
        self.array::<1>(field).map(|[byte]| byte)
    }

    fn fixed(&mut self, field: Field) -> Result<u64, DecodeError> {
        self.array(field).map(u64::from_be_bytes)
    }

    /// A varint of at most 64 bits.
    fn number(&mut self, field: Field) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte(field)?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(DecodeError { field, fault: Fault::TooLarge })
    }

    fn number_to(&mut self, field: Field, max: u64) -> Result<u64, DecodeError> {
        let value = self.number(field)?;
        if value <= max { Ok(value) } else { Err(DecodeError { field, fault: Fault::TooLarge }) }
    }

    fn truth(&mut self, field: Field) -> Result<bool, DecodeError> {
        match self.byte(field)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError { field, fault: Fault::Meaningless }),
        }
    }

    fn text(&mut self, field: Field, max: usize) -> Result<&'a str, DecodeError> {
        let length = self.number_to(field, max as u64)?;
        let bytes = self.bytes(field, length as usize)?;
        std::str::from_utf8(bytes).map_err(|_| DecodeError { field, fault: Fault::NotText })
    }

    fn name<N: for<'n> TryFrom<&'n str>>(&mut self, field: Field) -> Result<N, DecodeError> {
        let text = self.text(field, 63)?;
        N::try_from(text).map_err(|_| DecodeError { field, fault: Fault::NotAName })
    }

    /// A count of things that each take up at least one byte: never more than there are bytes.
    fn count(&mut self, field: Field) -> Result<usize, DecodeError> {
        let count = self.number(field)?;
        if count <= self.0.len() as u64 {
            Ok(count as usize)
        } else {
            Err(DecodeError { field, fault: Fault::TooLarge })
        }
    }
}

fn take_beat(input: &mut Reader<'_>) -> Result<Beat, DecodeError> {
    let sequence = input.number(Field::Sequence)?;
    let boot = BootId(input.array(Field::Boot)?);
    let version = input.number(Field::Version)?;
    let mut peers = Vec::new();
    for _ in 0..input.count(Field::PeerCount)? {
        peers.push(BeatPeer {
            id: NodeId(u32::from_be_bytes(input.array(Field::PeerId)?)),
            incarnation: Incarnation(input.number(Field::PeerIncarnation)?),
            have: input.number(Field::PeerHave)?,
            age_us: match input.number_to(Field::PeerAge, 1 << 32)? {
                0 => None,
                age => Some((age - 1) as u32),
            },
        });
    }
    Ok(Beat { sequence, boot, version, peers })
}

fn take_delta(input: &mut Reader<'_>) -> Result<Delta, DecodeError> {
    let addressee = Incarnation(input.number(Field::Addressee)?);
    let base = input.number(Field::DeltaBase)?;
    let to = input
        .number(Field::DeltaTo)?
        .checked_add(base)
        .ok_or(DecodeError { field: Field::DeltaTo, fault: Fault::TooLarge })?;
    let version = input
        .number(Field::DeltaVersion)?
        .checked_add(to)
        .ok_or(DecodeError { field: Field::DeltaVersion, fault: Fault::TooLarge })?;
    let mut items = Vec::new();
    for _ in 0..input.count(Field::ItemCount)? {
        let kind = input.byte(Field::ItemKind)?;
        let length = input.count(Field::ItemLength)?;
        let body = &mut Reader(input.bytes(Field::ItemLength, length)?);
        match kind {
            ITEM_NODE => items.push(Item::Node(take_node(body)?)),
            ITEM_HIERARCHY => {
                let name: HierarchyName = body.name(Field::HierarchyName)?;
                items.push(Item::Hierarchy(name, Box::new(take_announcement(body)?)));
            }
            ITEM_WITHDRAWN => items.push(Item::Withdrawn(body.name(Field::HierarchyName)?)),
            _ => {}
        }
    }
    Ok(Delta { addressee, base, to, version, items })
}

fn take_node(input: &mut Reader<'_>) -> Result<NodeAnnouncement, DecodeError> {
    let flags = input.byte(Field::NodeFlags)?;
    Ok(NodeAnnouncement {
        standby: if flags & 1 != 0 { Some(input.text(Field::Standby, REASON_BYTES_MAX)?.to_owned()) } else { None },
        version: input.text(Field::SoftwareVersion, SHORT_BYTES_MAX)?.to_owned(),
        definition: Fingerprint(input.fixed(Field::NodeDefinition)?),
    })
}

fn take_announcement(input: &mut Reader<'_>) -> Result<Announcement, DecodeError> {
    let flags = input.byte(Field::AnnouncementFlags)?;
    let has = |bit: u8| flags & bit != 0;
    if has(HAS_DECLINED_FOR) && !has(HAS_DECLINED) {
        return Err(DecodeError { field: Field::AnnouncementFlags, fault: Fault::Meaningless });
    }
    let meaningless = |field| DecodeError { field, fault: Fault::Meaningless };
    let phase = input.byte(Field::Phase)?;
    let has_storage = phase & HAS_STORAGE != 0;
    let phase = PHASES.get(usize::from(phase & !HAS_STORAGE)).copied().ok_or(meaningless(Field::Phase))?;
    let epoch = Epoch(input.number(Field::Epoch)?);
    let utility = Utility::new(input.byte(Field::Utility)?).map_err(|_| meaningless(Field::Utility))?;
    let definition = Fingerprint(input.fixed(Field::Definition)?);
    let declined = if has(HAS_DECLINED) {
        let why = input.text(Field::DeclinedWhy, DISTURBANCE_BYTES_MAX)?.to_owned();
        let for_ms = if has(HAS_DECLINED_FOR) { Some(input.number(Field::DeclinedFor)?) } else { None };
        Some(Declined { why, for_ms })
    } else {
        None
    };
    let unready =
        if has(HAS_UNREADY) { Some(input.text(Field::Unready, DISTURBANCE_BYTES_MAX)?.to_owned()) } else { None };
    let failures = if has(HAS_FAILURES) {
        let count = input.byte(Field::FailureCount)?;
        let first_ms_ago = input.number_to(Field::FailureAge, u64::from(u32::MAX))? as u32;
        EarlyFailures { count, first_ms_ago }
    } else {
        EarlyFailures::default()
    };
    let directive = if has(HAS_DIRECTIVE) { take_directive(input)? } else { Directive::default() };
    let heir = if has(HAS_HEIR) { Some(input.name(Field::Heir)?) } else { None };
    let disturbance = if has(HAS_DISTURBANCE) {
        let kind = usize::from(input.byte(Field::DisturbanceKind)?);
        let kind = DISTURBANCES.get(kind).copied().ok_or(meaningless(Field::DisturbanceKind))?;
        let why = input.text(Field::DisturbanceWhy, DISTURBANCE_BYTES_MAX)?.to_owned();
        let told_after_ms = input.number_to(Field::DisturbanceAge, u64::from(u32::MAX))? as u32;
        Some(Disturbance { kind, why, told_after_ms })
    } else {
        None
    };
    let storage = if has_storage { Some(input.text(Field::Storage, STORAGE_BYTES_MAX)?.to_owned()) } else { None };
    Ok(Announcement {
        phase,
        epoch,
        utility,
        declined,
        unready,
        failures,
        directive,
        definition,
        heir,
        disturbance,
        storage,
    })
}

fn take_directive(input: &mut Reader<'_>) -> Result<Directive, DecodeError> {
    let flags = input.byte(Field::DirectiveFlags)?;
    let has = |bit: u8| flags & bit != 0;
    let serial = input.number(Field::DirectiveSerial)?;
    let author: Option<NodeName> = if has(HAS_AUTHOR) { Some(input.name(Field::DirectiveAuthor)?) } else { None };
    let by = input.text(Field::DirectiveBy, SHORT_BYTES_MAX)?.to_owned();
    let reason = input.text(Field::DirectiveReason, REASON_BYTES_MAX)?.to_owned();
    let pin: Option<NodeName> = if has(HAS_PIN) { Some(input.name(Field::Pin)?) } else { None };
    let quarantined =
        if has(HAS_QUARANTINED) { Some(input.text(Field::Quarantined, REASON_BYTES_MAX)?.to_owned()) } else { None };
    let cleared = input.number(Field::Cleared)?;
    let (maintenance, stopped) = (has(IS_MAINTENANCE), has(IS_STOPPED));
    Ok(Directive { serial, author, by, reason, pin, maintenance, stopped, quarantined, cleared })
}

fn take_fragment(input: &mut Reader<'_>) -> Result<Fragment, DecodeError> {
    let parcel = ParcelId(input.number(Field::Parcel)?);
    let addressee = Incarnation(input.number(Field::Addressee)?);
    let index = input.number_to(Field::FragmentIndex, FRAGMENT_COUNT_MAX as u64)? as u16;
    let count = input.number_to(Field::FragmentCount, FRAGMENT_COUNT_MAX as u64)? as u16;
    if index >= count {
        return Err(DecodeError { field: Field::FragmentIndex, fault: Fault::TooLarge });
    }
    let bytes = std::mem::take(&mut input.0).to_vec();
    if bytes.len() > FRAGMENT_BYTES {
        return Err(DecodeError { field: Field::FragmentBytes, fault: Fault::TooLarge });
    }
    Ok(Fragment { parcel, addressee, index, count, bytes })
}

fn take_fragment_ack(input: &mut Reader<'_>) -> Result<FragmentAck, DecodeError> {
    let parcel = ParcelId(input.number(Field::Parcel)?);
    let sender = Incarnation(input.number(Field::AckSender)?);
    let complete = input.truth(Field::AckComplete)?;
    let arrived = std::mem::take(&mut input.0).to_vec();
    if arrived.len() > FRAGMENT_COUNT_MAX.div_ceil(8) {
        return Err(DecodeError { field: Field::AckArrived, fault: Fault::TooLarge });
    }
    Ok(FragmentAck { parcel, sender, complete, arrived })
}
