//! What an operator writes: the hierarchy, its graph of resources, its policy; reading it from RON, and every check on it.
//!
//! Decides what a valid hierarchy is. Leaves to `ha-resources`, or to an embedder, what kinds of resources, claims and
//! probes there are (`Kinds`), and to [`crate::recovery`] what is done with them.

mod builder;
mod diagnostics;
mod digest;
mod fields;
mod graph;
mod model;
mod outline;
mod plan;
mod read;
mod source;
pub(crate) mod suggest;
#[cfg(test)]
mod tests;
mod value;

pub use builder::{HierarchyBuilder, HierarchyError, HierarchyErrors, ResourceBuilder};
#[cfg(feature = "sim")]
pub(crate) use diagnostics::Problems;
pub use diagnostics::{Diagnostics, Problem, Related, Severity};
pub use fields::Fields;
pub use model::{
    Failback, Fingerprint, Hierarchy, Limit, Monitor, OnStopFailure, Policy, Rank, ResourceSpec, SPREAD_STEP, Timeouts,
};
pub use plan::{Change, Plan};
pub use read::{Kinds, Loaded, Reading, read_directory, read_sources};
pub use source::Source;
pub use suggest::suggest;
pub use value::{Value, read_value};
