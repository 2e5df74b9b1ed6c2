//! The reservation's machine, whole, on two or three nodes over one disk: every interleaving of their commands, with losses of power,
//! deaths of agents, and commands that are not carried out, carried out without an answer, or carried out much later.
//!
//! Production code: [`Machine`](crate::claim::reservation::machine::Machine). The disk is [`crate::sim::scsi`]'s. Resources run from the moment when a node
//! was told that it has the claim until it has lost power, gives it up, or asks again: a node that finds out that it lost the claim does not
//! even stop. What must hold is said at [`ReservationModel::check`](super::explore::Model::check) and where answers are looked at.
//!
//! Supposed instead of computed:
//! - **Times.** A command takes no time, unless it is lost, or time is said to pass ([`Bounds::delays`]). Time passes to the next moment at which
//!   something is due anywhere, so nodes look at moments that are whole quarters of an interval apart, in any order at each.
//! - **A node that passes for gone** (that is: has lost power, or has come back since and not asked for the claim) takes longer than a
//!   defence interval to come back and ask.
//! - **A node that comes back** after a loss of power has nothing in the device any more: neither writes nor late commands.
//! - **An epoch that was given up** is known to all who are asked afterwards; whoever was asked before may use it again, a known limit. (Those
//!   that were not given up are found on the device.)
//! - **One path** to one device; the most commands that one attempt may take are never reached.

mod alone;
mod bounds;
#[cfg(test)]
mod mutations;
mod node;

use std::collections::HashMap;

pub use bounds::{Bounds, Kind, Start};
use node::{LIMIT, Memo, Stimulus};

use super::explore::Model;
use super::intern::print_of;
use super::{Answered, Output};
use crate::claim::reservation::device::Command;

/// The most nodes that a model has room for.
pub const NODES_MAX: usize = 3;

/// So many units a node that passes for gone stays away: a defence interval, and a little.
const AWAY: u8 = 5;

/// What a node is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    /// To take the claim, or to confirm that it has it; no other node is believed gone.
    Take,
    /// The same, and whoever is gone is believed gone.
    TakeFromGone,
    Release,
}

/// What becomes of a command that is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Lost,
    CarriedOut,
    Late,
}

/// How far the command is that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flight {
    /// Not carried out yet, if there is one.
    Sent,
    /// The answer with this number is on its way back.
    Answered(u32),
    /// There will be no answer.
    Silent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Node {
    local: u32,
    flight: Flight,
    /// Of an earlier attempt or agent; it may still be carried out.
    late: Option<Command>,
    up: bool,
    /// The epoch under which its resources run; 0 when nothing runs.
    tenure: u8,
    /// The epoch that it recorded to run, until that was given up.
    recorded: u8,
    /// Another node was told since that it has the claim.
    superseded: bool,
    /// Its agent died: what is recorded has to be confirmed first.
    recalled: bool,
    asked: Option<Ask>,
    asks: u8,
    /// The greatest epoch that was given up before it was asked.
    heard: u8,
    /// It has had what it needs to defend itself since it was told that it has the claim.
    punctual: bool,
    /// It was not registered when it was asked, and nothing was lost since.
    clean: bool,
    /// In so many units it may come back, since somebody takes it for gone.
    away: u8,
    /// A write of it may have been let into the device so many units ago; [`LIMIT`] and it cannot be there any more.
    wrote: u8,
}

/// The whole cluster.
#[derive(Clone, Debug)]
pub struct State {
    nodes: [Node; NODES_MAX],
    disk: u32,
    crashes: u8,
    failures: u8,
    delays: u8,
    /// The greatest epoch under which anybody was told that it has the claim.
    last: u8,
    /// The greatest epoch that was given up.
    given_up: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Ask(Ask),
    /// The command under way is carried out and answered.
    Carry,
    /// The command under way is carried out; the answer takes time.
    CarryOnly,
    Answer,
    Lose(Fate),
    /// The time limit of a command that is not answered is over.
    Limit,
    Due,
    Crash(Fate),
    AgentDies(Fate),
    Boot,
    /// A late command is carried out.
    Lands,
    /// What runs there uses the device, and hears what that had to tell the agent.
    Hear,
    /// Time passes.
    Pass(u8),
}

/// The reservation's machine, to be explored.
pub struct ReservationModel {
    bounds: Bounds,
    memo: Memo,
    /// How many steps a node needs that is left alone, by what it depends on.
    alone: HashMap<u128, u16>,
    /// The most steps that a node needed which was left alone.
    pub longest_alone: u16,
    /// How often a node was told that it has the claim.
    pub acquired: u64,
}

