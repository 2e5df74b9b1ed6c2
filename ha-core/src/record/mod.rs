//! What happened, for people and for programs: events, and the timelines made from them.
//!
//! Decides what is worth telling, and how a recovery is divided into detection and recovery. Leaves storing and showing to the
//! driver and the agent.

mod event;
mod timeline;

pub use event::{Event, Happened};
pub use timeline::{Cause, Mark, Timeline, Timelines};
