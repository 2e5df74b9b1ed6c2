//! Hierarchies from RON files.
//!
//! Decides the fields that every hierarchy and every resource has. Leaves the fields of each kind of resource, claim and probe to
//! [`Kinds`].

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::fields::{Fields, Fnv, Value, read_value, suggest};
use super::graph::{self, GraphError};
use super::model::{
    Failback, Fingerprint, Hierarchy, Limit, Monitor, OnStopFailure, Policy, Rank, ResourceSpec, Timeouts,
};
use super::source::{Diagnostics, Severity, Source};
use crate::name::{HierarchyName, NodeName, ResourceName};
use crate::time::Span;

/// Which kinds of resources, claims and probes there are, and how each is read.
///
/// A reader of a kind asks its [`Fields`] for everything that the kind may have, and returns `None` if something was wrong. The fields
/// `name`, `requires`, `timeouts` and `monitoring` of a resource are read already.
pub trait Kinds {
    /// What a resource is read into.
    type Resource;
    /// What a claim is read into.
    type Claim;
    /// What a probe is read into.
    type Probe;

    /// The kinds of resources.
    fn resource_kinds(&self) -> &[&'static str];
    /// The kinds of claims.
    fn claim_kinds(&self) -> &[&'static str];
    /// The kinds of probes.
    fn probe_kinds(&self) -> &[&'static str];

    /// Reads a resource of one of the kinds.
    fn resource(&self, kind: &str, fields: &mut Fields<'_>) -> Option<Self::Resource>;
    /// Reads a claim of one of the kinds.
    fn claim(&self, kind: &str, fields: &mut Fields<'_>) -> Option<Self::Claim>;
    /// Reads a probe of one of the kinds.
    fn probe(&self, kind: &str, fields: &mut Fields<'_>) -> Option<Self::Probe>;
}

/// A hierarchy as it was read.
pub struct Loaded<K: Kinds> {
    /// What the engine needs of it.
    pub hierarchy: Hierarchy,
    /// Its claim.
    pub claim: K::Claim,
    /// What its utility is measured with.
    pub probes: Vec<K::Probe>,
    /// One for each of [`Hierarchy::resources`], in the same order.
    pub resources: Vec<K::Resource>,
    /// Where it was read from: file and place in words.
    pub origin: String,
}

/// Everything that was read, and everything that was wrong with the rest.
pub struct Reading<K: Kinds> {
    /// The hierarchies that are whole.
    pub loaded: Vec<Loaded<K>>,
    /// What is wrong. With an error among them, the set as a whole is not to be used.
    pub diagnostics: Diagnostics,
}

/// Reads texts, each holding a `Hierarchy(…)` or a list of them. Names must be unique over all of them.
pub fn read_sources<K: Kinds>(sources: &[Source], kinds: &K) -> Reading<K> {
    let mut reading = Reading { loaded: Vec::new(), diagnostics: Diagnostics::new() };
    for source in sources {
        let earlier: Vec<(HierarchyName, String)> =
            reading.loaded.iter().map(|l| (l.hierarchy.name.clone(), l.origin.clone())).collect();
        let (found, diagnostics) = read_value(source, |value| Some(read_file(source, value, kinds, &earlier)));
        reading.loaded.extend(found.into_iter().flatten());
        reading.diagnostics.extend(diagnostics);
    }
    reading
}

/// Reads every `*.ron` file of a directory, in the order of their names.
pub fn read_directory<K: Kinds>(directory: &Path, kinds: &K) -> Reading<K> {
    let mut diagnostics = Diagnostics::new();
    let mut files: Vec<PathBuf> = match std::fs::read_dir(directory) {
        Ok(entries) => entries.filter_map(Result::ok).map(|e| e.path()).collect(),
        Err(error) => {
            let help = Some("create the directory, or name another one".to_owned());
            let name = directory.display().to_string();
            diagnostics.add(&name, Severity::Error, format!("cannot be read: {error}"), help);
            Vec::new()
        }
    };
    files.retain(|f| f.extension().is_some_and(|e| e == "ron"));
    files.sort();
    let mut sources = Vec::new();
    for file in files {
        match Source::read(&file) {
            Ok(source) => sources.push(source),
            Err(wrong) => diagnostics.extend(wrong),
        }
    }
    let mut reading = read_sources(&sources, kinds);
    reading.diagnostics.extend(diagnostics);
    reading
}

fn read_file<K: Kinds>(
    source: &Source,
    value: Value<'_>,
    kinds: &K,
    earlier: &[(HierarchyName, String)],
) -> Vec<Loaded<K>> {
    let values =
        if value.text().starts_with('[') { value.list("hierarchies").unwrap_or_default() } else { vec![value] };
    let mut names: Vec<(HierarchyName, String)> = earlier.to_vec();
    let mut loaded = Vec::new();
    for value in values {
        if let Some(found) = read_hierarchy(source, value, kinds, &mut names) {
            loaded.push(found);
        }
    }
    loaded
}

fn read_hierarchy<K: Kinds>(
    source: &Source,
    value: Value<'_>,
    kinds: &K,
    names: &mut Vec<(HierarchyName, String)>,
) -> Option<Loaded<K>> {
    let (word, mut fields) = value.variant("`Hierarchy(…)`")?;
    if word != "Hierarchy" {
        value.unknown_name("thing to define", word, &["Hierarchy"]);
        return None;
    }
    let origin = format!("{}, {}", source.name(), value.place());
    let name: Option<HierarchyName> = fields.required("name", "the name of the hierarchy");
    if let Some(name) = &name {
        if let Some((_, first)) = names.iter().find(|(n, _)| n == name) {
            fields.problem("name", &format!("hierarchy {name:?} is defined twice: first in {first}"), None);
        }
        names.push((name.clone(), origin.clone()));
    }
    let nodes = read_nodes(&mut fields);
    let claim_value = fields.required_value("claim", "what the hierarchy is owned by, such as `LockArea(\"main\")`");
    let claim = claim_value.and_then(|v| read_kind(v, "claim", kinds.claim_kinds(), |k, f| kinds.claim(k, f)));
    let probes = read_probes(&mut fields, kinds);
    let policy = read_policy(&mut fields);
    let resources = fields
        .required_value("resources", "a list of resources, such as `[Process(…)]`")
        .and_then(|v| v.list("resources, such as `[Process(…)]`"))
        .and_then(|values| read_resources(&values, kinds));
    fields.finish();
    let (specs, resources) = resources?;
    let fingerprint = Fingerprint(value.digest(&[]));
    let claim_fingerprint = Fingerprint(claim_value?.digest(&[]));
    let hierarchy = Hierarchy {
        name: name?,
        nodes: nodes?,
        resources: specs,
        policy: policy?,
        claim: claim_fingerprint,
        fingerprint,
    };
    Some(Loaded { hierarchy, claim: claim?, probes: probes?, resources, origin })
}

/// Reads `Kind(…)`, where the kind must be one of those known.
fn read_kind<T>(
    value: Value<'_>,
    what: &str,
    known: &[&'static str],
    read: impl FnOnce(&str, &mut Fields<'_>) -> Option<T>,
) -> Option<T> {
    let (kind, mut fields) = value.variant(&format!("a {what}: one of {}", known.join(", ")))?;
    if !known.contains(&kind) {
        value.unknown_name(what, kind, known);
        return None;
    }
    let found = read(kind, &mut fields);
    fields.finish();
    found
}

fn read_nodes(fields: &mut Fields<'_>) -> Option<Vec<NodeName>> {
    let values = fields.required_value("nodes", "a list of nodes, the preferred one first")?;
    let values = values.list("nodes, the preferred one first")?;
    if values.is_empty() {
        fields.problem("nodes", "a hierarchy needs at least one node", None);
        return None;
    }
    let mut nodes: Vec<NodeName> = Vec::new();
    let mut whole = true;
    for value in values {
        match value.read::<NodeName>("the name of a node") {
            Some(node) if nodes.contains(&node) => {
                value.problem(&format!("node {node:?} is listed twice"), None);
                whole = false;
            }
            Some(node) => nodes.push(node),
            None => whole = false,
        }
    }
    whole.then_some(nodes)
}

fn read_probes<K: Kinds>(fields: &mut Fields<'_>, kinds: &K) -> Option<Vec<K::Probe>> {
    let Some(value) = fields.value("utility") else { return Some(Vec::new()) };
    let values = value.list("probes, such as `[Ping(\"10.0.0.254\")]`")?;
    let read = |v: Value<'_>| read_kind(v, "probe", kinds.probe_kinds(), |k, f| kinds.probe(k, f));
    let probes: Vec<Option<K::Probe>> = values.into_iter().map(read).collect();
    probes.into_iter().collect()
}

/// A length of time that must not be zero.
fn span(fields: &mut Fields<'_>, key: &'static str, default: Duration) -> Option<Duration> {
    let span = fields.or(key, "a length of time such as \"10s\"", Span(default)).0;
    if span.is_zero() {
        fields.problem(key, &format!("`{key}` is zero: expected a length of time such as \"10s\""), None);
        return None;
    }
    Some(span)
}

fn read_policy(fields: &mut Fields<'_>) -> Option<Policy> {
    let default = Policy::default();
    let importance = fields.or("importance", "a whole number, more is more important", default.importance);
    let rank = fields.value("rank").map_or(Some(default.rank), read_rank);
    let failback = fields.value("failback").map_or(Some(default.failback), read_failback);
    let restarts = read_limit(fields, "restarts", "count", default.restarts);
    let quarantine = read_limit(fields, "quarantine", "after", default.quarantine);
    let decline_for = span(fields, "decline_for", default.decline_for);
    let settle = span(fields, "settle", default.settle);
    let forced_stop_within = span(fields, "forced_stop_within", default.forced_stop_within);
    let on_stop_failure = match fields.value("on_stop_failure") {
        None => Some(None),
        Some(value) => match value.text() {
            "Reset" => Some(Some(OnStopFailure::Reset)),
            "Hold" => Some(Some(OnStopFailure::Hold)),
            other => {
                value.unknown_name("way to treat a failed stop", other, &["Reset", "Hold"]);
                None
            }
        },
    };
    if quarantine.is_some_and(|q| q.count == 0) {
        fields.problem("quarantine", "`after` is 0: expected at least 1 early failure", None);
        return None;
    }
    Some(Policy {
        importance,
        rank: rank?,
        failback: failback?,
        restarts: restarts?,
        decline_for: decline_for?,
        settle: settle?,
        quarantine: quarantine?,
        on_stop_failure: on_stop_failure?,
        forced_stop_within: forced_stop_within?,
    })
}

fn read_rank(value: Value<'_>) -> Option<Rank> {
    let known = ["Priority", "Utility"];
    let (word, mut fields) = value.variant("`Priority` or `Utility(margin: 10)`")?;
    let rank = match word {
        "Priority" => Some(Rank::Priority),
        "Utility" => {
            let margin = fields.required::<u8>("margin", "points of utility, 1 to 100")?;
            if (1..=100).contains(&margin) {
                Some(Rank::Utility { margin })
            } else {
                fields.problem("margin", &format!("margin is {margin}: expected 1 to 100 points of utility"), None);
                None
            }
        }
        other => {
            value.unknown_name("way to rank nodes", other, &known);
            return None;
        }
    };
    fields.finish();
    rank
}

fn read_failback(value: Value<'_>) -> Option<Failback> {
    let (word, mut fields) = value.variant("`Manual` or `Auto(after: \"30s\")`")?;
    let failback = match word {
        "Manual" => Some(Failback::Manual),
        "Auto" => fields
            .required::<Span>("after", "how long the better node must have been well, such as \"30s\"")
            .map(|s| Failback::Auto { after: s.0 }),
        other => {
            value.unknown_name("kind of failback", other, &["Manual", "Auto"]);
            return None;
        }
    };
    fields.finish();
    failback
}

fn read_limit(fields: &mut Fields<'_>, key: &'static str, count: &'static str, default: Limit) -> Option<Limit> {
    let Some(value) = fields.value(key) else { return Some(default) };
    let mut inner = value.fields(key)?;
    let limit = Limit {
        count: inner.or(count, "a whole number", default.count),
        within: span(&mut inner, "within", default.within)?,
    };
    inner.finish();
    Some(limit)
}

type Read<K> = (ResourceSpec, Option<Vec<ResourceName>>, <K as Kinds>::Resource);

fn read_resources<K: Kinds>(values: &[Value<'_>], kinds: &K) -> Option<(Vec<ResourceSpec>, Vec<K::Resource>)> {
    let read: Vec<Option<Read<K>>> = values.iter().map(|value| read_resource(*value, kinds)).collect();
    // Names are checked even where the rest of a resource is wrong.
    let mut named: Vec<(ResourceName, Vec<ResourceName>)> = Vec::new();
    let mut at = Vec::new();
    for (i, (value, one)) in values.iter().zip(&read).enumerate() {
        let (name, requires) = match one {
            Some((spec, requires, _)) => (Some(spec.name.clone()), requires.clone()),
            None => name_of(*value),
        };
        let Some(name) = name else { continue };
        let previous = i.checked_sub(1).and_then(|p| name_at(values, &read, p));
        let requires = requires.unwrap_or_else(|| previous.into_iter().collect());
        named.push((name, requires));
        at.push(i);
    }
    let sorted = match graph::sort(&named) {
        Ok(sorted) => sorted,
        Err(errors) => {
            for error in errors {
                report(values, &at, &named, &error);
            }
            return None;
        }
    };
    let mut whole: Vec<Option<Read<K>>> = read;
    if whole.iter().any(Option::is_none) {
        return None;
    }
    let mut specs = Vec::new();
    let mut resources = Vec::new();
    for (place, old) in sorted.order.iter().enumerate() {
        let (mut spec, _, resource) = whole.get_mut(*old)?.take()?;
        spec.requires.clone_from(&sorted.requires[place]);
        specs.push(spec);
        resources.push(resource);
    }
    Some((specs, resources))
}

fn name_of(value: Value<'_>) -> (Option<ResourceName>, Option<Vec<ResourceName>>) {
    // Read again, quietly: what is wrong with it was reported already.
    let name = value.quietly(|fields| fields.optional("name", "")).flatten();
    let requires = value.quietly(|fields| fields.optional("requires", "")).flatten();
    (name, requires)
}

fn name_at<R>(
    values: &[Value<'_>],
    read: &[Option<(ResourceSpec, Option<Vec<ResourceName>>, R)>],
    i: usize,
) -> Option<ResourceName> {
    match &read[i] {
        Some((spec, _, _)) => Some(spec.name.clone()),
        None => name_of(values[i]).0,
    }
}

fn read_resource<K: Kinds>(value: Value<'_>, kinds: &K) -> Option<Read<K>> {
    let known = kinds.resource_kinds();
    let (kind, mut fields) = value.variant(&format!("a resource: one of {}", known.join(", ")))?;
    if !known.contains(&kind) {
        value.unknown_name("kind of resource", kind, known);
        return None;
    }
    let name: Option<ResourceName> = fields.required("name", "the name of the resource");
    let requires: Option<Vec<ResourceName>> = fields.optional("requires", "a list of names of resources");
    let timeouts = read_timeouts(&mut fields);
    let monitor = read_monitor(&mut fields);
    let resource = kinds.resource(kind, &mut fields);
    fields.finish();
    let spec = ResourceSpec {
        name: name?,
        kind: kind.to_owned(),
        requires: Vec::new(),
        timeouts: timeouts?,
        monitor: monitor?,
        fingerprint: Fingerprint(value.digest(&["requires", "timeouts", "monitoring"])),
    };
    Some((spec, requires, resource?))
}

fn read_timeouts(fields: &mut Fields<'_>) -> Option<Timeouts> {
    let default = Timeouts::default();
    let Some(value) = fields.value("timeouts") else { return Some(default) };
    let mut inner = value.fields("timeouts")?;
    let (start, stop) = (span(&mut inner, "start", default.start), span(&mut inner, "stop", default.stop));
    let (monitor, kill) = (span(&mut inner, "monitor", default.monitor), span(&mut inner, "kill", default.kill));
    inner.finish();
    Some(Timeouts { start: start?, stop: stop?, monitor: monitor?, kill: kill? })
}

fn read_monitor(fields: &mut Fields<'_>) -> Option<Monitor> {
    let default = Monitor::default();
    let Some(value) = fields.value("monitoring") else { return Some(default) };
    let mut inner = value.fields("monitoring")?;
    let every = span(&mut inner, "every", default.every);
    let unknowns_tolerated = inner.or("unknowns_tolerated", "a whole number", default.unknowns_tolerated);
    inner.finish();
    Some(Monitor { every: every?, unknowns_tolerated })
}

fn report(values: &[Value<'_>], at: &[usize], named: &[(ResourceName, Vec<ResourceName>)], error: &GraphError) {
    match error {
        GraphError::Twice { first, second } => {
            let message =
                format!("resource {:?} is here twice: first at {}", named[*second].0, values[at[*first]].place());
            values[at[*second]].problem_at("name", &message, None);
        }
        GraphError::Unknown { at: i, requires } => {
            let known: Vec<&str> = named.iter().map(|(n, _)| n.as_str()).collect();
            let message =
                format!("there is no resource {requires:?} in this hierarchy: expected one of {}", known.join(", "));
            values[at[*i]].problem_at("requires", &message, suggest(requires.as_str(), &known));
        }
        GraphError::Cycle(path) => {
            let names: Vec<&str> = path.iter().map(|i| named[*i].0.as_str()).collect();
            let message = format!("these resources require each other in a circle: {}", names.join(" → "));
            let help = "take one of these requirements away; `requires` left out means the resource before it";
            values[at[path[0]]].problem_at("requires", &message, Some(help.to_owned()));
        }
    }
}

/// A digest of a list of texts, for definitions that come from code rather than a file.
pub(super) fn digest_of(parts: &[String]) -> Fingerprint {
    let mut hash = Fnv::default();
    parts.iter().for_each(|p| hash.add(p.as_bytes()));
    Fingerprint(hash.0)
}
