//! Making, showing and checking a lock area.
//!
//! Decides what an operator is told of one. [`show`] and [`verify`] only read; [`initialise`] is the one function here that writes.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::area::read_header;
use super::device::{BlockDevice, IoFailure};
use super::layout::{
    AreaId, BlockError, Copy2, HEADER_LEN, Header, MAX_HIERARCHIES, MAX_NODES, Record, Slot, SlotState, header_len,
    newest,
};
use super::lease::decode_slots;
use super::timing::LeaseTiming;
use crate::claim::EarlyFailures;
use crate::name::{BootId, Epoch, HierarchyName, Incarnation, NodeName};

/// What a lock area is to be made for. Fixed for its life.
#[derive(Clone, Debug)]
pub struct AreaPlan {
    /// 128 random bits.
    pub id: AreaId,
    /// The nodes, 1 to 64, each once; their order is that of the slots.
    pub nodes: Vec<NodeName>,
    /// How many hierarchies it can ever name, 1 to 65,536. Names are never freed.
    pub hierarchies: u32,
    /// The times that all nodes will run on.
    pub timing: LeaseTiming,
}

/// What to do with what is on the device already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Refuse, and say what it is.
    Keep,
    /// Overwrite it, unless nodes are seen to use it.
    Overwrite,
}

/// Why no lock area was made. Nothing was written, but for [`AdminError::Io`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdminError {
    /// The device failed; what was begun is not usable as a lock area.
    #[error("the device failed: {0}")]
    Io(#[from] IoFailure),
    /// There is a lock area already.
    #[error("there is a lock area already, {id}, made for {}", names(.nodes))]
    Area {
        /// Which.
        id: AreaId,
        /// Whose.
        nodes: Vec<NodeName>,
    },
    /// Nodes renew their leases in it: it cannot be overwritten under them.
    #[error("in use by {}: stop the agents there first", names(.0))]
    InUse(Vec<NodeName>),
    /// There is something else.
    #[error("the device holds {0}")]
    Foreign(&'static str),
    /// The number of nodes or hierarchies is out of range, or a node is named twice.
    #[error("{what} is {value}: expected {expected}")]
    Plan {
        /// Which number.
        what: &'static str,
        /// As given.
        value: String,
        /// What would do.
        expected: &'static str,
    },
    /// Too small.
    #[error("the area takes {needed} bytes, the device has {size}: use fewer hierarchies or a larger device")]
    TooSmall {
        /// In bytes.
        needed: u64,
        /// In bytes.
        size: u64,
    },
    /// There is no lock area to show.
    #[error("no lock area: {0}")]
    NoArea(BlockError),
}

const CHUNK: u64 = 1 << 20;

/// Makes a lock area at the beginning of the device. Everything in its place is zeroed, the header is written last. Where one is to be
/// overwritten, its slots are watched for two renewals first: one that beats belongs to an agent that runs.
pub async fn initialise(device: &dyn BlockDevice, plan: AreaPlan, existing: Existing) -> Result<Header, AdminError> {
    let header = check_plan(device, plan)?;
    match existing {
        Existing::Keep => refuse_existing(device).await?,
        Existing::Overwrite => refuse_used(device).await?,
    }
    let end = header.area_len();
    let mut at = 0;
    while at < end {
        let len = CHUNK.min(end - at);
        device.write(at, vec![0; len as usize]).await?;
        at += len;
    }
    let bytes = header.encode();
    device.write(0, bytes.clone()).await?;
    device.write(bytes.len() as u64, bytes).await?;
    Ok(header)
}

fn check_plan(device: &dyn BlockDevice, plan: AreaPlan) -> Result<Header, AdminError> {
    let wrong = |what, value: String, expected| Err(AdminError::Plan { what, value, expected });
    if plan.nodes.is_empty() || plan.nodes.len() > MAX_NODES {
        return wrong("the number of nodes", plan.nodes.len().to_string(), "1 to 64");
    }
    if let Some(twice) = plan.nodes.iter().enumerate().find_map(|(i, n)| plan.nodes[..i].contains(n).then_some(n)) {
        return wrong("a node's name", twice.to_string(), "each node once");
    }
    if plan.hierarchies == 0 || plan.hierarchies > MAX_HIERARCHIES {
        return wrong("the number of hierarchies", plan.hierarchies.to_string(), "1 to 65536");
    }
    let block_size = device.block_size();
    if !block_size.is_power_of_two() || !(512..=65_536).contains(&block_size) {
        return wrong("the device's block size", block_size.to_string(), "a power of two from 512 to 65536");
    }
    let AreaPlan { id, nodes, hierarchies, timing } = plan;
    let header = Header { id, block_size, nodes, hierarchies, timing };
    let (needed, size) = (header.area_len(), device.size());
    if needed > size {
        return Err(AdminError::TooSmall { needed, size });
    }
    Ok(header)
}

async fn refuse_existing(device: &dyn BlockDevice) -> Result<(), AdminError> {
    if let Ok(Header { id, nodes, .. }) = read_header(device).await? {
        return Err(AdminError::Area { id, nodes });
    }
    let block = u64::from(device.block_size());
    let len = (128 * 1024).min(device.size() / block * block);
    let bytes = device.read(0, len as usize).await?;
    foreign(&bytes).map_or(Ok(()), |what| Err(AdminError::Foreign(what)))
}

async fn refuse_used(device: &dyn BlockDevice) -> Result<(), AdminError> {
    // What cannot be read as an area, or is cut off, is used by nobody.
    let Ok(header) = header(device).await else { return Ok(()) };
    let nodes = look_twice(device, &header).await?;
    let beating: Vec<NodeName> =
        nodes.into_iter().filter(|node| node.seen == NodeSeen::Beating).map(|node| node.node).collect();
    if beating.is_empty() { Ok(()) } else { Err(AdminError::InUse(beating)) }
}

/// What is known to lie at these places (see `libblkid`'s superblock probes), or at least that something does.
fn foreign(bytes: &[u8]) -> Option<&'static str> {
    let has = |at: usize, magic: &[u8]| bytes.get(at..at + magic.len()) == Some(magic);
    let known: [(usize, &[u8], &str); 8] = [
        (0, b"XFSB", "an XFS file system"),
        (1080, &[0x53, 0xef], "an ext2, ext3 or ext4 file system"),
        (65_600, b"_BHRfS_M", "a btrfs file system"),
        (512, b"EFI PART", "a GPT partition table"),
        (4096, b"EFI PART", "a GPT partition table"),
        (512, b"LABELONE", "an LVM physical volume"),
        (0, b"LUKS\xba\xbe", "an encrypted volume (LUKS)"),
        (510, &[0x55, 0xaa], "a partition table or boot sector"),
    ];
    let found = known.iter().find(|(at, magic, _)| has(*at, magic)).map(|(_, _, what)| *what);
    found.or_else(|| bytes.iter().any(|b| *b != 0).then_some("data that is not zero"))
}

