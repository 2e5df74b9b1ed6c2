//! One node's machine, its transfers, and the blocks that it reads and writes.
//!
//! Decides how a machine is stepped, and keeps what came of it: the same machine with the same input does the same again. Leaves
//! to the model what happens when.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::super::{Answered, Output};
use super::{Values, hierarchy, name};
use crate::claim::lock_area::IoFailure;
use crate::claim::lock_area::layout::{Committed, Copy2, Header, Ownership, Record};
use crate::claim::lock_area::machine::{Answer, Config, Effect, Input, Machine, Request, RequestId, Tag};
use crate::claim::lock_area::supposed::{NOW, Sight};
use crate::claim::{Acquire, EarlyFailures};
use crate::name::Epoch;
use crate::sim::model::intern::{Interner, print_of};
use crate::sim::model::lock_area::Flaw;

/// What a node is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Ask {
    Take,
    Release { heir: Option<u8> },
}

impl Ask {
    pub(super) fn code(self) -> u8 {
        match self {
            Ask::Take => 1,
            Ask::Release { heir: None } => 2,
            Ask::Release { heir: Some(heir) } => 3 + heir,
        }
    }

    pub(super) fn in_words(self) -> String {
        match self {
            Ask::Take => "take the claim".to_owned(),
            Ask::Release { heir: None } => "release the claim".to_owned(),
            Ask::Release { heir: Some(heir) } => format!("hand the claim to {}", name(heir.into())),
        }
    }
}

/// What becomes of a write that is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Lost,
    Landed,
    Torn,
    Late,
}

impl Fate {
    pub(super) fn in_words(self) -> &'static str {
        match self {
            Fate::Lost => "not carried out",
            Fate::Landed => "carried out all the same",
            Fate::Torn => "torn",
            Fate::Late => "on its way still",
        }
    }
}

/// What a machine takes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Stimulus {
    Ask { ask: Ask, adopt: Option<u8>, epoch: u8 },
    Done,
    NoAnswer,
    Due,
    Lapsed,
    Renewed { same_term: bool },
}

#[derive(Clone, Copy, Debug)]
enum Transfer {
    Read { offset: u64, len: usize },
    Write { copy: u8, block: u32 },
}

/// A machine with its transfers under way.
#[derive(Clone)]
pub(super) struct Local {
    pub(super) machine: Machine,
    pending: Vec<(Tag, Transfer)>,
    /// Of its own record, as it keeps it in memory.
    pub(super) sequences: Vec<u64>,
    /// Known by everything but those.
    pub(super) without_sequences: u128,
}

impl Local {
    #[expect(clippy::expect_used, reason = "every node of a model has a slot in its area")]
    pub(super) fn new(header: &Header, i: usize, sight: Sight, life: u64) -> Local {
        let config =
            Config { node: header.nodes[i].clone(), boot: sight.boot, incarnation: sight.incarnation, seed: 0 };
        let mut machine = Machine::new(header.clone(), &config).expect("the node has a slot");
        machine.suppose_entered(life);
        let mut local = Local { machine, pending: Vec::new(), sequences: Vec::new(), without_sequences: 0 };
        local.settle(NOW, None);
        local
    }

