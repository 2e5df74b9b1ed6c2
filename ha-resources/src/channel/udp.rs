//! Heartbeats over UDP: one channel for each of this node's own addresses.
//!
//! By convention the i-th address of every node belongs to the same network, so a channel has one own address and at most
//! one for each peer. Decides how the socket is set up, and that nothing about the network is more than a trouble of the one
//! datagram that met it. Leaves who sent what to the seal of `ha-core`: datagrams are taken from anybody.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;

use async_trait::async_trait;
use ha_core::driver::{Channel, Failed};
use ha_core::name::{ChannelName, NodeName};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};
use tokio::net::UdpSocket;

/// The longest datagram that is sent, in bytes; what comes in is cut to it, and so refused by its seal. The datagrams of
/// `ha-core` are smaller than the smallest MTU of IPv6 (1280 bytes, RFC 8200 section 5).
pub const DATAGRAM_BYTES_MAX: usize = 4096;

/// So much waits for us while we are kept from running, in bytes: a thousand beats, with what the kernel adds to each.
const RECEIVE_BUFFER: usize = 1 << 20;

/// Differentiated services "CS6", network control (RFC 4594 section 3.1), as the byte in the header.
const NETWORK_CONTROL: u32 = 0xc0;

/// The highest priority that needs no privilege (`SO_PRIORITY`, socket(7)).
const PRIORITY: u32 = 6;

/// Why a channel was not made. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A peer's address is of another family than our own.
    #[error(
        "node {peer} has {address} on the network of our own address {local}: one of them is IPv4 and the other IPv6; \
         list the addresses of all nodes in the same order of networks"
    )]
    Family {
        /// Whose.
        peer: NodeName,
        /// The peer's.
        address: SocketAddr,
        /// Ours.
        local: SocketAddr,
    },
    /// Somebody listens there already.
    #[error("{0} is in use by another program, or by another agent on this machine: choose another port, or stop it")]
    InUse(SocketAddr),
    /// The system refused.
    #[error("no socket for heartbeats at {local}: {error}; check the address and its port")]
    System {
        /// Our address.
        local: SocketAddr,
        /// What it said.
        #[source]
        error: io::Error,
    },
}

/// Heartbeats between one address of this node and one address of each peer.
///
/// The own address need not exist yet, or may go and come back: the socket stays good. Sending never waits: a
/// datagram that finds the queue full, the network unreachable or the peer's machine gone is lost, with an error for that
/// one send.
#[derive(Debug)]
pub struct Udp {
    name: ChannelName,
    socket: UdpSocket,
    peers: BTreeMap<NodeName, SocketAddr>,
}

impl Udp {
    /// Listens at `local` and sends from there to `peers`. A peer that is not among them is not reached by this channel.
    ///
    /// Port 0 takes any free port; see [`Udp::local_address`].
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O.
    pub fn bind(local: SocketAddr, peers: BTreeMap<NodeName, SocketAddr>) -> Result<Udp, BindError> {
        if let Some((peer, address)) = peers.iter().find(|(_, address)| address.is_ipv4() != local.is_ipv4()) {
            return Err(BindError::Family { peer: peer.clone(), address: *address, local });
        }
        let socket = open(local).map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse(local),
            _ => BindError::System { local, error },
        })?;
        let name = name_of(socket.local_addr().unwrap_or(local));
        Ok(Udp { name, socket, peers })
    }

    /// Where it listens.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

fn open(local: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(local), Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    if local.is_ipv6() {
        socket.set_only_v6(true)?;
        // So that binding works before duplicate address detection has finished, or while the network is down.
        socket.set_freebind_v6(true)?;
    } else {
        socket.set_freebind_v4(true)?;
    }
    prefer(&socket, local);
    socket.bind(&local.into())?;
    UdpSocket::from_std(socket.into())
}

/// What makes beats arrive on a busy machine and network; without it they arrive a little less surely.
fn prefer(socket: &Socket, local: SocketAddr) {
    let class =
        if local.is_ipv6() { socket.set_tclass_v6(NETWORK_CONTROL) } else { socket.set_tos_v4(NETWORK_CONTROL) };
    // After the class of service, which sets a priority of its own.
    let priority = socket.set_priority(PRIORITY);
    let buffer = setsockopt(socket, sockopt::RcvBufForce, &RECEIVE_BUFFER)
        .map_err(io::Error::from)
        .or_else(|_| socket.set_recv_buffer_size(RECEIVE_BUFFER));
    for (what, result) in [("class of service", class), ("priority", priority), ("receive buffer", buffer)] {
        if let Err(e) = result {
            tracing::debug!(address = %local, error = %e, "heartbeats without their {what}");
        }
    }
}

/// `udp-10.1.0.1-7946`; what no name may contain, as the colons of IPv6, becomes a dash.
#[expect(clippy::expect_used, reason = "begins with a letter, has only allowed characters, and 60 of them at most")]
fn name_of(local: SocketAddr) -> ChannelName {
    let address = match local {
        SocketAddr::V4(v4) => v4.ip().to_string(),
        SocketAddr::V6(v6) if v6.scope_id() == 0 => v6.ip().to_string(),
        SocketAddr::V6(v6) => format!("{}-{}", v6.ip(), v6.scope_id()),
    };
    let name = format!("udp-{}-{}", address.replace(':', "-"), local.port());
    ChannelName::new(name).expect("an address makes a valid name")
}

#[async_trait]
impl Channel for Udp {
    fn name(&self) -> &ChannelName {
        &self.name
    }

    async fn send(&self, to: &NodeName, datagram: &[u8]) -> Result<(), Failed> {
        let Some(address) = self.peers.get(to) else {
            return Ok(());
        };
        if datagram.len() > DATAGRAM_BYTES_MAX {
            let length = datagram.len();
            return Err(Failed(format!(
                "a datagram of {length} bytes for {to}: at most {DATAGRAM_BYTES_MAX} are sent"
            )));
        }
        // Not by way of tokio, which would wait until the socket is known to be writable.
        let sent = SockRef::from(&self.socket).send_to(datagram, &SockAddr::from(*address));
        match sent {
            Ok(_) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                Err(Failed(format!("a datagram for {to} was dropped: the queue towards {address} is full")))
            }
            // Left over from an earlier datagram; the socket is good again with having been told.
            Err(e) if is_news_of_a_peer(&e) => Err(Failed(format!("{to} cannot be reached at {address}: {e}"))),
            Err(e) => Err(Failed(format!("a datagram for {to} at {address} was not sent: {e}"))),
        }
    }

    async fn receive(&self) -> Result<Vec<u8>, Failed> {
        let mut buffer = [0; DATAGRAM_BYTES_MAX];
        loop {
            match self.socket.recv_from(&mut buffer).await {
                Ok((length, _)) => return Ok(buffer[..length].to_vec()),
                Err(e) if is_news_of_a_peer(&e) => {}
                Err(e) => return Err(Failed(format!("receiving at {}: {e}", self.name))),
            }
        }
    }
}

/// Whether an error says that somebody could not be reached, as ICMP messages do; it says nothing of the socket.
fn is_news_of_a_peer(error: &io::Error) -> bool {
    let Some(number) = error.raw_os_error() else { return false };
    matches!(
        Errno::from_raw(number),
        Errno::ECONNREFUSED | Errno::EHOSTUNREACH | Errno::EHOSTDOWN | Errno::ENETUNREACH | Errno::ENETDOWN
    )
}

#[cfg(test)]
mod tests;
