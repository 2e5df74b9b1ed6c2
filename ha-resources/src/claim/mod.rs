//! What claims are made of on Linux, behind the traits of [`ha_core::claim`].
//!
//! Each module decides how one kind of storage is touched. Who may hold a claim, and when, is left to the
//! protocols of `ha-core`.

mod block_device;
mod device_thread;
pub mod reservation;

pub use block_device::{Caching, DirectDevice, OpenError};
