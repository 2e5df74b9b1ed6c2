//! Reading a whole file: its first line, the cluster, the steps.
//!
//! Decides the words for the cluster, and what it is where the file says nothing: the defaults of the product.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::actions::ACTIONS;
use super::model::{Begin, Doing, Scenario};
use super::steps::{STEPS, finish, lines, report, step};
use super::words::{Bad, Line, Names, Parsed};
use crate::claim::lock_area::LeaseTiming;
use crate::contact::Timing;
use crate::hierarchy::{
    Diagnostics, Failback, Hierarchy, Limit, Monitor, OnStopFailure, Policy, Problems, Rank, ResourceBuilder, Source,
    Timeouts, suggest,
};
use crate::name::{ChannelName, ClusterName, GroupName, HierarchyName, InvalidName, NodeName, ResourceName};
use crate::sim::action::Action;
use crate::sim::setup::{AreaSetup, ClaimSetup, FencingSetup, HierarchySetup, NodeSetup, Setup, WatchdogSetup};

/// The words that a line about the cluster begins with.
const SETUP: &[&str] = &[
    "nodes",
    "clock",
    "networks",
    "heartbeat",
    "lock_area",
    "watchdog",
    "fencing",
    "max_recoveries",
    "hierarchy",
    "policy",
    "resource",
    "begin",
    "seed",
];

/// A cluster being described.
struct Draft {
    nodes: Vec<NodeSetup>,
    timing: Timing,
    lease: LeaseTiming,
    watchdog: Option<WatchdogSetup>,
    fencing: FencingSetup,
    max_recoveries: usize,
    hierarchies: Vec<Described>,
    begin: Begin,
    seed: u64,
}

struct Described {
    place: Range<usize>,
    name: HierarchyName,
    nodes: Vec<NodeName>,
    resources: Vec<Part>,
    policy: Policy,
}

struct Part {
    name: String,
    requires: Option<Vec<String>>,
    timeouts: Timeouts,
    monitor: Monitor,
}

impl Scenario {
    /// Reads a file.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with its place.
    pub fn parse(source: &Source) -> Result<Scenario, Diagnostics> {
        let problems = Problems::new(source);
        let mut draft = Draft {
            nodes: Vec::new(),
            timing: Timing::default(),
            lease: LeaseTiming::default(),
            watchdog: None,
            fencing: FencingSetup::Nobody,
            max_recoveries: 8,
            hierarchies: Vec::new(),
            begin: Begin::default(),
            seed: 1,
        };
        let mut names = Names { channels: 1, ..Names::default() };
        let mut steps = Vec::new();
        for (number, span) in lines(source) {
            let text = source.text().get(span.clone()).unwrap_or_default();
            let first = text.split_whitespace().next().unwrap_or_default();
            let read = if is_setup(first) && steps.is_empty() {
                let read = draft.line(text, span, &mut names);
                names.incomplete |= read.is_err();
                read
            } else {
                step(source, number, span, &names, &mut steps).map_err(|bad| about_setup(bad, first, !steps.is_empty()))
            };
            report(&problems, read);
        }
        let title = report(&problems, title(source)).unwrap_or_default();
        let probed: Vec<HierarchyName> = steps
            .iter()
            .filter_map(|step| match &step.what {
                Doing::Act(Action::Utility { hierarchy, .. }) | Doing::Later(_, Action::Utility { hierarchy, .. }) => {
                    Some(hierarchy.clone())
                }
                _ => None,
            })
            .collect();
        let (begin, seed) = (draft.begin, draft.seed);
        let setup = if names.incomplete { None } else { draft.build(&problems, &names, &probed) };
        match (finish(problems, ()), setup) {
            (Err(wrong), _) => Err(wrong),
            (Ok(()), Some(setup)) => Ok(Scenario { title, setup: Arc::new(setup), seed, begin, steps }),
            (Ok(()), None) => Err(Diagnostics::new()),
        }
    }
}

fn is_setup(word: &str) -> bool {
    SETUP.contains(&word)
}

