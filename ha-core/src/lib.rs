//! The deciding core of a high-availability harness. **No decision in it does I/O, reads a clock or draws a random number.**
//!
//! Services are grouped into independent [hierarchies](hierarchy). Each has one ownable resource, its [claim]. Every node works out by itself,
//! for each hierarchy, whether it is the [master](mastership): has it lost [contact] with every node preferred over it? Then it claims, and
//! [recovers](recovery) the hierarchy at once, in parallel with all others. There is no quorum and no coordinator: the claim is the final arbiter.
//!
//! # Where to start
//!
//! - To embed a node: [`Node::builder`] and the traits [`Resource`], [`Claim`], [`Probe`], [`Channel`] and [`Watchdog`]. The example
//!   `embed` is a whole program in under 100 lines.
//! - To read hierarchy files: [`hierarchy::read_directory`] with your [`hierarchy::Kinds`].
//! - To drive the machine yourself: [`engine::Engine`].
//!
//! # Example
//!
//! One node that serves one hierarchy, with a claim that nobody else knows of:
//!
//! ```
//! use std::sync::Arc;
//!
//! use async_trait::async_trait;
//! use ha_core::claim::{Acquire, EarlyFailures, Held, Holding, Loss, Refusal, Tenure};
//! use ha_core::driver::{Context, Failed, Member, Node, Verdict};
//! use ha_core::hierarchy::{Hierarchy, ResourceBuilder};
//! use ha_core::name::{ClusterName, Epoch, NodeName};
//! use ha_core::record::Happened;
//! use ha_core::{Claim, Resource};
//!
//! struct Light;
//!
//! #[async_trait]
//! impl Resource for Light {
//!     async fn start(&self, _: &Context) -> Result<(), Failed> {
//!         Ok(())
//!     }
//!     async fn stop(&self, _: &Context) -> Result<(), Failed> {
//!         Ok(())
//!     }
//!     async fn monitor(&self, _: &Context) -> Verdict {
//!         Verdict::Good
//!     }
//! }
//!
//! struct Alone;
//!
//! #[async_trait]
//! impl Claim for Alone {
//!     async fn inspect(&self) -> Result<Holding, Refusal> {
//!         Ok(Holding { holder: None, epoch: Epoch::ZERO, failures: EarlyFailures::default() })
//!     }
//!     async fn acquire(&self, request: Acquire) -> Result<Held, Refusal> {
//!         Ok(Held { epoch: request.known.next(), tenure: Tenure::UntilRevoked, failures: EarlyFailures::default() })
//!     }
//!     async fn uphold(&self, _: Epoch) -> Result<Tenure, Loss> {
//!         Ok(Tenure::UntilRevoked)
//!     }
//!     async fn release(&self, _: Epoch, _: Option<NodeName>, _: EarlyFailures) -> Result<(), Refusal> {
//!         Ok(())
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let hierarchy = Hierarchy::builder("lighthouse").nodes(["alpha"]).resource(ResourceBuilder::new("light")).build()?;
//! let member = Member { hierarchy, claim: Arc::new(Alone), resources: vec![Arc::new(Light)], probes: vec![] };
//! let node = Node::builder(ClusterName::new("coast")?, NodeName::new("alpha")?).member(member).start().await?;
//!
//! let mut events = node.subscribe();
//! while !matches!(events.recv().await?.what, Happened::InService { .. }) {}
//! node.shutdown().await;
//! # Ok(())
//! # }
//! ```

pub mod claim;
pub mod contact;
pub mod driver;
pub mod engine;
pub mod hierarchy;
pub mod mastership;
mod mutation;
pub mod name;
pub mod record;
pub mod recovery;
#[cfg(feature = "sim")]
pub mod sim;
pub mod time;

pub use claim::Claim;
pub use driver::{Channel, Member, Node, Probe, Resource, Watchdog};
pub use hierarchy::Hierarchy;
