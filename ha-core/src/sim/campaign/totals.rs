//! What a campaign came to.
//!
//! Decides what is added up over its seeds, and how it is printed.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::{Outcome, Plan};
use crate::sim::scsi::Store;
use crate::sim::{Action, HierarchySetup, ToDisk, Violation};

/// The sums over the seeds that were run.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// How many seeds.
    pub seeds: u64,
    /// How long the clusters ran, in their own time.
    pub cluster_time: Duration,
    /// The same, counted for each node.
    pub node_time: Duration,
    /// Events of the simulation, after each of which every invariant was looked at.
    pub events: u64,
    /// Hierarchies with disks that have reservations.
    pub reserved: u64,
    /// Writes that reservations let pass, each looked at.
    pub writes: u64,
    /// Claims given that another node had.
    pub takeovers: u64,
    /// How often a machine reset itself, or was reset.
    pub resets: u64,
    /// How often one node had another one fenced.
    pub fencings: u64,
    /// How often each kind of fault was injected.
    pub faults: BTreeMap<&'static str, u64>,
    /// What must not have been, by seed.
    pub violations: Vec<(u64, Violation)>,
}

impl Totals {
    /// Adds how a plan went.
    pub fn add(&mut self, plan: &Plan, outcome: &Outcome) {
        self.seeds += 1;
        self.cluster_time += outcome.lasted;
        self.node_time += outcome.lasted * u32::try_from(plan.setup.nodes.len()).unwrap_or(u32::MAX);
        self.events += outcome.stats.events;
        self.takeovers += outcome.stats.takeovers;
        self.resets += outcome.stats.resets;
        self.fencings += outcome.stats.fencings;
        self.writes += outcome.stats.writes;
        let reserved = |h: &&HierarchySetup| h.reservation().is_some();
        self.reserved += plan.setup.hierarchies.iter().filter(reserved).count() as u64;
        let end = super::Moment::BEGIN + outcome.lasted;
        for (_, action) in plan.actions.iter().filter(|(at, _)| *at <= end) {
            let fault = if forgets(plan, action) { Some("disk loses power and registrations") } else { action.fault() };
            if let Some(fault) = fault {
                *self.faults.entry(fault).or_default() += 1;
            }
        }
        self.violations.extend(outcome.violation.clone().map(|violation| (plan.seed, violation)));
    }
}

/// Whether a disk loses its power that keeps nothing over it.
fn forgets(plan: &Plan, action: &Action) -> bool {
    let Action::Disk { hierarchy, disk, what: ToDisk::Off } = action else { return false };
    let setup = plan.setup.hierarchies.iter().find(|h| h.hierarchy.name == *hierarchy);
    let target = setup.and_then(HierarchySetup::reservation).and_then(|reservation| reservation.disks.get(*disk));
    target.is_some_and(|target| target.store != Store::Works)
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = |span: Duration| span.as_secs_f64() / 3600.0;
        writeln!(
            f,
            "{} seeds, {:.1} cluster-hours ({:.1} node-hours), {} events, {} takeovers, {} resets, {} fencings; {} violations",
            self.seeds,
            hours(self.cluster_time),
            hours(self.node_time),
            self.events,
            self.takeovers,
            self.resets,
            self.fencings,
            self.violations.len()
        )?;
        writeln!(f, "{} hierarchies with reservations, {} writes to their disks", self.reserved, self.writes)?;
        writeln!(f, "{} faults and commands:", self.faults.values().sum::<u64>())?;
        for (fault, count) in &self.faults {
            writeln!(f, "{count:>9}  {fault}")?;
        }
        Ok(())
    }
}
