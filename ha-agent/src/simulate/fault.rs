//! What is done to the simulated cluster: the options of the command line, in words and as actions.
//!
//! Decides what each fault means for machines and networks. Leaves what comes of it to the simulator.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use ha_core::name::{HierarchyName, NodeName, ResourceName};
use ha_core::sim::{Action, Path, Setup, World};

use crate::exit::{Exit, Failure};
use crate::words::and;

/// A resource of a hierarchy, written `HIERARCHY/RESOURCE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// The hierarchy.
    pub(crate) hierarchy: HierarchyName,
    /// The resource.
    pub(crate) resource: ResourceName,
}

impl FromStr for Part {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (hierarchy, resource) = text
            .split_once('/')
            .ok_or_else(|| format!("{text:?} is no resource: expected HIERARCHY/RESOURCE, such as web/server"))?;
        Ok(Part {
            hierarchy: HierarchyName::new(hierarchy).map_err(|e| e.to_string())?,
            resource: ResourceName::new(resource).map_err(|e| e.to_string())?,
        })
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.hierarchy, self.resource)
    }
}

impl Part {
    /// The position of its hierarchy, if there are both.
    pub(crate) fn find(&self, setup: &Setup) -> Result<usize, Failure> {
        let hierarchies = &setup.hierarchies;
        let Some(h) = hierarchies.iter().position(|h| h.hierarchy.name == self.hierarchy) else {
            let known: Vec<&str> = hierarchies.iter().map(|h| h.hierarchy.name.as_str()).collect();
            return Err(unknown("hierarchy", self.hierarchy.as_str(), "the files", &known));
        };
        let known: Vec<&str> = hierarchies[h].hierarchy.resources.iter().map(|r| r.name.as_str()).collect();
        if known.contains(&self.resource.as_str()) {
            Ok(h)
        } else {
            Err(unknown("resource", self.resource.as_str(), self.hierarchy.as_str(), &known))
        }
    }
}

/// How a network is cut: groups of nodes that do not hear each other, written `alpha,beta|gamma`. A single group is cut from all others; a node
/// in no group hears all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Groups(Vec<Vec<NodeName>>);

impl FromStr for Groups {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let group =
            |names: &str| names.split(',').map(|n| NodeName::new(n.trim()).map_err(|e| e.to_string())).collect();
        let groups: Vec<Vec<NodeName>> = text.split('|').map(group).collect::<Result<_, _>>()?;
        let mut all: Vec<&NodeName> = groups.iter().flatten().collect();
        all.sort();
        match all.windows(2).find(|two| two[0] == two[1]) {
            Some(twice) => Err(format!("{} stands in it twice", twice[0])),
            None => Ok(Groups(groups)),
        }
    }
}

/// Whose path to the storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    /// Of all nodes.
    All,
    /// Of this one.
    Of(NodeName),
}

impl FromStr for Whose {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Whose::All);
        }
        NodeName::new(text).map(Whose::Of).map_err(|e| e.to_string())
    }
}

/// One thing that happens to the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A node loses its power, for good.
    Kill(NodeName),
    /// A machine stops wholly.
    Hang(NodeName),
    /// The agent stops, its machine goes on.
    HangAgent(NodeName),
    /// No node of one group hears one of another.
    Cut(Groups),
    /// A node reaches the lock areas no more; it goes on otherwise.
    StorageLoss(Whose),
    /// The program of a resource ends, where it is in service.
    Crash(Part),
    /// The agents are restarted one after another, as in an update.
    RestartAgents,
}

/// From one restart of an agent to the next.
const BETWEEN_RESTARTS: Duration = Duration::from_secs(5);
/// As a supervisor needs it.
const RESTART_TAKES: Duration = Duration::from_millis(300);

impl Fault {
    /// Whether everything that it names is there.
    pub(crate) fn check(&self, setup: &Setup) -> Result<(), Failure> {
        let nodes: Vec<&NodeName> = match self {
            Fault::Kill(node) | Fault::Hang(node) | Fault::HangAgent(node) | Fault::StorageLoss(Whose::Of(node)) => {
                vec![node]
            }
            Fault::Cut(Groups(groups)) => groups.iter().flatten().collect(),
            Fault::Crash(part) => return part.find(setup).map(|_| ()),
            Fault::StorageLoss(Whose::All) | Fault::RestartAgents => Vec::new(),
        };
        match nodes.into_iter().find(|node| setup.node(node).is_none()) {
            Some(node) => {
                let known: Vec<&str> = setup.nodes.iter().map(|n| n.name.as_str()).collect();
                Err(unknown("node", node.as_str(), "agent.ron", &known))
            }
            None => Ok(()),
        }
    }

