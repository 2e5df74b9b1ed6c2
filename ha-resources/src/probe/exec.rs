//! Utility by a program of the user's.
//!
//! Decides what its end means. It is run anew for each measurement, and is killed with its process group when it takes too long.
//!
//! | it ended | utility |
//! | --- | --- |
//! | with exit code 0, and the last line of its output is a number | that number, 0 to 100 |
//! | with exit code 0, without such a line | 100 |
//! | with another exit code, by a signal, or not in time | 0 |

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ha_core::driver::{Failed, Probe};
use ha_core::name::Utility;

use super::MARGIN;
use crate::command::{Children, Finished, Program};

/// What the operator says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecProbeSpec {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// From the end of one measurement to the begin of the next.
    pub every: Duration,
    /// How long it may run.
    pub timeout: Duration,
}

impl ExecProbeSpec {
    /// With the default times: every 5 seconds, within 5 seconds.
    pub fn new<S: Into<String>>(command: impl IntoIterator<Item = S>) -> ExecProbeSpec {
        let command = command.into_iter().map(Into::into).collect();
        ExecProbeSpec { command, every: Duration::from_secs(5), timeout: Duration::from_secs(5) }
    }
}

/// See the module's words.
#[derive(Debug)]
pub struct ExecProbe {
    spec: ExecProbeSpec,
    children: Arc<Children>,
}

impl ExecProbe {
    /// A probe.
    pub fn new(spec: ExecProbeSpec) -> ExecProbe {
        ExecProbe { spec, children: Arc::default() }
    }
}

#[async_trait]
impl Probe for ExecProbe {
    async fn measure(&self) -> Result<(Utility, String), Failed> {
        // What is stuck in the kernel must not become more and more.
        if let Some(stuck) = self.children.alive().first() {
            let pid = stuck.pid;
            return Err(Failed(format!("process {pid} of an earlier measurement was killed and has not ended yet")));
        }
        let program =
            Program { command: self.spec.command.clone(), children: self.children.clone(), ..Program::default() };
        let finished = program.run(self.spec.timeout).await?;
        judge(self.spec.command.first().map_or("", String::as_str), &finished)
    }

    fn every(&self) -> Duration {
        self.spec.every
    }

    fn timeout(&self) -> Duration {
        self.spec.timeout + MARGIN
    }
}

fn judge(program: &str, finished: &Finished) -> Result<(Utility, String), Failed> {
    let told = format!("{program} {}", finished.describe());
    if !finished.status.success() {
        return Ok((Utility::NONE, told));
    }
    let last = finished.output.trim_end().lines().next_back().unwrap_or("").trim();
    if last.is_empty() || !last.bytes().all(|b| b.is_ascii_digit()) {
        return Ok((Utility::FULL, told));
    }
    match last.parse::<u8>().ok().and_then(|number| Utility::new(number).ok()) {
        Some(utility) => Ok((utility, told)),
        None => Err(Failed(format!("{program} said {last}: a utility is a whole number from 0 to 100"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::until;

    async fn measured(script: &str) -> Result<(Utility, String), Failed> {
        let spec = ExecProbeSpec { timeout: Duration::from_secs(30), ..ExecProbeSpec::new(["/bin/sh", "-c", script]) };
        ExecProbe::new(spec).measure().await
    }

    #[tokio::test]
    async fn a_program_says_the_utility_by_its_exit_code_or_in_its_last_line() {
        for (script, utility) in [
            ("exit 0", 100),
            ("echo fine", 100),
            ("echo 0", 0),
            ("echo looked around; echo 42", 42),
            ("echo 42; exit 1", 0),
            ("kill -9 $$", 0),
            ("echo -5", 100),
        ] {
            assert_eq!(measured(script).await.unwrap().0, Utility::new(utility).unwrap(), "{script}");
        }
        let error = measured("echo 101").await.unwrap_err();
        assert!(error.0.contains("said 101"), "{error}");
        assert!(measured("echo 99999999999999999999").await.is_err());
        let missing = ExecProbe::new(ExecProbeSpec::new(["/does/not/exist"])).measure().await.unwrap_err();
        assert!(missing.0.contains("/does/not/exist"), "{missing}");
    }

    #[tokio::test]
    async fn one_that_takes_too_long_is_killed_with_what_it_began() {
        let directory = tempfile::tempdir().unwrap();
        let note = directory.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {0}.new; mv {0}.new {0}; wait", note.display());
        let spec = ExecProbeSpec { timeout: Duration::from_secs(2), ..ExecProbeSpec::new(["/bin/sh", "-c", &script]) };
        let probe = ExecProbe::new(spec);
        let error = probe.measure().await.unwrap_err();
        assert!(error.0.contains("did not end within 2s"), "{error}");
        let child: i32 = std::fs::read_to_string(&note).unwrap().trim().parse().unwrap();
        until("the program's child is gone", || {
            crate::proc::Stat::of(child).is_none_or(|stat| !stat.is_alive()).then_some(())
        })
        .await;
        until("nothing is left of the program", || probe.children.alive().is_empty().then_some(())).await;
    }
}
