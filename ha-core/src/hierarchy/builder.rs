//! Hierarchies from code, for embedders without files.
//!
//! Decides nothing more than the reader of files does, and checks the same. Leaves the code of resources to the driver.

use std::fmt;
use std::time::Duration;

use super::digest;
use super::graph::{self, GraphError, Named};
use super::model::{Hierarchy, Monitor, Policy, Rank, ResourceSpec, Timeouts};
use crate::name::{HierarchyName, InvalidName, NodeName, ResourceName};

/// One thing that is wrong with a hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HierarchyError {
    /// A name breaks the rules of names.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// No node may serve it.
    #[error("hierarchy {0} has no nodes: expected at least one")]
    NoNodes(HierarchyName),
    /// A node is listed twice.
    #[error("hierarchy {hierarchy} lists node {node} twice")]
    NodeTwice {
        /// The hierarchy.
        hierarchy: HierarchyName,
        /// The node.
        node: NodeName,
    },
    /// Two resources have one name.
    #[error("hierarchy {hierarchy} has two resources named {resource}")]
    ResourceTwice {
        /// The hierarchy.
        hierarchy: HierarchyName,
        /// The name.
        resource: ResourceName,
    },
    /// A resource requires one that there is not.
    #[error("resource {resource} of hierarchy {hierarchy} requires {requires}, which is not one of its resources")]
    UnknownRequirement {
        /// The hierarchy.
        hierarchy: HierarchyName,
        /// The resource.
        resource: ResourceName,
        /// What it requires.
        requires: ResourceName,
    },
    /// A resource requires itself.
    #[error(
        "resource {resource} of hierarchy {hierarchy} requires itself: `requires` without names means only the claim"
    )]
    RequiresItself {
        /// The hierarchy.
        hierarchy: HierarchyName,
        /// The resource.
        resource: ResourceName,
    },
    /// Something has a value that it cannot have.
    #[error("{what} of {of} has a value that it cannot have: expected {expected}")]
    OutOfRange {
        /// "hierarchy web", "resource data".
        of: String,
        /// The field.
        what: &'static str,
        /// What would have been accepted.
        expected: &'static str,
    },
    /// Resources require each other in a circle.
    #[error("resources of hierarchy {hierarchy} require each other in a circle: {path}")]
    Cycle {
        /// The hierarchy.
        hierarchy: HierarchyName,
        /// "a → b → a".
        path: String,
    },
}

/// Why a hierarchy was not built: everything that is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HierarchyErrors(pub Vec<HierarchyError>);

impl fmt::Display for HierarchyErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "; " };
            write!(f, "{comma}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for HierarchyErrors {}

/// A resource being described.
#[derive(Clone, Debug)]
pub struct ResourceBuilder {
    name: String,
    requires: Option<Vec<String>>,
    timeouts: Timeouts,
    monitor: Monitor,
    version: String,
}

impl ResourceBuilder {
    /// A resource that requires the one added before it.
    pub fn new(name: impl Into<String>) -> Self {
        ResourceBuilder {
            name: name.into(),
            requires: None,
            timeouts: Timeouts::default(),
            monitor: Monitor::default(),
            version: String::new(),
        }
    }

    /// Requires these and no others; nothing at all means only the claim.
    #[must_use]
    pub fn requires<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.requires = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// How long its operations may take.
    #[must_use]
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    /// How it is watched.
    #[must_use]
    pub fn monitor(mut self, monitor: Monitor) -> Self {
        self.monitor = monitor;
        self
    }

    /// Anything that changes when the resource must be restarted to take a new definition on.
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = version.into();
        self
    }
}

/// A hierarchy being described.
///
/// ```
/// use ha_core::hierarchy::{Hierarchy, ResourceBuilder};
///
/// let web = Hierarchy::builder("web")
///     .nodes(["alpha", "beta"])
///     .resource(ResourceBuilder::new("data"))
///     .resource(ResourceBuilder::new("address").requires([""; 0]))
///     .resource(ResourceBuilder::new("server").requires(["data", "address"]))
///     .build()?;
/// assert_eq!(web.resources[2].requires, [0, 1]);
/// # Ok::<(), ha_core::hierarchy::HierarchyErrors>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is checked before `build`"]
pub struct HierarchyBuilder {
    name: String,
    nodes: Vec<String>,
    resources: Vec<ResourceBuilder>,
    policy: Policy,
    claim: String,
}

