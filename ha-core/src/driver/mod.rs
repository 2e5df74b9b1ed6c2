//! Carries the engine's effects out with tokio, and feeds what happened back in: the only asynchronous code of the crate.
//!
//! Decides nothing about hierarchies. Leaves every decision to [`crate::engine`], and every touch of the system to what it is given: resources,
//! claims, probes, channels and a watchdog behind the traits of this module.
//!
//! The typed path to a running node: [`Node::builder`] → [`NodeBuilder`] → [`NodeBuilder::start`] → [`Node`].

mod builder;
mod flight;
mod guard;
mod memory;
mod network;
mod node;
mod plugin;
mod reload;
mod run;
mod senses;
mod work;

pub use builder::{Clock, Gauge, NodeBuilder, StartError, boot_time};
pub use flight::FlightFiles;
pub use node::{Ended, Gone, Node};
pub use plugin::{Channel, Context, Failed, Fencer, Found, Guarded, KillHandle, Probe, Resource, Verdict, Watchdog};
pub use reload::{Member, Reload, ReloadReport};
pub use work::Measured;
