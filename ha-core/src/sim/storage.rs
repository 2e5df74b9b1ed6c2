//! A lock area's machine on one simulated node: its transfers, the questions of the engine and their answers.
//!
//! Decides nothing; it does what [`LockArea`](crate::claim::lock_area::LockArea) does with tokio.

use std::collections::BTreeMap;
use std::time::Duration;

use super::clock::Moment;
use super::node::{ForAgent, ForMachine};
use super::world::{What, World};
use crate::claim::lock_area::machine::{Answer, Effect, Input as AreaInput, Machine, Request, RequestId, Tag};
use crate::claim::lock_area::{IoFailure, machine};
use crate::claim::{Loss, Refusal};
use crate::engine::Input;
use crate::name::{BootId, Epoch, HierarchyName};
use crate::recovery::OpId;

/// As the driver's: a question to a claim that takes longer counts as unanswered.
pub(super) const CLAIM_PATIENCE: Duration = Duration::from_secs(30);
/// From a question to the machine's work on it, so that what is asked together is worked off together.
const GATHER: Duration = Duration::from_micros(50);
/// From the end of an agent to its next life, as systemd has it.
const SUPERVISOR: Duration = Duration::from_secs(1);

pub(super) struct AreaOnNode {
    pub(super) machine: Machine,
    asked: BTreeMap<RequestId, Asked>,
    next: u64,
    due_at: Option<Moment>,
}

/// A question of the engine.
pub(super) enum Question {
    Acquire(OpId),
    Inspect(OpId),
    Release(OpId),
    /// Of the agent itself, at its end.
    Leave,
    /// What was acquired for somebody who waits no longer is given back.
    GiveBack,
}

struct Asked {
    hierarchy: Option<HierarchyName>,
    question: Question,
    /// Nobody waits for the answer any more.
    given_up: bool,
}

impl AreaOnNode {
    pub(super) fn new(machine: Machine) -> Self {
        AreaOnNode { machine, asked: BTreeMap::new(), next: 0, due_at: None }
    }
}

/// The identity of a boot.
pub(super) fn boot_id(node: usize, boot: u64) -> BootId {
    let mut id = [0; 16];
    id[0] = node as u8 + 1;
    id[8..].copy_from_slice(&boot.to_be_bytes());
    BootId(id)
}

impl World {
    pub(super) fn ask_area(&mut self, node: usize, area: usize, question: Question, request: Request) {
        let now = self.now;
        let Some(on_node) = self.area_of(node, area) else { return };
        on_node.next += 1;
        let id = RequestId(on_node.next);
        let hierarchy = request.hierarchy().cloned();
        on_node.asked.insert(id, Asked { hierarchy, question, given_up: false });
        on_node.machine.ask(id, request);
        self.area_due(node, area, now + GATHER);
        self.for_agent_at(node, now + CLAIM_PATIENCE, ForAgent::Unanswered(area, id));
    }

    pub(super) fn uphold(
        &self,
        node: usize,
        area: usize,
        hierarchy: &HierarchyName,
        epoch: Epoch,
    ) -> Option<Result<crate::claim::Tenure, Loss>> {
        let time = self.nodes[node].time(self.now);
        Some(self.nodes[node].agent.as_ref()?.areas.get(area)?.machine.uphold(time, hierarchy, epoch))
    }

    pub(super) fn unanswered(&mut self, node: usize, area: usize, id: RequestId) {
        let Some(on_node) = self.area_of(node, area) else { return };
        let Some(asked) = on_node.asked.get_mut(&id) else { return };
        asked.given_up = true;
        let (hierarchy, why) = (asked.hierarchy.clone(), Refusal::Unreachable("no answer within 30s".to_owned()));
        let input = hierarchy.and_then(|hierarchy| match asked.question {
            Question::Acquire(op) => Some(Input::Acquired { hierarchy, op, answer: Err(why) }),
            Question::Inspect(op) => Some(Input::Inspected { hierarchy, op, answer: Err(why) }),
            Question::Release(op) => Some(Input::Released { hierarchy, op, answer: Err(why) }),
            Question::Leave | Question::GiveBack => None,
        });
        if let Some(input) = input {
            self.engine_input(node, input);
        }
    }

    fn area_of(&mut self, node: usize, area: usize) -> Option<&mut AreaOnNode> {
        self.nodes[node].agent.as_mut()?.areas.get_mut(area)
    }

    pub(super) fn area_due(&mut self, node: usize, area: usize, at: Moment) {
        let Some(on_node) = self.area_of(node, area) else { return };
        if on_node.due_at.is_none_or(|due| at < due) {
            on_node.due_at = Some(at);
            self.for_agent_at(node, at, ForAgent::AreaDue(area, at));
        }
    }

    pub(super) fn area_is_due(&mut self, node: usize, area: usize, at: Moment) {
        let Some(on_node) = self.area_of(node, area) else { return };
        if on_node.due_at == Some(at) {
            self.area_input(node, area, AreaInput::Tick);
        }
    }

