//! Random trouble: what happens to a cluster, and when.
//!
//! Swarm testing (Groce et al., ISSTA 2012): each seed switches a random subset of the kinds of trouble on, so that some are seen undisturbed by the
//! others.

use std::time::Duration;

use crate::engine::{Ask, Switch};
use crate::name::{HierarchyName, NodeName, ResourceName};
use crate::recovery::Pressure;
use crate::sim::{Action, Answers, Behaviour, Draws, Moment, Path, Setup, ToDisk, WatchdogSetup, Way, Weather};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Power,
    Freeze,
    AgentKilled,
    AgentPaused,
    Hanging,
    Lag,
    Cut,
    OneWay,
    AllCut,
    Weather,
    StorageSlow,
    StorageErrors,
    StorageHangs,
    StorageLost,
    Crash,
    StartFails,
    StopFails,
    Unkillable,
    Monitors,
    CrashLoop,
    Utility,
    Lacks,
    Moves,
    StartStop,
    Standby,
    Maintenance,
    Drain,
    Reload,
    Upgrade,
    Pressure,
}

const KINDS: [Kind; 30] = [
    Kind::Power,
    Kind::Freeze,
    Kind::AgentKilled,
    Kind::AgentPaused,
    Kind::Hanging,
    Kind::Lag,
    Kind::Cut,
    Kind::OneWay,
    Kind::AllCut,
    Kind::Weather,
    Kind::StorageSlow,
    Kind::StorageErrors,
    Kind::StorageHangs,
    Kind::StorageLost,
    Kind::Crash,
    Kind::StartFails,
    Kind::StopFails,
    Kind::Unkillable,
    Kind::Monitors,
    Kind::CrashLoop,
    Kind::Utility,
    Kind::Lacks,
    Kind::Moves,
    Kind::StartStop,
    Kind::Standby,
    Kind::Maintenance,
    Kind::Drain,
    Kind::Reload,
    Kind::Upgrade,
    Kind::Pressure,
];

/// What happens to disks with reservations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DiskKind {
    Power,
    Reset,
    Lost,
    Late,
    Busy,
    Full,
    Path,
}

const DISK_KINDS: [DiskKind; 7] =
    [DiskKind::Power, DiskKind::Reset, DiskKind::Lost, DiskKind::Late, DiskKind::Busy, DiskKind::Full, DiskKind::Path];

struct Trouble<'a> {
    setup: &'a Setup,
    draws: Draws,
    actions: Vec<(Moment, Action)>,
    revision: u32,
}

pub(super) fn draw(setup: &Setup, draws: &Draws, end: Moment) -> Vec<(Moment, Action)> {
    let mut swarm = draws.branch("swarm");
    let freezes = matches!(setup.watchdog, WatchdogSetup::Device { .. });
    // A machine that freezes with its warden is beyond what a lease can guard against.
    let possible = |kind: &Kind| freezes || *kind != Kind::Freeze;
    let kinds: Vec<Kind> = KINDS.into_iter().filter(possible).filter(|_| swarm.below(3) == 0).collect();
    let pace = [400u64, 2_000, 8_000, 40_000][swarm.below(4) as usize];
    let mut trouble = Trouble { setup, draws: draws.branch("what"), actions: Vec::new(), revision: 0 };
    // Switched on together, or one after the other.
    let spread = [0, 50, 8_000][swarm.below(3) as usize];
    for node in &setup.nodes {
        let at = Moment::BEGIN + Duration::from_millis(swarm.between(0, spread));
        trouble.actions.push((at, Action::PowerOn(node.name.clone())));
    }
    let mut at = Moment::BEGIN;
    while !kinds.is_empty() {
        at = at + Duration::from_millis(trouble.draws.between(1, 2 * pace));
        if at >= end {
            break;
        }
        if let Some(kind) = trouble.draws.pick(&kinds).copied() {
            trouble.happen(at, kind);
        }
    }
    let mut actions = trouble.actions;
    actions.extend(disks(setup, draws, end));
    actions.retain(|(at, _)| *at < end);
    actions.sort_by_key(|(at, _)| *at);
    actions
}

/// What happens to disks with reservations, if there are any: from branches of its own, so that it disturbs nothing else.
fn disks(setup: &Setup, draws: &Draws, end: Moment) -> Vec<(Moment, Action)> {
    let reserved: Vec<usize> =
        (0..setup.hierarchies.len()).filter(|h| setup.hierarchies[*h].reservation().is_some()).collect();
    let mut swarm = draws.branch("swarm of disks");
    let kinds: Vec<DiskKind> = DISK_KINDS.into_iter().filter(|_| swarm.below(3) == 0).collect();
    let pace = [1_000u64, 4_000, 12_000, 40_000][swarm.below(4) as usize];
    let mut trouble = Trouble { setup, draws: draws.branch("what of disks"), actions: Vec::new(), revision: 0 };
    let mut at = Moment::BEGIN;
    while !kinds.is_empty() && !reserved.is_empty() {
        at = at + Duration::from_millis(trouble.draws.between(1, 2 * pace));
        if at >= end {
            break;
        }
        if let (Some(kind), Some(h)) = (trouble.draws.pick(&kinds).copied(), trouble.draws.pick(&reserved).copied()) {
            trouble.happen_to_disk(at, kind, h);
        }
    }
    trouble.actions
}

