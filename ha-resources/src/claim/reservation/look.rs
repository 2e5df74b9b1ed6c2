//! What an operator named: looking at it, without touching it.
//!
//! Decides whether a path leads to a whole disk of a kind that can have reservations, and what to name instead if it does not. All of
//! it comes from the file system (`/sys/dev/block`, `/dev/disk/by-id`): no device is opened.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::libc::{major, minor};

use super::error::{Listed, OpenError};
use super::initiator;
use super::path::{Candidate, Generic};
use super::traffic::Traffic;

/// Where the system shows its devices; elsewhere in tests.
#[derive(Clone, Debug)]
pub(super) struct System {
    /// `/sys`.
    pub(super) sys: PathBuf,
    /// `/dev`.
    pub(super) dev: PathBuf,
}

impl Default for System {
    fn default() -> System {
        System { sys: "/sys".into(), dev: "/dev".into() }
    }
}

/// A block device as the kernel has it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    /// The kernel's name, for example `sdb`. It may be another disk's tomorrow.
    pub(super) name: String,
    /// Its number, which may be another disk's tomorrow as well.
    pub(super) number: (u32, u32),
    /// What tells a disk from the one before it of the same name: its folder in sysfs is another one.
    folder: u64,
}

/// How commands get to a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Driver {
    /// A SCSI disk: one path.
    Scsi,
    /// An NVMe namespace, with as many paths as the kernel has: it spreads commands itself.
    Nvme,
    /// Anything else that may have reservations, by the kernel's own calls.
    Kernel,
}

/// What kind of whole disk it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Reached by one path.
    Single(Driver),
    /// A multipath map of device-mapper.
    Multipath,
}

/// A whole disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Whole {
    pub(super) node: Node,
    pub(super) kind: Kind,
    /// In bytes.
    pub(super) size: u64,
    /// What device-mapper calls it, if it is a map.
    pub(super) map: Option<String>,
}

impl Whole {
    /// What device-mapper calls it, if it is a multipath map.
    pub(super) fn multipath_map(&self) -> Option<&str> {
        self.map.as_deref().filter(|_| self.kind == Kind::Multipath)
    }
}

impl System {
    /// What `path` leads to, if nothing speaks against using it that its user can change.
    pub(super) fn look_critically(&self, path: &Path) -> Result<Whole, OpenError> {
        let disk = self.look(path)?;
        let place = self.sys.join("block").join(&disk.node.name);
        if let Some(map) = linked(&place, "holders").find(|holder| is_multipath(holder)) {
            let map = name_of(&map).map_or(map, |name| self.best_name(&name));
            return Err(OpenError::OnePath { path: path.to_owned(), map });
        }
        if read(&place, "ro").as_deref() == Some("1") {
            return Err(OpenError::ReadOnly(path.to_owned()));
        }
        Ok(disk)
    }