/// A line about the cluster is misplaced, or its first word misspelt.
fn about_setup(bad: Bad, first: &str, has_steps: bool) -> Bad {
    if is_setup(first) && has_steps {
        return Bad {
            message: format!("`{first}` describes the cluster, which is to stand before the first step"),
            help: Some("move the line up".to_owned()),
            ..bad
        };
    }
    let known = STEPS.iter().chain(ACTIONS).chain(SETUP).copied();
    let is_known = STEPS.contains(&first) || ACTIONS.contains(&first);
    let help = if is_known { None } else { suggest(first, known) };
    Bad { help: help.or(bad.help), ..bad }
}

fn title(source: &Source) -> Parsed<String> {
    let first = source.text().lines().next().unwrap_or_default();
    let title = first.strip_prefix('#').map(str::trim).filter(|title| !title.is_empty());
    title.map(str::to_owned).ok_or_else(|| Bad {
        span: 0..first.len(),
        message: "the first line must say what the scenario shows, in a comment".to_owned(),
        help: Some("for example: `# A node loses power: the next in rank serves what it had.`".to_owned()),
    })
}

impl Draft {
    fn line(&mut self, text: &str, span: Range<usize>, names: &mut Names) -> Parsed<()> {
        // What a line makes known is added when it has been read.
        let mut nodes = Vec::new();
        let mut hierarchy = None;
        let mut channels = names.channels;
        let mut line = Line::new(text, span.start, names)?;
        match line.word(SETUP)? {
            "nodes" => {
                while !line.is_over() {
                    nodes.push(line.read("the name of a node", |word| NodeName::new(word).ok())?);
                }
                let expected = line.expected("the names of 1 to 32 nodes", None);
                if nodes.is_empty() || nodes.len() > 32 || !self.nodes.is_empty() {
                    return Err(expected);
                }
                self.nodes = nodes.iter().map(|name| NodeSetup { name: name.clone(), clock_ppm: 0 }).collect();
            }
            "clock" => {
                let node = line.node()?;
                let ppm = line.read("a deviation, such as `+200ppm` or `-200ppm`", ppm)?;
                if let Some(node) = self.nodes.iter_mut().find(|n| n.name == node) {
                    node.clock_ppm = ppm;
                }
            }
            "networks" => {
                channels =
                    line.read("a number of networks, 1 to 8", |w| w.parse().ok().filter(|n| (1..=8).contains(n)))?;
            }
            "heartbeat" => self.heartbeat(&mut line)?,
            "lock_area" => self.lock_area(&mut line)?,
            "watchdog" => self.watchdog = Some(watchdog(&mut line)?),
            "fencing" => {
                line.words(&["by", "nodes"])?;
                self.fencing = FencingSetup::Nodes;
            }
            "max_recoveries" => {
                self.max_recoveries = line.read("a number from 1 on", |word| word.parse().ok().filter(|n| *n > 0))?;
            }
            "hierarchy" => hierarchy = Some(described(&mut line, span.clone())?),
            "policy" => {
                let name = line.hierarchy()?;
                line.mark(':')?;
                let mut policy = Policy::default();
                let place = self.hierarchies.iter_mut().find(|h| h.name == name);
                policy_settings(&mut line, place.map_or(&mut policy, |h| &mut h.policy))?;
            }
            "resource" => {
                let (hierarchy, resource) = line.resource()?;
                line.mark(':')?;
                let parts = self.hierarchies.iter_mut().filter(|h| h.name == hierarchy).flat_map(|h| &mut h.resources);
                for part in parts.filter(|part| part.name == resource.as_str()) {
                    resource_settings(&mut line, part)?;
                }
            }
            "begin" => {
                self.begin = match line.word(&["off", "in"])? {
                    "off" => Begin::Off,
                    _ => {
                        line.words(&["service"])?;
                        Begin::InService
                    }
                }
            }
            _ => self.seed = line.number("a number")?,
        }
        line.over()?;
        if !nodes.is_empty() {
            names.nodes = nodes;
        }
        if let Some(described) = hierarchy {
            let resources = described.resources.iter().filter_map(|part| ResourceName::new(&part.name).ok());
            names.hierarchies.push((described.name.clone(), resources.collect()));
            self.hierarchies.push(described);
        }
        names.channels = channels;
        Ok(())
    }

