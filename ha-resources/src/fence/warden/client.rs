//! The agent's side of a warden: starts one where there is none, and tells it what runs until when.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use ha_core::driver::{Failed, Guarded, Watchdog};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::Command;
use tokio::sync::Mutex;

use ha_core::time::Time;

use super::{Guards, Lease, Received};
use crate::child::{self, Setup};
use crate::fence::Reset;

/// The warden must answer within this; on one machine it takes microseconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// A new warden must listen within this.
const LISTENS_WITHIN: Duration = Duration::from_secs(3);

/// A warden, seen from the agent.
pub struct WardenClient {
    socket: PathBuf,
    command: Vec<String>,
    margin: Duration,
    reset: Reset,
    link: Mutex<Link>,
}

#[derive(Default)]
struct Link {
    stream: Option<BufReader<UnixStream>>,
    number: u64,
    /// What the warden has said that it received on this connection.
    received: Vec<Guarded>,
}

impl WardenClient {
    /// A warden at this socket. `command` is what runs [`super::warden_main`] for it with the same margin, should none listen.
    pub fn new(socket: impl Into<PathBuf>, command: Vec<String>, margin: Duration, reset: Reset) -> Self {
        Self { socket: socket.into(), command, margin, reset, link: Mutex::default() }
    }

    async fn connect(&self) -> io::Result<BufReader<UnixStream>> {
        if let Ok(stream) = UnixStream::connect(&self.socket).await {
            return Ok(BufReader::new(stream));
        }
        self.spawn()?;
        let mut pause = Duration::from_millis(1);
        let connected = async {
            loop {
                if let Ok(stream) = UnixStream::connect(&self.socket).await {
                    return stream;
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_millis(50));
            }
        };
        let stream = tokio::time::timeout(LISTENS_WITHIN, connected).await;
        Ok(BufReader::new(stream.map_err(|_| io::Error::other("a new warden does not listen; look into its log"))?))
    }

    fn spawn(&self) -> io::Result<()> {
        let (program, arguments) =
            self.command.split_first().ok_or_else(|| io::Error::other("no command for a warden"))?;
        let log = OpenOptions::new().create(true).append(true).open(self.socket.with_extension("log"))?;
        let mut command = Command::new(program);
        command.args(arguments).current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        child::set_up(&mut command, Setup::default());
        let mut child = command.spawn()?;
        // Waited for, so that it does not stay as a zombie should it end before the agent.
        tokio::spawn(async move {
            if let Ok(status) = child.wait().await {
                tracing::warn!(%status, "the warden has ended");
            }
        });
        Ok(())
    }

    async fn tell(&self, link: &mut Link, leases: &[Guarded]) -> io::Result<()> {
        // Taken out while it is used: an attempt that is dropped half way leaves no stream with half a line in it.
        let (mut stream, prolonged) = match link.stream.take() {
            Some(stream) => (stream, prolonged(&link.received, leases)),
            None => (self.connect().await?, None),
        };
        link.number += 1;
        let all = if prolonged.is_some() { &[][..] } else { leases };
        let guards = Guards { number: link.number, leases: all.iter().map(Lease::from).collect(), prolonged };
        let mut message = serde_json::to_vec(&guards).map_err(io::Error::other)?;
        message.push(b'\n');
        let mut answer = String::new();
        let told = async {
            stream.get_mut().write_all(&message).await?;
            stream.read_line(&mut answer).await
        };
        tokio::time::timeout(ANSWER_WITHIN, told).await.map_err(|_| io::ErrorKind::TimedOut)??;
        let received: Received = serde_json::from_str(&answer).map_err(io::Error::other)?;
        if received.number != link.number {
            return Err(io::Error::other("the warden answered something else"));
        }
        link.stream = Some(stream);
        link.received = leases.to_vec();
        Ok(())
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

/// The moment that all leases now end at, if nothing else changed since the warden was told of them.
fn prolonged(before: &[Guarded], now: &[Guarded]) -> Option<Time> {
    let until = now.first()?.until;
    let same = |(a, b): (&Guarded, &Guarded)| {
        b.until == until && b.until >= a.until && a.hierarchy == b.hierarchy && a.handles == b.handles
    };
    (before.len() == now.len() && before.iter().zip(now).all(same)).then_some(until)
}

impl Link {
    /// Whether the warden is still there: nothing is to be read while nothing was asked. Asks the kernel itself, since what
    /// tokio knows of the stream is as old as its last turn.
    fn is_alive(&self) -> bool {
        let idle = |stream: &BufReader<UnixStream>| {
            let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
            recv(stream.get_ref().as_raw_fd(), &mut [0], flags) == Err(Errno::EAGAIN)
        };
        self.stream.as_ref().is_some_and(idle)
    }
}

#[async_trait]
impl Watchdog for WardenClient {
    /// Costs one system call while nothing has changed. A warden that is gone is replaced at once.
    async fn feed(&self, leases: &[Guarded]) -> Result<(), Failed> {
        let mut link = self.link.lock().await;
        if link.is_alive() {
            if link.received == leases {
                return Ok(());
            }
        } else {
            link.stream = None;
        }
        let mut told = self.tell(&mut link, leases).await;
        if told.is_err() {
            link.stream = None;
            told = self.tell(&mut link, leases).await;
        }
        told.map_err(|e| Failed(format!("the warden at {} cannot be told: {e}", self.socket.display())))
    }

    fn margin(&self) -> Duration {
        self.margin
    }

    async fn reset(&self, reason: &str) -> Failed {
        Failed(format!("this node cannot be reset: {}", self.reset.now(reason)))
    }

    /// Leaves the warden with the deadlines it has: the agent's next life prolongs them in time, or they are kept.
    async fn disarm(&self) -> Result<(), Failed> {
        let mut link = self.link.lock().await;
        *link = Link { number: link.number, ..Link::default() };
        Ok(())
    }
}
