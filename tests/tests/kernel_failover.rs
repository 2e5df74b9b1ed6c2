//! Agents on real kernels: an ext4 filesystem on a shared SCSI disk with a ledger on it, and every fault that a machine room has.
//!
//! Each test ends with a check of the filesystem and of the ledger: never two writers, nothing lost that was acknowledged.

use std::fs;

use ha_tests::kernel::by_hand::{key_of_both_paths, read_without_a_pause, reservation};
use ha_tests::kernel::cluster::{LEDGER, MOUNTED};
use ha_tests::kernel::{
    ClaimKind, Fault, Guest, KernelCluster, KernelLab, Network, Paths, Persistence, disk_link, spec, unwritten,
};
use ha_tests::{Result, Trouble, eventually, program};

/// The name of the service's program.
const LEDGER_PROGRAM: &str = "lab-ledger";

/// With a lease: whoever loses power is replaced after it, and comes back as a bystander; whoever loses its agent is reset by its watchdog.
#[test]
fn a_lease_on_a_shared_disk_moves_a_filesystem() -> Result<()> {
    let cluster = KernelCluster::with_ledger(KernelLab::with_nodes(&["alpha", "beta"]), ClaimKind::LockArea)?;
    let (alpha, beta) = (cluster.lab().node("alpha"), cluster.lab().node("beta"));
    let client = cluster.ledger_client()?;
    client.until_served_by("alpha");

    alpha.power_off()?;
    client.until_served_by("beta");
    KernelCluster::tell("power loss", &client);
    alpha.power_on()?;
    cluster.until_heard("beta", "alpha", "alive");
    cluster.until_heard("alpha", "beta", "alive");
    client.until_served_by("beta");

    let life = beta.boot_id()?;
    beta.abandon_agent()?;
    beta.shell("kill -KILL $(pidof ha)")?;
    client.until_served_by("alpha");
    KernelCluster::tell("death of the agent", &client);
    beta.until_reset(&life);

    assert_eq!(cluster.judge(client)?, ["alpha", "beta", "alpha"]);
    Ok(())
}

/// L1, L2, S1: whoever serves loses power, and the next in rank takes its reservation; who comes back disturbs nobody; the last one serves alone.
#[test]
fn nodes_that_lose_power_are_replaced_down_to_the_last() -> Result<()> {
    let cluster =
        KernelCluster::with_ledger(KernelLab::with_nodes(&["alpha", "beta", "gamma"]), ClaimKind::Reservation)?;
    let lab = cluster.lab();
    let client = cluster.ledger_client()?;
    client.until_served_by("alpha");

    lab.node("alpha").power_off()?;
    client.until_served_by("beta");
    KernelCluster::tell("power loss", &client);
    lab.node("alpha").power_on()?;
    cluster.until_heard("beta", "alpha", "alive");
    cluster.until_heard("alpha", "beta", "alive");
    client.until_served_by("beta");

    lab.node("alpha").power_off()?;
    lab.node("beta").power_off()?;
    client.until_served_by("gamma");
    KernelCluster::tell("power loss of two", &client);

    assert_eq!(cluster.judge(client)?, ["alpha", "beta", "gamma"]);
    Ok(())
}

/// S1, S7: what a hung holder had in memory is not on the disk when it goes on, but thrown away; it comes back as a bystander.
fn a_hung_holder_is_cut_off(claim: ClaimKind) -> Result<()> {
    let cluster = KernelCluster::with_ledger(KernelLab::with_nodes(&["alpha", "beta"]), claim)?;
    let (alpha, beta) = (cluster.lab().node("alpha"), cluster.lab().node("beta"));
    let client = cluster.ledger_client()?;
    client.until_served_by("alpha");
    unwritten::leave(alpha, MOUNTED)?;
    let life = alpha.boot_id()?;
    alpha.hang()?;

    client.until_served_by("beta");
    KernelCluster::tell("hang", &client);
    alpha.wake()?;
    cluster.until_heard("beta", "alpha", "alive");
    cluster.until("alpha", "alpha knows that beta serves", |status| status.place(LEDGER) == Some("beta"));
    if claim == ClaimKind::ReservationAlone {
        assert_eq!(alpha.boot_id()?, life, "alpha was reset: then the disk had nothing to refuse");
        alpha.shell("dmesg | grep 'reservation conflict'")?;
    }
    eventually("alpha has nothing mounted", || alpha.shell(&format!("! grep {MOUNTED} /proc/mounts")));
    client.until_served_by("beta");

    assert_eq!(cluster.judge(client)?, ["alpha", "beta"]);
    unwritten::never_arrived(beta, &[disk_link(0)])
}

