//! The resources of one hierarchy, and which operations may run on them now.
//!
//! Decides the order of starts and stops by the graph, in parallel where it allows. Leaves to [`super::Life`] why they are to
//! start or stop, and what a failure means.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::overdue::PATIENCE;
use super::{Do, OpId, Out};
use crate::hierarchy::Hierarchy;
use crate::mutation::{self, Mutation};
use crate::record::Happened;
use crate::time::Time;

/// Under pressure so many times as many monitors may say nothing.
const LENIENCY: u32 = 5;

/// How busy the machine is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pressure {
    /// Work is done as it comes.
    #[default]
    Calm,
    /// Work waits for the processor, memory or disks for much of the time: what is late may be well.
    High,
}

/// An operation on a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// Bring it into service.
    Start,
    /// Take it out of service.
    Stop,
    /// Stop it by force.
    Kill,
    /// Look whether it does its work.
    Monitor,
    /// Find out whether it runs still, after a restart of the agent.
    Adopt,
}

impl Operation {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Operation::Start => "start",
            Operation::Stop => "stop",
            Operation::Kill => "kill",
            Operation::Monitor => "monitor",
            Operation::Adopt => "adopt",
        }
    }
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// As it should; a monitor: good; an adoption: it runs.
    Good,
    /// Failed; a monitor: bad; an adoption: it does not run.
    Bad(String),
    /// A monitor that cannot say.
    Unknown(String),
    /// Not ended in time.
    TimedOut(Duration),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Good => f.write_str("good"),
            Outcome::Bad(_) => write!(f, "bad: {}", self.reason()),
            Outcome::Unknown(_) => write!(f, "unknown: {}", self.reason()),
            Outcome::TimedOut(_) => f.write_str(&self.reason()),
        }
    }
}

