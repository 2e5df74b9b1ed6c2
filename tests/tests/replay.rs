//! What the flight recorders of real agents kept, replayed: the same engine decides the same (design, section 7).

use std::process::Command;

use ha_tests::{Cluster, Result, eventually, program};

/// Replays what a node recorded, whether it is on or off, and returns what was printed.
fn replay(cluster: &Cluster, node: &str, arguments: &[&str]) -> std::result::Result<String, String> {
    let recordings = cluster.node(node).dir().join("state/flight");
    let ha = program("ha").map_err(|e| e.to_string())?;
    let output = Command::new(ha).arg("replay").arg(recordings).args(arguments).output().map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() { Ok(text) } else { Err(text + &String::from_utf8_lossy(&output.stderr)) }
}

/// A failover between real agents is decided again as it was: on the node that lost power, and on those that were left.
#[test]
fn a_failover_is_replayed_as_it_was_on_every_node() -> Result<()> {
    let cluster = Cluster::serving(&["alpha", "beta", "gamma"], 2, "web")?;
    cluster.node("alpha").power_off()?;
    cluster.until_placed("web", "beta");
    cluster.node("alpha").power_on()?;
    cluster.until_heard("alpha", "beta", "alive");
    let killed = cluster.node("beta").kill_agent()?;
    assert!(killed, "the agent of beta was killed");
    cluster.node("beta").start_agent()?;
    cluster.until_placed("web", "beta");
    for node in ["alpha", "beta", "gamma"] {
        let told = replay(&cluster, node, &["--verify"]);
        assert!(told.as_ref().is_ok_and(|text| text.contains("every decision is the same")), "{node}: {told:?}");
    }
    let shown = replay(&cluster, "beta", &["--hierarchy", "web"]).unwrap_or_else(|text| panic!("{text}"));
    for line in ["contact with alpha lost", "beta is candidate for web", "→ start web/app", "web: in service, epoch"]
    {
        assert!(shown.contains(line), "{line}\n{shown}");
    }
    assert!(shown.contains("the agent was started again; the life before had not ended in order"), "{shown}");
    Ok(())
}

/// A full disk makes a gap, and nothing else: the service fails over as ever, and afterwards recording goes on.
#[test]
fn a_full_disk_makes_a_gap_in_the_recording_and_nothing_else() -> Result<()> {
    let cluster = Cluster::serving(&["alpha", "beta"], 1, "web")?;
    cluster.node("beta").fill_state()?;
    eventually("beta tells that it cannot record", || match cluster.events("beta") {
        Ok(events) if events.iter().any(|e| e.line.contains("flight recorder")) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    cluster.node("alpha").power_off()?;
    cluster.until_placed("web", "beta");
    cluster.node("beta").empty_state()?;
    eventually("beta records again, and says what is missing", || match replay(&cluster, "beta", &["--verify"]) {
        Ok(text) if text.contains("calls are missing") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    Ok(())
}
