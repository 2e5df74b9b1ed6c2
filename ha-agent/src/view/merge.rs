//! Puts the views of several nodes together.
//!
//! Decides whom to believe: a node about itself first, then whoever is in contact with it, then what it said last.

use std::collections::{BTreeMap, BTreeSet};

use ha_core::contact::AnnouncedPhase;
use ha_core::engine::{HierarchyView, NodeOpinion, Snapshot};
use ha_core::name::{HierarchyName, NodeName, Utility};

use super::{ClusterView, HierarchyStatus, NodeAnswer, NodeStatus, Place, Problem, Says, Source, problems};

/// What came of asking a node for its view.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// Its view.
    View(Box<Snapshot>),
    /// It did not answer: why.
    Missing(String),
}

/// Makes one picture of the view of the node that was asked, the answers of its peers, and what the agent itself has to
/// warn of.
pub(crate) fn merge(local: &Snapshot, answers: &BTreeMap<NodeName, Answer>, warnings: Vec<Problem>) -> ClusterView {
    let mut views: BTreeMap<&NodeName, &Snapshot> = BTreeMap::new();
    for (node, answer) in answers {
        if let Answer::View(view) = answer {
            views.insert(node, view);
        }
    }
    views.insert(&local.node, local);
    let names: BTreeSet<&HierarchyName> =
        views.values().flat_map(|view| view.hierarchies.iter().map(|h| &h.name)).collect();
    let hierarchies: Vec<HierarchyStatus> = names.into_iter().map(|name| hierarchy(name, local, &views)).collect();
    let nodes = nodes(local, &views, answers);
    let mut problems = warnings;
    problems.extend(problems::find(local, &views, &nodes, &hierarchies));
    problems.sort();
    problems.dedup();
    ClusterView { cluster: local.cluster.clone(), asked: local.node.clone(), problems, nodes, hierarchies }
}

fn nodes(
    local: &Snapshot,
    views: &BTreeMap<&NodeName, &Snapshot>,
    answers: &BTreeMap<NodeName, Answer>,
) -> Vec<NodeStatus> {
    let mut nodes: Vec<NodeStatus> = local
        .peers
        .iter()
        .map(|peer| {
            let view = views.get(&peer.node);
            NodeStatus {
                node: peer.node.clone(),
                answer: match (view, answers.get(&peer.node)) {
                    (Some(_), _) => NodeAnswer::Given,
                    (None, Some(Answer::Missing(why))) => NodeAnswer::Missing(why.clone()),
                    (None, _) => NodeAnswer::NotAsked,
                },
                heard: peer.state.clone(),
                heard_ms_ago: peer.heard_ms_ago,
                version: view.map_or_else(|| peer.version.clone(), |v| v.version.clone()),
                standby: view.map_or_else(|| peer.standby.clone(), |v| v.standby.clone()),
                leases: view.map(|v| v.leases.clone()).unwrap_or_default(),
                hears: view.map(|v| hears(v)).unwrap_or_default(),
            }
        })
        .collect();
    nodes.push(NodeStatus {
        node: local.node.clone(),
        answer: NodeAnswer::Given,
        heard: "here".to_owned(),
        heard_ms_ago: None,
        version: local.version.clone(),
        standby: local.standby.clone(),
        leases: local.leases.clone(),
        hears: hears(local),
    });
    nodes.sort_by(|a, b| a.node.cmp(&b.node));
    nodes
}

fn hears(view: &Snapshot) -> BTreeMap<NodeName, String> {
    view.peers.iter().map(|peer| (peer.node.clone(), peer.state.clone())).collect()
}

fn view_of<'a>(view: &'a Snapshot, name: &HierarchyName) -> Option<&'a HierarchyView> {
    view.hierarchies.iter().find(|h| h.name == *name)
}