impl Hierarchy {
    /// Begins to describe a hierarchy.
    pub fn builder(name: impl Into<String>) -> HierarchyBuilder {
        HierarchyBuilder {
            name: name.into(),
            nodes: Vec::new(),
            resources: Vec::new(),
            policy: Policy::default(),
            claim: String::new(),
        }
    }
}

impl HierarchyBuilder {
    /// The nodes that may serve it, the preferred one first.
    pub fn nodes<N: Into<String>>(mut self, nodes: impl IntoIterator<Item = N>) -> Self {
        self.nodes.extend(nodes.into_iter().map(Into::into));
        self
    }

    /// Adds a resource.
    pub fn resource(mut self, resource: ResourceBuilder) -> Self {
        self.resources.push(resource);
        self
    }

    /// How it is treated.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Anything that changes when the claim is another one.
    pub fn claim_version(mut self, version: impl Into<String>) -> Self {
        self.claim = version.into();
        self
    }

    /// Checks it, as far as it can be, whatever is wrong with it.
    pub fn build(self) -> Result<Hierarchy, HierarchyErrors> {
        let mut errors = Vec::new();
        let name = keep(HierarchyName::new(&self.name), &mut errors);
        // Without a name there is nothing to report the rest by.
        let Some(name) = name else { return Err(HierarchyErrors(errors)) };
        let nodes = check_nodes(&name, &self.nodes, &mut errors);
        check_policy(&name, &self.policy, &mut errors);
        let named = check_resources(&self.resources, &mut errors);
        let sorted = match graph::sort(&named) {
            Ok(sorted) if errors.is_empty() => sorted,
            Ok(_) => return Err(HierarchyErrors(errors)),
            Err(wrong) => {
                errors.extend(wrong.into_iter().map(|error| explain(&name, &named, error)));
                return Err(HierarchyErrors(errors));
            }
        };
        let spec = |(requires, old): (Vec<usize>, usize)| {
            let resource = &self.resources[old];
            ResourceSpec {
                name: named[old].0.clone(),
                kind: "custom".to_owned(),
                requires,
                timeouts: resource.timeouts,
                monitor: resource.monitor,
                fingerprint: digest::of_parts([resource.name.as_str(), &resource.version]),
            }
        };
        let resources: Vec<ResourceSpec> = sorted.requires.into_iter().zip(sorted.order).map(spec).collect();
        let described = format!("{:?}", (&self.name, &self.nodes, &resources, &self.policy, &self.claim));
        Ok(Hierarchy {
            name,
            nodes,
            resources,
            policy: self.policy,
            claim: digest::of_parts([self.claim.as_str()]),
            fingerprint: digest::of_parts([described.as_str()]),
        })
    }
}

fn keep<T>(checked: Result<T, InvalidName>, errors: &mut Vec<HierarchyError>) -> Option<T> {
    checked.map_err(|error| errors.push(error.into())).ok()
}

fn check_nodes(hierarchy: &HierarchyName, nodes: &[String], errors: &mut Vec<HierarchyError>) -> Vec<NodeName> {
    if nodes.is_empty() {
        errors.push(HierarchyError::NoNodes(hierarchy.clone()));
    }
    let mut checked = Vec::new();
    for node in nodes {
        let Some(node) = keep(NodeName::new(node), errors) else { continue };
        if checked.contains(&node) {
            errors.push(HierarchyError::NodeTwice { hierarchy: hierarchy.clone(), node });
        } else {
            checked.push(node);
        }
    }
    checked
}

const NOT_ZERO: &str = "a length of time that is not zero";

