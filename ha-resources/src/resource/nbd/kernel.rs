//! The kernel's nbd driver, by its family of generic netlink (`linux/nbd-netlink.h`, `drivers/block/nbd.c`).
//!
//! Decides which of its messages are used: attach a socket to a device under a name of its own, take it away again, and hear that a connection
//! is lost. Leaves to others what is on the socket, and when. The first two are done when the call returns, and may wait in the kernel:
//! never on a thread that others need.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use rtnetlink::packet_core::{
    DecodeError, Emitable, ErrorMessage, NLA_F_NESTED, NLM_F_ACK, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, NetlinkSerializable, Nla, NlasIterator, parse_string, parse_u16, parse_u32,
};
use rtnetlink::sys::protocols::NETLINK_GENERIC;
use rtnetlink::sys::{Socket, SocketAddr};
use tokio::io::unix::AsyncFd;

use crate::proc;

/// `struct genlmsghdr`: a command, a version, and two bytes of nothing.
const HEADER: usize = 4;

/// The family that tells of the others (`linux/genetlink.h`).
const CONTROL: u16 = 0x10;
const CONTROL_GET_FAMILY: u8 = 3;
const CONTROL_FAMILY_ID: u16 = 1;
const CONTROL_FAMILY_NAME: u16 = 2;
const CONTROL_GROUPS: u16 = 7;
const CONTROL_GROUP_NAME: u16 = 1;
const CONTROL_GROUP_ID: u16 = 2;

const NAME: &str = "nbd";
const GROUP: &str = "nbd_mc_group";
const CONNECT: u8 = 1;
const DISCONNECT: u8 = 2;
const LINK_DEAD: u8 = 4;
const INDEX: u16 = 1;
const SIZE: u16 = 2;
const BLOCK_SIZE: u16 = 3;
const TIMEOUT: u16 = 4;
const SERVER_FLAGS: u16 = 5;
const SOCKETS: u16 = 7;
const BACKEND: u16 = 10;
const SOCKET_ITEM: u16 = 1;
const SOCKET_DESCRIPTOR: u16 = 1;

/// Longer than any message of these families.
const LONGEST_MESSAGE: usize = 32 * 1024;

/// What a device is attached to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attachment<'a> {
    /// The number in the device's name.
    pub(super) index: u32,
    /// Connected to the server, which waits for requests. The kernel keeps it.
    pub(super) socket: BorrowedFd<'a>,
    /// In bytes.
    pub(super) size: u64,
    /// In bytes: of the smallest request.
    pub(super) block_size: u32,
    /// What the server said that it can do.
    pub(super) flags: u16,
    /// A request that is not answered for so long fails, and the connection is given up with it. Whole seconds.
    pub(super) timeout: Duration,
    /// Shown in sysfs as long as it is attached: by it its owner knows it again. Kernels before 5.14 forget it.
    pub(super) backend: &'a str,
}

/// Attaches a device. `EBUSY`: it is attached, or somebody has it open.
pub(super) fn connect(attachment: &Attachment<'_>) -> io::Result<()> {
    let descriptor = attachment.socket.as_raw_fd().cast_unsigned();
    let item = Attribute::nested(SOCKET_ITEM, &[Attribute::number(SOCKET_DESCRIPTOR, descriptor)]);
    let attributes = vec![
        Attribute::number(INDEX, attachment.index),
        Attribute::long(SIZE, attachment.size),
        Attribute::long(BLOCK_SIZE, attachment.block_size.into()),
        Attribute::long(TIMEOUT, attachment.timeout.as_secs()),
        Attribute::long(SERVER_FLAGS, attachment.flags.into()),
        Attribute::nested(SOCKETS, &[item]),
        Attribute::text(BACKEND, attachment.backend),
    ];
    let mut kernel = Kernel::open()?;
    let family = kernel.family()?.id;
    kernel.ask(Message { family, command: CONNECT, attributes }).map(drop)
}

/// Ends what a device is attached to, whoever uses it: what was asked of it and not answered fails, and so does everything that is asked of it
/// afterwards. After that nothing of it reaches the server. It is no error if it is not attached. Its entry in sysfs stays until nobody has
/// it open.
pub(super) fn disconnect(index: u32) -> io::Result<()> {
    let mut kernel = Kernel::open()?;
    let family = kernel.family()?.id;
    kernel.ask(Message { family, command: DISCONNECT, attributes: vec![Attribute::number(INDEX, index)] }).map(drop)
}

