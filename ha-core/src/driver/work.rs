//! Runs what the engine asks for: operations on resources and claims, each in a task of its own, each bounded in time.
//!
//! Decides that a task which panics or never ends is an outcome like any other. Leaves what follows to the engine.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tokio::task::{AbortHandle, JoinError};

use super::guard::After;
use super::plugin::{Context, Found, Resource, Verdict};
use crate::claim::{Acquire, Claim, EarlyFailures, Loss, Refusal};
use crate::engine::Input;
use crate::name::{Epoch, HierarchyName, NodeName, ResourceName};
use crate::recovery::{OpId, Operation, Outcome};

/// A question to a claim that takes longer is taken as unanswered. Longer than any lease that is waited out inside a claim.
const CLAIM_PATIENCE: Duration = Duration::from_secs(30);

/// The tasks under way.
pub(super) struct Work {
    node: NodeName,
    inputs: UnboundedSender<Input>,
    operations: BTreeMap<OpId, AbortHandle>,
    watches: BTreeMap<(HierarchyName, ResourceName), AbortHandle>,
    /// Who waits for held claims to be lost.
    losses: BTreeMap<HierarchyName, AbortHandle>,
    longest: Longest,
}

/// The longest of each operation that was not dropped early.
type Longest = Arc<Mutex<BTreeMap<(HierarchyName, ResourceName, Operation), Duration>>>;

/// How long an operation of a resource took at most on this node since it began to run: done well, or given up at its time-out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measured {
    /// The hierarchy.
    pub hierarchy: HierarchyName,
    /// The resource in it.
    pub resource: ResourceName,
    /// What was done.
    pub operation: Operation,
    /// The longest time.
    pub longest: Duration,
}

/// An operation as the engine asked for it.
pub(super) struct Order {
    pub(super) hierarchy: HierarchyName,
    pub(super) resource: ResourceName,
    pub(super) op: OpId,
    pub(super) operation: Operation,
    pub(super) epoch: Epoch,
    pub(super) timeout: Duration,
}

impl Work {
    pub(super) fn new(node: NodeName, inputs: UnboundedSender<Input>) -> Self {
        Work {
            node,
            inputs,
            operations: BTreeMap::new(),
            watches: BTreeMap::new(),
            losses: BTreeMap::new(),
            longest: Longest::default(),
        }
    }

    pub(super) fn measured(&self) -> Vec<Measured> {
        let longest = self.longest.lock().unwrap_or_else(PoisonError::into_inner);
        let each =
            |((hierarchy, resource, operation), longest): (&(HierarchyName, ResourceName, Operation), &Duration)| {
                Measured {
                    hierarchy: hierarchy.clone(),
                    resource: resource.clone(),
                    operation: *operation,
                    longest: *longest,
                }
            };
        longest.iter().map(each).collect()
    }

    pub(super) fn context(
        &self,
        hierarchy: &HierarchyName,
        resource: &ResourceName,
        epoch: Epoch,
        timeout: Duration,
    ) -> Context {
        Context { node: self.node.clone(), hierarchy: hierarchy.clone(), resource: resource.clone(), epoch, timeout }
    }

    /// Begins an operation, once `after` has come.
    pub(super) fn operate(&mut self, resource: Arc<dyn Resource>, order: Order, after: After) {
        let context = self.context(&order.hierarchy, &order.resource, order.epoch, order.timeout);
        let operation = order.operation;
        let run = tokio::spawn(async move {
            let done = async {
                after.has_come().await;
                carry_out(&*resource, operation, &context).await
            };
            tokio::time::timeout(context.timeout, done).await.unwrap_or(Outcome::TimedOut(context.timeout))
        });
        self.operations.insert(order.op, run.abort_handle());
        let (inputs, longest) = (self.inputs.clone(), self.longest.clone());
        let began = tokio::time::Instant::now();
        tokio::spawn(async move {
            let outcome = match run.await {
                Ok(outcome) => outcome,
                Err(error) if error.is_cancelled() => return,
                Err(error) => Outcome::Bad(panic_text(error)),
            };
            // What fails, fails early or late: nothing follows from it for what it takes when it does not.
            if matches!(outcome, Outcome::Good | Outcome::TimedOut(_)) {
                let of = (order.hierarchy.clone(), order.resource, operation);
                let mut longest = longest.lock().unwrap_or_else(PoisonError::into_inner);
                let longest = longest.entry(of).or_default();
                *longest = (*longest).max(began.elapsed());
            }
            let _ = inputs.send(Input::Operated { hierarchy: order.hierarchy, op: order.op, outcome });
        });
    }

