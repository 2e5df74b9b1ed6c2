//! Scenarios as text: a cluster, what happens to it, and what must be seen, readable by an administrator.
//!
//! Decides the format (`docs/scenarios.md` shows it) and when a scenario has failed. Leaves what happens to [`World`](super::World), which
//! checks the invariants all the while.
//!
//! ```
//! use ha_core::hierarchy::Source;
//! use ha_core::sim::scenario::Scenario;
//!
//! let text = "\
//! ## A node loses power: the next in rank serves what it had.
//! nodes alpha beta
//! hierarchy web on alpha beta: disk, server
//!
//! power off alpha
//! until web in service on beta within 10s
//! ";
//! let scenario = Scenario::parse(&Source::new("power.scenario", text)).unwrap();
//! assert!(scenario.play().is_ok());
//! ```

mod actions;
mod model;
mod run;
mod setup;
mod steps;
#[cfg(test)]
mod tests;
mod words;

pub use model::{Begin, Doing, Scenario, State, Step, When};
pub use run::{Failure, run};
pub use steps::parse_steps;
