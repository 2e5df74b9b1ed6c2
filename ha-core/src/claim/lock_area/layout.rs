//! The on-disk format of a lock area: where each block is, what is in it, and every way in which one can be broken.
//!
//! Decides bytes and places, nothing else. The byte tables are in `docs/lock-area-format.md`; the tests keep golden blocks.

use serde::{Deserialize, Serialize};

use super::timing::{LeaseTiming, TimingError};
use crate::claim::EarlyFailures;
use crate::name::{BootId, HierarchyName, Incarnation, NodeName};

mod codec;
#[cfg(test)]
mod tests;

use codec::{Reader, Writer};

/// The most nodes that an area can have.
pub const MAX_NODES: usize = 64;
/// The most hierarchies that an area can have.
pub const MAX_HIERARCHIES: u32 = 65_536;
/// The length of one copy of the header, unless the block size is greater.
pub const HEADER_LEN: usize = 8_192;
/// The part of a block that is in use, whatever the block size.
pub(super) const BLOCK_USED: usize = 512;

const MAGIC: [u8; 4] = *b"HALK";
const VERSION: u8 = 1;
const KIND_HEADER: u8 = 1;
const KIND_SLOT: u8 = 2;
const KIND_RECORD: u8 = 3;

/// Which area: 128 bits, drawn when the area is made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Debug)]
#[serde(from = "BootId", into = "BootId")]
pub struct AreaId(pub [u8; 16]);

// Both are 128 bits that are written as hexadecimal digits.
impl From<BootId> for AreaId {
    fn from(bits: BootId) -> Self {
        AreaId(bits.0)
    }
}

impl From<AreaId> for BootId {
    fn from(id: AreaId) -> Self {
        BootId(id.0)
    }
}

impl std::fmt::Display for AreaId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        BootId(self.0).fmt(f)
    }
}

/// How a block is broken. One variant for each way, so that a report says what happened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize)]
pub enum BlockError {
    /// Shorter than what a block must have.
    #[error("cut off after {0} bytes")]
    Short(usize),
    /// All zero: never written.
    #[error("never written")]
    Blank,
    /// Something else's data.
    #[error("not a lock area's block (magic {0:02x?})")]
    Magic([u8; 4]),
    /// Written by a later version of this software.
    #[error("format version {0}, this software knows version 1")]
    Version(u8),
    /// Torn or corrupted.
    #[error("checksum {stored:08x} does not match the contents ({computed:08x}): torn or corrupted")]
    Checksum {
        /// As stored.
        stored: u32,
        /// Of what is there.
        computed: u32,
    },
    /// A block of another kind.
    #[error("kind {found} where kind {expected} belongs")]
    Kind {
        /// In the block.
        found: u8,
        /// For the place.
        expected: u8,
    },
    /// A block of another area.
    #[error("belongs to area {0}")]
    Area(AreaId),
    /// A block of this area that belongs elsewhere: misdirected write, or a copied device.
    #[error("belongs to node {node}, number {number}")]
    Place {
        /// Slot number of the writer.
        node: u32,
        /// Record number, or slot number.
        number: u32,
    },
    /// A field that cannot have that value.
    #[error("{field} has the impossible value {value}")]
    Field {
        /// The field's name in the format's description.
        field: &'static str,
        /// The value.
        value: u64,
    },
    /// A name that is not valid.
    #[error("{0} is not a valid name")]
    Name(&'static str),
    /// Two slots of one name.
    #[error("node {0} has two slots")]
    Twice(NodeName),
    /// Times that do not go together.
    #[error("timing: {0}")]
    Timing(String),
}

impl From<TimingError> for BlockError {
    fn from(e: TimingError) -> BlockError {
        BlockError::Timing(e.to_string())
    }
}

/// What the header says: fixed when the area is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Which area.
    pub id: AreaId,
    /// The size of a block in bytes.
    pub block_size: u32,
    /// The nodes in the order of their slots.
    pub nodes: Vec<NodeName>,
    /// How many hierarchies it can name.
    pub hierarchies: u32,
    /// The times that all nodes run on.
    pub timing: LeaseTiming,
}

/// One of two copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Copy2 {
    /// The first.
    A,
    /// The second.
    B,
}

impl Copy2 {
    pub(crate) const BOTH: [Copy2; 2] = [Copy2::A, Copy2::B];

    pub(super) fn index(self) -> usize {
        self as usize
    }

    pub(super) fn other(self) -> Copy2 {
        match self {
            Copy2::A => Copy2::B,
            Copy2::B => Copy2::A,
        }
    }
}

