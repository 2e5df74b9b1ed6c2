//! What the model checker supposes of a machine instead of computing it: the lease, and the sight of the other nodes' slots.
//!
//! Decides how a machine is put into such a state, by the transitions of production wherever there is one, and how the equal states of two
//! machines are made to look equal. Leaves to [`crate::sim::model`] when a lease stands, lapses and is entered anew.

use std::time::Duration;

use super::batch::Step;
use super::layout::{Slot, SlotState};
use super::lease::{SlotRead, Stage, Watch, decode_slots};
use super::machine::{Io, Machine, Tag};
use crate::name::{BootId, Incarnation};
use crate::time::Time;

/// The time at which a model's machines live: late enough for a slot to have stood still since the beginning.
pub(crate) const NOW: Time = Time(1_000_000_000_000);

/// A lease that stands until something else is supposed.
const FOR_EVER: Time = Time(u64::MAX);

/// What a slot shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sight {
    pub(crate) boot: BootId,
    pub(crate) incarnation: Incarnation,
    /// It stood still for long enough.
    pub(crate) expired: bool,
}

impl Machine {
    /// The slot was entered, by the given life of all that ever entered it, and the lease stands.
    pub(crate) fn suppose_entered(&mut self, life: u64) {
        self.lease.stage = Stage::Up { until: FOR_EVER };
        self.lease.term = 1;
        self.lease.life = life;
        // A transfer that is never answered keeps the lease from beginning another.
        self.lease.busy = Some(Time::ZERO);
    }

    /// The lease ran out; to be followed by a [`super::machine::Input::Tick`].
    pub(crate) fn suppose_lapsed(&mut self) {
        self.lease.stage = Stage::Up { until: NOW };
    }

    /// After a lapse both copies of the slot were written in time; to be followed by a tick.
    pub(crate) fn suppose_renewed(&mut self) {
        self.lease.stage = Stage::Entering { first: Some(NOW) };
        self.lease.busy = Some(NOW);
        self.lease.written(NOW, Ok(()), &self.header);
        self.lease.stage = Stage::Up { until: FOR_EVER };
    }

    /// A lease that was entered anew passes for the one before: what a broken machine would do.
    pub(crate) fn suppose_same_term(&mut self) {
        self.lease.term -= 1;
    }

    /// All slots were read: what they show, in their order.
    pub(crate) fn suppose_sight(&mut self, sights: &[Sight]) {
        self.watch = Watch::new(sights.len());
        let bytes = self.slots_region(sights);
        let slots = decode_slots(&self.header, &bytes);
        let mut before = decode_slots(&self.header, &bytes);
        for (slot, _) in before.iter_mut().zip(sights).filter(|(_, sight)| !sight.expired) {
            *slot = SlotRead { newest: Ok(None), copies: [&[], &[]] };
        }
        self.watch.read(Time::ZERO, Time::ZERO, &before);
        self.watch.read(NOW, NOW, &slots);
    }

    /// The region of the slots, as it is when they show this.
    pub(crate) fn slots_region(&self, sights: &[Sight]) -> Vec<u8> {
        let block = |(i, s): (usize, &Sight)| s.slot().encode(&self.header, i);
        let copy: Vec<u8> = sights.iter().enumerate().flat_map(block).collect();
        [copy.clone(), copy].concat()
    }

    /// When something is due though nothing is answered.
    pub(crate) fn due(&self) -> Option<Time> {
        self.next_deadline().filter(|at| *at < FOR_EVER)
    }

    /// How many ballots the batch at work has lost.
    pub(crate) fn rounds(&self) -> u32 {
        self.job.as_ref().map_or(0, |job| job.rounds)
    }

    /// Takes away in what machines may differ without ever behaving differently: how transfers are numbered, when what is past
    /// was, what was read and made use of. `pending` are the tags of the transfers that are not answered yet.
    pub(crate) fn make_canonical(&mut self, at: Time, pending: &mut [Tag]) {
        let ios = std::mem::take(&mut self.ios);
        self.next_tag = 0;
        for tag in pending {
            self.next_tag += 1;
            let io = ios.get(tag).map(|io| match io {
                Io::BatchSlots(_) => Io::BatchSlots(NOW),
                Io::LeaseRead(_) => Io::LeaseRead(NOW),
                other => *other,
            });
            *tag = Tag(self.next_tag);
            self.ios.extend(io.map(|io| (*tag, io)));
        }
        self.rng = 0;
        self.news.peers.clear();
        self.watch = Watch::new(self.header.nodes.len());
        let wait = self.header.timing.deadline();
        self.settle_at = match self.abandoned.is_empty() {
            true => Time::ZERO,
            false if self.settle_at <= at => NOW,
            false => NOW + wait,
        };
        let term = std::mem::replace(&mut self.lease.term, 1);
        let same = |t: &mut u64| *t = u64::from(*t == term);
        self.held.values_mut().for_each(|(_, t)| same(t));
        (self.lease.slot.seq, self.lease.lapsed, self.news.lapsed) = (0, 0, 0);
        if let Some(job) = &mut self.job {
            same(&mut job.term);
            if let Step::Pause(until) = &mut job.step {
                *until = NOW + Duration::from_nanos(1);
            }
            if !matches!(job.step, Step::Scan { .. } | Step::Look | Step::Read(_)) {
                job.data.clear();
            }
        }
    }

    /// The sequences that it keeps of its own record, and a text that tells it from every machine of the same area that would behave
    /// differently for another reason than those.
    pub(crate) fn identity(&self) -> (Vec<u64>, String) {
        let mut sequences = Vec::new();
        let mut own = self.own.clone();
        for record in own.values_mut() {
            sequences.push(std::mem::take(&mut record.seq));
        }
        let mut job = self.job.clone();
        for work in job.iter_mut().flat_map(|job| job.work.values_mut()) {
            sequences.push(std::mem::take(&mut work.attempt.own.seq));
        }
        // All fields are named, so that none that is added later is forgotten.
        let Machine {
            header: _,
            me,
            lease,
            watch: _,
            queue,
            names,
            frontier,
            in_vain,
            own: _,
            held,
            abandoned,
            settle_at,
            job: _,
            effects,
            ios,
            next_tag: _,
            rng: _,
            news: _,
        } = self;
        let lease = (&lease.stage, lease.term, lease.life);
        let known = (names.len(), frontier, in_vain.len(), held, abandoned, settle_at);
        (sequences, format!("{}{}{lease:?}{queue:?}{known:?}{effects:?}{ios:?}{own:?}{job:?}", me.slot, me.boot))
    }
}

impl Sight {
    fn slot(&self) -> Slot {
        let (boot, incarnation) = (self.boot, self.incarnation);
        Slot { seq: 1, boot, incarnation, beat: 0, state: SlotState::Up, ages: Vec::new() }
    }
}
