//! Outside: the power supply of one guest. It is hardware: never stopped by a hang of the guest, and the guest is off when it ends.
//!
//! The guest's kernel is process number 1 of a namespace of its own, so that nothing of it is left when it is killed: its programs are
//! processes of the host, which the kernel traces.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, poll};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

use super::spec::{Network, SPEC, Spec};
use crate::trouble::{Result, Trouble, While as _};

/// The kernel that is a program.
pub const KERNEL: &str = "linux.uml";

/// How a guest's process ends that wants to be started anew. A kernel that resets itself runs what it takes for its own program again, with its
/// own arguments: that is `lab-guest`, which ends this way. So the new life begins with nothing of the former one open.
pub const RESET: u8 = 77;

/// Starts the guest, says its process number on standard output each time it is started, and keeps it on until standard input is closed or
/// the guest has turned itself off. To be called from a program's only thread.
pub fn supply(path: &Path) -> Result<()> {
    let spec = Spec::read(path)?;
    let network = File::open(&spec.namespace).to(format!("open {}", spec.namespace.display()))?;
    setns(network, CloneFlags::CLONE_NEWNET).to("enter the guest's network")?;
    let own = std::env::current_exe().to("find this program")?;
    let stdin = std::io::stdin();
    let mut closed = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    let processes = File::open("/proc/self/ns/pid").to("open the namespace of processes")?;
    loop {
        // A namespace ends with its first process, and the next is made from this process's own.
        setns(&processes, CloneFlags::CLONE_NEWPID).to("leave the guest's namespace of processes")?;
        unshare(CloneFlags::CLONE_NEWPID).to("make the guest's namespace of processes")?;
        let mut guest = Command::new(&own).arg("boot").arg(path).stdin(Stdio::null()).spawn().to("start the guest")?;
        println!("{}", guest.id());
        let mut resets = Resets::of(&spec)?;
        // No thread may wait for this: a process that unshares its processes cannot start threads.
        let again = loop {
            if let Some(status) = guest.try_wait().to("watch the guest")? {
                break status.code() == Some(i32::from(RESET));
            }
            if poll(&mut closed, 5_u8).is_ok_and(|ready| ready > 0) {
                let _ = guest.kill();
                let _ = guest.wait();
                break false;
            }
            if resets.overdue() {
                let _ = guest.kill();
                let _ = guest.wait();
                break true;
            }
        };
        if !again {
            return Ok(());
        }
    }
}

/// How long a kernel may take to reset itself.
const RESET_WITHIN: Duration = Duration::from_millis(500);

/// Watches the console for a kernel that says that it resets itself. User Mode Linux sometimes hangs in the attempt (it ends devices that an
/// interrupted program was using), where a machine's reset line would not ask it.
struct Resets {
    console: File,
    words: Vec<u8>,
    said: Option<Instant>,
}

impl Resets {
    /// From here on.
    fn of(spec: &Spec) -> Result<Self> {
        let path = spec.dir.join("log/console");
        let mut console = File::options().create(true).read(true).append(true).open(&path).to("open the console")?;
        console.seek(SeekFrom::End(0)).to("find the console's end")?;
        Ok(Resets { console, words: Vec::new(), said: None })
    }

    /// Whether the kernel has said so, and should have been gone by now.
    fn overdue(&mut self) -> bool {
        let before = self.words.len();
        let _ = self.console.read_to_end(&mut self.words);
        if self.words.len() > before {
            let text = String::from_utf8_lossy(&self.words);
            if RESETTING.iter().any(|words| text.contains(words)) {
                self.said.get_or_insert_with(Instant::now);
            }
            // What may be the beginning of such words.
            self.words.drain(..self.words.len().saturating_sub(64));
        }
        self.said.is_some_and(|said| said.elapsed() > RESET_WITHIN)
    }
}

/// What the kernel says when a watchdog, sysrq or a panic resets it: `softdog.c`, `sysrq.c`, `panic.c`, `reboot.c`.
const RESETTING: [&str; 4] =
    ["Initiating system reboot", "sysrq: Resetting", "Kernel panic - not syncing", "reboot: Restarting system"];

/// Becomes the guest's kernel. It dies with its power supply, whatever became of that.
pub fn boot(path: &Path) -> Result<()> {
    set_pdeathsig(Signal::SIGKILL).to("depend on the power supply")?;
    let spec = Spec::read(path)?;
    let console =
        OpenOptions::new().create(true).append(true).open(spec.dir.join("log/console")).to("open the console")?;
    let errors = console.try_clone().to("share the console")?;
    let own = std::env::current_exe().to("find this program")?;
    let mut kernel = Command::new(KERNEL);
    kernel
        .arg0(&own)
        .arg(format!("mem={}M", spec.memory))
        .args([format!("umid={}", spec.name), format!("uml_dir={}", spec.dir.join("uml").display())])
        .args(["rootfstype=hostfs", "rootflags=/", "ro"])
        .arg(format!("init={}", own.display()))
        .args(["quiet", "loglevel=4", "panic=-1", "con=null", "con0=null,fd:1", "ssl=null"])
        .arg(format!("{SPEC}={}", path.display()))
        .env("TMPDIR", "/dev/shm")
        .stdin(Stdio::null())
        .stdout(console)
        .stderr(errors);
    // Large segments come from one guest to the other as they are: a device that is not ready for them (gro) would cut them off.
    for network in Network::ALL {
        let (number, mtu) = (network.number(), network.mtu());
        let (tap, hardware) = (&spec.taps[number], spec.hardware(network));
        kernel.arg(format!("vec{number}:transport=tap,ifname={tap},mac={hardware},mtu={mtu},gro=1"));
    }
    for (number, disk) in spec.disks.iter().enumerate() {
        kernel.arg(format!("ubd{number}={}", disk.display()));
    }
    // Only returns if it fails.
    Err(Trouble::new(format!("could not run {KERNEL}: {}", kernel.exec())))
}
