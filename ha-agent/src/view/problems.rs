//! Finds what deserves the operator's attention in a set of views.
//!
//! Decides what is worth a line, how bad it is and what would help.

use std::collections::BTreeMap;
use std::fmt::Display;

use ha_core::contact::AnnouncedPhase;
use ha_core::engine::Snapshot;
use ha_core::name::{HierarchyName, NodeName};
use ha_core::recovery::Pressure;

use super::{HierarchyStatus, NodeAnswer, NodeStatus, Place, Problem, Says, Severity, Source};
use crate::words::ago;

/// All problems, in no particular order.
pub(super) fn find(
    local: &Snapshot,
    views: &BTreeMap<&NodeName, &Snapshot>,
    nodes: &[NodeStatus],
    hierarchies: &[HierarchyStatus],
) -> Vec<Problem> {
    let mut found = Found::default();
    for view in views.values() {
        of_node(view, &mut found);
    }
    for node in nodes {
        of_contact(local, node, nodes, &mut found);
    }
    of_cluster_files(views, &mut found);
    for hierarchy in hierarchies {
        of_hierarchy(hierarchy, views, &mut found);
    }
    found.0
}

#[derive(Default)]
struct Found(Vec<Problem>);

impl Found {
    fn add(&mut self, severity: Severity, about: impl ToString, what: impl Into<String>) {
        self.0.push(Problem { severity, about: about.to_string(), what: what.into(), help: None });
    }

    fn add_with_help(&mut self, severity: Severity, about: impl ToString, what: impl Into<String>, help: String) {
        self.0.push(Problem { severity, about: about.to_string(), what: what.into(), help: Some(help) });
    }
}

fn of_node(view: &Snapshot, found: &mut Found) {
    let node = &view.node;
    // What is wrong with a lease is told below, with what it means.
    let of_lease = |trouble: &&String| view.leases.iter().any(|l| trouble.starts_with(&format!("lease {}: ", l.name)));
    for trouble in view.troubles.iter().filter(|t| !of_lease(t)) {
        found.add(Severity::Warning, node, trouble);
    }
    if view.pressure == Pressure::High {
        let what = "its machine is under pressure: work waits for processors, memory or disks for much of the time";
        let help = "see /proc/pressure there; monitors that say nothing are borne with for longer meanwhile".to_owned();
        found.add_with_help(Severity::Note, node, what, help);
    }
    for lease in &view.leases {
        match (lease.good_for_ms, &lease.trouble) {
            (None, Some(why)) => {
                found.add(Severity::Error, node, format!("lease of lock area {} is not held: {why}", lease.name));
            }
            (Some(ms), Some(why)) => found.add(
                Severity::Error,
                node,
                format!("lease of lock area {} cannot be renewed (good for {} more): {why}", lease.name, ago(ms)),
            ),
            (None, None) => {
                found.add(Severity::Warning, node, format!("lease of lock area {} is not held yet", lease.name));
            }
            (Some(_), None) => {}
        }
    }
    if let Some(why) = &view.standby {
        let help = format!("`ha online {node}` ends that");
        found.add_with_help(Severity::Note, node, format!("in standby: {why}"), help);
    }
}

fn of_contact(local: &Snapshot, node: &NodeStatus, nodes: &[NodeStatus], found: &mut Found) {
    let name = &node.node;
    match node.heard.as_str() {
        "lost" => {
            let since = node.heard_ms_ago.map_or_else(
                || "not heard since this agent began".to_owned(),
                |ms| format!("last heard {} ago", ago(ms)),
            );
            found.add(Severity::Error, name, format!("contact with {name} is lost: {since}"));
        }
        "late" => found.add(Severity::Warning, name, format!("{name} is late: beats are missing")),
        "unknown" => {
            found.add(
                Severity::Warning,
                name,
                format!("{name} has not been heard since the agent on {} began", local.node),
            );
        }
        "left" => found.add(Severity::Note, name, format!("the agent on {name} ended in order")),
        _ => {}
    }
    if let NodeAnswer::Missing(why) = &node.answer {
        found.add(
            Severity::Warning,
            name,
            format!("{name} did not give its view ({why}): shown is what others heard of it"),
        );
    }
    let (mut hear, mut hear_not) = (Vec::new(), Vec::new());
    for other in nodes.iter().filter(|o| o.node != *name) {
        match other.hears.get(name).map(String::as_str) {
            Some("alive" | "late") => hear.push(other.node.as_str()),
            Some("lost" | "unknown") => hear_not.push(other.node.as_str()),
            _ => {}
        }
    }
    if let (false, false) = (hear.is_empty(), hear_not.is_empty()) {
        found.add(
            Severity::Warning,
            name,
            format!("views of contact differ: {} hears {name}, {} does not", hear.join(", "), hear_not.join(", ")),
        );
    }
}

