//! What the kernel says of itself (`Documentation/ABI/testing/dev-kmsg`), as far as a node should not go on as if nothing had happened.
//!
//! Decides which lines are faults: a kernel that oopsed may answer heartbeats while its services are dead. Only the kernel's own words count,
//! not what programs write into its log. Leaves what follows to whoever listens.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::libc;
use tokio::io::unix::AsyncFd;

use crate::proc::wait_on;

/// The longest record that the kernel gives (`PRINTK_MESSAGE_MAX`), and more.
const RECORD_MAX: usize = 8192;

/// What is wrong with the kernel, with its own line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KernelFault {
    /// It met a mistake of its own and has killed what was running there.
    Oops(String),
    /// A processor, or the clean-up of the kernel's own data, makes no progress.
    Lockup(String),
    /// A process has been waiting in the kernel for minutes.
    HungTask(String),
    /// A disk answered with an error.
    Disk {
        /// Its name below `/dev`.
        name: String,
        /// The line.
        line: String,
    },
}

impl fmt::Display for KernelFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KernelFault::Oops(line) => write!(f, "the kernel oopsed: {line}"),
            KernelFault::Lockup(line) => write!(f, "the kernel is stuck: {line}"),
            KernelFault::HungTask(line) => write!(f, "a process hangs in the kernel: {line}"),
            KernelFault::Disk { name, line } => write!(f, "the disk {name} has errors: {line}"),
        }
    }
}

/// What a line of the kernel's means, if it is a fault.
pub fn judge(line: &str) -> Option<KernelFault> {
    let has = |words: &[&str]| words.iter().any(|word| line.contains(word));
    let own = || line.to_owned();
    // "traps:" begins what is said of programs.
    if has(&["Oops: ", "kernel BUG at ", "BUG: unable to handle", "BUG: kernel NULL pointer"])
        || line.starts_with("general protection fault")
    {
        return Some(KernelFault::Oops(own()));
    }
    if has(&["BUG: soft lockup", "hard LOCKUP", "detected stalls on CPU", "self-detected stall on CPU"]) {
        return Some(KernelFault::Lockup(own()));
    }
    if line.starts_with("INFO: task ") && has(&[" blocked for more than "]) {
        return Some(KernelFault::HungTask(own()));
    }
    let (kind, rest) = line.split_once(" error, dev ").or_else(|| line.split_once(" error on dev "))?;
    // That is how a disk refuses the writes of a node that has lost it.
    if kind.ends_with("reservation conflict") || kind.ends_with("critical nexus") {
        return None;
    }
    let name = rest.split([',', ' ']).next().filter(|name| !name.is_empty())?;
    Some(KernelFault::Disk { name: name.to_owned(), line: own() })
}

/// The text of a record, if the kernel wrote it: `PRIORITY,SEQUENCE,TIME,FLAGS…;TEXT`.
fn own_words(record: &str) -> Option<&str> {
    let (head, text) = record.split_once(';')?;
    let priority: u32 = head.split(',').next()?.parse().ok()?;
    // The facility is what is above the level; the kernel lets nobody else write under its own.
    (priority >> 3 == 0).then(|| text.lines().next().unwrap_or_default())
}

/// The kernel's log from when it was opened on.
#[derive(Debug)]
pub struct KernelLog(AsyncFd<OwnedFd>);

impl KernelLog {
    /// Opens `/dev/kmsg` at its end. Needs CAP_SYSLOG where `dmesg_restrict` is set.
    pub fn open() -> io::Result<KernelLog> {
        KernelLog::open_at(Path::new("/dev/kmsg"))
    }

    fn open_at(path: &Path) -> io::Result<KernelLog> {
        use std::io::Seek as _;
        let mut file = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        file.seek(io::SeekFrom::End(0))?;
        Ok(KernelLog(wait_on(OwnedFd::from(file))?))
    }

