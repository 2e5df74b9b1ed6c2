//! The claim by reservation on one node, as a plain machine: answers of devices in, commands to them out.
//!
//! Decides what the devices of one claim have to do with each other: the first is the arbiter, and who holds it has the others, too. Leaves each
//! device to `take`, `hold` and `give_up`, and the sending and the clock to
//! [`super::claim`]. Each device has a lane of its own with one command at a time, so a device that hangs delays the defence of no other.

use std::collections::VecDeque;
use std::time::Duration;

use super::device::{Answer, Command, Failure, Key, PathName, ReservationType};
use super::give_up::GiveUp;
use super::hold::Hold;
use super::key::{Keyring, NodeNumber};
use super::lane::{Common, End, Goal, Lane, Step};
use super::take::Take;
use super::timing::ReservationTiming;
use crate::claim::{Acquire, EarlyFailures, Held, Loss, Refusal, Tenure};
use crate::mutation::{self, Mutation};
use crate::name::{Epoch, NodeName};
use crate::time::Time;

/// A command, to tell its answer from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandId(pub u64);

/// A request, to tell its answer from others. Chosen by the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// What a claim is asked. One request is worked on at a time.
#[derive(Clone, Debug)]
pub enum Request {
    /// [`crate::Claim::acquire`].
    Acquire(Acquire),
    /// [`crate::Claim::release`], of what is held under this epoch.
    Release(Epoch),
    /// [`crate::Claim::fence`].
    Fence(NodeName),
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To [`Request::Acquire`].
    Acquired(Held),
    /// To [`Request::Release`] and [`Request::Fence`].
    Done,
    /// To any.
    Refused(Refusal),
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// Nothing but the passing of time.
    Tick,
    /// The device with this place has these paths now.
    Paths(usize, Vec<PathName>),
    /// A command was answered, or was not in time.
    Answered(CommandId, Result<Answer, Failure>),
    /// Somebody asks.
    Ask(RequestId, Request),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send a command. It is answered, if only with [`Failure::NoAnswer`].
    Send {
        /// For the answer.
        id: CommandId,
        /// To the device with this place.
        device: usize,
        /// On this path.
        path: PathName,
        /// What.
        command: Command,
    },
    /// Answer a request.
    Reply(RequestId, Reply),
}

impl std::fmt::Display for Effect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Effect::Send { id, device, path, command } => {
                write!(f, "send {command:?} to device {device} on {path} (#{})", id.0)
            }
            Effect::Reply(id, reply) => write!(f, "answer request {}: {reply:?}", id.0),
        }
    }
}

/// Who runs the machine, and on what.
#[derive(Clone, Debug)]
pub struct Config {
    /// The keys of the cluster.
    pub keyring: Keyring,
    /// This node.
    pub me: NodeNumber,
    /// What the reservation keeps others from: one of the two types that admit registrants.
    pub kind: ReservationType,
    /// The times.
    pub timing: ReservationTiming,
    /// Name and time limit of each device; the first is the arbiter.
    pub devices: Vec<(String, Duration)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing is held.
    Idle,
    /// The arbiter, and then the others, are being taken.
    Taking,
    /// Held, or about to be: something waits for a look at every device that shows it.
    Holding,
    /// The devices are being given up; why, if it was not asked for.
    GivingUp(Option<Refusal>),
}

/// The machine.
#[derive(Clone, Debug)]
pub struct Machine {
    pub(super) common: Common,
    pub(super) lanes: Vec<Lane>,
    pub(super) phase: Phase,
    /// The tenure under which the claim is held, or was held last.
    pub(super) tenure: Option<Epoch>,
    pub(super) loss: Option<Loss>,
    pub(super) queue: VecDeque<(RequestId, Request)>,
    pub(super) current: Option<(RequestId, Request)>,
    /// The greatest epoch ever tried. One that was tried once may still be under way in some command.
    pub(super) floor: Epoch,
    pub(super) effects: VecDeque<Effect>,
    pub(super) next_command: u64,
}

