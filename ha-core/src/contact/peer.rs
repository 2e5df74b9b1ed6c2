//! What is known of one other node: on which channels it was heard and when, who else hears it, and what it announced.
//!
//! Decides the state of a peer from what was heard. Leaves to [`super::Contact`] when to look, and what to report.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::name::{BootId, ChannelName, HierarchyName, Incarnation, NodeName};
use crate::time::Time;

use super::announcement::{Announcement, NodeAnnouncement};
use super::message::Delta;
use super::parcel::{Inbox, Outbox};
use super::timing::ChannelTiming;
use super::told::Progress;

/// How well a peer is heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerState {
    /// Not heard since this node started.
    Unknown,
    /// Heard on some channel within its `late_after`.
    Alive,
    /// Silent for longer, but not for `dead_after`; or heard only by another node with which this one is in contact.
    Late,
    /// Silent for `dead_after` everywhere; or still unknown when the startup grace was over.
    Lost {
        /// When it was last heard, or this node's start.
        since: Time,
    },
    /// Said goodbye.
    Left,
}

impl fmt::Display for PeerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Unknown => "unknown",
            Self::Alive => "alive",
            Self::Late => "late",
            Self::Lost { .. } => "lost",
            Self::Left => "left",
        })
    }
}

/// How one channel of a peer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelView {
    /// When something was last heard on it.
    pub last_heard: Time,
    /// The longest time between two things heard, of one life of the peer; outages (three times `dead_after` and more)
    /// and pauses of this node do not count. Much less than `dead_after`: that could be shorter.
    pub longest_gap: Duration,
    /// How often it was silent for three times its `dead_after` and came back.
    pub outages: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct ChannelRecord {
    view: ChannelView,
    /// The last beat on it.
    sequence: u64,
    alive_until: Time,
    contact_until: Time,
}

/// What another node tells of having heard this peer.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Hearsay {
    heard_at: Time,
    contact_until: Time,
}

/// A peer, to be read. Changed only by [`super::Contact`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Peer {
    pub(super) name: NodeName,
    pub(super) state: PeerState,
    pub(super) life: Option<Life>,
    pub(super) announcements: BTreeMap<HierarchyName, Announcement>,
    pub(super) node_announcement: Option<NodeAnnouncement>,
    channels: BTreeMap<ChannelName, ChannelRecord>,
    hearsay: BTreeMap<NodeName, Hearsay>,
    /// The life of it that was seen, while it has not answered yet.
    pub(super) seen: Option<Incarnation>,
    /// Parts of deltas that came before an earlier one, by their base.
    pub(super) early: BTreeMap<u64, Delta>,
    /// When it said goodbye, if nothing of a later life was heard since.
    left_at: Option<Time>,
    left_on_storage_at: Option<Time>,
    /// When its state must be judged again though nothing is heard.
    pub(super) judge_at: Option<Time>,
    /// When a beat goes to this peer alone.
    pub(super) beat_at: Option<Time>,
    pub(super) progress: Progress,
    pub(super) outbox: Outbox,
    pub(super) inbox: Inbox,
}

/// What is known of one life of a peer's agent.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Life {
    pub(super) incarnation: Incarnation,
    pub(super) boot: BootId,
    /// The newest beat.
    pub(super) sequence: u64,
    /// The version of what it has to tell, as it said last.
    pub(super) version: u64,
    /// Up to which version it has arrived here.
    pub(super) have: u64,
    /// Everything it had to tell was here at some moment.
    pub(super) synced: bool,
}

impl Peer {
    /// Its name.
    pub fn name(&self) -> &NodeName {
        &self.name
    }

    /// How well it is heard.
    pub fn state(&self) -> PeerState {
        self.state
    }

    /// Whether it is alive, late, or heard by another node that is: not to be taken for dead.
    pub fn in_contact(&self) -> bool {
        matches!(self.state, PeerState::Alive | PeerState::Late)
    }

    /// The life of its agent that was last heard.
    pub fn incarnation(&self) -> Option<Incarnation> {
        self.life.map(|life| life.incarnation)
    }

    /// The boot of its machine that was last heard.
    pub fn boot(&self) -> Option<BootId> {
        self.life.map(|life| life.boot)
    }

    /// Whether everything that it said it has to tell has arrived.
    pub fn synced(&self) -> bool {
        self.life.is_some_and(|life| life.have >= life.version)
    }

