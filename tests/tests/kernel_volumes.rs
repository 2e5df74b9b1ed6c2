//! Volume groups and arrays on real kernels: shared disks, two nodes, and what becomes of their marks when a node dies.

use std::time::Duration;

use ha_tests::kernel::cluster::{LEDGER, MOUNTED};
use ha_tests::kernel::ledger::judge;
use ha_tests::kernel::resource::{expect, operate_within};
use ha_tests::kernel::volume::prepare_lvm;
use ha_tests::kernel::{ClaimKind, Guest, KernelCluster, KernelLab, disk_link, unwritten};
use ha_tests::{Result, Trouble, eventually, program};

/// How long what is in use is tried to be taken away: time enough for a busy machine to find out, and say, who uses it.
const IN_USE: Duration = Duration::from_secs(12);

/// Too short for a command of LVM's.
const SCARCE: Duration = Duration::from_millis(150);

/// What every node of a cluster with arrays is prepared with: the driver, and nobody who assembles by himself.
fn prepare_md(node: &Guest) -> Result<()> {
    if node.shell("command -v mdadm").is_err() {
        return Err(Trouble::new("this test NEEDS mdadm: it was NOT RUN; install it, or use tests/run"));
    }
    node.shell("modprobe raid1 && mkdir -p /run/mdadm /etc/mdadm /srv/web && echo 'AUTO -all' > /etc/mdadm/mdadm.conf")
        .map(drop)
}

/// A new mirror of the first two disks, which is not assembled.
fn make_mirror(node: &Guest) -> Result<()> {
    let (first, second) = (disk_link(0), disk_link(1));
    let new = "--run --quiet --level=1 --raid-devices=2 --metadata=1.2 --assume-clean --bitmap=none";
    node.shell(&format!("mdadm --create /dev/md/shop {new} {first} {second}")).map(drop)
}

