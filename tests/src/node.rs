//! One machine of a laboratory: its power, its programs, and its own faults.
//!
//! Decides how power loss, hangs and crashes are brought about. Leaves the networks to `wire` and the disk to `storage`.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

use crate::boot::{LAB, Machine};
use crate::command::{run, run_with_input};
use crate::random::Random;
use crate::run::remove_cgroup;
use crate::storage::{DiskPath, Health};
use crate::trouble::{Result, Trouble, While as _};
use crate::wire::Switch;

/// The name of the program that is installed on a node, in its folder.
const INSTALLED: &str = "ha";

/// Who is left running when a node hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spare {
    /// Nobody: the machine stands still.
    Nothing,
    /// The agent's warden, which stands for a watchdog of hardware.
    Warden,
}

/// A machine.
pub struct Node {
    pub(crate) name: String,
    /// Its port on every network, and what its addresses end in.
    pub(crate) port: usize,
    pub(crate) network: String,
    pub(crate) dir: PathBuf,
    pub(crate) switches: Vec<Arc<Switch>>,
    pub(crate) disk: DiskPath,
    pub(crate) machine: Mutex<Machine>,
    pub(crate) program: PathBuf,
    pub(crate) power: Mutex<Option<Power>>,
}

/// A machine that is on.
pub(crate) struct Power {
    supply: Child,
    first: Pid,
    /// Takes it off the networks when it falls silent.
    watch: thread::JoinHandle<()>,
}

impl Node {
    /// Its name, which is its host name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its folder on the host, which it sees as [`crate::boot::LAB`].
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its own address on a network.
    pub fn address(&self, network: usize) -> String {
        address(network, self.port)
    }

    /// Turns it on: with an empty `/run`, new network devices and a new boot id; its state and its disk are as they were.
    /// Nothing is done if it is on.
    pub fn power_on(&self) -> Result<()> {
        let mut power = self.held();
        if power.is_some() {
            return Ok(());
        }
        connect(&self.network, self.port, &self.switches)?;
        self.disk.set(Health::Good);
        let mut machine = self.machine.lock().unwrap_or_else(PoisonError::into_inner);
        machine.boot_id = boot_id();
        let _ = fs::remove_file(Machine::sysrq(&self.dir));
        let spec = self.dir.join("machine");
        fs::write(&spec, serde_json::to_vec_pretty(&*machine)?).to("describe the machine")?;
        if let Some(group) = &machine.cgroup {
            fs::create_dir_all(group).to(format!("create {}", group.display()))?;
        }
        let log = File::create(self.dir.join("log/power")).to("create the node's log")?;
        let mut supply = Command::new(&self.program)
            .arg("power")
            .arg(&spec)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .to(format!("start {}", self.program.display()))?;
        let mut output =
            BufReader::new(supply.stdout.take().ok_or_else(|| Trouble::new("a power supply without output"))?);
        let mut line = || {
            let mut line = String::new();
            output.read_line(&mut line).map(|_| line.trim().to_owned())
        };
        // Its number, from the supply, and a word when it is up, from itself: whichever comes first.
        let mut said = [line().unwrap_or_default(), line().unwrap_or_default()];
        said.sort_by_key(|line| line == "up");
        let (Ok(first), "up") = (said[0].parse(), said[1].as_str()) else {
            let _ = supply.kill();
            let _ = supply.wait();
            let said = fs::read_to_string(self.dir.join("log/power")).unwrap_or_default();
            return Err(Trouble::new(format!("{} did not start: {}", self.name, said.trim())));
        };
        // A machine that resets itself must fall silent at once, without waiting for the test to look.
        let (switches, port) = (self.switches.clone(), self.port);
        let watch = thread::spawn(move || {
            let _ = std::io::copy(&mut output, &mut std::io::sink());
            for switch in &switches {
                switch.unplug(port);
            }
        });
        *power = Some(Power { supply, first: Pid::from_raw(first), watch });
        Ok(())
    }

    /// Power loss: at once nothing of it runs, nothing of it is heard, and what it had asked of the disk without answer is never done.
    pub fn power_off(&self) -> Result<()> {
        let mut held = self.held();
        let Some(mut power) = held.take() else { return Ok(()) };
        self.switches.iter().for_each(|switch| switch.unplug(self.port));
        let _ = kill(power.first, Signal::SIGKILL);
        self.disk.set(Health::Errors);
        power.supply.wait().to(format!("see {} go off", self.name))?;
        // Before it is turned on again: what comes late would take the next life off.
        let _ = power.watch.join();
        self.switches.iter().for_each(|switch| switch.discard(self.port));
        run("ip", &["netns", "delete", &self.network])?;
        if let Some(group) = &self.machine.lock().unwrap_or_else(PoisonError::into_inner).cgroup {
            remove_cgroup(group);
        }
        Ok(())
    }

