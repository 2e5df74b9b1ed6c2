//! From the configuration to the parts that a node is made of.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ha_core::claim::Claim;
use ha_core::contact::KeyRing;
use ha_core::driver::{Channel, Clock, Member, Watchdog};
use ha_core::hierarchy::Loaded;
use ha_core::name::{BootId, HierarchyName, LockAreaName, NodeName};
use ha_resources::channel::Udp;
use ha_resources::claim::reservation::Identity;
use ha_resources::fence::Reset;
use ha_resources::fence::device::WatchdogDevice;
use ha_resources::fence::warden::WardenClient;
use ha_resources::kinds::{Builtin, ClaimDefinition};
use ha_resources::resource::Directories;

use super::areas::Area;
use tokio::sync::watch;

use crate::config::{AreaSettings, Config, WardenAct, WatchdogSettings};
use crate::exit::{Exit, Failure};
use crate::reservation::{Common, LateReservation, Machine, Owners};

/// What lasts for the whole life of an agent, and what hierarchies are built on.
pub(super) struct Ground {
    /// Says, if it ever does, that another agent has this node's name.
    pub(super) refused: watch::Receiver<Option<String>>,
    /// The lock areas.
    pub(super) areas: BTreeMap<LockAreaName, Area>,
    /// What reservations are made with.
    common: Common,
    /// Whose disks are whose.
    owners: Owners,
    clock: Clock,
    /// Where resources leave what they need to remember.
    pub(super) directories: Directories,
}

impl Ground {
    pub(super) fn new(config: &Config, node: &NodeName, boot: BootId, clock: &Clock) -> Self {
        let margin = config.watchdog.margin();
        let (refused, told) = watch::channel(None);
        let begin = |area: &AreaSettings| (area.name.clone(), Area::begin(area, margin, node, boot, clock, &refused));
        Ground {
            refused: told,
            areas: config.lock_areas.iter().map(begin).collect(),
            common: Common {
                cluster: config.cluster.clone(),
                nodes: config.nodes.iter().map(|n| n.name.clone()).collect(),
                node: node.clone(),
            },
            owners: Owners::default(),
            clock: clock.clone(),
            directories: Directories::new(config.run_dir.clone(), config.log_dir.clone()),
        }
    }

    /// The disks of a hierarchy that is claimed by reservation, if they are open.
    pub(super) fn disks_of(&self, hierarchy: &HierarchyName) -> Option<Vec<Identity>> {
        self.owners.disks_of(hierarchy)
    }

    /// A hierarchy with its code. Touches nothing.
    pub(super) fn member(&self, loaded: Loaded<Builtin>) -> Result<Member, String> {
        let claim = self.claim(&loaded.hierarchy.name, &loaded.claim)?;
        Ok(Member {
            claim,
            resources: loaded.resources.into_iter().map(|r| r.build(&self.directories)).collect(),
            probes: loaded.probes.into_iter().map(ha_resources::kinds::ProbeDefinition::build).collect(),
            hierarchy: loaded.hierarchy,
        })
    }

    fn claim(&self, hierarchy: &HierarchyName, definition: &ClaimDefinition) -> Result<Arc<dyn Claim>, String> {
        match definition {
            ClaimDefinition::LockArea(name) => match self.areas.get(name) {
                Some(area) => Ok(area.claim(hierarchy.clone())),
                None => Err(format!(
                    "{hierarchy}: lock area {name} is new in agent.ron: restart the agent, services go on meanwhile"
                )),
            },
            ClaimDefinition::Reservation(spec) => Ok(Arc::new(LateReservation::new(
                hierarchy.clone(),
                spec.clone(),
                self.common.clone(),
                self.clock.clone(),
                self.owners.clone(),
                Arc::new(Machine),
            ))),
        }
    }
}

/// The keys of the cluster.
pub(super) fn keys(file: &Path) -> Result<KeyRing, Failure> {
    let text = std::fs::read_to_string(file).map_err(|e| {
        Failure::new(Exit::BadInput, format!("the keys cannot be read from {}: {e}", file.display())).help(format!(
            "make them with `ha keys generate {}` on one node, and copy the file to the others",
            file.display()
        ))
    })?;
    KeyRing::parse(&text).map_err(|e| Failure::new(Exit::BadInput, format!("{}: {e}", file.display())))
}

/// One channel for each of this node's addresses.
pub(super) fn channels(config: &Config, me: &NodeName) -> Result<Vec<Arc<dyn Channel>>, Failure> {
    let Some(own) = config.node(me) else {
        let known: Vec<&str> = config.nodes.iter().map(|n| n.name.as_str()).collect();
        return Err(Failure::new(
            Exit::BadInput,
            format!("this node is called {me:?}, which agent.ron does not name: expected one of {}", known.join(", ")),
        )
        .help("say with --node which of them this machine is, or add it to agent.ron on every node"));
    };
    let mut channels: Vec<Arc<dyn Channel>> = Vec::new();
    for (network, local) in own.addresses.iter().enumerate() {
        let others = config.nodes.iter().filter(|n| n.name != *me);
        let peers = others.filter_map(|n| Some((n.name.clone(), *n.addresses.get(network)?))).collect();
        let channel = Udp::bind(*local, peers).map_err(|e| Failure::new(Exit::System, e))?;
        channels.push(Arc::new(channel));
    }
    Ok(channels)
}

/// What stops this node when its agent cannot.
pub(super) fn watchdog(config: &Config) -> Result<Option<Arc<dyn Watchdog>>, Failure> {
    match &config.watchdog {
        WatchdogSettings::None => Ok(None),
        WatchdogSettings::Device { path, timeout } => {
            let device = WatchdogDevice::open(path, *timeout, Reset::Machine);
            Ok(Some(Arc::new(device.map_err(|e| Failure::new(Exit::System, e))?)))
        }
        WatchdogSettings::Warden { on_expiry, margin } => {
            let socket = config.run_dir.join("warden.sock");
            let program = std::env::current_exe()
                .map_err(|e| Failure::new(Exit::System, format!("the path of this program is not known: {e}")))?;
            let command = warden_command(&program, &socket, *on_expiry, *margin);
            let reset = match on_expiry {
                WardenAct::Kill => Reset::Refused,
                WardenAct::KillElseReset | WardenAct::Reset => Reset::Machine,
            };
            Ok(Some(Arc::new(WardenClient::new(socket, command, *margin, reset))))
        }
    }
}

/// As `cli::run::warden` reads it.
fn warden_command(program: &Path, socket: &Path, act: WardenAct, margin: std::time::Duration) -> Vec<String> {
    use clap::ValueEnum as _;
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let act = act.to_possible_value().map(|v| v.get_name().to_owned()).unwrap_or_default();
    let margin = margin.as_millis().to_string();
    [
        "warden".to_owned(),
        "--at".to_owned(),
        text(socket),
        "--on-expiry".to_owned(),
        act,
        "--margin-ms".to_owned(),
        margin,
    ]
    .into_iter()
    .fold(vec![text(program)], |mut all, one| {
        all.push(one);
        all
    })
}

/// The directory for the node's own memory of what runs, below the run directory.
pub(super) fn memory_dir(config: &Config) -> PathBuf {
    config.run_dir.join("memory")
}
