//! Disks with reservations, as the daemon, `ha check` and `ha claim` use them.
//!
//! Decides how they are opened, and that no disk is two hierarchies'. Leaves what is registered on them to `ha-core`, and
//! how they are commanded to `ha-resources`.

pub(crate) mod armed;
mod audited;
pub(crate) mod breaking;
mod late;
#[cfg(test)]
mod node_tests;
pub(crate) mod prove;
pub(crate) mod show;
#[cfg(test)]
pub(crate) mod testing;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use ha_core::claim::reservation::device::{Failure, PathName};
use ha_core::claim::reservation::{ReservationConfig, ReservationDevice};
use ha_core::name::{ClusterName, HierarchyName, NodeName};
use ha_resources::claim::reservation::{Disk, Identity, OpenError, ReservationSpec};

pub(crate) use late::LateReservation;

/// A disk that was opened.
pub(crate) struct Opened {
    /// As it was named.
    pub(crate) path: PathBuf,
    /// What commands are sent to.
    pub(crate) device: Arc<dyn ReservationDevice>,
    /// How a write is tried out on it.
    pub(crate) rewrite: Arc<dyn Rewrite>,
    /// Who it is.
    pub(crate) identity: Identity,
    /// What stands in nobody's way now, and may later.
    pub(crate) findings: Vec<String>,
}

/// A write that changes nothing, to see whether it is refused; on a disk that nobody uses.
#[async_trait]
pub(crate) trait Rewrite: Send + Sync + 'static {
    /// Keeps this machine from using the disk for as long as what is returned is there; the error says that it does.
    fn keep_unused(&self) -> Result<Unused, OpenError>;

    /// Writes what is there, on one path.
    async fn rewrite(&self, path: &PathName) -> Result<(), Failure>;
}

/// A disk is not used on this machine while this is there.
pub(crate) struct Unused(#[expect(dead_code, reason = "what counts is when it is closed")] pub(crate) Option<File>);

#[async_trait]
impl Rewrite for Disk {
    fn keep_unused(&self) -> Result<Unused, OpenError> {
        Disk::keep_unused(self).map(Some).map(Unused)
    }

    async fn rewrite(&self, path: &PathName) -> Result<(), Failure> {
        Disk::rewrite(self, path).await
    }
}

/// Opens disks: those of the machine, or simulated ones in tests.
pub(crate) trait Opener: Send + Sync + 'static {
    /// Opens one; blocks for a while. Changes nothing.
    fn open(&self, path: &Path, time_limit: Duration) -> Result<Opened, OpenError>;

    /// Which device a name leads to now, without opening it: the same for all names of one. Good for as long as the machine is on.
    fn leads_to(&self, path: &Path) -> Option<u64>;
}

/// Opens the disks of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Machine;

impl Opener for Machine {
    fn open(&self, path: &Path, time_limit: Duration) -> Result<Opened, OpenError> {
        let disk = Arc::new(Disk::open(path, time_limit)?);
        let findings = disk.findings().iter().map(ToString::to_string).collect();
        let (path, identity) = (path.to_owned(), disk.identity().clone());
        Ok(Opened { path, identity, findings, device: disk.clone(), rewrite: disk })
    }

    fn leads_to(&self, path: &Path) -> Option<u64> {
        let found = std::fs::metadata(path).ok()?;
        found.file_type().is_block_device().then(|| found.rdev())
    }
}

/// Opens all disks of a claim, on a thread where that may take its time.
pub(crate) async fn open_all(opener: Arc<dyn Opener>, spec: ReservationSpec) -> Result<Vec<Opened>, String> {
    let open = move || {
        let disks: Result<Vec<Opened>, OpenError> =
            spec.devices.iter().map(|path| opener.open(path, spec.time_limit)).collect();
        disks.and_then(distinct)
    };
    tokio::task::spawn_blocking(open).await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
}

/// Two names for one disk would make it its own arbiter's follower.
fn distinct(disks: Vec<Opened>) -> Result<Vec<Opened>, OpenError> {
    for (place, disk) in disks.iter().enumerate() {
        if let Some(same) = disks.iter().take(place).find(|other| other.identity == disk.identity) {
            let (one, other, identity) = (same.path.clone(), disk.path.clone(), disk.identity.clone());
            return Err(OpenError::Same { one, other, identity });
        }
    }
    Ok(disks)
}

/// What all claims by reservation of a node have in common.
#[derive(Clone)]
pub(crate) struct Common {
    /// The cluster.
    pub(crate) cluster: ClusterName,
    /// All nodes of the cluster: their numbers in the keys follow from it.
    pub(crate) nodes: Vec<NodeName>,
    /// This node.
    pub(crate) node: NodeName,
}

