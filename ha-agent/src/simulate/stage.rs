//! From the files to a simulated cluster.
//!
//! Decides what stands for what the files do not say: how long starts and boots take, and which times a lock area has that names none; and
//! that a lease of about the same length stands in for a reservation.

use std::sync::Arc;
use std::time::Duration;

use ha_core::claim::lock_area::LeaseTiming;
use ha_core::claim::reservation::device::Queued;
use ha_core::hierarchy::{Hierarchy, Loaded};
use ha_core::name::{ChannelName, HierarchyName, InvalidName, ResourceName};
use ha_core::sim::{AreaSetup, ClaimSetup, FencingSetup, HierarchySetup, NodeSetup, Setup, WatchdogSetup, World};
use ha_resources::claim::reservation::ReservationSpec;
use ha_resources::kinds::{Builtin, ClaimDefinition};

use crate::check::{Bounds, ClaimTimes, bounds};
use crate::config::{Config, FencingBy, WatchdogSettings};
use crate::exit::{Exit, Failure};
use crate::simulate::Part;

/// Four cores; the agent takes four times the cores that it finds.
const RECOVERIES: usize = 16;
/// As simulated without other word: up to 40 ms.
const QUICK_START: Duration = Duration::from_millis(40);

/// What the files do not tell.
#[derive(Clone, Debug)]
pub(crate) struct Assumed {
    /// How long resources need to start: for one, or for all. What comes later counts.
    pub(crate) starts: Vec<(Option<Part>, Duration)>,
    /// How long a machine that was reset needs until its agent runs.
    pub(crate) boot: Duration,
    /// For everything that is left to chance.
    pub(crate) seed: u64,
}

/// The cluster of some files, ready to be simulated as often as wanted.
#[derive(Clone, Debug)]
pub(crate) struct Stage {
    /// For the simulator.
    pub(crate) setup: Arc<Setup>,
    /// What was assumed.
    pub(crate) assumed: Assumed,
    /// The computed bounds of each hierarchy, with the start times that are assumed.
    pub(crate) bounds: Vec<Bounds>,
    /// The lock areas from this one on stand in for reservations.
    areas: usize,
    starts: Vec<(HierarchyName, ResourceName, Duration)>,
}

impl Stage {
    /// Of files that were found to be without errors.
    pub(crate) fn new(config: &Config, hierarchies: &[Loaded<Builtin>], assumed: Assumed) -> Result<Self, Failure> {
        let setup = setup(config, hierarchies).map_err(|e| Failure::new(Exit::System, e))?;
        for part in assumed.starts.iter().filter_map(|(part, _)| part.as_ref()) {
            part.find(&setup)?;
        }
        let mut stage = Stage {
            setup: Arc::new(setup),
            assumed,
            bounds: Vec::new(),
            areas: config.lock_areas.len(),
            starts: Vec::new(),
        };
        for (h, loaded) in hierarchies.iter().enumerate() {
            let hierarchy = stage.setup.hierarchies[h].hierarchy.clone();
            for resource in &hierarchy.resources {
                if let Some(takes) = stage.assumed.start_of(&hierarchy.name, &resource.name) {
                    stage.starts.push((hierarchy.name.clone(), resource.name.clone(), takes));
                }
            }
            let timing = stage.setup.areas[area_of(&stage.setup.hierarchies[h])].header.timing;
            let claim = match &loaded.claim {
                ClaimDefinition::LockArea(_) => ClaimTimes::Lease(timing),
                ClaimDefinition::Reservation(spec) => ClaimTimes::Reservation(spec, Queued::Aborted),
            };
            stage.bounds.push(bounds(config, claim, &assuming(&loaded.hierarchy, &stage.assumed)));
        }
        Ok(stage)
    }

    /// The hierarchies that are claimed by a reservation, each with how long the lease is that stands in for it.
    pub(crate) fn stand_ins(&self) -> impl Iterator<Item = (&HierarchyName, Duration)> {
        self.setup.hierarchies.iter().filter(|h| self.is_stand_in(area_of(h))).map(|h| {
            let timing = self.setup.areas[area_of(h)].header.timing;
            (&h.hierarchy.name, timing.expires_after())
        })
    }

    /// Whether a lock area stands in for a reservation.
    pub(crate) fn is_stand_in(&self, area: usize) -> bool {
        area >= self.areas
    }

    /// A cluster in which every node is off. The same number gives the same run.
    pub(crate) fn world(&self, number: u64) -> World {
        let mut world = World::new(self.setup.clone(), self.assumed.seed.wrapping_add(number));
        world.boot_takes(self.assumed.boot);
        for (hierarchy, resource, takes) in &self.starts {
            world.start_takes(hierarchy, resource, *takes);
        }
        world.keep_log();
        world
    }

    /// By when whatever comes of a fault must have come, if it comes at all.
    pub(crate) fn horizon(&self) -> Duration {
        let start = self.bounds.iter().map(|b| b.start_ms).max().unwrap_or_default();
        self.steady() + self.setup.timing.startup_grace + self.assumed.boot + Duration::from_millis(start) * 2
    }