impl Outcome {
    pub(super) fn reason(&self) -> String {
        match self {
            Outcome::Good => "good".to_owned(),
            Outcome::Bad(why) | Outcome::Unknown(why) => why.clone(),
            Outcome::TimedOut(after) => format!("no end within {}", humantime::format_duration(*after)),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum State {
    Down,
    /// May run: recorded by an earlier life of the agent and not looked at yet.
    Leftover,
    Adopting(OpId),
    Starting(OpId),
    Up,
    /// Ran, or half started, and has to be stopped before anything else.
    Failed,
    Stopping(OpId),
    Killing(OpId),
    /// Could neither be stopped nor killed.
    Stuck,
}

impl State {
    pub(crate) fn word(&self) -> &'static str {
        match self {
            State::Down => "down",
            State::Leftover => "unknown",
            State::Adopting(_) => "adopting",
            State::Starting(_) => "starting",
            State::Up => "up",
            State::Failed => "failed",
            State::Stopping(_) => "stopping",
            State::Killing(_) => "killing",
            State::Stuck => "stuck",
        }
    }

    fn op(&self) -> Option<OpId> {
        match self {
            State::Adopting(op) | State::Starting(op) | State::Stopping(op) | State::Killing(op) => Some(*op),
            State::Down | State::Leftover | State::Up | State::Failed | State::Stuck => None,
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Part {
    pub(crate) state: State,
    pub(crate) trouble: Option<String>,
    pub(super) monitoring: Option<OpId>,
    watched: bool,
    unknowns: u32,
    begun: Time,
    /// When the operation under way is overdue, if there is one; and the monitor.
    pub(super) overdue_at: Time,
    pub(super) monitor_overdue_at: Time,
    /// Calls that are not waited for any more, and have not come back.
    pub(super) out: Vec<(OpId, Operation)>,
}

impl Part {
    fn new(begun: Time) -> Self {
        Part {
            state: State::Down,
            trouble: None,
            monitoring: None,
            watched: false,
            unknowns: 0,
            begun,
            overdue_at: begun,
            monitor_overdue_at: begun,
            out: Vec::new(),
        }
    }

    /// A kill is out: there is no second one beside it.
    fn is_being_killed(&self) -> bool {
        self.out.iter().any(|(_, what)| *what == Operation::Kill)
    }

    /// A call that could still bring the resource into service is out: it cannot be said to be down.
    fn may_come_up(&self) -> bool {
        self.out.iter().any(|(_, what)| matches!(what, Operation::Start | Operation::Adopt))
    }
}

/// How resources are taken down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    Orderly,
    ByForce,
}

/// What an ended operation means to the life of the hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// Nothing more than what `advance` makes of it.
    Fine,
    /// The operation is not one that is waited for: ignored.
    Stale,
    /// A resource failed.
    Failed { part: usize, during: Operation },
    /// It was found not running by an adoption.
    NotRunning { part: usize },
    /// Neither stop nor kill worked.
    Stuck { part: usize },
    /// The next monitor is due after the resource's interval.
    MonitorAgain { part: usize },
    /// A call came back that was not waited for any more.
    CameBack { part: usize },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Works {
    pub(crate) parts: Vec<Part>,
    dependents: Vec<Vec<usize>>,
    pub(super) hierarchy: Arc<Hierarchy>,
    /// To be brought down before they are brought up again.
    cycle: BTreeSet<usize>,
}

impl Works {
    pub(crate) fn new(hierarchy: Arc<Hierarchy>, begun: Time) -> Self {
        let mut works = Works {
            parts: vec![Part::new(begun); hierarchy.resources.len()],
            dependents: Vec::new(),
            hierarchy,
            cycle: BTreeSet::new(),
        };
        works.dependents = dependents(&works.hierarchy);
        works
    }

    /// Takes over a definition that differs only in what may change while resources run.
    pub(crate) fn redefine(&mut self, hierarchy: Arc<Hierarchy>, now: Time) {
        let old = std::mem::replace(&mut self.hierarchy, hierarchy);
        let parts = std::mem::take(&mut self.parts);
        let mut by_name: std::collections::BTreeMap<_, _> =
            old.resources.iter().map(|r| r.name.clone()).zip(parts).collect();
        let resources = &self.hierarchy.resources;
        self.parts = resources.iter().map(|r| by_name.remove(&r.name).unwrap_or_else(|| Part::new(now))).collect();
        self.dependents = dependents(&self.hierarchy);
        let cycle = std::mem::take(&mut self.cycle);
        let names = cycle.iter().filter_map(|i| old.resources.get(*i)).map(|r| &r.name);
        self.cycle = names.filter_map(|name| resources.iter().position(|r| r.name == *name)).collect();
    }

    /// What is to be brought down before it is brought up again.
    #[cfg(feature = "sim")]
    pub(crate) fn cycle(&self) -> &BTreeSet<usize> {
        &self.cycle
    }

    pub(crate) fn all_up(&self) -> bool {
        self.parts.iter().all(|p| p.state == State::Up)
    }

    pub(crate) fn all_down(&self) -> bool {
        self.parts.iter().all(|p| p.state == State::Down)
    }

    pub(crate) fn suspect_all(&mut self) {
        for part in &mut self.parts {
            part.state = State::Leftover;
        }
    }

    /// Asks every leftover whether it runs.
    pub(crate) fn adopt_all(&mut self, now: Time, out: &mut Out) {
        for i in 0..self.parts.len() {
            if self.parts[i].state == State::Leftover {
                let op = self.operate(i, Operation::Adopt, now, out);
                self.parts[i].state = State::Adopting(op);
            }
        }
    }

    /// Marks a resource, and all that require it, to be taken down and brought up again.
    pub(crate) fn restart(&mut self, failed: usize) {
        let mut open = vec![failed];
        while let Some(i) = open.pop() {
            if self.cycle.insert(i) {
                open.extend(&self.dependents[i]);
            }
        }
    }

    /// A resource that was up is known to have failed.
    pub(crate) fn mark_failed(&mut self, i: usize, why: &str, out: &mut Out) {
        self.quiet(i, out);
        self.parts[i].trouble = Some(why.to_owned());
        if self.parts[i].state == State::Up {
            self.parts[i].state = State::Failed;
        }
    }

    /// Has stuck resources tried again, unless a kill of them is still out; says whether there are any.
    pub(crate) fn unstick(&mut self) -> bool {
        let mut any = false;
        for part in &mut self.parts {
            if part.state == State::Stuck && !part.is_being_killed() {
                part.state = State::Failed;
                any = true;
            }
        }
        any
    }

    /// Drops operations that make no sense once everything has to be stopped by force.
    pub(crate) fn abandon_all(&mut self, out: &mut Out) {
        for i in 0..self.parts.len() {
            self.quiet(i, out);
            if let Some(op) = self.parts[i].state.op()
                && !matches!(self.parts[i].state, State::Killing(_))
            {
                out.push(Do::Cancel { op });
                self.parts[i].state = State::Failed;
            }
        }
    }

    /// Begins every operation towards "all up" that may begin now.
    pub(crate) fn advance_up(&mut self, now: Time, out: &mut Out) {
        if !self.cycle.is_empty() {
            let cycle: Vec<usize> = self.cycle.iter().copied().collect();
            self.take_down(&cycle, Manner::Orderly, now, out);
            if cycle.iter().any(|i| self.parts[*i].state != State::Down) {
                return;
            }
            self.cycle.clear();
        }
        for i in 0..self.parts.len() {
            let spec = &self.hierarchy.resources[i];
            let ready = spec.requires.iter().all(|r| self.parts[*r].state == State::Up)
                || mutation::is_on(Mutation::StartOutOfOrder);
            if self.parts[i].state == State::Down && ready && self.parts[i].out.is_empty() {
                let op = self.operate(i, Operation::Start, now, out);
                self.parts[i].state = State::Starting(op);
            }
        }
    }

    /// Takes down what a restart has to, and starts nothing yet.
    pub(crate) fn advance_down_for_restart(&mut self, now: Time, out: &mut Out) {
        let cycle: Vec<usize> = self.cycle.iter().copied().collect();
        self.take_down(&cycle, Manner::Orderly, now, out);
    }

    /// Begins every operation towards "all down" that may begin now.
    pub(crate) fn advance_down(&mut self, manner: Manner, now: Time, out: &mut Out) {
        self.cycle.clear();
        let all: Vec<usize> = (0..self.parts.len()).collect();
        self.take_down(&all, manner, now, out);
    }

    fn take_down(&mut self, which: &[usize], manner: Manner, now: Time, out: &mut Out) {
        for &i in which.iter().rev() {
            self.quiet(i, out);
            if let State::Starting(op) | State::Adopting(op) = self.parts[i].state {
                out.push(Do::Cancel { op });
                self.parts[i].state = State::Failed;
            }
            // By force, what is stuck above does not save what is below.
            let clear = self.dependents[i].iter().all(|d| match self.parts[*d].state {
                State::Down => true,
                State::Stuck => manner == Manner::ByForce,
                _ => false,
            }) || mutation::is_on(Mutation::StopOutOfOrder);
            if clear && matches!(self.parts[i].state, State::Up | State::Failed | State::Leftover) {
                // Beside a call that hangs nothing may run but a kill.
                match manner {
                    Manner::Orderly if self.parts[i].out.is_empty() => {
                        let op = self.operate(i, Operation::Stop, now, out);
                        self.parts[i].state = State::Stopping(op);
                    }
                    Manner::Orderly | Manner::ByForce => {
                        let op = self.operate(i, Operation::Kill, now, out);
                        self.parts[i].state = State::Killing(op);
                    }
                }
            }
        }
    }

    /// Begins a monitor of a resource that is up and has none running.
    pub(crate) fn monitor(&mut self, i: usize, now: Time, out: &mut Out) {
        let part = &self.parts[i];
        if part.state == State::Up && part.monitoring.is_none() && part.out.is_empty() {
            let op = self.operate(i, Operation::Monitor, now, out);
            self.parts[i].monitoring = Some(op);
        }
    }

    pub(super) fn timeout(&self, i: usize, operation: Operation) -> Duration {
        let timeouts = &self.hierarchy.resources[i].timeouts;
        match operation {
            Operation::Start => timeouts.start,
            Operation::Stop => timeouts.stop,
            Operation::Monitor => timeouts.monitor,
            Operation::Kill | Operation::Adopt => timeouts.kill,
        }
    }

    fn operate(&mut self, i: usize, operation: Operation, now: Time, out: &mut Out) -> OpId {
        let timeout = self.timeout(i, operation);
        let part = &mut self.parts[i];
        let overdue_at = now + timeout.saturating_mul(PATIENCE);
        if operation == Operation::Monitor {
            part.monitor_overdue_at = overdue_at;
        } else {
            part.begun = now;
            part.overdue_at = overdue_at;
        }
        let op = out.next_op();
        out.push(Do::Operate { op, resource: i, operation, timeout });
        op
    }

    /// As [`Works::quiet`], but leaves one operation alone.
    pub(super) fn quiet_but(&mut self, i: usize, op: OpId, out: &mut Out) {
        self.parts[i].monitoring.take_if(|monitoring| *monitoring == op);
        self.quiet(i, out);
    }

    /// No monitor and no watch beside another operation.
    fn quiet(&mut self, i: usize, out: &mut Out) {
        if let Some(op) = self.parts[i].monitoring.take() {
            out.push(Do::Cancel { op });
        }
        if std::mem::take(&mut self.parts[i].watched) {
            out.push(Do::Unwatch { resource: i });
        }
        self.parts[i].unknowns = 0;
    }

    /// Takes the end of an operation in.
    pub(crate) fn ended(
        &mut self,
        op: OpId,
        outcome: &Outcome,
        pressure: Pressure,
        now: Time,
        out: &mut Out,
    ) -> Meaning {
        if let Some(part) = self.came_back(op) {
            return Meaning::CameBack { part };
        }
        let Some(i) = self.parts.iter().position(|p| p.state.op() == Some(op) || p.monitoring == Some(op)) else {
            return Meaning::Stale;
        };
        let name = self.hierarchy.resources[i].name.clone();
        let part = &mut self.parts[i];
        let took = now.since(part.begun);
        if part.monitoring == Some(op) {
            part.monitoring = None;
            return self.monitored(i, outcome, pressure, out);
        }
        match (&part.state, outcome) {
            (State::Starting(_), Outcome::Good) => {
                part.state = State::Up;
                part.trouble = None;
                part.watched = true;
                out.record(Happened::Started { resource: name, took });
                out.push(Do::Watch { resource: i });
                Meaning::MonitorAgain { part: i }
            }
            (State::Adopting(_), Outcome::Good) => {
                part.state = State::Up;
                part.watched = true;
                out.record(Happened::Adopted { resource: name });
                out.push(Do::Watch { resource: i });
                Meaning::MonitorAgain { part: i }
            }
            (State::Killing(_), Outcome::Good) if part.may_come_up() => {
                part.state = State::Stuck;
                Meaning::Stuck { part: i }
            }
            (State::Stopping(_) | State::Killing(_), Outcome::Good) => {
                part.state = State::Down;
                out.record(Happened::Stopped { resource: name, took });
                Meaning::Fine
            }
            (State::Starting(_), _) => {
                part.state = State::Failed;
                part.trouble = Some(outcome.reason());
                Meaning::Failed { part: i, during: Operation::Start }
            }
            (State::Adopting(_), _) => {
                part.state = State::Failed;
                part.trouble = Some(outcome.reason());
                Meaning::NotRunning { part: i }
            }
            (State::Stopping(_), _) => {
                part.trouble = Some(format!("stop: {}", outcome.reason()));
                out.record(failed(name, Operation::Stop, outcome));
                let kill = self.operate(i, Operation::Kill, now, out);
                self.parts[i].state = State::Killing(kill);
                Meaning::Fine
            }
            (State::Killing(_), _) => {
                part.state = State::Stuck;
                part.trouble = Some(format!("kill: {}", outcome.reason()));
                out.record(failed(name, Operation::Kill, outcome));
                Meaning::Stuck { part: i }
            }
            (State::Down | State::Leftover | State::Up | State::Failed | State::Stuck, _) => Meaning::Stale,
        }
    }

    fn monitored(&mut self, i: usize, outcome: &Outcome, pressure: Pressure, out: &mut Out) -> Meaning {
        let spec = &self.hierarchy.resources[i];
        let part = &mut self.parts[i];
        match outcome {
            Outcome::Good => {
                part.unknowns = 0;
                part.trouble = None;
                Meaning::MonitorAgain { part: i }
            }
            Outcome::Bad(why) => {
                part.trouble = Some(why.clone());
                Meaning::Failed { part: i, during: Operation::Monitor }
            }
            Outcome::Unknown(_) | Outcome::TimedOut(_) => {
                part.unknowns += 1;
                let why = outcome.reason();
                out.record(Happened::MonitorUnknown {
                    resource: spec.name.clone(),
                    why: why.clone(),
                    in_a_row: part.unknowns,
                });
                part.trouble = Some(why);
                // A busy machine is evidence about the node, not about the service.
                let leniency = if pressure == Pressure::High { LENIENCY } else { 1 };
                if part.unknowns > spec.monitor.unknowns_tolerated.saturating_mul(leniency) {
                    part.unknowns = 0;
                    Meaning::Failed { part: i, during: Operation::Monitor }
                } else {
                    Meaning::MonitorAgain { part: i }
                }
            }
        }
    }
}

fn failed(resource: crate::name::ResourceName, during: Operation, outcome: &Outcome) -> Happened {
    Happened::ResourceFailed { resource, during: during.word().to_owned(), why: outcome.reason() }
}

fn dependents(hierarchy: &Hierarchy) -> Vec<Vec<usize>> {
    let mut dependents = vec![Vec::new(); hierarchy.resources.len()];
    for (i, spec) in hierarchy.resources.iter().enumerate() {
        for r in &spec.requires {
            dependents[*r].push(i);
        }
    }
    dependents
}
