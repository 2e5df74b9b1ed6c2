//! Nodes on the wire: 32-bit numbers in place of names.
//!
//! Decides the number of a node, the same on every node without any agreement, and refuses names that cannot be told
//! apart.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::name::NodeName;

/// A node on the wire: CRC-32C (RFC 3720, appendix B.4) of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub u32);

impl NodeId {
    /// The number of a node.
    pub fn of(name: &NodeName) -> Self {
        NodeId(crc32c::crc32c(name.as_str().as_bytes()))
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// Names that cannot be told apart on the wire.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeIdError {
    /// A node is named twice.
    #[error("node {0} is listed twice: every node has a name of its own")]
    Twice(NodeName),
    /// Two names have the same number.
    #[error("nodes {0} and {1} have the same number on the wire ({id}): rename one of them", id = NodeId::of(.0))]
    Collision(NodeName, NodeName),
}

/// The numbers of all configured nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeIds(BTreeMap<NodeId, NodeName>);

impl NodeIds {
    /// Numbers the nodes.
    pub fn new<'a>(nodes: impl IntoIterator<Item = &'a NodeName>) -> Result<Self, NodeIdError> {
        let mut ids = BTreeMap::new();
        for name in nodes {
            match ids.insert(NodeId::of(name), name.clone()) {
                None => {}
                Some(earlier) if earlier == *name => return Err(NodeIdError::Twice(earlier)),
                Some(earlier) => return Err(NodeIdError::Collision(earlier, name.clone())),
            }
        }
        Ok(Self(ids))
    }

    /// The node with this number, if it is configured.
    pub fn name(&self, id: NodeId) -> Option<&NodeName> {
        self.0.get(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_cannot_be_told_apart_are_refused() {
        let name = |text: &str| NodeName::new(text).unwrap();
        let ids = NodeIds::new(&[name("alpha"), name("beta")]).unwrap();
        assert_eq!(ids.name(NodeId::of(&name("beta"))), Some(&name("beta")));
        assert_eq!(NodeIds::new(&[name("alpha"), name("alpha")]), Err(NodeIdError::Twice(name("alpha"))));
    }
}
