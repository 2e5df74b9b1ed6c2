//! One run: a cluster in which all is well, what happens to it, and what came of that for each hierarchy.
//!
//! Decides how long is waited, and what counts as out of service.

use std::time::Duration;

use ha_core::name::HierarchyName;
use ha_core::record::Happened;
use ha_core::sim::scenario::{Step, run};
use ha_core::sim::{Moment, Service, World};
use serde::Serialize;

use super::{Fault, Stage, in_words};

/// All has been in service for so long when something happens: leases were renewed, nothing is on its way.
const CALM: Duration = Duration::from_secs(10);

/// What came of one run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Outcome {
    /// What happened, in words.
    pub(crate) what: String,
    /// The nodes that were lost for good.
    pub(crate) lost: Vec<String>,
    /// Each hierarchy.
    pub(crate) hierarchies: Vec<Served>,
    /// The invariant that did not hold; the run ended there.
    pub(crate) violation: Option<String>,
    /// What a scenario expected, and what was so instead.
    pub(crate) failed: Option<String>,
    /// What was told, from the begin of what happened on.
    pub(crate) timeline: Vec<Happening>,
}

/// What became of a hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Served {
    /// Its name.
    pub(crate) name: String,
    /// Where it was in service before.
    pub(crate) from: Option<String>,
    /// Where it is in the end.
    pub(crate) to: Option<String>,
    /// How long it was out of service, all times together; until the end of the run if it still is.
    pub(crate) out_ms: u64,
    /// What it was waiting for, if it went from one node to another once.
    pub(crate) spent: Option<Spent>,
    /// The computed worst case after the death of its node; with the start times that were assumed.
    pub(crate) at_most_ms: u64,
    /// A node of its list is left.
    pub(crate) could: bool,
    /// What each node says of it in the end, where it is out of service although it could be served.
    pub(crate) why: Vec<String>,
}

/// Where the time went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[expect(clippy::struct_field_names, reason = "units stand last in names")]
pub(crate) struct Spent {
    /// Until contact was lost.
    pub(crate) detect_ms: u64,
    /// From there until the claim was held: the rest of the lease, and taking it.
    pub(crate) claim_ms: u64,
    /// From there until all resources ran.
    pub(crate) start_ms: u64,
}

/// A line of the timeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Happening {
    /// After the begin.
    pub(crate) after_ms: u64,
    /// Where; `None` for what was done to the cluster.
    pub(crate) node: Option<String>,
    /// What.
    pub(crate) text: String,
}

/// Lets faults happen, all at one moment.
pub(crate) fn trial(stage: &Stage, number: u64, faults: &[Fault]) -> Outcome {
    let mut world = calm(stage, number);
    let begin = Begin::of(&world);
    let lost: Vec<String> = faults.iter().filter_map(|f| f.loses()).map(ToString::to_string).collect();
    let mut latest = Duration::ZERO;
    for fault in faults {
        for (after, action) in fault.actions(&world) {
            latest = latest.max(after);
            if after.is_zero() {
                world.act(action);
            } else {
                world.at(begin.at + after, action);
            }
        }
    }
    world.run_until(begin.at + latest);
    settle(stage, &mut world, &lost);
    outcome(stage, &world, &begin, in_words(faults), lost)
}

/// Lets the steps of a scenario happen.
pub(crate) fn scenario(stage: &Stage, name: &str, steps: &[Step]) -> Outcome {
    let mut world = calm(stage, 0);
    let begin = Begin::of(&world);
    let failed = run(&mut world, steps).err().map(|failure| failure.to_string());
    if failed.is_none() {
        settle(stage, &mut world, &[]);
    }
    let mut outcome = outcome(stage, &world, &begin, format!("scenario {name}"), Vec::new());
    outcome.failed = failed;
    outcome
}

fn calm(stage: &Stage, number: u64) -> World {
    let mut world = stage.world(number);
    world.power_on_all();
    world.until(stage.horizon(), |world| all_served(stage, world, &[]));
    world.run_until(world.now() + CALM);
    world
}

/// Until everything that can be served is, and stays where it is.
fn settle(stage: &Stage, world: &mut World, lost: &[String]) {
    let end = world.now() + stage.horizon() * 2;
    loop {
        let before = changes(world);
        world.until(stage.horizon(), |world| all_served(stage, world, lost));
        world.run_until(world.now() + stage.steady());
        let settled = changes(world) == before && all_served(stage, world, lost);
        if settled || world.violation().is_some() || world.now() >= end {
            return;
        }
    }
}

