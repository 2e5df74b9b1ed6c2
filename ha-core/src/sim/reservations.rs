//! The claims by reservation of one simulated node: the questions of the engine, the commands of the machine, and their answers.
//!
//! Decides nothing; it does what [`ReservationClaim`](crate::claim::reservation::ReservationClaim) does with tokio, with the same parts.

use std::collections::BTreeMap;

use super::clock::Moment;
use super::node::ForAgent;
use super::storage::{CLAIM_PATIENCE, Question};
use super::world::World;
use crate::claim::Refusal;
use crate::claim::reservation::desk::Desk;
use crate::claim::reservation::device::{Answer, Failure, ReservationType};
use crate::claim::reservation::key::Keyring;
use crate::claim::reservation::look::{Look, Next};
use crate::claim::reservation::machine::{CommandId, Config, Effect, Input as MachineInput, Reply, Request, RequestId};
use crate::engine::Input;
use crate::name::Epoch;
use crate::recovery::OpId;

/// A claim by reservation, in the life of an agent.
pub(super) struct OnNode {
    desk: Desk<Asked>,
    config: Config,
    /// Tells the claims of one hierarchy in one life of an agent apart.
    made: u64,
    due_at: Option<Moment>,
    looks: BTreeMap<u64, (OpId, Look)>,
    next_look: u64,
}

struct Asked {
    question: Question,
    at: Moment,
}

/// Which of a claim's parts sent a command.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asker {
    Machine(CommandId),
    Look(u64),
}

impl World {
    /// A hierarchy gets a claim that touched nothing yet.
    pub(super) fn make_reservation(&mut self, n: usize, h: usize) {
        let Some(setup) = self.setup.hierarchies[h].reservation() else { return };
        let names = self.setup.nodes.iter().map(|node| node.name.clone());
        let Ok(keyring) = Keyring::new(&self.setup.cluster, names) else { return };
        let Ok(me) = keyring.number_of(&self.nodes[n].name) else { return };
        let devices = (0..setup.disks.len()).map(|disk| (format!("disk{disk}"), setup.time_limit)).collect();
        let kind = ReservationType::WriteExclusiveRegistrantsOnly;
        let config = Config { keyring, me, kind, timing: setup.timing, devices };
        self.next_claim += 1;
        let on_node = OnNode {
            desk: Desk::new(config.clone()),
            config,
            made: self.next_claim,
            due_at: None,
            looks: BTreeMap::new(),
            next_look: 0,
        };
        if let Some(agent) = &mut self.nodes[n].agent {
            agent.reservations.insert(h, on_node);
        }
        for disk in 0..self.luns[h].len() {
            self.paths_of(n, h, disk);
        }
    }

    /// The tenure that a node's own machine goes by.
    pub(super) fn goes_by(&self, n: usize, h: usize) -> Option<Epoch> {
        self.nodes[n].agent.as_ref()?.reservations.get(&h)?.desk.held()
    }

    fn reservation(&mut self, n: usize, h: usize) -> Option<&mut OnNode> {
        self.nodes[n].agent.as_mut()?.reservations.get_mut(&h)
    }

    /// The machine is told of its paths to a disk.
    pub(super) fn paths_of(&mut self, n: usize, h: usize, disk: usize) {
        let paths = self.luns[h][disk].paths(n);
        self.reservation_input(n, h, MachineInput::Paths(disk, paths));
    }

    fn reservation_input(&mut self, n: usize, h: usize, input: MachineInput) {
        let time = self.nodes[n].time(self.now);
        let Some(on_node) = self.reservation(n, h) else { return };
        on_node.desk.handle(time, input);
        self.serve_desk(n, h);
    }

    pub(super) fn ask_reservation(&mut self, n: usize, h: usize, question: Question, request: Request) {
        let (now, time) = (self.now, self.nodes[n].time(self.now));
        let Some(on_node) = self.reservation(n, h) else { return };
        let id = on_node.desk.ask(time, request, Asked { question, at: now });
        let made = on_node.made;
        self.for_agent_at(n, now + CLAIM_PATIENCE, ForAgent::Unreserved(h, made, id));
        self.serve_desk(n, h);
    }

    pub(super) fn uphold_reservation(&mut self, n: usize, h: usize, op: OpId, epoch: Epoch) {
        let time = self.nodes[n].time(self.now);
        let hierarchy = self.setup.hierarchies[h].hierarchy.name.clone();
        let Some(on_node) = self.reservation(n, h) else { return };
        let answer = on_node.desk.uphold(time, epoch);
        self.for_agent(n, ForAgent::Input(Input::Upheld { hierarchy, op, answer }));
        self.serve_desk(n, h);
    }

