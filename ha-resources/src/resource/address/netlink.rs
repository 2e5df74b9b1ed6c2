//! Interfaces and their addresses, by rtnetlink(7).
//!
//! Decides what of netlink is used here, and hides the library that speaks it. Leaves what addresses are for to the resource.

use std::net::IpAddr;

use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use ha_core::driver::Failed;
use nix::errno::Errno;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::{Handle, MulticastGroup, new_connection, new_multicast_connection};

use super::frames::Mac;

/// A network interface at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::resource) struct Link {
    pub(in crate::resource) index: u32,
    /// `None` where there is no Ethernet below, as on the loopback interface.
    pub(super) mac: Option<Mac>,
    /// Set up by the administrator.
    pub(in crate::resource) up: bool,
    /// Something is plugged in.
    pub(super) carrier: bool,
}

/// An address on an interface at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Present {
    /// Not usable yet: duplicate address detection runs.
    pub(super) tentative: bool,
    /// Not usable at all: somebody else has it.
    pub(super) dad_failed: bool,
}

/// How an address is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Detection {
    /// Usable at once.
    Skip,
    /// The kernel looks first whether somebody has it (IPv6 only).
    Kernel,
}

/// Something that happened to interfaces or addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum News {
    LinkGone(u32),
    Link(Link),
    AddressGone(u32, IpAddr),
    Other,
}

/// A connection to the kernel, open as long as it is held.
pub(in crate::resource) struct Netlink {
    handle: Handle,
}

impl Netlink {
    pub(in crate::resource) fn open() -> Result<Self, Failed> {
        let (connection, handle, _) = new_connection().map_err(|e| Failed(format!("cannot open netlink: {e}")))?;
        tokio::spawn(connection);
        Ok(Netlink { handle })
    }

    /// For what is about neither interfaces nor addresses.
    pub(in crate::resource) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// `None`: there is no such interface.
    pub(in crate::resource) async fn link(&self, interface: &str) -> Result<Option<Link>, Failed> {
        let mut found = self.handle.link().get().match_name(interface.to_owned()).execute();
        match found.try_next().await {
            Ok(message) => Ok(message.as_ref().map(link_of)),
            Err(error) if is(&error, Errno::ENODEV) => Ok(None),
            Err(error) => Err(Failed(format!("interface {interface} cannot be looked at: {error}"))),
        }
    }

    pub(super) async fn add(&self, link: u32, address: IpAddr, prefix: u8, detection: Detection) -> Result<(), Failed> {
        let mut request = self.handle.address().add(link, address, prefix).replace();
        if detection == Detection::Skip && address.is_ipv6() {
            request.message_mut().attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        request.execute().await.map_err(|e| Failed(format!("cannot add {address}/{prefix}: {e}")))
    }

    /// Removes it; fine if it is not there.
    pub(super) async fn remove(&self, link: u32, address: IpAddr) -> Result<(), Failed> {
        for message in self.messages(link, address).await? {
            match self.handle.address().del(message).execute().await {
                // Somebody was quicker, or the interface went with it.
                Err(error) if is(&error, Errno::EADDRNOTAVAIL) || is(&error, Errno::ENODEV) => {}
                result => result.map_err(|e| Failed(format!("cannot remove {address}: {e}")))?,
            }
        }
        Ok(())
    }

    pub(super) async fn find(&self, link: u32, address: IpAddr) -> Result<Option<Present>, Failed> {
        let flags = |message: &AddressMessage| {
            message
                .attributes
                .iter()
                .find_map(|a| if let AddressAttribute::Flags(flags) = a { Some(*flags) } else { None })
                .unwrap_or(AddressFlags::empty())
        };
        Ok(self.messages(link, address).await?.first().map(|message| Present {
            tentative: flags(message).contains(AddressFlags::Tentative),
            dad_failed: flags(message).contains(AddressFlags::Dadfailed),
        }))
    }

    async fn messages(&self, link: u32, address: IpAddr) -> Result<Vec<AddressMessage>, Failed> {
        let found = self.handle.address().get().set_link_index_filter(link).execute();
        let all: Vec<AddressMessage> =
            found.try_collect().await.map_err(|e| Failed(format!("cannot list addresses: {e}")))?;
        Ok(all.into_iter().filter(|m| address_of(m) == Some(address) && m.header.index == link).collect())
    }
}

/// Whether the kernel answered with this error.
pub(in crate::resource) fn is(error: &rtnetlink::Error, errno: Errno) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(answer) if answer.to_io().raw_os_error() == Some(errno as i32))
}

/// Lets other addresses of an interface outlive the one that came first. Addresses of one network hang on the first of them (its "primary"),
/// and the kernel removes them all with it unless told otherwise: `promote_secondaries`, in ip-sysctl.rst of the kernel's documentation.
pub(super) fn keep_secondaries(interface: &str) -> std::io::Result<()> {
    std::fs::write(format!("/proc/sys/net/ipv4/conf/{interface}/promote_secondaries"), "1")
}

/// Hears of everything that happens to interfaces and addresses.
pub(super) struct Listener {
    messages: BoxStream<'static, NetlinkMessage<RouteNetlinkMessage>>,
}

impl Listener {
    pub(super) fn open() -> Result<Self, Failed> {
        let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
        let (connection, _, messages) =
            new_multicast_connection(&groups).map_err(|e| Failed(format!("cannot listen to netlink: {e}")))?;
        tokio::spawn(connection);
        Ok(Listener { messages: messages.map(|(message, _)| message).boxed() })
    }

    /// The next thing that happened; `None` when the kernel closed the connection. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<News> {
        let message = self.messages.next().await?;
        let NetlinkPayload::InnerMessage(message) = message.payload else { return Some(News::Other) };
        Some(match message {
            RouteNetlinkMessage::NewLink(message) => News::Link(link_of(&message)),
            RouteNetlinkMessage::DelLink(message) => News::LinkGone(message.header.index),
            RouteNetlinkMessage::DelAddress(message) => match address_of(&message) {
                Some(address) => News::AddressGone(message.header.index, address),
                None => News::Other,
            },
            _ => News::Other,
        })
    }
}

fn link_of(message: &LinkMessage) -> Link {
    let mac = message.attributes.iter().find_map(|a| match a {
        LinkAttribute::Address(bytes) => Mac::try_from(bytes.as_slice()).ok(),
        _ => None,
    });
    let flags = message.header.flags;
    Link {
        index: message.header.index,
        mac: mac.filter(|m| *m != [0; 6] && !flags.contains(LinkFlags::Noarp)),
        up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::LowerUp),
    }
}

/// On a point-to-point link the local address is an attribute of its own.
pub(super) fn address_of(message: &AddressMessage) -> Option<IpAddr> {
    let local =
        message.attributes.iter().find_map(|a| if let AddressAttribute::Local(ip) = a { Some(*ip) } else { None });
    local.or_else(|| {
        message.attributes.iter().find_map(|a| if let AddressAttribute::Address(ip) = a { Some(*ip) } else { None })
    })
}