fn changes(world: &World) -> usize {
    (0..world.setup().hierarchies.len()).map(|h| world.service(h).len()).sum()
}

fn on(world: &World, h: usize) -> Option<usize> {
    world.service(h).last().and_then(|service| service.on)
}

fn all_served(stage: &Stage, world: &World, lost: &[String]) -> bool {
    (0..stage.setup.hierarchies.len()).all(|h| on(world, h).is_some() || !could(stage, h, lost))
}

fn could(stage: &Stage, h: usize, lost: &[String]) -> bool {
    stage.setup.hierarchies[h].hierarchy.nodes.iter().any(|node| !lost.iter().any(|l| l == node.as_str()))
}

/// How things were when it began.
struct Begin {
    at: Moment,
    line: usize,
    /// How many changes each hierarchy had seen.
    services: Vec<usize>,
}

impl Begin {
    fn of(world: &World) -> Self {
        let services = (0..world.setup().hierarchies.len()).map(|h| world.service(h).len()).collect();
        Begin { at: world.now(), line: world.lines().len(), services }
    }
}

fn outcome(stage: &Stage, world: &World, begin: &Begin, what: String, lost: Vec<String>) -> Outcome {
    let setup = world.setup();
    let name = |n: usize| setup.nodes[n].name.to_string();
    let hierarchies = setup.hierarchies.iter().enumerate().map(|(h, of)| {
        let (before, after) = world.service(h).split_at(begin.services[h]);
        let (from, to) = (before.last().and_then(|s| s.on), on(world, h));
        let could = could(stage, h, &lost);
        let bounds = &stage.bounds[h];
        Served {
            name: of.hierarchy.name.to_string(),
            from: from.map(name),
            to: to.map(name),
            out_ms: ms(out_for(before.last(), after, begin.at, world.now())),
            spent: spent(world, begin, &of.hierarchy.name, from, after),
            at_most_ms: bounds.until_claimed_ms() + bounds.start_ms,
            could,
            why: if to.is_none() && could { world.why(h) } else { Vec::new() },
        }
    });
    let hierarchies = hierarchies.collect();
    let timeline = world.lines()[begin.line..].iter().map(|line| Happening {
        after_ms: ms(line.at.since(begin.at)),
        node: line.node.as_ref().map(ToString::to_string),
        text: line.text.trim_start_matches("— ").to_owned(),
    });
    let timeline = timeline.collect();
    let violation = world.violation().map(ToString::to_string);
    Outcome { what, lost, hierarchies, violation, failed: None, timeline }
}

/// All the time without service since the begin.
fn out_for(before: Option<&Service>, after: &[Service], begin: Moment, end: Moment) -> Duration {
    let first = Service { from: begin, on: before.and_then(|s| s.on) };
    let all: Vec<Service> = std::iter::once(first).chain(after.iter().copied()).collect();
    let ends = all.iter().skip(1).map(|s| s.from).chain([end]);
    all.iter().zip(ends).filter(|(s, _)| s.on.is_none()).map(|(s, end)| end.since(s.from)).sum()
}

/// Where the time went when it went from one node to another without a word.
fn spent(
    world: &World,
    begin: &Begin,
    hierarchy: &HierarchyName,
    from: Option<usize>,
    after: &[Service],
) -> Option<Spent> {
    let [Service { from: down, on: None }, Service { from: up, on: Some(to) }] = after else { return None };
    let (old, new) = (&world.setup().nodes[from?].name, &world.setup().nodes[*to].name);
    let mut lines = world.lines()[begin.line..].iter().filter(|line| line.node.as_ref() == Some(new) && line.at <= *up);
    let lost = |told: &Happened| matches!(told, Happened::ContactLost { peer, .. } if peer == old);
    let detected = lines.clone().find(|line| line.told.as_ref().is_some_and(lost))?.at.max(*down);
    let won = |told: &Happened| matches!(told, Happened::ClaimWon { .. });
    let claimed = lines
        .find(|line| line.hierarchy.as_ref() == Some(hierarchy) && line.told.as_ref().is_some_and(won))?
        .at
        .max(detected);
    let (detect, claim) = (detected.since(*down), claimed.since(detected));
    Some(Spent { detect_ms: ms(detect), claim_ms: ms(claim), start_ms: ms(up.since(claimed)) })
}

/// Whole milliseconds.
pub(super) fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
