//! A resource whose operations are those of an init script.
//!
//! Source: Linux Standard Base 5.0, core, chapter 20.2 "Init Script Actions", and what real scripts do instead. Decides what is
//! believed: what a start left in its control group is known for certain, so where it left anything, that outweighs what the
//! script says. Where a start leaves nothing there (a script that has somebody else start its program), the group is taken away, and
//! the script alone is asked. Leaves what it does to the script.

mod codes;
mod read;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use ha_core::driver::{Context, Failed, Found, KillHandle, Resource, Verdict};
use tokio::time::Instant;

use self::codes::{Status, describe};
use super::check::{self, Check};
use super::started::{ASKED_WITHIN, Started};
use super::{Advice, Directories};
use crate::command::{self, Finished, Leftovers, Program, RunError, most_of};
use crate::proc;

/// Where scripts are looked for that are given by name.
const FOLDERS: [&str; 2] = ["/etc/init.d", "/etc/rc.d/init.d"];

/// A script is asked again after so long, at first and at most.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(500)];

/// An init script, as the operator says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LsbSpec {
    /// The script: a whole path, or a name in `/etc/init.d`.
    pub script: String,
    /// What says whether it runs. Default: [`Judge::Script`].
    pub status: Judge,
    /// What tells that it does its work, beside its running.
    pub check: Option<Check>,
}

/// What says whether the program of a script runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judge {
    /// The script's `status`; and, where its start left anything in the control group, that as well.
    Script,
    /// The control group alone: for scripts without a `status`, or with one that cannot be believed.
    Group,
}

impl LsbSpec {
    /// With every default.
    pub fn new(script: impl Into<String>) -> Self {
        Self { script: script.into(), status: Judge::Script, check: None }
    }

    fn path(&self) -> Result<PathBuf, Failed> {
        if self.script.contains('/') {
            return command::resolve(&self.script);
        }
        let candidates = FOLDERS.map(|folder| Path::new(folder).join(&self.script));
        let found = candidates.iter().find(|path| path.exists());
        let found = found.ok_or_else(|| {
            Failed(format!(
                "there is no script {:?} in {}: install it or give its whole path",
                self.script,
                FOLDERS.join(" or ")
            ))
        })?;
        command::resolve(&found.to_string_lossy())
    }
}

/// See the module's words.
pub struct Lsb {
    spec: LsbSpec,
    directories: Directories,
    /// Held while it is looked at: the one who watches looks, too.
    looks: tokio::sync::Mutex<()>,
}

/// What is known of the control group of what a start left.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Group {
    /// Nothing: there are no control groups, or the start left nothing there.
    None,
    /// Everything that the start left is gone.
    Empty,
    /// These live; who they are, for people.
    Alive(String),
}

impl Lsb {
    /// A script that was not run yet.
    pub fn new(spec: LsbSpec, directories: Directories) -> Self {
        Self { spec, directories, looks: tokio::sync::Mutex::new(()) }
    }

    fn started<'a>(&'a self, context: &'a Context) -> Started<'a> {
        Started::of(&self.directories, context)
    }

    fn group(&self, context: &Context) -> Result<Group, Failed> {
        let started = self.started(context);
        if !started.has_group() {
            return Ok(Group::None);
        }
        let alive = started.alive()?;
        Ok(if alive.is_empty() { Group::Empty } else { Group::Alive(proc::list(&alive)) })
    }

    /// Runs the script with an action until `deadline`.
    async fn perform(
        &self,
        action: &str,
        context: &Context,
        cgroup: Option<PathBuf>,
        deadline: Instant,
    ) -> Result<Finished, Failed> {
        let script = self.spec.path()?.to_string_lossy().into_owned();
        let program = Program::of(context, &[script, action.to_owned()]);
        // It is to print how things are, and a process more with every look would be one too many.
        let leftovers = if action == "status" { Leftovers::DaemonsStay } else { Leftovers::Stay };
        let mut program = Program { cgroup, leftovers, ..program };
        // Else the scripts of some distributions hand over to systemd, whose unit of that name is none of ours.
        for name in ["_SYSTEMCTL_SKIP_REDIRECT", "SYSTEMCTL_SKIP_REDIRECT"] {
            program.environment.push((name.to_owned(), "true".to_owned()));
        }
        let finished = program.run(deadline.saturating_duration_since(Instant::now())).await;
        finished.map_err(|e: RunError| Failed(format!("its {action}: {e}")))
    }

