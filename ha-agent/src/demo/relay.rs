//! The network of the demonstration: every heartbeat passes through here, and can be dropped.
//!
//! Without root there is no firewall to cut a link with. So each node is told, for each other one, the address of a relay that hands
//! real datagrams on.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Relays between all pairs of nodes.
pub(super) struct Relay {
    cut: Arc<AtomicBool>,
    /// (from, to) → where `from` sends for `to`.
    ways: BTreeMap<(&'static str, &'static str), SocketAddr>,
}

impl Relay {
    /// One way for each pair; `homes` is where each node listens.
    pub(super) fn start(homes: &BTreeMap<&'static str, SocketAddr>) -> io::Result<Relay> {
        let cut = Arc::new(AtomicBool::new(false));
        let mut ways = BTreeMap::new();
        for from in homes.keys() {
            for (to, home) in homes.iter().filter(|(to, _)| *to != from) {
                let socket = UdpSocket::bind("127.0.0.1:0")?;
                ways.insert((*from, *to), socket.local_addr()?);
                let (cut, home) = (cut.clone(), *home);
                // Ends with the process.
                std::thread::spawn(move || hand_on(&socket, home, &cut));
            }
        }
        Ok(Relay { cut, ways })
    }

    pub(super) fn way(&self, from: &'static str, to: &'static str) -> Option<SocketAddr> {
        self.ways.get(&(from, to)).copied()
    }

    /// Drops everything, or hands it on again.
    pub(super) fn set(&self, link: Link) {
        self.cut.store(link == Link::Cut, Ordering::Relaxed);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    Up,
    Cut,
}

fn hand_on(socket: &UdpSocket, home: SocketAddr, cut: &AtomicBool) {
    // Larger than any datagram of the nodes.
    let mut buffer = [0; 4096];
    loop {
        // Errors are those of a datagram sent before: a node that is gone. The next one may do better.
        let Ok((length, _)) = socket.recv_from(&mut buffer) else { continue };
        if !cut.load(Ordering::Relaxed) {
            let _ = socket.send_to(&buffer[..length], home);
        }
    }
}
