//! An array of the kernel's md driver (Linux software RAID) that is assembled while its hierarchy is in service.
//!
//! Decides that an array is looked at read-only before anything is written to it, whether a degraded one may be used, and when it is
//! proven stopped: by the kernel's own list, whatever mdadm(8) says. Leaves to the claim that no other node has it assembled: md itself
//! knows nothing of other nodes, and two that write one array destroy it.

mod array;
mod read;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use ha_core::Resource;
use ha_core::driver::{Context, Failed, Verdict};
use tokio::time::Instant;

use self::array::{Array, State};
pub use self::read::Uuid;
use super::Advice;
use super::block::{self, Number};
use super::process::FoundOn;
use crate::command::{self, Children, Finished, Program, environment_of, most_of};
use crate::deadline::Gate;
use crate::uevent;

/// From one attempt to stop what is in use to the next.
const PAUSE: Duration = Duration::from_millis(100);

/// From one look at what it lacks to the next.
const DEFECTS_EVERY: Duration = Duration::from_secs(2);

/// How long a look may take when nothing waits for it.
const LOOK: Duration = Duration::from_secs(4);

/// What is to be known of an array. [`MdSpec::read`] makes sure that there are members or a UUID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MdSpec {
    /// Where users open it: `/dev/md/NAME` or `/dev/mdN`.
    pub device: PathBuf,
    /// What it consists of; with none, whatever carries the UUID.
    pub members: Vec<String>,
    /// Who it is.
    pub uuid: Option<Uuid>,
    /// What is done when members are missing.
    pub degraded: Degraded,
    /// Where the members are found: with [`FoundOn::Hierarchy`] another resource of the hierarchy brings them.
    pub found_on: FoundOn,
}

/// What is done with an array of which members are missing or out of step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Degraded {
    /// It is not started. One that loses a member in service stays there.
    Refuse,
    /// It is started with what there is. Two nodes that see different halves of a mirror would each go on with its own.
    Allow,
}

/// The resource. See the [module](self).
pub struct Md {
    spec: MdSpec,
    /// Commands that may still be there.
    children: Arc<Children>,
    /// Where it was seen last, in sysfs.
    seen: Mutex<Option<PathBuf>>,
    /// A look at it that has not come back.
    looking: Gate,
}

/// What is to be seen of it on this node.
enum Seen {
    Nowhere,
    Here(Array),
    /// Under another name, as by the system at boot.
    Elsewhere(Array),
    /// Another array has its name.
    Taken(Array),
}

impl Md {
    /// An array that is not assembled yet, or is by an earlier life of the agent.
    pub fn new(spec: MdSpec) -> Self {
        Self { spec, children: Arc::default(), seen: Mutex::default(), looking: Gate::default() }
    }

    /// What would be better otherwise about an array.
    pub(crate) async fn advice(&self) -> Vec<Advice> {
        match self.look(&[], Instant::now() + LOOK).await {
            Ok(Seen::Here(array) | Seen::Elsewhere(array)) => self
                .lacks(&array)
                .map(|why| Advice::warning(why, Some("replace what failed, and `mdadm --add` it".to_owned())))
                .into_iter()
                .collect(),
            _ => Vec::new(),
        }
    }

    async fn mdadm(
        &self,
        arguments: &[&str],
        environment: &[(String, String)],
        deadline: Instant,
    ) -> Result<Finished, Failed> {
        let command = [&["mdadm"], arguments].concat().iter().map(|&word| word.to_owned()).collect();
        let environment = environment.to_vec();
        let program = Program { command, environment, children: self.children.clone(), ..Program::default() };
        Ok(program.run(deadline.saturating_duration_since(Instant::now())).await?)
    }

    /// The numbers of those members that are there.
    fn members(&self) -> Vec<Number> {
        self.spec.members.iter().filter_map(|member| block::number(member.as_ref()).ok()).collect()
    }

