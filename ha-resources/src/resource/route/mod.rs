//! A route, IPv4 or IPv6, that is in a routing table while its hierarchy is in service.
//!
//! Decides which route of the kernel's is this one: the table, the destination and the metric name it, and it leads where it was told to.
//! A route of the same name that leads elsewhere is somebody else's: it is neither replaced nor removed. Leaves to the network whether
//! anybody is there at its other end.

mod read;
mod table;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use async_trait::async_trait;
use ha_core::Resource;
use ha_core::driver::{Context, Failed, Verdict};

use table::{Changes, Kernel, Seen};

/// Where packets go that have this route: a network, or everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    address: IpAddr,
    prefix: u8,
}

impl Destination {
    /// Everywhere, in the family of this address.
    fn everywhere(like: IpAddr) -> Destination {
        match like {
            IpAddr::V4(_) => Destination { address: Ipv4Addr::UNSPECIFIED.into(), prefix: 0 },
            IpAddr::V6(_) => Destination { address: Ipv6Addr::UNSPECIFIED.into(), prefix: 0 },
        }
    }

    /// The network's address, in which all bits behind the prefix are zero.
    pub fn address(self) -> IpAddr {
        self.address
    }

    /// How long the network's prefix is: 0 to 32, or to 128.
    pub fn prefix(self) -> u8 {
        self.prefix
    }
}

impl FromStr for Destination {
    type Err = String;

    /// Reads `"10.20.0.0/16"`, `"fd00:20::/48"`, or an address alone.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is no destination: expected \"default\", or one such as \"10.20.0.0/16\" or \"fd00:20::/48\""
            )
        };
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(most), str::parse).map_err(|_| wrong())?;
        if prefix > most {
            return Err(wrong());
        }
        let network = network_of(address, prefix);
        if network != address {
            return Err(format!("{text:?} names a machine in a network: the network is \"{network}/{prefix}\""));
        }
        Ok(Destination { address, prefix })
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefix {
            0 => write!(f, "default"),
            prefix => write!(f, "{}/{prefix}", self.address),
        }
    }
}

/// The address with all bits behind the prefix zero.
fn network_of(address: IpAddr, prefix: u8) -> IpAddr {
    let prefix = u32::from(prefix);
    match address {
        IpAddr::V4(v4) => {
            Ipv4Addr::from_bits(v4.to_bits() & u32::MAX.checked_shl(32_u32.saturating_sub(prefix)).unwrap_or(0)).into()
        }
        IpAddr::V6(v6) => {
            Ipv6Addr::from_bits(v6.to_bits() & u128::MAX.checked_shl(128_u32.saturating_sub(prefix)).unwrap_or(0))
                .into()
        }
    }
}

/// What is to be known of a route. [`RouteSpec::read`] makes sure that all addresses are of one family, and that it leads somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteSpec {
    /// Where to.
    pub to: Destination,
    /// The next machine on the way; `None` for a network that the interface is in.
    pub via: Option<IpAddr>,
    /// The interface; `None` for the one that reaches `via`.
    pub dev: Option<String>,
    /// The address that this node's own packets come from.
    pub src: Option<IpAddr>,
    /// The number of the routing table. Default 254, the main one.
    pub table: u32,
    /// Of several routes to one destination the one with the least is taken.
    pub metric: u32,
}

/// The resource. See the [module](self).
pub struct Route {
    spec: RouteSpec,
}

impl Route {
    /// A route that is not there yet, or is by an earlier life of the agent.
    pub fn new(spec: RouteSpec) -> Self {
        Route { spec }
    }

    fn fault(&self, seen: &Seen) -> Option<String> {
        match seen {
            Seen::There(_) => None,
            Seen::Dead => Some(format!("{} is dead: its interface is down", self.spec)),
            Seen::Nowhere => Some(format!("there is no {}", self.spec)),
            Seen::Other(other) => Some(format!("{} leads elsewhere: {other}", self.spec)),
            Seen::NoInterface(interface) => Some(format!("there is no interface {interface}")),
            Seen::InterfaceDown(interface) => {
                Some(format!("interface {interface} is down: `ip link set {interface} up`"))
            }
        }
    }

    fn taken(&self, other: &str) -> Failed {
        Failed(format!(
            "{} is taken by one that leads elsewhere: {other}; remove that, or give this one another metric or table",
            self.spec
        ))
    }

    /// Waits until the kernel says that it is gone, or leads elsewhere.
    async fn misfortune(&self) -> Result<String, Failed> {
        let mut changes = Changes::open(&self.spec)?;
        let kernel = Kernel::open()?;
        loop {
            // After it has begun to tell, so that nothing falls between.
            if let Some(why) = self.fault(&kernel.look(&self.spec).await?) {
                return Ok(why);
            }
            changes.next().await?;
        }
    }
}

#[async_trait]
impl Resource for Route {
    async fn start(&self, _: &Context) -> Result<(), Failed> {
        let kernel = Kernel::open()?;
        match kernel.look(&self.spec).await? {
            Seen::There(_) => return Ok(()),
            Seen::Other(other) => return Err(self.taken(&other)),
            Seen::Nowhere | Seen::Dead => {}
            seen @ (Seen::NoInterface(_) | Seen::InterfaceDown(_)) => {
                return Err(Failed(self.fault(&seen).unwrap_or_default()));
            }
        }
        kernel.add(&self.spec).await?;
        match self.fault(&kernel.look(&self.spec).await?) {
            None => Ok(()),
            Some(why) => Err(Failed(format!("it was added, but {why}"))),
        }
    }

    async fn stop(&self, _: &Context) -> Result<(), Failed> {
        let kernel = Kernel::open()?;
        kernel.remove(&self.spec).await?;
        match kernel.look(&self.spec).await? {
            Seen::There(_) | Seen::Dead => Err(Failed(format!("{} is still there", self.spec))),
            Seen::Nowhere | Seen::Other(_) | Seen::NoInterface(_) | Seen::InterfaceDown(_) => Ok(()),
        }
    }

    async fn monitor(&self, _: &Context) -> Verdict {
        let seen = match Kernel::open() {
            Ok(kernel) => kernel.look(&self.spec).await,
            Err(failed) => Err(failed),
        };
        match seen.map(|seen| self.fault(&seen)) {
            Ok(None) => Verdict::Good,
            Ok(Some(why)) => Verdict::Bad(why),
            Err(failed) => Verdict::Unknown(failed.0),
        }
    }

    async fn watch(&self, _: &Context) -> String {
        match self.misfortune().await {
            Ok(why) => why,
            // Where the kernel does not tell, the monitor does.
            Err(failed) => {
                tracing::warn!("{} is watched by its monitor only: {failed}", self.spec);
                std::future::pending().await
            }
        }
    }

    async fn ready(&self) -> Result<(), Failed> {
        match Kernel::open()?.look(&self.spec).await? {
            Seen::There(_) | Seen::Nowhere | Seen::Dead => Ok(()),
            Seen::Other(other) => Err(self.taken(&other)),
            seen @ (Seen::NoInterface(_) | Seen::InterfaceDown(_)) => {
                Err(Failed(self.fault(&seen).unwrap_or_default()))
            }
        }
    }
}

impl fmt::Display for RouteSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "route to {}", self.to)?;
        if let Some(via) = self.via {
            write!(f, " via {via}")?;
        }
        if let Some(dev) = &self.dev {
            write!(f, " by {dev}")?;
        }
        if self.table != table::MAIN {
            write!(f, " in table {}", self.table)?;
        }
        if self.metric != 0 {
            write!(f, " with metric {}", self.metric)?;
        }
        Ok(())
    }
}
