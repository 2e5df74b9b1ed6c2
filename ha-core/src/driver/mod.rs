//! Carries the engine's effects out with tokio, and feeds what happened back in: the only asynchronous code of the crate.

mod plugin;

pub use plugin::{Channel, Context, Failed, Found, Guarded, KillHandle, Probe, Resource, Verdict, Watchdog};