impl ReservationModel {
    /// A cluster within `bounds`.
    ///
    /// # Panics
    /// If there are no nodes, or more than [`NODES_MAX`].
    pub fn new(bounds: Bounds) -> ReservationModel {
        assert!((1..=NODES_MAX).contains(&bounds.nodes), "1 to {NODES_MAX} nodes");
        let memo = Memo::new(bounds.nodes);
        ReservationModel { bounds, memo, alone: HashMap::new(), longest_alone: 0, acquired: 0 }
    }

    /// How many different states the machines were in, and how many the device.
    pub fn parts(&self) -> (usize, usize) {
        self.memo.sizes()
    }

    /// Has the machine of node `i` take something in, and looks at what comes of it.
    fn stir(&mut self, state: &mut State, i: usize, stimulus: Stimulus) -> Result<(), String> {
        let Output { local, answer } = self.memo.stir(state.nodes[i].local, stimulus, i)?;
        let node = &mut state.nodes[i];
        node.local = local;
        if matches!(stimulus, Stimulus::Answered(_) | Stimulus::Due) {
            node.flight = Flight::Sent;
        }
        match answer {
            Some(answer) => self.answered(state, i, &answer),
            None => Ok(()),
        }
    }

    fn answered(&mut self, state: &mut State, i: usize, answer: &Answered) -> Result<(), String> {
        let node = &mut state.nodes[i];
        let asked = node.asked.take();
        let recalled = std::mem::take(&mut node.recalled);
        match answer {
            Answered::Acquired(epoch) => {
                self.acquired += 1;
                let epoch = *epoch;
                let confirmed = recalled && node.recorded == epoch;
                (node.tenure, node.recorded, node.punctual) = (epoch, epoch, true);
                if confirmed && node.superseded {
                    return Err(format!("{} goes on under epoch {epoch}, which another node ended", name(i)));
                }
                if confirmed {
                    return Ok(());
                }
                node.superseded = false;
                let unheard = state.last <= state.given_up && node.heard < state.given_up;
                if epoch <= state.last && !unheard {
                    return Err(format!("{} acquires epoch {epoch} after epoch {}", name(i), state.last));
                }
                state.last = state.last.max(epoch);
                let mut others = (0..self.bounds.nodes).filter(|j| *j != i);
                for j in others.clone() {
                    state.nodes[j].superseded = state.nodes[j].recorded > 0;
                }
                match others.find(|j| state.nodes[*j].wrote < LIMIT) {
                    Some(j) if self.bounds.target == Kind::Tgt => {
                        Err(format!("{} acquires the claim while a write of {} may be in the device", name(i), name(j)))
                    }
                    _ => Ok(()),
                }
            }
            Answered::Refused(why) => {
                // What ran under an earlier tenure is stopped.
                (node.tenure, node.recorded, node.wrote) = (0, 0, LIMIT);
                let registered = self.memo.disk(state.disk).registered & 1 << i != 0;
                if node.clean && asked != Some(Ask::Release) && registered {
                    return Err(format!("{} is refused ({why}), and registered still", name(i)));
                }
                Ok(())
            }
            Answered::Done => {
                node.recorded = 0;
                Ok(())
            }
        }
    }

    fn apply(&mut self, state: &State, i: usize, what: What) -> Result<State, String> {
        let mut next = state.clone();
        match what {
            What::Ask(ask) => self.ask(&mut next, i, ask)?,
            What::Carry => {
                let result = self.carry_out(&mut next, i);
                self.stir(&mut next, i, Stimulus::Answered(result))?;
            }
            What::CarryOnly => next.nodes[i].flight = Flight::Answered(self.carry_out(&mut next, i)),
            What::Answer => {
                if let Flight::Answered(result) = next.nodes[i].flight {
                    self.stir(&mut next, i, Stimulus::Answered(result))?;
                }
            }
            What::Lose(fate) => {
                next.failures += u8::from(!self.is_overdue(state, i));
                self.meet(&mut next, i, fate);
                let node = &mut next.nodes[i];
                node.flight = Flight::Silent;
                (node.punctual, node.clean) = (false, false);
            }
            What::Limit => {
                let result = self.memo.no_answer();
                self.stir(&mut next, i, Stimulus::Answered(result))?;
            }
            What::Due => self.stir(&mut next, i, Stimulus::Due)?,
            What::Crash(fate) | What::AgentDies(fate) => {
                next.crashes += 1;
                self.meet(&mut next, i, fate);
                let node = &mut next.nodes[i];
                (node.local, node.flight) = (self.memo.fresh(i), Flight::Sent);
                (node.asked, node.punctual, node.clean) = (None, false, false);
                node.recalled = node.recorded > 0;
                if matches!(what, What::Crash(_)) {
                    (node.up, node.tenure, node.recorded, node.recalled) = (false, 0, 0, false);
                }
            }
            What::Boot => {
                next.disk = self.memo.log_in(state.disk, i);
                let node = &mut next.nodes[i];
                (node.up, node.late, node.wrote) = (true, None, LIMIT);
            }
            What::Lands => {
                if let Some(command) = next.nodes[i].late.take() {
                    next.disk = self.memo.carry_out(state.disk, i, command).0;
                }
            }
            What::Hear => next.disk = self.memo.hear(state.disk, i),
            What::Pass(by) => self.pass(&mut next, by)?,
        }
        self.observe(&mut next);
        Ok(next)
    }

