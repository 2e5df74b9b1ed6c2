//! What a monitor looks at beside whether the filesystem is mounted.
//!
//! Decides what is asked of it, read and written, and that one look at a time is under way, which leaves nothing behind: of one that was
//! given up a file may stay, and the next look takes it away. Leaves to the filesystem what is mounted where.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use ha_core::driver::{Context, Verdict};
use nix::errno::Errno;
use nix::fcntl::{OFlag, PosixFadviseAdvice, openat, posix_fadvise};
use nix::libc;
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};
use tokio::time::Instant;

use super::{Filesystem, FilesystemSpec, users};
use crate::command::most_of;
use crate::deadline::by;
use crate::resource::block;

/// What a monitor looks at beside whether it is mounted and answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// The beginning of the device is read from the device itself, not from what the kernel remembers of it.
    Read,
    /// A small file in the root of the filesystem is written, brought to the storage, read back from there, and removed.
    Write,
}

/// What is wrong with a check as it is written.
pub(crate) fn mistake(check: Check, device: &str, options: &[String]) -> Option<&'static str> {
    let read_only = options.iter().any(|list| list.split(',').any(|option| option == "ro"));
    match check {
        Check::Read if !device.starts_with("/dev/") => {
            Some("`Read` reads the device, and there is none below /dev: say `Write`, or leave it away")
        }
        Check::Write if read_only => {
            Some("nothing can be written where `options` say `ro`: say `Read`, or leave it away")
        }
        _ => None,
    }
}

/// What came of a look that did not fail.
enum Looked {
    Well,
    /// There was no room to write. So it is on every other node: nothing would be won if the hierarchy went there.
    Full,
}

/// One deep look.
struct Look {
    check: Check,
    device: PathBuf,
    at: PathBuf,
    /// The kernel's number of the mount, so that nothing is written to what is below it when it is unmounted meanwhile.
    mount: Option<u64>,
    /// The name of what is written: of this resource on this node only.
    name: String,
    /// What is written: something else each time, so that it cannot be taken for what an earlier look wrote.
    line: String,
}

impl Filesystem {
    /// Looks at what is mounted, within the operation's time.
    pub(super) async fn look(&self, context: &Context) -> Verdict {
        let shown = self.spec.at.display();
        let Some(inside) = self.looking.enter() else {
            return Verdict::Unknown(format!("{shown} has still not answered an earlier look"));
        };
        let at = self.spec.at.clone();
        let mount = self.seen().map(|mount| mount.id);
        let look = self.spec.check.map(|check| Look::new(check, &self.spec, mount, context));
        let looked = by(Instant::now() + most_of(context.timeout), move || {
            let _inside = inside;
            nix::sys::statvfs::statvfs(&at).map_err(|e| format!("{} answers: {e}", at.display()))?;
            look.map_or(Ok(Looked::Well), |look| look.take())
        });
        match looked.await {
            Some(Ok(Looked::Well)) => {
                self.full.store(false, Ordering::Relaxed);
                Verdict::Good
            }
            Some(Ok(Looked::Full)) => {
                if !self.full.swap(true, Ordering::Relaxed) {
                    tracing::warn!("{shown} is full: its check could not write; make room");
                }
                Verdict::Good
            }
            Some(Err(why)) => Verdict::Bad(why),
            None => Verdict::Unknown(format!("{shown} does not answer")),
        }
    }
}

impl Look {
    fn new(check: Check, spec: &FilesystemSpec, mount: Option<u64>, context: &Context) -> Look {
        let Context { node, hierarchy, resource, epoch, .. } = context;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Look {
            check,
            device: PathBuf::from(&spec.device),
            at: spec.at.clone(),
            mount,
            // Each of them has 63 characters at most: together they are no longer than a file's name may be.
            name: format!(".ha-check.{hierarchy}.{resource}.{node}"),
            line: format!("{node} serves {hierarchy} in epoch {epoch}, {} ns\n", now.as_nanos()),
        }
    }

    fn take(&self) -> Result<Looked, String> {
        match self.check {
            Check::Read => block::read(&self.device)
                .map(|()| Looked::Well)
                .map_err(|e| format!("{} cannot be read: {e}", self.device.display())),
            Check::Write => match self.write() {
                Ok(()) => Ok(Looked::Well),
                Err(e) if matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                    Ok(Looked::Full)
                }
                Err(e) => Err(format!("{} cannot be written: {e}", self.at.join(&self.name).display())),
            },
        }
    }

    fn write(&self) -> io::Result<()> {
        let root = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(&self.at)?;
        let place = users::place_of(Path::new(&format!("/proc/self/fd/{}", root.as_raw_fd())));
        // A kernel before 5.8 does not tell, and 0 is no mount.
        if let (Some(there), Some(wanted)) = (place.map(|place| place.mount).filter(|id| *id != 0), self.mount)
            && there != wanted
        {
            return Err(io::Error::other("it was unmounted meanwhile"));
        }
        self.remove(&root)?;
        let written = self.write_and_read(&root);
        let removed = self.remove(&root);
        written.and(removed)
    }

    fn write_and_read(&self, root: &File) -> io::Result<()> {
        // New and no link: whoever may write to the root leads nobody elsewhere with a file of this name.
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut file = File::from(openat(root, self.name.as_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
        file.write_all(self.line.as_bytes())?;
        file.sync_all()?;
        // What was just brought to the storage would else be read from memory (posix_fadvise(2)).
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
        file.rewind()?;
        let mut read = Vec::new();
        file.take(self.line.len() as u64 + 1).read_to_end(&mut read)?;
        if read == self.line.as_bytes() {
            return Ok(());
        }
        Err(io::Error::other("what is read from it is not what was written: the storage cannot be trusted"))
    }

    fn remove(&self, root: &File) -> io::Result<()> {
        match unlinkat(root, self.name.as_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}
