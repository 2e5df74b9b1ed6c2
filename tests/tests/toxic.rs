//! Toxic data: a service that dies on its input dies on every node. It is left alone after three tenures, with its data, whatever
//! restarts, until an operator says otherwise.

use std::path::Path;

use ha_tests::cluster::Lease;
use ha_tests::{Cluster, Lab, Result, eventually};

const NODES: [&str; 3] = ["alpha", "beta", "gamma"];

/// A service that reads its input when it begins, and each start of which is a line of `starts`.
fn reader(place: &Path) -> String {
    let place = place.display();
    let script = format!(
        "line=$(grep -n -m1 poison {place}/input); echo start >> {place}/starts; \
         [ -z \"$line\" ] || {{ echo cannot read line $line of the input; exit 65; }}; exec sleep 1000000"
    );
    format!(
        r#"Hierarchy(
    name: "ledger",
    nodes: {NODES:?},
    claim: LockArea("main"),
    restarts: (count: 1, within: "10min"),
    resources: [Process(name: "app", command: ["sh", "-c", {script:?}])],
)
"#
    )
}

fn starts(place: &Path) -> usize {
    std::fs::read_to_string(place.join("starts")).unwrap_or_default().lines().count()
}

/// Waits for the service, which counts as running before its shell has done anything.
fn until_started(place: &Path, times: usize) {
    eventually(&format!("the service was started {times} times"), || {
        let seen = starts(place);
        if seen == times { Ok(()) } else { Err(seen) }
    });
}

/// Waits until every node says that the hierarchy is in quarantine.
fn until_quarantined(cluster: &Cluster) {
    for node in NODES {
        eventually(&format!("{node} says that ledger is in quarantine"), || {
            let said = cluster.ask(node, &["status"]).map_err(|trouble| trouble.to_string())?;
            if said.contains("quarantine") { Ok(()) } else { Err(said) }
        });
    }
}

#[test]
fn a_service_that_dies_on_its_input_everywhere_is_left_alone_until_it_is_cleared() -> Result<()> {
    let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).map_err(ha_tests::Trouble::new)?;
    let place = place.path();
    let input = |text: &str| std::fs::write(place.join("input"), text).map_err(ha_tests::Trouble::new);
    input("one\ntwo\n")?;
    let cluster = Cluster::with_leases(Lab::with_nodes(&NODES), 1, &[("ledger", reader(place))], Lease::Lasting)?;
    cluster.start()?;
    cluster.until_placed("ledger", "alpha");
    until_started(place, 1);

    input("one\ntwo\npoison\n")?;
    eventually("the service was there to be killed", || match cluster.node("alpha").kill_program("sleep") {
        Ok(1) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    until_quarantined(&cluster);
    let tried = starts(place);
    let won = |node| Ok(cluster.events(node)?.iter().filter(|event| event.kind() == "claim-won").count());
    let tenures = NODES.into_iter().map(won).collect::<Result<Vec<usize>>>()?;
    eprintln!("{tried} starts in tenures of {NODES:?}: {tenures:?}");
    assert_eq!(tenures.iter().sum::<usize>(), 3, "{tenures:?} tenures before it was left alone");
    for words in ["in quarantine", "cannot read line 3:poison of the input", "ha clear ledger"] {
        eventually(&format!("gamma says why, with {words:?}"), || {
            let why = cluster.ask("gamma", &["why", "ledger"]).map_err(|trouble| trouble.to_string())?;
            if why.contains(words) { Ok(()) } else { Err(why) }
        });
    }

    for node in NODES {
        assert!(cluster.node(node).kill_agent()?);
    }
    for node in NODES {
        NODES.into_iter().filter(|other| *other != node).for_each(|other| cluster.until_heard(node, other, "alive"));
    }
    until_quarantined(&cluster);

    for node in cluster.lab().nodes() {
        node.power_off()?;
    }
    for node in cluster.lab().nodes() {
        node.power_on()?;
    }
    for node in NODES {
        NODES.into_iter().filter(|other| *other != node).for_each(|other| cluster.until_heard(node, other, "alive"));
    }
    until_quarantined(&cluster);
    assert_eq!(starts(place), tried, "nothing was tried again");
    assert_eq!(std::fs::read_to_string(place.join("input")).unwrap_or_default(), "one\ntwo\npoison\n");

    input("one\ntwo\n")?;
    cluster.ask("beta", &["clear", "ledger"])?;
    cluster.until("beta", "ledger is in service again", |status| status.place("ledger").is_some());
    until_started(place, tried + 1);
    Ok(())
}
