//! Processes as `/proc` shows them: who they are, whether they still are, and how to wait for and signal exactly them.
//!
//! Decides when a pid is still the process it was (by its start time). Leaves to others which processes matter.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::libc;
use nix::sys::signal::Signal;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A process as `/proc/PID/stat` shows it (proc_pid_stat(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    /// Its number.
    pub(crate) pid: i32,
    /// The name of its program, at most 15 bytes; any bytes that are not UTF-8 are replaced.
    pub(crate) name: String,
    /// One letter: `R`, `S`, `D`, `T`, `Z` and so on.
    pub(crate) state: char,
    /// Its parent.
    pub(crate) parent: i32,
    /// Its process group.
    pub(crate) group: i32,
    /// Its session.
    pub(crate) session: i32,
    /// Its threads that are not gone yet (field 20).
    pub(crate) threads: u32,
    /// When it began, in clock ticks since boot (field 22).
    pub(crate) started: u64,
}

impl Stat {
    /// Reads one line of `/proc/PID/stat`. The name stands in brackets and may itself hold brackets and blanks, so the last
    /// closing bracket counts.
    pub(crate) fn parse(line: &[u8]) -> Option<Stat> {
        let open = line.iter().position(|b| *b == b'(')?;
        let close = line.iter().rposition(|b| *b == b')')?;
        let name = line.get(open + 1..close)?;
        let pid = std::str::from_utf8(&line[..open]).ok()?.trim().parse().ok()?;
        let rest = std::str::from_utf8(&line[close + 1..]).ok()?;
        let mut fields = rest.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let parent = fields.next()?.parse().ok()?;
        let group = fields.next()?.parse().ok()?;
        let session = fields.next()?.parse().ok()?;
        // Field 6 was the session's.
        let threads = fields.nth(20 - 7)?.parse().ok()?;
        let started = fields.nth(22 - 21)?.parse().ok()?;
        let name = String::from_utf8_lossy(name).into_owned();
        Some(Stat { pid, name, state, parent, group, session, threads, started })
    }

    /// Reads the process of this number, if there is one. A zombie is one.
    pub(crate) fn of(pid: i32) -> Option<Stat> {
        Stat::parse(&std::fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    /// All processes of this machine that can be seen.
    pub(crate) fn all() -> io::Result<Vec<Stat>> {
        let pids =
            std::fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
        Ok(pids.filter_map(Stat::of).collect())
    }

    /// Whether it can still do anything: not a zombie, not just being removed. The state is that of the first thread, which is a
    /// zombie, too, when it ended before the others (pthread_exit(3)).
    pub(crate) fn is_alive(&self) -> bool {
        !matches!(self.state, 'Z' | 'X' | 'x') || self.threads > 1
    }

    /// Its identity.
    pub(crate) fn id(&self) -> ProcessId {
        ProcessId { pid: self.pid, started: self.started }
    }
}

impl fmt::Display for Stat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {}, state {})", self.name, self.pid, self.state)
    }
}

/// Names processes for people: the first few, and how many more.
pub(crate) fn list(processes: &[Stat]) -> String {
    let first = processes.iter().take(5).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match processes.len().saturating_sub(5) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

/// A process that is told apart from any later one with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ProcessId {
    /// Its number.
    pub(crate) pid: i32,
    /// When it began, in clock ticks since boot.
    pub(crate) started: u64,
}

impl ProcessId {
    /// What `/proc` shows of it, unless it is gone: its number may since have been given to another.
    pub(crate) fn stat(self) -> Option<Stat> {
        Stat::of(self.pid).filter(|stat| stat.started == self.started)
    }

    /// Whether it is there and is not a zombie.
    pub(crate) fn is_alive(self) -> bool {
        self.stat().is_some_and(|stat| stat.is_alive())
    }

    /// A descriptor that becomes readable when it exits (pidfd_open(2)), or `None` if it is gone.
    pub(crate) fn open(self) -> io::Result<Option<OwnedFd>> {
        let descriptor = match open_pid(self.pid) {
            Ok(descriptor) => descriptor,
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => return Ok(None),
            Err(e) => return Err(e),
        };
        // Looked at after opening: the descriptor stays with the process that had the number at that moment.
        Ok(self.stat().map(|_| descriptor))
    }

