//! The agent dies and the services do not notice: invariant L5.

use std::time::SystemTime;

use ha_core::record::Cause;
use ha_tests::cluster::{Lease, served};
use ha_tests::kernel::history::told_by;
use ha_tests::{Cluster, Lab, Load, Result, Work, eventually};

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

/// Local recovery: a service that crashes is started again in place, in the same tenure. That it ended is told by the kernel: nothing asks for an hour.
#[test]
fn a_service_that_crashes_is_restarted_in_place() -> Result<()> {
    let nodes = ["alpha", "beta"];
    let text = served("web", &nodes)?;
    let unasked = text.replace("name: \"app\",", "name: \"app\", monitoring: (every: \"1h\"),");
    assert_ne!(unasked, text);
    let cluster = Cluster::new(Lab::with_nodes(&nodes), 1, &[("web", unasked)])?;
    cluster.start()?;
    cluster.until_placed("web", "alpha");
    cluster.lab().witness().until_served_by("web", &["alpha"]);
    let killed = SystemTime::now();
    assert_eq!(cluster.node("alpha").kill_program("lab-service")?, 1);
    cluster.lab().witness().until("a second instance has started", |verdict| verdict.of("web")[0].starts == 2);
    cluster.until_placed("web", "alpha");
    assert_eq!(cluster.lab().witness().check()?.nodes_of("web"), ["alpha"]);
    let (known, back) = eventually("alpha tells of it", || {
        let told = told_by(&cluster, "alpha").map_err(|trouble| trouble.to_string())?;
        let recovery = told.iter().rfind(|entry| matches!(entry.timeline.cause, Cause::LocalRecovery { .. }));
        recovery.ok_or_else(|| format!("{told:?}"))?.span().map_err(|trouble| trouble.to_string())
    });
    let since_it_was_killed = |at: SystemTime| at.duration_since(killed).unwrap_or_default();
    println!(
        "after the kill: known within {:.1?}, in service within {:.1?}",
        since_it_was_killed(known),
        since_it_was_killed(back)
    );
    Ok(())
}

/// L5: every agent of a cluster is replaced, one after the other and the holder's again and again, as a service manager restarts them, on a machine
/// that is busy: whoever uses the service sees nothing of it.
#[test]
fn agents_are_restarted_one_after_the_other_and_no_question_goes_unanswered() -> Result<()> {
    let nodes = ["alpha", "beta", "gamma"];
    let hierarchies = [("web", served("web", &nodes)?)];
    let cluster = Cluster::with_leases(Lab::with_nodes(&nodes), 2, &hierarchies, Lease::Lasting)?;
    cluster.start()?;
    cluster.until_placed("web", "alpha");
    let service = cluster.node("alpha").running("lab-service")?;
    let client = cluster.client()?;
    eventually("the client is served", || client.served_by().ok_or("no answer"));

    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let load = Load::new(Work { computing: 6, ..Work::default() }, folder.path())?;
    for node in ["gamma", "beta", "alpha", "alpha", "gamma", "alpha", "beta", "alpha", "alpha"] {
        let serves: &[&str] = if node == "alpha" { &["web"] } else { &[] };
        cluster.restart_agent(node, serves)?;
    }
    cluster.until_served_for("web", 2_000)?;
    drop(load);

    let tally = client.finish().expect("it was served");
    println!("nine restarts: {tally:?}, longest time between answers {:?}", tally.longest.length());
    assert_eq!(tally.errors, 0, "{tally:?}");
    assert_eq!(cluster.node("alpha").running("lab-service")?, service, "the service was restarted");
    let verdict = cluster.lab().witness().check()?;
    assert_eq!((verdict.nodes_of("web"), verdict.of("web")[0].starts), (vec!["alpha"], 1));
    Ok(())
}

/// What took long is put beside its time-out, before a busy day does that.
#[test]
fn a_start_that_comes_near_its_time_out_is_told_by_check() -> Result<()> {
    let slow = r#"Hierarchy(
    name: "slow",
    nodes: ["alpha", "beta"],
    claim: LockArea("main"),
    resources: [
        Exec(
            name: "app",
            start: ["/bin/sleep", "6"], stop: ["/bin/true"], monitor: ["/bin/true"],
            timeouts: (start: "10s"),
        ),
    ],
)
"#;
    let slow = [("slow", slow.to_owned())];
    let cluster = Cluster::with_leases(Lab::with_nodes(&["alpha", "beta"]), 1, &slow, Lease::Lasting)?;
    cluster.start()?;
    cluster.until_placed("slow", "alpha");
    let checked = cluster.said("alpha", &["check"])?;
    assert!(checked.contains("app: a start took ") && checked.contains("of its time-out of 10s"), "{checked}");
    assert!(checked.contains("timeouts: (start: \"") && checked.contains("(measured here: "), "{checked}");
    // Only who has run it knows.
    let checked = cluster.said("beta", &["check"])?;
    assert!(!checked.contains("a start took"), "{checked}");
    Ok(())
}
