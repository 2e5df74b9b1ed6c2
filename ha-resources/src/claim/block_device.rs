//! A block device or a file for a lock area: direct, synchronous I/O on a thread of its own, with a time limit.
//!
//! Decides how the device is opened and what its blocks are; that transfers happen in the order in which they were asked for;
//! and that whoever asked hears in time, though the device may never answer. Leaves what is written to
//! [`ha_core::claim::lock_area`].
//!
//! A transfer cannot be called back once the kernel has it: with storage that hangs, its thread hangs too, uninterruptibly
//! (state D). Then every caller gets [`IoFailure::NoAnswer`] by the deadline, what waits in the queue is thrown away when
//! nobody waits for it any more, and the device works again when the storage does. Dropping the device, and leaving `main`, wait for
//! nothing.

mod thread;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use ha_core::claim::lock_area::{BlockDevice, IoFailure};

use super::device_thread::{DeviceThread, Unanswered};
use thread::{Done, Transfer};

/// A block device or a regular file as a [`BlockDevice`]. Its size and the size of its blocks are found out when it is opened.
///
/// Blocks are the logical blocks of a block device, and 4096 bytes in a file, whatever lies below, so that all nodes agree.
///
/// Each transfer has the same deadline, counted from the moment in which it was asked for. A write whose caller gave up, or
/// was told [`IoFailure::NoAnswer`], may still land later, any time later, but never after a write that was asked for after it
/// on this device.
#[derive(Debug)]
pub struct DirectDevice {
    path: PathBuf,
    geometry: Geometry,
    io_deadline: Duration,
    thread: DeviceThread<Transfer, Done>,
}

/// What was found out when a device was opened.
#[derive(Clone, Debug)]
struct Geometry {
    block_size: u32,
    size: u64,
    caching: Caching,
}

/// Whether reads can come from this machine's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caching {
    /// They come from the device (`O_DIRECT`, open(2)).
    None,
    /// They can, because direct I/O does not work there, as on tmpfs. Then other machines' writes may not be seen: only good for
    /// what one machine uses alone, for trials. Writes are as durable as otherwise (`O_DSYNC`).
    PageCache {
        /// What the system said to direct I/O.
        reason: String,
    },
}

/// Why a device was not opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Nothing is there.
    #[error("{0} does not exist: check the path, and that the storage is connected")]
    NotFound(PathBuf),
    /// It is a directory.
    #[error("{0} is a directory: name a block device, or a file in it (made with `fallocate -l 8M FILE`)")]
    Directory(PathBuf),
    /// Neither a block device nor a regular file.
    #[error("{0} is neither a block device nor a regular file: name one of these")]
    NotStorage(PathBuf),
    /// We may not.
    #[error("{0} may not be read and written by this user: run as root, or change its owner or mode")]
    NotPermitted(PathBuf),
    /// It cannot be written.
    #[error("{0} is read-only: make it writable (see `blockdev --setrw`, or the mount options of its filesystem)")]
    ReadOnly(PathBuf),
    /// Not one block fits.
    #[error("{path} has {size} bytes, less than one block of {block_size}: make it larger, or name another one")]
    TooSmall {
        /// Which.
        path: PathBuf,
        /// In bytes.
        size: u64,
        /// In bytes.
        block_size: u32,
    },
    /// The storage did not answer in time.
    #[error("{path} did not answer within {limit:?}: check the storage and the way to it")]
    NoAnswer {
        /// Which.
        path: PathBuf,
        /// What it had.
        limit: Duration,
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

impl DirectDevice {
    /// Opens `path`, reads its first block to see that it answers, and gives every transfer `io_deadline`, which opening has as well.
    ///
    /// Blocks the caller for that long at most.
    pub fn open(path: impl Into<PathBuf>, io_deadline: Duration) -> Result<DirectDevice, OpenError> {
        let path = path.into();
        let (thread, opened) = thread::start(path.clone()).map_err(|error| OpenError::System {
            path: path.clone(),
            what: "making a thread",
            error,
        })?;
        let geometry = match opened.recv_timeout(io_deadline) {
            Ok(result) => result?,
            Err(_) => return Err(OpenError::NoAnswer { path, limit: io_deadline }),
        };
        if let Caching::PageCache { reason } = &geometry.caching {
            tracing::warn!(path = %path.display(), reason, "no direct I/O here: no other machine may share this file");
        }
        Ok(DirectDevice { path, geometry, io_deadline, thread })
    }

    /// What was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether reads can come from this machine's memory.
    pub fn caching(&self) -> &Caching {
        &self.geometry.caching
    }

    fn check(&self, what: &str, offset: u64, len: usize) -> Result<(), IoFailure> {
        let Geometry { block_size, size, .. } = self.geometry;
        let block = u64::from(block_size);
        let wrong = |why: String| {
            let path = self.path.display();
            Err(IoFailure::Error(format!("{path}: {what} {len} bytes at {offset} is not possible: {why}")))
        };
        if len == 0 || !offset.is_multiple_of(block) || !(len as u64).is_multiple_of(block) {
            return wrong(format!("only whole blocks of {block_size} bytes can be"));
        }
        if offset.checked_add(len as u64).is_none_or(|end| end > size) {
            return wrong(format!("there are {size} bytes in all"));
        }
        Ok(())
    }

    async fn transfer(&self, transfer: Transfer) -> Result<Vec<u8>, IoFailure> {
        match self.thread.carry_out(transfer, self.io_deadline).await {
            Ok(done) => done,
            Err(Unanswered::InTime) => Err(IoFailure::NoAnswer),
            Err(Unanswered::Ever) => {
                Err(IoFailure::Error(format!("{}: the thread that does its I/O has ended", self.path.display())))
            }
        }
    }
}

#[async_trait]
impl BlockDevice for DirectDevice {
    fn block_size(&self) -> u32 {
        self.geometry.block_size
    }

    fn size(&self) -> u64 {
        self.geometry.size
    }

    async fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, IoFailure> {
        self.check("reading", offset, len)?;
        self.transfer(Transfer::Read { offset, len }).await
    }

    async fn write(&self, offset: u64, data: Vec<u8>) -> Result<(), IoFailure> {
        self.check("writing", offset, data.len())?;
        self.transfer(Transfer::Write { offset, data }).await.map(drop)
    }
}

#[cfg(test)]
mod tests;
