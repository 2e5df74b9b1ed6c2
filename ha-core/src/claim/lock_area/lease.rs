//! The node's own lease, and the watch on those of the others.
//!
//! Decides how long this node may rely on what it owns, whether its slot is its own, and which other nodes have expired.
//! Leaves the transfers to [`super::machine`].

use std::collections::BTreeMap;
use std::time::Duration;

use super::layout::{BlockError, Copy2, Header, Ownership, Slot, SlotState, newest};
use super::paxos::{Me, Standing};
use crate::claim::{LeaseNews, PeerOnStorage};
use crate::mutation::{self, Mutation};
use crate::name::{BootId, Incarnation};
use crate::time::Time;

/// Entering a slot jumps so far in its sequence.
const JUMP: u64 = 1 << 20;
/// What was written before what was seen already lands late, unless it goes on for so many reads: then the slot was begun anew.
const BEGUN_ANEW: u32 = 4;

/// The sequence with which a life begins to write records. Lives are counted by the entries of the slot, each of which was
/// durable on both copies before the life wrote any record. So no write of an earlier life that is still on its way can
/// carry as great a sequence, nor an equal one: a mere jump from what is read would give equal ones to two lives that
/// read the same.
pub(super) fn first_seq(life: u64, found: u64) -> u64 {
    found.max(life << 36)
}

/// Of two states of a slot the one of the later life is the later one; the sequence orders those of one life. A life that could not
/// read what the one before had on its way may begin with the same sequence.
fn order(slot: &Slot) -> (Incarnation, u64) {
    (slot.incarnation, slot.seq)
}

/// What was read of one slot.
pub(super) struct SlotRead<'a> {
    /// What its copies say together.
    pub(super) newest: Result<Option<Slot>, BlockError>,
    /// The copies as they are on the device.
    pub(super) copies: [&'a [u8]; 2],
}

/// Reads every slot out of the slots' region.
pub(super) fn decode_slots<'a>(header: &Header, bytes: &'a [u8]) -> Vec<SlotRead<'a>> {
    let block = |node, copy| {
        let at = (header.slot_at(node, copy) - header.slots_at()) as usize;
        bytes.get(at..at + header.block_size as usize).unwrap_or(&[])
    };
    let slot = |node| {
        let copies = [block(node, Copy2::A), block(node, Copy2::B)];
        let [a, b] = copies.map(|copy| Slot::decode(copy, header, node));
        SlotRead { newest: newest(a, b, order), copies }
    };
    (0..header.nodes.len()).map(slot).collect()
}

#[derive(Clone, Debug, PartialEq, Eq, Default)]
enum Shows {
    #[default]
    Nothing,
    Damage,
    Life(BootId, Incarnation, u64, SlotState),
}

#[derive(Clone, Debug, Default)]
struct Seen {
    shows: Shows,
    /// Both copies as last read. A renewal is on one of them, where a late write of earlier can hide it from a reader that was away: so a
    /// change of either is a sign of life, whatever it shows.
    copies: [Vec<u8>; 2],
    /// When the first read was completed that showed it, with these copies.
    since: Time,
    /// When the last read that showed it was issued; `None` before the first read.
    checked: Option<Time>,
    /// The [order] of what it shows.
    order: (Incarnation, u64),
    /// It was seen to change for something later: so what it shows is not a late write of an earlier life.
    went_on: bool,
    /// The last one below that, and how often it grew.
    behind: ((Incarnation, u64), u32),
}

impl Seen {
    /// Whether this was written before what was seen already.
    fn is_late(&mut self, order: (Incarnation, u64)) -> bool {
        if order >= self.order {
            self.behind = Default::default();
            return false;
        }
        if order > self.behind.0 {
            self.behind = (order, self.behind.1 + 1);
        }
        self.behind.1 < BEGUN_ANEW
    }
}

/// What this node saw of every slot; kept up all the time, so that an expiry counts from the last change, not from when
/// somebody asks.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    seen: Vec<Seen>,
}

