//! What utility is measured with, behind [`ha_core::driver::Probe`].
//!
//! Each module decides what one kind of measurement says. What follows from it is left to `ha-core`: the smallest of a
//! hierarchy's probes counts, and 0 means that it cannot be served here.

mod disk;
mod exec;
mod http;
mod load;
mod ping;
mod read;
mod tcp;

use std::time::Duration;

pub(crate) use disk::bytes_of;
pub use disk::{Disk, DiskSpec, Free, FreeError};
pub use exec::{ExecProbe, ExecProbeSpec};
pub use http::{Http, HttpSpec, Url, UrlError};
pub use load::{Load, LoadSpec};
pub use ping::{Ping, PingSpec};
pub use tcp::{Tcp, TcpSpec};

/// So much longer than its own time limit a probe is waited for, so that it can still say what it saw.
const MARGIN: Duration = Duration::from_millis(500);
