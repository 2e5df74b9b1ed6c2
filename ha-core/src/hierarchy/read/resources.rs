//! The resources of a hierarchy, and the order that they require.
//!
//! Decides what every resource has, whatever its kind. Leaves the rest to [`Kinds`], and the order to the graph.

use super::Kinds;
use super::policy::{read_monitoring, read_timeouts};
use crate::hierarchy::fields::Fields;
use crate::hierarchy::graph::{self, GraphError, Named};
use crate::hierarchy::model::ResourceSpec;
use crate::hierarchy::suggest::suggest;
use crate::hierarchy::value::{Value, one_of};
use crate::name::ResourceName;

/// A resource as far as it could be read: names are compared even where the rest is wrong.
struct Draft<'a, R> {
    name: Option<(ResourceName, Value<'a>)>,
    requires: Requires<'a>,
    whole: Option<(ResourceSpec, R)>,
}

enum Requires<'a> {
    /// Left out: the resource before it in the file.
    Before,
    These(Vec<(ResourceName, Value<'a>)>),
}

/// Reads the list, into the order in which the resources can start.
pub(super) fn read_resources<K: Kinds>(
    values: &[Value<'_>],
    kinds: &K,
) -> Option<(Vec<ResourceSpec>, Vec<K::Resource>)> {
    let drafts: Vec<Draft<'_, K::Resource>> = values.iter().map(|value| read_resource(*value, kinds)).collect();
    let order = sort(&drafts);
    let mut whole: Vec<Option<(ResourceSpec, K::Resource)>> = drafts.into_iter().map(|draft| draft.whole).collect();
    let sorted = order.filter(|_| whole.iter().all(Option::is_some))?;
    let take = |(requires, old): (Vec<usize>, usize)| {
        let (spec, resource) = whole.get_mut(old)?.take()?;
        Some((ResourceSpec { requires, ..spec }, resource))
    };
    let in_order: Option<Vec<_>> = sorted.requires.into_iter().zip(sorted.order).map(take).collect();
    Some(in_order?.into_iter().unzip())
}

fn read_resource<'a, K: Kinds>(value: Value<'a>, kinds: &K) -> Draft<'a, K::Resource> {
    let nothing = Draft { name: None, requires: Requires::Before, whole: None };
    let known = kinds.resource_kinds();
    let Some((kind, mut fields)) = value.variant(&format!("a resource: {}", one_of(known))) else { return nothing };
    if !known.contains(&kind) {
        value.unknown_name_for("kind of resource", kind, known, kinds.resource_kind_for(kind));
        // Which other fields it may have is not known.
        return Draft { name: read_name(&mut fields), requires: read_requires(&mut fields), whole: None };
    }
    let name = read_name(&mut fields);
    let requires = read_requires(&mut fields);
    let timeouts = read_timeouts(&mut fields);
    let monitor = read_monitoring(&mut fields);
    let resource = kinds.resource(kind, &mut fields);
    fields.finish();
    let spec = || {
        Some(ResourceSpec {
            name: name.as_ref()?.0.clone(),
            kind: kind.to_owned(),
            requires: Vec::new(),
            timeouts: timeouts?,
            monitor: monitor?,
            fingerprint: value.digest(&["requires", "timeouts", "monitoring"]),
        })
    };
    Draft { whole: spec().zip(resource), name, requires }
}

fn read_name<'a>(fields: &mut Fields<'a>) -> Option<(ResourceName, Value<'a>)> {
    let expected = "the name of the resource";
    let value = fields.required_value("name", expected)?;
    Some((value.read(expected)?, value))
}

fn read_requires<'a>(fields: &mut Fields<'a>) -> Requires<'a> {
    let Some(value) = fields.value("requires") else { return Requires::Before };
    let mut these: Vec<(ResourceName, Value<'a>)> = Vec::new();
    for value in value.list("a list of names of resources").unwrap_or_default() {
        let Some(name) = value.read::<ResourceName>("the name of a resource") else { continue };
        match these.iter().find(|(earlier, _)| *earlier == name) {
            Some((_, first)) => value.problem_with(&format!("{name:?} is required twice"), first.spot()),
            None => these.push((name, value)),
        }
    }
    Requires::These(these)
}

/// Orders those that have a name, and reports what keeps there from being an order.
fn sort<R>(drafts: &[Draft<'_, R>]) -> Option<graph::Sorted> {
    let mut named: Vec<Named> = Vec::new();
    let mut at = Vec::new();
    for (i, draft) in drafts.iter().enumerate() {
        let Some((name, _)) = &draft.name else { continue };
        let requires = match &draft.requires {
            Requires::These(these) => these.iter().map(|(name, _)| name.clone()).collect(),
            Requires::Before => {
                let before = i.checked_sub(1).and_then(|before| drafts[before].name.as_ref());
                // Of two with one name, the second would require itself: that the name is there twice is said already.
                before.map(|(before, _)| before.clone()).filter(|before| before != name).into_iter().collect()
            }
        };
        named.push((name.clone(), requires));
        at.push(draft);
    }
    let nameless = named.len() < drafts.len();
    match graph::sort(&named) {
        Ok(sorted) => Some(sorted),
        Err(errors) => {
            for error in errors {
                // What is required may be one whose name could not be read.
                if !(nameless && matches!(error, GraphError::Unknown { .. })) {
                    report(&at, &named, &error);
                }
            }
            None
        }
    }
}

fn report<R>(drafts: &[&Draft<'_, R>], named: &[Named], error: &GraphError) {
    let requirement = |at: usize, number: usize| match &drafts[at].requires {
        Requires::These(these) => these.get(number).map(|(_, value)| *value),
        Requires::Before => None,
    };
    let own_name = |at: usize| drafts[at].name.as_ref().map(|(_, value)| *value);
    match error {
        GraphError::Twice { first, second } => {
            if let Some((second_name, first_name)) = own_name(*second).zip(own_name(*first)) {
                let message = format!("resource {:?} is here twice", named[*second].0);
                second_name.problem_with(&message, first_name.spot());
            }
        }
        GraphError::Itself { at, requirement: number } => {
            if let Some(value) = requirement(*at, *number) {
                let help = "take it away; `requires: []` means only the claim".to_owned();
                value.problem(&format!("resource {:?} requires itself", named[*at].0), Some(help));
            }
        }
        GraphError::Unknown { at, requirement: number } => {
            if let Some(value) = requirement(*at, *number) {
                let own = &named[*at].0;
                let known: Vec<&str> =
                    named.iter().map(|(name, _)| name.as_str()).filter(|n| *n != own.as_str()).collect();
                let wanted = &named[*at].1[*number];
                let message = format!("there is no resource {wanted:?} in this hierarchy: expected {}", one_of(&known));
                value.problem(&message, suggest(wanted.as_str(), known));
            }
        }
        GraphError::Cycle(path) => {
            let shown: Vec<&str> = path.iter().map(|at| named[*at].0.as_str()).collect();
            let message = format!("these resources require each other in a circle: {}", shown.join(" → "));
            let help =
                "take one of these requirements away; `requires` left out means the resource before it".to_owned();
            let next = &named[path[1]].0;
            let written = named[path[0]].1.iter().position(|name| name == next);
            let value = written.and_then(|number| requirement(path[0], number)).or_else(|| own_name(path[0]));
            if let Some(value) = value {
                value.problem(&message, Some(help));
            }
        }
    }
}
