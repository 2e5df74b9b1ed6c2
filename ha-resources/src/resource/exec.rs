//! A resource whose operations are commands of the user's.
//!
//! Decides what their exit codes mean, that none outlives its time, and that what a start left running is gone after a stop
//! (where there are control groups). Leaves what they do to them.
//!
//! | command | exit code | means |
//! | --- | --- | --- |
//! | any but `monitor` | 0 | done |
//! | | other | failed |
//! | `monitor` | 0 | good |
//! | | 75 (`EX_TEMPFAIL` of sysexits(3)) | unknown |
//! | | other, for example 7 ("not running" in OCF and LSB) | bad |
//!
//! A monitor that takes too long or cannot be executed says nothing: unknown.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use ha_core::driver::{Context, Failed, Found, KillHandle, Resource, Verdict};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::Directories;
use super::started::{ASKED_WITHIN, Started};
use crate::command::{self, Program, most_of};

/// `EX_TEMPFAIL`: the monitor could not find out.
pub const UNKNOWN: i32 = 75;

/// The commands, as the operator says them: each a program and its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecSpec {
    /// Brings it into service. Must succeed if it is in service already. What it leaves running belongs to the resource.
    pub start: Vec<String>,
    /// Takes it out of service. Must succeed if it is out of service already.
    pub stop: Vec<String>,
    /// Looks whether it does its work, and changes nothing.
    pub monitor: Vec<String>,
    /// Stops it by force. Default: SIGKILL to what `start` left in the control group, or `stop` where there is none.
    pub kill: Option<Vec<String>>,
}

/// See the module's words.
pub struct Exec {
    spec: ExecSpec,
    directories: Directories,
    /// Whether its start left anything that runs, of which the kernel tells the end.
    left: AtomicBool,
    /// The monitor runs once at a time: it is the operator's, who need not think of two.
    looks: Mutex<()>,
}

impl Exec {
    /// Commands that have not been run yet.
    pub fn new(spec: ExecSpec, directories: Directories) -> Self {
        Self { spec, directories, left: AtomicBool::new(false), looks: Mutex::default() }
    }

    async fn run(&self, what: &str, command: &[String], context: &Context) -> Result<(), Failed> {
        self.finish(what, Program::of(context, command), context).await
    }

    async fn finish(&self, what: &str, program: Program, context: &Context) -> Result<(), Failed> {
        let finished = program.run(most_of(context.timeout)).await?;
        if finished.status.success() {
            return Ok(());
        }
        Err(Failed(format!("its {what} command {}", finished.describe())))
    }

    async fn look(&self, context: &Context, deadline: Instant) -> Verdict {
        let _alone = self.looks.lock().await;
        let limit = deadline.saturating_duration_since(Instant::now());
        match Program::of(context, &self.spec.monitor).run(limit).await {
            Ok(finished) if finished.status.success() => Verdict::Good,
            Ok(finished) if finished.status.code() == Some(UNKNOWN) => {
                Verdict::Unknown(format!("its monitor command {}", finished.describe()))
            }
            Ok(finished) => Verdict::Bad(format!("its monitor command {}", finished.describe())),
            Err(e) => Verdict::Unknown(e.to_string()),
        }
    }
}

#[async_trait]
impl Resource for Exec {
    async fn start(&self, context: &Context) -> Result<(), Failed> {
        let started = Started::of(&self.directories, context);
        self.left.store(false, Ordering::Relaxed);
        let program = Program { cgroup: started.prepare(), ..Program::of(context, &self.spec.start) };
        self.finish("start", program, context).await?;
        self.left.store(started.is_populated(), Ordering::Relaxed);
        Ok(())
    }

    async fn stop(&self, context: &Context) -> Result<(), Failed> {
        let deadline = Instant::now() + most_of(context.timeout);
        self.run("stop", &self.spec.stop, context).await?;
        Started::of(&self.directories, context).prove_gone("its stop command succeeded", deadline).await
    }

    async fn kill(&self, context: &Context) -> Result<(), Failed> {
        let deadline = Instant::now() + most_of(context.timeout);
        let started = Started::of(&self.directories, context);
        match &self.spec.kill {
            Some(kill) => self.run("kill", kill, context).await?,
            None if started.handles().is_empty() => return self.stop(context).await,
            None => {}
        }
        started.kill(deadline).await?;
        if self.spec.kill.is_none() {
            // Not everything that runs is a process: an address, a mount. Only the commands know of it.
            self.run("stop", &self.spec.stop, context).await?;
        }
        started.prove_gone("its kill command succeeded", deadline).await
    }

