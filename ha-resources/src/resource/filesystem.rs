//! A filesystem that is mounted while its hierarchy is in service.
//!
//! Decides what counts as mounted rightly, and as gone: no mount of the device is left, and the kernel lets go of it. A lazy
//! unmount is never used and never counts, of NFS neither (`nfs`). Work that can hang on dead storage is done by children and threads that are given
//! up at the end of their time, and a child that even SIGKILL does not end is reported. Leaves to the claim whether another
//! node has the filesystem mounted.

mod fsck;
pub(crate) mod look;
pub(crate) mod nfs;
mod place;
mod users;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use ha_core::driver::{Context, Failed, Resource, Verdict};
use nix::libc;
use nix::sys::signal::Signal;
use tokio::time::Instant;

pub use self::fsck::Fsck;
pub use self::look::Check;
pub use self::place::{MountPoint, NotEmpty};
use self::users::Target;
use crate::command::{self, Children, Program, most_of};
use crate::deadline::{Gate, by};
use crate::mounts::{self, Mount};
use crate::proc;
use crate::resource::block::number as block_device;
use crate::resource::process::FoundOn;

mod ioctl {
    //! `BLKFLSBUF` of `linux/fs.h`: takes the descriptor of an open block device.
    nix::ioctl_none!(flush_buffers, 0x12, 97);
}

/// What is mounted where, as the operator says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilesystemSpec {
    /// A block device, or whatever else mount(8) takes as source: `server:/export`, `tmpfs`.
    pub device: String,
    /// The mount point.
    pub at: PathBuf,
    /// The type, as mount(8) takes it.
    pub fstype: String,
    /// Mount options.
    pub options: Vec<String>,
    /// What is checked before mounting. Default: [`Fsck::default_for`] the type.
    pub fsck: Option<Fsck>,
    /// Whether the mount point may be made.
    pub mount_point: MountPoint,
    /// What is done with a mount point in which there is something.
    pub not_empty: NotEmpty,
    /// Where the device is found: with [`FoundOn::Hierarchy`] another resource of the hierarchy brings it.
    pub found_on: FoundOn,
    /// What a monitor looks at beside whether it is mounted and answers. Default: nothing.
    pub check: Option<Check>,
}

/// See the module's words.
pub struct Filesystem {
    spec: FilesystemSpec,
    /// Commands that may still be there: one stuck in the kernel may yet mount.
    children: Arc<Children>,
    /// A look at the filesystem that has not come back.
    looking: Gate,
    /// Whether it was said that there is no room for the check.
    full: AtomicBool,
    /// The mount that was seen last: by its number the users of one that was unmounted lazily are found.
    seen: Mutex<Option<Mount>>,
}

/// How users of the filesystem are made to leave it.
#[derive(Clone, Copy, Debug)]
enum Evict {
    Asked,
    Killed,
}

impl Evict {
    fn signal(self) -> Signal {
        match self {
            Evict::Asked => Signal::SIGTERM,
            Evict::Killed => Signal::SIGKILL,
        }
    }
}

/// What of it is mounted in this mount namespace.
enum Mounted {
    Nowhere,
    /// On top of everything at its place, so that it can be unmounted.
    Reachable(Mount),
    /// Where it should not be, or under something else.
    Astray(Mount),
}

impl Filesystem {
    /// A filesystem that has not been looked at yet.
    pub fn new(spec: FilesystemSpec) -> Self {
        Self {
            spec,
            children: Arc::default(),
            looking: Gate::default(),
            full: AtomicBool::default(),
            seen: Mutex::default(),
        }
    }

