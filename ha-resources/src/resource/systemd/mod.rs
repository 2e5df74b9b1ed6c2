//! A unit of systemd that a hierarchy serves: started and stopped by systemd, watched through its signals, and proven gone by the unit's
//! control group.
//!
//! While a hierarchy serves a unit, a file laid over its own one (`drop_in`) keeps systemd from starting it by itself, and puts the
//! agent before it at shutdown. Decides which units can be served, when a start and a stop count as done, and what may be killed. Leaves
//! to [`crate::systemd`] how systemd is spoken to.
//!
//! What a warden may end ([`Resource::handles`]) is the unit's control group, which has a name before the unit runs: that of its slice,
//! which [`Resource::ready`] learns from systemd. Whoever asks before anything was learned gets the group of that name wherever one is,
//! and else the one in the usual slice; a start that finds that the unit would be in another one than was told refuses, once.

mod drop_in;
mod job;
#[cfg(test)]
mod tests;
mod unit;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use ha_core::driver::{Context, Failed, Found, KillHandle, Resource, Verdict};
use tokio::time::Instant;

use self::drop_in::Changed;
use self::job::{End, Mode, Verb};
use self::unit::{ActiveState, Alone, Standing, Unit};
use super::check::{self, Check};
use crate::command::{self, Program, most_of};
use crate::systemd::{Link, NotSaid, ServiceManager, SystemState, UNIT_INTERFACE, UnitName, object_of, slice_path};
use crate::{cgroup, proc, process_group};

/// Processes that a stopped unit left in its control group may take so long to end: a unit whose `KillMode=` spares them never ends them.
const LEFT_BEHIND: Duration = Duration::from_secs(5);

/// What is killed is looked at this often, beside whenever systemd says that something changed.
const KILL_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// After a connection was lost, it is made again.
const WATCH_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// The journal is asked for its last lines within this.
const JOURNAL_WITHIN: Duration = Duration::from_secs(1);

/// Which unit is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemdSpec {
    /// The unit.
    pub unit: UnitName,
    /// What tells that it does its work, beside its being active.
    pub check: Option<Check>,
}

/// See the module's words.
pub struct Systemd {
    unit: UnitName,
    check: Option<Check>,
    manager: ServiceManager,
    group: Mutex<Group>,
}

/// What is known of the unit's control group.
#[derive(Default)]
struct Group {
    /// As systemd said.
    known: Option<PathBuf>,
    /// What was last named to a warden.
    told: Option<PathBuf>,
}

impl Systemd {
    /// A unit that was not looked at yet.
    pub fn new(spec: SystemdSpec, manager: ServiceManager) -> Self {
        Self { unit: spec.unit, check: spec.check, manager, group: Mutex::default() }
    }

    fn group(&self) -> MutexGuard<'_, Group> {
        self.group.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cgroups(&self) -> Result<&Path, Failed> {
        self.manager.cgroups().ok_or_else(|| {
            Failed(format!(
                "there are no control groups of version 2 here, without which nobody can tell what of {} runs: boot with \
                 systemd.unified_cgroup_hierarchy=1",
                self.unit
            ))
        })
    }

    fn drop_in(&self) -> PathBuf {
        drop_in::path(self.manager.unit_files(), &self.unit)
    }

    /// The control group as far as it is known, asking nobody who could let us wait.
    fn best_known_group(&self, root: &Path) -> PathBuf {
        let known = self.group().known.clone();
        let name = self.unit.control_group();
        known
            .or_else(|| find_below(root, &name))
            .unwrap_or_else(|| root.join(slice_path(&self.unit.usual_slice())).join(&name))
    }

