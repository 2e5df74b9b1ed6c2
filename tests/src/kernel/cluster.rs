//! Agents on real kernels: an ext4 filesystem on a shared disk, the ledger on it, and what an administrator would write for that.
//!
//! Decides a configuration fit for guests, which share a processor with each other: longer times than on the host's own kernel.

use std::fs;

use super::Guest;
use super::lab::{KernelBuilder, KernelLab};
use super::ledger::{LedgerClient, judge};
use super::spec::{Network, disk_link};
use crate::cluster::{CONFIG, Cluster, SERVICE};
use crate::lab::program;
use crate::trouble::{Result, Trouble, While as _};

/// The hierarchy of [`KernelCluster::serving`].
pub const LEDGER: &str = "ledger";

/// Where its filesystem is mounted.
pub const MOUNTED: &str = "/srv/ledger";

/// A laboratory of real kernels with an agent on every node.
pub type KernelCluster = Cluster<KernelLab>;

/// What decides who may serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimKind {
    /// A lease in a lock area on the second shared disk, guarded by a watchdog device.
    LockArea,
    /// A persistent reservation on the disk that is to be protected, and a watchdog device for what cannot be stopped.
    Reservation,
    /// The same without a watchdog: nothing but the disk itself keeps a node from writing that lost its reservation.
    ReservationAlone,
}

impl ClaimKind {
    /// As it is written in a hierarchy.
    fn text(self) -> String {
        match self {
            ClaimKind::LockArea => r#"LockArea("main")"#.to_owned(),
            ClaimKind::Reservation | ClaimKind::ReservationAlone => {
                format!("Reservation(devices: [{:?}])", disk_link(0))
            }
        }
    }
}

impl KernelCluster {
    /// Builds the laboratory, makes the filesystem and the configuration, starts the agents, and waits until the first node serves.
    pub fn with_ledger(builder: KernelBuilder, claim: ClaimKind) -> Result<Self> {
        let app = program("lab-ledger")?;
        let app = format!(
            r#"Process(name: "app", command: [{:?}, "{MOUNTED}/entries", "{SERVICE}"])"#,
            app.to_string_lossy()
        );
        let cluster = KernelCluster::configured(builder.ext4(|_| Ok(())), claim, &app)?;
        cluster.start()?;
        cluster.until_placed(LEDGER, cluster.lab.nodes()[0].name());
        Ok(cluster)
    }

