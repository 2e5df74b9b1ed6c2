//! What is mounted in this mount namespace, read from `/proc/thread-self/mountinfo` (proc_pid_mountinfo(5)).
//!
//! Decides how a line is read. Leaves to others what a mount should be.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The table of this thread's mount namespace.
pub(crate) const TABLE: &str = "/proc/thread-self/mountinfo";

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// The kernel's number of the mount.
    pub(crate) id: u64,
    /// The device of the files in it: major and minor number.
    pub(crate) device: (u32, u32),
    /// What of the filesystem is seen: `/` but for bind mounts and subvolumes.
    pub(crate) root: PathBuf,
    /// Where.
    pub(crate) at: PathBuf,
    /// Options of this mount.
    pub(crate) options: Vec<String>,
    /// The filesystem's type.
    pub(crate) fstype: String,
    /// What is mounted, as it was written at mount time: a device, `server:/path`, `tmpfs`.
    pub(crate) source: PathBuf,
    /// Options of the filesystem itself, the same for all its mounts.
    pub(crate) filesystem_options: Vec<String>,
}

impl Mount {
    /// Reads one line.
    pub(crate) fn parse(line: &[u8]) -> Option<Mount> {
        let mut fields = line.split(|b| *b == b' ').filter(|field| !field.is_empty());
        let mut text = || std::str::from_utf8(fields.next()?).ok();
        let id = text()?.parse().ok()?;
        text()?;
        let (major, minor) = text()?.split_once(':')?;
        let device = (major.parse().ok()?, minor.parse().ok()?);
        let root = unescape(fields.next()?);
        let at = unescape(fields.next()?);
        let options = comma_list(fields.next()?);
        // Any number of optional fields, ended by a single dash.
        fields.by_ref().find(|field| *field == b"-")?;
        let fstype = String::from_utf8_lossy(fields.next()?).into_owned();
        let source = unescape(fields.next()?);
        let filesystem_options = comma_list(fields.next()?);
        Some(Mount { id, device, root, at, options, fstype, source, filesystem_options })
    }

    /// Whether nothing can be written through it: by its own options or because the filesystem itself is read-only now, as
    /// after an error of its device.
    pub(crate) fn is_read_only(&self) -> bool {
        let stops_writes = |option: &String| matches!(option.as_str(), "ro" | "emergency_ro" | "shutdown");
        self.options.iter().chain(&self.filesystem_options).any(stops_writes)
    }
}

fn comma_list(field: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(field).split(',').map(str::to_owned).collect()
}

/// The kernel writes blanks, tabs, line ends and backslashes as three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|digits| *first == b'\\' && digits.iter().all(|d| (b'0'..b'8').contains(d)));
        if let Some(digits) = octal {
            let value = digits.iter().fold(0u32, |value, d| value * 8 + u32::from(d - b'0'));
            bytes.push((value & 0xff) as u8);
            rest = &after[3..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

/// All mounts of this mount namespace, in the order in which they were made.
pub(crate) fn all() -> io::Result<Vec<Mount>> {
    let text = std::fs::read(TABLE)?;
    Ok(text.split(|b| *b == b'\n').filter_map(Mount::parse).collect())
}

/// The mount that is seen at exactly this place: the last one, if several lie on one another.
pub(crate) fn at(place: &Path) -> io::Result<Option<Mount>> {
    Ok(all()?.into_iter().rfind(|mount| mount.at == place))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_line_with_optional_fields_and_escapes_is_read() {
        let line = br"36 35 98:0 /mnt1 /mnt\0402 rw,noatime master:1 shared:7 - ext3 /dev/root\134x rw,errors=continue";
        let mount = Mount::parse(line).unwrap();
        assert_eq!((mount.id, mount.device, mount.fstype.as_str()), (36, (98, 0), "ext3"));
        assert_eq!(mount.root, Path::new("/mnt1"));
        assert_eq!(mount.at, Path::new("/mnt 2"));
        assert_eq!(mount.source, Path::new(r"/dev/root\x"));
        assert!(!mount.is_read_only());
    }

    #[test]
    fn a_filesystem_that_went_read_only_after_an_error_is_seen() {
        let line = b"36 35 7:0 / /srv rw,relatime - ext4 /dev/loop0 ro,errors=remount-ro";
        assert!(Mount::parse(line).unwrap().is_read_only());
        let line = b"36 35 7:0 / /srv rw,relatime - ext4 /dev/loop0 rw,emergency_ro";
        assert!(Mount::parse(line).unwrap().is_read_only());
    }

    #[test]
    fn the_place_of_proc_is_found() {
        assert_eq!(at(Path::new("/proc")).unwrap().unwrap().fstype, "proc");
        assert_eq!(at(Path::new("/proc/self")).unwrap(), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Mount::parse(&line);
        }
    }
}
