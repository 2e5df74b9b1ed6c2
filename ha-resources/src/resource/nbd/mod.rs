//! An export of an NBD server that is attached to a local device while its hierarchy is in service.
//!
//! Decides whose a device is, by what the kernel was told when it was attached: what somebody else attached is neither used nor taken away. Decides
//! what an export must be to be attached at all, and when it is proven detached. Leaves to the claim that no other node writes to it: an NBD
//! server knows nothing of owners, and serves as many as connect.
//!
//! The kernel is spoken to by its own interface, not by nbd-client(8): versions of that before 3.25, which are in use, cannot give a device
//! a name to be known by after a restart, and none can ask a server without attaching.

mod attached;
mod connection;
mod kernel;
mod read;
mod spec;
mod turns;
mod wire;

use std::fmt;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use ha_core::Resource;
use ha_core::driver::{Context, Failed, Verdict};
use nix::libc;
use tokio::time::Instant;

use self::attached::{Identity, Place, Seen};
use self::connection::Connection;
use self::kernel::{Attachment, Losses};
pub use self::spec::{Access, Device, NbdSpec, Server};
use self::turns::{Turn, Turns};
use self::wire::{Export, Wish, negotiate};
use super::Advice;
use super::block;
use crate::command::{Finished, Program, most_of};
use crate::deadline::{Gate, by};
use crate::{proc, uevent};

/// From one attempt to the next where something is in the way.
const PAUSE: Duration = Duration::from_millis(100);

/// How long a look may take when nothing waits for it.
const LOOK: Duration = Duration::from_secs(4);

/// So long a device that is cut off may be kept in sysfs by who has it open, before a kill goes on without.
const LINGERS: Duration = Duration::from_millis(500);

/// Where the driver shows that it is there, as a module or built in.
const MODULE: &str = "/sys/module/nbd";

/// The resource. See the [module](self).
pub struct Nbd {
    spec: NbdSpec,
    place: Place,
    /// Whoever changes something in the kernel.
    turns: Turns,
    /// A look at the device that has not come back.
    looking: Gate,
    /// A question to the server that has not come back.
    asking: Gate,
}

/// How it is detached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// When nobody uses it, with all that was written.
    Orderly,
    /// At once, whoever uses it.
    Forced,
}

impl Nbd {
    /// An export that is not attached yet, or is by an earlier life of the agent.
    pub fn new(spec: NbdSpec) -> Self {
        let place = Place::of(spec.device.0);
        Self { spec, place, turns: Turns::default(), looking: Gate::default(), asking: Gate::default() }
    }

    /// What would be better otherwise about an export.
    pub(crate) async fn advice(&self) -> Vec<Advice> {
        match self.ask().await {
            Ok(export) if self.spec.access == Access::ReadWrite && export.flags & wire::FLUSH == 0 => {
                vec![Advice::warning(
                    format!(
                        "the server of {} cannot be told to make data last: when it loses power, what programs here had synced may be lost",
                        self.spec.target()
                    ),
                    Some("`flush = true` for nbd-server; or `sync = true`".to_owned()),
                )]
            }
            _ => Vec::new(),
        }
    }

    fn identity(&self, context: &Context) -> Identity {
        Identity::of(context, self.spec.target())
    }

    fn node(&self) -> PathBuf {
        PathBuf::from(self.spec.device.to_string())
    }

    fn taken(&self, who: &str) -> Failed {
        let device = self.spec.device;
        Failed(format!(
            "{device} is somebody else's: {who}; choose another device on every node, or, if nobody needs it, `nbd-client -d {device}`"
        ))
    }

    /// Asks the server about the export, and nothing else.
    async fn ask(&self) -> Result<Export, Failed> {
        let spec = self.spec.clone();
        let silent = || spec.refused(&"does not answer in time");
        let Some(inside) = self.asking.enter() else { return Err(silent()) };
        let (asked, deadline) = (spec.clone(), Instant::now() + LOOK);
        let export = by(deadline, move || {
            let _inside = inside;
            let connection = Connection::open(&asked.server, deadline.into_std());
            let export =
                connection.map_err(Into::into).and_then(|mut to| negotiate(&mut to, &asked.export, Wish::Look));
            export.map_err(|why| asked.refused(&why))
        });
        export.await.unwrap_or_else(|| Err(silent()))
    }

