//! A disk with reservations: the paths to it that work, and the disk as a [`ReservationDevice`].
//!
//! Decides which paths there are now, and lets none be used before it is known to lead to the disk. Leaves each path to [`DevicePath`], and
//! noticing that something changed to [`Events`].

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use ha_core::claim::reservation::device::{
    Answer, Command, Failure, Key, PathName, Queued, Registrations, ReservationDevice,
};
use nix::libc::{EBUSY, O_EXCL};
use tokio::sync::watch;

use super::error::OpenError;
use super::look::{Kind, System, Whole};
use super::multipathd::Registrar;
use super::path::{Candidate, DevicePath, Opening, Seen, Through, Trouble};
use super::scsi::Designator;
use crate::uevent::{Events, Woken};

/// So often the paths are looked at though nothing was heard of them.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Who a disk is: the same through every path and on every node that reaches it, and another one's never.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// What it calls itself.
    pub designator: Designator,
    /// In bytes. Two snapshots of one disk may call themselves the same.
    pub size: u64,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} bytes", self.designator, self.size)
    }
}

/// Something about a disk that stands in nobody's way now, and may later.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    /// The name may be another disk's after a restart.
    #[error("{} may be another disk after a restart: name it {}", used.display(), better.display())]
    UnstableName {
        /// What was named.
        used: PathBuf,
        /// What to name instead.
        better: PathBuf,
    },
    /// Writes on a path that appears fail for a moment, until it is registered.
    #[error(
        "multipathd does not register paths that appear in the map {map}, so writes on them fail until they are registered: \
         write `reservation_key file` into the section `defaults` of /etc/multipath.conf, and run `multipathd reconfigure`"
    )]
    UnregisteredPaths {
        /// Which map.
        map: String,
    },
    /// The agent keeps the block device open, and with it what the kernel remembers of what was read.
    #[error(
        "the kernel has no module `sg`, so {} is kept open as a block device: what a program on this node has read of it through the \
         kernel's memory it may read again after another node has written: run `modprobe sg`, have it loaded at boot \
         (/etc/modules-load.d), and start the agent again",
        disk.display()
    )]
    KeptOpen {
        /// Which.
        disk: PathBuf,
    },
    /// Paths that return are not used again.
    #[error("multipathd does not answer, so nobody adds paths to the map {map}, or takes failed ones back: start it")]
    NoMultipathd {
        /// Which map.
        map: String,
    },
}

/// A whole disk with persistent reservations: a SCSI disk, a multipath map of device-mapper, or an NVMe namespace.
///
/// Each path of a map is a [`PathName`] of its own, by the kernel's name of it, for example `sdb`. A disk that becomes a map while it is open,
/// because multipathd starts late, gets its paths then. Paths that come and go are noticed by the
/// kernel's events. One that comes is listed when it has answered, and is the same disk; one that stops answering stays listed.
///
/// Commands on a path are carried out in the order in which they were sent. The kernel is told to give a command up after the time limit, but
/// waits 7 s at least, and longer for a driver that hangs; until then, other commands on this path are not answered in time either, and are
/// never carried out. A command that was begun and then given up may still be carried out. Dropping a disk waits for nothing.
#[derive(Debug)]
pub struct Disk {
    name: String,
    path: PathBuf,
    identity: Identity,
    unstable_name: Option<Finding>,
    kept_open: Option<Finding>,
    registrar: Arc<Registrar>,
    limit: Duration,
    paths: watch::Receiver<Paths>,
    /// Who held the reservation when it was last read.
    holder: Mutex<Option<Key>>,
    /// Closed when this is dropped; then the thread that looks after the paths ends.
    _stop: OwnedFd,
}

/// The paths that can be used.
type Paths = Vec<Arc<DevicePath>>;

impl Disk {
    /// Opens what an operator named, and gives every command `limit`.
    ///
    /// First looks at it without touching it; then opens its paths, reads who it is, and sees that it has reservations. Changes nothing. Blocks
    /// the caller for `limit` at most, and for a map a few seconds more if multipathd does not answer.
    ///
    /// While a machine starts, a name in `/dev/disk/by-id` can lead to one path before it leads to the map; then this fails with
    /// [`OpenError::OnePath`], and succeeds a moment later.
    pub fn open(path: impl AsRef<Path>, limit: Duration) -> Result<Disk, OpenError> {
        let (system, path) = (System::default(), path.as_ref().to_owned());
        let whole = system.look_critically(&path)?;
        let unstable_name =
            system.stable_name(&path, &whole).map(|better| Finding::UnstableName { used: path.clone(), better });
        if let Some(finding) = &unstable_name {
            tracing::warn!("{finding}");
        }
        let mut watcher = Watcher::new(system, path.clone(), limit);
        let identity = watcher.open_first(&whole)?;
        if let Some(map) = whole.multipath_map() {
            watcher.registrar.ask(map.to_owned());
        }
        let kept_open = watcher.kept_open.then(|| Finding::KeptOpen { disk: path.clone() });
        let (tell, paths) = watch::channel(watcher.paths.clone());
        let no_thread = |error| OpenError::System { path: path.clone(), what: "looking after its paths", error };
        let registrar = watcher.registrar.clone();
        let (stop, end) = io::pipe().map_err(no_thread)?;
        let watch = move || watcher.run(&Events::new(stop.into()), &tell);
        std::thread::Builder::new().name("ha-disk-paths".to_owned()).spawn(watch).map_err(no_thread)?;
        let name = path.display().to_string();
        let holder = Mutex::default();
        Ok(Disk { name, path, identity, unstable_name, kept_open, registrar, limit, paths, holder, _stop: end.into() })
    }

