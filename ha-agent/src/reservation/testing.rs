//! Simulated disks in the place of a machine's, for tests: the commands, the claims and the checks are the real ones.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use ha_core::claim::reservation::ReservationDevice;
use ha_core::claim::reservation::device::{
    self, Answer, Command, Failure, InitiatorPort, PathName, Registration, Registrations,
};
use ha_core::name::{ClusterName, NodeName};
use ha_core::sim::scsi::{Device, Lba, Nexus, Registered, Reply, Request, Stamp, Target};
use ha_resources::claim::reservation::scsi::Designator;
use ha_resources::claim::reservation::{Identity, OpenError};

use super::{Common, Opened, Opener, Rewrite, Unused};

/// A simulated disk.
pub(crate) type Simulated = Arc<Mutex<Device>>;

/// Disks by the name of their logical unit, and the paths in `/dev` that lead to them.
#[derive(Default)]
pub(crate) struct Shelf {
    disks: Mutex<BTreeMap<String, Simulated>>,
    links: Mutex<BTreeMap<PathBuf, String>>,
}

pub(crate) fn common(node: &str) -> Common {
    let nodes = NODES.map(|node| NodeName::new(node).unwrap()).to_vec();
    Common { cluster: ClusterName::new("shop").unwrap(), nodes, node: NodeName::new(node).unwrap() }
}

const NODES: [&str; 2] = ["alpha", "beta"];
const PORTS: u16 = 2;

impl Shelf {
    pub(crate) fn with(links: &[(&str, &str)]) -> Arc<Shelf> {
        let shelf = Arc::new(Shelf::default());
        for (path, disk) in links {
            shelf.put(path, disk);
        }
        shelf
    }

    /// Makes a path lead to a disk, which is made if need be.
    pub(crate) fn put(&self, path: &str, disk: &str) {
        self.put_target(path, disk, Target::standard(NonZeroU16::new(PORTS).unwrap()));
    }

    pub(crate) fn put_target(&self, path: &str, disk: &str, target: Target) {
        let make = || Arc::new(Mutex::new(Device::new(target)));
        self.disks.lock().unwrap().entry(disk.to_owned()).or_insert_with(make);
        self.links.lock().unwrap().insert(path.into(), disk.to_owned());
    }

    pub(crate) fn disk(&self, name: &str) -> Simulated {
        self.disks.lock().unwrap()[name].clone()
    }

    /// The shelf as a node reaches it.
    pub(crate) fn reached_by(self: &Arc<Self>, node: &str) -> Arc<dyn Opener> {
        let initiator = NODES.iter().position(|n| *n == node).map_or(99, |i| i as u16 + 1);
        Arc::new(Reached { shelf: self.clone(), initiator })
    }
}

struct Reached {
    shelf: Arc<Shelf>,
    initiator: u16,
}

impl Opener for Reached {
    fn open(&self, path: &Path, time_limit: Duration) -> Result<Opened, OpenError> {
        let links = self.shelf.links.lock().unwrap();
        let Some(name) = links.get(path) else { return Err(OpenError::NotFound(path.to_owned())) };
        let designator = Designator::of_kernel(&format!("naa.{name}")).unwrap();
        let wire = Arc::new(Wire {
            name: path.display().to_string(),
            disk: self.shelf.disk(name),
            initiator: self.initiator,
            time_limit,
        });
        let identity = Identity { designator, size: 1 << 30 };
        Ok(Opened { path: path.to_owned(), device: wire.clone(), rewrite: wire, identity, findings: Vec::new() })
    }

    fn leads_to(&self, path: &Path) -> Option<u64> {
        let links = self.shelf.links.lock().unwrap();
        let name = links.get(path)?;
        self.shelf.disks.lock().unwrap().keys().position(|disk| disk == name).map(|place| place as u64)
    }
}

/// A disk as one node reaches it, over two ports.
struct Wire {
    name: String,
    disk: Simulated,
    initiator: u16,
    time_limit: Duration,
}

#[async_trait]
impl Rewrite for Wire {
    fn keep_unused(&self) -> Result<Unused, OpenError> {
        Ok(Unused(None))
    }
    async fn rewrite(&self, path: &PathName) -> Result<(), Failure> {
        tokio::task::yield_now().await;
        let nexus = Nexus { initiator: self.initiator, port: path.as_str().parse().unwrap() };
        let mut disk = self.disk.lock().unwrap();
        disk.connect(nexus);
        disk.run(nexus, Request::Write(Lba(0), Stamp(0))).unwrap().map(drop)
    }
}

#[async_trait]
impl ReservationDevice for Wire {
    fn name(&self) -> &str {
        &self.name
    }
    fn paths(&self) -> Vec<PathName> {
        (1..=PORTS).map(|port| PathName::new(port.to_string())).collect()
    }
    async fn paths_changed(&self, _: &[PathName]) {
        std::future::pending().await
    }
    async fn send(&self, path: &PathName, command: Command) -> Result<Answer, Failure> {
        // As on a wire, others get their turn between any two commands.
        tokio::task::yield_now().await;
        let nexus = Nexus { initiator: self.initiator, port: path.as_str().parse().unwrap() };
        let mut disk = self.disk.lock().unwrap();
        disk.connect(nexus);
        match disk.run(nexus, Request::Reservation(command)).unwrap()? {
            Reply::Reservation(answer) => Ok(answer),
            other => panic!("{other:?}"),
        }
    }
    async fn registrations(&self, path: &PathName) -> Result<Registrations, Failure> {
        let port = path.as_str().parse().unwrap();
        let initiator = |number: u16| InitiatorPort { name: format!("sim.{number}"), session: None };
        let nexus = Nexus { initiator: self.initiator, port };
        let mut disk = self.disk.lock().unwrap();
        disk.connect(nexus);
        let Reply::FullStatus(all) = disk.run(nexus, Request::ReadFullStatus).unwrap()? else {
            panic!("no full status")
        };
        let of = |one: &Registered| Registration {
            key: one.key,
            initiator: initiator(one.nexus.initiator),
            port: Some(one.nexus.port),
            holds: one.holds.is_some(),
        };
        let asked_by = device::Nexus { initiator: Some(initiator(self.initiator)), port: Some(port) };
        let generation = disk.reservation().generation;
        Ok(Registrations { generation, registrations: all.iter().map(of).collect(), asked_by })
    }
    fn time_limit(&self) -> Duration {
        self.time_limit
    }
}