impl Header {
    /// The number of a node's slot.
    pub fn slot_of(&self, node: &NodeName) -> Option<usize> {
        self.nodes.iter().position(|n| n == node)
    }

    /// The length of one copy of the header in bytes.
    pub fn header_len(&self) -> usize {
        header_len(self.block_size)
    }

    fn block(&self) -> u64 {
        self.block_size.into()
    }

    fn n(&self) -> u64 {
        self.nodes.len() as u64
    }

    /// Where the slots begin: all first copies, then all second ones.
    pub fn slots_at(&self) -> u64 {
        2 * self.header_len() as u64
    }

    /// The length of all slots in bytes, both copies.
    pub fn slots_len(&self) -> usize {
        2 * self.nodes.len() * self.block_size as usize
    }

    /// Where a copy of a slot is.
    pub fn slot_at(&self, node: usize, copy: Copy2) -> u64 {
        self.slots_at() + (copy.index() as u64 * self.n() + node as u64) * self.block()
    }

    /// Where a copy of a record is. A node's first copies lie together, then its second ones.
    pub fn record_at(&self, node: usize, copy: Copy2, number: u32) -> u64 {
        let records = self.slots_at() + 2 * self.n() * self.block();
        let plane = node as u64 * 2 + copy.index() as u64;
        records + (plane * u64::from(self.hierarchies) + u64::from(number)) * self.block()
    }

    /// How much room the area takes in bytes.
    pub fn area_len(&self) -> u64 {
        self.record_at(self.nodes.len(), Copy2::A, 0)
    }

    /// One copy of the header as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new(self.header_len(), HEADER_LEN, KIND_HEADER, self.id, 1, 0, 0);
        w.u32(self.block_size);
        w.u32(self.nodes.len() as u32);
        w.u32(self.hierarchies);
        for t in self.timing.to_millis() {
            w.u32(t);
        }
        for node in &self.nodes {
            w.name(node.as_str());
        }
        w.finish()
    }

    /// Reads a copy of the header.
    pub fn decode(bytes: &[u8]) -> Result<Header, BlockError> {
        let mut r = Reader::open(bytes, HEADER_LEN, KIND_HEADER)?;
        let block_size = r.u32();
        if !block_size.is_power_of_two() || !(512..=65_536).contains(&block_size) {
            return Err(BlockError::Field { field: "block size", value: block_size.into() });
        }
        let n = r.u32();
        if n == 0 || n as usize > MAX_NODES {
            return Err(BlockError::Field { field: "nodes", value: n.into() });
        }
        let hierarchies = r.u32();
        if hierarchies == 0 || hierarchies > MAX_HIERARCHIES {
            return Err(BlockError::Field { field: "hierarchies", value: hierarchies.into() });
        }
        let timing = LeaseTiming::from_millis([r.u32(), r.u32(), r.u32(), r.u32()])?;
        let mut nodes: Vec<NodeName> = Vec::new();
        for _ in 0..n {
            let node = r.name().and_then(|s| NodeName::new(s).ok()).ok_or(BlockError::Name("node"))?;
            if nodes.contains(&node) {
                return Err(BlockError::Twice(node));
            }
            nodes.push(node);
        }
        Ok(Header { id: r.area, block_size, nodes, hierarchies, timing })
    }
}

/// The length of one copy of the header for a block size.
pub(super) fn header_len(block_size: u32) -> usize {
    HEADER_LEN.max(block_size as usize)
}

/// Whether a slot's node is at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum SlotState {
    /// It renews its lease, or did until it died.
    Up,
    /// It said goodbye and owned nothing then.
    Left,
}

/// A node's slot: its lease. Written by that node only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// Grows with every write.
    pub seq: u64,
    /// The boot it runs on.
    pub boot: BootId,
    /// The life of its agent.
    pub incarnation: Incarnation,
    /// Grows with every renewal.
    pub beat: u64,
    /// Whether it is at work.
    pub state: SlotState,
    /// How long ago it last saw each slot change, ms, in the order of the slots; `u32::MAX` for never.
    pub ages: Vec<u32>,
}

impl Slot {
    /// One copy as a block.
    pub fn encode(&self, header: &Header, node: usize) -> Vec<u8> {
        let len = header.block_size as usize;
        let mut w = Writer::new(len, BLOCK_USED, KIND_SLOT, header.id, self.seq, node as u32, node as u32);
        w.bytes(&self.boot.0);
        w.u64(self.incarnation.0);
        w.u64(self.beat);
        w.u32(match self.state {
            SlotState::Up => 1,
            SlotState::Left => 2,
        });
        for i in 0..header.nodes.len() {
            w.u32(self.ages.get(i).copied().unwrap_or(u32::MAX));
        }
        w.finish()
    }

