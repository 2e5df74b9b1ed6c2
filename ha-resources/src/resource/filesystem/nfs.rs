//! NFS: files of another machine, which no device of this one holds.
//!
//! Decides which source a mount is of, what is wrong with one as it is written, what is said of a server that does not answer, and when the
//! kernel has let go of a mount. Leaves it to the server who may write.

use std::io;
use std::path::Path;

use ha_core::driver::Failed;
use tokio::time::Instant;

use super::users::{self, Target};
use super::{Evict, Filesystem, Fsck, cannot_see};
use crate::deadline::by;
use crate::mounts::{self, Mount};

/// The NFS filesystems that the kernel has, mounted or not (`fs/nfs/client.c`, `nfs_volume_list_show`).
const VOLUMES: &str = "/proc/fs/nfsfs/volumes";

/// Whether mount(8) takes this type for NFS.
pub(crate) fn is_nfs(fstype: &str) -> bool {
    matches!(fstype, "nfs" | "nfs4")
}

/// What is wrong with an NFS filesystem as it is written, and in which field.
pub(crate) fn mistake(device: &str, options: &[String], fsck: Option<Fsck>) -> Option<(&'static str, &'static str)> {
    let background = options.iter().any(|list| list.split(',').any(|option| option == "bg"));
    if server(device).is_none() {
        Some(("device", "an NFS filesystem is named by its server and the place there: \"server:/place\""))
    } else if background {
        Some(("options", "with `bg` it would be mounted at some later time, unseen: leave it away, and set `timeouts`"))
    } else if fsck.is_some_and(|fsck| fsck != Fsck::Never) {
        Some(("fsck", "it is its server that checks it: leave `fsck` away"))
    } else {
        None
    }
}

/// Server and place of `server:/place`. The address of an IPv6 server has colons, and stands in brackets.
fn server(source: &str) -> Option<(&str, &str)> {
    let at = source.find(":/")?;
    (at > 0).then(|| (&source[..at], &source[at + 1..]))
}

/// Whether both name the same place: the kernel leaves away slashes that mean nothing.
pub(super) fn is_same(source: &Path, other: &str) -> bool {
    let Some((source, other)) = source.to_str().and_then(server).zip(server(other)) else { return false };
    source.0.eq_ignore_ascii_case(other.0) && Path::new(source.1).components().eq(Path::new(other.1).components())
}

/// The device numbers in [`VOLUMES`]: `v4 0a000005  801 0:29         0:0      no`, below a line of headings.
fn volumes(text: &str) -> impl Iterator<Item = (u32, u32)> {
    text.lines().filter_map(|line| {
        let (major, minor) = line.split_ascii_whitespace().nth(3)?.split_once(':')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    })
}

/// Why the kernel still has the filesystem of a mount that is gone, if it has.
fn held(gone: &Mount) -> io::Result<Option<String>> {
    let text = match std::fs::read_to_string(VOLUMES) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if !volumes(&text).any(|device| device == gone.device) {
        return Ok(None);
    }
    // In another mount namespace a copy of the mount stands at the same place.
    let copies: Vec<String> = users::elsewhere(gone.device)?
        .into_iter()
        .filter(|(_, at)| *at == gone.at)
        .map(|(process, at)| format!("{process} has it at {}", at.display()))
        .collect();
    // Mounts of one place, and of places below it, share one filesystem.
    let shared = mounts::all()?.iter().any(|other| other.device == gone.device);
    Ok(match (copies.as_slice(), shared) {
        ([], true) => None,
        ([], false) => Some("none seen".to_owned()),
        (copies, _) => Some(copies.join(", ")),
    })
}

impl Filesystem {
    /// Of a mount that did not come about: that it is the server that did not answer, if the time is over.
    pub(super) fn unanswered(&self, failed: Failed, deadline: Instant) -> Failed {
        if !is_nfs(&self.spec.fstype) || Instant::now() < deadline {
            return failed;
        }
        let server = server(&self.spec.device).map_or(self.spec.device.as_str(), |(server, _)| server);
        Failed(format!(
            "the NFS server {server} does not answer: {}; check that it runs, and that the network and firewalls let \
             this node reach it",
            failed.0
        ))
    }

    /// Proves that the kernel has nothing of it any more that it could still send to the server. One that somebody unmounted lazily it has, and
    /// waits for the server without end.
    pub(super) async fn nfs_released(&self, evict: Evict, deadline: Instant) -> Result<(), Failed> {
        let Some(gone) = self.seen() else { return Ok(()) };
        let mount = gone.clone();
        let others = match by(deadline, move || held(&gone)).await {
            Some(Ok(None)) => return Ok(()),
            Some(Ok(Some(others))) => others,
            Some(Err(error)) => return Err(cannot_see(&error)),
            None => return Err(self.no_answer()),
        };
        let target = Target { mounts: self.lingering_mount().map_err(|e| cannot_see(&e))?, device: None };
        let in_use = self.evict(target, evict, deadline).await?;
        Err(Failed(format!(
            "{} is not mounted at {} any more, but the kernel still holds it: it was unmounted lazily, or is mounted in another \
             mount namespace; used by: {in_use}; other namespaces: {others}",
            self.spec.device,
            mount.at.display()
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_mount_is_known_by_server_and_place_however_they_are_written() {
        for (shown, written, same) in [
            ("10.0.0.5:/", "10.0.0.5:/", true),
            ("files:/srv/a", "Files:/srv/a/", true),
            ("files:/srv/a", "files://srv//a", true),
            ("[fe80::5]:/a", "[fe80::5]:/a", true),
            ("files:/srv/a", "files:/srv/A", false),
            ("files:/srv/a", "other:/srv/a", false),
            ("files:/srv", "files:/srv/a", false),
            ("/dev/sda", "/dev/sda", false),
        ] {
            assert_eq!(is_same(Path::new(shown), written), same, "{shown} {written}");
        }
    }

    #[test]
    fn what_cannot_be_an_nfs_filesystem_is_told_with_its_field() {
        let options = |text: &str| vec![text.to_owned()];
        assert_eq!(mistake("files:/srv", &options("hard,vers=4.2"), None), None);
        assert_eq!(mistake("files:/srv", &[], Some(Fsck::Never)), None);
        assert_eq!(mistake("/dev/sda1", &[], None).unwrap().0, "device");
        assert_eq!(mistake(":/srv", &[], None).unwrap().0, "device");
        assert_eq!(mistake("files:/srv", &options("hard,bg"), None).unwrap().0, "options");
        assert_eq!(mistake("files:/srv", &[], Some(Fsck::Force)).unwrap().0, "fsck");
    }

    #[test]
    fn the_filesystems_that_the_kernel_has_are_read() {
        let text = "NV SERVER   PORT DEV          FSID                              FSC\n\
                    v4 0a4d0064  801 0:29         0:0                               no \n\
                    v3 fe800000000000000000000000000005  801 0:31 f3bd:1 no\n";
        assert_eq!(volumes(text).collect::<Vec<_>>(), [(0, 29), (0, 31)]);
    }

    proptest! {
        #[test]
        fn any_table_is_read_without_panic(text in "[0-9a-z: \n]{0,200}") {
            let _ = volumes(&text).count();
            let _ = is_same(Path::new(&text), &text);
        }
    }
}