fn of_cluster_files(views: &BTreeMap<&NodeName, &Snapshot>, found: &mut Found) {
    for view in views.values() {
        for peer in view.peers.iter().filter(|p| p.cluster_differs) {
            // Each of two nodes says so of the other: one line is enough.
            let (a, b) = if view.node < peer.node { (&view.node, &peer.node) } else { (&peer.node, &view.node) };
            found.add_with_help(
                Severity::Warning,
                "agent.ron",
                format!("{a} and {b} define the cluster differently"),
                "copy agent.ron from one node to the other, then `ha reload` or restart the agent".to_owned(),
            );
        }
    }
    let versions: BTreeMap<&str, &NodeName> = views.values().map(|v| (v.version.as_str(), &v.node)).collect();
    if versions.len() > 1 {
        let list: Vec<String> = versions.iter().map(|(version, node)| format!("{version} (on {node})")).collect();
        found.add(Severity::Note, "cluster", format!("nodes run different versions: {}", list.join(", ")));
    }
}

fn of_hierarchy(hierarchy: &HierarchyStatus, views: &BTreeMap<&NodeName, &Snapshot>, found: &mut Found) {
    let name = &hierarchy.name;
    of_place(hierarchy, found);
    of_directive(hierarchy, found);
    of_strangers(name, views, found);
    for resource in &hierarchy.resources {
        if let Some(trouble) = &resource.trouble {
            let on = hierarchy.place.node().map_or("?", NodeName::as_str);
            found.add(Severity::Warning, name, format!("{} on {on} is {}: {trouble}", resource.name, resource.state));
        }
    }
    let differing: Vec<&str> = hierarchy
        .nodes
        .iter()
        .filter(|n| n.definition_differs && n.source != Source::LastHeard)
        .map(|n| n.node.as_str())
        .collect();
    if !differing.is_empty() {
        found.add_with_help(
            Severity::Error,
            name,
            format!("defined differently on {}", differing.join(", ")),
            format!("copy hierarchies/{name}.ron to every node, then `ha reload` there"),
        );
    }
    for node in &hierarchy.nodes {
        let answered = views.contains_key(&node.node);
        if let (Some(why), true) = (&node.ineligible, answered && !why_is_standby(node)) {
            if why.contains("not the same disk") {
                let help =
                    "nobody takes the hierarchy while they differ: compare `ha claim show` on both nodes".to_owned();
                found.add_with_help(Severity::Error, name, format!("{}: {why}", node.node), help);
            } else if node.holds() {
                found.add(Severity::Warning, name, format!("{} has it, though: {why}", node.node));
            } else {
                found.add(Severity::Warning, name, format!("{} could not serve it: {why}", node.node));
            }
        }
    }
}

/// What a node says while it waits for somebody to give the claim up who does not belong to the cluster: [`Refusal::Stranger`].
///
/// [`Refusal::Stranger`]: ha_core::claim::Refusal::Stranger
const STRANGER: &str = "held by a stranger";

/// Nobody but an operator can do anything about it. All nodes see the same disk: the first that says so is enough.
fn of_strangers(name: &HierarchyName, views: &BTreeMap<&NodeName, &Snapshot>, found: &mut Found) {
    let waits = |view: &Snapshot| {
        let own = view.hierarchies.iter().find(|h| h.name == *name && h.phase == AnnouncedPhase::Waiting)?;
        own.detail.clone().filter(|detail| detail.starts_with(STRANGER))
    };
    if let Some((node, why)) = views.iter().find_map(|(node, view)| Some((node, waits(view)?))) {
        found.add_with_help(Severity::Error, name, format!("{node} may not take it: {why}"), of_a_stranger(name));
    }
}

/// What helps against keys that are none of this cluster's. `what` is a hierarchy or a disk.
pub(crate) fn of_a_stranger(what: impl Display) -> String {
    format!(
        "find out who uses the disk (see docs/reservations.md); if nobody does any more: `ha claim break {what} --reason …`"
    )
}

/// Standby is told once, of the node.
fn why_is_standby(node: &Says) -> bool {
    node.ineligible.as_ref().is_some_and(|why| why.starts_with("standby: "))
}

