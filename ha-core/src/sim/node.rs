//! One simulated machine: what its disk remembers, what runs on it, its agent.
//!
//! Decides nothing: it is the state that [`super::world`] changes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::action::Behaviour;
use super::clock::{Moment, NodeClock};
use super::disk::Path;
use super::draws::Draws;
use super::reservations::{Asker, OnNode};
use super::storage::AreaOnNode;
use crate::claim::reservation::device::{Answer, Failure};
use crate::contact::{Opener, Sealer};
use crate::engine::{Engine, Input, Lasting, TenureOf};
use crate::name::{Epoch, HierarchyName, Incarnation, NodeName};
use crate::recovery::{OpId, Operation, Outcome, Pressure};
use crate::time::Time;

/// Agents of any other version say more than those of this one know of.
pub(super) const FIRST_VERSION: &str = "1";

/// A resource of a hierarchy, by their positions in the setup.
pub(super) type Part = (usize, usize);

pub(super) struct Node {
    pub(super) name: NodeName,
    pub(super) clock: NodeClock,
    /// Counts boots and losses of power, so that what was meant for an earlier one is known.
    pub(super) boot: u64,
    pub(super) on: bool,
    /// Fenced: it does not boot before.
    pub(super) off_until: Moment,
    /// Counts how often it was reset by itself, or its watchdog.
    pub(super) resets: u64,
    pub(super) frozen: bool,
    pub(super) agent: Option<Agent>,
    /// Counts agents.
    pub(super) life: u64,
    pub(super) paused: bool,
    pub(super) hangs: bool,
    pub(super) lag: Duration,
    pub(super) pressure: Pressure,
    pub(super) storage: Path,
    pub(super) version: String,
    /// What waits for an agent that is stopped, or a machine that is frozen.
    pub(super) waiting: VecDeque<Waiting>,
    pub(super) memory: Memory,
    pub(super) parts: Vec<Vec<Program>>,
    /// The hierarchies of which something may run.
    pub(super) may_run: BTreeSet<usize>,
    pub(super) flights: BTreeMap<u64, Flight>,
    pub(super) guard: Guard,
    pub(super) utility: BTreeMap<usize, u8>,
    pub(super) lacks: BTreeMap<usize, String>,
    /// The definition of each hierarchy in the node's files.
    pub(super) revisions: Vec<u32>,
    /// Since when nothing at all is wrong with the node, if so.
    pub(super) fit_since: Option<Moment>,
    /// When the last of its files is written.
    pub(super) written_by: Moment,
    /// How often each hierarchy with disks began to write, and ceased to.
    pub(super) writers: BTreeMap<usize, u64>,
    /// The tenure under which what runs of each hierarchy with disks was started.
    pub(super) tenures: BTreeMap<usize, u64>,
    /// For what happens on this node.
    pub(super) draws: Draws,
}

/// What the node remembers.
#[derive(Default)]
pub(super) struct Memory {
    /// Until the power is lost.
    pub(super) running: BTreeMap<HierarchyName, Epoch>,
    /// Until the power is lost.
    pub(super) proven: BTreeMap<TenureOf, Time>,
    pub(super) lasting: BTreeMap<HierarchyName, Lasting>,
    pub(super) standby: Option<String>,
}

pub(super) struct Agent {
    pub(super) engine: Engine,
    pub(super) areas: Vec<AreaOnNode>,
    pub(super) reservations: BTreeMap<usize, OnNode>,
    pub(super) sealer: Sealer,
    pub(super) opener: Opener,
    pub(super) watched: BTreeSet<Part>,
    /// When it will be called because something is due.
    pub(super) due_at: Option<Moment>,
    /// What was due when it was called last for that.
    pub(super) called_for: Option<Time>,
    pub(super) feed_now: bool,
    pub(super) feed_soon: bool,
    pub(super) incarnation: Incarnation,
    /// To be joined again, or forgotten, once out of service here.
    pub(super) replacing: BTreeMap<usize, bool>,
    /// Lock areas to say goodbye to before it ends.
    pub(super) leaving: usize,
}

/// What really is with a resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Real {
    #[default]
    Stopped,
    /// A start was begun: it may run.
    Starting,
    Running,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Program {
    pub(super) real: Real,
    pub(super) behaviour: Behaviour,
    /// Counts starts, so that a crash that was to come belongs to one.
    pub(super) starts: u64,
    /// How long a start takes; `None`: some milliseconds.
    pub(super) start_takes: Option<Duration>,
    /// The agent was told that it runs, and has not begun to stop it.
    pub(super) up: bool,
}