    /// Called for every answer that went into the engine.
    pub(super) fn ended(&mut self, op: OpId) {
        self.operations.remove(&op);
    }

    pub(super) fn cancel(&mut self, op: OpId) {
        if let Some(task) = self.operations.remove(&op) {
            task.abort();
        }
    }

    pub(super) fn watch(
        &mut self,
        resource: Arc<dyn Resource>,
        hierarchy: HierarchyName,
        name: ResourceName,
        epoch: Epoch,
    ) {
        let context = self.context(&hierarchy, &name, epoch, Duration::MAX);
        let inputs = self.inputs.clone();
        let key = (hierarchy.clone(), name.clone());
        let defects = Defects::new(&hierarchy, &name, inputs.clone());
        let task = tokio::spawn(async move {
            let watch = async {
                let why = resource.watch(&context).await;
                let _ = inputs.send(Input::WatchFired { hierarchy, resource: name, why });
            };
            let tell = |what| defects.tell(what);
            tokio::join!(watch, resource.defects(&tell));
        });
        if let Some(earlier) = self.watches.insert(key, task.abort_handle()) {
            earlier.abort();
        }
    }

    pub(super) fn unwatch(&mut self, hierarchy: &HierarchyName, resource: &ResourceName) {
        if let Some(task) = self.watches.remove(&(hierarchy.clone(), resource.clone())) {
            task.abort();
        }
    }

    pub(super) fn acquire(&self, claim: Arc<dyn Claim>, hierarchy: HierarchyName, op: OpId, request: Acquire) {
        self.ask(
            async move { claim.acquire(request).await },
            |why| Err(Refusal::Unreachable(why)),
            move |answer| Input::Acquired { hierarchy, op, answer },
        );
    }

    pub(super) fn inspect(&self, claim: Arc<dyn Claim>, hierarchy: HierarchyName, op: OpId) {
        self.ask(
            async move { claim.inspect().await },
            |why| Err(Refusal::Unreachable(why)),
            move |answer| Input::Inspected { hierarchy, op, answer },
        );
    }

    pub(super) fn uphold(&self, claim: Arc<dyn Claim>, hierarchy: HierarchyName, op: OpId, epoch: Epoch) {
        self.ask(
            async move { claim.uphold(epoch).await },
            |why| Err(Loss::unproven(why)),
            move |answer| Input::Upheld { hierarchy, op, answer },
        );
    }

    /// From now on a loss of what was acquired is told of when the claim knows it.
    pub(super) fn held(&mut self, claim: Arc<dyn Claim>, hierarchy: HierarchyName, epoch: Epoch) {
        let (inputs, name) = (self.inputs.clone(), hierarchy.clone());
        let task = tokio::spawn(async move {
            let loss = claim.lost(epoch).await;
            let _ = inputs.send(Input::ClaimLost { hierarchy, epoch, loss });
        });
        self.keep_loss(name, Some(task.abort_handle()));
    }

    fn keep_loss(&mut self, hierarchy: HierarchyName, task: Option<AbortHandle>) {
        let earlier = match task {
            Some(task) => self.losses.insert(hierarchy, task),
            None => self.losses.remove(&hierarchy),
        };
        if let Some(earlier) = earlier {
            earlier.abort();
        }
    }

    pub(super) fn release(
        &mut self,
        claim: Arc<dyn Claim>,
        hierarchy: HierarchyName,
        op: OpId,
        (epoch, heir, failures): (Epoch, Option<NodeName>, EarlyFailures),
    ) {
        self.keep_loss(hierarchy.clone(), None);
        self.ask(
            async move { claim.release(epoch, heir, failures).await },
            |why| Err(Refusal::Unreachable(why)),
            move |answer| Input::Released { hierarchy, op, answer },
        );
    }

    fn ask<T: Send + 'static>(
        &self,
        question: impl Future<Output = T> + Send + 'static,
        unanswered: impl FnOnce(String) -> T + Send + 'static,
        input: impl FnOnce(T) -> Input + Send + 'static,
    ) {
        let run = tokio::spawn(tokio::time::timeout(CLAIM_PATIENCE, question));
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            let answer = match run.await {
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) => unanswered(format!("no answer within {}", humantime::format_duration(CLAIM_PATIENCE))),
                Err(error) => unanswered(panic_text(error)),
            };
            let _ = inputs.send(input(answer));
        });
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        for task in self.operations.values().chain(self.watches.values()).chain(self.losses.values()) {
            task.abort();
        }
    }
}

