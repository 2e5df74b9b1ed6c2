//! What a start command left running: kept together in a control group, ended by force, and proven gone.
//!
//! Shared by the kinds whose operations are programs of somebody else's. Where there are no control groups nothing is known of
//! what was left, and the programs alone must be believed. Leaves to the kinds what their programs answer.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use ha_core::driver::{Context, Failed, KillHandle, Verdict};
use tokio::time::Instant;

use super::Directories;
use crate::proc::{self, Stat};
use crate::{cgroup, command, process_group};

/// A daemon may need so long to be gone after the command that stopped it has ended.
const LINGERS: Duration = Duration::from_secs(2);

/// When nothing of it lives any more, a monitor is asked after these pauses until it says that this is a failure: many take what has ended for alive
/// until whoever was its parent has seen that.
const ASKED_AFTER: [Duration; 3] = [Duration::ZERO, Duration::from_millis(100), Duration::from_secs(1)];

/// Such a monitor has so long: that of a resource with the default time-outs.
pub(crate) const ASKED_WITHIN: Duration = Duration::from_secs(20);

/// What the start command of one resource left, or will leave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Started<'a> {
    directories: &'a Directories,
    context: &'a Context,
}

impl<'a> Started<'a> {
    /// Of an operation's resource.
    pub(crate) fn of(directories: &'a Directories, context: &'a Context) -> Self {
        Self { directories, context }
    }

    fn group(&self) -> Option<PathBuf> {
        command::cgroup_of(self.directories.cgroups.as_deref(), self.context)
    }

    /// What a warden may end of it.
    pub(crate) fn handles(&self) -> Vec<KillHandle> {
        self.group().map(KillHandle::Cgroup).into_iter().collect()
    }

    /// The group for a start command, or `None` where there is none that we may use.
    pub(crate) fn prepare(&self) -> Option<PathBuf> {
        command::prepare_cgroup(self.directories.cgroups.as_deref(), self.context)
    }

    /// Whether a start made a group that was not taken away since.
    pub(crate) fn has_group(&self) -> bool {
        self.group().is_some_and(|group| group.is_dir())
    }

    /// What of it lives; nothing where nothing can be known.
    pub(crate) fn alive(&self) -> Result<Vec<Stat>, Failed> {
        process_group::members(&self.handles()).map_err(|e| cannot_see(&e))
    }

    /// Whether anything of it lives; no where nothing can be known.
    pub(crate) fn is_populated(&self) -> bool {
        self.group().is_some_and(|group| cgroup::is_populated(&group).unwrap_or(false))
    }

    /// Waits until nothing of it lives; for ever where the kernel does not tell.
    pub(crate) async fn emptied(&self) {
        let emptied = match self.group() {
            Some(group) => cgroup::emptied(&group).await,
            None => Err(io::Error::from(io::ErrorKind::Unsupported)),
        };
        if let Err(error) = emptied {
            tracing::warn!(
                hierarchy = %self.context.hierarchy, resource = %self.context.resource, %error,
                "the end of what its start left is seen by its monitor only"
            );
            std::future::pending().await
        }
    }

    /// Waits until nothing of it lives, and a monitor says that this is a failure: some start what ends by itself. For ever where it does not say so,
    /// or the kernel does not tell.
    pub(crate) async fn until_failed<F>(&self, ask: impl Fn() -> F + Send + Sync) -> String
    where
        F: Future<Output = Verdict> + Send,
    {
        self.emptied().await;
        for pause in ASKED_AFTER {
            tokio::time::sleep(pause).await;
            if let Verdict::Bad(why) = ask().await {
                return format!("nothing runs any more of what its start left; {why}");
            }
        }
        std::future::pending().await
    }

    /// Takes the group away, if nothing lives in it.
    pub(crate) fn forget(&self) {
        if let Some(group) = self.group()
            && let Err(e) = cgroup::remove(&group)
        {
            tracing::debug!(group = %group.display(), error = %e, "an empty control group stays behind");
        }
    }

    /// Shows that nothing of it lives after something that should have ended it, and takes the group away. Waits for what is about
    /// to be gone, but not beyond `deadline`.
    pub(crate) async fn prove_gone(&self, after: &str, deadline: Instant) -> Result<(), Failed> {
        let handles = self.handles();
        let until = deadline.min(Instant::now() + LINGERS);
        let gone = tokio::time::timeout_at(until, process_group::gone(&handles)).await;
        gone.unwrap_or(Ok(())).map_err(|e| cannot_see(&e))?;
        let left = self.alive()?;
        if !left.is_empty() {
            return Err(Failed(format!("{after}, but what its start left still runs: {}", proc::list(&left))));
        }
        self.forget();
        Ok(())
    }

    /// Sends SIGKILL to all of it, and waits until it is gone, but not beyond `deadline`.
    pub(crate) async fn kill(&self, deadline: Instant) -> Result<(), Failed> {
        let handles = self.handles();
        process_group::kill_all(&handles).map_err(|e| Failed(format!("cannot kill what its start left: {e}")))?;
        let gone = tokio::time::timeout_at(deadline, process_group::gone(&handles)).await;
        gone.unwrap_or(Ok(())).map_err(|e| cannot_see(&e))
    }
}

fn cannot_see(error: &io::Error) -> Failed {
    Failed(format!("cannot see what runs: {error}"))
}