/// A lock area as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AreaReport {
    /// What it was made for.
    pub header: Header,
    /// The nodes in the order of their slots.
    pub nodes: Vec<NodeReport>,
    /// The named hierarchies in the order of their records.
    pub hierarchies: Vec<HierarchyReport>,
}

/// One node's slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReport {
    /// Which.
    pub node: NodeName,
    /// What two looks, two renewals apart, showed.
    pub seen: NodeSeen,
    /// Its boot and agent's life and beats, if it ever came.
    pub life: Option<(BootId, Incarnation, u64)>,
    /// How long ago it saw each other node change, ms.
    pub hears: BTreeMap<NodeName, u32>,
}

/// Whether a node is at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeSeen {
    /// It never came.
    Never,
    /// It renewed its lease between the looks.
    Beating,
    /// It did not.
    Still,
    /// It said goodbye.
    Left,
    /// Both copies of its slot are broken.
    Broken,
}

/// One hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HierarchyReport {
    /// Its record.
    pub number: u32,
    /// Which.
    pub name: HierarchyName,
    /// Who owns it.
    pub owner: Option<NodeName>,
    /// The greatest epoch.
    pub epoch: Epoch,
    /// What is remembered of failures.
    pub failures: EarlyFailures,
}

/// What the area was made for. Reads only.
pub async fn header(device: &dyn BlockDevice) -> Result<Header, AdminError> {
    let header = read_header(device).await?.map_err(AdminError::NoArea)?;
    let (needed, size) = (header.area_len(), device.size());
    if needed > size { Err(AdminError::TooSmall { needed, size }) } else { Ok(header) }
}

