//! What makes sure that this node stops by itself when the agent cannot make it stop (invariant S7).
//!
//! Two ways: a watchdog device resets the machine, a warden kills process groups and takes addresses away. Decides how each is fed, armed and handed
//! over; when to feed is the engine's.

pub mod device;
mod reset;
pub mod warden;

pub use reset::Reset;
