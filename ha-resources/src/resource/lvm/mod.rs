//! A volume group of LVM, or one volume of it, that is active while its hierarchy is in service.
//!
//! Decides that only this node may activate it: the group carries this node's system id (lvmsystemid(7)) before anything of it is activated,
//! taken over from whoever had it before; other nodes' LVM then leaves it alone. Leaves to the claim who may take it: a system id is a
//! mark on the disks, and keeps nobody from writing who has the volumes active already.
//!
//! Whether something is active is asked of the kernel, not of LVM. What LVM does not take away, for the group may be another node's by
//! now or its disks may be gone, is taken away by dmsetup(8), which refuses what is in use.

mod active;
mod group;
mod name;
mod raid;
mod read;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use ha_core::Resource;
use ha_core::driver::{Context, Failed, Verdict};
use tokio::time::Instant;

use self::active::Active;
use self::group::{ALL_FIELDS, FIELDS, FORM, Group, read_system_id};
pub use self::name::Name;
use super::Advice;
use super::block;
use super::process::FoundOn;
use crate::command::{self, Children, Finished, Program, environment_of, most_of};
use crate::deadline::Gate;
use crate::uevent;

/// From one attempt to take away what is in use to the next.
const PAUSE: Duration = Duration::from_millis(100);

/// From one look at what is degraded to the next.
const DEFECTS_EVERY: Duration = Duration::from_secs(5);

/// How long a look may take when nothing waits for it.
const LOOK: Duration = Duration::from_secs(4);

/// What is to be known of a volume group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LvmSpec {
    /// The group.
    pub group: Name,
    /// The one volume of it that is activated; `None` for all. The group as a whole belongs to one node in either case.
    pub volume: Option<Name>,
    /// LVM looks at these devices only; with none it looks at all that it finds, and waits for one that hangs.
    pub devices: Vec<String>,
    /// Where its disks are found: with [`FoundOn::Hierarchy`] another resource of the hierarchy brings them.
    pub found_on: FoundOn,
}

/// The resource. See the [module](self).
pub struct Lvm {
    spec: LvmSpec,
    /// Commands that may still be there.
    children: Arc<Children>,
    /// The volumes that were active after the start, or when the agent found them.
    expected: Mutex<BTreeSet<String>>,
    /// A look at a volume that has not come back.
    looking: Gate,
    /// Set once this node was seen to have one; a start asks anew.
    has_system_id: OnceLock<()>,
}

/// How hard volumes are taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// By LVM, which also tells its monitors; what it leaves by device-mapper.
    Orderly,
    /// By device-mapper at once: LVM would read the disks.
    Forced,
}

impl Lvm {
    /// A group of which nothing is active yet, or is by an earlier life of the agent.
    pub fn new(spec: LvmSpec) -> Self {
        Self {
            spec,
            children: Arc::default(),
            expected: Mutex::default(),
            looking: Gate::default(),
            has_system_id: OnceLock::new(),
        }
    }

    /// What would be better otherwise about a group that could be activated.
    pub(crate) async fn advice(&self) -> Vec<Advice> {
        let name = &self.spec.group;
        match self.group(ALL_FIELDS, &[], Instant::now() + LOOK).await {
            Ok(group) if group.automatic => vec![Advice::warning(
                format!(
                    "the volume group {name} may be activated by the system at boot, before this node has the claim"
                ),
                Some(format!("`vgchange --setautoactivation n {name}`, where it is active")),
            )],
            _ => Vec::new(),
        }
    }

    async fn run(
        &self,
        command: &[&str],
        environment: &[(String, String)],
        deadline: Instant,
    ) -> Result<Finished, Failed> {
        let mut environment = environment.to_vec();
        environment.push(("LVM_SUPPRESS_FD_WARNINGS".to_owned(), "1".to_owned()));
        let command = command.iter().map(|&word| word.to_owned()).collect();
        let program = Program { command, environment, children: self.children.clone(), ..Program::default() };
        Ok(program.run(deadline.saturating_duration_since(Instant::now())).await?)
    }

    /// Runs a command of lvm(8) about the group.
    async fn lvm(
        &self,
        arguments: &[&str],
        environment: &[(String, String)],
        deadline: Instant,
    ) -> Result<Finished, Failed> {
        let (name, rest) = arguments.split_first().unwrap_or((&"", &[]));
        let devices = self.spec.devices.join(",");
        let mut command = vec!["lvm", name];
        if !devices.is_empty() {
            command.extend(["--devices", devices.as_str()]);
        }
        command.extend(rest);
        self.run(&command, environment, deadline).await
    }

