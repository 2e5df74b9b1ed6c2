//! What an embedder can bring along, apart from a [`crate::claim::Claim`]: resources, probes and channels.
//!
//! Decides the borders at which asynchronous code meets the engine. Leaves everything behind them to the implementations.

use std::time::Duration;

use async_trait::async_trait;

use crate::name::{ChannelName, Epoch, HierarchyName, NodeName, ResourceName, Utility};
use crate::record::FencingNews;

/// Who asks for an operation, and within what.
#[derive(Clone, Debug)]
pub struct Context {
    /// This node.
    pub node: NodeName,
    /// The hierarchy.
    pub hierarchy: HierarchyName,
    /// The resource's name in it.
    pub resource: ResourceName,
    /// The tenure of the claim under which the hierarchy runs: hand it to whatever can check it.
    pub epoch: Epoch,
    /// The operation is dropped after this.
    pub timeout: Duration,
}

/// An operation that did not do what it should: the reason, for people, with what they can do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Failed(pub String);

impl Failed {
    /// From anything that can be shown.
    pub fn new(reason: impl std::fmt::Display) -> Self {
        Failed(reason.to_string())
    }
}

/// What a monitor found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Runs and does its work.
    Good,
    /// Does not: why.
    Bad(String),
    /// Cannot be said: why. Tolerated for a while.
    Unknown(String),
}

/// What was found of a resource that an earlier life of the agent had started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// It runs.
    Running,
    /// It does not run, wholly.
    Stopped,
}

/// Something that can be started and stopped on a node: an address, a filesystem, a program.
///
/// No two operations of one resource run at once, except [`Resource::kill`], which may be called while another one is stuck, and
/// [`Resource::watch`] and [`Resource::defects`]. A future that takes too long is dropped: an implementation must survive that at every `await`, and must
/// not leave behind what the next operation cannot find. Every operation is idempotent.
#[async_trait]
pub trait Resource: Send + Sync + 'static {
    /// Brings it into service. Success means that it can be used now.
    async fn start(&self, context: &Context) -> Result<(), Failed>;

    /// Takes it out of service. Success means that nothing of it runs any more on this node, whoever started it.
    async fn stop(&self, context: &Context) -> Result<(), Failed>;

    /// Looks whether it does its work.
    async fn monitor(&self, context: &Context) -> Verdict;

    /// Stops it by force, at once. Success means that nothing of it runs any more. The default is a plain stop.
    async fn kill(&self, context: &Context) -> Result<(), Failed> {
        self.stop(context).await
    }

    /// After a restart of the agent: finds out whether it runs, and takes it over if so. The default asks the monitor.
    async fn adopt(&self, context: &Context) -> Result<Found, Failed> {
        match self.monitor(context).await {
            Verdict::Good => Ok(Found::Running),
            Verdict::Bad(_) => Ok(Found::Stopped),
            Verdict::Unknown(why) => Err(Failed(why)),
        }
    }

    /// Waits until it fails, while it runs, and says why; the quickest way to learn of a crash. The default never returns.
    /// Called when it is running; dropped before any other operation but a monitor.
    async fn watch(&self, _context: &Context) -> String {
        std::future::pending().await
    }

    /// Tells, while it runs, what is wrong with it although it does its work, such as a mirror that has lost a disk; and `None` when nothing
    /// is any more. It is shown to the operator among the problems of the node, and nothing else follows from it. The default tells
    /// nothing. Called and dropped together with [`Resource::watch`].
    async fn defects(&self, _tell: &(dyn Fn(Option<String>) + Send + Sync)) {
        std::future::pending().await
    }

    /// What this node lacks to start it, asked all the time while it runs nowhere here. Must change nothing. `Ok` when it could be started.
    async fn ready(&self) -> Result<(), Failed> {
        Ok(())
    }

    /// What a [warden](crate::driver::Watchdog) may end of it when the agent cannot: see there. Asked for before it is started, and
    /// no start begins before the warden was told: so these name what a start would bring about as well as what runs.
    fn handles(&self, _context: &Context) -> Vec<KillHandle> {
        Vec::new()
    }
}

