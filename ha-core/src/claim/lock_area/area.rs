//! A lock area in use: one task that carries the machine's transfers out, and the claims that speak with it.
//!
//! Decides nothing; [`super::machine`] does.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::device::{BlockDevice, IoFailure};
use super::layout::{BlockError, HEADER_LEN, Header, header_len};
use super::machine::{Answer, Config, Effect, Input, Machine, Request, RequestId};
use super::timing::LeaseTiming;
use crate::claim::{Acquire, Claim, EarlyFailures, Held, Holding, LeaseNews, Loss, Refusal, SharedLease, Tenure};
use crate::name::{BootId, Epoch, HierarchyName, Incarnation, LockAreaName, NodeName};
use crate::time::Time;

/// The boot-time clock of this node.
pub type Clock = Arc<dyn Fn() -> Time + Send + Sync>;

/// How a node uses a lock area.
#[derive(Clone, Debug)]
pub struct AreaConfig {
    /// The area's name in the cluster's configuration, for reports.
    pub name: LockAreaName,
    /// This node; must be one of those that the area was made for.
    pub node: NodeName,
    /// This boot. The caller guarantees, for example with a lock file, that no other agent of this boot uses `node`'s slot.
    pub boot: BootId,
    /// This life of the agent, greater than any before.
    pub incarnation: Incarnation,
    /// The times that the configuration states, to be compared with the area's; `None` to take the area's.
    pub timing: Option<LeaseTiming>,
    /// For the pauses after losing a race; from the system's random source.
    pub seed: u64,
}

/// Why a lock area cannot be used. Nothing was written, but for [`OpenError::NotEntered`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The device does not answer.
    #[error("lock area {area} cannot be read: {failure}")]
    Unreachable {
        /// Which.
        area: LockAreaName,
        /// Why.
        failure: IoFailure,
    },
    /// There is no lock area there, or both copies of its header are broken.
    #[error("no usable lock area at the place configured for {area}: {error}; make one with `ha lock-area init`")]
    NoArea {
        /// Which.
        area: LockAreaName,
        /// What is there.
        error: BlockError,
    },
    /// Made for another kind of device.
    #[error("lock area {area} was made for blocks of {made} bytes, the device has {device}")]
    BlockSize {
        /// Which.
        area: LockAreaName,
        /// In the header.
        made: u32,
        /// The device's.
        device: u32,
    },
    /// The device became smaller.
    #[error("lock area {area} takes {needed} bytes, the device has {size}")]
    TooSmall {
        /// Which.
        area: LockAreaName,
        /// In bytes.
        needed: u64,
        /// In bytes.
        size: u64,
    },
    /// Not made for this node.
    #[error("lock area {area} has no slot for node {node}: it was made for {nodes:?}")]
    UnknownNode {
        /// Which.
        area: LockAreaName,
        /// This node.
        node: NodeName,
        /// Those with a slot.
        nodes: Vec<NodeName>,
    },
    /// The configuration and the area disagree about the times, which must be the same on all nodes.
    #[error(
        "lock area {area} runs on: {made}; the configuration says: {configured}; correct the configuration, or make the area anew"
    )]
    Timing {
        /// Which.
        area: LockAreaName,
        /// In the header.
        made: LeaseTiming,
        /// In the configuration.
        configured: LeaseTiming,
    },
    /// Another node uses the same name.
    #[error("lock area {area}: {who}")]
    NameInUse {
        /// Which.
        area: LockAreaName,
        /// Who.
        who: String,
    },
    /// The slot could not be entered in time; the node is not in the area.
    #[error("lock area {area} could not be entered: {why}")]
    NotEntered {
        /// Which.
        area: LockAreaName,
        /// What the storage said last.
        why: String,
    },
}

enum Message {
    Ask(Request, oneshot::Sender<Answer>),
    Uphold(HierarchyName, Epoch, oneshot::Sender<Result<Tenure, Loss>>),
}

/// A lock area that this node has entered. Cloning is cheap. The task ends when the last clone and the last claim are gone.
#[derive(Clone)]
pub struct LockArea {
    name: LockAreaName,
    header: Arc<Header>,
    messages: mpsc::UnboundedSender<Message>,
    news: watch::Receiver<LeaseNews>,
}

/// Reads the header: the first good copy.
pub(super) async fn read_header(device: &dyn BlockDevice) -> Result<Result<Header, BlockError>, IoFailure> {
    let len = header_len(device.block_size());
    if device.size() < 2 * len as u64 {
        return Ok(Err(BlockError::Short(device.size() as usize)));
    }
    let bytes = device.read(0, 2 * len).await?;
    let first = Header::decode(bytes.get(..HEADER_LEN).unwrap_or(&bytes));
    if first.is_ok() {
        return Ok(first);
    }
    Ok(Header::decode(bytes.get(len..).unwrap_or(&[])).or(first))
}