    /// Sends a signal to it and to nobody else. It is no error if it is gone.
    pub(crate) fn signal(self, signal: Signal) -> io::Result<()> {
        let Some(descriptor) = self.open()? else { return Ok(()) };
        // SAFETY: the descriptor is open; a null pointer asks for the siginfo that kill(2) would send.
        let result = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                descriptor.as_raw_fd(),
                signal as libc::c_int,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
        match result {
            0 => Ok(()),
            _ => match io::Error::last_os_error() {
                e if e.raw_os_error() == Some(libc::ESRCH) => Ok(()),
                e => Err(e),
            },
        }
    }
}

fn open_pid(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers and returns a new descriptor or -1.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let descriptor = i32::try_from(result).unwrap_or(-1);
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// A descriptor that tokio waits on; one of a process is readable once the process has exited.
pub(crate) fn wait_on(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    wait_for(descriptor, Interest::READABLE | Interest::WRITABLE)
}

/// The same for something else than bytes to read or room to write.
pub(crate) fn wait_for(descriptor: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` gives the same open descriptor for as long as it lives, and the `AsyncFd` owns it.
    unsafe { AsyncFd::register_with_interest(descriptor, interest) }.map_err(Into::into)
}

/// The kernel's identity of this boot (random(4)), by which a record of an earlier boot is known.
pub(crate) fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::until;
    use proptest::prelude::*;

    #[test]
    fn a_name_with_brackets_and_blanks_is_read() {
        let line = b"42 (a) b (c) S 1 42 42 0 -1 4194560 100 0 0 0 1 2 3 4 20 0 1 0 98765 1000 10";
        let stat = Stat::parse(line).unwrap();
        assert_eq!((stat.pid, stat.name.as_str(), stat.state, stat.started), (42, "a) b (c", 'S', 98765));
        assert_eq!((stat.parent, stat.group, stat.session, stat.threads), (1, 42, 42, 1));
    }

    extern "C" fn wait_for_ever(_: *mut libc::c_void) -> libc::c_int {
        loop {
            // SAFETY: takes nothing and touches no memory.
            unsafe { libc::pause() };
        }
    }

    /// A process of two threads, the first of which has ended.
    fn without_its_first_thread() -> i32 {
        let stack = Box::leak(vec![0_u128; 4096].into_boxed_slice()).as_mut_ptr_range().end;
        let flags = libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_FILES | libc::CLONE_SIGHAND | libc::CLONE_THREAD;
        // SAFETY: the child makes system calls only. Its second thread has a stack of its own, which nobody frees.
        unsafe {
            let pid = libc::fork();
            if pid == 0 {
                libc::clone(wait_for_ever, stack.cast(), flags, std::ptr::null_mut());
                libc::syscall(libc::SYS_exit, 0);
            }
            pid
        }
    }

    #[tokio::test]
    async fn a_process_lives_on_after_its_first_thread_and_is_dead_as_a_zombie() {
        let pid = without_its_first_thread();
        assert!(pid > 0);
        let process = until("its first thread has ended", || Stat::of(pid).filter(|stat| stat.state == 'Z')).await;
        process.id().signal(Signal::SIGKILL).unwrap();
        assert!(process.is_alive(), "{process:?}");
        until("it is dead", || (!process.id().is_alive()).then_some(())).await;
        assert_eq!(Stat::of(pid).unwrap().state, 'Z');
        nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None).unwrap();
    }

    #[test]
    fn this_process_finds_itself_and_not_one_with_a_forged_start_time() {
        let me = Stat::of(i32::try_from(std::process::id()).unwrap()).unwrap().id();
        assert!(me.is_alive());
        assert!(me.open().unwrap().is_some());
        let forged = ProcessId { started: me.started + 1, ..me };
        assert!(!forged.is_alive());
        assert!(forged.open().unwrap().is_none());
        // Would end this test if it were sent.
        forged.signal(Signal::SIGKILL).unwrap();
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Stat::parse(&line);
        }
    }
}