    /// Has the kernel load its driver, where it is not there yet.
    async fn load(&self, how: &[&str], limit: Duration) -> Result<(), Failed> {
        if Path::new(MODULE).exists() {
            return Ok(());
        }
        let command: Vec<String> =
            [&["modprobe"], how, &["nbd"]].concat().iter().map(|&word| word.to_owned()).collect();
        let finished: Finished = Program { command, ..Program::default() }.run(limit).await?;
        if finished.status.success() {
            return Ok(());
        }
        Err(Failed(format!(
            "this kernel's driver for nbd cannot be loaded: modprobe {}; install the kernel's modules",
            finished.describe()
        )))
    }

    async fn attach(&self, identity: &Identity, deadline: Instant) -> Result<(), Failed> {
        let (spec, place, turns, identity) =
            (self.spec.clone(), self.place.clone(), self.turns.clone(), identity.clone());
        // That it can still say what it waited for.
        let inner = deadline.checked_sub(PAUSE).unwrap_or(deadline).into_std();
        let attached = by(deadline, move || {
            let turn = turns.next();
            attach(&spec, &place, &identity, &turn, inner)
        });
        attached.await.unwrap_or_else(|| {
            let target = self.spec.target();
            Err(Failed(format!("{target} could not be attached in time: its server or the kernel does not answer")))
        })?;
        block::appears(&self.node(), deadline).await?;
        match self.answers(deadline).await {
            Verdict::Good => Ok(()),
            Verdict::Bad(why) | Verdict::Unknown(why) => Err(Failed(format!("it was attached, but {why}"))),
        }
    }

    /// Reads a block of it, from the server.
    async fn answers(&self, deadline: Instant) -> Verdict {
        let left = deadline.saturating_duration_since(Instant::now());
        match block::answers(self.node(), &self.looking, left).await {
            Verdict::Bad(why) => {
                Verdict::Bad(format!("{why}: the connection to {} is lost, or it cannot read", self.spec.server))
            }
            other => other,
        }
    }

    /// What is wrong, as the kernel shows it.
    fn fault(&self, identity: &Identity) -> Option<String> {
        let (device, target) = (self.spec.device, self.spec.target());
        match self.place.look(identity) {
            Seen::Ours => None,
            Seen::Free => Some(format!("{device} is not attached to {target}")),
            Seen::Outdated(other) => Some(format!("{device} is attached to {other}, not to {target}")),
            Seen::Strangers(who) => Some(self.taken(&who).0),
        }
    }