#[test]
fn a_volume_group_belongs_to_one_node_and_is_taken_over_from_a_dead_one() -> Result<()> {
    let lab = KernelLab::with_nodes(&["alpha", "beta"]).disks(&[64, 32]).boot()?;
    let (alpha, beta) = (lab.node("alpha"), lab.node("beta"));
    let (disk, second) = (disk_link(0), disk_link(1));
    let whole = format!("Lvm(name: \"volumes\", group: \"shop-1\", devices: [{disk:?}, {second:?}])");
    let one = format!("Lvm(name: \"volume\", group: \"shop-1\", volume: \"db\", devices: [{disk:?}, {second:?}])");

    expect(alpha, "ready", &whole, "failed: LVM has no system id on this node")?;
    lab.nodes().iter().try_for_each(prepare_lvm)?;
    lab.nodes().iter().try_for_each(|node| node.shell("mkdir -p /srv/web").map(drop))?;
    expect(alpha, "ready", &whole, "the volume group shop-1 cannot be seen")?;
    expect(alpha, "start", &whole, "the volume group shop-1 cannot be seen")?;
    expect(alpha, "stop", &whole, "done")?;
    alpha.shell(&format!("vgcreate -q --yes shop-1 {disk}"))?;
    alpha.shell("lvcreate -q --yes -an -Zn -l 4 -n web shop-1 && lvcreate -q --yes -an -Zn -l 2 -n db shop-1")?;
    expect(alpha, "advice", &whole, "may be activated by the system at boot")?;
    alpha.shell("vgchange -q --setautoactivation n shop-1")?;
    expect(alpha, "advice", &whole, "")?;

    // On the node that it belongs to.
    expect(alpha, "ready", &whole, "done")?;
    expect(alpha, "adopt", &whole, "stopped")?;
    expect(alpha, "start", &whole, "done")?;
    expect(alpha, "start", &whole, "done")?;
    expect(alpha, "monitor", &whole, "good")?;
    expect(alpha, "adopt", &whole, "running")?;
    alpha.shell(
        "mkfs.ext4 -q -F /dev/shop-1/web && mount /dev/shop-1/web /srv/web && echo hello > /srv/web/page && sync",
    )?;
    // In use, it is neither stopped nor killed, and who uses it is told.
    for operation in ["stop", "kill"] {
        let said = operate_within(alpha, operation, IN_USE, &whole)?;
        assert!(said.contains("it is mounted at /srv/web"), "{said}");
        assert!(operation == "kill" || said.contains("contains a filesystem in use"), "{said}");
    }
    // Also where the time is over before LVM has answered.
    let said = operate_within(alpha, "stop", SCARCE, &whole)?;
    assert!(said.contains("it is mounted at /srv/web"), "{said}");
    expect(alpha, "monitor", &one, "bad: nothing of shop-1/db is active")?;
    expect(alpha, "start", &whole, "done")?;

    // The other node sees it, and LVM there leaves it alone.
    expect(beta, "ready", &whole, "done")?;
    assert!(beta.shell("vgchange -ay shop-1").is_err(), "LVM itself refuses what is another node's");

    // Its node dies, and the other one takes it.
    alpha.power_off()?;
    expect(beta, "start", &whole, "done")?;
    expect(beta, "monitor", &whole, "good")?;
    beta.shell("e2fsck -p /dev/shop-1/web || test $? = 1")?;
    beta.shell("mount /dev/shop-1/web /srv/web && grep hello /srv/web/page && umount /srv/web")?;

    // One volume of it.
    expect(beta, "stop", &whole, "done")?;
    expect(beta, "start", &one, "done")?;
    assert_eq!(beta.shell("ls /dev/shop-1")?.trim(), "db");
    expect(beta, "kill", &one, "done")?;
    expect(beta, "kill", &one, "done")?;
    expect(beta, "adopt", &one, "stopped")?;

    // The node that comes back has nothing of it active, and takes it back; what the other one still had active is taken away there too.
    expect(beta, "start", &whole, "done")?;
    alpha.power_on()?;
    lab.until_up();
    prepare_lvm(alpha)?;
    expect(alpha, "adopt", &whole, "stopped")?;
    expect(alpha, "start", &one, "done")?;
    expect(beta, "stop", &whole, "done")?;
    expect(beta, "stop", &whole, "done")?;

    // Somebody else takes a volume away: known at once, by the kernel.
    let watching = alpha.start(&program("lab-resource")?.to_string_lossy(), &["watch", "1000", &one])?;
    alpha.shell("sleep 1; dmsetup remove shop--1-db")?;
    let said = watching.wait()?.good()?;
    assert!(said.contains("shop-1/db is"), "{said}");

    // A volume on two disks of which one fails goes on, and says so.
    alpha.shell(&format!("modprobe dm-raid && vgextend -q --yes shop-1 {second}"))?;
    let redundant = "--type raid1 --mirrors 1 --nosync -l 2 -n twice";
    alpha.shell(&format!("lvcreate -q --yes -an -Zn -Wn {redundant} shop-1"))?;
    let twice = format!("Lvm(name: \"twice\", group: \"shop-1\", volume: \"twice\", devices: [{disk:?}, {second:?}])");
    for resource in [&whole, &twice] {
        expect(alpha, "start", resource, "done")?;
        expect(alpha, "monitor", resource, "good")?;
        expect(alpha, "defects", resource, "none")?;
    }
    let state = format!("/sys/block/$(basename $(readlink -f {second}))/device/state");
    let write = "dd if=/dev/zero of=/dev/shop-1/twice bs=4096 count=1 oflag=direct";
    alpha.shell(&format!("echo offline >{state} && {write}"))?;
    expect(alpha, "monitor", &twice, "good")?;
    expect(alpha, "defects", &twice, "degraded, a disk is missing, has failed, or is not in step yet: shop-1/twice")?;
    alpha.shell(&format!("echo running >{state} && lvchange -q --refresh shop-1/twice"))?;
    eventually("it is whole again", || expect(alpha, "defects", &twice, "none"));
    expect(alpha, "stop", &twice, "done")?;
    expect(alpha, "stop", &whole, "done")?;
    alpha.shell(&format!("lvremove -q --yes shop-1/twice && vgreduce -q shop-1 {second} && pvremove -q {second}"))?;

    // What may not be activated.
    alpha.shell("vgexport -q shop-1")?;
    expect(alpha, "start", &whole, "failed: the volume group shop-1 is exported")?;
    alpha.shell("vgimport -q shop-1")?;
    alpha.shell(&format!("vgextend -q --yes shop-1 {second}"))?;
    let lacking = format!("Lvm(name: \"volumes\", group: \"shop-1\", devices: [{disk:?}])");
    for operation in ["ready", "start"] {
        expect(alpha, operation, &lacking, "failed: the volume group shop-1 is incomplete: 1 of its disks")?;
    }
    expect(alpha, "start", &whole, "done")?;
    expect(alpha, "kill", &whole, "done")?;
    alpha.shell("vgremove -q --yes shop-1").map(drop)
}

