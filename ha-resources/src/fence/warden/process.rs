//! The warden's own process: one thread, one loop, woken by its agent and by the next deadline.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use ha_core::name::HierarchyName;
use ha_core::time::Time;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::removal::Removal;
use super::{Guards, Lease, OnExpiry, Received, Settings};
use crate::{proc, process_group, urgency};

/// No line from an agent is longer, in bytes: some ten thousand leases.
const LINE_LIMIT: usize = 16 << 20;
/// From one look at what was killed to the next.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Runs a warden that listens on this socket, until it is not needed any more. What it does goes to standard error.
pub fn warden_main(socket: &Path, settings: &Settings) -> ExitCode {
    match Warden::listen(socket, settings.clone()).and_then(Warden::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("warden: {}: {e}", socket.display());
            ExitCode::FAILURE
        }
    }
}

struct Warden {
    settings: Settings,
    /// Held for life: one warden for each socket.
    _lock: Flock<File>,
    listener: UnixListener,
    timer: TimerFd,
    agents: BTreeMap<u64, Agent>,
    next_agent: u64,
    guarded: BTreeMap<HierarchyName, Entry>,
    idle_since: Time,
}

struct Agent {
    stream: UnixStream,
    received: Vec<u8>,
}

struct Entry {
    lease: Lease,
    /// Which connection spoke of it last: only that one can take it back by not naming it any more. So a new life of the agent
    /// that has not found everything yet leaves nothing unguarded.
    by: u64,
    /// When it was first killed.
    killed: Option<Time>,
    /// Of its addresses.
    removal: Removal,
    reported: bool,
}

/// The moment on the boot-time clock.
pub(super) fn boot_time() -> io::Result<Time> {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME)?;
    Ok(Time(now.tv_sec().unsigned_abs() * 1_000_000_000 + now.tv_nsec().unsigned_abs()))
}

/// Not being paged out, not waiting behind others, not being chosen when memory ends: as far as it is allowed.
fn stand_firm() {
    if let Err(e) = urgency::keep_in_memory() {
        eprintln!("warden: its memory cannot be locked: {e}");
    }
    if let Err(e) = urgency::make_thread_urgent() {
        eprintln!("warden: no real-time priority: {e}");
    }
    if let Err(e) = std::fs::write("/proc/self/oom_score_adj", "-1000") {
        eprintln!("warden: it may be ended when memory runs out: {e}");
    }
}

impl Warden {
    fn listen(socket: &Path, settings: Settings) -> io::Result<Warden> {
        let lock = File::create(socket.with_extension("lock"))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, e)| io::Error::other(format!("another warden serves it ({e})")))?;
        match std::fs::remove_file(socket) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        // Made for this user only from the beginning, not corrected afterwards.
        let mask = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
        let listener = UnixListener::bind(socket);
        nix::sys::stat::umask(mask);
        let listener = listener?;
        std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        stand_firm();
        Ok(Warden {
            settings,
            _lock: lock,
            listener,
            timer: TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?,
            agents: BTreeMap::new(),
            next_agent: 0,
            guarded: BTreeMap::new(),
            idle_since: boot_time()?,
        })
    }

    fn run(mut self) -> io::Result<()> {
        loop {
            let now = boot_time()?;
            self.expire(now);
            let needed = !self.agents.is_empty() || !self.guarded.is_empty();
            if needed {
                self.idle_since = now;
            } else if now >= self.idle_since + self.settings.idle_for {
                return Ok(());
            }
            self.wait(now)?;
            if needed {
                // If the agent left meanwhile, it was needed until this moment.
                self.idle_since = boot_time()?;
            }
        }
    }

    /// Waits for whatever comes first, and takes it in.
    fn wait(&mut self, now: Time) -> io::Result<()> {
        let next = self.next_deadline(now);
        let next = Duration::from_nanos(next.0.max(1));
        self.timer.set(Expiration::OneShot(TimeSpec::from_duration(next)), TimerSetTimeFlags::TFD_TIMER_ABSTIME)?;
        let names: Vec<u64> = self.agents.keys().copied().collect();
        let mut waiting = vec![
            PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.timer.as_fd(), PollFlags::POLLIN),
        ];
        waiting.extend(self.agents.values().map(|agent| PollFd::new(agent.stream.as_fd(), PollFlags::POLLIN)));
        match poll(&mut waiting, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
        let ready: Vec<bool> = waiting.iter().map(|one| one.any().unwrap_or(false)).collect();
        drop(waiting);
        if ready.first() == Some(&true) {
            self.accept();
        }
        for (name, _) in names.into_iter().zip(ready.into_iter().skip(2)).filter(|(_, ready)| *ready) {
            self.hear(name);
        }
        Ok(())
    }

    fn next_deadline(&self, now: Time) -> Time {
        let of_entry = |entry: &Entry| match entry.killed {
            Some(_) => now + LOOK_AGAIN,
            None => entry.lease.until,
        };
        let idle = self.idle_since + self.settings.idle_for;
        // While something is guarded or an agent is there, the idle time begins anew at every turn.
        self.guarded.values().map(of_entry).min().unwrap_or(idle).max(now + Duration::from_millis(1))
    }

    fn accept(&mut self) {
        let Ok((stream, _)) = self.listener.accept() else { return };
        let allowed =
            getsockopt(&stream, PeerCredentials).is_ok_and(|peer| peer.uid() == nix::unistd::geteuid().as_raw());
        if !allowed || stream.set_nonblocking(true).is_err() {
            eprintln!("warden: refused somebody who is not the user it runs as");
            return;
        }
        self.agents.insert(self.next_agent, Agent { stream, received: Vec::new() });
        self.next_agent += 1;
    }

    fn hear(&mut self, name: u64) {
        let Some(agent) = self.agents.get_mut(&name) else { return };
        match agent.lines() {
            Ok(lines) => {
                for line in lines {
                    let answered = serde_json::from_slice::<Guards>(&line)
                        .map_err(io::Error::other)
                        .and_then(|guards| self.take(name, guards));
                    if let Err(e) = answered {
                        eprintln!("warden: an agent is not understood or does not listen: {e}");
                        self.agents.remove(&name);
                        return;
                    }
                }
            }
            // Gone. Its deadlines stay.
            Err(_) => {
                self.agents.remove(&name);
            }
        }
    }

    /// What was killed meanwhile stays killed: a deadline that has passed is not given back.
    fn prolong(&mut self, by: u64, until: Time) {
        for entry in self.guarded.values_mut().filter(|entry| entry.by == by && entry.killed.is_none()) {
            entry.lease.until = entry.lease.until.max(until);
        }
    }

    fn take(&mut self, by: u64, guards: Guards) -> io::Result<()> {
        if let Some(until) = guards.prolonged {
            self.prolong(by, until);
        } else {
            self.guarded.retain(|_, entry| entry.by != by);
        }
        for lease in guards.leases {
            let entry = Entry { lease, by, killed: None, removal: Removal::default(), reported: false };
            self.guarded.insert(entry.lease.hierarchy.clone(), entry);
        }
        let mut answer = serde_json::to_vec(&Received { number: guards.number }).map_err(io::Error::other)?;
        answer.push(b'\n');
        let agent = self.agents.get_mut(&by).ok_or(io::ErrorKind::NotConnected)?;
        agent.stream.write_all(&answer)
    }

    /// Ends what has no tenure any more.
    fn expire(&mut self, now: Time) {
        let settings = &self.settings;
        self.guarded.retain(|hierarchy, entry| {
            if now < entry.lease.until {
                return true;
            }
            !end(hierarchy, entry, settings, now)
        });
    }
}

