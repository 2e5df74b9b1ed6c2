//! One node: inputs in, effects out; nothing else.

mod command;
mod snapshot;

pub use command::{Ask, Command, Refused, Reply, Switch};
pub use snapshot::{ChannelView, HierarchyView, LeaseView, NodeOpinion, PeerView, ResourceView, Snapshot};
