//! Random trouble for the user's own cluster.
//!
//! Decides how it is summed up. Leaves the trouble, and what must never be, to the simulator's campaigns.

use std::time::Duration;

use ha_core::sim::campaign::{Plan, Telling, minimise};
use serde::Serialize;

use super::Stage;

/// Things happen for so long in each run.
const TROUBLE: Duration = Duration::from_secs(120);
/// So many runs are spent on making the one that failed smaller.
const SMALLER: usize = 100;

/// How the runs went.
#[derive(Debug, Serialize)]
pub(crate) struct Random {
    /// So many were run: all that were asked for, or as many as it took to find one that failed.
    pub(crate) runs: u64,
    /// The number of the first.
    pub(crate) seed: u64,
    /// Hours of the cluster's life.
    pub(crate) simulated_hours: f64,
    /// How often one node took over from another.
    pub(crate) takeovers: u64,
    /// How often a machine was reset by its watchdog, or by itself.
    pub(crate) resets: u64,
    /// The first run in which something happened that must not be.
    pub(crate) failed: Option<FailedRun>,
}

/// A run in which something happened that must not be.
#[derive(Debug, Serialize)]
pub(crate) struct FailedRun {
    /// Its number: `--random 1 --seed NUMBER` runs it again.
    pub(crate) seed: u64,
    /// What happened.
    pub(crate) what: String,
    /// How it came to it, with as little else as could be found.
    pub(crate) story: String,
}

/// Runs the stage's cluster so often, with numbers from `seed` on, up to the first failure. Operations take milliseconds, and machines boot in
/// seconds: more happens in the same time.
pub(crate) fn random(stage: &Stage, seed: u64, runs: u64) -> Random {
    let mut random = Random { runs: 0, seed, simulated_hours: 0.0, takeovers: 0, resets: 0, failed: None };
    for number in seed..seed.saturating_add(runs) {
        let plan = Plan::of(stage.setup.clone(), number, TROUBLE);
        let outcome = plan.run(Telling::Verdict);
        random.runs += 1;
        random.simulated_hours += outcome.lasted.as_secs_f64() / 3600.0;
        random.takeovers += outcome.stats.takeovers;
        random.resets += outcome.stats.resets;
        if let Some(violation) = outcome.violation {
            let story = minimise(&plan, SMALLER).story();
            random.failed = Some(FailedRun { seed: number, what: violation.to_string(), story });
            break;
        }
    }
    random
}
