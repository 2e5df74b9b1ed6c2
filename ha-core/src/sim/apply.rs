//! What is done to the cluster: faults, repairs, operators.
//!
//! Decides what each [`Action`] does to the machines. Leaves what nodes make of it to them.

use std::sync::Arc;
use std::time::Duration;

use super::action::{Action, Behaviour};
use super::clock::Moment;
use super::disk::Path;
use super::liveness::Line;
use super::network::Network;
use super::node::{ForAgent, Real};
use super::world::World;
use crate::engine::{Ask, Command, CommandId, Input, Switch};
use crate::hierarchy::{Fingerprint, Hierarchy};
use crate::name::{HierarchyName, NodeName};
use crate::recovery::Pressure;

/// After the repair of everything, until operators withdraw what they asked for: nodes have booted and heard each other by then.
const OPERATORS_COME: Duration = Duration::from_secs(25);

impl World {
    pub(super) fn apply(&mut self, action: &Action) {
        self.disturbed_at = self.now;
        if !matches!(action, Action::StartAgent(_) | Action::KillAgent(_)) {
            self.observer.disturbed();
        }
        if self.log.is_some() {
            self.log(Line { at: self.now, node: None, hierarchy: None, text: format!("— {action}"), told: None });
        }
        match action {
            Action::Cut { from, to, channel } => self.on_directions(from, to, *channel, Network::cut),
            Action::Join { from, to, channel } => self.on_directions(from, to, *channel, Network::join),
            Action::CutAll => {
                for (from, to) in pairs(self.nodes.len()) {
                    for channel in 0..self.setup.channels.len() {
                        self.network.cut((from, to, channel));
                    }
                }
            }
            Action::HealNetwork => self.network.heal(),
            Action::Weather(weather) => self.network.weather = *weather,
            Action::HealAll => self.heal_all(),
            Action::Disk { hierarchy, disk, what } => self.happen_to_disk(hierarchy, *disk, what),
            Action::Behave { node: None, hierarchy, resource, how } => {
                for n in 0..self.nodes.len() {
                    self.behave(n, hierarchy, resource.as_str(), *how);
                }
            }
            other => {
                if let Some(n) = node_of(other).and_then(|name| self.setup.node(name)) {
                    self.apply_to(n, other);
                    self.observe_fitness(n);
                }
            }
        }
    }

    fn apply_to(&mut self, n: usize, action: &Action) {
        match action {
            Action::PowerOff(_) => self.power_off(n),
            Action::PowerOn(_) => self.power_on(n),
            Action::Freeze(_) => {
                self.nodes[n].frozen = self.nodes[n].on;
                self.observe_all_service();
            }
            Action::Thaw(_) => {
                self.nodes[n].frozen = false;
                self.observe_all_service();
                self.let_run(n);
            }
            Action::KillAgent(_) => self.kill_agent(n),
            Action::StartAgent(_) => self.start_agent(n),
            Action::PauseAgent(_) => self.nodes[n].paused = self.nodes[n].agent.is_some(),
            Action::ResumeAgent(_) => {
                self.nodes[n].paused = false;
                self.let_run(n);
            }
            Action::HangOperations(_) => self.nodes[n].hangs = true,
            Action::FreeOperations(_) => self.nodes[n].hangs = false,
            Action::Lag(_, by) => self.nodes[n].lag = *by,
            Action::Pressure(_, pressure) => {
                self.nodes[n].pressure = *pressure;
                self.for_agent(n, ForAgent::Input(Input::Pressure(*pressure)));
            }
            Action::Storage(_, path) => {
                let before = std::mem::replace(&mut self.nodes[n].storage, *path);
                if before == Path::Lost && *path != Path::Lost && self.nodes[n].on {
                    self.log_in(n);
                }
            }
            Action::DiskPath { hierarchy, disk, port, way, .. } => {
                self.disk_path(n, (hierarchy, *disk), *port, *way);
            }
            Action::Crash { hierarchy, resource, .. } => {
                if let Some(h) = self.by_name.get(hierarchy).copied()
                    && let Some(r) =
                        self.setup.hierarchies[h].hierarchy.resources.iter().position(|r| r.name == *resource)
                    && self.nodes[n].parts[h][r].real == Real::Running
                {
                    self.dies(n, (h, r));
                }
            }
            Action::Behave { hierarchy, resource, how, .. } => self.behave(n, hierarchy, resource.as_str(), *how),
            Action::Utility { hierarchy, utility, .. } => {
                if let Some(h) = self.by_name.get(hierarchy).copied() {
                    self.nodes[n].utility.insert(h, *utility);
                    self.measure(n, h);
                }
            }
            Action::Lacks { hierarchy, what, .. } => {
                if let Some(h) = self.by_name.get(hierarchy).copied() {
                    match what {
                        Some(what) => drop(self.nodes[n].lacks.insert(h, what.clone())),
                        None => drop(self.nodes[n].lacks.remove(&h)),
                    }
                    self.measure(n, h);
                }
            }
            Action::Ask { to, ask, .. } => self.ask(n, to.clone(), ask.clone()),
            Action::Reload { hierarchy, revision, .. } => {
                if let Some(h) = self.by_name.get(hierarchy).copied() {
                    self.reload(n, h, *revision);
                }
            }
            Action::Upgrade { version, .. } => {
                self.nodes[n].version.clone_from(version);
                if self.nodes[n].agent.is_some() {
                    self.kill_agent(n);
                    self.start_agent(n);
                }
            }
            _ => {}
        }
    }