/// Hears of connections that are lost.
pub(super) struct Losses(AsyncFd<OwnedFd>);

impl Losses {
    /// What asks the kernel for it, which may wait there.
    pub(super) fn listen() -> io::Result<OwnedFd> {
        let mut kernel = Kernel::open()?;
        let group = kernel.family()?.losses.ok_or_else(|| io::Error::other("the nbd driver tells nothing"))?;
        kernel.socket.add_membership(group)?;
        kernel.socket.set_non_blocking(true)?;
        kernel.socket.as_fd().try_clone_to_owned()
    }

    /// Waits on what [`Losses::listen`] returned.
    pub(super) fn new(socket: OwnedFd) -> io::Result<Losses> {
        proc::wait_on(socket).map(Losses)
    }

    /// Waits until the connection of a device is lost. Cancel-safe.
    pub(super) async fn of(&mut self, index: u32) -> io::Result<()> {
        let mut bytes = vec![0; LONGEST_MESSAGE];
        loop {
            let mut ready = self.0.readable().await?;
            match recv(self.0.as_raw_fd(), &mut bytes, MsgFlags::empty()) {
                Ok(length) => {
                    let told = messages(bytes.get(..length).unwrap_or_default()).unwrap_or_default();
                    if told.iter().any(|message| is_loss(message, index)) {
                        return Ok(());
                    }
                }
                Err(Errno::EAGAIN) => ready.clear_ready(),
                // Some were lost: the monitor will find out.
                Err(Errno::EINTR | Errno::ENOBUFS) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

fn is_loss(message: &NetlinkMessage<Message>, index: u32) -> bool {
    let NetlinkPayload::InnerMessage(message) = &message.payload else { return false };
    let told = || parse_u32(find(&message.attributes, INDEX)?).ok();
    message.command == LINK_DEAD && told() == Some(index)
}

/// A connection to the kernel.
struct Kernel {
    socket: Socket,
}

/// What the kernel says of the driver.
struct Family {
    id: u16,
    /// The group in which it tells of connections that are lost.
    losses: Option<u32>,
}

impl Kernel {
    fn open() -> io::Result<Kernel> {
        let mut socket = Socket::new(NETLINK_GENERIC)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Kernel { socket })
    }

    /// `NotFound` where the driver is not loaded.
    fn family(&mut self) -> io::Result<Family> {
        let attributes = vec![Attribute::text(CONTROL_FAMILY_NAME, NAME)];
        let told = self.ask(Message { family: CONTROL, command: CONTROL_GET_FAMILY, attributes })?;
        told.iter()
            .find_map(Family::read)
            .ok_or_else(|| io::Error::other("the kernel's answer does not name the nbd driver's number"))
    }

    /// Asks, and returns what was answered before the kernel said that it was done.
    fn ask(&mut self, message: Message) -> io::Result<Vec<Message>> {
        let mut packet = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::InnerMessage(message));
        packet.header.flags = NLM_F_REQUEST | NLM_F_ACK;
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        let mut answers = Vec::new();
        loop {
            let mut bytes = Vec::with_capacity(LONGEST_MESSAGE);
            self.socket.recv_from(&mut bytes, 0)?;
            for message in messages(&bytes).map_err(io::Error::other)? {
                match message.payload {
                    NetlinkPayload::Error(ErrorMessage { code: None, .. }) => return Ok(answers),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                    _ => {}
                }
            }
        }
    }
}

impl Family {
    fn read(message: &Message) -> Option<Family> {
        let id = parse_u16(find(&message.attributes, CONTROL_FAMILY_ID)?).ok()?;
        let groups = find(&message.attributes, CONTROL_GROUPS).map(attributes).unwrap_or_default();
        let group = groups.iter().map(|group| attributes(&group.value)).find(|group| {
            find(group, CONTROL_GROUP_NAME).is_some_and(|name| parse_string(name).is_ok_and(|name| name == GROUP))
        });
        let losses = group.and_then(|group| parse_u32(find(&group, CONTROL_GROUP_ID)?).ok());
        Some(Family { id, losses })
    }
}

/// A message of a family of generic netlink.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Message {
    family: u16,
    command: u8,
    attributes: Vec<Attribute>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Attribute {
    /// With the flag of those that have others inside.
    kind: u16,
    value: Vec<u8>,
}

impl Attribute {
    fn number(kind: u16, value: u32) -> Attribute {
        Attribute { kind, value: value.to_ne_bytes().to_vec() }
    }

    fn long(kind: u16, value: u64) -> Attribute {
        Attribute { kind, value: value.to_ne_bytes().to_vec() }
    }

    fn text(kind: u16, text: &str) -> Attribute {
        Attribute { kind, value: [text.as_bytes(), &[0]].concat() }
    }

    fn nested(kind: u16, inner: &[Attribute]) -> Attribute {
        let mut value = vec![0; inner.buffer_len()];
        inner.emit(&mut value);
        Attribute { kind: kind | NLA_F_NESTED, value }
    }
}

impl Nla for Attribute {
    fn value_len(&self) -> usize {
        self.value.len()
    }

    fn kind(&self) -> u16 {
        self.kind
    }

    fn emit_value(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.value);
    }
}

/// Reads attributes as far as they are well-formed.
fn attributes(bytes: &[u8]) -> Vec<Attribute> {
    let found = NlasIterator::new(bytes).map_while(Result::ok);
    found.map(|nla| Attribute { kind: nla.kind(), value: nla.value().to_vec() }).collect()
}

/// The value of the first one of a kind.
fn find(attributes: &[Attribute], kind: u16) -> Option<&[u8]> {
    attributes.iter().find(|attribute| attribute.kind == kind).map(|attribute| attribute.value.as_slice())
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        self.family
    }

