//! Programs that are run to their end, within a time: commands of the user's, mount(8), fsck(8).
//!
//! Decides what environment they get, and that none survives the one who waits for it. Leaves what an exit code means to others.

use std::fmt;
use std::io::{self, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ha_core::driver::{Context, Failed, KillHandle};
use nix::sys::memfd::{MFdFlags, memfd_create};
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};

use crate::child::{self, Setup};
use crate::proc::{self, ProcessId, Stat};
use crate::{cgroup, process_group};

/// Where programs are looked for, in place of the agent's own `PATH`.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How long children may take to end that are not stuck: longer than any look at a resource that is begun without an operation.
const ENDING: Duration = Duration::from_secs(6);

/// From one look whether children have ended to the next.
const PAUSE: Duration = Duration::from_millis(20);

/// Of a program's output so much is kept, in bytes: its end.
pub(crate) const OUTPUT_KEPT: usize = 4096;

/// What of a program's output is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Keep {
    /// The last [`OUTPUT_KEPT`] bytes, of standard output and standard error together.
    #[default]
    LastWords,
    /// Standard output alone and whole. One that writes more bytes than this is killed.
    Whole(usize),
}

/// What becomes of what a program leaves running when it ends by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Leftovers {
    /// It runs on.
    #[default]
    Stay,
    /// If anything is left in its process group, that is killed, with all of its session. What made itself a daemon runs on. Looks for
    /// nothing where nothing is left, and so is fit for what is done all the time.
    DaemonsStay,
    /// It is killed.
    Killed,
}

/// What a program reads from its standard input. Not shown: it may hold passwords.
#[derive(Clone, Default)]
pub(crate) struct Input(pub(crate) Vec<u8>);

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Input {
    /// A file in memory: whether and when the program reads it is nobody's concern.
    fn file(&self) -> io::Result<Stdio> {
        if self.0.is_empty() {
            return Ok(Stdio::null());
        }
        let memory = memfd_create(c"input", MFdFlags::MFD_CLOEXEC)?;
        let mut file = std::fs::File::from(memory);
        file.write_all(&self.0)?;
        file.rewind()?;
        Ok(Stdio::from(file))
    }
}

/// A program to be run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Program {
    /// The program and its arguments.
    pub(crate) command: Vec<String>,
    /// Set beside [`PATH`]; nothing of the agent's own environment is passed on.
    pub(crate) environment: Vec<(String, String)>,
    /// Where it runs; `/` if nothing is said.
    pub(crate) directory: Option<PathBuf>,
    /// A control group that it joins. Whatever it leaves running stays there.
    pub(crate) cgroup: Option<PathBuf>,
    /// Where it is noted while it runs, so that one that even SIGKILL does not end is not forgotten.
    pub(crate) children: Arc<Children>,
    /// What of its output is kept.
    pub(crate) keep: Keep,
    /// What it reads; nothing if nothing is said.
    pub(crate) input: Input,
    /// What becomes of what it leaves running.
    pub(crate) leftovers: Leftovers,
}

/// What a program did that ended by itself.
#[derive(Clone, Debug)]
pub(crate) struct Finished {
    /// How it ended.
    pub(crate) status: ExitStatus,
    /// What was kept of its output.
    pub(crate) output: String,
}

impl Finished {
    /// How it ended and what it wrote, for people.
    pub(crate) fn describe(&self) -> String {
        describe(self.status) + &said(&self.output)
    }
}

/// A program that did not end by itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RunError {
    /// It was never executed.
    #[error("cannot run {program}: {reason}; check that it exists and may be executed")]
    NotRun {
        /// Its name, as given.
        program: String,
        /// What the system said.
        reason: String,
    },
    /// It took too long and was killed with its process group.
    #[error("{program} was killed because it did not end within {limit:?}{output}")]
    TimedOut {
        /// Its name, as given.
        program: String,
        /// What it had.
        limit: Duration,
        /// The end of what it wrote, as a phrase.
        output: String,
    },
    /// It wrote more than was asked for and was killed with its process group.
    #[error("{program} was killed because it wrote too much: {written} bytes and more")]
    TooMuch {
        /// Its name, as given.
        program: String,
        /// What was seen of it.
        written: usize,
    },
}