    /// Reads one copy.
    pub fn decode(bytes: &[u8], header: &Header, node: usize) -> Result<Slot, BlockError> {
        let mut r = Reader::open_at(bytes, KIND_SLOT, header.id, node as u32, node as u32)?;
        let boot = BootId(r.array());
        let incarnation = Incarnation(r.u64());
        let beat = r.u64();
        let state = match r.u32() {
            1 => SlotState::Up,
            2 => SlotState::Left,
            other => return Err(BlockError::Field { field: "state", value: other.into() }),
        };
        let ages = header.nodes.iter().map(|_| r.u32()).collect();
        Ok(Slot { seq: r.seq, boot, incarnation, beat, state, ages })
    }
}

/// Who owns a hierarchy, as one instance decided it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ownership {
    /// The epoch of this tenure; of the last one, if nobody owns it.
    pub epoch: u64,
    /// The owner's slot number and boot.
    pub owner: Option<(u8, BootId)>,
    /// What is remembered of earlier tenures.
    pub failures: Failures,
}

/// [`EarlyFailures`], ordered, as it stands on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Failures {
    /// How many.
    pub count: u8,
    /// How long ago the first was when this was written, ms.
    pub first_ms_ago: u32,
}

impl From<EarlyFailures> for Failures {
    fn from(f: EarlyFailures) -> Self {
        Failures { count: f.count, first_ms_ago: f.first_ms_ago }
    }
}

impl From<Failures> for EarlyFailures {
    fn from(f: Failures) -> Self {
        EarlyFailures { count: f.count, first_ms_ago: f.first_ms_ago }
    }
}

/// What an instance decides: the first one of a record its name, each later one an owner.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    /// The hierarchy that the record belongs to, for ever.
    Name(HierarchyName),
    /// Who owns it.
    Owner(Ownership),
}

/// The greatest decision that a record knows of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Committed {
    /// The number of the instance; 0 for none.
    pub instance: u64,
    /// The hierarchy; present from instance 1 on.
    pub name: Option<HierarchyName>,
    /// The owner; meaningful from instance 2 on, free before.
    pub ownership: Ownership,
}

/// One node's record of one hierarchy: its part in deciding who owns it. Written by that node only.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Record {
    /// Grows with every write.
    pub seq: u64,
    /// The instance that it takes part in; 0 for none yet.
    pub instance: u64,
    /// The greatest ballot that it began in the instance.
    pub mbal: u64,
    /// The ballot in which it accepted `value`; 0 for none.
    pub bal: u64,
    /// What it accepted.
    pub value: Option<Value>,
    /// The greatest decision it knows.
    pub committed: Committed,
}

fn put_ownership(w: &mut Writer, o: &Ownership) {
    w.u64(o.epoch);
    w.u32(o.owner.map_or(0, |(slot, _)| u32::from(slot) + 1));
    w.bytes(&o.owner.map_or([0; 16], |(_, boot)| boot.0));
    w.u32(o.failures.count.into());
    w.u32(o.failures.first_ms_ago);
}

fn get_ownership(r: &mut Reader<'_>, nodes: usize) -> Result<Ownership, BlockError> {
    let epoch = r.u64();
    let slot = r.u32();
    let boot = BootId(r.array());
    if slot as usize > nodes {
        return Err(BlockError::Field { field: "owner", value: slot.into() });
    }
    let count = r.u32();
    let count = u8::try_from(count).map_err(|_| BlockError::Field { field: "failures", value: count.into() })?;
    let owner = slot.checked_sub(1).map(|s| (s as u8, boot));
    Ok(Ownership { epoch, owner, failures: Failures { count, first_ms_ago: r.u32() } })
}

impl Record {
    /// One copy as a block.
    pub fn encode(&self, header: &Header, node: usize, number: u32) -> Vec<u8> {
        let len = header.block_size as usize;
        let mut w = Writer::new(len, BLOCK_USED, KIND_RECORD, header.id, self.seq, node as u32, number);
        w.u64(self.instance);
        w.u64(self.mbal);
        w.u64(self.bal);
        let (kind, name, owner) = match &self.value {
            None => (0, "", Ownership::default()),
            Some(Value::Name(name)) => (1, name.as_str(), Ownership::default()),
            Some(Value::Owner(o)) => (2, "", *o),
        };
        w.u32(kind);
        w.name(name);
        put_ownership(&mut w, &owner);
        w.u64(self.committed.instance);
        w.name(self.committed.name.as_ref().map_or("", HierarchyName::as_str));
        put_ownership(&mut w, &self.committed.ownership);
        w.finish()
    }

