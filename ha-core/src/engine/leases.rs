//! How long this node may rely on what it holds.
//!
//! Decides when a claim is proven anew, and when it is too late to wait for that: what runs must be stopped before the tenure
//! ends (invariant S7). Leaves stopping it to the lives, and renewing a shared lease to its owner.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Effect, Engine, Entry, TenureOf, TimerKey, Unproven};
use crate::claim::{LeaseNews, Loss, PeerOnStorage, Tenure};
use crate::mutation::{self, Mutation};
use crate::name::{BootId, ChannelName, Epoch, HierarchyName, NodeName};
use crate::record::Happened;
use crate::recovery::OpId;
use crate::time::Time;

/// A claim that is not kept up by itself is proven this often.
const UPHOLD_EVERY: Duration = Duration::from_secs(1);
/// What is said of news of a tenure that is over as they arrive.
pub(super) const TOO_LATE: &str = "the tenure was over before the answer was taken in";
/// A claim that could not be proven is tried again after this.
const UPHOLD_AGAIN: Duration = Duration::from_millis(250);

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Lease {
    pub(super) until: Option<Time>,
    /// It is held, and so long that what runs on it could still be stopped by force: claims may be held on it.
    pub(super) is_good: bool,
    /// The longest it was ever good for.
    length: Duration,
    /// The end that was proven last, also when the lease is not held any more.
    pub(super) proven: Option<Time>,
    /// The longest forced stop of what was ever held on it.
    forced: Duration,
    /// How often it ran out, as its owner counts.
    lapsed: u64,
    pub(super) trouble: Option<String>,
    channel: Option<ChannelName>,
    /// The boot that each other node's slot showed last.
    boots: BTreeMap<NodeName, BootId>,
    pub(super) members: BTreeSet<HierarchyName>,
}

impl Lease {
    /// When what runs on it must begin to be stopped by force: the longest forced stop among those that were ever held on it before its end,
    /// whatever their number.
    fn last_moment(&self) -> Option<Time> {
        self.until.map(|until| until - self.forced.min(self.length / 3))
    }

    /// It was never held, and nothing is wrong with it: it is being entered.
    pub(super) fn is_being_entered(&self) -> bool {
        self.until.is_none() && self.trouble.is_none() && self.length.is_zero()
    }
}