/// Something that is in service and can be ended by somebody who knows nothing else about it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum KillHandle {
    /// A process group: its number, and the start time of its leader (field 22 of `/proc/PID/stat`) against reuse of numbers.
    ProcessGroup {
        /// The group's number, which is its leader's pid.
        pgid: i32,
        /// In clock ticks since boot.
        started: u64,
    },
    /// The process group whose leader wrote this file before it executed anything: its number and start time, as above, with a blank
    /// between them, then a line with the boot id. While there is no such file, or it is of an earlier boot, nothing runs.
    Record(std::path::PathBuf),
    /// A cgroup v2 directory, killed through its `cgroup.kill`. While there is none, nothing runs.
    Cgroup(std::path::PathBuf),
    /// An address on an interface, which is taken off it whatever the length of its prefix.
    Address {
        /// The interface's name.
        interface: String,
        /// IPv4 or IPv6.
        address: std::net::IpAddr,
    },
}

/// Measures how useful it would be to serve a hierarchy on this node.
#[async_trait]
pub trait Probe: Send + Sync + 'static {
    /// One measurement, with what was seen, for people. An error counts as utility 0.
    async fn measure(&self) -> Result<(Utility, String), Failed>;

    /// From the end of one measurement to the begin of the next.
    fn every(&self) -> Duration {
        Duration::from_secs(1)
    }

    /// A measurement is dropped after this and counts as utility 0.
    fn timeout(&self) -> Duration {
        Duration::from_secs(1)
    }
}

/// A way for datagrams to the other nodes. Carries sealed bytes, and need not be reliable, ordered or private.
#[async_trait]
pub trait Channel: Send + Sync + 'static {
    /// Its name, for reports.
    fn name(&self) -> &ChannelName;

    /// Sends one datagram to a node, or does nothing if this channel does not lead there. Never waits for long.
    async fn send(&self, to: &NodeName, datagram: &[u8]) -> Result<(), Failed>;

    /// Waits for the next datagram, whoever sent it. Cancel-safe. An error is reported and receiving goes on.
    async fn receive(&self) -> Result<Vec<u8>, Failed>;
}

/// What makes sure that this node stops by itself when the agent cannot make it stop (invariant S7).
#[async_trait]
pub trait Watchdog: Send + Sync + 'static {
    /// Says that all is well: every tenure proven, the engine's loop turning. What runs under `leases` may run until the moment named with
    /// it, and must be gone (or the node reset) at the latest [`Watchdog::margin`] after it unless this is called again.
    async fn feed(&self, leases: &[Guarded]) -> Result<(), Failed>;

    /// How long after a tenure's end it may take until nothing runs any more.
    fn margin(&self) -> Duration;

    /// Resets the node now, or as near to it as this watchdog can. Returns only if it cannot.
    async fn reset(&self, reason: &str) -> Failed;

    /// The agent ends and leaves everything as it is (`hand over` to its next life), or, with nothing running, disarms.
    async fn disarm(&self) -> Result<(), Failed>;
}

/// What can switch other nodes off.
#[async_trait]
pub trait Fencer: Send + Sync + 'static {
    /// The nodes that it may switch off without anybody's order: where this node waits for the lease of one that is silent, or where one could
    /// not stop something that others are to serve.
    fn nodes(&self) -> Vec<NodeName>;

    /// Switches a node off, makes sure that it is, and tells each thing as it comes: that it begins, then whether it was proven. One that was proven to
    /// be off may be switched on again [`PROOF_COUNTS_FOR`](crate::engine::PROOF_COUNTS_FOR) later, not sooner.
    async fn fence(&self, node: &NodeName, why: &str, tell: &(dyn Fn(FencingNews) + Send + Sync));
}

/// What runs under one lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guarded {
    /// The hierarchy.
    pub hierarchy: HierarchyName,
    /// To when it may run.
    pub until: crate::time::Time,
    /// What there is to end.
    pub handles: Vec<KillHandle>,
}
