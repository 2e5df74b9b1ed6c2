//! Ownership: the trait that every kind of claim answers, and the words it uses.
//!
//! Decides what the recovery may ask of a claim and how an answer reads. Leaves to each kind how ownership is arbitrated
//! ([`lock_area`], [`reservation`]), and to [`crate::mastership`] whether to ask at all.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::name::{BootId, Epoch, NodeName};
use crate::time::Time;

pub mod lock_area;
pub mod reservation;

/// What this node believes of another one, as far as taking a claim from it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Belief {
    /// In contact and not known to have given the hierarchy up: its claim is not to be touched (invariant S6).
    Heard,
    /// Said goodbye: what it held is free.
    Gone,
    /// Proven to have been switched off, and not heard since its fencing began: what the life held that was seen before is free.
    Fenced {
        /// When the fencing began.
        begun: Time,
    },
    /// Silent; or in contact and saying that it does not serve the hierarchy, which may have changed since it was said.
    /// Whether it is dead, or holds the claim still, is for the claim to find out.
    Lost,
}

impl Belief {
    /// Whether what it held is free, as far as a claim that tells one life from another is concerned.
    pub fn is_gone(self) -> bool {
        matches!(self, Belief::Gone | Belief::Fenced { .. })
    }
}

/// What this node believes of every other one; shared, since a thousand hierarchies ask with the same beliefs.
pub type Beliefs = Arc<BTreeMap<NodeName, Belief>>;

/// How long a tenure of a claim is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tenure {
    /// Until the storage itself refuses this node: a persistent reservation.
    UntilRevoked,
    /// Until this moment of this node's clock, unless renewed: a lease. Needs a watchdog.
    Until(Time),
}

impl Tenure {
    /// Whether nothing may be begun under it any more.
    pub fn is_over(self, now: Time) -> bool {
        matches!(self, Tenure::Until(until) if until <= now)
    }
}

/// Early failures of the hierarchy on successive tenures, kept with the claim where it can keep them, so that a toxic
/// hierarchy is known even when all nodes that saw it fail are gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarlyFailures {
    /// How many successive tenures failed soon after entering service.
    pub count: u8,
    /// How long ago the first of them was when this was written, in milliseconds.
    pub first_ms_ago: u32,
}

/// A claim that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The number of this tenure.
    pub epoch: Epoch,
    /// How long it is good for.
    pub tenure: Tenure,
    /// What the claim remembers of earlier tenures.
    pub failures: EarlyFailures,
}

/// What [`Claim::acquire`] is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Acquire {
    /// What this node believes of the others.
    pub beliefs: Beliefs,
    /// The greatest epoch this node has ever heard of for the hierarchy; the new one must be greater unless it is adopted.
    pub known: Epoch,
    /// After a restart of the agent: the epoch under which this node had the hierarchy in service. A claim that still
    /// stands, and was not another node's since, is confirmed with the same epoch.
    pub adopt: Option<Epoch>,
}

/// Storage that a claim lives on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Storage {
    /// What it is called on this node.
    pub name: String,
    /// Who it says it is, with its size: the same through every path and on every node.
    pub identity: String,
}

/// Who has a claim, as [`Claim::inspect`] saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// The holder; none when the claim is free.
    pub holder: Option<Holder>,
    /// The greatest epoch ever used.
    pub epoch: Epoch,
    /// What the claim remembers of earlier tenures.
    pub failures: EarlyFailures,
}

/// Who holds a claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Holder {
    /// This node.
    Me,
    /// Another node of the cluster.
    Node(NodeName),
    /// Somebody who does not belong to the cluster, described.
    Stranger(String),
}

/// Why a claim was not acquired. Nothing was taken, whatever the variant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// Another node holds it and is alive, or is not proven dead yet.
    #[error("held by {holder} (epoch {epoch}): {why}")]
    Held {
        /// The holder.
        holder: NodeName,
        /// Its epoch.
        epoch: Epoch,
        /// What showed that it holds it still.
        why: String,
        /// When the holder will be proven dead if nothing more is heard of it: worth trying again then.
        retry_at: Option<Time>,
    },
    /// Somebody outside the cluster holds it; the operator must decide.
    #[error("held by a stranger: {0}")]
    Stranger(String),
    /// Another node asked at the same time and won.
    #[error("lost the race to another node")]
    Raced,
    /// The claim's storage did not answer, or answered with an error.
    #[error("the claim cannot be reached: {0}")]
    Unreachable(String),
    /// This node may not hold claims now, for example because its own lease is not good; says what is needed.
    #[error("not able to hold the claim: {0}")]
    Unfit(String),
}