    /// Whether it is on; a machine that reset itself is not, until it is turned off and on.
    pub fn is_on(&self) -> bool {
        self.held().as_mut().is_some_and(|power| matches!(power.supply.try_wait(), Ok(None)))
    }

    /// Stops every process of the node where it is, but whom it spares. Its kernel goes on, as that of a starved machine does.
    pub fn hang(&self, spare: Spare) -> Result<()> {
        let mut stopped = BTreeSet::new();
        loop {
            let running: Vec<Process> = self
                .processes()?
                .into_iter()
                .filter(|process| !stopped.contains(&process.pid))
                .filter(|process| spare == Spare::Nothing || !process.is_warden())
                .collect();
            if running.is_empty() {
                return Ok(());
            }
            for process in running {
                let _ = kill(process.pid, Signal::SIGSTOP);
                stopped.insert(process.pid);
            }
        }
    }

    /// Lets everything go on that [`Node::hang`] stopped.
    pub fn wake(&self) -> Result<()> {
        for process in self.processes()? {
            let _ = kill(process.pid, Signal::SIGCONT);
        }
        Ok(())
    }

    /// Has the node's process number 1 run the agent from now on, and start it again whenever it ends.
    pub fn start_agent(&self) -> Result<()> {
        File::create(Machine::wanted(&self.dir)).map(drop).to("ask for the agent")
    }

    /// The agent is not started again when it ends; one that runs is left alone.
    pub fn abandon_agent(&self) -> Result<()> {
        fs::remove_file(Machine::wanted(&self.dir)).to("ask for no agent")
    }

    /// Kills the agent alone, without warning. Returns whether there was one.
    pub fn kill_agent(&self) -> Result<bool> {
        Ok(self.agent()?.is_some_and(|pid| kill(pid, Signal::SIGKILL).is_ok()))
    }

    /// Tells the agent to end, as a service manager does that restarts it. Returns whether there was one.
    pub fn end_agent(&self) -> Result<bool> {
        Ok(self.agent()?.is_some_and(|pid| kill(pid, Signal::SIGTERM).is_ok()))
    }

    /// Puts a program in the place of the one that [`Node::installed`] names, as a package manager does: whole, under another name, then renamed. What
    /// runs goes on with the file that it was started from.
    pub fn install(&self, program: &Path) -> Result<()> {
        let (place, fresh) = (self.dir.join(INSTALLED), self.dir.join("installing"));
        let _ = fs::remove_file(&fresh);
        // A link where that is possible: these programs are large.
        fs::hard_link(program, &fresh)
            .or_else(|_| fs::copy(program, &fresh).map(drop))
            .and_then(|()| fs::rename(&fresh, &place))
            .to(format!("install {}", program.display()))
    }

    /// Where nodes find the program that was installed on them.
    pub fn installed() -> PathBuf {
        Path::new(LAB).join(INSTALLED)
    }

    /// The process numbers, on the host, of what runs a program of this name on the node.
    pub fn running(&self, name: &str) -> Result<Vec<Pid>> {
        let of_name = |process: &Process| process.command.first().is_some_and(|path| Path::new(path).ends_with(name));
        Ok(self.processes()?.into_iter().filter(of_name).map(|process| process.pid).collect())
    }

    /// Kills every process of the node that runs a program of this name, without warning. Returns how many.
    pub fn kill_program(&self, name: &str) -> Result<usize> {
        Ok(self.running(name)?.into_iter().filter(|pid| kill(*pid, Signal::SIGKILL).is_ok()).count())
    }

    /// The agent's process number on the host, if it runs: the first process's child that runs the agent's program.
    pub fn agent(&self) -> Result<Option<Pid>> {
        let machine = self.machine.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(self.processes()?.into_iter().find(|process| process.command == machine.agent).map(|process| process.pid))
    }

    /// The path to the shared disk.
    pub fn disk(&self) -> &DiskPath {
        &self.disk
    }

