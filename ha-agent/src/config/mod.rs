//! What the administrator writes: `agent.ron`, and the hierarchies beside it.
//!
//! Decides the fields of `agent.ron` and their defaults, and how it and the hierarchies must fit each other. Leaves the
//! hierarchies themselves to `ha-core`, and what they are made of to `ha-resources`.

mod agent;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ha_core::claim::lock_area::LeaseTiming;
use ha_core::contact::{ChannelTiming, Timing};
use ha_core::hierarchy::{Diagnostics, Fingerprint, Loaded, Severity, Source, read_directory};
use ha_core::name::{ClusterName, LockAreaName, NodeName};
use ha_resources::fence::agents::DeviceSpec;
use ha_resources::kinds::{Builtin, ClaimDefinition};

use crate::api::SocketOptions;
use crate::exit::{Exit, Failure};

/// `agent.ron`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    /// The cluster.
    pub(crate) cluster: ClusterName,
    /// Its nodes, as they stand in the file.
    pub(crate) nodes: Vec<NodeSettings>,
    /// How nodes can be switched off by others: of each its levels, of each level its devices.
    pub(crate) fencing: FencingSettings,
    /// Who has a node fenced.
    pub(crate) fencing_by: FencingBy,
    /// How often this node makes sure that the devices can be reached.
    pub(crate) fencing_check_every: Duration,
    /// How often nodes speak, and what silence means.
    pub(crate) timing: Timing,
    /// The file with the keys.
    pub(crate) keys: Option<PathBuf>,
    /// The lock areas, as they stand in the file.
    pub(crate) lock_areas: Vec<AreaSettings>,
    /// What stops this node when its agent cannot.
    pub(crate) watchdog: WatchdogSettings,
    /// What follows when the kernel says that it is broken.
    pub(crate) on_kernel_fault: OnKernelFault,
    /// For what must not outlive a reboot.
    pub(crate) run_dir: PathBuf,
    /// For what must.
    pub(crate) state_dir: PathBuf,
    /// For what programs write.
    pub(crate) log_dir: PathBuf,
    /// The API's socket.
    pub(crate) socket: SocketOptions,
    /// How the agent logs.
    pub(crate) log: LogSettings,
    /// So many hierarchies start at once.
    pub(crate) max_recoveries: Option<usize>,
    /// What is kept to be replayed.
    pub(crate) flight_recorder: FlightSettings,
}

/// Who has a node fenced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FencingBy {
    /// An operator, by `ha fence`.
    Operator,
    /// The other nodes too, where they wait for its lease, or it could not stop something.
    Nodes,
}

/// The levels of fencing of each node that has any.
pub(crate) type FencingSettings = BTreeMap<NodeName, Vec<Vec<DeviceSpec>>>;

/// What follows when the kernel says that it is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnKernelFault {
    /// The operator is told.
    Report,
    /// The node goes into standby: it hands over what others can serve, and takes nothing.
    Drain,
    /// The watchdog resets the machine.
    Reset,
}

/// What is kept of what the agent was told and did, to be replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FlightSettings {
    /// The latest, so many MiB of it, in `flight/` of the state directory.
    Ring {
        /// All files together.
        mebibytes: u64,
    },
    /// Nothing.
    Off,
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeSettings {
    /// Its name.
    pub(crate) name: NodeName,
    /// Where it is heard, one address for each network, the networks in the same order on all nodes.
    pub(crate) addresses: Vec<SocketAddr>,
}

/// A lock area.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AreaSettings {
    /// Its name.
    pub(crate) name: LockAreaName,
    /// The device or file.
    pub(crate) path: PathBuf,
    /// The times that it is made with; what stands in an existing area counts when none is written.
    pub(crate) timing: Option<LeaseTiming>,
    /// How long one transfer may take.
    pub(crate) io_deadline: Option<Duration>,
    /// What silence means where nodes hear each other through it.
    pub(crate) channel: Option<ChannelTiming>,
}

impl AreaSettings {
    /// How long one transfer may take: as configured, else what the times allow.
    pub(crate) fn io_deadline(&self) -> Duration {
        self.io_deadline.unwrap_or_else(|| self.timing.unwrap_or_default().io_bound())
    }
}

/// What stops this node when its agent cannot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WatchdogSettings {
    /// A watchdog device, which resets the machine.
    Device {
        /// Which.
        path: PathBuf,
        /// It must be fed within this; whole seconds.
        timeout: Duration,
    },
    /// A small process beside the agent.
    Warden {
        /// What it does at the end of a lease.
        on_expiry: WardenAct,
        /// How long after the lease's end it may take until nothing runs.
        margin: Duration,
    },
    /// Nothing does.
    None,
}

impl WatchdogSettings {
    /// How long after a lease's end it may take until nothing runs any more.
    pub(crate) fn margin(&self) -> Option<Duration> {
        match self {
            WatchdogSettings::Device { timeout, .. } => Some(*timeout),
            WatchdogSettings::Warden { margin, .. } => Some(*margin),
            WatchdogSettings::None => None,
        }
    }
}

/// What a warden does at the end of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum WardenAct {
    /// Kills what runs, and goes on trying.
    Kill,
    /// Kills what runs, and resets the machine if something cannot be killed.
    KillElseReset,
    /// Resets the machine.
    Reset,
}