    /// Carries out what the machine wants.
    fn serve_desk(&mut self, n: usize, h: usize) {
        let time = self.nodes[n].time(self.now);
        while let Some(effect) = self.reservation(n, h).and_then(|on_node| on_node.desk.poll_effect()) {
            self.tell_of(n, h, || effect.to_string());
            match effect {
                Effect::Send { id, device, path, command } => {
                    let Some(made) = self.reservation(n, h).map(|on_node| on_node.made) else { return };
                    self.command(n, (h, device), &path, command, (made, Asker::Machine(id)));
                }
                Effect::Reply(id, reply) => self.reservation_replies(n, h, id, reply),
            }
        }
        let clock = self.nodes[n].clock;
        let Some(on_node) = self.reservation(n, h) else { return };
        if let Some(at) = on_node.desk.next_deadline() {
            if at <= time {
                let what = format!("a reservation's machine of {} asks to be called again at once", self.nodes[n].name);
                return self.observer.violated(self.now, super::Invariant::L4, what);
            }
            let at = clock.when(at);
            if on_node.due_at.is_none_or(|due| at < due) {
                on_node.due_at = Some(at);
                let made = on_node.made;
                self.for_agent_at(n, at, ForAgent::ReservationDue(h, made, at));
            }
        }
    }

    pub(super) fn reservation_is_due(&mut self, n: usize, h: usize, made: u64, at: Moment) {
        let Some(on_node) = self.reservation(n, h) else { return };
        if on_node.made == made && on_node.due_at == Some(at) {
            on_node.due_at = None;
            self.reservation_input(n, h, MachineInput::Tick);
        }
    }

    fn reservation_replies(&mut self, n: usize, h: usize, id: RequestId, reply: Reply) {
        let time = self.nodes[n].time(self.now);
        let hierarchy = self.setup.hierarchies[h].hierarchy.name.clone();
        let acquired = if let Reply::Acquired(held) = &reply { Some(held.epoch) } else { None };
        let Some(on_node) = self.reservation(n, h) else { return };
        let answered = on_node.desk.answer(time, id, reply);
        if let Some(epoch) = acquired {
            self.observe_reserved(n, h, epoch, answered.as_ref().map(|(asked, _)| asked.at));
        }
        let Some((asked, reply)) = answered else {
            if let Some(epoch) = acquired {
                self.observe_released(n, &hierarchy, epoch);
            }
            return;
        };
        let beside = |other: Reply| match other {
            Reply::Refused(refusal) => refusal,
            other => Refusal::Unfit(format!("answered beside the question: {other:?}")),
        };
        let input = match asked.question {
            Question::Acquire(op) => {
                let answer = if let Reply::Acquired(held) = reply { Ok(held) } else { Err(beside(reply)) };
                Input::Acquired { hierarchy, op, answer }
            }
            Question::Release(op) => {
                let answer = if reply == Reply::Done { Ok(()) } else { Err(beside(reply)) };
                Input::Released { hierarchy, op, answer }
            }
            Question::Inspect(_) | Question::Leave | Question::GiveBack => return,
        };
        self.for_agent(n, ForAgent::Input(input));
    }

    /// A question to a claim was not answered in time.
    pub(super) fn unreserved(&mut self, n: usize, h: usize, made: u64, id: RequestId) {
        let Some(on_node) = self.reservation(n, h).filter(|on_node| on_node.made == made) else { return };
        let Some(asked) = on_node.desk.forget(id) else { return };
        let hierarchy = self.setup.hierarchies[h].hierarchy.name.clone();
        let why = Refusal::Unreachable("no answer within 30s".to_owned());
        let input = match asked.question {
            Question::Acquire(op) => Input::Acquired { hierarchy, op, answer: Err(why) },
            Question::Release(op) => Input::Released { hierarchy, op, answer: Err(why) },
            Question::Inspect(_) | Question::Leave | Question::GiveBack => return,
        };
        self.engine_input(n, input);
    }

    // --- Looking, without the machine ----------------------------------------------------------------------------------------

    pub(super) fn inspect_reservation(&mut self, n: usize, h: usize, op: OpId) {
        let paths = self.luns[h].first().map(|arbiter| arbiter.paths(n)).unwrap_or_default();
        self.look_on(n, h, op, Look::new(paths));
    }

    fn look_on(&mut self, n: usize, h: usize, op: OpId, looking: Look) {
        let hierarchy = self.setup.hierarchies[h].hierarchy.name.clone();
        let Some(on_node) = self.reservation(n, h) else { return };
        match looking.next() {
            Next::Send(path, command) => {
                // A number for each command, so that one which is answered late is not taken for the next.
                on_node.next_look += 1;
                let (made, look) = (on_node.made, on_node.next_look);
                on_node.looks.insert(look, (op, looking));
                self.command(n, (h, 0), &path, command, (made, Asker::Look(look)));
            }
            Next::Done(result) => {
                let answer = on_node.config.inspected(result);
                self.for_agent(n, ForAgent::Input(Input::Inspected { hierarchy, op, answer }));
            }
        }
    }

    /// A command was answered, or was not in time.
    pub(super) fn commanded(&mut self, n: usize, h: usize, made: u64, asker: Asker, answer: Result<Answer, Failure>) {
        let Some(on_node) = self.reservation(n, h).filter(|on_node| on_node.made == made) else { return };
        match asker {
            Asker::Machine(id) => {
                self.reservation_input(n, h, MachineInput::Answered(id, answer));
            }
            Asker::Look(look) => {
                let Some((op, mut looking)) = on_node.looks.remove(&look) else { return };
                looking.answered(answer);
                self.look_on(n, h, op, looking);
            }
        }
    }
}
