//! Why a disk cannot be used for reservations, and what to do.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ha_core::claim::reservation::device::Failure;

use super::disk::Identity;
use super::path::Trouble;

/// Why a disk was not opened. Nothing was changed on it.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Nothing is there.
    #[error("{0} does not exist: check the path (see `ls -l /dev/disk/by-id`), and that the storage is connected")]
    NotFound(PathBuf),
    /// A file, a directory, something else.
    #[error("{0} is not a block device: name a whole disk, by its name in /dev/disk/by-id")]
    NotBlockDevice(PathBuf),
    /// A partition.
    #[error("{path} is a partition, and reservations are of whole disks: name {}", disk.display())]
    Partition {
        /// Which.
        path: PathBuf,
        /// What to name instead.
        disk: PathBuf,
    },
    /// A device made of others.
    #[error("{path} is {what}, and reservations are of physical disks: name those underneath: {below}")]
    Stacked {
        /// Which.
        path: PathBuf,
        /// What it is.
        what: &'static str,
        /// What to name instead.
        below: Listed,
    },
    /// One path of a multipath map.
    #[error("{path} is one path of a multipath map, whose other paths need the registration as well: name {}", map.display())]
    OnePath {
        /// Which.
        path: PathBuf,
        /// What to name instead.
        map: PathBuf,
    },
    /// A loop device.
    #[error("{0} is a loop device over a file, which no other node can reach: name a shared disk")]
    Loop(PathBuf),
    /// It cannot be written.
    #[error("{0} is read-only: make it writable (see `blockdev --setrw`, and the access rights on the storage)")]
    ReadOnly(PathBuf),
    /// Somebody on this machine uses it.
    #[error("{0} is mounted on this node, or part of another device: see `lsblk`, and unmount it first")]
    InUse(PathBuf),
    /// It was there, and is gone.
    #[error("{0} is there in name only, the disk behind it is gone: check the storage and the way to it")]
    Vanished(PathBuf),
    /// We may not.
    #[error(
        "{0} may not be commanded by this user: run as root (the capabilities CAP_SYS_RAWIO and CAP_SYS_ADMIN are needed)"
    )]
    NotPermitted(PathBuf),
    /// It has no persistent reservations.
    #[error(
        "{0} has no persistent reservations: name a disk that has them, turn them on in the storage, or use a lock area"
    )]
    NoReservations(PathBuf),
    /// It does not say who it is.
    #[error(
        "{0} has neither a designator nor a serial number, so nobody can tell whether two nodes see the same disk: name another one"
    )]
    Anonymous(PathBuf),
    /// No path of a multipath map works.
    #[error("{0} has no path that works: check the storage and the ways to it (see `multipath -ll`)")]
    NoPaths(PathBuf),
    /// Two paths of one map lead to two disks.
    #[error("{path} has paths to two disks, {one} and {other}: repair the map (see `multipath -ll`)")]
    TwoDisks {
        /// The map.
        path: PathBuf,
        /// Where one path leads.
        one: Identity,
        /// Where another leads.
        other: Identity,
    },
    /// Two names for one disk.
    #[error(
        "{one} and {other} are the same disk, {identity}: name it once, by its multipath map if it has several paths"
    )]
    Same {
        /// One.
        one: PathBuf,
        /// The other.
        other: PathBuf,
        /// The disk.
        identity: Identity,
    },
    /// The storage did not answer in time.
    #[error("{path} did not answer within {limit:?}: check the storage and the way to it")]
    NoAnswer {
        /// Which.
        path: PathBuf,
        /// What it had.
        limit: Duration,
    },
    /// The storage answered, but not as it should.
    #[error("{path} cannot be used: {failure}; check the storage and the way to it")]
    Failed {
        /// Which.
        path: PathBuf,
        /// What it said.
        failure: Failure,
    },
    /// The system refused.
    #[error("{path} cannot be used: {what}: {error}; check the storage (`dmesg` may say more)")]
    System {
        /// Which.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What it said.
        #[source]
        error: io::Error,
    },
}

impl OpenError {
    /// What trouble with a path means for the disk.
    pub(super) fn of_trouble(path: &Path, limit: Duration, trouble: Trouble) -> OpenError {
        use nix::libc::{ENODEV, ENXIO};
        let path = path.to_owned();
        match trouble {
            Trouble::System { what, error } => match error.kind() {
                io::ErrorKind::NotFound => OpenError::NotFound(path),
                io::ErrorKind::PermissionDenied => OpenError::NotPermitted(path),
                _ if matches!(error.raw_os_error(), Some(ENXIO | ENODEV)) => OpenError::Vanished(path),
                _ => OpenError::System { path, what, error },
            },
            Trouble::Changed => OpenError::Vanished(path),
            Trouble::NoReservations => OpenError::NoReservations(path),
            Trouble::Anonymous => OpenError::Anonymous(path),
            Trouble::Failed(Failure::NoAnswer) => OpenError::NoAnswer { path, limit },
            Trouble::Failed(failure) => OpenError::Failed { path, failure },
        }
    }
}

/// Names, as a sentence lists them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed(pub Vec<PathBuf>);

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, path) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{}", path.display())?;
        }
        Ok(())
    }
}
