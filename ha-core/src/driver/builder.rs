//! From parts to a running node.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{broadcast, mpsc, watch};

use super::flight::{self, FlightFiles};
use super::memory::{RunMemory, StateDirectory};
use super::network::Network;
use super::node::Node;
use super::plugin::{Channel, Fencer, Watchdog};
use super::reload::Member;
use super::run::Run;
use super::senses;
use crate::contact::{ChannelTiming, ContactConfig, ContactConfigError, KeyRing, NodeIds, Opener, Sealer, Timing};
use crate::engine::EngineConfig;
use crate::hierarchy::Fingerprint;
use crate::name::{BootId, ChannelName, ClusterName, HierarchyName, Incarnation, NodeName};
use crate::record::flight::Flight;
use crate::recovery::Pressure;
use crate::time::Time;

/// Tells the time: nanoseconds of the boot-time clock. `ha-resources` has one that asks the kernel.
pub type Clock = Arc<dyn Fn() -> Time + Send + Sync>;

/// Tells how busy the machine is. `ha-resources` has one that reads the kernel's pressure stall information.
pub type Gauge = Arc<dyn Fn() -> Pressure + Send + Sync>;

/// A clock for embedders without `ha-resources`: the monotonic clock since the first call, which stands still while the
/// machine is suspended. Good for tests and demonstrations.
pub fn boot_time() -> Clock {
    let begun = Instant::now();
    Arc::new(move || Time(u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX)) + Duration::from_secs(1))
}

