//! What would happen to this cluster: its own files in the simulator of `ha-core`, with the engines and claims that run in production.
//!
//! Decides how the files become a simulated cluster, what is done to it, and what is learnt from that. Nothing real is touched: no device, no
//! socket, no agent. Leaves what nodes do to `ha-core`, the options to [`crate::cli`], and how it looks to [`crate::render::simulate`].

mod fault;
mod findings;
mod losses;
mod random;
mod stage;
#[cfg(test)]
mod tests;
mod trial;

use serde::Serialize;

pub(crate) use fault::{Fault, Groups, Part, Whose, in_words};
pub(crate) use findings::{findings, is_well};
pub(crate) use losses::losses;
pub(crate) use random::{FailedRun, Random, random};
pub(crate) use stage::{Assumed, Stage};
pub(crate) use trial::{Outcome, Served, Spent, scenario, trial};

use crate::view::Problem;

/// What was simulated, and what came of it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// The cluster.
    pub(crate) cluster: String,
    /// Its nodes.
    pub(crate) nodes: Vec<String>,
    /// What everything was drawn from that is left to chance.
    pub(crate) seed: u64,
    /// What happened, one by one, each to a cluster in which all was well.
    pub(crate) happenings: Vec<Outcome>,
    /// What breaks, and what could be better; the worst first.
    pub(crate) findings: Vec<Problem>,
}
