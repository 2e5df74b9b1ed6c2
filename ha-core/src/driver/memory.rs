//! What a node remembers: until the next boot in its run directory, beyond it in its state directory.
//!
//! Decides the files and how they are written (whole, under another name, then renamed). Leaves what is worth remembering to the engine.
//! A file that cannot be read counts as empty, and is reported: everything in it can be found out again from the claims and the peers.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::engine::{Lasting, TenureOf};
use crate::name::{BootId, Epoch, HierarchyName, Incarnation};
use crate::time::Time;

/// What runs here; void after a reboot.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Running {
    boot: String,
    hierarchies: BTreeMap<HierarchyName, Epoch>,
}

/// To when each tenure was proven; void after a reboot. A file of its own, small whatever runs, since every renewal writes it.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Proven {
    boot: String,
    #[serde(default)]
    leases: BTreeMap<String, Time>,
    #[serde(default)]
    hierarchies: BTreeMap<HierarchyName, Time>,
}

/// What outlives a reboot for the node as a whole.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct NodeState {
    #[serde(default)]
    pub(super) incarnation: Incarnation,
    #[serde(default)]
    pub(super) standby: Option<String>,
}

pub(super) struct RunMemory {
    file: PathBuf,
    running: Running,
    changed: bool,
    proven_file: PathBuf,
    proven: Proven,
    proven_changed: bool,
}

impl RunMemory {
    /// Reads what an earlier life of the agent on this boot left.
    pub(super) fn open(directory: &Path, boot: BootId) -> io::Result<(Self, Option<String>)> {
        fs::create_dir_all(directory)?;
        let file = directory.join("running.json");
        let (found, complaint) = read::<Running>(&file);
        let mut running = found.unwrap_or_default();
        if running.boot != boot.to_string() {
            running = Running { boot: boot.to_string(), hierarchies: BTreeMap::new() };
        }
        let proven_file = directory.join("proven.json");
        let (found, complaint_of_proven) = read::<Proven>(&proven_file);
        let mut proven = found.unwrap_or_default();
        if proven.boot != boot.to_string() {
            proven = Proven { boot: boot.to_string(), ..Proven::default() };
        }
        let memory = RunMemory { file, running, changed: false, proven_file, proven, proven_changed: false };
        Ok((memory, complaint.or(complaint_of_proven)))
    }

    /// To when an earlier life of the agent had proven the tenure of a hierarchy, which shares a lease or has its own.
    pub(super) fn proven_until(&self, hierarchy: &HierarchyName, lease: Option<&str>) -> Option<Time> {
        match lease {
            Some(lease) => self.proven.leases.get(lease),
            None => self.proven.hierarchies.get(hierarchy),
        }
        .copied()
    }

    pub(super) fn set_proven(&mut self, of: TenureOf, until: Time) {
        self.proven_changed = true;
        match of {
            TenureOf::Lease(lease) => self.proven.leases.insert(lease, until),
            TenureOf::Hierarchy(hierarchy) => self.proven.hierarchies.insert(hierarchy, until),
        };
    }

    pub(super) fn epoch(&self, hierarchy: &HierarchyName) -> Option<Epoch> {
        self.running.hierarchies.get(hierarchy).copied()
    }

    pub(super) fn hierarchies(&self) -> impl Iterator<Item = &HierarchyName> {
        self.running.hierarchies.keys()
    }

    pub(super) fn set(&mut self, hierarchy: HierarchyName, epoch: Option<Epoch>) {
        if epoch.is_none() {
            self.proven_changed |= self.proven.hierarchies.remove(&hierarchy).is_some();
        }
        self.changed |= match epoch {
            Some(epoch) => self.running.hierarchies.insert(hierarchy, epoch) != Some(epoch),
            None => self.running.hierarchies.remove(&hierarchy).is_some(),
        };
    }

    /// Writes if anything changed. On tmpfs, so in microseconds.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if self.changed {
            write(&self.file, &self.running, Durability::UntilReboot)?;
            self.changed = false;
        }
        if self.proven_changed {
            write(&self.proven_file, &self.proven, Durability::UntilReboot)?;
            self.proven_changed = false;
        }
        Ok(())
    }
}

/// Files of the state directory: `node.json`, and `hierarchies/NAME.json`.
#[derive(Clone, Debug)]
pub(super) struct StateDirectory(PathBuf);

