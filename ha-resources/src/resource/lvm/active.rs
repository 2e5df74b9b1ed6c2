//! Which devices of a volume group are active on this node, as the kernel shows them in sysfs(5).
//!
//! Decides which are whose. Asks neither LVM nor the storage, so it answers whatever state those are in.

use std::io;
use std::path::{Path, PathBuf};

use super::name::{Name, volume_and_layer};
use crate::resource::block;

/// What the identity of a volume of LVM begins with; its group's and its own follow, 32 characters each.
const PREFIX: &str = "LVM-";
const WHOLE: usize = PREFIX.len() + 64;

/// What stands in the names of what LVM keeps to itself, and in no user's (lvm(8), "VALID NAMES"). Not all of it has another identity as well: what
/// is below a RAID volume has not.
const RESERVED: [&str; 14] = [
    "_cdata", "_cmeta", "_corig", "_iorig", "_mimage", "_mlog", "_pmspare", "_rimage", "_rmeta", "_tdata", "_tmeta",
    "_vdata", "_vorigin", "_wcorig",
];

/// In the name of what is below a RAID volume, one for each disk.
pub(super) const IMAGE: &str = "_rimage_";

/// A device that device-mapper made for LVM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Active {
    /// In sysfs.
    pub(super) directory: PathBuf,
    /// Device-mapper's name for it.
    pub(super) device: String,
    /// The volume that it belongs to.
    pub(super) volume: String,
    /// Whether it is what users of the volume open, and not something below that LVM keeps to itself.
    pub(super) visible: bool,
    /// Whether everything that is asked of it waits.
    pub(super) suspended: bool,
}

impl Active {
    /// Where it can be opened, whatever udev does.
    pub(super) fn node(&self) -> PathBuf {
        Path::new("/dev").join(self.directory.file_name().unwrap_or_default())
    }
}

/// All of a group, in the order of their names.
pub(super) fn of(group: &Name) -> io::Result<Vec<Active>> {
    of_in(group, Path::new(block::ALL))
}

fn of_in(group: &Name, all: &Path) -> io::Result<Vec<Active>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(all)? {
        let directory = entry?.path();
        let mapper = directory.join("dm");
        let (Some(device), Some(identity)) = (block::attribute(&mapper, "name"), block::attribute(&mapper, "uuid"))
        else {
            continue;
        };
        let Some(part) = group.part_of(&device).filter(|_| identity.starts_with(PREFIX)) else { continue };
        let (volume, layer) = volume_and_layer(part);
        let is_reserved = RESERVED.iter().any(|part| volume.contains(part));
        let visible = layer.is_none() && identity.len() == WHOLE && !is_reserved;
        let suspended = block::attribute(&mapper, "suspended").is_some_and(|flag| flag != "0");
        found.push(Active { directory, device, volume, visible, suspended });
    }
    found.sort_by(|a, b| a.device.cmp(&b.device));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_told_from_what_is_below_them_and_from_other_groups() {
        let all = tempfile::tempdir().unwrap();
        let identity = format!("LVM-{}", "a".repeat(64));
        for (number, name, uuid, suspended) in [
            (0, "shop-web", identity.clone(), "0"),
            (1, "shop-web_rimage_0", identity.clone(), "0"),
            (2, "shop-web--2", identity.clone(), "1"),
            (3, "shop-web-real", format!("{identity}-real"), "0"),
            (4, "shop--2-web", identity.clone(), "0"),
            (5, "shop-disk", "mpath-3600".to_owned(), "0"),
        ] {
            let mapper = all.path().join(format!("dm-{number}/dm"));
            std::fs::create_dir_all(&mapper).unwrap();
            for (attribute, value) in [("name", name), ("uuid", &uuid), ("suspended", suspended)] {
                std::fs::write(mapper.join(attribute), format!("{value}\n")).unwrap();
            }
        }
        std::fs::create_dir(all.path().join("sda")).unwrap();
        let found = of_in(&"shop".parse().unwrap(), all.path()).unwrap();
        let told: Vec<_> = found.iter().map(|a| (a.volume.as_str(), a.visible, a.suspended)).collect();
        let expected =
            [("web", true, false), ("web-2", true, true), ("web", false, false), ("web_rimage_0", false, false)];
        assert_eq!(told, expected);
        assert_eq!(found[0].node(), Path::new("/dev/dm-0"));
    }
}
