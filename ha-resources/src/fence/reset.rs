//! Resets this machine at once, without unmounting anything.
//!
//! Decides how, never whether. What can do it is a value that has to be made on purpose, so that nothing does it by accident.

use std::io;

/// The means to reset this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reset {
    /// `b` to `/proc/sysrq-trigger` (the kernel's `admin-guide/sysrq.rst`), then reboot(2).
    Machine,
    /// Never resets: says so. For machines on which several agents live, and for tests.
    Refused,
}

impl Reset {
    /// Resets. Returns only if that was not possible, and says why.
    pub fn now(&self, reason: &str) -> io::Error {
        match self {
            Reset::Refused => io::Error::other("resetting this machine is not allowed here"),
            Reset::Machine => {
                // To the kernel's log first: nothing else survives.
                let _ = std::fs::write("/dev/kmsg", format!("<0>ha: resetting this machine: {reason}\n"));
                let by_sysrq = std::fs::write("/proc/sysrq-trigger", "b").err();
                let by_call = nix::sys::reboot::reboot(nix::sys::reboot::RebootMode::RB_AUTOBOOT).err();
                io::Error::other(format!("sysrq: {by_sysrq:?}, reboot(2): {by_call:?}"))
            }
        }
    }
}
