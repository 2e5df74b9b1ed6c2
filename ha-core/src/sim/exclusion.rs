//! What must hold of hierarchies that are claimed by reservation, by what their disks really hold and let through.
//!
//! Decides what is a violation: a write of an older tenure that a disk accepts (S1), an epoch that comes again (S4), a disk given up while
//! something runs (S5), a holder preempted although it is there (S6). A disk that nobody has reserved lets everybody write; no protocol can do
//! anything about that, so what is written to it is not judged.

use std::collections::BTreeMap;

use super::clock::Moment;
use super::lun::Sent;
use super::observer::{Invariant, Tenancy};
use super::world::World;
use crate::claim::reservation::key::Keyring;
use crate::name::Epoch;

/// A claim as a node was told last that it has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Given {
    boot: u64,
    life: u64,
    epoch: Epoch,
    /// The tenures of the hierarchy, counted.
    tenure: u64,
    released: bool,
}

/// What is known of the claims by reservation.
#[derive(Default)]
pub(super) struct Reserved {
    /// By hierarchy and node.
    given: BTreeMap<(usize, usize), Given>,
    tenures: u64,
    /// When the arbiter of a hierarchy was last without a holder, so that nobody can read its epoch there any more.
    freed_at: BTreeMap<usize, Moment>,
    /// What ran on without the claim when a disk forgot whom it keeps out.
    excused: std::collections::BTreeSet<(usize, usize)>,
}

/// What a node was told of its tenure.
#[derive(Clone, Copy, Debug)]
enum TenureIs {
    New(Epoch),
    /// It goes on after a restart of the agent, under a newer key.
    OnceMore(Epoch),
}

impl TenureIs {
    /// Whether a disk that is held for it may show a key of this epoch.
    fn fits(self, shown: Epoch) -> bool {
        match self {
            TenureIs::New(epoch) => shown == epoch,
            TenureIs::OnceMore(epoch) => shown >= epoch,
        }
    }
}

impl World {
    fn violates(&mut self, invariant: Invariant, what: String) {
        self.observer.violated(self.now, invariant, what);
    }

    /// A disk carried something out, or lost its power: who has it now?
    pub(super) fn observe_disk(&mut self, h: usize, disk: usize, by: Option<usize>) {
        let now = self.now;
        let lun = &mut self.luns[h][disk];
        let registrations = lun.device.registrations();
        let holder = registrations.iter().find(|r| r.holds.is_some()).map(|r| usize::from(r.nexus.initiator) - 1);
        let before = std::mem::replace(&mut lun.holder, holder);
        let Some(before) = before.filter(|before| Some(*before) != holder) else { return };
        lun.lost_at.insert(before, now);
        let name = self.setup.hierarchies[h].hierarchy.name.clone();
        if holder.is_none() && disk == 0 {
            self.observer.reserved.freed_at.insert(h, now);
            self.observer.epochs.remove(&h);
        }
        if by == Some(before) && self.nodes[before].on && self.nodes[before].runs(h) {
            let what = format!("{} gives disk {disk} of {name} up while something runs", self.nodes[before].name);
            self.violates(Invariant::S5, what);
        }
        let held = self.observer.tenancies.get(&h);
        // One that has found out that it could not prove it any more has nothing to defend, though its reservation is still there.
        let held = held.is_some_and(|t| {
            let its = t.node == before && t.boot == self.nodes[before].boot && !t.released;
            its && self.goes_by(before, h) == Some(t.epoch)
        });
        if let Some(by) = by.filter(|by| *by != before && disk == 0 && held)
            && self.is_there(before, h)
        {
            let (by, from) = (&self.nodes[by].name, &self.nodes[before].name);
            let what = format!("{by} preempted {from}, which is alive and reaches the disks of {name}");
            self.violates(Invariant::S6, what);
        }
    }

    /// Whether nothing was wrong with a node and its disks for as long as it takes to notice and defend anything.
    fn is_there(&self, n: usize, h: usize) -> bool {
        let Some(setup) = self.setup.hierarchies[h].reservation() else { return false };
        let needed = setup.timing.uphold_bound() + setup.timing.challenge(setup.time_limit) * 2;
        let for_long = |since: Moment| self.now.since(since) > needed;
        self.nodes[n].fit_since.is_some_and(for_long)
            && self.disks_are_well(n, h)
            && self.luns[h].iter().all(|lun| for_long(lun.changed_at))
    }

    /// A disk forgot every registration: who ran on without the claim is let in again, and nobody can know.
    pub(super) fn observe_forgotten(&mut self, h: usize) {
        let tenant = self.observer.tenancies.get(&h).map(|t| t.node);
        let stale = (0..self.nodes.len()).filter(|n| Some(*n) != tenant && self.nodes[*n].runs(h));
        let stale: Vec<(usize, usize)> = stale.map(|n| (h, n)).collect();
        self.observer.reserved.excused.extend(stale);
    }

