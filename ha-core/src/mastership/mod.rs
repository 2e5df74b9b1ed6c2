//! Is this node the master of a hierarchy? A pure function of what it knows, with its reasons in order.
//!
//! Decides the [`Standing`] from contact, announcements and the node's own state. Leaves to [`crate::recovery`] what to do about it,
//! and to the claim the final word: nodes may race, one wins.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::claim::{Belief, Beliefs};
use crate::contact::{AnnouncedPhase, Announcement, Directive};
use crate::hierarchy::{Fingerprint, Hierarchy, Rank};
use crate::name::{NodeName, Utility};
use crate::time::Time;

/// What a node concludes about itself for one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// It holds the claim.
    Owner,
    /// Another node serves it, or is to.
    Behind(NodeName),
    /// Contact with every node that ranks higher is lost, and nobody in contact serves it: this node claims.
    Candidate,
    /// It may not serve it now.
    Excluded(Excluded),
}

/// Why a node may not serve a hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Excluded {
    /// It is not in the hierarchy's list of nodes.
    NotListed,
    /// An operator stopped the hierarchy.
    Stopped,
    /// It is in quarantine.
    Quarantined,
    /// It is in maintenance: hands off.
    Maintenance,
    /// The node is in standby.
    Standby,
    /// It failed here and is left to others that can serve it.
    Declined,
    /// Its utility here is zero.
    NoUtility,
    /// Something that it needs is lacking here.
    NotReady,
    /// It is defined in another way on the node that serves it.
    DefinitionDiffers(NodeName),
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Standing::Owner => f.write_str("owner"),
            Standing::Behind(node) => write!(f, "behind {node}"),
            Standing::Candidate => f.write_str("candidate"),
            Standing::Excluded(why) => write!(f, "excluded: {why}"),
        }
    }
}

impl fmt::Display for Excluded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Excluded::NotListed => f.write_str("not one of its nodes"),
            Excluded::Stopped => f.write_str("stopped by an operator"),
            Excluded::Quarantined => f.write_str("in quarantine"),
            Excluded::Maintenance => f.write_str("in maintenance"),
            Excluded::Standby => f.write_str("the node is in standby"),
            Excluded::Declined => f.write_str("declined here"),
            Excluded::NoUtility => f.write_str("utility 0 here"),
            Excluded::NotReady => f.write_str("not ready here"),
            Excluded::DefinitionDiffers(node) => write!(f, "defined differently on {node}"),
        }
    }
}

/// One fact that led to a standing; [`fmt::Display`] gives it as a sentence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fact(pub String);

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What this node knows of itself.
#[derive(Clone, Debug)]
pub struct Own<'a> {
    /// Its name.
    pub name: &'a NodeName,
    /// It holds the claim.
    pub holds: bool,
    /// Its utility.
    pub utility: Utility,
    /// Why it declines, if it does.
    pub declined: Option<&'a str>,
    /// What it is lacking, if anything.
    pub unready: Option<&'a str>,
    /// Why it is in standby, if it is.
    pub standby: Option<&'a str>,
}

/// How another node is heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hearing {
    /// Heard, directly or by one hop of hearsay, or through storage.
    InContact,
    /// Not heard since this node began, and the grace for that is not over.
    Awaited,
    /// Silent for too long.
    Lost,
    /// Said goodbye.
    Left,
    /// Silent, and proven to have been switched off since it was last heard.
    Fenced {
        /// When the fencing began.
        begun: Time,
    },
}

/// What this node knows of another one.
#[derive(Clone, Debug)]
pub struct Other<'a> {
    /// Its name.
    pub name: &'a NodeName,
    /// How it is heard.
    pub hearing: Hearing,
    /// What it last said of the hierarchy.
    pub announced: Option<&'a Announcement>,
    /// All that it has to tell has arrived: what it did not announce it does not know.
    pub synced: bool,
    /// Why it is in standby, if it said so.
    pub standby: Option<&'a str>,
}

