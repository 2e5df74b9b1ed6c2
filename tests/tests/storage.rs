//! The storage of the claim is taken from the holder, or its state folder fills up: invariants S7, S1, L1 and L4.

use std::time::Duration;

use ha_tests::storage::Health;
use ha_tests::{Cluster, Result};

/// S7: the holder stops by force before its lease ends. S1: never both. L4: what is healed again does not move it back.
fn the_holder_loses_its_storage(how: Health) -> Result<()> {
    let cluster = Cluster::serving(&["alpha", "beta", "gamma"], 2, "web")?;
    cluster.node("alpha").disk().set(how);
    cluster.until_placed("web", "beta");
    cluster.until_served_for("web", 2_000)?;
    cluster.node("alpha").disk().set(Health::Good);
    if !cluster.node("alpha").is_on() {
        // The warden may have reset the machine.
        cluster.node("alpha").power_off()?;
        cluster.node("alpha").power_on()?;
    }
    cluster.until_heard("beta", "alpha", "alive");
    cluster.until("alpha", "alpha knows that beta serves", |status| status.place("web") == Some("beta"));
    cluster.until_served_for("web", 2_000)?;
    assert_eq!(cluster.lab().witness().check()?.nodes_of("web"), ["alpha", "beta"]);
    Ok(())
}

#[test]
fn a_holder_whose_storage_gives_errors_is_replaced() -> Result<()> {
    the_holder_loses_its_storage(Health::Errors)
}

#[test]
fn a_holder_whose_storage_hangs_is_replaced() -> Result<()> {
    the_holder_loses_its_storage(Health::Hangs)
}

/// S6: a node that serves nothing and loses its storage disturbs nobody.
#[test]
fn a_bystander_that_loses_its_storage_disturbs_nobody() -> Result<()> {
    let cluster = Cluster::serving(&["alpha", "beta", "gamma"], 1, "web")?;
    cluster.node("beta").disk().set(Health::Hangs);
    cluster.node("gamma").disk().set(Health::Errors);
    cluster.until_served_for("web", 3_000)?;
    let verdict = cluster.lab().witness().check()?;
    assert_eq!(verdict.nodes_of("web"), ["alpha"]);
    assert_eq!(verdict.of("web")[0].starts, 1);
    Ok(())
}

/// S6: a holder whose storage is slow, but answers well within the lease, keeps what it has.
#[test]
fn a_holder_with_slow_storage_keeps_serving() -> Result<()> {
    let cluster = Cluster::serving(&["alpha", "beta"], 1, "web")?;
    cluster.node("alpha").disk().set(Health::Slow(Duration::from_millis(50)));
    cluster.until_served_for("web", 3_000)?;
    assert_eq!(cluster.lab().witness().check()?.nodes_of("web"), ["alpha"]);
    Ok(())
}

/// S1: with the storage gone for all, all stop; when it is back, one serves.
#[test]
fn storage_lost_to_all_and_given_back_is_served_once() -> Result<()> {
    let cluster = Cluster::serving(&["alpha", "beta"], 1, "web")?;
    for node in cluster.lab().nodes() {
        node.disk().set(Health::Hangs);
    }
    cluster.until("alpha", "nobody serves", |status| status.place("web").is_none());
    for node in cluster.lab().nodes() {
        node.disk().set(Health::Good);
    }
    cluster.until("beta", "somebody serves again", |status| status.place("web").is_some());
    cluster.until_served_for("web", 2_000)?;
    cluster.lab().witness().check().map(drop)
}

/// L5, L1: a full state folder stops neither the service, nor a restart of the agent, nor a takeover.
#[test]
fn a_full_state_folder_stops_nothing() -> Result<()> {
    let cluster = Cluster::serving(&["alpha", "beta"], 1, "web")?;
    for node in cluster.lab().nodes() {
        node.fill_state()?;
    }
    cluster.until_served_for("web", 2_000)?;
    assert!(cluster.node("alpha").kill_agent()?);
    cluster.until_placed("web", "alpha");
    cluster.node("alpha").power_off()?;
    cluster.until_placed("web", "beta");
    cluster.until_served_for("web", 1_000)?;
    let verdict = cluster.lab().witness().check()?;
    assert_eq!(verdict.nodes_of("web"), ["alpha", "beta"]);
    assert_eq!(verdict.of("web")[0].starts, 1, "the service was restarted");
    Ok(())
}
