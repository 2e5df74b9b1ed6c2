//! The deciding core of a high-availability harness. No decision in it does I/O, reads a clock or draws a random number.

pub mod claim;
pub mod contact;
pub mod driver;
pub mod engine;
pub mod hierarchy;
pub mod mastership;
pub mod name;
pub mod record;
pub mod recovery;
pub mod time;

pub use claim::Claim;
pub use driver::{Channel, Member, Node, Probe, Resource, Watchdog};
pub use hierarchy::Hierarchy;
