//! Random clusters.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use super::Size;
use crate::claim::lock_area::LeaseTiming;
use crate::claim::reservation::ReservationTiming;
use crate::claim::reservation::device::UnitAttention;
use crate::contact::Timing;
use crate::hierarchy::{Failback, Hierarchy, Limit, Monitor, OnStopFailure, Policy, Rank, ResourceBuilder, Timeouts};
use crate::name::{ChannelName, ClusterName, GroupName, NodeName};
use crate::sim::scsi::{First, Store, Target};
use crate::sim::{
    AreaSetup, ClaimSetup, Draws, FencingSetup, HierarchySetup, NodeSetup, ReservationSetup, Setup, WatchdogSetup,
};

const NAMES: [&str; 8] = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"];

/// The most by which a clock is fast or slow: two of them differ by less than 1 %.
const CLOCKS_PPM: u64 = 4_900;

/// Of a large cluster, only so many hierarchies have disks with reservations: each is looked at all the time.
const RESERVED_MOST: u64 = 24;

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

pub(super) fn draw(draws: &mut Draws, size: &Size) -> Setup {
    // Small ones more often: they show as much, and sooner.
    let skewed = |draws: &mut Draws, of: &std::ops::RangeInclusive<u64>| {
        let most = draws.between(*of.start(), *of.end());
        draws.between(*of.start(), most)
    };
    let count = skewed(draws, &size.nodes);
    let names: Vec<String> =
        (0..count as usize).map(|i| NAMES.get(i).map_or_else(|| format!("node{i}"), ToString::to_string)).collect();
    let nodes = names.iter().filter_map(|name| {
        let clock_ppm = i32::try_from(draws.below(2 * CLOCKS_PPM)).ok()? - i32::try_from(CLOCKS_PPM).ok()?;
        Some(NodeSetup { name: NodeName::new(name).ok()?, clock_ppm })
    });
    let nodes: Vec<NodeSetup> = nodes.collect();
    let all: Vec<NodeName> = nodes.iter().map(|node| node.name.clone()).collect();
    let watchdog = match draws.below(2) {
        0 => WatchdogSetup::Warden,
        _ => WatchdogSetup::Device { timeout: ms(1_000) },
    };
    // A device counts whole seconds.
    let least = if watchdog == WatchdogSetup::Warden { 400 } else { 1_000 };
    let times = [(100, 800, least, 100), (50, 400, least, 100), (500, 4_000, 2_000, 500)];
    let chosen = draws.pick(&times).copied().unwrap_or(times[0]);
    // From branches of their own, here and below, so that they disturb nothing else.
    let mut fenced = draws.branch("fencing");
    let fencing = [FencingSetup::Nobody, FencingSetup::Nodes][fenced.below(2) as usize];
    // Short leases are over before anybody is fenced.
    let long = fencing == FencingSetup::Nodes && fenced.below(3) > 0;
    let chosen = if long { (1_000, 15_000, 5_000, 1_000) } else { chosen };
    let timing = LeaseTiming::new(ms(chosen.0), ms(chosen.1), ms(chosen.2), ms(chosen.3)).unwrap_or_default();
    let hierarchies = skewed(draws, &size.hierarchies);
    let areas = draws.between(1, 2).min(hierarchies);
    let area = |i: u64| AreaSetup::new(&format!("area{i}"), all.clone(), (hierarchies as u32).max(8), timing).ok();
    let areas: Vec<AreaSetup> = (0..areas).filter_map(area).collect();
    let heartbeats = if draws.below(3) == 0 {
        Timing { interval: ms(20), late_after: ms(60), dead_after: ms(200), startup_grace: ms(3_000) }
    } else {
        Timing { startup_grace: ms(5_000), ..Timing::default() }
    };
    let mut groups = draws.branch("groups");
    let grouped = [0, 500][groups.below(2) as usize];
    let mut reserved = draws.branch("reservations");
    // Clusters with lock areas only, and clusters with both.
    let share = [0, 500][reserved.below(2) as usize];
    let hierarchies: Vec<HierarchySetup> = (0..hierarchies)
        .filter_map(|i| {
            let hierarchy = Arc::new(hierarchy(draws, &format!("h{i}"), &names, group(&mut groups, grouped))?);
            let area = draws.below(areas.len() as u64) as usize;
            let has_disks = i < RESERVED_MOST && reserved.in_thousand(share);
            let claim = match reservation(&reserved.branch(hierarchy.name.as_str())) {
                Some(reservation) if has_disks => ClaimSetup::Reservation(reservation),
                _ => ClaimSetup::Lease(area),
            };
            Some(HierarchySetup { hierarchy, claim, probed: draws.below(3) == 0 })
        })
        .collect();
    let channels = (0..draws.between(1, 3)).filter_map(|i| ChannelName::new(format!("net{i}")).ok()).collect();
    #[expect(clippy::expect_used, reason = "the name is a valid one")]
    let cluster = ClusterName::new("campaign").expect("a valid name");
    let max_recoveries = draws.between(1, 8) as usize;
    Setup { cluster, nodes, hierarchies, channels, timing: heartbeats, areas, watchdog, fencing, max_recoveries }
}

