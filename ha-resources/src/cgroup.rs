//! Control groups, version 2, as far as a service needs one: to hold every process that came from it, and to end them all.
//!
//! Source: the kernel's `Documentation/admin-guide/cgroup-v2.rst`. Decides nothing; leaves limits and controllers to others.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use nix::sys::uio;
use tokio::io::Interest;

use crate::mounts;
use crate::proc::{self, Stat};

/// The file of a group that tells whether anything lives in it. The kernel marks it (`POLLPRI`) when that changes.
const EVENTS: &str = "cgroup.events";

/// Where groups of ours would be, if there is a version 2 hierarchy: a directory `ha` at its top. It lies outside the
/// agent's own group on purpose, so that nothing that ends the agent's group ends the services.
pub(crate) fn find_root() -> Option<PathBuf> {
    let mount = mounts::all().ok()?.into_iter().find(|mount| mount.fstype == "cgroup2")?;
    Some(mount.at.join("ha"))
}

/// Makes the group, or finds it, and shows that processes can be put into it.
pub(crate) fn prepare(group: &Path) -> io::Result<()> {
    fs::create_dir_all(group)?;
    fs::OpenOptions::new().write(true).open(group.join("cgroup.procs"))?;
    Ok(())
}

/// The live processes in the group and below it.
pub(crate) fn members(group: &Path) -> io::Result<Vec<Stat>> {
    let mut found = Vec::new();
    for directory in with_descendants(group)? {
        match fs::read_to_string(directory.join("cgroup.procs")) {
            Ok(pids) => {
                let pids = pids.lines().filter_map(|line| line.parse().ok());
                found.extend(pids.filter_map(Stat::of).filter(Stat::is_alive));
            }
            // Gone meanwhile, or a threaded group, whose processes its ancestor lists.
            Err(e) if is_gone(&e) || e.raw_os_error() == Some(nix::libc::EOPNOTSUPP) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(found)
}

/// Whether a process lives in the group or below it. Zombies do not count.
pub(crate) fn is_populated(group: &Path) -> io::Result<bool> {
    match fs::File::open(group.join(EVENTS)) {
        Ok(events) => says_populated(&events),
        Err(e) if is_gone(&e) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Waits until no process lives in the group and below it; not at all if none does.
pub(crate) async fn emptied(group: &Path) -> io::Result<()> {
    let events = match fs::File::open(group.join(EVENTS)) {
        Ok(events) => proc::wait_for(OwnedFd::from(events), Interest::PRIORITY)?,
        Err(e) if is_gone(&e) => return Ok(()),
        Err(e) => return Err(e),
    };
    // What changes after it was read marks the file anew, and a mark is taken away before it is read again.
    while says_populated(events.get_ref())? {
        events.ready(Interest::PRIORITY).await?.clear_ready();
    }
    Ok(())
}

/// Reads `cgroup.events` from its begin.
fn says_populated(events: impl AsFd) -> io::Result<bool> {
    let mut text = [0; 256];
    match uio::pread(events, &mut text, 0).map_err(io::Error::from) {
        Ok(length) => Ok(text[..length].split(|byte| *byte == b'\n').any(|line| line == b"populated 1")),
        Err(e) if is_gone(&e) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Ends every process in the group and below it, forks included: by `cgroup.kill` (since Linux 5.14), else one by one.
pub(crate) fn kill(group: &Path) -> io::Result<()> {
    match fs::write(group.join("cgroup.kill"), "1") {
        Ok(()) => Ok(()),
        Err(e) if is_gone(&e) => {
            for process in members(group)? {
                process.id().signal(Signal::SIGKILL)?;
            }
            Ok(())
        }
        Err(e) => Err(e),
    }
}

/// Removes the group and what is below it. Fails if any process lives in it.
pub(crate) fn remove(group: &Path) -> io::Result<()> {
    for directory in with_descendants(group)?.into_iter().rev() {
        match fs::remove_dir(&directory) {
            Err(e) if !is_gone(&e) => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

/// The group and all below it, each one before those below it.
fn with_descendants(group: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = vec![group.to_owned()];
    let mut next = 0;
    while let Some(directory) = found.get(next).cloned() {
        next += 1;
        match fs::read_dir(&directory) {
            Ok(entries) => {
                let below = entries.filter_map(Result::ok).filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
                found.extend(below.map(|entry| entry.path()));
            }
            Err(e) if is_gone(&e) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(found)
}

/// A group that was removed while it was open answers `ENODEV`.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ENODEV)
}