    /// The node that does not come back, or serves nothing any more, by what was done to it.
    pub(crate) fn loses(&self) -> Option<&NodeName> {
        match self {
            Fault::Kill(node) => Some(node),
            _ => None,
        }
    }

    /// What happens, and how long after the begin.
    pub(crate) fn actions(&self, world: &World) -> Vec<(Duration, Action)> {
        let nodes = || world.setup().nodes.iter().map(|node| node.name.clone());
        let now = |action: Action| vec![(Duration::ZERO, action)];
        match self {
            Fault::Kill(node) => now(Action::PowerOff(node.clone())),
            Fault::Hang(node) => now(Action::Freeze(node.clone())),
            Fault::HangAgent(node) => now(Action::PauseAgent(node.clone())),
            Fault::StorageLoss(Whose::Of(node)) => now(Action::Storage(node.clone(), Path::Lost)),
            Fault::StorageLoss(Whose::All) => {
                nodes().map(|node| (Duration::ZERO, Action::Storage(node, Path::Lost))).collect()
            }
            Fault::Cut(groups) => {
                let group = |node: &NodeName| groups.0.iter().position(|group| group.contains(node));
                let alone = groups.0.len() == 1;
                let apart = |a: &NodeName, b: &NodeName| match (group(a), group(b)) {
                    (Some(a), Some(b)) => a != b,
                    (a, b) => alone && a != b,
                };
                let pairs = nodes().flat_map(|from| nodes().map(move |to| (from.clone(), to)));
                let cut = |(from, to)| (Duration::ZERO, Action::Cut { from, to, channel: None });
                pairs.filter(|(from, to)| apart(from, to)).map(cut).collect()
            }
            Fault::Crash(part) => {
                let h = world.setup().hierarchies.iter().position(|h| h.hierarchy.name == part.hierarchy);
                let on = h.and_then(|h| world.service(h).last()).and_then(|service| service.on);
                let Part { hierarchy, resource } = part.clone();
                let crash = |n: usize| Action::Crash { node: world.setup().nodes[n].name.clone(), hierarchy, resource };
                on.map(crash).map(now).unwrap_or_default()
            }
            Fault::RestartAgents => {
                let restart = |(i, node): (u32, NodeName)| {
                    let at = BETWEEN_RESTARTS * i;
                    [(at, Action::KillAgent(node.clone())), (at + RESTART_TAKES, Action::StartAgent(node))]
                };
                (0..).zip(nodes()).flat_map(restart).collect()
            }
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Kill(node) => write!(f, "{node} loses power"),
            Fault::Hang(node) => write!(f, "{node} hangs"),
            Fault::HangAgent(node) => write!(f, "the agent of {node} hangs"),
            Fault::Cut(Groups(groups)) => {
                let group = |g: &Vec<NodeName>| g.iter().map(NodeName::as_str).collect::<Vec<_>>().join(", ");
                match groups.as_slice() {
                    [one] => write!(f, "the network between {} and all others is cut", group(one)),
                    more => {
                        let groups: Vec<String> = more.iter().map(group).collect();
                        write!(f, "the network is cut: {}", groups.join(" | "))
                    }
                }
            }
            Fault::StorageLoss(Whose::Of(node)) => write!(f, "{node} reaches the storage no more"),
            Fault::StorageLoss(Whose::All) => f.write_str("no node reaches the storage any more"),
            Fault::Crash(part) => write!(f, "{part} crashes"),
            Fault::RestartAgents => f.write_str("the agents are restarted one after another"),
        }
    }
}

/// Faults that happen at one moment: "alpha and beta lose power; gamma hangs".
pub(crate) fn in_words(faults: &[Fault]) -> String {
    let killed: Vec<&str> = faults.iter().filter_map(Fault::loses).map(NodeName::as_str).collect();
    let mut words: Vec<String> = faults.iter().filter(|f| f.loses().is_none()).map(ToString::to_string).collect();
    match killed.as_slice() {
        [] => {}
        [one] => words.insert(0, format!("{one} loses power")),
        more => words.insert(0, format!("{} lose power", and(more))),
    }
    words.join("; ")
}

fn unknown(what: &str, name: &str, place: &str, known: &[&str]) -> Failure {
    Failure::new(Exit::BadInput, format!("there is no {what} {name:?} in {place}"))
        .help(format!("expected one of: {}", known.join(", ")))
}