    fn remember(&self, mount: &Mount) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(mount.clone());
    }

    fn seen(&self) -> Option<Mount> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What may have the device after its last mount is gone. Files of btrfs tell of a device of their own, and so are found by the mount only.
    fn lingering(&self, number: (u32, u32)) -> io::Result<Target> {
        Ok(Target { mounts: self.lingering_mount()?, device: Some(number) })
    }

    fn lingering_mount(&self) -> io::Result<BTreeSet<u64>> {
        Ok(match self.seen() {
            // A number that is in a table is another mount's by now.
            Some(seen) if !users::is_mounted_anywhere(seen.id)? => [seen.id].into(),
            _ => BTreeSet::new(),
        })
    }

    fn fsck(&self) -> Fsck {
        self.spec.fsck.unwrap_or_else(|| Fsck::default_for(&self.spec.fstype))
    }

    async fn run(&self, command: &[&str], context: &Context, deadline: Instant) -> Result<command::Finished, Failed> {
        let command: Vec<String> = command.iter().map(|&word| word.to_owned()).collect();
        let program = Program { children: self.children.clone(), ..Program::of(context, &command) };
        Ok(program.run(deadline.saturating_duration_since(Instant::now())).await?)
    }

    /// Has the kernel drop what it remembers of the device. While another node wrote to it, anybody here may have read it, as udev does; and
    /// what was read is kept as long as somebody has the device open, as whoever watches its reservation has. A filesystem mounted over that
    /// would be damaged.
    async fn forget_what_was_read(&self, deadline: Instant) -> Result<(), Failed> {
        let device = self.spec.device.clone();
        let done = by(deadline, move || {
            // Such as `tmpfs`, or another machine's: nothing is remembered. Whatever else is wrong mount(8) will tell.
            let Ok(file) = std::fs::File::open(&device) else { return Ok(()) };
            if !file.metadata()?.file_type().is_block_device() {
                return Ok(());
            }
            // SAFETY: the descriptor is open for the whole call, and this request takes no argument.
            unsafe { ioctl::flush_buffers(file.as_raw_fd()) }.map(drop).map_err(io::Error::from)
        });
        let done = done.await.unwrap_or_else(|| Err(io::Error::from(io::ErrorKind::TimedOut)));
        done.map_err(|e| {
            let device = &self.spec.device;
            Failed(format!("cannot drop what the kernel remembers of {device}: {e}; look for errors of its storage"))
        })
    }

    async fn check(&self, context: &Context, deadline: Instant) -> Result<(), Failed> {
        let options: &[&str] = match self.fsck() {
            Fsck::Never => return Ok(()),
            Fsck::Preen => &["-p"],
            Fsck::Force => &["-p", "-f"],
        };
        let program = format!("fsck.{}", self.spec.fstype);
        let command = [&[program.as_str()], options, &[self.spec.device.as_str()]].concat();
        let finished = self.run(&command, context, deadline).await?;
        // fsck(8): 1 and 2 say that errors were corrected, greater ones that some were not or that it could not be tried.
        match finished.status.code() {
            Some(0) => Ok(()),
            Some(1 | 2) => {
                tracing::warn!(
                    device = self.spec.device,
                    said = finished.output,
                    "errors of a filesystem were corrected"
                );
                Ok(())
            }
            _ => Err(Failed(format!(
                "{program} of {} {}; repair it by hand, on one node only",
                self.spec.device,
                finished.describe()
            ))),
        }
    }

    async fn mount(&self, context: &Context, deadline: Instant) -> Result<(), Failed> {
        let at = self.spec.at.display().to_string();
        let options = self.spec.options.join(",");
        let mut command = vec!["mount", "-t", self.spec.fstype.as_str()];
        if !options.is_empty() {
            command.extend(["-o", options.as_str()]);
        }
        command.extend([self.spec.device.as_str(), at.as_str()]);
        let finished =
            self.run(&command, context, deadline).await.map_err(|failed| self.unanswered(failed, deadline))?;
        if !finished.status.success() {
            return Err(Failed(format!("mount of {} at {at} {}", self.spec.device, finished.describe())));
        }
        match mounts::at(&self.spec.at).map_err(|e| cannot_see(&e))? {
            Some(mount) if is_of(&mount, &self.spec.device) => {
                self.remember(&mount);
                Ok(())
            }
            _ => Err(Failed(format!(
                "mount of {} at {at} said it was done, but it is not mounted there",
                self.spec.device
            ))),
        }
    }

    /// Commands of this resource that were given up and are still there.
    fn stuck(&self) -> Result<(), Failed> {
        self.children.none_stuck(&self.spec.device)
    }

    async fn unmount(&self, context: &Context, evict: Evict) -> Result<(), Failed> {
        let deadline = Instant::now() + most_of(context.timeout);
        let mut why = self.stuck().err();
        let mut pause = Duration::from_millis(2);
        loop {
            match self.unmount_once(context, evict, deadline).await {
                Ok(()) => return Ok(()),
                // Of two reasons the one before the time ran out says more.
                Err(reason) if Instant::now() < deadline => why = Some(reason),
                Err(reason) => return Err(why.unwrap_or(reason)),
            }
            tokio::time::sleep_until(deadline.min(Instant::now() + pause)).await;
            if let Evict::Asked = evict {
                pause = (pause * 2).min(Duration::from_millis(100));
            }
        }
    }

    /// One attempt. An error says what was in the way; whoever used the filesystem has been signalled.
    async fn unmount_once(&self, context: &Context, evict: Evict, deadline: Instant) -> Result<(), Failed> {
        self.stuck()?;
        let mount = match self.mounted()? {
            Mounted::Nowhere => return self.released(evict, deadline).await,
            Mounted::Astray(mount) => return Err(self.astray(&mount)),
            Mounted::Reachable(mount) => mount,
        };
        let at = self.spec.at.display().to_string();
        let nfs = nfs::is_nfs(&self.spec.fstype);
        let command: &[&str] = match evict {
            // What waits for a server that does not answer fails then, and whoever waited can end (umount(2), MNT_FORCE).
            Evict::Killed if nfs => &["umount", "-f", &at],
            _ => &["umount", &at],
        };
        let finished =
            self.run(command, context, deadline).await.map_err(|failed| self.unanswered(failed, deadline))?;
        if finished.status.success() {
            // There may have been several on one another.
            return match self.mounted()? {
                Mounted::Nowhere => self.released(evict, deadline).await,
                _ => Err(Failed(format!("{} was mounted at {at} more than once", self.spec.device))),
            };
        }
        let below: Vec<String> = mounts::all()
            .map_err(|e| cannot_see(&e))?
            .into_iter()
            .filter(|other| other.at != self.spec.at && other.at.starts_with(&self.spec.at))
            .map(|other| other.at.display().to_string())
            .collect();
        if !below.is_empty() {
            return Err(Failed(format!(
                "{at} cannot be unmounted while there is mounted below it: {}",
                below.join(", ")
            )));
        }
        // Mounts of one NFS server share one device: whoever uses another of them is left alone.
        let target = Target { mounts: [mount.id].into(), device: (!nfs).then_some(mount.device) };
        let in_use = self.evict(target, evict, deadline).await?;
        Err(Failed(format!("umount of {at} {}; used by: {in_use}", finished.describe())))
    }

    /// Signals who uses the filesystem, and names them.
    async fn evict(&self, target: Target, evict: Evict, deadline: Instant) -> Result<String, Failed> {
        let users = by(deadline, move || {
            let users = users::users(&target)?;
            for user in &users {
                user.id().signal(evict.signal())?;
            }
            // Whoever starts users again and again leaves a gap only between one and the next: the attempt after this falls into it.
            for _ in 0..20 {
                if !users.iter().any(|user| user.id().is_alive()) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(users)
        });
        let users = users.await.unwrap_or_else(|| Err(io::Error::from(io::ErrorKind::TimedOut)));
        let users =
            users.map_err(|e| Failed(format!("cannot see or signal who uses {}: {e}", self.spec.at.display())))?;
        Ok(match users.as_slice() {
            [] if self.looking.enter().is_none() => "a look of its monitor that has not come back".to_owned(),
            [] => "nobody that can be seen".to_owned(),
            users => proc::list(users),
        })
    }

    /// Proves, for a block device, that the kernel has no filesystem on it any more: one that was unmounted lazily, or is
    /// mounted in another mount namespace, still writes. Such a filesystem keeps others from opening the device exclusively.
    async fn released(&self, evict: Evict, deadline: Instant) -> Result<(), Failed> {
        if nfs::is_nfs(&self.spec.fstype) {
            return self.nfs_released(evict, deadline).await;
        }
        let device = PathBuf::from(&self.spec.device);
        let opened = by(deadline, move || {
            let number = block_device(&device)?;
            let opened = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_EXCL).open(&device);
            Ok::<_, io::Error>((number, opened.map(drop)))
        });
        let (number, error) = match opened.await {
            Some(Ok((number, Err(error)))) if error.raw_os_error() == Some(libc::EBUSY) => (number, error),
            Some(_) => return Ok(()),
            None => return Err(Failed(format!("{} does not answer whether it is still in use", self.spec.device))),
        };
        let target = self.lingering(number).map_err(|e| cannot_see(&e))?;
        let in_use = self.evict(target, evict, deadline).await?;
        let elsewhere = users::elsewhere(number).map_err(|e| cannot_see(&e))?;
        let others: Vec<String> = elsewhere.iter().map(|(p, at)| format!("{} has it at {}", p, at.display())).collect();
        Err(Failed(format!(
            "{} is not mounted any more, but the kernel still holds it ({error}): it was unmounted lazily, or is mounted in \
             another mount namespace, or something else has it; used by: {in_use}; other namespaces: {}",
            self.spec.device,
            if others.is_empty() { "none seen".to_owned() } else { others.join(", ") }
        )))
    }

    /// What is wrong with the mount, as the kernel's table shows it.
    fn fault(&self) -> io::Result<Option<String>> {
        let at = self.spec.at.display();
        Ok(match mounts::at(&self.spec.at)? {
            Some(mount) if !is_of(&mount, &self.spec.device) => {
                Some(format!("{} is mounted at {at}", mount.source.display()))
            }
            Some(mount) if mount.is_read_only() && !self.spec.options.iter().any(|option| option == "ro") => {
                Some(format!("{at} has become read-only: look for errors of its storage"))
            }
            Some(mount) => {
                self.remember(&mount);
                None
            }
            None => Some(format!("nothing is mounted at {at}")),
        })
    }

    /// Waits until something is. The kernel tells of changes of its table (proc(5), `/proc/pid/mounts`).
    async fn until_fault(&self) -> io::Result<String> {
        let changes = proc::wait_on(OwnedFd::from(std::fs::File::open(mounts::TABLE)?))?;
        loop {
            // After it has begun to tell, so that nothing falls between.
            if let Some(why) = self.fault()? {
                return Ok(why);
            }
            changes.readable().await?.clear_ready();
        }
    }

    fn astray(&self, mount: &Mount) -> Failed {
        Failed(format!(
            "{} is mounted at {} too, or under another mount there: unmount that by hand",
            self.spec.device,
            mount.at.display()
        ))
    }

    fn no_answer(&self) -> Failed {
        Failed(format!("{} or {} does not answer", self.spec.device, self.spec.at.display()))
    }

    fn mounted(&self) -> Result<Mounted, Failed> {
        let all = mounts::all().map_err(|e| cannot_see(&e))?;
        let top = all.iter().rfind(|mount| mount.at == self.spec.at);
        if let Some(top) = top.filter(|mount| is_of(mount, &self.spec.device)) {
            self.remember(top);
            return Ok(Mounted::Reachable(top.clone()));
        }
        // Anything but a device may well be mounted elsewhere for other purposes.
        let is_device = block_device(Path::new(&self.spec.device)).is_ok();
        let ours = |mount: &Mount| is_of(mount, &self.spec.device) && (is_device || mount.at == self.spec.at);
        Ok(all.into_iter().find(ours).map_or(Mounted::Nowhere, Mounted::Astray))
    }
}