impl Machine {
    /// A machine that has heard nothing yet. It sends nothing before it was told of [paths](Input::Paths).
    pub fn new(config: Config) -> Machine {
        let Config { keyring, me, kind, timing, devices } = config;
        Machine {
            common: Common { keyring, me, kind, timing },
            lanes: devices.into_iter().map(|(name, limit)| Lane::new(name, limit)).collect(),
            phase: Phase::Idle,
            tenure: None,
            loss: None,
            queue: VecDeque::new(),
            current: None,
            floor: Epoch::ZERO,
            effects: VecDeque::new(),
            next_command: 0,
        }
    }

    /// Takes in what happened.
    pub fn handle(&mut self, now: Time, input: Input) {
        match input {
            Input::Tick => {}
            Input::Ask(id, request) => self.queue.push_back((id, request)),
            Input::Paths(device, names) => {
                if let Some(lane) = self.lanes.get_mut(device) {
                    lane.set_paths(names);
                }
            }
            Input::Answered(id, result) => {
                let common = &self.common;
                let mut result = Some(result);
                for lane in &mut self.lanes {
                    if lane.pending.as_ref().is_some_and(|pending| pending.id == id)
                        && let Some(result) = result.take()
                    {
                        lane.answered(id, result, common, now);
                    }
                }
            }
        }
        self.work(now);
    }

    /// The next thing to do.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When [`Input::Tick`] is due if nothing else happens.
    pub fn next_deadline(&self) -> Option<Time> {
        self.lanes.iter().filter(|lane| lane.pending.is_none()).filter_map(|lane| lane.wake).min()
    }

    /// The tenure that is held, if one is.
    pub fn held(&self) -> Option<Epoch> {
        let asked = matches!(self.current, Some((_, Request::Acquire(_))));
        self.tenure.filter(|_| self.phase == Phase::Holding && !asked)
    }

    /// Whether the claim is held under `epoch`, as far as the last looks showed.
    pub fn uphold(&self, now: Time, epoch: Epoch) -> Result<Tenure, Loss> {
        if self.held() != Some(epoch) {
            let never = || Loss::GivenUp("this node does not hold it under this epoch: acquire it again".to_owned());
            return Err(self.loss.clone().unwrap_or_else(never));
        }
        let patience = self.common.timing.defend_interval() * 3;
        for lane in &self.lanes {
            if let Goal::Hold(hold) = &lane.goal
                && hold.proven + patience <= now
            {
                let since = now.since(hold.proven);
                let why = format!("{}, for {since:.1?} now", lane.unreachable());
                return Err(Loss::Unproven { why, proven: Some(hold.proven) });
            }
        }
        Ok(Tenure::UntilRevoked)
    }

    /// The tenure that was lost, and how, until the claim is asked for or given up again.
    pub fn lost_tenure(&self) -> Option<(Epoch, Loss)> {
        Some((self.tenure?, self.loss.clone()?))
    }

    fn work(&mut self, now: Time) {
        loop {
            if self.current.is_none()
                && let Some((id, request)) = self.queue.pop_front()
            {
                self.begin(id, request, now);
                continue;
            }
            let mut ended = None;
            for (place, lane) in self.lanes.iter_mut().enumerate() {
                if lane.pending.is_some() {
                    continue;
                }
                if let Some(end) = advance(place, lane, &self.common, &mut self.next_command, &mut self.effects, now) {
                    ended = Some((place, end));
                    break;
                }
            }
            if let Some((place, end)) = ended {
                self.ended(place, end, now);
            } else if !self.confirm() {
                return;
            }
        }
    }

    fn begin(&mut self, id: RequestId, request: Request, now: Time) {
        match (&request, &self.phase) {
            // Whoever asked before does not wait for the answer any more.
            (Request::Acquire(_), Phase::Holding) => self.hurry(now),
            (Request::Acquire(acquire), _) => {
                self.loss = None;
                self.phase = Phase::Taking;
                let take = Take::arbiter(acquire.clone(), self.floor, now);
                self.set_goal(0, Goal::Take(Box::new(take)));
            }
            (Request::Release(_), _) => {
                self.loss = None;
                self.give_up(None);
            }
            (Request::Fence(victim), Phase::Holding) if self.common.keyring.number_of(victim).is_ok() => {
                self.hurry(now);
            }
            (Request::Fence(victim), Phase::Holding) => {
                let why = format!("{victim} is not a node of this cluster");
                return self.effects.push_back(Effect::Reply(id, Reply::Refused(Refusal::Unfit(why))));
            }
            (Request::Fence(_), _) => {
                let why = "only the holder of a reservation can cut others off: acquire it first".to_owned();
                return self.effects.push_back(Effect::Reply(id, Reply::Refused(Refusal::Unfit(why))));
            }
        }
        self.current = Some((id, request));
    }

