//! Block devices that the kernel makes of others: volumes of LVM, arrays of md, exports of NBD servers.
//!
//! Decides how one is found in sysfs(5), who keeps it, and that it answers. All but the last asks the kernel only, never the storage.

use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ha_core::driver::{Failed, Verdict};
use nix::libc;
use nix::sys::stat::{major, minor};
use tokio::time::Instant;

use crate::deadline::{Gate, by};
use crate::mounts;

/// All block devices that are no partitions.
pub(crate) const ALL: &str = "/sys/block";

/// What is read to see whether a device answers: a page, which every device's blocks divide.
const LOOK: usize = 4096;

/// A device's major and minor number.
pub(crate) type Number = (u32, u32);

/// The number of a block device; an error for anything else.
pub(crate) fn number(path: &Path) -> io::Result<Number> {
    let found = std::fs::metadata(path)?;
    if !found.file_type().is_block_device() {
        return Err(io::Error::other("it is not a block device"));
    }
    let number = |value: u64| u32::try_from(value).map_err(io::Error::other);
    Ok((number(major(found.rdev()))?, number(minor(found.rdev()))?))
}

/// `8:16`, as sysfs writes it.
pub(crate) fn parse_number(text: &str) -> Option<Number> {
    let (major, minor) = text.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The number of a device's directory in sysfs.
pub(crate) fn number_of(directory: &Path) -> Option<Number> {
    parse_number(&attribute(directory, "dev")?)
}

/// The numbers of a device and of its partitions.
pub(crate) fn numbers_of(directory: &Path) -> Vec<Number> {
    let inside = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let parts = inside.filter(|path| path.join("partition").exists());
    parts.chain([directory.to_owned()]).filter_map(|path| number_of(&path)).collect()
}

/// An attribute in sysfs, without its line's end.
pub(crate) fn attribute(directory: &Path, name: &str) -> Option<String> {
    Some(std::fs::read_to_string(directory.join(name)).ok()?.trim_end().to_owned())
}

/// The names of the devices that are built on one.
pub(crate) fn holders(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory.join("holders")).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Who keeps a device from being taken away, as far as the kernel tells, as the end of a sentence.
pub(crate) fn kept_by(directory: &Path) -> String {
    let mut keepers: Vec<String> =
        holders(directory).into_iter().map(|name| format!("{name} is built on it")).collect();
    let numbers = numbers_of(directory);
    let mounts = mounts::all().unwrap_or_default();
    keepers.extend(
        mounts
            .iter()
            .filter(|mount| numbers.contains(&mount.device))
            .map(|mount| format!("it is mounted at {}", mount.at.display())),
    );
    if keepers.is_empty() { String::new() } else { format!("; {}", keepers.join(", ")) }
}

/// Whether a device answers when its first block is read from the device itself. `Gate` keeps a look that hangs from being begun again.
pub(crate) async fn answers(device: PathBuf, gate: &Gate, limit: Duration) -> Verdict {
    let shown = device.display().to_string();
    let Some(inside) = gate.enter() else {
        return Verdict::Unknown(format!("{shown} has still not answered an earlier look"));
    };
    let looked = by(Instant::now() + limit, move || {
        let _inside = inside;
        read(&device)
    });
    match looked.await {
        Some(Ok(())) => Verdict::Good,
        Some(Err(e)) => Verdict::Bad(format!("{shown} answers: {e}")),
        None => Verdict::Unknown(format!("{shown} does not answer")),
    }
}

/// Reads the first block from the device itself. May hang.
pub(crate) fn read(device: &Path) -> io::Result<()> {
    let mut file = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(device)?;
    let mut memory = vec![0_u8; 2 * LOOK];
    let start = memory.as_ptr().align_offset(LOOK);
    let page =
        memory.get_mut(start..start.saturating_add(LOOK)).ok_or_else(|| io::Error::other("no aligned memory"))?;
    // A small device may end before; one that was taken away has nothing left.
    match file.read(page)? {
        0 => Err(io::Error::other("it has no data any more")),
        _ => Ok(()),
    }
}

/// Waits, within a time, until a device's node is there: udev(7) makes it.
pub(crate) async fn appears(device: &Path, deadline: Instant) -> Result<(), Failed> {
    loop {
        if number(device).is_ok() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(Failed(format!("{} has not appeared: does udev run?", device.display())));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_device_answers_and_nothing_does_not() {
        let gate = Gate::default();
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 20).unwrap();
        let limit = Duration::from_secs(30);
        assert!(matches!(answers("/dev/no-such-device".into(), &gate, limit).await, Verdict::Bad(_)));
        let inside = gate.enter();
        assert!(matches!(answers(file.path().into(), &gate, limit).await, Verdict::Unknown(_)));
        drop(inside);
        // Not every filesystem can be read directly; every device can.
        if let Verdict::Bad(why) = answers(file.path().into(), &gate, limit).await {
            assert!(why.contains("Invalid argument"), "{why}");
        }
        assert_eq!(parse_number("8:16\n"), Some((8, 16)));
        assert_eq!(parse_number("8"), None);
    }

    #[test]
    fn a_device_is_used_where_a_partition_of_it_is() {
        let disk = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = disk.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        for (path, text) in
            [("dev", "43:0\n"), ("nbd0p1/dev", "43:1\n"), ("nbd0p1/partition", "1\n"), ("bdi/dev", "9:9\n")]
        {
            write(path, text);
        }
        assert_eq!(numbers_of(disk.path()), [(43, 1), (43, 0)]);
    }
}
