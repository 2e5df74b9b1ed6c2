//! What a child of ours does between fork and exec: leaves our group, signal handlers, priority and identity behind, and makes
//! itself findable.
//!
//! A process that is to outlive the agent writes its own record before it executes anything. So there is no moment in which
//! it runs and nobody could find it, whenever the agent ends; an agent that ends before takes it along. Decides nothing else.
//!
//! All of it runs in a fork of a process with many threads, so it calls only what signal-safety(7) allows and allocates nothing.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::libc;
use nix::unistd::Pid;
use tokio::process::Command;

/// With what a child is set up.
#[derive(Default)]
pub(crate) struct Setup {
    /// Written by the child before it executes the program.
    pub(crate) record: Option<Record>,
    /// `cgroup.procs` of the group that the child joins, opened for writing.
    pub(crate) cgroup: Option<OwnedFd>,
    /// Whom it becomes, last of all.
    pub(crate) user: Option<Identity>,
}

/// Where a child writes who it is: one line `PID STARTED`, then `rest`.
pub(crate) struct Record {
    new: CString,
    path: CString,
    rest: Vec<u8>,
}

impl Record {
    /// To be written at `path`, by way of a file beside it, so that it is there wholly or not at all.
    pub(crate) fn new(path: &Path, rest: Vec<u8>) -> io::Result<Record> {
        let path = path.as_os_str().as_bytes();
        Ok(Record { new: CString::new([path, b".new"].concat())?, path: CString::new(path)?, rest })
    }
}

/// A user with all groups.
pub(crate) struct Identity {
    /// The user's number.
    pub(crate) user: libc::uid_t,
    /// The number of the main group.
    pub(crate) group: libc::gid_t,
    /// All other groups.
    pub(crate) groups: Vec<libc::gid_t>,
}

/// Has the children of `command` set up in this way: each is the leader of a session, and of a process group, of its own.
pub(crate) fn set_up(command: &mut Command, setup: Setup) {
    let parent = nix::unistd::getpid();
    // SAFETY: `Setup::apply` makes system calls only, on memory that was prepared before the fork; see the module's words.
    unsafe {
        command.pre_exec(move || setup.apply(parent));
    }
}

impl Setup {
    fn apply(&self, parent: Pid) -> io::Result<()> {
        // SAFETY: plain system calls with no pointers, or with pointers to live stack memory. Those whose failure does not
        // matter (no permission to change what was inherited) are not looked at.
        unsafe {
            check(libc::setsid())?;
            // Of the thread that forks, which waits until this process executes something.
            check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
            if libc::getppid() != parent.as_raw() {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            // First of all: our handlers would swallow, in this copy of us, a signal that was meant for the program. The C library
            // keeps two signals for itself, which it refuses.
            for signal in 1..=libc::SIGRTMAX() {
                libc::signal(signal, libc::SIG_DFL);
            }
            libc::umask(0o022);
            let ordinary = libc::sched_param { sched_priority: 0 };
            libc::sched_setscheduler(0, libc::SCHED_OTHER, &raw const ordinary);
            libc::setpriority(libc::PRIO_PROCESS, 0, 0);
        }
        let _ = write_file(c"/proc/self/oom_score_adj", libc::O_WRONLY, b"0");
        if let Some(record) = &self.record {
            record.write()?;
        }
        if let Some(group) = &self.cgroup {
            // "0" stands for the writer itself.
            write_all(group.as_raw_fd(), b"0")?;
        }
        if let Some(identity) = &self.user {
            identity.take()?;
        }
        // SAFETY: as above.
        check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, 0) })?;
        Ok(())
    }
}

impl Identity {
    fn take(&self) -> io::Result<()> {
        // SAFETY: the pointer and the length are those of a live slice.
        unsafe {
            check(libc::setgroups(self.groups.len(), self.groups.as_ptr()))?;
            check(libc::setgid(self.group))?;
            check(libc::setuid(self.user))?;
        }
        Ok(())
    }
}

impl Record {
    fn write(&self) -> io::Result<()> {
        let mut line = [0u8; 1024];
        let length = read_file(c"/proc/self/stat", &mut line)?;
        let malformed = || io::Error::from_raw_os_error(libc::EPROTO);
        let line = &line[..length];
        let pid_ends = line.iter().position(|b| *b == b' ').ok_or_else(malformed)?;
        let name_ends = line.iter().rposition(|b| *b == b')').ok_or_else(malformed)?;
        // After the name and a blank come fields 3, 4, …; 22 is the start time.
        let started =
            line.get(name_ends + 2..).and_then(|rest| rest.split(|b| *b == b' ').nth(19)).ok_or_else(malformed)?;
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC;
        let file = open(&self.new, flags)?;
        let written =
            [&line[..=pid_ends], started, b"\n", &self.rest].iter().try_for_each(|part| write_all(file, part));
        // SAFETY: the descriptor is ours and used no more; the names are live C strings.
        unsafe {
            libc::close(file);
            written?;
            check(libc::rename(self.new.as_ptr(), self.path.as_ptr()))?;
        }
        Ok(())
    }
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn open(path: &std::ffi::CStr, flags: libc::c_int) -> io::Result<RawFd> {
    // SAFETY: the path is a live C string.
    check(unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC, 0o600) })
}

fn write_file(path: &std::ffi::CStr, flags: libc::c_int, bytes: &[u8]) -> io::Result<()> {
    let file = open(path, flags)?;
    let result = write_all(file, bytes);
    // SAFETY: the descriptor is ours and used no more.
    unsafe { libc::close(file) };
    result
}

fn write_all(file: RawFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        // SAFETY: pointer and length are those of a live slice.
        let written = unsafe { libc::write(file, bytes.as_ptr().cast(), bytes.len()) };
        match usize::try_from(written) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(_) => return Err(io::Error::last_os_error()),
        }
    }
    Ok(())
}

fn read_file(path: &std::ffi::CStr, buffer: &mut [u8]) -> io::Result<usize> {
    let file = open(path, libc::O_RDONLY)?;
    // SAFETY: pointer and length are those of a live slice; the descriptor is ours and used no more after that.
    let read = unsafe {
        let read = libc::read(file, buffer.as_mut_ptr().cast(), buffer.len());
        libc::close(file);
        read
    };
    usize::try_from(read).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use tokio::signal::unix::{SignalKind, signal};

    #[tokio::test]
    async fn a_signal_before_the_program_is_executed_is_not_swallowed_by_our_handler() {
        let _handler = signal(SignalKind::terminate()).unwrap();
        let mut command = Command::new("true");
        set_up(&mut command, Setup::default());
        // SAFETY: raise(3) may be called in a forked child.
        unsafe {
            command.pre_exec(|| check(libc::raise(libc::SIGTERM)).map(drop));
        }
        let status = command.status().await.unwrap();
        assert_eq!(status.signal(), Some(libc::SIGTERM));
    }
}