impl From<RunError> for Failed {
    fn from(error: RunError) -> Failed {
        Failed::new(error)
    }
}

/// How a process ended, for people.
pub(crate) fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(number)) => match nix::sys::signal::Signal::try_from(number) {
            Ok(signal) => format!("was killed by {signal}"),
            Err(_) => format!("was killed by signal {number}"),
        },
        (None, None) => "ended".to_owned(),
    }
}

/// Output as the end of a sentence; nothing for nothing.
pub(crate) fn said(output: &str) -> String {
    let lines: Vec<&str> = output.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let last = lines.len().saturating_sub(5);
    if lines.is_empty() { String::new() } else { format!("; it said: {}", lines[last..].join(" / ")) }
}

/// Finds a program: a path is taken as it is, a bare name is looked for in [`PATH`].
pub(crate) fn resolve(program: &str) -> Result<PathBuf, Failed> {
    let usable = |path: &Path| path.is_file() && nix::unistd::access(path, nix::unistd::AccessFlags::X_OK).is_ok();
    let candidates: Vec<PathBuf> = if program.contains('/') {
        vec![PathBuf::from(program)]
    } else {
        PATH.split(':').map(|directory| Path::new(directory).join(program)).collect()
    };
    candidates.into_iter().find(|path| usable(path)).ok_or_else(|| {
        Failed(if program.contains('/') {
            format!("{program} is not an executable file: install it or correct the path")
        } else {
            format!("no program {program:?} in {PATH}: install it or give its whole path")
        })
    })
}

/// What every program of a resource is told in its environment.
pub(crate) fn environment_of(context: &Context) -> Vec<(String, String)> {
    vec![
        ("HA_NODE".to_owned(), context.node.to_string()),
        ("HA_HIERARCHY".to_owned(), context.hierarchy.to_string()),
        ("HA_RESOURCE".to_owned(), context.resource.to_string()),
        ("HA_EPOCH".to_owned(), context.epoch.to_string()),
    ]
}

/// So much of an operation's time is used, so that the reason can still be given before the operation is dropped.
pub(crate) fn most_of(timeout: Duration) -> Duration {
    timeout.saturating_sub((timeout / 20).min(Duration::from_millis(500)))
}

fn none_of(stuck: &[Stat], of: &str) -> Result<(), Failed> {
    if stuck.is_empty() {
        return Ok(());
    }
    Err(Failed(format!(
        "a command for {of} does not end even by SIGKILL, the storage does not answer it: {}",
        proc::list(stuck)
    )))
}

/// Children that may still be there.
#[derive(Debug, Default)]
pub(crate) struct Children(Mutex<Vec<ProcessId>>);

impl Children {
    /// Those that live.
    pub(crate) fn alive(&self) -> Vec<Stat> {
        let mut children = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        children.retain(|child| child.is_alive());
        children.iter().filter_map(|child| child.stat()).collect()
    }

    /// An error if one lives: a command for `of` that was given up and does not end.
    pub(crate) fn none_stuck(&self, of: &str) -> Result<(), Failed> {
        none_of(&self.alive(), of)
    }

    /// The same, after those that may still end by themselves had time to; before anything new is begun.
    pub(crate) async fn none_stuck_by(&self, deadline: tokio::time::Instant, of: &str) -> Result<(), Failed> {
        none_of(&self.gone(deadline).await, of)
    }

    /// Waits for some seconds, but not beyond the deadline, until none lives; those that still do. What a look that goes on at the same time has begun
    /// ends by itself, and what was killed takes a moment to be gone: neither is stuck.
    async fn gone(&self, deadline: tokio::time::Instant) -> Vec<Stat> {
        let deadline = deadline.min(tokio::time::Instant::now() + ENDING);
        loop {
            let alive = self.alive();
            if alive.is_empty() || tokio::time::Instant::now() >= deadline {
                return alive;
            }
            tokio::time::sleep_until(deadline.min(tokio::time::Instant::now() + PAUSE)).await;
        }
    }

