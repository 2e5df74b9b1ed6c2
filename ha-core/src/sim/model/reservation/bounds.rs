//! How much can happen in a run of the reservation's model.

use super::NODES_MAX;

/// How much may happen. The search is exhaustive within these.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Nodes, 1 to 3.
    pub nodes: usize,
    /// What the device is like.
    pub target: Kind,
    /// Where it begins.
    pub start: Start,
    /// How often each node is asked to take, confirm or release the claim.
    pub asks: [u8; NODES_MAX],
    /// Losses of power of nodes and deaths of agents, together.
    pub crashes: u8,
    /// Commands that are not answered.
    pub failures: u8,
    /// A command that is not answered, or whose node or agent dies, may be carried out at any later time.
    pub late: bool,
    /// How often time passes although a command could be carried out or answered, or a node has something to do.
    pub delays: u8,
    /// In each state, each node must be able to get the claim once all others are dead.
    pub liveness: bool,
}

impl Bounds {
    /// Two nodes are asked once each for a free claim, and nothing fails: where all other bounds begin.
    pub const TWO_NODES: Bounds = Bounds {
        nodes: 2,
        target: Kind::Lio,
        start: Start::Free,
        asks: [1; NODES_MAX],
        crashes: 0,
        failures: 0,
        late: true,
        delays: 0,
        liveness: true,
    };
}

/// What the device is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// As the target of the Linux kernel: with all that the standard describes.
    Lio,
    /// As tgtd: without PREEMPT AND ABORT, forgets at loss of power, and takes a node that was away for a new one.
    Tgt,
}

/// Where a run begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Nobody holds the claim; somebody has before.
    Free,
    /// The device was just switched on, and remembers nothing.
    Blank,
    /// The first node holds the claim.
    Held,
}
