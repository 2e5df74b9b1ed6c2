//! Requests in batches: all that wait go through the phases of the protocol together, whatever their number.
//!
//! Decides in which transfers a batch is carried out, finds and gives out record numbers, and turns outcomes into answers.
//! A state counts only after *both* copies of it were written, one after the other: a write of a former life that lands
//! late can then undo one copy, never the state.
//!
//! Record numbers: the first instance of a record decides its name. Names are proposed only behind the last record that is
//! known to be named, and count in the order of the records, the first occurrence of a name being its place. So all nodes
//! find the same number without anybody guarding a directory. Nodes that name different hierarchies at once can give a name twice. When
//! every record is named, those that were named in vain are given away again, the first one first: so a name that somebody gave to
//! one of them is seen by everybody who looks for a place.

use std::collections::BTreeMap;

use super::device::IoFailure;
use super::layout::{Committed, Copy2, Record, newest};
use super::lease::{Stage, first_seq};
use super::machine::{Answer, Io, Machine, Request, RequestId};
use super::paxos::{Attempt, Next, Outcome, Standing, Wish};
use crate::claim::{Belief, Held, Holder, Holding, Refusal, Tenure};
use crate::name::{Epoch, HierarchyName};
use crate::time::Time;

/// Ranges closer than this are transferred as one: a gap costs less than another transfer.
const GAP: u64 = 64 * 1024;
/// How far ahead names are looked for at least.
const SCAN: u32 = 256;
/// After so many tries somebody else deserves to win.
const MOST_ROUNDS: u32 = 12;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Promise,
    Accept,
    Commit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Scan { to: u32 },
    Look,
    Slots,
    Write(Phase, Copy2),
    Read(Phase),
    Pause(Time),
}

#[derive(Clone, Debug)]
pub(super) struct Work {
    pub(super) attempt: Attempt,
    running: bool,
    request: Option<RequestId>,
}

/// One batch.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) term: u64,
    requests: Vec<(RequestId, Request)>,
    pub(super) step: Step,
    naming: bool,
    pub(super) work: BTreeMap<u32, Work>,
    inspects: Vec<(RequestId, u32)>,
    leave: Option<RequestId>,
    pending: usize,
    pub(super) data: BTreeMap<u64, Vec<u8>>,
    failed: Option<String>,
    pub(super) rounds: u32,
    preempted: bool,
}

impl Job {
    pub(super) fn resume_at(&self) -> Option<Time> {
        match self.step {
            Step::Pause(at) => Some(at),
            _ => None,
        }
    }

    fn others(&self, m: &Machine, number: u32) -> Result<Vec<Record>, String> {
        let nodes = (0..m.header.nodes.len()).filter(|i| *i != usize::from(m.me.slot));
        let mut records = Vec::new();
        for node in nodes {
            records.extend(self.record(m, node, number)?);
        }
        Ok(records)
    }

    fn record(&self, m: &Machine, node: usize, number: u32) -> Result<Option<Record>, String> {
        let copy = |copy| {
            let at = m.header.record_at(node, copy, number);
            let (start, bytes) = self.data.range(..=at).next_back().map_or((at, &[][..]), |(s, b)| (*s, &b[..]));
            let from = ((at - start) as usize).min(bytes.len());
            let to = (from + m.header.block_size as usize).min(bytes.len());
            Record::decode(&bytes[from..to], &m.header, node, number)
        };
        newest(copy(Copy2::A), copy(Copy2::B), |r| r.seq)
            .map_err(|e| format!("both copies of record {number} of node {} are broken: {e}", m.header.nodes[node]))
    }
}

impl Machine {
    /// A transfer of the batch was answered.
    pub(super) fn transferred(&mut self, now: Time, result: Result<Option<(u64, Vec<u8>)>, IoFailure>) {
        let Some(mut job) = self.job.take() else { return };
        job.pending = job.pending.saturating_sub(1);
        match result {
            Ok(Some((offset, bytes))) => {
                job.data.insert(offset, bytes);
            }
            Ok(None) => {}
            Err(e) => job.failed = Some(e.to_string()),
        }
        if job.pending > 0 {
            self.job = Some(job);
        } else if let Some(why) = job.failed.take() {
            self.fail(now, job, &Refusal::Unreachable(why));
        } else {
            self.advance(now, job);
        }
    }

