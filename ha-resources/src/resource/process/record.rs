//! The record of a started program: who it is, in which boot, in which control group.
//!
//! Its first line is written by the process itself (see [`crate::child`]), the rest comes from here. Decides what a record means.

use std::io;
use std::path::{Path, PathBuf};

use super::Tracked;
use crate::proc::{self, ProcessId};

/// What stands in a record after the line that the process writes of itself: the boot, and the control group or nothing.
pub(super) fn record_of(cgroup: Option<&Path>) -> io::Result<Vec<u8>> {
    let group = cgroup.map(|group| group.display().to_string()).unwrap_or_default();
    Ok(format!("{}\n{group}\n", proc::boot_id()?).into_bytes())
}

/// Reads a record. One of an earlier boot is no record: nothing of that time runs.
pub(super) fn read_record(path: &Path) -> io::Result<Option<Tracked>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let (main, boot, cgroup) =
        parse_record(&text).ok_or_else(|| io::Error::other("it is not a record of a process"))?;
    Ok((boot == proc::boot_id()?).then_some(Tracked { main, cgroup, exit: None }))
}

pub(super) fn parse_record(text: &str) -> Option<(ProcessId, &str, Option<PathBuf>)> {
    let mut lines = text.lines();
    let (pid, started) = lines.next()?.split_once(' ')?;
    let main = ProcessId { pid: pid.parse().ok().filter(|pid| *pid > 1)?, started: started.parse().ok()? };
    let boot = lines.next()?;
    let cgroup = lines.next().filter(|group| !group.is_empty()).map(PathBuf::from);
    Some((main, boot, cgroup))
}
