//! Fencing where a reservation needs it, on real kernels: a holder that nobody hears, that lives, and so defends what it has. Nothing moves until an
//! operator has it switched off, and then there is nobody left to be challenged.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use ha_tests::kernel::cluster::LEDGER;
use ha_tests::kernel::{ClaimKind, KernelCluster, KernelLab, Network};
use ha_tests::{Result, Trouble, eventually};

/// An agent for the power supplies of a laboratory. A guest asks by files in its folder, and sees there what is answered.
const AGENT: &str = r#"#!/bin/sh
here=/run/lab/etc/switch
while IFS='=' read -r name value; do
    case $name in action) action=$value;; plug) plug=$value;; esac
done
[ "$action" != metadata ] || exec cat $here/meta-data
[ "$action" != monitor ] || exit 0
echo "$action $plug" >$here/new.$$
mv $here/new.$$ $here/ask.$$
until [ -e $here/answer.$$ ]; do sleep 0.1; done
said=$(cat $here/answer.$$)
case $action:$said in off:done|on:done|status:on) exit 0;; status:off) exit 2;; *) echo "$said"; exit 1;; esac
"#;

const META_DATA: &str = r#"<?xml version="1.0"?><resource-agent name="fence_lab"><parameters>
<parameter name="action" required="1"><content type="string" default="reboot"/></parameter>
<parameter name="plug" required="1"><content type="string"/></parameter>
</parameters><actions><action name="on"/><action name="off"/><action name="reboot"/><action name="status"/><action name="monitor"/>
<action name="metadata"/></actions></resource-agent>"#;

/// Does what agents on any node ask for, until it is told to end.
fn serve_switch(cluster: &KernelCluster, end: &AtomicBool) -> Result<()> {
    while !end.load(Ordering::Relaxed) {
        for node in cluster.lab().nodes() {
            for entry in fs::read_dir(node.dir().join("etc/switch"))? {
                let path = entry?.path();
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let Some(id) = name.strip_prefix("ask.") else { continue };
                let text = fs::read_to_string(&path)?;
                fs::remove_file(&path)?;
                let (action, plug) = text.trim().split_once(' ').unwrap_or_default();
                let plug = cluster.lab().node(plug);
                let said = match action {
                    "off" => plug.power_off().map(|()| "done"),
                    "on" => plug.power_on().map(|()| "done"),
                    _ => Ok(if plug.is_on() { "on" } else { "off" }),
                };
                let new = path.with_file_name(format!("said.{id}"));
                fs::write(&new, said.map_or_else(|trouble| trouble.to_string(), str::to_owned))?;
                fs::rename(&new, path.with_file_name(format!("answer.{id}")))?;
            }
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// What a challenge takes at least, with the times of a reservation as they come: two defence intervals and the time limit of a command.
const CHALLENGE: Duration = Duration::from_secs(5);

/// After so many refusals in a row beta waits for 8 s before it asks again: long enough to have alpha fenced in between.
const REFUSALS: usize = 6;

/// Gives every node the agent, and says in `agent.ron` that it switches each of them.
fn wire(cluster: &KernelCluster) -> Result<()> {
    for node in cluster.lab().nodes() {
        let switch = node.dir().join("etc/switch");
        fs::create_dir(&switch)?;
        fs::write(switch.join("meta-data"), META_DATA)?;
        fs::write(switch.join("fence_lab"), AGENT)?;
        fs::set_permissions(switch.join("fence_lab"), fs::Permissions::from_mode(0o755))?;
        let file = node.dir().join("etc/agent.ron");
        let mut text = fs::read_to_string(&file)?;
        for node in cluster.lab().nodes() {
            let address = format!("\"{}:7946\"]", node.address(Network::Cluster));
            assert!(text.contains(&address), "{text}");
            let device = format!(r#"(agent: "/run/lab/etc/switch/fence_lab", params: {{"plug": {:?}}})"#, node.name());
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
    let end = AtomicBool::new(false);
    thread::scope(|scope| {
        let switch = scope.spawn(|| serve_switch(&cluster, &end));
        // A test that fails must not leave the switch waiting for ever.
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| fenced(&cluster)));
        end.store(true, Ordering::Relaxed);
        switch.join().map_err(|_| Trouble::new("the switch failed"))??;
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    Ok(())
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
    let proven = find("alpha is fenced, proven to be off")?.at();
    let (asked, held, served) =
        (find("asking for the claim")?.at(), find("claim held")?.at(), find("in service")?.at());
    let (taken, back) = (held.saturating_sub(proven), served.saturating_sub(proven));
    eprintln!("claim held {taken:.1?} after the proof, in service {back:.1?} after it");
    assert!(asked >= proven, "beta was in the middle of a challenge: this machine is too slow to tell anything");
    assert!(held >= asked && held < asked + CHALLENGE, "beta has challenged who was proven to be off");
    assert_eq!(cluster.judge(client)?, ["alpha", "beta"]);
    Ok(())
}
