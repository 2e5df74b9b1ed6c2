//! What a node does about itself, on a real kernel: its watchdog has the time that was asked for or is refused, and what the kernel says of itself
//! is followed.

use std::fs;

use ha_tests::cluster::Machines as _;
use ha_tests::kernel::cluster::LEDGER;
use ha_tests::kernel::{ClaimKind, Guest, KernelCluster, KernelLab, disk_link};
use ha_tests::{Result, eventually, program};

/// A hierarchy of its own on the second disk.
const JOURNAL: &str = "journal";

/// The third disk, which no claim lives on.
const UNCLAIMED: usize = 2;

/// Two nodes of which alpha serves the ledger and the journal, with this line in `agent.ron`.
fn cluster(line: &str) -> Result<KernelCluster> {
    let app = program("lab-ledger")?;
    let app = format!(
        r#"Process(name: "app", command: [{:?}, "/srv/ledger/entries", "10.77.0.100:7000"])"#,
        app.to_string_lossy()
    );
    let lab = KernelLab::with_nodes(&["alpha", "beta"]).another_disk(16).another_disk(16).ext4(|_| Ok(()));
    let cluster = KernelCluster::configured(lab, ClaimKind::Reservation, &app)?;
    let journal = format!(
        r#"Hierarchy(
    name: "{JOURNAL}",
    nodes: ["alpha", "beta"],
    claim: Reservation(devices: [{:?}]),
    resources: [Process(name: "app", command: ["/bin/sleep", "1000000"])],
)
"#,
        disk_link(1)
    );
    for node in cluster.lab().nodes() {
        fs::write(node.dir().join("etc/hierarchies/journal.ron"), &journal)?;
        configure(node, "    keys:", &format!("    {line},\n    keys:"))?;
    }
    cluster.start()?;
    cluster.until_placed(LEDGER, "alpha");
    cluster.until_placed(JOURNAL, "alpha");
    Ok(cluster)
}

fn configure(node: &Guest, from: &str, to: &str) -> Result<()> {
    let file = node.dir().join("etc/agent.ron");
    let text = fs::read_to_string(&file)?;
    assert!(text.contains(from), "{text}");
    Ok(fs::write(file, text.replacen(from, to, 1))?)
}

/// Has a disk answer with an error, once: it is as it was before and afterwards. Returns the kernel's name of it.
fn disk_error(node: &Guest, unit: usize) -> Result<String> {
    let name = node.shell(&format!("basename $(readlink -f {})", disk_link(unit)))?.trim().to_owned();
    let state = format!("/sys/block/{name}/device/state");
    let read = "dd of=/dev/null count=1 iflag=direct <&3";
    // Opened before: a disk that is offline is not opened at all.
    node.shell(&format!(
        "exec 3</dev/{name}; echo offline >{state}; {read} && wrong=yes; echo running >{state}; test -z $wrong && {read}"
    ))?;
    node.shell(&format!("dmesg | grep 'error, dev {name},'"))?;
    Ok(name)
}

fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What is no fault of this node: words of a program, and a disk that no claim lives on.
fn no_faults(node: &Guest) -> Result<()> {
    node.shell("echo '<0>BUG: unable to handle page fault' >/dev/kmsg && dmesg | grep 'unable to handle'")?;
    disk_error(node, UNCLAIMED).map(drop)
}

/// A disk that a claim lives on answers with an error. All that the node serves goes elsewhere, also what lives on other disks.
#[test]
fn a_node_whose_kernel_tells_of_errors_gives_everything_away() -> Result<()> {
    let cluster = cluster("on_kernel_fault: Drain")?;
    let alpha = cluster.lab().node("alpha");
    let client = cluster.ledger_client()?;
    client.until_served_by("alpha");
    no_faults(alpha)?;
    let name = disk_error(alpha, 1)?;
    client.until_served_by("beta");
    KernelCluster::tell("error of a disk, drained", &client);
    cluster.until_placed(JOURNAL, "beta");

    let why = format!("the disk {name} has errors: I/O error, dev {name}, sector 0");
    cluster.until_said("alpha", &["status"], &[&why, "standby"]);
    let told = cluster.until_said("alpha", &["history", LEDGER], &[&why]);
    eprintln!("{told}");
    eprintln!("{}", cluster.said("alpha", &["status"])?);
    let log = cluster.lab().agent_log_of("alpha");
    assert!(!log.contains("unable to handle"), "what a program wrote was taken for the kernel's own words: {log}");

    // An operator has looked at it.
    cluster.ask("alpha", &["online"])?;
    cluster.ask("alpha", &["move", LEDGER, "alpha"])?;
    client.until_served_by("alpha");
    assert_eq!(cluster.judge(client)?, ["alpha", "beta", "alpha"]);
    Ok(())
}

