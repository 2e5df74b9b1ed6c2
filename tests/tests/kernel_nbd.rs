//! Exports of an NBD server on real kernels: whose a device is, what a dead server does, and who has the data when a node dies.

use std::time::{Duration, Instant};

use ha_tests::kernel::cluster::{LEDGER, MOUNTED};
use ha_tests::kernel::ledger::judge;
use ha_tests::kernel::nbd::{Exported, NBD_SERVER, NbdServer};
use ha_tests::kernel::resource::{expect, operate_within};
use ha_tests::kernel::{ClaimKind, Guest, KernelCluster, KernelLab, Network, Running};
use ha_tests::{Result, program};

const MIB: u64 = 1 << 20;

/// The kernel gives a request up after this, and looks every so often whether one is due: twice as long at most.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The exports of the server in these tests.
fn exports(shop: u64) -> [Exported<'static>; 4] {
    [
        Exported { name: "shop", size: shop, settings: "flush = true" },
        Exported { name: "plain", size: 4 * MIB, settings: "" },
        Exported { name: "fixed", size: 4 * MIB, settings: "readonly = true" },
        Exported { name: "odd", size: 4 * MIB + 100, settings: "" },
    ]
}

/// A resource of this name, on this device, of this export.
fn disk(name: &str, device: &str, export: &str, more: &str) -> String {
    format!(
        r#"Nbd(name: "{name}", device: "{device}", server: Tcp("{NBD_SERVER}"), export: "{export}", timeout: "{}s"{more})"#,
        TIMEOUT.as_secs()
    )
}

/// Begins to watch a resource that runs.
fn watch(node: &Guest, resource: &str) -> Result<Running> {
    let watching = node.start(&program("lab-resource")?.to_string_lossy(), &["watch", "10000", resource])?;
    // Long enough to have begun: what happens before would be noticed all the same, but not by the kernel's word.
    std::thread::sleep(Duration::from_secs(1));
    Ok(watching)
}

fn until_told(watching: Running, expected: &str) -> Result<()> {
    let said = watching.wait()?.good()?;
    eprintln!("told: {said}");
    assert!(said.contains(expected), "{said}");
    Ok(())
}

fn is_attached(node: &Guest, device: &str) -> bool {
    node.shell(&format!("test -e /sys/block/{device}/pid")).is_ok()
}