    /// What `path` leads to.
    pub(super) fn look(&self, path: &Path) -> Result<Whole, OpenError> {
        let of = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => OpenError::NotFound(path.to_owned()),
            io::ErrorKind::PermissionDenied => OpenError::NotPermitted(path.to_owned()),
            _ => OpenError::System { path: path.to_owned(), what: "looking at it", error },
        };
        let found = fs::metadata(path).map_err(of)?;
        if !found.file_type().is_block_device() {
            return Err(OpenError::NotBlockDevice(path.to_owned()));
        }
        let number = (major(found.rdev()), minor(found.rdev()));
        let place = fs::canonicalize(self.sys.join(format!("dev/block/{}:{}", number.0, number.1)))
            .map_err(|_| OpenError::Vanished(path.to_owned()))?;
        self.classify(path, &place)
    }

    fn classify(&self, path: &Path, place: &Path) -> Result<Whole, OpenError> {
        let path = || path.to_owned();
        if place.join("partition").exists() {
            let disk = place.parent().and_then(name_of).map(|name| self.best_name(&name));
            return Err(OpenError::Partition { path: path(), disk: disk.unwrap_or_else(|| place.to_owned()) });
        }
        let node = node(place).ok_or_else(|| OpenError::Vanished(path()))?;
        if node.name.starts_with("loop") {
            return Err(OpenError::Loop(path()));
        }
        let kind = match read(place, "dm/uuid") {
            Some(uuid) if uuid.starts_with("mpath-") => Kind::Multipath,
            Some(uuid) => return Err(self.stacked(path(), place, mapping(&uuid))),
            None if place.join("dm").exists() => return Err(self.stacked(path(), place, "a device-mapper device")),
            None if place.join("md").exists() => return Err(self.stacked(path(), place, "a software RAID")),
            None => match driver(place) {
                Some(driver) => Kind::Single(driver),
                None if linked(place, "slaves").next().is_some() => {
                    return Err(self.stacked(path(), place, "a device made of others"));
                }
                None => Kind::Single(Driver::Kernel),
            },
        };
        // The kernel counts in units of 512 bytes, whatever the disk's blocks are.
        let size = read(place, "size").and_then(|size| size.parse::<u64>().ok()).unwrap_or(0).saturating_mul(512);
        Ok(Whole { node, kind, size, map: read(place, "dm/name") })
    }

    fn stacked(&self, path: PathBuf, place: &Path, what: &'static str) -> OpenError {
        let mut below: Vec<PathBuf> = Vec::new();
        self.disks_below(place, &mut below);
        OpenError::Stacked { path, what, below: Listed(below) }
    }

    /// The physical disks under a device, by the names that an operator should use. Trees of devices are shallow.
    fn disks_below(&self, place: &Path, below: &mut Vec<PathBuf>) {
        let mut under = linked(place, "slaves").peekable();
        if is_multipath(place) || under.peek().is_none() {
            let whole = if place.join("partition").exists() { place.parent() } else { Some(place) };
            below.extend(whole.and_then(name_of).map(|name| self.best_name(&name)));
        } else {
            under.for_each(|place| self.disks_below(&place, below));
        }
        below.sort();
        below.dedup();
    }

    /// The paths of a disk, in an order that stays while they do: those below a map that can carry commands, or the disk itself,
    /// through the file that was named.
    pub(super) fn paths(&self, named: &Path, disk: &Whole) -> Vec<Candidate> {
        match disk.kind {
            Kind::Single(driver) => vec![self.candidate(disk.node.clone(), driver, named.to_owned())],
            Kind::Multipath => {
                let place = self.sys.join("block").join(&disk.node.name);
                let of = |place: PathBuf| {
                    let (node, driver) = (node(&place)?, driver(&place)?);
                    let file = self.dev.join(&node.name);
                    Some(self.candidate(node, driver, file))
                };
                let mut found: Vec<Candidate> = linked(&place, "slaves").filter_map(of).collect();
                found.sort_by_key(|candidate| candidate.node.number);
                // A container may have been given nothing but the map, which then stands for them.
                if !found.is_empty() && found.iter().all(|candidate| !candidate.file.exists()) {
                    return vec![self.candidate(disk.node.clone(), Driver::Kernel, named.to_owned())];
                }
                found
            }
        }
    }

    fn candidate(&self, node: Node, driver: Driver, file: PathBuf) -> Candidate {
        let kernels_designator = match driver {
            Driver::Scsi | Driver::Kernel => None,
            Driver::Nvme => read(&self.sys.join("block").join(&node.name), "wwid"),
        };
        let generic = (driver == Driver::Scsi).then(|| self.generic(&node.name)).flatten();
        let initiator = (driver == Driver::Scsi).then(|| initiator::port(&self.sys, &node.name)).flatten();
        let traffic = (driver != Driver::Nvme).then(|| Traffic::of(&self.sys.join("block").join(&node.name)));
        Candidate { node, driver, file, generic, initiator, kernels_designator, traffic }
    }

    /// The character device of a SCSI disk; none where the kernel has no module `sg`.
    fn generic(&self, name: &str) -> Option<Generic> {
        let folder = self.sys.join("block").join(name).join("device/scsi_generic");
        let place = fs::read_dir(folder).ok()?.flatten().next()?.path();
        Some(Generic { file: self.dev.join(name_of(&place)?), number: number(&place)? })
    }

    /// A stable name to use instead of a kernel's one; none if the path is stable, or there is nothing better.
    pub(super) fn stable_name(&self, path: &Path, disk: &Whole) -> Option<PathBuf> {
        let bare = path.parent() == Some(&self.dev) && path.file_name().is_some_and(|name| *name == *disk.node.name);
        bare.then(|| self.best_name(&disk.node.name)).filter(|better| better != path)
    }

    /// How an operator should call a disk: its name in `/dev/disk/by-id`, the kernel's if it has none.
    fn best_name(&self, name: &str) -> PathBuf {
        let file = self.dev.join(name);
        let by_id = self.dev.join("disk/by-id");
        let leads_there = |link: &PathBuf| fs::canonicalize(link).is_ok_and(|target| target == file);
        let mut links: Vec<PathBuf> =
            fs::read_dir(by_id).into_iter().flatten().flatten().map(|entry| entry.path()).filter(leads_there).collect();
        links.sort_by_key(|link| (rank(link), link.clone()));
        links.into_iter().next().unwrap_or(file)
    }
}

