//! Routing tables, by rtnetlink(7).
//!
//! Decides what of the kernel's routes is the one that is meant, and which of its messages may be about it.

use std::net::IpAddr;

use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use ha_core::driver::Failed;
use nix::errno::Errno;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteScope, RouteType};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{MulticastGroup, RouteMessageBuilder, new_multicast_connection};

use super::{Destination, RouteSpec};
use crate::resource::address::netlink::{Netlink, is};

/// The table that is meant where none is said (`RT_TABLE_MAIN`).
pub(super) const MAIN: u32 = 254;

/// The table that the kernel keeps for its own addresses (`RT_TABLE_LOCAL`).
pub(super) const LOCAL: u32 = 255;

/// The metric that IPv6 gives to routes which have none (`IP6_RT_PRIO_USER`).
const IPV6_METRIC: u32 = 1024;

/// What is to be seen of a route at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// It is there, as often as there are messages.
    There(Vec<RouteMessage>),
    /// It is there, and the kernel does not use it: its interface is down.
    Dead,
    /// A route of this table, destination and metric leads elsewhere, which is described.
    Other(String),
    /// There is none.
    Nowhere,
    /// There is no interface of this name.
    NoInterface(String),
    /// The interface of this name was set down.
    InterfaceDown(String),
}

/// A connection to the kernel.
pub(super) struct Kernel(Netlink);

impl Kernel {
    pub(super) fn open() -> Result<Self, Failed> {
        Netlink::open().map(Kernel)
    }

    pub(super) async fn look(&self, spec: &RouteSpec) -> Result<Seen, Failed> {
        let index = match &spec.dev {
            None => None,
            Some(dev) => match self.0.link(dev).await? {
                None => return Ok(Seen::NoInterface(dev.clone())),
                Some(link) if !link.up => return Ok(Seen::InterfaceDown(dev.clone())),
                Some(link) => Some(link.index),
            },
        };
        let named = self.named(spec).await?;
        let mut ours: Vec<RouteMessage> = named.iter().filter(|route| leads_as(route, spec, index)).cloned().collect();
        if ours.is_empty() {
            return Ok(named.first().map_or(Seen::Nowhere, |other| Seen::Other(describe(other))));
        }
        ours.retain(|route| !route.header.flags.contains(RouteFlags::Dead));
        Ok(if ours.is_empty() { Seen::Dead } else { Seen::There(ours) })
    }

    /// Adds it. Fails if one of its name is there.
    pub(super) async fn add(&self, spec: &RouteSpec) -> Result<(), Failed> {
        let cannot = |e: &dyn std::fmt::Display, help: &str| Failed(format!("cannot add {spec}: {e}{help}"));
        let mut builder = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(spec.to.address(), spec.to.prefix())
            .map_err(|e| cannot(&e, ""))?
            .table_id(spec.table);
        if let Some(dev) = &spec.dev {
            let link = self.0.link(dev).await?;
            let link = link.ok_or_else(|| Failed(format!("there is no interface {dev}")))?;
            builder = builder.output_interface(link.index);
        }
        match spec.via {
            Some(via) => builder = builder.gateway(via).map_err(|e| cannot(&e, ""))?,
            // As ip(8) does: a network that is reached without anybody in between.
            None if spec.to.address().is_ipv4() => builder = builder.scope(RouteScope::Link),
            None => {}
        }
        if let Some(src) = spec.src {
            builder = builder.pref_source(src).map_err(|e| cannot(&e, ""))?;
        }
        if spec.metric != 0 {
            builder = builder.priority(spec.metric);
        }
        let help = |e: &rtnetlink::Error| match (spec.via, spec.src) {
            (Some(via), _) if is(e, Errno::ENETUNREACH) || is(e, Errno::EHOSTUNREACH) => {
                format!("; {via} is in no network of this node: start an address in its network before")
            }
            (_, Some(src)) if is(e, Errno::EINVAL) => {
                format!("; is {src} an address of this node? If it is a resource, name it in `requires`")
            }
            _ => String::new(),
        };
        self.0.handle().route().add(builder.build()).execute().await.map_err(|e| cannot(&e, &help(&e)))
    }

    /// Removes it; fine if it is not there. Those that lead elsewhere stay.
    pub(super) async fn remove(&self, spec: &RouteSpec) -> Result<(), Failed> {
        let index = match &spec.dev {
            None => None,
            Some(dev) => match self.0.link(dev).await? {
                // Its routes went with it.
                None => return Ok(()),
                Some(link) => Some(link.index),
            },
        };
        for route in self.named(spec).await?.into_iter().filter(|route| leads_as(route, spec, index)) {
            match self.0.handle().route().del(route).execute().await {
                // Somebody was quicker, or the interface went with it.
                Err(e) if is(&e, Errno::ESRCH) || is(&e, Errno::ENODEV) => {}
                result => result.map_err(|e| Failed(format!("cannot remove {spec}: {e}")))?,
            }
        }
        Ok(())
    }

