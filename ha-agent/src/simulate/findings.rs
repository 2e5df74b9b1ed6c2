//! What breaks, and what would shorten it, in sentences.
//!
//! Decides which of the outcomes deserve a word, and how bad each is.

use std::collections::BTreeMap;
use std::time::Duration;

use ha_core::name::{HierarchyName, NodeName};
use ha_core::sim::WatchdogSetup;

use super::stage::area_of;
use super::trial::ms;
use super::{Outcome, Served, Spent, Stage};
use crate::view::{Problem, Severity};
use crate::words::{ago, and};

/// Waits for leases that are longer than this are worth a word.
const LONG_LEASE_MS: u64 = 1_000;

/// Everything worth a word, the worst first.
pub(crate) fn findings(stage: &Stage, outcomes: &[Outcome]) -> Vec<Problem> {
    let mut found = never_served(outcomes);
    found.extend(outcomes.iter().filter_map(|outcome| violation(stage, outcome)));
    found.extend(outcomes.iter().filter_map(|outcome| {
        let what = outcome.failed.clone()?;
        Some(Problem { severity: Severity::Error, about: outcome.what.clone(), what, help: None })
    }));
    found.extend(nobody_left(stage, outcomes));
    found.extend(left_alone(outcomes));
    found.extend(leases(stage, outcomes));
    found.extend(stand_ins(stage));
    found.sort();
    found.dedup();
    found
}

/// Whether everything is served again that a node is left for, and nothing that must not be was so. Of all losses that were tried, only those of
/// one node may leave no hierarchy without any node.
pub(crate) fn is_well(outcomes: &[Outcome]) -> bool {
    let tolerable = |outcome: &Outcome, served: &Served| {
        served.to.is_some() || (outcomes.len() > 1 && outcome.lost.len() > 1 && !served.could)
    };
    outcomes.iter().all(|outcome| {
        outcome.violation.is_none()
            && outcome.failed.is_none()
            && outcome.hierarchies.iter().all(|served| tolerable(outcome, served))
    })
}

fn never_served(outcomes: &[Outcome]) -> Vec<Problem> {
    let Some(outcome) = outcomes.first() else { return Vec::new() };
    let never = outcome.hierarchies.iter().filter(|served| served.from.is_none());
    let problem = |served: &Served| Problem {
        severity: Severity::Error,
        about: served.name.clone(),
        what: format!("it is not in service even before anything happens{}", because(served)),
        help: Some(
            "its start times may be longer than its time-outs: --start-time, and `timeouts` in its file".to_owned(),
        ),
    };
    never.map(problem).collect()
}

fn violation(stage: &Stage, outcome: &Outcome) -> Option<Problem> {
    let violation = outcome.violation.clone()?;
    let help = match stage.setup.watchdog {
        WatchdogSetup::Device { .. } => None,
        WatchdogSetup::Warden => Some(
            "a warden stops when its machine does, and nothing else ends what runs there: `watchdog: Device(\"/dev/watchdog\")` \
             in agent.ron does",
        ),
        WatchdogSetup::None => Some(
            "nothing ends what runs on a node that cannot prove its lease: set `watchdog: Device(\"/dev/watchdog\")`, or at least \
             `watchdog: Warden`, in agent.ron",
        ),
    };
    let what = format!("UNSAFE, and simulated no further: {violation}");
    Some(Problem { severity: Severity::Error, about: outcome.what.clone(), what, help: help.map(str::to_owned) })
}

