//! Makes the agent's own threads urgent, so that a busy machine does not look like a dead one.
//!
//! Decides how. Leaves to the agent which threads these are, and what to say when the system refuses.

use std::io;

use nix::libc;
use nix::sys::mman::{MlockAllFlags, mlockall};

/// Above every ordinary process; below interrupt threads and whatever an administrator ranks on purpose.
const PRIORITY: libc::c_int = 1;

/// Gives the calling thread real-time priority (`SCHED_RR`, sched(7)). Its children are ordinary again
/// (`SCHED_RESET_ON_FORK`), so that services are not made urgent by accident. Needs `CAP_SYS_NICE`.
pub fn make_thread_urgent() -> io::Result<()> {
    let parameter = libc::sched_param { sched_priority: PRIORITY };
    // SAFETY: the parameter is initialised and outlives the call, which only reads it; 0 names the calling thread.
    let answer =
        unsafe { libc::sched_setscheduler(0, libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, &raw const parameter) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether the calling thread was made urgent. A thread that it starts is not, by itself.
pub fn is_thread_urgent() -> bool {
    // SAFETY: takes and gives plain numbers; 0 names the calling thread.
    let policy = unsafe { libc::sched_getscheduler(0) };
    policy >= 0 && policy & !libc::SCHED_RESET_ON_FORK == libc::SCHED_RR
}

/// Keeps what the process uses of memory in memory, from its first use on (`MCL_ONFAULT`, mlockall(2)): dead storage under
/// the swap cannot stop the agent. Needs `CAP_IPC_LOCK` or room under `RLIMIT_MEMLOCK`.
pub fn keep_in_memory() -> io::Result<()> {
    let on_fault = MlockAllFlags::from_bits_retain(libc::MCL_ONFAULT);
    mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE | on_fault).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_urgent_thread_has_ordinary_children() {
        std::thread::spawn(|| {
            if let Err(refused) = make_thread_urgent() {
                assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
                eprintln!("SKIPPED: this user may not make threads urgent: {refused}");
                return;
            }
            assert!(is_thread_urgent());
            assert!(!std::thread::spawn(is_thread_urgent).join().unwrap(), "what it starts is ordinary");
            let policy_of = |stat: &str| stat.rsplit(')').next().and_then(|s| s.split(' ').nth(39).map(str::to_owned));
            // Fields 40 and 41 of stat: real-time priority and policy (proc_pid_stat(5)).
            let own = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
            assert_eq!(policy_of(&own).as_deref(), Some("2"), "{own}");
            let child = std::process::Command::new("cat").arg("/proc/self/stat").output().unwrap();
            let child = String::from_utf8_lossy(&child.stdout).into_owned();
            assert_eq!(policy_of(&child).as_deref(), Some("0"), "{child}");
        })
        .join()
        .unwrap();
    }
}
