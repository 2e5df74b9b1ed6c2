//! What an nbd device is attached to, as the kernel shows it in sysfs(5), and who uses it.
//!
//! Decides how a device of ours is known: by the text that was given to the kernel when it was attached (`backend`), which begins with whose it is.
//! Asks the kernel only, never the server.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use ha_core::driver::Context;
use nix::sys::stat::{major, minor};

use crate::proc::Stat;
use crate::resource::block::{self, Number};

/// What an identity of ours begins with.
const OURS: &str = "ha";

/// Whose an attachment is, and what it is: `ha:HIERARCHY:RESOURCE:TARGET`. A colon is in no name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// Up to the last colon.
    owner: String,
    target: String,
}

impl Identity {
    /// Of an operation's resource.
    pub(super) fn of(context: &Context, target: String) -> Identity {
        Identity { owner: format!("{OURS}:{}:{}:", context.hierarchy, context.resource), target }
    }

    /// As the kernel keeps it.
    pub(super) fn text(&self) -> String {
        format!("{}{}", self.owner, self.target)
    }
}

/// What is to be seen of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// It is attached to nothing.
    Free,
    /// It is as it should be.
    Ours,
    /// It is ours, and attached to something else, which is described.
    Outdated(String),
    /// Somebody else's, who is described.
    Strangers(String),
}

/// A device in sysfs.
#[derive(Clone, Debug)]
pub(super) struct Place(PathBuf);

impl Place {
    /// Of the device with this number in its name.
    pub(super) fn of(index: u32) -> Place {
        Place(Path::new(block::ALL).join(format!("nbd{index}")))
    }

    pub(super) fn directory(&self) -> &Path {
        &self.0
    }

    /// The text that it was attached with; `None` if it is not attached, and empty if nothing was said.
    pub(super) fn backend(&self) -> Option<String> {
        // Asked first, for it is there first and gone last.
        block::attribute(&self.0, "pid")?;
        Some(block::attribute(&self.0, "backend").unwrap_or_default())
    }

    /// For who knows who he is.
    pub(super) fn look(&self, identity: &Identity) -> Seen {
        let Some(backend) = self.backend() else { return Seen::Free };
        match backend.strip_prefix(&identity.owner) {
            Some(target) if target == identity.target => Seen::Ours,
            Some(target) => Seen::Outdated(target.to_owned()),
            None => Seen::Strangers(self.describe(&backend)),
        }
    }

    /// For who knows only what he wants: whether the device is free or attached to that by some resource, and if not who has it.
    pub(super) fn taken(&self, target: &str) -> Option<String> {
        let backend = self.backend()?;
        let ours = parts(&backend).is_some_and(|(_, _, attached)| attached == target);
        (!ours).then(|| self.describe(&backend))
    }

    fn describe(&self, backend: &str) -> String {
        if let Some((hierarchy, resource, target)) = parts(backend) {
            return format!("the resource {resource} of the hierarchy {hierarchy} has it attached to {target}");
        }
        let by = match block::attribute(&self.0, "pid").and_then(|pid| pid.parse().ok()) {
            Some(pid) => match Stat::of(pid) {
                Some(process) => format!("process {process} has it attached"),
                None => format!("somebody has it attached, by a process {pid} that has ended"),
            },
            None => "somebody has it attached".to_owned(),
        };
        if backend.is_empty() { by } else { format!("{by}, as {backend:?}") }
    }

    /// The live processes that have it open, or a partition of it, this one excepted. Mounts are not among them.
    pub(super) fn openers(&self) -> io::Result<Vec<Stat>> {
        let numbers = block::numbers_of(&self.0);
        let me = i32::try_from(std::process::id()).unwrap_or_default();
        let opens = |process: &Stat| process.is_alive() && process.pid != me && opens(process.pid, &numbers);
        Ok(Stat::all()?.into_iter().filter(opens).collect())
    }
}

fn parts(backend: &str) -> Option<(&str, &str, &str)> {
    let (hierarchy, rest) = backend.strip_prefix(OURS)?.strip_prefix(':')?.split_once(':')?;
    let (resource, target) = rest.split_once(':')?;
    Some((hierarchy, resource, target))
}

fn opens(pid: i32, numbers: &[Number]) -> bool {
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten().map(|entry| entry.path());
    // Of files elsewhere nothing is asked: they may be on storage that hangs.
    let mut devices = files.filter(|file| std::fs::read_link(file).is_ok_and(|path| path.starts_with("/dev")));
    devices.any(|file| {
        std::fs::metadata(&file).is_ok_and(|found| {
            let number = (u32::try_from(major(found.rdev())), u32::try_from(minor(found.rdev())));
            found.file_type().is_block_device()
                && matches!(number, (Ok(major), Ok(minor)) if numbers.contains(&(major, minor)))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::context;

    fn place(files: &[(&str, &str)]) -> (tempfile::TempDir, Place) {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(directory.path().join(name), format!("{text}\n")).unwrap();
        }
        let place = Place(directory.path().to_owned());
        (directory, place)
    }

    #[test]
    fn a_device_of_ours_is_told_from_a_strangers() {
        let ours = Identity::of(&context("disk"), "shop of 10.0.0.9:10809".to_owned());
        assert_eq!(ours.text(), "ha:web:disk:shop of 10.0.0.9:10809");
        let look = |files: &[(&str, &str)]| {
            let (_kept, place) = place(files);
            (place.look(&ours), place.taken("shop of 10.0.0.9:10809"))
        };
        assert_eq!(look(&[]), (Seen::Free, None));
        // What is left for a moment of what was detached.
        assert_eq!(look(&[("backend", "x")]), (Seen::Free, None));
        assert_eq!(look(&[("pid", "1"), ("backend", &ours.text())]), (Seen::Ours, None));
        let (seen, taken) = look(&[("pid", "1"), ("backend", "ha:web:disk:shop of 10.0.0.8:10809")]);
        assert_eq!(seen, Seen::Outdated("shop of 10.0.0.8:10809".to_owned()));
        assert!(taken.unwrap().contains("resource disk of the hierarchy web has it attached to shop of 10.0.0.8"));
        let (seen, taken) = look(&[("pid", "1"), ("backend", "ha:web:disk2:shop of 10.0.0.9:10809")]);
        assert!(matches!(seen, Seen::Strangers(who) if who.contains("the resource disk2 of the hierarchy web")));
        assert_eq!(taken, None);
        for (files, expected) in [
            ([("pid", "1"), ("size", "0")], "(pid 1, state"),
            ([("pid", "999999999"), ("size", "0")], "by a process 999999999 that has ended"),
            ([("pid", "what"), ("backend", "rook-7")], "somebody has it attached, as \"rook-7\""),
        ] {
            let (seen, taken) = look(&files);
            assert!(matches!(&seen, Seen::Strangers(who) if who.contains(expected)), "{seen:?}");
            assert!(taken.unwrap().contains(expected));
        }
    }
}
