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

use crate::engine::Lasting;
use crate::name::{BootId, Epoch, HierarchyName, Incarnation};

/// What runs here; void after a reboot.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Running {
    boot: String,
    hierarchies: BTreeMap<HierarchyName, Epoch>,
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
        Ok((RunMemory { file, running, changed: false }, complaint))
    }

    pub(super) fn epoch(&self, hierarchy: &HierarchyName) -> Option<Epoch> {
        self.running.hierarchies.get(hierarchy).copied()
    }

    pub(super) fn hierarchies(&self) -> impl Iterator<Item = &HierarchyName> {
        self.running.hierarchies.keys()
    }

    pub(super) fn set(&mut self, hierarchy: HierarchyName, epoch: Option<Epoch>) {
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
    fn a_damaged_file_is_taken_as_empty_and_reported() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("running.json"), b"{\"boot\": ").unwrap();
        let (memory, complaint) = RunMemory::open(directory.path(), boot(1)).unwrap();
        assert_eq!(memory.hierarchies().count(), 0);
        assert!(complaint.unwrap().contains("running.json is damaged"));
    }
}