impl Watch {
    pub(super) fn new(nodes: usize) -> Watch {
        Watch { seen: vec![Seen::default(); nodes] }
    }

    pub(super) fn read(&mut self, issued: Time, completed: Time, slots: &[SlotRead<'_>]) {
        for (seen, slot) in self.seen.iter_mut().zip(slots) {
            let (shows, order) = match &slot.newest {
                Ok(None) => (Shows::Nothing, seen.order),
                Ok(Some(s)) => (Shows::Life(s.boot, s.incarnation, s.beat, s.state), order(s)),
                Err(_) => (Shows::Damage, seen.order),
            };
            let changed = seen.shows != shows && !seen.is_late(order);
            if seen.checked.is_none() || changed {
                (seen.shows, seen.order) = (shows, order);
                seen.went_on = seen.checked.is_some();
            }
            if changed || seen.checked.is_none() || seen.copies != slot.copies {
                seen.copies = slot.copies.map(<[u8]>::to_vec);
                seen.since = completed;
            }
            seen.checked = seen.checked.max(Some(issued));
        }
    }

    /// Whether the owner named in a decision can still rely on its lease, as far as reads issued so far can tell. `fenced` is when its fencing began,
    /// if its machine is proven to have been off since.
    pub(super) fn standing(&self, header: &Header, ownership: &Ownership, fenced: Option<Time>) -> Standing {
        let Some((owner, boot)) = ownership.owner else { return Standing::Expired };
        let Some(Seen { shows, since, checked: Some(checked), went_on, .. }) = self.seen.get(usize::from(owner)) else {
            return Standing::Alive { retry_at: None, why: "its slot was not read yet".into() };
        };
        match shows {
            Shows::Life(shown, _, _, state) if *went_on && (*shown != boot || *state == SlotState::Left) => {
                return Standing::Expired;
            }
            // A boot that was seen before the fencing began did not outlive it. What changed since is left to time: the proof may be of another machine.
            Shows::Life(shown, ..)
                if *shown == boot && fenced.is_some_and(|begun| *since < begun && begun < *checked) =>
            {
                return Standing::Expired;
            }
            _ => {}
        }
        let expiry = header.timing.since_to_expiry(*since);
        if *checked >= expiry || mutation::is_on(Mutation::TakeWithoutWaiting) {
            return Standing::Expired;
        }
        let still = checked.since(*since).as_millis();
        let needed = header.timing.expires_after().as_millis();
        let why = format!("its slot has stood still for {still} ms of the {needed} ms that prove it dead");
        Standing::Alive { retry_at: Some(expiry), why }
    }

    pub(super) fn boot_of(&self, node: usize) -> Option<BootId> {
        match self.seen.get(node)?.shows {
            Shows::Life(boot, _, _, SlotState::Up) => Some(boot),
            _ => None,
        }
    }

    fn ages(&self, now: Time) -> Vec<u32> {
        let age = |s: &Seen| match s.shows {
            Shows::Life(..) => u32::try_from(now.since(s.since).as_millis()).unwrap_or(u32::MAX),
            _ => u32::MAX,
        };
        self.seen.iter().map(age).collect()
    }

    fn peers(&self, header: &Header, me: u8) -> BTreeMap<crate::name::NodeName, PeerOnStorage> {
        let mut peers = BTreeMap::new();
        for (i, (node, seen)) in header.nodes.iter().zip(&self.seen).enumerate() {
            let peer = match seen.shows {
                Shows::Life(_, _, _, SlotState::Left) => PeerOnStorage::Left,
                Shows::Life(boot, ..) => PeerOnStorage::Beating { since: seen.since, boot },
                _ => continue,
            };
            if i != usize::from(me) {
                peers.insert(node.clone(), peer);
            }
        }
        peers
    }
}

/// How far this node is with its slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Looking whether somebody else uses it.
    Watching { still: u32, changes: u32 },
    /// Rewriting both copies.
    Entering { first: Option<Time> },
    /// The lease is good until then.
    Up { until: Time },
    /// Saying goodbye: the copies written so far.
    Leaving { written: usize },
    /// Said goodbye.
    Left,
    /// Somebody else writes the slot.
    Void(String),
}

