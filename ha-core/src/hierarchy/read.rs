//! Hierarchies from RON files.
//!
//! Decides the fields that every hierarchy and every resource has, and `Spread` among the probes, which only the engine can measure. Leaves the
//! fields of each kind of resource, claim and probe to [`Kinds`].

mod policy;
mod resources;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use self::policy::read_policy;
use self::resources::read_resources;
use super::diagnostics::{Diagnostics, Severity, Spot};
use super::fields::Fields;
use super::model::Hierarchy;
use super::source::Source;
use super::value::{Value, one_of, read_value};
use crate::name::{GroupName, HierarchyName, NodeName};

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

    /// The kind of resource for what somebody calls by another word, one that other programs use perhaps: it is suggested where that word is written. The
    /// default is that none is known, and what is suggested is the kind whose name is nearly the same.
    fn resource_kind_for(&self, _word: &str) -> Option<&'static str> {
        None
    }

    /// The nodes of the cluster, if they are known here: a hierarchy that names another one is then refused. The default is that
    /// they are not.
    fn cluster_nodes(&self) -> Option<&[NodeName]> {
        None
    }

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
    let mut names = BTreeMap::new();
    for source in sources {
        let (found, diagnostics) = read_value(source, |value| Some(read_file(value, kinds, &mut names)));
        reading.loaded.extend(found.into_iter().flatten());
        reading.diagnostics.extend(diagnostics);
    }
    reading
}

/// Reads every `*.ron` file of a directory, in the order of their names; hidden files are left alone.
pub fn read_directory<K: Kinds>(directory: &Path, kinds: &K) -> Reading<K> {
    let mut diagnostics = Diagnostics::new();
    let mut sources = Vec::new();
    match ron_files(directory) {
        Ok(files) => {
            for file in files {
                match Source::read(&file) {
                    Ok(source) => sources.push(source),
                    Err(wrong) => diagnostics.extend(wrong),
                }
            }
        }
        Err(error) => {
            let message = format!("the directory of hierarchies cannot be read: {error}");
            let help = Some("create the directory, or name another one".to_owned());
            diagnostics.add(&directory.display().to_string(), Severity::Error, message, help);
        }
    }
    let mut reading = read_sources(&sources, kinds);
    reading.diagnostics.extend(diagnostics);
    reading
}

fn ron_files(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|extension| extension == "ron") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read_file<K: Kinds>(value: Value<'_>, kinds: &K, names: &mut BTreeMap<HierarchyName, Spot>) -> Vec<Loaded<K>> {
    let values = if value.is_list() { value.list("hierarchies").unwrap_or_default() } else { vec![value] };
    let mut loaded = Vec::new();
    for value in values {
        // A reader may go on after an error, in order to find more of them; what it makes is not whole.
        let found = read_hierarchy(value, kinds, names);
        loaded.extend(found.filter(|_| !value.has_errors()));
    }
    loaded
}

fn read_hierarchy<K: Kinds>(
    value: Value<'_>,
    kinds: &K,
    names: &mut BTreeMap<HierarchyName, Spot>,
) -> Option<Loaded<K>> {
    let (word, mut fields) = value.variant("`Hierarchy(…)`")?;
    if word != "Hierarchy" {
        value.unknown_name("thing to define", word, &["Hierarchy"]);
        return None;
    }
    let name = read_name(&mut fields, names);
    let nodes = read_nodes(&mut fields, kinds.cluster_nodes());
    let claim_value = fields.required_value("claim", "what the hierarchy is owned by, such as `LockArea(\"main\")`");
    let claim = claim_value.and_then(|v| read_kind(v, "claim", kinds.claim_kinds(), |k, f| kinds.claim(k, f)));
    let probes = read_probes(&mut fields, kinds);
    let (probes, spread) = probes.map_or((None, None), |(probes, spread)| (Some(probes), spread));
    let policy = read_policy(&mut fields, spread);
    let resources = fields
        .required_value("resources", "a list of resources, such as `[Process(…)]`")
        .and_then(|v| v.list("a list of resources, such as `[Process(…)]`"))
        .and_then(|values| read_resources(&values, kinds));
    fields.finish();
    let (specs, resources) = resources?;
    let hierarchy = Hierarchy {
        name: name?,
        nodes: nodes?,
        resources: specs,
        policy: policy?,
        claim: claim_value?.digest(&[]),
        fingerprint: value.digest(&[]),
    };
    let origin = format!("{}, {}", value.problems.source().name(), value.place());
    Some(Loaded { hierarchy, claim: claim?, probes: probes?, resources, origin })
}

