//! Devices with persistent reservations, SCSI and NVMe, as this node reaches them.
//!
//! Decides how commands reach a device and how its answers read. Leaves what is asked of it, and when, to
//! [`ha_core::claim::reservation`].

pub mod scsi;