/// A transfer that the lease needs.
pub(super) enum Transfer {
    ReadSlots,
    Write(Copy2, Slot),
}

/// This node's lease: one transfer at a time, on a fixed beat.
#[derive(Clone, Debug)]
pub(super) struct Lease {
    pub(super) stage: Stage,
    /// Grows whenever the slot is entered anew: what was begun under another term must not be concluded.
    pub(super) term: u64,
    /// Counts the lives that entered the slot: set at the first entry.
    pub(super) life: u64,
    pub(super) lapsed: u64,
    me: Me,
    incarnation: Incarnation,
    pub(super) slot: Slot,
    next_copy: Copy2,
    shown: Option<(BootId, Incarnation, u64)>,
    pub(super) busy: Option<Time>,
    next_at: Time,
    cycle_at: Time,
    trouble: Option<String>,
}

impl Lease {
    pub(super) fn new(me: Me, incarnation: Incarnation) -> Lease {
        let slot = Slot { seq: 0, boot: me.boot, incarnation, beat: 0, state: SlotState::Up, ages: Vec::new() };
        Lease {
            stage: Stage::Watching { still: 0, changes: 0 },
            term: 0,
            life: 0,
            lapsed: 0,
            me,
            incarnation,
            slot,
            next_copy: Copy2::A,
            shown: None,
            busy: None,
            next_at: Time::ZERO,
            cycle_at: Time::ZERO,
            trouble: None,
        }
    }

    /// To when the lease is good, if it is good now.
    pub(super) fn until(&self, now: Time) -> Option<Time> {
        match self.stage {
            Stage::Up { until } if now < until => Some(until),
            _ => None,
        }
    }

    /// Whether the slot is known to be this node's own.
    pub(super) fn entered(&self) -> bool {
        self.term > 0 && !matches!(self.stage, Stage::Void(_) | Stage::Left | Stage::Leaving { .. })
    }

    /// Whether it was entered and has not been seen to lapse.
    pub(super) fn is_up(&self) -> bool {
        matches!(self.stage, Stage::Up { .. })
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        let lapse = if let Stage::Up { until } = self.stage { Some(until) } else { None };
        let idle = self.busy.is_none() && !matches!(self.stage, Stage::Left | Stage::Void(_));
        [lapse, idle.then_some(self.next_at)].into_iter().flatten().min()
    }

    fn lapse(&mut self) {
        self.lapsed += 1;
        self.stage = Stage::Entering { first: None };
        self.slot.seq += JUMP;
    }

    pub(super) fn leave(&mut self) {
        self.stage = Stage::Leaving { written: 0 };
        self.slot.state = SlotState::Left;
        self.next_at = Time::ZERO;
    }

    /// The next transfer, if it is time for one.
    pub(super) fn poll(&mut self, now: Time, watch: &Watch) -> Option<Transfer> {
        if let Stage::Up { until } = self.stage
            && now >= until
        {
            self.lapse();
        }
        if self.busy.is_some() || now < self.next_at || matches!(self.stage, Stage::Left | Stage::Void(_)) {
            return None;
        }
        self.busy = Some(now);
        let copy = match &self.stage {
            Stage::Watching { .. } => {
                self.cycle_at = now;
                return Some(Transfer::ReadSlots);
            }
            Stage::Entering { first: None } | Stage::Leaving { written: 0 } => Copy2::A,
            Stage::Entering { .. } | Stage::Leaving { .. } => Copy2::B,
            _ => self.next_copy,
        };
        self.cycle_at = now;
        self.slot.seq += 1;
        self.slot.beat += 1;
        self.slot.ages = watch.ages(now);
        self.next_copy = copy.other();
        Some(Transfer::Write(copy, self.slot.clone()))
    }

