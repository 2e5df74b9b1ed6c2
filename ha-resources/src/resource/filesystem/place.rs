//! The place at which a filesystem is to be mounted.
//!
//! Decides what is no good place, before anything is touched: a symbolic link, what is no directory, one in which other files would be
//! hidden. Leaves to the filesystem what is mounted there.

use std::io;
use std::path::{Path, PathBuf};

use ha_core::driver::Failed;

/// So many of the names in a directory are told.
const NAMES_TOLD: usize = 3;

/// Whether the mount point may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountPoint {
    /// It must be there.
    Existing,
    /// It is made when missing, and left in place afterwards.
    Created,
}

/// What is done with a mount point in which there is something already, which nobody would see while the filesystem is mounted over it.
/// Mostly that was written there by mistake while the filesystem was not mounted, and is missed afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotEmpty {
    /// It is refused.
    Refuse,
    /// It is hidden.
    Allow,
}

/// What is there of a good place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum There {
    /// The directory.
    All,
    /// Some directory above it, or none; the rest may be made.
    Some,
}

/// Looks at a place at which nothing is mounted, and changes nothing. May hang where it is on storage that does.
pub(super) fn look(at: &Path, mount_point: MountPoint, not_empty: NotEmpty) -> Result<There, Failed> {
    let shown = at.display();
    let cannot = |e: io::Error| Failed(format!("cannot look at the mount point {shown}: {e}"));
    let (above, real) = nearest(at).map_err(cannot)?;
    if real != above {
        let place = real.join(at.strip_prefix(&above).unwrap_or(Path::new("")));
        return Err(Failed(format!(
            "the mount point {shown} is a symbolic link, or below one: name {}, where it leads, as the place",
            place.display()
        )));
    }
    if above != at {
        return match mount_point {
            MountPoint::Created => Ok(There::Some),
            MountPoint::Existing => Err(Failed(format!(
                "there is no mount point {shown}: create it, or let it be made: `mount_point: Created`"
            ))),
        };
    }
    if !std::fs::metadata(at).map_err(cannot)?.is_dir() {
        return Err(Failed(format!("the mount point {shown} is not a directory: choose another place")));
    }
    if not_empty == NotEmpty::Refuse {
        let entries = std::fs::read_dir(at).map_err(cannot)?.take(NAMES_TOLD + 1);
        let names: Vec<String> = entries
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<io::Result<_>>()
            .map_err(cannot)?;
        if !names.is_empty() {
            return Err(Failed(format!(
                "the mount point {shown} is not empty, and what is in it would be hidden: {}; move it away, or say \
                 `not_empty: Allow`",
                told(&names)
            )));
        }
    }
    Ok(There::All)
}

/// As [`look`], and makes what is missing and may be made.
pub(super) fn prepare(at: &Path, mount_point: MountPoint, not_empty: NotEmpty) -> Result<(), Failed> {
    match look(at, mount_point, not_empty)? {
        There::All => Ok(()),
        There::Some => std::fs::create_dir_all(at)
            .map_err(|e| Failed(format!("cannot make the mount point {}: {e}", at.display()))),
    }
}

/// The last of the place and what is above it that is there at all, and where it really is.
fn nearest(at: &Path) -> io::Result<(PathBuf, PathBuf)> {
    for above in at.ancestors() {
        // A link that leads nowhere is there too.
        match std::fs::symlink_metadata(above) {
            Ok(_) => return Ok((above.to_owned(), std::fs::canonicalize(above)?)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Err(io::Error::from(io::ErrorKind::NotFound))
}

fn told(names: &[String]) -> String {
    let shown = names.iter().take(NAMES_TOLD).map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
    if names.len() > NAMES_TOLD { format!("{shown} and more") } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_place_is_looked_at_before_anything_is_touched() {
        let directory = tempfile::tempdir().unwrap();
        let root = std::fs::canonicalize(directory.path()).unwrap();
        let (real, link, file, full) = (root.join("real"), root.join("link"), root.join("file"), root.join("full"));
        std::fs::create_dir(&real).unwrap();
        symlink(&real, &link).unwrap();
        symlink(root.join("nowhere"), root.join("dangling")).unwrap();
        std::fs::write(&file, "x").unwrap();
        std::fs::create_dir(&full).unwrap();
        for name in ["a", "b", "c", "d"] {
            std::fs::write(full.join(name), "x").unwrap();
        }
        let refused = |at: &Path, mount_point| look(at, mount_point, NotEmpty::Refuse).unwrap_err().0;
        let said = refused(&link, MountPoint::Existing);
        assert!(said.contains("symbolic link") && said.contains(&format!("name {}", real.display())), "{said}");
        // What would be made below a link would be mounted elsewhere than asked for.
        let said = refused(&link.join("deep/down"), MountPoint::Created);
        assert!(said.contains(&format!("name {}", real.join("deep/down").display())), "{said}");
        assert!(refused(&root.join("dangling"), MountPoint::Created).contains("cannot look"));
        assert!(refused(&file, MountPoint::Existing).contains("not a directory"));
        assert!(refused(&file.join("below"), MountPoint::Created).contains("cannot look"));
        assert!(refused(&root.join("missing"), MountPoint::Existing).contains("mount_point: Created"));
        let said = refused(&full, MountPoint::Existing);
        assert!(said.contains("not empty") && said.contains(" and more"), "{said}");
        assert_eq!(look(&full, MountPoint::Existing, NotEmpty::Allow), Ok(There::All));
        assert_eq!(look(&real, MountPoint::Existing, NotEmpty::Refuse), Ok(There::All));
        let made = root.join("new/deep");
        assert_eq!(look(&made, MountPoint::Created, NotEmpty::Refuse), Ok(There::Some));
        assert!(!root.join("new").exists());
        prepare(&made, MountPoint::Created, NotEmpty::Refuse).unwrap();
        assert!(made.is_dir());
    }
}
