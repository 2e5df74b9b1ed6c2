//! A resource whose operations are those of an OCF resource agent, API 1.0 or 1.1.
//!
//! Source: the Open Cluster Framework's resource agent API 1.1. Decides in what environment an agent runs, what its exit codes mean,
//! that none outlives its time, and that what its start left running is gone after a stop (where there are control groups). An agent is only
//! started, never promoted. Leaves what it does to the agent, and which parameters it has to its meta-data.

mod codes;
pub(crate) mod meta_data;
pub(crate) mod parameters;
pub(crate) mod read;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use ha_core::driver::{Context, Failed, Found, KillHandle, Resource, Verdict};
use ha_core::hierarchy::{Monitor, ResourceSpec};
use tokio::time::Instant;

use self::codes::{Answer, Code};
use self::meta_data::MetaData;
use super::started::{ASKED_WITHIN, Started};
use super::{Advice, Directories};
use crate::command::{self, Keep, Leftovers, Program, RunError, most_of};

/// Where the agents of a machine are: `OCF_ROOT`.
pub const ROOT: &str = "/usr/lib/ocf";

/// The action with which an agent writes its meta-data.
const META_DATA: &str = "meta-data";

/// An agent has so long to write its meta-data, which are asked for while it runs nowhere here.
const META_DATA_WITHIN: Duration = Duration::from_secs(4);

/// So many bytes of meta-data are read. The longest of a hundred known agents has 13 KiB.
const META_DATA_BYTES: usize = 1 << 20;

/// Between two looks whether it has stopped: the first pause, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Which agent, with which parameters, as the operator says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OcfSpec {
    /// The agent.
    pub agent: AgentName,
    /// Its parameters, which it finds in its environment as `OCF_RESKEY_…`.
    pub params: BTreeMap<String, String>,
    /// A monitor that looks deeper, in place of the ordinary one now and then. Default: none.
    pub deep_monitor: Option<DeepMonitor>,
    /// Where agents are. Default [`ROOT`].
    pub root: PathBuf,
}

/// The name of an agent: `ocf:PROVIDER:AGENT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentName {
    /// Whose it is: a folder under `resource.d`. Default `heartbeat`.
    pub provider: String,
    /// The agent: a file in it.
    pub agent: String,
}

impl std::fmt::Display for AgentName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ocf:{}:{}", self.provider, self.agent)
    }
}

/// A monitor that looks deeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeepMonitor {
    /// `OCF_CHECK_LEVEL`, 1 or more; the depth that the agent's meta-data have for it.
    pub level: u32,
    /// From one to the next, at least: it takes the place of the first ordinary one after that time.
    pub every: Duration,
}

impl OcfSpec {
    /// With every default.
    pub fn new(agent: AgentName) -> Self {
        Self { agent, params: BTreeMap::new(), deep_monitor: None, root: PathBuf::from(ROOT) }
    }

    /// Where the agent is.
    fn path(&self) -> PathBuf {
        self.root.join("resource.d").join(&self.agent.provider).join(&self.agent.agent)
    }
}

/// See the module's words.
pub struct Ocf {
    spec: OcfSpec,
    directories: Directories,
    /// When the next deep monitor is due; from the first monitor on.
    deep_due: Mutex<Option<Instant>>,
    /// Whether its start, or that of an earlier life of this program, left anything running.
    left: AtomicBool,
    /// Held while its monitor runs: the one who watches asks it, too.
    looks: tokio::sync::Mutex<()>,
    /// What the agent said of itself, and the file that said it.
    meta_data: Mutex<Option<(FileIdentity, Arc<MetaData>)>>,
}

/// A file that was not replaced or written to since.
type FileIdentity = (u64, u64, u64, i64, i64);

fn identity(path: &Path) -> std::io::Result<FileIdentity> {
    let about = std::fs::metadata(path)?;
    Ok((about.dev(), about.ino(), about.size(), about.mtime(), about.mtime_nsec()))
}

