//! Utility by a TCP connection: 100 if somebody accepts it, else 0.
//!
//! Decides nothing about what would be said on the connection: it is closed at once.

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use ha_core::driver::{Failed, Probe};
use ha_core::name::Utility;
use tokio::net::TcpStream;

use super::MARGIN;

/// What the operator says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpSpec {
    /// To where.
    pub address: SocketAddr,
    /// From the end of one measurement to the begin of the next.
    pub every: Duration,
    /// How long connecting may take. The default is long enough for one lost packet, which is sent again after a second (RFC 6298).
    pub timeout: Duration,
}

impl TcpSpec {
    /// With the default times: every second, within 2 seconds.
    pub fn new(address: SocketAddr) -> TcpSpec {
        TcpSpec { address, every: Duration::from_secs(1), timeout: Duration::from_secs(2) }
    }
}

/// See the module's words.
#[derive(Clone, Debug)]
pub struct Tcp {
    spec: TcpSpec,
}

impl Tcp {
    /// A probe.
    pub fn new(spec: TcpSpec) -> Tcp {
        Tcp { spec }
    }
}

#[async_trait]
impl Probe for Tcp {
    async fn measure(&self) -> Result<(Utility, String), Failed> {
        let TcpSpec { address, timeout, .. } = self.spec;
        Ok(match tokio::time::timeout(timeout, TcpStream::connect(address)).await {
            Ok(Ok(_)) => (Utility::FULL, format!("{address} accepts connections")),
            Ok(Err(e)) => (Utility::NONE, format!("{address} cannot be connected to: {e}")),
            Err(_) => (Utility::NONE, format!("{address} did not accept a connection within {timeout:?}")),
        })
    }

    fn every(&self) -> Duration {
        self.spec.every
    }

    fn timeout(&self) -> Duration {
        self.spec.timeout + MARGIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_is_useful_while_somebody_listens_there() {
        for host in ["127.0.0.1:0", "[::1]:0"] {
            let listener = std::net::TcpListener::bind(host).unwrap();
            let spec = TcpSpec { timeout: Duration::from_secs(30), ..TcpSpec::new(listener.local_addr().unwrap()) };
            let probe = Tcp::new(spec);
            assert_eq!(probe.measure().await.unwrap().0, Utility::FULL);
            drop(listener);
            let (utility, why) = probe.measure().await.unwrap();
            assert_eq!(utility, Utility::NONE);
            assert!(why.contains("refused"), "{why}");
        }
    }
}
