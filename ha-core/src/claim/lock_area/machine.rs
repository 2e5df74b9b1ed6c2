//! The lock area's protocol on one node, as a plain machine: answers of the device in, commands to it out.
//!
//! Decides when to renew, what to read and write, and what to answer. Leaves the transfers and the clock to
//! [`super::area`]. Two lanes run beside each other: the lease (one transfer at a time, on a beat) and the requests, which
//! are worked off in batches by `batch`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::batch::Job;
use super::device::IoFailure;
use super::layout::{Header, Record};
use super::lease::{Lease, Stage, Transfer, Watch, decode_slots, lease_bound};
use super::paxos::Me;
use crate::claim::{Acquire, EarlyFailures, Held, Holding, LeaseNews, Loss, Refusal, Tenure};
use crate::name::{BootId, Epoch, HierarchyName, Incarnation, NodeName};
use crate::time::Time;

/// A transfer, to tell its answer from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(pub u64);

/// A request, to tell its answer from others. Chosen by the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// What a claim is asked.
#[derive(Clone, Debug)]
pub enum Request {
    /// [`crate::Claim::acquire`].
    Acquire(HierarchyName, Acquire),
    /// [`crate::Claim::release`].
    Release {
        /// Which.
        hierarchy: HierarchyName,
        /// Under which epoch it is held.
        epoch: Epoch,
        /// To whom.
        heir: Option<NodeName>,
        /// To be remembered.
        failures: EarlyFailures,
    },
    /// [`crate::Claim::inspect`].
    Inspect(HierarchyName),
    /// Say goodbye; refused while anything is owned.
    Leave,
}

impl Request {
    /// The hierarchy that it is about.
    pub fn hierarchy(&self) -> Option<&HierarchyName> {
        match self {
            Request::Acquire(h, _) | Request::Inspect(h) | Request::Release { hierarchy: h, .. } => Some(h),
            Request::Leave => None,
        }
    }
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To [`Request::Acquire`].
    Acquired(Held),
    /// To [`Request::Inspect`].
    Seen(Holding),
    /// To [`Request::Release`] and [`Request::Leave`].
    Done,
    /// To any.
    Refused(Refusal),
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// Nothing but the passing of time.
    Tick,
    /// A read was answered, or was not in time.
    Read(Tag, Result<Vec<u8>, IoFailure>),
    /// A write was answered, or was not in time.
    Written(Tag, Result<(), IoFailure>),
    /// Somebody asks.
    Ask(RequestId, Request),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Read; no answer within `bound` counts as [`IoFailure::NoAnswer`].
    Read {
        /// For the answer.
        tag: Tag,
        /// Where, bytes.
        offset: u64,
        /// How much, bytes.
        len: usize,
        /// How long to wait.
        bound: Duration,
    },
    /// Write; no answer within `bound` counts as [`IoFailure::NoAnswer`].
    Write {
        /// For the answer.
        tag: Tag,
        /// Where, bytes.
        offset: u64,
        /// What.
        bytes: Vec<u8>,
        /// How long to wait.
        bound: Duration,
    },
    /// Answer a request.
    Answer(RequestId, Answer),
    /// The lease or the sight of the others changed.
    News(LeaseNews),
}

impl std::fmt::Display for Effect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Effect::Read { tag, offset, len, .. } => write!(f, "read {len} bytes at {offset} (#{})", tag.0),
            Effect::Write { tag, offset, bytes, .. } => {
                write!(f, "write {} bytes at {offset} (#{})", bytes.len(), tag.0)
            }
            Effect::Answer(id, answer) => write!(f, "answer request {}: {answer:?}", id.0),
            Effect::News(news) => match news.until {
                Some(until) => write!(f, "lease good until {until}"),
                None => write!(f, "lease not held"),
            },
        }
    }
}

