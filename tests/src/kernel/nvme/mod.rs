//! A laboratory of NVMe reservations: a kernel of 6.13 or newer in QEMU, with the kernel's own NVMe target (nvmet) and two hosts of it.
//!
//! Both hosts are in one guest: the target is reached over its loop transport by two controllers with a host identifier each, so that it
//! takes whoever uses [`disk`]`("alpha")` and whoever uses `disk("beta")` for two machines. Neither a hypervisor nor modules of the
//! host's kernel are needed; where the kernel comes from, `tests/newer-kernel` decides.
//!
//! Here: the laboratory as tests see it. `image`: what the guest has for a root. [`inside`]: how it becomes a machine.

mod image;
pub mod inside;

use std::fs::{self, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

use super::guest::Running;
use super::lab::pause;
use super::remote::Ended;
use super::spec::{COMMANDS, Network};
use crate::lab::program;
use crate::run::Run;
use crate::trouble::{Result, Trouble, While as _, end_of};
use crate::wait::{eventually, patience};

/// The hosts, in the order of their identifiers.
pub const HOSTS: [&str; 2] = ["alpha", "beta"];

/// Who the hosts are to the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identifiers {
    /// Each has an identifier of its own, as it must.
    OfTheirOwn,
    /// All have the same, like machines made from one image.
    Alike,
}

/// What the guest's address ends in, on a network inside the emulator that joins it with this machine and leads nowhere else.
const OWN: u8 = 1;

/// Which kernel: the folder that `tests/newer-kernel` prints.
const KERNEL: &str = "HA_NEWER_KERNEL";

/// Where a host sees the shared namespace.
pub fn disk(host: &str) -> String {
    format!("/dev/{host}")
}

/// The laboratory. Dropping it turns the guest off and removes it; when its test fails, it shows what the guest said.
pub struct NvmeLab {
    emulator: Child,
    dir: PathBuf,
    port: u16,
    // The last to be dropped: it removes the folder.
    _run: Run,
}

impl NvmeLab {
    /// Turns it on, with these files in it: each its path in the guest and its content.
    pub fn boot(identifiers: Identifiers, files: &[(&str, String)]) -> Result<NvmeLab> {
        let kernel = kernel()?;
        let run = Run::new()?;
        let dir = run.dir.clone();
        image::build(&kernel, files, &dir)?;
        // Free a moment ago, and nobody on this machine is given it again so soon.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|it| it.local_addr()).to("find a port")?.port();
        let emulator = Command::new(program("lab-guest")?)
            .args(["emulate".as_ref(), kernel.as_os_str(), dir.as_os_str()])
            .arg(port.to_string())
            .args((identifiers == Identifiers::Alike).then_some(inside::ALIKE))
            .stdin(Stdio::null())
            .spawn()
            .to("start the emulator")?;
        let mut lab = NvmeLab { emulator, dir, port, _run: run };
        lab.until_up();
        Ok(lab)
    }

    fn until_up(&mut self) {
        eventually("the guest takes commands", || {
            let ended = self.emulator.try_wait().ok().flatten();
            assert!(ended.is_none(), "the guest turned itself off: {ended:?}");
            let asked = self.start_within(Duration::from_secs(5), "uname", &["-r"]).and_then(Running::wait);
            asked.inspect_err(|_| pause())
        });
    }

    /// Runs a program in it to its end.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<Ended> {
        self.start_within(patience(), program, arguments)?.wait()
    }

    /// Starts a program in it.
    pub fn start(&self, program: &str, arguments: &[&str]) -> Result<Running> {
        self.start_within(patience(), program, arguments)
    }

    /// Runs a line of shell in it to its end, and returns what it wrote to standard output. Failure is an error.
    pub fn shell(&self, line: &str) -> Result<String> {
        self.run("sh", &["-c", line])?.good()
    }

    fn start_within(&self, limit: Duration, program: &str, arguments: &[&str]) -> Result<Running> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).to("reach the guest")?;
        Running::ask(stream, limit, program, arguments)
    }

    /// What its kernel and its process number 1 said.
    pub fn console(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.dir.join("console")).unwrap_or_default()).into_owned()
    }
}

impl Drop for NvmeLab {
    /// Tells what the guest said: of a test that passes nobody sees it.
    fn drop(&mut self) {
        let _ = self.emulator.kill();
        let _ = self.emulator.wait();
        eprintln!("---- the guest's console:\n{}", end_of(&self.console(), 6000));
    }
}

/// The folder of the kernel.
fn kernel() -> Result<PathBuf> {
    let usual = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/newer-kernel");
    let folder = std::env::var_os(KERNEL).map_or_else(usual, PathBuf::from);
    fs::canonicalize(&folder).map_err(|error| {
        Trouble::new(format!(
            "{}: {error}: this test NEEDS a kernel of 6.13 or newer: it was NOT RUN; `tests/newer-kernel` gets one",
            folder.display()
        ))
    })
}

/// Becomes the emulator, which ends with the thread of the test that wanted it. The words at the end are for the kernel's command line.
pub fn emulate(kernel: &Path, dir: &Path, port: &str, words: &[&str]) -> Result<()> {
    set_pdeathsig(Signal::SIGKILL).to("depend on the laboratory")?;
    let address = |last| Network::Control.address(last);
    let (own, network, gateway) = (address(OWN), address(0), address(254));
    let console =
        OpenOptions::new().create(true).append(true).open(dir.join("console")).to("open the guest's console")?;
    let said = console.try_clone().to("share the guest's console")?;
    let mut emulator = Command::new("qemu-system-x86_64");
    emulator
        .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-M", "q35", "-m", "512", "-nodefaults", "-no-user-config"])
        .args(["-display", "none", "-no-reboot", "-serial", "stdio", "-netdev"])
        .arg(format!(
            "user,id=n,restrict=on,net={network}/24,host={gateway},hostfwd=tcp:127.0.0.1:{port}-{own}:{COMMANDS}"
        ))
        .args(["-device", "virtio-net-pci,netdev=n,romfile="])
        .args(["-kernel".as_ref(), kernel.join("vmlinuz").as_os_str()])
        .args(["-initrd".as_ref(), dir.join(image::FILE).as_os_str()])
        .arg("-append")
        .arg(format!(
            "console=ttyS0 quiet loglevel=4 panic=-1 mitigations=off nokaslr no_timer_check tsc=reliable audit=0 \
             random.trust_cpu=on nvme_core.{} rdinit={} {}={own} {}",
            inside::APART,
            image::INIT,
            inside::ADDRESS,
            words.join(" ")
        ))
        .stdin(Stdio::null())
        .stdout(console)
        .stderr(said);
    // Only returns if it fails.
    Err(Trouble::new(format!("could not run qemu-system-x86_64: {} (package qemu-system-x86)", emulator.exec())))
}
