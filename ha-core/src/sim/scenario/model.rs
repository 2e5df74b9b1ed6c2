//! What a scenario consists of.
//!
//! Decides nothing.

use std::sync::Arc;
use std::time::Duration;

use crate::contact::AnnouncedPhase;
use crate::name::{HierarchyName, NodeName, ResourceName};
use crate::sim::action::Action;
use crate::sim::setup::Setup;

/// A cluster, what happens to it, and what must be seen.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What it shows, in one line.
    pub title: String,
    /// The cluster.
    pub setup: Arc<Setup>,
    /// What is left to chance is drawn with it.
    pub seed: u64,
    /// How it begins.
    pub begin: Begin,
    /// What happens, and what must be seen, in order.
    pub steps: Vec<Step>,
}

/// How a scenario begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Begin {
    /// Every node is on, and every hierarchy has been in service for longer than the default of `settle`.
    #[default]
    InService,
    /// Every node is off.
    Off,
}

/// One line of a scenario that does or expects something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its line in the file, from 1.
    pub line: usize,
    /// As it was written.
    pub text: String,
    /// What it means.
    pub what: Doing,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doing {
    /// Something happens now.
    Act(Action),
    /// Something happens so long after now; the scenario goes on at once.
    Later(Duration, Action),
    /// Time passes.
    Wait(Duration),
    /// Time passes until something is so, which must be within some time.
    Until {
        /// What.
        state: State,
        /// The longest that it may take.
        within: Duration,
    },
    /// Something must be so.
    Expect(When, State),
    /// What a node has told of a hierarchy since the last action: exactly these lines, in this order. `*` stands for anything.
    Told {
        /// The node.
        node: NodeName,
        /// The hierarchy.
        hierarchy: HierarchyName,
        /// The lines.
        lines: Vec<String>,
    },
}

/// For how long something must be so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Now.
    Now,
    /// All the time, from now on for so long. The time passes.
    For(Duration),
}

/// Something that is so, or is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The opposite.
    Not(Box<State>),
    /// All resources of every hierarchy run.
    AllInService,
    /// All resources of a hierarchy run, on this node or on any.
    InService(HierarchyName, Option<NodeName>),
    /// On no node do all resources of a hierarchy run.
    OutOfService(HierarchyName),
    /// On no node does any resource of it run.
    OnNobody(HierarchyName),
    /// A resource runs on a node.
    Runs(HierarchyName, ResourceName, NodeName),
    /// The agent of a node says that a hierarchy is in this phase there.
    Phase(HierarchyName, AnnouncedPhase, NodeName),
    /// Every agent knows that a hierarchy is quarantined.
    Quarantined(HierarchyName),
    /// Every agent knows that nothing of a hierarchy is to be touched.
    Maintenance(HierarchyName),
    /// Every agent knows that a hierarchy is pinned to a node.
    Pinned(HierarchyName, NodeName),
    /// A node leaves a hierarchy to others.
    Declined(HierarchyName, NodeName),
    /// A node lacks something to serve a hierarchy.
    NotReady(HierarchyName, NodeName),
    /// A node is on.
    On(NodeName),
    /// A node is off.
    Off(NodeName),
    /// The agent of a node runs.
    Agent(NodeName),
    /// A node wants to serve nothing.
    Standby(NodeName),
    /// A node was reset, by its watchdog or by itself, since the last action.
    Resets(NodeName),
    /// A node, or any, has told something with this text in it since the last action.
    Told(Option<NodeName>, String),
}
