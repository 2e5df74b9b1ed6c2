//! Fencing where a reservation needs it, on real kernels: a holder that nobody hears, that lives, and so defends what it has. Nothing moves until an
//! operator has it switched off, and then there is nobody left to be challenged.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use ha_tests::kernel::cluster::LEDGER;
use ha_tests::kernel::{ClaimKind, KernelCluster, KernelLab, Network};
use ha_tests::switch::{self, AGENT, Turn};
use ha_tests::{Result, Trouble, eventually};

/// What a challenge takes at least, with the times of a reservation as they come: two defence intervals and the time limit of a command.
const CHALLENGE: Duration = Duration::from_secs(5);

/// After so many refusals in a row beta waits for 8 s before it asks again: long enough to have alpha fenced in between.
const REFUSALS: usize = 6;

/// Gives every node the agent, and says in `agent.ron` that it switches each of them.
fn wire(cluster: &KernelCluster) -> Result<()> {
    for node in cluster.lab().nodes() {
        switch::install(&node.dir().join("etc"))?;
        let file = node.dir().join("etc/agent.ron");
        let mut text = fs::read_to_string(&file)?;
        for node in cluster.lab().nodes() {
            let address = format!("\"{}:7946\"]", node.address(Network::Cluster));
            assert!(text.contains(&address), "{text}");
            let device = format!(r#"(agent: {AGENT:?}, params: {{"plug": {:?}}})"#, node.name());
            text = text.replace(&address, &format!("{address}, fencing: [[{device}]]"));
        }
        fs::write(&file, text)?;
    }
    Ok(())
}

/// S6, S1: two nodes with a reservation, of which the one that serves is cut off the network of all nodes and clients. The disk keeps the other
/// away, as it should, again and again; when it is proven to be off, the disk is taken with no challenge.
#[test]
fn a_holder_that_nobody_hears_is_replaced_when_it_is_proven_to_be_off() -> Result<()> {
    let app = ha_tests::program("lab-ledger")?;
    let app = format!(
        r#"Process(name: "app", command: [{:?}, "/srv/ledger/entries", "10.77.0.100:7000"])"#,
        app.to_string_lossy()
    );
    let lab = KernelLab::with_nodes(&["alpha", "beta"]).ext4(|_| Ok(()));
    let cluster = KernelCluster::configured(lab, ClaimKind::ReservationAlone, &app)?;
    wire(&cluster)?;
    cluster.start()?;
    cluster.until_placed(LEDGER, "alpha");
    let folders: Vec<PathBuf> = cluster.lab().nodes().iter().map(|node| node.dir().join("etc")).collect();
    let turn = |turn, plug: &str| {
        let node = cluster.lab().node(plug);
        match turn {
            Turn::Off => node.power_off().map(|()| "done"),
            Turn::On => node.power_on().map(|()| "done"),
            Turn::Status => Ok(if node.is_on() { "on" } else { "off" }),
        }
    };
    switch::attended(&folders, turn, || fenced(&cluster))
}

fn fenced(cluster: &KernelCluster) -> Result<()> {
    let alpha = cluster.lab().node("alpha");
    let client = cluster.ledger_client()?;
    client.until_served_by("alpha");
    cluster.lab().cut(alpha, Network::Cluster)?;
    cluster.until_heard("beta", "alpha", "lost");
    // It challenges, and alpha, which reaches the disk, defends.
    eventually("beta was refused", || {
        let events = cluster.events("beta").map_err(|trouble| trouble.to_string())?;
        if events.iter().filter(|event| event.kind() == "claim-refused").count() >= REFUSALS {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(150));
        Err(events.last().map(|event| event.line.clone()).unwrap_or_default())
    });
    let said = cluster.ask("beta", &["fence", "alpha", "--reason", "nobody hears it", "--yes"])?;
    eprintln!("{said}");
    assert!(said.contains("alpha is proven to be off"), "{said}");
    assert!(!alpha.is_on());
    client.until_served_by("beta");
    KernelCluster::tell("cut off the network, fenced by an operator", &client);

    let events = cluster.events("beta")?;
    let find = |words: &str| {
        let found = events.iter().rev().find(|event| event.line.contains(words));
        found.ok_or_else(|| Trouble::new(format!("beta has no event {words:?}")))
    };
    // It is asked once more later, when all is done.
    let first = events.iter().find(|event| event.line.contains("alpha is fenced, proven to be off"));
    let proven = first.ok_or_else(|| Trouble::new("beta has no proof"))?.at();
    let (asked, held, served) =
        (find("asking for the claim")?.at(), find("claim held")?.at(), find("in service")?.at());
    let (taken, back) = (held.saturating_sub(proven), served.saturating_sub(proven));
    eprintln!("claim held {taken:.1?} after the proof, in service {back:.1?} after it");
    assert!(asked >= proven, "beta was in the middle of a challenge: this machine is too slow to tell anything");
    assert!(held >= asked && held < asked + CHALLENGE, "beta has challenged who was proven to be off");
    assert_eq!(cluster.judge(client)?, ["alpha", "beta"]);
    Ok(())
}
