//! Utility by the room on a filesystem of the node: 100 while enough is free, else 0.
//!
//! Decides from `statvfs` (POSIX) what an ordinary user could still write. For filesystems that every node has for itself, such as the one
//! that a service keeps its logs on: what is in service on one node only cannot be measured elsewhere.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use ha_core::driver::{Failed, Probe};
use ha_core::name::Utility;
use nix::sys::statvfs::statvfs;
use serde::Deserialize;
use tokio::time::Instant;

use super::MARGIN;
use crate::deadline::{self, Gate};

/// How much has to be free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Free {
    /// Of the whole, 1 to 99.
    Percent(u8),
    /// In bytes.
    Bytes(u64),
}

/// Something that is no amount of free room.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no amount of room: expected 1% to 99%, or such as \"500MiB\" or \"20GiB\"")]
pub struct FreeError(String);

impl TryFrom<String> for Free {
    type Error = FreeError;
    fn try_from(text: String) -> Result<Free, FreeError> {
        let wrong = || FreeError(text.clone());
        if let Some(percent) = text.strip_suffix('%') {
            let percent = percent.trim().parse().ok().filter(|p| (1..=99).contains(p));
            return percent.map(Free::Percent).ok_or_else(wrong);
        }
        bytes_of(&text).map(Free::Bytes).ok_or_else(wrong)
    }
}

/// Reads `"500MiB"`: more than nothing, with a unit.
pub(crate) fn bytes_of(text: &str) -> Option<u64> {
    let units = [("KiB", 1_u64 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];
    let (number, unit) = units.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, unit)))?;
    number.trim().parse().ok().and_then(|n: u64| n.checked_mul(*unit)).filter(|bytes| *bytes > 0)
}

impl fmt::Display for Free {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Free::Percent(percent) => write!(f, "{percent}%"),
            Free::Bytes(bytes) => write!(f, "{} MiB", bytes >> 20),
        }
    }
}

/// What the operator says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskSpec {
    /// Any place on the filesystem.
    pub at: PathBuf,
    /// How much has to be free. Default 5 %.
    pub free: Free,
    /// From the end of one measurement to the begin of the next. Default 5 s.
    pub every: Duration,
    /// How long the filesystem may take to answer. Default 5 s.
    pub timeout: Duration,
}

impl DiskSpec {
    /// With the defaults.
    pub fn new(at: impl Into<PathBuf>) -> DiskSpec {
        let (every, timeout) = (Duration::from_secs(5), Duration::from_secs(5));
        DiskSpec { at: at.into(), free: Free::Percent(5), every, timeout }
    }
}

/// See the module's words.
#[derive(Clone, Debug)]
pub struct Disk {
    spec: DiskSpec,
    /// Nobody looks while an earlier look hangs.
    gate: Gate,
}

impl Disk {
    /// A probe.
    pub fn new(spec: DiskSpec) -> Disk {
        Disk { spec, gate: Gate::default() }
    }
}

#[async_trait]
impl Probe for Disk {
    async fn measure(&self) -> Result<(Utility, String), Failed> {
        let at = self.spec.at.display();
        let Some(inside) = self.gate.enter() else {
            return Err(Failed(format!("{at} has still not answered an earlier look")));
        };
        let path = self.spec.at.clone();
        let looked = deadline::by(Instant::now() + self.spec.timeout, move || {
            let _inside = inside;
            statvfs(&path)
        });
        let found = looked.await.ok_or_else(|| Failed(format!("{at} does not answer")))?;
        let found = found.map_err(|e| Failed(format!("{at} cannot be looked at: {e}; correct `at` or mount it")))?;
        let free = u128::from(found.blocks_available()) * u128::from(found.fragment_size());
        let whole = u128::from(found.blocks()) * u128::from(found.fragment_size());
        let enough = match self.spec.free {
            Free::Percent(percent) => free * 100 >= whole * u128::from(percent),
            Free::Bytes(bytes) => free >= u128::from(bytes),
        };
        let told = format!("{} MiB of {} MiB are free at {at}", free >> 20, whole >> 20);
        if enough {
            return Ok((Utility::FULL, told));
        }
        Ok((Utility::NONE, format!("{told}: expected at least {}", self.spec.free)))
    }

    fn every(&self) -> Duration {
        self.spec.every
    }

    fn timeout(&self) -> Duration {
        self.spec.timeout + MARGIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_a_share_or_an_amount() {
        let free = |text: &str| Free::try_from(text.to_owned()).ok();
        assert_eq!([free("5%"), free("20 GiB")], [Some(Free::Percent(5)), Some(Free::Bytes(20 << 30))]);
        for wrong in ["", "0%", "100%", "-1%", "5", "5GB", "0MiB", "99999999999TiB", "GiB", "%"] {
            assert_eq!(free(wrong), None, "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_filesystem_is_useful_while_there_is_room() {
        let place = tempfile::tempdir().unwrap();
        let spec = DiskSpec { free: Free::Bytes(1), ..DiskSpec::new(place.path()) };
        let probe = Disk::new(spec.clone());
        assert_eq!(probe.measure().await.unwrap().0, Utility::FULL);
        let (utility, why) =
            Disk::new(DiskSpec { free: Free::Bytes(u64::MAX), ..spec.clone() }).measure().await.unwrap();
        assert_eq!(utility, Utility::NONE);
        assert!(why.contains("are free at") && why.contains("expected at least"), "{why}");
        let nowhere = Disk::new(DiskSpec { at: place.path().join("nowhere"), ..spec });
        let Failed(why) = nowhere.measure().await.unwrap_err();
        assert!(why.contains("nowhere cannot be looked at"), "{why}");
    }
}