    fn seen(&self) -> MutexGuard<'_, Option<PathBuf>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn look(&self, environment: &[(String, String)], deadline: Instant) -> Result<Seen, Failed> {
        let all = array::all().map_err(|e| cannot_see(&e))?;
        let members = self.members();
        let at_its_name = block::number(&self.spec.device).ok();
        let is_named = |array: &Array| at_its_name.is_some() && block::number_of(&array.directory) == at_its_name;
        let before = self.seen().clone();
        let mut ours = None;
        for array in &all {
            let is_ours = if !members.is_empty() {
                members.iter().any(|number| array.has(*number))
            } else if Some(&array.directory) == before.as_ref() {
                true
            } else if self.spec.members.is_empty() {
                self.is_of_uuid(array, environment, deadline).await?
            } else {
                // With all members gone, only its name is left.
                is_named(array)
            };
            if is_ours {
                ours = Some(array);
                break;
            }
        }
        (*self.seen()).clone_from(&ours.map(|array| array.directory.clone()));
        Ok(match ours {
            Some(array) if is_named(array) => Seen::Here(array.clone()),
            Some(array) => Seen::Elsewhere(array.clone()),
            None => all.into_iter().find(is_named).map_or(Seen::Nowhere, Seen::Taken),
        })
    }

    async fn is_of_uuid(
        &self,
        array: &Array,
        environment: &[(String, String)],
        deadline: Instant,
    ) -> Result<bool, Failed> {
        let node = array.node().display().to_string();
        let finished = self.mdadm(&["--detail", "--export", &node], environment, deadline).await?;
        let uuid = finished.output.lines().find_map(|line| line.trim().strip_prefix("MD_UUID="));
        Ok(uuid.and_then(|uuid| uuid.parse().ok()) == self.spec.uuid)
    }

    /// What it lacks, as a sentence; `None` if it is whole.
    fn lacks(&self, array: &Array) -> Option<String> {
        if array.degraded == 0 {
            return None;
        }
        let lacking = |member: &&String| !block::number(member.as_ref()).is_ok_and(|number| array.has_in_sync(number));
        let names: Vec<&str> = self.spec.members.iter().filter(lacking).map(String::as_str).collect();
        let names = if names.is_empty() { String::new() } else { format!(": {}", names.join(", ")) };
        Some(format!(
            "the array {} is degraded: {} of {} members are missing, failed or not in step{names}",
            self.spec.device.display(),
            array.degraded,
            array.whole
        ))
    }

    fn fault(&self, array: Option<&Array>) -> Option<String> {
        let device = self.spec.device.display();
        match array.map(|array| &array.state) {
            None => Some(format!("the array {device} is not assembled")),
            Some(State::Running | State::Suspended) => None,
            Some(State::ReadOnly) => Some(format!("the array {device} has become read-only")),
            Some(State::Useless(word)) => Some(format!("the array {device} is {word}")),
        }
    }

    fn refused(&self, seen: &Seen) -> Option<Failed> {
        let device = self.spec.device.display();
        match seen {
            Seen::Nowhere | Seen::Here(_) => None,
            Seen::Elsewhere(array) => Some(Failed(format!(
                "the array {device} is assembled as {0} already, as systems do at boot: keep them from it (`AUTO -all` in mdadm.conf, \
                 on every node), then `mdadm --stop {0}`",
                array.node().display()
            ))),
            Seen::Taken(array) => {
                Some(Failed(format!("{device} is another array, {}: choose another name", array.node().display())))
            }
        }
    }

    async fn assemble(&self, environment: &[(String, String)], deadline: Instant) -> Result<(), Failed> {
        let device = self.spec.device.display().to_string();
        let mut arguments = vec!["--assemble", &device, "--readonly"];
        // Without it mdadm starts none that lacks more than it did when it was last in use.
        if self.spec.degraded == Degraded::Allow {
            arguments.push("--run");
        }
        let uuid = self.spec.uuid.map(|uuid| format!("--uuid={uuid}"));
        arguments.extend(uuid.as_deref());
        if self.spec.members.is_empty() {
            // Whatever mdadm.conf says of arrays and of who assembles them.
            arguments.push("--config=partitions");
        }
        // One that is gone is no reason to leave the others alone, where that is allowed.
        let there = |member: &&String| self.spec.degraded == Degraded::Refuse || block::number(member.as_ref()).is_ok();
        arguments.extend(self.spec.members.iter().filter(there).map(String::as_str));
        let finished = self.mdadm(&arguments, environment, deadline).await?;
        if finished.status.success() {
            return Ok(());
        }
        Err(Failed(format!("mdadm --assemble {device} {}", finished.describe())))
    }

    /// Whether it may be written, and if so has it written.
    async fn begin(&self, array: &Array, environment: &[(String, String)], deadline: Instant) -> Result<(), Failed> {
        if let (Degraded::Refuse, Some(why)) = (self.spec.degraded, self.lacks(array)) {
            return Err(Failed(format!("{why}; repair it, or say `degraded: Allow`")));
        }
        if array.state == State::ReadOnly {
            let device = self.spec.device.display().to_string();
            let finished = self.mdadm(&["--readwrite", &device], environment, deadline).await?;
            if !finished.status.success() {
                return Err(Failed(format!("mdadm --readwrite {device} {}", finished.describe())));
            }
        }
        let now = Array::in_directory(&array.directory);
        match self.fault(now.as_ref()) {
            None => Ok(()),
            Some(why) => Err(Failed(format!("it was assembled, but {why}"))),
        }
    }

    fn shown(&self) -> String {
        format!("the array {}", self.spec.device.display())
    }

    fn stuck(&self) -> Result<(), Failed> {
        self.children.none_stuck(&self.shown())
    }

    async fn until_fault(&self) -> io::Result<String> {
        let mut changes = uevent::Changes::open()?;
        loop {
            // After it has begun to tell, so that nothing falls between.
            let Some(directory) = self.seen().clone() else { return std::future::pending().await };
            if let Some(why) = self.fault(Array::in_directory(&directory).as_ref()) {
                return Ok(why);
            }
            changes.next().await?;
        }
    }
}