    fn ask(&mut self, state: &mut State, i: usize, ask: Ask) -> Result<(), String> {
        let registered = self.memo.disk(state.disk).registered & 1 << i != 0;
        let gone = if ask == Ask::TakeFromGone { self.gone(state, i) } else { 0 };
        for j in (0..self.bounds.nodes).filter(|j| gone & 1 << j != 0) {
            state.nodes[j].away = AWAY;
        }
        let known = state.given_up;
        let node = &mut state.nodes[i];
        node.asks += 1;
        node.asked = Some(ask);
        node.heard = known;
        node.clean = !registered && node.late.is_none();
        let adopt = node.recalled.then_some(node.recorded);
        let tenure = node.tenure;
        if adopt.is_none() {
            // Everything is stopped before the claim is given up, and before it is taken anew.
            (node.tenure, node.wrote) = (0, LIMIT);
            node.recorded = if ask == Ask::Release { node.recorded } else { 0 };
        }
        if ask == Ask::Release {
            state.given_up = known.max(tenure);
            return self.stir(state, i, Stimulus::Release(tenure));
        }
        self.stir(state, i, Stimulus::Take { gone, known, adopt })
    }

    /// A bit for each node but `i` that is gone.
    fn gone(&self, state: &State, i: usize) -> u8 {
        let gone = |node: &Node| {
            let local = self.memo.local(node.local);
            let idle = node.asked.is_none() && local.held.is_none() && local.command.is_none();
            !node.up || node.tenure == 0 && idle && node.asks == 0
        };
        let nodes = state.nodes[..self.bounds.nodes].iter().enumerate();
        nodes.filter(|(j, node)| *j != i && gone(node)).fold(0, |bits, (j, _)| bits | 1 << j)
    }

    /// The command of node `i` is carried out: the number of the result.
    fn carry_out(&mut self, state: &mut State, i: usize) -> u32 {
        let Some(command) = self.memo.local(state.nodes[i].local).command else { return self.memo.no_answer() };
        let (disk, result) = self.memo.carry_out(state.disk, i, command);
        state.disk = disk;
        result
    }

    /// A command that was not carried out meets its fate.
    fn meet(&mut self, state: &mut State, i: usize, fate: Fate) {
        match fate {
            Fate::Lost => {}
            Fate::CarriedOut => drop(self.carry_out(state, i)),
            Fate::Late => state.nodes[i].late = self.memo.local(state.nodes[i].local).command,
        }
    }

    fn pass(&mut self, state: &mut State, by: u8) -> Result<(), String> {
        let mut delayed = false;
        for i in 0..self.bounds.nodes {
            if self.is_busy(state, i) {
                delayed = true;
                state.nodes[i].punctual = false;
            }
            let node = &mut state.nodes[i];
            node.away = node.away.saturating_sub(by);
            node.wrote = node.wrote.saturating_add(by).min(LIMIT);
            self.stir(state, i, Stimulus::Age(by))?;
        }
        state.delays += u8::from(delayed);
        Ok(())
    }

    /// Writes of a node that runs are let in.
    fn observe(&self, state: &mut State) {
        let may_write = self.memo.disk(state.disk).may_write;
        let writes = self.bounds.target == Kind::Tgt;
        for (i, node) in state.nodes[..self.bounds.nodes].iter_mut().enumerate() {
            if writes && node.up && node.tenure > 0 && may_write & 1 << i != 0 {
                node.wrote = 0;
            }
        }
    }

