//! A claim by reservation in use: one task that carries the machine's commands out, and the [`Claim`] that speaks with it.
//!
//! Decides nothing; [`super::machine`] does. The task defends what is held whether or not anybody asks.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::desk::Desk;
use super::device::{PathName, ReservationDevice, ReservationType};
use super::key::{Keyring, KeyringError};
use super::look::{Look, Next};
use super::machine::{Config, Effect, Input, Reply, Request};
use super::timing::{ReservationTiming, TimingError};
use crate::claim::lock_area::Clock;
use crate::claim::{Acquire, Claim, EarlyFailures, Held, Holding, Loss, Refusal, Tenure};
use crate::name::{ClusterName, Epoch, HierarchyName, NodeName};

/// How a node claims a hierarchy by reservation. Everything but `node` must be the same on all nodes.
#[derive(Clone, Debug)]
pub struct ReservationConfig {
    /// The cluster.
    pub cluster: ClusterName,
    /// This node; one of `nodes`.
    pub node: NodeName,
    /// The nodes of the cluster, all of them, in whatever order.
    pub nodes: Vec<NodeName>,
    /// The hierarchy, for reports.
    pub hierarchy: HierarchyName,
    /// What others are kept from: [`ReservationType::WriteExclusiveRegistrantsOnly`], or
    /// [`ReservationType::ExclusiveAccessRegistrantsOnly`].
    pub kind: ReservationType,
    /// The times.
    pub timing: ReservationTiming,
}

/// Why a claim cannot be made. Nothing was touched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReservationError {
    /// There is nothing to reserve.
    #[error("the claim of {0} names no device: name at least one")]
    NoDevice(HierarchyName),
    /// The same device would be the arbiter and another one.
    #[error("the claim of {hierarchy} names {device} twice")]
    Twice {
        /// Whose.
        hierarchy: HierarchyName,
        /// Which.
        device: String,
    },
    /// Not a type that this claim can use.
    #[error(
        "the claim of {hierarchy} cannot use reservations of type {kind:?}: expected WriteExclusiveRegistrantsOnly or \
         ExclusiveAccessRegistrantsOnly, which work on every path"
    )]
    Kind {
        /// Whose.
        hierarchy: HierarchyName,
        /// As given.
        kind: ReservationType,
    },
    /// The nodes cannot have keys.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// The times do not fit the devices.
    #[error(transparent)]
    Timing(#[from] TimingError),
}

enum Message {
    Ask(Request, oneshot::Sender<Reply>),
    Uphold(Epoch, oneshot::Sender<Result<Tenure, Loss>>),
}

/// The claim of a hierarchy by persistent reservation of one device or several. The first device is the arbiter.
///
/// What is held is defended by a task of its own, which ends, and defends no more, when the claim is dropped.
pub struct ReservationClaim {
    devices: Vec<Arc<dyn ReservationDevice>>,
    hierarchy: HierarchyName,
    machine: Config,
    clock: Clock,
    service: OnceLock<Running>,
}

/// How the task is spoken with.
struct Running {
    messages: mpsc::UnboundedSender<Message>,
    /// The tenure that was lost last, if it was not asked for anew since.
    lost: watch::Receiver<Option<(Epoch, Loss)>>,
}

impl ReservationClaim {
    /// A claim; touches nothing before it is asked for something.
    pub fn new(
        devices: Vec<Arc<dyn ReservationDevice>>,
        config: ReservationConfig,
        clock: Clock,
    ) -> Result<ReservationClaim, ReservationError> {
        let ReservationConfig { cluster, node, nodes, hierarchy, kind, timing } = config;
        if devices.is_empty() {
            return Err(ReservationError::NoDevice(hierarchy));
        }
        if !kind.admits_registrants() || kind.is_held_by_all_registrants() {
            return Err(ReservationError::Kind { hierarchy, kind });
        }
        for (place, device) in devices.iter().enumerate() {
            timing.check_device(device.name(), device.time_limit())?;
            if devices.iter().take(place).any(|other| other.name() == device.name()) {
                return Err(ReservationError::Twice { hierarchy, device: device.name().to_owned() });
            }
        }
        let keyring = Keyring::new(&cluster, nodes)?;
        let me = keyring.number_of(&node)?;
        let named = devices.iter().map(|device| (device.name().to_owned(), device.time_limit())).collect();
        let machine = Config { keyring, me, kind, timing, devices: named };
        Ok(ReservationClaim { devices, hierarchy, machine, clock, service: OnceLock::new() })
    }

    /// The keys of the cluster, to read what is registered with.
    pub fn keyring(&self) -> &Keyring {
        &self.machine.keyring
    }

    /// The devices, the arbiter first.
    pub fn devices(&self) -> &[Arc<dyn ReservationDevice>] {
        &self.devices
    }

    fn messages(&self) -> &mpsc::UnboundedSender<Message> {
        &self.running().messages
    }

    fn running(&self) -> &Running {
        self.service.get_or_init(|| {
            let (messages, inbox) = mpsc::unbounded_channel();
            let (tell_lost, lost) = watch::channel(None);
            let service = Service {
                devices: self.devices.clone(),
                hierarchy: self.hierarchy.clone(),
                desk: Desk::new(self.machine.clone()),
                clock: self.clock.clone(),
                inbox,
                lost: tell_lost,
            };
            tokio::spawn(service.run());
            Running { messages, lost }
        })
    }