/// One to three disks of one of six kinds, as they are found.
fn reservation(draws: &Draws) -> Option<ReservationSetup> {
    let mut draws = draws.branch("disks");
    let ports = NonZeroU16::new(draws.between(1, 2) as u16)?;
    let standard = Target::standard(ports);
    let target = match draws.below(6) {
        0 => Target::lio(ports),
        1 => Target::tgt(ports),
        2 => Target { store: Store::Fails, ..Target::lio(ports) },
        3 => Target { first: First::Conflict, tells_preempted: None, ..standard },
        4 => Target { tells_preempted: Some(UnitAttention::ReservationsPreempted), store: Store::None, ..standard },
        _ => standard,
    };
    let count = [1, 1, 2, 3][draws.below(4) as usize];
    let (interval, bound, limit) =
        [(1_000, 10_000, 3_000), (250, 3_000, 1_000), (500, 5_000, 1_500)][draws.below(3) as usize];
    let timing = ReservationTiming::new(ms(interval), ms(bound)).ok()?;
    Some(ReservationSetup { disks: vec![target; count], timing, time_limit: ms(limit) })
}

/// One of two groups, or none.
fn group(draws: &mut Draws, in_thousand: u64) -> Option<GroupName> {
    draws.in_thousand(in_thousand).then(|| GroupName::new(format!("group{}", draws.below(2))).ok())?
}

fn hierarchy(draws: &mut Draws, name: &str, nodes: &[String], group: Option<GroupName>) -> Option<Hierarchy> {
    let mut order: Vec<String> = nodes.to_vec();
    for i in (1..order.len()).rev() {
        order.swap(i, draws.below(i as u64 + 1) as usize);
    }
    if draws.below(3) == 0 {
        order.truncate(draws.between(1, order.len() as u64) as usize);
    }
    let mut builder = Hierarchy::builder(name).nodes(order).policy(spread(policy(draws), group));
    let timeouts = Timeouts { start: ms(2_000), stop: ms(1_500), monitor: ms(800), kill: ms(700) };
    let mut before: Vec<String> = Vec::new();
    for i in 0..draws.between(1, 4) {
        let part = format!("part{i}");
        let requires: BTreeSet<String> = before.iter().filter(|_| draws.below(2) == 0).cloned().collect();
        let monitor = Monitor { every: ms(draws.between(300, 5_000)), unknowns_tolerated: draws.below(4) as u32 };
        builder = builder.resource(ResourceBuilder::new(&part).requires(requires).timeouts(timeouts).monitor(monitor));
        before.push(part);
    }
    builder.build().ok()
}

fn policy(draws: &mut Draws) -> Policy {
    Policy {
        importance: draws.below(3) as i32,
        rank: if draws.below(4) == 0 { Rank::Utility { margin: 20, spread: None } } else { Rank::Priority },
        failback: if draws.below(3) == 0 { Failback::Auto { after: ms(3_000) } } else { Failback::Manual },
        restarts: Limit { count: draws.below(4) as u32, within: ms(20_000) },
        decline_for: ms(draws.between(2_000, 12_000)),
        settle: ms(draws.between(500, 3_000)),
        quarantine: Limit { count: draws.between(2, 4) as u32, within: ms(60_000) },
        on_stop_failure: [None, Some(OnStopFailure::Reset), Some(OnStopFailure::Hold)][draws.below(3) as usize],
        forced_stop_within: ms(draws.between(100, 400)),
    }
}

fn spread(policy: Policy, group: Option<GroupName>) -> Policy {
    let rank = match (&policy.rank, group) {
        (_, None) => policy.rank,
        (Rank::Priority, spread) => Rank::Utility { margin: 10, spread },
        (Rank::Utility { margin, .. }, spread) => Rank::Utility { margin: *margin, spread },
    };
    Policy { rank, ..policy }
}

/// The cluster in a few lines.
pub(super) fn describe(setup: &Setup) -> String {
    let mut text = String::new();
    let nodes: Vec<String> = setup.nodes.iter().map(|n| format!("{} ({:+} ppm)", n.name, n.clock_ppm)).collect();
    let _ = writeln!(
        text,
        "nodes: {}; {} networks; watchdog {:?}; fencing by {:?}",
        nodes.join(", "),
        setup.channels.len(),
        setup.watchdog,
        setup.fencing
    );
    for area in &setup.areas {
        let _ = writeln!(text, "lock area {}: {}", area.name, area.header.timing);
    }
    for h in &setup.hierarchies {
        let nodes: Vec<&str> = h.hierarchy.nodes.iter().map(NodeName::as_str).collect();
        let parts: Vec<String> = h.hierarchy.resources.iter().map(|r| format!("{}{:?}", r.name, r.requires)).collect();
        let (name, policy) = (&h.hierarchy.name, &h.hierarchy.policy);
        let claim = match &h.claim {
            ClaimSetup::Lease(area) => format!("in {}", setup.areas[*area].name),
            ClaimSetup::Reservation(ReservationSetup { disks, timing, time_limit }) => {
                format!(
                    "by reservation of {} disks, {timing}, answers within {time_limit:?}, each {:?}",
                    disks.len(),
                    disks.first()
                )
            }
        };
        let _ = writeln!(
            text,
            "{name} on {} {claim}: {}; probed: {}; {policy:?}",
            nodes.join(" "),
            parts.join(" "),
            h.probed
        );
    }
    text
}
