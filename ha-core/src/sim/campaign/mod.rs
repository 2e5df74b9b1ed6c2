//! Campaigns: many random clusters, each put through random trouble, repaired at the end, and watched all the time.
//!
//! Decides what a seed means. A seed gives a [`Plan`]: a cluster and a list of actions with their times, which can be run, printed, and made
//! smaller one action at a time. The invariants are the observer's.

mod cluster;
mod minimise;
#[cfg(test)]
mod mutations;
mod totals;
mod trouble;

use std::fmt::Write;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

pub use minimise::minimise;
pub use totals::Totals;

use super::{Action, Draws, Moment, Setup, Stats, Violation, World};

/// How large the clusters of a campaign are, and how long each is in trouble.
#[derive(Clone, Debug)]
pub struct Size {
    /// How many nodes.
    pub nodes: RangeInclusive<u64>,
    /// How many hierarchies.
    pub hierarchies: RangeInclusive<u64>,
    /// For how long things happen to it.
    pub trouble: Duration,
}

impl Size {
    /// Small clusters, for many seeds in a short time.
    pub fn small() -> Self {
        Size { nodes: 1..=5, hierarchies: 1..=6, trouble: Duration::from_secs(120) }
    }

    /// Up to 32 nodes and 500 hierarchies.
    pub fn large() -> Self {
        Size { nodes: 1..=32, hierarchies: 1..=500, trouble: Duration::from_secs(120) }
    }
}

/// What a seed gives: what there is, and what happens to it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The cluster.
    pub setup: Arc<Setup>,
    /// For all that is left to chance.
    pub seed: u64,
    /// What happens, and when; in the order of time.
    pub actions: Vec<(Moment, Action)>,
    /// When everything is repaired.
    pub heal_at: Moment,
}

/// How a plan went.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The first thing that must not be, if there was any.
    pub violation: Option<Violation>,
    /// What happened, counted.
    pub stats: Stats,
    /// How long it was in the simulated world.
    pub lasted: Duration,
    /// What happened, line by line, if it was asked for.
    pub story: Vec<super::Line>,
}

/// Whether what happens is to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Telling {
    /// Only whether it went well: quick.
    Verdict,
    /// Every line.
    Story,
}

impl Plan {
    /// What a seed means for clusters of a size.
    pub fn new(seed: u64, size: &Size) -> Plan {
        let draws = Draws::new(seed);
        let setup = cluster::draw(&mut draws.branch("cluster"), size);
        let heal_at = Moment::BEGIN + size.trouble;
        let actions = trouble::draw(&setup, &draws.branch("trouble"), heal_at);
        Plan { setup: Arc::new(setup), seed, actions, heal_at }
    }

    /// What a seed means for a cluster that there is: the trouble that it is put through for so long.
    pub fn of(setup: Arc<Setup>, seed: u64, trouble: Duration) -> Plan {
        let heal_at = Moment::BEGIN + trouble;
        let actions = trouble::draw(&setup, &Draws::new(seed).branch("trouble"), heal_at);
        Plan { setup, seed, actions, heal_at }
    }

    /// Runs it.
    pub fn run(&self, telling: Telling) -> Outcome {
        let mut world = World::new(self.setup.clone(), self.seed);
        if telling == Telling::Story {
            world.keep_log();
        }
        for (at, action) in &self.actions {
            world.at(*at, action.clone());
        }
        world.at(self.heal_at, Action::HealAll);
        world.run_until(World::healed(self.heal_at));
        if world.violation().is_none() {
            world.must_converge(World::healed(self.heal_at));
        }
        Outcome {
            violation: world.violation().cloned(),
            stats: world.stats(),
            lasted: world.now().since(Moment::BEGIN),
            story: world.lines().to_vec(),
        }
    }

    /// A plan that failed, as a person can read it: what there was, what was done, what happened before the end, and what must not have been.
    pub fn story(&self) -> String {
        let outcome = self.run(Telling::Story);
        let mut text = String::new();
        let _ = writeln!(text, "{}", cluster::describe(&self.setup));
        let _ = writeln!(text, "{} actions:", self.actions.len());
        for (at, action) in &self.actions {
            let _ = writeln!(text, "{:>14}  {action}", at.to_string());
        }
        let shown = outcome.story.len().saturating_sub(LINES);
        let _ = writeln!(text, "the last of {} lines:", outcome.story.len());
        for line in &outcome.story[shown..] {
            let _ = writeln!(text, "{line}");
        }
        match outcome.violation {
            Some(violation) => drop(writeln!(text, "{violation}")),
            None => drop(writeln!(text, "nothing is wrong")),
        }
        text
    }
}

/// So many lines are shown of what led to a failure.
const LINES: usize = 150;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_means_the_same_for_ever() {
        let plan = |seed| Plan::new(seed, &Size::small());
        assert_eq!(plan(3).actions, plan(3).actions);
        assert_eq!(plan(3).run(Telling::Verdict).stats, plan(3).run(Telling::Verdict).stats);
        assert_ne!(plan(3).actions, plan(4).actions);
    }
}