    fn add(&self, child: ProcessId) {
        let mut children = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        children.retain(|other| other.is_alive());
        children.push(child);
    }
}

impl Program {
    /// A program in the environment of an operation's resource.
    pub(crate) fn of(context: &Context, command: &[String]) -> Program {
        Program { command: command.to_vec(), environment: environment_of(context), ..Program::default() }
    }

    /// Runs it to its end. If it takes longer than `limit`, or the future is dropped, it is killed with its process group
    /// (and the control group), and not waited for: it may be stuck in the kernel.
    pub(crate) async fn run(self, limit: Duration) -> Result<Finished, RunError> {
        let name = self.command.first().cloned().unwrap_or_default();
        let not_run = |reason: io::Error| RunError::NotRun { program: name.clone(), reason: reason.to_string() };
        let deadline = tokio::time::Instant::now() + limit;
        let keep = self.keep;
        let mut output = Vec::new();
        let ended = tokio::time::timeout_at(deadline, async {
            // Executing reads the program from storage, which may hang: not on a thread that others need.
            let started = tokio::task::spawn_blocking(move || self.spawn()).await;
            let mut running = started.map_err(io::Error::other)??;
            let status = running.wait(&mut output).await?;
            Ok::<_, io::Error>(status)
        })
        .await;
        let output = String::from_utf8_lossy(&output).into_owned();
        match ended {
            Ok(Ok(Some(status))) => Ok(Finished { status, output }),
            Ok(Ok(None)) => Err(RunError::TooMuch { program: name, written: output.len() }),
            Ok(Err(e)) => Err(not_run(e)),
            Err(_) if keep == Keep::LastWords => {
                Err(RunError::TimedOut { program: name, limit, output: said(&output) })
            }
            Err(_) => Err(RunError::TimedOut { program: name, limit, output: String::new() }),
        }
    }

    fn spawn(self) -> io::Result<Running> {
        let (program, arguments) =
            self.command.split_first().ok_or_else(|| io::Error::other("the command is empty"))?;
        let path = resolve(program).map_err(io::Error::other)?;
        let (reader, writer) = io::pipe()?;
        let mut command = Command::new(path);
        command
            .args(arguments)
            .env_clear()
            .env("PATH", PATH)
            .envs(self.environment)
            .current_dir(self.directory.as_deref().unwrap_or(Path::new("/")))
            .stdin(self.input.file()?)
            .stdout(writer.try_clone()?)
            .stderr(match self.keep {
                Keep::LastWords => Stdio::from(writer),
                Keep::Whole(_) => Stdio::null(),
            });
        let procs = self.cgroup.as_ref().map(|group| group.join("cgroup.procs"));
        let cgroup = procs.map(|procs| std::fs::OpenOptions::new().write(true).open(procs)).transpose()?;
        child::set_up(&mut command, Setup { cgroup: cgroup.map(OwnedFd::from), ..Setup::default() });
        let child = command.spawn()?;
        let mut handles: Vec<KillHandle> = self.cgroup.into_iter().map(KillHandle::Cgroup).collect();
        if let Some(leader) = child.id().and_then(|pid| Stat::of(i32::try_from(pid).ok()?)) {
            self.children.add(leader.id());
            handles.push(KillHandle::ProcessGroup { pgid: leader.pid, started: leader.started });
        }
        let output = pipe::Receiver::from_owned_fd(OwnedFd::from(reader))?;
        Ok(Running { guard: KillOnDrop(handles), child, output, keep: self.keep, leftovers: self.leftovers })
    }
}

/// The guard stands first, so that it is dropped before the child is given away for reaping: until then its number is its own.
struct Running {
    guard: KillOnDrop,
    child: Child,
    output: pipe::Receiver,
    keep: Keep,
    leftovers: Leftovers,
}