    /// What LVM knows of the group, whoever it belongs to.
    async fn group(&self, fields: &str, environment: &[(String, String)], deadline: Instant) -> Result<Group, Failed> {
        let name = self.spec.group.as_str();
        let how = [&["vgs"], FORM.as_slice(), &[fields, name]].concat();
        let finished = self.lvm(&how, environment, deadline).await?;
        if !finished.status.success() {
            let said = group::without_report(&finished.output);
            return Err(Failed(format!(
                "the volume group {name} cannot be seen: lvm {}: {said}; check its disks, and its name with `vgs --foreign`",
                command::describe(finished.status)
            )));
        }
        Group::read(&self.spec.group, &finished.output)
    }

    /// The mark by which LVM knows this node.
    async fn system_id(&self, environment: &[(String, String)], deadline: Instant) -> Result<String, Failed> {
        let finished = self.run(&["lvm", "systemid"], environment, deadline).await?;
        read_system_id(&finished.output).filter(|_| finished.status.success()).ok_or_else(|| {
            Failed(
                "LVM has no system id on this node, by which a volume group could be its own: set `system_id_source = \"uname\"` in the section `global` of \
                 /etc/lvm/lvm.conf, on every node (lvmsystemid(7))"
                    .to_owned(),
            )
        })
    }

    /// Makes the group this node's, whose ever it was.
    async fn take(
        &self,
        group: &Group,
        own: &str,
        environment: &[(String, String)],
        deadline: Instant,
    ) -> Result<(), Failed> {
        if group.owner.as_deref() == Some(own) {
            return Ok(());
        }
        let name = self.spec.group.as_str();
        let mut arguments = vec!["vgchange", "--yes", "--systemid", own];
        let extra = group.owner.as_ref().map(|owner| format!("local/extra_system_ids=[\"{owner}\"]"));
        if let Some(extra) = &extra {
            arguments.extend(["--config", extra]);
        }
        arguments.push(name);
        let finished = self.lvm(&arguments, environment, deadline).await?;
        let former = group.owner.as_deref().unwrap_or("nobody");
        if !finished.status.success() {
            return Err(Failed(format!(
                "lvm cannot take the volume group {name} over from {former}: {}",
                finished.describe()
            )));
        }
        let now = self.group(FIELDS, environment, deadline).await?.owner;
        if now.as_deref() != Some(own) {
            return Err(Failed(format!("lvm said that the volume group {name} is {own}'s now, but it is {now:?}'s")));
        }
        tracing::info!(group = name, former, own, "a volume group was taken over");
        Ok(())
    }

    fn target(&self) -> String {
        match &self.spec.volume {
            Some(volume) => format!("{}/{volume}", self.spec.group),
            None => self.spec.group.to_string(),
        }
    }