#[test]
fn an_array_is_assembled_on_one_node_and_a_degraded_one_only_where_that_is_allowed() -> Result<()> {
    let lab = KernelLab::with_nodes(&["alpha", "beta"]).disks(&[32, 32]).boot()?;
    let (alpha, beta) = (lab.node("alpha"), lab.node("beta"));
    let (first, second) = (disk_link(0), disk_link(1));
    let mirror =
        |more: &str| format!("Md(name: \"mirror\", device: \"/dev/md/shop\", members: [{first:?}, {second:?}]{more})");
    let (whole, lenient) = (mirror(""), mirror(", degraded: Allow"));
    lab.nodes().iter().try_for_each(prepare_md)?;
    expect(alpha, "ready", &whole, "done")?;
    expect(alpha, "start", &whole, "failed: mdadm --assemble /dev/md/shop exited")?;
    expect(alpha, "stop", &whole, "done")?;
    make_mirror(alpha)?;
    expect(alpha, "adopt", &whole, "running")?;
    expect(alpha, "stop", &whole, "done")?;
    expect(alpha, "stop", &whole, "done")?;
    expect(alpha, "monitor", &whole, "bad: the array /dev/md/shop is not assembled")?;

    for _ in 0..2 {
        expect(alpha, "start", &whole, "done")?;
    }
    expect(alpha, "monitor", &whole, "good")?;
    expect(alpha, "advice", &whole, "")?;
    alpha.shell("mkfs.ext4 -q -F /dev/md/shop && mount /dev/md/shop /srv/web && echo hello > /srv/web/page && sync")?;
    let said = operate_within(alpha, "stop", IN_USE, &whole)?;
    assert!(said.contains("it is mounted at /srv/web"), "{said}");
    alpha.shell("umount /srv/web")?;

    // Somebody else stops it: known at once, by the kernel.
    let watching = alpha.start(&program("lab-resource")?.to_string_lossy(), &["watch", "1000", &whole])?;
    alpha.shell("sleep 1; mdadm --stop /dev/md/shop")?;
    let said = watching.wait()?.good()?;
    assert!(said.contains("/dev/md/shop is not assembled") || said.contains("is inactive"), "{said}");

    // By who it is, under another name; which is in the way of the first.
    let told = alpha.shell(&format!("mdadm --examine --export {first}"))?;
    let uuid = told.lines().find_map(|line| line.strip_prefix("MD_UUID=")).ok_or_else(|| Trouble::new("no UUID"))?;
    let known = format!("Md(name: \"mirror\", device: \"/dev/md/other\", uuid: {uuid:?})");
    expect(alpha, "start", &known, "done")?;
    expect(alpha, "monitor", &known, "good")?;
    for operation in ["ready", "start"] {
        expect(alpha, operation, &whole, "failed: the array /dev/md/shop is assembled as /dev/md")?;
    }
    // Whoever assembled it.
    expect(alpha, "stop", &whole, "done")?;
    expect(alpha, "adopt", &known, "stopped")?;

    // Its node dies, and the other one has it.
    expect(alpha, "start", &whole, "done")?;
    alpha.power_off()?;
    expect(beta, "start", &whole, "done")?;
    beta.shell("mount -o ro /dev/md/shop /srv/web && grep hello /srv/web/page && umount /srv/web")?;

    // A member fails: it goes on, and says so. What was started whole is started degraded only where that is allowed.
    beta.shell(&format!("mdadm /dev/md/shop --fail {second} --remove {second}"))?;
    expect(beta, "monitor", &whole, "good")?;
    expect(
        beta,
        "advice",
        &whole,
        &format!("is degraded: 1 of 2 members are missing, failed or not in step: {second}"),
    )?;
    expect(
        beta,
        "defects",
        &whole,
        &format!("is degraded: 1 of 2 members are missing, failed or not in step: {second}"),
    )?;
    expect(beta, "kill", &whole, "done")?;
    expect(beta, "start", &whole, "failed: ")?;
    expect(beta, "adopt", &whole, "stopped")?;
    expect(beta, "start", &lenient, "done")?;
    expect(beta, "monitor", &lenient, "good")?;
    expect(beta, "stop", &lenient, "done")?;

    // A member is not even there.
    beta.shell(&format!("echo 1 > /sys/block/$(basename $(readlink -f {second}))/device/delete && udevadm settle"))?;
    expect(beta, "ready", &whole, &format!("cannot be seen: {second}"))?;
    expect(beta, "ready", &lenient, "done")?;
    expect(beta, "start", &lenient, "done")?;
    expect(beta, "kill", &lenient, "done")
}