    fn heartbeat(&mut self, line: &mut Line<'_>) -> Parsed<()> {
        let place = line.here();
        let timing = &mut self.timing;
        settings(line, &["interval", "late_after", "dead_after", "startup_grace"], |line, word| {
            let span = line.span()?;
            match word {
                "interval" => timing.interval = span,
                "late_after" => timing.late_after = span,
                "dead_after" => timing.dead_after = span,
                _ => timing.startup_grace = span,
            }
            Ok(())
        })?;
        timing.check().map_err(|error| Bad { span: place, message: error.to_string(), help: None })
    }

    fn lock_area(&mut self, line: &mut Line<'_>) -> Parsed<()> {
        let place = line.here();
        let before = self.lease;
        let (mut renew, mut deadline) = (before.renew(), before.deadline());
        let (mut watchdog, mut margin) = (before.watchdog(), before.margin());
        settings(line, &["renew", "deadline", "watchdog", "margin"], |line, word| {
            let span = line.span()?;
            match word {
                "renew" => renew = span,
                "deadline" => deadline = span,
                "watchdog" => watchdog = span,
                _ => margin = span,
            }
            Ok(())
        })?;
        let timing = LeaseTiming::new(renew, deadline, watchdog, margin);
        self.lease = timing.map_err(|error| Bad { span: place, message: error.to_string(), help: None })?;
        Ok(())
    }

    /// The cluster, if nothing is wrong with it.
    fn build(self, problems: &Problems<'_>, names: &Names, probed: &[HierarchyName]) -> Option<Setup> {
        if self.nodes.is_empty() || self.hierarchies.is_empty() {
            let help = "write `nodes alpha beta` and `hierarchy web on alpha beta: disk, server`".to_owned();
            problems.add(&(0..0), "the cluster is not described: expected nodes and hierarchies", Some(help));
            return None;
        }
        let nodes: Vec<NodeName> = self.nodes.iter().map(|node| node.name.clone()).collect();
        let mut hierarchies = Vec::new();
        for described in &self.hierarchies {
            match described.build() {
                Ok(hierarchy) => {
                    let probed = probed.contains(&described.name);
                    hierarchies.push(HierarchySetup {
                        hierarchy: Arc::new(hierarchy),
                        claim: ClaimSetup::Lease(0),
                        probed,
                    });
                }
                Err(error) => problems.add(&described.place, error.to_string(), None),
            }
        }
        let records = u32::try_from(hierarchies.len()).unwrap_or(u32::MAX).max(16);
        let device = WatchdogSetup::Device { timeout: self.lease.watchdog() };
        let fixed = || -> Result<_, InvalidName> {
            let channels = (0..names.channels).map(|n| ChannelName::new(format!("net{n}")));
            let area = AreaSetup::new("main", nodes, records, self.lease)?;
            Ok((ClusterName::new("shop")?, channels.collect::<Result<Vec<_>, _>>()?, area))
        };
        let (cluster, channels, area) = fixed().map_err(|error| problems.add(&(0..0), error.to_string(), None)).ok()?;
        Some(Setup {
            cluster,
            nodes: self.nodes,
            hierarchies,
            channels,
            timing: self.timing,
            areas: vec![area],
            watchdog: self.watchdog.unwrap_or(device),
            fencing: self.fencing,
            max_recoveries: self.max_recoveries,
        })
    }
}

impl Described {
    fn build(&self) -> Result<Hierarchy, crate::hierarchy::HierarchyErrors> {
        let mut builder = Hierarchy::builder(self.name.as_str())
            .nodes(self.nodes.iter().map(NodeName::as_str))
            .policy(self.policy.clone());
        for part in &self.resources {
            let resource = ResourceBuilder::new(&part.name).timeouts(part.timeouts).monitor(part.monitor);
            builder = builder.resource(match &part.requires {
                Some(requires) => resource.requires(requires.iter().map(String::as_str)),
                None => resource,
            });
        }
        builder.build()
    }
}

fn ppm(word: &str) -> Option<i32> {
    let number = word.strip_suffix("ppm")?;
    number.parse().ok().filter(|ppm: &i32| ppm.abs() <= 100_000)
}

fn watchdog(line: &mut Line<'_>) -> Parsed<WatchdogSetup> {
    Ok(match line.word(&["device", "warden", "none"])? {
        "device" => WatchdogSetup::Device { timeout: line.span()? },
        "warden" => WatchdogSetup::Warden,
        _ => WatchdogSetup::None,
    })
}

