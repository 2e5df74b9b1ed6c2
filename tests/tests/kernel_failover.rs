//! Agents on real kernels: an ext4 filesystem on a shared SCSI disk with a ledger on it, and every fault that a machine room has.
//!
//! Each test ends with a check of the filesystem and of the ledger: never two writers, nothing lost that was acknowledged.

use ha_tests::Result;
use ha_tests::kernel::{ClaimKind, KernelCluster, KernelLab};

/// With a lease: whoever loses power is replaced after it, and comes back as a bystander; whoever loses its agent is reset by its watchdog.
#[test]
fn a_lease_on_a_shared_disk_moves_a_filesystem() -> Result<()> {
    let cluster = KernelCluster::with_ledger(KernelLab::with_nodes(&["alpha", "beta"]), ClaimKind::LockArea)?;
    let (alpha, beta) = (cluster.lab().node("alpha"), cluster.lab().node("beta"));
    let client = cluster.ledger_client()?;
    client.until_served_by("alpha");

    alpha.power_off()?;
    client.until_served_by("beta");
    KernelCluster::tell("power loss", &client);
    alpha.power_on()?;
    cluster.until_heard("beta", "alpha", "alive");
    cluster.until_heard("alpha", "beta", "alive");
    client.until_served_by("beta");

    let life = beta.boot_id()?;
    beta.abandon_agent()?;
    beta.shell("kill -KILL $(pidof ha)")?;
    client.until_served_by("alpha");
    KernelCluster::tell("death of the agent", &client);
    beta.until_reset(&life);

    assert_eq!(cluster.judge(client)?, ["alpha", "beta", "alpha"]);
    Ok(())
}