    /// The command under way should have been answered by now.
    fn is_overdue(&self, state: &State, i: usize) -> bool {
        let local = self.memo.local(state.nodes[i].local);
        local.command.is_some() && local.in_time_for == 0
    }

    /// Something of node `i` could happen now, and only chance keeps it from happening.
    fn is_busy(&self, state: &State, i: usize) -> bool {
        let node = &state.nodes[i];
        let local = self.memo.local(node.local);
        let answers = local.command.is_some() && node.flight != Flight::Silent;
        node.up && (answers || local.due_in == Some(0) || self.is_overdue(state, i))
    }

    /// For how long nothing is due anywhere.
    fn quiet_for(&self, state: &State) -> Option<u8> {
        let nodes = state.nodes[..self.bounds.nodes].iter();
        let due = nodes.flat_map(|node| {
            let local = self.memo.local(node.local);
            [local.due_in, local.command.map(|_| local.in_time_for), Some(node.away)]
        });
        due.flatten().filter(|units| *units > 0).min()
    }

    fn whats(&self, state: &State) -> Vec<(usize, What)> {
        let mut all = Vec::new();
        for i in 0..self.bounds.nodes {
            if state.nodes[i].up {
                self.whats_of(state, i, &mut all);
            } else if state.nodes[i].away == 0 {
                all.push((i, What::Boot));
            }
            if state.nodes[i].late.is_some() {
                all.push((i, What::Lands));
            }
        }
        let busy = (0..self.bounds.nodes).any(|i| self.is_busy(state, i));
        let overdue = (0..self.bounds.nodes).any(|i| self.is_overdue(state, i));
        if !busy || !overdue && state.delays < self.bounds.delays {
            all.extend(self.quiet_for(state).map(|by| (0, What::Pass(by))));
        }
        all
    }

    fn whats_of(&self, state: &State, i: usize, all: &mut Vec<(usize, What)>) {
        let node = &state.nodes[i];
        let local = self.memo.local(node.local);
        let overdue = self.is_overdue(state, i);
        let mut fates = vec![Fate::Lost];
        let sent = local.command.filter(|_| node.flight == Flight::Sent);
        if sent.is_some_and(|command| changes(&command)) {
            fates.push(Fate::CarriedOut);
            fates.extend((self.bounds.late && node.late.is_none()).then_some(Fate::Late));
        }
        match node.flight {
            _ if local.command.is_none() => {
                all.extend((local.due_in == Some(0)).then_some((i, What::Due)));
            }
            Flight::Sent => {
                if !overdue {
                    all.push((i, What::Carry));
                    all.extend((state.delays < self.bounds.delays).then_some((i, What::CarryOnly)));
                }
                if overdue || state.failures < self.bounds.failures {
                    all.extend(fates.iter().map(|fate| (i, What::Lose(*fate))));
                }
            }
            Flight::Answered(_) => all.push((i, What::Answer)),
            Flight::Silent => all.extend(overdue.then_some((i, What::Limit))),
        }
        let hears = node.tenure > 0 && self.memo.disk(state.disk).has_to_tell & 1 << i != 0;
        all.extend(hears.then_some((i, What::Hear)));
        let over = node.tenure == 0 && node.asked.is_none() && node.asks == self.bounds.asks[i];
        if state.crashes < self.bounds.crashes && !over {
            all.extend(fates.iter().map(|fate| (i, What::Crash(*fate))));
            all.extend(fates.iter().map(|fate| (i, What::AgentDies(*fate))));
        }
        if node.asked.is_none() && node.asks < self.bounds.asks[i] && node.away == 0 {
            if node.tenure > 0 && local.held == Some(node.tenure) {
                all.push((i, What::Ask(Ask::Release)));
            } else {
                all.push((i, What::Ask(Ask::Take)));
                all.extend((self.gone(state, i) != 0).then_some((i, What::Ask(Ask::TakeFromGone))));
            }
        }
    }
}

/// Whether it makes a difference if the command is carried out.
fn changes(command: &Command) -> bool {
    !matches!(command, Command::ReadKeys | Command::ReadReservation | Command::ReportCapabilities)
}

impl Model for ReservationModel {
    type State = State;

