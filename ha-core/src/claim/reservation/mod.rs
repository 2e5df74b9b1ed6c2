//! Claims by persistent reservation: the device itself refuses the writes of everyone but the holder.
//!
//! Decides what is asked of a device that has reservations, and how its answers read. Leaves the bytes of a command, and the touching of a
//! device, to `ha-resources`.

pub mod audit;
pub mod claim;
pub(crate) mod desk;
pub mod device;
mod give_up;
mod hold;
pub mod key;
mod lane;
pub mod look;
pub mod machine;
mod path;
#[cfg(feature = "sim")]
pub(crate) mod supposed;
mod take;
pub mod timing;

pub use audit::{Audit, Elsewhere, PathStanding, Standing, audit};
pub use claim::{ReservationClaim, ReservationConfig, ReservationError};
pub use device::{ReservationDevice, ReservationType};
pub use key::{ClusterKey, Keyring, NodeNumber, Role};
pub use look::{PathReport, SeenKey, Shown, look, look_at_all};
pub use timing::{ReservationTiming, TimingError};

#[cfg(test)]
#[cfg(feature = "sim")]
mod claim_tests;
#[cfg(test)]
mod lane_tests;
#[cfg(test)]
#[cfg(feature = "sim")]
mod sim_tests;
