//! Who keeps a filesystem from being unmounted: processes that work in it, run from it, have files of it open or mapped.
//!
//! A path belongs to the filesystem by the mount or the device that the kernel names for it (statx(2)), never by how it is
//! written: so a stranger is not taken for a user, and one in another mount namespace or with a deleted file is not missed.
//! Decides nothing else.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::libc;

use crate::mounts::Mount;
use crate::proc::Stat;

/// What is being used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Target {
    /// The kernel's numbers of the mounts.
    pub(super) mounts: BTreeSet<u64>,
    /// Major and minor number of the device; none where other mounts that are none of ours share it.
    pub(super) device: Option<(u32, u32)>,
}

impl Target {
    fn holds(&self, found: Option<Place>) -> bool {
        found.is_some_and(|place| self.mounts.contains(&place.mount) || self.device == Some(place.device))
    }
}

/// Where a path leads.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// The kernel's number of the mount; 0 where the kernel does not tell.
    pub(super) mount: u64,
    device: (u32, u32),
}

/// The live processes that use it, this one excepted.
pub(super) fn users(target: &Target) -> io::Result<Vec<Stat>> {
    let me = i32::try_from(std::process::id()).unwrap_or_default();
    let uses = |process: &Stat| process.is_alive() && process.pid != me && uses(process.pid, target);
    Ok(Stat::all()?.into_iter().filter(uses).collect())
}

fn uses(pid: i32, target: &Target) -> bool {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let links = ["cwd", "root", "exe"].map(|name| process.join(name));
    let files = std::fs::read_dir(process.join("fd")).into_iter().flatten();
    let mut paths = links.into_iter().chain(files.filter_map(|entry| Some(entry.ok()?.path())));
    paths.any(|path| target.holds(place_of(&path))) || maps(&process, target)
}

/// A mapped file keeps a filesystem busy after its descriptor was closed.
fn maps(process: &Path, target: &Target) -> bool {
    let Some(used) = target.device else {
        let files = std::fs::read_dir(process.join("map_files")).into_iter().flatten().flatten();
        return files.into_iter().any(|file| target.holds(place_of(&file.path())));
    };
    let Ok(text) = std::fs::read(process.join("maps")) else { return false };
    let text = String::from_utf8_lossy(&text);
    text.lines().any(|line| mapped_device(line).is_some_and(|device| used == device))
}

/// The device of one line of `/proc/PID/maps`, in hexadecimal there; 0:0 stands for no file.
fn mapped_device(line: &str) -> Option<(u32, u32)> {
    let (major, minor) = line.split_ascii_whitespace().nth(3)?.split_once(':')?;
    let device = (u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?);
    (device != (0, 0)).then_some(device)
}

/// Asks without going to the storage (`AT_STATX_DONT_SYNC`), which may not answer any more.
pub(super) fn place_of(path: &Path) -> Option<Place> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    let mut found = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the path is a live C string, and the buffer is one `statx`, which all zeroes are valid for.
    let found = unsafe {
        let result = libc::statx(
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::AT_STATX_DONT_SYNC | libc::AT_NO_AUTOMOUNT,
            libc::STATX_MNT_ID,
            found.as_mut_ptr(),
        );
        if result != 0 {
            return None;
        }
        found.assume_init()
    };
    Some(Place { mount: found.stx_mnt_id, device: (found.stx_dev_major, found.stx_dev_minor) })
}

/// A process in each other mount namespace in which the device is mounted, and where.
pub(super) fn elsewhere(device: (u32, u32)) -> io::Result<Vec<(Stat, PathBuf)>> {
    let own = namespace("thread-self");
    let others = tables()?.into_iter().filter(|(process, _)| namespace(&process.pid.to_string()) != own);
    let found = others.filter_map(|(process, mounts)| {
        let mount = mounts.into_iter().find(|mount| mount.device == device)?;
        Some((process, mount.at))
    });
    Ok(found.collect())
}

/// Whether a mount of this number is in the table of any mount namespace. One that was unmounted lazily is in none.
pub(super) fn is_mounted_anywhere(id: u64) -> io::Result<bool> {
    // A thread may be in a namespace without any process.
    let own = crate::mounts::all()?.iter().any(|mount| mount.id == id);
    Ok(own || tables()?.iter().any(|(_, mounts)| mounts.iter().any(|mount| mount.id == id)))
}

fn namespace(of: &str) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/{of}/ns/mnt")).ok()
}

/// What is mounted in each mount namespace, and a process in it.
fn tables() -> io::Result<Vec<(Stat, Vec<Mount>)>> {
    let mounts = |of: &str| -> Vec<Mount> {
        let text = std::fs::read(format!("/proc/{of}/mountinfo")).unwrap_or_default();
        text.split(|b| *b == b'\n').filter_map(Mount::parse).collect()
    };
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for process in Stat::all()?.into_iter().filter(Stat::is_alive) {
        let pid = process.pid.to_string();
        if namespace(&pid).is_some_and(|its| seen.insert(its)) {
            found.push((process, mounts(&pid)));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_device_of_a_mapping_is_read() {
        let line = "7f3c1a000000-7f3c1a021000 r-xp 00001000 fd:0a 1310771  /usr/lib/libc.so.6";
        assert_eq!(mapped_device(line), Some((0xfd, 0x0a)));
        assert_eq!(mapped_device("7ffd0000-7ffd1000 rw-p 00000000 00:00 0 [stack]"), None);
    }

    proptest! {
        #[test]
        fn any_line_is_read_without_panic(line in ".{0,120}") {
            let _ = mapped_device(&line);
        }
    }
}
