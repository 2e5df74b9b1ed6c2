//! What a node has in memory and not on the disk: the writes that must not arrive late.
//!
//! Decides what is made durable, so that a search which finds nothing is known to be able to find, and what is not.

use super::guest::Guest;
use crate::trouble::{Result, Trouble};

/// A word that is written and made durable, and one that is written only.
const DURABLE: &str = "this-was-made-durable";
const UNWRITTEN: &str = "this-was-never-made-durable";

/// Has a node write to a filesystem of its own, and keep some of that in memory until it is asked for: until an unmount, for instance.
pub fn leave(node: &Guest, mounted: &str) -> Result<()> {
    node.shell("echo 0 >/proc/sys/vm/dirty_writeback_centisecs; echo 360000 >/proc/sys/vm/dirty_expire_centisecs")?;
    node.shell(&format!("yes {DURABLE} | head -c 1M >{mounted}/durable && sync {mounted}/durable"))?;
    node.shell(&format!("yes {UNWRITTEN} | head -c 4M >{mounted}/unwritten")).map(drop)
}

/// Whether what a node had in memory is on none of these disks, as another node reads them past its own memory. An error if it is, and if not
/// even that is there which was made durable.
pub fn never_arrived(reader: &Guest, disks: &[String]) -> Result<()> {
    let on = |disk: &str, word: &str| -> Result<bool> {
        let read = format!("dd if={disk} iflag=direct bs=1M status=none | grep -a -c -m 1 {word} || true");
        Ok(reader.shell(&read)?.trim() != "0")
    };
    for disk in disks {
        if !on(disk, DURABLE)? {
            return Err(Trouble::new(format!(
                "what was made durable is not on {disk}: nothing is shown by this search"
            )));
        }
        if on(disk, UNWRITTEN)? {
            return Err(Trouble::new(format!("what was only in memory came to {disk} after all")));
        }
    }
    Ok(())
}
