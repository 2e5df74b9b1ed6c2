//! What `ha history` says to who is woken by an outage: where it was, where it is, why, and how long it took.

use ha_tests::cluster::{Lease, served};
use ha_tests::{Cluster, Lab, Result, eventually};

/// Waits until a node's history has all of `words` in one line, and returns all that it says.
fn tells(cluster: &Cluster, node: &str, words: &[&str]) -> String {
    eventually(&format!("{node} tells {words:?}"), || {
        let history = cluster.ask(node, &["history"]).map_err(|trouble| trouble.to_string())?;
        let found = history.lines().any(|line| words.iter().all(|word| line.contains(word)));
        if found { Ok(history) } else { Err(history) }
    })
}

#[test]
fn every_outage_is_explained_on_every_node_that_saw_it() -> Result<()> {
    let nodes = ["alpha", "beta", "gamma"];
    // It matters what is told, not how fast it is.
    let hierarchies = [("web", served("web", &nodes)?)];
    let cluster = Cluster::with_leases(Lab::with_nodes(&nodes), 2, &hierarchies, Lease::Lasting)?;
    cluster.start()?;
    cluster.until_placed("web", "alpha");
    tells(&cluster, "alpha", &["web: first start on alpha, epoch"]);

    assert_eq!(cluster.node("alpha").kill_program("lab-service")?, 1);
    for node in nodes {
        tells(&cluster, node, &["web: local recovery on alpha", "T_detect"]);
        tells(&cluster, node, &["why: on alpha: app failed (monitor): it was killed by SIGKILL"]);
    }

    cluster.ask("gamma", &["move", "web", "beta", "--reason", "new disks"])?;
    for node in nodes {
        tells(&cluster, node, &["web: switchover from alpha to beta"]);
        tells(&cluster, node, &["why: moved by root@gamma"]);
        tells(&cluster, node, &["by root@gamma: new disks"]);
    }
    cluster.ask("gamma", &["unpin", "web"])?;

    cluster.node("beta").power_off()?;
    for node in ["alpha", "gamma"] {
        tells(&cluster, node, &["web: failover from beta to alpha"]);
        tells(&cluster, node, &["why: beta was not heard any more"]);
    }
    cluster.node("beta").power_on()?;
    tells(&cluster, "gamma", &["later: beta was heard again", "booted anew"]);
    cluster.until_heard("alpha", "beta", "alive");

    cluster.ask("alpha", &["stop", "web"])?;
    tells(&cluster, "gamma", &["web: NOT OVER YET: stopped by root@alpha"]);
    cluster.ask("alpha", &["start", "web"])?;
    tells(&cluster, "gamma", &["web: stopped and started on alpha"]);

    cluster.node("alpha").abandon_agent()?;
    assert!(cluster.node("alpha").kill_agent()?);
    let history = tells(&cluster, "gamma", &["web: failover from alpha to beta"]);
    eprintln!("{history}");
    Ok(())
}
