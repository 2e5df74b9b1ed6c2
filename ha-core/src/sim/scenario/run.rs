//! Lets a scenario happen, and says where it fails.
//!
//! Decides whether what is expected is so. Leaves the invariants to the world's observer, which looks at every event.

use std::fmt;
use std::time::Duration;

use super::model::{Begin, Doing, Scenario, State, Step, When};
use crate::engine::{HierarchyView, Snapshot};
use crate::name::{HierarchyName, NodeName};
use crate::sim::liveness::Line;
use crate::sim::node::Real;
use crate::sim::observer::Violation;
use crate::sim::world::World;
use crate::time::Span;

/// A step that did not go as it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Its line, from 1; 0 when it failed before the first.
    pub line: usize,
    /// As it was written.
    pub step: String,
    /// What was seen instead.
    pub why: String,
    /// The invariant that did not hold, if that is what failed.
    pub violation: Option<Violation>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "before the first step: {}", self.why),
            line => write!(f, "line {line}: {}: {}", self.step, self.why),
        }
    }
}

impl std::error::Error for Failure {}

/// So long all has been in service when the first step comes: what fails then is no early failure, by the default of `settle`.
const SETTLED: Duration = Duration::from_secs(31);

/// What has been told since the last action.
#[derive(Clone)]
struct Since {
    line: usize,
    resets: Vec<u64>,
}

impl Since {
    fn now(world: &World) -> Self {
        Since { line: world.lines().len(), resets: world.nodes.iter().map(|node| node.resets).collect() }
    }
}

/// Lets steps happen in a world, from now on. Its story can be read in [`World::lines`].
///
/// # Errors
/// The first step that does not go as it should, or during which an invariant does not hold.
pub fn run(world: &mut World, steps: &[Step]) -> Result<(), Failure> {
    world.keep_log();
    let mut since = Since::now(world);
    for step in steps {
        let done = take(world, &step.what, &mut since);
        let violation = world.violation().cloned();
        let why = match (&violation, done) {
            (Some(violation), _) => violation.to_string(),
            (None, Err(why)) => why,
            (None, Ok(())) => continue,
        };
        return Err(Failure { line: step.line, step: step.text.clone(), why, violation });
    }
    Ok(())
}

impl Scenario {
    /// The world as the scenario begins, in which nothing has happened yet.
    pub fn world(&self) -> World {
        let mut world = World::new(self.setup.clone(), self.seed);
        world.keep_log();
        world
    }

    /// Lets it happen from its begin to its end, in a world of its own, which is returned.
    ///
    /// # Errors
    /// What failed, and the world as it was then, for its story.
    pub fn play(&self) -> Result<World, Box<(Failure, World)>> {
        let mut world = self.world();
        let played = self.begin(&mut world).and_then(|()| run(&mut world, &self.steps));
        match played {
            Ok(()) => Ok(world),
            Err(failure) => Err(Box::new((failure, world))),
        }
    }

    fn begin(&self, world: &mut World) -> Result<(), Failure> {
        if self.begin == Begin::Off {
            return Ok(());
        }
        world.power_on_all();
        let within = self.setup.bound();
        let since = Since::now(world);
        if world.until(within, |world| holds(world, &State::AllInService, &since)) {
            world.run_until(world.now() + SETTLED);
        }
        if world.violation().is_none() && holds(world, &State::AllInService, &since) {
            return Ok(());
        }
        let violation = world.violation().cloned();
        let why = match &violation {
            Some(violation) => violation.to_string(),
            None => format!("not everything is in service within {}: {}", Span(within), seen(world, None)),
        };
        Err(Failure { line: 0, step: String::new(), why, violation })
    }
}