    fn buffer_len(&self) -> usize {
        HEADER + self.attributes.as_slice().buffer_len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let (header, rest) = buffer.split_at_mut(HEADER);
        // Both families are of version 1, or do not look at it.
        header.copy_from_slice(&[self.command, 1, 0, 0]);
        self.attributes.as_slice().emit(rest);
    }
}

impl NetlinkDeserializable for Message {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        let (Some(&command), Some(rest)) = (payload.first(), payload.get(HEADER..)) else {
            return Err(DecodeError::buffer_too_small(payload.len(), HEADER));
        };
        Ok(Message { family: header.message_type, command, attributes: attributes(rest) })
    }
}

/// The messages of one datagram.
fn messages(mut bytes: &[u8]) -> Result<Vec<NetlinkMessage<Message>>, DecodeError> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let message = NetlinkMessage::<Message>::deserialize(bytes)?;
        // Each begins where a multiple of four bytes ends.
        let length = usize::try_from(message.header.length).unwrap_or(usize::MAX).max(1);
        bytes = length.checked_next_multiple_of(4).and_then(|length| bytes.get(length..)).unwrap_or_default();
        found.push(message);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packed(message: Message) -> Vec<u8> {
        let mut packet = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::InnerMessage(message));
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        bytes
    }

    #[test]
    fn a_lost_connection_is_told_by_its_number() {
        let loss =
            |index| Message { family: 30, command: LINK_DEAD, attributes: vec![Attribute::number(INDEX, index)] };
        let other = Message { command: CONNECT, ..loss(3) };
        let told = messages(&[packed(other), packed(loss(4))].concat()).unwrap();
        assert_eq!(told.len(), 2);
        assert!(told.iter().any(|message| is_loss(message, 4)));
        assert!(!told.iter().any(|message| is_loss(message, 3)));
    }

    #[test]
    fn the_number_and_the_group_of_the_driver_are_read() {
        let group = |name, id| {
            let name = Attribute::text(CONTROL_GROUP_NAME, name);
            Attribute::nested(1, &[name, Attribute::number(CONTROL_GROUP_ID, id)])
        };
        let attributes = vec![
            Attribute::text(CONTROL_FAMILY_NAME, NAME),
            Attribute { kind: CONTROL_FAMILY_ID, value: 30_u16.to_ne_bytes().to_vec() },
            Attribute::nested(CONTROL_GROUPS, &[group("another", 8), group(GROUP, 9)]),
        ];
        let told = messages(&packed(Message { family: CONTROL, command: 1, attributes })).unwrap();
        let [NetlinkMessage { payload: NetlinkPayload::InnerMessage(message), .. }] = told.as_slice() else {
            panic!("{told:?}")
        };
        let family = Family::read(message).unwrap();
        assert_eq!((family.id, family.losses), (30, Some(9)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for message in messages(&bytes).unwrap_or_default() {
                if let NetlinkPayload::InnerMessage(message) = message.payload {
                    let _ = Family::read(&message);
                }
            }
        }

        #[test]
        fn any_attributes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let message = Message { family: CONTROL, command: 1, attributes: attributes(&bytes) };
            let _ = Family::read(&message);
        }
    }
}
