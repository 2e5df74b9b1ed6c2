//! What this node tells of itself, in versions, and how far each peer has it.
//!
//! Every change gets the next version; a thing has the version of its last change. A part of a delta covers a range of
//! versions in order, so that parts lost, doubled or late can do no harm: one is applied exactly if nothing before it
//! is missing and it brings something new. Any later value of a thing has a version beyond every part sent before, so
//! an old part never brings back an old value. Leaves to [`super::Contact`] when parts are sent.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::name::{HierarchyName, Incarnation};
use crate::time::Time;

use super::codec::item_bytes;
use super::message::{Delta, Item};

/// A part holds items of at most so many bytes (one larger item goes alone), so that the sealed datagram fits into the
/// smallest MTU of IPv6 networks (1280 bytes, RFC 8200 section 5) but for the rarest.
pub(super) const PART_BYTES: usize = 1100;

const WINDOW_FIRST: usize = 8;
const WINDOW_MIN: usize = 2;
const WINDOW_MAX: usize = 32;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Key {
    Node,
    Hierarchy(HierarchyName),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Entry {
    version: u64,
    bytes: usize,
    item: Item,
}

/// Everything that this node tells of itself.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Told {
    version: u64,
    entries: BTreeMap<Key, Entry>,
    order: BTreeMap<u64, Key>,
    /// The versions of withdrawals.
    withdrawn: BTreeSet<u64>,
}

impl Told {
    /// All that is told, in the order in which it changed.
    #[cfg(feature = "sim")]
    pub(super) fn items(&self) -> impl Iterator<Item = &Item> {
        self.order.values().filter_map(|key| self.entries.get(key)).map(|entry| &entry.item)
    }

    /// The version of the last change; 0 when nothing was ever told.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// Takes over an item; false if it is told already.
    pub(super) fn set(&mut self, item: Item) -> bool {
        let key = match &item {
            Item::Node(_) => Key::Node,
            Item::Hierarchy(name, _) | Item::Withdrawn(name) => Key::Hierarchy(name.clone()),
        };
        match self.entries.get(&key) {
            Some(entry) if entry.item == item => return false,
            Some(entry) => {
                self.order.remove(&entry.version);
                self.withdrawn.remove(&entry.version);
            }
            None if matches!(item, Item::Withdrawn(_)) => return false,
            None => {}
        }
        self.version += 1;
        if matches!(item, Item::Withdrawn(_)) {
            self.withdrawn.insert(self.version);
        }
        self.order.insert(self.version, key.clone());
        self.entries.insert(key, Entry { version: self.version, bytes: item_bytes(&item), item });
        true
    }

    /// Whether there are withdrawals to be forgotten one day.
    pub(super) fn has_withdrawn(&self) -> bool {
        !self.withdrawn.is_empty()
    }

    /// Forgets withdrawals that every peer knows of.
    pub(super) fn forget_withdrawn(&mut self, known_to_all: u64) {
        while let Some(version) = self.withdrawn.first().copied().filter(|version| *version <= known_to_all) {
            self.withdrawn.remove(&version);
            if let Some(key) = self.order.remove(&version) {
                self.entries.remove(&key);
            }
        }
    }

    /// What is told of hierarchies, by name.
    #[cfg(test)]
    pub(super) fn announcements(&self) -> Vec<(HierarchyName, super::Announcement)> {
        let items = self.entries.values().filter_map(|entry| match &entry.item {
            Item::Hierarchy(name, announcement) => Some((name.clone(), (**announcement).clone())),
            Item::Node(_) | Item::Withdrawn(_) => None,
        });
        items.collect()
    }

    /// The part that follows `base`; `None` if nothing does.
    pub(super) fn part_after(&self, base: u64, addressee: Incarnation) -> Option<Delta> {
        if base >= self.version {
            return None;
        }
        let mut items = Vec::new();
        let mut bytes = 0;
        let mut to = self.version;
        for (version, key) in self.order.range(base + 1..) {
            let Some(entry) = self.entries.get(key) else { continue };
            if bytes + entry.bytes > PART_BYTES && !items.is_empty() {
                to = version - 1;
                break;
            }
            bytes += entry.bytes;
            items.push(entry.item.clone());
        }
        Some(Delta { addressee, base, to, version: self.version, items })
    }
}

/// How far one peer has what this node tells.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Progress {
    acknowledged: u64,
    /// The ends of the parts sent after `acknowledged`, in order.
    in_flight: VecDeque<u64>,
    window: usize,
    resend_at: Option<Time>,
    resend_after: Duration,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self {
            acknowledged: 0,
            in_flight: VecDeque::new(),
            window: WINDOW_FIRST,
            resend_at: None,
            resend_after: Duration::ZERO,
        }
    }

    /// The version that the peer has for certain.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.resend_at
    }

    /// The peer's newest beat says that it has `have`. Normally grows; whatever made it shrink, sending from there
    /// heals it.
    pub(super) fn acknowledge(&mut self, have: u64, now: Time, interval: Duration) {
        if have == self.acknowledged {
            return;
        }
        if have < self.acknowledged {
            self.in_flight.clear();
        }
        self.acknowledged = have;
        while self.in_flight.front().is_some_and(|to| *to <= have) {
            self.in_flight.pop_front();
            self.window = (self.window + 1).min(WINDOW_MAX);
        }
        self.resend_after = interval * 2;
        self.resend_at = (!self.in_flight.is_empty()).then(|| now + self.resend_after);
    }

    /// Stops sending, until [`Progress::send`] is called again: the peer is not in contact.
    pub(super) fn pause(&mut self) {
        self.in_flight.clear();
        self.resend_at = None;
        self.resend_after = Duration::ZERO;
        self.window = WINDOW_FIRST;
    }

    /// The parts to be sent now: those that fit into the window; or, when nothing was acknowledged for too long,
    /// everything after the last acknowledgement again, more slowly each time.
    pub(super) fn send(&mut self, told: &Told, addressee: Incarnation, now: Time, interval: Duration) -> Vec<Delta> {
        if self.resend_at.is_some_and(|at| at <= now) {
            self.in_flight.clear();
            self.window = (self.window / 2).max(WINDOW_MIN);
            self.resend_after = (self.resend_after * 2).min(interval * 20);
            self.resend_at = None;
        }
        let mut parts = Vec::new();
        while self.in_flight.len() < self.window {
            let base = self.in_flight.back().copied().unwrap_or(self.acknowledged);
            let Some(part) = told.part_after(base, addressee) else { break };
            self.in_flight.push_back(part.to);
            parts.push(part);
        }
        if !parts.is_empty() && self.resend_at.is_none() {
            self.resend_after = self.resend_after.max(interval * 2);
            self.resend_at = Some(now + self.resend_after);
        }
        parts
    }
}
