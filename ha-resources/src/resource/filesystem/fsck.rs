//! What is checked of a filesystem before it is mounted.
//!
//! Decides which types are checked unasked. Leaves the check itself to fsck(8).

/// What is checked before mounting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsck {
    /// Nothing.
    Never,
    /// What can be repaired safely is (`fsck.TYPE -p`); quick for a filesystem with a clean journal.
    Preen,
    /// As `Preen`, even if the filesystem looks clean (`-p -f`). Takes long on a large one.
    Force,
}

impl Fsck {
    /// `Preen` for ext2, ext3 and ext4. The others repair themselves when mounted, or should not be repaired unasked.
    pub fn default_for(fstype: &str) -> Fsck {
        if matches!(fstype, "ext2" | "ext3" | "ext4") { Fsck::Preen } else { Fsck::Never }
    }
}