/// Who runs the machine.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node; must have a slot.
    pub node: NodeName,
    /// This boot.
    pub boot: BootId,
    /// This life of the agent.
    pub incarnation: Incarnation,
    /// For the pauses after losing a race: differs from node to node.
    pub seed: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Io {
    LeaseWrite,
    LeaseRead(Time),
    BatchRead(u64),
    BatchWrite,
    BatchSlots(Time),
}

/// The machine.
#[derive(Clone, Debug)]
pub struct Machine {
    pub(super) header: Header,
    pub(super) me: Me,
    pub(super) lease: Lease,
    pub(super) watch: Watch,
    pub(super) queue: VecDeque<(RequestId, Request)>,
    pub(super) names: BTreeMap<HierarchyName, u32>,
    /// The records below are all named, in the order in which they were decided.
    pub(super) frontier: u32,
    /// Records whose name has an earlier place, with that name.
    pub(super) in_vain: BTreeMap<u32, HierarchyName>,
    /// The own records, as last written or about to be.
    pub(super) own: BTreeMap<u32, Record>,
    pub(super) held: BTreeMap<u32, (u64, u64)>,
    /// Records that this node may have come to own without knowing.
    pub(super) abandoned: BTreeSet<u32>,
    pub(super) settle_at: Time,
    pub(super) job: Option<Job>,
    pub(super) effects: VecDeque<Effect>,
    pub(super) ios: BTreeMap<Tag, Io>,
    pub(super) next_tag: u64,
    pub(super) rng: u64,
    pub(super) news: LeaseNews,
}

impl Machine {
    /// A machine on the area that `header` describes. `None` if the node has no slot there.
    pub fn new(header: Header, config: &Config) -> Option<Machine> {
        let slot = u8::try_from(header.slot_of(&config.node)?).ok()?;
        let me = Me { slot, boot: config.boot, nodes: header.nodes.len() as u8 };
        Some(Machine {
            me,
            lease: Lease::new(me, config.incarnation),
            watch: Watch::new(header.nodes.len()),
            queue: VecDeque::new(),
            names: BTreeMap::new(),
            frontier: 0,
            in_vain: BTreeMap::new(),
            own: BTreeMap::new(),
            held: BTreeMap::new(),
            abandoned: BTreeSet::new(),
            settle_at: Time::ZERO,
            job: None,
            effects: VecDeque::new(),
            ios: BTreeMap::new(),
            next_tag: 0,
            rng: config.seed,
            news: LeaseNews::default(),
            header,
        })
    }

    /// Takes a request in without beginning on it: the next [`Machine::handle`] does, with all that came together.
    pub fn ask(&mut self, id: RequestId, request: Request) {
        self.queue.push_back((id, request));
    }

    /// Takes in what happened.
    pub fn handle(&mut self, now: Time, input: Input) {
        match input {
            Input::Tick => {}
            Input::Ask(id, request) => self.ask(id, request),
            Input::Read(tag, result) => self.on_read(now, tag, result),
            Input::Written(tag, result) => self.on_written(now, tag, result),
        }
        while let Some(transfer) = self.lease.poll(now, &self.watch) {
            match transfer {
                Transfer::ReadSlots => self.read_slots(Io::LeaseRead(now), lease_bound(&self.header)),
                Transfer::Write(copy, slot) => {
                    let bytes = slot.encode(&self.header, self.me.slot.into());
                    let offset = self.header.slot_at(self.me.slot.into(), copy);
                    self.write(Io::LeaseWrite, offset, bytes, lease_bound(&self.header));
                }
            }
        }
        self.work(now);
        self.tell(now);
    }

    /// The next thing to do.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When [`Input::Tick`] is due if nothing else happens.
    pub fn next_deadline(&self) -> Option<Time> {
        // Without a lease nothing can be settled: it is done when the lease is entered again.
        let can_settle = self.job.is_none() && !self.abandoned.is_empty() && self.lease.is_up();
        let settle = can_settle.then_some(self.settle_at);
        let resume = self.job.as_ref().and_then(Job::resume_at);
        [self.lease.next_deadline(), settle, resume].into_iter().flatten().min()
    }

