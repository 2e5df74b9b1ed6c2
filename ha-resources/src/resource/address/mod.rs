//! A service address on an interface, IPv4 or IPv6.
//!
//! Decides how an address is taken, told to the network, defended and given up. Leaves to the claim whether it may be taken: under a
//! proven claim a former holder that still has it is hung or fenced, and telling the network is right. So nothing is waited for when it
//! is taken: it is added, announced at once, and announced again (after 100 ms, 1 s and 5 s, then every `announce_every`, and
//! whenever the link comes back), since single frames are lost and networks heal.
//!
//! When another machine says by ARP that the address is its own, it is told anew where it is; for IPv6 that is heard nowhere, and the
//! announcements that come anyway must do.
//!
//! A lost carrier is not a failure of the address: if every node's switch died, failing over would only spread the outage. It makes a node
//! that does not serve unready; for one that serves, use a probe as the hierarchy's utility.

mod frames;
pub(in crate::resource) mod netlink;
mod packet;
mod removal;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use ha_core::Resource;
use ha_core::driver::{Context, Failed, Found, KillHandle, Verdict};
use ha_core::hierarchy::Fields;
use ha_core::time::Span;
use tokio::task::AbortHandle;

use netlink::{Detection, Link, Listener, Netlink, News, Present};
use packet::PacketSocket;
pub(crate) use removal::remove_now;

/// After the first announcement, these follow.
const AGAIN: [Duration; 3] = [Duration::from_millis(100), Duration::from_secs(1), Duration::from_secs(5)];
/// How long an answer to a probe is waited for where a conflict is to refuse the start.
const PROBE_WAIT: Duration = Duration::from_millis(200);
/// From one defence to the next: two that defend one address against each other must not fill the network (RFC 5227, section 2.4).
const DEFENCE_PAUSE: Duration = Duration::from_millis(500);
/// Before the announcer tries again when the kernel refused it what it needs.
const TRY_AGAIN: Duration = Duration::from_secs(1);

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

/// What is to be seen of an address on its node.
enum Seen {
    NoInterface,
    Interface { link: Link, present: Option<Present> },
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

    /// What is to be seen of it on this node now.
    async fn look(&self, netlink: &Netlink) -> Result<Seen, Failed> {
        let Some(link) = netlink.link(&self.spec.interface).await? else { return Ok(Seen::NoInterface) };
        let present = netlink.find(link.index, self.ip()).await?;
        Ok(Seen::Interface { link, present })
    }

    async fn usable_link(&self, netlink: &Netlink) -> Result<Link, Failed> {
        match netlink.link(&self.spec.interface).await? {
            None => Err(Failed(self.no_interface())),
            Some(link) if !link.up => Err(Failed(self.interface_is_down())),
            Some(link) => Ok(link),
        }
    }

    fn no_interface(&self) -> String {
        format!("there is no interface {}", self.spec.interface)
    }

    fn not_there(&self) -> String {
        format!("{} is not on {}", self.ip(), self.spec.interface)
    }

    fn interface_is_down(&self) -> String {
        format!("interface {0} is down: `ip link set {0} up`", self.spec.interface)
    }