/// Looks at the area twice, two renewals apart, and reports. Reads only.
pub async fn show(device: &dyn BlockDevice) -> Result<AreaReport, AdminError> {
    let header = header(device).await?;
    let nodes = look_twice(device, &header).await?;
    let mut best: BTreeMap<u32, Record> = BTreeMap::new();
    for node in 0..header.nodes.len() {
        let copies = [plane(device, &header, node, Copy2::A).await?, plane(device, &header, node, Copy2::B).await?];
        for (number, (a, b)) in
            copies[0].chunks(header.block_size as usize).zip(copies[1].chunks(header.block_size as usize)).enumerate()
        {
            let decode = |bytes| Record::decode(bytes, &header, node, number as u32);
            if let Ok(Some(record)) = newest(decode(a), decode(b), |r| r.seq) {
                let known = best.get(&(number as u32)).map_or(0, |r| r.committed.instance);
                if record.committed.instance > known {
                    best.insert(number as u32, record);
                }
            }
        }
    }
    let mut hierarchies: Vec<HierarchyReport> = Vec::new();
    for (number, record) in best {
        let ownership = record.committed.ownership;
        // A name counts where it stands first.
        if let Some(name) = record.committed.name
            && hierarchies.iter().all(|h| h.name != name)
        {
            let owner = ownership.owner.and_then(|(slot, _)| header.nodes.get(usize::from(slot)).cloned());
            let (epoch, failures) = (Epoch(ownership.epoch), ownership.failures.into());
            hierarchies.push(HierarchyReport { number, name, owner, epoch, failures });
        }
    }
    Ok(AreaReport { header, nodes, hierarchies })
}

/// What every node's slot shows, and whether it changes within two renewals.
async fn look_twice(device: &dyn BlockDevice, header: &Header) -> Result<Vec<NodeReport>, IoFailure> {
    let slots = || device.read(header.slots_at(), header.slots_len());
    let decoded = |bytes: &[u8]| decode_slots(header, bytes).into_iter().map(|s| s.newest).collect::<Vec<_>>();
    let first = decoded(&slots().await?);
    tokio::time::sleep(header.timing.renew() * 2).await;
    let second = decoded(&slots().await?);
    Ok((0..header.nodes.len()).map(|i| node_report(header, i, &first[i], &second[i])).collect())
}

async fn plane(device: &dyn BlockDevice, header: &Header, node: usize, copy: Copy2) -> Result<Vec<u8>, IoFailure> {
    let len = header.hierarchies as usize * header.block_size as usize;
    device.read(header.record_at(node, copy, 0), len).await
}

type Decoded = Result<Option<Slot>, BlockError>;

fn node_report(header: &Header, i: usize, first: &Decoded, second: &Decoded) -> NodeReport {
    let seen = match (first, second) {
        (_, Err(_)) => NodeSeen::Broken,
        (_, Ok(None)) => NodeSeen::Never,
        (_, Ok(Some(s))) if s.state == SlotState::Left => NodeSeen::Left,
        (Ok(Some(a)), Ok(Some(b))) if a == b => NodeSeen::Still,
        (_, Ok(Some(_))) => NodeSeen::Beating,
    };
    let slot = second.as_ref().ok().and_then(Option::as_ref);
    let hears = slot.map(|s| header.nodes.iter().cloned().zip(s.ages.iter().copied()));
    let hears = hears.into_iter().flatten().filter(|(n, age)| *age != u32::MAX && *n != header.nodes[i]).collect();
    let life = slot.map(|s| (s.boot, s.incarnation, s.beat));
    NodeReport { node: header.nodes[i].clone(), seen, life, hears }
}