fn take(world: &mut World, what: &Doing, since: &mut Since) -> Result<(), String> {
    match what {
        Doing::Act(action) => {
            *since = Since::now(world);
            world.act(action.clone());
        }
        Doing::Later(after, action) => world.at(world.now() + *after, action.clone()),
        Doing::Wait(span) => world.run_until(world.now() + *span),
        Doing::Until { state, within } => {
            if !world.until(*within, |world| holds(world, state, since)) {
                return Err(format!("it was not so within {}. {}", Span(*within), seen(world, of(state))));
            }
        }
        Doing::Expect(When::Now, state) if !holds(world, state, since) => {
            return Err(format!("it is not so. {}", seen(world, of(state))));
        }
        Doing::Expect(When::Now, _) => {}
        Doing::Expect(When::For(span), state) => {
            let (begin, end) = (world.now(), world.now() + *span);
            if world.until(*span, |world| !holds(world, state, since)) {
                let after = Span(world.now().since(begin));
                return Err(format!("it was not so any more after {after}. {}", seen(world, of(state))));
            }
            world.run_until(end);
        }
        Doing::Told { node, hierarchy, lines } => compare(world, node, hierarchy, lines, since)?,
    }
    Ok(())
}

/// Whether something is so.
fn holds(world: &World, state: &State, since: &Since) -> bool {
    let position = |name: &HierarchyName| world.by_name.get(name).copied();
    let service = |name: &HierarchyName| position(name).and_then(|h| world.service_of(h).on);
    let node = |name: &NodeName| world.setup.node(name);
    let on_node =
        |name: &NodeName, so: &dyn Fn(&crate::sim::node::Node) -> bool| node(name).is_some_and(|n| so(&world.nodes[n]));
    let view = |name: &NodeName, hierarchy: &HierarchyName, so: &dyn Fn(&HierarchyView) -> bool| {
        node(name)
            .and_then(|n| snapshot(world, n))
            .is_some_and(|s| s.hierarchies.iter().any(|v| v.name == *hierarchy && so(v)))
    };
    let known = |hierarchy: &HierarchyName, so: &dyn Fn(&HierarchyView) -> bool| {
        let mut views = (0..world.nodes.len())
            .filter_map(|n| snapshot(world, n))
            .flat_map(|s| s.hierarchies)
            .filter(|v| v.name == *hierarchy)
            .peekable();
        views.peek().is_some() && views.all(|v| so(&v))
    };
    match state {
        State::Not(other) => !holds(world, other, since),
        State::AllInService => (0..world.setup.hierarchies.len()).all(|h| world.service_of(h).on.is_some()),
        State::InService(hierarchy, None) => service(hierarchy).is_some(),
        State::InService(hierarchy, Some(on)) => service(hierarchy).is_some_and(|n| node(on) == Some(n)),
        State::OutOfService(hierarchy) => service(hierarchy).is_none(),
        State::OnNobody(hierarchy) => position(hierarchy).is_some_and(|h| !world.nodes.iter().any(|node| node.runs(h))),
        State::Runs(hierarchy, resource, on) => {
            let h = position(hierarchy);
            let r =
                h.and_then(|h| world.setup.hierarchies[h].hierarchy.resources.iter().position(|r| r.name == *resource));
            h.zip(r).is_some_and(|(h, r)| on_node(on, &|node| node.on && node.parts[h][r].real == Real::Running))
        }
        State::Phase(hierarchy, phase, on) => view(on, hierarchy, &|view| view.phase == *phase),
        State::Declined(hierarchy, on) => view(on, hierarchy, &|view| view.declined.is_some()),
        State::NotReady(hierarchy, on) => view(on, hierarchy, &|view| view.unready.is_some()),
        State::Quarantined(hierarchy) => known(hierarchy, &|view| view.directive.quarantined.is_some()),
        State::Maintenance(hierarchy) => known(hierarchy, &|view| view.directive.maintenance),
        State::Pinned(hierarchy, to) => known(hierarchy, &|view| view.directive.pin.as_ref() == Some(to)),
        State::On(name) => on_node(name, &|node| node.on),
        State::Off(name) => on_node(name, &|node| !node.on),
        State::Agent(name) => on_node(name, &|node| node.on && node.agent.is_some()),
        State::Standby(name) => node(name).and_then(|n| snapshot(world, n)).is_some_and(|s| s.standby.is_some()),
        State::Resets(name) => node(name).is_some_and(|n| world.nodes[n].resets > since.resets[n]),
        State::Told(by, text) => {
            let told =
                |line: &Line| line.node.is_some() && (by.is_none() || line.node == *by) && line.text.contains(text);
            world.lines()[since.line..].iter().any(told)
        }
    }
}

