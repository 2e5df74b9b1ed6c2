//! Volume groups and arrays on real kernels: shared disks, two nodes, and what becomes of their marks when a node dies.

use std::time::Duration;

use ha_tests::kernel::resource::{operate, operate_within};
use ha_tests::kernel::{Guest, KernelLab, disk_link};
use ha_tests::{Result, Trouble};

/// What every node of a cluster with volume groups is prepared with: a system id, and device-mapper.
fn prepare_lvm(node: &Guest) -> Result<()> {
    if node.shell("command -v lvm && command -v dmsetup").is_err() {
        return Err(Trouble::new("this test NEEDS lvm2 and dmsetup: it was NOT RUN; install them, or use tests/run"));
    }
    node.shell("modprobe dm-mod && mkdir -p /run/lock/lvm /run/lvm /srv/web")?;
    node.shell("printf 'global { system_id_source = \"uname\" }\\n' > /etc/lvm/lvm.conf").map(drop)
}

fn expect(node: &Guest, operation: &str, resource: &str, expected: &str) -> Result<()> {
    let said = operate(node, operation, resource)?;
    eprintln!("{} {operation}: {said}", node.name());
    if said.contains(expected) && (expected.contains(' ') || said == expected) {
        return Ok(());
    }
    Err(Trouble::new(format!("{operation} of {resource} on {}: expected {expected}, and it said: {said}", node.name())))
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
        let said = operate_within(alpha, operation, Duration::from_secs(4), &whole)?;
        assert!(said.contains("it is mounted at /srv/web"), "{said}");
        assert!(operation == "kill" || said.contains("contains a filesystem in use"), "{said}");
    }
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
    let watching = alpha.start(&ha_tests::program("lab-resource")?.to_string_lossy(), &["watch", "1000", &one])?;
    alpha.shell("sleep 1; dmsetup remove shop--1-db")?;
    let said = watching.wait()?.good()?;
    assert!(said.contains("shop-1/db is"), "{said}");

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
