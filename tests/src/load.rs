//! Programs that keep a machine busy. Decides that they end, whatever becomes of the test.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::trouble::{Result, While as _};

/// How many programs there are of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// They compute, and never wait.
    pub computing: usize,
    /// They write 16 MiB and flush, over and over.
    pub flushing: usize,
    /// They write 32 MiB past the cache, each MiB to the disk before the next, over and over.
    pub direct: usize,
}

/// The programs, as long as this lasts: in a session of their own, at the priority of everybody. They end with the one that started them, and
/// that one with the thread of the test.
pub struct Load(Child);

impl Load {
    /// Starts them. They write to `folder`.
    pub fn new(work: Work, folder: &Path) -> Result<Load> {
        let Work { computing, flushing, direct } = work;
        let folder = folder.display();
        // A shell's own loop looks again and again whether the leader of the session is there still.
        let alive = "[ -d /proc/$$ ]";
        let script = format!(
            "for i in $(seq {computing}); do (while {alive}; do n=0; while [ $n -lt 100000 ]; do n=$((n + 1)); done; done) & done
             for i in $(seq {flushing}); do (while {alive}; do dd if=/dev/zero of={folder}/flushed-$i bs=256k count=64 conv=fsync; done) & done
             for i in $(seq {direct}); do (while {alive}; do dd if=/dev/zero of={folder}/direct-$i bs=1M count=32 oflag=direct,sync; done) & done
             wait"
        );
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "setsid", "sh", "-c", &script]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Load(command.spawn().to("start the load")?))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if let Ok(group) = i32::try_from(self.0.id()) {
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
        let _ = self.0.wait();
    }
}