/// Its watchdog resets it as soon as it goes on.
#[test]
fn what_a_hung_holder_had_not_written_is_thrown_away() -> Result<()> {
    a_hung_holder_is_cut_off(ClaimKind::Reservation)
}

/// It goes on with all that it was doing, and the disk refuses it.
#[test]
fn without_a_watchdog_the_disk_alone_refuses_a_holder_that_was_hung() -> Result<()> {
    a_hung_holder_is_cut_off(ClaimKind::ReservationAlone)
}

/// S6, L1: a holder that nobody hears, but that reaches the storage, keeps what it has; one that does not reach the storage is replaced.
#[test]
fn a_cut_network_moves_nothing_and_a_cut_to_the_storage_moves_it() -> Result<()> {
    let cluster = KernelCluster::with_ledger(KernelLab::with_nodes(&["alpha", "beta"]), ClaimKind::Reservation)?;
    let client = cluster.ledger_client()?;
    client.until_served_by("alpha");

    assert_eq!(Fault::NetworkCut.strike(&cluster, LEDGER_PROGRAM)?, "alpha");
    client.until_served_by("alpha");
    assert_eq!(Fault::StorageCut.strike(&cluster, LEDGER_PROGRAM)?, "beta");
    client.until_served_by("beta");
    KernelCluster::tell("cut to the storage", &client);

    assert_eq!(cluster.judge(client)?, ["alpha", "beta"]);
    Ok(())
}

/// S5: what an agent had in the disk when it died may be carried out after the next one has gone on with the claim. It names the key of before.
fn what_a_dead_agent_sent_comes_too_late(alpha: &Guest) -> Result<()> {
    let before = eventually("both paths are registered", || key_of_both_paths(alpha));
    alpha.shell("kill -KILL $(pidof ha)")?;
    let after = eventually("the next agent has a key of its own", || {
        key_of_both_paths(alpha).and_then(|key| if key == before { Err(key) } else { Ok(key) })
    });
    for words in [&["release", &before][..], &["preempt", &before, &before], &["register", &before, "0"]] {
        let said = reservation(alpha, None, words)?.output;
        // RELEASE changes nothing, and so succeeds, on a path that the reservation does not hang on.
        assert!(said.contains("reservation conflict"), "{words:?}: {said}");
    }
    assert_eq!(key_of_both_paths(alpha), Ok(after));
    Ok(())
}

/// One way to the storage is enough, whichever it is, and one that comes back is used again: nothing moves until both are gone. Nor is the
/// death of an agent an outage.
#[test]
fn one_path_of_two_is_enough() -> Result<()> {
    let lab = KernelLab::with_nodes(&["alpha", "beta"]).paths(Paths::Two);
    let cluster = KernelCluster::with_ledger(lab, ClaimKind::Reservation)?;
    let alpha = cluster.lab().node("alpha");
    let client = cluster.ledger_client()?;
    client.until_served_by("alpha");
    what_a_dead_agent_sent_comes_too_late(alpha)?;
    client.until_served_by("alpha");
    KernelCluster::tell("death of the agent", &client);
    for network in [Network::StorageA, Network::StorageB] {
        cluster.lab().cut(alpha, network)?;
        client.until_served_by("alpha");
        KernelCluster::tell("one path lost", &client);
        cluster.lab().join(alpha, network)?;
        cluster.lab().until_disks(alpha);
        client.until_served_by("alpha");
    }
    assert_eq!(Fault::StorageCut.strike(&cluster, LEDGER_PROGRAM)?, "beta");
    client.until_served_by("beta");
    KernelCluster::tell("both paths lost", &client);

    assert_eq!(cluster.judge(client)?, ["alpha", "beta"]);
    Ok(())
}

