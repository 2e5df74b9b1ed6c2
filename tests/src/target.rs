//! A SCSI target in user space: tgtd, with a few disks on the loopback network.
//!
//! Needs no kernel support and no privileges. It has persistent reservations but for PREEMPT AND ABORT, READ FULL STATUS, ALL_TG_PT and
//! what survives loss of power, so it also shows what becomes of a cluster on a target that lacks them.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::iscsi::{Initiator, Session};
use crate::trouble::{Result, Trouble, While as _};
use crate::wait::eventually;

const TARGET: &str = "iqn.2026-01.example.ha:disk";

/// A running target; dropping it ends it, and removes its disk.
#[derive(Debug)]
pub struct Target {
    directory: PathBuf,
    portal: SocketAddr,
    disks: u8,
    daemon: Child,
}

impl Target {
    /// Whether the programs are there. Says loudly if not.
    pub fn is_installed() -> bool {
        let found = Command::new("tgtd").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
        if !found {
            eprintln!("SKIPPED: there is no tgtd here (package tgt)");
        }
        found
    }

    /// Starts a target on a free port, with disks of 1 MiB in a new folder.
    pub fn start(disks: u8) -> Result<Target> {
        // Free again at once; nobody else is likely to get it in between, and if somebody does, the daemon says so.
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let portal = free.to("find a free port")?;
        let directory = std::env::temp_dir().join(format!("ha-target-{}-{}", std::process::id(), portal.port()));
        std::fs::create_dir(&directory).to("make a folder for the target")?;
        for lun in 1..=disks {
            let disk = std::fs::File::create(disk(&directory, lun)).and_then(|file| file.set_len(1 << 20));
            disk.to("make a disk of the target")?;
        }
        let daemon = spawn(&directory, portal)?;
        let target = Target { directory, portal, disks, daemon };
        target.configure()?;
        Ok(target)
    }

    /// Logs in as a node of its own, for one of the disks, counted from 1. Each command has `limit`.
    pub fn login(&self, node: &str, disk: u8, limit: Duration) -> io::Result<Initiator> {
        let name = format!("iqn.2026-01.example.ha:node-{node}");
        Ok(Initiator::new(node, Session::login(self.portal, TARGET, &name, disk, limit)?))
    }

    /// The target answers nothing from now on; what is sent waits.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// It answers again, what waited first.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// Loss of power, and power again. The disk's blocks stay; reservations and registrations do not, and sessions are broken.
    pub fn lose_power(&mut self) -> Result<()> {
        self.end();
        self.daemon = spawn(&self.directory, self.portal)?;
        self.configure()
    }

    fn configure(&self) -> Result<()> {
        // It listens for its administration a moment after it starts.
        eventually("the target can be configured", || {
            self.admin(&["--mode", "target", "--op", "new", "--tid", "1", "--targetname", TARGET])
        });
        for lun in 1..=self.disks {
            let (number, store) = (lun.to_string(), disk(&self.directory, lun).display().to_string());
            let new =
                ["--mode", "logicalunit", "--op", "new", "--tid", "1", "--lun", &number, "--backing-store", &store];
            self.admin(&new)?;
        }
        self.admin(&["--mode", "target", "--op", "bind", "--tid", "1", "--initiator-address", "ALL"])
    }

    fn admin(&self, arguments: &[&str]) -> Result<()> {
        let mut command = Command::new("tgtadm");
        command.args(["--lld", "iscsi", "--control-port", "0"]).args(arguments);
        let done = command.env("TGT_IPC_SOCKET", self.directory.join("socket")).output().to("run tgtadm")?;
        if done.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&done.stderr);
        Err(Trouble::new(format!("tgtadm {}: {}", arguments.join(" "), said.trim())))
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.daemon.id().cast_signed()), signal).to("signal the target")
    }

    fn end(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

fn disk(directory: &Path, lun: u8) -> PathBuf {
    directory.join(format!("disk{lun}"))
}

fn spawn(directory: &Path, portal: SocketAddr) -> Result<Child> {
    let log = std::fs::File::create(directory.join("log")).to("make the target's log")?;
    Command::new("tgtd")
        .args(["--foreground", "--control-port", "0", "--iscsi", &format!("portal={portal}")])
        .env("TGT_IPC_SOCKET", directory.join("socket"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .to("start tgtd")
}

impl Drop for Target {
    fn drop(&mut self) {
        self.end();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
