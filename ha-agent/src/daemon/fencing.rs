//! Other nodes switched off when an operator or the engine orders it, and the devices looked at now and then.
//!
//! Decides who may be fenced, that one node is not fenced twice at the same time, and what the engine is told of it. Leaves the devices, and what
//! is proof, to [`ha_resources::fence::agents`], and to the engine what follows from it, and when it orders a fencing itself (`fencing_by: Nodes`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use ha_core::driver::{Clock, Fencer, Node};
use ha_core::engine::PROOF_COUNTS_FOR;
use ha_core::name::NodeName;
use ha_core::record::FencingNews;
use ha_resources::fence::agents::{self, FenceDevice, Progress, Proof, Step, look_at, still_off, switch_on};
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::api::{ErrorBody, ErrorCode, FenceLine, FenceRequest, FenceWhat};
use crate::config::{Config, FencingBy};

/// The devices are looked at so long after the agent began, for the first time.
const FIRST_LOOK: Duration = Duration::from_secs(5);
/// The last beats of a node, and its last sign on the storage, are noticed at the latest so long after it was switched off. A proof counts only for a
/// node of which nothing was heard since it was asked for: so it is asked for once more then, for those that lived until they were off.
const LAST_SIGNS: Duration = Duration::from_millis(1_500);
/// Longer reasons are cut off, in characters.
const REASON_MAX: usize = 200;
/// Longer words of devices are cut off, in characters.
const WORDS_MAX: usize = 1000;

/// How other nodes can be switched off.
pub(super) struct Fencing {
    levels: BTreeMap<NodeName, Arc<Vec<Vec<FenceDevice>>>>,
    known: BTreeSet<NodeName>,
    check_every: Duration,
    /// Who may be fenced without an operator's order.
    without_order: Vec<NodeName>,
    me: NodeName,
    clock: Clock,
    /// Whose devices are in use, as somebody asked for.
    busy: Arc<Mutex<BTreeSet<NodeName>>>,
    /// Somebody asked: what is only being looked at must wait.
    asked: Notify,
}

impl Fencing {
    pub(super) fn new(config: &Config, me: NodeName, clock: Clock, cgroups: Option<&PathBuf>) -> Self {
        let device = |spec: &agents::DeviceSpec| FenceDevice::new(spec.clone(), cgroups.cloned());
        let levels = config.fencing.iter().map(|(name, levels)| {
            let levels = levels.iter().map(|level| level.iter().map(device).collect()).collect();
            (name.clone(), Arc::new(levels))
        });
        Fencing {
            levels: levels.collect(),
            known: config.nodes.iter().map(|node| node.name.clone()).collect(),
            check_every: config.fencing_check_every,
            without_order: match config.fencing_by {
                FencingBy::Nodes => config.fencing.keys().filter(|node| **node != me).cloned().collect(),
                FencingBy::Operator => Vec::new(),
            },
            me,
            clock,
            busy: Arc::default(),
            asked: Notify::new(),
        }
    }

    /// Begins what is asked for, if it may be done; it goes on whether or not anybody listens.
    pub(super) fn begin(
        self: &Arc<Self>,
        request: FenceRequest,
        by: String,
        node: &Node,
    ) -> Result<UnboundedReceiver<FenceLine>, ErrorBody> {
        let victim = &request.node;
        if !self.known.contains(victim) {
            let known: Vec<&str> = self.known.iter().map(NodeName::as_str).collect();
            let what = format!("there is no node {victim}: expected one of {}", known.join(", "));
            return Err(ErrorBody::new(ErrorCode::UnknownNode, what));
        }
        if *victim == self.me && request.what != FenceWhat::Test {
            let what = format!("{victim} is this node: fence it from another one, or reboot it");
            return Err(ErrorBody::new(ErrorCode::NotNow, what));
        }
        let Some(levels) = self.levels.get(victim).cloned() else {
            let what = format!(
                "no fencing is configured for {victim}: give it `fencing` in agent.ron, then restart the agent"
            );
            return Err(ErrorBody::new(ErrorCode::NotNow, what));
        };
        let Some(busy) = Busy::take(&self.busy, victim) else {
            let what = format!("the devices of {victim} are in use by another request: try again when it has ended");
            return Err(ErrorBody::new(ErrorCode::NotNow, what));
        };
        self.asked.notify_waiters();
        let (lines, listening) = unbounded_channel();
        let (this, node) = (self.clone(), node.clone());
        tokio::spawn(async move {
            let _busy = busy;
            let (progress, steps) = unbounded_channel();
            let passing_on = tokio::spawn(pass_on(steps, lines.clone()));
            let (news, to_tell) = unbounded_channel();
            let telling = tokio::spawn(tell_engine(node, request.node.clone(), to_tell));
            let last = match request.what {
                FenceWhat::Test => FenceLine::Tested { troubles: look_at(&levels, &progress).await },
                FenceWhat::Off | FenceWhat::Reboot => {
                    let tell = |what| drop(news.send(what));
                    this.switch_off(&levels, request, by, &progress, &tell).await
                }
            };
            drop((progress, news));
            let _ = telling.await;
            let _ = passing_on.await;
            // Whoever asked may have gone away.
            let _ = lines.send(last);
        });
        Ok(listening)
    }