/// Two nodes, of which alpha serves a ledger on a filesystem in a volume group on a mirror of both disks, which are reserved.
fn ledger_on_a_mirror(claim: ClaimKind) -> Result<KernelCluster> {
    let app = program("lab-ledger")?;
    let app = format!(
        r#"Process(name: "app", command: [{:?}, "{MOUNTED}/entries", "10.77.0.100:7000"])"#,
        app.to_string_lossy()
    );
    let (first, second) = (disk_link(0), disk_link(1));
    let hierarchy = format!(
        r#"Hierarchy(
    name: "{LEDGER}",
    nodes: ["alpha", "beta"],
    claim: Reservation(devices: [{first:?}, {second:?}]),
    decline_for: "10s",
    settle: "1s",
    forced_stop_within: "10s",
    resources: [
        Md(name: "mirror", device: "/dev/md/shop", members: [{first:?}, {second:?}]),
        Lvm(name: "volumes", group: "shop", devices: ["/dev/md/shop"], found_on: Hierarchy),
        Filesystem(name: "data", device: "/dev/shop/web", at: "{MOUNTED}", fstype: "ext4", mount_point: Created, found_on: Hierarchy),
        Address(name: "vip", address: "10.77.0.100/24", interface: "eth0"),
        {app},
    ],
)
"#
    );
    let builder = KernelLab::with_nodes(&["alpha", "beta"]).disks(&[96, 96]);
    let cluster = KernelCluster::with_hierarchies(builder, claim, &[(LEDGER, hierarchy)])?;
    let alpha = cluster.lab().node("alpha");
    for node in cluster.lab().nodes() {
        prepare_md(node)?;
        prepare_lvm(node)?;
    }
    make_mirror(alpha)?;
    alpha.shell("vgcreate -q --yes --setautoactivation n shop /dev/md/shop && lvcreate -q --yes -Zn -Wn -l 100%FREE -n web shop")?;
    alpha.shell("mkfs.ext4 -q -F /dev/shop/web && vgchange -q -an shop && mdadm --stop /dev/md/shop")?;
    cluster.start()?;
    cluster.until_placed(LEDGER, "alpha");
    Ok(cluster)
}