/// An operation under way.
pub(super) struct Flight {
    pub(super) part: Part,
    pub(super) op: OpId,
    pub(super) operation: Operation,
    pub(super) life: u64,
    pub(super) outcome: Outcome,
    pub(super) becomes: Option<Real>,
}

impl Flight {
    /// What it was about is ended by force: it changes nothing any more, and comes back all the same, as every call of the driver's does.
    pub(super) fn cut_short(&mut self) {
        self.becomes = None;
        self.outcome = Outcome::Bad("ended by force".to_owned());
    }
}

/// What a watchdog was told last.
#[derive(Default)]
pub(super) struct Guard {
    /// With the life of the agent that said so.
    pub(super) until: BTreeMap<usize, (Time, u64)>,
    /// A device resets the machine then.
    pub(super) reset_at: Option<Moment>,
    /// When a warden first killed what runs.
    pub(super) killed: BTreeMap<usize, Moment>,
}

/// Something for a node that does not run now.
pub(super) enum Waiting {
    Datagram(usize, std::sync::Arc<[u8]>),
    Agent(u64, ForAgent),
    Machine(u64, ForMachine),
}

/// What happens to an agent.
pub(super) enum ForAgent {
    Input(Input),
    /// Something is due in the engine, if this is still the moment at which it wants to be called.
    Due(Moment),
    /// The watchdog is to be told soon of what began.
    Feed,
    /// Twice a second.
    Tick,
    /// A transfer of a lock area was answered.
    Disk(usize, crate::claim::lock_area::machine::Input),
    /// Something is due in a lock area's machine, or was asked of it, if this is still the moment at which it wants to be called.
    AreaDue(usize, Moment),
    /// A question to a claim was not answered in time.
    Unanswered(usize, crate::claim::lock_area::machine::RequestId),
    /// A command to a disk was answered, or was not in time.
    Commanded {
        h: usize,
        made: u64,
        asker: Asker,
        answer: Result<Answer, Failure>,
    },
    /// The paths to a disk may be others than before.
    Paths(usize, usize),
    /// Something is due in the machine of a claim by reservation.
    ReservationDue(usize, u64, Moment),
    /// A question to a claim by reservation was not answered in time.
    Unreserved(usize, u64, crate::claim::reservation::machine::RequestId),
    /// The time of an operation is over.
    TimedOut(u64, Duration),
    /// It is to read the files of a hierarchy, in this revision.
    Reload(usize, u32),
    /// It ends by itself, drained.
    Ends,
}

/// What happens on a machine beside the agent.
pub(super) enum ForMachine {
    /// An operation ends.
    Ends(u64),
    /// A program that was started for the so manieth time dies.
    Dies(Part, u64),
    /// What runs of a hierarchy writes to its disks, if it is what was begun for the so manieth time.
    Writes(usize, u64),
    /// The warden looks whose tenure has ended.
    Warden,
    /// The warden's SIGKILL takes effect.
    Killed(usize),
    /// The state directory is written.
    Written(Box<Written>),
    /// The agent's supervisor starts it again.
    AgentStarts,
}

pub(super) enum Written {
    Lasting(HierarchyName, Lasting),
    Standby(Option<String>),
}

impl Node {
    /// What the clock shows.
    pub(super) fn time(&self, now: Moment) -> Time {
        self.clock.shows(now)
    }

    /// Whether the agent gets to run.
    pub(super) fn agent_runs(&self) -> bool {
        self.on && !self.frozen && !self.paused && self.agent.is_some()
    }

    /// Whether nothing at all is wrong with it.
    pub(super) fn is_fit(&self) -> bool {
        self.agent_runs() && !self.hangs && self.lag.is_zero() && self.storage == Path::Good
    }

    /// Whether anything of a hierarchy may run.
    pub(super) fn runs(&self, hierarchy: usize) -> bool {
        self.parts[hierarchy].iter().any(|part| part.real != Real::Stopped)
    }

    /// How often a hierarchy began to write here, and ceased to.
    pub(super) fn begun(&self, hierarchy: usize) -> u64 {
        self.writers.get(&hierarchy).copied().unwrap_or_default()
    }

    /// Whether all of it runs, on a machine that does.
    pub(super) fn serves(&self, hierarchy: usize) -> bool {
        self.on && !self.frozen && self.parts[hierarchy].iter().all(|part| part.real == Real::Running)
    }
}
