//! What can happen to a simulated cluster from outside: faults, repairs, and what operators do.
//!
//! Decides the closed list. Each one prints as a line that a person can read, and that [`super::scenario`] reads back.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::disk::Path;
use super::network::Weather;
use crate::engine::Ask;
use crate::name::{HierarchyName, NodeName, ResourceName};
use crate::recovery::Pressure;
use crate::time::Span;

/// One thing that happens. What does not fit the state of things (to switch on what is on) changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// The power of a node is lost. Writes on their way to a disk may land, or not, block by block.
    PowerOff(NodeName),
    /// A node is switched on; its agent starts with it.
    PowerOn(NodeName),
    /// A machine stops wholly, kernel and programs, and may go on later as if nothing had been.
    Freeze(NodeName),
    /// A machine that was frozen goes on.
    Thaw(NodeName),
    /// The agent is killed. What it started goes on.
    KillAgent(NodeName),
    /// The agent is started, of whichever version was installed last.
    StartAgent(NodeName),
    /// The agent is stopped (SIGSTOP), its machine goes on.
    PauseAgent(NodeName),
    /// The agent goes on (SIGCONT).
    ResumeAgent(NodeName),
    /// Operations on resources do not end any more, although the agent, and its heartbeats, go on.
    HangOperations(NodeName),
    /// They do again: those that hung go on, too.
    FreeOperations(NodeName),
    /// Everything that reaches the agent does so late by up to so much: a slow, overloaded machine.
    Lag(NodeName, Duration),
    /// The monitor of pressure on a machine says something else.
    Pressure(NodeName, Pressure),
    /// Nothing passes from one node to another, on all networks or one of them (by position).
    Cut {
        /// From this node
        from: NodeName,
        /// to this one,
        to: NodeName,
        /// on this network.
        channel: Option<usize>,
    },
    /// The opposite of [`Action::Cut`].
    Join {
        /// From this node
        from: NodeName,
        /// to this one,
        to: NodeName,
        /// on this network.
        channel: Option<usize>,
    },
    /// No node hears any other over any network.
    CutAll,
    /// All networks are as they should be.
    HealNetwork,
    /// How the networks treat what they carry.
    Weather(Weather),
    /// How a node's path to all disks is.
    Storage(NodeName, Path),
    /// A running resource is gone: its program crashed.
    Crash {
        /// On which node.
        node: NodeName,
        /// Of which hierarchy.
        hierarchy: HierarchyName,
        /// Which.
        resource: ResourceName,
    },
    /// How a resource behaves from now on.
    Behave {
        /// On this node, or on all.
        node: Option<NodeName>,
        /// Of which hierarchy.
        hierarchy: HierarchyName,
        /// Which.
        resource: ResourceName,
        /// How.
        how: Behaviour,
    },
    /// What the probes of a hierarchy measure on a node: 0 to 100.
    Utility {
        /// Where.
        node: NodeName,
        /// Of which hierarchy.
        hierarchy: HierarchyName,
        /// How much.
        utility: u8,
    },
    /// What a node lacks to serve a hierarchy.
    Lacks {
        /// Which node.
        node: NodeName,
        /// Which hierarchy.
        hierarchy: HierarchyName,
        /// What; `None` when it lacks nothing any more.
        what: Option<String>,
    },
    /// An operator asks a node.
    Ask {
        /// At which node the command is given.
        at: NodeName,
        /// Which node is to do it, if a certain one.
        to: Option<NodeName>,
        /// What.
        ask: Ask,
    },
    /// A node reloads its files, in which one hierarchy has another definition.
    Reload {
        /// Which node.
        node: NodeName,
        /// Which hierarchy.
        hierarchy: HierarchyName,
        /// Which definition: see [`super::revision`].
        revision: u32,
    },
    /// The agent is replaced by one of another version.
    Upgrade {
        /// Where.
        node: NodeName,
        /// By which.
        version: String,
    },
    /// Something happens to a disk that a hierarchy is claimed by, to all of its paths.
    Disk {
        /// Whose.
        hierarchy: HierarchyName,
        /// Which, by position; the first is the arbiter.
        disk: usize,
        /// What.
        what: ToDisk,
    },
    /// One of a node's paths to such a disk goes down, or comes back.
    DiskPath {
        /// Whose path.
        node: NodeName,
        /// To a disk of this hierarchy.
        hierarchy: HierarchyName,
        /// Which, by position.
        disk: usize,
        /// The disk's port that it leads to, from 1 on.
        port: u16,
        /// Which of both.
        way: Way,
    },
    /// Everything that was broken is repaired, every node is on, every agent runs, and operators withdraw what they asked for.
    HealAll,
}

/// What can happen to a disk with reservations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToDisk {
    /// It loses its power, and with it all registrations, unless it keeps them.
    Off,
    /// Its power is back.
    On,
    /// Its logical unit is reset: what it was doing is aborted, and every nexus is told.
    Reset,
    /// It answers so from now on.
    Answers(Answers),
}