    /// What was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Who it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Keeps this machine from mounting the disk, or making it a part of another device, until what is returned is dropped. An error if it is
    /// so already.
    pub fn keep_unused(&self) -> Result<File, OpenError> {
        let open = File::options().read(true).custom_flags(O_EXCL).open(&self.path);
        open.map_err(|error| match error.raw_os_error() {
            Some(EBUSY) => OpenError::InUse(self.path.clone()),
            _ => OpenError::System { path: self.path.clone(), what: "opening it for this process alone", error },
        })
    }

    /// Reads the first block and writes back what is there, on one path: a write that changes nothing, to see whether it is refused with
    /// [`Failure::Conflict`]. Only for a disk that nobody uses, on any node; see [`Disk::keep_unused`] for this one.
    /// [`Failure::NotSupported`] where single paths cannot be written to.
    pub async fn rewrite(&self, path: &PathName) -> Result<(), Failure> {
        match self.path_named(path) {
            Some(path) => path.rewrite().await,
            None => Err(Failure::Transport),
        }
    }

    /// Waits until multipathd, if it looks after the disk and takes keys, was told of what was registered: for a program that is about to end.
    /// For ever, if multipathd refuses what it is told.
    pub async fn multipathd_is_told(&self) {
        self.registrar.told().await;
    }

    fn path_named(&self, name: &PathName) -> Option<Arc<DevicePath>> {
        self.paths.borrow().iter().find(|one| one.name == *name).cloned()
    }

    /// Whether a target may abort other commands by this one than those of the victim, which it does when the victim holds the reservation.
    fn aborts_everybody(&self, command: &Command) -> bool {
        let Command::Preempt { victim, queued: Queued::Aborted, .. } = command else { return false };
        self.holder().is_none_or(|holder| *victim == Some(holder))
    }

    fn holder(&self) -> MutexGuard<'_, Option<Key>> {
        self.holder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What stands in nobody's way now, and may later.
    pub fn findings(&self) -> Vec<Finding> {
        self.unstable_name.iter().chain(&self.kept_open).cloned().chain(self.registrar.finding()).collect()
    }
}

/// An error that names two of the disks if they are the same one.
pub fn check_distinct<'a>(disks: impl IntoIterator<Item = &'a Disk>) -> Result<(), OpenError> {
    let mut seen: Vec<&Disk> = Vec::new();
    for disk in disks {
        if let Some(same) = seen.iter().find(|other| other.identity == disk.identity) {
            let (one, other) = (same.path.clone(), disk.path.clone());
            return Err(OpenError::Same { one, other, identity: disk.identity.clone() });
        }
        seen.push(disk);
    }
    Ok(())
}

#[async_trait]
impl ReservationDevice for Disk {
    fn name(&self) -> &str {
        &self.name
    }

    fn paths(&self) -> Vec<PathName> {
        names(&self.paths.borrow())
    }

    async fn paths_changed(&self, seen: &[PathName]) {
        // Fails when the thread has ended, which it does after this is dropped, or without events and time: then nothing changes any more.
        if self.paths.clone().wait_for(|paths| names(paths) != seen).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    async fn send(&self, path: &PathName, command: Command) -> Result<Answer, Failure> {
        let Some(path) = self.path_named(path) else { return Err(Failure::Transport) };
        let answer = if self.aborts_everybody(&command) {
            path.send_when_quiet(command).await
        } else {
            path.send(command).await
        };
        if let Ok(Answer::Reservation(reservation)) = &answer {
            *self.holder() = reservation.held.and_then(|held| held.key);
        }
        if answer.is_ok()
            && let Command::Register { new, power_loss, .. } | Command::RegisterIgnoring { new, power_loss, .. } =
                command
        {
            self.registrar.registered(new, power_loss);
        }
        answer
    }

    async fn registrations(&self, path: &PathName) -> Result<Registrations, Failure> {
        match self.path_named(path) {
            Some(path) => path.registrations().await,
            None => Err(Failure::Transport),
        }
    }

    fn time_limit(&self) -> Duration {
        self.limit
    }
}

fn names(paths: &Paths) -> Vec<PathName> {
    paths.iter().map(|path| path.name.clone()).collect()
}

/// What keeps the list of paths.
struct Watcher {
    system: System,
    path: PathBuf,
    limit: Duration,
    registrar: Arc<Registrar>,
    identity: Option<Identity>,
    paths: Paths,
    /// A path had to be opened as a block device.
    kept_open: bool,
    /// Paths that have not opened yet. One that hangs in it stays here, so that it is not opened again and again.
    opening: Vec<Opening>,
}

impl Watcher {
    fn new(system: System, path: PathBuf, limit: Duration) -> Watcher {
        Watcher {
            system,
            path,
            limit,
            registrar: Arc::default(),
            identity: None,
            paths: Vec::new(),
            kept_open: false,
            opening: Vec::new(),
        }
    }

