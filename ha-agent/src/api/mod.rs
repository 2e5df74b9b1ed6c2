//! The local API: HTTP with JSON bodies over a Unix socket, and what travels in it.
//!
//! Decides routes, bodies, errors and who may do what. Leaves every decision about the cluster to the node, which is reached
//! through [`Agent`]. `docs/api.md` is the description for users.

pub(crate) mod client;
mod gather;
mod listen;
pub(crate) mod peer;
mod server;
#[cfg(test)]
mod tests;
mod wire;

use async_trait::async_trait;
use ha_core::driver::Measured;
use ha_core::engine::{Command, Refused, Reply, Snapshot};
use ha_core::name::NodeName;
use ha_core::record::{Event, Ongoing, Timeline};
use tokio::sync::broadcast;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::view::Problem;

pub(crate) use listen::{SocketOptions, serve};
pub(crate) use wire::{
    CommandRequest, ErrorBody, ErrorCode, EventLine, FenceLine, FenceRequest, FenceWhat, Health, HistoryView,
    MeasuredView, OngoingView, ReloadMode, ReloadRequest, ReloadView, TimelineView, WhyView,
};

/// The node behind the API has ended; the agent is about to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stopped;

/// What the API needs of the agent behind it.
#[async_trait]
pub(crate) trait Agent: Send + Sync + 'static {
    /// Carries out a command, here or on another node.
    async fn command(&self, to: Option<NodeName>, command: Command) -> Result<Reply, Refused>;

    /// This node's view.
    async fn snapshot(&self) -> Result<Snapshot, Stopped>;

    /// Events from now on.
    fn subscribe(&self) -> broadcast::Receiver<Event>;

    /// The finished timelines, the oldest first.
    async fn timelines(&self) -> Result<Vec<Timeline>, Stopped>;
    /// What is out of service by now, or disturbed.
    async fn ongoing(&self) -> Result<Vec<Ongoing>, Stopped>;

    /// The latest events, the oldest first.
    async fn recent_events(&self) -> Result<Vec<Event>, Stopped>;

    /// How long operations on resources took on this node at most.
    async fn measured(&self) -> Result<Vec<Measured>, Stopped>;

    /// Reads the configuration again, and applies it if asked to. The error is for people: everything that is wrong.
    async fn reload(&self, mode: ReloadMode) -> Result<ReloadView, String>;

    /// Begins to fence a node, or to look at its devices, on behalf of `by`; tells of each step as it ends. The work goes on when nobody
    /// listens any more.
    fn fence(&self, request: FenceRequest, by: String) -> Result<UnboundedReceiver<FenceLine>, ErrorBody>;

    /// What the configuration itself makes worth a warning.
    fn warnings(&self) -> Vec<Problem>;
}