#[test]
fn an_export_is_attached_if_it_is_what_it_should_be_and_a_strangers_device_is_left_alone() -> Result<()> {
    let lab = KernelLab::with_nodes(&["alpha"]).disks(&[16]).boot()?;
    let alpha = lab.node("alpha");
    alpha.shell("mkdir -p /srv/web")?;
    let shop = disk("disk", "/dev/nbd0", "shop", "");
    for operation in ["ready", "start"] {
        expect(
            alpha,
            operation,
            &shop,
            "failed: the NBD server 10.77.0.254:10809, asked for \"shop\", cannot be reached",
        )?;
    }
    expect(alpha, "stop", &shop, "done")?;
    let _server = NbdServer::start(&lab, &exports(32 * MIB))?;

    // What may not be attached, and why. What is of the wrong size nbd-server tells only to who begins.
    for (resource, when, expected) in [
        (disk("disk", "/dev/nbd0", "none", ""), "ready start", "asked for \"none\", has no such export"),
        (disk("disk", "/dev/nbd0", "fixed", ""), "ready start", "fixed of 10.77.0.254:10809 is read-only"),
        (disk("disk", "/dev/nbd0", "odd", ""), "start", "no multiple of its blocks"),
        (
            disk("disk", "/dev/nbd0", "shop", ", size: \"64MiB\""),
            "start",
            "has 33554432 bytes, and should have 67108864",
        ),
    ] {
        for operation in when.split(' ') {
            expect(alpha, operation, &resource, expected)?;
        }
        assert!(!is_attached(alpha, "nbd0"));
    }
    expect(alpha, "advice", &disk("disk", "/dev/nbd0", "plain", ""), "cannot be told to make data last")?;
    expect(alpha, "advice", &shop, "")?;

    // Each operation is a program of its own, as an agent that was restarted.
    expect(alpha, "ready", &shop, "done")?;
    expect(alpha, "adopt", &shop, "stopped")?;
    for _ in 0..2 {
        expect(alpha, "start", &shop, "done")?;
    }
    expect(alpha, "monitor", &shop, "good")?;
    expect(alpha, "adopt", &shop, "running")?;
    let backend = alpha.shell("cat /sys/block/nbd0/backend")?;
    assert_eq!(backend.trim(), "ha:lab:disk:shop of 10.77.0.254:10809");

    // In use, it is not stopped, and who uses it is told.
    alpha.shell("mkfs.ext4 -q -F /dev/nbd0 && mount /dev/nbd0 /srv/web && echo hello > /srv/web/page")?;
    let said = operate_within(alpha, "stop", Duration::from_secs(3), &shop)?;
    assert!(said.contains("/dev/nbd0 is in use; it is mounted at /srv/web"), "{said}");
    alpha.shell("umount /srv/web; sleep 1000 < /dev/nbd0 >/dev/null 2>&1 & echo $! > /run/opener")?;
    let said = operate_within(alpha, "stop", Duration::from_secs(3), &shop)?;
    assert!(said.contains("/dev/nbd0 is in use; opened by sleep (pid"), "{said}");
    alpha.shell("kill $(cat /run/opener)")?;
    expect(alpha, "monitor", &shop, "good")?;

    // Another resource, or somebody else, has the device.
    let other = disk("other", "/dev/nbd0", "plain", "");
    for operation in ["ready", "start"] {
        expect(alpha, operation, &other, "the resource disk of the hierarchy lab has it attached to shop of")?;
    }
    expect(alpha, "stop", &other, "done")?;
    expect(alpha, "kill", &other, "done")?;
    alpha.shell("nbd-client -N plain 10.77.0.254 10809 /dev/nbd1")?;
    let stranger = disk("disk", "/dev/nbd1", "shop", "");
    for operation in ["ready", "start"] {
        expect(alpha, operation, &stranger, "/dev/nbd1 is somebody else's: somebody has it attached")?;
    }
    expect(alpha, "adopt", &stranger, "stopped")?;
    expect(alpha, "stop", &stranger, "done")?;
    expect(alpha, "kill", &stranger, "done")?;
    assert!(is_attached(alpha, "nbd0") && is_attached(alpha, "nbd1"));
    alpha.shell("nbd-client -d /dev/nbd1")?;

    // What is written is there afterwards, and nothing is left of it here.
    expect(alpha, "stop", &shop, "done")?;
    expect(alpha, "stop", &shop, "done")?;
    expect(alpha, "adopt", &shop, "stopped")?;
    assert!(!is_attached(alpha, "nbd0"));
    let reader = disk("disk", "/dev/nbd20", "shop", ", access: ReadOnly, size: \"32MiB\"");
    expect(alpha, "start", &reader, "done")?;
    alpha.shell("mount -o ro /dev/nbd20 /srv/web && grep hello /srv/web/page && umount /srv/web")?;
    assert!(alpha.shell("dd if=/dev/zero of=/dev/nbd20 count=1").is_err(), "it is read-only");
    expect(alpha, "kill", &reader, "done")?;

    // A server on the node itself.
    alpha.shell("truncate -s 8M /run/local")?;
    let configuration = "[generic]\nunixsock = /run/nbd.sock\n[local]\nexportname = /run/local\n";
    alpha.shell(&format!("printf {configuration:?} > /run/local.conf"))?;
    alpha.shell(
        "nbd-server -C /run/local.conf -p /run/local.pid && while ! test -s /run/local.pid; do sleep 0.1; done",
    )?;
    let local = r#"Nbd(name: "disk", device: "/dev/nbd0", server: Unix("/run/nbd.sock"), export: "local")"#;
    for (operation, expected) in [("ready", "done"), ("start", "done"), ("monitor", "good"), ("stop", "done")] {
        expect(alpha, operation, local, expected)?;
    }
    Ok(())
}

