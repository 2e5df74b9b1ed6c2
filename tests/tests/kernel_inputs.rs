//! What an operator may name by mistake, on a real kernel: each is refused with what it is and what to do instead, and nothing is touched.

use std::fs;

use ha_core::claim::reservation::ReservationType;
use ha_core::claim::reservation::device::{Command, Key, Ports, PowerLoss};
use ha_tests::kernel::cluster::LEDGER;
use ha_tests::kernel::{ClaimKind, Guest, KernelCluster, KernelLab, disk_link, disk_way, volume};
use ha_tests::{Result, Trouble, program};

/// What opening says, as production opens a disk.
fn refusal(node: &Guest, path: &str) -> Result<String> {
    let device = program("lab-device")?.to_string_lossy().into_owned();
    match node.run(&device, &[path, "10000", "[]"])?.good() {
        Ok(opened) => Err(Trouble::new(format!("{path} was not refused: {opened}"))),
        Err(refused) => Ok(refused.to_string()),
    }
}

/// The generation, which grows with whatever is registered.
fn registered(node: &Guest) -> Result<String> {
    node.shell(&format!("sg_persist --in --read-keys {} | grep -i generation", disk_link(0)))
}

#[test]
fn what_cannot_be_reserved_is_refused_with_what_to_name_instead() -> Result<()> {
    let lab = KernelLab::with_nodes(&["alpha"]).another_disk(32).boot()?;
    let alpha = lab.node("alpha");
    let disk = disk_link(0);
    let before = registered(alpha)?;
    alpha.shell("echo data > /run/file; mknod /dev/gone b 8 240")?;
    volume::partition(alpha, &disk, 2048)?;
    let partition = alpha.shell("ls /dev/sda1")?;
    for (path, expected) in [
        ("/dev/missing", "/dev/missing does not exist"),
        ("/run/file", "/run/file is not a block device: name a whole disk"),
        ("/run", "/run is not a block device"),
        ("/dev/gone", "/dev/gone is there in name only"),
        (partition.trim(), "is a partition, and reservations are of whole disks: name /dev/disk/by-id/"),
    ] {
        let said = refusal(alpha, path)?;
        assert!(said.contains(expected), "{path}: {said}");
    }
    alpha.shell(&format!("blockdev --setro {disk}"))?;
    let said = refusal(alpha, &disk)?;
    assert!(said.contains("is read-only: make it writable"), "{said}");
    alpha.shell(&format!("blockdev --setrw {disk}"))?;

    // A logical volume, from a second disk.
    if alpha.shell("command -v lvm").is_err() {
        return Err(Trouble::new("this test NEEDS lvm2: it was NOT RUN to its end; install it, or use tests/run"));
    }
    alpha.shell("modprobe dm-mod && mkdir -p /run/lock/lvm /run/lvm")?;
    alpha.shell(&format!(
        "export DM_DISABLE_UDEV=1; pvcreate -q {0} && vgcreate -q shop {0} && lvcreate -q -l 4 -n web shop && vgmknodes shop",
        disk_link(1)
    ))?;
    let said = refusal(alpha, "/dev/shop/web")?;
    assert!(said.contains("/dev/shop/web is a logical volume, and reservations are of physical disks"), "{said}");
    assert!(said.contains(&disk_link(1)), "what to name instead: {said}");

    // A disk of a kind that has none.
    alpha.shell("modprobe scsi_debug dev_size_mb=8 && udevadm settle")?;
    let plain =
        alpha.shell("for d in /sys/block/sd*; do grep -q scsi_debug $d/device/model && echo /dev/${d##*/}; done")?;
    let said = refusal(alpha, plain.trim())?;
    assert!(said.contains("has no persistent reservations: name a disk that has them"), "{said}");

    assert_eq!(registered(alpha)?, before, "nothing was touched");
    Ok(())
}

/// What is to be done about it.
const REMEDY: &str = "have this name lead to one disk on all nodes, then restart the agent where it was wrong";

/// In MiB.
const SIZES: [u64; 2] = [256, 16];

/// A name that each node resolves by itself, as an alias of udev's does.
const SHARED: &str = "/dev/shared";

