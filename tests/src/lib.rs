//! A laboratory for whole-system tests: machines, networks and shared storage made of this kernel's namespaces, with every fault at hand.
//!
//! A [`Lab`] has three to five [`Node`]s. Each is a machine of its own as far as its programs can see: own network, processes, mounts,
//! host name, control groups, boot id, `/run` and state. Its process number 1 is the machine: killing it *is* power loss. The networks
//! between the nodes are switches of this library ([`wire`]), and each node reaches the shared disk on a path of its own
//! ([`storage`]), so that loss, delay, replay, I/O errors and I/O that hangs are matters of one call, and exact.
//!
//! What happened is judged by two observers that no node can bribe: a [`Client`] that asks a service address every few
//! milliseconds, and a [`Witness`] that reads what every instance of a service wrote.
//!
//! It needs root, `/dev/fuse`, `/dev/net/tun`, `/dev/loop-control`, and the programs `ip`, `losetup` and `nsenter`; it touches no network
//! but those it makes, and leaves nothing behind, whether a test ends well or panics. What a killed run left is removed by the next.
//!
//! Only [`cluster`] knows the agent: its configuration, its commands and its status.

pub mod asking;
pub mod boot;
pub mod client;
pub mod cluster;
mod command;
mod example;
mod interruption;
pub mod iscsi;
pub mod kernel;
mod lab;
pub mod latency;
mod load;
pub mod mariadb;
mod needs;
mod node;
mod random;
mod run;
pub mod service;
pub mod storage;
pub mod switch;
pub mod target;
mod trouble;
mod volume;
mod wait;
pub mod wire;
pub mod witness;

pub use asking::Asking;
pub use boot::Machine;
pub use client::{Client, Outage, Tally};
pub use cluster::Cluster;
pub use example::{example, page, script};
pub use interruption::Interruption;
pub use lab::{Builder, Lab, program};
pub use load::{Load, Work};
pub use needs::need;
pub use node::{Node, Spare};
pub use trouble::{Result, Trouble};
pub use volume::Volume;
pub use wait::{eventually, patience};
pub use witness::{Verdict, Witness};
