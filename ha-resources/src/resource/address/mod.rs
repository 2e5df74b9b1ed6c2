//! A service address on an interface, IPv4 or IPv6.
//!
//! Decides how an address is taken, told to the network, defended and given up. Leaves to the claim whether it may be taken: under a
//! proven claim a former holder that still has it is hung or fenced, and telling the network is right. So nothing is waited for when it
//! is taken: it is added, announced at once, and announced again (after 100 ms, 1 s and 5 s, then every `announce_every`, and
//! whenever the link comes back), since single frames are lost and networks heal.
//!
//! A lost carrier is not a failure of the address: if every node's switch died, failing over would only spread the outage. It makes a node
//! that does not serve unready; for one that serves, use a probe as the hierarchy's utility.

mod frames;
mod netlink;
mod packet;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use ha_core::Resource;
use ha_core::driver::{Context, Failed, Found, Verdict};
use ha_core::hierarchy::Fields;
use ha_core::time::Span;
use tokio::task::AbortHandle;

use netlink::{Detection, Link, Listener, Netlink, News};
use packet::PacketSocket;

/// After the first announcement, these follow.
const AGAIN: [Duration; 3] = [Duration::from_millis(100), Duration::from_secs(1), Duration::from_secs(5)];
/// How long an answer to a probe is waited for where a conflict is to refuse the start.
const PROBE_WAIT: Duration = Duration::from_millis(200);

/// An address with the length of its network's prefix: "10.0.0.10/24".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    /// The address.
    pub address: IpAddr,
    /// 0 to 32, or to 128.
    pub prefix: u8,
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is not an address with its prefix: expected one such as \"10.0.0.10/24\" or \"fd00::10/64\""
            )
        };
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let prefix: u8 = prefix.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        if prefix > most || address.is_unspecified() || address.is_multicast() {
            return Err(wrong());
        }
        Ok(Cidr { address, prefix })
    }
}

/// What is done when somebody else has the address already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnConflict {
    /// Take it all the same and tell everybody: the claim says that it is ours.
    Announce,
    /// Do not start. For addresses without a claim that arbitrates: costs a wait of 200 ms, or the kernel's duplicate address detection.
    Refuse,
}

/// What is to be known of a service address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressSpec {
    /// The address and its prefix.
    pub address: Cidr,
    /// The interface.
    pub interface: String,
    /// Default: announce.
    pub on_conflict: OnConflict,
    /// Announced this often while it is here. Default 30 s.
    pub announce_every: Duration,
}

impl AddressSpec {
    /// With the defaults.
    pub fn new(address: Cidr, interface: impl Into<String>) -> Self {
        let announce_every = Duration::from_secs(30);
        AddressSpec { address, interface: interface.into(), on_conflict: OnConflict::Announce, announce_every }
    }

    /// Reads `Address(address: "10.0.0.10/24", interface: "eth0", on_conflict: Announce, announce_every: "30s")`.
    pub fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let text: Option<String> = fields.required("address", "an address with its prefix, such as \"10.0.0.10/24\"");
        let interface: Option<String> = fields.required("interface", "the name of an interface, such as \"eth0\"");
        let every = fields.or("announce_every", "a length of time such as \"30s\"", Span(Duration::from_secs(30))).0;
        let on_conflict = match fields.value("on_conflict") {
            None => Some(OnConflict::Announce),
            Some(value) => match value.text() {
                "Announce" => Some(OnConflict::Announce),
                "Refuse" => Some(OnConflict::Refuse),
                other => {
                    value.unknown_name("way to treat a conflict", other, &["Announce", "Refuse"]);
                    None
                }
            },
        };
        let address = text.and_then(|t| t.parse().map_err(|e: String| fields.problem("address", &e, None)).ok());
        let interface = interface.filter(|name| {
            // The kernel's limit (IFNAMSIZ).
            let fits = !name.is_empty() && name.len() <= 15 && !name.contains(['/', ' ']);
            if !fits {
                fields.problem(
                    "interface",
                    "this is no interface name: expected 1 to 15 characters, such as \"eth0\"",
                    None,
                );
            }
            fits
        });
        if every < Duration::from_secs(1) {
            fields.problem("announce_every", "expected at least \"1s\"", None);
            return None;
        }
        Some(AddressSpec { address: address?, interface: interface?, on_conflict: on_conflict?, announce_every: every })
    }
}

