//! Puts together what mastership needs to know of one hierarchy, and tells the others what came of it.

use serde::{Deserialize, Serialize};

use super::leases::Lease;
use super::{Engine, Entry, Unproven};
use crate::claim::{Beliefs, Storage};
use crate::contact::{
    AnnouncedPhase, Announcement, Declined, Disturbance, DisturbanceKind, Peer, PeerState, STORAGE_BYTES_MAX,
};
use crate::mastership::{self, Excluded, Hearing, Judgement, Other, Own, Standing, View};
use crate::name::{Epoch, HierarchyName, NodeName};
use crate::record::{Happened, Wish};
use crate::time::Time;

/// What was told of another node that holds the claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Elsewhere {
    phase: AnnouncedPhase,
    epoch: Epoch,
    disturbance: Option<Disturbance>,
}

pub(super) fn nothing_known() -> Judgement {
    Judgement {
        standing: Standing::Excluded(Excluded::NotReady),
        facts: Vec::new(),
        unfit: None,
        able: Vec::new(),
        best_other: None,
        better: None,
    }
}

impl Engine {
    pub(super) fn judge(&mut self, name: &HierarchyName) {
        let Some(entry) = self.entries.get(name) else { return };
        let unready = self.unready(entry);
        let judgement = mastership::standing(&self.view(entry, unready.as_deref()));
        if let Some(entry) = self.entries.get_mut(name) {
            entry.judgement = judgement;
        }
        self.end_pin(name);
        let heir_took_over = self.heir_took_over(name);
        self.with_life(name, |life, around, now, out| {
            if heir_took_over {
                life.heir = None;
            }
            life.judged(around, now, out);
        });
    }

    /// A pin lasts until its node fails: once this node has the hierarchy in service because that one could not, it is over.
    fn end_pin(&mut self, name: &HierarchyName) {
        let Some(entry) = self.entries.get(name) else { return };
        let Some(pin) = entry.directive.pin.as_ref().filter(|p| *p != self.contact.me()) else { return };
        let serves = entry.life.announced_phase() == AnnouncedPhase::InService;
        if !serves || entry.judgement.able.contains(pin) || entry.directive.maintenance {
            return;
        }
        let what = format!("the pin to {pin} has ended: it cannot serve");
        let by = format!("ha@{}", self.contact.me());
        self.direct(name, &by, "", Some(&what), |d| d.pin = None);
    }

    pub(super) fn beliefs(&self, name: &HierarchyName) -> Beliefs {
        match self.entries.get(name) {
            Some(entry) => mastership::beliefs(&self.view(entry, None)),
            None => Beliefs::default(),
        }
    }

    /// What keeps this node from serving: its own readiness, or the claim's storage.
    pub(super) fn unready(&self, entry: &Entry) -> Option<String> {
        if let Some(lacking) = &entry.lacking {
            return Some(lacking.clone());
        }
        if let Some(hangs) = entry.life.hangs() {
            return Some(hangs);
        }
        if let Some(trouble) = &entry.life.claim_trouble {
            return Some(trouble.clone());
        }
        if let Some(differs) = self.other_storage(entry) {
            return Some(differs);
        }
        let lease = self.leases.get(entry.lease.as_ref()?)?;
        if lease.is_good {
            return None;
        }
        let name = entry.lease.as_deref().unwrap_or_default();
        Some(match &lease.trouble {
            Some(trouble) => format!("lease {name} is not held: {trouble}"),
            None if lease.until.is_some() => format!("lease {name} is about to end: no renewal was acknowledged"),
            None => format!("lease {name} is not held yet"),
        })
    }

    /// A node in contact reaches the claim through other storage than this one: both could hold what they reach, and neither knows which of
    /// the two is meant.
    fn other_storage(&self, entry: &Entry) -> Option<String> {
        let hierarchy = &entry.life.hierarchy;
        let mut others = hierarchy.nodes.iter().filter(|node| *node != self.me() && self.contact.in_contact(node));
        others.find_map(|node| {
            let told = self.contact.peer(node)?.announcement(&hierarchy.name)?;
            let theirs = told.storage.as_deref()?;
            // Where the definitions differ, that is what is told.
            if entry.storage.is_empty() || theirs == in_one(&entry.storage) || told.definition != hierarchy.fingerprint
            {
                return None;
            }
            let differs = |(mine, theirs): (&Storage, &str)| {
                let (name, identity) = (&mine.name, &mine.identity);
                match theirs.strip_prefix(DIGEST) {
                    _ if theirs == identity || theirs == digest(identity) => None,
                    Some(_) => Some(format!("{name} is {identity} here and another one on {node}")),
                    None => Some(format!("{name} is {identity} here and {theirs} on {node}")),
                }
            };
            let what = entry.storage.iter().zip(theirs.split(BETWEEN)).find_map(differs);
            let what = what.unwrap_or_else(|| format!("the disks of the claim are others on {node} than here"));
            Some(format!("{what}, which is not the same disk: {OTHER_DISK_REMEDY}"))
        })
    }