    /// Takes away what is ours, whatever it is attached to, until the kernel shows it no more.
    async fn take_away(&self, context: &Context, way: Way) -> Result<(), Failed> {
        let (identity, deadline) = (self.identity(context), Instant::now() + most_of(context.timeout));
        // An attempt to attach that was given up does nothing from now on; where it is in the middle of it, it is waited for.
        let turns = self.turns.clone();
        if by(deadline, move || turns.next()).await.is_none() {
            return Err(Failed(format!("the kernel does not answer what was asked of {} before", self.spec.device)));
        }
        let (mut cut, mut in_the_way) = (None, None);
        loop {
            if matches!(self.place.look(&identity), Seen::Free | Seen::Strangers(_)) {
                return Ok(());
            }
            let answer = self.detach(way, deadline).await;
            // One that had no more time left tells nothing; what stood in the way before it does.
            let done = answer.unwrap_or_else(|| Err(in_the_way.take().unwrap_or_else(|| self.silent())));
            if matches!(self.place.look(&identity), Seen::Free | Seen::Strangers(_)) {
                return Ok(());
            }
            let now = Instant::now();
            if done.is_ok() {
                let since = *cut.get_or_insert(now);
                if way == Way::Forced
                    && now >= since + LINGERS
                    && matches!(self.answers(deadline).await, Verdict::Bad(_))
                {
                    tracing::warn!(
                        "{} is cut off from {}; its entry stays until nobody has it open{}",
                        self.spec.device,
                        self.spec.target(),
                        block::kept_by(self.place.directory())
                    );
                    return Ok(());
                }
            }
            if now + PAUSE >= deadline {
                return Err(self.still_there(done.err()));
            }
            in_the_way = done.err();
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn still_there(&self, why: Option<Failed>) -> Failed {
        why.unwrap_or_else(|| {
            let (device, kept) = (self.spec.device, block::kept_by(self.place.directory()));
            let openers = self.place.openers().unwrap_or_default();
            let by = if openers.is_empty() { String::new() } else { format!("; opened by {}", proc::list(&openers)) };
            Failed(format!("{device} is cut off from its server, but kept by who has it open{kept}{by}"))
        })
    }

    fn silent(&self) -> Failed {
        Failed(format!("{} does not answer, or the kernel does not", self.spec.device))
    }

    /// `None`: it took too long.
    async fn detach(&self, way: Way, deadline: Instant) -> Option<Result<(), Failed>> {
        let (device, place, turns) = (self.spec.device, self.place.clone(), self.turns.clone());
        by(deadline, move || {
            let turn = turns.next();
            let held = if way == Way::Orderly { hold(device, &place)? } else { None };
            let done = turn.act(|| kernel::disconnect(device.0)).unwrap_or(Ok(()));
            drop(held);
            done.map_err(|e| Failed(format!("the kernel does not detach {device}: {e}")))
        })
        .await
    }

    async fn until_fault(&self, identity: &Identity) -> io::Result<String> {
        let mut changes = uevent::Changes::open()?;
        let listening = by(Instant::now() + LOOK, Losses::listen).await;
        let mut losses = Losses::new(listening.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))?)?;
        loop {
            // After it has begun to tell, so that nothing falls between.
            if let Some(why) = self.fault(identity) {
                return Ok(why);
            }
            tokio::select! {
                lost = losses.of(self.spec.device.0) => {
                    lost?;
                    let (device, target) = (self.spec.device, self.spec.target());
                    return Ok(format!("{device} has lost its connection to {target}"));
                }
                told = changes.next() => told?,
            }
        }
    }
}

/// Asks the server for the export, and gives the connection to the kernel if it is what it should be.
fn attach(
    spec: &NbdSpec,
    place: &Place,
    identity: &Identity,
    turn: &Turn,
    deadline: std::time::Instant,
) -> Result<(), Failed> {
    let mut connection = Connection::open(&spec.server, deadline).map_err(|e| spec.refused(&wire::Refusal::from(e)))?;
    let export = negotiate(&mut connection, &spec.export, Wish::Begin).map_err(|why| spec.refused(&why))?;
    spec.fits(&export, Wish::Begin)?;
    let device = spec.device;
    let cannot = |e: &dyn fmt::Display| Failed(format!("the kernel does not attach {device}: {e}"));
    let socket = connection.for_kernel(spec.timeout).map_err(|e| cannot(&e))?;
    let read_only = if spec.access == Access::ReadOnly { wire::READ_ONLY } else { 0 };
    let attachment = Attachment {
        index: device.0,
        socket,
        size: export.size,
        block_size: export.block_size,
        flags: export.flags | read_only,
        timeout: spec.timeout,
        backend: &identity.text(),
    };
    loop {
        let in_time = std::time::Instant::now() < deadline;
        let attached =
            turn.act(|| if in_time { kernel::connect(&attachment) } else { Err(io::ErrorKind::TimedOut.into()) });
        match attached.unwrap_or_else(|| Err(io::ErrorKind::Interrupted.into())) {
            Ok(()) => break,
            // Whoever looks at it for a moment, as udev does, is in the way for as long.
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) => {
                if let Seen::Strangers(who) = place.look(identity) {
                    return Err(Failed(format!("{device} was attached by somebody else meanwhile: {who}")));
                }
                if std::time::Instant::now() + PAUSE >= deadline {
                    let openers = place.openers().unwrap_or_default();
                    return Err(cannot(&format!(
                        "it is kept open{}: {}",
                        block::kept_by(place.directory()),
                        proc::list(&openers)
                    )));
                }
                std::thread::sleep(PAUSE);
            }
            Err(e) => return Err(cannot(&e)),
        }
    }
    match place.backend() {
        Some(backend) if backend == identity.text() => Ok(()),
        // It could not be told from a stranger's afterwards.
        Some(backend) if backend.is_empty() => {
            let left = kernel::disconnect(device.0).err().map(|e| format!("; and it was not detached: {e}"));
            let left = left.unwrap_or_default();
            Err(cannot(&format!("it does not keep whose it is, which Linux does from 5.14 on{left}")))
        }
        _ => Err(Failed(format!("{device} was attached, and detached by somebody else at once"))),
    }
}