#[test]
fn a_mirror_with_a_volume_group_with_a_filesystem_goes_on_after_a_loss_of_power() -> Result<()> {
    let cluster = ledger_on_a_mirror(ClaimKind::Reservation)?;
    let (alpha, beta) = (cluster.lab().node("alpha"), cluster.lab().node("beta"));
    let client = cluster.ledger_client()?;
    client.until_served_by("alpha");

    alpha.power_off()?;
    client.until_served_by("beta");
    KernelCluster::tell("the holder of a mirror with a volume group loses power", &client);
    eprintln!("{}", cluster.ask("beta", &["history"])?);
    let acknowledged = client.end();
    let entries = beta.shell(&format!("cat {MOUNTED}/entries"))?;
    assert_eq!(judge(&entries, &acknowledged)?, ["alpha", "beta"]);
    assert_eq!(beta.shell("vgs --noheadings -o systemid shop")?.trim(), "beta");

    // A disk of it fails: all goes on, and the operator is told, until it is whole again.
    let (second, degraded) = (disk_link(1), "mirror of ledger: the array /dev/md/shop is degraded: 1 of 2 members");
    let told = |node| cluster.ask(node, &["status"]).map(|status| status.contains(degraded));
    assert!(!told("beta")?);
    beta.shell(&format!("mdadm /dev/md/shop --fail {second} --remove {second}"))?;
    eventually("beta says that it is degraded", || if told("beta")? { Ok(()) } else { Err(Trouble::new("not told")) });
    beta.shell(&format!("mdadm /dev/md/shop --add {second}"))?;
    eventually("beta says no more of it", || if told("beta")? { Err(Trouble::new("still told")) } else { Ok(()) });
    cluster.until_placed(LEDGER, "beta");

    // And it can be taken out of service again, to the last of it.
    cluster.ask("beta", &["stop", LEDGER])?;
    assert!(beta.shell("dmsetup info --noheadings -c -o name shop-web").is_err());
    assert!(beta.shell("test -e /sys/block/md127/md").is_err());
    Ok(())
}

/// It wakes with its volumes active and with writes in its memory, on disks that refuse it: nothing of them arrives, and nothing is left active there.
#[test]
fn a_holder_that_was_hung_lets_go_of_its_volumes_and_what_it_had_in_memory_never_arrives() -> Result<()> {
    let cluster = ledger_on_a_mirror(ClaimKind::ReservationAlone)?;
    let (alpha, beta) = (cluster.lab().node("alpha"), cluster.lab().node("beta"));
    let client = cluster.ledger_client()?;
    client.until_served_by("alpha");
    unwritten::leave(alpha, MOUNTED)?;
    let life = alpha.boot_id()?;

    alpha.hang()?;
    client.until_served_by("beta");
    alpha.wake()?;
    cluster.until_heard("beta", "alpha", "alive");
    let nothing = |what: &str, look: &str| eventually(&format!("alpha has no {what}"), || alpha.shell(look));
    nothing("mount", &format!("! grep {MOUNTED} /proc/mounts"));
    nothing("volume", "! dmsetup info shop-web");
    nothing("array", "! grep -q active /proc/mdstat");
    assert_eq!(alpha.boot_id()?, life, "alpha was reset: then the disks had nothing to refuse");
    alpha.shell("dmesg | grep 'reservation conflict'")?;
    client.until_served_by("beta");
    KernelCluster::tell("the holder of a mirror with a volume group hangs", &client);
    unwritten::never_arrived(beta, &[disk_link(0), disk_link(1)])?;

    // And back to it.
    cluster.ask("beta", &["move", LEDGER, "alpha"])?;
    client.until_served_by("alpha");
    let acknowledged = client.end();
    let entries = alpha.shell(&format!("cat {MOUNTED}/entries"))?;
    assert_eq!(judge(&entries, &acknowledged)?, ["alpha", "beta", "alpha"]);
    assert_eq!(alpha.shell("cat /sys/block/md*/md/degraded")?.trim(), "0");
    Ok(())
}