    /// A slot write was answered; says whether the slots are to be read next.
    pub(super) fn written(&mut self, now: Time, result: Result<(), String>, header: &Header) -> bool {
        let issued = self.busy.take().unwrap_or(now);
        let counts = mutation::is_on(Mutation::CountUnacknowledgedRenewal);
        if let Some(trouble) = result.err().filter(|_| !counts) {
            self.trouble = Some(trouble);
            if let Stage::Entering { first } = &mut self.stage {
                *first = None;
            }
            self.next_at = now + header.timing.renew() / 4;
            return false;
        }
        let deadline = header.timing.deadline();
        match &mut self.stage {
            Stage::Entering { first: first @ None } => {
                *first = Some(issued);
                self.next_at = now;
                return false;
            }
            Stage::Entering { first: Some(first) } => {
                let until = *first + deadline;
                if now >= until {
                    self.stage = Stage::Entering { first: None };
                    self.next_at = now;
                    return false;
                }
                if self.term == 0 {
                    self.life = self.slot.seq / JUMP;
                }
                self.term += 1;
                self.stage = Stage::Up { until };
            }
            Stage::Up { until } if now < *until => *until = issued + deadline,
            // The answer came after the tenure's end: it restores nothing.
            Stage::Up { .. } => {
                self.lapse();
                self.next_at = now;
                return false;
            }
            Stage::Leaving { written } => {
                *written += 1;
                self.next_at = now;
                if *written == 2 {
                    self.stage = Stage::Left;
                }
                return false;
            }
            _ => {}
        }
        self.trouble = None;
        self.busy = Some(now);
        true
    }

    /// The slots were read (by the lease itself), or could not be.
    pub(super) fn read(&mut self, now: Time, slots: Result<&[SlotRead<'_>], String>, header: &Header) {
        self.busy = None;
        let renew = header.timing.renew();
        self.next_at = (self.cycle_at + renew).max(now);
        let slots = match slots {
            Ok(slots) => slots,
            Err(trouble) => {
                self.trouble = Some(trouble);
                return;
            }
        };
        let mine = slots.get(usize::from(self.me.slot)).and_then(|s| s.newest.as_ref().ok()).and_then(Option::as_ref);
        if matches!(self.stage, Stage::Watching { .. }) {
            self.watch_own(mine, now);
        } else if let Some(shown) = mine
            && (shown.boot, shown.incarnation) != (self.me.boot, self.incarnation)
            && self.term > 0
        {
            // Late writes of an earlier life, on their way while the storage hung, are written over. Another node under this name would see
            // a later life here, and yield.
            if order(shown) < (self.incarnation, self.slot.seq) {
                self.next_at = now;
                return;
            }
            self.stage = Stage::Void(format!(
                "another node uses the name {} (boot {}, incarnation {}): give one of them another name",
                header.nodes[usize::from(self.me.slot)],
                shown.boot,
                shown.incarnation
            ));
        }
    }

    fn watch_own(&mut self, mine: Option<&Slot>, now: Time) {
        let Stage::Watching { still, changes } = &mut self.stage else { return };
        let Some(shown) = mine else {
            self.stage = Stage::Entering { first: None };
            self.slot.seq += JUMP;
            self.next_at = now;
            return;
        };
        let key = (shown.boot, shown.incarnation, shown.beat);
        match self.shown.replace(key) {
            Some(before) if before == key => *still += 1,
            // One change can be a late write of the former life; two are a beat.
            Some(_) => {
                *still = 0;
                *changes += 1;
            }
            None => {}
        }
        if *changes >= 2 {
            self.stage = Stage::Void(format!(
                "the name is in use: its slot beats (boot {}, incarnation {}); stop that node or rename one of them",
                shown.boot, shown.incarnation
            ));
        } else if shown.boot == self.me.boot || shown.state == SlotState::Left || *still >= 2 {
            self.slot.seq = shown.seq + JUMP;
            self.slot.beat = shown.beat;
            self.stage = Stage::Entering { first: None };
            self.next_at = now;
        }
    }

    pub(super) fn news(&self, now: Time, watch: &Watch, header: &Header) -> LeaseNews {
        let trouble = if let Stage::Void(why) = &self.stage { Some(why.clone()) } else { self.trouble.clone() };
        LeaseNews { until: self.until(now), lapsed: self.lapsed, peers: watch.peers(header, self.me.slot), trouble }
    }

    /// Why the lease is not good, for people.
    pub(super) fn unfit(&self) -> String {
        match (&self.stage, &self.trouble) {
            (Stage::Void(why), _) | (_, Some(why)) => why.clone(),
            (Stage::Left | Stage::Leaving { .. }, _) => "this node has left the lock area".into(),
            _ => "this node's lease ran out and is not renewed yet".into(),
        }
    }
}

/// The longest that one transfer of the lease may take.
pub(super) fn lease_bound(header: &Header) -> Duration {
    header.timing.io_bound()
}

#[cfg(test)]
mod tests {
    use super::super::layout::Failures;
    use super::super::sim_tests::fast_header;
    use super::*;