fn of_place(hierarchy: &HierarchyStatus, found: &mut Found) {
    let name = &hierarchy.name;
    let wanted_out = hierarchy.directive.stopped || hierarchy.directive.quarantined.is_some();
    match &hierarchy.place {
        Place::Disputed(nodes) => {
            let list: Vec<String> = hierarchy
                .nodes
                .iter()
                .filter(|n| nodes.contains(&n.node))
                .map(|n| format!("{} (epoch {})", n.node, n.epoch))
                .collect();
            found.add_with_help(
                Severity::Error,
                name,
                format!("more than one node says that it holds the claim: {}", list.join(", ")),
                "the node with the greater epoch has it; the other one must stop or be reset: look at its log"
                    .to_owned(),
            );
        }
        Place::Out if !wanted_out => {
            let last = hierarchy
                .nodes
                .iter()
                .find(|n| n.source == Source::LastHeard && n.phase.is_some_and(AnnouncedPhase::holds_claim));
            // In contact, by way of the storage for example, without a word.
            let silent: Vec<&str> = hierarchy
                .nodes
                .iter()
                .filter(|n| matches!(n.source, Source::HeardBy(_)) && n.phase.is_none() && n.ineligible.is_none())
                .map(|n| n.node.as_str())
                .collect();
            let what = match last {
                Some(last) => {
                    format!("out of service as far as can be seen; {} had it when it was last heard", last.node)
                }
                None if silent.is_empty() => "out of service".to_owned(),
                None => format!(
                    "out of service as far as can be seen; nothing that {} {} of it has arrived",
                    silent.join(", "),
                    if silent.len() == 1 { "says" } else { "say" }
                ),
            };
            found.add_with_help(Severity::Error, name, what, format!("`ha why {name}` tells the reasons"));
        }
        Place::Changing(node, AnnouncedPhase::StopFailed) => found.add_with_help(
            Severity::Error,
            name,
            format!("could not be stopped on {node}, which keeps the claim so that nobody else starts it"),
            format!("stop what is left of it on {node} by hand, then `ha clear {name}`"),
        ),
        Place::InService(_) | Place::Changing(..) | Place::Out => {}
    }
}

fn of_directive(hierarchy: &HierarchyStatus, found: &mut Found) {
    let name = &hierarchy.name;
    let directive = &hierarchy.directive;
    let by = if directive.by.is_empty() { String::new() } else { format!(", by {}", directive.by) };
    let reason = if directive.reason.is_empty() { String::new() } else { format!(": {}", directive.reason) };
    if let Some(why) = &directive.quarantined {
        found.add_with_help(
            Severity::Error,
            name,
            format!("in quarantine: {why}"),
            format!("repair the cause, then `ha clear {name}`"),
        );
    }
    if directive.stopped {
        found.add_with_help(
            Severity::Note,
            name,
            format!("stopped{by}{reason}"),
            format!("`ha start {name}` ends that"),
        );
    }
    if directive.maintenance {
        found.add_with_help(
            Severity::Warning,
            name,
            format!("in maintenance{by}{reason}: it is neither watched nor recovered"),
            format!("`ha maintenance {name} off` ends that"),
        );
    }
    if let Some(pin) = &directive.pin {
        found.add_with_help(
            Severity::Note,
            name,
            format!("pinned to {pin}{by}{reason}"),
            format!("`ha unpin {name}` ends that"),
        );
    }
}

#[cfg(test)]
mod tests {
    use ha_core::claim::Refusal;

    use super::*;
    use crate::view::samples::{NODES, cluster};

    #[test]
    fn a_strangers_disk_is_told_with_what_helps() {
        let refused = Refusal::Stranger("key 0x000000000000abcd has reserved /dev/one".to_owned()).to_string();
        let seen = cluster(|nodes| {
            for node in NODES {
                let web = &mut nodes.get_mut(node).unwrap().hierarchies[0];
                (web.phase, web.detail) = (AnnouncedPhase::Waiting, Some(refused.clone()));
            }
        });
        let told: Vec<&Problem> = seen.problems.iter().filter(|problem| problem.what.contains("abcd")).collect();
        let [told] = told[..] else { panic!("{:#?}", seen.problems) };
        assert_eq!(told.severity, Severity::Error);
        assert_eq!(told.what, format!("alpha may not take it: {refused}"));
        assert!(told.help.as_ref().unwrap().contains("`ha claim break web --reason"), "{told:?}");
    }

    #[test]
    fn a_machine_under_pressure_is_noted() {
        let seen = cluster(|nodes| nodes.get_mut("beta").unwrap().pressure = Pressure::High);
        let [told] = &seen.problems[..] else { panic!("{:#?}", seen.problems) };
        assert_eq!((told.severity, told.about.as_str()), (Severity::Note, "beta"));
        assert!(told.what.contains("under pressure"), "{told:?}");
    }
}