/// Keeps others from beginning to use it, after all that was written has reached the server. `None` where it cannot be opened at all.
fn hold(device: Device, place: &Place) -> Result<Option<std::fs::File>, Failed> {
    let in_use = |why: &str| Err(Failed(format!("{device} is in use{why}")));
    let kept = block::kept_by(place.directory());
    if !kept.is_empty() {
        return in_use(&kept);
    }
    let openers = place.openers().map_err(|e| Failed(format!("cannot see who has {device} open: {e}")))?;
    if !openers.is_empty() {
        return in_use(&format!("; opened by {}", proc::list(&openers)));
    }
    let opened = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_EXCL).open(device.to_string());
    match opened {
        Ok(file) => {
            if let Err(error) = file.sync_all() {
                tracing::warn!(%device, %error, "what was written last cannot be sent to the server any more");
            }
            Ok(Some(file))
        }
        Err(e) if e.raw_os_error() == Some(libc::EBUSY) => {
            in_use(": it is mounted in another mount namespace, or the kernel swaps to it")
        }
        Err(_) => Ok(None),
    }
}

#[async_trait]
impl Resource for Nbd {
    async fn start(&self, context: &Context) -> Result<(), Failed> {
        let deadline = Instant::now() + most_of(context.timeout);
        let identity = self.identity(context);
        match self.place.look(&identity) {
            Seen::Strangers(who) => return Err(self.taken(&who)),
            Seen::Free => {}
            Seen::Outdated(_) => self.take_away(context, Way::Orderly).await?,
            Seen::Ours => match self.answers(deadline).await {
                Verdict::Good => return Ok(()),
                Verdict::Unknown(why) => return Err(Failed(why)),
                // A connection that was lost does not come back.
                Verdict::Bad(_) => self.take_away(context, Way::Orderly).await?,
            },
        }
        self.load(&[], deadline.saturating_duration_since(Instant::now())).await?;
        if let Err(Failed(why)) = self.attach(&identity, deadline).await {
            let left = self.take_away(context, Way::Forced).await;
            return Err(Failed(left.err().map_or(why.clone(), |Failed(left)| format!("{why}; {left}"))));
        }
        tracing::info!(device = %self.spec.device, target = self.spec.target(), "an export was attached");
        Ok(())
    }

    async fn stop(&self, context: &Context) -> Result<(), Failed> {
        self.take_away(context, Way::Orderly).await
    }

    async fn kill(&self, context: &Context) -> Result<(), Failed> {
        self.take_away(context, Way::Forced).await
    }

    async fn monitor(&self, context: &Context) -> Verdict {
        match self.fault(&self.identity(context)) {
            Some(why) => Verdict::Bad(why),
            None => self.answers(Instant::now() + most_of(context.timeout)).await,
        }
    }

    async fn watch(&self, context: &Context) -> String {
        match self.until_fault(&self.identity(context)).await {
            Ok(why) => why,
            // Where the kernel does not tell, the monitor does.
            Err(e) => {
                tracing::warn!("{} is watched by its monitor only: {e}", self.spec.device);
                std::future::pending().await
            }
        }
    }

    async fn ready(&self) -> Result<(), Failed> {
        self.load(&["--dry-run", "--quiet"], LOOK).await?;
        if let Some(who) = self.place.taken(&self.spec.target()) {
            return Err(self.taken(&who));
        }
        let export = self.ask().await?;
        self.spec.fits(&export, Wish::Look)
    }
}
