//! What is to be known of an export.
//!
//! Decides whether what a server has is what was meant, and how both are named to people and to the kernel.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ha_core::driver::Failed;

use super::wire::{self, Export, Wish};

/// What is to be known of an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NbdSpec {
    /// What it is attached to. Two resources that name one device are in each other's way.
    pub device: Device,
    /// Who exports.
    pub server: Server,
    /// Under what name; empty for the server's default.
    pub export: String,
    /// Whether it is to be written.
    pub access: Access,
    /// How many bytes it must have; `None` for as many as it has.
    pub size: Option<u64>,
    /// A request that the server does not answer for so long fails, and everything after it: whole seconds. Shorter: a dead server is noticed
    /// sooner, and a slow one is taken for dead.
    pub timeout: Duration,
}

impl NbdSpec {
    /// What is attached, for people, and for the kernel to keep.
    pub(super) fn target(&self) -> String {
        let export = if self.export.is_empty() { "the default export" } else { &self.export };
        let access = if self.access == Access::ReadOnly { ", read-only" } else { "" };
        format!("{export} of {}{access}", self.server)
    }

    /// Whether an export can be used as it is meant to, from what the server says to somebody with this wish.
    pub(super) fn fits(&self, export: &Export, wish: Wish) -> Result<(), Failed> {
        let (target, size) = (self.target(), export.size);
        // What nbd-server, up to 3.24 at least, says of all exports to somebody who only looks: it has not opened it.
        let unknown = wish == Wish::Look && size == 0;
        let wrong = if self.access == Access::ReadWrite && export.flags & wire::READ_ONLY != 0 {
            "is read-only: make it writable on the server, or say `access: ReadOnly`".to_owned()
        } else if unknown {
            return Ok(());
        } else if size == 0 {
            "is empty: is what it exports there?".to_owned()
        } else if let Some(expected) = self.size.filter(|expected| *expected != size) {
            format!("has {size} bytes, and should have {expected}: is it the right one, and is what it exports whole?")
        } else if !size.is_multiple_of(export.block_size.into()) {
            format!(
                "has {size} bytes, which is no multiple of its blocks of {} bytes: make it larger",
                export.block_size
            )
        } else {
            return Ok(());
        };
        Err(Failed(format!("{target} {wrong}")))
    }

    pub(super) fn refused(&self, why: &dyn fmt::Display) -> Failed {
        let name = if self.export.is_empty() { "its default export".to_owned() } else { format!("{:?}", self.export) };
        Failed(format!("the NBD server {}, asked for {name}, {why}", self.server))
    }
}

/// An nbd device, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device(pub(super) u32);

impl FromStr for Device {
    type Err = String;

    /// Reads `"/dev/nbd3"`.
    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.strip_prefix("/dev/nbd").filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
        let device = number.and_then(|digits| digits.parse().ok()).map(Device);
        // Written otherwise it would be no name of the kernel's.
        device
            .filter(|device| device.to_string() == text)
            .ok_or_else(|| format!("{text:?} is no name of an nbd device: expected one such as \"/dev/nbd0\""))
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/dev/nbd{}", self.0)
    }
}

/// Where an NBD server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Server {
    /// On a network.
    Tcp(SocketAddr),
    /// On this machine.
    Unix(PathBuf),
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Server::Tcp(address) => write!(f, "{address}"),
            Server::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// What is done with an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It is read and written; one that is read-only is refused.
    ReadWrite,
    /// It is only read, and the kernel lets nobody write.
    ReadOnly,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_that_is_not_what_it_should_be_is_refused() {
        let spec = NbdSpec {
            device: Device(0),
            server: Server::Tcp("10.0.0.9:10809".parse().unwrap()),
            export: "shop".to_owned(),
            access: Access::ReadWrite,
            size: None,
            timeout: Duration::from_secs(10),
        };
        let good = Export { size: 1 << 20, flags: 1, block_size: 512 };
        let read_only = Export { flags: 1 | wire::READ_ONLY, ..good };
        let exact = NbdSpec { size: Some(1 << 20), ..spec.clone() };
        let reader = NbdSpec { access: Access::ReadOnly, ..spec.clone() };
        for (spec, export) in [(&spec, good), (&exact, good), (&reader, good), (&reader, read_only)] {
            assert_eq!(spec.fits(&export, Wish::Begin), Ok(()));
        }
        for (spec, export, expected) in [
            (&spec, Export { size: 0, ..good }, "shop of 10.0.0.9:10809 is empty"),
            (&exact, Export { size: 1 << 19, ..good }, "has 524288 bytes, and should have 1048576"),
            (&spec, Export { size: 1000, ..good }, "no multiple of its blocks of 512 bytes"),
            (&spec, Export { block_size: 4096, size: 1 << 11, ..good }, "no multiple of its blocks of 4096 bytes"),
            (&spec, read_only, "is read-only: make it writable"),
        ] {
            let Failed(why) = spec.fits(&export, Wish::Begin).unwrap_err();
            assert!(why.contains(expected), "{why}");
        }
        // To who only looks, a server that has not opened it says nothing of its size.
        assert_eq!(exact.fits(&Export { size: 0, ..good }, Wish::Look), Ok(()));
        assert!(exact.fits(&Export { size: 1 << 19, ..good }, Wish::Look).is_err());
    }
}