    /// The same, as others should know it. A lease that is only being entered when a node begins is nothing to tell: others would take
    /// over what this node is preferred for, a moment before it could serve.
    fn unready_to_others(&self, entry: &Entry) -> Option<String> {
        let lease = entry.lease.as_ref().and_then(|l| self.leases.get(l));
        let entering = lease.is_some_and(Lease::is_being_entered);
        let beginning = self.now.since(self.begun) < self.config.contact.timing.startup_grace;
        if entering && beginning && entry.lacking.is_none() && entry.life.claim_trouble.is_none() {
            return None;
        }
        self.unready(entry).map(|u| u.chars().take(150).collect())
    }

    pub(super) fn view<'a>(&'a self, entry: &'a Entry, unready: Option<&'a str>) -> View<'a> {
        let me = self.contact.me();
        let hierarchy = &*entry.life.hierarchy;
        View {
            hierarchy,
            directive: &entry.directive,
            own: Own {
                name: me,
                holds: entry.life.holds(),
                utility: entry.utility(),
                declined: entry.life.declined.as_ref().map(|d| d.why.as_str()),
                unready,
                standby: if entry.retiring {
                    Some("the hierarchy is being redefined here")
                } else {
                    self.standby.as_deref()
                },
            },
            others: hierarchy
                .nodes
                .iter()
                .filter(|n| *n != me)
                .filter_map(|n| self.contact.peer(n))
                .map(|peer| self.other(peer, &hierarchy.name))
                .collect(),
        }
    }

    fn other<'a>(&self, peer: &'a Peer, hierarchy: &HierarchyName) -> Other<'a> {
        let hearing = match peer.state() {
            PeerState::Alive | PeerState::Late => Hearing::InContact,
            PeerState::Unknown if self.contact.settled() => Hearing::Lost,
            PeerState::Unknown => Hearing::Awaited,
            PeerState::Lost { .. } => self.fenced(peer).map_or(Hearing::Lost, |begun| Hearing::Fenced { begun }),
            PeerState::Left => Hearing::Left,
        };
        Other {
            name: peer.name(),
            hearing,
            announced: peer.announcement(hierarchy),
            synced: peer.synced(),
            standby: peer.node_announcement().and_then(|a| a.standby.as_deref()),
        }
    }

    /// Who had it in service before, as far as is known; with the time when it was last heard, if it is lost.
    pub(super) fn served_before(&self, name: &HierarchyName) -> Option<(NodeName, Option<Time>)> {
        let entry = self.entries.get(name)?;
        let mut lost: Option<(Epoch, NodeName, Option<Time>)> = None;
        let mut left = None;
        for node in &entry.life.hierarchy.nodes {
            let Some(peer) = self.contact.peer(node) else { continue };
            let Some(announced) = peer.announcement(name) else { continue };
            if announced.heir.as_ref() == Some(self.contact.me()) && peer.in_contact() {
                return Some((node.clone(), None));
            }
            let silent = matches!(peer.state(), PeerState::Lost { .. });
            // Of several that fell silent the one of the last tenure.
            if silent && announced.phase.holds_claim() && lost.as_ref().is_none_or(|(e, ..)| announced.epoch > *e) {
                lost = Some((announced.epoch, node.clone(), peer.last_heard()));
            } else if announced.phase == AnnouncedPhase::Stopping || matches!(peer.state(), PeerState::Left) {
                left = Some((node.clone(), None));
            }
        }
        lost.map(|(_, node, heard)| (node, heard)).or(left)
    }

    fn heir_took_over(&self, name: &HierarchyName) -> bool {
        let Some(entry) = self.entries.get(name) else { return false };
        let Some(heir) = &entry.life.heir else { return false };
        match self.contact.peer(heir) {
            Some(peer) => {
                !peer.in_contact()
                    || peer.announcement(name).is_some_and(|a| a.phase.holds_claim() && a.epoch >= entry.life.known)
            }
            None => true,
        }
    }

    /// A peer told something new of a hierarchy.
    pub(super) fn announced(&mut self, peer: &NodeName, name: &HierarchyName) {
        let Some(announced) = self.contact.announcement(peer, name).cloned() else { return };
        let now = self.now;
        let Some(entry) = self.entries.get_mut(name) else { return };
        entry.life.known = entry.life.known.max(announced.epoch);
        if announced.phase == AnnouncedPhase::InService && !entry.life.holds() {
            entry.life.agree_on_failures(announced.failures, now);
        } else if entry.life.announced_phase() != AnnouncedPhase::InService {
            // One that has it in service knows better.
            entry.life.remember_failures(announced.failures, now);
        }
        if !announced.phase.holds_claim() {
            entry.life.hurry();
        }
        if announced.directive.is_later_than(&entry.directive) {
            let what = super::asked::describe(&entry.directive, &announced.directive);
            let cleared = announced.directive.cleared > entry.directive.cleared;
            let hands_on_again = entry.directive.maintenance && !announced.directive.maintenance;
            let (by, reason) = (announced.directive.by.clone(), announced.directive.reason.clone());
            let wish = Wish::between(&entry.directive, &announced.directive);
            entry.directive = announced.directive.clone();
            self.tell(Some(name), Happened::Directive { what, by, reason, wish });
            if cleared {
                self.with_life(name, |life, _, now, out| life.clear(now, out));
            }
            if hands_on_again {
                self.with_life(name, |life, _, now, out| life.monitor_all(now, out));
            }
            self.remember(name);
        }
        self.tell_of(peer, name, &announced);
        self.mind_stuck(peer, name);
        if announced.phase == AnnouncedPhase::Waiting {
            self.look_who_holds(name);
        }
        self.dirty.insert(name.clone());
    }

    /// Tells what is new of a node that holds the claim, and when it holds it no more.
    fn tell_of(&mut self, peer: &NodeName, name: &HierarchyName, announced: &Announcement) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        let news =
            Elsewhere { phase: announced.phase, epoch: announced.epoch, disturbance: announced.disturbance.clone() };
        let is_new = if announced.phase.holds_claim() {
            entry.elsewhere.insert(peer.clone(), news.clone()).as_ref() != Some(&news)
        } else {
            entry.elsewhere.remove(peer).is_some()
        };
        if is_new {
            let Elsewhere { phase, epoch, disturbance } = news;
            self.tell(Some(name), Happened::Peer { peer: peer.clone(), phase, epoch, disturbance });
        }
    }

    /// A peer waits for a claim that nobody in contact says to hold. It may be this node's without its knowledge: decided in its favour when
    /// it had given up, or handed to it when it did not want it.
    fn look_who_holds(&mut self, name: &HierarchyName) {
        let Some(entry) = self.entries.get(name) else { return };
        let nodes = entry.life.hierarchy.nodes.iter().filter_map(|node| self.contact.peer(node));
        let holds = |peer: &Peer| peer.announcement(name).is_some_and(|a| a.phase.holds_claim());
        let held = nodes.into_iter().any(|peer| peer.in_contact() && holds(peer));
        if !held && entry.life.announced_phase() == AnnouncedPhase::Out {
            self.with_life(name, |life, _, _, out| life.inspect(out));
        }
    }

    /// Tells the others where this node stands, if that changed.
    pub(super) fn announce(&mut self, name: &HierarchyName) {
        let Some(entry) = self.entries.get(name) else { return };
        let life = &entry.life;
        let declined = life.declined.as_ref().map(|d| Declined {
            why: d.why.clone(),
            for_ms: Some(u64::try_from(d.lasts.as_millis()).unwrap_or(u64::MAX)),
        });
        let announcement = Announcement {
            phase: life.announced_phase(),
            epoch: life.held.map_or(life.known, |h| h.epoch),
            utility: entry.utility(),
            declined,
            unready: if life.holds() { None } else { self.unready_to_others(entry) },
            failures: life.early_told(),
            directive: entry.directive.clone(),
            definition: life.hierarchy.fingerprint,
            heir: life.heir.clone(),
            disturbance: life.disturbance.clone().or_else(|| {
                let Unproven { since, noticed, why } = entry.unproven.clone()?;
                let told_after_ms = u32::try_from(noticed.since(since).as_millis()).unwrap_or(u32::MAX);
                Some(Disturbance { kind: DisturbanceKind::Unproven, why, told_after_ms })
            }),
            storage: (!entry.storage.is_empty()).then(|| in_one(&entry.storage)),
        };
        self.contact.set_announcement(self.now, name, announcement);
    }
}

/// A disk stays open, so the agent goes on with the one that it has found.
const OTHER_DISK_REMEDY: &str =
    "have this name lead to one disk on all nodes, then restart the agent where it was wrong";

/// Between the names of disks in an announcement.
const BETWEEN: &str = "; ";

/// Before a digest of who a disk is.
const DIGEST: &str = "#";

/// As it is announced: who they are, or where that does not fit, a digest of each, or of all.
fn in_one(storage: &[Storage]) -> String {
    let all = storage.iter().map(|one| one.identity.as_str()).collect::<Vec<_>>().join(BETWEEN);
    let digests = || storage.iter().map(|one| digest(&one.identity)).collect::<Vec<_>>().join(BETWEEN);
    let fits = |text: &String| text.len() <= STORAGE_BYTES_MAX;
    Some(all.clone()).filter(fits).or_else(|| Some(digests()).filter(fits)).unwrap_or_else(|| digest(&all))
}

fn digest(text: &str) -> String {
    format!("{DIGEST}{:08x}", crc32c::crc32c(text.as_bytes()))
}