    /// Begins what can be begun.
    pub(super) fn work(&mut self, now: Time) {
        if let Some(job) = self.job.take() {
            match job.step {
                Step::Pause(at) if now >= at => self.slots(now, job),
                _ => self.job = Some(job),
            }
            return;
        }
        let settled = self.lease.entered() || matches!(self.lease.stage, Stage::Void(_) | Stage::Left);
        if !settled {
            return;
        }
        let unfit = self.lease.until(now).is_none().then(|| Refusal::Unfit(self.lease.unfit()));
        let entered = self.lease.entered();
        let mut requests = Vec::new();
        for (id, request) in std::mem::take(&mut self.queue) {
            match (&unfit, &request) {
                (Some(why), Request::Acquire(..)) => self.answer(id, Answer::Refused(why.clone())),
                (Some(why), Request::Release { .. } | Request::Leave) if !entered => {
                    self.answer(id, Answer::Refused(why.clone()));
                }
                _ => requests.push((id, request)),
            }
        }
        let settle = !self.abandoned.is_empty() && now >= self.settle_at && unfit.is_none();
        if requests.is_empty() && !settle {
            return;
        }
        let job = Job {
            term: self.lease.term,
            requests,
            step: Step::Look,
            naming: false,
            work: BTreeMap::new(),
            inspects: Vec::new(),
            leave: None,
            pending: 0,
            data: BTreeMap::new(),
            failed: None,
            rounds: 0,
            preempted: false,
        };
        self.resolve(now, job);
    }

    /// Turns requests into work on records, looking for unknown names first.
    fn resolve(&mut self, now: Time, job: Job) {
        let unknown = |m: &Machine, r: &Request| match r {
            Request::Acquire(h, _) | Request::Inspect(h) | Request::Release { hierarchy: h, .. } => {
                !m.names.contains_key(h)
            }
            Request::Leave => m.frontier == 0,
        };
        let missing = job.requests.iter().filter(|(_, r)| unknown(self, r)).count() as u32;
        if missing > 0 && (self.frontier < self.header.hierarchies || !self.in_vain.is_empty()) {
            return self.scan(now, job, missing);
        }
        self.assign(now, job);
    }

    fn scan(&mut self, now: Time, mut job: Job, missing: u32) {
        let to = self.frontier.saturating_add(SCAN.max(missing + 64)).min(self.header.hierarchies);
        job.step = Step::Scan { to };
        job.naming = false;
        let numbers: Vec<u32> =
            if self.frontier < to { (self.frontier..to).collect() } else { self.in_vain.keys().copied().collect() };
        self.read_records(now, job, &numbers, true);
    }

    /// Reads the records of all other nodes, and the own ones if asked.
    fn read_records(&mut self, now: Time, mut job: Job, numbers: &[u32], own: bool) {
        let block = u64::from(self.header.block_size);
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for node in 0..self.header.nodes.len() {
            if node == usize::from(self.me.slot) && !own {
                continue;
            }
            for copy in Copy2::BOTH {
                for number in numbers {
                    let at = self.header.record_at(node, copy, *number);
                    match ranges.last_mut() {
                        Some((_, end)) if at <= *end + GAP => *end = at + block,
                        _ => ranges.push((at, at + block)),
                    }
                }
            }
        }
        job.data.clear();
        job.pending = ranges.len();
        let bound = self.header.timing.deadline();
        for (from, to) in &ranges {
            self.read(Io::BatchRead(*from), *from, (to - from) as usize, bound);
        }
        if ranges.is_empty() { self.advance(now, job) } else { self.job = Some(job) }
    }