    pub(super) fn is_busy(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The write under way: to which copy, and what.
    pub(super) fn write(&self) -> Option<(u8, u32)> {
        match self.pending.first() {
            Some((_, Transfer::Write { copy, block })) => Some((*copy, *block)),
            _ => None,
        }
    }

    /// What is being written.
    pub(super) fn writing(&self) -> Option<u32> {
        self.write().map(|(_, block)| block)
    }

    pub(super) fn transfer_in_words(&self, blocks: &Blocks) -> String {
        match self.pending.first() {
            None => "it is idle".to_owned(),
            Some((_, Transfer::Read { offset, .. })) if *offset == blocks.header.slots_at() => {
                "reads the slots".to_owned()
            }
            Some((_, Transfer::Read { .. })) => "reads the records".to_owned(),
            Some((_, Transfer::Write { copy, block })) => {
                let r = blocks.record(*block);
                let value = r.value.as_ref().map_or_else(|| "nothing".to_owned(), super::truth::tell);
                let copy = if *copy == 0 { "A" } else { "B" };
                format!(
                    "writes copy {copy}: instance {}, mbal {}, bal {}, {value}; decided: {}",
                    r.instance, r.mbal, r.bal, r.committed.instance
                )
            }
        }
    }

    /// Makes it look like every other that will do the same.
    fn settle(&mut self, at: crate::time::Time, blocks: Option<&Blocks>) {
        let mut tags: Vec<Tag> = self.pending.iter().map(|(tag, _)| *tag).collect();
        self.machine.make_canonical(at, &mut tags);
        self.pending.iter_mut().zip(tags).for_each(|((tag, _), new)| *tag = new);
        let (sequences, mut text) = self.machine.identity();
        self.sequences = sequences;
        let transfers = self.pending.iter().map(|(_, transfer)| match (transfer, blocks) {
            (Transfer::Write { copy, block }, Some(blocks)) => format!("write {copy} {}", blocks.split(*block).0),
            (other, _) => format!("{other:?}"),
        });
        text.extend(transfers);
        self.without_sequences = print_of(text.as_bytes());
    }

    pub(super) fn identity(&self, blocks: &Blocks) -> String {
        let writing = self.writing().map(|b| blocks.split(b).1);
        format!("{} {:?} {writing:?}", self.without_sequences, self.sequences)
    }
}

/// Every block that was ever written, by number, and what is decided in them.
pub(super) struct Blocks {
    header: Header,
    blocks: Interner<Block>,
    masked: HashMap<(u32, Flaw), u32>,
    pub(super) values: Values,
}

struct Block {
    bytes: Vec<u8>,
    record: Record,
    node: usize,
    without_sequence: u128,
}

impl Blocks {
    /// Never written.
    pub(super) const BLANK: u32 = 0;
    /// Torn: it fails its checksum.
    pub(super) const TORN: u32 = 1;

    pub(super) fn new(header: Header) -> Blocks {
        let len = header.block_size as usize;
        let mut blocks = Blocks { header, blocks: Interner::default(), masked: HashMap::new(), values: Values::new() };
        for fill in [0, 0xee] {
            let block =
                Block { bytes: vec![fill; len], record: Record::default(), node: 0, without_sequence: fill.into() };
            blocks.blocks.put(&[fill], || block);
        }
        blocks
    }

    pub(super) fn len(&self) -> usize {
        self.blocks.len()
    }

    pub(super) fn record(&self, block: u32) -> &Record {
        &self.blocks.get(block).record
    }

    /// What it is known by apart from its sequence, and that.
    pub(super) fn split(&self, block: u32) -> (u128, u64) {
        let block = self.blocks.get(block);
        (block.without_sequence, block.record.seq)
    }

    fn put(&mut self, bytes: Vec<u8>, node: usize) -> Result<u32, String> {
        let record =
            Record::decode(&bytes, &self.header, node, 0).map_err(|e| format!("a node writes nonsense: {e}"))?;
        let rest = Record { seq: 0, ..record.clone() };
        let without_sequence = print_of(format!("{node} {rest:?}").as_bytes());
        let identity = bytes.clone();
        Ok(self.blocks.put(&identity, || Block { bytes, record, node, without_sequence }))
    }

    fn put_record(&mut self, record: &Record, node: usize) -> u32 {
        let bytes = record.encode(&self.header, node, 0);
        self.put(bytes, node).unwrap_or(Self::TORN)
    }