impl StateDirectory {
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory.join("hierarchies"))?;
        Ok(StateDirectory(directory.to_owned()))
    }

    pub(super) fn node(&self) -> (NodeState, Option<String>) {
        let (found, complaint) = read(&self.0.join("node.json"));
        (found.unwrap_or_default(), complaint)
    }

    pub(super) fn write_node(&self, state: &NodeState) -> io::Result<()> {
        write(&self.0.join("node.json"), state, Durability::Lasting)
    }

    pub(super) fn hierarchy(&self, name: &HierarchyName) -> (Lasting, Option<String>) {
        let (found, complaint) = read(&self.hierarchy_file(name));
        (found.unwrap_or_default(), complaint)
    }

    pub(super) fn write_hierarchy(&self, name: &HierarchyName, lasting: &Lasting) -> io::Result<()> {
        write(&self.hierarchy_file(name), lasting, Durability::Lasting)
    }

    fn hierarchy_file(&self, name: &HierarchyName) -> PathBuf {
        self.0.join("hierarchies").join(format!("{name}.json"))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Durability {
    UntilReboot,
    Lasting,
}

fn read<T: DeserializeOwned>(file: &Path) -> (Option<T>, Option<String>) {
    match fs::read(file) {
        Ok(bytes) => match serde_json::from_slice(&bytes) {
            Ok(value) => (Some(value), None),
            Err(error) => (None, Some(format!("{} is damaged ({error}) and taken as empty", file.display()))),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => (None, None),
        Err(error) => (None, Some(format!("{} cannot be read ({error}) and is taken as empty", file.display()))),
    }
}

fn write<T: Serialize>(file: &Path, value: &T, durability: Durability) -> io::Result<()> {
    let fresh = file.with_extension("new");
    let bytes = serde_json::to_vec_pretty(value).map_err(io::Error::other)?;
    let name_it = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", fresh.display()));
    let mut handle = fs::File::create(&fresh).map_err(name_it)?;
    handle.write_all(&bytes).map_err(name_it)?;
    if durability == Durability::Lasting {
        handle.sync_all().map_err(name_it)?;
    }
    fs::rename(&fresh, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boot(digit: u8) -> BootId {
        BootId([digit; 16])
    }

    #[test]
    fn what_runs_is_remembered_until_the_next_boot() {
        let directory = tempfile::tempdir().unwrap();
        let web = HierarchyName::new("web").unwrap();
        let (mut memory, complaint) = RunMemory::open(directory.path(), boot(1)).unwrap();
        assert_eq!(complaint, None);
        memory.set(web.clone(), Some(Epoch(7)));
        memory.flush().unwrap();
        let (memory, _) = RunMemory::open(directory.path(), boot(1)).unwrap();
        assert_eq!(memory.epoch(&web), Some(Epoch(7)));
        let (memory, _) = RunMemory::open(directory.path(), boot(2)).unwrap();
        assert_eq!(memory.epoch(&web), None);
    }

    #[test]
    fn to_when_tenures_were_proven_is_remembered_until_the_next_boot() {
        let directory = tempfile::tempdir().unwrap();
        let (web, db) = (HierarchyName::new("web").unwrap(), HierarchyName::new("db").unwrap());
        let (mut memory, _) = RunMemory::open(directory.path(), boot(1)).unwrap();
        memory.set_proven(TenureOf::Lease("main".to_owned()), Time(5));
        memory.set_proven(TenureOf::Hierarchy(db.clone()), Time(6));
        memory.flush().unwrap();
        let (mut memory, _) = RunMemory::open(directory.path(), boot(1)).unwrap();
        assert_eq!(memory.proven_until(&web, Some("main")), Some(Time(5)));
        assert_eq!(memory.proven_until(&db, None), Some(Time(6)));
        memory.set(db.clone(), None);
        assert_eq!(memory.proven_until(&db, None), None);
        let (memory, _) = RunMemory::open(directory.path(), boot(2)).unwrap();
        assert_eq!(memory.proven_until(&web, Some("main")), None);
    }

    #[test]
    fn a_damaged_file_is_taken_as_empty_and_reported() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("running.json"), b"{\"boot\": ").unwrap();
        let (memory, complaint) = RunMemory::open(directory.path(), boot(1)).unwrap();
        assert_eq!(memory.hierarchies().count(), 0);
        assert!(complaint.unwrap().contains("running.json is damaged"));
    }
}
