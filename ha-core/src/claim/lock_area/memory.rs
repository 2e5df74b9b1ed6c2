//! A block device in memory, which counts its transfers: for tests, benchmarks, and trying things out without a disk.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;

use super::device::{BlockDevice, IoFailure};

/// The device. Every transfer succeeds at once.
pub struct Memory {
    block_size: u32,
    bytes: Mutex<Vec<u8>>,
    transfers: AtomicU64,
}

impl Memory {
    /// A device of zeros. `block_size` as in [`BlockDevice::block_size`].
    pub fn new(block_size: u32, size: usize) -> Memory {
        Memory { block_size, bytes: Mutex::new(vec![0; size]), transfers: AtomicU64::new(0) }
    }

    /// How many reads and writes there were.
    pub fn transfers(&self) -> u64 {
        self.transfers.load(Ordering::Relaxed)
    }

    fn with<T>(&self, offset: u64, len: usize, f: impl FnOnce(&mut [u8]) -> T) -> Result<T, IoFailure> {
        self.transfers.fetch_add(1, Ordering::Relaxed);
        let mut bytes = self.bytes.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let size = bytes.len();
        let end = usize::try_from(offset).ok().and_then(|from| Some((from, from.checked_add(len)?)));
        let range = end.and_then(|(from, to)| bytes.get_mut(from..to));
        range.map(f).ok_or_else(|| IoFailure::Error(format!("{len} bytes at {offset}: the device has {size}")))
    }
}

#[async_trait]
impl BlockDevice for Memory {
    fn block_size(&self) -> u32 {
        self.block_size
    }

    fn size(&self) -> u64 {
        self.bytes.lock().unwrap_or_else(std::sync::PoisonError::into_inner).len() as u64
    }

    async fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, IoFailure> {
        self.with(offset, len, |bytes| bytes.to_vec())
    }

    async fn write(&self, offset: u64, data: Vec<u8>) -> Result<(), IoFailure> {
        self.with(offset, data.len(), |bytes| bytes.copy_from_slice(&data))
    }
}
