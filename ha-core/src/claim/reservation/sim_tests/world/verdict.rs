//! What must hold: of what a node is told, and of what the disks hold at every moment.

use super::{Asked, Event, FAILED, MS, World};
use crate::claim::Refusal;
use crate::claim::reservation::machine::{Reply, RequestId};
use crate::name::Epoch;
use crate::sim::scsi::{Device, Login};

impl World {
    pub(super) fn replied(&mut self, node: usize, id: RequestId, reply: Reply) {
        let Some((_, asked)) = self.nodes[node].asked.take_if(|(asked, _)| *asked == id) else { return };
        match (asked, reply) {
            (Asked::Take, Reply::Acquired(held)) => {
                self.stats.acquired += 1;
                let n = &mut self.nodes[node];
                let adopted = n.recalled && n.recorded == Some(held.epoch);
                (n.recalled, n.recorded) = (false, Some(held.epoch));
                if !n.had_arbiter {
                    return self.fail(format!("n{node} was told that it has the claim, and never had the arbiter"));
                }
                n.runs = Some(held.epoch);
                n.excused = false;
                if adopted {
                    self.stats.adopted += 1;
                    // A device without memory is its holder's again who did not notice that it was another's.
                    let remembers = !self.plan.power;
                    if let Some((other, epoch)) = self.tenant.filter(|t| remembers && *t != (node, held.epoch)) {
                        self.fail(format!("n{node} goes on under {}; n{other} had {epoch} since", held.epoch));
                    }
                    return;
                }
                // What was released after this node asked, it cannot know of; but for that, epochs grow.
                let before = if self.forgotten_at < n.asked_at { self.greatest } else { Epoch::ZERO };
                if held.epoch <= before {
                    return self.fail(format!("n{node} has epoch {}, after {before}", held.epoch));
                }
                if let Some((former, _)) = self.tenant.filter(|(former, _)| *former != node) {
                    self.stats.takeovers += u64::from(self.nodes[former].runs.is_some() || !self.nodes[former].up);
                    let f = &self.nodes[former];
                    if f.runs.is_some() && f.up && f.paused_until < self.now && f.disturbed + 10_000 * MS < self.now {
                        return self
                            .fail(format!("n{node} took the claim from n{former}, which lives and was not disturbed"));
                    }
                }
                self.greatest = self.greatest.max(held.epoch);
                if self.nodes[node].asked_at < self.forgotten_at {
                    // It may have been taken before the device forgot.
                    self.forget();
                }
                self.nodes[node].record = held.epoch;
                self.tenant = Some((node, held.epoch));
            }
            (Asked::Take, Reply::Refused(refusal)) => {
                self.stats.defended +=
                    u64::from(matches!(&refusal, Refusal::Held { why, .. } if why.contains("defends")));
                self.stats.raced += u64::from(refusal == Refusal::Raced);
                let n = &mut self.nodes[node];
                if std::mem::take(&mut n.recalled) {
                    (n.runs, n.recorded) = (None, None);
                }
                let undisturbed = n.disturbed + 10_000 * MS < self.now;
                let remembers = self.plan.target.login == Login::Same;
                let n = &self.nodes[node];
                let excused = n.runs.is_some() || !n.clean || !undisturbed || !self.plan.calm || !remembers;
                if !excused && self.is_registered(node) {
                    self.fail(format!("n{node} was refused, and is registered still: {refusal}"));
                }
            }
            (Asked::Release, Reply::Done) => self.nodes[node].recorded = None,
            (Asked::Release, Reply::Refused(_)) => {
                // The engine tries again after a second.
                let life = self.nodes[node].life;
                self.nodes[node].asked = Some((RequestId(0), Asked::Release));
                self.at(self.now + 1_000 * MS, Event::ReleaseAgain { node, life });
            }
            (_, reply) => self.fail(format!("n{node} was answered beside the question: {reply:?}")),
        }
    }

    pub(super) fn fail(&mut self, what: String) {
        let text = format!("seed {}: at {} ms: {what}; {:?}", self.plan.seed, self.now / MS, self.plan);
        FAILED.with(|failed| failed.borrow_mut().get_or_insert(text).len());
    }

    pub(super) fn is_registered(&self, node: usize) -> bool {
        let registrations =
            |device: &Device| device.registrations().iter().any(|r| r.nexus.initiator == node as u16 + 1);
        self.devices.iter().any(registrations)
    }

    pub(super) fn holder(&self, device: usize) -> Option<usize> {
        let key = self.devices[device].reservation().held?.key?;
        Some(usize::from(self.keyring.decode(key)?.node.get()) - 1)
    }

    /// What must hold at every moment.
    pub(super) fn check(&mut self) {
        if let Some(holder) = self.holder(0) {
            self.nodes[holder].had_arbiter = true;
        }
        for device in 0..self.plan.devices {
            let held = self.holder(device);
            if let (Some(before), None) = (std::mem::replace(&mut self.held[device], held), held) {
                self.freed(device, before);
            }
        }
        let Some((tenant, _)) = self.tenant.filter(|(tenant, _)| self.nodes[*tenant].runs.is_some()) else { return };
        for other in (0..self.plan.nodes).filter(|other| *other != tenant) {
            if self.nodes[other].runs.is_none() || self.nodes[other].excused {
                continue;
            }
            for device in 0..self.plan.devices {
                if self.nexuses(other).any(|nexus| self.devices[device].may_write(nexus)) {
                    return self.fail(format!("n{tenant} has the claim, and n{other} still writes to disk{device}"));
                }
            }
        }
    }

    /// A device that is free, or forgot whom it keeps out, lets everybody write, one that hangs since it was preempted too; no protocol
    /// on the device can do anything about that. And the greatest epoch is not on it any more.
    pub(super) fn freed(&mut self, device: usize, before: usize) {
        if device == 0 {
            self.forget();
        }
        for (i, node) in self.nodes.iter_mut().enumerate() {
            node.excused |= i != before;
        }
    }

    /// Devices are given up with the arbiter last, where nothing goes wrong.
    pub(super) fn check_order(&mut self, node: usize) {
        let releasing = matches!(self.nodes[node].asked, Some((_, Asked::Release)));
        if releasing
            && self.plan.calm
            && self.holder(0) != Some(node)
            && let Some(device) = (1..self.plan.devices).find(|device| self.holder(*device) == Some(node))
        {
            self.fail(format!("n{node} has given the arbiter up, and holds disk{device}"));
        }
    }
}
