//! Devices that switch nodes off for others.
//!
//! Decides how long one takes, and whether it does what it is told, and can prove it. Leaves to the engine whom it has fenced.

use std::time::Duration;

use super::clock::Moment;
use super::node::ForAgent;
use super::world::{What, World};
use crate::engine::{Input, PROOF_COUNTS_FOR};
use crate::name::NodeName;
use crate::record::FencingNews;
use crate::time::Time;

/// What an order to fence comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Proven,
    /// It was switched off, and the device does not say so.
    Unproven,
    Nothing,
}

/// An order on its way to a device.
pub(super) struct Order {
    by: usize,
    life: u64,
    target: usize,
    begun: Time,
    outcome: Outcome,
}

/// A proof is asked for once more so long after the first one.
const ASKED_AGAIN: Duration = Duration::from_millis(1_500);
/// A device answers within this, in milliseconds.
const ANSWERS_WITHIN: u64 = 400;

/// A proof that is to be asked for once more.
pub(super) struct Question {
    by: usize,
    life: u64,
    target: usize,
}

impl World {
    pub(super) fn fence(&mut self, by: usize, node: &NodeName, why: &str) {
        let Some(target) = self.setup.node(node) else { return };
        self.tell(by, || format!("fences {node}: {why}"));
        let (begun, life) = (self.nodes[by].time(self.now), self.nodes[by].life);
        let news = FencingNews::Begun { by: self.nodes[by].name.to_string(), reason: why.to_owned() };
        self.for_agent(by, ForAgent::Input(Input::Fencing { node: node.clone(), news }));
        let draws = &mut self.nodes[by].draws;
        let outcome = match draws.below(10) {
            0 => Outcome::Nothing,
            1 => Outcome::Unproven,
            _ => Outcome::Proven,
        };
        let takes = Duration::from_millis(draws.between(50, 1_500));
        self.put(self.now + takes, What::Fenced(Order { by, life, target, begun, outcome }));
    }

    /// The device does what it does.
    pub(super) fn fenced(&mut self, order: Order) {
        let Order { by, life, target, begun, outcome } = order;
        if outcome != Outcome::Nothing {
            self.switched_off(target);
        }
        if self.nodes[by].life != life {
            return;
        }
        let node = self.nodes[target].name.clone();
        let news = match outcome {
            Outcome::Proven => FencingNews::Proven { begun, how: "the device says off".to_owned() },
            Outcome::Unproven | Outcome::Nothing => {
                FencingNews::NotProven { why: "the device does not answer".to_owned() }
            }
        };
        if outcome == Outcome::Proven {
            self.put(self.now + ASKED_AGAIN, What::AskedIfOff(Question { by, life, target }));
        }
        let answers = Duration::from_millis(self.nodes[by].draws.between(5, ANSWERS_WITHIN));
        self.for_agent_at(by, self.now + answers, ForAgent::Input(Input::Fencing { node, news }));
    }

    /// Whoever fenced a node has asked whether it is off still.
    pub(super) fn asked_if_off(&mut self, question: &Question) {
        let Question { by, life, target } = *question;
        if self.nodes[by].life != life || self.nodes[target].on {
            return;
        }
        let (begun, node) = (self.nodes[by].time(self.now), self.nodes[target].name.clone());
        let news = FencingNews::Proven { begun, how: "the device says off, still".to_owned() };
        let answers = Duration::from_millis(self.nodes[by].draws.between(5, ANSWERS_WITHIN));
        self.for_agent_at(by, self.now + answers, ForAgent::Input(Input::Fencing { node, news }));
    }

    /// Off, and on again some time later, not before every proof of it is over.
    fn switched_off(&mut self, n: usize) {
        self.stats.fencings += 1;
        let last_answer = ASKED_AGAIN + Duration::from_millis(ANSWERS_WITHIN);
        self.nodes[n].off_until = self.now + last_answer + PROOF_COUNTS_FOR + Duration::from_millis(100);
        if self.nodes[n].on {
            self.reset(n);
        } else {
            // It was about to boot.
            self.nodes[n].boot += 1;
            self.boots_later(n, self.boots_in);
        }
    }

    /// Boots a node after that time, or as soon as the device lets it.
    pub(super) fn boots_later(&mut self, n: usize, after: Duration) {
        let at: Moment = (self.now + after).max(self.nodes[n].off_until);
        let boot = self.nodes[n].boot;
        self.put(at, What::Boots { node: n, boot });
    }
}
