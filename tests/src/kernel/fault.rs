//! Faults that a machine room has, each brought about, seen to be dealt with, and repaired.
//!
//! Decides when a fault has had its effect: what a test waits for is what the cluster must do, never a length of time.

use super::cluster::{ClaimKind, KernelCluster, LEDGER};
use super::guest::Guest;
use super::lab::pause;
use super::spec::Network;
use crate::random::Random;
use crate::trouble::{Result, While as _};
use crate::wait::eventually;

/// A fault of the node that serves, or of what it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// It loses power.
    PowerLoss,
    /// Its kernel hangs until another node serves, and then goes on.
    Hang,
    /// No other node and no client hears it; it reaches the storage. Nothing may move.
    NetworkCut,
    /// It does not reach the storage.
    StorageCut,
    /// The service is killed.
    ServiceKilled,
    /// The agent is killed, and started again. The service goes on.
    AgentKilled,
    /// The target loses power, and keeps its reservations.
    TargetPowerLoss,
    /// No fault: an operator moves it.
    Move,
}

impl Fault {
    /// All that say something of a claim. A lease is not safe where a kernel hangs and its watchdog with it, and its area is one more way on
    /// which nodes hear each other: a cut of the network is none.
    pub fn all(claim: ClaimKind) -> Vec<Fault> {
        use Fault::{AgentKilled, Hang, Move, NetworkCut, PowerLoss, ServiceKilled, StorageCut, TargetPowerLoss};
        let mut all = vec![PowerLoss, StorageCut, ServiceKilled, AgentKilled, TargetPowerLoss, Move];
        if claim != ClaimKind::LockArea {
            all.extend([Hang, NetworkCut]);
        }
        all
    }

    /// So many in a row, the same for the same seed. Each kind comes once before any comes twice.
    pub fn in_a_row(claim: ClaimKind, seed: u64, count: usize) -> Vec<Fault> {
        let mut random = Random::new(seed);
        let mut drawn = Vec::new();
        let mut left = Vec::new();
        while drawn.len() < count {
            if left.is_empty() {
                left = Fault::all(claim);
            }
            let which = random.up_to(left.len() as u64 - 1);
            drawn.push(left.swap_remove(usize::try_from(which).unwrap_or_default()));
        }
        drawn
    }

    /// Brings it about on the node that serves, waits for what the cluster must do about it, and repairs it: all nodes run, hear each other and
    /// see the disks afterwards. `program` is the name of what is killed as the service. Returns who serves then.
    pub fn strike(self, cluster: &KernelCluster, program: &str) -> Result<String> {
        let lab = cluster.lab();
        let name = holder(cluster);
        let node = lab.node(&name);
        let other = lab.nodes().iter().find(|other| other.name() != name).map(Guest::name);
        let other = other.unwrap_or(&name);
        match self {
            Fault::PowerLoss => {
                node.power_off()?;
                elsewhere(cluster, &name);
                node.power_on()?;
            }
            Fault::Hang => {
                node.hang()?;
                elsewhere(cluster, &name);
                node.wake()?;
            }
            Fault::NetworkCut => {
                lab.cut(node, Network::Cluster)?;
                cluster.until_heard(other, &name, "lost");
                refused(cluster, other);
                lab.join(node, Network::Cluster)?;
            }
            Fault::StorageCut => {
                lab.cut(node, Network::StorageA)?;
                lab.cut(node, Network::StorageB)?;
                elsewhere(cluster, &name);
                lab.join(node, Network::StorageA)?;
                lab.join(node, Network::StorageB)?;
            }
            Fault::ServiceKilled => {
                // A worker of it may end by itself meanwhile.
                let kill =
                    format!("for pid in $(pidof {program}); do kill -KILL $pid && killed=yes; done; test $killed");
                node.shell(&kill).map(drop)?;
            }
            Fault::AgentKilled => node.shell("kill -KILL $(pidof ha)").map(drop)?,
            Fault::TargetPowerLoss => {
                lab.target().power_off()?;
                lab.target().power_on()?;
            }
            Fault::Move => {
                // Refused until the other, which may just have started, could serve. Not waited for: a node that is reset meanwhile, as one of a
                // busy machine may be by its watchdog, never answers.
                eventually("it is to be moved", || {
                    cluster.ask(&name, &["move", LEDGER, other, "--no-wait"]).map(drop).inspect_err(|_| pause())
                });
                elsewhere(cluster, &name);
            }
        }
        lab.until_up();
        for node in lab.nodes() {
            for other in lab.nodes().iter().filter(|other| other.name() != node.name()) {
                cluster.until_heard(node.name(), other.name(), "alive");
            }
        }
        if self == Fault::Move {
            // A pin would draw it back after a later fault.
            cluster.ask(other, &["unpin", LEDGER]).to("take the pin away")?;
        }
        Ok(holder(cluster))
    }
}

/// Who serves, as itself says.
pub fn holder(cluster: &KernelCluster) -> String {
    serving(cluster, |_| true)
}

/// Waits until another node than `name` says that it serves.
fn elsewhere(cluster: &KernelCluster, name: &str) {
    serving(cluster, |node| node != name);
}

fn serving(cluster: &KernelCluster, wanted: impl Fn(&str) -> bool) -> String {
    eventually("a node says that it serves", || {
        for node in cluster.lab().nodes().iter().map(Guest::name).filter(|node| wanted(node)) {
            if cluster.status(node).is_ok_and(|status| status.place(LEDGER) == Some(node)) {
                return Ok(node.to_owned());
            }
        }
        pause();
        Err("none does")
    })
}

/// Waits until a node has asked for the claim and was refused, after it last lost contact.
fn refused(cluster: &KernelCluster, node: &str) {
    eventually(&format!("{node} was refused"), || {
        let events = cluster.events(node).map_err(|trouble| trouble.to_string())?;
        let latest = |kind: &str| events.iter().rposition(|event| event.kind() == kind);
        if latest("claim-refused") > latest("contact-lost") {
            return Ok(());
        }
        pause();
        Err(events.last().map(|event| event.line.clone()).unwrap_or_default())
    });
}