fn cannot_see(error: &io::Error) -> Failed {
    Failed(format!("cannot see which arrays there are: {error}"))
}

#[async_trait]
impl Resource for Md {
    async fn start(&self, context: &Context) -> Result<(), Failed> {
        let deadline = Instant::now() + most_of(context.timeout);
        let environment = environment_of(context);
        self.children.none_stuck_by(deadline, &self.shown()).await?;
        let mut seen = self.look(&environment, deadline).await?;
        if let Some(failed) = self.refused(&seen) {
            return Err(failed);
        }
        if matches!(&seen, Seen::Here(array) if matches!(array.state, State::Useless(_))) {
            // Somebody began, and did not come to the end.
            self.stop(context).await?;
            seen = Seen::Nowhere;
        }
        if matches!(seen, Seen::Nowhere) {
            let assembled = self.assemble(&environment, deadline).await;
            let found = self.look(&environment, deadline).await?;
            if let Err(Failed(why)) = assembled {
                // Members that were taken and not used would be in the way.
                let left =
                    if matches!(found, Seen::Nowhere | Seen::Taken(_)) { Ok(()) } else { self.stop(context).await };
                return Err(Failed(left.err().map_or(why.clone(), |Failed(left)| format!("{why}; {left}"))));
            }
            seen = found;
        }
        let Seen::Here(array) = seen else {
            return Err(self.refused(&seen).unwrap_or_else(|| {
                Failed(format!("mdadm said that {} is assembled, but it is not", self.spec.device.display()))
            }));
        };
        if let Err(Failed(why)) = self.begin(&array, &environment, deadline).await {
            let left = self.stop(context).await;
            return Err(Failed(left.err().map_or(why.clone(), |Failed(left)| format!("{why}; {left}"))));
        }
        block::appears(&self.spec.device, deadline).await
    }