    fn advance(&mut self, now: Time, mut job: Job) {
        let result = match job.step {
            Step::Scan { to } => return self.scanned(now, job, to),
            Step::Look => self.looked(&mut job),
            Step::Slots => return self.plan(now, job),
            Step::Write(phase, Copy2::A) => return self.write_records(now, job, phase, Copy2::B),
            Step::Write(Phase::Commit, Copy2::B) => {
                self.conclude(now, &mut job);
                return self.round(now, job);
            }
            Step::Write(phase, Copy2::B) => {
                let numbers: Vec<u32> = job.running();
                job.step = Step::Read(phase);
                return self.read_records(now, job, &numbers, false);
            }
            Step::Read(phase) => self.judge(&mut job, phase).map(|next| {
                if job.running().is_empty() {
                    return None;
                }
                Some(next)
            }),
            Step::Pause(_) => return self.job = Some(job),
        };
        match result {
            Err(why) => self.fail(now, job, &Refusal::Unreachable(why)),
            Ok(Some(phase)) => self.write_records(now, job, phase, Copy2::A),
            Ok(None) if job.step == Step::Look => self.slots(now, job),
            Ok(None) => self.round(now, job),
        }
    }

    /// Names found: either all that was looked for, or the rest is to be given numbers.
    fn scanned(&mut self, now: Time, mut job: Job, to: u32) {
        let all_named = self.frontier == to;
        let learned = if all_named { self.learn_renamed(&job) } else { self.learn_names(now, &job, to) };
        if let Err(why) = learned {
            return self.fail(now, job, &Refusal::Unreachable(why));
        }
        if self.frontier == to && !all_named {
            return self.resolve(now, job);
        }
        let mut wanted: Vec<HierarchyName> = Vec::new();
        for (_, request) in &job.requests {
            if let Request::Acquire(h, _) = request
                && !self.names.contains_key(h)
                && !wanted.contains(h)
            {
                wanted.push(h.clone());
            }
        }
        let places: Vec<(u32, Option<HierarchyName>)> = if all_named {
            self.in_vain.iter().take(1).map(|(number, name)| (*number, Some(name.clone()))).collect()
        } else {
            (self.frontier..to).map(|number| (number, None)).collect()
        };
        if wanted.is_empty() || places.is_empty() {
            return self.assign(now, job);
        }
        job.naming = true;
        job.rounds = 0;
        for ((number, instead_of), name) in places.into_iter().zip(wanted) {
            let own = match self.load(&job, number) {
                Ok(own) => own,
                Err(why) => return self.fail(now, job, &Refusal::Unreachable(why)),
            };
            let mut attempt = Attempt::new(self.me, Wish::Name { name, instead_of }, own);
            match job.others(self, number) {
                Ok(others) => attempt.learn(&others),
                Err(why) => return self.fail(now, job, &Refusal::Unreachable(why)),
            }
            job.work.insert(number, Work { attempt, running: true, request: None });
        }
        self.plan(now, job);
    }

    /// Whose a record is, and how many instances of it are decided.
    fn name_of(&self, job: &Job, number: u32) -> Result<Option<(HierarchyName, u64)>, String> {
        let mut newest = Committed::default();
        for node in 0..self.header.nodes.len() {
            if let Some(record) = job.record(self, node, number)?
                && record.committed.instance > newest.instance
            {
                newest = record.committed;
            }
        }
        Ok(newest.name.map(|name| (name, newest.instance)))
    }

    fn learn_names(&mut self, now: Time, job: &Job, to: u32) -> Result<(), String> {
        while self.frontier < to {
            let Some((name, decided)) = self.name_of(job, self.frontier)? else { break };
            // What an earlier life proposed others can still decide in this node's favour.
            let own = job.record(self, self.me.slot.into(), self.frontier)?;
            if own.is_some_and(|own| own.instance > decided && own.bal > 0) {
                self.abandon(now, self.frontier);
            }
            if self.names.contains_key(&name) {
                self.in_vain.insert(self.frontier, name);
            } else {
                self.names.insert(name, self.frontier);
            }
            self.frontier += 1;
        }
        Ok(())
    }

    fn learn_renamed(&mut self, job: &Job) -> Result<(), String> {
        for number in self.in_vain.keys().copied().collect::<Vec<u32>>() {
            if let Some((name, _)) = self.name_of(job, number)?
                && !self.names.contains_key(&name)
            {
                self.in_vain.remove(&number);
                self.names.insert(name, number);
            }
        }
        Ok(())
    }

