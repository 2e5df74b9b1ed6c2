//! How much can happen in a run of the lock area's model, and what can be broken in it.

use super::NODES_MAX;

/// How much may happen. The search is exhaustive within these.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Nodes, 1 to 3.
    pub nodes: usize,
    /// How often each node is asked to take, confirm or release the claim.
    pub tries: [u8; NODES_MAX],
    /// Resets of nodes and deaths of agents, together.
    pub crashes: u8,
    /// Leases that run out while their node goes on.
    pub lapses: u8,
    /// Transfers that are not answered.
    pub failures: u8,
    /// A write that is cut off can be torn: the block fails its checksum.
    pub torn: bool,
    /// A write that is cut off can land later, at any time.
    pub late: bool,
    /// A batch that lost more ballots than this is not followed any further.
    pub rounds: u32,
    /// Claims are released to heirs, too.
    pub heirs: bool,
    /// The record has its hierarchy's name already; if not, the nodes race to give it.
    pub named: bool,
    /// In each state, each node must be able to get the claim once all others are dead.
    pub liveness: bool,
    /// What is broken.
    pub flaw: Option<Flaw>,
}

impl Bounds {
    /// Two nodes are asked once each, and nothing fails: where all other bounds begin.
    pub const TWO_NODES: Bounds = Bounds {
        nodes: 2,
        tries: [1; NODES_MAX],
        crashes: 0,
        lapses: 0,
        failures: 0,
        torn: false,
        late: true,
        rounds: 1,
        heirs: true,
        named: true,
        liveness: true,
        flaw: None,
    };
}

/// A rule of the protocol that is broken on purpose, to see that the search notices. Production code is not touched: what surrounds the
/// machine lies to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flaw {
    /// Only the first copy of a record is written.
    OneCopy,
    /// An owner passes for expired whatever its slot shows.
    NoExpiry,
    /// Expiry is judged by what the slots showed when the request came, not by a look after the records were read.
    StaleSight,
    /// Higher ballots of others are not seen.
    BallotsIgnored,
    /// Values that others accepted are not seen.
    AcceptedIgnored,
    /// What others know to be decided is not seen.
    DecidedForgotten,
    /// A new life goes on with the sequence of the former one.
    NoJump,
    /// A lease that ran out and was entered anew passes for the same.
    LapseForgotten,
    /// A claim is released while its resources run.
    ReleaseWhileRunning,
}