/// How an action is asked for.
#[derive(Clone, Copy, Debug)]
struct Action {
    name: &'static str,
    /// Zero for all that is done once: a monitor then is a "probe", for which agents are more lenient.
    interval: Duration,
    level: u32,
}

impl Action {
    fn once(name: &'static str) -> Action {
        Action { name, interval: Duration::ZERO, level: 0 }
    }

    /// A monitor may start daemons of the service anew, as that of `SAPInstance` does, and nothing in the API forbids it. What merely stays
    /// behind would be one more with every monitor. A stop may leave what is about to end, and a start's is followed.
    fn leftovers(self) -> Leftovers {
        if matches!(self.name, "start" | "stop") { Leftovers::Stay } else { Leftovers::DaemonsStay }
    }

    /// The ordinary monitor. The time between two can change while it runs; agents look only whether it is zero.
    fn quick_monitor() -> Action {
        Action { name: "monitor", interval: Monitor::default().every, level: 0 }
    }
}

impl Ocf {
    /// An agent that was not run yet.
    pub fn new(spec: OcfSpec, directories: Directories) -> Self {
        Self {
            spec,
            directories,
            deep_due: Mutex::new(None),
            left: AtomicBool::new(false),
            looks: tokio::sync::Mutex::new(()),
            meta_data: Mutex::new(None),
        }
    }

    /// What agents keep for as long as the machine is up: `HA_RSCTMP`.
    fn rsctmp(&self) -> PathBuf {
        self.directories.run.join("resource-agents")
    }

    /// The agent with an action, and nothing else in its environment than what the API has.
    fn program(&self, action: Action, instance: String, timeout: Duration) -> Program {
        // Whoever only looks makes no folder, and agents complain of one that is not there.
        let rsctmp = Some(self.rsctmp()).filter(|folder| folder.is_dir()).unwrap_or_else(std::env::temp_dir);
        let mut environment = vec![
            ("OCF_ROOT".to_owned(), self.spec.root.to_string_lossy().into_owned()),
            ("OCF_RA_VERSION_MAJOR".to_owned(), "1".to_owned()),
            ("OCF_RA_VERSION_MINOR".to_owned(), "1".to_owned()),
            ("OCF_RESOURCE_INSTANCE".to_owned(), instance),
            ("OCF_RESOURCE_TYPE".to_owned(), self.spec.agent.agent.clone()),
            ("OCF_RESOURCE_PROVIDER".to_owned(), self.spec.agent.provider.clone()),
            ("OCF_CHECK_LEVEL".to_owned(), action.level.to_string()),
            ("OCF_RESKEY_CRM_meta_name".to_owned(), action.name.to_owned()),
            ("OCF_RESKEY_CRM_meta_timeout".to_owned(), timeout.as_millis().to_string()),
            ("OCF_RESKEY_CRM_meta_interval".to_owned(), action.interval.as_millis().to_string()),
            ("HA_RSCTMP".to_owned(), rsctmp.to_string_lossy().into_owned()),
        ];
        // What an agent says of itself rests on no parameter; and some, such as exportfs, refuse it for a directory that is not there yet.
        let params = self.spec.params.iter().filter(|_| action.name != META_DATA);
        environment.extend(params.map(|(key, value)| (format!("OCF_RESKEY_{key}"), value.clone())));
        let command = vec![self.spec.path().to_string_lossy().into_owned(), action.name.to_owned()];
        Program { command, environment, leftovers: action.leftovers(), ..Program::default() }
    }