    fn start(&mut self) -> State {
        let mut node = |i: usize| Node {
            local: if i < self.bounds.nodes { self.memo.fresh(i) } else { 0 },
            flight: Flight::Sent,
            late: None,
            up: i < self.bounds.nodes,
            tenure: 0,
            recorded: 0,
            superseded: false,
            recalled: false,
            asked: None,
            asks: 0,
            heard: 0,
            punctual: false,
            clean: false,
            away: 0,
            wrote: LIMIT,
        };
        let nodes = [node(0), node(1), node(2)];
        let disk = self.memo.first_disk(self.bounds.target, self.bounds.start);
        let mut state = State { nodes, disk, crashes: 0, failures: 0, delays: 0, last: 0, given_up: 0 };
        if self.bounds.start == Start::Held {
            for _ in 0..alone::STEPS_MAX {
                if let Some(what) = self.next_alone(&state, 0)
                    && let Ok(next) = self.apply(&state, 0, what)
                {
                    state = next;
                }
            }
            state.nodes[0].asks = 0;
        }
        state
    }

    fn fingerprint(&mut self, state: &State) -> u128 {
        let mut bytes: Vec<u8> = vec![state.crashes, state.failures, state.delays, state.last, state.given_up];
        bytes.extend(state.disk.to_le_bytes());
        for node in &state.nodes[..self.bounds.nodes] {
            ReservationModel::describe(node, &mut bytes);
        }
        print_of(&bytes)
    }

    fn next(&mut self, state: &State, found: &mut Vec<Result<State, String>>) {
        for (i, what) in self.whats(state) {
            let next = self.apply(state, i, what);
            found.push(next);
        }
    }

    /// Of all nodes that run, at most one can write; a node that holds the claim, and has had the time to defend itself, can; and each
    /// node could get the claim if the others died now.
    fn check(&mut self, state: &State) -> Result<(), String> {
        let may_write = self.memo.disk(state.disk).may_write;
        let mut writes = None;
        for (i, node) in state.nodes[..self.bounds.nodes].iter().enumerate().filter(|(_, n)| n.up && n.tenure > 0) {
            if may_write & 1 << i != 0
                && let Some(other) = writes.replace(i)
            {
                return Err(format!("{} and {} can write", name(other), name(i)));
            }
            let holds = self.memo.local(node.local).held == Some(node.tenure);
            if node.punctual && (!holds || may_write & 1 << i == 0) {
                return Err(format!("{} has lost the claim although it was there to defend it", name(i)));
            }
        }
        if !self.bounds.liveness {
            return Ok(());
        }
        (0..self.bounds.nodes).try_for_each(|i| self.left_alone(state, i))
    }

    fn tell(&mut self, state: &State, step: usize) -> String {
        let (i, what) = self.whats(state)[step];
        let (node, who) = (&state.nodes[i], name(i));
        let command = self.memo.local(node.local).command.map(|command| self.memo.in_words(&command));
        let command = command.unwrap_or_else(|| "nothing".to_owned());
        let fate_of = |fate| match fate {
            Fate::Lost => "not carried out",
            Fate::CarriedOut => "carried out all the same",
            Fate::Late => "on its way still",
        };
        match what {
            What::Ask(Ask::Take) if node.recalled => format!("{who} is asked to confirm the claim"),
            What::Ask(Ask::Take) => format!("{who} is asked to take the claim"),
            What::Ask(Ask::TakeFromGone) => format!("{who} is asked to take the claim; who is gone is known to be"),
            What::Ask(Ask::Release) => format!("{who} is asked to release the claim"),
            What::Carry => {
                let result = self.carry_out(&mut state.clone(), i);
                format!("{who}: {command}: {}", self.result_in_words(result))
            }
            What::CarryOnly => format!("{who}: {command}: carried out, not answered yet"),
            What::Answer => match node.flight {
                Flight::Answered(result) => format!("{who}: {command}: answered now: {}", self.result_in_words(result)),
                _ => format!("{who}: {command}: answered now"),
            },
            What::Lose(fate) => format!("{who}: {command}: no answer will come ({})", fate_of(fate)),
            What::Limit => format!("{who}: {command}: no answer in time"),
            What::Due => format!("{who}: something is due"),
            What::Crash(fate) => format!("{who} loses power while: {command} ({})", fate_of(fate)),
            What::AgentDies(fate) => format!("the agent of {who} dies while: {command} ({})", fate_of(fate)),
            What::Boot => format!("{who} comes back"),
            What::Lands => format!("a late command of {who} is carried out"),
            What::Hear => format!("what runs on {who} uses the device, and is told what it has to tell"),
            What::Pass(by) => format!("time passes: {:?}", node::UNIT * u32::from(by)),
        }
    }
}

fn name(i: usize) -> &'static str {
    ["alpha", "beta", "gamma"][i]
}
