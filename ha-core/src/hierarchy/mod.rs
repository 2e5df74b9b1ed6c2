//! What an operator writes: the hierarchy, its graph of resources, its policy; reading it from RON, and every check on it.
//!
//! Decides what a valid hierarchy is. Leaves to `ha-resources`, or to an embedder, what kinds of resources, claims and
//! probes there are (`Kinds`), and to [`crate::recovery`] what is done with them.

mod model;
mod plan;

pub use model::{
    Failback, Fingerprint, Hierarchy, Limit, Monitor, OnStopFailure, Policy, Rank, ResourceSpec, Timeouts,
};
pub use plan::{Change, Plan};