    /// Waits for the next fault. Lines that were overwritten before they could be read are passed over. Cancel-safe.
    pub async fn next(&mut self) -> io::Result<KernelFault> {
        let mut record = [0; RECORD_MAX];
        loop {
            let mut ready = self.0.readable_mut().await?;
            let read = match ready.try_io(|log| Ok(nix::unistd::read(log.get_ref(), &mut record)?)) {
                Ok(read) => read,
                Err(_would_block) => continue,
            };
            let length = match read {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => length,
                Err(e) if e.raw_os_error() == Some(libc::EPIPE) => continue,
                Err(e) => return Err(e),
            };
            let record = String::from_utf8_lossy(&record[..length]);
            if let Some(fault) = own_words(&record).and_then(judge) {
                return Ok(fault);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn faults_are_told_from_what_is_none() {
        let kind = |line| match judge(line) {
            Some(KernelFault::Oops(_)) => "oops",
            Some(KernelFault::Lockup(_)) => "lockup",
            Some(KernelFault::HungTask(_)) => "hung",
            Some(KernelFault::Disk { .. }) => "disk",
            None => "none",
        };
        for (expected, line) in [
            ("oops", "BUG: kernel NULL pointer dereference, address: 0000000000000000"),
            ("oops", "Oops: 0002 [#1] PREEMPT SMP PTI"),
            ("oops", "Internal error: Oops: 96000004 [#1] SMP"),
            ("oops", "kernel BUG at fs/ext4/inode.c:2721!"),
            ("oops", "general protection fault, probably for non-canonical address 0xdead000000000122: 0000 [#1] SMP"),
            ("none", "traps: app[4321] general protection fault ip:55d0 sp:7ffc error:0 in app[55d0+1000]"),
            ("none", "app[4321]: segfault at 0 ip 000055d0 sp 00007ffc error 4 in app[55d0+1000]"),
            ("lockup", "watchdog: BUG: soft lockup - CPU#1 stuck for 23s! [app:4321]"),
            ("lockup", "NMI watchdog: Watchdog detected hard LOCKUP on cpu 3"),
            ("lockup", "rcu: INFO: rcu_preempt self-detected stall on CPU"),
            ("hung", "INFO: task postgres:4321 blocked for more than 120 seconds."),
            (
                "disk",
                "blk_update_request: I/O error, dev sdb, sector 2048 op 0x1:(WRITE) flags 0x800 phys_seg 1 prio class 0",
            ),
            ("disk", "critical medium error, dev nvme0n1, sector 7 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 2"),
            ("disk", "Buffer I/O error on dev dm-3, logical block 0, async page read"),
            (
                "none",
                "reservation conflict error, dev sdb, sector 2048 op 0x1:(WRITE) flags 0x800 phys_seg 1 prio class 0",
            ),
            ("none", "critical nexus error, dev sdb, sector 2048 op 0x1:(WRITE) flags 0x800 phys_seg 1 prio class 0"),
            ("none", "sd 2:0:0:1: [sdb] Attached SCSI disk"),
        ] {
            assert_eq!(kind(line), expected, "{line}");
        }
        let Some(KernelFault::Disk { name, .. }) = judge("I/O error, dev sdb, sector 1") else { panic!("no fault") };
        assert_eq!(name, "sdb");
    }

    #[test]
    fn what_programs_write_into_the_log_is_none_of_the_kernels_words() {
        assert_eq!(own_words("6,1,2,-;Oops: 1\n SUBSYSTEM=x"), Some("Oops: 1"));
        assert_eq!(own_words("14,1,2,-;Oops: 1"), None);
        assert_eq!(own_words("nonsense"), None);
    }

    /// A disk on a file on a filesystem that is full.
    #[tokio::test]
    async fn an_error_of_a_real_disk_is_heard_from_the_real_kernel() {
        let (Ok(mut log), true) = (KernelLog::open(), nix::unistd::geteuid().is_root()) else {
            eprintln!("NOT RUN: the kernel's log cannot be read here");
            return;
        };
        let place = tempfile::tempdir().unwrap();
        let run = |command: &str| {
            let done = Command::new("sh").args(["-c", command]).current_dir(place.path()).output().unwrap();
            assert!(done.status.success(), "{command}: {}", String::from_utf8_lossy(&done.stderr));
            String::from_utf8(done.stdout).unwrap().trim().to_owned()
        };
        run("mkdir full && mount -t tmpfs -o size=64k none full && truncate -s 1M full/disk");
        let device = run("losetup --find --show full/disk");
        let written = Command::new("dd")
            .args(["if=/dev/zero", &format!("of={device}"), "bs=64k", "count=16", "oflag=direct"])
            .output()
            .unwrap();
        let name = device.trim_start_matches("/dev/");
        let heard = tokio::time::timeout(std::time::Duration::from_secs(30), async {
            loop {
                match log.next().await.unwrap() {
                    KernelFault::Disk { name: found, .. } if found == name => return,
                    _ => {}
                }
            }
        });
        let heard = heard.await;
        run(&format!("losetup --detach {device}; umount full"));
        assert!(!written.status.success(), "the disk was not full");
        heard.expect("the kernel tells of the error");
    }
}