    fn slot(seq: u64) -> Slot {
        let (boot, incarnation) = (BootId([1; 16]), Incarnation(1));
        Slot { seq, boot, incarnation, beat: seq, state: SlotState::Up, ages: Vec::new() }
    }

    /// What a watch saw that read these two copies one after the other, and last when the first had stood still for long enough.
    fn standing_after(reads: [[u64; 2]; 2]) -> Standing {
        let end = fast_header(2, 1).timing.since_to_expiry(Time::ZERO);
        standing(reads.into_iter().zip([Time::ZERO, end]), BootId([1; 16]), None)
    }

    /// What a watch says of an owner of that boot, that read these copies at those times.
    fn standing(reads: impl Iterator<Item = ([u64; 2], Time)>, boot: BootId, fenced: Option<Time>) -> Standing {
        let header = fast_header(2, 1);
        let mut watch = Watch::new(2);
        for (copies, at) in reads {
            let mut bytes = vec![0; header.slots_len()];
            for (copy, seq) in Copy2::BOTH.into_iter().zip(copies) {
                let begin = (header.slot_at(0, copy) - header.slots_at()) as usize;
                let block = slot(seq).encode(&header, 0);
                bytes[begin..begin + block.len()].copy_from_slice(&block);
            }
            watch.read(at, at, &decode_slots(&header, &bytes));
        }
        let owner = Ownership { epoch: 1, owner: Some((0, boot)), failures: Failures::default() };
        watch.standing(&header, &owner, fenced)
    }

    #[test]
    fn a_slot_that_stood_still_has_expired() {
        assert_eq!(standing_after([[9, 8], [9, 8]]), Standing::Expired);
        assert!(matches!(standing_after([[9, 8], [9, 10]]), Standing::Alive { .. }), "renewed");
    }

    /// In between 10 was written to the second copy, and 3 landed on it, which had been on its way since long before.
    #[test]
    fn a_late_write_that_hides_a_renewal_is_no_standstill() {
        assert!(matches!(standing_after([[9, 8], [9, 3]]), Standing::Alive { .. }));
    }

    fn at(ms: u64) -> Time {
        Time::ZERO + Duration::from_millis(ms)
    }

    #[test]
    fn a_fenced_owner_is_not_waited_for() {
        let fenced =
            |reads: [([u64; 2], Time); 2], boot, begun| standing(reads.into_iter(), BootId([boot; 16]), Some(begun));
        let still = [([9, 8], at(0)), ([9, 8], at(30))];
        assert_eq!(fenced(still, 1, at(20)), Standing::Expired);
        let alive = |standing| matches!(standing, Standing::Alive { .. });
        assert!(alive(fenced(still, 1, at(0))), "it was seen first when the fencing had begun: it may be a later boot");
        assert!(alive(fenced(still, 1, at(40))), "nothing was read since");
        assert!(alive(fenced(still, 2, at(20))), "another boot has it than the one that was seen");
        assert!(
            alive(fenced([([9, 8], at(0)), ([9, 10], at(30))], 1, at(20))),
            "it beat, and may be another machine than the one fenced"
        );
    }
}