    /// Runs an action until `deadline`.
    async fn perform(
        &self,
        action: Action,
        context: &Context,
        cgroup: Option<PathBuf>,
        deadline: Instant,
    ) -> Result<Answer, RunError> {
        let rsctmp = self.rsctmp();
        if let Err(e) = std::fs::DirBuilder::new().recursive(true).mode(0o1755).create(&rsctmp) {
            tracing::warn!(directory = %rsctmp.display(), error = %e, "agents have no place for what they keep");
        }
        let limit = deadline.saturating_duration_since(Instant::now());
        // No name has this sign in it, so that no two instances on a node have one name.
        let instance = format!("{}@{}", context.resource, context.hierarchy);
        let program = Program { cgroup, ..self.program(action, instance, limit) };
        let finished = program.run(limit).await?;
        if !finished.output.is_empty() {
            tracing::debug!(resource = %context.resource, action = action.name, "{}", finished.output.trim_end());
        }
        Ok(Answer::new(action.name, finished))
    }

    /// Has the agent say that it is stopped. Some believe an init script whose stop ended nothing, and then their own monitor contradicts their
    /// stop. Asks until it does not any more; one that says nothing of the service, or that something is not configured or installed, does not.
    async fn prove_stopped(&self, context: &Context, deadline: Instant) -> Result<(), Failed> {
        let mut pause = PAUSES.0;
        let mut contradicted = Ok(());
        loop {
            let answer = match self.perform(Action::once("monitor"), context, None, deadline).await {
                Ok(answer) => answer,
                Err(e) => {
                    tracing::warn!(resource = %context.resource, "after a stop that succeeded, its monitor: {e}");
                    return contradicted;
                }
            };
            if !answer.says_not_stopped() {
                return Ok(());
            }
            contradicted = Err(Failed(format!("its stop succeeded, but {}", answer.describe())));
            if Instant::now() + pause >= deadline {
                return contradicted;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    async fn look(&self, action: Action, context: &Context, deadline: Instant) -> Verdict {
        match self.perform(action, context, None, deadline).await {
            Ok(answer) => answer.verdict(),
            Err(e) => Verdict::Unknown(format!("its monitor: {e}")),
        }
    }

    /// The monitor that is due now.
    fn monitor_due(&self) -> Action {
        let quick = Action::quick_monitor();
        let Some(deep) = self.spec.deep_monitor else { return quick };
        let mut due = self.deep_due.lock().unwrap_or_else(PoisonError::into_inner);
        if *due.get_or_insert_with(|| Instant::now() + deep.every) > Instant::now() {
            return quick;
        }
        Action { level: deep.level, interval: deep.every, ..quick }
    }

    /// A deep monitor that said nothing is asked again: else the next ordinary one would hide that.
    fn monitor_answered(&self, action: Action, verdict: &Verdict) {
        let mut due = self.deep_due.lock().unwrap_or_else(PoisonError::into_inner);
        if action.level > 0 && !matches!(verdict, Verdict::Unknown(_)) {
            *due = None;
        }
    }

    /// What the agent says of itself. It is asked again only when its file has changed.
    async fn meta_data(&self) -> Result<Arc<MetaData>, Failed> {
        let path = self.spec.path();
        // The agent may be on storage that hangs.
        let looked = tokio::task::spawn_blocking(move || {
            let path = command::resolve(&path.to_string_lossy())?;
            identity(&path).map_err(|e| Failed(format!("cannot look at {}: {e}", path.display())))
        });
        let file = looked.await.map_err(Failed::new)?.map_err(|Failed(why)| self.no_agent(&why))?;
        let known = self.meta_data.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, meta)) = known.filter(|(known, _)| *known == file) {
            return Ok(meta);
        }
        let wrong = |why: String| Failed(format!("{} cannot be used: {why}", self.spec.agent));
        let program = self.program(Action::once(META_DATA), self.spec.agent.agent.clone(), META_DATA_WITHIN);
        let program = Program { keep: Keep::Whole(META_DATA_BYTES), ..program };
        let finished = program.run(META_DATA_WITHIN).await.map_err(|e| wrong(format!("its meta-data: {e}")))?;
        if !finished.status.success() {
            return Err(wrong(format!("its meta-data: it {}", command::describe(finished.status))));
        }
        let meta = Arc::new(MetaData::parse(&finished.output).map_err(|e| wrong(e.to_string()))?);
        *self.meta_data.lock().unwrap_or_else(PoisonError::into_inner) = Some((file, Arc::clone(&meta)));
        Ok(meta)
    }

    fn no_agent(&self, why: &str) -> Failed {
        let package = if self.spec.agent.provider == "heartbeat" { " (package resource-agents)" } else { "" };
        Failed(format!("there is no agent {}{package}: {why}", self.spec.agent))
    }

    /// What would be better otherwise with it, so far as the agent itself says so. Runs its `validate-all`, and changes nothing.
    pub async fn advice(&self, spec: &ResourceSpec) -> Vec<Advice> {
        let Ok(meta) = self.meta_data().await else { return Vec::new() };
        let mut advice: Vec<Advice> = parameters::outdated(&meta, &self.spec.params)
            .into_iter()
            .map(|what| Advice::warning(what, None))
            .collect();
        let in_run = || Some("a file in /run, in a folder of its own".to_owned());
        let lasting = parameters::lasting_pid_files(&self.spec.params).into_iter();
        advice.extend(lasting.map(|what| Advice::warning(what, in_run())));
        if meta.is_deprecated {
            advice.push(Advice::warning(format!("{} is deprecated by its authors", self.spec.agent), None));
        }
        advice.extend(self.advice_on_times(&meta, spec));
        if meta.action("promote").is_some() {
            let what = format!("{} can be promoted: here it is only started", self.spec.agent);
            advice.push(Advice::note(what, None));
        }
        advice.extend(self.validate(&meta).await);
        advice
    }

    fn advice_on_times(&self, meta: &MetaData, spec: &ResourceSpec) -> Vec<Advice> {
        let mut advice = Vec::new();
        let mut at_least = |action: &str, field: &str, given: Duration, advised: Option<Duration>| {
            if let Some(advised) = advised.filter(|advised| *advised > given) {
                let seconds = |time: Duration| time.as_secs_f64();
                let what = format!(
                    "it has {} s for its {action}, and its agent advises {} s at least",
                    seconds(given),
                    seconds(advised)
                );
                let help = format!("`timeouts: ({field}: \"{}s\")`", seconds(advised));
                advice.push(Advice::warning(what, Some(help)));
            }
        };
        let of = |name| meta.action(name).and_then(|action| action.timeout);
        at_least("start", "start", spec.timeouts.start, of("start"));
        at_least("stop", "stop", spec.timeouts.stop, of("stop"));
        at_least("monitor", "monitor", spec.timeouts.monitor, of("monitor"));
        for deep in meta.deep_monitors().filter(|deep| deep.role.is_none()) {
            match self.spec.deep_monitor {
                Some(given) if given.level == deep.depth => {
                    at_least("deep monitor", "monitor", spec.timeouts.monitor, deep.timeout);
                }
                _ => {}
            }
        }
        match (self.spec.deep_monitor, meta.deep_monitors().find(|deep| deep.role.is_none())) {
            (Some(given), _) if meta.deep_monitors().all(|deep| deep.depth != given.level) => {
                let what = format!("its agent knows no monitor of depth {}", given.level);
                advice.push(Advice::warning(what, None));
            }
            (None, Some(deep)) => {
                let every = deep.interval.unwrap_or(Duration::from_secs(60)).as_secs();
                let what = format!("its agent can also look deeper, at depth {}", deep.depth);
                let help = format!("`deep_monitor: (level: {}, every: \"{every}s\")`", deep.depth);
                advice.push(Advice::note(what, Some(help)));
            }
            _ => {}
        }
        advice
    }

    /// The agent's own look at its parameters. Not a matter of readiness: an agent may want to see what only the serving node has.
    async fn validate(&self, meta: &MetaData) -> Option<Advice> {
        meta.action("validate-all")?;
        let action = Action::once("validate-all");
        let program = self.program(action, self.spec.agent.agent.clone(), META_DATA_WITHIN);
        let what = match program.run(META_DATA_WITHIN).await.map(|finished| Answer::new(action.name, finished)) {
            Ok(answer) if answer.code == Code::Success => return None,
            Ok(answer) => answer.describe(),
            Err(e) => format!("its validate-all: {e}"),
        };
        let help =
            "no mistake if it misses what only the node has that serves, such as a mounted filesystem".to_owned();
        Some(Advice::warning(what, Some(help)))
    }
}

#[async_trait]
impl Resource for Ocf {
    async fn start(&self, context: &Context) -> Result<(), Failed> {
        *self.deep_due.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let deadline = Instant::now() + most_of(context.timeout);
        let started = Started::of(&self.directories, context);
        self.left.store(false, Ordering::Relaxed);
        self.perform(Action::once("start"), context, started.prepare(), deadline).await?.done()?;
        self.left.store(started.is_populated(), Ordering::Relaxed);
        Ok(())
    }