    /// The unit can be served, and systemd does nothing to it by itself from now on.
    async fn take_over(&self, link: &Link, unit: &Unit<'_>) -> Result<(), Failed> {
        if let Some(obstacle) = unit.obstacle().await? {
            return Err(Failed(obstacle));
        }
        let path = self.drop_in();
        let changed = drop_in::write(&path).map_err(|e| {
            Failed(format!("cannot write {}, which keeps systemd from restarting {}: {e}", path.display(), self.unit))
        })?;
        let alone = unit.is_left_alone(&path).await?;
        if changed == Changed::Yes || alone == Alone::NotRead {
            link.manager("Reload", &()).await?;
        }
        match unit.is_left_alone(&path).await? {
            Alone::Yes => Ok(()),
            Alone::NotRead => {
                Err(Failed(format!("systemd does not read {}: see `systemctl cat {}`", path.display(), self.unit)))
            }
            Alone::Overruled { restart, files } => Err(Failed(format!(
                "{} would be restarted by systemd itself (Restart={restart}), because a file with a later name overrules {}: take \
                 Restart= out of it; there are {}",
                self.unit,
                path.display(),
                files.join(", ")
            ))),
        }
    }

    /// Systemd may do with the unit what it likes again. The unit is stopped, so whatever fails here is only told.
    async fn give_back(&self, link: &Link) {
        let removed = drop_in::remove(&self.drop_in());
        let reloaded = match removed {
            Ok(Changed::No) => return,
            Ok(Changed::Yes) => link.manager("Reload", &()).await.map(drop).map_err(|e| e.to_string()),
            Err(e) => Err(e.to_string()),
        };
        if let Err(error) = reloaded {
            tracing::warn!(unit = %self.unit, error, "stopped, but what was laid over its file is still in effect");
        }
    }

    async fn start_it(&self, context: &Context) -> Result<(), Failed> {
        let root = self.cgroups()?;
        let link = self.manager.connect().await?;
        let unit = Unit::new(&link, &self.unit);
        self.take_over(&link, &unit).await?;
        let group = unit.group(root).await?;
        self.expect_group(&group)?;
        if unit.standing().await?.active == ActiveState::Failed {
            link.manager("ResetFailedUnit", &self.unit.as_str()).await?;
        }
        let end = job::carry_out(&self.manager, &self.unit, Verb::Start, Mode::Replace).await?;
        // Systemd may have executed itself anew since.
        let link = self.manager.connect().await?;
        let unit = Unit::new(&link, &self.unit);
        let standing = unit.standing().await?;
        if matches!(end, End::Done | End::Skipped | End::Unheard) && standing.active.runs() {
            return match unit.present_group(root).await? {
                Some(present) if present != group => {
                    self.group().known = Some(present.clone());
                    Err(Failed(format!(
                        "{} runs in {}, not in {} as expected",
                        self.unit,
                        present.display(),
                        group.display()
                    )))
                }
                _ => Ok(()),
            };
        }
        let mut why = format!("the start job of {} {end}, and it is {standing}", self.unit);
        if standing.active == ActiveState::Inactive && matches!(end, End::Done | End::Skipped) {
            // Systemd forgets such a unit at once, and with it which of the two it was.
            let _ = write!(
                why,
                ": it has ended already (Type=oneshot needs RemainAfterExit=yes to be in service after that), or a Condition…= of it does \
                 not hold on this node: `systemctl status {}`",
                self.unit
            );
        }
        Err(Failed(why + &self.epilogue(&unit, context).await))
    }

    /// Remembers the group in which the unit is about to run. Fails if a warden was told another.
    fn expect_group(&self, group: &Path) -> Result<(), Failed> {
        let mut known = self.group();
        known.known = Some(group.to_owned());
        match &known.told {
            Some(told) if told != group => Err(Failed(format!(
                "the control group of {} is {}, which could not be known before: it can be started as soon as the warden was told",
                self.unit,
                group.display()
            ))),
            _ => Ok(()),
        }
    }

    /// How its last run ended and what it said, as the end of a sentence.
    async fn epilogue(&self, unit: &Unit<'_>, context: &Context) -> String {
        let ending = unit.ending().await.ok().flatten().map_or_else(String::new, |ending| format!("; {ending}"));
        let lines = [
            "journalctl",
            "--quiet",
            "--no-pager",
            "--boot",
            "--lines=5",
            "--output=cat",
            "--unit",
            self.unit.as_str(),
        ];
        let journal =
            Program::of(context, &lines.map(str::to_owned)).run(JOURNAL_WITHIN.min(context.timeout / 20)).await;
        let said = match journal {
            Ok(finished) if finished.status.success() => command::said(&finished.output),
            _ => String::new(),
        };
        ending + &said
    }