    async fn ask(&self, context: &Context, deadline: Instant) -> Status {
        match self.perform("status", context, None, deadline).await {
            Ok(finished) => Status::of(&finished),
            Err(Failed(why)) => Status::Unknown(why),
        }
    }

    /// What the script and the group together say.
    async fn look(&self, context: &Context, deadline: Instant) -> Result<Verdict, Failed> {
        if self.spec.status == Judge::Group {
            return Ok(match self.group(context)? {
                Group::Alive(_) => Verdict::Good,
                Group::Empty => Verdict::Bad("nothing runs any more of what its start left".to_owned()),
                Group::None => Verdict::Bad("nothing of it runs in its control group".to_owned()),
            });
        }
        let status = self.ask(context, deadline).await;
        Ok(match (status, self.group(context)?) {
            (Status::Running, Group::Alive(_) | Group::None) => Verdict::Good,
            (Status::Running, Group::Empty) => Verdict::Bad(
                "its status says that it runs, but nothing runs any more of what its start left: its script's status is wrong"
                    .to_owned(),
            ),
            (Status::Dead(why), Group::Alive(who)) => Verdict::Bad(format!(
                "{why}; but what its start left still runs: {who}; if the script has no status, set `status: Group`"
            )),
            (Status::Dead(why), _) => Verdict::Bad(why),
            (Status::Unknown(why), Group::Empty) => {
                Verdict::Bad(format!("nothing runs any more of what its start left; {why}"))
            }
            (Status::Unknown(why), _) => Verdict::Unknown(why),
        })
    }