impl LockArea {
    /// Enters the area: reads the header, checks it against the configuration, makes sure that nobody else uses this
    /// node's name, and takes up the lease. Runs for up to a few renewals; must be called within a tokio runtime.
    pub async fn open(device: Arc<dyn BlockDevice>, config: AreaConfig, clock: Clock) -> Result<LockArea, OpenError> {
        let area = config.name.clone();
        let header = match read_header(&*device).await {
            Err(failure) => return Err(OpenError::Unreachable { area, failure }),
            Ok(Err(error)) => return Err(OpenError::NoArea { area, error }),
            Ok(Ok(header)) => header,
        };
        let (made, on_device) = (header.block_size, device.block_size());
        if made != on_device {
            return Err(OpenError::BlockSize { area, made, device: on_device });
        }
        let (needed, size) = (header.area_len(), device.size());
        if needed > size {
            return Err(OpenError::TooSmall { area, needed, size });
        }
        if let Some(configured) = config.timing
            && configured != header.timing
        {
            return Err(OpenError::Timing { area, made: header.timing, configured });
        }
        let machine =
            Config { node: config.node.clone(), boot: config.boot, incarnation: config.incarnation, seed: config.seed };
        let Some(machine) = Machine::new(header.clone(), &machine) else {
            return Err(OpenError::UnknownNode { area, node: config.node, nodes: header.nodes });
        };
        let timing = header.timing;
        let (messages, inbox) = mpsc::unbounded_channel();
        let (news, seen) = watch::channel(LeaseNews::default());
        let (entered, entry) = oneshot::channel();
        let service =
            Service { device, machine, clock, inbox, news, answers: HashMap::new(), next: 0, entered: Some(entered) };
        tokio::spawn(service.run());
        let area = LockArea { name: area, header: Arc::new(header), messages, news: seen };
        area.entered(entry, timing.expires_after() * 2).await?;
        Ok(area)
    }

    async fn entered(&self, entry: oneshot::Receiver<Result<(), String>>, patience: Duration) -> Result<(), OpenError> {
        let area = self.name.clone();
        match tokio::time::timeout(patience, entry).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(who))) => Err(OpenError::NameInUse { area, who }),
            Ok(Err(_)) | Err(_) => {
                let why = self.news.borrow().trouble.clone();
                let why = why.unwrap_or_else(|| "the storage did not answer in time".into());
                Err(OpenError::NotEntered { area, why })
            }
        }
    }

    /// The claim of one hierarchy. A number is given to it when it is first acquired.
    pub fn claim(&self, hierarchy: HierarchyName) -> Arc<dyn Claim> {
        Arc::new(AreaClaim { area: self.clone(), hierarchy })
    }

    /// What the area's header says.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Says goodbye, so that the others need not wait. Refused while this node owns anything.
    pub async fn leave(&self) -> Result<(), Refusal> {
        if let Answer::Refused(refusal) = self.ask(Request::Leave).await? {
            return Err(refusal);
        }
        // The goodbye is on disk when the lease is given up.
        let mut news = self.news.clone();
        let patience = self.header.timing.deadline();
        let left = tokio::time::timeout(patience, news.wait_for(|n| n.until.is_none())).await;
        left.map(drop).map_err(|_| Refusal::Unreachable("the goodbye was not written in time".into()))
    }

    async fn ask(&self, request: Request) -> Result<Answer, Refusal> {
        let (to, answer) = oneshot::channel();
        let gone = || Refusal::Unfit("the lock area's task has ended".into());
        self.messages.send(Message::Ask(request, to)).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }
}

#[async_trait]
impl SharedLease for LockArea {
    fn name(&self) -> &str {
        self.name.as_str()
    }

    async fn changed(&self, seen: &LeaseNews) -> LeaseNews {
        let mut news = self.news.clone();
        let now = news.wait_for(|now| now != seen).await.ok().map(|now| now.clone());
        match now {
            Some(now) => now,
            // The task has ended, so nothing is renewed any more: said once, then never again.
            None if seen.trouble.as_deref() != Some(ENDED) => {
                LeaseNews { trouble: Some(ENDED.into()), ..LeaseNews::default() }
            }
            None => std::future::pending().await,
        }
    }
}

const ENDED: &str = "the lock area's task has ended";

struct AreaClaim {
    area: LockArea,
    hierarchy: HierarchyName,
}

fn unexpected(answer: Answer) -> Refusal {
    match answer {
        Answer::Refused(refusal) => refusal,
        other => Refusal::Unfit(format!("answered beside the question: {other:?}")),
    }
}

#[async_trait]
impl Claim for AreaClaim {
    async fn inspect(&self) -> Result<Holding, Refusal> {
        match self.area.ask(Request::Inspect(self.hierarchy.clone())).await? {
            Answer::Seen(holding) => Ok(holding),
            other => Err(unexpected(other)),
        }
    }