    /// The channels on which it was ever heard.
    pub fn channels(&self) -> impl Iterator<Item = (&ChannelName, ChannelView)> {
        self.channels.iter().map(|(name, record)| (name, record.view))
    }

    /// When it was last heard by this node itself, on any channel.
    pub fn last_heard(&self) -> Option<Time> {
        self.channels.values().map(|record| record.view.last_heard).max()
    }

    /// The other node that last heard it, and when, as far as that node told.
    pub fn hearsay(&self) -> Option<(&NodeName, Time)> {
        self.hearsay.iter().max_by_key(|(_, told)| told.heard_at).map(|(via, told)| (via, told.heard_at))
    }

    /// What it told of itself; of a lost peer, what it told last.
    pub fn node_announcement(&self) -> Option<&NodeAnnouncement> {
        self.node_announcement.as_ref()
    }

    /// What it told of a hierarchy; of a lost peer, what it told last.
    pub fn announcement(&self, hierarchy: &HierarchyName) -> Option<&Announcement> {
        self.announcements.get(hierarchy)
    }

    /// Everything that it told of hierarchies.
    pub fn announcements(&self) -> impl Iterator<Item = (&HierarchyName, &Announcement)> {
        self.announcements.iter()
    }

    pub(super) fn new(name: NodeName, grace_until: Time) -> Self {
        Self {
            name,
            state: PeerState::Unknown,
            life: None,
            announcements: BTreeMap::new(),
            node_announcement: None,
            channels: BTreeMap::new(),
            hearsay: BTreeMap::new(),
            seen: None,
            early: BTreeMap::new(),
            left_at: None,
            left_on_storage_at: None,
            judge_at: Some(grace_until),
            beat_at: None,
            progress: Progress::new(),
            outbox: Outbox::default(),
            inbox: Inbox::default(),
        }
    }

    /// Begins a new life: all that the earlier one told is forgotten. Gaps and outages of its channels are kept.
    pub(super) fn begin_life(&mut self, incarnation: Incarnation, boot: BootId) {
        self.life = Some(Life { incarnation, boot, sequence: 0, version: 0, have: 0, synced: false });
        self.announcements.clear();
        self.early.clear();
        self.node_announcement = None;
        self.hearsay.clear();
        self.left_at = None;
        self.progress = Progress::new();
        self.inbox = Inbox::default();
        for record in self.channels.values_mut() {
            record.sequence = 0;
        }
    }

    /// Something was heard on a channel at `at`; `sequence` if it was a beat. Returns the gap if it was the longest one
    /// and a tight one. A beat that is not newer than the last one on the channel shows nothing.
    pub(super) fn hear(
        &mut self,
        channel: &ChannelName,
        at: Time,
        sequence: Option<u64>,
        silence: &Silence,
    ) -> Option<Duration> {
        let timing = silence.timing;
        let Some(record) = self.channels.get_mut(channel) else {
            let view = ChannelView { last_heard: at, longest_gap: Duration::ZERO, outages: 0 };
            let (alive_until, contact_until) = (at + timing.late_after, at + timing.dead_after);
            let sequence = sequence.unwrap_or_default();
            self.channels.insert(channel.clone(), ChannelRecord { view, sequence, alive_until, contact_until });
            return None;
        };
        let stale_beat = sequence.is_some_and(|s| s <= record.sequence);
        if stale_beat || at < record.view.last_heard {
            return None;
        }
        let gap = at.since(record.view.last_heard);
        let own_pause = silence.paused_at.is_some_and(|paused| record.view.last_heard < paused);
        record.view.last_heard = at;
        record.sequence = sequence.unwrap_or(record.sequence);
        record.alive_until = record.alive_until.max(at + timing.late_after);
        record.contact_until = record.contact_until.max(at + timing.dead_after);
        if gap >= timing.dead_after * 3 {
            record.view.outages += u64::from(!own_pause);
            return None;
        }
        if own_pause || silence.new_life || gap <= record.view.longest_gap {
            return None;
        }
        record.view.longest_gap = gap;
        (gap > timing.dead_after / 2).then_some(gap)
    }

