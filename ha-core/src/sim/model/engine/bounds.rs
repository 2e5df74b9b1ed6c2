//! How much can happen in a run of the engines' model, and what can be broken in it.

/// How much may happen. The search is exhaustive within these.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Resources of the hierarchy, each requiring the one before it.
    pub resources: usize,
    /// Commands of operators.
    pub commands: u8,
    /// Contact lost on one node although the other one is alive.
    pub silences: u8,
    /// Power losses of nodes and deaths of agents, together.
    pub crashes: u8,
    /// Operations that fail, resources that fail, and storage that does not answer, together.
    pub failures: u8,
    /// Tenures that could not be proven for so long that they end.
    pub lapses: u8,
    /// Answers of the claim can arrive later than what they say was so.
    pub late_answers: bool,
    /// Something can reset a node that cannot stop.
    pub can_reset: bool,
    /// From each state the hierarchy must reach a fixed place once nothing fails any more.
    pub liveness: bool,
    /// What is broken.
    pub flaw: Option<Flaw>,
}

impl Bounds {
    /// One resource, and nothing happens: where all other bounds begin.
    pub const QUIET: Bounds = Bounds {
        resources: 1,
        commands: 0,
        silences: 0,
        crashes: 0,
        failures: 0,
        lapses: 0,
        late_answers: false,
        can_reset: true,
        liveness: true,
        flaw: None,
    };
}

/// A rule that is broken on purpose, to see that the search notices. Production code is not touched: what surrounds the engines lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flaw {
    /// The claim is given to whoever asks.
    ClaimGivenTwice,
    /// A lease can be over while its node still runs what it guards, and nothing resets the node.
    NoWatchdog,
    /// A stop is reported as done while the resource runs.
    StopLies,
    /// A start that fails is reported as done.
    StartLies,
    /// A tenure that is over as its news arrives looks good.
    OldTenure,
    /// What was refused is never asked again.
    NoRetry,
}