    fn change(&self) -> &'static str {
        if self.spec.volume.is_some() { "lvchange" } else { "vgchange" }
    }

    /// All that is active of it, with what LVM keeps below.
    fn active(&self) -> Result<Vec<Active>, Failed> {
        let mut found = active::of(&self.spec.group).map_err(|e| cannot_see(&e))?;
        if let Some(volume) = &self.spec.volume {
            let below = format!("{volume}_");
            found.retain(|one| one.volume == volume.as_str() || (!one.visible && one.volume.starts_with(&below)));
        }
        Ok(found)
    }

    fn expected(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.expected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The volumes that should be active: what is, if nothing is known of a start.
    fn expect(&self, active: &[Active]) -> BTreeSet<String> {
        let mut expected = self.expected();
        if expected.is_empty() {
            *expected = active.iter().filter(|one| one.visible).map(|one| one.volume.clone()).collect();
        }
        expected.clone()
    }

    /// What is wrong, as the kernel shows it.
    fn fault(&self, active: &[Active]) -> Option<String> {
        let group = &self.spec.group;
        let expected = self.expect(active);
        if expected.is_empty() {
            return Some(format!("nothing of {} is active", self.target()));
        }
        let is_active = |volume: &String| active.iter().any(|one| one.visible && one.volume == *volume);
        expected
            .iter()
            .find(|volume| !is_active(volume))
            .map(|volume| format!("the volume {group}/{volume} is not active"))
    }

    fn shown(&self) -> String {
        format!("the volume group {}", self.spec.group)
    }

    /// Commands that were given up and are still there.
    fn stuck(&self) -> Result<(), Failed> {
        self.children.none_stuck(&self.shown())
    }

    /// Whether nothing of it is active, and no command that was given up may yet change that.
    fn is_gone(&self) -> Result<bool, Failed> {
        Ok(self.stuck().is_ok() && self.active()?.is_empty())
    }

    async fn take_away(&self, context: &Context, way: Way) -> Result<(), Failed> {
        self.expected().clear();
        let deadline = Instant::now() + most_of(context.timeout);
        let environment = environment_of(context);
        // Of several reasons the first says most.
        let mut why = None;
        loop {
            if self.is_gone()? {
                return Ok(());
            }
            if way == Way::Orderly && !self.active()?.is_empty() {
                // Half of what is left: it may hang, and then there is another way.
                let half = Instant::now() + deadline.saturating_duration_since(Instant::now()) / 2;
                let target = self.target();
                let done = self.lvm(&[self.change(), "--activate", "n", &target], &environment, half).await;
                why = why.or(match done {
                    Ok(finished) if finished.status.success() => None,
                    Ok(finished) => Some(format!("lvm {}", finished.describe())),
                    Err(Failed(why)) => Some(why),
                });
            }
            self.remove(way, &environment, deadline).await?;
            if self.is_gone()? {
                return Ok(());
            }
            if Instant::now() + PAUSE >= deadline {
                return self.left(why);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// When the time is over: an error that says what is left, and why. Who uses it comes first, since a command that had no more time may be
    /// about to end.
    fn left(&self, why: Option<String>) -> Result<(), Failed> {
        let active = self.active()?;
        if active.is_empty() {
            return self.stuck();
        }
        let names: Vec<String> =
            active.iter().map(|one| format!("{}{}", one.device, block::kept_by(&one.directory))).collect();
        let why = why.map_or_else(String::new, |why| format!("; {why}"));
        Err(Failed(format!("still active, and in use: {}{why}", names.join(", "))))
    }

    /// Has device-mapper remove what is in nobody's way, from above to below, as long as something goes.
    async fn remove(&self, way: Way, environment: &[(String, String)], deadline: Instant) -> Result<(), Failed> {
        loop {
            let before = self.active()?;
            let top: Vec<&Active> = before.iter().filter(|one| block::holders(&one.directory).is_empty()).collect();
            for one in &top {
                let mut command = vec!["dmsetup", "remove"];
                if way == Way::Forced {
                    command.push("--noudevsync");
                }
                command.push(&one.device);
                // That it is in use is seen by its being there afterwards.
                let _ = self.run(&command, environment, deadline).await;
            }
            if self.active()?.len() >= before.len() || top.is_empty() {
                return Ok(());
            }
        }
    }

    /// Where users open a volume; LVM makes it if udev does not.
    async fn nodes(
        &self,
        active: &[Active],
        environment: &[(String, String)],
        deadline: Instant,
    ) -> Result<(), Failed> {
        let group = self.spec.group.as_str();
        let missing = |one: &&Active| block::number(&self.node(one)).is_err();
        let mut visible = active.iter().filter(|one| one.visible);
        if visible.any(|one| missing(&one)) {
            self.lvm(&["vgmknodes", group], environment, deadline).await?;
        }
        for one in active.iter().filter(|one| one.visible) {
            block::appears(&self.node(one), deadline).await?;
        }
        Ok(())
    }

    fn node(&self, one: &Active) -> PathBuf {
        Path::new("/dev").join(self.spec.group.as_str()).join(&one.volume)
    }

    /// Which of its volumes go on without one of their disks, as device-mapper knows it, which does not ask the disks; `None` where it does
    /// not answer.
    async fn degraded(&self) -> Option<Option<String>> {
        let active = self.active().ok()?;
        if !active.iter().any(|one| one.volume.contains(active::IMAGE)) {
            return Some(None);
        }
        let how = ["dmsetup", "status", "--noflush", "--target", "raid"];
        let finished = self.run(&how, &[], Instant::now() + LOOK).await.ok().filter(|done| done.status.success())?;
        let degraded = raid::degraded(&finished.output);
        let ours = active.iter().filter(|one| degraded.contains(one.device.as_str()));
        let names: Vec<String> = ours.map(|one| format!("{}/{}", self.spec.group, one.volume)).collect();
        let what = "degraded, a disk is missing, has failed, or is not in step yet";
        let help = "see `lvs -a -o +devices,lv_health_status`";
        Some((!names.is_empty()).then(|| format!("{what}: {}; {help}", names.join(", "))))
    }

    async fn until_fault(&self) -> io::Result<String> {
        let mut changes = uevent::Changes::open()?;
        loop {
            // After it has begun to tell, so that nothing falls between.
            let active = self.active().map_err(|Failed(why)| io::Error::other(why))?;
            if let Some(why) = self.fault(&active) {
                return Ok(why);
            }
            changes.next().await?;
        }
    }
}

fn cannot_see(error: &io::Error) -> Failed {
    Failed(format!("cannot see which block devices there are: {error}"))
}

#[async_trait]
impl Resource for Lvm {
    async fn start(&self, context: &Context) -> Result<(), Failed> {
        let deadline = Instant::now() + most_of(context.timeout);
        let environment = environment_of(context);
        self.children.none_stuck_by(deadline, &self.shown()).await?;
        let own = self.system_id(&environment, deadline).await?;
        let group = self.group(FIELDS, &environment, deadline).await?;
        group.refusal(&self.spec.group)?;
        self.take(&group, &own, &environment, deadline).await?;
        let target = self.target();
        let finished = self.lvm(&[self.change(), "--activate", "y", &target], &environment, deadline).await?;
        if !finished.status.success() {
            return Err(Failed(format!("lvm cannot activate {target}: {}", finished.describe())));
        }
        let active = self.active()?;
        self.expected().clear();
        if let Some(why) = self.fault(&active) {
            return Err(Failed(format!("lvm said that {target} is active, but {why}: {}", finished.output.trim())));
        }
        self.nodes(&active, &environment, deadline).await
    }

    async fn stop(&self, context: &Context) -> Result<(), Failed> {
        self.take_away(context, Way::Orderly).await
    }

    async fn kill(&self, context: &Context) -> Result<(), Failed> {
        self.take_away(context, Way::Forced).await
    }

    async fn monitor(&self, context: &Context) -> Verdict {
        let deadline = Instant::now() + most_of(context.timeout);
        let active = match self.active() {
            Ok(active) => active,
            Err(Failed(why)) => return Verdict::Unknown(why),
        };
        if let Some(why) = self.fault(&active) {
            return Verdict::Bad(why);
        }
        for one in active.iter().filter(|one| one.visible) {
            if one.suspended {
                return Verdict::Unknown(format!("the volume {}/{} is suspended", self.spec.group, one.volume));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let verdict = block::answers(one.node(), &self.looking, left).await;
            if verdict != Verdict::Good {
                return verdict;
            }
        }
        Verdict::Good
    }

    async fn watch(&self, _: &Context) -> String {
        match self.until_fault().await {
            Ok(why) => why,
            // Where the kernel does not tell, the monitor does.
            Err(e) => {
                tracing::warn!("the volume group {} is watched by its monitor only: {e}", self.spec.group);
                std::future::pending().await
            }
        }
    }

    async fn defects(&self, tell: &(dyn Fn(Option<String>) + Send + Sync)) {
        loop {
            // What cannot be seen now is no news.
            if let Some(degraded) = self.degraded().await {
                tell(degraded);
            }
            tokio::time::sleep(DEFECTS_EVERY).await;
        }
    }

    async fn ready(&self) -> Result<(), Failed> {
        for (program, package) in [("lvm", "lvm2"), ("dmsetup", "dmsetup, or device-mapper")] {
            command::resolve(program).map_err(|Failed(why)| Failed(format!("{why}; install {package}")))?;
        }
        self.stuck()?;
        let deadline = Instant::now() + LOOK;
        if self.has_system_id.get().is_none() {
            self.system_id(&[], deadline).await?;
            let _ = self.has_system_id.set(());
        }
        if self.spec.found_on == FoundOn::Node {
            self.group(FIELDS, &[], deadline).await?.refusal(&self.spec.group)?;
        }
        Ok(())
    }
}
