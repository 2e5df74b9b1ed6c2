//! The shared disk of a laboratory, and the path on which each node reaches it.
//!
//! A path is a loop device over a file of a FUSE filesystem that this process serves, one per node, so that every read and write of a node
//! passes through here and meets the fault that the test wants: an error, or no answer. Nothing on the way caches (`FOPEN_DIRECT_IO`, and direct
//! I/O of the loop device): what one node wrote, all read. The disk itself is one ordinary file.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner,
    MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, WriteFlags,
};

use crate::command::run;
use crate::trouble::{Result, While as _};

/// The only file of a path's filesystem.
const FILE: &str = "disk";
const FILE_NUMBER: INodeNo = INodeNo(2);
const SECTOR: u32 = 512;

/// How a path treats what a node asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Carries everything out at once.
    Good,
    /// Carries everything out, one after the other, each so much later.
    Slow(Duration),
    /// Answers everything with an I/O error, and carries nothing out.
    Errors,
    /// Does not answer. What was asked meanwhile is carried out when the path is good again, or fails with [`Health::Errors`].
    Hangs,
}

/// The way of one node to the shared disk.
pub struct DiskPath {
    shared: Arc<Mutex<State>>,
    session: Option<BackgroundSession>,
    device: PathBuf,
    /// Keeps the loop device, which goes when this is closed.
    open: Option<File>,
}

struct State {
    disk: File,
    size: u64,
    health: Health,
    waiting: Vec<Asked>,
}

/// A request that has no answer yet.
enum Asked {
    Read { at: u64, length: u32, reply: ReplyData },
    Write { at: u64, data: Vec<u8>, reply: ReplyWrite },
    Flush(ReplyEmpty),
}

impl DiskPath {
    /// A path to the disk in the file `disk`, by way of a filesystem at `mount_point`, an empty folder.
    pub(crate) fn new(disk: &Path, mount_point: &Path) -> Result<Self> {
        let file =
            OpenOptions::new().read(true).write(true).open(disk).to(format!("open the disk {}", disk.display()))?;
        let size = file.metadata().to("read the disk's size")?.len();
        let shared = Arc::new(Mutex::new(State { disk: file, size, health: Health::Good, waiting: Vec::new() }));
        let mut config = fuser::Config::default();
        config.mount_options = vec![MountOption::FSName("ha-lab".into())];
        let session = fuser::spawn_mount(Served(Arc::clone(&shared)), mount_point, &config)
            .to(format!("mount a filesystem of this process at {}", mount_point.display()))?;
        let backing = mount_point.join(FILE);
        let name = run("losetup", &["--find", "--show", "--direct-io=on", &backing.to_string_lossy()])?;
        let device = PathBuf::from(name.trim());
        let open = File::open(&device).to(format!("open {}", device.display()))?;
        // Detached while it is open, the kernel removes it with the last one who has it open: also if this process is killed.
        run("losetup", &["--detach", name.trim()])?;
        Ok(DiskPath { shared, session: Some(session), device, open: Some(open) })
    }

    /// The block device.
    pub fn device(&self) -> &Path {
        &self.device
    }

    /// Changes how the path treats what is asked; what waits is answered accordingly.
    pub fn set(&self, health: Health) {
        let mut state = hold(&self.shared);
        state.health = health;
        for asked in std::mem::take(&mut state.waiting) {
            state.handle(asked);
        }
    }

    /// How many requests have no answer at this moment.
    pub fn waiting(&self) -> usize {
        hold(&self.shared).waiting.len()
    }
}

impl Drop for DiskPath {
    fn drop(&mut self) {
        self.set(Health::Errors);
        drop(self.open.take());
        if let Some(session) = self.session.take() {
            // Not joined: another laboratory's node may hold a copy of the mount for a moment longer.
            drop(session);
        }
    }
}

impl State {
    fn handle(&mut self, asked: Asked) {
        match (self.health, asked) {
            (Health::Good | Health::Slow(_), Asked::Read { at, length, reply }) => {
                let length = u64::from(length).min(self.size.saturating_sub(at));
                let mut data = vec![0; usize::try_from(length).unwrap_or(0)];
                match self.disk.read_exact_at(&mut data, at) {
                    Ok(()) => reply.data(&data),
                    Err(_) => reply.error(Errno::EIO),
                }
            }
            (Health::Good | Health::Slow(_), Asked::Write { at, data, reply }) => {
                match self.disk.write_all_at(&data, at) {
                    Ok(()) => reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX)),
                    Err(_) => reply.error(Errno::EIO),
                }
            }
            (Health::Good | Health::Slow(_), Asked::Flush(reply)) => reply.ok(),
            (Health::Errors, Asked::Read { reply, .. }) => reply.error(Errno::EIO),
            (Health::Errors, Asked::Write { reply, .. }) => reply.error(Errno::EIO),
            (Health::Errors, Asked::Flush(reply)) => reply.error(Errno::EIO),
            (Health::Hangs, asked) => self.waiting.push(asked),
        }
    }
}

fn hold(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The filesystem of one path.
struct Served(Arc<Mutex<State>>);

impl Served {
    /// The requests come one after the other: who waits here makes all that follow wait.
    fn ask(&self, asked: Asked) {
        let health = hold(&self.0).health;
        if let Health::Slow(delay) = health {
            std::thread::sleep(delay);
        }
        hold(&self.0).handle(asked);
    }

    fn attributes(&self, number: INodeNo) -> FileAttr {
        let folder = number == INodeNo::ROOT;
        let size = if folder { 0 } else { hold(&self.0).size };
        FileAttr {
            ino: number,
            size,
            blocks: size / u64::from(SECTOR),
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if folder { FileType::Directory } else { FileType::RegularFile },
            perm: if folder { 0o755 } else { 0o600 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            flags: 0,
            blksize: SECTOR,
        }
    }
}

/// How long the kernel may believe what it was told of the file, which never changes.
const LASTING: Duration = Duration::from_secs(3600);

impl Filesystem for Served {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if parent == INodeNo::ROOT && name == FILE {
            reply.entry(&LASTING, &self.attributes(FILE_NUMBER), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&LASTING, &self.attributes(number));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        at: u64,
        length: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.ask(Asked::Read { at, length, reply });
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        at: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        self.ask(Asked::Write { at, data: data.to_vec(), reply });
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.ask(Asked::Flush(reply));
    }
}
