//! Nodes that die, and nodes that come back: invariants S1, S4, L1, L2 and L4.

use ha_tests::{Cluster, Result, eventually};

/// L1: the next in rank serves. S1 and S4: never both, and under a greater epoch. L4: who comes back does not move it again.
#[test]
fn the_next_in_rank_replaces_a_node_that_loses_power() -> Result<()> {
    let cluster = Cluster::serving(&["alpha", "beta", "gamma"], 2, "web")?;
    let client = cluster.client()?;
    eventually("the client is served by alpha", || served_by(&client, "alpha"));
    client.forget();

    cluster.node("alpha").power_off()?;

    eventually("the client is served by beta", || served_by(&client, "beta"));
    eprintln!("power loss: longest outage {:?}", client.longest_outage().map(|outage| outage.length()));
    cluster.node("alpha").power_on()?;
    cluster.until_heard("beta", "alpha", "alive");
    cluster.until_heard("alpha", "beta", "alive");
    cluster.until_served_for("web", 3_000)?;
    let verdict = cluster.lab().witness().check()?;
    assert_eq!(verdict.nodes_of("web"), ["alpha", "beta"]);
    assert_eq!(verdict.of("web").iter().map(|tenure| tenure.starts).sum::<u32>(), 2, "the service was restarted");
    Ok(())
}

/// L2: the last node standing serves, although it hears nobody.
#[test]
fn the_last_node_standing_serves() -> Result<()> {
    let cluster = Cluster::serving(&["alpha", "beta", "gamma"], 1, "web")?;
    cluster.node("alpha").power_off()?;
    cluster.node("beta").power_off()?;
    cluster.until_placed("web", "gamma");
    let verdict = cluster.lab().witness().check()?;
    assert_eq!(verdict.nodes_of("web").last(), Some(&"gamma"));
    Ok(())
}

/// L2, S4: after a power cut of the whole site one node alone brings everything back, under a greater epoch.
#[test]
fn one_node_alone_starts_after_a_power_cut_of_all() -> Result<()> {
    let cluster = Cluster::serving(&["alpha", "beta", "gamma"], 1, "web")?;
    for node in cluster.lab().nodes() {
        node.power_off()?;
    }
    cluster.node("gamma").power_on()?;
    cluster.until_placed("web", "gamma");
    let verdict = cluster.lab().witness().check()?;
    assert_eq!(verdict.nodes_of("web"), ["alpha", "gamma"]);
    Ok(())
}

/// S1, S4, L1 again and again: each of ten power losses hits whoever serves.
#[test]
fn whoever_serves_loses_power_ten_times_in_a_row() -> Result<()> {
    let cluster = Cluster::serving(&["alpha", "beta", "gamma"], 2, "web")?;
    let mut holder = "alpha".to_owned();
    for _ in 0..10 {
        cluster.node(&holder).power_off()?;
        let next = eventually("another node serves", || {
            let last = cluster.lab().witness().last("web").unwrap_or(None);
            last.clone().map(|line| line.node).filter(|node| *node != holder).ok_or(last)
        });
        cluster.until_placed("web", &next);
        cluster.node(&holder).power_on()?;
        cluster.until_heard(&next, &holder, "alive");
        holder = next;
    }
    let verdict = cluster.lab().witness().check()?;
    assert_eq!(verdict.of("web").len(), 11);
    Ok(())
}

/// S1, S5: an operator moves it, and the outage is a moment.
#[test]
fn a_switchover_moves_it_in_order() -> Result<()> {
    let cluster = Cluster::serving(&["alpha", "beta", "gamma"], 1, "web")?;
    let client = cluster.client()?;
    eventually("the client is served by alpha", || served_by(&client, "alpha"));
    client.forget();
    cluster.ha(cluster.node("alpha"), &["move", "web", "gamma"])?;
    eventually("the client is served by gamma", || served_by(&client, "gamma"));
    eprintln!("switchover: longest outage {:?}", client.longest_outage().map(|outage| outage.length()));
    cluster.until_served_for("web", 2_000)?;
    let verdict = cluster.lab().witness().check()?;
    assert_eq!(verdict.nodes_of("web"), ["alpha", "gamma"]);
    Ok(())
}

fn served_by(client: &ha_tests::Client, node: &str) -> std::result::Result<(), Option<(String, u64)>> {
    let served = client.served_by();
    if served.as_ref().is_some_and(|(by, _)| by == node) { Ok(()) } else { Err(served) }
}
