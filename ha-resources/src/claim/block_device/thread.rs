//! What touches the device, on a thread where everything may hang for as long as the storage does.
//!
//! Decides how a device is opened and measured, and carries transfers out one by one. Leaves the thread to [`DeviceThread`], and deadlines to
//! those who ask.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ha_core::claim::lock_area::IoFailure;
use nix::libc;

use super::{Caching, Geometry, OpenError};
use crate::claim::device_thread::{DeviceThread, Started};

/// Direct I/O wants memory that begins at a multiple of the logical block size; no device that we know wants more than a page.
const ALIGNMENT: usize = 4096;

/// The block size in files: no filesystem wants its direct I/O in larger units but those with larger blocks than a page.
const FILE_BLOCK: u32 = 4096;

/// Larger blocks are refused by the lock area.
const BLOCK_SIZES: std::ops::RangeInclusive<u32> = 512..=65_536;

/// What is to be done.
#[derive(Debug)]
pub(super) enum Transfer {
    Read { offset: u64, len: usize },
    Write { offset: u64, data: Vec<u8> },
}

/// How a transfer went: the bytes read, or nothing after a write.
pub(super) type Done = Result<Vec<u8>, IoFailure>;

/// Opens a device on a thread for it, and tells in the receiver how that went.
pub(super) fn start(path: PathBuf) -> Started<Transfer, Done, Geometry, OpenError> {
    DeviceThread::start("ha-block-io", move || {
        let (storage, geometry) = Storage::open(&path)?;
        Ok((move |transfer| storage.carry_out(transfer), geometry))
    })
}

/// An open device.
struct Storage {
    path: PathBuf,
    file: File,
}

impl Storage {
    fn open(path: &Path) -> Result<(Storage, Geometry), OpenError> {
        let about = |what| move |error| of_error(path, what, error);
        let kind = std::fs::metadata(path).map_err(about("looking at it"))?.file_type();
        if kind.is_dir() {
            return Err(OpenError::Directory(path.to_owned()));
        }
        if !kind.is_block_device() && !kind.is_file() {
            return Err(OpenError::NotStorage(path.to_owned()));
        }
        let (mut file, mut caching) = match open(path, libc::O_DIRECT) {
            Ok(file) => (file, Caching::None),
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => (open_cached(path)?, cached(&e)),
            Err(e) => return Err(of_error(path, "opening it", e)),
        };
        let block_size = if kind.is_block_device() {
            if ioctl::is_read_only(&file).map_err(about("asking whether it is read-only"))? {
                return Err(OpenError::ReadOnly(path.to_owned()));
            }
            ioctl::logical_block_size(&file).map_err(about("asking for its block size"))?
        } else {
            FILE_BLOCK
        };
        if !BLOCK_SIZES.contains(&block_size) || !block_size.is_power_of_two() {
            let error = io::Error::other(format!("it has blocks of {block_size} bytes, not of 512 to 65536"));
            return Err(of_error(path, "asking for its block size", error));
        }
        let end = file.seek(SeekFrom::End(0)).map_err(about("asking for its size"))?;
        let size = end - end % u64::from(block_size);
        if size == 0 {
            return Err(OpenError::TooSmall { path: path.to_owned(), size: end, block_size });
        }
        // Some filesystems take the flag and refuse the transfer.
        match read(&file, 0, block_size as usize) {
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) && caching == Caching::None => {
                (file, caching) = (open_cached(path)?, cached(&e));
                read(&file, 0, block_size as usize).map_err(about("reading its first block"))?;
            }
            result => drop(result.map_err(about("reading its first block"))?),
        }
        Ok((Storage { path: path.to_owned(), file }, Geometry { block_size, size, caching }))
    }

    fn carry_out(&self, transfer: Transfer) -> Result<Vec<u8>, IoFailure> {
        match transfer {
            Transfer::Read { offset, len } => {
                read(&self.file, offset, len).map_err(|e| self.failure("reading", offset, len, &e))
            }
            Transfer::Write { offset, data } => {
                let written = write(&self.file, offset, &data);
                written.map(|()| Vec::new()).map_err(|e| self.failure("writing", offset, data.len(), &e))
            }
        }
    }

    fn failure(&self, what: &str, offset: u64, len: usize, error: &io::Error) -> IoFailure {
        IoFailure::Error(format!("{}: {what} {len} bytes at {offset}: {error}", self.path.display()))
    }
}

fn open(path: &Path, flags: libc::c_int) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_DSYNC | libc::O_CLOEXEC | flags).open(path)
}

fn open_cached(path: &Path) -> Result<File, OpenError> {
    open(path, 0).map_err(|e| of_error(path, "opening it", e))
}

fn cached(error: &io::Error) -> Caching {
    Caching::PageCache { reason: format!("direct I/O is refused: {error}") }
}

fn of_error(path: &Path, what: &'static str, error: io::Error) -> OpenError {
    let path = path.to_owned();
    match error.kind() {
        io::ErrorKind::NotFound => OpenError::NotFound(path),
        io::ErrorKind::PermissionDenied => OpenError::NotPermitted(path),
        io::ErrorKind::ReadOnlyFilesystem => OpenError::ReadOnly(path),
        _ => OpenError::System { path, what, error },
    }
}

fn read(file: &File, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut memory = Aligned::new(len);
    let bytes = memory.bytes()?;
    file.read_exact_at(bytes, offset)?;
    Ok(bytes.to_vec())
}

fn write(file: &File, offset: u64, data: &[u8]) -> io::Result<()> {
    let mut memory = Aligned::new(data.len());
    let bytes = memory.bytes()?;
    bytes.copy_from_slice(data);
    file.write_all_at(bytes, offset)
}

/// Memory that direct I/O can use: a little more than is needed, of which the part is taken that begins where it should.
struct Aligned {
    memory: Vec<u8>,
    len: usize,
}

impl Aligned {
    fn new(len: usize) -> Aligned {
        Aligned { memory: vec![0; len + ALIGNMENT], len }
    }

    fn bytes(&mut self) -> io::Result<&mut [u8]> {
        let begin = self.memory.as_ptr().align_offset(ALIGNMENT);
        let end = begin.saturating_add(self.len);
        self.memory.get_mut(begin..end).ok_or_else(|| io::Error::other("memory cannot be aligned for direct I/O"))
    }
}

/// What the kernel tells of a block device (`linux/fs.h`).
mod ioctl {
    use super::{AsRawFd, File, io, libc};

    nix::ioctl_read_bad!(blkroget, nix::request_code_none!(0x12, 94), libc::c_int);
    nix::ioctl_read_bad!(blksszget, nix::request_code_none!(0x12, 104), libc::c_int);

    pub(super) fn is_read_only(device: &File) -> io::Result<bool> {
        let mut value = 0;
        // SAFETY: BLKROGET writes one int, through a pointer to a live one.
        unsafe { blkroget(device.as_raw_fd(), &raw mut value) }?;
        Ok(value != 0)
    }

    pub(super) fn logical_block_size(device: &File) -> io::Result<u32> {
        let mut value = 0;
        // SAFETY: BLKSSZGET writes one int, through a pointer to a live one.
        unsafe { blksszget(device.as_raw_fd(), &raw mut value) }?;
        u32::try_from(value).map_err(io::Error::other)
    }
}
