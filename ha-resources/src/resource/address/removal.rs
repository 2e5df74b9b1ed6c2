//! Takes an address off an interface for somebody without a runtime, such as the warden: rtnetlink(7), one question at a time.
//!
//! Decides which of an interface's addresses is meant, and that it is gone. Leaves to the caller when, and on which thread: the kernel
//! answers such questions under one lock for all networks, and a driver that hangs may hold that lock for ever.

use std::io;
use std::net::IpAddr;

use nix::errno::Errno;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::AddressMessage;
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::netlink::{address_of, keep_secondaries};

/// Set on an answer in parts when what it tells of changed on the way (`NLM_F_DUMP_INTR` of linux/netlink.h): parts may be missing.
const CHANGED_MEANWHILE: u16 = 0x10;

/// Removes the address from the interface and looks that it is gone; fine if it is not there, or if there is no such interface.
/// Other addresses stay, also where this one came first in their network.
///
/// # Errors
/// What the kernel refused; the address may be there still, and asking again does no harm.
pub(crate) fn remove_now(interface: &str, address: IpAddr) -> io::Result<()> {
    let index = match nix::net::if_::if_nametoindex(interface) {
        Ok(index) => index,
        Err(Errno::ENODEV | Errno::ENXIO) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let mut kernel = Kernel::connect()?;
    let found = kernel.find(index, address)?;
    if found.is_empty() {
        return Ok(());
    }
    if address.is_ipv4() {
        // Without it others may go too, and be started again. This one must go all the same.
        let _ = keep_secondaries(interface);
    }
    for message in found {
        match kernel.ask(RouteNetlinkMessage::DelAddress(message), NLM_F_ACK) {
            // Somebody was quicker, or the interface went with it.
            Err(e) if [Errno::EADDRNOTAVAIL, Errno::ENODEV].map(|e| Some(e as i32)).contains(&e.raw_os_error()) => {}
            result => drop(result?),
        }
    }
    if kernel.find(index, address)?.is_empty() { Ok(()) } else { Err(io::Error::other("it is still there")) }
}

struct Kernel {
    socket: Socket,
    /// Of the last question.
    number: u32,
}

impl Kernel {
    fn connect() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Kernel { socket, number: 0 })
    }

    /// It may be there more than once, with prefixes of different lengths.
    fn find(&mut self, index: u32, address: IpAddr) -> io::Result<Vec<AddressMessage>> {
        let all = self.ask(RouteNetlinkMessage::GetAddress(AddressMessage::default()), NLM_F_DUMP)?;
        let meant = |message| match message {
            RouteNetlinkMessage::NewAddress(m) if m.header.index == index && address_of(&m) == Some(address) => Some(m),
            _ => None,
        };
        Ok(all.into_iter().filter_map(meant).collect())
    }

    /// Asks, and waits for the whole answer.
    fn ask(&mut self, question: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.number += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.number;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(question));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        let (mut answers, mut changed) = (Vec::new(), false);
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            let mut rest = datagram.as_slice();
            while !rest.is_empty() {
                let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(io::Error::other)?;
                let (header, payload) = message.into_parts();
                // Never less than a header, so that this ends.
                let length = (header.length as usize).next_multiple_of(4).max(16);
                rest = rest.get(length..).unwrap_or_default();
                if header.sequence_number != self.number {
                    continue;
                }
                changed |= header.flags & CHANGED_MEANWHILE != 0;
                match payload {
                    NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                    NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                    NetlinkPayload::Done(_) if changed => {
                        return Err(io::Error::other("the addresses changed while they were listed"));
                    }
                    NetlinkPayload::Done(_) | NetlinkPayload::Error(_) => return Ok(answers),
                    _ => {}
                }
            }
        }
    }
}
