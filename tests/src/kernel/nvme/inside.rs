//! Inside the guest: process number 1. Makes a machine with one NVMe namespace that two hosts see, and takes commands.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::wait::waitpid;

use super::super::init::{mount_at, program, run_machine};
use super::super::spec::COMMANDS;
use super::image::MODULES;
use super::{HOSTS, disk};
use crate::trouble::{Result, Trouble, While as _};
use crate::wait::eventually;

/// The environment variable, given on the kernel's command line, with the guest's address.
pub const ADDRESS: &str = "LAB_NVME";

/// The word on the kernel's command line, which is a variable too, by which all hosts have one identifier.
pub(super) const ALIKE: &str = "LAB_NVME_HOSTS=alike";

/// What `nvme_core` is told: else it takes the two controllers for two ways of one host.
pub(super) const APART: &str = "multipath=N";

/// Where the target is configured.
const TARGET: &str = "/sys/kernel/config/nvmet";
/// The qualified name of its subsystem.
const SUBSYSTEM: &str = "nqn.2026-01.example.ha-lab:shared";

/// Runs the guest for ever.
pub fn run() -> ! {
    run_machine(machine)
}

fn machine() -> Result<()> {
    for (kind, place) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/run")] {
        mount_at(kind, kind, place, "")?;
    }
    modules()?;
    mount_at("configfs", "configfs", "/sys/kernel/config", "")?;
    target()?;
    for (number, host) in HOSTS.iter().enumerate() {
        connect(number, host)?;
    }
    let address = std::env::var(ADDRESS).map_err(|_| Trouble::new("no address was given"))?;
    for words in [["ifconfig", "lo", "127.0.0.1"], ["ifconfig", "eth0", &address]] {
        program("busybox", &words)?;
    }
    let own = std::env::current_exe().to("find this program")?;
    let server = Command::new(own).arg("listen").arg(format!("{address}:{COMMANDS}")).stdin(Stdio::null()).spawn();
    server.to("start the command server")?;
    // Whoever has no parent any more is this process's child.
    while waitpid(None, None).is_ok() {}
    Err(Trouble::new("the command server has ended"))
}

fn modules() -> Result<()> {
    let folder = Path::new(MODULES).parent().unwrap_or(Path::new("/"));
    for name in fs::read_to_string(MODULES).to("list the modules")?.lines() {
        let options: &[&str] = match name {
            // In some kernels it is built in, and hears of this on the command line.
            "nvme-core" => &[APART],
            "null_blk" => &["nr_devices=1", "memory_backed=1", "gb=1"],
            _ => &[],
        };
        let file = folder.join(name);
        let mut words = vec!["insmod".to_owned(), file.to_string_lossy().into_owned()];
        words.extend(options.iter().map(ToString::to_string));
        program("busybox", &words.iter().map(String::as_str).collect::<Vec<_>>())?;
    }
    Ok(())
}

/// One subsystem with one namespace with reservations, on a port that leads nowhere but back.
fn target() -> Result<()> {
    let make = |place: &str| fs::create_dir_all(place).to(format!("make {place}"));
    let set = |place: String, value: &str| fs::write(&place, value).to(format!("set {place}"));
    let subsystem = format!("{TARGET}/subsystems/{SUBSYSTEM}");
    let namespace = format!("{subsystem}/namespaces/1");
    make(&namespace)?;
    set(format!("{subsystem}/attr_allow_any_host"), "1")?;
    set(format!("{namespace}/device_path"), "/dev/nullb0")?;
    set(format!("{namespace}/resv_enable"), "1").to("have reservations: is the kernel older than 6.13?")?;
    set(format!("{namespace}/enable"), "1")?;
    let port = format!("{TARGET}/ports/1");
    make(&port)?;
    set(format!("{port}/addr_trtype"), "loop")?;
    symlink(&subsystem, format!("{port}/subsystems/{SUBSYSTEM}")).to("offer the subsystem")
}

/// A controller of a host of its own, and the namespace as it sees it.
fn connect(number: usize, host: &str) -> Result<()> {
    let alike = ALIKE.split_once('=').is_some_and(|(name, value)| std::env::var(name).is_ok_and(|it| it == value));
    let id = format!("00000000-0000-4000-8000-00000000000{:x}", if alike { 0xa } else { number + 0xa });
    let mut fabrics = File::options().read(true).write(true).open("/dev/nvme-fabrics").to("open nvme-fabrics")?;
    let wish = format!("transport=loop,nqn={SUBSYSTEM},hostnqn=nqn.2014-08.org.nvmexpress:uuid:{id},hostid={id}");
    // Else the second of a host is refused.
    let wish = if alike { wish + ",duplicate_connect" } else { wish };
    fabrics.write_all(wish.as_bytes()).to(format!("connect {host}"))?;
    let mut said = String::new();
    fabrics.read_to_string(&mut said).to(format!("connect {host}"))?;
    let instance = said.split(',').find_map(|word| word.trim().strip_prefix("instance="));
    let instance = instance.ok_or_else(|| Trouble::new(format!("{host} was not connected: {said}")))?;
    let namespace = format!("/dev/nvme{instance}n1");
    eventually(&namespace, || fs::metadata(&namespace).map(drop));
    symlink(&namespace, disk(host)).to(format!("name the disk of {host}"))
}
