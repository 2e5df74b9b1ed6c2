//! The networks of a laboratory: switches in this process, joined to each node by a TAP device.
//!
//! Decides the fate of every frame between two ports by the [`Conditions`] of that direction. The switch learns addresses as a real one
//! does (IEEE 802.1D), so that a service address that moved unannounced stays unreachable, as it should. Leaves it to `node` when a port is
//! plugged in and out.

mod conditions;
mod switch;

pub use conditions::Conditions;
pub use switch::{Port, Switch};
