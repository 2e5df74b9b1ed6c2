//! Inside a guest: process number 1. Makes a machine out of a kernel and the host's files, keeps the agent running, reaps orphans.
//!
//! The guest's root is the host's, seen read-only through hostfs, under a layer in memory that takes what is written; so a program just
//! built runs in the guest as it is. Leaves disks to `target` and `initiator`, and commands to [`super::remote`].

use std::fs::{self, OpenOptions};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, chdir, chroot, sethostname};

use super::spec::{Network, Role, Spec};
use super::{initiator, target};
use crate::boot::{LAB, Machine};
use crate::trouble::{Result, Trouble, While as _};

/// What programs in a guest find by name.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// Where the modules of the guest's kernel lie on the host.
pub const MODULES: &str = "/usr/lib/uml/modules";

/// Runs a guest for ever.
pub fn run() -> ! {
    run_machine(machine)
}

/// Makes a guest's machine, which runs for ever. One that cannot be made is turned off, after it has said why on its console.
pub(super) fn run_machine(machine: impl FnOnce() -> Result<()>) -> ! {
    if let Err(trouble) = machine() {
        eprintln!("lab-guest: {trouble}");
    }
    let _ = reboot(RebootMode::RB_POWER_OFF);
    std::process::exit(1)
}

fn machine() -> Result<()> {
    let path = std::env::var_os(super::spec::SPEC).ok_or_else(|| Trouble::new("no specification was given"))?;
    let spec = Spec::read(Path::new(&path))?;
    root()?;
    system(&spec)?;
    network(&spec)?;
    match &spec.role {
        Role::Target(persistence) => target::export(&spec, *persistence)?,
        Role::Node(paths) => initiator::start(&spec, *paths)?,
    }
    // A process of its own: number 1 takes the ends of all its children for those of orphans.
    let own = std::env::current_exe().to("find this program")?;
    command(&own.to_string_lossy())
        .args(["serve".as_ref(), Spec::path(Path::new(LAB)).as_os_str()])
        .spawn()
        .to("start the command server")?;
    keep(&spec)
}

/// A root of its own: what is written to it stays in memory, and is gone with the power.
fn root() -> Result<()> {
    mount_at("proc", "proc", "/proc", "")?;
    mount_at("tmpfs", "tmpfs", "/mnt", "size=50%")?;
    for folder in ["up", "work", "root"] {
        fs::create_dir_all(Path::new("/mnt").join(folder)).to("make the layer's folders")?;
    }
    let overlay = fs::read_dir(MODULES).to(format!("read {MODULES}"))?.flatten();
    let overlay = overlay.map(|entry| entry.path().join("kernel/fs/overlayfs/overlay.ko")).find(|path| path.exists());
    let overlay = overlay.ok_or_else(|| Trouble::new(format!("{MODULES} has no overlay.ko")))?;
    program("/sbin/insmod", &[&overlay.to_string_lossy()])?;
    mount_at("overlay", "overlay", "/mnt/root", "lowerdir=/,upperdir=/mnt/up,workdir=/mnt/work")?;
    chroot("/mnt/root").to("enter the new root")?;
    chdir("/").to("enter the new root")
}

/// What every machine has.
fn system(spec: &Spec) -> Result<()> {
    for (kind, place, options) in [
        ("proc", "/proc", ""),
        ("sysfs", "/sys", ""),
        ("devtmpfs", "/dev", ""),
        ("devpts", "/dev/pts", ""),
        ("tmpfs", "/dev/shm", ""),
        ("tmpfs", "/run", "mode=755"),
        ("cgroup2", "/sys/fs/cgroup", ""),
    ] {
        fs::create_dir_all(place).to(format!("make {place}"))?;
        mount_at(kind, kind, place, options)?;
    }
    for folder in [LAB, "/run/lock", "/run/ha", "/lib/modules"] {
        fs::create_dir_all(folder).to(format!("make {folder}"))?;
    }
    mount_at("hostfs", "none", LAB, &spec.dir.to_string_lossy())?;
    let none = None::<&str>;
    mount(Some(MODULES), "/lib/modules", none, MsFlags::MS_BIND, none).to("show the kernel's modules")?;
    for (link, to) in [("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1")] {
        let _ = std::os::unix::fs::symlink(to, Path::new("/dev").join(link));
    }
    sethostname(&spec.name).to("set the host name")
}

fn network(spec: &Spec) -> Result<()> {
    let mut script = vec!["link set lo up".to_owned()];
    for network in Network::ALL {
        let (number, own, mtu) = (network.number(), spec.address(network), network.mtu());
        script.push(format!("link set vec{number} name eth{number}"));
        script.push(format!("addr add {own}/24 brd + dev eth{number}"));
        script.push(format!("link set eth{number} mtu {mtu} up"));
    }
    let file = Path::new("/run/network");
    fs::write(file, script.join("\n") + "\n").to("write the network's script")?;
    program("ip", &["-batch", &file.to_string_lossy()])
}

/// Keeps the agent running while it is wanted, and reaps whoever has no parent.
fn keep(spec: &Spec) -> Result<()> {
    let wanted = Machine::wanted(Path::new(LAB));
    let mut agent: Option<Pid> = None;
    loop {
        if agent.is_none() && wanted.exists() && !spec.agent.is_empty() {
            agent = Some(start(&spec.agent)?);
        }
        while let Ok(ended) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            match ended {
                WaitStatus::StillAlive => break,
                WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _) if Some(pid) == agent => {
                    eprintln!("lab-guest: the agent ended: {ended:?}");
                    agent = None;
                }
                _ => {}
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn start(agent: &[String]) -> Result<Pid> {
    let [name, arguments @ ..] = agent else { return Err(Trouble::new("no agent")) };
    let log =
        OpenOptions::new().create(true).append(true).open(Spec::inside("log/agent")).to("open the agent's log")?;
    let errors = log.try_clone().to("share the agent's log")?;
    let mut agent = command(name);
    let child = agent.args(arguments).stdout(log).stderr(errors).process_group(0).spawn();
    Ok(Pid::from_raw(i32::try_from(child.to(format!("start {name}"))?.id())?))
}

/// Mounts a filesystem of the kernel's own.
pub(crate) fn mount_at(kind: &str, source: &str, place: &str, options: &str) -> Result<()> {
    let options = (!options.is_empty()).then_some(options);
    mount(Some(source), place, Some(kind), MsFlags::empty(), options).to(format!("mount {place}"))
}

/// Runs a program to its end. What it says goes to the console.
pub(crate) fn program(name: &str, arguments: &[&str]) -> Result<()> {
    let status = command(name).args(arguments).status().to(format!("run {name}"))?;
    if status.success() {
        return Ok(());
    }
    Err(Trouble::new(format!("could not run {name} {}: {status}", arguments.join(" "))))
}

fn command(name: &str) -> Command {
    let mut command = Command::new(name);
    command.env_clear().env("PATH", PATH).env("HOME", "/root").env("TERM", "dumb").env("RUST_BACKTRACE", "1");
    command.stdin(Stdio::null());
    command
}