/// L1, S1: all nodes are powered on in the same moment and start their agents at boot, with disks that nobody ever had, and after a loss of
/// power of them all in which the disks kept their reservations: each hierarchy is served by the one node that is preferred for it.
#[test]
fn nodes_that_boot_in_the_same_moment_serve_what_they_are_preferred_for() -> Result<()> {
    let app = |file: &str, port: u16| {
        let app = program("lab-ledger")?;
        Ok::<_, Trouble>(format!(
            r#"Process(name: "app", command: [{:?}, "{file}", "10.77.0.100:{port}"])"#,
            app.to_string_lossy()
        ))
    };
    let builder = KernelLab::with_nodes(&["alpha", "beta", "gamma"]).another_disk(64).ext4(|_| Ok(()));
    let cluster = KernelCluster::configured(builder, ClaimKind::Reservation, &app("/srv/ledger/entries", 7000)?)?;
    let lab = cluster.lab();
    let (second, at) = (disk_link(1), "/srv/journal");
    lab.node("gamma").shell(&format!("mkfs.ext4 -q {second}"))?;
    let journal = format!(
        r#"Hierarchy(
    name: "journal",
    nodes: ["beta", "gamma", "alpha"],
    claim: Reservation(devices: [{second:?}]),
    resources: [
        Filesystem(name: "data", device: {second:?}, at: "{at}", fstype: "ext4", mount_point: Created),
        Address(name: "vip", address: "10.77.0.101/24", interface: "eth0"),
        {},
    ],
)
"#,
        app("/srv/journal/entries", 7000)?.replace("10.77.0.100", "10.77.0.101")
    );
    for node in lab.nodes() {
        fs::write(node.dir().join("etc/hierarchies/journal.ron"), &journal)?;
        // However long one boots longer than the other.
        let file = node.dir().join("etc/agent.ron");
        fs::write(&file, fs::read_to_string(&file)?.replace(r#"startup_grace: "5s""#, r#"startup_grace: "60s""#))?;
        // As the order of services at boot has it: after the storage.
        node.change(|spec| {
            let (first, agent) = (disk_link(0), spec.agent.join(" "));
            let wait = format!("until test -e {first} -a -e {second}; do sleep 0.1; done; exec {agent}");
            spec.agent = ["/bin/sh", "-c", &wait].map(str::to_owned).to_vec();
        })?;
        node.power_off()?;
        node.start_agent()?;
    }
    let (client, other) = (cluster.ledger_client()?, cluster.client_of("10.77.0.101:7000")?);
    for _ in ["disks that nobody ever had", "reservations of the former lives"] {
        lab.nodes().iter().try_for_each(Guest::power_off)?;
        lab.nodes().iter().try_for_each(Guest::power_on)?;
        client.until_served_by("alpha");
        other.until_served_by("beta");
        for node in lab.nodes() {
            cluster.until(node.name(), "each hierarchy is where it belongs", |status| {
                status.place(LEDGER) == Some("alpha") && status.place("journal") == Some("beta")
            });
        }
    }
    assert_eq!(cluster.judge(client)?, ["alpha", "alpha"]);
    assert_eq!(cluster.judge_on("journal", 1, other)?, ["beta", "beta"]);
    Ok(())
}

/// S1, S7: a holder whose agent stands still is reset by its watchdog, one that cannot stop what it lost its claim for resets itself; another
/// node takes over, and who was reset comes back as a bystander.
#[test]
fn a_holder_that_does_not_stop_is_reset() -> Result<()> {
    let cluster = KernelCluster::with_ledger(KernelLab::with_nodes(&["alpha", "beta"]), ClaimKind::Reservation)?;
    let (alpha, beta) = (cluster.lab().node("alpha"), cluster.lab().node("beta"));
    let client = cluster.ledger_client()?;
    client.until_served_by("alpha");
    let back = |node: &Guest, life: &str, by: &str| -> Result<()> {
        node.until_reset(life);
        assert!(node.console().contains(by), "{}", node.console());
        node.start_agent()?;
        cluster.until_heard("alpha", "beta", "alive");
        cluster.until_heard("beta", "alpha", "alive");
        Ok(())
    };

    // The agent, and whatever else of it there is. The service goes on until the watchdog fires.
    let life = alpha.boot_id()?;
    alpha.abandon_agent()?;
    alpha.shell("kill -STOP $(pidof ha)")?;
    client.until_served_by("beta");
    KernelCluster::tell("agent frozen", &client);
    back(alpha, &life, "softdog: Initiating system reboot")?;
    client.until_served_by("beta");

    // The filesystem stands still: nobody can end the program that writes to it, nor unmount it. Then the claim is lost; the agent does not
    // wait for the watchdog.
    let life = beta.boot_id()?;
    beta.abandon_agent()?;
    beta.shell(&format!("fsfreeze -f {MOUNTED}"))?;
    cluster.lab().cut(beta, Network::StorageA)?;
    client.until_served_by("alpha");
    KernelCluster::tell("service that cannot be stopped", &client);
    beta.until_reset(&life);
    cluster.lab().join(beta, Network::StorageA)?;
    back(beta, &life, "ha: resetting this machine: ledger: the claim is lost and not everything could be stopped")?;
    client.until_served_by("alpha");

    assert_eq!(cluster.judge(client)?, ["alpha", "beta", "alpha"]);
    Ok(())
}

/// S1: a target that comes back with its reservations, and one that comes back without, is served by one node.
#[test]
fn a_target_loses_power_with_and_without_its_reservations() -> Result<()> {
    let cluster = KernelCluster::with_ledger(KernelLab::with_nodes(&["alpha", "beta"]), ClaimKind::Reservation)?;
    let client = cluster.ledger_client()?;
    client.until_served_by("alpha");
    for persistence in [Persistence::Kept, Persistence::Forgotten] {
        let target = cluster.lab().target();
        target.change(|spec| spec.role = spec::Role::Target(persistence))?;
        let holder = Fault::TargetPowerLoss.strike(&cluster, LEDGER_PROGRAM)?;
        client.until_served();
        KernelCluster::tell(&format!("target without power, reservations {persistence:?}, now {holder}"), &client);
    }
    cluster.judge(client).map(drop)
}

/// S1 of another kind: a bystander has read the disk, and its kernel remembers what it saw as long as anybody, such as the agent, has the disk
/// open. When it takes over it must see what is there now.
#[test]
fn what_a_bystander_has_read_is_not_taken_for_what_is_on_the_disk() -> Result<()> {
    let cluster = KernelCluster::with_ledger(KernelLab::with_nodes(&["alpha", "beta"]), ClaimKind::Reservation)?;
    let (alpha, beta) = (cluster.lab().node("alpha"), cluster.lab().node("beta"));
    let client = cluster.ledger_client()?;
    client.until_served_by("alpha");
    for (holder, bystander) in [(alpha, beta), (beta, alpha)] {
        bystander.shell(&format!("dd if={} of=/dev/null bs=1M count=96", disk_link(0)))?;
        holder.shell(&format!("mkdir {MOUNTED}/{0} && echo new >{MOUNTED}/{0}/file && sync", holder.name()))?;
        assert_eq!(Fault::Move.strike(&cluster, LEDGER_PROGRAM)?, bystander.name());
        client.until_served_by(bystander.name());
        bystander.shell(&format!("grep new {MOUNTED}/{}/file", holder.name()))?;
    }
    assert_eq!(cluster.judge(client)?, ["alpha", "beta", "alpha"]);
    Ok(())
}

/// L1, of a node that reads the disk all the time: with the holder's commands the target would abort its reads, and hang.
#[test]
fn a_bystander_that_reads_the_disk_all_the_time_takes_over() -> Result<()> {
    let cluster = KernelCluster::with_ledger(KernelLab::with_nodes(&["alpha", "beta"]), ClaimKind::Reservation)?;
    let client = cluster.ledger_client()?;
    client.until_served_by("alpha");
    read_without_a_pause(cluster.lab().node("beta"))?;
    cluster.lab().node("alpha").power_off()?;
    client.until_served_by("beta");
    KernelCluster::tell("power loss, beside reads of the next in rank", &client);
    assert_eq!(cluster.judge(client)?, ["alpha", "beta"]);
    Ok(())
}
