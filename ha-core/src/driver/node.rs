//! The handle to a running node.

use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::builder::NodeBuilder;
use super::reload::{Member, Reload, ReloadReport};
use super::work::Measured;
use crate::contact::KeyRing;
use crate::engine::{Command, Refused, Reply, Snapshot};
use crate::name::{ClusterName, NodeName};
use crate::record::{Event, FencingNews, Ongoing, Timeline};

/// Whether a node's loop has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It runs.
    No,
    /// Nothing is served here any more and goodbye was said; it runs on until it is shut down.
    Drained,
    /// It has ended.
    ShutDown,
}

pub(super) enum Request {
    Command { to: Option<NodeName>, command: Command, answer: oneshot::Sender<Result<Reply, Refused>> },
    Snapshot(oneshot::Sender<Snapshot>),
    Timelines(oneshot::Sender<Vec<Timeline>>),
    Ongoing(oneshot::Sender<Vec<Ongoing>>),
    Events(oneshot::Sender<Vec<Event>>),
    Measured(oneshot::Sender<Vec<Measured>>),
    Keys(KeyRing),
    Reload { members: Vec<Member>, mode: Reload, answer: oneshot::Sender<ReloadReport> },
    Trouble { part: String, trouble: Option<String> },
    Reset(String),
    Fencing { node: NodeName, news: FencingNews },
    Shutdown(oneshot::Sender<()>),
}

/// A running node. Cloning is cheap; the node runs on when every handle is gone.
#[derive(Clone)]
pub struct Node {
    pub(super) me: NodeName,
    pub(super) control: mpsc::Sender<Request>,
    pub(super) events: broadcast::Sender<Event>,
    pub(super) ended: watch::Receiver<Ended>,
}

/// The node's loop has ended: it was shut down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the node was shut down")]
pub struct Gone;

impl Node {
    /// Begins to put a node together.
    pub fn builder(cluster: ClusterName, me: NodeName) -> NodeBuilder {
        NodeBuilder::new(cluster, me)
    }

    /// This node's name.
    pub fn name(&self) -> &NodeName {
        &self.me
    }

    /// Asks for something: of the node named, or of whichever it concerns.
    pub async fn command(&self, to: Option<NodeName>, command: Command) -> Result<Reply, Refused> {
        let (answer, answered) = oneshot::channel();
        let gone = || Refused::NotNow(Gone.to_string());
        self.control.send(Request::Command { to, command, answer }).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    /// What the node knows now.
    pub async fn snapshot(&self) -> Result<Snapshot, Gone> {
        self.ask(Request::Snapshot).await
    }

    /// How hierarchies came into service, here or elsewhere as far as it was seen from here; the latest 2048, the oldest first.
    pub async fn timelines(&self) -> Result<Vec<Timeline>, Gone> {
        self.ask(Request::Timelines).await
    }

    /// What is out of service by now, or disturbed, as far as it is seen from here.
    pub async fn ongoing(&self) -> Result<Vec<Ongoing>, Gone> {
        self.ask(Request::Ongoing).await
    }

    /// What happened here, the latest 4096, the oldest first.
    pub async fn recent_events(&self) -> Result<Vec<Event>, Gone> {
        self.ask(Request::Events).await
    }

    /// How long operations on resources took here at most, since this node began to run.
    pub async fn measured(&self) -> Result<Vec<Measured>, Gone> {
        self.ask(Request::Measured).await
    }

    /// Everything that happens from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Seals and opens with other keys from now on.
    pub async fn set_keys(&self, keys: KeyRing) -> Result<(), Gone> {
        self.control.send(Request::Keys(keys)).await.map_err(|_| Gone)
    }

    /// Compares the hierarchies with new definitions and, if asked to, goes over to them. What did not change is not touched.
    pub async fn reload(&self, members: Vec<Member>, mode: Reload) -> Result<ReloadReport, Gone> {
        self.ask(|answer| Request::Reload { members, mode, answer }).await
    }

    /// Something is wrong with a part of this machine, in words, or not any more: it is among the node's problems until then.
    pub async fn complain(&self, part: &str, trouble: Option<String>) -> Result<(), Gone> {
        self.control.send(Request::Trouble { part: part.to_owned(), trouble }).await.map_err(|_| Gone)
    }

    /// Something is new of the fencing of another node, which whoever owns this one carries out. A proof makes that node count as gone for a
    /// short time, if it was not heard since the fencing began.
    pub async fn fencing(&self, node: NodeName, news: FencingNews) -> Result<(), Gone> {
        self.control.send(Request::Fencing { node, news }).await.map_err(|_| Gone)
    }

    /// Has the watchdog reset this machine. Where there is none, or it cannot, that is among the node's problems.
    pub async fn reset(&self, why: String) -> Result<(), Gone> {
        self.control.send(Request::Reset(why)).await.map_err(|_| Gone)
    }

    /// Ends the node and leaves everything that it serves running, for its next life to adopt. Where leases are used, that life
    /// must begin before they end, or the watchdog stops what runs.
    pub async fn shutdown(&self) {
        let _ = self.ask(Request::Shutdown).await;
    }

    /// Waits until the node is drained or shut down.
    pub async fn finished(&self) -> Ended {
        let mut ended = self.ended.clone();
        match ended.wait_for(|e| *e != Ended::No).await {
            Ok(how) => *how,
            Err(_) => Ended::ShutDown,
        }
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, Gone> {
        let (answer, answered) = oneshot::channel();
        self.control.send(request(answer)).await.map_err(|_| Gone)?;
        answered.await.map_err(|_| Gone)
    }
}
