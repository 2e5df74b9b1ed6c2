//! Hierarchies from code, for embedders without files.
//!
//! Decides nothing more than the reader of files does, and checks the same. Leaves the code of resources to the driver.

use super::graph::{self, GraphError};
use super::model::{Hierarchy, Monitor, Policy, ResourceSpec, Timeouts};
use super::read::digest_of;
use crate::name::{HierarchyName, InvalidName, NodeName, ResourceName};

/// Why a hierarchy was not built.
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
    /// Resources require each other in a circle.
    #[error("resources of hierarchy {hierarchy} require each other in a circle: {path}")]
    Cycle {
        /// The hierarchy.
        hierarchy: HierarchyName,
        /// "a → b → a".
        path: String,
    },
}

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
/// # Ok::<(), ha_core::hierarchy::HierarchyError>(())
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

    /// Checks it.
    pub fn build(self) -> Result<Hierarchy, HierarchyError> {
        let name = HierarchyName::new(&self.name)?;
        let nodes = self.nodes.iter().map(NodeName::new).collect::<Result<Vec<_>, _>>()?;
        if nodes.is_empty() {
            return Err(HierarchyError::NoNodes(name));
        }
        if let Some((_, node)) = nodes.iter().enumerate().find(|(i, node)| nodes[..*i].contains(node)) {
            return Err(HierarchyError::NodeTwice { hierarchy: name, node: node.clone() });
        }
        let mut named: Vec<(ResourceName, Vec<ResourceName>)> = Vec::new();
        for resource in &self.resources {
            let requires = match &resource.requires {
                Some(names) => names.iter().map(ResourceName::new).collect::<Result<_, _>>()?,
                None => named.last().map(|(n, _)| n.clone()).into_iter().collect(),
            };
            named.push((ResourceName::new(&resource.name)?, requires));
        }
        let sorted = graph::sort(&named).map_err(|errors| explain(&name, &named, errors))?;
        let mut resources = Vec::new();
        for (place, old) in sorted.order.iter().enumerate() {
            let (Some(resource), Some((resource_name, _))) = (self.resources.get(*old), named.get(*old)) else {
                continue;
            };
            resources.push(ResourceSpec {
                name: resource_name.clone(),
                kind: "custom".to_owned(),
                requires: sorted.requires[place].clone(),
                timeouts: resource.timeouts,
                monitor: resource.monitor,
                fingerprint: digest_of(&[resource.name.clone(), resource.version.clone()]),
            });
        }
        let claim = digest_of(std::slice::from_ref(&self.claim));
        let described = format!("{:?}", (&self.name, &self.nodes, &resources, &self.policy, &self.claim));
        Ok(Hierarchy { name, nodes, resources, policy: self.policy, claim, fingerprint: digest_of(&[described]) })
    }
}

fn explain(
    hierarchy: &HierarchyName,
    named: &[(ResourceName, Vec<ResourceName>)],
    errors: Vec<GraphError>,
) -> HierarchyError {
    let hierarchy = hierarchy.clone();
    match errors.into_iter().next() {
        Some(GraphError::Twice { second, .. }) => {
            HierarchyError::ResourceTwice { hierarchy, resource: named[second].0.clone() }
        }
        Some(GraphError::Unknown { at, requires }) => {
            HierarchyError::UnknownRequirement { hierarchy, resource: named[at].0.clone(), requires }
        }
        Some(GraphError::Cycle(path)) => {
            let names: Vec<&str> = path.iter().map(|i| named[*i].0.as_str()).collect();
            HierarchyError::Cycle { hierarchy, path: names.join(" → ") }
        }
        None => HierarchyError::Cycle { hierarchy, path: String::new() },
    }
}
