//! Blocks on a disk that say who wrote them: the program `lab-stamp`, which writes past every cache, and what it says.
//!
//! `lab-stamp write DEVICE WHO BLOCKS ROUNDS` writes the first blocks of a disk, round after round (0: for ever), until a write fails; it
//! then tells the last stamp that was acknowledged, and the error. `lab-stamp read DEVICE BLOCKS` tells what lies on the disk.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use nix::libc::O_DIRECT;
use serde::{Deserialize, Serialize};

use crate::trouble::{Result, Trouble, While as _};

/// What one write transfers, and where it may begin: as large as any disk's blocks.
const BLOCK: usize = 4096;

/// A block's bytes, where direct I/O wants them.
#[repr(align(4096))]
struct Block([u8; BLOCK]);

/// What a block says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Who wrote it.
    pub who: String,
    /// Which write of its writer's it was, counted from 1.
    pub sequence: u64,
}

/// How a writer ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// The sequence of its last write that was acknowledged, 0 if none was.
    pub acknowledged: u64,
    /// The number (errno) of the error that ended it, if one did.
    pub error: Option<i32>,
}

fn open(device: &Path, writing: bool) -> Result<File> {
    let file = OpenOptions::new().read(true).write(writing).custom_flags(O_DIRECT).open(device);
    file.to(format!("open {}", device.display()))
}

/// Writes the first `blocks` blocks in turn, so many times, or until a write fails.
pub fn write(device: &Path, who: &str, blocks: u64, rounds: u64) -> Result<Written> {
    let file = open(device, true)?;
    let mut block = Block([0; BLOCK]);
    let last = if rounds == 0 { u64::MAX } else { rounds * blocks };
    for sequence in 1..=last {
        let stamp = serde_json::to_vec(&Stamp { who: who.to_owned(), sequence })?;
        block.0[..stamp.len()].copy_from_slice(&stamp);
        block.0[stamp.len()..].fill(0);
        if let Err(error) = file.write_all_at(&block.0, (sequence - 1) % blocks * BLOCK as u64) {
            return Ok(Written { acknowledged: sequence - 1, error: error.raw_os_error() });
        }
    }
    Ok(Written { acknowledged: last, error: None })
}

/// What the first `blocks` blocks say; nothing where no stamp is.
pub fn read(device: &Path, blocks: u64) -> Result<Vec<Option<Stamp>>> {
    let file = open(device, false)?;
    let mut block = Block([0; BLOCK]);
    let one = |number: u64| -> Result<Option<Stamp>> {
        file.read_exact_at(&mut block.0, number * BLOCK as u64).to("read a block")?;
        let length = block.0.iter().position(|byte| *byte == 0).unwrap_or(BLOCK);
        Ok(serde_json::from_slice(&block.0[..length]).ok())
    };
    (0..blocks).map(one).collect()
}

/// The program.
pub fn run(arguments: &[&str]) -> Result<String> {
    let said = match arguments {
        ["write", device, who, blocks, rounds] => {
            serde_json::to_string(&write(Path::new(device), who, blocks.parse()?, rounds.parse()?)?)
        }
        ["read", device, blocks] => serde_json::to_string(&read(Path::new(device), blocks.parse()?)?),
        _ => return Err(Trouble::new("usage: lab-stamp write DEVICE WHO BLOCKS ROUNDS | read DEVICE BLOCKS")),
    };
    said.map_err(Trouble::from)
}
