//! What happened, for people and for programs: events, the timelines made from them, and the flight recorder.
//!
//! Decides what is worth telling, and how a recovery is divided into detection and recovery. Leaves storing and showing to the
//! driver and the agent.

mod course;
mod event;
pub mod flight;
mod timeline;
mod timelines;
#[cfg(test)]
mod timelines_tests;

pub use event::{Event, FencingNews, Happened, Wish};
pub use timeline::{Afterwards, Cause, Fault, Mark, Ongoing, Return, Timeline};
pub use timelines::Timelines;