    /// The records of all nodes once the record has its name, and what they know to be decided.
    pub(super) fn named(&mut self) -> (Vec<u32>, Committed) {
        let committed = Committed { instance: 1, name: Some(hierarchy()), ownership: Ownership::default() };
        let record = Record { seq: 1, instance: 1, mbal: 1, committed: committed.clone(), ..Record::default() };
        let nodes = self.header.nodes.len();
        ((0..nodes).map(|i| self.put_record(&record, i)).collect(), committed)
    }

    /// The region of the records as node `reader` sees it.
    fn region(&mut self, offset: u64, len: usize, disk: &[[u32; 2]], reader: usize, flaw: Option<Flaw>) -> Vec<u8> {
        let mut bytes = vec![0; len];
        for (node, copies) in disk.iter().enumerate() {
            for (copy, block) in Copy2::BOTH.into_iter().zip(copies) {
                let Some(at) = self.header.record_at(node, copy, 0).checked_sub(offset) else { continue };
                let at = at as usize;
                let block = match flaw {
                    Some(flaw) if node != reader && *block > Self::TORN => self.masked(*block, flaw),
                    _ => *block,
                };
                if let Some(place) = bytes.get_mut(at..at + self.header.block_size as usize) {
                    place.copy_from_slice(&self.blocks.get(block).bytes);
                }
            }
        }
        bytes
    }