    /// Opens the paths for the first time: one must work, and none lead elsewhere.
    fn open_first(&mut self, whole: &Whole) -> Result<Identity, OpenError> {
        let mut troubles = self.open(whole)?;
        if let Some(two) = troubles.iter().position(|trouble| matches!(trouble, OpenError::TwoDisks { .. })) {
            return Err(troubles.swap_remove(two));
        }
        match (self.identity.clone(), troubles.pop()) {
            (Some(identity), _) => Ok(identity),
            (None, Some(trouble)) => Err(trouble),
            (None, None) if self.opening.is_empty() => Err(OpenError::NoPaths(self.path.clone())),
            (None, None) => Err(OpenError::NoAnswer { path: self.path.clone(), limit: self.limit }),
        }
    }

    fn run(mut self, events: &Events, tell: &watch::Sender<Paths>) {
        while events.wait(LOOK_AGAIN) != Woken::ToStop {
            let found = match self.system.look(&self.path) {
                Ok(whole) => {
                    if let Some(map) = whole.multipath_map() {
                        self.registrar.map_is(map);
                    }
                    self.open(&whole)
                }
                Err(gone) => {
                    self.paths.clear();
                    Err(gone)
                }
            };
            match found {
                Ok(troubles) => {
                    for trouble in troubles {
                        tracing::debug!(disk = %self.path.display(), %trouble, "a path cannot be used");
                    }
                }
                Err(error) => tracing::debug!(disk = %self.path.display(), %error, "a disk is away"),
            }
            tell.send_if_modified(|told| {
                let differs = names(told) != names(&self.paths);
                told.clone_from(&self.paths);
                differs
            });
        }
    }

    /// Lets go of the paths that are gone, and opens those that are new. Gives what stands in the way of using some.
    fn open(&mut self, whole: &Whole) -> Result<Vec<OpenError>, OpenError> {
        let candidates = self.system.paths(&self.path, whole);
        self.paths.retain(|path| candidates.iter().any(|candidate| candidate.node == path.node));
        self.opening.retain(|opening| candidates.iter().any(|candidate| candidate.node == *opening.node()));
        let until = Instant::now() + self.limit;
        for candidate in &candidates {
            let is_known = self.paths.iter().any(|path| path.node == candidate.node)
                || self.opening.iter().any(|opening| *opening.node() == candidate.node);
            if !is_known {
                self.begin(candidate)?;
            }
        }
        let mut troubles = Vec::new();
        for opening in std::mem::take(&mut self.opening) {
            match opening.wait(until.saturating_duration_since(Instant::now())) {
                Ok(Ok((path, seen))) => troubles.extend(self.admit(whole, path, seen).err()),
                Ok(Err(trouble)) => troubles.push(self.trouble(whole, trouble)),
                Err(still) => self.opening.push(still),
            }
        }
        self.paths.sort_by_key(|path| path.node.number);
        Ok(troubles)
    }

    fn begin(&mut self, candidate: &Candidate) -> Result<(), OpenError> {
        let opening = Opening::begin(candidate.clone(), self.limit).map_err(|error| OpenError::System {
            path: self.path.clone(),
            what: "making a thread",
            error,
        })?;
        self.opening.push(opening);
        Ok(())
    }

    /// Takes a path that works, if it leads to the disk.
    fn admit(&mut self, whole: &Whole, path: DevicePath, seen: Seen) -> Result<(), OpenError> {
        let size = self.identity.as_ref().map_or(whole.size, |identity| identity.size);
        let found = Identity { designator: seen.designator, size };
        let expected = self.identity.get_or_insert_with(|| found.clone());
        if *expected != found {
            let (one, other) = (expected.clone(), found);
            tracing::warn!(path = %path.name, %one, %other, "a path leads to another disk, and is not used");
            return Err(OpenError::TwoDisks { path: self.path.clone(), one, other });
        }
        self.kept_open |= seen.through == Through::Block;
        self.paths.push(Arc::new(path));
        Ok(())
    }

    fn trouble(&self, whole: &Whole, trouble: Trouble) -> OpenError {
        match (whole.kind, trouble) {
            // Of one path among several, that is the path's own trouble.
            (Kind::Multipath, Trouble::System { .. } | Trouble::Changed | Trouble::Failed(_)) => {
                OpenError::NoPaths(self.path.clone())
            }
            (_, trouble) => OpenError::of_trouble(&self.path, self.limit, trouble),
        }
    }
}
