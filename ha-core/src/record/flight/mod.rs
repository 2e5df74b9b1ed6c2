//! The flight recorder: everything that an engine is told, so that what it decided can be gone through again, offline, on any machine.
//!
//! Decides how a recording reads and what a replay notices. Leaves the files to the driver, or to whoever embeds the engine, behind
//! [`Sink`]; and which moments are worth looking at to the agent.
//!
//! [`Flight`] stands around an engine: every call that changes it goes through [`Flight::call`], since nothing else of the engine can be
//! reached through it but for reading. Each call is written down before it is made, and after it a digest of what it led to; a
//! [`Replay`] makes the same calls to the same engine and compares.
//!
//! A recording is a sequence of *segments*, each of which can be replayed by itself: it begins with the whole state of the engine (the
//! first one of a life with what the engine is made from). So the oldest may be dropped at any time.
//!
//! ```text
//! segment = "HAFLIGHT" format:u32 frame*
//! frame   = length:u32 CRC-32C(length, payload):u32 payload
//! payload = record*        each a `Record` in postcard's encoding (https://postcard.jamesmunns.com/wire-format)
//! record  = header, then start, each alone in its frame; then (call, led-to?)*, then end if the engine ended in order
//! ```
//!
//! Numbers of fixed length are little-endian. A frame is what was handed over at once: one that is cut off or damaged ends its segment.

mod codec;
mod recorder;
mod replay;
#[cfg(test)]
mod tests;

pub use codec::{Damage, FORMAT, Header, LedTo, Record, Records, Start, Unreadable};
pub use recorder::{Flight, Limits, Piece, Sink};
pub use replay::{Agreement, CannotReplay, Gap, Replay, Seen, Step, Turn};

/// The version of this software, as recordings name it.
pub const SOFTWARE: &str = env!("CARGO_PKG_VERSION");
