//! A program that runs as long as its hierarchy is in service: started, found again, watched and ended as a whole.
//!
//! The program stays in the foreground; its exit is its failure. It gets a session of its own and, where possible, a control
//! group. Decides who belongs to it and when all of it is gone. What it was started as stands in a record in the run
//! directory, which the process itself writes before it executes the program, so that it is found whenever the agent ends.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use ha_core::driver::{Context, Failed, Found, KillHandle, Resource, Verdict};
use nix::sys::signal::Signal;
use nix::unistd::User;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::sync::watch;

use super::Directories;
use super::check::Check;
use crate::child::{self, Identity, Record, Setup};
use crate::command::{self, Program, most_of};
use crate::log_file::LogFile;
use crate::proc;
use crate::process_group::record::{self, Recorded};
use crate::{cgroup, process_group};

/// What a process is, as the operator says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessSpec {
    /// The program and its arguments; a bare name is looked for in the usual six directories.
    pub command: Vec<String>,
    /// Set beside `PATH`, `HA_NODE`, `HA_HIERARCHY`, `HA_RESOURCE` and `HA_EPOCH`. Nothing else is passed on.
    pub env: BTreeMap<String, String>,
    /// Where it runs. Default `/`.
    pub directory: PathBuf,
    /// As whom it runs, with all groups of that user. Default: as the agent does.
    pub user: Option<String>,
    /// Asks it to end. Default SIGTERM.
    pub stop_signal: Signal,
    /// When a start counts as done. Default: as soon as the program was executed.
    pub ready: Ready,
    /// What a monitor looks at beside whether it lives. Default: nothing.
    pub check: Option<Check>,
    /// Where the program and its directory are. Default: on the node.
    pub found_on: FoundOn,
}

impl ProcessSpec {
    /// With every default.
    pub fn new(command: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            command: command.into_iter().map(Into::into).collect(),
            env: BTreeMap::new(),
            directory: PathBuf::from("/"),
            user: None,
            stop_signal: Signal::SIGTERM,
            ready: Ready::Executed,
            check: None,
            found_on: FoundOn::Node,
        }
    }
}

/// When a start counts as done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ready {
    /// The program was executed. The quickest; one that ends at once is then a failure in service.
    Executed,
    /// It still runs after so long.
    After(Duration),
    /// Something answers at this address.
    Tcp(SocketAddr),
    /// A command exits with 0; it is run again until it does. For what answers long before it serves, such as a database that
    /// recovers.
    Command(Vec<String>),
}

/// Where something that a resource needs is to be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoundOn {
    /// On every node, all the time: looked at by [`Resource::ready`].
    Node,
    /// With the hierarchy, which mounts it or brings it: to be seen only where that is in service, so not looked at before.
    Hierarchy,
}

/// See the module's words.
pub struct Process {
    spec: ProcessSpec,
    directories: Directories,
    /// What runs, as far as this life of the agent knows.
    tracked: Mutex<Option<Tracked>>,
    /// Held while a program is being executed, even if nobody waits for that any more.
    launching: Arc<tokio::sync::Mutex<()>>,
}

/// What is known of a started program.
#[derive(Clone, Debug)]
struct Tracked {
    who: Recorded,
    /// Of our own child; an adopted one's is told to its parent only.
    exit: Option<watch::Receiver<Option<ExitStatus>>>,
}

impl Tracked {
    /// How the main process ended, for people.
    fn ending(&self) -> String {
        match self.exit.as_ref().and_then(|exit| *exit.borrow()) {
            Some(status) => command::describe(status),
            None => "is gone".to_owned(),
        }
    }
}

impl Process {
    /// A process that is not looked for or started yet.
    pub fn new(spec: ProcessSpec, directories: Directories) -> Self {
        Self { spec, directories, tracked: Mutex::new(None), launching: Arc::default() }
    }

    fn record_path(&self, context: &Context) -> PathBuf {
        self.directories.run.join("processes").join(Directories::file_name(context, "pid"))
    }

    fn log(&self, context: &Context) -> LogFile {
        LogFile::new(self.directories.logs.join(Directories::file_name(context, "log")))
    }

    /// What the program last said, as the end of a sentence.
    fn last_words(&self, context: &Context) -> String {
        command::said(&self.log(context).end(command::OUTPUT_KEPT as u64))
    }