    /// The own record, from memory or as read. A life's first write goes past what is still on its way.
    fn load(&mut self, job: &Job, number: u32) -> Result<Record, String> {
        if let Some(own) = self.own.get(&number) {
            return Ok(own.clone());
        }
        let mut own = job.record(self, self.me.slot.into(), number)?.unwrap_or_default();
        own.seq = first_seq(self.lease.life, own.seq);
        Ok(own)
    }

    fn assign(&mut self, now: Time, mut job: Job) {
        job.naming = false;
        job.rounds = 0;
        let mut later = Vec::new();
        for (id, request) in std::mem::take(&mut job.requests) {
            let (hierarchy, wish) = match &request {
                Request::Leave => {
                    job.leave = Some(id);
                    continue;
                }
                Request::Inspect(h) => match self.names.get(h) {
                    Some(number) => {
                        job.inspects.push((id, *number));
                        continue;
                    }
                    None => {
                        let failures = crate::claim::EarlyFailures::default();
                        let free = Holding { holder: None, epoch: Epoch::ZERO, failures };
                        self.answer(id, Answer::Seen(free));
                        continue;
                    }
                },
                Request::Acquire(h, a) => {
                    let adopt = a.adopt.map(|e| e.0);
                    (h, Wish::Take { known: a.known.0, adopt, beliefs: a.beliefs.clone() })
                }
                Request::Release { hierarchy, epoch, heir, failures } => {
                    let named = heir.as_ref().map(|heir| {
                        let slot = self.header.slot_of(heir)?;
                        Some((slot as u8, self.watch.boot_of(slot)?))
                    });
                    if let (Some(None), Some(heir)) = (named, heir) {
                        let why = format!("{heir} cannot inherit: it has no beating slot in the lock area");
                        self.answer(id, Answer::Refused(Refusal::Unfit(why)));
                        continue;
                    }
                    let failures = (*failures).into();
                    (hierarchy, Wish::Release { epoch: epoch.0, heir: named.flatten(), failures })
                }
            };
            let Some(number) = self.names.get(hierarchy).copied() else {
                let answer = if matches!(request, Request::Release { .. }) {
                    Answer::Done
                } else {
                    let why = format!("the lock area is full: all {} hierarchies are named", self.header.hierarchies);
                    Answer::Refused(Refusal::Unfit(why))
                };
                self.answer(id, answer);
                continue;
            };
            if job.work.contains_key(&number) {
                later.push((id, request));
                continue;
            }
            self.abandoned.remove(&number);
            let attempt = Attempt::new(self.me, wish, Record::default());
            job.work.insert(number, Work { attempt, running: true, request: Some(id) });
        }
        for again in later.into_iter().rev() {
            self.queue.push_front(again);
        }
        if job.work.is_empty() && now >= self.settle_at && self.lease.until(now).is_some() {
            for number in std::mem::take(&mut self.abandoned) {
                let attempt = Attempt::new(self.me, Wish::Settle, Record::default());
                job.work.insert(number, Work { attempt, running: true, request: None });
            }
        }
        let mut numbers: Vec<u32> = job.running();
        numbers.extend(job.inspects.iter().map(|(_, n)| *n));
        if job.leave.is_some() {
            numbers.extend(0..self.frontier);
        }
        numbers.sort_unstable();
        numbers.dedup();
        job.step = Step::Look;
        self.read_records(now, job, &numbers, true);
    }

    /// The records as they stand: inspections are answered, attempts learn where they are.
    fn looked(&mut self, job: &mut Job) -> Result<Option<Phase>, String> {
        for (id, number) in std::mem::take(&mut job.inspects) {
            let answer = match self.holding(job, number) {
                Ok(holding) => Answer::Seen(holding),
                Err(why) => Answer::Refused(Refusal::Unreachable(why)),
            };
            self.answer(id, answer);
        }
        if let Some(id) = job.leave.take() {
            let mine = (0..self.frontier).find_map(|n| match self.holding(job, n) {
                Ok(h) if h.holder != Some(Holder::Me) => None,
                Ok(_) => Some(format!("record {n} is still owned by this node")),
                Err(why) => Some(why),
            });
            match mine {
                Some(why) => self.answer(id, Answer::Refused(Refusal::Unfit(why))),
                None if !job.work.is_empty() => self.queue.push_back((id, Request::Leave)),
                None => {
                    self.lease.leave();
                    self.answer(id, Answer::Done);
                }
            }
        }
        let numbers: Vec<u32> = job.work.keys().copied().collect();
        for number in numbers {
            let own = self.load(job, number)?;
            let others = job.others(self, number)?;
            if let Some(work) = job.work.get_mut(&number) {
                let mut attempt = work.attempt.clone().with_own(own);
                attempt.learn(&others);
                work.attempt = attempt;
            }
        }
        Ok(None)
    }

