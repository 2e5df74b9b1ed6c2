//! A shared disk: blocks, and a path to it from each node.
//!
//! Decides when a transfer takes place, what it answers and when. A write is whole or not at all per block, and no order holds
//! between blocks; one whose issuer was told of no answer may land much later, also after the issuer is dead.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::draws::Draws;

/// How a node's path to the disks is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Path {
    /// Answers in a few milliseconds.
    #[default]
    Good,
    /// Some transfers take up to so much longer.
    Slow(Duration),
    /// Answers each transfer with an error. A write may have been carried out for all that.
    Errors,
    /// Does not answer. What was written lands at any time within half a minute, or never.
    Hangs,
    /// Nothing arrives at the disk.
    Lost,
}

/// The fate of one transfer.
pub(super) struct Fate {
    /// When each block reaches the disk, from now; `None` for those that never do. For a read, the first counts.
    pub(super) lands: Vec<Option<Duration>>,
    /// When it is answered, from now, and whether well; `None` for never.
    pub(super) answer: Option<(Duration, bool)>,
}

pub(super) struct Disk {
    pub(super) bytes: Vec<u8>,
    pub(super) block: usize,
    draws: Draws,
}

impl Disk {
    pub(super) fn new(bytes: Vec<u8>, block: usize, draws: Draws) -> Self {
        Disk { bytes, block, draws }
    }

    fn quick(&mut self) -> Duration {
        Duration::from_micros(self.draws.between(100, 3_000))
    }

    /// What becomes of a transfer of so many blocks.
    pub(super) fn fate(&mut self, path: Path, blocks: usize) -> Fate {
        let mut lands: Vec<Option<Duration>> = Vec::with_capacity(blocks);
        let whole = self.quick();
        match path {
            Path::Good => lands.resize(blocks, Some(whole)),
            Path::Slow(most) => {
                let more = Duration::from_nanos(self.draws.below(most.as_nanos() as u64 + 1));
                let each = self.draws.in_thousand(300);
                for _ in 0..blocks {
                    let own = if each { self.quick() } else { Duration::ZERO };
                    lands.push(Some(whole + more + own));
                }
            }
            Path::Errors => {
                for _ in 0..blocks {
                    lands.push(self.draws.in_thousand(200).then_some(whole));
                }
            }
            Path::Hangs => {
                for _ in 0..blocks {
                    let late = Duration::from_millis(self.draws.below(30_000));
                    lands.push(self.draws.in_thousand(500).then_some(whole + late));
                }
            }
            Path::Lost => lands.resize(blocks, None),
        }
        let answer = match path {
            Path::Good | Path::Slow(_) => {
                let last = lands.iter().flatten().max().copied().unwrap_or(whole);
                Some((last + Duration::from_micros(self.draws.between(20, 500)), true))
            }
            Path::Errors => Some((whole + whole, false)),
            Path::Hangs | Path::Lost => None,
        };
        Fate { lands, answer }
    }

    pub(super) fn write(&mut self, offset: u64, block: &[u8]) {
        let at = offset as usize;
        if let Some(place) = self.bytes.get_mut(at..at + block.len()) {
            place.copy_from_slice(block);
        }
    }

    pub(super) fn read(&self, offset: u64, len: usize) -> Option<Vec<u8>> {
        self.bytes.get(offset as usize..offset as usize + len).map(<[u8]>::to_vec)
    }
}