/// How the agent logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogSettings {
    /// "error", "warn", "info", "debug" or "trace".
    pub(crate) level: String,
    /// How a line looks.
    pub(crate) format: LogFormat,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Everything of a configuration directory.
pub(crate) struct Read {
    /// `agent.ron`, if it is whole.
    pub(crate) config: Option<Config>,
    /// The hierarchies that are whole.
    pub(crate) hierarchies: Vec<Loaded<Builtin>>,
    /// All that is wrong.
    pub(crate) diagnostics: Diagnostics,
}

/// Reads a configuration directory, and finds everything that is wrong in all its files.
pub(crate) fn read(dir: &Path) -> Read {
    let mut diagnostics = Diagnostics::new();
    let config = match Source::read(&dir.join("agent.ron")) {
        Ok(source) => {
            let (config, found) = agent::read(&source);
            diagnostics.extend(found);
            config
        }
        Err(unreadable) => {
            diagnostics.extend(unreadable);
            None
        }
    };
    let reading = read_directory(&dir.join("hierarchies"), &Builtin);
    diagnostics.extend(reading.diagnostics);
    if let Some(config) = &config {
        for loaded in &reading.loaded {
            fits(config, loaded, &mut diagnostics);
        }
    }
    no_device_twice(&reading.loaded, &mut diagnostics);
    Read { config, hierarchies: reading.loaded, diagnostics }
}

/// Reads a configuration directory that must be without errors. Warnings are returned, for the log.
pub(crate) fn read_whole(dir: &Path) -> Result<(Config, Vec<Loaded<Builtin>>, Diagnostics), Failure> {
    let Read { config, hierarchies, diagnostics } = read(dir);
    match config {
        Some(config) if !diagnostics.has_errors() => Ok((config, hierarchies, diagnostics)),
        _ => Err(Failure::new(
            Exit::BadInput,
            format!("the configuration in {} is not usable\n\n{diagnostics}", dir.display()),
        )
        .help("--config names another directory; docs/configuration.md describes the files")),
    }
}

/// A reservation has one holder: what two hierarchies have reserved could only be in service for one of them.
fn no_device_twice(hierarchies: &[Loaded<Builtin>], diagnostics: &mut Diagnostics) {
    let mut seen: BTreeMap<&Path, &Loaded<Builtin>> = BTreeMap::new();
    for loaded in hierarchies {
        let ClaimDefinition::Reservation(spec) = &loaded.claim else { continue };
        for device in &spec.devices {
            let Some(other) = seen.insert(device, loaded) else { continue };
            let message = format!(
                "{} is claimed with {}, which hierarchy {} has reserved ({})",
                loaded.hierarchy.name,
                device.display(),
                other.hierarchy.name,
                other.origin
            );
            let help = "give each hierarchy disks of its own, or put what is on one disk into one hierarchy".to_owned();
            diagnostics.add(&loaded.origin, Severity::Error, message, Some(help));
        }
    }
}

/// What only shows when a hierarchy is put beside `agent.ron`.
fn fits(config: &Config, loaded: &Loaded<Builtin>, diagnostics: &mut Diagnostics) {
    let name = &loaded.hierarchy.name;
    for node in &loaded.hierarchy.nodes {
        if !config.nodes.iter().any(|n| n.name == *node) {
            let known: Vec<&str> = config.nodes.iter().map(|n| n.name.as_str()).collect();
            let message =
                format!("{name} names node {node:?}, which agent.ron does not: expected one of {}", known.join(", "));
            diagnostics.add(&loaded.origin, Severity::Error, message, None);
        }
    }
    let ClaimDefinition::LockArea(area) = &loaded.claim else { return };
    if !config.lock_areas.iter().any(|a| a.name == *area) {
        let known: Vec<&str> = config.lock_areas.iter().map(|a| a.name.as_str()).collect();
        let known = if known.is_empty() {
            "there are none".to_owned()
        } else {
            format!("expected one of {}", known.join(", "))
        };
        let message = format!("{name} is claimed in lock area {area:?}, which agent.ron does not name: {known}");
        let help = Some("add it to lock_areas in agent.ron, then `ha lock-area init`".to_owned());
        diagnostics.add(&loaded.origin, Severity::Error, message, help);
    }
}

impl Config {
    /// Where the flight recorder's files are.
    pub(crate) fn flight_dir(&self) -> PathBuf {
        self.state_dir.join("flight")
    }

    /// The settings of a node.
    pub(crate) fn node(&self, name: &NodeName) -> Option<&NodeSettings> {
        self.nodes.iter().find(|n| n.name == *name)
    }

    /// A digest of what must be the same on all nodes: FNV-1a, which is stable for ever.
    pub(crate) fn definition(&self) -> Fingerprint {
        let areas: Vec<_> = self.lock_areas.iter().map(|a| (&a.name, &a.timing)).collect();
        let text = format!("{:?} {:?} {:?} {areas:?}", self.cluster, self.nodes, self.timing);
        let fnv = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        Fingerprint(text.bytes().fold(0xcbf2_9ce4_8422_2325, fnv))
    }
}
