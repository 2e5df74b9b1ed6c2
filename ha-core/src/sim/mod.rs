//! A cluster in a box: whole nodes over a network, disks and devices that misbehave as real ones do, in virtual time.
//!
//! Decides what the world around the nodes does. Every decision of a node is made by the code that runs in production: the engine and
//! the claim machines, unchanged. What is replaced is the driver (by [`agent`](self), in virtual time), the kernel, the network and the disks.
//!
//! A [`World`] begins with a [`Setup`] and a seed. [`Action`]s happen to it; the observer checks the invariants S1 to S7 at every event, by what
//! resources and disks really did, and the bounds L1, L4 and L5. The same setup, seed and actions give the same run, for ever.

mod action;
mod agent;
mod apply;
pub mod campaign;
mod clock;
mod disk;
mod draws;
mod exclusion;
mod fencing;
mod liveness;
mod lun;
pub mod model;
mod network;
mod node;
mod observer;
mod programs;
mod queue;
mod reservations;
#[cfg(test)]
mod reserved_tests;
pub mod scenario;
pub mod scsi;
mod setup;
mod storage;
#[cfg(test)]
mod tests;
mod world;

pub use action::{Action, Answers, Behaviour, ToDisk, Way};
pub use apply::revision;
pub use clock::Moment;
pub use disk::Path;
pub use draws::Draws;
pub use liveness::{Line, Service};
pub use network::Weather;
pub use observer::{Invariant, Violation};
pub use setup::{
    AreaSetup, ClaimSetup, FencingSetup, HierarchySetup, NodeSetup, ReservationSetup, Setup, WatchdogSetup,
};
pub use world::{Stats, World};
