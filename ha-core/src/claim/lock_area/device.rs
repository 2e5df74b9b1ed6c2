//! What a lock area needs of storage.
//!
//! Decides how the area asks for blocks and how a failure reads. Leaves the touching of a real device or file (direct,
//! synchronous I/O, on a thread of its own, with a time limit) to `ha-resources`.

use async_trait::async_trait;

/// A shared block device or file, or a region of one.
///
/// Every transfer begins and ends on a block boundary. A write that is acknowledged must be durable: it went past every
/// volatile cache that a power failure could empty. A read must come from the device, not from this machine's cache.
#[async_trait]
pub trait BlockDevice: Send + Sync + 'static {
    /// The size of a block in bytes: what the device writes whole or not at all (its logical block size), a power of two from 512
    /// to 65,536.
    fn block_size(&self) -> u32;

    /// The size of the region in bytes.
    fn size(&self) -> u64;

    /// Reads `len` bytes at `offset`, both multiples of the block size. Returns exactly `len` bytes, or fails.
    async fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, IoFailure>;

    /// Writes `data` at `offset`, both multiples of the block size. A write over several blocks may be torn between
    /// blocks by a failure. Must stay harmless when the future is dropped: the write then happens or does not.
    async fn write(&self, offset: u64, data: Vec<u8>) -> Result<(), IoFailure>;
}

/// Why a transfer did not succeed. A write that failed, in whichever way, may still have happened, or happen later.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IoFailure {
    /// The device answered with an error, described for people with the device's name.
    #[error("{0}")]
    Error(String),
    /// No answer in time. Whether the transfer took place is unknown.
    #[error("no answer in time")]
    NoAnswer,
}
