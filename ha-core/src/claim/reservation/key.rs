//! The keys of a cluster: who registered with a device, to which end, and for which tenure.
//!
//! Decides the eight bytes, and what counts as a key of this cluster. Leaves to [`super::machine`] what follows from meeting one.
//!
//! | bits | field |
//! |---|---|
//! | 63–48 | magic, `HA` in ASCII |
//! | 47–36 | tag of the cluster: see [`Keyring`] |
//! | 35–32 | role: 1 holder, 2 challenger |
//! | 31–24 | number of the node, from 1 |
//! | 23–0 | epoch |

use std::collections::BTreeSet;

use super::device::Key;
use crate::name::{ClusterName, Epoch, NodeName};

const MAGIC: u64 = 0x4841;
/// The greatest epoch that a key has room for.
pub const EPOCH_MAX: u64 = (1 << 24) - 1;
const NODES_MAX: usize = 255;

/// The number of a node among those of its cluster: 1 to 255.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeNumber(u8);

impl NodeNumber {
    /// The number.
    pub fn get(self) -> u8 {
        self.0
    }
}

/// Whether two keys are of one cluster, as far as that shows without its list of nodes: both have the magic, and the same tag.
pub fn of_one_cluster(one: Key, other: Key) -> bool {
    one.get() >> 36 == other.get() >> 36 && one.get() >> 48 == MAGIC
}

/// To which end a key is registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// To hold the claim.
    Holder,
    /// To find out whether its holder defends it.
    Challenger,
}

/// A key of this cluster, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterKey {
    /// To which end.
    pub role: Role,
    /// Whose.
    pub node: NodeNumber,
    /// For which tenure.
    pub epoch: Epoch,
}

/// Nodes that cannot have keys. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    /// There is no room for so many.
    #[error("{0} nodes: reservations number at most 255; put the others into a cluster of their own")]
    TooMany(usize),
    /// This node is not one of the cluster's.
    #[error("node {0} is not among the cluster's nodes: add it to them, or start with the right name")]
    NotAmongThem(NodeName),
}

/// All epochs of a claim are used up. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "epoch {0} does not fit into a reservation key, which has room for 16,777,215: stop the hierarchy everywhere and remove its records"
)]
pub struct EpochTooGreat(pub u64);

/// The numbers of a cluster's nodes, and its tag.
///
/// A node's number is its place in the order of the names. Its meaning depends on the whole list, so the tag covers it: it is the lowest
/// 12 bits of the CRC-32C (RFC 3720) over the cluster's name and every node's, in that order, each followed by a zero byte. Nodes whose
/// lists differ are strangers to each other, and take nothing from each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyring {
    tag: u16,
    nodes: Vec<NodeName>,
}

impl Keyring {
    /// The keys of a cluster with these nodes, in whatever order.
    pub fn new(cluster: &ClusterName, nodes: impl IntoIterator<Item = NodeName>) -> Result<Keyring, KeyringError> {
        let nodes: Vec<NodeName> = nodes.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
        if nodes.len() > NODES_MAX {
            return Err(KeyringError::TooMany(nodes.len()));
        }
        let names = std::iter::once(cluster.as_str()).chain(nodes.iter().map(NodeName::as_str));
        let sum = names.fold(0, |sum, name| crc32c::crc32c_append(crc32c::crc32c_append(sum, name.as_bytes()), &[0]));
        Ok(Keyring { tag: (sum & 0xfff) as u16, nodes })
    }

    /// The number of a node.
    pub fn number_of(&self, node: &NodeName) -> Result<NodeNumber, KeyringError> {
        let place = self.nodes.binary_search(node).map_err(|_| KeyringError::NotAmongThem(node.clone()))?;
        Ok(NodeNumber(place as u8 + 1))
    }

    /// The node with a number.
    pub fn node(&self, number: NodeNumber) -> Option<&NodeName> {
        self.nodes.get(usize::from(number.0).checked_sub(1)?)
    }

    /// Every node, in the order of their numbers.
    pub fn nodes(&self) -> &[NodeName] {
        &self.nodes
    }

    /// The eight bytes of a key.
    #[expect(clippy::missing_panics_doc, reason = "the magic is never zero")]
    #[expect(clippy::expect_used, reason = "the magic is never zero")]
    pub fn encode(&self, key: ClusterKey) -> Result<Key, EpochTooGreat> {
        if key.epoch.0 > EPOCH_MAX {
            return Err(EpochTooGreat(key.epoch.0));
        }
        let role = match key.role {
            Role::Holder => 1,
            Role::Challenger => 2,
        };
        let head = MAGIC << 48 | u64::from(self.tag) << 36 | role << 32;
        let value = head | u64::from(key.node.0) << 24 | key.epoch.0;
        Ok(Key::new(value).expect("the magic is never zero"))
    }

