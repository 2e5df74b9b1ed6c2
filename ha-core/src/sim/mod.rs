//! A cluster in a box: whole nodes over a network, disks and devices that misbehave as real ones do, in virtual time.
//!
//! Decides what the world around the nodes does. Every decision of a node is made by the code that runs in production: the engine and
//! the claim machines, unchanged.

pub mod scsi;
