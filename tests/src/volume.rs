//! A filesystem on a disk of its own, as tests of whole systems mount it. Decides nothing about who may.

use std::fs::File;
use std::path::Path;

use crate::command::run;
use crate::trouble::{Result, While as _};

/// A filesystem on a loop device, as long as this lasts.
pub struct Volume(String);

impl Volume {
    /// Makes one with ext4, of `bytes`, in a new file of `dir`.
    pub fn new(dir: &Path, name: &str, bytes: u64) -> Result<Volume> {
        Volume::formatted(dir, name, bytes, "ext4")
    }

    /// Makes one with another filesystem.
    pub fn formatted(dir: &Path, name: &str, bytes: u64, kind: &str) -> Result<Volume> {
        let file = dir.join(name);
        File::create(&file).and_then(|file| file.set_len(bytes)).to(format!("create {}", file.display()))?;
        let file = file.to_string_lossy();
        run(&format!("mkfs.{kind}"), &["-q", &file])?;
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