    /// All routes of its table, destination and metric, wherever they lead.
    async fn named(&self, spec: &RouteSpec) -> Result<Vec<RouteMessage>, Failed> {
        let mut question = RouteMessage::default();
        question.header.address_family = family(spec.to);
        let all = self.0.handle().route().get(question).execute().try_collect::<Vec<_>>().await;
        let all = all.map_err(|e| Failed(format!("cannot list routes: {e}")))?;
        Ok(all.into_iter().filter(|route| is_named(route, spec)).collect())
    }
}

/// Hears of what may have changed a route.
pub(super) struct Changes {
    messages: BoxStream<'static, NetlinkMessage<RouteNetlinkMessage>>,
    spec: RouteSpec,
}

impl Changes {
    pub(super) fn open(spec: &RouteSpec) -> Result<Self, Failed> {
        let groups = match spec.to.address() {
            IpAddr::V4(_) => [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv4Route],
            IpAddr::V6(_) => [MulticastGroup::Link, MulticastGroup::Ipv6Ifaddr, MulticastGroup::Ipv6Route],
        };
        let (connection, _, messages) =
            new_multicast_connection(&groups).map_err(|e| Failed(format!("cannot listen to netlink: {e}")))?;
        tokio::spawn(connection);
        Ok(Changes { messages: messages.map(|(message, _)| message).boxed(), spec: spec.clone() })
    }

    /// Waits for the next one. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<(), Failed> {
        loop {
            let closed = || Failed("the kernel closed the connection that tells of changes".into());
            let message = self.messages.next().await.ok_or_else(closed)?;
            let NetlinkPayload::InnerMessage(message) = message.payload else { return Ok(()) };
            match message {
                RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route)
                    if !is_named(&route, &self.spec) => {}
                // With an interface that goes down, or its address, routes of IPv4 go without a word of their own.
                _ => return Ok(()),
            }
        }
    }
}

fn family(to: Destination) -> AddressFamily {
    if to.address().is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn is_named(route: &RouteMessage, spec: &RouteSpec) -> bool {
    let header = &route.header;
    let mut table = u32::from(header.table);
    let mut metric = 0;
    let mut to = None;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Priority(number) => metric = *number,
            RouteAttribute::Destination(address) => to = ip(address),
            _ => {}
        }
    }
    let wanted = match (spec.metric, spec.to.address()) {
        (0, IpAddr::V6(_)) => IPV6_METRIC,
        (metric, _) => metric,
    };
    header.address_family == family(spec.to)
        && header.kind == RouteType::Unicast
        && header.tos == 0
        && !header.flags.contains(RouteFlags::Cloned)
        && header.destination_prefix_length == spec.to.prefix()
        && to.is_none_or(|to| to == spec.to.address())
        && (to.is_some() || spec.to.prefix() == 0)
        && table == spec.table
        && metric == wanted
}

/// Whether it leads where it was told to. What was not told does not matter.
fn leads_as(route: &RouteMessage, spec: &RouteSpec, index: Option<u32>) -> bool {
    let mut via = None;
    let mut src = None;
    let mut dev = None;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Gateway(address) => via = ip(address),
            RouteAttribute::PrefSource(address) => src = ip(address),
            RouteAttribute::Oif(index) => dev = Some(*index),
            // One of several ways.
            RouteAttribute::MultiPath(_) | RouteAttribute::Via(_) => return false,
            _ => {}
        }
    }
    via == spec.via && (index.is_none() || dev == index) && (spec.src.is_none() || src == spec.src)
}

fn describe(route: &RouteMessage) -> String {
    let mut words = Vec::new();
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Gateway(address) => words.extend(ip(address).map(|ip| format!("via {ip}"))),
            RouteAttribute::PrefSource(address) => words.extend(ip(address).map(|ip| format!("src {ip}"))),
            RouteAttribute::Oif(index) => {
                let name = nix::net::if_::if_indextoname(*index).map(|name| name.to_string_lossy().into_owned());
                words.push(format!("by {}", name.unwrap_or_else(|_| format!("interface {index}"))));
            }
            RouteAttribute::MultiPath(ways) => words.push(format!("on {} ways at once", ways.len())),
            _ => {}
        }
    }
    words.join(" ")
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}
