//! `ha run`, and the hidden `ha warden`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use ha_core::name::{BootId, NodeName};
use ha_resources::fence::Reset;
use ha_resources::fence::warden::{OnExpiry, Settings, warden_main};

use super::node_name;
use crate::config::WardenAct;

/// Of `ha run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// This node's name in agent.ron [default: the host name]
    #[arg(long, env = "HA_NODE", value_name = "NODE", value_parser = node_name)]
    pub(crate) node: Option<NodeName>,
    /// The identity of this boot, where several nodes share a kernel, as containers do [default: the kernel's]
    #[arg(long, env = "HA_BOOT_ID", value_name = "UUID")]
    pub(crate) boot_id: Option<BootId>,
}

/// Of `ha warden`, which the agent starts; people have no use for it.
#[derive(Debug, Args)]
pub(crate) struct WardenArgs {
    /// Where it listens
    #[arg(long)]
    at: PathBuf,
    /// What it does at the end of a lease
    #[arg(long)]
    on_expiry: WardenAct,
    /// How long after that nothing may run any more
    #[arg(long)]
    margin_ms: u64,
}

/// `ha warden`.
pub(crate) fn warden(args: &WardenArgs) -> ExitCode {
    let on_expiry = match args.on_expiry {
        WardenAct::Kill => OnExpiry::KillGroups { otherwise: Reset::Refused },
        WardenAct::KillElseReset => OnExpiry::KillGroups { otherwise: Reset::Machine },
        WardenAct::Reset => OnExpiry::ResetMachine(Reset::Machine),
    };
    let settings = Settings { margin: Duration::from_millis(args.margin_ms), ..Settings::new(on_expiry) };
    warden_main(&args.at, &settings)
}