impl fmt::Display for AreaReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let h = &self.header;
        writeln!(f, "lock area {}: blocks of {} bytes, room for {} hierarchies", h.id, h.block_size, h.hierarchies)?;
        writeln!(f, "timing: {}", h.timing)?;
        writeln!(f)?;
        let width = self.nodes.iter().map(|node| node.node.as_str().len()).max().unwrap_or_default();
        for node in &self.nodes {
            write!(f, "node {:<width$}  {}", node.node.as_str(), node.seen)?;
            if let Some((boot, incarnation, beat)) = &node.life {
                write!(f, "; boot {boot}, incarnation {incarnation}, beat {beat}")?;
            }
            writeln!(f)?;
        }
        writeln!(f)?;
        if self.hierarchies.is_empty() {
            writeln!(f, "no hierarchy was ever claimed in it")?;
        }
        let width = self.hierarchies.iter().map(|one| one.name.as_str().len()).max().unwrap_or_default();
        for one in &self.hierarchies {
            let owner = one.owner.as_ref().map_or("owned by nobody".to_owned(), |owner| format!("owned by {owner}"));
            let name = one.name.as_str();
            write!(f, "hierarchy {name:<width$}  {owner}, epoch {}, record {}", one.epoch, one.number)?;
            if one.failures.count > 0 {
                write!(f, ", early failures on successive tenures: {}", one.failures.count)?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for NodeSeen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NodeSeen::Never => "has never used it",
            NodeSeen::Beating => "uses it",
            NodeSeen::Still => "has stopped renewing its lease without a goodbye",
            NodeSeen::Left => "has left it in order",
            NodeSeen::Broken => "cannot be read: both copies of its slot are broken",
        })
    }
}

fn names(nodes: &[NodeName]) -> String {
    nodes.iter().map(NodeName::as_str).collect::<Vec<_>>().join(", ")
}

/// A place in the area.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// A copy of the header.
    Header(Copy2),
    /// A copy of a node's slot.
    Slot(NodeName, Copy2),
    /// A copy of a node's record.
    Record(NodeName, u32, Copy2),
}

/// A block that is broken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Where it belongs.
    pub place: Place,
    /// Where it is, in bytes.
    pub offset: u64,
    /// How it is broken.
    pub error: BlockError,
    /// Whether the other copy stands in for it. If not, the hierarchy (or slot) cannot be used.
    pub other_copy_good: bool,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Header(copy) => write!(f, "header, copy {copy:?}")?,
            Place::Slot(node, copy) => write!(f, "slot of {node}, copy {copy:?}")?,
            Place::Record(node, number, copy) => write!(f, "record {number} of {node}, copy {copy:?}")?,
        }
        let meaning = if self.other_copy_good { "the other copy stands in" } else { "no good copy is left" };
        write!(f, " (at byte {}): {}; {meaning}", self.offset, self.error)
    }
}

/// Reads every block of the area and names each broken one. Reads only. A block that a running node is writing just then can
/// show up once: look again.
pub async fn verify(device: &dyn BlockDevice) -> Result<Vec<Finding>, AdminError> {
    let header = header(device).await?;
    let mut findings = Vec::new();
    for copy in Copy2::BOTH {
        let offset = (copy.index() * header_len(header.block_size)) as u64;
        let bytes = device.read(offset, header_len(header.block_size)).await?;
        if let Err(error) = Header::decode(&bytes[..HEADER_LEN.min(bytes.len())]) {
            findings.push(Finding { place: Place::Header(copy), offset, error, other_copy_good: true });
        }
    }
    let block = header.block_size as usize;
    let slots = device.read(header.slots_at(), header.slots_len()).await?;
    for (i, node) in header.nodes.iter().enumerate() {
        let check = |copy| {
            let at = (header.slot_at(i, copy) - header.slots_at()) as usize;
            Slot::decode(slots.get(at..at + block).unwrap_or(&[]), &header, i).err()
        };
        let place = |copy| (Place::Slot(node.clone(), copy), header.slot_at(i, copy));
        note(&mut findings, &[check(Copy2::A), check(Copy2::B)], place);
        let planes = [plane(device, &header, i, Copy2::A).await?, plane(device, &header, i, Copy2::B).await?];
        for number in 0..header.hierarchies {
            let check = |copy: Copy2| {
                let at = number as usize * block;
                let bytes = planes[copy.index()].get(at..at + block).unwrap_or(&[]);
                Record::decode(bytes, &header, i, number).err()
            };
            let place = |copy| (Place::Record(node.clone(), number, copy), header.record_at(i, copy, number));
            note(&mut findings, &[check(Copy2::A), check(Copy2::B)], place);
        }
    }
    Ok(findings)
}

