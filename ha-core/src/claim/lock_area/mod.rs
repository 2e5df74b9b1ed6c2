//! Claims in a lock area: a region on a shared block device or file in which nodes keep leases and decide owners.
//!
//! Decides who owns each hierarchy of the area, and for how long this node may rely on it. Leaves the I/O to a
//! [`BlockDevice`] and the reset of a node that overstays its lease to its watchdog.

pub mod admin;
pub mod area;
mod batch;
pub mod device;
pub mod layout;
mod lease;
pub mod machine;
pub mod memory;
mod paxos;
#[cfg(feature = "sim")]
pub(crate) mod supposed;
pub mod timing;

pub use admin::{AdminError, AreaPlan, AreaReport, Existing, Finding};
pub use area::{AreaConfig, Clock, LockArea, OpenError};
pub use device::{BlockDevice, IoFailure};
pub use layout::{AreaId, Header};
pub use timing::{LeaseTiming, TimingError};

#[cfg(test)]
mod area_tests;
#[cfg(test)]
mod sim_tests;