fn hierarchy(name: &HierarchyName, local: &Snapshot, views: &BTreeMap<&NodeName, &Snapshot>) -> HierarchyStatus {
    let at_home = view_of(local, name);
    let any = at_home.or_else(|| views.values().find_map(|v| view_of(v, name)));
    let order: Vec<NodeName> = any.map(|h| h.nodes.iter().map(|n| n.node.clone()).collect()).unwrap_or_default();
    let nodes: Vec<Says> = order.iter().map(|node| says(node, name, local, views)).collect();
    let place = place(&nodes);
    let there = place.node().and_then(|node| views.get(node)).and_then(|view| view_of(view, name));
    let latest = views
        .values()
        .filter_map(|v| view_of(v, name))
        .map(|h| &h.directive)
        .reduce(|a, b| if b.is_later_than(a) { b } else { a });
    HierarchyStatus {
        name: name.clone(),
        epoch: nodes.iter().map(|n| n.epoch).max().unwrap_or_default(),
        for_ms: there.map(|h| h.phase_for_ms),
        detail: there.and_then(|h| h.detail.clone()),
        directive: latest.cloned().unwrap_or_default(),
        resources: there.map(|h| h.resources.clone()).unwrap_or_default(),
        place,
        nodes,
    }
}

fn says(node: &NodeName, name: &HierarchyName, local: &Snapshot, views: &BTreeMap<&NodeName, &Snapshot>) -> Says {
    let at_home = view_of(local, name);
    if let Some(view) = views.get(node) {
        return of_itself(node, view, view_of(view, name), at_home);
    }
    let opinions = views.iter().filter_map(|(who, view)| {
        let opinion = view_of(view, name)?.nodes.iter().find(|n| n.node == *node)?;
        Some((*who, opinion))
    });
    let best = opinions
        .max_by_key(|(who, opinion)| (opinion.in_contact, opinion.phase.is_some(), opinion.epoch, **who == local.node));
    match best {
        Some((who, opinion)) => of_another(node, who, opinion),
        None => unknown(node),
    }
}

fn of_itself(node: &NodeName, view: &Snapshot, own: Option<&HierarchyView>, at_home: Option<&HierarchyView>) -> Says {
    let Some(own) = own else {
        let missing = "it does not know the hierarchy: its file is missing or wrong there".to_owned();
        return Says { source: Source::Itself, ineligible: Some(missing), ..unknown(node) };
    };
    let standby = view.standby.as_ref().map(|why| format!("standby: {why}"));
    let declined = own.declined.as_ref().map(|why| format!("declined: {why}"));
    let unready = own.unready.as_ref().map(|what| format!("not ready: {what}"));
    let useless = (own.utility == Utility::NONE).then(|| format!("utility 0: {}", own.utility_facts));
    Says {
        node: node.clone(),
        source: Source::Itself,
        phase: Some(own.phase),
        epoch: own.epoch,
        utility: own.utility,
        standing: Some(own.standing.clone()),
        ineligible: standby.or(unready).or(declined).or(useless),
        definition_differs: at_home.is_some_and(|home| home.definition != own.definition),
    }
}

fn of_another(node: &NodeName, who: &NodeName, opinion: &NodeOpinion) -> Says {
    Says {
        node: node.clone(),
        source: if opinion.in_contact { Source::HeardBy(who.clone()) } else { Source::LastHeard },
        phase: opinion.phase,
        epoch: opinion.epoch,
        utility: opinion.utility,
        standing: None,
        ineligible: opinion.ineligible.clone(),
        definition_differs: opinion.definition_differs,
    }
}

fn unknown(node: &NodeName) -> Says {
    Says {
        node: node.clone(),
        source: Source::LastHeard,
        phase: None,
        epoch: ha_core::name::Epoch::ZERO,
        utility: Utility::FULL,
        standing: None,
        ineligible: None,
        definition_differs: false,
    }
}

fn place(nodes: &[Says]) -> Place {
    let holders: Vec<&Says> = nodes.iter().filter(|n| n.holds()).collect();
    match holders.as_slice() {
        [] => nodes
            .iter()
            .find(|n| n.source != Source::LastHeard && n.phase == Some(AnnouncedPhase::Claiming))
            .map_or(Place::Out, |n| Place::Changing(n.node.clone(), AnnouncedPhase::Claiming)),
        [one] => match one.phase {
            Some(AnnouncedPhase::InService) | None => Place::InService(one.node.clone()),
            Some(phase) => Place::Changing(one.node.clone(), phase),
        },
        many => Place::Disputed(many.iter().map(|n| n.node.clone()).collect()),
    }
}
