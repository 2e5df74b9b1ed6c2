//! One guest, seen from outside: its power, its hangs, and the commands that a test runs in it.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{KeepAlive, TcpKeepCount, TcpKeepIdle, TcpKeepInterval};
use nix::unistd::Pid;

use super::lab::pause;
use super::remote::{Asked, Ended, receive, send};
use super::spec::{COMMANDS, Network, Spec};
use crate::boot::Machine;
use crate::lab::program;
use crate::node::within;
use crate::trouble::{Result, Trouble, While as _};
use crate::wait::{eventually, patience};

/// A machine with a kernel of its own.
pub struct Guest {
    pub(crate) spec: Mutex<Spec>,
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) power: Mutex<Option<Power>>,
}

/// A guest that is on.
pub(crate) struct Power {
    supply: Child,
    /// Its kernel's process number: another after each reset.
    kernel: Arc<AtomicI32>,
}

impl Power {
    fn kernel(&self) -> Pid {
        Pid::from_raw(self.kernel.load(Ordering::Relaxed))
    }
}

/// A command that runs in a guest.
pub struct Running {
    what: String,
    stream: TcpStream,
}

impl Running {
    /// Has the command server at the other end run a program, and waits `limit` for its end.
    pub(crate) fn ask(stream: TcpStream, limit: Duration, program: &str, arguments: &[&str]) -> Result<Running> {
        stream.set_read_timeout(Some(limit)).to("set a time limit")?;
        // A guest that was reset meanwhile says so only when it is asked again; one that hangs says nothing, and is waited for.
        setsockopt(&stream, TcpKeepIdle, &2).to("set a time limit")?;
        setsockopt(&stream, TcpKeepInterval, &2).to("set a time limit")?;
        setsockopt(&stream, TcpKeepCount, &120).to("set a time limit")?;
        setsockopt(&stream, KeepAlive, &true).to("set a time limit")?;
        let what = format!("{program} {}", arguments.join(" "));
        let arguments = arguments.iter().map(ToString::to_string).collect();
        send(&stream, &Asked { program: program.to_owned(), arguments })?;
        Ok(Running { what, stream })
    }

    /// How it ended. An error if the guest died meanwhile, or if it does not end within [`patience`].
    pub fn wait(self) -> Result<Ended> {
        receive(&self.stream).to(format!("see the end of `{}`", self.what))
    }
}

impl Guest {
    /// Its name, which is its host name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its folder on the host, which it sees as [`crate::boot::LAB`].
    pub fn dir(&self) -> std::path::PathBuf {
        self.spec().dir.clone()
    }

    /// Its address on a network.
    pub fn address(&self, network: Network) -> String {
        self.spec().address(network)
    }

    /// Changes what it will be when it is next turned on.
    pub fn change(&self, what: impl FnOnce(&mut Spec)) -> Result<()> {
        let mut spec = self.spec();
        what(&mut spec);
        fs::write(Spec::path(&spec.dir), serde_json::to_vec_pretty(&*spec)?).to("describe the guest")
    }

    /// Turns it on. Nothing is done if it is on. It boots meanwhile: see [`Guest::until_up`].
    pub fn power_on(&self) -> Result<()> {
        let mut power = self.held();
        if power.is_some() {
            return Ok(());
        }
        self.change(|_| ())?;
        let dir = self.dir();
        let log = File::options().create(true).append(true).open(dir.join("log/power")).to("open the supply's log")?;
        let mut supply = Command::new(program("lab-guest")?)
            .arg("power")
            .arg(Spec::path(&dir))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .to(format!("turn on {}", self.name))?;
        let output = supply.stdout.take().ok_or_else(|| Trouble::new("a power supply without output"))?;
        let mut lines = BufReader::new(output).lines();
        let Some(Ok(first)) = lines.next().map(|line| line.unwrap_or_default().parse()) else {
            let _ = supply.kill();
            let _ = supply.wait();
            let said = fs::read_to_string(dir.join("log/power")).unwrap_or_default();
            return Err(Trouble::new(format!("{} did not start: {}", self.name, said.trim())));
        };
        let kernel = Arc::new(AtomicI32::new(first));
        let latest = Arc::clone(&kernel);
        std::thread::spawn(move || {
            for number in lines.map_while(std::result::Result::ok).filter_map(|line| line.parse().ok()) {
                latest.store(number, Ordering::Relaxed);
            }
        });
        *power = Some(Power { supply, kernel });
        Ok(())
    }