fn leads(node: &Guest, unit: usize) -> Result<()> {
    node.shell(&format!("ln -sfn {} {SHARED}", disk_link(unit))).map(drop)
}

/// A hierarchy of its own on these disks, whose first node is beta; without one, nothing is left of it.
fn books(cluster: &KernelCluster, devices: &[&str]) -> Result<()> {
    for node in cluster.lab().nodes() {
        let place = node.dir().join("etc/hierarchies/books.ron");
        if devices.is_empty() {
            fs::remove_file(place)?;
            continue;
        }
        let text = format!(
            r#"Hierarchy(
    name: "books",
    nodes: ["beta", "alpha"],
    claim: Reservation(devices: {devices:?}),
    resources: [Process(name: "app", command: ["/bin/sleep", "1000000"])],
)
"#
        );
        fs::write(place, text)?;
    }
    Ok(())
}

/// What is registered on a unit, and its generation.
fn registrations(node: &Guest, unit: usize) -> Result<String> {
    node.shell(&format!("sg_persist --in --read-keys {0}; sg_persist --in --read-reservation {0}", disk_link(unit)))
}

/// Who has reserved the first unit, and how; not under which key of that node's, of which each life of its agent has another.
fn holds(node: &Guest) -> Result<String> {
    let without_epoch = "sed -E 's/(Key=0x[0-9a-f]{10})[0-9a-f]{6}/\\1/'";
    node.shell(&format!("sg_persist --in --read-reservation {} | tail -n 2 | {without_epoch}", disk_link(0)))
}

fn cluster() -> Result<KernelCluster> {
    let app = program("lab-ledger")?;
    let app = format!(
        r#"Process(name: "app", command: [{:?}, "/srv/ledger/entries", "10.77.0.100:7000"])"#,
        app.to_string_lossy()
    );
    let builder = KernelLab::with_nodes(&["alpha", "beta"]).disks(&SIZES).ext4(|_| Ok(()));
    let cluster = KernelCluster::configured(builder, ClaimKind::Reservation, &app)?;
    for node in cluster.lab().nodes() {
        let place = node.dir().join("etc/hierarchies/ledger.ron");
        let text = fs::read_to_string(&place)?;
        let claim = format!("Reservation(devices: [{:?}])", disk_link(0));
        fs::write(place, text.replace(&claim, &format!("Reservation(devices: [{SHARED:?}])")))?;
    }
    Ok(cluster)
}

/// A node's agent is restarted, and in contact with the other node again.
fn again(cluster: &KernelCluster, node: &Guest) -> Result<()> {
    node.shell("kill -KILL $(pidof ha)")?;
    cluster.until(node.name(), "the new agent hears the other", |status| {
        ["alpha", "beta"].iter().all(|other| matches!(status.heard(other), "here" | "alive"))
    });
    Ok(())
}

/// Prints what the user sees, for whoever reads the test's output.
fn see(node: &str, arguments: &[&str], said: &str) {
    eprintln!("{node}# ha {}\n{said}", arguments.join(" "));
}