/// The resource. See the [module](self).
pub struct Address {
    spec: AddressSpec,
    announcer: Mutex<Option<AbortHandle>>,
}

impl Address {
    /// An address that is not on the interface yet, or is by an earlier life of the agent.
    pub fn new(spec: AddressSpec) -> Self {
        Address { spec, announcer: Mutex::new(None) }
    }

    fn ip(&self) -> IpAddr {
        self.spec.address.address
    }

    async fn usable_link(&self, netlink: &Netlink) -> Result<Link, Failed> {
        let link = netlink.link(&self.spec.interface).await?;
        if !link.up {
            return Err(Failed(format!("interface {0} is down: `ip link set {0} up`", self.spec.interface)));
        }
        Ok(link)
    }

    /// Announces now, and from then on.
    fn announce_from_now(&self, link: &Link) {
        announce(self.ip(), link);
        let task = tokio::spawn(keep_announcing(self.spec.clone(), link.index)).abort_handle();
        if let Some(earlier) = self.lock().replace(task) {
            earlier.abort();
        }
    }

    fn stop_announcing(&self) {
        if let Some(task) = self.lock().take() {
            task.abort();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<AbortHandle>> {
        self.announcer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn refuse_conflict(&self, link: &Link) -> Result<(), Failed> {
        let (IpAddr::V4(ip), Some(mac)) = (self.ip(), link.mac) else { return Ok(()) };
        let socket = PacketSocket::open(link.index).map_err(|e| Failed(format!("cannot probe for {ip}: {e}")))?;
        socket.send(&frames::probe(ip, mac)).map_err(|e| Failed(format!("cannot probe for {ip}: {e}")))?;
        let heard = async {
            loop {
                match socket.receive().await {
                    Ok(frame) => {
                        if let Some(other) = frames::arp_claims(&frame, ip).filter(|other| *other != mac) {
                            return other;
                        }
                    }
                    Err(_) => std::future::pending().await,
                }
            }
        };
        match tokio::time::timeout(PROBE_WAIT, heard).await {
            Ok(other) => {
                Err(Failed(format!("{ip} is in use by {}: take it off there, or use another address", mac_text(other))))
            }
            Err(_) => Ok(()),
        }
    }

    async fn wait_for_detection(&self, netlink: &Netlink, link: u32) -> Result<(), Failed> {
        let ip = self.ip();
        loop {
            match netlink.find(link, ip).await? {
                None => return Err(Failed(format!("{ip} vanished from {} again", self.spec.interface))),
                Some(p) if p.dad_failed => {
                    netlink.remove(link, ip).await?;
                    return Err(Failed(format!("{ip} is in use elsewhere: the kernel found a duplicate")));
                }
                Some(p) if !p.tentative => return Ok(()),
                Some(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }
}

#[async_trait]
impl Resource for Address {
    async fn start(&self, _: &Context) -> Result<(), Failed> {
        let netlink = Netlink::open()?;
        let link = self.usable_link(&netlink).await?;
        let Cidr { address, prefix } = self.spec.address;
        let refuse = self.spec.on_conflict == OnConflict::Refuse && netlink.find(link.index, address).await?.is_none();
        if refuse {
            self.refuse_conflict(&link).await?;
        }
        let detection = if refuse { Detection::Kernel } else { Detection::Skip };
        netlink.add(link.index, address, prefix, detection).await?;
        if refuse && address.is_ipv6() {
            self.wait_for_detection(&netlink, link.index).await?;
        }
        self.announce_from_now(&link);
        Ok(())
    }

    async fn stop(&self, _: &Context) -> Result<(), Failed> {
        self.stop_announcing();
        let netlink = Netlink::open()?;
        // No interface, no address on it.
        let Ok(link) = netlink.link(&self.spec.interface).await else { return Ok(()) };
        netlink.remove(link.index, self.ip()).await?;
        match netlink.find(link.index, self.ip()).await? {
            None => Ok(()),
            Some(_) => Err(Failed(format!("{} is still on {}", self.ip(), self.spec.interface))),
        }
    }

    async fn monitor(&self, _: &Context) -> Verdict {
        let look = async {
            let netlink = Netlink::open()?;
            let link = self.usable_link(&netlink).await?;
            netlink.find(link.index, self.ip()).await
        };
        match look.await {
            Ok(Some(present)) if present.dad_failed => Verdict::Bad(format!("{} is a duplicate", self.ip())),
            Ok(Some(_)) => Verdict::Good,
            Ok(None) => Verdict::Bad(format!("{} is not on {}", self.ip(), self.spec.interface)),
            Err(failed) => Verdict::Bad(failed.0),
        }
    }

    async fn adopt(&self, _: &Context) -> Result<Found, Failed> {
        let netlink = Netlink::open()?;
        let Ok(link) = self.usable_link(&netlink).await else { return Ok(Found::Stopped) };
        if netlink.find(link.index, self.ip()).await?.is_none() {
            return Ok(Found::Stopped);
        }
        self.announce_from_now(&link);
        Ok(Found::Running)
    }

    async fn watch(&self, _: &Context) -> String {
        // Where the kernel does not tell, the monitor does.
        let Ok(mut listener) = Listener::open() else { return std::future::pending().await };
        let Ok(link) = (match Netlink::open() {
            Ok(netlink) => netlink.link(&self.spec.interface).await,
            Err(failed) => Err(failed),
        }) else {
            return format!("interface {} is gone", self.spec.interface);
        };
        while let Some(news) = listener.next().await {
            match news {
                News::AddressGone(index, ip) if index == link.index && ip == self.ip() => {
                    return format!("{ip} was removed from {} by somebody else", self.spec.interface);
                }
                News::LinkGone(index) if index == link.index => {
                    return format!("interface {} is gone", self.spec.interface);
                }
                News::Link(now) if now.index == link.index && !now.up => {
                    return format!("interface {} was set down", self.spec.interface);
                }
                _ => {}
            }
        }
        std::future::pending().await
    }

    async fn ready(&self) -> Result<(), Failed> {
        let netlink = Netlink::open()?;
        let link = self.usable_link(&netlink).await?;
        if link.carrier { Ok(()) } else { Err(Failed(format!("interface {} has no carrier", self.spec.interface))) }
    }
}

impl Drop for Address {
    fn drop(&mut self) {
        self.stop_announcing();
    }
}

fn mac_text(mac: frames::Mac) -> String {
    mac.map(|b| format!("{b:02x}")).join(":")
}

/// Tells the network once. A frame that cannot be sent now is sent with the next announcement.
fn announce(ip: IpAddr, link: &Link) {
    let Some(mac) = link.mac else { return };
    match PacketSocket::open(link.index) {
        Ok(socket) => send_all(&socket, ip, mac),
        Err(error) => tracing::warn!("{ip} cannot be announced: {error}"),
    }
}

fn send_all(socket: &PacketSocket, ip: IpAddr, mac: frames::Mac) {
    for frame in frames::announcements(ip, mac) {
        if let Err(error) = socket.send(&frame) {
            tracing::debug!("{ip} could not be announced now: {error}");
        }
    }
}

/// Announces again and again, when the link comes back, and when somebody else says that the address is theirs.
async fn keep_announcing(spec: AddressSpec, index: u32) {
    let ip = spec.address.address;
    let (Ok(netlink), Ok(mut listener)) = (Netlink::open(), Listener::open()) else { return };
    let Ok(mut link) = netlink.link(&spec.interface).await else { return };
    let Ok(socket) = PacketSocket::open(index) else { return };
    let mut first = AGAIN.into_iter();
    let mut wait = first.next().unwrap_or(spec.announce_every);
    loop {
        tokio::select! {
            () = tokio::time::sleep(wait) => wait = first.next().unwrap_or(spec.announce_every),
            news = listener.next() => match news {
                Some(News::Link(now)) if now.index == index => {
                    let back = now.carrier && !link.carrier;
                    link = now;
                    if !back {
                        continue;
                    }
                }
                Some(_) => continue,
                None => return,
            },
            frame = socket.receive() => {
                let (Ok(frame), IpAddr::V4(v4)) = (frame, ip) else { continue };
                match frames::arp_claims(&frame, v4).filter(|other| Some(*other) != link.mac) {
                    Some(other) => {
                        tracing::warn!("{ip} is said to be at {} too: saying again that it is here", mac_text(other));
                        // Two that defend against each other must not fill the network (RFC 5227, section 2.4).
                        tokio::time::sleep(Duration::from_millis(500)).await;
                    }
                    None => continue,
                }
            }
        }
        if let Some(mac) = link.mac {
            send_all(&socket, ip, mac);
        }
    }
}