    /// The block as a node sees it that does not heed what the flaw says.
    fn masked(&mut self, block: u32, flaw: Flaw) -> u32 {
        if let Some(masked) = self.masked.get(&(block, flaw)) {
            return *masked;
        }
        let node = self.blocks.get(block).node;
        let mut record = self.record(block).clone();
        match flaw {
            Flaw::BallotsIgnored => record.mbal = record.bal,
            Flaw::AcceptedIgnored => (record.bal, record.value) = (0, None),
            Flaw::DecidedForgotten if record.committed.instance > 1 => {
                let name = record.committed.name.clone();
                let committed = Committed { instance: 1, name, ownership: Ownership::default() };
                record = Record { seq: record.seq, instance: 1, committed, ..Record::default() };
            }
            _ => {}
        }
        let masked = self.put_record(&record, node);
        self.masked.insert((block, flaw), masked);
        masked
    }
}

/// What came of every step of a machine that was taken before.
#[derive(Default)]
pub(super) struct Memo {
    pub(super) steps: HashMap<u128, Result<Output, String>>,
    pub(super) flaw: Option<Flaw>,
}

impl Memo {
    #[expect(clippy::too_many_arguments, reason = "all that the answer depends on")]
    pub(super) fn stir(
        &mut self,
        locals: &mut Interner<Local>,
        blocks: &mut Blocks,
        local: u32,
        stimulus: Stimulus,
        sights: &[Sight],
        disk: &[[u32; 2]],
        i: usize,
    ) -> Result<Output, String> {
        let mut key = Vec::with_capacity(64);
        key.extend(local.to_le_bytes());
        match stimulus {
            Stimulus::Ask { ask, adopt, epoch } => key.extend([1, ask.code(), adopt.map_or(0, |e| e + 1), epoch]),
            Stimulus::Done => key.push(2),
            Stimulus::NoAnswer => key.push(3),
            Stimulus::Due => key.push(4),
            Stimulus::Lapsed => key.push(5),
            Stimulus::Renewed { same_term } => key.extend([6, u8::from(same_term)]),
        }
        key.extend(sights.iter().flat_map(|s| [s.boot.0[0], s.incarnation.0 as u8, u8::from(s.expired)]));
        if matches!((stimulus, locals.get(local).pending.first()), (Stimulus::Done, Some((_, Transfer::Read { .. })))) {
            key.extend(disk.iter().flatten().flat_map(|b| b.to_le_bytes()));
        }
        let key = print_of(&key);
        if let Some(known) = self.steps.get(&key) {
            return known.clone();
        }
        let output = step(locals, blocks, local, stimulus, sights, disk, i, self.flaw);
        self.steps.insert(key, output.clone());
        output
    }
}

#[expect(clippy::too_many_arguments, reason = "all that the answer depends on")]
fn step(
    locals: &mut Interner<Local>,
    blocks: &mut Blocks,
    local: u32,
    stimulus: Stimulus,
    sights: &[Sight],
    disk: &[[u32; 2]],
    i: usize,
    flaw: Option<Flaw>,
) -> Result<Output, String> {
    let mut local = locals.get(local).clone();
    local.machine.suppose_sight(sights);
    let mut at = NOW;
    let input = match stimulus {
        Stimulus::Ask { ask, adopt, epoch } => Input::Ask(RequestId(1), request(ask, adopt, epoch, blocks)),
        Stimulus::Done | Stimulus::NoAnswer => {
            let (tag, transfer) = local.pending.remove(0);
            match (transfer, stimulus) {
                (Transfer::Read { .. }, Stimulus::NoAnswer) => Input::Read(tag, Err(IoFailure::NoAnswer)),
                (Transfer::Write { .. }, Stimulus::NoAnswer) => Input::Written(tag, Err(IoFailure::NoAnswer)),
                (Transfer::Read { offset, .. }, _) if offset == blocks.header.slots_at() => {
                    Input::Read(tag, Ok(local.machine.slots_region(sights)))
                }
                (Transfer::Read { offset, len }, _) => Input::Read(tag, Ok(blocks.region(offset, len, disk, i, flaw))),
                (Transfer::Write { .. }, _) => Input::Written(tag, Ok(())),
            }
        }
        Stimulus::Due => {
            at = local.machine.due().unwrap_or(NOW).max(NOW);
            Input::Tick
        }
        Stimulus::Lapsed => {
            local.machine.suppose_lapsed();
            Input::Tick
        }
        Stimulus::Renewed { same_term } => {
            local.machine.suppose_renewed();
            if same_term {
                local.machine.suppose_same_term();
            }
            Input::Tick
        }
    };
    local.machine.handle(at, input);
    let mut answer = None;
    while let Some(effect) = local.machine.poll_effect() {
        match effect {
            Effect::Read { tag, offset, len, .. } => local.pending.push((tag, Transfer::Read { offset, len })),
            Effect::Write { tag, offset, bytes, .. } => {
                let copy = if offset == blocks.header.record_at(i, Copy2::A, 0) { Copy2::A } else { Copy2::B };
                if offset != blocks.header.record_at(i, copy, 0) {
                    return Err(format!("{} writes to a place that is not its own: {offset}", name(i)));
                }
                let block = blocks.put(bytes, i)?;
                local.pending.push((tag, Transfer::Write { copy: copy as u8, block }));
            }
            Effect::Answer(_, given) => {
                answer = Some(match given {
                    Answer::Acquired(held) => Answered::Acquired(u8::try_from(held.epoch.0).unwrap_or(u8::MAX)),
                    Answer::Refused(refusal) => Answered::Refused(refusal.to_string()),
                    Answer::Done | Answer::Seen(_) => Answered::Done,
                });
            }
            Effect::News(_) => {}
        }
    }
    local.settle(at, Some(blocks));
    if local.pending.len() > 1 {
        return Err(format!("{} has {} transfers under way at once", name(i), local.pending.len()));
    }
    let local = locals.put(local.identity(blocks).as_bytes(), || local);
    Ok(Output { local, answer })
}

fn request(ask: Ask, adopt: Option<u8>, epoch: u8, blocks: &Blocks) -> Request {
    match ask {
        Ask::Take => {
            let adopt = adopt.map(|e| Epoch(e.into()));
            Request::Acquire(hierarchy(), Acquire { beliefs: Arc::new(BTreeMap::new()), known: Epoch::ZERO, adopt })
        }
        Ask::Release { heir } => Request::Release {
            hierarchy: hierarchy(),
            epoch: Epoch(epoch.into()),
            heir: heir.map(|h| blocks.header.nodes[usize::from(h)].clone()),
            failures: EarlyFailures::default(),
        },
    }
}