    fn holding(&self, job: &Job, number: u32) -> Result<Holding, String> {
        let mut best = self.own.get(&number).cloned().unwrap_or_default().committed;
        for node in 0..self.header.nodes.len() {
            if let Some(record) = job.record(self, node, number)?
                && record.committed.instance > best.instance
            {
                best = record.committed;
            }
        }
        let holder = best.ownership.owner.map(|(slot, _)| match self.header.nodes.get(usize::from(slot)) {
            _ if slot == self.me.slot => Holder::Me,
            Some(node) => Holder::Node(node.clone()),
            None => Holder::Stranger(format!("slot {slot}")),
        });
        Ok(Holding { holder, epoch: Epoch(best.ownership.epoch), failures: best.ownership.failures.into() })
    }

    /// A fresh look at the slots, begun after the records were read: see [`Attempt::plan`].
    fn slots(&mut self, now: Time, mut job: Job) {
        if job.work.is_empty() {
            return self.round(now, job);
        }
        job.step = Step::Slots;
        job.pending = 1;
        self.job = Some(job);
        self.read_slots(Io::BatchSlots(now), self.header.timing.deadline());
    }

    fn plan(&mut self, now: Time, mut job: Job) {
        let mut done = Vec::new();
        for (number, work) in &mut job.work {
            let beliefs = work.attempt.beliefs().cloned();
            let standing = |o: &super::layout::Ownership| {
                let owner = o.owner.and_then(|(slot, _)| self.header.nodes.get(usize::from(slot)));
                let fenced = match beliefs.as_ref().zip(owner).and_then(|(b, n)| b.get(n)) {
                    Some(Belief::Heard) => {
                        return Standing::Alive { retry_at: None, why: "this node is in contact with it".into() };
                    }
                    Some(Belief::Fenced { begun }) => Some(*begun),
                    _ => None,
                };
                self.watch.standing(&self.header, o, fenced)
            };
            work.running = true;
            match work.attempt.plan(standing) {
                Next::Done(outcome) => done.push((*number, outcome)),
                _ => work.running = true,
            }
        }
        for (number, outcome) in done {
            self.finish(now, &mut job, number, outcome);
        }
        if job.work.is_empty() {
            return self.round(now, job);
        }
        self.write_records(now, job, Phase::Promise, Copy2::A);
    }

    fn write_records(&mut self, _now: Time, mut job: Job, phase: Phase, copy: Copy2) {
        if copy == Copy2::A {
            for (number, work) in job.work.iter_mut().filter(|(_, w)| w.running) {
                work.attempt.own.seq += 1;
                self.own.insert(*number, work.attempt.own.clone());
            }
        }
        job.step = Step::Write(phase, copy);
        let gap = (GAP / u64::from(self.header.block_size)) as u32;
        let mut runs: Vec<(u32, u32)> = Vec::new();
        for number in job.running() {
            match runs.last_mut() {
                // What lies between is this node's own: written again as it is.
                Some((_, last)) if number - *last <= gap && (*last..number).all(|n| self.own.contains_key(&n)) => {
                    *last = number;
                }
                _ => runs.push((number, number)),
            }
        }
        job.pending = runs.len();
        let node = usize::from(self.me.slot);
        for (first, last) in runs {
            let records = self.own.range(first..=last);
            let bytes = records.flat_map(|(n, r)| r.encode(&self.header, node, *n)).collect();
            let offset = self.header.record_at(node, copy, first);
            self.write(Io::BatchWrite, offset, bytes, self.header.timing.deadline());
        }
        self.job = Some(job);
    }