fn cannot_see(error: &io::Error) -> Failed {
    Failed(format!("cannot see what is mounted: {error}"))
}

/// That nothing is mounted at the place.
fn free(spec: &FilesystemSpec) -> Result<(), Failed> {
    match mounts::at(&spec.at).map_err(|e| cannot_see(&e))? {
        None => Ok(()),
        Some(mount) => Err(Failed(format!(
            "{} is taken: {} ({}) is mounted there, not {}; unmount it or choose another place",
            spec.at.display(),
            mount.source.display(),
            mount.fstype,
            spec.device
        ))),
    }
}

/// Whether a mount is of this source. Some filesystems (btrfs) show a device of their own, so the names count too.
fn is_of(mount: &Mount, source: &str) -> bool {
    let path = Path::new(source);
    if mount.source == path || nfs::is_nfs(&mount.fstype) && nfs::is_same(&mount.source, source) {
        return true;
    }
    let Ok(number) = block_device(path) else { return false };
    mount.device == number || block_device(&mount.source).is_ok_and(|other| other == number)
}

#[async_trait]
impl Resource for Filesystem {
    async fn start(&self, context: &Context) -> Result<(), Failed> {
        let deadline = Instant::now() + most_of(context.timeout);
        self.children.none_stuck_by(deadline, &self.spec.device).await?;
        match self.mounted()? {
            Mounted::Reachable(_) => return Ok(()),
            Mounted::Astray(mount) => return Err(self.astray(&mount)),
            Mounted::Nowhere => {}
        }
        let spec = self.spec.clone();
        let prepared = by(deadline, move || {
            free(&spec)?;
            place::prepare(&spec.at, spec.mount_point, spec.not_empty)
        });
        prepared.await.unwrap_or_else(|| Err(self.no_answer()))?;
        self.forget_what_was_read(deadline).await?;
        self.check(context, deadline).await?;
        self.mount(context, deadline).await
    }

