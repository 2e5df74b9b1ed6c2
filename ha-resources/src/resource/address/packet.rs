//! A packet socket on one interface (packet(7)): whole frames out, ARP in.
//!
//! Decides how it is opened and closed without anybody waiting: the kernel lets whoever takes a packet socket off an interface wait until
//! no processor uses it any more, some 10 ms each time.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::libc;
use tokio::io::unix::AsyncFd;

/// Sends frames on an interface, and hears the ARP frames of others on it.
pub(super) struct PacketSocket {
    /// `None` only while it is dropped.
    socket: Option<AsyncFd<OwnedFd>>,
    index: i32,
}

fn link_address(index: i32) -> libc::sockaddr_ll {
    libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ARP as u16).to_be(),
        sll_ifindex: index,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: [0; 8],
    }
}

impl PacketSocket {
    pub(super) fn open(index: u32) -> io::Result<Self> {
        let index = i32::try_from(index).map_err(io::Error::other)?;
        let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // Of no protocol before it is bound: else it would hear all interfaces until then, and binding would take it off them.
        // SAFETY: socket(2) takes no pointers; the result is checked before use.
        let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just opened by us, is valid and owned by nobody else.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        let address = link_address(index);
        // SAFETY: the pointer and length describe `address`, which outlives the call; bind(2) only reads it.
        let bound = unsafe {
            libc::bind(
                socket.as_raw_fd(),
                std::ptr::from_ref(&address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if bound < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is owned by `socket`, which the `AsyncFd` takes over and closes only after deregistering.
        let socket = unsafe { AsyncFd::register(socket) }.map_err(io::Error::from)?;
        Ok(PacketSocket { socket: Some(socket), index })
    }

    fn socket(&self) -> io::Result<&AsyncFd<OwnedFd>> {
        self.socket.as_ref().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))
    }

    /// Sends a whole frame. Never waits.
    pub(super) fn send(&self, frame: &[u8]) -> io::Result<()> {
        let socket = self.socket()?.as_raw_fd();
        let address = link_address(self.index);
        // SAFETY: both pointers and lengths describe live buffers that sendto(2) only reads.
        let sent = unsafe {
            libc::sendto(
                socket,
                frame.as_ptr().cast(),
                frame.len(),
                libc::MSG_DONTWAIT,
                std::ptr::from_ref(&address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// The next ARP frame that somebody sent. Cancel-safe.
    pub(super) async fn receive(&self) -> io::Result<Vec<u8>> {
        let socket = self.socket()?;
        loop {
            let mut ready = socket.readable().await?;
            let read = ready.try_io(|fd| {
                let mut buffer = [0_u8; 256];
                let read =
                    nix::sys::socket::recv(fd.as_raw_fd(), &mut buffer, nix::sys::socket::MsgFlags::MSG_DONTWAIT)?;
                Ok(buffer[..read].to_vec())
            });
            if let Ok(result) = read {
                return result;
            }
        }
    }
}

impl Drop for PacketSocket {
    fn drop(&mut self) {
        let Some(socket) = self.socket.take() else { return };
        let fd = socket.into_inner();
        // On a thread that has nothing better to do.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn_blocking(move || drop(fd));
        }
    }
}
