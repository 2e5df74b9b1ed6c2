//! What nodes are told to do, and what goes wrong with them and with their disks, until all is mended.

use super::{Asked, Event, LIMIT, MS, World, path};
use crate::claim::reservation::machine::Input;

impl World {
    pub(super) fn act(&mut self) {
        let node = self.rng.below(self.nodes.len() as u64) as usize;
        let paused = self.nodes[node].paused_until > self.now;
        let n = &self.nodes[node];
        let (up, idle, runs) = (n.up && !paused, n.asked.is_none(), n.runs.is_some());
        match self.rng.below(if self.faults { 110 } else { 76 }) {
            0..40 if up && idle && !runs => self.ask(node, Asked::Take),
            40..46 if up && idle && runs && !self.nodes[node].recalled => {
                // All is stopped first: nothing that it wrote is under way any more.
                // Its key goes with it; the epoch is announced.
                self.forget();
                self.nodes[node].released = self.nodes[node].runs.take().unwrap();
                for (device, task) in std::mem::take(&mut self.nodes[node].writes) {
                    self.devices[device].abort(task);
                }
                self.ask(node, Asked::Release);
                if self.faults && self.acts && self.rng.below(3) == 0 {
                    let (when, life) = (self.now + self.rng.below(40 * MS), self.nodes[node].life);
                    self.at(when, Event::AgentDies { node, life });
                }
            }
            46..49 if self.acts && n.up => self.reset(node),
            49..66 if !n.up => self.boot(node),
            66..69 if n.up && self.acts => self.agent_dies(node),
            76..79 => {
                self.nodes[node].paused_until = self.now + self.rng.below(9_000) * MS;
                self.nodes[node].disturbed = self.nodes[node].paused_until;
            }
            79..83 => self.lose_path(node),
            83 => {
                let device = self.rng.below(self.plan.devices as u64) as usize;
                self.devices[device].reset();
                self.disturb_all(0);
            }
            84 if self.plan.power => self.lose_power(),
            _ => {}
        }
        let when = self.now + self.rng.below(300 * MS);
        self.at(when, Event::Act);
    }

    pub(super) fn forget(&mut self) {
        self.forgotten = self.greatest;
        self.forgotten_at = self.now;
    }

    pub(super) fn disturb_all(&mut self, more: u64) {
        for node in &mut self.nodes {
            node.disturbed = node.disturbed.max(self.now + more);
        }
    }

    pub(super) fn reset(&mut self, node: usize) {
        self.say(|| format!("n{node} is reset"));
        let n = &mut self.nodes[node];
        n.up = false;
        n.life += 1;
        n.asked = None;
        (n.runs, n.recorded, n.recalled) = (None, None, false);
        n.disturbed = self.now;
    }

    pub(super) fn boot(&mut self, node: usize) {
        self.say(|| format!("n{node} boots"));
        self.nodes[node].machine = self.machine(node);
        self.nodes[node].up = true;
        for nexus in self.nexuses(node) {
            for device in &mut self.devices {
                device.disconnect(nexus);
            }
        }
        self.connect_all(node);
        self.begin(node);
    }

    pub(super) fn agent_dies(&mut self, node: usize) {
        self.say(|| format!("the agent of n{node} dies"));
        let n = &mut self.nodes[node];
        n.life += 1;
        n.asked = None;
        n.recalled = n.recorded.is_some();
        n.disturbed = self.now;
        n.paused_until = 0;
        self.nodes[node].machine = self.machine(node);
        self.begin(node);
        if self.nodes[node].recalled {
            self.ask(node, Asked::Take);
        }
    }

    pub(super) fn lose_path(&mut self, node: usize) {
        let device = self.rng.below(self.plan.devices as u64) as usize;
        let port = 1 + self.rng.below(self.plan.ports.into()) as u16;
        self.say(|| format!("n{node} loses path {port} to disk{device}"));
        self.devices[device].disconnect(World::nexus(node, port));
        let back = self.now + self.rng.below(6_000) * MS;
        self.nodes[node].disturbed = back;
        self.at(back, Event::Reconnect { node, device, port });
        if self.rng.below(2) == 0 && self.nodes[node].up && self.nodes[node].paused_until <= self.now {
            let names = (1..=self.plan.ports).filter(|p| *p != port).map(path).collect();
            self.feed(node, Input::Paths(device, names));
        }
    }

    pub(super) fn lose_power(&mut self) {
        let device = self.rng.below(self.plan.devices as u64) as usize;
        self.say(|| format!("disk{device} loses power"));
        self.devices[device].lose_power();
        self.forget();
        let back = self.now + self.rng.below(4_000) * MS;
        self.disturb_all(back - self.now + LIMIT);
        self.at(back, Event::PowerUp { device });
    }

    pub(super) fn heal(&mut self) {
        self.faults = false;
        self.acts = false;
        for device in 0..self.plan.devices {
            self.devices[device].restore_power();
        }
        for node in 0..self.plan.nodes {
            self.nodes[node].paused_until = 0;
            if !self.nodes[node].up {
                self.boot(node);
            }
            self.connect_all(node);
            self.begin(node);
        }
    }
}
