//! Devices with persistent reservations, SCSI and NVMe, as this node reaches them.
//!
//! Decides whether what an operator named is a whole disk that has reservations ([`Disk::open`]), which paths lead to it now, and how
//! commands get there and back in time. Leaves what is asked of it, and when, to [`ha_core::claim::reservation`].
//!
//! Each path has a thread of its own, on which it may hang for as long as the storage does: see [`Disk`].

mod disk;
mod error;
mod initiator;
mod kernel_pr;
mod look;
mod multipathd;
mod nvme;
mod path;
pub mod scsi;
mod sg;
mod spec;
mod traffic;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ha_core::claim::reservation::device::ReservationDevice;

pub use disk::{Disk, Finding, Identity, check_distinct};
pub use error::{Listed, OpenError};
pub use spec::ReservationSpec;

/// Opens the disk that an operator named, and gives every command `time_limit`. See [`Disk::open`].
pub fn open(path: impl AsRef<Path>, time_limit: Duration) -> Result<Arc<dyn ReservationDevice>, OpenError> {
    Ok(Arc::new(Disk::open(path, time_limit)?))
}

/// Who the disk is that an operator named: the same on every node that reaches it. See [`Disk::identity`].
pub fn identity(path: impl AsRef<Path>, time_limit: Duration) -> Result<Identity, OpenError> {
    Ok(Disk::open(path, time_limit)?.identity().clone())
}