    /// Waits until what was started runs, but not beyond `deadline`: a start may end before its program can be seen.
    async fn until_running(&self, context: &Context, deadline: Instant) -> Result<(), Failed> {
        let started = self.started(context);
        let [mut pause, longest] = PAUSES;
        loop {
            let why = match self.look(context, deadline).await? {
                Verdict::Good => return Ok(()),
                Verdict::Bad(why) | Verdict::Unknown(why) => why,
            };
            let group = self.group(context)?;
            let by_script = self.spec.status == Judge::Script;
            if by_script && group == Group::Empty && self.ask(context, deadline).await == Status::Running {
                // Nothing is left there, and nothing will come: from here on the script alone is asked.
                started.forget();
                tracing::warn!(
                    hierarchy = %context.hierarchy, resource = %context.resource,
                    "its status says that it runs, and nothing of it is in its control group: only the script is believed"
                );
                return Ok(());
            }
            let vanished = pause >= longest && (group == Group::Empty || !by_script && group == Group::None);
            if vanished || Instant::now() + pause >= deadline {
                return Err(Failed(format!("its start answered 0 (done), but {why}")));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(longest);
        }
    }

    /// Shows that it is stopped, after a stop that ended by itself.
    async fn prove_stopped(&self, context: &Context, stop: Finished, deadline: Instant) -> Result<(), Failed> {
        let known = self.group(context)? != Group::None;
        self.started(context).prove_gone(&describe("stop", &stop), deadline).await?;
        let believed = if stop.status.success() || known { Ok(()) } else { Err(Failed(describe("stop", &stop))) };
        if self.spec.status == Judge::Group {
            return believed;
        }
        let [mut pause, longest] = PAUSES;
        loop {
            match self.ask(context, deadline).await {
                Status::Unknown(why) if believed.is_err() => {
                    return Err(Failed(format!("{}; {why}", describe("stop", &stop))));
                }
                // A stop of what was stopped already may well fail.
                Status::Dead(_) | Status::Unknown(_) => return Ok(()),
                Status::Running if known => {
                    tracing::warn!(
                        hierarchy = %context.hierarchy, resource = %context.resource,
                        "its status says that it runs, but nothing runs of what its start left: its script's status is wrong"
                    );
                    return Ok(());
                }
                Status::Running if Instant::now() + pause >= deadline => {
                    return Err(Failed(format!("{}, but its status says that it still runs", describe("stop", &stop))));
                }
                Status::Running => {}
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(longest);
        }
    }

    /// What would be better otherwise with it.
    pub async fn advice(&self) -> Vec<Advice> {
        let (spec, groups) = (self.spec.clone(), self.directories.cgroups.is_some());
        // The script may be on storage that hangs.
        let looked = tokio::task::spawn_blocking(move || {
            let text = std::fs::read(spec.path().ok()?).ok()?;
            let knows = String::from_utf8_lossy(&text).contains("status");
            Some((knows, spec.status, spec.script))
        });
        let Ok(Some((knows_status, judge, script))) = looked.await else { return Vec::new() };
        match judge {
            Judge::Group if !groups => {
                let what = "there are no control groups of version 2 here, by which it is to be judged".to_owned();
                vec![Advice::warning(what, Some("mount cgroup2, or leave `status: Group` away".to_owned()))]
            }
            Judge::Script if !knows_status => {
                let what = format!("the script {script} does not seem to have a `status`");
                vec![Advice::warning(what, Some("set `status: Group`".to_owned()))]
            }
            _ => Vec::new(),
        }
    }
}

#[async_trait]
impl Resource for Lsb {
    async fn start(&self, context: &Context) -> Result<(), Failed> {
        let deadline = Instant::now() + most_of(context.timeout);
        let started = self.started(context);
        match (self.group(context)?, self.spec.status) {
            (Group::Alive(_), Judge::Group) => return Ok(()),
            (group, Judge::Script) if self.ask(context, deadline).await == Status::Running => {
                if matches!(group, Group::Alive(_)) {
                    return Ok(());
                }
                // Somebody else's, begun before the claim was held and perhaps before what it needs; or a lie. Both end with a stop.
                tracing::warn!(
                    hierarchy = %context.hierarchy, resource = %context.resource,
                    "it seems to run already, and was not started here: it is stopped first"
                );
                self.perform("stop", context, None, deadline).await?;
            }
            _ => {}
        }
        let group = started.prepare();
        let finished = self.perform("start", context, group, deadline).await?;
        if !finished.status.success() {
            return Err(Failed(describe("start", &finished)));
        }
        self.until_running(context, deadline).await
    }

    async fn stop(&self, context: &Context) -> Result<(), Failed> {
        let deadline = Instant::now() + most_of(context.timeout);
        let stop = self.perform("stop", context, None, deadline).await?;
        self.prove_stopped(context, stop, deadline).await
    }

    /// What its start left is killed; then the script's stop, for all that is no process.
    async fn kill(&self, context: &Context) -> Result<(), Failed> {
        let deadline = Instant::now() + most_of(context.timeout);
        self.started(context).kill(deadline).await?;
        let stop = self.perform("stop", context, None, deadline).await?;
        self.prove_stopped(context, stop, deadline).await
    }

    async fn monitor(&self, context: &Context) -> Verdict {
        let deadline = Instant::now() + most_of(context.timeout);
        let alone = self.looks.lock().await;
        let runs = self.look(context, deadline).await.unwrap_or_else(|Failed(why)| Verdict::Unknown(why));
        drop(alone);
        check::beside(runs, self.spec.check.as_ref(), context, deadline).await
    }

    /// One that runs and does not do its work is running all the same.
    async fn adopt(&self, context: &Context) -> Result<Found, Failed> {
        let _alone = self.looks.lock().await;
        match self.look(context, Instant::now() + most_of(context.timeout)).await? {
            Verdict::Good => Ok(Found::Running),
            Verdict::Bad(_) => Ok(Found::Stopped),
            Verdict::Unknown(why) => Err(Failed(why)),
        }
    }

    /// The end of all that its start left is told by the kernel, and is bad whatever the script says; it is asked for the reason.
    async fn watch(&self, context: &Context) -> String {
        let started = self.started(context);
        if started.has_group() {
            started.emptied().await;
            let _alone = self.looks.lock().await;
            if let Ok(Verdict::Bad(why)) = self.look(context, Instant::now() + ASKED_WITHIN).await {
                return why;
            }
        }
        std::future::pending().await
    }

    async fn ready(&self) -> Result<(), Failed> {
        let (spec, groups) = (self.spec.clone(), self.directories.cgroups.is_some());
        // The script may be on storage that hangs.
        tokio::task::spawn_blocking(move || spec.path().map(drop)).await.map_err(Failed::new)??;
        if self.spec.status == Judge::Group && !groups {
            return Err(Failed("`status: Group` needs control groups of version 2, and this node has none".to_owned()));
        }
        Ok(())
    }

    fn handles(&self, context: &Context) -> Vec<KillHandle> {
        self.started(context).handles()
    }
}