    /// Runs a program on the node to its end.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<Output> {
        self.command(program, arguments)?.output().to(format!("run {program} on {}", self.name))
    }

    /// A program to be run on the node.
    pub fn command(&self, program: &str, arguments: &[&str]) -> Result<Command> {
        let first = self.first()?;
        let mut command = Command::new("nsenter");
        command.args([
            "--target",
            &first.to_string(),
            "--mount",
            "--uts",
            "--ipc",
            "--net",
            "--pid",
            "--cgroup",
            "--",
            program,
        ]);
        command.args(arguments).stdin(Stdio::null());
        Ok(command)
    }

    /// Fills the filesystem that holds the agent's state until nothing more fits.
    pub fn fill_state(&self) -> Result<()> {
        let zeros = vec![0_u8; 4096];
        let mut file = File::create(self.dir.join("state/filler")).to("create the filler")?;
        while std::io::Write::write_all(&mut file, &zeros).is_ok() {}
        Ok(())
    }

    /// Undoes [`Node::fill_state`].
    pub fn empty_state(&self) -> Result<()> {
        fs::remove_file(self.dir.join("state/filler")).to("remove the filler")
    }

    /// All that the agent has logged, in all its lives.
    pub fn agent_log(&self) -> String {
        fs::read_to_string(self.dir.join("log/agent")).unwrap_or_default()
    }

    /// Every process of the node, those of nested namespaces left out.
    fn processes(&self) -> Result<Vec<Process>> {
        let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid"));
        let own = namespace(&self.first()?.to_string()).to(format!("find the processes of {}", self.name))?;
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").to("read /proc")?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Ok(pid) = name.parse() else { continue };
            if namespace(&name).is_ok_and(|its| its == own) {
                let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
                let command = line.split(|byte| *byte == 0).map(|part| String::from_utf8_lossy(part).into_owned());
                let mut command: Vec<String> = command.collect();
                command.pop();
                found.push(Process { pid: Pid::from_raw(pid), command });
            }
        }
        Ok(found)
    }

    fn first(&self) -> Result<Pid> {
        self.held().as_ref().map(|power| power.first).ok_or_else(|| Trouble::new(format!("{} is off", self.name)))
    }

    fn held(&self) -> MutexGuard<'_, Option<Power>> {
        self.power.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Err(trouble) = self.power_off() {
            eprintln!("laboratory: {trouble}");
        }
    }
}

struct Process {
    pid: Pid,
    command: Vec<String>,
}

impl Process {
    fn is_warden(&self) -> bool {
        self.command.iter().skip(1).any(|argument| argument == "warden")
    }
}

/// The address of a port on a network.
pub(crate) fn address(network: usize, port: usize) -> String {
    format!("10.{}.0.{}", 77 + network, port + 1)
}

/// Makes a network namespace and gives it a device on every network.
pub(crate) fn connect(name: &str, port: usize, switches: &[Arc<Switch>]) -> Result<()> {
    run("ip", &["netns", "add", name])?;
    let mut script = vec!["link set lo up".to_owned()];
    for (network, switch) in switches.iter().enumerate() {
        let device = device(name, network, port)?;
        switch.plug(port, device)?;
        let own = address(network, port);
        script.push(format!("addr add {own}/24 brd + dev eth{network}\nlink set eth{network} up\n"));
    }
    run_with_input("ip", &["-n", name, "-batch", "-"], &script.join("\n")).map(drop)
}

/// A network device in a namespace, whose other end is in this process.
fn device(name: &str, network: usize, port: usize) -> Result<SyncDevice> {
    let number = |value: usize| u8::try_from(value).map_err(Trouble::from);
    let hardware = [2, 0x77, 0, 0, number(network)?, number(port + 1)?];
    within(name, move || {
        let builder = DeviceBuilder::new().name(format!("eth{network}")).layer(Layer::L2).mac_addr(hardware);
        builder.enable(false).build_sync().to("make a TAP device")
    })
}

/// Does something inside a network namespace, on a thread that is never used for anything else.
pub(crate) fn within<T: Send>(name: &str, what: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let path = Path::new("/run/netns").join(name);
    thread::scope(|scope| {
        let doing = scope.spawn(move || {
            let namespace = File::open(&path).to(format!("open {}", path.display()))?;
            setns(namespace, CloneFlags::CLONE_NEWNET).to(format!("enter {}", path.display()))?;
            what()
        });
        doing.join().map_err(|_| Trouble::new("a thread of the laboratory panicked"))?
    })
}

/// A new boot id, in the form of the kernel's.
fn boot_id() -> String {
    let seed =
        nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).map_or(0, |now| now.tv_nsec().unsigned_abs());
    let mut random = Random::new(seed ^ u64::from(std::process::id()) << 32);
    let (a, b) = (random.next(), random.next());
    format!(
        "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
        a >> 32,
        (a >> 16) & 0xffff,
        a & 0xfff,
        b >> 52,
        b & 0xffff_ffff_ffff
    )
}
