//! Time-outs beside what was measured: what took half of its time on a quiet day takes all of it on a busy one.
//!
//! Decides when a time-out is too short and which to propose. Leaves the measuring to the running agent.

use std::collections::BTreeMap;
use std::time::Duration;

use ha_core::hierarchy::{Hierarchy, Timeouts};
use ha_core::name::ResourceName;
use ha_core::recovery::Operation;

use super::bounds::longest_chain;
use crate::api::MeasuredView;
use crate::view::{Problem, Severity};

/// A time-out should be so many times as long as what was measured, and is proposed so.
const PROPOSED: u32 = 3;
/// Below so many times it is told.
const AT_LEAST: u32 = 2;

/// The operations whose time-outs can be set, with the words of hierarchy files.
const OPERATIONS: [(Operation, &str); 4] = [
    (Operation::Start, "start"),
    (Operation::Stop, "stop"),
    (Operation::Monitor, "monitor"),
    (Operation::Kill, "kill"),
];

fn limit(timeouts: &Timeouts, operation: Operation) -> Option<Duration> {
    match operation {
        Operation::Start => Some(timeouts.start),
        Operation::Stop => Some(timeouts.stop),
        Operation::Monitor => Some(timeouts.monitor),
        Operation::Kill => Some(timeouts.kill),
        Operation::Adopt => None,
    }
}

/// What was measured of a hierarchy's resources.
pub(crate) struct Seen<'a> {
    hierarchy: &'a Hierarchy,
    longest: BTreeMap<(&'a ResourceName, Operation), Duration>,
}

impl<'a> Seen<'a> {
    /// Picks out what concerns this hierarchy.
    pub(crate) fn of(hierarchy: &'a Hierarchy, measured: &'a [MeasuredView]) -> Self {
        let ours = measured.iter().filter(|one| one.hierarchy == hierarchy.name);
        let longest = ours.map(|one| ((&one.resource, one.operation), Duration::from_millis(one.longest_ms))).collect();
        Seen { hierarchy, longest }
    }

    /// Every time-out that is short for what was measured.
    pub(crate) fn short(&self) -> Vec<Problem> {
        let mut found = Vec::new();
        for resource in &self.hierarchy.resources {
            for (operation, word) in OPERATIONS {
                let Some(longest) = self.longest.get(&(&resource.name, operation)) else { continue };
                let Some(limit) = limit(&resource.timeouts, operation).filter(|limit| *longest * AT_LEAST > *limit)
                else {
                    continue;
                };
                let given = humantime::format_duration(limit);
                let took = if *longest >= limit {
                    format!("{}: a {word} did not end within its time-out of {given}", resource.name)
                } else {
                    format!(
                        "{}: a {word} took {:.1} s of its time-out of {given}, and will take longer on a busy machine",
                        resource.name,
                        longest.as_secs_f64()
                    )
                };
                let proposed = humantime::format_duration(whole_seconds(*longest * PROPOSED));
                found.push(Problem {
                    severity: Severity::Warning,
                    about: self.hierarchy.name.to_string(),
                    what: took,
                    help: Some(format!("`timeouts: ({word}: \"{proposed}\")`, unless it is that which is wrong")),
                });
            }
        }
        found
    }

    /// How long a start of all would take if each took its longest; `None` unless every resource was started.
    pub(crate) fn start(&self) -> Option<Duration> {
        longest_chain(self.hierarchy, |resource| self.longest.get(&(&resource.name, Operation::Start)).copied())
    }
}

fn whole_seconds(time: Duration) -> Duration {
    Duration::from_secs(time.as_secs() + u64::from(time.subsec_nanos() > 0))
}

#[cfg(test)]
mod tests {
    use ha_core::hierarchy::ResourceBuilder;

    use super::*;

    fn measured(resource: &str, operation: Operation, longest_ms: u64) -> MeasuredView {
        let hierarchy = ha_core::name::HierarchyName::new("web").unwrap();
        MeasuredView { hierarchy, resource: ResourceName::new(resource).unwrap(), operation, longest_ms }
    }

    #[test]
    fn a_time_out_that_what_was_measured_comes_near_is_told_with_a_longer_one() {
        let timeouts = Timeouts { start: Duration::from_secs(60), ..Timeouts::default() };
        let hierarchy = Hierarchy::builder("web")
            .nodes(["alpha"])
            .resource(ResourceBuilder::new("data").timeouts(timeouts))
            .resource(ResourceBuilder::new("app"))
            .build()
            .unwrap();
        let mut seen = vec![
            measured("data", Operation::Start, 29_000),
            measured("data", Operation::Monitor, 20_000),
            measured("app", Operation::Stop, 30_001),
        ];
        let short = Seen::of(&hierarchy, &seen).short();
        let told: Vec<(&str, &str)> =
            short.iter().map(|p| (p.what.as_str(), p.help.as_deref().unwrap_or_default())).collect();
        assert_eq!(
            told,
            [
                (
                    "data: a monitor did not end within its time-out of 20s",
                    "`timeouts: (monitor: \"1m\")`, unless it is that which is wrong"
                ),
                (
                    "app: a stop took 30.0 s of its time-out of 1m, and will take longer on a busy machine",
                    "`timeouts: (stop: \"1m 31s\")`, unless it is that which is wrong"
                ),
            ]
        );
        assert_eq!(Seen::of(&hierarchy, &seen).start(), None, "app was never started here");
        seen.push(measured("app", Operation::Start, 500));
        assert_eq!(Seen::of(&hierarchy, &seen).start(), Some(Duration::from_millis(29_500)));
    }
}