/// Whether nothing of it is left.
fn end(hierarchy: &HierarchyName, entry: &mut Entry, settings: &Settings, now: Time) -> bool {
    let first = entry.killed.is_none();
    let began = *entry.killed.get_or_insert(now);
    let reason = || format!("the tenure of {hierarchy} ended and was not proven again");
    if let (OnExpiry::ResetMachine(reset), true) = (&settings.on_expiry, first) {
        eprintln!("warden: {}: resetting this machine", reason());
        eprintln!("warden: {hierarchy}: it cannot be reset: {}", reset.now(&reason()));
    }
    if first {
        eprintln!("warden: {}: killing what runs", reason());
    }
    let left = end_once(entry);
    if left.is_empty() {
        eprintln!("warden: {hierarchy}: nothing of it is left");
        return true;
    }
    if now.since(began) > settings.margin && !entry.reported {
        entry.reported = true;
        eprintln!("warden: {hierarchy}: cannot be ended: {}", left.join("; "));
        if let OnExpiry::KillGroups { otherwise } = &settings.on_expiry {
            eprintln!("warden: {hierarchy}: {}; it tries on", otherwise.now(&reason()));
        }
    }
    false
}

/// Ends all that can be ended, and says what is left. What cannot be ended does not hold up the rest.
fn end_once(entry: &mut Entry) -> Vec<String> {
    let handles = &entry.lease.handles;
    let mut left = entry.removal.turn(handles);
    match process_group::kill_all(handles).and_then(|()| process_group::members(handles)) {
        Ok(processes) if processes.is_empty() => {}
        Ok(processes) => left.push(format!("running after SIGKILL: {}", proc::list(&processes))),
        Err(e) => left.push(format!("what runs: {e}")),
    }
    left
}

impl Agent {
    /// The whole lines that have come; an error when there will be no more.
    fn lines(&mut self) -> io::Result<Vec<Vec<u8>>> {
        let mut buffer = [0; 8192];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => self.received.extend_from_slice(&buffer[..length]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
            if self.received.len() > LINE_LIMIT {
                return Err(io::Error::other("a line without end"));
            }
        }
        let Some(end) = self.received.iter().rposition(|b| *b == b'\n') else { return Ok(Vec::new()) };
        let rest = self.received.split_off(end + 1);
        let whole = std::mem::replace(&mut self.received, rest);
        Ok(whole.split(|b| *b == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect())
    }
}