/// Names in the order of their worth: those that come from the device itself first.
fn rank(link: &Path) -> usize {
    const BEST_FIRST: [&str; 6] = ["dm-uuid-mpath-", "wwn-", "nvme-eui.", "nvme-uuid.", "scsi-3", "scsi-"];
    let name = link.file_name().unwrap_or_default().to_string_lossy();
    BEST_FIRST.iter().position(|prefix| name.starts_with(prefix)).unwrap_or(BEST_FIRST.len())
}

/// What device-mapper's identifiers begin with, by who made the device.
fn mapping(uuid: &str) -> &'static str {
    match uuid.split('-').next().unwrap_or_default() {
        "LVM" => "a logical volume",
        "CRYPT" => "an encrypted device",
        "DMRAID" => "a software RAID",
        part if part.starts_with("part") => "a partition",
        _ => "a device-mapper device",
    }
}

fn driver(place: &Path) -> Option<Driver> {
    let subsystem = fs::canonicalize(place.join("device/subsystem")).ok()?;
    match name_of(&subsystem)?.as_str() {
        "scsi" => Some(Driver::Scsi),
        "nvme" | "nvme-subsystem" | "nvme-fabrics" => Some(Driver::Nvme),
        _ => None,
    }
}

fn node(place: &Path) -> Option<Node> {
    Some(Node { name: name_of(place)?, number: number(place)?, folder: fs::metadata(place).ok()?.ino() })
}

fn number(place: &Path) -> Option<(u32, u32)> {
    read(place, "dev")?.split_once(':').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)))
}

fn is_multipath(place: &Path) -> bool {
    read(place, "dm/uuid").is_some_and(|uuid| uuid.starts_with("mpath-"))
}

/// The devices below (`slaves`) or above (`holders`).
fn linked(place: &Path, which: &str) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(place.join(which)).into_iter().flatten().flatten();
    entries.filter_map(|entry| fs::canonicalize(entry.path()).ok())
}

fn name_of(place: &Path) -> Option<String> {
    Some(place.file_name()?.to_str()?.to_owned())
}

/// What an attribute says; none if there is none.
pub(super) fn read(place: &Path, attribute: &str) -> Option<String> {
    Some(fs::read_to_string(place.join(attribute)).ok()?.trim().to_owned())
}

#[cfg(test)]
mod tests;