    /// Reads one copy.
    pub fn decode(bytes: &[u8], header: &Header, node: usize, number: u32) -> Result<Record, BlockError> {
        let mut r = Reader::open_at(bytes, KIND_RECORD, header.id, node as u32, number)?;
        let (instance, mbal, bal) = (r.u64(), r.u64(), r.u64());
        let kind = r.u32();
        let name = r.name();
        let owner = get_ownership(&mut r, header.nodes.len())?;
        let value = match kind {
            0 => None,
            1 => Some(Value::Name(hierarchy(name)?)),
            2 => Some(Value::Owner(owner)),
            other => return Err(BlockError::Field { field: "value", value: other.into() }),
        };
        let committed = r.u64();
        let name = r.name();
        let ownership = get_ownership(&mut r, header.nodes.len())?;
        let name = if committed == 0 { None } else { Some(hierarchy(name)?) };
        if value.is_some() != (bal > 0) || bal > mbal {
            return Err(BlockError::Field { field: "bal", value: bal });
        }
        if instance > committed.saturating_add(1) || committed > instance {
            return Err(BlockError::Field { field: "committed instance", value: committed });
        }
        let committed = Committed { instance: committed, name, ownership };
        Ok(Record { seq: r.seq, instance, mbal, bal, value, committed })
    }
}

/// What an area's bytes say of the record of a number, over all nodes: whose it is, its owner's slot, and the epoch. For those who look at
/// the disk itself, beside every machine.
#[cfg(feature = "sim")]
pub(crate) fn record_on_disk(
    header: &Header,
    area: &[u8],
    number: u32,
) -> Option<(HierarchyName, Option<usize>, crate::name::Epoch)> {
    let copy = |node, copy| {
        let at = header.record_at(node, copy, number) as usize;
        Record::decode(area.get(at..at + header.block_size as usize).unwrap_or(&[]), header, node, number)
    };
    let of = |node| newest(copy(node, Copy2::A), copy(node, Copy2::B), |r| r.seq).ok().flatten();
    let greatest = (0..header.nodes.len()).filter_map(of).max_by_key(|record| record.committed.instance)?.committed;
    let ownership = greatest.ownership;
    Some((greatest.name?, ownership.owner.map(|(slot, _)| usize::from(slot)), crate::name::Epoch(ownership.epoch)))
}

/// What a write of a node says to belong to nobody, after which epoch.
#[cfg(feature = "sim")]
pub(crate) fn given_up_in(
    header: &Header,
    node: usize,
    offset: u64,
    bytes: &[u8],
) -> Vec<(HierarchyName, crate::name::Epoch)> {
    let (begin, block) = (header.record_at(0, Copy2::A, 0), u64::from(header.block_size));
    let blocks = (offset..).step_by(header.block_size as usize).zip(bytes.chunks(header.block_size as usize));
    let records = blocks.filter_map(|(at, bytes)| {
        let number = u32::try_from(at.checked_sub(begin)? / block % u64::from(header.hierarchies)).ok()?;
        Record::decode(bytes, header, node, number).ok()
    });
    let nobodys = records.filter(|r| r.committed.ownership.owner.is_none());
    nobodys.filter_map(|r| Some((r.committed.name?, crate::name::Epoch(r.committed.ownership.epoch)))).collect()
}

fn hierarchy(name: Option<&str>) -> Result<HierarchyName, BlockError> {
    name.and_then(|s| HierarchyName::new(s).ok()).ok_or(BlockError::Name("hierarchy"))
}

/// What two copies say together.
///
/// A state counts only after both copies were written, one after the other. So one readable copy is enough, and a copy
/// that is broken beside one that was never written belongs to a write that never counted.
pub(super) fn newest<T, K: Ord>(
    a: Result<T, BlockError>,
    b: Result<T, BlockError>,
    seq: impl Fn(&T) -> K,
) -> Result<Option<T>, BlockError> {
    match (a, b) {
        (Ok(a), Ok(b)) => Ok(Some(if seq(&b) > seq(&a) { b } else { a })),
        (Ok(one), Err(_)) | (Err(_), Ok(one)) => Ok(Some(one)),
        (Err(BlockError::Blank), Err(_)) | (Err(_), Err(BlockError::Blank)) => Ok(None),
        (Err(e), Err(_)) => Err(e),
    }
}
