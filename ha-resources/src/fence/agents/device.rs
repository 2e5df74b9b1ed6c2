//! One fence device: its agent run for one action at a time.
//!
//! Decides how an agent is run, so that it is bounded in time and output, leaves nothing running, and shows no secret. Leaves to [`super::level`] in
//! which order devices are asked for what.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ha_core::driver::{Failed, KillHandle};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::DeviceSpec;
use super::secrets::{self, Secrets};
use crate::command::{Finished, Input, Keep, Leftovers, Program, describe, said};
use crate::resource::ocf::meta_data::MetaData;
use crate::resource::ocf::parameters;
use crate::{cgroup, process_group};

/// An agent has so long to write its meta-data. Many are Python programs that load much.
const META_DATA_WITHIN: Duration = Duration::from_secs(15);
/// So many bytes of meta-data are read. The longest of a hundred known agents has 12 KiB.
const META_DATA_BYTES: usize = 1 << 20;
/// What was killed may need so long until it is gone.
const LINGERS: Duration = Duration::from_secs(2);

/// What a device says of the power of its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PowerState {
    /// It is on.
    On,
    /// It is off.
    Off,
}

/// What checking a device against its agent's meta-data found, each a sentence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// It will not work.
    pub mistakes: Vec<String>,
    /// It will, but would be better otherwise.
    pub warnings: Vec<String>,
}

/// What an agent can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Abilities {
    /// It can switch off, and need not switch on again at once.
    pub(super) off: bool,
    /// It says whether the node is on.
    pub(super) status: bool,
    /// It cuts off from something, such as a disk or a network, and leaves the power alone: such agents know no reboot.
    pub(super) is_fabric: bool,
}

/// A device.
#[derive(Clone, Debug)]
pub struct FenceDevice {
    spec: DeviceSpec,
    /// Under which control group (version 2) each run of the agent gets one.
    cgroups: Option<PathBuf>,
}

impl FenceDevice {
    /// A device whose agent was not run yet. `cgroups` is where a control group for each run can be made, so that nothing that an agent leaves
    /// running is missed; without it, what leaves both process group and session of the agent is.
    pub fn new(spec: DeviceSpec, cgroups: Option<PathBuf>) -> Self {
        Self { spec, cgroups }
    }

    /// The agent, and which device or plug it is told to steer.
    pub fn label(&self) -> String {
        self.spec.label()
    }

    /// How long one action may take.
    pub fn timeout(&self) -> Duration {
        self.spec.timeout
    }

    /// Compares the parameters with the agent's meta-data, and looks whether secrets can be read. Reaches for no device.
    pub async fn check(&self) -> Findings {
        let meta = match self.meta_data().await {
            Ok(meta) => meta,
            Err(Failed(why)) => return Findings { mistakes: vec![why], warnings: Vec::new() },
        };
        let mut mistakes: Vec<String> =
            self.spec.secrets.values().filter_map(|file| secrets::read(file).err()).map(|Failed(why)| why).collect();
        // The values of secrets are nobody's concern, and they are all texts.
        let hidden = self.spec.secrets.keys().map(|name| (name.clone(), "<secret>".to_owned()));
        let mut given: BTreeMap<String, String> = self.spec.params.clone().into_iter().chain(hidden).collect();
        // As it is set for each run.
        given.insert("action".to_owned(), "off".to_owned());
        mistakes.extend(parameters::mistakes(&meta, &given));
        let abilities = abilities(&meta);
        if !abilities.off && meta.action("reboot").is_none() {
            mistakes.push("it can neither switch off nor reboot".to_owned());
        }
        let mut warnings = parameters::outdated(&meta, &given);
        if !abilities.status {
            warnings.push("it has no status: nothing that it does can be proven".to_owned());
        }
        if abilities.is_fabric {
            warnings.push(
                "it cuts a node off from a disk or a network and leaves its power alone: that the node is off is not proven by it"
                    .to_owned(),
            );
        }
        Findings { mistakes, warnings }
    }

    /// Whether the device can be reached. Changes nothing.
    pub async fn monitor(&self) -> Result<(), Failed> {
        self.run("monitor").await
    }

    /// Whether the node is on, as the device sees it. Changes nothing.
    pub async fn status(&self) -> Result<PowerState, Failed> {
        let (finished, secrets) = self.ask("status").await?;
        match finished.status.code() {
            Some(0) => Ok(PowerState::On),
            Some(2) => Ok(PowerState::Off),
            Some(1) => Err(wrong("status", &secrets, &finished.describe())),
            _ => {
                let why =
                    format!("{}: expected 0 for on or 2 for off{}", describe(finished.status), said(&finished.output));
                Err(wrong("status", &secrets, &why))
            }
        }
    }