    async fn switch_off(
        &self,
        levels: &[Vec<FenceDevice>],
        order: FenceRequest,
        by: String,
        progress: &Progress,
        tell: &(dyn Fn(FencingNews) + Send + Sync),
    ) -> FenceLine {
        let begun = (self.clock)();
        let reason = order.reason.chars().take(REASON_MAX).collect();
        tell(FencingNews::Begun { by, reason });
        let report = agents::fence(levels, progress).await;
        let summary: String = report.describe().chars().take(WORDS_MAX).collect();
        let how = summary.clone();
        let news = match report.proof {
            Proof::Off => FencingNews::Proven { begun, how },
            Proof::CutOff => FencingNews::CutOff { how },
            Proof::None => FencingNews::NotProven { why: how },
        };
        tell(news);
        let proven_by = report.levels.last().filter(|_| report.proof != Proof::None);
        let proven_by = proven_by.and_then(|last| Some((last.level, levels.get(last.level - 1)?)));
        if let (Proof::Off, Some((level, devices))) = (&report.proof, proven_by) {
            tokio::time::sleep(LAST_SIGNS).await;
            let begun = (self.clock)();
            if still_off(level, devices, progress).await {
                tell(FencingNews::Proven { begun, how: format!("{summary}, still") });
            }
        }
        let mut switched_on = None;
        if let (FenceWhat::Reboot, Some((level, devices))) = (order.what, proven_by) {
            // Until then the engine takes it for gone, and must not meet its next life.
            tokio::time::sleep(PROOF_COUNTS_FOR).await;
            let done = switch_on(level, devices, progress).await;
            let trouble = done.clone().err().map(|why| why.chars().take(WORDS_MAX).collect());
            tell(FencingNews::SwitchedOn { trouble });
            switched_on = Some(done);
        }
        FenceLine::Fenced { report, summary, switched_on }
    }

    /// Looks at the devices of every other node now and then, for as long as the agent lives: what cannot be reached is among the problems
    /// before it is needed.
    pub(super) async fn keep_looking(self: &Arc<Self>, node: &Node) {
        let mut pause = FIRST_LOOK.min(self.check_every);
        loop {
            tokio::time::sleep(pause).await;
            pause = self.check_every;
            for (victim, levels) in self.levels.iter().filter(|(victim, _)| **victim != self.me) {
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
                let _ = node.complain(&format!("fencing of {victim}"), trouble).await;
            }
        }
    }
}

#[async_trait]
impl Fencer for Fencing {
    fn nodes(&self) -> Vec<NodeName> {
        self.without_order.clone()
    }

    async fn fence(&self, node: &NodeName, why: &str, tell: &(dyn Fn(FencingNews) + Send + Sync)) {
        let Some(levels) = self.levels.get(node).cloned() else { return };
        let Some(_busy) = Busy::take(&self.busy, node) else {
            let why = "its devices are in use by another request".to_owned();
            return tell(FencingNews::NotProven { why });
        };
        self.asked.notify_waiters();
        let order = FenceRequest { node: node.clone(), what: FenceWhat::Reboot, reason: why.to_owned() };
        let (nobody, _) = unbounded_channel();
        let by = format!("ha@{}", self.me);
        self.switch_off(&levels, order, by, &nobody, tell).await;
    }
}

async fn tell_engine(node: Node, victim: NodeName, mut news: UnboundedReceiver<FencingNews>) {
    while let Some(news) = news.recv().await {
        // Where the node has ended there is nobody who could be told.
        let _ = node.fencing(victim.clone(), news).await;
    }
}

async fn pass_on(mut steps: UnboundedReceiver<Step>, lines: UnboundedSender<FenceLine>) {
    while let Some(step) = steps.recv().await {
        let _ = lines.send(FenceLine::Step(step));
    }
}

/// The devices of a node, in use.
struct Busy(Arc<Mutex<BTreeSet<NodeName>>>, NodeName);

impl Busy {
    fn take(busy: &Arc<Mutex<BTreeSet<NodeName>>>, victim: &NodeName) -> Option<Busy> {
        let is_new = busy.lock().unwrap_or_else(PoisonError::into_inner).insert(victim.clone());
        is_new.then(|| Busy(busy.clone(), victim.clone()))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}