    /// How a stop gets on with the order of others: see [`drop_in`].
    async fn mode_of_stop(link: &Link) -> Result<Mode, NotSaid> {
        Ok(match link.state().await? {
            SystemState::Stopping => Mode::IgnoreDependencies,
            SystemState::Other(_) => Mode::Replace,
        })
    }

    async fn stop_it(&self, context: &Context) -> Result<(), Failed> {
        let root = self.cgroups()?;
        let link = self.manager.connect().await?;
        let mode = Self::mode_of_stop(&link).await?;
        let end = match job::carry_out(&self.manager, &self.unit, Verb::Stop, mode).await {
            Err(error) if error.is_nothing_there() => End::Done,
            end => end?,
        };
        let link = self.manager.connect().await?;
        let unit = Unit::new(&link, &self.unit);
        let standing = unit.standing().await?;
        if !standing.active.is_down() {
            let epilogue = self.epilogue(&unit, context).await;
            return Err(Failed(format!("the stop job of {} {end}, and it is {standing}{epilogue}", self.unit)));
        }
        self.prove_gone(&unit, root).await?;
        if mode == Mode::Replace {
            self.give_back(&link).await;
        }
        Ok(())
    }

    /// Shows that the unit, which is stopped, has left no process in its control group.
    async fn prove_gone(&self, unit: &Unit<'_>, root: &Path) -> Result<(), Failed> {
        let groups = self.all_groups(unit, root).await?;
        match tokio::time::timeout(LEFT_BEHIND, process_group::gone(&groups)).await {
            Ok(gone) => gone.map_err(|e| Failed(format!("cannot see what of {} runs: {e}", self.unit))),
            Err(_) => {
                let left = process_group::members(&groups).unwrap_or_default();
                Err(Failed(format!(
                    "{} is stopped, but left running: {}; with KillMode=control-group, systemd would end all of it",
                    self.unit,
                    proc::list(&left)
                )))
            }
        }
    }

    /// The control group as systemd says, and as it was known before.
    async fn all_groups(&self, unit: &Unit<'_>, root: &Path) -> Result<Vec<KillHandle>, NotSaid> {
        let mut groups = vec![self.best_known_group(root)];
        groups.extend(unit.present_group(root).await?.filter(|present| *present != groups[0]));
        Ok(groups.into_iter().map(KillHandle::Cgroup).collect())
    }

    async fn kill_it(&self) -> Result<(), Failed> {
        let root = self.cgroups()?;
        let cannot_kill = |e: std::io::Error| Failed(format!("cannot kill what of {} runs: {e}", self.unit));
        // What is known ends at once, whether systemd answers or not.
        cgroup::kill(&self.best_known_group(root)).map_err(cannot_kill)?;
        let link = self.manager.connect().await?;
        let mode = Self::mode_of_stop(&link).await?;
        let unit = Unit::new(&link, &self.unit);
        let mut changes = link.changes(&object_of(self.unit.as_str())).await?;
        // Not waited for: it takes the place of a start that may be planned, and its own programs are killed with the rest.
        let stop = (self.unit.as_str(), mode.name());
        match link.manager("StopUnit", &stop).await {
            Err(error) if !error.is_nothing_there() => return Err(error.into()),
            _ => {}
        }
        let all = (self.unit.as_str(), "all", nix::libc::SIGKILL);
        loop {
            // Refused when nothing is there to be killed.
            if let Err(error @ NotSaid::Lost(_)) = link.manager("KillUnit", &all).await {
                return Err(error.into());
            }
            let groups = self.all_groups(&unit, root).await?;
            process_group::kill_all(&groups).map_err(cannot_kill)?;
            let left = process_group::members(&groups).map_err(cannot_kill)?;
            if left.is_empty() && unit.standing().await?.active.is_down() {
                break;
            }
            // Whatever the signal says, it is looked at anew.
            let _ = tokio::time::timeout(KILL_AGAIN_AFTER, changes.next()).await;
        }
        // A unit that is not loaded any more has nothing to be forgotten.
        let _ = link.manager("ResetFailedUnit", &self.unit.as_str()).await;
        if mode == Mode::Replace {
            self.give_back(&link).await;
        }
        Ok(())
    }