/// Why a claim that was held is not held any more, or may not be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Loss {
    /// Another node has it. Final.
    #[error("taken over by {0}")]
    Taken(String),
    /// Its storage has not answered for so long that nobody can say who has it. Final.
    #[error("given up: {0}")]
    GivenUp(String),
    /// It could not be proven this time. A lease runs on until its end; the recovery asks again.
    #[error("could not be proven: {why}")]
    Unproven {
        /// Why.
        why: String,
        /// When it was last proven, if that is known.
        proven: Option<Time>,
    },
}

impl Loss {
    /// Not proven this time, and it is not known when it last was.
    pub fn unproven(why: impl Into<String>) -> Loss {
        Loss::Unproven { why: why.into(), proven: None }
    }
}

/// A claim: the ownable resource of one hierarchy.
///
/// Every method may take long or never return; the driver bounds each call and drops the future when its time is over, so
/// an implementation must leave the claim consistent at every `await`. No method is called while another of the same claim
/// runs, but for [`Claim::inspect`] and [`Claim::lost`].
#[async_trait]
pub trait Claim: Send + Sync + 'static {
    /// Who holds the claim. Changes nothing.
    async fn inspect(&self) -> Result<Holding, Refusal>;

    /// Takes the claim, or confirms that this node has it already.
    async fn acquire(&self, request: Acquire) -> Result<Held, Refusal>;

    /// Proves that the claim is still held under `epoch`, defends it and renews it. Called regularly
    /// while the claim is held; not called for claims with a [shared lease](Claim::shared_lease), which renew themselves.
    async fn uphold(&self, epoch: Epoch) -> Result<Tenure, Loss>;

    /// The storage that this node reaches the claim through, as far as it knows it now: the same on every node that may serve the hierarchy, or
    /// they would each hold something else. Empty, which is the default, if it is not known yet or there is nothing to compare. Cheap.
    fn stands_on(&self) -> Vec<Storage> {
        Vec::new()
    }

    /// Waits until the claim, held under `epoch`, is known to be lost for good, and says how: so that the loss is acted on at once and not
    /// when [`Claim::uphold`] is called next. Cancel-safe. A claim that learns of a loss only when it is asked never returns, which is
    /// what the default does.
    async fn lost(&self, _epoch: Epoch) -> Loss {
        std::future::pending().await
    }

    /// Gives the claim up: to `heir` if one is named (so that nobody else can win it in between), else to whoever asks. Called only
    /// when every resource of the hierarchy is confirmed stopped (invariant S5). `failures` is to be remembered.
    async fn release(&self, epoch: Epoch, heir: Option<NodeName>, failures: EarlyFailures) -> Result<(), Refusal>;

    /// Cuts a dead holder off from the protected data, where acquiring has not done so already. The default does nothing.
    async fn fence(&self, _victim: &NodeName) -> Result<(), Refusal> {
        Ok(())
    }

    /// Set when many claims live on one lease, as those of one lock area do. Such a lease is kept up once for all of them.
    fn shared_lease(&self) -> Option<Arc<dyn SharedLease>> {
        None
    }
}

/// A lease that many claims live on: renewed by its owner all by itself, watched by the driver.
#[async_trait]
pub trait SharedLease: Send + Sync + 'static {
    /// A name, the same for all claims that share the lease, for reports.
    fn name(&self) -> &str;

    /// Waits until something is new since `seen` was returned (start with the default), and returns it. Must be cancel-safe.
    async fn changed(&self, seen: &LeaseNews) -> LeaseNews;
}

/// What is known of a shared lease at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseNews {
    /// To when the lease is good now; `None` when it is not held.
    pub until: Option<Time>,
    /// How often the lease ran out since the start. When it grows, everything that was held on it must be acquired again,
    /// even if `until` looks as if nothing happened.
    pub lapsed: u64,
    /// What the lease's storage shows of other nodes: a heartbeat through it.
    pub peers: BTreeMap<NodeName, PeerOnStorage>,
    /// The last error of the storage, if the last renewal failed.
    pub trouble: Option<String>,
}

/// What shared storage shows of another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerOnStorage {
    /// Its slot beats.
    Beating {
        /// When the slot was last seen to change, on this node's clock.
        since: Time,
        /// The boot that beats. Another one than before: what the node held under the earlier one ended with it.
        boot: BootId,
    },
    /// It said goodbye.
    Left,
}