    async fn monitor(&self, context: &Context) -> Verdict {
        self.look(context, Instant::now() + most_of(context.timeout)).await
    }

    /// The end of all that its start left is told by the kernel. Whether that is a failure, the monitor says.
    async fn watch(&self, context: &Context) -> String {
        if self.left.load(Ordering::Relaxed) {
            let ask = || self.look(context, Instant::now() + ASKED_WITHIN);
            return Started::of(&self.directories, context).until_failed(ask).await;
        }
        std::future::pending().await
    }

    async fn adopt(&self, context: &Context) -> Result<Found, Failed> {
        // Before it is asked: what ends meanwhile is told by the watch.
        self.left.store(Started::of(&self.directories, context).is_populated(), Ordering::Relaxed);
        let found = match self.monitor(context).await {
            Verdict::Good => Found::Running,
            Verdict::Bad(_) => Found::Stopped,
            Verdict::Unknown(why) => return Err(Failed(why)),
        };
        Ok(found)
    }

    async fn ready(&self) -> Result<(), Failed> {
        let spec = self.spec.clone();
        // The programs may be on storage that hangs.
        let looked = tokio::task::spawn_blocking(move || {
            let commands = [&spec.start, &spec.stop, &spec.monitor].into_iter().chain(&spec.kill);
            for command in commands {
                command::resolve(command.first().map_or("", String::as_str))?;
            }
            Ok(())
        });
        looked.await.map_err(Failed::new)?
    }