    /// An operation, given up early enough to say what hangs.
    async fn bounded<T>(
        &self,
        what: &str,
        context: &Context,
        operation: impl Future<Output = Result<T, Failed>> + Send,
    ) -> Result<T, Failed> {
        let limit = context.timeout.saturating_sub((context.timeout / 10).min(Duration::from_secs(2)));
        match tokio::time::timeout(limit, operation).await {
            Ok(done) => done,
            Err(_) => Err(self.what_hangs(what, limit, most_of(context.timeout).saturating_sub(limit)).await),
        }
    }

    /// What can be said, within a time, of an operation that took too long.
    async fn what_hangs(&self, what: &str, limit: Duration, within: Duration) -> Failed {
        let look = async {
            let link = self.manager.connect().await?;
            let unit = Unit::new(&link, &self.unit);
            Ok::<_, NotSaid>((unit.standing().await?, unit.kind().await?))
        };
        let mut said = format!("{} was not {what} within {limit:?}", self.unit);
        if let Ok(Ok((standing, kind))) = tokio::time::timeout(within, look).await {
            let _ = write!(said, ": it is {standing}");
            said += match (standing.active, kind.as_str()) {
                (ActiveState::Activating, "notify" | "notify-reload") => {
                    ", and has not told systemd that it is ready (Type=notify: sd_notify(3), READY=1)"
                }
                (ActiveState::Activating, "forking") => ", and has not gone into the background (Type=forking)",
                _ => "",
            };
        }
        let left = self.manager.cgroups().map(|root| vec![KillHandle::Cgroup(self.best_known_group(root))]);
        let left = left.and_then(|groups| process_group::members(&groups).ok()).filter(|left| !left.is_empty());
        if let Some(left) = left {
            let _ = write!(said, "; it runs {}", proc::list(&left));
        }
        Failed(said)
    }

    async fn look(&self) -> Result<(Standing, Option<String>), NotSaid> {
        let link = self.manager.connect().await?;
        let unit = Unit::new(&link, &self.unit);
        let standing = unit.standing().await?;
        let ending = if standing.active.runs() { None } else { unit.ending().await? };
        Ok((standing, ending))
    }

    /// Waits until it stops running, or the connection ends.
    async fn until_it_fails(&self) -> Result<String, NotSaid> {
        let link = self.manager.connect().await?;
        let unit = Unit::new(&link, &self.unit);
        let mut changes = link.changes(&object_of(self.unit.as_str())).await?;
        let mut active = unit.standing().await?.active;
        while active.runs() || active == ActiveState::Activating {
            let signal =
                changes.next().await.ok_or_else(|| NotSaid::Lost("systemd closed the connection".to_owned()))??;
            active = active_state(&signal)?.unwrap_or(active);
        }
        drop(changes);
        let standing = unit.standing().await?;
        Ok(describe(&self.unit, &standing, unit.ending().await?.as_deref()))
    }

    async fn settled(&self) -> Result<Found, Failed> {
        let root = self.cgroups()?;
        let link = self.manager.connect().await?;
        let unit = Unit::new(&link, &self.unit);
        let mut changes = link.changes(&object_of(self.unit.as_str())).await?;
        let mut active = unit.standing().await?.active;
        while !active.runs() && !active.is_down() {
            let signal =
                changes.next().await.ok_or_else(|| NotSaid::Lost("systemd closed the connection".to_owned()))?;
            active = active_state(&signal.map_err(NotSaid::from)?)?.unwrap_or(active);
        }
        drop(changes);
        if active.runs() {
            self.take_over(&link, &unit).await?;
            let group = unit.group(root).await?;
            self.group().known = Some(group);
            return Ok(Found::Running);
        }
        self.prove_gone(&unit, root).await?;
        Ok(Found::Stopped)
    }
}