#[test]
fn a_dead_server_is_noticed_and_whoever_waits_for_it_gets_an_error() -> Result<()> {
    let lab = KernelLab::with_nodes(&["alpha", "beta"]).disks(&[16]).boot()?;
    let (alpha, beta) = (lab.node("alpha"), lab.node("beta"));
    lab.nodes().iter().try_for_each(|node| node.shell("mkdir -p /srv/web").map(drop))?;
    let mut server = NbdServer::start(&lab, &exports(32 * MIB))?;
    let shop = disk("disk", "/dev/nbd0", "shop", "");
    expect(alpha, "start", &shop, "done")?;
    alpha.shell("mkfs.ext4 -q -F /dev/nbd0 && mount /dev/nbd0 /srv/web && echo hello > /srv/web/page && sync")?;

    // It is killed: known at once, by the kernel, and nothing hangs.
    let watching = watch(alpha, &shop)?;
    server.die()?;
    until_told(watching, "/dev/nbd0 has lost its connection to shop of 10.77.0.254:10809")?;
    expect(alpha, "monitor", &shop, "bad: /dev/nbd0 answers: Input/output error")?;
    expect(alpha, "adopt", &shop, "stopped")?;
    assert!(alpha.shell("echo more > /srv/web/more && sync -f /srv/web").is_err(), "nothing can be written");
    alpha.shell("umount /srv/web")?;
    expect(alpha, "start", &shop, "asked for \"shop\", cannot be reached: Connection refused")?;
    assert!(!is_attached(alpha, "nbd0"));
    server.go_on()?;
    expect(alpha, "start", &shop, "done")?;
    alpha.shell("e2fsck -p /dev/nbd0 || test $? = 1")?;
    alpha.shell("mount /dev/nbd0 /srv/web && grep hello /srv/web/page")?;

    // It hangs: whoever asks it something gets an error when its time is over, and it is known then.
    let watching = watch(alpha, &shop)?;
    server.hang()?;
    let since = Instant::now();
    assert!(alpha.shell("dd if=/dev/nbd0 of=/dev/null bs=4096 count=1 iflag=direct").is_err());
    let waited = since.elapsed();
    eprintln!("a server that hangs was given up after {waited:.1?}");
    assert!(waited >= TIMEOUT, "{waited:?}");
    until_told(watching, "has lost its connection")?;
    expect(alpha, "monitor", &shop, "bad: /dev/nbd0 answers: Input/output error")?;
    expect(beta, "ready", &shop, "asked for \"shop\", does not answer in time")?;
    // In use by who cannot go on: by force it is cut off all the same.
    expect(alpha, "kill", &shop, "done")?;
    assert!(alpha.shell("dd if=/dev/nbd0 of=/dev/null bs=4096 count=1 iflag=direct").is_err());
    alpha.shell("umount /srv/web")?;
    expect(alpha, "adopt", &shop, "stopped")?;
    assert!(!is_attached(alpha, "nbd0"));
    server.wake()?;

    // It hangs while much is being written: by force it is cut off in bounded time, and who writes gets an error.
    expect(alpha, "start", &shop, "done")?;
    server.hang()?;
    let writing = alpha.start("/bin/dd", &["if=/dev/zero", "of=/dev/nbd0", "bs=1M", "seek=16", "oflag=direct"])?;
    alpha.shell("until test $(awk '{ print $9 }' /sys/block/nbd0/stat) -gt 0; do sleep 0.1; done")?;
    let since = Instant::now();
    expect(alpha, "kill", &shop, "done")?;
    eprintln!("a server that hangs, with much to be written, was cut off in {:.1?}", since.elapsed());
    assert!(writing.wait()?.good().is_err(), "it was told that all was written");
    server.wake()?;

    // The way to it is cut while nothing is asked of it: known all the same.
    expect(alpha, "start", &shop, "done")?;
    let watching = watch(alpha, &shop)?;
    lab.cut(alpha, Network::Cluster)?;
    until_told(watching, "has lost its connection")?;
    expect(alpha, "monitor", &shop, "bad: /dev/nbd0 answers: Input/output error")?;
    expect(alpha, "kill", &shop, "done")?;
    let said = operate_within(alpha, "start", Duration::from_secs(5), &shop)?;
    assert!(said.contains("does not answer in time"), "{said}");
    lab.join(alpha, Network::Cluster)?;

    // By force, with a server that lives and a filesystem that is written: nothing of it reaches the server afterwards.
    expect(alpha, "start", &shop, "done")?;
    alpha.shell("e2fsck -p /dev/nbd0 || test $? = 1")?;
    alpha.shell("mount /dev/nbd0 /srv/web && echo before > /srv/web/before && sync && echo after > /srv/web/after")?;
    expect(alpha, "kill", &shop, "done")?;
    let _ = alpha.shell("sync");
    expect(beta, "start", &shop, "done")?;
    beta.shell("e2fsck -p /dev/nbd0 || test $? = 1")?;
    beta.shell(
        "mount /dev/nbd0 /srv/web && grep before /srv/web/before && ! grep after /srv/web/after && umount /srv/web",
    )?;
    expect(beta, "stop", &shop, "done")?;
    alpha.shell("umount /srv/web")?;

    // Somebody detaches it: known at once.
    expect(alpha, "start", &shop, "done")?;
    let watching = watch(alpha, &shop)?;
    alpha.shell("nbd-client -d /dev/nbd0")?;
    until_told(watching, "/dev/nbd0 is not attached to shop")?;
    expect(alpha, "monitor", &shop, "bad: /dev/nbd0 is not attached to shop")?;

    // Its node dies, and the other one has it.
    expect(alpha, "start", &shop, "done")?;
    alpha.power_off()?;
    expect(beta, "ready", &shop, "done")?;
    expect(beta, "start", &shop, "done")?;
    beta.shell("mount /dev/nbd0 /srv/web && grep hello /srv/web/page && umount /srv/web")?;
    expect(beta, "stop", &shop, "done")
}