    /// Runs an action that is done or is not: exit code 0 is done.
    pub(super) async fn run(&self, action: &'static str) -> Result<(), Failed> {
        let (finished, secrets) = self.ask(action).await?;
        if finished.status.success() { Ok(()) } else { Err(wrong(action, &secrets, &finished.describe())) }
    }

    pub(super) async fn abilities(&self) -> Result<Abilities, Failed> {
        Ok(abilities(&self.meta_data().await?))
    }

    async fn meta_data(&self) -> Result<MetaData, Failed> {
        let unusable = |why: String| Failed(format!("{} cannot be used: {why}", self.spec.agent));
        let mut input = Vec::new();
        line(&mut input, "action", "metadata");
        let program = Program { input: Input(input), keep: Keep::Whole(META_DATA_BYTES), ..self.program() };
        let finished =
            self.finish(program, META_DATA_WITHIN).await.map_err(|why| unusable(format!("its meta-data: {why}")))?;
        if !finished.status.success() {
            return Err(unusable(format!("its meta-data: it {}", describe(finished.status))));
        }
        MetaData::parse(&finished.output).map_err(|e| unusable(e.to_string()))
    }

    async fn ask(&self, action: &'static str) -> Result<(Finished, Secrets), Failed> {
        let limit = self.spec.timeout;
        let files = self.spec.secrets.clone();
        // Files may be on storage that hangs.
        let read = tokio::task::spawn_blocking(move || Secrets::read(files.iter()));
        let secrets =
            timeout(limit, read).await.map_err(|_| Failed("the secrets could not be read in time".to_owned()))?;
        let secrets = secrets.map_err(Failed::new)??;
        let mut input = Vec::new();
        line(&mut input, "action", action);
        for (name, value) in self.spec.params.iter().chain(secrets.iter().map(|(name, value)| (name, value))) {
            line(&mut input, name, value);
        }
        let program = Program { input: Input(input), ..self.program() };
        match self.finish(program, limit).await {
            Ok(finished) => {
                if !finished.output.is_empty() {
                    tracing::debug!(device = self.label(), action, "{}", secrets.hide(finished.output.trim_end()));
                }
                Ok((finished, secrets))
            }
            Err(why) => Err(wrong(action, &secrets, &why)),
        }
    }

    /// The agent, with nothing on its command line and nothing of this program's environment.
    fn program(&self) -> Program {
        let environment =
            [("HOME", "/root"), ("LANG", "C.UTF-8")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        Program {
            command: vec![self.spec.agent.clone()],
            environment: environment.to_vec(),
            leftovers: Leftovers::Killed,
            ..Program::default()
        }
    }

    /// Runs a program in a control group of its own, if it can have one, and sees to it that nothing of it is left.
    async fn finish(&self, program: Program, limit: Duration) -> Result<Finished, String> {
        let group = self.cgroups.as_ref().and_then(|root| Group::new(root));
        let cgroup = group.as_ref().map(|group| group.0.clone());
        let done = Program { cgroup, ..program }.run(limit).await.map_err(|e| e.to_string());
        if let Some(mut group) = group {
            take_away(std::mem::take(&mut group.0)).await;
        }
        done
    }
}

/// The control group of one run, taken away when that is over, however it ends. Its path is empty once that is seen to.
struct Group(PathBuf);

impl Group {
    fn new(root: &Path) -> Option<Group> {
        static RUNS: AtomicU64 = AtomicU64::new(0);
        // One that no other run has, nor any resource: a colon is in no name.
        let name = format!("fencing:{}:{}", std::process::id(), RUNS.fetch_add(1, Ordering::Relaxed));
        let group = root.join(name);
        cgroup::prepare(&group).is_ok().then_some(Group(group))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The run was dropped, and so killed, a moment ago.
        if !self.0.as_os_str().is_empty()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(take_away(std::mem::take(&mut self.0)));
        }
    }
}

async fn take_away(group: PathBuf) {
    let handles = [KillHandle::Cgroup(group.clone())];
    let _ = timeout(LINGERS, process_group::gone(&handles)).await;
    if let Err(e) = cgroup::remove(&group) {
        tracing::warn!(group = %group.display(), error = %e, "something that a fence agent left cannot be killed");
    }
}

fn wrong(action: &str, secrets: &Secrets, why: &str) -> Failed {
    Failed(secrets.hide(&format!("{action}: {why}")))
}

fn abilities(meta: &MetaData) -> Abilities {
    let has = |name| meta.action(name).is_some();
    Abilities { off: has("off"), status: has("status"), is_fabric: has("off") && has("on") && !has("reboot") }
}

fn line(input: &mut Vec<u8>, name: &str, value: &str) {
    input.extend(format!("{name}={value}\n").bytes());
}