    fn set_goal(&mut self, place: usize, goal: Goal) {
        if let Some(lane) = self.lanes.get_mut(place) {
            lane.set_goal(goal);
        }
    }

    /// Has every device looked at anew.
    fn hurry(&mut self, now: Time) {
        for lane in &mut self.lanes {
            if let Goal::Hold(hold) = &mut lane.goal {
                hold.hurry(now);
                lane.look_anew();
            }
        }
    }

    /// Answers what waits for a look at every device. True if something was answered.
    fn confirm(&mut self) -> bool {
        let confirmed = |lane: &Lane| matches!(&lane.goal, Goal::Hold(hold) if hold.confirmed);
        if self.phase != Phase::Holding || !self.lanes.iter().all(confirmed) {
            return false;
        }
        let reply = match &self.current {
            Some((_, Request::Acquire(_))) => match self.tenure {
                Some(epoch) => {
                    let (tenure, failures) = (Tenure::UntilRevoked, EarlyFailures::default());
                    Reply::Acquired(Held { epoch, tenure, failures })
                }
                None => return false,
            },
            Some((_, Request::Fence(_))) => Reply::Done,
            _ => return false,
        };
        self.reply(reply);
        true
    }

    fn reply(&mut self, reply: Reply) {
        if let Some((id, _)) = self.current.take() {
            self.effects.push_back(Effect::Reply(id, reply));
        }
    }

    /// Gives every device up: the others first, since who has the arbiter may take them.
    fn give_up(&mut self, why: Option<Refusal>) {
        self.phase = Phase::GivingUp(why);
        let holds = |lane: &Lane| matches!(lane.goal, Goal::Hold(_));
        let arbiter_first = mutation::is_on(Mutation::ArbiterFirst) && self.lanes.iter().all(holds);
        let several = self.lanes.len() > 1;
        for (place, lane) in self.lanes.iter_mut().enumerate() {
            if (place == 0) == arbiter_first || !several {
                lane.set_goal(Goal::GiveUp(GiveUp::after(&lane.goal)));
            }
        }
    }

    fn ended(&mut self, place: usize, end: End, now: Time) {
        match end {
            End::Taken(key) => self.taken(place, key, now),
            End::Refused(refusal) => self.refused(place, refusal),
            End::Lost(loss) => self.lost(place, loss),
            End::GivenUp => self.given_up(place, None),
            End::Stuck(why) => self.given_up(place, Some(why)),
        }
    }

    fn taken(&mut self, place: usize, key: Key, now: Time) {
        let Some(lane) = self.lanes.get_mut(place) else { return };
        let Goal::Take(take) = std::mem::replace(&mut lane.goal, Goal::Nothing) else { return };
        self.set_goal(place, Goal::Hold(Hold::new(key, now)));
        if place == 0 {
            let epoch = self.common.keyring.decode(key).map(|known| known.epoch);
            self.tenure = take.continued().or(epoch);
            self.floor = self.floor.max(epoch.unwrap_or_default());
            for place in 1..self.lanes.len() {
                self.set_goal(place, Goal::Take(Box::new(take.for_another(key))));
            }
        }
        if self.lanes.iter().all(|lane| matches!(lane.goal, Goal::Hold(_))) {
            // Read back, every one.
            self.phase = Phase::Holding;
            self.hurry(now);
        }
    }

