//! Hearing that block devices came or went.
//!
//! Decides when it is time to look again: when the kernel, or udev after it, tells of a block device (netlink, `NETLINK_KOBJECT_UEVENT`), and
//! now and then, since such a message can be lost, and a container may not be told. What there is to see is left to who looks.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket};
use tokio::io::unix::AsyncFd;

use crate::proc;

/// The kernel's own messages, and udev's after it has made its links in `/dev`.
const GROUPS: u32 = 0b11;

/// A device's properties fit in two pages; udev's header comes on top.
const LONGEST_MESSAGE: usize = 16 * 1024;

/// Where events are heard. Without, only time passes.
#[derive(Debug)]
pub(crate) struct Events {
    socket: Option<OwnedFd>,
    /// Readable, or hung up, when it is time to end.
    stop: OwnedFd,
}

/// Why waiting ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    /// A block device came, changed, or went.
    ByEvent,
    /// Nothing was heard for so long.
    ByTime,
    /// It is time to end.
    ToStop,
}

impl Events {
    /// Listens until the other end of `stop` is closed.
    pub(crate) fn new(stop: OwnedFd) -> Events {
        let socket = listen().inspect_err(|error| {
            tracing::warn!(%error, "block devices that come or go are not told of: their paths are noticed more slowly");
        });
        Events { socket: socket.ok(), stop }
    }

    /// Waits for an event, so long at most.
    pub(crate) fn wait(&self, at_most: Duration) -> Woken {
        let timeout = PollTimeout::try_from(at_most).unwrap_or(PollTimeout::MAX);
        loop {
            let mut waiting = vec![PollFd::new(self.stop.as_fd(), PollFlags::POLLIN)];
            waiting.extend(self.socket.as_ref().map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)));
            match poll(&mut waiting, timeout) {
                Ok(0) => return Woken::ByTime,
                Err(Errno::EINTR) => {}
                Err(error) => {
                    tracing::warn!(%error, "waiting for events of block devices failed");
                    return Woken::ToStop;
                }
                Ok(_) if waiting[0].any().unwrap_or(true) => return Woken::ToStop,
                // Of other devices there are many; they only begin the wait anew.
                Ok(_) if self.socket.as_ref().is_some_and(about_block_devices) => return Woken::ByEvent,
                Ok(_) => {}
            }
        }
    }
}

/// The same for who waits with a runtime.
pub(crate) struct Changes(AsyncFd<OwnedFd>);

impl Changes {
    /// Hears everything from now on.
    pub(crate) fn open() -> io::Result<Changes> {
        listen().and_then(proc::wait_on).map(Changes)
    }

    /// Waits until a block device came, changed or went. Cancel-safe.
    pub(crate) async fn next(&mut self) -> io::Result<()> {
        loop {
            let mut ready = self.0.readable().await?;
            // Taken to their end: what comes later makes it readable anew.
            let heard = about_block_devices(self.0.get_ref());
            ready.clear_ready();
            if heard {
                return Ok(());
            }
        }
    }
}

fn listen() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let protocol = SockProtocol::NetlinkKObjectUEvent;
    let socket = socket(AddressFamily::Netlink, SockType::Datagram, flags, protocol)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUPS))?;
    Ok(socket)
}

/// Takes all messages there are, and tells whether one was about a block device, or may have been.
fn about_block_devices(socket: &OwnedFd) -> bool {
    let mut heard = false;
    let mut message = vec![0; LONGEST_MESSAGE];
    loop {
        match recv(socket.as_raw_fd(), &mut message, MsgFlags::empty()) {
            Ok(length) => {
                let properties = message.get(..length).unwrap_or_default().split(|byte| *byte == 0);
                heard |= properties.into_iter().any(|property| property == b"SUBSYSTEM=block");
            }
            Err(Errno::EAGAIN) => return heard,
            // Some were lost.
            Err(Errno::ENOBUFS) => heard = true,
            Err(Errno::EINTR) => {}
            Err(_) => return true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENT: Duration = Duration::from_secs(30);

    #[test]
    fn a_block_device_that_changes_is_heard_of() {
        let (end, stop) = io::pipe().unwrap();
        let events = Events::new(end.into());
        assert!(events.socket.is_some());
        // Asks the kernel to tell again (Documentation/ABI/testing/sysfs-uevent).
        if std::fs::write("/sys/block/loop0/uevent", "change").is_err() {
            eprintln!("SKIPPED: no loop device here, or not allowed to have the kernel tell of it");
            return;
        }
        assert_eq!(events.wait(PATIENT), Woken::ByEvent);
        drop(stop);
        assert_eq!(events.wait(PATIENT), Woken::ToStop);
    }

    #[tokio::test]
    async fn who_has_a_runtime_hears_of_it_too() {
        let mut changes = Changes::open().unwrap();
        if std::fs::write("/sys/block/loop0/uevent", "change").is_err() {
            eprintln!("SKIPPED: no loop device here, or not allowed to have the kernel tell of it");
            return;
        }
        tokio::time::timeout(PATIENT, changes.next()).await.unwrap().unwrap();
    }

    #[test]
    fn without_events_time_passes_all_the_same() {
        let (end, _stop) = io::pipe().unwrap();
        let deaf = Events { socket: None, stop: end.into() };
        assert_eq!(deaf.wait(Duration::ZERO), Woken::ByTime);
    }
}
