//! What it takes to turn on a machine: the contract between the laboratory and its program `lab-init`, which is each node's power
//! supply and its process number 1.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Where a node finds what the laboratory gave it: its configuration (`etc`), its state (`state`), its logs (`log`) and the disk (`disk`).
pub const LAB: &str = "/run/lab";

/// One machine, as it is turned on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// Its host name.
    pub name: String,
    /// The network namespace that it lives in.
    pub network: PathBuf,
    /// Its folder on the host, seen by the node as [`LAB`].
    pub dir: PathBuf,
    /// The witness's log on the host, seen by the node as [`Machine::witness`].
    pub witness: PathBuf,
    /// Its control group on the host, if there are any of version 2.
    pub cgroup: Option<PathBuf>,
    /// What it will read from `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// The command that the node's process number 1 keeps running, as a service manager would: the program and its arguments. Its
    /// standard output and error go to `log/agent` in the node's folder.
    pub agent: Vec<String>,
}

impl Machine {
    /// Where a node sees the witness's log.
    pub fn witness() -> PathBuf {
        Path::new(LAB).join("witness")
    }

    /// The file whose presence says that the agent is to be kept running, in the node's folder.
    pub fn wanted(dir: &Path) -> PathBuf {
        dir.join("agent-wanted")
    }

    /// A stand-in for `/proc/sysrq-trigger`, in the node's folder: a machine that asks to be reset this way is.
    pub fn sysrq(dir: &Path) -> PathBuf {
        dir.join("sysrq-trigger")
    }
}
