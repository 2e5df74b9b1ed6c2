//! The kinds of resources: what can be started and stopped on a node.
//!
//! Each module decides how its kind is started, found again, watched and proven stopped. When to do which is the engine's.

pub mod address;
mod block;
pub mod check;
pub mod exec;
pub mod filesystem;
pub mod lsb;
pub mod lvm;
pub mod md;
pub mod nbd;
pub mod ocf;
pub mod process;
mod read;
pub mod route;
mod started;
pub mod systemd;

use std::path::PathBuf;

use ha_core::driver::Context;

use crate::cgroup;

/// Where resources leave what a later life of the agent needs to find them again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directories {
    /// For what must not outlive a reboot: `/run/ha`, on tmpfs.
    pub run: PathBuf,
    /// For what programs write: `/var/log/ha`.
    pub logs: PathBuf,
    /// Under which control group (version 2) programs get one each; `None` for process groups and sessions only.
    pub cgroups: Option<PathBuf>,
}

impl Directories {
    /// With the control groups of this machine, if it has them.
    pub fn new(run: impl Into<PathBuf>, logs: impl Into<PathBuf>) -> Self {
        let cgroups = cgroup::find_root();
        if cgroups.is_none() {
            tracing::warn!(
                "no control groups of version 2 here: processes are followed by their process group and session only"
            );
        }
        Self { run: run.into(), logs: logs.into(), cgroups }
    }

    /// The name of a resource's own file in one of them. A colon is in no name, so no two resources share one.
    fn file_name(context: &Context, ending: &str) -> String {
        format!("{}:{}.{ending}", context.hierarchy, context.resource)
    }
}

/// How much an advice matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// It will probably not do what is wanted.
    Warning,
    /// Worth knowing.
    Note,
}

/// Something about a resource that could be started, and would be better otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// How much it matters.
    pub weight: Weight,
    /// What was found, as a sentence.
    pub what: String,
    /// What can be done.
    pub help: Option<String>,
}

impl Advice {
    fn warning(what: impl Into<String>, help: Option<String>) -> Self {
        Self { weight: Weight::Warning, what: what.into(), help }
    }

    fn note(what: impl Into<String>, help: Option<String>) -> Self {
        Self { weight: Weight::Note, what: what.into(), help }
    }
}
