//! Everything that came from one started program: who of it lives, signals to all of it, its end.
//!
//! Decides who belongs to a [`KillHandle`], and refuses a number that was given to somebody else since. Leaves to others
//! when to signal, and how long to wait.

pub(crate) mod record;

use std::io;
use std::time::Duration;

use ha_core::driver::KillHandle;
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use crate::cgroup;
use crate::proc::Stat;

use self::record::Recorded;

/// These, with what stands in a record in place of each record.
fn resolved(handles: &[KillHandle]) -> io::Result<Vec<KillHandle>> {
    let mut all = Vec::with_capacity(handles.len());
    for handle in handles {
        match handle {
            KillHandle::Record(path) => all.extend(record::read(path)?.iter().flat_map(Recorded::handles)),
            other => all.push(other.clone()),
        }
    }
    Ok(all)
}

/// The live processes of all of these, each once. Zombies do not count: they run nothing and hold nothing.
pub(crate) fn members(handles: &[KillHandle]) -> io::Result<Vec<Stat>> {
    members_of(&resolved(handles)?)
}

fn members_of(resolved: &[KillHandle]) -> io::Result<Vec<Stat>> {
    let mut found = Vec::new();
    for handle in resolved {
        match handle {
            KillHandle::Cgroup(group) => found.extend(cgroup::members(group)?),
            KillHandle::ProcessGroup { pgid, started } => found.extend(group_members(*pgid, *started)?),
            KillHandle::Record(_) | KillHandle::Address { .. } => {}
        }
    }
    found.sort_by_key(|process| process.pid);
    found.dedup_by_key(|process| process.pid);
    Ok(found)
}

/// The processes of a group, and of the session that its leader opened, if it did.
///
/// The kernel does not give a number away while a process, a group or a session has it. So another process with the leader's
/// number and another start time means that all of the group is gone.
fn group_members(pgid: i32, started: u64) -> io::Result<Vec<Stat>> {
    if Stat::of(pgid).is_some_and(|leader| leader.started != started) {
        return Ok(Vec::new());
    }
    let belongs = |process: &Stat| {
        (process.group == pgid || process.session == pgid) && process.started >= started && process.is_alive()
    };
    Ok(Stat::all()?.into_iter().filter(belongs).collect())
}

/// Whether these are process groups that have no members any more; costs one system call for each. Whoever left a group, if not its session,
/// is not counted.
pub(crate) fn are_empty(handles: &[KillHandle]) -> bool {
    handles.iter().all(|handle| match handle {
        // killpg(3) without a signal. A number that was given to another group since makes no difference: what follows looks closer.
        KillHandle::ProcessGroup { pgid, .. } if *pgid > 1 => {
            signal::kill(Pid::from_raw(-pgid), None) == Err(nix::errno::Errno::ESRCH)
        }
        _ => false,
    })
}

/// Sends a signal to every process of these.
pub(crate) fn signal_all(handles: &[KillHandle], signal: Signal) -> io::Result<()> {
    let handles = resolved(handles)?;
    let members = members_of(&handles)?;
    for handle in &handles {
        if let KillHandle::ProcessGroup { pgid, .. } = handle {
            // In one step, so that none escapes by forking; only while it has members, so that it is the group meant.
            if *pgid > 1 && members.iter().any(|process| process.group == *pgid) {
                match signal::kill(Pid::from_raw(-pgid), signal) {
                    Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
                    Err(e) => return Err(e.into()),
                }
            }
        }
    }
    let in_a_group = |process: &Stat| {
        handles.iter().any(|h| matches!(h, KillHandle::ProcessGroup { pgid, .. } if *pgid == process.group))
    };
    for process in members.iter().filter(|process| !in_a_group(process)) {
        process.id().signal(signal)?;
    }
    Ok(())
}

/// Sends SIGKILL to all of them, through the control group where there is one.
pub(crate) fn kill_all(handles: &[KillHandle]) -> io::Result<()> {
    let handles = resolved(handles)?;
    for handle in &handles {
        if let KillHandle::Cgroup(group) = handle {
            cgroup::kill(group)?;
        }
    }
    signal_all(&handles, Signal::SIGKILL)
}

/// Waits until none of them lives. Looks often at first and more rarely later: the kernel tells only parents of an exit.
pub(crate) async fn gone(handles: &[KillHandle]) -> io::Result<()> {
    let mut pause = Duration::from_millis(1);
    loop {
        if members(handles)?.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}