    /// Nothing changed for so long: nothing will any more.
    pub(crate) fn steady(&self) -> Duration {
        let expiry = self.setup.areas.iter().map(|a| a.header.timing.expires_after() + a.header.timing.renew() * 2);
        let stop = self.setup.hierarchies.iter().map(|h| h.hierarchy.policy.forced_stop_within).max();
        self.setup.timing.dead_after * 2
            + expiry.max().unwrap_or_default() * 2
            + stop.unwrap_or_default()
            + Duration::from_secs(2)
    }
}

/// The lock area that it is claimed in, or that stands in for its reservation.
pub(crate) fn area_of(hierarchy: &HierarchySetup) -> usize {
    hierarchy.area().unwrap_or_default()
}

impl Assumed {
    fn start_of(&self, hierarchy: &HierarchyName, resource: &ResourceName) -> Option<Duration> {
        let fits = |part: &Option<Part>| {
            part.as_ref().is_none_or(|part| part.hierarchy == *hierarchy && part.resource == *resource)
        };
        self.starts.iter().rev().find(|(part, _)| fits(part)).map(|(_, takes)| *takes)
    }
}

/// The hierarchy, with time-outs of start that are just what starts are assumed to take.
fn assuming(hierarchy: &Hierarchy, assumed: &Assumed) -> Hierarchy {
    let mut like = hierarchy.clone();
    for resource in &mut like.resources {
        resource.timeouts.start = assumed.start_of(&hierarchy.name, &resource.name).unwrap_or(QUICK_START);
    }
    like
}

fn setup(config: &Config, hierarchies: &[Loaded<Builtin>]) -> Result<Setup, InvalidName> {
    let networks = config.nodes.iter().map(|node| node.addresses.len()).max().unwrap_or_default().max(1);
    let names: Vec<_> = config.nodes.iter().map(|node| node.name.clone()).collect();
    let room = u32::try_from(hierarchies.len()).unwrap_or(u32::MAX).max(16);
    let mut areas = Vec::new();
    for area in &config.lock_areas {
        let timing: LeaseTiming = area.timing.unwrap_or_default();
        areas.push(AreaSetup::new(area.name.as_str(), names.clone(), room, timing)?);
    }
    let mut staged = Vec::new();
    for loaded in hierarchies {
        let area = match &loaded.claim {
            ClaimDefinition::LockArea(name) => {
                config.lock_areas.iter().position(|area| area.name == *name).unwrap_or_default()
            }
            ClaimDefinition::Reservation(spec) => {
                let timing = stand_in(config, spec);
                areas.push(AreaSetup::new(&format!("reservation-{}", staged.len()), names.clone(), room, timing)?);
                areas.len() - 1
            }
        };
        let (hierarchy, probed) = (Arc::new(loaded.hierarchy.clone()), !loaded.probes.is_empty());
        staged.push(HierarchySetup { hierarchy, claim: ClaimSetup::Lease(area), probed });
    }
    let leased = hierarchies.iter().any(|loaded| matches!(loaded.claim, ClaimDefinition::LockArea(_)));
    Ok(Setup {
        cluster: config.cluster.clone(),
        nodes: names.iter().map(|name| NodeSetup { name: name.clone(), clock_ppm: 0 }).collect(),
        hierarchies: staged,
        channels: (0..networks).map(|i| ChannelName::new(format!("net{i}"))).collect::<Result<_, _>>()?,
        timing: config.timing,
        areas,
        watchdog: match config.watchdog {
            WatchdogSettings::Device { timeout, .. } => WatchdogSetup::Device { timeout },
            WatchdogSettings::Warden { .. } => WatchdogSetup::Warden,
            // The disks cut a node off that lost its reservation, as a warden does with one that lost its lease.
            WatchdogSettings::None if !leased => WatchdogSetup::Warden,
            WatchdogSettings::None => WatchdogSetup::None,
        },
        fencing: match config.fencing_by {
            FencingBy::Nodes if names.iter().all(|name| config.fencing.contains_key(name)) => FencingSetup::Nodes,
            FencingBy::Nodes | FencingBy::Operator => FencingSetup::Nobody,
        },
        max_recoveries: config.max_recoveries.unwrap_or(RECOVERIES),
    })
}

/// A lease that takes about as long to be taken from a dead holder as the reservation does.
fn stand_in(config: &Config, spec: &ReservationSpec) -> LeaseTiming {
    let whole = |time: Duration| Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    let challenge = spec.timing.challenge(spec.time_limit);
    let watchdog = match config.watchdog {
        WatchdogSettings::Device { timeout, .. } => timeout,
        WatchdogSettings::Warden { .. } | WatchdogSettings::None => challenge / 4,
    };
    let margin = (challenge.max(watchdog) / 50).max(Duration::from_millis(1));
    let deadline = challenge.saturating_sub(watchdog + margin).max(challenge / 4).max(Duration::from_millis(40));
    let renew = (deadline / 4).min(spec.timing.defend_interval());
    LeaseTiming::new(whole(renew), whole(deadline), whole(watchdog), whole(margin)).unwrap_or_default()
}