fn note(findings: &mut Vec<Finding>, errors: &[Option<BlockError>; 2], place: impl Fn(Copy2) -> (Place, u64)) {
    for copy in Copy2::BOTH {
        let (this, other) = (&errors[copy.index()], &errors[copy.other().index()]);
        // Blocks that were never written are as they should be.
        if let Some(error) = this.clone().filter(|e| *e != BlockError::Blank) {
            let (place, offset) = place(copy);
            findings.push(Finding { place, offset, error, other_copy_good: other.is_none() });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::memory::Memory;
    use super::*;

    fn plan() -> AreaPlan {
        let nodes = ["alpha", "beta"].map(|n| NodeName::new(n).unwrap()).to_vec();
        let ms = std::time::Duration::from_millis;
        let timing = LeaseTiming::new(ms(10), ms(400), ms(200), ms(100)).unwrap();
        AreaPlan { id: AreaId([5; 16]), nodes, hierarchies: 8, timing }
    }

    #[tokio::test]
    async fn an_area_is_never_overwritten_unasked() {
        let device = Memory::new(512, 1 << 20);
        let header = initialise(&device, plan(), Existing::Keep).await.unwrap();
        let again = initialise(&device, plan(), Existing::Keep).await.unwrap_err();
        assert_eq!(again, AdminError::Area { id: header.id, nodes: header.nodes.clone() });
        initialise(&device, plan(), Existing::Overwrite).await.unwrap();
        let report = show(&device).await.unwrap();
        assert!(report.nodes.iter().all(|n| n.seen == NodeSeen::Never) && report.hierarchies.is_empty());
        assert_eq!(verify(&device).await.unwrap(), Vec::new());
    }

    #[tokio::test(start_paused = true)]
    async fn an_area_that_beats_is_not_overwritten() {
        let device = Arc::new(Memory::new(512, 1 << 20));
        let header = initialise(&*device, plan(), Existing::Keep).await.unwrap();
        let slot = |beat| {
            let (boot, incarnation, ages) = (BootId([3; 16]), Incarnation(1), vec![0, u32::MAX]);
            Slot { seq: beat, boot, incarnation, beat, state: SlotState::Up, ages }.encode(&header, 1)
        };
        device.write(header.slot_at(1, Copy2::A), slot(1)).await.unwrap();
        let beats = {
            let (device, at, next) = (device.clone(), header.slot_at(1, Copy2::B), slot(2));
            async move {
                tokio::time::sleep(plan().timing.renew()).await;
                device.write(at, next).await.unwrap();
            }
        };
        // In this order: the beat is written before the second look, however late both are.
        let ((), refused) = tokio::join!(beats, initialise(&*device, plan(), Existing::Overwrite));
        assert_eq!(refused.unwrap_err().to_string(), "in use by beta: stop the agents there first");
        let report = show(&*device).await.unwrap();
        assert_eq!(report.nodes[1].seen, NodeSeen::Still);
        let shown = report.to_string();
        assert!(shown.contains("node alpha  has never used it\nnode beta   has stopped renewing its lease"), "{shown}");
        initialise(&*device, plan(), Existing::Overwrite).await.unwrap();
    }

    #[tokio::test]
    async fn foreign_data_is_named_and_left_alone() {
        let device = Memory::new(4096, 4 << 20);
        let mut block = vec![0; 4096];
        block[1080..1082].copy_from_slice(&[0x53, 0xef]);
        device.write(0, block).await.unwrap();
        let refused = initialise(&device, plan(), Existing::Keep).await.unwrap_err();
        assert_eq!(refused, AdminError::Foreign("an ext2, ext3 or ext4 file system"));
        let small = Memory::new(4096, 8192);
        assert!(matches!(initialise(&small, plan(), Existing::Keep).await, Err(AdminError::TooSmall { .. })));
    }

    #[tokio::test]
    async fn a_broken_block_is_named_with_its_place() {
        let device = Arc::new(Memory::new(512, 1 << 20));
        let header = initialise(&*device, plan(), Existing::Keep).await.unwrap();
        let at = header.record_at(1, Copy2::B, 3);
        device.write(at, vec![0xaa; 512]).await.unwrap();
        let findings = verify(&*device).await.unwrap();
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].place, Place::Record(header.nodes[1].clone(), 3, Copy2::B));
        assert_eq!(findings[0].error, BlockError::Magic([0xaa; 4]));
        device.write(0, vec![0; 8192]).await.unwrap();
        assert_eq!(verify(&*device).await.unwrap()[0].place, Place::Header(Copy2::A));
    }
}