/// All that the standing is made from.
#[derive(Clone, Debug)]
pub struct View<'a> {
    /// The hierarchy.
    pub hierarchy: &'a Hierarchy,
    /// What operators want of it.
    pub directive: &'a Directive,
    /// This node.
    pub own: Own<'a>,
    /// The other nodes of the hierarchy's list (others are ignored), in any order.
    pub others: Vec<Other<'a>>,
}

/// What [`standing`] found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judgement {
    /// The conclusion.
    pub standing: Standing,
    /// The facts that led to it, in order.
    pub facts: Vec<Fact>,
    /// Why this node would not be eligible if it did not hold the claim. Set for an owner only.
    pub unfit: Option<Excluded>,
    /// The other nodes that are in contact and could serve it, the best first.
    pub able: Vec<NodeName>,
    /// The best of them: where to hand it over to.
    pub best_other: Option<NodeName>,
    /// Set for an owner: a node that ranks higher, is in contact and could serve it.
    pub better: Option<NodeName>,
}

/// Works out where this node stands. Same view, same answer.
pub fn standing(view: &View<'_>) -> Judgement {
    let mut facts = Facts::default();
    let ranked = rank(view);
    let me = view.own.name;
    facts.add(format!("nodes in order of rank: {}", names(ranked.iter().map(|r| r.name))));
    let usable: Vec<&NodeName> = ranked
        .iter()
        .filter_map(|r| view.others.iter().find(|o| o.name == r.name))
        .filter(|o| o.hearing == Hearing::InContact && o.announced.is_some() && ineligible(view, o).is_none())
        .map(|o| o.name)
        .collect();
    let best_other = usable.first().map(|n| (*n).clone());
    let my_rank = ranked.iter().position(|r| r.name == me).unwrap_or(usize::MAX);
    let better = best_other.clone().filter(|b| outranks(view, &ranked, b, my_rank));
    let able: Vec<NodeName> = usable.iter().map(|n| (*n).clone()).collect();
    let unfit = if view.own.holds { excluded(view, best_other.as_ref(), &mut Facts::default()) } else { None };
    let judge = |standing, facts: Facts| Judgement {
        standing,
        facts: facts.0,
        unfit: unfit.clone(),
        able: able.clone(),
        best_other: best_other.clone(),
        better: better.clone(),
    };
    if view.own.holds {
        facts.add(format!("{me} holds the claim"));
        return judge(Standing::Owner, facts);
    }
    if let Some(why) = excluded(view, best_other.as_ref(), &mut facts) {
        return judge(Standing::Excluded(why), facts);
    }
    if let Some(server) = served_in_contact(view, &mut facts) {
        return judge(Standing::Behind(server), facts);
    }
    match heir(view, &mut facts) {
        Heir::Me => return judge(Standing::Candidate, facts),
        Heir::Other(node) => return judge(Standing::Behind(node), facts),
        Heir::Nobody => {}
    }
    for above in &ranked {
        if above.name == me {
            break;
        }
        let Some(other) = view.others.iter().find(|o| o.name == above.name) else { continue };
        let name = other.name;
        match (other.hearing, ineligible(view, other)) {
            (Hearing::Lost, _) => facts.add(format!("{name} ranks higher, but contact with it is lost")),
            (Hearing::Left, _) => facts.add(format!("{name} ranks higher, but it said goodbye")),
            (Hearing::Fenced { .. }, _) => {
                facts.add(format!("{name} ranks higher, but it was fenced and is proven to be off"))
            }
            (Hearing::Awaited, _) => {
                facts.add(format!("{name} ranks higher and has not been heard since this agent began: waiting for it"));
                return judge(Standing::Behind(name.clone()), facts);
            }
            (Hearing::InContact, Some(why)) => facts.add(format!("{name} ranks higher, but {why}")),
            (Hearing::InContact, None) => {
                facts.add(format!("{name} ranks higher, is in contact and eligible"));
                return judge(Standing::Behind(name.clone()), facts);
            }
        }
    }
    facts.add(format!("no node that ranks higher than {me} is left, and none in contact serves the hierarchy"));
    judge(Standing::Candidate, facts)
}