fn snapshot(world: &World, n: usize) -> Option<Snapshot> {
    let node = &world.nodes[n];
    let agent = node.agent.as_ref().filter(|_| node.on)?;
    Some(agent.engine.snapshot(node.time(world.now)))
}

/// The hierarchy that a state is about.
fn of(state: &State) -> Option<&HierarchyName> {
    match state {
        State::Not(other) => of(other),
        State::InService(name, _)
        | State::OutOfService(name)
        | State::OnNobody(name)
        | State::Runs(name, ..)
        | State::Phase(name, ..)
        | State::Quarantined(name)
        | State::Maintenance(name)
        | State::Pinned(name, _)
        | State::Declined(name, _)
        | State::NotReady(name, _) => Some(name),
        State::AllInService
        | State::On(_)
        | State::Off(_)
        | State::Agent(_)
        | State::Standby(_)
        | State::Resets(_)
        | State::Told(..) => None,
    }
}

/// How things stand with one hierarchy, or with all.
fn seen(world: &World, only: Option<&HierarchyName>) -> String {
    let of = |(h, setup): (usize, &crate::sim::setup::HierarchySetup)| {
        let name = &setup.hierarchy.name;
        let place = match world.service_of(h).on {
            Some(n) => format!("{name} is in service on {}", world.nodes[n].name),
            None => format!("{name} is out of service"),
        };
        only.is_none_or(|only| only == name).then(|| format!("{place}: {}", world.why(h).join(" | ")))
    };
    world.setup.hierarchies.iter().enumerate().filter_map(of).collect::<Vec<_>>().join("\n")
}

/// What a node told of a hierarchy since the last action must be just this.
fn compare(
    world: &World,
    node: &NodeName,
    hierarchy: &HierarchyName,
    expected: &[String],
    since: &Since,
) -> Result<(), String> {
    let of = |line: &&Line| line.node.as_ref() == Some(node) && line.hierarchy.as_ref() == Some(hierarchy);
    let prefix = format!("{hierarchy}: ");
    let told = world.lines()[since.line..].iter().filter(of);
    let told: Vec<&str> = told.map(|line| line.text.strip_prefix(&prefix).unwrap_or(&line.text)).collect();
    let same = told.len() == expected.len() && told.iter().zip(expected).all(|(told, like)| is_like(told, like));
    if same {
        return Ok(());
    }
    let first = told.iter().zip(expected).position(|(told, like)| !is_like(told, like));
    let at = first.unwrap_or(told.len().min(expected.len()));
    let list: String = told.iter().map(|told| format!("\n  - {told}")).collect();
    let nothing = "nothing";
    let (want, got) = (expected.get(at).map_or(nothing, String::as_str), told.get(at).copied().unwrap_or(nothing));
    Err(format!("the lines differ from the {}. on: expected {want:?}, told {got:?}. All that was told:{list}", at + 1))
}

/// Whether a text is like a pattern in which `*` stands for anything.
fn is_like(text: &str, pattern: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let mut open = false;
    let mut last = "";
    for part in parts {
        open = true;
        last = part;
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    if open { last.is_empty() || rest.is_empty() || text.ends_with(last) } else { rest.is_empty() }
}

#[cfg(test)]
mod tests {
    use super::is_like;

    #[test]
    fn a_star_stands_for_anything() {
        for (text, pattern) in
            [("abc", "abc"), ("abc", "a*"), ("abc", "*c"), ("abcbc", "a*c"), ("", "*"), ("abc", "*b*")]
        {
            assert!(is_like(text, pattern), "{text} {pattern}");
        }
        for (text, pattern) in [("abc", "ab"), ("abc", "a*b"), ("abc", "*d*"), ("", "a"), ("ab", "ab*b")] {
            assert!(!is_like(text, pattern), "{text} {pattern}");
        }
    }
}
