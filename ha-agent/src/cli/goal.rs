//! What a command waits for, and how far it is. Pure.

use ha_core::engine::Switch;
use ha_core::name::{HierarchyName, NodeName};

use crate::view::{ClusterView, HierarchyStatus, Place, Severity};

/// A state of the cluster that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    /// The hierarchy is in service somewhere.
    InService {
        /// Which.
        hierarchy: HierarchyName,
    },
    /// No node in contact has it any more.
    Stopped {
        /// Which.
        hierarchy: HierarchyName,
    },
    /// It is in service on `to`; if that is not given, on another node than before.
    Moved {
        /// Which.
        hierarchy: HierarchyName,
        /// The node that had it.
        from: Option<NodeName>,
        /// The node that is to have it.
        to: Option<NodeName>,
    },
    /// It has no pin.
    Unpinned {
        /// Which.
        hierarchy: HierarchyName,
    },
    /// Maintenance is as asked for.
    Maintenance {
        /// Which.
        hierarchy: HierarchyName,
        /// As it is to be.
        switch: Switch,
    },
    /// It is not in quarantine.
    Cleared {
        /// Which.
        hierarchy: HierarchyName,
    },
    /// The node is in standby and has nothing any more.
    Idle {
        /// Which; the one that is asked if not given.
        node: Option<NodeName>,
    },
    /// The node is not in standby.
    Online {
        /// Which; the one that is asked if not given.
        node: Option<NodeName>,
    },
    /// The agent that was asked answers no more.
    AgentEnded,
}

/// How far a goal is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It is reached: what is seen.
    Done(String),
    /// Not yet: what is seen.
    Pending(String),
    /// It will not be reached by waiting: why.
    Hopeless(String),
}

impl Goal {
    /// How far it is, in this view.
    pub(crate) fn progress(&self, view: &ClusterView) -> Progress {
        match self {
            Goal::InService { hierarchy } => {
                with(view, hierarchy, |h| moved(h, None, None).unwrap_or_else(|| Progress::Pending(describe(view, h))))
            }
            Goal::Moved { hierarchy, from, to } => with(view, hierarchy, |h| {
                moved(h, from.as_ref(), to.as_ref()).unwrap_or_else(|| Progress::Pending(describe(view, h)))
            }),
            Goal::Stopped { hierarchy } => with(view, hierarchy, |h| match &h.place {
                Place::Out => Progress::Done(format!("{} is stopped", h.name)),
                _ => Progress::Pending(describe(view, h)),
            }),
            Goal::Unpinned { hierarchy } => {
                with(view, hierarchy, |h| seen(h.directive.pin.is_none(), format!("{} has no pin", h.name), view, h))
            }
            Goal::Maintenance { hierarchy, switch } => with(view, hierarchy, |h| {
                let (wanted, words) = match switch {
                    Switch::On => (true, "in maintenance"),
                    Switch::Off => (false, "not in maintenance"),
                };
                seen(h.directive.maintenance == wanted, format!("{} is {words}", h.name), view, h)
            }),
            Goal::Cleared { hierarchy } => with(view, hierarchy, |h| {
                seen(h.directive.quarantined.is_none(), format!("{} is cleared", h.name), view, h)
            }),
            Goal::Idle { node } => idle(view, node.as_ref().unwrap_or(&view.asked)),
            Goal::Online { node } => {
                let node = node.as_ref().unwrap_or(&view.asked);
                match view.node(node) {
                    Some(status) if status.standby.is_none() => Progress::Done(format!("{node} is online")),
                    _ => Progress::Pending(format!("{node} is in standby")),
                }
            }
            Goal::AgentEnded => Progress::Pending(serving(view, &view.asked)),
        }
    }
}

fn with(view: &ClusterView, name: &HierarchyName, judge: impl FnOnce(&HierarchyStatus) -> Progress) -> Progress {
    match view.hierarchy(name) {
        Some(hierarchy) => judge(hierarchy),
        None => Progress::Hopeless(format!("there is no hierarchy {name} any more")),
    }
}

fn seen(reached: bool, done: String, view: &ClusterView, hierarchy: &HierarchyStatus) -> Progress {
    if reached { Progress::Done(done) } else { Progress::Pending(describe(view, hierarchy)) }
}

fn moved(hierarchy: &HierarchyStatus, from: Option<&NodeName>, to: Option<&NodeName>) -> Option<Progress> {
    if let Some(why) = &hierarchy.directive.quarantined {
        return Some(Progress::Hopeless(format!("{} is in quarantine: {why}", hierarchy.name)));
    }
    let Place::InService(on) = &hierarchy.place else { return None };
    let there = match to {
        Some(to) => on == to,
        None => from != Some(on),
    };
    // Somewhere else than asked, with the pin gone: the target failed, and the hierarchy went on without it.
    if !there && to.is_some() && hierarchy.directive.pin.as_ref() != to {
        return Some(Progress::Hopeless(format!(
            "{} is in service on {on}: it could not be brought into service where it was to go",
            hierarchy.name
        )));
    }
    there.then(|| Progress::Done(format!("{} is in service on {on}, epoch {}", hierarchy.name, hierarchy.epoch)))
}

fn idle(view: &ClusterView, node: &NodeName) -> Progress {
    let standby = view.node(node).is_some_and(|n| n.standby.is_some());
    let has_something = view.hierarchies.iter().any(|h| h.nodes.iter().any(|n| n.node == *node && n.holds()));
    if standby && !has_something {
        Progress::Done(format!("{node} is in standby and serves nothing"))
    } else {
        Progress::Pending(serving(view, node))
    }
}

fn serving(view: &ClusterView, node: &NodeName) -> String {
    let names: Vec<&str> = view
        .hierarchies
        .iter()
        .filter(|h| h.nodes.iter().any(|n| n.node == *node && n.holds()))
        .map(|h| h.name.as_str())
        .collect();
    if names.is_empty() {
        format!("{node} serves nothing any more")
    } else {
        format!("{node} still has {}", names.join(", "))
    }
}

/// Where the hierarchy is, and the worst that is known of it.
fn describe(view: &ClusterView, hierarchy: &HierarchyStatus) -> String {
    let name = &hierarchy.name;
    let place = match &hierarchy.place {
        Place::InService(on) => format!("{name} is in service on {on}"),
        Place::Changing(on, phase) => {
            let detail = hierarchy.detail.as_ref().map(|d| format!(" ({d})")).unwrap_or_default();
            format!("{name} is {phase} on {on}{detail}")
        }
        Place::Disputed(_) => format!("{name} is claimed by more than one node"),
        Place::Out => format!("{name} is out of service"),
    };
    let trouble = view
        .problems
        .iter()
        .find(|p| p.about == name.as_str() && p.severity <= Severity::Warning && p.what != "out of service");
    match trouble {
        Some(problem) => format!("{place}; {}", problem.what),
        None => place,
    }
}

#[cfg(test)]
#[path = "goal_tests.rs"]
mod tests;
