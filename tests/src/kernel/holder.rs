//! A claim by reservation as production makes it, without an agent: the program `lab-holder`, which claims a disk and holds it.
//!
//! `lab-holder DISK NODE [EPOCH]`, in a cluster of the nodes `alpha` and `beta` that never hear each other; where an epoch is given it goes on with
//! that tenure. It says each thing that happens in a line: `held EPOCH`, then `proven` each time that it is; or `refused WHY`, or `lost WHY`, and
//! that is the end. After SIGTERM it gives the claim up and says `released`.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ha_core::claim::reservation::{ReservationClaim, ReservationConfig, ReservationTiming, ReservationType};
use ha_core::claim::{Acquire, Belief, Claim as _, EarlyFailures, Loss};
use ha_core::name::{ClusterName, Epoch, HierarchyName, NodeName};
use ha_resources::claim::reservation::open;
use ha_resources::clock::boot_clock;
use tokio::signal::unix::{SignalKind, signal};

use crate::trouble::{Result, Trouble, While as _};

/// How long a command may take: much, for an emulated machine that shares its processor.
const LIMIT: Duration = Duration::from_secs(1);
/// How often a holder looks for challengers.
const DEFEND_INTERVAL: Duration = Duration::from_millis(500);
/// How long it goes on without proof.
const UPHOLD_BOUND: Duration = Duration::from_secs(10);

/// Runs the program.
pub fn run(arguments: &[&str]) -> Result<()> {
    let (disk, node, adopt) = match arguments {
        [disk, node] => (disk, node, None),
        [disk, node, epoch] => (disk, node, Some(Epoch(epoch.parse().to("read the epoch")?))),
        _ => return Err(Trouble::new("usage: lab-holder DISK NODE [EPOCH]")),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().to("make a runtime")?;
    runtime.block_on(hold(Path::new(disk), node, adopt))
}

async fn hold(disk: &Path, node: &str, adopt: Option<Epoch>) -> Result<()> {
    let me = name(node)?;
    let nodes = ["alpha", "beta"].into_iter().map(name).collect::<Result<Vec<NodeName>>>()?;
    let device = open(disk, LIMIT).map_err(trouble)?;
    let others = nodes.iter().filter(|other| **other != me);
    let beliefs = Arc::new(others.map(|other| (other.clone(), Belief::Lost)).collect());
    let config = ReservationConfig {
        cluster: ClusterName::new("lab").map_err(trouble)?,
        node: me.clone(),
        nodes,
        hierarchy: HierarchyName::new("ledger").map_err(trouble)?,
        kind: ReservationType::WriteExclusiveRegistrantsOnly,
        timing: ReservationTiming::new(DEFEND_INTERVAL, UPHOLD_BOUND).map_err(trouble)?,
    };
    let claim = ReservationClaim::new(vec![device], config, boot_clock()).map_err(trouble)?;
    let mut terminated = signal(SignalKind::terminate()).to("hear SIGTERM")?;
    let held = match claim.acquire(Acquire { beliefs, known: Epoch::ZERO, adopt }).await {
        Ok(held) => held,
        Err(refusal) => return say(&format!("refused {refusal}")),
    };
    say(&format!("held {}", held.epoch))?;
    loop {
        match claim.uphold(held.epoch).await {
            Ok(_) => say("proven")?,
            Err(Loss::Unproven { .. }) => {}
            Err(loss) => return say(&format!("lost {loss}")),
        }
        tokio::select! {
            _ = terminated.recv() => break,
            () = tokio::time::sleep(DEFEND_INTERVAL) => {}
        }
    }
    claim.release(held.epoch, None, EarlyFailures::default()).await.map_err(trouble)?;
    say("released")
}

fn say(line: &str) -> Result<()> {
    let mut output = std::io::stdout();
    writeln!(output, "{line}").and_then(|()| output.flush()).to("say what happened")
}

fn name(node: &str) -> Result<NodeName> {
    NodeName::new(node).map_err(trouble)
}

fn trouble(error: impl std::fmt::Display) -> Trouble {
    Trouble::new(error.to_string())
}