/// The same where the machine is to be reset. Nothing is handed over: another node takes what it had, and it comes back as a bystander.
#[test]
fn a_node_whose_kernel_tells_of_errors_is_reset() -> Result<()> {
    let cluster = cluster("on_kernel_fault: Reset")?;
    let alpha = cluster.lab().node("alpha");
    let client = cluster.ledger_client()?;
    client.until_served_by("alpha");
    let life = alpha.boot_id()?;
    no_faults(alpha)?;
    alpha.abandon_agent()?;
    // It may be gone before the disk is well again.
    let _ = disk_error(alpha, 1);
    client.until_served_by("beta");
    KernelCluster::tell("error of a disk, reset", &client);
    alpha.until_reset(&life);
    let console = alpha.console();
    assert!(console.contains("ha: resetting this machine: the disk sd"), "{console}");
    cluster.lab().until_disks(alpha);
    alpha.start_agent()?;
    cluster.until_heard("beta", "alpha", "alive");
    cluster.until_heard("alpha", "beta", "alive");
    client.until_served_by("beta");
    cluster.until_placed(JOURNAL, "beta");
    assert_eq!(cluster.judge(client)?, ["alpha", "beta"]);
    Ok(())
}

/// Asked for more seconds than it can count, the device is refused and does not reset the machine; asked for what it can do, the kernel has that
/// time and no other. (This kernel shows no watchdogs in sysfs: what it has is asked of the device, when the agent has died.)
#[test]
fn a_watchdog_has_the_time_that_was_asked_for_or_is_refused() -> Result<()> {
    let cluster = KernelCluster::with_hierarchies(KernelLab::with_nodes(&["alpha"]), ClaimKind::Reservation, &[])?;
    let alpha = cluster.lab().node("alpha");
    // With a time of its own, and such that it can be disarmed. It is in use, and not to be removed, as long as it runs.
    let renew = "rmmod softdog && modprobe softdog soft_margin=60 nowayout=0 && test -c /dev/watchdog1";
    alpha.shell(renew)?;

    configure(alpha, r#"timeout: "5s""#, r#"timeout: "70000s""#)?;
    let said = cluster.said("alpha", &["run", "--node", "alpha"])?;
    eprintln!("{said}");
    let why = "/dev/watchdog1: cannot be set up: it refuses 70000 s: Invalid argument (os error 22): choose a time that it can keep";
    assert!(said.contains(why) && !said.contains("watchdog armed"), "{said}");
    alpha.shell(renew)?;

    configure(alpha, r#"timeout: "70000s""#, r#"timeout: "37s""#)?;
    alpha.start_agent()?;
    eventually("the watchdog is armed", || {
        let log = alpha.agent_log();
        if log.contains("watchdog armed") { Ok(()) } else { Err(log) }
    });
    assert!(alpha.shell("rmmod softdog").is_err(), "it is not armed");
    alpha.abandon_agent()?;
    alpha.shell("kill -KILL $(pidof ha)")?;
    let has = eventually("the device can be asked", || alpha.shell("wdctl --noflags /dev/watchdog1"));
    eprintln!("{has}");
    assert!(flat(&has).contains("Timeout: 37 seconds"), "{has}");
    Ok(())
}

/// A device that takes another time than the one asked for, as some drivers do that count in minutes, and one that is disarmed by any close: both are
/// made by a program, since no driver of this kernel is like that. Neither is used, and the first is disarmed again.
#[test]
fn a_watchdog_that_takes_another_time_or_dies_with_the_agent_is_refused() -> Result<()> {
    let cluster = KernelCluster::with_hierarchies(KernelLab::with_nodes(&["alpha"]), ClaimKind::Reservation, &[])?;
    let alpha = cluster.lab().node("alpha");
    alpha.shell("modprobe cuse")?;
    let own = program("lab-watchdog")?.to_string_lossy().into_owned();
    let mut device = "/dev/watchdog1\", timeout: \"5s\"".to_owned();
    // With magic close and without: WDIOF_KEEPALIVEPING | WDIOF_SETTIMEOUT, and WDIOF_MAGICCLOSE.
    for (name, options, step, timeout, expected, disarmed) in [
        (
            "watchdog7",
            "8180",
            60,
            "90s",
            "90 s were asked for, but it takes 120 s: choose a time that it can keep",
            "written V",
        ),
        ("watchdog8", "8080", 1, "5s", "is disarmed whenever it is closed, also when the agent dies", "closed"),
    ] {
        alpha.shell(&format!("{own} {name} {options} {step} >/run/{name} 2>&1 &"))?;
        eventually("the device is there", || alpha.shell(&format!("test -c /dev/{name}")));
        let next = format!("/dev/{name}\", timeout: \"{timeout}\"");
        configure(alpha, &device, &next)?;
        device = next;
        let said = cluster.said("alpha", &["run", "--node", "alpha"])?;
        eprintln!("{said}");
        assert!(said.contains(expected) && !said.contains("watchdog armed"), "{said}");
        eventually("it is disarmed", || alpha.shell(&format!("grep '{disarmed}' /run/{name}")));
    }
    Ok(())
}