    /// Power loss: at once nothing of it runs, and what it had in memory is gone. Nothing is done if it is off.
    pub fn power_off(&self) -> Result<()> {
        let Some(mut power) = self.held().take() else { return Ok(()) };
        // Killed while it resets itself it might be started anew: then its supply, whose input is closed, kills it again.
        drop(power.supply.stdin.take());
        let _ = kill(power.kernel(), Signal::SIGKILL);
        power.supply.wait().to(format!("see {} go off", self.name))?;
        Ok(())
    }

    /// Whether it is on. One that reset itself is.
    pub fn is_on(&self) -> bool {
        self.held().as_mut().is_some_and(|power| matches!(power.supply.try_wait(), Ok(None)))
    }

    /// Stops its kernel where it is, with everything on it, as a hypervisor would.
    pub fn hang(&self) -> Result<()> {
        // Only the kernel: the programs on it, which it traces, stand still without it, and must not see the signal.
        self.signal(Signal::SIGSTOP)
    }

    /// Lets it go on after [`Guest::hang`], not knowing that time has passed until it looks at a clock.
    pub fn wake(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let held = self.held();
        let power = held.as_ref().ok_or_else(|| Trouble::new(format!("{} is off", self.name)))?;
        kill(power.kernel(), signal).to(format!("send {signal} to {}", self.name))
    }

    /// Waits until it takes commands.
    ///
    /// # Panics
    /// When it does not within [`patience`], or has turned itself off.
    pub fn until_up(&self) {
        eventually(&format!("{} is up", self.name), || {
            assert!(self.is_on(), "{} turned itself off; its console says:\n{}", self.name, self.console());
            self.boot_id().inspect_err(|_| pause())
        });
    }

    /// Waits until it has a new life, after a reset that it brought about by itself: `life` is the id of the old one.
    pub fn until_reset(&self, life: &str) {
        eventually(&format!("{} was reset", self.name), || match self.boot_id() {
            Ok(new) if new != life => Ok(()),
            other => {
                pause();
                Err(other)
            }
        });
    }

    /// The id of its kernel's life: a new one after each reset.
    pub fn boot_id(&self) -> Result<String> {
        let asked = self.start_within(Duration::from_secs(5), "/bin/cat", &["/proc/sys/kernel/random/boot_id"])?;
        asked.wait()?.good()
    }

    /// Runs a program in it to its end.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<Ended> {
        self.start(program, arguments)?.wait()
    }

    /// Runs a line of shell in it to its end, and returns what it wrote to standard output. Failure is an error.
    pub fn shell(&self, line: &str) -> Result<String> {
        self.run("/bin/sh", &["-c", line])?.good()
    }

    /// Starts a program in it.
    pub fn start(&self, program: &str, arguments: &[&str]) -> Result<Running> {
        self.start_within(patience(), program, arguments)
    }

    fn start_within(&self, limit: Duration, program: &str, arguments: &[&str]) -> Result<Running> {
        let what = format!("{program} {}", arguments.join(" "));
        let address: SocketAddr = format!("{}:{COMMANDS}", self.address(Network::Control)).parse()?;
        let connect = || TcpStream::connect_timeout(&address, Duration::from_secs(5)).to("connect");
        let stream = within(&self.namespace, connect).to(format!("run `{what}` on {}", self.name))?;
        Running::ask(stream, limit, program, arguments)
    }

    /// Has its process number 1 run the agent from now on, and start it again whenever it ends; also after a reset.
    pub fn start_agent(&self) -> Result<()> {
        File::create(Machine::wanted(&self.dir())).map(drop).to("ask for the agent")
    }

    /// The agent is not started again when it ends; one that runs is left alone.
    pub fn abandon_agent(&self) -> Result<()> {
        fs::remove_file(Machine::wanted(&self.dir())).to("ask for no agent")
    }

    /// What its kernel and its process number 1 said, in all its lives.
    pub fn console(&self) -> String {
        self.log("console")
    }

    /// All that its agent has logged, in all its lives.
    pub fn agent_log(&self) -> String {
        self.log("agent")
    }

    pub(crate) fn log(&self, name: &str) -> String {
        let text = fs::read(self.dir().join("log").join(Path::new(name))).unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    }

    fn spec(&self) -> MutexGuard<'_, Spec> {
        self.spec.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self) -> MutexGuard<'_, Option<Power>> {
        self.power.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if let Err(trouble) = self.power_off() {
            eprintln!("laboratory: {trouble}");
        }
    }
}
