//! A filesystem on a disk of its own, as tests of whole systems mount it. Decides nothing about who may.

use std::fs::File;
use std::path::Path;

use crate::command::run;
use crate::trouble::{Result, While as _};

/// An ext4 filesystem on a loop device, as long as this lasts.
pub struct Volume(String);

impl Volume {
    /// Makes one of `bytes`, in a new file of `dir`.
    pub fn new(dir: &Path, name: &str, bytes: u64) -> Result<Volume> {
        let file = dir.join(name);
        File::create(&file).and_then(|file| file.set_len(bytes)).to(format!("create {}", file.display()))?;
        let file = file.to_string_lossy();
        run("mkfs.ext4", &["-q", &file])?;
        Ok(Volume(run("losetup", &["--find", "--show", &file])?.trim().to_owned()))
    }

    /// The device.
    pub fn device(&self) -> &str {
        &self.0
    }

    /// Does something while it is mounted at a place of the host.
    pub fn mounted(&self, at: &Path, work: impl FnOnce() -> Result<()>) -> Result<()> {
        let at = at.to_string_lossy();
        run("mount", &[&self.0, &at])?;
        let done = work();
        run("umount", &[&at])?;
        done
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = run("losetup", &["--detach", &self.0]);
    }
}