    async fn stop(&self, context: &Context) -> Result<(), Failed> {
        let deadline = Instant::now() + most_of(context.timeout);
        let environment = environment_of(context);
        let mut why = None::<String>;
        loop {
            // Before it is looked whether anything is left: one that was given up may yet assemble.
            let stuck = self.stuck();
            let seen = self.look(&environment, deadline).await;
            // A look that had no more time left tells nothing; what stood in the way before it does.
            let array = match seen.map_err(|failed| why.clone().map_or(failed, Failed))? {
                Seen::Here(array) | Seen::Elsewhere(array) => array,
                Seen::Nowhere | Seen::Taken(_) if stuck.is_ok() || Instant::now() + PAUSE >= deadline => return stuck,
                Seen::Nowhere | Seen::Taken(_) => {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let node = array.node().display().to_string();
            let done = self.mdadm(&["--stop", &node], &environment, deadline).await;
            if Array::in_directory(&array.directory).is_none() {
                continue;
            }
            // Of several reasons the first says most.
            let first = why.get_or_insert_with(|| match done {
                Ok(finished) => format!("mdadm --stop {node} {}", finished.describe()),
                Err(Failed(why)) => why,
            });
            if Instant::now() + PAUSE >= deadline {
                return Err(Failed(format!("{first}{}", block::kept_by(&array.directory))));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn monitor(&self, context: &Context) -> Verdict {
        let deadline = Instant::now() + most_of(context.timeout);
        let known = self.seen().as_deref().and_then(Array::in_directory);
        let array = match known {
            Some(array) => Some(array),
            None => match self.look(&environment_of(context), deadline).await {
                Ok(Seen::Here(array)) => Some(array),
                Ok(_) => None,
                Err(Failed(why)) => return Verdict::Unknown(why),
            },
        };
        if let Some(why) = self.fault(array.as_ref()) {
            return Verdict::Bad(why);
        }
        let Some(array) = array else { return Verdict::Unknown("it is not assembled".to_owned()) };
        if array.state == State::Suspended {
            return Verdict::Unknown(format!("the array {} is suspended", self.spec.device.display()));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        block::answers(array.node(), &self.looking, left).await
    }

    async fn watch(&self, _: &Context) -> String {
        match self.until_fault().await {
            Ok(why) => why,
            // Where the kernel does not tell, the monitor does.
            Err(e) => {
                tracing::warn!("the array {} is watched by its monitor only: {e}", self.spec.device.display());
                std::future::pending().await
            }
        }
    }

    async fn defects(&self, tell: &(dyn Fn(Option<String>) + Send + Sync)) {
        loop {
            // The kernel's own files, which answer whatever state the disks are in.
            if let Some(array) = self.seen().as_deref().and_then(Array::in_directory) {
                tell(self.lacks(&array));
            }
            tokio::time::sleep(DEFECTS_EVERY).await;
        }
    }

    async fn ready(&self) -> Result<(), Failed> {
        command::resolve("mdadm").map_err(|Failed(why)| Failed(format!("{why}; install mdadm")))?;
        self.stuck()?;
        let found = self.members().len();
        let enough = match self.spec.degraded {
            Degraded::Refuse => self.spec.members.len(),
            Degraded::Allow => self.spec.members.len().min(1),
        };
        if self.spec.found_on == FoundOn::Node && found < enough {
            let missing = self.spec.members.iter().filter(|member| block::number(member.as_ref()).is_err());
            let missing: Vec<&str> = missing.map(String::as_str).collect();
            return Err(Failed(format!(
                "members of the array {} cannot be seen: {}; check their cabling, paths and names, or say `found_on: Hierarchy` \
                 if another resource of the hierarchy brings them",
                self.spec.device.display(),
                missing.join(", ")
            )));
        }
        let seen = self.look(&[], Instant::now() + LOOK).await?;
        self.refused(&seen).map_or(Ok(()), Err)
    }
}