/// What this node believes of the others as far as the claim of this hierarchy goes.
pub fn beliefs(view: &View<'_>) -> Beliefs {
    let believe = |o: &Other<'_>| match (o.hearing, o.announced) {
        (Hearing::InContact, Some(a)) if a.phase.holds_claim() || a.phase == AnnouncedPhase::Claiming => Belief::Heard,
        (Hearing::InContact, None) if !o.synced => Belief::Heard,
        (Hearing::Left, _) => Belief::Gone,
        (Hearing::Fenced { begun }, _) => Belief::Fenced { begun },
        // One in contact that says that it does not serve may have won the claim since, with its word still on the way:
        // the claim itself finds out whether it defends it.
        (Hearing::InContact | Hearing::Lost | Hearing::Awaited, _) => Belief::Lost,
    };
    view.others.iter().map(|o| (o.name.clone(), believe(o))).collect::<std::collections::BTreeMap<_, _>>().into()
}

#[derive(Default)]
struct Facts(Vec<Fact>);

impl Facts {
    fn add(&mut self, fact: String) {
        self.0.push(Fact(fact));
    }
}

struct Ranked<'a> {
    name: &'a NodeName,
    position: usize,
    utility: u8,
}

/// Nodes by (pin, utility where it ranks, position in the priority list).
fn rank<'a>(view: &View<'a>) -> Vec<Ranked<'a>> {
    let utility_of = |name: &NodeName| {
        if name == view.own.name {
            view.own.utility.get()
        } else {
            let announced = view.others.iter().find(|o| o.name == name).and_then(|o| o.announced);
            announced.map_or(Utility::FULL.get(), |a| a.utility.get())
        }
    };
    let mut ranked: Vec<Ranked<'a>> = view
        .hierarchy
        .nodes
        .iter()
        .enumerate()
        .map(|(position, name)| Ranked { name, position, utility: utility_of(name) })
        .collect();
    let pin = view.directive.pin.as_ref();
    match &view.hierarchy.policy.rank {
        Rank::Priority => ranked.sort_by_key(|r| (pin != Some(r.name), r.position)),
        // In steps of the margin, so that "better by less than the margin" is not an order at all.
        Rank::Utility { margin, .. } => {
            let step = |r: &Ranked<'_>| r.utility / margin.max(&1);
            ranked.sort_by_key(|r| (pin != Some(r.name), std::cmp::Reverse(step(r)), r.position));
        }
    }
    ranked
}

/// Whether `other` ranks above this node by enough to move a hierarchy that is in service.
fn outranks(view: &View<'_>, ranked: &[Ranked<'_>], other: &NodeName, my_rank: usize) -> bool {
    let Some(rank) = ranked.iter().position(|r| r.name == other) else { return false };
    if rank >= my_rank {
        return false;
    }
    let pinned = view.directive.pin.as_ref() == Some(other);
    match (&view.hierarchy.policy.rank, ranked.get(my_rank)) {
        (Rank::Utility { margin, .. }, Some(mine)) if !pinned => {
            ranked[rank].utility >= mine.utility.saturating_add(*margin)
        }
        _ => true,
    }
}

/// Why another node would not take the hierarchy.
pub(crate) fn ineligible(view: &View<'_>, other: &Other<'_>) -> Option<String> {
    if let Some(why) = other.standby {
        return Some(format!("it is in standby ({why})"));
    }
    let Some(announced) = other.announced else {
        return other.synced.then(|| "it does not know the hierarchy".to_owned());
    };
    if announced.utility == Utility::NONE {
        return Some("its utility is 0".to_owned());
    }
    if let Some(lacking) = &announced.unready {
        return Some(format!("it is not ready: {lacking}"));
    }
    if let Some(declined) = &announced.declined {
        return Some(format!("it declined: {}", declined.why));
    }
    if announced.definition != view.hierarchy.fingerprint && announced.definition != Fingerprint::default() {
        return Some("it defines the hierarchy differently".to_owned());
    }
    None
}