/// Two nodes, of which alpha serves a ledger on a filesystem on the server's export, by a lease on a disk elsewhere.
fn ledger_on_an_export() -> Result<(KernelCluster, NbdServer)> {
    let app = program("lab-ledger")?;
    let app = format!(
        r#"Process(name: "app", command: [{:?}, "{MOUNTED}/entries", "10.77.0.100:7000"])"#,
        app.to_string_lossy()
    );
    let builder = KernelLab::with_nodes(&["alpha", "beta"]).disks(&[16]);
    let cluster = KernelCluster::configured(builder, ClaimKind::LockArea, &app)?;
    let server = NbdServer::start(cluster.lab(), &exports(48 * MIB))?;
    let made = std::process::Command::new("mkfs.ext4").args(["-q", "-F"]).arg(server.file("shop")).status()?;
    assert!(made.success());
    let nbd = disk("disk", "/dev/nbd0", "shop", "");
    let hierarchy = format!(
        r#"Hierarchy(
    name: "{LEDGER}",
    nodes: ["alpha", "beta"],
    claim: LockArea("main"),
    decline_for: "10s",
    settle: "1s",
    forced_stop_within: "10s",
    resources: [
        {nbd},
        Filesystem(name: "data", device: "/dev/nbd0", at: "{MOUNTED}", fstype: "ext4", mount_point: Created, found_on: Hierarchy),
        Address(name: "vip", address: "10.77.0.100/24", interface: "eth0"),
        {app},
    ],
)
"#
    );
    for node in cluster.lab().nodes() {
        std::fs::write(node.dir().join("etc/hierarchies/ledger.ron"), &hierarchy)?;
    }
    cluster.start()?;
    cluster.until_placed(LEDGER, "alpha");
    Ok((cluster, server))
}

#[test]
fn an_export_with_a_filesystem_goes_on_after_a_loss_of_power_and_after_its_server_came_back() -> Result<()> {
    let (cluster, mut server) = ledger_on_an_export()?;
    let (alpha, beta) = (cluster.lab().node("alpha"), cluster.lab().node("beta"));
    let client = cluster.ledger_client()?;
    client.until_served_by("alpha");

    // The agent is killed: it finds what it had, and nothing is interrupted.
    let attached = alpha.shell("cat /sys/block/nbd0/pid")?;
    alpha.shell("kill -KILL $(pidof ha)")?;
    cluster.until_placed(LEDGER, "alpha");
    assert_eq!(alpha.shell("cat /sys/block/nbd0/pid")?, attached, "it was attached anew");

    alpha.power_off()?;
    client.until_served_by("beta");
    KernelCluster::tell("the holder of an export loses power", &client);

    // The server dies and comes back: served again by who can.
    let before = client.acknowledged().len();
    server.die()?;
    cluster.until("beta", "it is out of service", |status| status.place(LEDGER).is_none());
    server.go_on()?;
    client.until_served_by("beta");
    assert!(client.acknowledged().len() > before);
    KernelCluster::tell("the server of an export dies and comes back", &client);
    eprintln!("{}", cluster.ask("beta", &["history"])?);
    let acknowledged = client.end();
    let entries = beta.shell(&format!("cat {MOUNTED}/entries"))?;
    judge(&entries, &acknowledged)?;

    // And it can be taken out of service again, to the last of it.
    cluster.ask("beta", &["stop", LEDGER])?;
    assert!(!is_attached(beta, "nbd0"));
    Ok(())
}
