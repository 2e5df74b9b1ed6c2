//! The service of the demonstration: answers who it is, and stamps a log that shows afterwards who ran when.
//!
//! Two of them can have one port, so that an exclusiveness that the harness did not provide would not be provided by the port.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use ha_resources::clock;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, setsockopt, socket, sockopt};

/// From one stamp to the next.
const STAMP_EVERY: Duration = Duration::from_millis(5);

/// Of `ha demo-service`, which the demonstration's hierarchies run.
#[derive(Debug, Args)]
pub(crate) struct ServiceArgs {
    /// Where it answers
    #[arg(long)]
    at: SocketAddr,
    /// Where it stamps
    #[arg(long)]
    witness: PathBuf,
}

/// Runs until it is killed.
pub(crate) fn serve(args: &ServiceArgs) -> io::Result<()> {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let (node, hierarchy, epoch) = (variable("HA_NODE"), variable("HA_HIERARCHY"), variable("HA_EPOCH"));
    let socket = shared_socket(args.at)?;
    socket.set_read_timeout(Some(STAMP_EVERY))?;
    let mut witness = OpenOptions::new().append(true).create(true).open(&args.witness)?;
    let answer = format!("{node} {epoch} {}", std::process::id());
    let mut buffer = [0; 64];
    let mut stamped: Option<Instant> = None;
    loop {
        if stamped.is_none_or(|at| at.elapsed() >= STAMP_EVERY) {
            // One write for a line: lines of several services do not mix.
            witness.write_all(format!("{hierarchy} {node} {epoch} {}\n", clock::now().0).as_bytes())?;
            stamped = Some(Instant::now());
        }
        if let Ok((_, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(answer.as_bytes(), from);
        }
    }
}

fn shared_socket(at: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let SocketAddr::V4(at) = at else { return Err(io::Error::other("expected an IPv4 address")) };
    let fd = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    setsockopt(&fd, sockopt::ReusePort, &true)?;
    bind(std::os::fd::AsRawFd::as_raw_fd(&fd), &SockaddrIn::from(at))?;
    Ok(fd.into())
}