fn excluded(view: &View<'_>, best_other: Option<&NodeName>, facts: &mut Facts) -> Option<Excluded> {
    let me = view.own.name;
    let directive = view.directive;
    let by = if directive.by.is_empty() { "an operator" } else { directive.by.as_str() };
    if !view.hierarchy.nodes.contains(me) {
        facts.add(format!("{me} is not one of its nodes"));
        return Some(Excluded::NotListed);
    }
    if directive.maintenance {
        facts.add(format!("in maintenance, by {by}"));
        return Some(Excluded::Maintenance);
    }
    if directive.stopped {
        facts.add(format!("stopped, by {by}; `ha start {}` ends that", view.hierarchy.name));
        return Some(Excluded::Stopped);
    }
    if let Some(why) = &directive.quarantined {
        facts.add(format!("in quarantine: {why}; `ha clear {}` ends that", view.hierarchy.name));
        return Some(Excluded::Quarantined);
    }
    if let Some(why) = view.own.standby {
        facts.add(format!("{me} is in standby: {why}"));
        return Some(Excluded::Standby);
    }
    if view.own.utility == Utility::NONE {
        facts.add(format!("the utility of {me} is 0: it could not serve"));
        return Some(Excluded::NoUtility);
    }
    if let Some(lacking) = view.own.unready {
        facts.add(format!("{me} is not ready: {lacking}"));
        return Some(Excluded::NotReady);
    }
    if let Some(server) = view.others.iter().find(|o| {
        o.hearing == Hearing::InContact
            && o.announced.is_some_and(|a| a.phase.holds_claim() && a.definition != view.hierarchy.fingerprint)
    }) {
        facts.add(format!("{} serves it, and defines it differently: compare the files of both nodes", server.name));
        return Some(Excluded::DefinitionDiffers(server.name.clone()));
    }
    if let Some(why) = view.own.declined {
        match best_other {
            Some(other) => {
                facts.add(format!("{me} declined ({why}), and {other} can serve it"));
                return Some(Excluded::Declined);
            }
            // The last node that could serve it is never excluded for an earlier failure.
            None => facts.add(format!("{me} declined ({why}), but no other node in contact can serve it")),
        }
    }
    None
}

fn served_in_contact(view: &View<'_>, facts: &mut Facts) -> Option<NodeName> {
    let serving =
        |o: &&Other<'_>| o.hearing == Hearing::InContact && o.announced.is_some_and(|a| a.phase.holds_claim());
    let server = view.others.iter().find(serving)?;
    let phase = server.announced.map_or_else(String::new, |a| a.phase.to_string());
    facts.add(format!("{} holds the claim ({phase}) and is in contact", server.name));
    Some(server.name.clone())
}

enum Heir {
    Me,
    Other(NodeName),
    Nobody,
}

fn heir(view: &View<'_>, facts: &mut Facts) -> Heir {
    for other in &view.others {
        let Some(heir) = other.announced.and_then(|a| a.heir.as_ref()) else { continue };
        if other.hearing != Hearing::InContact {
            continue;
        }
        if heir == view.own.name {
            facts.add(format!("{} handed the claim to {heir}", other.name));
            return Heir::Me;
        }
        let waiting = view.others.iter().find(|o| o.name == heir && o.hearing == Hearing::InContact);
        if let Some(waiting) = waiting.filter(|o| ineligible(view, o).is_none()) {
            facts.add(format!("{} handed the claim to {}, which is in contact", other.name, waiting.name));
            return Heir::Other(waiting.name.clone());
        }
    }
    Heir::Nobody
}

fn names<'a>(names: impl Iterator<Item = &'a NodeName>) -> String {
    names.map(NodeName::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
