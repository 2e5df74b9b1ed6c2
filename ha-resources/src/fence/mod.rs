//! What makes sure that a node stops: this one by itself when the agent cannot make it stop (invariant S7), another one because it is switched off.
//!
//! Two ways for this one: a watchdog device resets the machine, a warden kills process groups and takes addresses away. Decides how each is fed,
//! armed and handed over; when to feed is the engine's. For other nodes: [`agents`], whenever somebody orders it.

pub mod agents;
pub mod device;
mod reset;
pub mod warden;

pub use reset::Reset;
