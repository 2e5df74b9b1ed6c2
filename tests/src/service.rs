//! The service whose availability and exclusiveness the laboratory measures: the program `lab-service`.
//!
//! It writes to the witness's log when it starts, as long as it runs, and when SIGTERM ends it; and it echoes each datagram with its node's name and epoch added, so that a client knows who
//! answered. Its options may also come from the environment, in the words of a resource's context.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::UdpSocket;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::time::{ClockId, clock_gettime};

use crate::trouble::{Result, Trouble, While as _};
use crate::witness::{Kind, Line};

/// How often an instance writes if it is not told otherwise.
pub const TICK: Duration = Duration::from_millis(2);

/// One instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// The hierarchy that it belongs to.
    pub hierarchy: String,
    /// Where it runs.
    pub node: String,
    /// Under which tenure.
    pub epoch: u64,
    /// The witness's log.
    pub log: PathBuf,
    /// Where it listens for datagrams to echo, if at all: `address:port`.
    pub listen: Option<String>,
    /// How often it writes, in whole milliseconds.
    pub every: Duration,
}

impl Service {
    /// Answers and ticks until SIGTERM comes. Call it from a program's only thread.
    pub fn run(&self) -> Result<()> {
        let mut ending = SigSet::empty();
        ending.add(Signal::SIGTERM);
        ending.thread_block().to("block SIGTERM")?;
        let ended = SignalFd::with_flags(&ending, SfdFlags::SFD_CLOEXEC).to("await SIGTERM")?;
        let mut log = OpenOptions::new().append(true).open(&self.log).to(format!("open {}", self.log.display()))?;
        let run = now()?;
        let mut write = |kind| {
            let line = Line {
                hierarchy: self.hierarchy.clone(),
                node: self.node.clone(),
                epoch: self.epoch,
                run,
                at: now()?,
                kind,
            };
            log.write_all(format!("{line}\n").as_bytes()).to("write to the witness")
        };
        write(Kind::Start)?;
        if let Some(address) = &self.listen {
            let socket = UdpSocket::bind(address).to(format!("listen on {address}"))?;
            let who = format!(" {} {}", self.node, self.epoch);
            std::thread::spawn(move || echo(&socket, who.as_bytes()));
        }
        let tick = PollTimeout::try_from(self.every).to("tick so rarely")?;
        loop {
            let mut waited = [PollFd::new(ended.as_fd(), PollFlags::POLLIN)];
            match poll(&mut waited, tick) {
                Ok(0) | Err(_) => write(Kind::Tick)?,
                Ok(_) => return write(Kind::Stop),
            }
        }
    }
}

/// Answers for ever. A datagram that cannot be answered is the client's loss.
fn echo(socket: &UdpSocket, who: &[u8]) {
    let mut buffer = [0; 256];
    loop {
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let answer = [&buffer[..length], who].concat();
            let _ = socket.send_to(&answer, from);
        }
    }
}

/// Nanoseconds since the machine booted: the one clock that all nodes of a laboratory share.
pub(crate) fn now() -> Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).to("read the boot-time clock")?;
    u64::try_from(Duration::from(now).as_nanos()).map_err(Trouble::from)
}