    /// As [`KernelCluster::with_ledger`], with another resource on top of the filesystem and the address, and with no agent started.
    pub fn configured(builder: KernelBuilder, claim: ClaimKind, app: &str) -> Result<Self> {
        let hierarchy = format!(
            r#"Hierarchy(
    name: "{LEDGER}",
    nodes: {:?},
    claim: {},
    decline_for: "10s",
    settle: "1s",
    resources: [
        Filesystem(name: "data", device: {:?}, at: "{MOUNTED}", fstype: "ext4", mount_point: Created),
        Address(name: "vip", address: "10.77.0.100/24", interface: "eth0"),
        {app},
    ],
)
"#,
            builder.names(),
            claim.text(),
            disk_link(0)
        );
        KernelCluster::with_hierarchies(builder, claim, &[(LEDGER, hierarchy)])
    }

    /// Builds the laboratory and gives every node the same configuration, with these hierarchies (name and text). No agent runs yet.
    pub fn with_hierarchies(builder: KernelBuilder, claim: ClaimKind, hierarchies: &[(&str, String)]) -> Result<Self> {
        let ha = program("ha")?.to_string_lossy().into_owned();
        let builder = if claim == ClaimKind::LockArea { builder.another_disk(16) } else { builder };
        let lab = builder.agent(&[&ha, "--config", CONFIG, "run", "--node", "{node}"]).boot()?;
        let cluster = Cluster { lab, ha };
        let nodes = cluster.lab.nodes();
        for node in nodes {
            let write = |name: &str, text: &str| {
                fs::write(node.dir().join("etc").join(name), text).to(format!("write {name} of {}", node.name()))
            };
            write("agent.ron", &agent_file(nodes, claim))?;
            for (name, text) in hierarchies {
                write(&format!("hierarchies/{name}.ron"), text)?;
            }
        }
        let first = &nodes[0];
        cluster.ask(first.name(), &["keys", "generate", &format!("{CONFIG}/keys")])?;
        for other in &nodes[1..] {
            fs::copy(first.dir().join("etc/keys"), other.dir().join("etc/keys")).to("hand out the keys")?;
        }
        if claim == ClaimKind::LockArea {
            cluster.ask(first.name(), &["lock-area", "init", "main"])?;
        }
        Ok(cluster)
    }

    /// A client of the ledger.
    pub fn ledger_client(&self) -> Result<LedgerClient> {
        self.client_of(SERVICE)
    }

    /// A client of a ledger that is served at this address.
    pub fn client_of(&self, address: &str) -> Result<LedgerClient> {
        LedgerClient::start(self.lab.namespace(), address)
    }

    /// Takes the ledger out of service, checks its filesystem and its entries, and returns the nodes that wrote, one for each tenure.
    pub fn judge(&self, client: LedgerClient) -> Result<Vec<String>> {
        self.judge_on(LEDGER, 0, client)
    }

    /// As [`KernelCluster::judge`], of another hierarchy with a ledger on the filesystem of another shared disk.
    pub fn judge_on(&self, hierarchy: &str, unit: usize, client: LedgerClient) -> Result<Vec<String>> {
        let acknowledged = client.end();
        let by = acknowledged.last().ok_or_else(|| Trouble::new("nothing was ever acknowledged"))?.node.clone();
        let node = self.stop_and_check_on(hierarchy, unit, &by)?;
        let entries = node.shell(&format!("debugfs -R 'cat entries' {} 2>/dev/null", disk_link(unit)))?;
        judge(&entries, &acknowledged)
    }

    /// Takes the hierarchy out of service, as asked of a node, and has that node check the filesystem.
    pub fn stop_and_check(&self, node: &str) -> Result<&Guest> {
        self.stop_and_check_on(LEDGER, 0, node)
    }

    fn stop_and_check_on(&self, hierarchy: &str, unit: usize, node: &str) -> Result<&Guest> {
        self.ask(node, &["stop", hierarchy])?;
        let node = self.lab.node(node);
        // A mount that ended in order left nothing to be replayed: whatever is wrong now is damage.
        node.shell(&format!("e2fsck -fn {}", disk_link(unit)))?;
        Ok(node)
    }

    /// What shows that it took place: the longest time without an answer, for people who read the test's output.
    pub fn tell(what: &str, client: &LedgerClient) {
        let (entries, outage) = (client.acknowledged().len(), client.longest_outage());
        eprintln!("{what}: {entries} entries acknowledged, longest time without an answer {outage:.1?}");
    }
}

fn agent_file(nodes: &[Guest], claim: ClaimKind) -> String {
    let node = |node: &Guest| {
        format!("        {:?}: (addresses: [\"{}:7946\"]),\n", node.name(), node.address(Network::Cluster))
    };
    let area = match claim {
        ClaimKind::LockArea => format!(
            r#"    lock_areas: {{ "main": (path: {:?}, renew: "250ms", deadline: "3s", watchdog: "2s", margin: "500ms") }},
"#,
            disk_link(1)
        ),
        ClaimKind::Reservation | ClaimKind::ReservationAlone => String::new(),
    };
    let watchdog = match claim {
        ClaimKind::LockArea => r#"Device(path: "/dev/watchdog1", timeout: "2s")"#,
        // No lease is bound to it: long enough that a node which only lacks a processor is not reset.
        ClaimKind::Reservation => r#"Device(path: "/dev/watchdog1", timeout: "5s")"#,
        ClaimKind::ReservationAlone => "None",
    };
    format!(
        r#"(
    cluster: "lab",
    nodes: {{
{}    }},
    heartbeat: (interval: "100ms", late_after: "500ms", dead_after: "1500ms", startup_grace: "5s"),
    keys: "{CONFIG}/keys",
{area}    watchdog: {watchdog},
    run_dir: "/run/ha",
    state_dir: "/run/lab/state",
    log_dir: "/run/lab/log",
)
"#,
        nodes.iter().map(node).collect::<String>()
    )
}
