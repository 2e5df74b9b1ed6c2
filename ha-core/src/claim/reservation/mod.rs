//! Claims by persistent reservation: the device itself refuses the writes of everyone but the holder.
//!
//! Decides what is asked of a device that has reservations, and how its answers read. Leaves the bytes of a command, and the touching of a
//! device, to `ha-resources`.

pub mod device;