/// Hierarchies whose nodes are all gone; those with the same nodes together.
fn nobody_left(stage: &Stage, outcomes: &[Outcome]) -> Vec<Problem> {
    let mut by_nodes: BTreeMap<Vec<&NodeName>, (Severity, Vec<String>)> = BTreeMap::new();
    for outcome in outcomes {
        for (served, setup) in outcome.hierarchies.iter().zip(&stage.setup.hierarchies) {
            if served.could || served.to.is_some() {
                continue;
            }
            let severity =
                if outcomes.len() == 1 || outcome.lost.len() == 1 { Severity::Error } else { Severity::Warning };
            let mut nodes: Vec<&NodeName> = setup.hierarchy.nodes.iter().collect();
            nodes.sort();
            let (worst, names) = by_nodes.entry(nodes).or_insert((severity, Vec::new()));
            *worst = severity.min(*worst);
            if !names.contains(&served.name) {
                names.push(served.name.clone());
            }
        }
    }
    let problem = |(nodes, (severity, names)): (Vec<&NodeName>, (Severity, Vec<String>))| {
        let nodes: Vec<&str> = nodes.into_iter().map(NodeName::as_str).collect();
        let (it, its) = if names.len() == 1 { ("it", "its") } else { ("them", "their") };
        let what = match nodes.as_slice() {
            [only] => format!("after losing {only} nothing can run {it}: {only} is {its} only node"),
            more => format!("after losing {} nothing can run {it}: {its} nodes are {} only", and(more), and(more)),
        };
        let help = format!("other nodes that reach {its} storage can be added to `nodes`");
        Problem { severity, about: names.join(", "), what, help: Some(help) }
    };
    by_nodes.into_iter().map(problem).collect()
}

/// Hierarchies that are not served although a node is left.
fn left_alone(outcomes: &[Outcome]) -> Vec<Problem> {
    let whole = outcomes.iter().filter(|outcome| outcome.violation.is_none() && outcome.failed.is_none());
    let of = |outcome: &Outcome| {
        let alone = |served: &&Served| served.could && served.to.is_none() && served.from.is_some();
        let problem = |served: &Served| Problem {
            severity: Severity::Error,
            about: served.name.clone(),
            what: format!("it stays out of service after this: {}{}", outcome.what, because(served)),
            help: None,
        };
        outcome.hierarchies.iter().filter(alone).map(problem).collect::<Vec<_>>()
    };
    whole.flat_map(of).collect()
}

fn because(served: &Served) -> String {
    if served.why.is_empty() { String::new() } else { format!(". {}", served.why.join(". ")) }
}

/// What is simulated otherwise than it is: reservations.
fn stand_ins(stage: &Stage) -> Vec<Problem> {
    let problem = |(name, length): (&HierarchyName, Duration)| Problem {
        severity: Severity::Note,
        about: name.to_string(),
        what: format!(
            "it is claimed by reservation, and a lease of {} stands in for that here, about as long as a silent holder is challenged: \
             what is said of times and places holds, what is said of its disks (a lease that ends, a node that is reset) does not",
            ago(ms(length))
        ),
        help: Some("`ha claim test` shows what the disks do, and `ha arm` that a holder can be cut off".to_owned()),
    };
    stage.stand_ins().map(problem).collect()
}

/// The longest wait for a lease in each lock area, if it is most of an outage.
fn leases(stage: &Stage, outcomes: &[Outcome]) -> Vec<Problem> {
    let mut longest: BTreeMap<usize, (Spent, &Served, &Outcome)> = BTreeMap::new();
    for outcome in outcomes {
        for (served, setup) in outcome.hierarchies.iter().zip(&stage.setup.hierarchies) {
            let Some(spent) = served.spent else { continue };
            let most = !stage.is_stand_in(area_of(setup))
                && spent.claim_ms > spent.detect_ms + spent.start_ms
                && spent.claim_ms > LONG_LEASE_MS;
            if most && longest.get(&area_of(setup)).is_none_or(|(other, ..)| other.claim_ms < spent.claim_ms) {
                longest.insert(area_of(setup), (spent, served, outcome));
            }
        }
    }
    let problem = |(area, (spent, served, outcome)): (usize, (Spent, &Served, &Outcome))| {
        let (name, timing) = (&stage.setup.areas[area].name, stage.setup.areas[area].header.timing);
        let what = format!(
            "when {}, {} of the {} without {} are spent waiting for the lease to end, which takes {} after its last renewal",
            outcome.what,
            ago(spent.claim_ms),
            ago(served.out_ms),
            served.name,
            ago(ms(timing.expires_after())),
        );
        let help = format!(
            "shorter with less `deadline` ({}; how long the storage may stall) or `watchdog` ({}), set when the lock area is made",
            ago(ms(timing.deadline())),
            ago(ms(timing.watchdog()))
        );
        Problem { severity: Severity::Note, about: format!("lock area {name}"), what, help: Some(help) }
    };
    longest.into_iter().map(problem).collect()
}
