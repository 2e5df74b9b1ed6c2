//! What an operator may name by mistake, on a real kernel: each is refused with what it is and what to do instead, and nothing is touched.

use ha_tests::kernel::{Guest, KernelLab, disk_link};
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
    let lab = KernelLab::with_nodes(&["alpha"]).boot()?;
    let alpha = lab.node("alpha");
    let disk = disk_link(0);
    let before = registered(alpha)?;
    alpha.shell("echo data > /run/file; mknod /dev/gone b 8 240")?;
    // One partition, by its table alone.
    let table = r"\000\000\000\000\203\000\000\000\000\010\000\000\000\010\000\000";
    alpha.shell(&format!("printf '{table}' | dd of={disk} bs=1 seek=446 conv=notrunc,fsync status=none"))?;
    alpha.shell(&format!(r"printf '\125\252' | dd of={disk} bs=1 seek=510 conv=notrunc,fsync status=none"))?;
    alpha.shell(&format!("blockdev --rereadpt {disk} && udevadm settle"))?;
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

    // A disk of a kind that has none.
    alpha.shell("modprobe scsi_debug dev_size_mb=8 && udevadm settle")?;
    let plain =
        alpha.shell("for d in /sys/block/sd*; do grep -q scsi_debug $d/device/model && echo /dev/${d##*/}; done")?;
    let said = refusal(alpha, plain.trim())?;
    assert!(said.contains("has no persistent reservations: name a disk that has them"), "{said}");

    assert_eq!(registered(alpha)?, before, "nothing was touched");
    Ok(())
}