    fn refused(&mut self, place: usize, refusal: Refusal) {
        if place == 0 {
            let tried = self.lanes.first().and_then(Lane::tried).and_then(|key| self.common.keyring.decode(key));
            self.floor = self.floor.max(tried.map_or(Epoch::ZERO, |tried| tried.epoch));
            self.set_goal(0, Goal::Nothing);
            self.phase = Phase::Idle;
            return self.reply(Reply::Refused(refusal));
        }
        self.back_out(refusal);
    }

    /// Gives back what was taken, unless resources of an earlier life run on it: they are stopped first (invariant S5).
    fn back_out(&mut self, refusal: Refusal) {
        match &self.current {
            Some((_, Request::Acquire(Acquire { adopt: Some(_), .. }))) => {
                for place in 0..self.lanes.len() {
                    self.set_goal(place, Goal::Nothing);
                }
                self.phase = Phase::Idle;
                self.reply(Reply::Refused(refusal));
            }
            _ => self.give_up(Some(refusal)),
        }
    }

    fn lost(&mut self, place: usize, loss: Loss) {
        if let Phase::GivingUp(_) = self.phase {
            // The arbiter was taken over while the others were given up: it goes the same way, at once.
            return self.set_goal(place, Goal::GiveUp(GiveUp::default()));
        }
        let asked = matches!(self.current, Some((_, Request::Acquire(_))));
        if asked {
            let refusal = match &loss {
                Loss::GivenUp(why) | Loss::Unproven { why, .. } => Refusal::Unreachable(why.clone()),
                Loss::Taken(_) => Refusal::Raced,
            };
            return self.back_out(refusal);
        }
        if let Some((_, Request::Fence(_))) = self.current {
            self.reply(Reply::Refused(Refusal::Unfit(loss.to_string())));
        }
        self.loss = Some(loss);
        self.phase = Phase::Idle;
        for place in 0..self.lanes.len() {
            self.set_goal(place, Goal::Nothing);
        }
    }

    fn given_up(&mut self, place: usize, stuck: Option<String>) {
        self.set_goal(place, Goal::Nothing);
        let Phase::GivingUp(why) = &self.phase else { return };
        let why = why.clone();
        let giving_up = |lane: &Lane| matches!(lane.goal, Goal::GiveUp(_));
        if self.lanes.iter().any(giving_up) {
            return;
        }
        if let Some(lane) = self.lanes.iter_mut().find(|lane| !matches!(lane.goal, Goal::Nothing)) {
            return lane.set_goal(Goal::GiveUp(GiveUp::after(&lane.goal)));
        }
        self.phase = Phase::Idle;
        self.tenure = None;
        // A device besides the arbiter that cannot be reached holds nothing up: the next holder takes it.
        let stuck = stuck.filter(|_| place == 0).map(Refusal::Unreachable);
        self.reply(why.or(stuck).map_or(Reply::Done, Reply::Refused));
    }
}

/// A plan that comes to no conclusion after so many thoughts waits for an interval instead of hanging the machine.
const THOUGHTS_MAX: usize = 64;

/// Has a lane go as far as it can. What it came to, if it came to an end.
fn advance(
    place: usize,
    lane: &mut Lane,
    common: &Common,
    next_command: &mut u64,
    effects: &mut VecDeque<Effect>,
    now: Time,
) -> Option<End> {
    lane.wake = None;
    for _ in 0..THOUGHTS_MAX {
        let step = match &lane.goal {
            Goal::Nothing => return None,
            Goal::Take(_) => lane.plan_take(common, now),
            Goal::Hold(_) => lane.plan_hold(common, now),
            Goal::GiveUp(_) => lane.plan_give_up(common, now),
        };
        match step {
            Step::Again => {}
            Step::Wait(until) => {
                lane.wake = Some(until);
                return None;
            }
            Step::End(end) => return Some(end),
            Step::Send(path, command) => {
                *next_command += 1;
                let id = CommandId(*next_command);
                if let Some(path) = lane.sent(id, path, command, now) {
                    effects.push_back(Effect::Send { id, device: place, path, command });
                }
                return None;
            }
        }
    }
    debug_assert!(false, "no conclusion: {lane:?}");
    lane.wake = Some(now + common.timing.defend_interval());
    None
}
