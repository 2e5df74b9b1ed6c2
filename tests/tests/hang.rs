//! Nodes that stand still and wake up later: invariants S1 and S7.

use std::process::Command;

use ha_tests::cluster::{Event, Lease, served};
use ha_tests::{Cluster, Lab, Result, Spare, Trouble, eventually, program};

/// The kinds of what a node has told of itself and of "web" since it stood still, of these kinds: that it did, and what follows from that, is of one moment.
fn since_the_gap<'a>(events: &'a [Event], kinds: &[&str]) -> Result<Vec<&'a str>> {
    let gap = events.iter().rfind(|event| event.kind() == "time-gap");
    let gap = gap.ok_or_else(|| Trouble::new(format!("it does not say that it did not run: {events:#?}")))?;
    assert!(gap.line.contains("this node did not run for"), "{}", gap.line);
    let since = events.iter().filter(|event| event.at() >= gap.at());
    Ok(since.map(Event::kind).filter(|kind| kinds.contains(kind)).collect())
}

/// S7: the warden ends what runs under a lease that is not renewed. S1: when the node wakes it does not write again.
#[test]
fn a_holder_that_hangs_is_replaced_and_finds_its_claim_gone() -> Result<()> {
    let cluster = Cluster::serving(&["alpha", "beta", "gamma"], 2, "web")?;
    let alpha = cluster.node("alpha");

    alpha.hang(Spare::Warden)?;
    cluster.until_placed("web", "beta");
    alpha.wake()?;

    let was_reset = !alpha.is_on();
    if was_reset {
        // The warden may have reset the machine instead: that ends the tenure as well.
        alpha.power_off()?;
        alpha.power_on()?;
    }
    cluster.until_heard("beta", "alpha", "alive");
    cluster.until("alpha", "alpha knows that beta serves", |status| status.place("web") == Some("beta"));
    if !was_reset {
        // Its claim is over before anything else: what ran under it is stopped before it is asked for again.
        let events = cluster.events("alpha")?;
        let told = since_the_gap(&events, &["claim-lost", "stopped", "claim-asked", "started", "in-service"])?;
        assert!(told.starts_with(&["claim-lost", "stopped", "stopped"]), "{told:?}: {events:#?}");
        assert!(!told.contains(&"started") && !told.contains(&"in-service"), "{events:#?}");
    }
    cluster.until_served_for("web", 2_000)?;
    assert_eq!(cluster.lab().witness().check()?.nodes_of("web"), ["alpha", "beta"]);
    Ok(())
}

/// S6: a short hang, well within the lease, moves nothing and interrupts nothing but itself.
#[test]
fn a_short_hang_moves_nothing() -> Result<()> {
    let cluster = Cluster::serving(&["alpha", "beta", "gamma"], 2, "web")?;
    for _ in 0..10 {
        cluster.node("alpha").hang(Spare::Nothing)?;
        cluster.node("alpha").wake()?;
    }
    cluster.until_served_for("web", 3_000)?;
    assert_eq!(cluster.lab().witness().check()?.nodes_of("web"), ["alpha"]);
    Ok(())
}

/// A node that stood still for long enough to be missed, and wakes within its lease, says so, and begins nothing until its lease is proven anew: it looks
/// whether what it serves is well, and goes on.
#[test]
fn a_node_that_stood_still_says_so_and_begins_nothing_before_its_claim_is_proven() -> Result<()> {
    let nodes = ["alpha", "beta"];
    let often = served("web", &nodes)?.replace("name: \"app\",", "name: \"app\", monitoring: (every: \"300ms\"),");
    assert!(often.contains("300ms"), "{often}");
    let cluster = Cluster::with_leases(Lab::with_nodes(&nodes), 2, &[("web", often)], Lease::Long)?;
    cluster.start()?;
    cluster.until_placed("web", "alpha");
    let alpha = cluster.node("alpha");
    alpha.hang(Spare::Nothing)?;
    cluster.until_heard("beta", "alpha", "lost");
    alpha.wake()?;
    cluster.until_heard("beta", "alpha", "alive");
    cluster.until_served_for("web", 1_000)?;

    let events = cluster.events("alpha")?;
    let moves =
        ["phase", "claim-lost", "claim-asked", "unproven", "stopped", "started", "resource-failed", "in-service"];
    let told = since_the_gap(&events, &moves)?;
    assert!(told.is_empty(), "{told:?}: {events:#?}");

    // What it did from waking up until its lease was good for longer, as it was recorded.
    let recordings = alpha.dir().join("state/flight");
    let done = eventually("the recording shows that the lease was renewed", || {
        let replayed =
            Command::new(program("ha").unwrap()).arg("replay").arg(&recordings).arg("--all").output().unwrap();
        let text = String::from_utf8_lossy(&replayed.stdout).into_owned();
        let calls: Vec<&str> = text.split_inclusive("\n20").collect();
        let woke = calls.iter().rposition(|call| call.contains("this node did not run for")).ok_or("no gap")?;
        let proven = calls[woke..].iter().position(|call| call.contains("lease main good until")).ok_or("no lease")?;
        Ok::<_, &str>(calls[woke..woke + proven].concat())
    });
    let begun: Vec<&str> = done.lines().filter_map(|line| line.trim().strip_prefix("→ ")).collect();
    println!("between waking up and its lease: {begun:?}");
    assert!(
        begun.iter().all(|what| ["monitor web/", "send to", "answer command"].iter().any(|of| what.starts_with(of))),
        "{done}"
    );
    assert_eq!(cluster.lab().witness().check()?.nodes_of("web"), ["alpha"]);
    Ok(())
}
