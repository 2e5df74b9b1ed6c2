//! Inside a node: the measurement of [`crate::latency`] with the disks that production opens, the program `lab-latency`.
//!
//! `lab-latency ONE OTHER ROUNDS`: two paths to one disk, each by itself, are two initiators.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use ha_core::claim::reservation::device::{Failure, ReservationDevice};
use ha_resources::claim::reservation::Disk;

use crate::latency::{LIMIT, Way, measure};
use crate::trouble::{Result, Trouble, While as _};
use crate::wait::eventually;

struct OnePath(Arc<Disk>);

#[async_trait]
impl Way for OnePath {
    fn device(&self) -> Arc<dyn ReservationDevice> {
        self.0.clone()
    }

    async fn rewrite(&self) -> std::result::Result<(), Failure> {
        let path = self.0.paths().into_iter().next().ok_or(Failure::Transport)?;
        self.0.rewrite(&path).await
    }
}

/// Runs the program; what it says.
pub fn run(arguments: &[&str]) -> Result<String> {
    let [one, other, rounds] = arguments else { return Err(Trouble::new("usage: lab-latency ONE OTHER ROUNDS")) };
    let rounds = rounds.parse().to("read the number of rounds")?;
    let open =
        |path: &str| eventually("the disk is open", || Disk::open(Path::new(path), LIMIT).map(Arc::new).map(OnePath));
    let (one, other) = (open(one), open(other));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().to("make a runtime")?;
    Ok(runtime.block_on(measure([&one, &other], rounds))?.to_string())
}