    /// Something happened to a lock area's machine, or is due in it.
    pub(super) fn area_input(&mut self, node: usize, area: usize, input: AreaInput) {
        let time = self.nodes[node].time(self.now);
        let Some(on_node) = self.area_of(node, area) else { return };
        if matches!(input, AreaInput::Tick) {
            on_node.due_at = None;
        }
        on_node.machine.handle(time, input);
        while let Some(effect) = self.area_of(node, area).and_then(|a| a.machine.poll_effect()) {
            match effect {
                Effect::Read { tag, offset, len, bound } => self.read(node, area, tag, (offset, len), bound),
                Effect::Write { tag, offset, bytes, bound } => self.write(node, area, tag, offset, &bytes, bound),
                Effect::Answer(id, answer) => self.area_answers(node, area, id, answer),
                Effect::News(news) => {
                    let until = news.until.map(|until| self.nodes[node].clock.when(until));
                    let life = self.nodes[node].life;
                    self.observer.leased(self.now, (node, area), (life, news.lapsed), until);
                    let lease = self.setup.areas[area].name.to_string();
                    self.for_agent(node, ForAgent::Input(Input::Lease { lease, news }));
                }
            }
        }
        if let Some(at) = self.area_of(node, area).and_then(|a| a.machine.next_deadline()) {
            if at <= time {
                let what =
                    format!("the lock area's machine of {} asks to be called again at once", self.nodes[node].name);
                self.observer.violated(self.now, super::Invariant::L4, what);
            }
            self.area_due(node, area, self.nodes[node].clock.when(at));
        }
        // As the daemon does: it does not run under a name that is in use, and its supervisor starts it again.
        let refuses = |a: &mut AreaOnNode| a.machine.name_in_use().is_some() && !a.machine.has_entered();
        if self.area_of(node, area).is_some_and(refuses) {
            self.for_agent(node, ForAgent::Ends);
            let boot = self.nodes[node].boot;
            self.put(self.now + SUPERVISOR, What::Machine { node, boot, what: ForMachine::AgentStarts });
        }
    }

    fn area_answers(&mut self, node: usize, area: usize, id: RequestId, answer: Answer) {
        let Some(asked) = self.area_of(node, area).and_then(|a| a.asked.remove(&id)) else { return };
        if matches!(asked.question, Question::Leave) {
            // Written whenever the machine comes to it; the agent is gone before long.
            return self.left(node, area, matches!(answer, Answer::Done));
        }
        let Some(hierarchy) = asked.hierarchy else { return };
        if let Answer::Acquired(held) = &answer {
            self.observe_acquired(node, &hierarchy, held.epoch);
            if asked.given_up {
                let (epoch, failures) = (held.epoch, held.failures);
                self.observe_released(node, &hierarchy, epoch);
                let request = Request::Release { hierarchy, epoch, heir: None, failures };
                return self.ask_area(node, area, Question::GiveBack, request);
            }
        }
        if asked.given_up {
            return;
        }
        let unexpected = |other: Answer| match other {
            Answer::Refused(refusal) => refusal,
            other => Refusal::Unfit(format!("answered beside the question: {other:?}")),
        };
        let input = match asked.question {
            Question::Acquire(op) => {
                let answer = if let Answer::Acquired(held) = answer { Ok(held) } else { Err(unexpected(answer)) };
                Input::Acquired { hierarchy, op, answer }
            }
            Question::Inspect(op) => {
                let answer = if let Answer::Seen(holding) = answer { Ok(holding) } else { Err(unexpected(answer)) };
                Input::Inspected { hierarchy, op, answer }
            }
            Question::Release(op) => {
                let answer = if answer == Answer::Done { Ok(()) } else { Err(unexpected(answer)) };
                Input::Released { hierarchy, op, answer }
            }
            Question::Leave | Question::GiveBack => return,
        };
        self.for_agent(node, ForAgent::Input(input));
    }

    fn read(&mut self, node: usize, area: usize, tag: Tag, (offset, len): (u64, usize), bound: Duration) {
        self.stats.transfers += 1;
        let path = self.nodes[node].storage;
        let fate = self.disks[area].fate(path, 1);
        let life = self.nodes[node].life;
        let bound = self.bound(node, bound);
        match (fate.lands.first().copied().flatten(), fate.answer) {
            (Some(lands), Some((answer, true))) if self.now + answer <= bound => {
                let answer_at = self.now + answer;
                self.put(self.now + lands, What::DiskRead { node, life, area, tag, offset, len, answer_at });
            }
            (_, Some((answer, false))) if self.now + answer <= bound => {
                let failure = IoFailure::Error("input/output error".to_owned());
                let input = AreaInput::Read(tag, Err(failure));
                self.for_agent_at(node, self.now + answer, ForAgent::Disk(area, input));
            }
            _ => {
                let input = AreaInput::Read(tag, Err(IoFailure::NoAnswer));
                self.for_agent_at(node, bound, ForAgent::Disk(area, input));
            }
        }
    }

    fn write(&mut self, node: usize, area: usize, tag: Tag, offset: u64, bytes: &[u8], bound: Duration) {
        self.stats.transfers += 1;
        self.observe_written(node, area, offset, bytes);
        let path = self.nodes[node].storage;
        let block = self.disks[area].block;
        let fate = self.disks[area].fate(path, bytes.len() / block);
        for (i, (lands, bytes)) in fate.lands.iter().zip(bytes.chunks(block)).enumerate() {
            if let Some(lands) = lands {
                let boot = self.nodes[node].boot;
                let offset = offset + (i * block) as u64;
                self.put(self.now + *lands, What::DiskBlock { node, boot, area, offset, bytes: bytes.to_vec() });
            }
        }
        let bound = self.bound(node, bound);
        let (at, result) = match fate.answer {
            Some((answer, true)) if self.now + answer <= bound => (self.now + answer, Ok(())),
            Some((answer, false)) if self.now + answer <= bound => {
                (self.now + answer, Err(IoFailure::Error("input/output error".to_owned())))
            }
            _ => (bound, Err(IoFailure::NoAnswer)),
        };
        self.for_agent_at(node, at, ForAgent::Disk(area, machine::Input::Written(tag, result)));
    }

    /// When a length of time is over that begins now, on a node's clock.
    pub(super) fn bound(&self, node: usize, length: Duration) -> Moment {
        let node = &self.nodes[node];
        node.clock.when(node.time(self.now) + length)
    }
}