    /// Announces now, and from then on.
    fn announce_from_now(&self, link: &Link) {
        let socket = announce(self.ip(), link);
        let task = tokio::spawn(keep_announcing(self.spec.clone(), link.index, socket)).abort_handle();
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

    /// Waits until the kernel says that the address is of no use here any more.
    async fn misfortune(&self) -> Result<String, Failed> {
        let interface = &self.spec.interface;
        let mut listener = Listener::open()?;
        let netlink = Netlink::open()?;
        // After the listener has begun to hear, so that nothing falls between.
        let index = match self.look(&netlink).await? {
            Seen::NoInterface => return Ok(self.no_interface()),
            Seen::Interface { link, .. } if !link.up => return Ok(self.interface_is_down()),
            Seen::Interface { present: None, .. } => return Ok(self.not_there()),
            Seen::Interface { link, .. } => link.index,
        };
        while let Some(news) = listener.next().await {
            match news {
                // It may have been there twice, with prefixes of two lengths.
                News::AddressGone(at, ip)
                    if at == index && ip == self.ip() && netlink.find(index, ip).await?.is_none() =>
                {
                    return Ok(format!("{ip} was removed from {interface} by somebody else"));
                }
                News::LinkGone(at) if at == index => return Ok(format!("interface {interface} is gone")),
                News::Link(now) if now.index == index && !now.up => {
                    return Ok(format!("interface {interface} was set down"));
                }
                _ => {}
            }
        }
        Err(Failed("the kernel closed the connection that tells of changes".into()))
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
        // No interface, no address on it. That it cannot be asked for is something else.
        let Some(link) = netlink.link(&self.spec.interface).await? else { return Ok(()) };
        if self.ip().is_ipv4()
            && let Err(error) = netlink::keep_secondaries(&self.spec.interface)
        {
            let interface = &self.spec.interface;
            tracing::warn!("other addresses of {interface} may go with {}: promote_secondaries: {error}", self.ip());
        }
        netlink.remove(link.index, self.ip()).await?;
        match netlink.find(link.index, self.ip()).await? {
            None => Ok(()),
            Some(_) => Err(Failed(format!("{} is still on {}", self.ip(), self.spec.interface))),
        }
    }

    async fn monitor(&self, _: &Context) -> Verdict {
        let seen = match Netlink::open() {
            Ok(netlink) => self.look(&netlink).await,
            Err(failed) => Err(failed),
        };
        match seen {
            Err(failed) => Verdict::Unknown(failed.0),
            Ok(Seen::NoInterface) => Verdict::Bad(self.no_interface()),
            Ok(Seen::Interface { link, .. }) if !link.up => Verdict::Bad(self.interface_is_down()),
            Ok(Seen::Interface { present: None, .. }) => Verdict::Bad(self.not_there()),
            Ok(Seen::Interface { present: Some(present), .. }) if present.dad_failed => {
                Verdict::Bad(format!("{} is a duplicate", self.ip()))
            }
            Ok(Seen::Interface { present: Some(_), .. }) => Verdict::Good,
        }
    }

    async fn adopt(&self, _: &Context) -> Result<Found, Failed> {
        match self.look(&Netlink::open()?).await? {
            Seen::NoInterface | Seen::Interface { present: None, .. } => Ok(Found::Stopped),
            // On an interface that is down too: it would be on the network again as soon as that comes up.
            Seen::Interface { link, present: Some(_) } => {
                self.announce_from_now(&link);
                Ok(Found::Running)
            }
        }
    }

    async fn watch(&self, _: &Context) -> String {
        match self.misfortune().await {
            Ok(why) => why,
            // Where the kernel does not tell, the monitor does.
            Err(failed) => {
                tracing::warn!("{} is watched by its monitor only: {failed}", self.ip());
                std::future::pending().await
            }
        }
    }

    async fn ready(&self) -> Result<(), Failed> {
        let netlink = Netlink::open()?;
        let link = self.usable_link(&netlink).await?;
        if link.carrier { Ok(()) } else { Err(Failed(format!("interface {} has no carrier", self.spec.interface))) }
    }

    /// Always the address, there or not: taking it off where it is not does nothing, and so it is guarded from before a start adds it.
    fn handles(&self, _context: &Context) -> Vec<KillHandle> {
        vec![KillHandle::Address { interface: self.spec.interface.clone(), address: self.ip() }]
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

/// Tells the network once, and leaves the socket for the next time. A frame that cannot be sent now is sent with the next announcement.
fn announce(ip: IpAddr, link: &Link) -> Option<PacketSocket> {
    let mac = link.mac?;
    match PacketSocket::open(link.index) {
        Ok(socket) => {
            send_all(&socket, ip, mac);
            Some(socket)
        }
        Err(error) => {
            tracing::warn!("{ip} cannot be announced: {error}");
            None
        }
    }
}

fn send_all(socket: &PacketSocket, ip: IpAddr, mac: frames::Mac) {
    for frame in frames::announcements(ip, mac) {
        if let Err(error) = socket.send(&frame) {
            tracing::debug!("{ip} could not be announced now: {error}");
        }
    }
}

/// When to announce next. Nothing that happens in between puts it off.
struct Schedule {
    /// What is left of [`AGAIN`].
    again: std::array::IntoIter<Duration, { AGAIN.len() }>,
    every: Duration,
    due: Instant,
    /// The last time.
    defended: Option<Instant>,
    /// The next time, if there is something to answer.
    defence: Option<Instant>,
}

impl Schedule {
    /// After a first announcement just now.
    fn new(every: Duration) -> Self {
        let mut schedule =
            Schedule { again: AGAIN.into_iter(), every, due: Instant::now(), defended: None, defence: None };
        schedule.announced(Instant::now());
        schedule
    }

    fn next(&self) -> Instant {
        self.defence.map_or(self.due, |defence| defence.min(self.due))
    }

    /// Everything due until now was announced.
    fn announced(&mut self, now: Instant) {
        if self.due <= now {
            self.due = now + self.again.next().unwrap_or(self.every);
        }
        if self.defence.is_some_and(|due| due <= now) {
            (self.defended, self.defence) = (Some(now), None);
        }
    }

    /// Somebody else says that the address is theirs: to be answered at once, if it was not answered just before. Whether this is news.
    fn defend(&mut self, now: Instant) -> bool {
        let news = self.defence.is_none();
        self.defence.get_or_insert(self.defended.map_or(now, |last| now.max(last + DEFENCE_PAUSE)));
        news
    }
}

/// Announces again and again, until it is aborted or the address is gone, which is told by [`Resource::watch`] and the monitor.
async fn keep_announcing(spec: AddressSpec, index: u32, mut socket: Option<PacketSocket>) {
    let mut schedule = Schedule::new(spec.announce_every);
    loop {
        let Err(failed) = announce_while_there(&spec, index, socket.take(), &mut schedule).await else { return };
        tracing::warn!("{} is not announced again for now: {failed}", spec.address.address);
        tokio::time::sleep(TRY_AGAIN).await;
    }
}

/// Announces whenever it is due, when the link comes back, and when somebody else says that the address is theirs. Ends when the address
/// is taken off the interface, by a warden for one: another node may have it by then.
async fn announce_while_there(
    spec: &AddressSpec,
    index: u32,
    socket: Option<PacketSocket>,
    schedule: &mut Schedule,
) -> Result<(), Failed> {
    let ip = spec.address.address;
    let mut listener = Listener::open()?;
    let gone = || Failed(format!("there is no interface {}", spec.interface));
    let netlink = Netlink::open()?;
    let mut link = netlink.link(&spec.interface).await?.filter(|link| link.index == index).ok_or_else(gone)?;
    // After the listener has begun to hear, so that nothing falls between.
    if netlink.find(index, ip).await?.is_none() {
        return Ok(());
    }
    let socket = match socket {
        Some(socket) => socket,
        None => PacketSocket::open(index).map_err(Failed::new)?,
    };
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(schedule.next().into()) => {}
            news = listener.next() => match news {
                Some(News::Link(now)) if now.index == index => {
                    let back = now.carrier && !link.carrier;
                    link = now;
                    if !back {
                        continue;
                    }
                }
                Some(News::AddressGone(at, gone)) if at == index && gone == ip => {
                    if netlink.find(index, ip).await?.is_none() {
                        return Ok(());
                    }
                    continue;
                }
                Some(_) => continue,
                None => return Err(Failed("the kernel closed the connection that tells of changes".into())),
            },
            frame = socket.receive() => {
                let (Ok(frame), IpAddr::V4(v4)) = (frame, ip) else { continue };
                if let Some(other) = frames::arp_claims(&frame, v4).filter(|other| Some(*other) != link.mac)
                    && schedule.defend(Instant::now())
                {
                    tracing::warn!("{ip} is said to be at {} too: saying again that it is here", mac_text(other));
                }
                continue;
            }
        }
        if let Some(mac) = link.mac {
            send_all(&socket, ip, mac);
        }
        schedule.announced(Instant::now());
    }
}
