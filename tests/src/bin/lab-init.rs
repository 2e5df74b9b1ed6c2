//! The machine of a laboratory: `lab-init power SPEC` is its power supply, outside; `lab-init init SPEC` its process number 1, inside.
//!
//! The supply makes the namespaces, starts the inside, says its process number, and cuts the power (kills it, and with it everything
//! inside) when its own standard input is closed, or when somebody inside asks for a reset through `/proc/sysrq-trigger`. It is never stopped
//! by a hang of the node: it stands for hardware. The inside mounts what a machine has, keeps the agent running as a service
//! manager would, and reaps orphans.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use ha_tests::boot::{LAB, Machine};
use ha_tests::{Result, Trouble};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags, poll};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, sethostname};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [_, "power", spec] => power(Path::new(spec)),
        [_, "init", spec] => init(Path::new(spec)),
        _ => Err(Trouble::new("usage: lab-init power|init SPEC")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => {
            eprintln!("lab-init: {trouble}");
            ExitCode::FAILURE
        }
    }
}

fn machine(spec: &Path) -> Result<Machine> {
    Ok(serde_json::from_slice(&fs::read(spec)?)?)
}

/// What could not be done, with its error.
fn could<T, E: std::fmt::Display>(what: &str, result: std::result::Result<T, E>) -> Result<T> {
    result.map_err(|error| Trouble::new(format!("could not {what}: {error}")))
}

// ---- outside -----------------------------------------------------------------------------------------------------------------

fn power(spec: &Path) -> Result<()> {
    let machine = machine(spec)?;
    if let Some(group) = &machine.cgroup {
        could("enter the node's control group", fs::write(group.join("cgroup.procs"), "0"))?;
        could("make a namespace of control groups", unshare(CloneFlags::CLONE_NEWCGROUP))?;
    }
    let network = could("open the node's network", File::open(&machine.network))?;
    could("enter the node's network", setns(network, CloneFlags::CLONE_NEWNET))?;
    let apart =
        CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC;
    could("make the node's namespaces", unshare(apart))?;
    furnish(&machine)?;
    // Only now: the first child is number 1 of the new processes, and the inside finds its folder at its new place.
    let inside = Path::new(LAB).join("machine");
    let own = could("find this program", std::env::current_exe())?;
    let mut first = could("start the inside", Command::new(own).arg("init").arg(inside).stdin(Stdio::null()).spawn())?;
    println!("{}", first.id());
    supply(&mut first, &Machine::sysrq(Path::new(LAB)));
    Ok(())
}

/// Gives the node its own `/run` with the laboratory's folder in it, and nothing of other nodes.
fn furnish(machine: &Machine) -> Result<()> {
    let none = None::<&str>;
    could("keep mounts to itself", mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none))?;
    let run = machine.dir.join("run");
    could("mount a new /run", mount(Some("run"), &run, Some("tmpfs"), MsFlags::empty(), Some("mode=755")))?;
    let lab = run.join("lab");
    could("create the node's folders", fs::create_dir_all(&lab).and_then(|()| fs::create_dir_all(run.join("ha"))))?;
    could("show the node's folder", mount(Some(&machine.dir), &lab, none, MsFlags::MS_BIND | MsFlags::MS_REC, none))?;
    let witness = lab.join("witness");
    could("create the witness's place", File::create(&witness).map(drop))?;
    could("show the witness's log", mount(Some(&machine.witness), &witness, none, MsFlags::MS_BIND, none))?;
    could("replace /run", mount(Some(&run), "/run", none, MsFlags::MS_BIND | MsFlags::MS_REC, none))?;
    could("set the host name", sethostname(&machine.name))
}

/// Keeps the power on until somebody wants it off, or the inside has ended.
fn supply(first: &mut Child, sysrq: &Path) {
    let stdin = std::io::stdin();
    let mut closed = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    while matches!(first.try_wait(), Ok(None)) {
        // No thread may wait for this: one that unshares its processes cannot start threads.
        let off = poll(&mut closed, 2_u8).is_ok_and(|ready| ready > 0);
        if off || fs::metadata(sysrq).is_ok_and(|file| file.len() > 0) {
            let _ = first.kill();
            let _ = first.wait();
        }
    }
}

// ---- inside ------------------------------------------------------------------------------------------------------------------

fn init(spec: &Path) -> Result<()> {
    // A machine whose power supply is gone is off, whatever became of the supply.
    could("depend on the power supply", set_pdeathsig(Signal::SIGKILL))?;
    let machine = machine(spec)?;
    mount_system(&machine)?;
    println!("up");
    let wanted = Machine::wanted(Path::new(LAB));
    let mut agent: Option<Pid> = None;
    loop {
        if agent.is_none() && wanted.exists() && !machine.agent.is_empty() {
            agent = Some(start(&machine.agent)?);
        }
        while let Ok(ended) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            match ended {
                WaitStatus::StillAlive => break,
                WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _) if Some(pid) == agent => {
                    note(&format!("agent ended: {ended:?}"));
                    agent = None;
                }
                _ => {}
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What every machine has: its own processes, devices' names, control groups, boot id; and no way to reset the host.
fn mount_system(machine: &Machine) -> Result<()> {
    let none = None::<&str>;
    could("mount /proc", mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), none))?;
    let boot_id = Path::new(LAB).join("boot-id");
    could("write the boot id", fs::write(&boot_id, format!("{}\n", machine.boot_id)))?;
    let system = "/proc/sys/kernel/random/boot_id";
    could("show the boot id", mount(Some(&boot_id), system, none, MsFlags::MS_BIND, none))?;
    let sysrq = Machine::sysrq(Path::new(LAB));
    could("make the reset button", File::create(&sysrq).map(drop))?;
    if Path::new("/proc/sysrq-trigger").exists() {
        could("show the reset button", mount(Some(&sysrq), "/proc/sysrq-trigger", none, MsFlags::MS_BIND, none))?;
    }
    let others: Vec<PathBuf> = fs::read_to_string("/proc/self/mounts")?
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .filter(|point| point.starts_with("/sys/"))
        .map(PathBuf::from)
        .collect();
    for point in others.iter().rev() {
        let _ = umount2(point, MntFlags::MNT_DETACH);
    }
    could("mount /sys", mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none))?;
    if machine.cgroup.is_some() {
        could(
            "mount /sys/fs/cgroup",
            mount(Some("cgroup2"), "/sys/fs/cgroup", Some("cgroup2"), MsFlags::empty(), none),
        )?;
    }
    Ok(())
}

fn start(command: &[String]) -> Result<Pid> {
    let [program, arguments @ ..] = command else { return Err(Trouble::new("no agent")) };
    let log = OpenOptions::new().create(true).append(true).open(Path::new(LAB).join("log/agent"))?;
    let errors = log.try_clone()?;
    let child = Command::new(program)
        .args(arguments)
        .env("RUST_BACKTRACE", "1")
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .process_group(0)
        .spawn();
    let child = could(&format!("start {program}"), child)?;
    note(&format!("agent started as {}", child.id()));
    Ok(Pid::from_raw(i32::try_from(child.id())?))
}

/// Appends a line to the log of the inside.
fn note(line: &str) {
    if let Ok(mut log) = OpenOptions::new().create(true).append(true).open(Path::new(LAB).join("log/init")) {
        let _ = writeln!(log, "{line}");
    }
}
