//! PostgreSQL on real kernels, with its data on a shared disk, through one fault after the other: no committed row is lost.
//!
//! `HA_LAB_FAULTS=50` has so many faults, `HA_SEED=7` has others.

use ha_tests::Result;
use ha_tests::kernel::{ClaimKind, DatabaseClient, Fault, KernelCluster, KernelLab, cluster, database, fault};

/// How many faults it goes through where nothing else is said: the short form, for every run of all tests.
const FAULTS: usize = 4;

#[test]
fn no_committed_row_is_lost() -> Result<()> {
    let asked = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let faults = asked("HA_LAB_FAULTS").and_then(|count| usize::try_from(count).ok()).unwrap_or(FAULTS);
    let seed = asked("HA_SEED").unwrap_or(1);
    let claim = ClaimKind::Reservation;
    let lab = KernelLab::with_nodes(&["alpha", "beta"]).disks(&[256]).ext4(database::create);
    let cluster = KernelCluster::configured(lab, claim, &database::resource()?)?;
    cluster.start()?;
    let client = DatabaseClient::start(&cluster);
    client.until_served();

    for (number, fault) in Fault::in_a_row(claim, seed, faults).into_iter().enumerate() {
        let (from, rows) = (fault::holder(&cluster), client.committed());
        let to = fault.strike(&cluster, "postgres")?;
        client.until_served();
        let outage = client.longest_outage(rows);
        eprintln!("{number}: {fault:?} of {from}: longest time without a commit {outage:.1?}, now {to}");
        if matches!(fault, Fault::NetworkCut | Fault::AgentKilled) {
            assert_eq!(to, from, "it moved");
        }
        if to != from {
            let history = cluster.ask(&to, &["history", "--last", "1"])?;
            assert!(history.contains("T_detect"), "the outage is not explained: {history}");
            eprintln!("{}", history.trim_end());
        }
    }

    let rows = client.committed();
    client.judge(&cluster)?;
    eprintln!("{rows} rows committed, none lost");
    let node = cluster.stop_and_check(&fault::holder(&cluster))?;
    node.shell(&format!(
        "mount {} {} && runuser -u postgres -- {}/pg_checksums --check -D {}/main; code=$?; umount {}; exit $code",
        ha_tests::kernel::disk_link(0),
        cluster::MOUNTED,
        database::programs()?,
        cluster::MOUNTED,
        cluster::MOUNTED
    ))?;
    Ok(())
}