    async fn acquire(&self, request: Acquire) -> Result<Held, Refusal> {
        match self.area.ask(Request::Acquire(self.hierarchy.clone(), request)).await? {
            Answer::Acquired(held) => Ok(held),
            other => Err(unexpected(other)),
        }
    }

    async fn uphold(&self, epoch: Epoch) -> Result<Tenure, Loss> {
        let (to, answer) = oneshot::channel();
        let ended = || Loss::unproven(ENDED);
        self.area.messages.send(Message::Uphold(self.hierarchy.clone(), epoch, to)).map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }

    async fn release(&self, epoch: Epoch, heir: Option<NodeName>, failures: EarlyFailures) -> Result<(), Refusal> {
        let hierarchy = self.hierarchy.clone();
        match self.area.ask(Request::Release { hierarchy, epoch, heir, failures }).await? {
            Answer::Done => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    fn shared_lease(&self) -> Option<Arc<dyn SharedLease>> {
        Some(Arc::new(self.area.clone()))
    }
}

type Transfer = Pin<Box<dyn Future<Output = Input> + Send>>;

struct Service {
    device: Arc<dyn BlockDevice>,
    machine: Machine,
    clock: Clock,
    inbox: mpsc::UnboundedReceiver<Message>,
    news: watch::Sender<LeaseNews>,
    answers: HashMap<RequestId, (Option<HierarchyName>, oneshot::Sender<Answer>)>,
    next: u64,
    entered: Option<oneshot::Sender<Result<(), String>>>,
}

impl Service {
    async fn run(mut self) {
        let mut transfers: JoinSet<Input> = JoinSet::new();
        self.step(Input::Tick, &mut transfers);
        loop {
            let now = (self.clock)();
            let wait = self.machine.next_deadline().map_or(Duration::from_secs(1), |at| now.until(at));
            tokio::select! {
                Some(done) = transfers.join_next() => {
                    if let Ok(input) = done {
                        self.step(input, &mut transfers);
                    }
                }
                message = self.inbox.recv() => {
                    let Some(message) = message else { return };
                    self.take(message);
                    // What was asked together is answered together.
                    while let Ok(message) = self.inbox.try_recv() {
                        self.take(message);
                    }
                    self.step(Input::Tick, &mut transfers);
                }
                () = tokio::time::sleep(wait.min(Duration::from_secs(1))) => self.step(Input::Tick, &mut transfers),
            }
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Uphold(hierarchy, epoch, to) => {
                let _ = to.send(self.machine.uphold((self.clock)(), &hierarchy, epoch));
            }
            Message::Ask(request, to) => {
                let hierarchy = request.hierarchy().cloned();
                let id = self.id();
                self.answers.insert(id, (hierarchy, to));
                self.machine.ask(id, request);
            }
        }
    }

    fn id(&mut self) -> RequestId {
        self.next += 1;
        RequestId(self.next)
    }

    fn step(&mut self, input: Input, transfers: &mut JoinSet<Input>) {
        self.machine.handle((self.clock)(), input);
        while let Some(effect) = self.machine.poll_effect() {
            tracing::trace!(%effect, "lock area");
            match effect {
                Effect::Answer(id, answer) => self.reply(id, answer),
                Effect::News(news) => {
                    self.news.send_replace(news);
                }
                transfer => {
                    if let Some(transfer) = carry_out(&self.device, transfer) {
                        transfers.spawn(transfer);
                    }
                }
            }
        }
        let outcome = if let Some(who) = self.machine.name_in_use() {
            Some(Err(who.to_owned()))
        } else {
            self.machine.has_entered().then_some(Ok(()))
        };
        if let Some(outcome) = outcome
            && let Some(entered) = self.entered.take()
        {
            let _ = entered.send(outcome);
        }
    }

    /// Answers; a claim that was acquired for somebody who no longer waits is given back.
    fn reply(&mut self, id: RequestId, answer: Answer) {
        let Some((hierarchy, to)) = self.answers.remove(&id) else { return };
        if let Err(Answer::Acquired(held)) = to.send(answer)
            && let Some(hierarchy) = hierarchy
        {
            let id = self.id();
            let failures = held.failures;
            self.machine.ask(id, Request::Release { hierarchy, epoch: held.epoch, heir: None, failures });
        }
    }
}

fn carry_out(device: &Arc<dyn BlockDevice>, effect: Effect) -> Option<Transfer> {
    let device = device.clone();
    Some(match effect {
        Effect::Read { tag, offset, len, bound } => Box::pin(async move {
            let read = tokio::time::timeout(bound, device.read(offset, len)).await;
            Input::Read(tag, read.unwrap_or(Err(IoFailure::NoAnswer)))
        }),
        Effect::Write { tag, offset, bytes, bound } => Box::pin(async move {
            let written = tokio::time::timeout(bound, device.write(offset, bytes)).await;
            Input::Written(tag, written.unwrap_or(Err(IoFailure::NoAnswer)))
        }),
        Effect::Answer(..) | Effect::News(_) => return None,
    })
}
