//! Other nodes switched off when an operator orders it, and the devices looked at now and then.
//!
//! Decides who may be fenced, that one node is not fenced twice at the same time, and what the engine is told of it. Nobody is fenced without an
//! order. Leaves the devices, and what is proof, to [`ha_resources::fence::agents`], and what follows from it to the engine.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ha_core::driver::{Clock, Node};
use ha_core::engine::PROOF_COUNTS_FOR;
use ha_core::name::NodeName;
use ha_core::record::FencingNews;
use ha_resources::fence::agents::{self, FenceDevice, Progress, Proof, Step, look_at, switch_on};
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::api::{ErrorBody, ErrorCode, FenceLine, FenceRequest, FenceWhat};
use crate::config::Config;

/// The devices are looked at so long after the agent began, for the first time.
const FIRST_LOOK: Duration = Duration::from_secs(5);
/// Longer reasons are cut off, in characters.
const REASON_MAX: usize = 200;
/// Longer words of devices are cut off, in characters.
const WORDS_MAX: usize = 1000;

/// How other nodes can be switched off.
pub(super) struct Fencing {
    levels: BTreeMap<NodeName, Arc<Vec<Vec<FenceDevice>>>>,
    known: BTreeSet<NodeName>,
    check_every: Duration,
    node: Node,
    clock: Clock,
    /// Whose devices are in use, as somebody asked for.
    busy: Mutex<BTreeSet<NodeName>>,
    /// Somebody asked: what is only being looked at must wait.
    asked: Notify,
}

impl Fencing {
    pub(super) fn new(config: &Config, node: Node, clock: Clock, cgroups: Option<&PathBuf>) -> Self {
        let device = |spec: &agents::DeviceSpec| FenceDevice::new(spec.clone(), cgroups.cloned());
        let levels = config.fencing.iter().map(|(name, levels)| {
            let levels = levels.iter().map(|level| level.iter().map(device).collect()).collect();
            (name.clone(), Arc::new(levels))
        });
        Fencing {
            levels: levels.collect(),
            known: config.nodes.iter().map(|node| node.name.clone()).collect(),
            check_every: config.fencing_check_every,
            node,
            clock,
            busy: Mutex::default(),
            asked: Notify::new(),
        }
    }

    /// Begins what is asked for, if it may be done; it goes on whether or not anybody listens.
    pub(super) fn begin(
        self: &Arc<Self>,
        request: FenceRequest,
        by: String,
    ) -> Result<UnboundedReceiver<FenceLine>, ErrorBody> {
        let victim = &request.node;
        if !self.known.contains(victim) {
            let known: Vec<&str> = self.known.iter().map(NodeName::as_str).collect();
            let what = format!("there is no node {victim}: expected one of {}", known.join(", "));
            return Err(ErrorBody::new(ErrorCode::UnknownNode, what));
        }
        if victim == self.node.name() && request.what != FenceWhat::Test {
            let what = format!("{victim} is this node: fence it from another one, or reboot it");
            return Err(ErrorBody::new(ErrorCode::NotNow, what));
        }
        let Some(levels) = self.levels.get(victim).cloned() else {
            let what = format!(
                "no fencing is configured for {victim}: give it `fencing` in agent.ron, then restart the agent"
            );
            return Err(ErrorBody::new(ErrorCode::NotNow, what));
        };
        let Some(busy) = Busy::take(self, victim) else {
            let what = format!("the devices of {victim} are in use by another request: try again when it has ended");
            return Err(ErrorBody::new(ErrorCode::NotNow, what));
        };
        self.asked.notify_waiters();
        let (lines, listening) = unbounded_channel();
        let this = self.clone();
        tokio::spawn(async move {
            let _busy = busy;
            let (progress, steps) = unbounded_channel();
            let passing_on = tokio::spawn(pass_on(steps, lines.clone()));
            let last = match request.what {
                FenceWhat::Test => FenceLine::Tested { troubles: look_at(&levels, &progress).await },
                FenceWhat::Off | FenceWhat::Reboot => this.fence(&levels, request, by, &progress).await,
            };
            drop(progress);
            let _ = passing_on.await;
            // Whoever asked may have gone away.
            let _ = lines.send(last);
        });
        Ok(listening)
    }

    async fn fence(
        &self,
        levels: &[Vec<FenceDevice>],
        order: FenceRequest,
        by: String,
        progress: &Progress,
    ) -> FenceLine {
        let begun = (self.clock)();
        let reason = order.reason.chars().take(REASON_MAX).collect();
        self.tell(&order.node, FencingNews::Begun { by, reason }).await;
        let report = agents::fence(levels, progress).await;
        let summary: String = report.describe().chars().take(WORDS_MAX).collect();
        let how = summary.clone();
        let news = match report.proof {
            Proof::Off => FencingNews::Proven { begun, how },
            Proof::CutOff => FencingNews::CutOff { how },
            Proof::None => FencingNews::NotProven { why: how },
        };
        self.tell(&order.node, news).await;
        let mut switched_on = None;
        if order.what == FenceWhat::Reboot
            && report.proof != Proof::None
            && let Some(last) = report.levels.last()
            && let Some(devices) = levels.get(last.level - 1)
        {
            // Until then the engine takes it for gone, and must not meet its next life.
            tokio::time::sleep(PROOF_COUNTS_FOR).await;
            let done = switch_on(last.level, devices, progress).await;
            let trouble = done.clone().err().map(|why| why.chars().take(WORDS_MAX).collect());
            self.tell(&order.node, FencingNews::SwitchedOn { trouble }).await;
            switched_on = Some(done);
        }
        FenceLine::Fenced { report, summary, switched_on }
    }

    async fn tell(&self, victim: &NodeName, news: FencingNews) {
        // Where the node has ended there is nobody who could be told.
        let _ = self.node.fencing(victim.clone(), news).await;
    }

    /// Looks at the devices of every other node now and then, for as long as the agent lives: what cannot be reached is among the problems
    /// before it is needed.
    pub(super) async fn keep_looking(self: &Arc<Self>) {
        let mut pause = FIRST_LOOK.min(self.check_every);
        loop {
            tokio::time::sleep(pause).await;
            pause = self.check_every;
            for (victim, levels) in self.levels.iter().filter(|(victim, _)| *victim != self.node.name()) {
                let asked = self.asked.notified();
                if !self.busy.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
                    continue;
                }
                let (nobody, _) = unbounded_channel();
                let troubles = tokio::select! {
                    () = asked => continue,
                    troubles = look_at(levels, &nobody) => troubles,
                };
                let trouble: String = troubles.join("; ").chars().take(WORDS_MAX).collect();
                let trouble = Some(trouble).filter(|trouble| !trouble.is_empty());
                let _ = self.node.complain(&format!("fencing of {victim}"), trouble).await;
            }
        }
    }
}

async fn pass_on(mut steps: UnboundedReceiver<Step>, lines: UnboundedSender<FenceLine>) {
    while let Some(step) = steps.recv().await {
        let _ = lines.send(FenceLine::Step(step));
    }
}

/// The devices of a node, in use.
struct Busy(Arc<Fencing>, NodeName);

impl Busy {
    fn take(fencing: &Arc<Fencing>, victim: &NodeName) -> Option<Busy> {
        let is_new = fencing.busy.lock().unwrap_or_else(PoisonError::into_inner).insert(victim.clone());
        is_new.then(|| Busy(fencing.clone(), victim.clone()))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}