/// `web on alpha beta: disk, vip(), server(disk vip)`.
fn described(line: &mut Line<'_>, place: Range<usize>) -> Parsed<Described> {
    let name = line.read("the name of a hierarchy", |word| HierarchyName::new(word).ok())?;
    line.words(&["on"])?;
    let mut nodes = vec![line.node()?];
    while !line.takes_mark(':') {
        if line.is_over() {
            return Err(line.expected("`:` and its resources, or a further node", None));
        }
        nodes.push(line.node()?);
    }
    let resource = |line: &mut Line<'_>| line.read("the name of a resource", |w| ResourceName::new(w).ok());
    let mut resources = Vec::new();
    loop {
        let name = resource(line)?.as_str().to_owned();
        let requires = if line.takes_mark('(') {
            let mut requires = Vec::new();
            while !line.takes_mark(')') {
                requires.push(resource(line)?.as_str().to_owned());
            }
            Some(requires)
        } else {
            None
        };
        resources.push(Part { name, requires, timeouts: Timeouts::default(), monitor: Monitor::default() });
        if !line.takes_mark(',') {
            break;
        }
    }
    Ok(Described { place, name, nodes, resources, policy: Policy::default() })
}

/// Settings with commas between them, each begun by one of some words.
fn settings(
    line: &mut Line<'_>,
    words: &[&'static str],
    mut set: impl FnMut(&mut Line<'_>, &'static str) -> Parsed<()>,
) -> Parsed<()> {
    loop {
        let word = line.word(words)?;
        set(line, word)?;
        if !line.takes_mark(',') {
            return Ok(());
        }
    }
}

fn limit(line: &mut Line<'_>) -> Parsed<Limit> {
    let count = line.number("how often")?;
    line.words(&["within"])?;
    Ok(Limit { count, within: line.span()? })
}

fn policy_settings(line: &mut Line<'_>, policy: &mut Policy) -> Parsed<()> {
    let words = &[
        "importance",
        "rank",
        "failback",
        "restarts",
        "decline_for",
        "settle",
        "quarantine",
        "on_stop_failure",
        "forced_stop_within",
    ];
    settings(line, words, |line, word| {
        match word {
            "importance" => policy.importance = line.number("a number")?,
            "rank" => {
                policy.rank = match line.word(&["priority", "utility"])? {
                    "priority" => Rank::Priority,
                    _ => {
                        line.words(&["margin"])?;
                        let margin = line.number("a margin, 1 to 100")?;
                        let group = |line: &mut Line<'_>| line.read("a group", |word| GroupName::new(word).ok());
                        let spread = line.takes("spread").then(|| group(line)).transpose()?;
                        Rank::Utility { margin, spread }
                    }
                }
            }
            "failback" => {
                policy.failback = match line.word(&["manual", "auto"])? {
                    "manual" => Failback::Manual,
                    _ => {
                        line.words(&["after"])?;
                        Failback::Auto { after: line.span()? }
                    }
                }
            }
            "restarts" => policy.restarts = limit(line)?,
            "decline_for" => policy.decline_for = line.span()?,
            "settle" => policy.settle = line.span()?,
            "quarantine" => policy.quarantine = limit(line)?,
            "on_stop_failure" => {
                let reset = line.word(&["reset", "hold"])? == "reset";
                policy.on_stop_failure = Some(if reset { OnStopFailure::Reset } else { OnStopFailure::Hold });
            }
            _ => policy.forced_stop_within = line.span()?,
        }
        Ok(())
    })
}

fn resource_settings(line: &mut Line<'_>, part: &mut Part) -> Parsed<()> {
    let words = &["start", "stop", "kill", "monitor", "every", "unknowns_tolerated"];
    settings(line, words, |line, word| {
        let place: &mut Duration = match word {
            "unknowns_tolerated" => {
                part.monitor.unknowns_tolerated = line.number("a number")?;
                return Ok(());
            }
            "start" => &mut part.timeouts.start,
            "stop" => &mut part.timeouts.stop,
            "kill" => &mut part.timeouts.kill,
            "monitor" => &mut part.timeouts.monitor,
            _ => &mut part.monitor.every,
        };
        *place = line.span()?;
        Ok(())
    })
}
