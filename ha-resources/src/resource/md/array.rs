//! Arrays of md as the kernel shows them in sysfs(5) (Documentation/admin-guide/md.rst).
//!
//! Decides how its files are read. Asks neither mdadm nor the storage, so it answers whatever state those are in.

use std::io;
use std::path::{Path, PathBuf};

use crate::resource::block::{self, Number};

/// An array that was assembled, whether it runs or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Array {
    /// In sysfs.
    pub(super) directory: PathBuf,
    /// What it does.
    pub(super) state: State,
    /// So many members it has when it is whole.
    pub(super) whole: u64,
    /// So many of them are missing, have failed, or are being filled again.
    pub(super) degraded: u64,
    /// Those that it has.
    pub(super) members: Vec<Member>,
}

/// A device in an array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) number: Option<Number>,
    /// Whether what is on it is as it should be.
    pub(super) in_sync: bool,
}

/// What an array does (`array_state`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It is read and written.
    Running,
    /// It is read only.
    ReadOnly,
    /// Everything that is asked of it waits.
    Suspended,
    /// It has members, and was not started, or cannot be used any more; the kernel's word for that.
    Useless(String),
}

impl Array {
    /// Where it can be opened, whatever udev does.
    pub(super) fn node(&self) -> PathBuf {
        Path::new("/dev").join(self.directory.file_name().unwrap_or_default())
    }

    pub(super) fn has(&self, number: Number) -> bool {
        self.members.iter().any(|member| member.number == Some(number))
    }

    pub(super) fn has_in_sync(&self, number: Number) -> bool {
        self.members.iter().any(|member| member.in_sync && member.number == Some(number))
    }

    /// The array in a directory of sysfs; `None` if there is none now.
    pub(super) fn in_directory(directory: &Path) -> Option<Array> {
        let md = directory.join("md");
        let state = match block::attribute(&md, "array_state")?.as_str() {
            "clear" => return None,
            // Ready to be written at the first write, as far as anybody can see.
            "clean" | "active" | "write-pending" | "active-idle" | "read-auto" => State::Running,
            "readonly" => State::ReadOnly,
            "suspended" => State::Suspended,
            other => State::Useless(other.to_owned()),
        };
        let count = |name| block::attribute(&md, name).and_then(|text| text.parse().ok()).unwrap_or(0);
        let entries = std::fs::read_dir(&md).into_iter().flatten().flatten().map(|entry| entry.path());
        let members =
            entries.filter(|path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"dev-")));
        let members = members.map(|path| Member {
            number: block::number_of(&path.join("block")),
            in_sync: block::attribute(&path, "state")
                .is_some_and(|state| state.split(',').any(|flag| flag == "in_sync")),
        });
        let members = members.collect();
        Some(Array {
            directory: directory.to_owned(),
            state,
            whole: count("raid_disks"),
            degraded: count("degraded"),
            members,
        })
    }
}

/// All there are.
pub(super) fn all() -> io::Result<Vec<Array>> {
    all_in(Path::new(block::ALL))
}

fn all_in(place: &Path) -> io::Result<Vec<Array>> {
    let directories = std::fs::read_dir(place)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    let mut found: Vec<Array> = directories.iter().filter_map(|directory| Array::in_directory(directory)).collect();
    found.sort_by(|a, b| a.directory.cmp(&b.directory));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_is_read_with_its_members() {
        let place = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = place.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, format!("{text}\n")).unwrap();
        };
        for (path, text) in [
            ("md127/md/array_state", "active-idle"),
            ("md127/md/raid_disks", "2"),
            ("md127/md/degraded", "1"),
            ("md127/md/dev-sda/state", "write_mostly,in_sync"),
            ("md127/md/dev-sda/block/dev", "8:0"),
            ("md127/md/dev-sdb/state", "faulty"),
            ("md127/md/dev-sdb/block/dev", "8:16"),
            ("md0/md/array_state", "clear"),
            ("md1/md/array_state", "inactive"),
            ("sda/size", "1"),
        ] {
            write(path, text);
        }
        let found = all_in(place.path()).unwrap();
        let [inactive, array] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(inactive.state, State::Useless("inactive".to_owned()));
        assert_eq!((&array.state, array.whole, array.degraded), (&State::Running, 2, 1));
        assert!(array.has((8, 16)) && !array.has_in_sync((8, 16)) && array.has_in_sync((8, 0)) && !array.has((8, 32)));
        assert_eq!(array.node(), Path::new("/dev/md127"));
    }
}