    async fn stop(&self, context: &Context) -> Result<(), Failed> {
        self.unmount(context, Evict::Asked).await
    }

    async fn kill(&self, context: &Context) -> Result<(), Failed> {
        self.unmount(context, Evict::Killed).await
    }

    async fn monitor(&self, context: &Context) -> Verdict {
        match self.fault() {
            Ok(None) => self.look(context).await,
            Ok(Some(why)) => Verdict::Bad(why),
            Err(e) => Verdict::Unknown(cannot_see(&e).0),
        }
    }

    async fn watch(&self, _: &Context) -> String {
        match self.until_fault().await {
            Ok(why) => why,
            // Where the kernel does not tell, the monitor does.
            Err(e) => {
                tracing::warn!("{} is watched by its monitor only: {e}", self.spec.at.display());
                std::future::pending().await
            }
        }
    }

    async fn ready(&self) -> Result<(), Failed> {
        let (spec, fsck) = (self.spec.clone(), self.fsck());
        // Bounded, because it is asked all the time and what it looks at may be on storage that hangs.
        let looked = by(Instant::now() + Duration::from_secs(5), move || lacks(&spec, fsck)).await;
        looked.unwrap_or_else(|| Err(self.no_answer()))
    }
}

fn lacks(spec: &FilesystemSpec, fsck: Fsck) -> Result<(), Failed> {
    if spec.device.starts_with("/dev/") && spec.found_on == FoundOn::Node {
        block_device(Path::new(&spec.device)).map_err(|e| {
            Failed(format!(
                "the device {} cannot be used: {e}; check its cabling, paths and name, or say `found_on: Hierarchy` if another \
                 resource of the hierarchy brings it",
                spec.device
            ))
        })?;
    }
    // In service here, the place shows what is in the filesystem.
    if !mounts::at(&spec.at).map_err(|e| cannot_see(&e))?.is_some_and(|mount| is_of(&mount, &spec.device)) {
        free(spec)?;
        place::look(&spec.at, spec.mount_point, spec.not_empty)?;
    }
    command::resolve("mount")?;
    command::resolve("umount")?;
    if nfs::is_nfs(&spec.fstype) {
        command::resolve(&format!("mount.{}", spec.fstype))
            .map_err(|e| Failed(format!("{}: NFS needs the package nfs-common, or nfs-utils", e.0)))?;
    }
    if fsck != Fsck::Never {
        command::resolve(&format!("fsck.{}", spec.fstype))?;
    }
    Ok(())
}