/// How a disk with reservations answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answers {
    /// In a few milliseconds.
    #[default]
    Good,
    /// So many of 1,000 commands are not answered; half of these are carried out.
    Lost(u16),
    /// Up to so much late, whether or not anybody still waits.
    Late(Duration),
    /// So many of 1,000 commands are turned away: it is busy.
    Busy(u16),
    /// It has no room for further registrations.
    Full,
}

/// Whether a path is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Way {
    /// It is not.
    Down,
    /// It is.
    Up,
}

/// How a resource behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Behaviour {
    /// As it should.
    #[default]
    Well,
    /// Cannot be started.
    StartFails,
    /// A start never ends.
    StartHangs,
    /// Cannot be stopped, but by force.
    StopFails,
    /// A stop never ends; force helps.
    StopHangs,
    /// Neither a stop nor force ends it.
    Unkillable,
    /// The monitor finds it bad.
    MonitorBad,
    /// The monitor does not end.
    MonitorHangs,
    /// The monitor finds it good even if it is dead, and nobody sees it die.
    MonitorLies,
    /// It dies so long after each start.
    Crashes(Duration),
}

impl Action {
    /// What kind of fault, or of operator's command, it is; none for a repair.
    pub fn fault(&self) -> Option<&'static str> {
        Some(match self {
            Action::PowerOff(_) => "power lost",
            Action::Freeze(_) => "machine frozen",
            Action::KillAgent(_) => "agent killed",
            Action::PauseAgent(_) => "agent paused",
            Action::HangOperations(_) => "operations hang",
            Action::Lag(_, by) if !by.is_zero() => "machine slow",
            Action::Pressure(_, Pressure::High) => "machine under pressure",
            Action::Cut { .. } => "network cut, one way",
            Action::CutAll => "all networks cut",
            Action::Weather(weather) if *weather != Weather::FAIR => "datagrams lost, doubled, late",
            Action::Storage(_, Path::Slow(_)) => "storage slow",
            Action::Storage(_, Path::Errors) => "storage answers with errors",
            Action::Storage(_, Path::Hangs) => "storage hangs, then answers late",
            Action::Storage(_, Path::Lost) => "path to storage lost",
            Action::Crash { .. } => "resource crashes",
            Action::Behave { how, .. } => return how.fault(),
            Action::Utility { utility, .. } if *utility < 100 => "utility falls",
            Action::Lacks { what: Some(_), .. } => "node lacks something",
            Action::Ask { .. } => "operator's command",
            Action::Reload { .. } => "reload",
            Action::Upgrade { .. } => "upgrade",
            Action::Disk { what: ToDisk::Off, .. } => "disk loses power",
            Action::Disk { what: ToDisk::Reset, .. } => "disk is reset",
            Action::Disk { what: ToDisk::Answers(Answers::Lost(_)), .. } => "disk's answers lost",
            Action::Disk { what: ToDisk::Answers(Answers::Late(_)), .. } => "disk's answers late",
            Action::Disk { what: ToDisk::Answers(Answers::Busy(_)), .. } => "disk busy",
            Action::Disk { what: ToDisk::Answers(Answers::Full), .. } => "disk full of registrations",
            Action::DiskPath { way: Way::Down, .. } => "one path to a disk lost",
            Action::Disk { what: ToDisk::On | ToDisk::Answers(Answers::Good), .. }
            | Action::DiskPath { way: Way::Up, .. }
            | Action::PowerOn(_)
            | Action::Thaw(_)
            | Action::StartAgent(_)
            | Action::ResumeAgent(_)
            | Action::FreeOperations(_)
            | Action::Lag(..)
            | Action::Pressure(_, Pressure::Calm)
            | Action::Join { .. }
            | Action::HealNetwork
            | Action::Weather(_)
            | Action::Storage(_, Path::Good)
            | Action::Utility { .. }
            | Action::Lacks { what: None, .. }
            | Action::HealAll => return None,
        })
    }
}

impl Behaviour {
    fn fault(self) -> Option<&'static str> {
        Some(match self {
            Behaviour::Well => return None,
            Behaviour::StartFails => "start fails",
            Behaviour::StartHangs => "start hangs",
            Behaviour::StopFails => "stop fails",
            Behaviour::StopHangs => "stop hangs",
            Behaviour::Unkillable => "resource cannot be killed",
            Behaviour::MonitorBad => "monitor finds it bad",
            Behaviour::MonitorHangs => "monitor hangs",
            Behaviour::MonitorLies => "monitor lies",
            Behaviour::Crashes(_) => "crashes again and again",
        })
    }
}