    /// A claim by reservation was given to a node, which asked for it then, if anybody waits for it.
    pub(super) fn observe_reserved(&mut self, n: usize, h: usize, epoch: Epoch, asked_at: Option<Moment>) {
        self.stats.acquired += 1;
        let (boot, life, me) = (self.nodes[n].boot, self.nodes[n].life, self.nodes[n].name.clone());
        let name = self.setup.hierarchies[h].hierarchy.name.clone();
        let given = self.observer.reserved.given.get(&(h, n)).copied();
        let before = self.observer.tenancies.get(&h).cloned();
        let again = before.as_ref().is_some_and(|t| (t.node, t.boot, t.epoch) == (n, boot, epoch));
        let greatest = self.observer.epochs.get(&h).copied().unwrap_or_default();
        // What was given up after this node asked, it cannot know of.
        let freed = self.observer.reserved.freed_at.get(&h).copied().unwrap_or_default();
        let knows = asked_at.is_some_and(|asked| asked > freed);
        let own = given.filter(|given| (given.boot, given.life) == (boot, life)).map(|given| given.epoch);
        if !again && (knows && epoch <= greatest || own.is_some_and(|own| epoch <= own)) {
            let what = format!(
                "{me} holds {name} under epoch {epoch}, but {} was used before",
                greatest.max(own.unwrap_or_default())
            );
            self.violates(Invariant::S4, what);
        }
        if before.is_some_and(|former| former.node != n && !former.released) {
            self.stats.takeovers += 1;
        }
        let tenure = if again { TenureIs::OnceMore(epoch) } else { TenureIs::New(epoch) };
        self.check_held(n, h, tenure, asked_at);
        self.check_others_are_out(n, h);
        self.observer.epochs.insert(h, greatest.max(epoch));
        let reserved = &mut self.observer.reserved;
        if !again {
            reserved.tenures += 1;
        }
        let tenure = given.filter(|_| again).map_or(reserved.tenures, |given| given.tenure);
        reserved.given.insert((h, n), Given { boot, life, epoch, tenure, released: false });
        reserved.excused.remove(&(h, n));
        self.observer.tenancies.insert(h, Tenancy { node: n, boot, epoch, released: false, lease: None });
        self.observe_service(h);
    }

    /// S2: the disks say the same, or did since it was asked for.
    fn check_held(&mut self, n: usize, h: usize, tenure: TenureIs, asked_at: Option<Moment>) {
        let names = self.setup.nodes.iter().map(|node| node.name.clone());
        let Ok(keyring) = Keyring::new(&self.setup.cluster, names) else { return };
        let (me, name) = (self.nodes[n].name.clone(), self.setup.hierarchies[h].hierarchy.name.clone());
        let mut wrong = None;
        for (disk, lun) in self.luns[h].iter().enumerate() {
            let had = lun.lost_at.get(&n).is_some_and(|lost| asked_at.is_none_or(|asked| *lost >= asked));
            let key = lun.device.reservation().held.and_then(|held| held.key);
            let shown = key.and_then(|key| keyring.decode(key)).map(|known| known.epoch);
            if lun.holder != Some(n) && !had {
                wrong = Some(format!("{me} was told that it has {name}, and never had disk {disk}"));
            } else if lun.holder == Some(n) && !shown.is_some_and(|shown| tenure.fits(shown)) {
                wrong = Some(format!("{me} acquired {name}, {tenure:?}, and disk {disk} shows {shown:?}"));
            }
        }
        if let Some(what) = wrong {
            self.violates(Invariant::S2, what);
        }
    }

    /// S1: nobody else who has anything running can write to a disk that the new holder has.
    fn check_others_are_out(&mut self, n: usize, h: usize) {
        let runs = |other: &usize| *other != n && self.nodes[*other].on && self.nodes[*other].runs(h);
        let excused = &self.observer.reserved.excused;
        let others = (0..self.nodes.len()).filter(runs).filter(|other| !excused.contains(&(h, *other)));
        let lets = |other: &usize| {
            let held = self.luns[h].iter().filter(|lun| lun.powered && lun.holder == Some(n));
            held.into_iter().any(|lun| lun.nexuses(*other).any(|nexus| lun.device.may_write(nexus)))
        };
        if let Some(other) = others.into_iter().find(lets) {
            let name = &self.setup.hierarchies[h].hierarchy.name;
            let (me, other) = (&self.nodes[n].name, &self.nodes[other].name);
            let what = format!("{me} was given {name} while it runs on {other}, which may write still");
            self.violates(Invariant::S1, what);
        }
    }

    /// S1: a write was carried out that a reservation let pass.
    pub(super) fn observe_landed(&mut self, sent: &Sent, tenure: u64) {
        self.stats.writes += 1;
        let (h, n) = (sent.hierarchy, sent.node);
        let Some(tenant) = self.observer.tenancies.get(&h).filter(|t| t.node != n) else { return };
        let Some(given) = self.observer.reserved.given.get(&(h, tenant.node)) else { return };
        if tenure < given.tenure && !self.observer.reserved.excused.contains(&(h, n)) {
            let (me, other) = (&self.nodes[n].name, &self.nodes[tenant.node].name);
            let name = &self.setup.hierarchies[h].hierarchy.name;
            let epoch = tenant.epoch;
            let disk = sent.disk;
            let what =
                format!("a write of {me} landed on disk {disk} of {name}, which {other} was given under epoch {epoch}");
            self.violates(Invariant::S1, what);
        }
    }

    /// S2: a start on disks that were given to this node, whoever may have taken them since.
    pub(super) fn check_reservation(&mut self, n: usize, h: usize, epoch: Epoch) {
        let boot = self.nodes[n].boot;
        let given = self.observer.reserved.given.get(&(h, n)).copied();
        match given.filter(|given| given.boot == boot && given.epoch == epoch && !given.released) {
            Some(given) => {
                self.nodes[n].tenures.insert(h, given.tenure);
            }
            None => {
                let (me, name) = (&self.nodes[n].name, &self.setup.hierarchies[h].hierarchy.name);
                let what = format!("{me} starts {name} under epoch {epoch}, which it does not hold: {given:?}");
                self.violates(Invariant::S2, what);
            }
        }
    }

    /// A node asks to give a claim up.
    pub(super) fn observe_given_up(&mut self, n: usize, h: usize, epoch: Epoch) {
        if let Some(given) = self.observer.reserved.given.get_mut(&(h, n))
            && given.epoch == epoch
        {
            given.released = true;
        }
    }
}