    /// Whether this node has entered its slot at least once since it started.
    pub fn has_entered(&self) -> bool {
        self.lease.term > 0
    }

    /// Why the slot cannot be entered ever, if so.
    pub fn name_in_use(&self) -> Option<&str> {
        match &self.lease.stage {
            Stage::Void(why) => Some(why),
            _ => None,
        }
    }

    /// Whether a claim is still held under `epoch`, and to when.
    pub fn uphold(&self, now: Time, hierarchy: &HierarchyName, epoch: Epoch) -> Result<Tenure, Loss> {
        let held = self.names.get(hierarchy).and_then(|number| self.held.get(number));
        match (held, self.lease.until(now)) {
            (Some((e, term)), _) if *e != epoch.0 || *term != self.lease.term => {
                Err(Loss::unproven("the lease ran out in between: acquire it again"))
            }
            (Some(_), Some(until)) => Ok(Tenure::Until(until)),
            (Some(_), None) => Err(Loss::unproven(self.lease.unfit())),
            (None, _) => Err(Loss::unproven("this node has not acquired it")),
        }
    }

    fn on_read(&mut self, now: Time, tag: Tag, result: Result<Vec<u8>, IoFailure>) {
        match self.ios.remove(&tag) {
            Some(Io::LeaseRead(issued)) => match result {
                Ok(bytes) => {
                    let slots = decode_slots(&self.header, &bytes);
                    self.watch.read(issued, now, &slots);
                    self.lease.read(now, Ok(&slots), &self.header);
                }
                Err(e) => self.lease.read(now, Err(e.to_string()), &self.header),
            },
            Some(Io::BatchSlots(issued)) => {
                if let Ok(bytes) = &result {
                    self.watch.read(issued, now, &decode_slots(&self.header, bytes));
                }
                self.transferred(now, result.map(|_| None));
            }
            Some(Io::BatchRead(offset)) => self.transferred(now, result.map(|bytes| Some((offset, bytes)))),
            _ => {}
        }
    }

    fn on_written(&mut self, now: Time, tag: Tag, result: Result<(), IoFailure>) {
        match self.ios.remove(&tag) {
            Some(Io::LeaseWrite) => {
                let read_next = self.lease.written(now, result.map_err(|e| e.to_string()), &self.header);
                if read_next {
                    self.read_slots(Io::LeaseRead(now), lease_bound(&self.header));
                }
            }
            Some(Io::BatchWrite) => self.transferred(now, result.map(|()| None)),
            _ => {}
        }
    }

    pub(super) fn read_slots(&mut self, io: Io, bound: Duration) {
        let (offset, len) = (self.header.slots_at(), self.header.slots_len());
        self.read(io, offset, len, bound);
    }

    pub(super) fn read(&mut self, io: Io, offset: u64, len: usize, bound: Duration) {
        let tag = self.tag(io);
        self.effects.push_back(Effect::Read { tag, offset, len, bound });
    }

    pub(super) fn write(&mut self, io: Io, offset: u64, bytes: Vec<u8>, bound: Duration) {
        let tag = self.tag(io);
        self.effects.push_back(Effect::Write { tag, offset, bytes, bound });
    }

    fn tag(&mut self, io: Io) -> Tag {
        self.next_tag += 1;
        let tag = Tag(self.next_tag);
        self.ios.insert(tag, io);
        tag
    }

    pub(super) fn answer(&mut self, id: RequestId, answer: Answer) {
        self.effects.push_back(Effect::Answer(id, answer));
    }

    /// A pause of at most `most` (splitmix64, Steele, Lea & Flood 2014).
    pub(super) fn pause(&mut self, most: Duration) -> Duration {
        self.rng = self.rng.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.rng;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        Duration::from_nanos(z % (most.as_nanos().max(1) as u64))
    }

    fn tell(&mut self, now: Time) {
        let news = self.lease.news(now, &self.watch, &self.header);
        if news != self.news {
            self.news = news.clone();
            self.effects.push_back(Effect::News(news));
        }
    }
}
