//! Ways for heartbeats to the other nodes, behind [`ha_core::driver::Channel`].
//!
//! Each module decides how datagrams travel on one kind of medium. What they say, and whether they are to be believed, is
//! left to `ha-core`, which seals them.

mod udp;

pub use udp::{BindError, DATAGRAM_BYTES_MAX, Udp};
