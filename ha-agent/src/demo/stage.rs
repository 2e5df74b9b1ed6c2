//! What the demonstration plays on: a directory, three nodes as processes, and what can be done to them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ha_core::claim::lock_area::admin::{AreaPlan, Existing, initialise};
use ha_core::claim::lock_area::{AreaId, LeaseTiming};
use ha_core::contact::{KeyId, KeyRing};
use ha_core::engine::{Ask, Command as Order, Reply, Snapshot};
use ha_core::name::{HierarchyName, NodeName};
use ha_core::record::Timeline;
use ha_resources::claim::DirectDevice;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::client::Client as ServiceClient;
use super::relay::Relay;
use crate::api::client::Client as ApiClient;
use crate::api::{CommandRequest, HistoryView};

pub(super) const NODES: [&str; 3] = ["alpha", "beta", "gamma"];
/// Each with its preferred node first.
pub(super) const HIERARCHIES: [(&str, [&str; 3]); 3] =
    [("web", ["alpha", "beta", "gamma"]), ("mail", ["beta", "gamma", "alpha"]), ("db", ["gamma", "alpha", "beta"])];

/// The times of the demonstration's lock area.
pub(super) fn lease() -> Result<LeaseTiming, String> {
    let ms = Duration::from_millis;
    LeaseTiming::new(ms(100), ms(1000), ms(500), ms(200)).map_err(|e| e.to_string())
}

/// Whatever went wrong, in words: a demonstration has nothing to decide from it.
pub(super) type Wrong = String;

pub(super) struct Stage {
    dir: PathBuf,
    keep: bool,
    program: PathBuf,
    agents: BTreeMap<&'static str, Child>,
    boots: u8,
    boot_ids: BTreeMap<&'static str, u8>,
    pub(super) relay: Relay,
    pub(super) clients: BTreeMap<&'static str, ServiceClient>,
}

/// A signal to send.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum To {
    /// The agent and all services: what a hung machine would not run.
    AgentAndServices,
    /// Everything, the warden too: as when the power goes.
    Everything,
    /// The agent alone.
    Agent,
}

fn free_port() -> io::Result<SocketAddr> {
    UdpSocket::bind("127.0.0.1:0")?.local_addr()
}

