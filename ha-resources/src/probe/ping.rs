//! Utility by ICMP echo: 100 if a machine answers, else 0.
//!
//! Decides how often it is asked before it counts as silent: one lost packet must not move a service. Uses the kernel's echo sockets
//! where this user may (`net.ipv4.ping_group_range`, icmp(7)), and raw ones (raw(7), CAP_NET_RAW) elsewhere.

mod echo;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use ha_core::driver::{Failed, Probe};
use ha_core::name::Utility;
use nix::unistd;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::MARGIN;
use crate::{clock, proc};
use echo::{Framing, Token};

/// What the operator says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PingSpec {
    /// Who is asked.
    pub address: IpAddr,
    /// From the end of one measurement to the begin of the next.
    pub every: Duration,
    /// How long each attempt is waited for.
    pub timeout: Duration,
    /// How many requests are sent, one after the other, before the address counts as silent.
    pub attempts: u16,
}

impl PingSpec {
    /// With the defaults: every second, 3 attempts of 500 ms each.
    pub fn new(address: IpAddr) -> PingSpec {
        PingSpec { address, every: Duration::from_secs(1), timeout: Duration::from_millis(500), attempts: 3 }
    }
}

/// See the module's words.
#[derive(Clone, Debug)]
pub struct Ping {
    spec: PingSpec,
}

impl Ping {
    /// A probe.
    pub fn new(spec: PingSpec) -> Ping {
        Ping { spec }
    }

    /// Whether the address answered, and the last trouble if it did not.
    async fn answered(&self, socket: &AsyncFd<OwnedFd>, framing: Framing) -> Result<(), Option<io::Error>> {
        let token = token();
        let mut trouble = None;
        for sequence in 0..self.spec.attempts {
            let deadline = Instant::now() + self.spec.timeout;
            let request = echo::request(framing, sequence, token);
            if let Err(e) = unistd::write(socket.get_ref(), &request) {
                trouble = Some(e.into());
                // The way there may come back, so the next attempt has its whole time as well.
                sleep_until(deadline).await;
                continue;
            }
            match timeout_at(deadline, reply(socket, framing, token)).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(e)) => {
                    trouble = Some(e);
                    sleep_until(deadline).await;
                }
                Err(_) => {}
            }
        }
        Err(trouble)
    }
}

/// What no other request has, on this machine since it was booted.
fn token() -> Token {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed) << 32 | u64::from(std::process::id());
    let mut token = [0; 16];
    token[..8].copy_from_slice(&clock::now().0.to_be_bytes());
    token[8..].copy_from_slice(&count.to_be_bytes());
    token
}

/// A socket that sends to the address and receives from nobody else.
fn open(address: IpAddr) -> io::Result<(AsyncFd<OwnedFd>, Framing)> {
    let (domain, protocol) = match address {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let echo = Socket::new(domain, Type::DGRAM.nonblocking(), Some(protocol));
    let (socket, framing) = if let Ok(socket) = echo {
        (socket, Framing::of(address, echo::Header::None))
    } else {
        let raw = Socket::new(domain, Type::RAW.nonblocking(), Some(protocol))?;
        (raw, Framing::of(address, echo::Header::Ip))
    };
    socket.connect(&SocketAddr::new(address, 0).into())?;
    Ok((proc::wait_on(socket.into())?, framing))
}

/// Waits for the answer to any request with this token; a late one is as good.
async fn reply(socket: &AsyncFd<OwnedFd>, framing: Framing, token: Token) -> io::Result<()> {
    let mut buffer = [0; 512];
    loop {
        let read = |socket: &OwnedFd| Ok(unistd::read(socket, &mut buffer)?);
        let length = socket.async_io(Interest::READABLE, read).await?;
        if echo::is_reply(framing, &buffer[..length], token) {
            return Ok(());
        }
    }
}

#[async_trait]
impl Probe for Ping {
    async fn measure(&self) -> Result<(Utility, String), Failed> {
        let PingSpec { address, timeout, attempts, .. } = self.spec;
        let (socket, framing) = match open(address) {
            Ok(opened) => opened,
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                return Err(Failed(format!(
                    "{address} cannot be pinged: {e}; run as root, or let this user by the sysctl net.ipv4.ping_group_range"
                )));
            }
            // No way to there, which is what is measured.
            Err(e) => return Ok((Utility::NONE, format!("{address} cannot be pinged: {e}"))),
        };
        Ok(match self.answered(&socket, framing).await {
            Ok(()) => (Utility::FULL, format!("{address} answers")),
            Err(trouble) => {
                let why = trouble.map(|e| format!(": {e}")).unwrap_or_default();
                (Utility::NONE, format!("{address} answered none of {attempts} pings within {timeout:?} each{why}"))
            }
        })
    }

    fn every(&self) -> Duration {
        self.spec.every
    }

    fn timeout(&self) -> Duration {
        self.spec.timeout * u32::from(self.spec.attempts) + MARGIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::TwoNetworks;
    use std::mem::MaybeUninit;

    fn ping(address: &str) -> PingSpec {
        PingSpec { timeout: Duration::from_secs(10), ..PingSpec::new(address.parse().unwrap()) }
    }

    fn measure(spec: PingSpec) -> (Utility, String) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(Ping::new(spec).measure()).unwrap()
    }

    #[test]
    fn this_machine_answers_itself() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: only root can surely ping");
            return;
        }
        for address in ["127.0.0.1", "::1"] {
            assert_eq!(measure(ping(address)), (Utility::FULL, format!("{address} answers")));
        }
    }

    #[test]
    fn a_neighbour_answers_and_an_unused_address_does_not_with_either_kind_of_socket() {
        for range in ["1 0", "0 0"] {
            let Some(networks) = neighbours() else { return };
            networks.inside(0, || std::fs::write("/proc/sys/net/ipv4/ping_group_range", range).unwrap());
            networks.inside(0, || {
                assert_eq!(measure(ping("10.99.0.2")).0, Utility::FULL);
                assert_eq!(measure(ping("fd99::2")).0, Utility::FULL);
                for silent in ["10.99.0.3", "fd99::3", "192.0.2.1", "2001:db8::1"] {
                    let (utility, why) = measure(PingSpec { timeout: Duration::from_millis(20), ..ping(silent) });
                    assert_eq!(utility, Utility::NONE);
                    assert!(why.starts_with(silent), "{why}");
                }
            });
        }
    }

    #[test]
    fn a_lost_ping_does_not_make_a_node_useless() {
        let Some(networks) = neighbours() else { return };
        let deaf = |yes: &str| std::fs::write("/proc/sys/net/ipv4/icmp_echo_ignore_all", yes).unwrap();
        let witness = networks.inside(1, || {
            deaf("1");
            Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).unwrap()
        });
        std::thread::scope(|scope| {
            scope.spawn(|| {
                witness.recv(&mut [MaybeUninit::uninit(); 512]).unwrap();
                networks.inside(1, || deaf("0"));
            });
            let spec = PingSpec { timeout: Duration::from_secs(1), attempts: 30, ..ping("10.99.0.2") };
            assert_eq!(networks.inside(0, || measure(spec)).0, Utility::FULL);
        });
    }

    fn neighbours() -> Option<TwoNetworks> {
        let networks = TwoNetworks::new()?;
        for (which, last) in [(0, "1"), (1, "2")] {
            networks.ip(which, &format!("address add 10.99.0.{last}/24 dev veth"));
            networks.ip(which, &format!("address add fd99::{last}/64 dev veth nodad"));
        }
        Some(networks)
    }
}