impl Engine {
    pub(super) fn begin_tenure(&mut self, name: &HierarchyName) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        let Some(held) = entry.life.held else { return };
        match entry.lease.clone() {
            Some(name) => {
                let forced = entry.life.hierarchy.policy.forced_stop_within;
                if let Some(lease) = self.leases.get_mut(&name) {
                    lease.forced = lease.forced.max(forced);
                }
                self.set_lease_end(&name);
            }
            None => self.renewed(name, held.tenure),
        }
    }

    /// What an earlier life of the agent left running may run to the end that it had proven, whether or not this one gets to prove it anew.
    pub(super) fn recall_tenure(&mut self, name: &HierarchyName, proven_until: Option<Time>) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        let unknown = entry.lease.is_some().then_some(self.now);
        let until = proven_until.or(unknown).filter(|_| !mutation::is_on(Mutation::ForgetFormerTenure));
        let Some(until) = until else { return };
        entry.guarded_until = Some(until);
        let forced = entry.life.hierarchy.policy.forced_stop_within.min(self.now.until(until) / 3);
        self.timers.set(TimerKey::TenureEnd(name.clone()), until - forced);
    }

    pub(super) fn tenure_ends(&mut self, name: &HierarchyName) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        let lease = entry.lease.as_ref().and_then(|lease| self.leases.get(lease)).filter(|lease| lease.is_good);
        if let Some((lease, last)) = lease.and_then(|lease| Some((lease, lease.last_moment()?)))
            && entry.life.is_recalled()
        {
            // The lease was entered again before the former one ended, so nobody can have taken in between what was held on it, nor can
            // while it beats: there is time to prove it.
            entry.guarded_until = lease.until;
            return self.timers.set(TimerKey::TenureEnd(name.clone()), last);
        }
        self.with_life(name, |life, around, now, out| {
            life.claim_lost("its lease ends and could not be renewed", around, now, out);
        });
        self.dirty.insert(name.clone());
    }

    pub(super) fn renewed(&mut self, name: &HierarchyName, tenure: Tenure) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        self.timers.set(TimerKey::Uphold(name.clone()), self.now + UPHOLD_EVERY);
        if let Tenure::Until(until) = tenure {
            let length = self.now.until(until);
            entry.tenure_length = Some(length);
            entry.guarded_until = Some(until);
            self.effects.push_back(Effect::RememberTenure { of: TenureOf::Hierarchy(name.clone()), until });
            let forced = entry.life.hierarchy.policy.forced_stop_within.min(length / 3);
            self.timers.set(TimerKey::TenureEnd(name.clone()), until - forced);
            self.timers.set(TimerKey::Uphold(name.clone()), self.now + UPHOLD_EVERY.min(length / 5));
        }
    }

    pub(super) fn uphold(&mut self, name: &HierarchyName) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        let Some(held) = entry.life.held else { return };
        if entry.upholding.is_none() {
            let op = self.out.next_op();
            entry.upholding = Some(op);
            self.effects.push_back(Effect::Uphold { hierarchy: name.clone(), op, epoch: held.epoch });
        }
    }

    pub(super) fn upheld(&mut self, name: &HierarchyName, op: OpId, answer: Result<Tenure, Loss>) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        if entry.upholding.take_if(|o| *o == op).is_none() || !entry.life.holds() {
            return;
        }
        match answer {
            Ok(tenure) if tenure.is_over(self.now) => self.not_proven(name, TOO_LATE, None),
            Ok(tenure) => {
                if let Some(Unproven { since, .. }) = entry.unproven.take() {
                    self.tell(Some(name), Happened::ProvenAgain { after: self.now.since(since) });
                    self.announce(name);
                }
                self.renewed(name, tenure);
            }
            Err(Loss::Unproven { why, proven }) => self.not_proven(name, &why, proven),
            Err(loss @ (Loss::Taken(_) | Loss::GivenUp(_))) => self.stop_by_force(name, &loss),
        }
    }

    /// The claim says by itself that a tenure is over. What it says of an earlier one is not about what is held now.
    pub(super) fn lost(&mut self, name: &HierarchyName, epoch: Epoch, loss: &Loss) {
        let Some(entry) = self.entries.get(name) else { return };
        let is_held = entry.life.holds() && entry.life.held.is_some_and(|held| held.epoch == epoch);
        if is_held && !matches!(loss, Loss::Unproven { .. }) {
            self.stop_by_force(name, loss);
        }
    }

    fn stop_by_force(&mut self, name: &HierarchyName, loss: &Loss) {
        let why = loss.to_string();
        self.with_life(name, |life, around, now, out| life.claim_lost(&why, around, now, out));
        self.dirty.insert(name.clone());
    }

    fn not_proven(&mut self, name: &HierarchyName, why: &str, proven: Option<Time>) {
        let now = self.now;
        if let Some(entry) = self.entries.get_mut(name)
            && entry.unproven.is_none()
        {
            let since = proven.unwrap_or(now);
            entry.unproven = Some(Unproven { since, noticed: now, why: why.chars().take(150).collect() });
            self.tell(Some(name), Happened::Unproven { why: why.to_owned(), since });
            self.announce(name);
        }
        self.timers.set(TimerKey::Uphold(name.clone()), self.now + UPHOLD_AGAIN);
    }

    pub(super) fn lease_news(&mut self, name: &str, news: &LeaseNews) {
        let now = self.now;
        let lease = self.leases.entry(name.to_owned()).or_default();
        let was_trouble = lease.trouble.clone();
        // A lease that ran out and was entered anew proves nothing of what was held before, however good it looks.
        let lapsed = std::mem::replace(&mut lease.lapsed, news.lapsed) != news.lapsed;
        lease.until = news.until;
        lease.proven = news.until.or(lease.proven);
        lease.trouble.clone_from(&news.trouble);
        if let Some(until) = news.until {
            lease.length = lease.length.max(now.until(until));
            self.effects.push_back(Effect::RememberTenure { of: TenureOf::Lease(name.to_owned()), until });
        }
        let is_good = lease.last_moment().is_some_and(|last| last > now);
        let was_good = std::mem::replace(&mut lease.is_good, is_good);
        let channel = match &lease.channel {
            Some(channel) => channel.clone(),
            None => {
                let channel = ChannelName::new(name.replace(':', "-")).ok();
                lease.channel.clone_from(&channel);
                match channel {
                    Some(channel) => channel,
                    None => return,
                }
            }
        };
        let members: Vec<HierarchyName> =
            if is_good == was_good && !lapsed { Vec::new() } else { lease.members.iter().cloned().collect() };
        let mut rebooted = Vec::new();
        for (peer, seen) in &news.peers {
            match seen {
                PeerOnStorage::Beating { since, boot } => {
                    self.contact.heard_on_storage(now, &channel, peer, *since);
                    if lease.boots.insert(peer.clone(), *boot).is_some_and(|before| before != *boot) {
                        rebooted.push(peer);
                    }
                }
                PeerOnStorage::Left => self.contact.left_on_storage(now, &channel, peer),
            }
        }
        for peer in rebooted {
            // What it held is free from now on: nothing is gained by waiting for the lease of a boot that is over.
            let what = format!("the slot of {peer} on {name} shows a new boot: what it held before is free");
            self.tell(None, Happened::Contact { peer: peer.clone(), what });
            self.concern(peer);
        }
        if news.trouble != was_trouble {
            self.trouble(format!("lease {name}"), news.trouble.clone());
            // A lease that cannot be entered makes this node unfit, which others wait to hear.
            let members = self.leases.get(name).filter(|_| !is_good).map(|lease| lease.members.clone());
            self.dirty.extend(members.unwrap_or_default());
        }
        if is_good {
            self.set_lease_end(name);
        }
        if (is_good != was_good || lapsed) && !mutation::is_on(Mutation::OverstayLease) {
            let why = if is_good { "the lease ran out before it was renewed" } else { "the lease is lost" };
            for member in members {
                self.with_life(&member, |life, around, now, out| {
                    if life.holds() && (lapsed || !is_good) {
                        life.claim_lost(why, around, now, out);
                    } else if is_good {
                        life.hurry();
                        life.inspect(out);
                    }
                });
                self.dirty.insert(member);
            }
        }
    }

    /// One timer for the whole lease, whatever the number of its members.
    pub(super) fn set_lease_end(&mut self, name: &str) {
        if let Some(last) = self.leases.get(name).and_then(Lease::last_moment) {
            self.timers.set(TimerKey::LeaseEnd(name.to_owned()), last);
        }
    }

    /// To when what runs of a hierarchy may run at most.
    pub(super) fn may_run_until(&self, entry: &Entry) -> Option<Time> {
        let shared = entry.lease.as_ref().filter(|_| entry.life.holds());
        match shared.and_then(|name| self.leases.get(name)) {
            Some(lease) => lease.proven,
            None => entry.guarded_until,
        }
    }

    pub(super) fn lease_ends(&mut self, name: &str) {
        let Some(lease) = self.leases.get_mut(name).filter(|_| !mutation::is_on(Mutation::OverstayLease)) else {
            return;
        };
        lease.is_good = false;
        let left = lease.until.map_or(Duration::ZERO, |t| self.now.until(t));
        let trouble = lease.trouble.clone().unwrap_or_else(|| "no renewal was acknowledged".to_owned());
        let why = format!("lease {name} ends in {left:.1?} and could not be renewed: {trouble}");
        let members: Vec<HierarchyName> = lease.members.iter().cloned().collect();
        for member in members {
            self.with_life(&member, |life, around, now, out| {
                if life.holds() {
                    life.claim_lost(&why, around, now, out);
                }
            });
            self.dirty.insert(member);
        }
    }

    pub(super) fn lease_length(&self, name: &HierarchyName) -> Option<Duration> {
        let entry = self.entries.get(name)?;
        match &entry.lease {
            Some(lease) => self.leases.get(lease).map(|l| l.length).filter(|l| *l > Duration::ZERO),
            None => entry.tenure_length,
        }
    }
}