impl Common {
    /// How a hierarchy is claimed.
    pub(crate) fn config(&self, hierarchy: HierarchyName, spec: &ReservationSpec) -> ReservationConfig {
        ReservationConfig {
            cluster: self.cluster.clone(),
            node: self.node.clone(),
            nodes: self.nodes.clone(),
            hierarchy,
            kind: spec.kind,
            timing: spec.timing,
        }
    }
}

/// Which hierarchy's each disk is, and which names each hierarchy has for its disks: a reservation has one holder, so a disk that two
/// hierarchies name could have only one of them in service.
#[derive(Clone, Default)]
pub(crate) struct Owners(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    owned: BTreeMap<Identity, (HierarchyName, PathBuf)>,
    /// How many times each name is in use: a definition that takes another's place has the same for a while.
    named: BTreeMap<(HierarchyName, PathBuf), usize>,
}

/// The disks of a hierarchy are its own for as long as this is there.
pub(crate) struct Owned {
    owners: Owners,
    identities: Vec<Identity>,
}

/// A hierarchy names disks for as long as this is there.
pub(crate) struct Named {
    owners: Owners,
    names: Vec<(HierarchyName, PathBuf)>,
}

impl Owners {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes by which names a hierarchy is to have disks. Opens none.
    pub(crate) fn name(&self, hierarchy: &HierarchyName, devices: &[PathBuf]) -> Named {
        let names: Vec<_> = devices.iter().map(|device| (hierarchy.clone(), device.clone())).collect();
        let mut known = self.known();
        for name in &names {
            *known.named.entry(name.clone()).or_default() += 1;
        }
        Named { owners: self.clone(), names }
    }

    /// Says which disk another hierarchy has a name for as well. Every node comes to the same answer, whichever hierarchy it looks at first:
    /// two that each had one of them would take the disk from each other.
    pub(crate) fn claimed_twice(
        &self,
        hierarchy: &HierarchyName,
        disks: &[Opened],
        opener: &dyn Opener,
    ) -> Result<(), String> {
        let named: Vec<(HierarchyName, PathBuf)> = self.known().named.keys().cloned().collect();
        for (other, name) in named.iter().filter(|(other, _)| other != hierarchy) {
            let leads_to = opener.leads_to(name);
            let same = |disk: &&Opened| leads_to.is_some() && opener.leads_to(&disk.path) == leads_to;
            if let Some(disk) = disks.iter().find(same) {
                return Err(same_disk(&disk.path, &disk.identity, other, name));
            }
        }
        Ok(())
    }

    /// Notes whose the disks are. Refused, with the reason, if one is another hierarchy's; also for a moment while a definition of a hierarchy
    /// takes the place of its former one.
    pub(crate) fn own(&self, hierarchy: &HierarchyName, disks: &[Opened]) -> Result<Owned, String> {
        let mut known = self.known();
        for disk in disks {
            if let Some((other, name)) = known.owned.get(&disk.identity) {
                return Err(same_disk(&disk.path, &disk.identity, other, name));
            }
        }
        let identities: Vec<Identity> = disks.iter().map(|disk| disk.identity.clone()).collect();
        let named = |disk: &Opened| (disk.identity.clone(), (hierarchy.clone(), disk.path.clone()));
        known.owned.extend(disks.iter().map(named));
        Ok(Owned { owners: self.clone(), identities })
    }

    /// The disks of a hierarchy, if they are open.
    pub(crate) fn disks_of(&self, hierarchy: &HierarchyName) -> Option<Vec<Identity>> {
        let known = self.known();
        let own = known.owned.iter().filter(|(_, (owner, _))| owner == hierarchy);
        let disks: Vec<Identity> = own.map(|(disk, _)| disk.clone()).collect();
        (!disks.is_empty()).then_some(disks)
    }
}

/// What is wrong with a disk that is another hierarchy's.
pub(crate) fn same_disk(path: &Path, identity: &Identity, other: &HierarchyName, name: &Path) -> String {
    format!(
        "{} is a disk of hierarchy {other} too, as {} ({identity}), and a reservation has one holder: give each hierarchy disks of its \
         own, or put what is on one disk into one hierarchy",
        path.display(),
        name.display()
    )
}

impl Drop for Owned {
    fn drop(&mut self) {
        let mut known = self.owners.known();
        for identity in &self.identities {
            known.owned.remove(identity);
        }
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let mut known = self.owners.known();
        for name in &self.names {
            if let Some(times) = known.named.get_mut(name) {
                *times -= 1;
                if *times == 0 {
                    known.named.remove(name);
                }
            }
        }
    }
}