impl Trouble<'_> {
    fn happen_to_disk(&mut self, at: Moment, kind: DiskKind, h: usize) {
        let Some(reservation) = self.setup.hierarchies[h].reservation() else { return };
        let hierarchy = self.setup.hierarchies[h].hierarchy.name.clone();
        let disk = self.draws.below(reservation.disks.len() as u64) as usize;
        let share = self.draws.between(20, 500) as u16;
        let late = Duration::from_millis(self.draws.between(10, 2 * reservation.time_limit.as_millis() as u64));
        let to = |what| Action::Disk { hierarchy: hierarchy.clone(), disk, what };
        let answers = |answers| to(ToDisk::Answers(answers));
        let good = answers(Answers::Good);
        match kind {
            DiskKind::Power => self.passing(at, to(ToDisk::Off), to(ToDisk::On)),
            DiskKind::Reset => self.at(at, to(ToDisk::Reset)),
            DiskKind::Lost => self.passing(at, answers(Answers::Lost(share)), good),
            DiskKind::Late => self.passing(at, answers(Answers::Late(late)), good),
            DiskKind::Busy => self.passing(at, answers(Answers::Busy(share)), good),
            DiskKind::Full => self.passing(at, answers(Answers::Full), good),
            DiskKind::Path => {
                let ports = reservation.disks.first().map_or(1, |target| target.ports.get());
                let (node, port) = (self.node(), self.draws.between(1, ports.into()) as u16);
                let path = |way| Action::DiskPath { node: node.clone(), hierarchy: hierarchy.clone(), disk, port, way };
                self.passing(at, path(Way::Down), path(Way::Up));
            }
        }
    }

    fn node(&mut self) -> NodeName {
        let i = self.draws.below(self.setup.nodes.len() as u64) as usize;
        self.setup.nodes[i].name.clone()
    }

    fn hierarchy(&mut self) -> (HierarchyName, ResourceName, NodeName) {
        let i = self.draws.below(self.setup.hierarchies.len() as u64) as usize;
        let hierarchy = &self.setup.hierarchies[i].hierarchy;
        let r = self.draws.below(hierarchy.resources.len() as u64) as usize;
        let n = self.draws.below(hierarchy.nodes.len() as u64) as usize;
        (hierarchy.name.clone(), hierarchy.resources[r].name.clone(), hierarchy.nodes[n].clone())
    }

    /// From a few milliseconds to half a minute, each order of magnitude alike.
    fn while_long(&mut self) -> Duration {
        let most = [20, 300, 3_000, 30_000][self.draws.below(4) as usize];
        Duration::from_millis(self.draws.between(1, most))
    }

    fn at(&mut self, at: Moment, action: Action) {
        self.actions.push((at, action));
    }

    /// Something happens, and is over after a while.
    fn passing(&mut self, at: Moment, begin: Action, end: Action) {
        let over = at + self.while_long();
        self.at(at, begin);
        self.at(over, end);
    }

    fn ask(&mut self, at: Moment, ask: Ask, to: Option<NodeName>) {
        let node = self.node();
        self.at(at, Action::Ask { at: node, to, ask });
    }

    fn happen(&mut self, at: Moment, kind: Kind) {
        let node = self.node();
        let n = || node.clone();
        match kind {
            Kind::Power => self.passing(at, Action::PowerOff(n()), Action::PowerOn(n())),
            Kind::Freeze => self.passing(at, Action::Freeze(n()), Action::Thaw(n())),
            Kind::AgentKilled => self.passing(at, Action::KillAgent(n()), Action::StartAgent(n())),
            Kind::AgentPaused => self.passing(at, Action::PauseAgent(n()), Action::ResumeAgent(n())),
            Kind::Hanging => self.passing(at, Action::HangOperations(n()), Action::FreeOperations(n())),
            Kind::Lag => {
                let by = Duration::from_millis(self.draws.between(1, 150));
                self.passing(at, Action::Lag(n(), by), Action::Lag(n(), Duration::ZERO));
            }
            Kind::Cut | Kind::OneWay => self.cut(at, kind),
            Kind::AllCut => self.passing(at, Action::CutAll, Action::HealNetwork),
            Kind::Weather => {
                let weather = Weather {
                    lost: self.draws.below(400) as u16,
                    doubled: self.draws.below(100) as u16,
                    delay: Duration::from_micros(self.draws.between(300, 60_000)),
                };
                self.passing(at, Action::Weather(weather), Action::Weather(Weather::FAIR));
            }
            Kind::StorageSlow => {
                let by = Duration::from_millis(self.draws.between(1, 600));
                self.storage(at, Path::Slow(by));
            }
            Kind::StorageErrors => self.storage(at, Path::Errors),
            Kind::StorageHangs => self.storage(at, Path::Hangs),
            Kind::StorageLost => self.storage(at, Path::Lost),
            Kind::Crash => {
                let (hierarchy, resource, node) = self.hierarchy();
                self.at(at, Action::Crash { node, hierarchy, resource });
            }
            Kind::StartFails => self.behave(at, &[Behaviour::StartFails, Behaviour::StartHangs]),
            Kind::StopFails => self.behave(at, &[Behaviour::StopFails, Behaviour::StopHangs]),
            Kind::Unkillable => self.behave(at, &[Behaviour::Unkillable]),
            Kind::Monitors => {
                self.behave(at, &[Behaviour::MonitorBad, Behaviour::MonitorHangs, Behaviour::MonitorLies]);
            }
            Kind::CrashLoop => {
                let after = self.while_long();
                self.behave(at, &[Behaviour::Crashes(after)]);
            }
            Kind::Utility => {
                let (hierarchy, _, node) = self.hierarchy();
                let utility = [0, 0, 30, 70, 100][self.draws.below(5) as usize];
                let (h, n) = (hierarchy.clone(), node.clone());
                self.passing(
                    at,
                    Action::Utility { node, hierarchy, utility },
                    Action::Utility { node: n, hierarchy: h, utility: 100 },
                );
            }
            Kind::Lacks => {
                let (hierarchy, _, node) = self.hierarchy();
                let (h, n) = (hierarchy.clone(), node.clone());
                let what = Some("a device".to_owned());
                self.passing(
                    at,
                    Action::Lacks { node, hierarchy, what },
                    Action::Lacks { node: n, hierarchy: h, what: None },
                );
            }
            Kind::Moves => {
                let (hierarchy, _, to) = self.hierarchy();
                let to = (self.draws.below(3) > 0).then_some(to);
                self.ask(at, Ask::Move { hierarchy, to }, None);
            }
            Kind::StartStop => {
                let (hierarchy, ..) = self.hierarchy();
                self.ask(at, Ask::Stop { hierarchy: hierarchy.clone() }, None);
                let over = at + self.while_long();
                self.ask(over, Ask::Start { hierarchy }, None);
            }
            Kind::Standby => {
                self.ask(at, Ask::Standby, Some(n()));
                let over = at + self.while_long();
                self.ask(over, Ask::Online, Some(n()));
            }
            Kind::Maintenance => {
                let (hierarchy, ..) = self.hierarchy();
                self.ask(at, Ask::Maintenance { hierarchy: hierarchy.clone(), switch: Switch::On }, None);
                let over = at + self.while_long();
                self.ask(over, Ask::Maintenance { hierarchy, switch: Switch::Off }, None);
            }
            Kind::Drain => {
                self.ask(at, Ask::Drain, Some(n()));
                let over = at + self.while_long();
                self.at(over, Action::StartAgent(n()));
            }
            Kind::Reload => self.reload(at),
            Kind::Upgrade => self.at(at, Action::Upgrade { node: n(), version: "2".to_owned() }),
            Kind::Pressure => {
                self.passing(at, Action::Pressure(n(), Pressure::High), Action::Pressure(n(), Pressure::Calm));
            }
        }
    }

    fn cut(&mut self, at: Moment, kind: Kind) {
        let (from, to) = (self.node(), self.node());
        let channel = self.draws.below(3) as usize;
        let channel = (channel > 0 && channel < self.setup.channels.len()).then_some(channel);
        let over = at + self.while_long();
        let mut ways = vec![(from.clone(), to.clone())];
        if kind == Kind::Cut {
            ways.push((to, from));
        }
        for (from, to) in ways {
            self.at(at, Action::Cut { from: from.clone(), to: to.clone(), channel });
            self.at(over, Action::Join { from, to, channel });
        }
    }

    fn storage(&mut self, at: Moment, path: Path) {
        let node = self.node();
        // All of them at once, sometimes: the array itself.
        if self.draws.below(4) == 0 {
            let over = at + self.while_long();
            for node in &self.setup.nodes {
                self.actions.push((at, Action::Storage(node.name.clone(), path)));
                self.actions.push((over, Action::Storage(node.name.clone(), Path::Good)));
            }
        } else {
            self.passing(at, Action::Storage(node.clone(), path), Action::Storage(node, Path::Good));
        }
    }

    fn behave(&mut self, at: Moment, hows: &[Behaviour]) {
        let (hierarchy, resource, node) = self.hierarchy();
        let node = (self.draws.below(4) > 0).then_some(node);
        let how = self.draws.pick(hows).copied().unwrap_or_default();
        let (n, h, r) = (node.clone(), hierarchy.clone(), resource.clone());
        self.passing(
            at,
            Action::Behave { node, hierarchy, resource, how },
            Action::Behave { node: n, hierarchy: h, resource: r, how: Behaviour::Well },
        );
    }

    /// The files are changed everywhere, one node after the other.
    fn reload(&mut self, at: Moment) {
        let (hierarchy, ..) = self.hierarchy();
        self.revision += 1;
        for node in &self.setup.nodes {
            let at = at + Duration::from_millis(self.draws.below(3_000));
            let (node, hierarchy) = (node.name.clone(), hierarchy.clone());
            self.actions.push((at, Action::Reload { node, hierarchy, revision: self.revision }));
        }
    }
}
