//! What a simulation begins with: nodes, hierarchies, storage, timing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::scsi::Target;
use crate::claim::lock_area::{AreaId, Header, LeaseTiming};
use crate::claim::reservation::ReservationTiming;
use crate::claim::reservation::device::Queued;
use crate::contact::Timing;
use crate::hierarchy::Hierarchy;
use crate::name::{ChannelName, ClusterName, InvalidName, LockAreaName, NodeName};

/// A cluster as it is before anything happens: every node is off.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The cluster.
    pub cluster: ClusterName,
    /// Its nodes; at least one.
    pub nodes: Vec<NodeSetup>,
    /// Its hierarchies.
    pub hierarchies: Vec<HierarchySetup>,
    /// The networks; at least one.
    pub channels: Vec<ChannelName>,
    /// Timing of contact.
    pub timing: Timing,
    /// The lock areas.
    pub areas: Vec<AreaSetup>,
    /// What ends a node, or what runs on it, when its agent cannot.
    pub watchdog: WatchdogSetup,
    /// Who has nodes fenced.
    pub fencing: FencingSetup,
    /// As [`EngineConfig::max_recoveries`](crate::engine::EngineConfig::max_recoveries).
    pub max_recoveries: usize,
}

/// One node.
#[derive(Clone, Debug)]
pub struct NodeSetup {
    /// Its name.
    pub name: NodeName,
    /// Parts in a million by which its clock is fast; negative if slow.
    pub clock_ppm: i32,
}

/// One hierarchy.
#[derive(Clone, Debug)]
pub struct HierarchySetup {
    /// As the engines see it.
    pub hierarchy: Arc<Hierarchy>,
    /// What it is claimed by.
    pub claim: ClaimSetup,
    /// Its utility is measured: see [`super::Action::Utility`].
    pub probed: bool,
}

/// What a hierarchy is claimed by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimSetup {
    /// A lease in a lock area, by position in [`Setup::areas`].
    Lease(usize),
    /// Persistent reservations of disks of its own.
    Reservation(ReservationSetup),
}

impl HierarchySetup {
    /// The lock area that its claim lives in, by position in [`Setup::areas`]; none if it has disks with reservations.
    pub fn area(&self) -> Option<usize> {
        match self.claim {
            ClaimSetup::Lease(area) => Some(area),
            ClaimSetup::Reservation(_) => None,
        }
    }

    /// The disks that it is claimed by, if it is claimed by their reservations.
    pub fn reservation(&self) -> Option<&ReservationSetup> {
        match &self.claim {
            ClaimSetup::Lease(_) => None,
            ClaimSetup::Reservation(reservation) => Some(reservation),
        }
    }
}

/// The disks with reservations of one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReservationSetup {
    /// What each disk is, the arbiter first; at least one.
    pub disks: Vec<Target>,
    /// The times of the claim.
    pub timing: ReservationTiming,
    /// How long a node waits for the answer to a command; under half of the bound in `timing`.
    pub time_limit: Duration,
}

impl ReservationSetup {
    /// How long it takes until a claim is given at the latest once its disks answer: the holder's bound, the challenge, and twice as much
    /// for whoever was in the middle of something.
    pub(super) fn settles_within(&self) -> Duration {
        let answer = Duration::from_millis(20);
        let takeover = self.timing.takeover_bound(self.time_limit, answer, Queued::Stay, self.disks.len());
        self.timing.uphold_bound() + (takeover + self.timing.blank_wait()) * 2
    }
}

/// One lock area, on a disk of its own.
#[derive(Clone, Debug)]
pub struct AreaSetup {
    /// Its name.
    pub name: LockAreaName,
    /// How it was made.
    pub header: Header,
}

impl AreaSetup {
    /// An area for some nodes.
    pub fn new(name: &str, nodes: Vec<NodeName>, hierarchies: u32, timing: LeaseTiming) -> Result<Self, InvalidName> {
        let header = Header { id: AreaId([7; 16]), block_size: 512, nodes, hierarchies, timing };
        Ok(AreaSetup { name: LockAreaName::new(name)?, header })
    }
}

/// What ends a node, or what runs on it, when its agent cannot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchdogSetup {
    /// A device that resets the machine when it was not fed for so long, whatever the kernel does.
    Device {
        /// Not longer than the lock areas' `watchdog`.
        timeout: Duration,
    },
    /// A small process that kills what runs, and resets the machine if that does not end it in time. It hangs with the machine.
    Warden,
    /// Nothing. Leases are then safe only as long as every agent works.
    None,
}

/// Who has nodes fenced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FencingSetup {
    /// Nobody: there are no devices for it, or they are an operator's.
    Nobody,
    /// The other nodes, by devices that mostly do what they are told.
    Nodes,
}

impl FencingSetup {
    pub(super) fn of(self, me: &NodeName, nodes: &[NodeName]) -> BTreeSet<NodeName> {
        match self {
            FencingSetup::Nobody => BTreeSet::new(),
            FencingSetup::Nodes => nodes.iter().filter(|node| *node != me).cloned().collect(),
        }
    }
}

/// Base of every bound on how soon a cluster must have recovered.
const SLACK: Duration = Duration::from_secs(10);

impl Setup {
    /// The position of a node.
    pub fn node(&self, name: &NodeName) -> Option<usize> {
        self.nodes.iter().position(|node| node.name == *name)
    }

    /// The longest time for which a better node must have been well before anything returns to it.
    pub(super) fn longest_failback(&self) -> Duration {
        let of = |h: &HierarchySetup| match h.hierarchy.policy.failback {
            crate::hierarchy::Failback::Auto { after } => after,
            crate::hierarchy::Failback::Manual => Duration::ZERO,
        };
        self.hierarchies.iter().map(of).max().unwrap_or_default()
    }

    /// How long after the last fault every hierarchy that some healthy node can serve must be in service again, whatever happened before:
    /// the grace of a node that started, the detection, the expiry of a lease, twice the operations of its resources, and the time for
    /// which a node leaves it to others.
    pub fn bound(&self) -> Duration {
        let expiry = self.areas.iter().map(|a| a.header.timing.expires_after()).max().unwrap_or_default();
        let operations = self.hierarchies.iter().map(|h| {
            let of = |r: &crate::hierarchy::ResourceSpec| r.timeouts.start + r.timeouts.stop + r.timeouts.kill;
            h.hierarchy.resources.iter().map(of).sum::<Duration>() * 2 + h.hierarchy.policy.decline_for
        });
        let operations = operations.max().unwrap_or_default() + self.longest_failback();
        let reservations = self.hierarchies.iter().filter_map(HierarchySetup::reservation);
        let settling = reservations.map(ReservationSetup::settles_within).max().unwrap_or_default();
        // Those that wait because too many recover at once, in turns.
        let turns = 1 + self.hierarchies.len() / (self.max_recoveries * self.nodes.len()).max(1);
        SLACK
            + self.timing.startup_grace
            + self.timing.dead_after * 2
            + (expiry * 2).max(settling)
            + operations * turns as u32
    }
}