    /// What a key says; none for a stranger's.
    pub fn decode(&self, key: Key) -> Option<ClusterKey> {
        let value = key.get();
        let role = match value >> 32 & 0xf {
            1 => Role::Holder,
            2 => Role::Challenger,
            _ => return None,
        };
        let node = NodeNumber((value >> 24 & 0xff) as u8);
        let ours = value >> 48 == MAGIC && value >> 36 & 0xfff == u64::from(self.tag) && self.node(node).is_some();
        ours.then_some(ClusterKey { role, node, epoch: Epoch(value & EPOCH_MAX) })
    }

    /// Whose key it is, for people.
    pub fn describe(&self, key: Key) -> String {
        let Some(known) = self.decode(key) else {
            return if key.get() >> 48 == MAGIC {
                format!("key {key}, of another cluster or of one whose list of nodes differs")
            } else {
                format!("key {key}, which is none of this cluster's")
            };
        };
        let name = self.node(known.node).map_or("a node", NodeName::as_str);
        match known.role {
            Role::Holder => format!("{name} (epoch {})", known.epoch),
            Role::Challenger => format!("{name} (challenger, epoch {})", known.epoch),
        }
    }
}

/// The epoch of a holder's key, if it is one of this format, whatever the cluster and its list of nodes.
pub(super) fn epoch_under_any_list(key: Key) -> Option<Epoch> {
    let value = key.get();
    (value >> 48 == MAGIC && value >> 32 & 0xf == 1).then_some(Epoch(value & EPOCH_MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ring(nodes: &[&str]) -> Keyring {
        Keyring::new(&ClusterName::new("shop").unwrap(), nodes.iter().map(|n| NodeName::new(n).unwrap())).unwrap()
    }

    fn key(role: Role, node: u8, epoch: u64) -> ClusterKey {
        ClusterKey { role, node: NodeNumber(node), epoch: Epoch(epoch) }
    }

    #[test]
    fn the_bytes_stay_what_they_are() {
        let ring = ring(&["gamma", "alpha", "beta"]);
        let bytes = |k| ring.encode(k).unwrap().get();
        assert_eq!(format!("{:016x}", bytes(key(Role::Holder, 1, 1))), "4841659101000001");
        assert_eq!(format!("{:016x}", bytes(key(Role::Challenger, 3, 0x00ff_ffff))), "4841659203ffffff");
        assert_eq!(ring.number_of(&NodeName::new("beta").unwrap()), Ok(NodeNumber(2)));
    }

    #[test]
    fn an_epoch_that_does_not_fit_is_an_error() {
        let error = ring(&["alpha"]).encode(key(Role::Holder, 1, 1 << 24)).unwrap_err();
        assert_eq!(error, EpochTooGreat(1 << 24));
    }

    #[test]
    fn keys_of_one_cluster_show_it_without_its_list_of_nodes() {
        let (ring, other) = (ring(&["alpha", "beta"]), ring(&["alpha", "gamma"]));
        let one = ring.encode(key(Role::Holder, 1, 7)).unwrap();
        assert!(of_one_cluster(one, ring.encode(key(Role::Challenger, 2, 9)).unwrap()));
        assert!(!of_one_cluster(one, other.encode(key(Role::Holder, 1, 7)).unwrap()));
        let foreign = Key::new(0xa).unwrap();
        assert!(!of_one_cluster(one, foreign) && !of_one_cluster(foreign, foreign));
    }

    #[test]
    fn nodes_whose_lists_differ_are_strangers() {
        let (two, three) = (ring(&["alpha", "beta"]), ring(&["aaron", "alpha", "beta"]));
        let theirs = two.encode(key(Role::Holder, 1, 7)).unwrap();
        assert_eq!(three.decode(theirs), None);
        assert!(three.describe(theirs).contains("whose list of nodes differs"));
        assert_eq!(two.decode(theirs), Some(key(Role::Holder, 1, 7)));
    }

    proptest! {
        #[test]
        fn whatever_decodes_encodes_to_the_same(value in 1u64.., low in any::<u64>()) {
            let ring = ring(&["alpha", "beta"]);
            let near = ring.encode(key(Role::Holder, 1, 0)).unwrap().get() & !0xf_ffff_ffff | low & 0xf_ffff_ffff;
            for value in [value, near] {
                let key = Key::new(value).unwrap();
                if let Some(decoded) = ring.decode(key) {
                    prop_assert_eq!(ring.encode(decoded), Ok(key));
                }
            }
        }
    }
}