    async fn ask(&self, request: Request) -> Result<Reply, Refusal> {
        let (to, answer) = oneshot::channel();
        let gone = || Refusal::Unfit(ENDED.to_owned());
        self.messages().send(Message::Ask(request, to)).map_err(|_| gone())?;
        match answer.await.map_err(|_| gone())? {
            Reply::Refused(refusal) => Err(refusal),
            reply => Ok(reply),
        }
    }
}

const ENDED: &str = "the reservation's task has ended";

#[async_trait]
impl Claim for ReservationClaim {
    async fn inspect(&self) -> Result<Holding, Refusal> {
        let Some(arbiter) = self.devices.first() else { return Err(Refusal::Unfit(ENDED.to_owned())) };
        let mut look = Look::new(arbiter.paths());
        loop {
            match look.next() {
                Next::Send(path, command) => look.answered(arbiter.send(&path, command).await),
                Next::Done(result) => return self.machine.inspected(result),
            }
        }
    }

    async fn acquire(&self, request: Acquire) -> Result<Held, Refusal> {
        match self.ask(Request::Acquire(request)).await? {
            Reply::Acquired(held) => Ok(held),
            other => Err(Refusal::Unfit(format!("answered beside the question: {other:?}"))),
        }
    }

    async fn uphold(&self, epoch: Epoch) -> Result<Tenure, Loss> {
        let (to, answer) = oneshot::channel();
        let ended = || Loss::GivenUp(ENDED.to_owned());
        self.messages().send(Message::Uphold(epoch, to)).map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }

    async fn lost(&self, epoch: Epoch) -> Loss {
        let mut lost = self.running().lost.clone();
        let known = lost.wait_for(|lost| lost.as_ref().is_some_and(|(of, _)| *of == epoch)).await;
        let known = known.ok().and_then(|lost| lost.clone());
        known.map_or_else(|| Loss::GivenUp(ENDED.to_owned()), |(_, loss)| loss)
    }

    /// An heir needs nothing on the device: the announcement that names it has the others hold back.
    async fn release(&self, epoch: Epoch, _: Option<NodeName>, _: EarlyFailures) -> Result<(), Refusal> {
        self.ask(Request::Release(epoch)).await.map(drop)
    }

    async fn fence(&self, victim: &NodeName) -> Result<(), Refusal> {
        self.ask(Request::Fence(victim.clone())).await.map(drop)
    }
}

struct Service {
    devices: Vec<Arc<dyn ReservationDevice>>,
    hierarchy: HierarchyName,
    desk: Desk<oneshot::Sender<Reply>>,
    clock: Clock,
    inbox: mpsc::UnboundedReceiver<Message>,
    lost: watch::Sender<Option<(Epoch, Loss)>>,
}

type Event = Pin<Box<dyn Future<Output = Input> + Send>>;

impl Service {
    async fn run(mut self) {
        let mut events: JoinSet<Input> = JoinSet::new();
        for (place, device) in self.devices.clone().into_iter().enumerate() {
            let names = device.paths();
            events.spawn(paths_changed(device, place, names.clone()));
            self.step(Input::Paths(place, names), &mut events);
        }
        loop {
            let now = (self.clock)();
            let wait = self.desk.next_deadline().map_or(Duration::from_secs(1), |at| now.until(at));
            tokio::select! {
                Some(done) = events.join_next() => {
                    let Ok(input) = done else { continue };
                    if let Input::Paths(place, names) = &input
                        && let Some(device) = self.devices.get(*place)
                    {
                        events.spawn(paths_changed(device.clone(), *place, names.clone()));
                    }
                    self.step(input, &mut events);
                }
                message = self.inbox.recv() => match message {
                    Some(Message::Ask(request, to)) => {
                        self.desk.ask((self.clock)(), request, to);
                        self.carry_out(&mut events);
                    }
                    Some(Message::Uphold(epoch, to)) => {
                        let _ = to.send(self.desk.uphold((self.clock)(), epoch));
                        self.carry_out(&mut events);
                    }
                    None => return,
                },
                () = tokio::time::sleep(wait.min(Duration::from_secs(1))) => self.step(Input::Tick, &mut events),
            }
        }
    }

    fn step(&mut self, input: Input, events: &mut JoinSet<Input>) {
        self.desk.handle((self.clock)(), input);
        self.carry_out(events);
    }

    fn carry_out(&mut self, events: &mut JoinSet<Input>) {
        while let Some(effect) = self.desk.poll_effect() {
            tracing::trace!(hierarchy = %self.hierarchy, %effect, "reservation");
            match effect {
                Effect::Reply(id, reply) => {
                    let now = (self.clock)();
                    if let Some((to, reply)) = self.desk.answer(now, id, reply)
                        && let Err(reply) = to.send(reply)
                    {
                        self.desk.give_back(now, &reply);
                    }
                }
                Effect::Send { id, device, path, command } => {
                    let Some(device) = self.devices.get(device).cloned() else { continue };
                    let sent: Event = Box::pin(async move { Input::Answered(id, device.send(&path, command).await) });
                    events.spawn(sent);
                }
            }
        }
        let lost = self.desk.lost_tenure();
        self.lost.send_if_modified(|told| {
            let differs = *told != lost;
            *told = lost;
            differs
        });
    }
}

async fn paths_changed(device: Arc<dyn ReservationDevice>, place: usize, seen: Vec<PathName>) -> Input {
    device.paths_changed(&seen).await;
    Input::Paths(place, device.paths())
}