impl fmt::Display for Behaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Behaviour::Well => f.write_str("well"),
            Behaviour::StartFails => f.write_str("start-fails"),
            Behaviour::StartHangs => f.write_str("start-hangs"),
            Behaviour::StopFails => f.write_str("stop-fails"),
            Behaviour::StopHangs => f.write_str("stop-hangs"),
            Behaviour::Unkillable => f.write_str("unkillable"),
            Behaviour::MonitorBad => f.write_str("monitor-bad"),
            Behaviour::MonitorHangs => f.write_str("monitor-hangs"),
            Behaviour::MonitorLies => f.write_str("monitor-lies"),
            Behaviour::Crashes(after) => write!(f, "crashes-after {}", Word(*after)),
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Good => f.write_str("good"),
            Path::Slow(by) => write!(f, "slow by {}", Word(*by)),
            Path::Errors => f.write_str("errors"),
            Path::Hangs => f.write_str("hangs"),
            Path::Lost => f.write_str("lost"),
        }
    }
}

impl fmt::Display for ToDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ToDisk::Off => f.write_str("off"),
            ToDisk::On => f.write_str("on"),
            ToDisk::Reset => f.write_str("reset"),
            ToDisk::Answers(Answers::Good) => f.write_str("answers well"),
            ToDisk::Answers(Answers::Lost(share)) => write!(f, "answers lost {}", tenths(*share)),
            ToDisk::Answers(Answers::Late(by)) => write!(f, "answers late by {}", Word(*by)),
            ToDisk::Answers(Answers::Busy(share)) => write!(f, "answers busy {}", tenths(*share)),
            ToDisk::Answers(Answers::Full) => f.write_str("answers full"),
        }
    }
}

/// A share of 1,000.
fn tenths(share: u16) -> String {
    format!("{}.{}%", share / 10, share % 10)
}

/// A length of time in one word.
struct Word(Duration);

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Span(self.0).to_string().replace(' ', ""))
    }
}

/// A text between quotes, so that it can be read back whatever it is.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::Value::from(self.0).to_string())
    }
}

struct On(Option<usize>);

impl fmt::Display for On {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(channel) => write!(f, " on net{channel}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::PowerOff(node) => write!(f, "power off {node}"),
            Action::PowerOn(node) => write!(f, "power on {node}"),
            Action::Freeze(node) => write!(f, "freeze {node}"),
            Action::Thaw(node) => write!(f, "thaw {node}"),
            Action::KillAgent(node) => write!(f, "kill agent of {node}"),
            Action::StartAgent(node) => write!(f, "start agent of {node}"),
            Action::PauseAgent(node) => write!(f, "pause agent of {node}"),
            Action::ResumeAgent(node) => write!(f, "resume agent of {node}"),
            Action::HangOperations(node) => write!(f, "hang operations of {node}"),
            Action::FreeOperations(node) => write!(f, "free operations of {node}"),
            Action::Lag(node, by) => write!(f, "lag {node} by {}", Word(*by)),
            Action::Pressure(node, Pressure::Calm) => write!(f, "pressure of {node} calm"),
            Action::Pressure(node, Pressure::High) => write!(f, "pressure of {node} high"),
            Action::Cut { from, to, channel } => write!(f, "cut {from} -> {to}{}", On(*channel)),
            Action::Join { from, to, channel } => write!(f, "join {from} -> {to}{}", On(*channel)),
            Action::CutAll => f.write_str("cut all"),
            Action::HealNetwork => f.write_str("heal network"),
            Action::Weather(w) => {
                write!(f, "weather lost {} doubled {} delay {}", tenths(w.lost), tenths(w.doubled), Word(w.delay))
            }
            Action::Storage(node, path) => write!(f, "storage of {node} {path}"),
            Action::Crash { node, hierarchy, resource } => write!(f, "crash {hierarchy}/{resource} on {node}"),
            Action::Behave { node: Some(node), hierarchy, resource, how } => {
                write!(f, "behave {hierarchy}/{resource} on {node} {how}")
            }
            Action::Behave { node: None, hierarchy, resource, how } => {
                write!(f, "behave {hierarchy}/{resource} everywhere {how}")
            }
            Action::Utility { node, hierarchy, utility } => write!(f, "utility of {hierarchy} on {node} {utility}"),
            Action::Lacks { node, hierarchy, what: Some(what) } => {
                write!(f, "missing for {hierarchy} on {node}: {}", Quoted(what))
            }
            Action::Lacks { node, hierarchy, what: None } => write!(f, "missing for {hierarchy} on {node}: nothing"),
            Action::Ask { at, to: Some(to), ask } => write!(f, "ask {at} for {to}: {ask}"),
            Action::Ask { at, to: None, ask } => write!(f, "ask {at}: {ask}"),
            Action::Reload { node, hierarchy, revision } => {
                write!(f, "reload {hierarchy} on {node} revision {revision}")
            }
            Action::Upgrade { node, version } => write!(f, "upgrade {node} to {}", Quoted(version)),
            Action::Disk { hierarchy, disk, what } => write!(f, "disk {disk} of {hierarchy} {what}"),
            Action::DiskPath { node, hierarchy, disk, port, way } => {
                let way = if *way == Way::Up { "up" } else { "down" };
                write!(f, "path {port} of {node} to disk {disk} of {hierarchy} {way}")
            }
            Action::HealAll => f.write_str("heal all"),
        }
    }
}
