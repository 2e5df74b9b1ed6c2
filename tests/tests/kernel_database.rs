//! PostgreSQL on real kernels, with its data on a shared disk, through one fault after the other: no committed row is lost,
//! and `ha history` explains every time in which nothing could be committed.
//!
//! `HA_LAB_FAULTS=50` has so many faults, `HA_SEED=7` has others.

use std::collections::BTreeMap;
use std::time::Duration;

use ha_tests::Result;
use ha_tests::kernel::history::{self, Gap};
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
    let client = DatabaseClient::start(cluster.lab().namespace(), database::ADDRESS);
    client.until_served();

    let mut outages: BTreeMap<Fault, Vec<Duration>> = BTreeMap::new();
    for (number, fault) in Fault::in_a_row(claim, seed, faults).into_iter().enumerate() {
        let (from, rows) = (fault::holder(&cluster), client.committed());
        let to = fault.strike(&cluster, "postgres")?;
        client.until_served();
        let gaps = client.gaps(rows);
        let outage = gaps.iter().map(Gap::length).max().unwrap_or_default();
        eprintln!("{number}: {fault:?} of {from}: longest time without a commit {outage:.1?}, now {to}");
        if matches!(fault, Fault::NetworkCut | Fault::AgentKilled) {
            assert_eq!(to, from, "it moved");
        }
        let long: Vec<Gap> = gaps.into_iter().filter(|gap| gap.length() > history::UNEXPLAINED).collect();
        history::explained(&cluster, fault, &long)?;
        eprintln!("{}", cluster.ask(&to, &["history", "--last", "1"])?.trim_end());
        outages.entry(fault).or_default().push(outage);
    }

    let rows = client.committed();
    client.judge()?;
    eprintln!("{rows} rows committed, none lost; longest time without a commit:");
    for (fault, mut outages) in outages {
        outages.sort();
        let (count, median) = (outages.len(), outages[outages.len() / 2]);
        eprintln!("{fault:?}: {count} times, median {median:.1?}, longest {:.1?}", outages[count - 1]);
    }
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
