//! The agent dies and the services do not notice: invariant L5.

use ha_tests::{Cluster, Result, eventually};

/// L5: fifty crashes in a row, each of a life that had taken the service over again, interrupt nothing.
#[test]
fn the_agent_is_killed_fifty_times_and_the_service_runs_on() -> Result<()> {
    let cluster = Cluster::serving(&["alpha", "beta"], 1, "web")?;
    let client = cluster.client()?;
    eventually("the client is served", || client.served_by().ok_or("no answer"));
    for _ in 0..50 {
        let before = cluster.node("alpha").agent()?;
        assert!(cluster.node("alpha").kill_agent()?);
        eventually("the agent runs again", || match cluster.node("alpha").agent() {
            Ok(Some(now)) if Some(now) != before => Ok(()),
            other => Err(format!("{other:?}")),
        });
        cluster.until_placed("web", "alpha");
    }
    cluster.until_served_for("web", 2_000)?;
    let verdict = cluster.lab().witness().check()?;
    assert_eq!(verdict.nodes_of("web"), ["alpha"]);
    assert_eq!(verdict.of("web")[0].starts, 1, "the service was restarted");
    assert_eq!(client.servers().len(), 1);
    Ok(())
}

/// L5, L1: crashes of the agents on the other nodes change nothing, and the next failover works.
#[test]
fn agents_that_serve_nothing_may_crash_too() -> Result<()> {
    let cluster = Cluster::serving(&["alpha", "beta", "gamma"], 1, "web")?;
    for node in ["beta", "gamma"] {
        assert!(cluster.node(node).kill_agent()?);
    }
    cluster.until_served_for("web", 2_000)?;
    assert_eq!(cluster.lab().witness().check()?.nodes_of("web"), ["alpha"]);
    cluster.node("alpha").power_off()?;
    cluster.until_placed("web", "beta");
    cluster.lab().witness().check().map(drop)
}

/// S7: an agent that dies and is not started again: what it served ends before another node serves it.
#[test]
fn an_agent_that_is_not_restarted_loses_its_services_in_order() -> Result<()> {
    let cluster = Cluster::serving(&["alpha", "beta"], 1, "web")?;
    cluster.node("alpha").abandon_agent()?;
    assert!(cluster.node("alpha").kill_agent()?);
    cluster.until_placed("web", "beta");
    cluster.until_served_for("web", 2_000)?;
    assert_eq!(cluster.lab().witness().check()?.nodes_of("web"), ["alpha", "beta"]);
    Ok(())
}

/// Local recovery: a service that crashes is started again in place, in the same tenure.
#[test]
fn a_service_that_crashes_is_restarted_in_place() -> Result<()> {
    let cluster = Cluster::serving(&["alpha", "beta"], 1, "web")?;
    assert_eq!(cluster.node("alpha").kill_program("lab-service")?, 1);
    eventually("a second instance has started", || {
        let verdict = cluster.lab().witness().check().map_err(|trouble| trouble.to_string())?;
        if verdict.of("web")[0].starts == 2 { Ok(()) } else { Err(format!("{verdict:?}")) }
    });
    cluster.until_placed("web", "alpha");
    assert_eq!(cluster.lab().witness().check()?.nodes_of("web"), ["alpha"]);
    Ok(())
}