fn check_times(of: &str, times: &[(&'static str, Duration)], errors: &mut Vec<HierarchyError>) {
    for (what, _) in times.iter().filter(|(_, time)| time.is_zero()) {
        errors.push(HierarchyError::OutOfRange { of: of.to_owned(), what, expected: NOT_ZERO });
    }
}

fn check_policy(hierarchy: &HierarchyName, policy: &Policy, errors: &mut Vec<HierarchyError>) {
    let of = format!("hierarchy {hierarchy}");
    let times = [
        ("restarts.within", policy.restarts.within),
        ("quarantine.within", policy.quarantine.within),
        ("decline_for", policy.decline_for),
        ("settle", policy.settle),
        ("forced_stop_within", policy.forced_stop_within),
    ];
    check_times(&of, &times, errors);
    if policy.quarantine.count == 0 {
        let (what, expected) = ("quarantine.count", "at least 1 early failure");
        errors.push(HierarchyError::OutOfRange { of: of.clone(), what, expected });
    }
    if let Rank::Utility { margin, .. } = policy.rank
        && !(1..=100).contains(&margin)
    {
        errors.push(HierarchyError::OutOfRange { of, what: "margin", expected: "1 to 100 points of utility" });
    }
}

/// Those with valid names, by name.
fn check_resources(resources: &[ResourceBuilder], errors: &mut Vec<HierarchyError>) -> Vec<Named> {
    let mut named: Vec<Named> = Vec::new();
    for resource in resources {
        let of = format!("resource {}", resource.name);
        let Timeouts { start, stop, monitor, kill } = resource.timeouts;
        let times = [("start", start), ("stop", stop), ("monitor", monitor), ("kill", kill)];
        check_times(&of, &times, errors);
        check_times(&of, &[("monitor.every", resource.monitor.every)], errors);
        let requires = match &resource.requires {
            Some(these) => these.iter().filter_map(|name| keep(ResourceName::new(name), errors)).collect(),
            None => named.last().map(|(before, _)| before.clone()).into_iter().collect(),
        };
        if let Some(name) = keep(ResourceName::new(&resource.name), errors) {
            named.push((name, requires));
        }
    }
    named
}

fn explain(hierarchy: &HierarchyName, named: &[Named], error: GraphError) -> HierarchyError {
    let hierarchy = hierarchy.clone();
    let name = |at: usize| named[at].0.clone();
    match error {
        GraphError::Twice { second, .. } => HierarchyError::ResourceTwice { hierarchy, resource: name(second) },
        GraphError::Itself { at, .. } => HierarchyError::RequiresItself { hierarchy, resource: name(at) },
        GraphError::Unknown { at, requirement } => HierarchyError::UnknownRequirement {
            hierarchy,
            resource: name(at),
            requires: named[at].1[requirement].clone(),
        },
        GraphError::Cycle(path) => {
            let path: Vec<&str> = path.iter().map(|at| named[*at].0.as_str()).collect();
            HierarchyError::Cycle { hierarchy, path: path.join(" → ") }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_wrong_is_told_at_once() {
        let no_time = Timeouts { start: Duration::ZERO, ..Timeouts::default() };
        let errors = Hierarchy::builder("web")
            .nodes(["alpha", "alpha", "be ta"])
            .policy(Policy {
                rank: Rank::Utility { margin: 0, spread: None },
                settle: Duration::ZERO,
                ..Policy::default()
            })
            .resource(ResourceBuilder::new("data").requires(["server"]).timeouts(no_time))
            .resource(ResourceBuilder::new("server"))
            .resource(ResourceBuilder::new("log").requires(["log", "disk"]))
            .build()
            .unwrap_err();
        let told: Vec<String> = errors.0.iter().map(ToString::to_string).collect();
        let expected = [
            "hierarchy web lists node alpha twice",
            "node name \"be ta\" is not valid: expected 1 to 63 characters of a-z, A-Z, 0-9, '.', '_' and '-', the first a letter or digit",
            "settle of hierarchy web has a value that it cannot have: expected a length of time that is not zero",
            "margin of hierarchy web has a value that it cannot have: expected 1 to 100 points of utility",
            "start of resource data has a value that it cannot have: expected a length of time that is not zero",
            "resource log of hierarchy web requires itself: `requires` without names means only the claim",
            "resource log of hierarchy web requires disk, which is not one of its resources",
            "resources of hierarchy web require each other in a circle: data → server → data",
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn a_definition_is_recognised_and_what_can_change_while_it_runs_is_no_part_of_a_resource() {
        let build = |version: &str, kill: u64| {
            let timeouts = Timeouts { kill: Duration::from_secs(kill), ..Timeouts::default() };
            let data = ResourceBuilder::new("data").version(version).timeouts(timeouts);
            Hierarchy::builder("web").nodes(["alpha"]).resource(data).build().unwrap()
        };
        assert_eq!(build("1", 5), build("1", 5));
        assert_ne!(build("1", 5).fingerprint, build("1", 6).fingerprint);
        assert_eq!(build("1", 5).resources[0].fingerprint, build("1", 6).resources[0].fingerprint);
        assert_ne!(build("1", 5).resources[0].fingerprint, build("2", 5).resources[0].fingerprint);
    }
}