impl Stage {
    pub(super) async fn set(keep: bool) -> Result<Stage, Wrong> {
        let at = |what: &'static str| move |e: io::Error| format!("{what}: {e}");
        let dir = std::env::temp_dir().join(format!("ha-demo-{}", std::process::id()));
        fs::create_dir_all(&dir).map_err(at("the directory of the demonstration"))?;
        let program = std::env::current_exe().map_err(at("the path of this program"))?;
        let area = dir.join("lock-area");
        File::create(&area).and_then(|f| f.set_len(4 << 20)).map_err(at("the lock area's file"))?;
        let device = DirectDevice::open(&area, Duration::from_secs(5)).map_err(|e| e.to_string())?;
        let nodes = NODES.iter().map(NodeName::new).collect::<Result<_, _>>().map_err(|e| e.to_string())?;
        let mut id = [0; 16];
        let mut key = [0; 32];
        getrandom::fill(&mut id).map_err(|e| e.to_string())?;
        getrandom::fill(&mut key).map_err(|e| e.to_string())?;
        let plan = AreaPlan { id: AreaId(id), nodes, hierarchies: 16, timing: lease()? };
        initialise(&device, plan, Existing::Keep).await.map_err(|e| e.to_string())?;
        let mut homes = BTreeMap::new();
        let mut clients = BTreeMap::new();
        let mut services = BTreeMap::new();
        for node in NODES {
            homes.insert(node, free_port().map_err(at("a port on loopback"))?);
        }
        for (name, _) in HIERARCHIES {
            let port = free_port().map_err(at("a port on loopback"))?;
            services.insert(name, port);
            clients.insert(name, ServiceClient::start(port).map_err(at("a client"))?);
        }
        let relay = Relay::start(&homes).map_err(at("the relay"))?;
        let stage =
            Stage { dir, keep, program, agents: BTreeMap::new(), boots: 0, boot_ids: BTreeMap::new(), relay, clients };
        let key = KeyRing::generate(KeyId(1), key).to_file();
        for node in NODES {
            stage.write_files(node, &homes, &services, &key).map_err(at("the nodes' files"))?;
        }
        Ok(stage)
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    fn write_files(
        &self,
        node: &'static str,
        homes: &BTreeMap<&'static str, SocketAddr>,
        services: &BTreeMap<&'static str, SocketAddr>,
        key: &str,
    ) -> io::Result<()> {
        let home = self.dir.join(node);
        fs::create_dir_all(home.join("hierarchies"))?;
        let shown = |path: &Path| format!("{:?}", path.display().to_string());
        let mut addresses = String::new();
        for other in NODES {
            // Itself at its own port; the others behind the relay.
            let address = if other == node { homes.get(other).copied() } else { self.relay.way(node, other) };
            if let Some(address) = address {
                let _ = writeln!(addresses, "        {other:?}: (addresses: [\"{address}\"]),");
            }
        }
        let agent = format!(
            "(\n    cluster: \"demo\",\n    nodes: {{\n{addresses}    }},\n    heartbeat: (interval: \"50ms\", dead_after: \"400ms\", startup_grace: \"3s\"),\n    \
             keys: {},\n    lock_areas: {{ \"main\": (path: {}) }},\n    watchdog: Warden,\n    run_dir: {},\n    state_dir: {},\n    log_dir: {},\n)\n",
            shown(&home.join("keys")),
            shown(&self.dir.join("lock-area")),
            shown(&home.join("run")),
            shown(&home.join("state")),
            shown(&home.join("log")),
        );
        fs::write(home.join("agent.ron"), agent)?;
        fs::write(home.join("keys"), key)?;
        fs::set_permissions(home.join("keys"), std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        for (name, nodes) in HIERARCHIES {
            let Some(service) = services.get(name) else { continue };
            let hierarchy = format!(
                "Hierarchy(\n    name: {name:?},\n    nodes: {nodes:?},\n    claim: LockArea(\"main\"),\n    resources: [\n        Process(\n            \
                 name: \"service\",\n            command: [{}, \"demo-service\", \"--at\", \"{service}\", \"--witness\", {}],\n            env: {{\"DEMO_STAGE\": {}}},\n            \
                 monitoring: (every: \"1s\"),\n        ),\n    ],\n)\n",
                shown(&self.program),
                shown(&self.witness()),
                shown(&self.dir),
            );
            fs::write(home.join("hierarchies").join(format!("{name}.ron")), hierarchy)?;
        }
        Ok(())
    }

    /// Where every service stamps.
    pub(super) fn witness(&self) -> PathBuf {
        self.dir.join("witness")
    }

    /// Starts a node's agent: after a boot, or after the agent alone was killed.
    pub(super) fn start(&mut self, node: &'static str, after: After) -> Result<(), Wrong> {
        if after == After::Boot || !self.boot_ids.contains_key(node) {
            self.boots += 1;
            self.boot_ids.insert(node, self.boots);
            // What is on tmpfs does not outlive a boot.
            let _ = fs::remove_dir_all(self.dir.join(node).join("run"));
        }
        let boot = format!("{:032x}", self.boot_ids.get(node).copied().unwrap_or_default());
        let log = fs::OpenOptions::new().create(true).append(true).open(self.dir.join(node).join("agent.log"));
        let log = log.map_err(|e| format!("the log of {node}: {e}"))?;
        let mut command = Command::new(&self.program);
        command
            .arg("--config")
            .arg(self.dir.join(node))
            .args(["run", "--node", node, "--boot-id", &boot])
            .env_remove("HA_SOCKET")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            // A terminal's Ctrl-C is for the demonstration, which takes its nodes down itself.
            .process_group(0);
        let child = command.spawn().map_err(|e| format!("the agent of {node} could not be started: {e}"))?;
        self.agents.insert(node, child);
        Ok(())
    }

    /// Sends a signal to what a node consists of, each process by its number.
    pub(super) fn signal(&mut self, node: &'static str, to: To, signal: Signal) {
        let mut pids = Vec::new();
        if let Some(agent) = self.agents.get(node).and_then(|a| i32::try_from(a.id()).ok()) {
            pids.push(agent);
        }
        if to != To::Agent {
            pids.extend(self.services(Some(node)).into_iter().map(|(pid, _)| pid));
        }
        if to == To::Everything {
            pids.extend(self.wardens(Some(node)));
        }
        for pid in pids {
            let _ = kill(Pid::from_raw(pid), signal);
        }
        if signal == Signal::SIGKILL
            && let Some(mut agent) = self.agents.remove(node)
        {
            let _ = agent.wait();
        }
    }

    /// The service processes of the demonstration: of one node, or of all.
    pub(super) fn services(&self, node: Option<&str>) -> Vec<(i32, String)> {
        let ours = format!("DEMO_STAGE={}", self.dir.display());
        let mut found = Vec::new();
        for (pid, environment) in processes("environ") {
            let has = |wanted: &str| environment.split('\0').any(|v| v == wanted);
            if has(&ours) && node.is_none_or(|n| has(&format!("HA_NODE={n}"))) {
                let hierarchy = environment.split('\0').find_map(|v| v.strip_prefix("HA_HIERARCHY="));
                found.push((pid, hierarchy.unwrap_or_default().to_owned()));
            }
        }
        found
    }

    fn wardens(&self, node: Option<&str>) -> Vec<i32> {
        let home = node.map_or_else(|| self.dir.clone(), |n| self.dir.join(n));
        let home = home.display().to_string();
        let is_warden = |line: &str| {
            let mut words = line.split('\0').skip(1);
            words.next() == Some("warden") && line.split('\0').any(|w| Path::new(w).starts_with(&home))
        };
        processes("cmdline").into_iter().filter(|(_, line)| is_warden(line)).map(|(pid, _)| pid).collect()
    }

    fn api(&self, node: &str) -> ApiClient {
        ApiClient::new(self.dir.join(node).join("run/ha.sock"))
    }

    /// What a node knows, if its agent answers.
    pub(super) async fn view(&self, node: &str) -> Option<Snapshot> {
        self.api(node).get("/v1/view").await.ok()
    }

    pub(super) async fn ask(&self, node: &str, what: Ask) -> Result<Reply, Wrong> {
        let command = Order { what, by: "demo".to_owned(), reason: "to show it".to_owned() };
        let request = CommandRequest { to: None, command };
        self.api(node).post("/v1/command", &request).await.map_err(|e| e.what)
    }

    /// The latest timeline of a hierarchy on a node.
    pub(super) async fn timeline(&self, node: &str, hierarchy: &HierarchyName) -> Option<Timeline> {
        let view: HistoryView = self.api(node).get(&format!("/v1/history?last=1&hierarchy={hierarchy}")).await.ok()?;
        view.timelines.into_iter().next_back().map(|t| t.timeline)
    }

    /// The last lines of a node's log, for when something went wrong.
    pub(super) fn log_end(&self, node: &str) -> String {
        let text = fs::read_to_string(self.dir.join(node).join("agent.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

/// What went before the start of an agent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    Boot,
    AgentDeath,
}

impl Drop for Stage {
    fn drop(&mut self) {
        for node in NODES {
            self.signal(node, To::Everything, Signal::SIGKILL);
        }
        // Also what was started while the others were being killed.
        for pid in self.services(None).into_iter().map(|(pid, _)| pid).chain(self.wardens(None)) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        if !self.keep {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// Every process of ours with the content of a file of its `/proc` directory.
fn processes(file: &str) -> Vec<(i32, String)> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let bytes = fs::read(entry.path().join(file)).ok()?;
            Some((pid, String::from_utf8_lossy(&bytes).into_owned()))
        })
        .collect()
}