/// Why a node did not start. Nothing runs, nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Nodes or timing that cannot work.
    #[error(transparent)]
    Contact(#[from] ContactConfigError),
    /// A directory that the node remembers in.
    #[error("the {what} directory {path} cannot be used: {error}; create it, or name another one")]
    Directory {
        /// "run" or "state".
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// Two members have one name.
    #[error("hierarchy {0} was given twice: names are unique in a cluster")]
    Duplicate(HierarchyName),
    /// No keys were given although there are other nodes to talk to.
    #[error("no keys were given: the nodes of a cluster share a key ring (see `KeyRing::generate`)")]
    NoKeys,
}

/// A node being put together. Mandatory: the cluster and the node's name, both asked for by [`Node::builder`].
#[must_use = "nothing runs before `start`"]
pub struct NodeBuilder {
    cluster: ClusterName,
    me: NodeName,
    nodes: Vec<NodeName>,
    timing: Timing,
    channel_timing: Vec<(ChannelName, ChannelTiming)>,
    keys: Option<KeyRing>,
    channels: Vec<Arc<dyn Channel>>,
    watchdog: Option<Arc<dyn Watchdog>>,
    fencer: Option<Arc<dyn Fencer>>,
    run_dir: Option<PathBuf>,
    state_dir: Option<PathBuf>,
    boot: BootId,
    clock: Clock,
    version: String,
    definition: Fingerprint,
    max_recoveries: usize,
    gauge: Option<Gauge>,
    flight: Option<FlightFiles>,
    members: Vec<Member>,
}

impl NodeBuilder {
    pub(super) fn new(cluster: ClusterName, me: NodeName) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        NodeBuilder {
            cluster,
            nodes: vec![me.clone()],
            me,
            timing: Timing::default(),
            channel_timing: Vec::new(),
            keys: None,
            channels: Vec::new(),
            watchdog: None,
            fencer: None,
            run_dir: None,
            state_dir: None,
            boot: BootId([0; 16]),
            clock: boot_time(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            definition: Fingerprint::default(),
            max_recoveries: cores * 4,
            gauge: None,
            flight: None,
            members: Vec::new(),
        }
    }

    /// All nodes of the cluster; this one need not be named again.
    pub fn nodes(mut self, nodes: impl IntoIterator<Item = NodeName>) -> Self {
        for node in nodes {
            if !self.nodes.contains(&node) {
                self.nodes.push(node);
            }
        }
        self
    }

    /// How often nodes speak, and what silence means. Default: [`Timing::default`].
    pub fn timing(mut self, timing: Timing) -> Self {
        self.timing = timing;
        self
    }

    /// Other times for one channel, such as the slower beat of a shared lease.
    pub fn channel_timing(mut self, channel: ChannelName, timing: ChannelTiming) -> Self {
        self.channel_timing.push((channel, timing));
        self
    }

    /// The keys that heartbeats are sealed with. Needed as soon as there is a channel.
    pub fn keys(mut self, keys: KeyRing) -> Self {
        self.keys = Some(keys);
        self
    }

    /// A way to the other nodes; several are better than one.
    pub fn channel(mut self, channel: Arc<dyn Channel>) -> Self {
        self.channels.push(channel);
        self
    }

    /// What stops this node when its agent cannot. Without one, leases are safe only while the agent runs.
    pub fn watchdog(mut self, watchdog: Arc<dyn Watchdog>) -> Self {
        self.watchdog = Some(watchdog);
        self
    }

    /// What switches other nodes off when this one decides so. Without it, only whoever owns the node does.
    pub fn fencer(mut self, fencer: Arc<dyn Fencer>) -> Self {
        self.fencer = Some(fencer);
        self
    }

    /// Where to remember what runs, best on tmpfs. Without it, a restarted agent cannot adopt what runs.
    pub fn run_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.run_dir = Some(directory.into());
        self
    }

    /// Where to remember what must outlive a reboot. Without it, operators' wishes are forgotten with the last node.
    pub fn state_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.state_dir = Some(directory.into());
        self
    }

    /// Which boot of the machine this is.
    pub fn boot_id(mut self, boot: BootId) -> Self {
        self.boot = boot;
        self
    }

    /// The clock; shared with every claim that names moments. Default: [`boot_time`].
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// A digest of the cluster's definition, compared between nodes and shown where it differs.
    pub fn definition(mut self, definition: Fingerprint) -> Self {
        self.definition = definition;
        self
    }

    /// Tells how busy the machine is; asked twice a second. While it is busy, monitors that say nothing are tolerated longer.
    pub fn pressure(mut self, gauge: Gauge) -> Self {
        self.gauge = Some(gauge);
        self
    }

    /// Records everything that the engine is told, so that it can be replayed ([`crate::record::flight`]). Default: nothing is recorded.
    pub fn flight_recorder(mut self, files: FlightFiles) -> Self {
        self.flight = Some(files);
        self
    }

    /// So many hierarchies start at once; the others wait, the more important first. Default: four for each core.
    pub fn max_recoveries(mut self, max: usize) -> Self {
        self.max_recoveries = max.max(1);
        self
    }

    /// A hierarchy that this node may serve.
    pub fn member(mut self, member: Member) -> Self {
        self.members.push(member);
        self
    }

    /// Starts the node on the current tokio runtime, in which it must be called. What an earlier life of it left running is adopted.
    pub async fn start(self) -> Result<Node, StartError> {
        let mut complaints = Vec::new();
        let directory = |what, path: &PathBuf, error| StartError::Directory { what, path: path.clone(), error };
        let memory = match &self.run_dir {
            Some(path) => {
                let (memory, complaint) = RunMemory::open(path, self.boot).map_err(|e| directory("run", path, e))?;
                complaints.extend(complaint);
                Some(memory)
            }
            None => None,
        };
        // A state directory that cannot be written must not keep a node from serving.
        let state = match self.state_dir.as_ref().map(|path| StateDirectory::open(path).map_err(|e| (path, e))) {
            Some(Ok(state)) => Some(state),
            Some(Err((path, error))) => {
                complaints.push(format!("{}: {error}; nothing will outlive a reboot", path.display()));
                None
            }
            None => None,
        };
        let (mut node_state, complaint) = state.as_ref().map(StateDirectory::node).unwrap_or_default();
        complaints.extend(complaint);
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
        let incarnation = Incarnation((node_state.incarnation.0 + 1).max(u64::try_from(wall).unwrap_or(0)));
        node_state.incarnation = incarnation;
        if let Some(state) = &state
            && let Err(error) = state.write_node(&node_state)
        {
            complaints.push(error.to_string());
        }
        // Beats must go on where something runs: its next life says what it knows.
        let adopting = memory.as_ref().is_some_and(|memory| memory.hierarchies().next().is_some());
        let measured = if adopting { Vec::new() } else { senses::first(&self.members).await };
        let now = (self.clock)();
        let contact = ContactConfig {
            me: self.me.clone(),
            boot: self.boot,
            nodes: self.nodes.clone(),
            timing: self.timing,
            channels: self.channel_timing.into_iter().collect(),
        };
        let ids = NodeIds::new(self.nodes.iter()).map_err(ContactConfigError::from)?;
        let (inputs, inbox) = mpsc::unbounded_channel();
        let mut recording = None;
        let tape = self.flight.and_then(|files| {
            let limits = files.limits();
            match flight::start(files, inputs.clone()) {
                Ok((sink, writing)) => {
                    recording = Some(writing);
                    Some((sink, limits))
                }
                Err(error) => {
                    complaints.push(format!("the flight recorder has no thread to write with: {error}"));
                    None
                }
            }
        });
        let engine = Flight::new(
            EngineConfig {
                cluster: self.cluster.clone(),
                contact,
                incarnation,
                version: self.version,
                definition: self.definition,
                max_recoveries: self.max_recoveries,
                can_reset: self.watchdog.is_some(),
                standby: node_state.standby.clone(),
                fences: self.fencer.iter().flat_map(|fencer| fencer.nodes()).collect(),
            },
            now,
            tape,
        )?;
        let keys = match self.keys {
            Some(keys) => keys,
            None if self.channels.is_empty() => KeyRing::generate(crate::contact::KeyId(0), [0; 32]),
            None => return Err(StartError::NoKeys),
        };
        let network = Network::start(
            self.channels,
            Sealer::new(&self.me, &self.cluster, &keys, incarnation),
            Opener::new(&self.me, &self.cluster, ids, &keys),
            &inputs,
        );
        let (control, requests) = mpsc::channel(64);
        let (events, _) = broadcast::channel(8192);
        let (ended, ended_seen) = watch::channel(super::Ended::No);
        let mut run = Run::new(engine, self.clock, inputs, network, events.clone(), ended);
        run.remember_with(memory, state, node_state);
        run.guard_with(self.watchdog);
        run.fencer = self.fencer;
        run.gauge = self.gauge;
        run.recording = recording;
        for complaint in complaints {
            run.complain("memory", &complaint);
        }
        for member in self.members {
            let name = member.hierarchy.name.clone();
            if !run.join(member) {
                return Err(StartError::Duplicate(name));
            }
        }
        run.begin_with(measured);
        run.report_orphans();
        tokio::spawn(run.run(inbox, requests));
        Ok(Node { me: self.me, control, events, ended: ended_seen })
    }
}
