//! A node with an older agent beside newer ones, as while a cluster is upgraded, and the upgrade of a node that serves. The older one is the build that
//! `tests/older-build` makes.

use std::fs;
use std::path::{Path, PathBuf};

use ha_tests::cluster::{Lease, served};
use ha_tests::{Cluster, Lab, Load, Result, Trouble, Work, eventually, program};

/// Which build is the older one: the path that `tests/older-build` prints.
const OLDER: &str = "HA_OLDER_BUILD";

fn older() -> Result<PathBuf> {
    let usual = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/older-build/ha");
    let path = std::env::var_os(OLDER).map_or_else(usual, PathBuf::from);
    fs::canonicalize(&path).map_err(|error| {
        let what = "this test NEEDS an older build: it was NOT RUN; `tests/older-build` makes one";
        Trouble::new(format!("{}: {error}: {what}", path.display()))
    })
}

/// Three nodes, the second of which has the older agent, with the service on the first.
fn mixed() -> Result<Cluster> {
    let (newer, older) = (program("ha")?, older()?);
    let nodes = ["alpha", "beta", "gamma"];
    let build = |node: &str| if node == "beta" { older.clone() } else { newer.clone() };
    let hierarchies = [("web", served("web", &nodes)?)];
    let cluster = Cluster::installed(Lab::with_nodes(&nodes), 2, &hierarchies, Lease::Lasting, build)?;
    cluster.start()?;
    cluster.until_placed("web", "alpha");
    Ok(cluster)
}

/// All nodes say the same of where it is.
fn until_all_see(cluster: &Cluster, node: &str) {
    for name in ["alpha", "beta", "gamma"].into_iter().filter(|name| cluster.node(name).is_on()) {
        cluster.until(name, &format!("{name} sees web on {node}"), |status| status.place("web") == Some(node));
    }
}

fn lose(cluster: &Cluster, node: &str) -> Result<()> {
    cluster.node(node).power_off()
}

fn bring_back(cluster: &Cluster, node: &str) -> Result<()> {
    cluster.node(node).power_on()?;
    for other in ["alpha", "beta", "gamma"].into_iter().filter(|other| *other != node) {
        cluster.until_heard(node, other, "alive");
        cluster.until_heard(other, node, "alive");
    }
    Ok(())
}

/// L1, S1: the older agent takes over from a newer one, and a newer one from it.
#[test]
fn an_older_agent_and_newer_ones_take_over_from_each_other() -> Result<()> {
    let cluster = mixed()?;
    until_all_see(&cluster, "alpha");
    let problems = |node: &str| cluster.status(node).map(|status| format!("{:?}", status.problems));
    for node in ["alpha", "beta", "gamma"] {
        let told = problems(node)?;
        for wrong in ["defined differently", "define the cluster differently", "did not give its view", "refused"] {
            assert!(!told.contains(wrong), "{told}");
        }
    }
    lose(&cluster, "alpha")?;
    cluster.until_placed("web", "beta");
    cluster.until_served_for("web", 1_000)?;
    bring_back(&cluster, "alpha")?;
    until_all_see(&cluster, "beta");
    lose(&cluster, "beta")?;
    cluster.until_placed("web", "alpha");
    bring_back(&cluster, "beta")?;
    until_all_see(&cluster, "alpha");
    cluster.until_served_for("web", 1_000)?;
    assert_eq!(cluster.lab().witness().check()?.nodes_of("web"), ["alpha", "beta", "alpha"]);
    Ok(())
}

/// Switchovers to the older agent and away from it, asked for on either side; and it is upgraded while it serves, and taken back to the older
/// build, and upgraded again: nobody notices (L5). Then its node is lost as any other is, and its warden, which is still the older one's, does its work (S7).
#[test]
fn an_older_agent_is_moved_to_and_from_and_upgraded_while_it_serves() -> Result<()> {
    let cluster = mixed()?;
    for (asked, to) in [("alpha", "beta"), ("beta", "gamma"), ("gamma", "beta")] {
        cluster.ask(asked, &["move", "web", to, "--reason", "an upgrade"])?;
        until_all_see(&cluster, to);
    }
    let beta = cluster.node("beta");
    let service = beta.running("lab-service")?;
    let client = cluster.client()?;
    eventually("the client is served", || client.served_by().ok_or("no answer"));
    // On a machine that is busy, as one that is upgraded at work.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let load = Load::new(Work { computing: 6, ..Work::default() }, folder.path())?;
    for build in [program("ha")?, older()?, program("ha")?] {
        beta.install(&build)?;
        cluster.restart_agent("beta", &["web"])?;
        cluster.until_said("beta", &["events"], &["adopted"]);
        until_all_see(&cluster, "beta");
    }
    cluster.until_served_for("web", 1_000)?;
    drop(load);
    let tally = client.finish().expect("it was served");
    println!(
        "upgraded, taken back, upgraded again: {tally:?}, longest time between answers {:?}",
        tally.longest.length()
    );
    assert_eq!(tally.errors, 0, "{tally:?}");
    assert_eq!(beta.running("lab-service")?, service, "the service was restarted");
    let verdict = cluster.lab().witness().check()?;
    assert_eq!(verdict.nodes_of("web"), ["alpha", "beta", "gamma", "beta"]);
    assert_eq!(verdict.of("web")[3].starts, 1);

    // The agent dies and is not started again: what it served ends with its lease, by the warden that the older one had started.
    beta.abandon_agent()?;
    assert!(beta.kill_agent()?);
    cluster.until_placed("web", "alpha");
    cluster.until_served_for("web", 1_000)?;
    assert_eq!(beta.running("lab-service")?, [], "nobody ended it");
    assert_eq!(cluster.lab().witness().check()?.nodes_of("web"), ["alpha", "beta", "gamma", "beta", "alpha"]);
    Ok(())
}