    /// Another node heard this peer at `heard_at`.
    pub(super) fn hear_of(&mut self, via: &NodeName, incarnation: Incarnation, heard_at: Time, dead_after: Duration) {
        match self.life {
            // Of an earlier life than the one known here: says nothing about this one.
            Some(life) if incarnation < life.incarnation => return,
            Some(life) if incarnation == life.incarnation && self.left_at.is_some() => return,
            _ => self.left_at = None,
        }
        let told = self.hearsay.entry(via.clone()).or_insert(Hearsay { heard_at, contact_until: heard_at });
        told.heard_at = told.heard_at.max(heard_at);
        told.contact_until = told.contact_until.max(heard_at + dead_after);
    }

    pub(super) fn leave(&mut self, now: Time) {
        self.left_at = Some(now);
    }

    pub(super) fn has_left(&self) -> bool {
        self.left_at.is_some()
    }

    /// Its slot on storage beats after it said goodbye: a later life that only the storage can see, unless the beat was
    /// seen so soon that it may have come before the goodbye.
    pub(super) fn return_on_storage(&mut self, at: Time, dead_after: Duration) {
        if self.left_at.is_some_and(|left| at > left + dead_after) {
            self.left_at = None;
        }
    }

    /// Its slot says that it left. That counts from when this node first saw it after having seen the slot beat: a
    /// goodbye of long ago, still to be read there, says nothing of a peer that fell silent just now.
    pub(super) fn leave_on_storage(&mut self, channel: &ChannelName, now: Time) {
        let Some(record) = self.channels.get_mut(channel) else { return };
        record.alive_until = record.alive_until.min(now);
        record.contact_until = record.contact_until.min(now);
        if self.left_on_storage_at.is_none_or(|left| record.view.last_heard > left) {
            self.left_on_storage_at = Some(now);
        }
    }

    /// Until when this node itself hears it, as far as is known now.
    pub(super) fn heard_until(&self) -> Time {
        if self.left_at.is_some() {
            return Time::ZERO;
        }
        self.channels.values().map(|record| record.contact_until).max().unwrap_or(Time::ZERO)
    }

    /// The state at `now`, and when it must be judged again if nothing is heard until then. `heard_until` says of other
    /// nodes until when this node itself hears them: only they count as witnesses.
    pub(super) fn judge(
        &self,
        now: Time,
        grace_until: Time,
        started_at: Time,
        heard_until: impl Fn(&NodeName) -> Time,
    ) -> (PeerState, Option<Time>) {
        if self.left_at.is_some() {
            return (PeerState::Left, None);
        }
        let alive_until = self.channels.values().map(|record| record.alive_until).max().unwrap_or(Time::ZERO);
        if alive_until > now {
            return (PeerState::Alive, Some(alive_until));
        }
        let witnessed = self.hearsay.iter().map(|(via, told)| told.contact_until.min(heard_until(via)));
        let contact_until = witnessed.chain([self.heard_until()]).filter(|until| *until > now).min();
        if contact_until.is_some() {
            return (PeerState::Late, contact_until);
        }
        let last_heard = self.last_heard().or(self.hearsay().map(|(_, at)| at));
        match last_heard {
            None if now < grace_until => (PeerState::Unknown, Some(grace_until)),
            None => (PeerState::Lost { since: started_at }, None),
            Some(last) if self.left_on_storage_at.is_some_and(|left| left >= last) => (PeerState::Left, None),
            Some(last) => (PeerState::Lost { since: last }, None),
        }
    }

    /// This node did not run from `paused_at` to `now`: whatever was good then gets its full time again.
    pub(super) fn excuse(
        &mut self,
        paused_at: Time,
        now: Time,
        timing: impl Fn(&ChannelName) -> ChannelTiming,
        dead_after: Duration,
    ) {
        for (name, record) in &mut self.channels {
            let timing = timing(name);
            if record.alive_until >= paused_at {
                record.alive_until = record.alive_until.max(now + timing.late_after);
            }
            if record.contact_until >= paused_at {
                record.contact_until = record.contact_until.max(now + timing.dead_after);
            }
        }
        for told in self.hearsay.values_mut().filter(|told| told.contact_until >= paused_at) {
            told.contact_until = told.contact_until.max(now + dead_after);
        }
    }
}

/// How silence is measured on a channel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Silence {
    pub(super) timing: ChannelTiming,
    /// When this node itself last woke from a pause.
    pub(super) paused_at: Option<Time>,
    /// A new life begins: the gap was the restart.
    pub(super) new_life: bool,
}
