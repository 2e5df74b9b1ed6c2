//! What lies between a disk and a filesystem on it: partitions, and what guests need for volume groups.

use super::guest::Guest;
use crate::trouble::{Result, Trouble};

/// What every node of a cluster with volume groups is prepared with, after each boot: a system id, and device-mapper.
pub fn prepare_lvm(node: &Guest) -> Result<()> {
    if node.shell("command -v lvm && command -v dmsetup").is_err() {
        return Err(Trouble::new("this test NEEDS lvm2 and dmsetup: it was NOT RUN; install them, or use tests/run"));
    }
    node.shell("modprobe dm-mod && mkdir -p /run/lock/lvm /run/lvm")?;
    node.shell("printf 'global { system_id_source = \"uname\" }\\n' > /etc/lvm/lvm.conf").map(drop)
}

/// Makes one partition on a disk, of so many sectors from sector 2048 on, by a table of the old kind (MBR). Other nodes see it when they read the
/// table anew.
pub fn partition(node: &Guest, disk: &str, sectors: u32) -> Result<()> {
    let [a, b, c, d] = sectors.to_le_bytes();
    let entry = format!(r"\000\000\000\000\203\000\000\000\000\010\000\000\{a:03o}\{b:03o}\{c:03o}\{d:03o}");
    for (bytes, at) in [(entry.as_str(), 446), (r"\125\252", 510)] {
        node.shell(&format!("printf '{bytes}' | dd of={disk} bs=1 seek={at} conv=notrunc,fsync status=none"))?;
    }
    node.shell(&format!("blockdev --rereadpt {disk} && udevadm settle")).map(drop)
}
