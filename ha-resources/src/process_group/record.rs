//! The record of a started program: who it is, in which boot, in which control group.
//!
//! Its first line is written by the process itself, before it executes anything (see [`crate::child`]), the rest comes from here. So
//! where the record will be is enough to end what is not even started yet. Decides what a record means.

use std::io;
use std::path::{Path, PathBuf};

use ha_core::driver::KillHandle;

use crate::proc::{self, ProcessId};

/// Who stands in a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Recorded {
    pub(crate) main: ProcessId,
    pub(crate) cgroup: Option<PathBuf>,
}

impl Recorded {
    /// All that came from it.
    pub(crate) fn handles(&self) -> Vec<KillHandle> {
        let group = KillHandle::ProcessGroup { pgid: self.main.pid, started: self.main.started };
        self.cgroup.iter().cloned().map(KillHandle::Cgroup).chain([group]).collect()
    }
}

/// What stands in a record after the line that the process writes of itself: the boot, and the control group or nothing.
pub(crate) fn rest(cgroup: Option<&Path>) -> io::Result<Vec<u8>> {
    let group = cgroup.map(|group| group.display().to_string()).unwrap_or_default();
    Ok(format!("{}\n{group}\n", proc::boot_id()?).into_bytes())
}

/// Reads a record. One of an earlier boot is no record: nothing of that time runs.
pub(crate) fn read(path: &Path) -> io::Result<Option<Recorded>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let (recorded, boot) = parse(&text).ok_or_else(|| io::Error::other("it is not a record of a process"))?;
    Ok((boot == proc::boot_id()?).then_some(recorded))
}

fn parse(text: &str) -> Option<(Recorded, &str)> {
    let mut lines = text.lines();
    let (pid, started) = lines.next()?.split_once(' ')?;
    let main = ProcessId { pid: pid.parse().ok().filter(|pid| *pid > 1)?, started: started.parse().ok()? };
    let boot = lines.next()?;
    let cgroup = lines.next().filter(|group| !group.is_empty()).map(PathBuf::from);
    Some((Recorded { main, cgroup }, boot))
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in ".{0,200}") {
            let _ = parse(&text);
        }
    }
}