    /// What runs, from memory or from an earlier life's record.
    fn tracked(&self, context: &Context) -> Result<Option<Tracked>, Failed> {
        let mut tracked = self.tracked.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.record_path(context);
        let recorded = record::read(&path).map_err(|e| {
            Failed(format!("cannot read {}: {e}; end the process that it names and remove it", path.display()))
        })?;
        // The record is the truth: a start that was given up may have got further than memory knows.
        match (&*tracked, recorded) {
            (Some(known), Some(found)) if known.who.main == found.main => {}
            (_, found) => *tracked = found.map(|who| Tracked { who, exit: None }),
        }
        Ok(tracked.clone())
    }

    fn forget(&self, context: &Context) -> io::Result<()> {
        *self.tracked.lock().unwrap_or_else(PoisonError::into_inner) = None;
        match std::fs::remove_file(self.record_path(context)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// All there is to end: what was started, and what is in the group that it would have been put into.
    fn all_handles(&self, context: &Context) -> Result<Vec<KillHandle>, Failed> {
        if let Some(tracked) = self.tracked(context)? {
            return Ok(tracked.who.handles());
        }
        Ok(command::cgroup_of(self.directories.cgroups.as_deref(), context)
            .map(KillHandle::Cgroup)
            .into_iter()
            .collect())
    }

    async fn launch(&self, context: &Context) -> Result<Tracked, Failed> {
        let guard = self.launching.clone().lock_owned().await;
        let launch = Launch {
            spec: self.spec.clone(),
            environment: command::environment_of(context),
            record: self.record_path(context),
            log: self.log(context),
            cgroup: command::prepare_cgroup(self.directories.cgroups.as_deref(), context),
        };
        // Executing reads the program from storage, which may hang: not on a thread that others need.
        let launched = tokio::task::spawn_blocking(move || {
            let _guard = guard;
            launch.run()
        });
        let launched = launched.await.map_err(Failed::new)?;
        let tracked = launched.map_err(|e| {
            Failed(format!("cannot run {}: {e}", self.spec.command.first().map_or("an empty command", String::as_str)))
        })?;
        *self.tracked.lock().unwrap_or_else(PoisonError::into_inner) = Some(tracked.clone());
        Ok(tracked)
    }

    async fn until_ready(&self, tracked: &Tracked, context: &Context) -> Result<(), Failed> {
        let ended = |tracked: &Tracked| {
            Failed(format!("it {} before it was ready{}", tracked.ending(), self.last_words(context)))
        };
        match &self.spec.ready {
            Ready::Executed => Ok(()),
            Ready::After(time) => tokio::select! {
                () = exited(tracked) => Err(ended(tracked)),
                () = tokio::time::sleep(*time) => Ok(()),
            },
            Ready::Tcp(address) => tokio::select! {
                () = exited(tracked) => Err(ended(tracked)),
                () = answers(*address) => Ok(()),
            },
            Ready::Command(command) => tokio::select! {
                () = exited(tracked) => Err(ended(tracked)),
                () = succeeds(command, context) => Ok(()),
            },
        }
    }

    /// Ends it with `end`, waits until nothing of it is left, and takes its traces away.
    async fn until_gone(&self, context: &Context, end: End) -> Result<(), Failed> {
        let cannot_signal = |e: io::Error| Failed(format!("cannot signal it: {e}"));
        // A program that is still being executed, for a start that was given up, may come into being unseen between two looks, and
        // it has nothing to put in order yet: it is killed until it is there no more. After that nothing new begins.
        let _guard = loop {
            if let Ok(guard) = tokio::time::timeout(Duration::from_millis(10), self.launching.lock()).await {
                break guard;
            }
            process_group::kill_all(&self.all_handles(context)?).map_err(cannot_signal)?;
        };
        let handles = self.all_handles(context)?;
        end.all(&handles).map_err(cannot_signal)?;
        process_group::gone(&handles).await.map_err(|e| Failed(format!("cannot see what runs: {e}")))?;
        for group in handles.iter().filter_map(|h| if let KillHandle::Cgroup(group) = h { Some(group) } else { None }) {
            if let Err(e) = cgroup::remove(group) {
                tracing::debug!(group = %group.display(), error = %e, "an empty control group stays behind");
            }
        }
        self.forget(context).map_err(|e| Failed(format!("stopped, but its record cannot be removed: {e}")))
    }

    async fn until_gone_within(&self, context: &Context, end: End) -> Result<(), Failed> {
        let limit = most_of(context.timeout);
        if let Ok(result) = tokio::time::timeout(limit, self.until_gone(context, end)).await {
            return result;
        }
        let left = process_group::members(&self.all_handles(context)?).unwrap_or_default();
        let who = if left.is_empty() { "a program that is still being executed".to_owned() } else { proc::list(&left) };
        Err(Failed(format!("still running {limit:?} after {}: {who}", end.signal())))
    }
}

/// How a program is ended.
#[derive(Clone, Copy, Debug)]
enum End {
    /// It is asked to, by this signal.
    Asked(Signal),
    /// It is not asked.
    Killed,
}

impl End {
    fn signal(self) -> Signal {
        match self {
            End::Asked(signal) => signal,
            End::Killed => Signal::SIGKILL,
        }
    }

    fn all(self, handles: &[KillHandle]) -> io::Result<()> {
        match self {
            End::Asked(signal) => {
                process_group::signal_all(handles, signal)?;
                // One that was stopped (SIGSTOP) would not see the first signal.
                process_group::signal_all(handles, Signal::SIGCONT)
            }
            End::Killed => process_group::kill_all(handles),
        }
    }
}

/// What executing a program needs, apart from the resource.
struct Launch {
    spec: ProcessSpec,
    environment: Vec<(String, String)>,
    record: PathBuf,
    log: LogFile,
    cgroup: Option<PathBuf>,
}

impl Launch {
    fn run(self) -> io::Result<Tracked> {
        let spec = &self.spec;
        let (program, arguments) = spec.command.split_first().ok_or_else(|| io::Error::other("there is no program"))?;
        let path = command::resolve(program).map_err(io::Error::other)?;
        for directory in [self.record.parent(), self.log.path().parent()].into_iter().flatten() {
            std::fs::create_dir_all(directory)?;
        }
        let output = self.log.open()?;
        let mut setup = Setup {
            record: Some(Record::new(&self.record, record::rest(self.cgroup.as_deref())?)?),
            ..Setup::default()
        };
        if let Some(group) = &self.cgroup {
            let procs = std::fs::OpenOptions::new().write(true).open(group.join("cgroup.procs"))?;
            setup.cgroup = Some(OwnedFd::from(procs));
        }
        let mut command = Command::new(path);
        command.args(arguments).env_clear().env("PATH", command::PATH);
        if let Some(name) = &spec.user {
            let user = user(name).map_err(io::Error::other)?;
            command.env("USER", &user.name).env("LOGNAME", &user.name).env("HOME", &user.dir);
            setup.user = Some(identity(&user)?);
        }
        command
            .envs(&spec.env)
            .envs(self.environment)
            .current_dir(&spec.directory)
            .stdin(std::process::Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        child::set_up(&mut command, setup);
        let spawned = command.spawn();
        let recorded = record::read(&self.record);
        let mut child = match spawned {
            Ok(child) => child,
            Err(e) => {
                // Nothing runs: the record, if it got that far, names a process that ended without executing anything.
                let _ = std::fs::remove_file(&self.record);
                return Err(e);
            }
        };
        let (ended, exit) = watch::channel(None);
        // Always waited for, whoever else is interested: no zombie stays.
        tokio::spawn(async move {
            let status = child.wait().await;
            ended.send_replace(status.ok());
        });
        let who = recorded?.ok_or_else(|| io::Error::other("it left no record"))?;
        Ok(Tracked { who, exit: Some(exit) })
    }
}

/// Reads a user of this machine.
fn user(name: &str) -> Result<User, Failed> {
    match User::from_name(name) {
        Ok(Some(user)) => Ok(user),
        Ok(None) => Err(Failed(format!("there is no user {name:?} on this node: create it or correct the name"))),
        Err(e) => Err(Failed(format!("cannot look up the user {name:?}: {e}"))),
    }
}

fn identity(user: &User) -> io::Result<Identity> {
    let name = std::ffi::CString::new(user.name.as_str())?;
    let groups = nix::unistd::getgrouplist(&name, user.gid)?;
    Ok(Identity {
        user: user.uid.as_raw(),
        group: user.gid.as_raw(),
        groups: groups.into_iter().map(nix::unistd::Gid::as_raw).collect(),
    })
}

/// Waits until the main process has exited.
async fn exited(tracked: &Tracked) {
    if let Some(mut exit) = tracked.exit.clone() {
        // An error means that the one who waits for the child is gone; then it is watched like a stranger's.
        if exit.wait_for(Option::is_some).await.is_ok() {
            return;
        }
    }
    // Readable once it has exited. Of a process that is a zombie already, too.
    if let Ok(Some(descriptor)) = tracked.who.main.open()
        && let Ok(descriptor) = proc::wait_on(descriptor)
        && descriptor.readable().await.is_ok()
    {
        return;
    }
    // It is gone, or cannot be waited for.
    while tracked.who.main.is_alive() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until a connection is accepted.
async fn answers(address: SocketAddr) {
    let mut pause = Duration::from_millis(2);
    loop {
        let attempt = tokio::time::timeout(Duration::from_secs(1), TcpStream::connect(address)).await;
        if matches!(attempt, Ok(Ok(_))) {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

/// Runs a command again and again until it exits with 0.
async fn succeeds(command: &[String], context: &Context) {
    while !Program::of(context, command).run(context.timeout).await.is_ok_and(|finished| finished.status.success()) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[async_trait]
impl Resource for Process {
    async fn start(&self, context: &Context) -> Result<(), Failed> {
        if let Some(tracked) = self.tracked(context)?.filter(|tracked| tracked.who.main.is_alive()) {
            return self.until_ready_within(&tracked, context).await;
        }
        // What an earlier main process left would be in the way of a new one.
        self.until_gone_within(context, End::Killed).await?;
        let tracked = self.launch(context).await?;
        self.until_ready_within(&tracked, context).await
    }

    async fn stop(&self, context: &Context) -> Result<(), Failed> {
        self.until_gone_within(context, End::Asked(self.spec.stop_signal)).await
    }

    async fn kill(&self, context: &Context) -> Result<(), Failed> {
        self.until_gone_within(context, End::Killed).await
    }

    async fn monitor(&self, context: &Context) -> Verdict {
        let tracked = match self.tracked(context) {
            Ok(Some(tracked)) => tracked,
            Ok(None) => return Verdict::Bad("it is not running".to_owned()),
            Err(Failed(why)) => return Verdict::Unknown(why),
        };
        if !tracked.who.main.is_alive() {
            return Verdict::Bad(format!("it {}{}", tracked.ending(), self.last_words(context)));
        }
        if let Err(e) = self.log(context).keep_bounded() {
            tracing::warn!(log = %self.log(context).path().display(), error = %e, "a program's log cannot be kept small");
        }
        match &self.spec.check {
            None => Verdict::Good,
            Some(check) => check.look(context, tokio::time::Instant::now() + most_of(context.timeout)).await,
        }
    }

    async fn adopt(&self, context: &Context) -> Result<Found, Failed> {
        if self.tracked(context)?.is_some_and(|tracked| tracked.who.main.is_alive()) {
            return Ok(Found::Running);
        }
        let left = process_group::members(&self.all_handles(context)?).map_err(Failed::new)?;
        if left.is_empty() {
            return Ok(Found::Stopped);
        }
        Err(Failed(format!("its main process is gone, but there are left of it: {}", proc::list(&left))))
    }

    async fn watch(&self, context: &Context) -> String {
        match self.tracked(context) {
            Ok(Some(tracked)) => {
                exited(&tracked).await;
                format!("it {}{}", tracked.ending(), self.last_words(context))
            }
            Ok(None) => "it is not running".to_owned(),
            Err(Failed(why)) => why,
        }
    }

    async fn ready(&self) -> Result<(), Failed> {
        let spec = self.spec.clone();
        // Files and users may be on storage or servers that hang.
        tokio::task::spawn_blocking(move || lacks(&spec)).await.map_err(Failed::new)?
    }

    fn handles(&self, context: &Context) -> Vec<KillHandle> {
        let group = command::cgroup_of(self.directories.cgroups.as_deref(), context).map(KillHandle::Cgroup);
        group.into_iter().chain([KillHandle::Record(self.record_path(context))]).collect()
    }
}

impl Process {
    async fn until_ready_within(&self, tracked: &Tracked, context: &Context) -> Result<(), Failed> {
        let limit = most_of(context.timeout);
        let ready = tokio::time::timeout(limit, self.until_ready(tracked, context)).await;
        ready.unwrap_or_else(|_| {
            Err(Failed(format!(
                "it runs, but was not ready within {limit:?} ({:?}){}",
                self.spec.ready,
                self.last_words(context)
            )))
        })
    }
}

fn lacks(spec: &ProcessSpec) -> Result<(), Failed> {
    if let Some(name) = &spec.user {
        user(name)?;
    }
    if spec.found_on == FoundOn::Hierarchy {
        return Ok(());
    }
    command::resolve(spec.command.first().map_or("", String::as_str))?;
    if !spec.directory.is_dir() {
        return Err(Failed(format!(
            "{} is not a directory: create it or correct `directory`",
            spec.directory.display()
        )));
    }
    Ok(())
}
