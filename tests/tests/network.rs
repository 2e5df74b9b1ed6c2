//! Networks that are cut, mute, lossy or slow while the storage can be reached: invariants S6, L4 and S1. Nothing may move.

use std::time::Duration;

use ha_tests::cluster::{Lease, witnessed};
use ha_tests::wire::Conditions;
use ha_tests::{Cluster, Lab, Result};

/// The holder went on alone, in one tenure and without a restart, for so long that many attempts to take over would have come.
fn nothing_moved(cluster: &Cluster) -> Result<()> {
    cluster.until_served_for("web", 5_000)?;
    let verdict = cluster.lab().witness().check()?;
    assert_eq!(verdict.nodes_of("web"), ["alpha"]);
    assert_eq!(verdict.of("web")[0].starts, 1, "the service was restarted");
    Ok(())
}

/// S6: a holder whom nobody hears, but whose lease beats on the disk, keeps what it has; and when the cut heals, too.
#[test]
fn a_holder_cut_off_from_all_networks_keeps_serving() -> Result<()> {
    let cluster = Cluster::serving(&["alpha", "beta", "gamma"], 2, "web")?;
    for network in 0..2 {
        cluster.lab().link("alpha", network, Conditions::CUT);
    }
    nothing_moved(&cluster)?;
    for network in 0..2 {
        cluster.lab().link("alpha", network, Conditions::GOOD);
    }
    cluster.until_heard("beta", "alpha", "alive");
    nothing_moved(&cluster)
}

/// S6: one network of two is enough to stay in contact.
#[test]
fn the_loss_of_one_network_is_not_noticed_by_the_service() -> Result<()> {
    let cluster = Cluster::serving(&["alpha", "beta"], 2, "web")?;
    cluster.lab().link("alpha", 0, Conditions::CUT);
    nothing_moved(&cluster)?;
    assert_eq!(cluster.status("beta")?.heard("alpha"), "alive");
    Ok(())
}

/// S6: a holder that hears the others but is not heard, and one that is heard but hears nobody.
#[test]
fn loss_in_one_direction_moves_nothing() -> Result<()> {
    let cluster = Cluster::serving(&["alpha", "beta", "gamma"], 1, "web")?;
    cluster.lab().outgoing("alpha", 0, Conditions::CUT);
    nothing_moved(&cluster)?;
    cluster.lab().outgoing("alpha", 0, Conditions::GOOD);
    cluster.lab().incoming("alpha", 0, Conditions::CUT);
    nothing_moved(&cluster)
}

/// L4: contacts that are not transitive (alpha and beta hear gamma, but not each other) move nothing.
#[test]
fn two_nodes_that_hear_each_other_only_through_a_third_move_nothing() -> Result<()> {
    let cluster = Cluster::serving(&["alpha", "beta", "gamma"], 1, "web")?;
    cluster.lab().between("alpha", "beta", 0, Conditions::CUT);
    nothing_moved(&cluster)
}

/// S6, L4: a third of all datagrams lost, the others late, reordered and doubled.
#[test]
fn a_bad_network_moves_nothing() -> Result<()> {
    let cluster = Cluster::serving(&["alpha", "beta", "gamma"], 2, "web")?;
    cluster.lab().all_links(Conditions {
        loss_percent: 33,
        duplicate_percent: 20,
        delay: Duration::from_millis(1),
        jitter: Duration::from_millis(100),
    });
    nothing_moved(&cluster)
}

/// S1, L1: the network is cut *and* the holder dies: the others, who cannot know, work it out from the disk.
#[test]
fn a_holder_that_dies_behind_a_cut_is_replaced() -> Result<()> {
    let cluster = Cluster::serving(&["alpha", "beta", "gamma"], 1, "web")?;
    cluster.lab().all_links(Conditions::CUT);
    nothing_moved(&cluster)?;
    cluster.node("alpha").power_off()?;
    ha_tests::eventually("one of the others serves", || {
        let last = cluster.lab().witness().last("web").unwrap_or(None);
        last.clone().filter(|line| line.node != "alpha").ok_or(last)
    });
    cluster.until_served_for("web", 3_000)?;
    assert_eq!(cluster.lab().witness().check()?.of("web").len(), 2);
    Ok(())
}

/// Utility: a holder that lost the gateway hands over to a node that reaches it; where nobody does, it stays where it is.
#[test]
fn a_holder_that_lost_the_gateway_hands_over_to_a_node_that_reaches_it() -> Result<()> {
    let web = witnessed("web", &["alpha", "beta"], 10)?;
    let web = web.replace("    claim:", "    utility: [Ping(\"10.77.0.200\")],\n    claim:");
    let cluster = Cluster::with_leases(Lab::with_nodes(&["alpha", "beta"]), 2, &[("web", web)], Lease::Lasting)?;
    cluster.start()?;
    cluster.until_placed("web", "alpha");
    cluster.lab().witness().until_served_by("web", &["alpha"]);
    // The gateway is on the first network; contact goes on over the second.
    cluster.lab().link("alpha", 0, Conditions::CUT);
    cluster.until_placed("web", "beta");
    cluster.until_said("alpha", &["events"], &["web: handing over to beta"]);
    cluster.lab().link("beta", 0, Conditions::CUT);
    cluster.until_said("beta", &["why", "web"], &["utility 0 here"]);
    cluster.until_served_for("web", 5_000)?;
    let verdict = cluster.lab().witness().check()?;
    assert_eq!(verdict.nodes_of("web"), ["alpha", "beta"], "handed over once, and then kept");
    // Who reaches it again is asked.
    cluster.lab().link("alpha", 0, Conditions::GOOD);
    cluster.until_placed("web", "alpha");
    Ok(())
}