/// The new `ActiveState`, if a signal of changed properties tells one.
fn active_state(signal: &zbus::Message) -> Result<Option<ActiveState>, NotSaid> {
    let body = signal.body();
    let (interface, mut changed, _): (String, std::collections::HashMap<String, zbus::OwnedVariant>, Vec<String>) =
        body.deserialize()?;
    if interface != UNIT_INTERFACE {
        return Ok(None);
    }
    let state = changed.remove("ActiveState").map(String::try_from).transpose()?;
    Ok(state.as_deref().map(ActiveState::parse))
}

fn describe(unit: &UnitName, standing: &Standing, ending: Option<&str>) -> String {
    match ending {
        Some(ending) => format!("{unit} is {standing}: {ending}"),
        None => format!("{unit} is {standing}"),
    }
}

/// A control group of this name in a slice, if there is one.
fn find_below(slice: &Path, name: &str) -> Option<PathBuf> {
    let here = slice.join(name);
    if here.is_dir() {
        return Some(here);
    }
    let below = std::fs::read_dir(slice).ok()?.flatten().map(|entry| entry.path());
    below
        .filter(|path| path.extension().is_some_and(|ending| ending == "slice"))
        .find_map(|slice| find_below(&slice, name))
}

#[async_trait]
impl Resource for Systemd {
    async fn start(&self, context: &Context) -> Result<(), Failed> {
        self.bounded("started", context, self.start_it(context)).await
    }

    async fn stop(&self, context: &Context) -> Result<(), Failed> {
        self.bounded("stopped", context, self.stop_it(context)).await
    }

    async fn kill(&self, context: &Context) -> Result<(), Failed> {
        self.bounded("killed", context, self.kill_it()).await
    }

    async fn monitor(&self, context: &Context) -> Verdict {
        let limit = most_of(context.timeout);
        let deadline = Instant::now() + limit;
        let Ok(looked) = tokio::time::timeout(limit, self.look()).await else {
            return Verdict::Unknown(format!("systemd did not say within {limit:?} how {} is", self.unit));
        };
        let runs = match looked {
            Ok((standing, _)) if standing.active.runs() => Verdict::Good,
            Ok((standing, ending)) if standing.active.is_down() => {
                Verdict::Bad(describe(&self.unit, &standing, ending.as_deref()))
            }
            Ok((standing, ending)) => Verdict::Unknown(describe(&self.unit, &standing, ending.as_deref())),
            Err(error) => Verdict::Unknown(error.to_string()),
        };
        check::beside(runs, self.check.as_ref(), context, deadline).await
    }

    async fn adopt(&self, context: &Context) -> Result<Found, Failed> {
        self.bounded("found running or stopped", context, self.settled()).await
    }

    async fn watch(&self, _context: &Context) -> String {
        loop {
            match self.until_it_fails().await {
                Ok(why) => return why,
                // It executes itself anew, or does not answer: what that means is for the monitor to say.
                Err(error) => tracing::debug!(unit = %self.unit, %error, "watches again"),
            }
            tokio::time::sleep(WATCH_AGAIN_AFTER).await;
        }
    }

    async fn ready(&self) -> Result<(), Failed> {
        let root = self.cgroups()?;
        let link = self.manager.connect().await?;
        let unit = Unit::new(&link, &self.unit);
        if let Some(obstacle) = unit.obstacle().await? {
            return Err(Failed(obstacle));
        }
        let group = unit.group(root).await?;
        self.group().known = Some(group);
        Ok(())
    }

    fn handles(&self, _context: &Context) -> Vec<KillHandle> {
        let Some(root) = self.manager.cgroups() else { return Vec::new() };
        let group = self.best_known_group(root);
        self.group().told = Some(group.clone());
        vec![KillHandle::Cgroup(group)]
    }
}