    async fn stop(&self, context: &Context) -> Result<(), Failed> {
        let deadline = Instant::now() + most_of(context.timeout);
        self.perform(Action::once("stop"), context, None, deadline).await?.stopped()?;
        Started::of(&self.directories, context).prove_gone("its stop succeeded", deadline).await?;
        self.prove_stopped(context, deadline).await
    }

    /// What its start left is killed; then the agent's stop, for all that is no process: an address, a mount.
    async fn kill(&self, context: &Context) -> Result<(), Failed> {
        let deadline = Instant::now() + most_of(context.timeout);
        let started = Started::of(&self.directories, context);
        started.kill(deadline).await?;
        self.perform(Action::once("stop"), context, None, deadline).await?.stopped()?;
        started.prove_gone("it was killed and its stop succeeded", deadline).await?;
        self.prove_stopped(context, deadline).await
    }

    async fn monitor(&self, context: &Context) -> Verdict {
        let deadline = Instant::now() + most_of(context.timeout);
        let _alone = self.looks.lock().await;
        let action = self.monitor_due();
        let verdict = self.look(action, context, deadline).await;
        self.monitor_answered(action, &verdict);
        verdict
    }

    /// The end of all that its start left is told by the kernel. Whether that is a failure, its agent says: some start what ends by itself.
    async fn watch(&self, context: &Context) -> String {
        if self.left.load(Ordering::Relaxed) {
            let ask = || async {
                let _alone = self.looks.lock().await;
                self.look(Action::quick_monitor(), context, Instant::now() + ASKED_WITHIN).await
            };
            return Started::of(&self.directories, context).until_failed(ask).await;
        }
        std::future::pending().await
    }

    async fn adopt(&self, context: &Context) -> Result<Found, Failed> {
        let deadline = Instant::now() + most_of(context.timeout);
        // Before it is asked: what ends meanwhile is told by the watch.
        self.left.store(Started::of(&self.directories, context).is_populated(), Ordering::Relaxed);
        let answer = self.perform(Action::once("monitor"), context, None, deadline).await?;
        match answer.verdict() {
            Verdict::Good => Ok(Found::Running),
            Verdict::Bad(_) if answer.code == Code::NotRunning => Ok(Found::Stopped),
            Verdict::Bad(why) | Verdict::Unknown(why) => Err(Failed(why)),
        }
    }

    async fn ready(&self) -> Result<(), Failed> {
        let meta = self.meta_data().await?;
        let mistakes = parameters::mistakes(&meta, &self.spec.params);
        if mistakes.is_empty() { Ok(()) } else { Err(Failed(format!("{}: {}", self.spec.agent, mistakes.join("; ")))) }
    }

    fn handles(&self, context: &Context) -> Vec<KillHandle> {
        Started::of(&self.directories, context).handles()
    }
}