    fn on_directions(
        &mut self,
        from: &NodeName,
        to: &NodeName,
        channel: Option<usize>,
        what: fn(&mut Network, (usize, usize, usize)),
    ) {
        let (Some(from), Some(to)) = (self.setup.node(from), self.setup.node(to)) else { return };
        for c in (0..self.setup.channels.len()).filter(|c| channel.is_none_or(|only| only == *c)) {
            what(&mut self.network, (from, to, c));
        }
    }

    fn behave(&mut self, n: usize, hierarchy: &HierarchyName, resource: &str, how: Behaviour) {
        let Some(h) = self.by_name.get(hierarchy).copied() else { return };
        let position = self.setup.hierarchies[h].hierarchy.resources.iter().position(|r| r.name.as_str() == resource);
        if let Some(r) = position {
            self.nodes[n].parts[h][r].behaviour = how;
        }
    }

    fn ask(&mut self, n: usize, to: Option<NodeName>, what: Ask) {
        self.next_command += 1;
        let command = Command { what, by: format!("operator@{}", self.nodes[n].name), reason: String::new() };
        let input = Input::Command { id: CommandId(self.next_command), to, command };
        self.for_agent(n, ForAgent::Input(input));
    }

    fn heal_all(&mut self) {
        self.network.heal();
        self.heal_disks();
        for n in 0..self.nodes.len() {
            if std::mem::take(&mut self.nodes[n].storage) == Path::Lost && self.nodes[n].on {
                self.log_in(n);
            }
            let node = &mut self.nodes[n];
            (node.hangs, node.lag) = (false, Duration::ZERO);
            (node.frozen, node.paused) = (false, false);
            node.utility.clear();
            node.lacks.clear();
            for program in node.parts.iter_mut().flatten() {
                program.behaviour = Behaviour::Well;
            }
            self.let_run(n);
            self.power_on(n);
            self.start_agent(n);
            self.apply_to(n, &Action::Pressure(self.nodes[n].name.clone(), Pressure::Calm));
            for h in 0..self.setup.hierarchies.len() {
                self.measure(n, h);
                let newest = self.nodes.iter().map(|node| node.revisions[h]).max().unwrap_or_default();
                if self.nodes[n].revisions[h] != newest {
                    self.reload(n, h, newest);
                }
            }
            self.observe_fitness(n);
        }
        self.observe_all_service();
        for again in [OPERATORS_COME, OPERATORS_COME * 2] {
            self.operators_come(self.now + again);
        }
    }

    /// Operators withdraw whatever they asked for.
    fn operators_come(&mut self, at: Moment) {
        let setup = self.setup.clone();
        for node in &setup.nodes {
            // One that was being drained has ended meanwhile.
            self.at(at, Action::StartAgent(node.name.clone()));
            self.at(at, Action::Ask { at: node.name.clone(), to: Some(node.name.clone()), ask: Ask::Online });
        }
        for (i, setup_of) in setup.hierarchies.iter().enumerate() {
            let hierarchy = setup_of.hierarchy.name.clone();
            let nodes = &setup_of.hierarchy.nodes;
            let Some(node) = nodes.get(i % nodes.len()) else { continue };
            let asks = [
                Ask::Maintenance { hierarchy: hierarchy.clone(), switch: Switch::Off },
                Ask::Clear { hierarchy: hierarchy.clone() },
                Ask::Unpin { hierarchy: hierarchy.clone() },
                Ask::Start { hierarchy },
            ];
            for (k, ask) in asks.into_iter().enumerate() {
                let at = at + Duration::from_millis(100 * k as u64);
                self.at(at, Action::Ask { at: node.clone(), to: None, ask });
            }
        }
    }

    /// When the repair of everything, begun at `from`, is done.
    pub fn healed(from: Moment) -> Moment {
        from + OPERATORS_COME * 2 + Duration::from_secs(1)
    }
}

fn pairs(count: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..count).flat_map(move |from| (0..count).filter(move |to| *to != from).map(move |to| (from, to)))
}

fn node_of(action: &Action) -> Option<&NodeName> {
    match action {
        Action::PowerOff(node)
        | Action::PowerOn(node)
        | Action::Freeze(node)
        | Action::Thaw(node)
        | Action::KillAgent(node)
        | Action::StartAgent(node)
        | Action::PauseAgent(node)
        | Action::ResumeAgent(node)
        | Action::HangOperations(node)
        | Action::FreeOperations(node)
        | Action::Lag(node, _)
        | Action::Pressure(node, _)
        | Action::Storage(node, _)
        | Action::DiskPath { node, .. }
        | Action::Crash { node, .. }
        | Action::Behave { node: Some(node), .. }
        | Action::Utility { node, .. }
        | Action::Lacks { node, .. }
        | Action::Ask { at: node, .. }
        | Action::Reload { node, .. }
        | Action::Upgrade { node, .. } => Some(node),
        Action::Cut { .. }
        | Action::Join { .. }
        | Action::CutAll
        | Action::HealNetwork
        | Action::Weather(_)
        | Action::Behave { node: None, .. }
        | Action::Disk { .. }
        | Action::HealAll => None,
    }
}

/// The so manieth definition of a hierarchy: 0 is the original; the others differ from it in turn in something that is changed while it runs, in a
/// resource that is restarted, and in its claim, for which it is taken out of service.
pub fn revision(original: &Arc<Hierarchy>, number: u32) -> Arc<Hierarchy> {
    if number == 0 {
        return original.clone();
    }
    let mut changed = (**original).clone();
    let mark = Fingerprint(u64::from(number) << 32);
    match number % 3 {
        1 => changed.policy.importance = changed.policy.importance.saturating_add_unsigned(number),
        2 => {
            if let Some(resource) = changed.resources.last_mut() {
                resource.fingerprint = mark;
            }
        }
        _ => changed.claim = mark,
    }
    changed.fingerprint = mark;
    Arc::new(changed)
}