struct KillOnDrop(Vec<KillHandle>);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if self.0.is_empty() {
            return;
        }
        if let Err(e) = process_group::kill_all(&self.0) {
            tracing::warn!(error = %e, "cannot kill a command that took too long");
        }
    }
}

impl Running {
    /// Collects output until the program itself has ended; what it left running may hold the pipe open for ever. `None` if it
    /// wrote too much.
    async fn wait(&mut self, output: &mut Vec<u8>) -> io::Result<Option<ExitStatus>> {
        let mut open = true;
        loop {
            tokio::select! {
                status = self.child.wait() => {
                    let clean = match self.leftovers {
                        Leftovers::Stay => true,
                        Leftovers::DaemonsStay => process_group::are_empty(&self.guard.0),
                        Leftovers::Killed => false,
                    };
                    if clean {
                        self.guard.0.clear();
                    }
                    self.collect(output);
                    return status.map(|status| (!self.is_too_much(output)).then_some(status));
                }
                readable = self.output.readable(), if open => {
                    readable?;
                    open = self.collect(output);
                    if self.is_too_much(output) {
                        return Ok(None);
                    }
                }
            }
        }
    }

    fn is_too_much(&self, output: &[u8]) -> bool {
        matches!(self.keep, Keep::Whole(limit) if output.len() > limit)
    }

    /// Takes what is there, and says whether there may be more.
    fn collect(&self, output: &mut Vec<u8>) -> bool {
        let mut buffer = [0; 4096];
        // Bounded, so that a program that writes without end does not keep us from seeing anything else.
        for _ in 0..64 {
            match self.output.try_read(&mut buffer) {
                Ok(0) => return false,
                Ok(length) => {
                    output.extend_from_slice(&buffer[..length]);
                    match self.keep {
                        Keep::LastWords => drop(output.drain(..output.len().saturating_sub(OUTPUT_KEPT))),
                        Keep::Whole(_) if self.is_too_much(output) => return true,
                        Keep::Whole(_) => {}
                    }
                }
                Err(e) => return e.kind() == io::ErrorKind::WouldBlock,
            }
        }
        true
    }
}

/// Where the group of a resource is or would be.
pub(crate) fn cgroup_of(root: Option<&Path>, context: &Context) -> Option<PathBuf> {
    // A colon is in no name, so no two resources share a group and none is taken for one of the kernel's files.
    Some(root?.join(format!("{}:{}:{}", context.node, context.hierarchy, context.resource)))
}

/// The group for what a resource starts, or `None` where there is no control group that we may use.
pub(crate) fn prepare_cgroup(root: Option<&Path>, context: &Context) -> Option<PathBuf> {
    let group = cgroup_of(root, context)?;
    match cgroup::prepare(&group) {
        Ok(()) => Some(group),
        Err(e) => {
            tracing::warn!(
                hierarchy = %context.hierarchy, resource = %context.resource, group = %group.display(), error = %e,
                "no control group for this resource: only its process group and session are followed, and a process that \
                 leaves both will not be found"
            );
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    fn runs(children: &Children, seconds: &str) -> Child {
        let child = Command::new("/bin/sleep").arg(seconds).spawn().unwrap();
        children.add(Stat::of(i32::try_from(child.id()).unwrap()).unwrap().id());
        child
    }

    /// A look at a resource goes on while it is to be started: what the look has begun is no reason to give up.
    #[tokio::test]
    async fn what_ends_by_itself_is_waited_for_and_what_does_not_is_told() {
        let children = Children::default();
        let mut look = runs(&children, "0.2");
        assert_eq!(children.alive().len(), 1);
        let ended = tokio::task::spawn_blocking(move || look.wait());
        let in_time = tokio::time::Instant::now() + Duration::from_secs(60);
        assert!(children.gone(in_time).await.is_empty());
        ended.await.unwrap().unwrap();

        let mut stuck = runs(&children, "600");
        let soon = tokio::time::Instant::now() + Duration::from_millis(50);
        assert_eq!(children.gone(soon).await.len(), 1);
        stuck.kill().unwrap();
        stuck.wait().unwrap();
    }
}
