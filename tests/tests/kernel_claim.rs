//! What an operator does about reservations, on real kernels: looking at disks, trying them out, arming a claim, breaking it.

use ha_tests::kernel::cluster::LEDGER;
use ha_tests::kernel::{ClaimKind, KernelCluster, KernelLab, disk_link};
use ha_tests::{Result, Trouble, program};

/// Prints what the user sees, for whoever reads the test's output.
fn see(cluster: &KernelCluster, node: &str, arguments: &[&str]) -> Result<String> {
    let seen = cluster.ask(node, arguments)?;
    eprintln!("{node}# ha {}\n{seen}", arguments.join(" "));
    Ok(seen)
}

/// The command fails, and says why.
fn refused(cluster: &KernelCluster, node: &str, arguments: &[&str], why: &str) -> Result<()> {
    let Err(said) = cluster.ask(node, arguments) else {
        return Err(Trouble::new(format!("{arguments:?} was not refused")));
    };
    let said = said.to_string();
    assert!(said.contains(why), "{why}: {said}");
    eprintln!("{node}# ha {}\n{said}\n", arguments.join(" "));
    Ok(())
}

#[test]
fn a_claim_is_tried_out_armed_shown_and_broken() -> Result<()> {
    let app = program("lab-ledger")?;
    let app = format!(
        r#"Process(name: "app", command: [{:?}, "/srv/ledger/entries", "10.77.0.100:80"])"#,
        app.to_string_lossy()
    );
    let builder = KernelLab::with_nodes(&["alpha", "beta"]).ext4(|_| Ok(()));
    let cluster = KernelCluster::configured(builder, ClaimKind::Reservation, &app)?;
    let disk = disk_link(0);

    // Nobody has used the disk yet.
    assert!(see(&cluster, "alpha", &["claim", "show"])?.contains("reservation  none"));
    let tried = see(&cluster, "alpha", &["claim", "test", &disk])?;
    assert!(tried.contains("yes        it can be registered with and reserved"), "{tried}");
    assert!(tried.contains("yes        PREEMPT AND ABORT"), "{tried}");
    refused(&cluster, "alpha", &["arm", LEDGER], "UNPROTECTED")?;
    let checked = cluster.ask("alpha", &["check"]).unwrap_or_else(|failed| failed.to_string());
    eprintln!("alpha# ha check\n{checked}");
    assert!(checked.contains("UNPROTECTED on this node: of "), "{checked}");

    // One path each: it takes two nodes.
    for (node, other) in [("alpha", "beta"), ("beta", "alpha")] {
        let ha = program("ha")?.to_string_lossy().into_owned();
        let holds = cluster.lab().node(other).start(&ha, &["--config", "/run/lab/etc", "arm", LEDGER, "--hold"])?;
        let armed = see(&cluster, node, &["arm", LEDGER, "--against", other])?;
        assert!(armed.contains("armed on this node"), "{armed}");
        assert!(
            armed.contains("yes        who is not registered, and who was cut off, is refused every write"),
            "{armed}"
        );
        eprintln!("{other}# ha arm {LEDGER} --hold\n{}", holds.wait()?.good()?);
    }
    let shown = see(&cluster, "beta", &["claim", "show", LEDGER, "--json"])?;
    assert!(shown.contains("\"keys\": []") && shown.contains("\"reservation\": null"), "{shown}");

    cluster.start()?;
    cluster.until_placed(LEDGER, "alpha");
    assert!(see(&cluster, "beta", &["claim", "show", LEDGER])?.contains("alpha (epoch 1)"));
    refused(&cluster, "beta", &["claim", "test", &disk], "is in use: reserved by alpha (epoch 1)")?;
    refused(&cluster, "beta", &["claim", "break", LEDGER, "--reason", "a mistake", "--yes"], "`ha stop ledger`")?;
    cluster.ask("alpha", &["stop", LEDGER])?;
    let broken = ["claim", "break", LEDGER, "--reason", "to see", "--yes"];
    assert!(see(&cluster, "beta", &broken)?.contains("there is nothing to break"));
    Ok(())
}
