//! What guests need for volume groups: the host's programs, and settings that are lost with their power.

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