    /// After a read: who goes on to the next write.
    fn judge(&mut self, job: &mut Job, phase: Phase) -> Result<Phase, String> {
        for number in job.running() {
            let others = job.others(self, number)?;
            let Some(work) = job.work.get_mut(&number) else { continue };
            let next = match phase {
                Phase::Promise => work.attempt.accept(&others),
                _ => work.attempt.decide(&others),
            };
            if let Next::Again { preempted } = next {
                work.running = false;
                job.preempted |= preempted;
            }
        }
        Ok(if phase == Phase::Promise { Phase::Accept } else { Phase::Commit })
    }

    fn conclude(&mut self, now: Time, job: &mut Job) {
        for number in job.running() {
            let Some(work) = job.work.get_mut(&number) else { continue };
            match work.attempt.conclude() {
                Next::Done(outcome) => self.finish(now, job, number, outcome),
                _ => work.running = false,
            }
        }
    }

    /// The end of a round: another one for those that need it, or the end of the batch.
    fn round(&mut self, now: Time, mut job: Job) {
        if job.work.is_empty() {
            if job.naming {
                return self.resolve(now, job);
            }
            return self.work(now);
        }
        job.rounds += 1;
        if job.rounds >= MOST_ROUNDS {
            return self.fail(now, job, &Refusal::Raced);
        }
        if std::mem::take(&mut job.preempted) {
            let pause = self.pause(self.header.timing.back_off(job.rounds));
            job.step = Step::Pause(now + pause);
            self.job = Some(job);
        } else {
            self.slots(now, job);
        }
    }

    fn finish(&mut self, now: Time, job: &mut Job, number: u32, outcome: Outcome) {
        let Some(Work { request, attempt, .. }) = job.work.remove(&number) else { return };
        if matches!(outcome, Outcome::Released | Outcome::Held { .. } | Outcome::Raced) {
            self.held.remove(&number);
            if attempt.is_pending() {
                self.abandon(now, number);
            }
        }
        let answer = match outcome {
            Outcome::Named => return,
            Outcome::Released => Answer::Done,
            Outcome::Raced => Answer::Refused(Refusal::Raced),
            Outcome::Held { owner, epoch, retry_at, why } => {
                let holder = self.header.nodes[usize::from(owner)].clone();
                Answer::Refused(Refusal::Held { holder, epoch: Epoch(epoch), why, retry_at })
            }
            Outcome::Owned(ownership) => match self.lease.until(now) {
                // Begun under the same lease as concluded: nobody can have taken this node for dead in between.
                Some(until) if self.lease.term == job.term => {
                    self.held.insert(number, (ownership.epoch, job.term));
                    let failures = ownership.failures.into();
                    Answer::Acquired(Held { epoch: Epoch(ownership.epoch), tenure: Tenure::Until(until), failures })
                }
                _ => {
                    self.abandon(now, number);
                    Answer::Refused(Refusal::Unfit(self.lease.unfit()))
                }
            },
        };
        if let Some(id) = request {
            self.answer(id, answer);
        }
    }

    fn abandon(&mut self, now: Time, number: u32) {
        self.abandoned.insert(number);
        self.settle_at = now + self.header.timing.deadline();
    }

    /// Ends the batch. What was being taken may yet be decided in this node's favour by others: it is given up later.
    fn fail(&mut self, now: Time, mut job: Job, why: &Refusal) {
        for (number, work) in std::mem::take(&mut job.work) {
            if !job.naming && !work.attempt.is_release() {
                self.abandon(now, number);
            }
            if let Some(id) = work.request {
                self.answer(id, Answer::Refused(why.clone()));
            }
        }
        let waiting = job.requests.into_iter().map(|(id, _)| id);
        let waiting: Vec<RequestId> =
            waiting.chain(job.inspects.into_iter().map(|(id, _)| id)).chain(job.leave).collect();
        for id in waiting {
            self.answer(id, Answer::Refused(why.clone()));
        }
        self.work(now);
    }
}

impl Job {
    fn running(&self) -> Vec<u32> {
        self.work.iter().filter(|(_, w)| w.running).map(|(n, _)| *n).collect()
    }
}