/// What is wrong with a resource that runs: told when it changes, and taken back when nobody looks any more.
struct Defects {
    part: String,
    inputs: UnboundedSender<Input>,
    told: Mutex<Option<String>>,
}

impl Defects {
    fn new(hierarchy: &HierarchyName, resource: &ResourceName, inputs: UnboundedSender<Input>) -> Self {
        Defects { part: format!("{resource} of {hierarchy}"), inputs, told: Mutex::default() }
    }

    fn tell(&self, what: Option<String>) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if *told != what {
            told.clone_from(&what);
            let _ = self.inputs.send(Input::Trouble { part: self.part.clone(), trouble: what });
        }
    }
}

impl Drop for Defects {
    fn drop(&mut self) {
        self.tell(None);
    }
}

async fn carry_out(resource: &dyn Resource, operation: Operation, context: &Context) -> Outcome {
    let done = |result: Result<(), super::Failed>| match result {
        Ok(()) => Outcome::Good,
        Err(failed) => Outcome::Bad(failed.0),
    };
    match operation {
        Operation::Start => done(resource.start(context).await),
        Operation::Stop => done(resource.stop(context).await),
        Operation::Kill => done(resource.kill(context).await),
        Operation::Monitor => match resource.monitor(context).await {
            Verdict::Good => Outcome::Good,
            Verdict::Bad(why) => Outcome::Bad(why),
            Verdict::Unknown(why) => Outcome::Unknown(why),
        },
        Operation::Adopt => match resource.adopt(context).await {
            Ok(Found::Running) => Outcome::Good,
            Ok(Found::Stopped) => Outcome::Bad("it does not run any more".to_owned()),
            Err(failed) => Outcome::Bad(failed.0),
        },
    }
}

fn panic_text(error: JoinError) -> String {
    match error.try_into_panic() {
        Ok(panic) => {
            let text = panic.downcast_ref::<&str>().map(ToString::to_string);
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            format!("the code of the resource or claim panicked: {text}")
        }
        Err(error) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::super::Failed;
    use super::*;

    /// Tells what it is bid to.
    struct Mirror(tokio::sync::Mutex<tokio::sync::mpsc::UnboundedReceiver<Option<String>>>);

    #[async_trait]
    impl Resource for Mirror {
        async fn start(&self, _: &Context) -> Result<(), Failed> {
            Ok(())
        }
        async fn stop(&self, _: &Context) -> Result<(), Failed> {
            Ok(())
        }
        async fn monitor(&self, _: &Context) -> Verdict {
            Verdict::Good
        }
        async fn defects(&self, tell: &(dyn Fn(Option<String>) + Send + Sync)) {
            while let Some(what) = self.0.lock().await.recv().await {
                tell(what);
            }
            std::future::pending().await
        }
    }

    #[tokio::test]
    async fn what_is_wrong_with_a_resource_is_told_when_it_changes_and_taken_back_when_nobody_looks() {
        let (inputs, mut inbox) = tokio::sync::mpsc::unbounded_channel();
        let (bid, bids) = tokio::sync::mpsc::unbounded_channel();
        let hierarchy = HierarchyName::new("orders").unwrap();
        let name = ResourceName::new("mirror").unwrap();
        let mut work = Work::new(NodeName::new("alpha").unwrap(), inputs);
        let mirror = Arc::new(Mirror(tokio::sync::Mutex::new(bids)));
        work.watch(mirror, hierarchy.clone(), name.clone(), Epoch(1));
        let degraded = Some("a disk has failed".to_owned());
        for what in [None, degraded.clone(), degraded.clone(), None, degraded.clone()] {
            bid.send(what).unwrap();
        }
        let mut told = Vec::new();
        for expected in [degraded.clone(), None, degraded, None] {
            if told.len() == 3 {
                work.unwatch(&hierarchy, &name);
            }
            let Some(Input::Trouble { part, trouble }) = inbox.recv().await else { panic!("nothing is told") };
            assert_eq!((part.as_str(), &trouble), ("mirror of orders", &expected));
            told.push(trouble);
        }
    }
}