#[test]
fn disks_that_differ_that_are_named_twice_and_that_are_strangers_are_told_and_left_alone() -> Result<()> {
    let cluster = cluster()?;
    let (alpha, beta) = (cluster.lab().node("alpha"), cluster.lab().node("beta"));

    // One name, two disks.
    leads(alpha, 0)?;
    leads(beta, 0)?;
    cluster.start()?;
    cluster.ask("alpha", &["stop", LEDGER])?;
    let before = [registrations(alpha, 0)?, registrations(alpha, 1)?];
    leads(beta, 1)?;
    again(&cluster, beta)?;
    let disk =
        |unit| format!("naa.{} of {} bytes", &disk_link(unit)["/dev/disk/by-id/wwn-0x".len()..], SIZES[unit] << 20);
    for (node, here, other, there) in [("alpha", 0, "beta", 1), ("beta", 1, "alpha", 0)] {
        let told =
            format!("{SHARED} is {} here and {} on {other}, which is not the same disk", disk(here), disk(there));
        for command in ["status", "check"] {
            let said = cluster.until_said(node, &[command], &[&format!("{node}: not ready: {told}"), REMEDY]);
            see(node, &[command], &said);
        }
    }
    cluster.ask("alpha", &["start", LEDGER, "--no-wait"])?;
    for node in ["alpha", "beta"] {
        let said = cluster.until_said(node, &["why", LEDGER], &["which is not the same disk"]);
        see(node, &["why", LEDGER], &said);
    }
    cluster.ask("alpha", &["stop", LEDGER])?;
    assert_eq!([registrations(alpha, 0)?, registrations(alpha, 1)?], before, "nothing was touched");
    leads(beta, 0)?;
    again(&cluster, beta)?;
    cluster.ask("alpha", &["start", LEDGER])?;
    let client = cluster.ledger_client()?;
    client.until_served_by("alpha");

    // Two names, one disk: in one hierarchy, and in two.
    books(&cluster, &[&disk_link(0), &disk_way(0)])?;
    for node in ["alpha", "beta"] {
        let told = format!("{} and {} are the same disk, naa.", disk_link(0), disk_way(0));
        let said = cluster.until_said(node, &["check"], &[&told, "name it once"]);
        see(node, &["check"], &said);
    }
    books(&cluster, &[&disk_way(0)])?;
    for node in ["alpha", "beta"] {
        let told = format!("{SHARED} is a disk of hierarchy books too, as {} (naa.", disk_way(0));
        let said = cluster.until_said(node, &["check"], &[&told, "give each hierarchy disks of its own"]);
        see(node, &["check"], &said);
        see(node, &["reload"], &cluster.said(node, &["reload", "--yes"])?);
    }
    let held = holds(alpha)?;
    for round in ["reloaded", "started again"] {
        if round == "started again" {
            beta.shell("kill -KILL $(pidof ha)")?;
            alpha.shell("kill -KILL $(pidof ha)")?;
        }
        for node in ["alpha", "beta"] {
            let told = format!("{} is a disk of hierarchy ledger too, as {SHARED} (naa.", disk_way(0));
            let said = cluster.until_said(node, &["status"], &[&told, "give each hierarchy disks of its own"]);
            see(node, &["status"], &said);
        }
        cluster.until_placed(LEDGER, "alpha");
        client.until_served_by("alpha");
    }
    // Neither hierarchy's file is preferred: whoever has the disk keeps it.
    assert_eq!(holds(alpha)?, held);
    books(&cluster, &[])?;
    for node in ["alpha", "beta"] {
        see(node, &["reload"], &cluster.said(node, &["reload", "--yes"])?);
    }
    assert_eq!(cluster.judge(client)?, ["alpha"]);

    // A stranger's.
    let stranger = cluster.lab().stranger(0)?;
    let key = Key::new(0xabcd).ok_or_else(|| Trouble::new("no key"))?;
    for kind in [ReservationType::WriteExclusiveRegistrantsOnly, ReservationType::WriteExclusive] {
        let (ports, power_loss) = (Ports::This, PowerLoss::Keeps);
        let register = Command::RegisterIgnoring { new: Some(key), ports, power_loss };
        while stranger.run(register).is_err() {}
        stranger.run(Command::Reserve { key, kind }).map_err(|e| Trouble::new(format!("{e:?}")))?;
        let held = registrations(alpha, 0)?;
        let told = ["0x000000000000abcd, which is none of this cluster's", "`ha claim break"];
        for arguments in [&["check"][..], &["claim", "show", LEDGER], &["arm", LEDGER]] {
            let said = cluster.until_said("alpha", arguments, &told);
            see("alpha", arguments, &said);
        }
        cluster.ask("alpha", &["start", LEDGER, "--no-wait"])?;
        for node in ["alpha", "beta"] {
            let said = cluster.until_said(node, &["status"], &told);
            see(node, &["status"], &said);
        }
        let said = cluster.until_said("alpha", &["why", LEDGER], &["held by a stranger", told[0]]);
        see("alpha", &["why", LEDGER], &said);
        assert_eq!(registrations(alpha, 0)?, held, "nothing was touched");
        let said = cluster.ask("alpha", &["claim", "break", LEDGER, "--reason", "nobody uses it", "--yes"])?;
        see("alpha", &["claim", "break"], &said);
        cluster.until_placed(LEDGER, "alpha");
        cluster.stop_and_check("alpha")?;
    }
    Ok(())
}