fn read_name(fields: &mut Fields<'_>, names: &mut BTreeMap<HierarchyName, Spot>) -> Option<HierarchyName> {
    let expected = "the name of the hierarchy";
    let value = fields.required_value("name", expected)?;
    let name: HierarchyName = value.read(expected)?;
    match names.get(&name) {
        Some(first) => value.problem_with(&format!("hierarchy {name:?} is defined twice"), first.clone()),
        None => {
            names.insert(name.clone(), value.spot());
        }
    }
    Some(name)
}

/// Reads `Kind(…)`, where the kind must be one of those known.
fn read_kind<T>(
    value: Value<'_>,
    what: &str,
    known: &[&'static str],
    read: impl FnOnce(&str, &mut Fields<'_>) -> Option<T>,
) -> Option<T> {
    let (kind, mut fields) = value.variant(&format!("a {what}: {}", one_of(known)))?;
    if !known.contains(&kind) {
        value.unknown_name(what, kind, known);
        return None;
    }
    let found = read(kind, &mut fields);
    fields.finish();
    found
}

fn read_nodes(fields: &mut Fields<'_>, cluster: Option<&[NodeName]>) -> Option<Vec<NodeName>> {
    let expected = "a list of nodes, the preferred one first";
    let list = fields.required_value("nodes", expected)?;
    let values = list.list(expected)?;
    if values.is_empty() {
        list.problem("a hierarchy needs nodes that may serve it: expected at least one", None);
    }
    let mut nodes: Vec<(NodeName, Value<'_>)> = Vec::new();
    for value in values {
        let Some(node) = value.read::<NodeName>("the name of a node") else { continue };
        if let Some(cluster) = cluster.filter(|cluster| !cluster.contains(&node)) {
            let known: Vec<&str> = cluster.iter().map(NodeName::as_str).collect();
            value.unknown_name("node of this cluster", node.as_str(), &known);
        }
        match nodes.iter().find(|(earlier, _)| *earlier == node) {
            Some((_, first)) => value.problem_with(&format!("node {node:?} is listed twice"), first.spot()),
            None => nodes.push((node, value)),
        }
    }
    Some(nodes.into_iter().map(|(node, _)| node).collect())
}

fn read_probes<'a, K: Kinds>(fields: &mut Fields<'a>, kinds: &K) -> Option<Utility<'a, K::Probe>> {
    let Some(value) = fields.value("utility") else { return Some((Vec::new(), None)) };
    let values = value.list("a list of probes, such as `[Ping(\"10.0.0.254\")]`")?;
    let known: Vec<&'static str> = kinds.probe_kinds().iter().copied().chain([SPREAD]).collect();
    let mut spread: Option<(GroupName, Value<'_>)> = None;
    let mut probes = Vec::new();
    for value in values {
        let read = read_kind(value, "probe", &known, |kind, fields| match kind {
            SPREAD => fields.only_or("group", "the name of a group of hierarchies").map(Measure::Spread),
            kind => kinds.probe(kind, fields).map(Measure::Probe),
        });
        match read {
            Some(Measure::Probe(probe)) => probes.push(Some(probe)),
            Some(Measure::Spread(group)) => match &spread {
                Some((_, first)) => value.problem_with("a hierarchy is in one group only", first.spot()),
                None => spread = Some((group, value)),
            },
            None => probes.push(None),
        }
    }
    Some((probes.into_iter().collect::<Option<_>>()?, spread))
}

/// What the utility comes from.
enum Measure<P> {
    Probe(P),
    Spread(GroupName),
}

const SPREAD: &str = "Spread";

/// The probes, and the group that the hierarchy is spread with, with its place.
type Utility<'a, P> = (Vec<P>, Option<(GroupName, Value<'a>)>);