    fn handles(&self, context: &Context) -> Vec<KillHandle> {
        Started::of(&self.directories, context).handles()
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::proc::{ProcessId, Stat};
    use crate::test_support::{context, until, usable_cgroups, within};
    use std::path::Path;
    use std::time::Duration;

    fn shell(script: &str) -> Vec<String> {
        ["sh", "-c", script].map(str::to_owned).to_vec()
    }

    fn exec(place: &Path, cgroups: Option<PathBuf>, scripts: [&str; 3]) -> Exec {
        let [start, stop, monitor] = scripts.map(shell);
        let directories = Directories { run: place.join("run"), logs: place.join("log"), cgroups };
        Exec::new(ExecSpec { start, stop, monitor, kill: None }, directories)
    }

    async fn pid_in(file: &Path) -> ProcessId {
        let pid = until("a command writes its pid", || std::fs::read_to_string(file).ok()?.trim().parse().ok()).await;
        until("that process is there", || Stat::of(pid)).await.id()
    }

    #[tokio::test]
    async fn exit_codes_mean_what_the_table_says() {
        let place = tempfile::tempdir().unwrap();
        let x = context("codes");
        for (code, expected) in [("0", "good"), ("7", "bad"), ("1", "bad"), ("75", "unknown")] {
            let script = format!("echo seen; exit {code}");
            let verdict = exec(place.path(), None, ["true", "true", &script]).monitor(&x).await;
            let (kind, why) = match verdict {
                Verdict::Good => ("good", String::new()),
                Verdict::Bad(why) => ("bad", why),
                Verdict::Unknown(why) => ("unknown", why),
            };
            assert_eq!(kind, expected);
            assert!(why.is_empty() || why == format!("its monitor command exited with code {code}; it said: seen"));
        }
        let gone = exec(place.path(), None, ["true", "true", "exit 7"]);
        assert_eq!(gone.adopt(&x).await, Ok(Found::Stopped));
        let slow = exec(place.path(), None, ["true", "true", "sleep 1000"]);
        assert!(matches!(slow.monitor(&within(&x, Duration::from_millis(50))).await, Verdict::Unknown(_)));
    }

    #[tokio::test]
    async fn a_start_that_takes_too_long_leaves_no_child_behind() {
        let place = tempfile::tempdir().unwrap();
        let x = context("slow");
        let child = place.path().join("child");
        let start = format!("echo began; sleep 1000 & echo $! > {}; wait", child.display());
        let slow = exec(place.path(), None, [&start, "true", "true"]);
        let Failed(why) = slow.start(&within(&x, Duration::from_secs(1))).await.unwrap_err();
        assert!(why.contains("did not end within 950ms; it said: began"), "{why}");
        let child = pid_in(&child).await;
        until("the child is killed", || (!child.is_alive()).then_some(())).await;
    }

    #[tokio::test]
    async fn a_start_that_is_dropped_leaves_no_child_behind() {
        let place = tempfile::tempdir().unwrap();
        let x = context("dropped");
        let child = place.path().join("child");
        let start = format!("sleep 1000 & echo $! > {}; wait", child.display());
        let slow = exec(place.path(), None, [&start, "true", "true"]);
        let child = tokio::select! {
            result = slow.start(&x) => panic!("it should not end: {result:?}"),
            child = pid_in(&child) => child,
        };
        until("the child is killed", || (!child.is_alive()).then_some(())).await;
    }

    #[tokio::test]
    async fn what_a_start_left_must_be_gone_after_a_stop() {
        let Some(cgroups) = usable_cgroups() else { return };
        let place = tempfile::tempdir().unwrap();
        let x = context("daemon");
        let daemon = place.path().join("daemon");
        let start = format!("setsid sh -c 'echo $$ > {}; exec sleep 1000' > /dev/null 2>&1 &", daemon.display());
        let resource = exec(place.path(), Some(cgroups), [&start, "true", "true"]);
        resource.start(&x).await.unwrap();
        let daemon = pid_in(&daemon).await;
        assert!(matches!(resource.handles(&x).as_slice(), [KillHandle::Cgroup(_)]));
        let Failed(why) = resource.stop(&x).await.unwrap_err();
        assert!(why.contains("still runs"), "{why}");
        assert!(daemon.is_alive());
        resource.kill(&x).await.unwrap();
        assert!(!daemon.is_alive());
    }

    #[tokio::test]
    async fn a_failed_command_says_why_and_endless_output_is_cut() {
        let place = tempfile::tempdir().unwrap();
        let x = context("loud");
        let start = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; echo the end >&2; exit 1";
        let Failed(why) = exec(place.path(), None, [start, "true", "true"]).start(&x).await.unwrap_err();
        assert!(why.ends_with("line 19998 / line 19999 / the end"), "{why}");
        assert!(why.len() < command::OUTPUT_KEPT);
        let lacking = exec(place.path(), None, ["true", "true", "true"]);
        let lacking =
            Exec { spec: ExecSpec { stop: vec!["no-such-program".to_owned()], ..lacking.spec.clone() }, ..lacking };
        assert!(lacking.ready().await.unwrap_err().0.contains("no-such-program"));
    }

    #[tokio::test]
    async fn the_death_of_what_a_start_left_is_told_at_once_and_is_a_failure_if_the_monitor_says_so() {
        let Some(cgroups) = usable_cgroups() else { return };
        let place = tempfile::tempdir().unwrap();
        let x = context("watched");
        let daemon = place.path().join("daemon");
        let start = format!("setsid sh -c 'echo $$ > {0}; exec sleep 1000' > /dev/null 2>&1 &", daemon.display());
        let fine = place.path().join("fine");
        // A zombie, which whoever is process 1 here may leave for a while, does not run.
        let runs = format!("grep -q '^State:.*[^Z] (' /proc/$(cat {})/status", daemon.display());
        let looks = format!("test -e {} || {runs}", fine.display());
        let resource = exec(place.path(), Some(cgroups), [&start, "true", &looks]);
        resource.start(&x).await.unwrap();
        let first = pid_in(&daemon).await;
        first.signal(nix::sys::signal::Signal::SIGKILL).unwrap();
        let why = resource.watch(&x).await;
        assert!(why.contains("nothing runs any more of what its start left; its monitor command exited"), "{why}");

        // Where it is no failure, nothing is told.
        std::fs::remove_file(&daemon).unwrap();
        resource.start(&x).await.unwrap();
        let second = pid_in(&daemon).await;
        std::fs::write(&fine, "").unwrap();
        second.signal(nix::sys::signal::Signal::SIGKILL).unwrap();
        let watched = tokio::time::timeout(Duration::from_secs(3), resource.watch(&x)).await;
        assert!(watched.is_err(), "{watched:?}");
        resource.kill(&x).await.unwrap();
    }
}
